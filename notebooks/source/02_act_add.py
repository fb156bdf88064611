# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # ActAdd: two prompts make a vector
#
# **Activation addition** (Turner and others, 2023) needs no data and no training. Take two prompts
# that differ in what you care about, such as " wonderful" and " terrible". Run the model on both and
# subtract the activations. Add the result to the activations of a third text.
#
# **Goals.** After this unit you can
#
# - build ActAdd from nothing but hooks, and say what each row of its matrix belongs to;
# - measure what a steering does to predictions: the odds of some words, and how much changes at all;
# - choose strength, layer and position by measuring, and say what each of them does;
# - name four ways in which ActAdd breaks, and see them coming.
#
# **Before.** Unit 1: you can write a hook that leaves its argument alone.
#
# **Time.** 120 minutes, 70 of them for nine exercises.

# %%
import os
from contextlib import nullcontext

import pandas as pd
import torch
from checks.display import flush_left, panels, quiet

import steerlens
from steerlens import ActAdd, Conversation, Site, at, scope
from steerlens.analysis import coefficients, coloured_text, figures
from steerlens.methods.act_add import space_token
from steerlens.runtime.forward import logits

quiet()
SEED = 0

# %%
model = steerlens.load(os.environ.get("STEERLENS_MODEL", "demo"))
# A chat template says how a conversation is written down. Models without one get a plain one.
model.tokenizer.chat_template = model.tokenizer.chat_template or steerlens.PLAIN
n_layers, d_model = model.cfg.n_layers, model.cfg.d_model
layer = n_layers // 2
print(f"{n_layers} layers, {d_model} numbers in an activation; we act at layer {layer}")

# %% [markdown]
# ## 1. By hand
#
# ### Tokens
#
# Our two prompts. One has more tokens than the other, on purpose. `to_tokens` puts **BOS** in front,
# the token that begins every text. (`Ġ` or `▁` is how tokenizers write a leading space.)

# %%
POSITIVE, NEGATIVE = " wonderful film", " terrible"
both = [model.to_tokens(text) for text in (POSITIVE, NEGATIVE)]


def names(tokens):
    return model.tokenizer.convert_ids_to_tokens(tokens[0].tolist())


for tokens in both:
    print(names(tokens))

# %% [markdown]
# We are going to subtract position by position, so both need the same number of tokens. The shorter
# one is filled up with **spaces** at its end. The space is an ordinary token that the model attends
# to, not masked padding. The paper tried others: an end-of-text token works notably worse.

# %% exercise [markdown] name="padded" difficulty=1 importance=1 minutes=5
# ### Make them equally long
#
# Write `padded(tokens, length, space)`. `tokens` is `[1, positions]`, as above. Return the same
# tokens, followed by as many `space` tokens as are missing up to `length`.

# %% hint [markdown]
# How many are missing? `length - tokens.shape[1]`; that may be none.

# %% hint [markdown]
# `torch.full((1, missing), space)` is a row of spaces. `torch.cat([a, b], dim=...)` puts two tensors
# side by side; which axis holds the positions?


# %% stub
def padded(tokens, length, space):
    """The tokens [1, positions], with spaces after them up to [1, length]."""
    ...


# %% wrong says="in front"
def padded(tokens, length, space):
    missing = length - tokens.shape[1]
    return torch.cat([torch.full((1, missing), space), tokens], dim=1)


# %% wrong says="How many are *missing*"
def padded(tokens, length, space):
    return torch.cat([tokens, torch.full((1, length), space)], dim=1)


# %% wrong says="off by one"
def padded(tokens, length, space):
    missing = max(0, length - tokens.shape[1] - 1)
    return torch.cat([tokens, torch.full((1, missing), space)], dim=1)


# %% wrong says="returns nothing"
def padded(tokens, length, space):
    missing = length - tokens.shape[1]
    torch.cat([tokens, torch.full((1, missing), space)], dim=1)


# %% solution
def padded(tokens, length, space):
    """The tokens [1, positions], with spaces after them up to [1, length]."""
    missing = length - tokens.shape[1]
    return torch.cat([tokens, torch.full((1, missing), space)], dim=1)


# %%
length = max(tokens.shape[1] for tokens in both)
plus_tokens, minus_tokens = (padded(tokens, length, space_token(model)) for tokens in both)
pd.DataFrame({"plus": names(plus_tokens), "minus": names(minus_tokens)}).T

# %% [markdown]
# ### The activations that go into the layer
#
# `resid_pre` is the residual stream before a layer. ActAdd reads there and later writes there, at
# the same layer. `run_with_cache` runs the model and keeps the activations:
#
# ```python
# _, cache = model.run_with_cache(tokens)
# cache["blocks.3.hook_resid_pre"]     # [texts, positions, d_model]
# ```

# %% exercise [markdown] name="activations_into" difficulty=1 importance=2 minutes=5
# ### Read them
#
# Write `activations_into(model, tokens, layer)`: the activations that go *into* layer `layer` for one
# text, `[positions, d_model]`, without the axis of texts.

# %% hint [markdown]
# The name of the place depends on the layer: `f"blocks.{layer}. ..."`.

# %% hint [markdown]
# There is one text, and its index is 0: `cache[name][0]`. With `names_filter=name` the cache keeps
# only what you need.


# %% stub
def activations_into(model, tokens, layer):
    """What goes into a layer for one text, [positions, d_model]."""
    name = ...
    _, cache = model.run_with_cache(tokens, names_filter=name)
    return ...


# %% wrong says="comes *out* of the layer"
def activations_into(model, tokens, layer):
    name = f"blocks.{layer}.hook_resid_post"
    _, cache = model.run_with_cache(tokens, names_filter=name)
    return cache[name][0]


# %% wrong says="Wrong layer"
def activations_into(model, tokens, layer):
    name = f"blocks.{layer - 1}.hook_resid_pre"
    _, cache = model.run_with_cache(tokens, names_filter=name)
    return cache[name][0]


# %% wrong says="axis of texts"
def activations_into(model, tokens, layer):
    name = f"blocks.{layer}.hook_resid_pre"
    _, cache = model.run_with_cache(tokens, names_filter=name)
    return cache[name]


# %% wrong says="last position alone"
def activations_into(model, tokens, layer):
    name = f"blocks.{layer}.hook_resid_pre"
    _, cache = model.run_with_cache(tokens, names_filter=name)
    return cache[name][0, -1]


# %% solution
def activations_into(model, tokens, layer):
    """What goes into a layer for one text, [positions, d_model]."""
    name = f"blocks.{layer}.hook_resid_pre"
    _, cache = model.run_with_cache(tokens, names_filter=name)
    return cache[name][0]


# %%
plus = activations_into(model, plus_tokens, layer)
minus = activations_into(model, minus_tokens, layer)
print(list(plus.shape), "= [positions, d_model]")

# %% exercise [markdown] name="difference" difficulty=1 importance=3 minutes=5
# ### Subtract
#
# Write `difference(plus, minus)`: the matrix of ActAdd, that leads *from the minus prompt to the plus
# prompt*. One row for each position; nothing is averaged and nothing is normalised.

# %% hint [markdown]
# What must be added to `minus` so that it becomes `plus`?

# %% hint [markdown]
# It is as short as it looks: one subtraction, and `return`.


# %% stub
def difference(plus, minus):
    """The matrix of ActAdd, [positions, d_model]."""
    ...


# %% wrong says="Wrong sign"
def difference(plus, minus):
    return minus - plus


# %% wrong says="averaged over positions"
def difference(plus, minus):
    return (plus - minus).mean(dim=0)


# %% wrong says="length 1"
def difference(plus, minus):
    rows = plus - minus
    return rows / rows.norm(dim=-1, keepdim=True)


# %% wrong says="wrote into the tensor"
def difference(plus, minus):
    plus -= minus
    return plus


# %% solution
def difference(plus, minus):
    """The matrix of ActAdd, [positions, d_model]."""
    return plus - minus


# %%
v = difference(plus, minus)
pd.DataFrame(
    {
        "plus": names(plus_tokens),
        "minus": names(minus_tokens),
        "length of the row of v": v.norm(dim=-1).tolist(),
        "length of the activation (plus)": plus.norm(dim=-1).tolist(),
    }
)

# %% [markdown]
# Row 0 belongs to BOS, and it is zero: a token sees only what stands before it, and before BOS both
# prompts are the same. Compare the last two columns: the difference of two words can be as long as
# the activations themselves. Look at the length of BOS, too. In many models it is far longer than any
# other token's, which is one more reason to be glad that its row is zero.

# %%
assert v[0].abs().max() < 1e-4 * plus[0].abs().max(), "the BOS row must be zero"

# %% exercise [markdown] name="add_to_front" difficulty=2 importance=3 minutes=10
# ### Add it to the front of another text
#
# A strength `c` multiplies the matrix. Row 0 goes to position 0 of the text (BOS, so nothing
# happens), row 1 to position 1, and so on. The text's own words stand there; they do not matter to
# the recipe. Positions after the last row stay as they are.
#
# Write `add_to_front(v, c)`. It gives back a hook, which does this to activations
# `[texts, positions, d_model]`. The tensor that the model hands to the hook must stay as it is.

# %% hint [markdown]
# A function can define another one inside and return it: the inner one remembers `v` and `c`. Copy
# first: `steered = activation.clone()`.

# %% hint [markdown]
# The first `len(v)` positions of every text are `steered[:, : len(v)]`. The first colon is the axis of
# texts.


# %% stub
def add_to_front(v, c):
    """A hook that adds c * v at the first len(v) positions."""

    def hook(activation, hook=None):
        # your lines
        ...

    return hook


# %% wrong says="wrote into the tensor"
def add_to_front(v, c):
    def hook(activation, hook=None):
        activation[:, : len(v)] += c * v
        return activation

    return hook


# %% wrong says="Off by one"
def add_to_front(v, c):
    def hook(activation, hook=None):
        steered = activation.clone()
        steered[:, 1 : len(v) + 1] += c * v
        return steered

    return hook


# %% wrong says="strength is missing"
def add_to_front(v, c):
    def hook(activation, hook=None):
        steered = activation.clone()
        steered[:, : len(v)] += v
        return steered

    return hook


# %% wrong says="returns nothing"
def add_to_front(v, c):
    def hook(activation, hook=None):
        steered = activation.clone()
        steered[:, : len(v)] += c * v

    return hook


# %% wrong says="every position"
def add_to_front(v, c):
    return lambda activation, hook=None: activation + c * v.mean(dim=0)


# %% wrong says="often a wrong axis"
def add_to_front(v, c):
    def hook(activation, hook=None):
        steered = activation.clone()
        steered[: len(v)] += c * v
        return steered

    return hook


# %% solution
def add_to_front(v, c):
    """A hook that adds c * v at the first len(v) positions."""

    def hook(activation, hook=None):
        steered = activation.clone()
        steered[:, : len(v)] += c * v
        return steered

    return hook


# %%
TEXT = "I went to the cinema with a friend and the film was"
c = 4.0
text_tokens = model.to_tokens(TEXT)
hook_name = f"blocks.{layer}.hook_resid_pre"
by_hand = model.run_with_hooks(text_tokens, fwd_hooks=[(hook_name, add_to_front(v, c))])
plain = model(text_tokens)
front = names(text_tokens)[: len(v)]
pd.DataFrame({"this row of v": range(len(v)), "is added to the token": front}).T

# %% [markdown]
# ### The library does the same
#
# `ActAdd.fit` is all of this but the last step. What it returns has the steer, which is what to do,
# and the `steering`, which is the steer at its site.

# %%
fit = ActAdd.fit(model, (POSITIVE, NEGATIVE), layer, c=c)
steering, act_add = fit.steering, fit.steer
(site,) = steering.sites
print(site, act_add)
assert site == Site(layer, "resid_pre")
torch.testing.assert_close(act_add.v, v, rtol=1e-3, atol=1e-3)

# %% [markdown]
# A hook sees activations, but not where in the text they stand. So a steering that depends on
# positions is applied together with a **window**, which says what the coming pass holds.

# %%
tokens, window = steerlens.batch(model, [TEXT])
with steering.applied(model, window):
    by_library = model(tokens)
torch.testing.assert_close(by_library, by_hand, rtol=1e-3, atol=1e-3)
assert not torch.allclose(by_hand, plain, atol=1e-3), "steering changed nothing"
with (0 * steering).applied(model, window):
    assert torch.equal(model(tokens), plain), "strength 0 must be no steering at all"

# %% [markdown]
# ## 2. Turn the knobs
#
# To see what a knob does we need numbers. We take responses to a few questions, hold them fixed, and
# look at the predictions of every response token. What becomes likelier?

# %%
INSTRUCTION = "Be positive."
QUESTIONS = [
    "Review a movie you watched.",
    "Write a movie review.",
    "What did you think of the film?",
    "Review a film.",
]
options = {"max_new_tokens": 30, "temperature": 0.8, "seed": SEED}
pairs = steerlens.prompted_pairs(model, QUESTIONS, INSTRUCTION, n=2, **options)
rows = [steerlens.encode_pair(model, pair) for pair in pairs]
plain_rows, prompted_rows = zip(*rows, strict=True)

# %%
PRAISE = [" great", " wonderful", " best", " excellent", " love", " beautiful", " perfect"]
BLAME = [" bad", " terrible", " worst", " awful", " hate", " boring", " stupid"]


def word_ids(words):
    """The last token of each word: in the demonstration model every word is a single one."""
    return {model.tokenizer(word, add_special_tokens=False)["input_ids"][-1] for word in words}


praise_ids = sorted(word_ids(PRAISE) - word_ids(BLAME))
blame_ids = sorted(word_ids(BLAME) - word_ids(PRAISE))


@torch.no_grad()
def predictions(rows, steering=None):
    """Log-probabilities of the next token, wherever a response token is predicted."""
    tokens, window = steerlens.batch(model, rows)
    with nullcontext() if steering is None else steering.applied(model, window):
        scores = logits(model, tokens, window)
    return scores[scope.response.where(window)].log_softmax(dim=-1)


unsteered = predictions(plain_rows)
print(list(unsteered.shape), "= [response tokens, vocabulary]")

# %% exercise [markdown] name="odds" difficulty=2 importance=2 minutes=10
# ### How much likelier is praise than blame?
#
# Write `odds(log_p, praise, blame)` for log-probabilities `[tokens, vocabulary]` and two lists of token
# ids. It is log P(any word of praise) - log P(any word of blame), one number for each token.

# %% hint [markdown]
# P(any of these words) is the sum of their probabilities. You have logarithms. Summing *them* would be
# the logarithm of a product.

# %% hint [markdown]
# `log_p[:, praise]` takes the columns of these words. `.logsumexp(dim=-1)` is the logarithm of the sum
# of the probabilities, computed without underflow.


# %% stub
def odds(log_p, praise, blame):
    """log P(praise) - log P(blame) at each token, [tokens]."""
    ...


# %% wrong says="multiplies the probabilities"
def odds(log_p, praise, blame):
    return log_p[:, praise].sum(dim=-1) - log_p[:, blame].sum(dim=-1)


# %% wrong says="Wrong sign"
def odds(log_p, praise, blame):
    return log_p[:, blame].logsumexp(dim=-1) - log_p[:, praise].logsumexp(dim=-1)


# %% wrong says="You averaged"
def odds(log_p, praise, blame):
    return log_p[:, praise].mean(dim=-1) - log_p[:, blame].mean(dim=-1)


# %% wrong says="often a wrong axis"
def odds(log_p, praise, blame):
    return log_p[praise].logsumexp(dim=-1) - log_p[blame].logsumexp(dim=-1)


# %% solution
def odds(log_p, praise, blame):
    """log P(praise) - log P(blame) at each token, [tokens]."""
    return log_p[:, praise].logsumexp(dim=-1) - log_p[:, blame].logsumexp(dim=-1)


# %% exercise [markdown] name="kl" difficulty=2 importance=3 minutes=10
# ### How much changes at all?
#
# A steering may lift every word of praise and ruin all the rest. So we also measure how far the
# predictions move in *whatever* way: the **Kullback-Leibler divergence** of the steered predictions p
# from the unsteered ones q,
#
# $$\mathrm{KL}(p \,\|\, q) = \sum_{\text{words}} p \, (\log p - \log q).$$
#
# Write `kl(moved, unsteered)`. Both are log-probabilities `[tokens, vocabulary]`, of p and of q; return
# one number for each token.

# %% hint [markdown]
# You are given log p and log q. Where do you need p itself?

# %% hint [markdown]
# `moved.exp()` is p. Multiply it with the difference of the logarithms, and sum over the last axis.


# %% stub
def kl(moved, unsteered):
    """KL(steered || unsteered) at each token, [tokens]."""
    ...


# %% wrong says="other KL"
def kl(moved, unsteered):
    return (unsteered.exp() * (unsteered - moved)).sum(dim=-1)


# %% wrong says="divides by its size"
def kl(moved, unsteered):
    return (moved.exp() * (moved - unsteered)).mean(dim=-1)


# %% wrong says="Wrong axis"
def kl(moved, unsteered):
    return (moved.exp() * (moved - unsteered)).sum(dim=0)


# %% wrong says="Weight each by its probability"
def kl(moved, unsteered):
    return (moved - unsteered).sum(dim=-1)


# %% solution
def kl(moved, unsteered):
    """KL(steered || unsteered) at each token, [tokens]."""
    return (moved.exp() * (moved - unsteered)).sum(dim=-1)


# %%
def measured(moved):
    """Praise: the mean change of the odds. KL: the mean change of everything."""
    change = odds(moved, praise_ids, blame_ids) - odds(unsteered, praise_ids, blame_ids)
    return {"praise": float(change.mean()), "KL": float(kl(moved, unsteered).mean())}


prompt_effect = measured(predictions(prompted_rows))
print("the instruction itself:", {name: round(value, 3) for name, value in prompt_effect.items()})


def sweep(knob, settings):
    """One row for each setting and measure: a tidy table. `settings` maps values to steerings."""
    rows = [
        {knob: value, "measure": measure, "change": change}
        for value, steering in settings.items()
        for measure, change in measured(predictions(plain_rows, steering)).items()
    ]
    return pd.DataFrame(rows)


# %% [markdown]
# A good setting moves *praise* a lot for little *KL*.
#
# ### Strength
#
# Negative strengths swap the two prompts. Which range moves *praise* up? Where does *KL* take off
# while *praise* no longer grows? The dotted lines are the effect of the instruction "Be positive."

# %%
WONDERFUL, TERRIBLE = " wonderful", " terrible"
wonderful = ActAdd.fit(model, (WONDERFUL, TERRIBLE), layer)
pair = wonderful.steering
strengths = [-32, -16, -8, -4, -2, 0, 2, 4, 8, 16, 32]
by_strength = sweep("c", {value: value * pair for value in strengths})
assert by_strength.query("c == 0")["change"].abs().max() < 1e-5
panels(by_strength, "c", prompt_effect, INSTRUCTION)

# %% [markdown]
# ### Layer
#
# The vector is read and added at the input of the layer, so layer 0 is before any layer has worked.
# The paper found middle layers best in larger models. Is it so here? The strength stays the same, but
# the activations grow from layer to layer, so the same *c* is not the same share of them.

# %%
some_layers = range(0, n_layers, max(1, n_layers // 6))
by_layer = sweep(
    "layer",
    {i: ActAdd.fit(model, (WONDERFUL, TERRIBLE), i, c=c).steering for i in some_layers},
)
panels(by_layer, "layer", prompt_effect, INSTRUCTION)

# %% exercise [markdown] name="evenly" difficulty=3 importance=1 minutes=10
# ### The same share for every token
#
# Not only layers differ: the activations of one text have different lengths, too, and so have the rows
# of v. Write `evenly(v, met, share)`. `met` holds the activations that the rows of `v` will meet, row by
# row, `[rows, d_model]`. Return a matrix with the **directions** of the rows of `v`, in which row i is
# `share` times as long as row i of `met`. Rows of zeros, such as that of BOS, stay zero.

# %% hint [markdown]
# Bring each row of `v` to length 1 first, then multiply it with the length that you want. Lengths of
# rows are `x.norm(dim=-1, keepdim=True)`.

# %% hint [markdown]
# A row of zeros has length 0, and 0 / 0 is NaN. `lengths.clamp(min=1e-9)` keeps the divisor above 0,
# and 0 divided by it stays 0.


# %% stub
def evenly(v, met, share):
    """The directions of v at a share of the lengths of met, [rows, d_model]."""
    ...


# %% wrong says="you divided by that"
def evenly(v, met, share):
    return share * v / v.norm(dim=-1, keepdim=True) * met.norm(dim=-1, keepdim=True)


# %% wrong says="a quarter of v itself"
def evenly(v, met, share):
    return share * v


# %% wrong says="One length for the whole matrix"
def evenly(v, met, share):
    return share * v / v.norm(dim=-1, keepdim=True).clamp(min=1e-9) * met.norm()


# %% wrong says="Every row has length 1/4"
def evenly(v, met, share):
    return share * v / v.norm(dim=-1, keepdim=True).clamp(min=1e-9)


# %% wrong says="often a wrong axis"
def evenly(v, met, share):
    return share * v / v.norm(dim=-1).clamp(min=1e-9) * met.norm(dim=-1)


# %% solution
def evenly(v, met, share):
    """The directions of v at a share of the lengths of met, [rows, d_model]."""
    lengths = v.norm(dim=-1, keepdim=True).clamp(min=1e-9)
    return share * met.norm(dim=-1, keepdim=True) * v / lengths


# %% [markdown]
# How unequal are the shares of the paper's own matrix, at strength 1? And does a matrix of equal shares
# steer better? The question is open; here is one pair of prompts on one model.

# %%
met = steerlens.capture(model, [plain_rows[0]], site).of(0, site)[: len(wonderful.steer.v)]
even = evenly(wonderful.steer.v, met, 0.5)
shares = {
    "v": wonderful.steer.v.norm(dim=-1) / met.norm(dim=-1),
    "even": even.norm(dim=-1) / met.norm(dim=-1),
}
print({name: [round(share, 2) for share in of.tolist()] for name, of in shares.items()})
by_matrix = sweep("matrix", {"c * v": c * pair, "equal shares": at(site, ActAdd(even))})
by_matrix.pivot(index="matrix", columns="measure", values="change")

# %% [markdown]
# ### Position
#
# The paper adds at the front. To add further right, put rows of zeros before the vector: they are
# added to the positions that should stay as they are. The questions have different numbers of
# tokens; we stop where the shortest prompt ends.

# %%
vector = wonderful.steer.v
shortest = min(row.response for row in plain_rows)


def starting_at(position):
    zeros = torch.zeros(position - 1, d_model)
    return at(site, ActAdd(torch.cat([zeros, vector]), c))


last_start = shortest - len(vector) + 1
some_positions = range(1, last_start + 1, max(1, last_start // 10))
by_position = sweep("first position", {p: starting_at(p) for p in some_positions})
panels(by_position, "first position", prompt_effect, INSTRUCTION)

# %% [markdown]
# Compare the nearest positions with the far ones: the response is closer to the end of the prompt, and
# its first token is even predicted from there. So why not add at the end of the prompt?

# %% exercise [markdown] name="add_to_back" difficulty=2 importance=2 minutes=10
# ### Add at the back
#
# Write `add_to_back(v, c, n_prompt)`. It gives back a hook that adds `c * v` to the **last tokens of the
# prompt**, in a pass that holds the prompt *and* the start of a response: the first `n_prompt` columns
# are the prompt, and there are more columns than that.

# %% hint [markdown]
# The last row of v belongs to the last token of the prompt, column `n_prompt - 1`. To which column does
# row 0 belong?

# %% hint [markdown]
# `steered[:, n_prompt - len(v) : n_prompt]` has exactly `len(v)` columns. A slice leaves out its end.


# %% stub
def add_to_back(v, c, n_prompt):
    """A hook that adds c * v at the last len(v) positions of the prompt."""

    def hook(activation, hook=None):
        # your lines
        ...

    return hook


# %% wrong says="end of the *pass*"
def add_to_back(v, c, n_prompt):
    def hook(activation, hook=None):
        steered = activation.clone()
        steered[:, -len(v) :] += c * v
        return steered

    return hook


# %% wrong says="Off by one: the last token of the prompt"
def add_to_back(v, c, n_prompt):
    def hook(activation, hook=None):
        steered = activation.clone()
        steered[:, n_prompt - 1 - len(v) : n_prompt - 1] += c * v
        return steered

    return hook


# %% wrong says="first token of the response"
def add_to_back(v, c, n_prompt):
    def hook(activation, hook=None):
        steered = activation.clone()
        steered[:, n_prompt : n_prompt + len(v)] += c * v
        return steered

    return hook


# %% wrong says="wrote into the tensor"
def add_to_back(v, c, n_prompt):
    def hook(activation, hook=None):
        activation[:, n_prompt - len(v) : n_prompt] += c * v
        return activation

    return hook


# %% solution
def add_to_back(v, c, n_prompt):
    """A hook that adds c * v at the last len(v) positions of the prompt."""

    def hook(activation, hook=None):
        steered = activation.clone()
        steered[:, n_prompt - len(v) : n_prompt] += c * v
        return steered

    return hook


# %% [markdown]
# In the library this choice is called `alignment`: "front" (the paper's), "mid" and "back".

# %%
row = Conversation("Review a movie you watched.", response="This film is a story about a man who")
tokens, window = steerlens.batch(model, [row])
by_hand = add_to_back(vector, c, int(window.response[0]))
mine = model.run_with_hooks(tokens, fwd_hooks=[(hook_name, by_hand)])
with at(site, ActAdd(vector, c, "back")).applied(model, window):
    torch.testing.assert_close(mine, model(tokens), rtol=1e-3, atol=1e-3)

aligned = {
    where: ActAdd.fit(model, (WONDERFUL, TERRIBLE), layer, c=c, alignment=where).steering
    for where in ("front", "mid", "back")
}
by_alignment = sweep("alignment", aligned)
by_alignment.pivot(index="alignment", columns="measure", values="change").loc[list(aligned)]

# %% [markdown]
# ### Two at once
#
# Steerings can be put together with `+`. The matrices come from clean runs, so it does not matter which
# of two ActAdds comes first, and a *single* matrix does the same.

# %%
first = ActAdd.fit(model, (" happy", " sad"), layer, c=3.0)
second = ActAdd.fit(model, (" a long and old story", " the"), layer, c=-2.0)
first_v, second_v = first.steer.v, second.steer.v
print(list(first_v.shape), list(second_v.shape))

# %% exercise [markdown] name="joint" difficulty=1 importance=1 minutes=5
# ### One matrix for both
#
# Compute that matrix from `first_v` and `second_v`, which have different numbers of rows, with a strength
# of 3 for the first and -2 for the second. Put it into `joint`.

# %% hint [markdown]
# How many rows must it have, so that none gets lost? Begin with zeros of that shape.

# %% hint [markdown]
# `joint[: len(first_v)] += 3 * first_v`, and the same for the second.

# %% stub
joint = ...

# %% wrong says="Wrong sign"
joint = torch.zeros(max(len(first_v), len(second_v)), d_model)
joint[: len(first_v)] += 3 * first_v
joint[: len(second_v)] += 2 * second_v

# %% wrong says="got lost"
short = min(len(first_v), len(second_v))
joint = 3 * first_v[:short] - 2 * second_v[:short]

# %% wrong says="strengths are missing"
joint = torch.zeros(max(len(first_v), len(second_v)), d_model)
joint[: len(first_v)] += first_v
joint[: len(second_v)] += second_v

# %% wrong says="at the back"
joint = torch.zeros(max(len(first_v), len(second_v)), d_model)
joint[-len(first_v) :] += 3 * first_v
joint[-len(second_v) :] -= 2 * second_v

# %% solution
joint = torch.zeros(max(len(first_v), len(second_v)), d_model)
joint[: len(first_v)] += 3 * first_v
joint[: len(second_v)] -= 2 * second_v

# %%
tokens, window = steerlens.batch(model, [TEXT])
with at(site, ActAdd(joint)).applied(model, window):
    from_single = model(tokens)
for two in (first.steering + second.steering, second.steering + first.steering):
    with two.applied(model, window):
        torch.testing.assert_close(from_single, model(tokens), rtol=1e-3, atol=1e-3)

# %% [markdown]
# ## 3. Compare with prompting
#
# "Be positive." is a steering, too. How does what it does to each token of the response compare with
# ActAdd? The number is `along`: how far a token was moved in the direction in which the instruction
# moves tokens on average (1 = as far as the instruction, 0 = not at all; see unit 0).

# %%
steerings = {"ActAdd": c * pair, "ActAdd, back": at(site, ActAdd(vector, c, "back"))}
table = coefficients(model, pairs, range(n_layers), steerings)
figures.coefficient_heatmap(table, example=0, colour_quantile=0.98)

# %% [markdown]
# What to look for:
#
# * ActAdd touches only tokens of the prompt. The response is reached through attention, from the
#   layer where ActAdd acts on. Below it there is exactly nothing.
# * Does the push grow or fade in the layers above? Do tokens near the front get more of it?
# * The instruction reaches the response from layer 0 on. Part of that is no meaning at all: the
#   demonstration model has a learned vector for every position, and an instruction in front moves the
#   response to later positions. ActAdd moves nothing, so it cannot imitate this part.

# %%
reached = table[table["method"] != "prompt"].groupby("layer")["norm"].max()
assert (reached.loc[: layer - 1] == 0).all()
assert (reached.loc[layer:] > 0).all()
at_ends = table[table["layer"].isin([0, layer, n_layers - 1])]
at_ends.pivot_table(index="method", columns="layer", values="relative_norm", aggfunc="mean")

# %% [markdown]
# The same over the text, at the last layer. The thick underline marks the tokens that the method
# changes itself.

# %%
coloured_text(model, pairs[0], 0, table, steerings, n_layers - 1)

# %% [markdown]
# ## What could go wrong
#
# ### Too strong
#
# The same question at growing strength, with the same random numbers. At which strength does the
# text stop answering the question? Compare with the KL curve above, which rises and then levels off:
# a layer reads directions, not lengths (layer norm divides the length away), so once `c * v` drowns
# the activation that it is added to, a larger `c` changes hardly anything more. And what drowns here
# is only the front of the prompt. A method that pushes the response itself, such as CAA, drowns the
# very activations that predict the next token.

# %%
ask = [Conversation("Review a movie you watched.")]
sampling = {"max_new_tokens": 40, "temperature": 0.8, "seed": SEED}
texts = {
    value: steerlens.generate(model, ask, value * pair, **sampling).texts[0]
    for value in [0, 4, 16, 64, 256]
}
flush_left(pd.DataFrame({"text": texts}).rename_axis("c"))

# %% [markdown]
# ### Layer 0 is a token swap
#
# At the input of layer 0 an activation is nothing but the token (and its position). So take a text
# that *begins with the minus prompt*. Subtract the minus prompt, add the plus prompt, with c = 1, and
# the text begins with the plus prompt. Steering and editing the text are then exactly the same.

# %%
rest = model.to_tokens(TEXT)[:, 1:]
begins_minus = torch.cat([minus_tokens, rest], dim=1)
begins_plus = torch.cat([plus_tokens, rest], dim=1)
_, whole = steerlens.batch(model, (begins_minus, torch.ones_like(begins_minus)))
edited = model(begins_plus)


def distance_to_edited(at_layer):
    swap = ActAdd.fit(model, (POSITIVE, NEGATIVE), at_layer, c=1.0).steering
    with swap.applied(model, whole):
        return float((model(begins_minus) - edited).norm() / edited.norm())


swapped = pd.DataFrame({"distance": {i: distance_to_edited(i) for i in some_layers}})
assert swapped["distance"][0] < 1e-4
swapped.rename_axis("layer").T

# %% [markdown]
# Above layer 0 it is no longer exact. At those positions the activations still become those of the
# plus prompt, but the tokens behind them have already looked at the minus prompt in the layers below.
# So ActAdd at layer *l* with c = 1 is a token swap that only the layers from *l* on take notice of.
# On any other text, and with any other c, it is not even that.
#
# ### A prompt shorter than the vector
#
# There must be a position for every row. The library refuses, rather than drop rows silently.

# %%
try:
    steerlens.generate(model, ["I"], steering, max_new_tokens=5)
except ValueError as error:
    print(error)
else:
    raise AssertionError("a short prompt must be refused")

# %% [markdown]
# ### The KV cache, and what a position is
#
# When a model writes, each pass after the first holds *one* token. The others are remembered in the
# **KV cache** (keys and values of the attention). Column 0 of such a pass is not position 0. And if
# prompts of different length are padded on the left, column 0 may be no token at all. The window
# knows: here are the absolute positions in the columns of a first pass over two prompts, and of the
# pass that follows (-1 is padding).

# %%
_, first_pass = steerlens.batch(model, ["The film was", TEXT])
print("first pass:\n", first_pass.positions.numpy())
print("next pass:\n", first_pass.next(1).positions.numpy())

# %% [markdown]
# Our hand-made hook writes to columns, not to positions. In the first row it would have hit padding,
# and in every later pass it would have met a single new token:

# %%
one_new_token = torch.zeros(1, 1, d_model)
try:
    add_to_front(v, c)(one_new_token, None)
except RuntimeError as error:
    print("by hand:", error)

# %% [markdown]
# An error is the lucky case. A hook that says `activation[:, -len(v):]` to mean "the last tokens"
# runs without complaint when the whole text is computed anew each time, and moves along with the end
# of the growing text. The library fixes positions within the prompt, so that it makes no difference
# whether a cache is used. This is a law that can be tested:

# %%
for where, placed in aligned.items():
    greedy = {"max_new_tokens": 12, "temperature": 0}
    ask = [Conversation(text) for text in QUESTIONS[:2]]
    cached = steerlens.generate(model, ask, placed, **greedy)
    recomputed = steerlens.generate(model, ask, placed, cache=False, **greedy)
    assert cached.texts == recomputed.texts, where
    print(f"{where:5}: with and without a cache the same {len(cached.texts)} texts")

# %% [markdown]
# ### On another model
#
# `STEERLENS_MODEL=smollm2` runs this unit on SmolLM2-135M. What changes there: words such as " terrible"
# may have several tokens, and then *praise* counts their last one; positions are rotary, so the
# instruction's move to later positions (section 3) is small; and BOS is much longer than other tokens.

# %% [markdown]
# ## An open experiment
#
# Which *pair of prompts* steers best? Choose five pairs, such as (" love", " hate") and (" I loved this
# film so much", " I hated this film so much"), and draw one point for each at several strengths: *KL* to
# the right, *praise* upwards. Is there a pair that is better at *every* KL? Predict first whether long
# prompts beat single words, and write the prediction down. Then repeat it at another layer. What would
# you have to measure to be sure that the answer is not an accident of these four questions?

# %% [markdown]
# ## References
#
# - Turner and others, *Steering Language Models With Activation Engineering*, 2023,
#   [arXiv 2308.10248](https://arxiv.org/abs/2308.10248): the method, and its authors' choices.
# - The method's page in the documentation, with results: `docs/methods/act_add.md`.
# - In the library: `steerlens/methods/act_add.py`. You can read all of it now.
