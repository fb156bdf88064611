# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
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
# **Activation addition** (Turner and others, 2023, arXiv 2308.10248) needs no data and no training.
# Take two prompts that differ in what you care about, such as " wonderful" and " terrible". Run the
# model on both and subtract the activations. Add the result to the activations of a third text.
#
# This notebook builds it by hand in five steps, checks each against the library, turns the three
# knobs (strength, layer, position), and then looks for where it breaks.
#
# You should know what a hook is: a function `(activation, hook) -> activation` that the model calls
# at a named place (notebook `00_tour`, section 3).

# %%
import os
import warnings
from contextlib import nullcontext

import numpy as np
import pandas as pd
import plotly.express as px
import torch
from analysis.coefficients import coefficients
from analysis.comparison import coloured_text
from IPython.display import HTML

import steerlens
from analysis import figures
from steerlens import ActAdd, Conversation, Site, at, response
from steerlens.methods.act_add import space_token
from steerlens.runtime.forward import logits

warnings.filterwarnings("ignore", message="IProgress not found")  # a progress bar we do without

SEED = 0
pd.set_option("display.max_colwidth", None)
pd.set_option("display.precision", 3)

model = steerlens.load(os.environ.get("STEERLENS_MODEL", "demo"))
template = None if model.tokenizer.chat_template else steerlens.PLAIN
n_layers, d_model = model.cfg.n_layers, model.cfg.d_model
layer = n_layers // 2
print(f"{n_layers} layers, {d_model} numbers in an activation; we act at layer {layer}")


def flush_left(table):
    """A table of texts, which read badly flush right."""
    left = 'style="text-align: left"'
    return HTML(table.to_html().replace("<td>", f"<td {left}>").replace("<th>", f"<th {left}>"))


# %% [markdown]
# ## 1. By hand
#
# ### Step 1: tokens
#
# Our two prompts. One has more tokens than the other, on purpose. `to_tokens` puts **BOS** in front,
# the token that begins every text. (`Ġ` or `▁` is how tokenizers write a leading space.)

# %%
POSITIVE, NEGATIVE = " wonderful film", " terrible"
plus_tokens = model.to_tokens(POSITIVE)
minus_tokens = model.to_tokens(NEGATIVE)


def names(tokens):
    return model.tokenizer.convert_ids_to_tokens(tokens[0].tolist())


print(names(plus_tokens))
print(names(minus_tokens))

# %% [markdown]
# ### Step 2: equal length
#
# We are going to subtract position by position, so both need the same number of tokens. The shorter
# one is filled up with **spaces** at its end. The space is an ordinary token that the model attends
# to, not masked padding. The paper tried others: an end-of-text token works notably worse.

# %%
space = space_token(model)
length = max(plus_tokens.shape[1], minus_tokens.shape[1])


def padded(tokens):
    missing = length - tokens.shape[1]
    return torch.cat([tokens, torch.full((1, missing), space)], dim=1)


plus_tokens, minus_tokens = padded(plus_tokens), padded(minus_tokens)
pd.DataFrame({"plus": names(plus_tokens), "minus": names(minus_tokens)}).T

# %% [markdown]
# ### Step 3: the activations that go *into* the layer
#
# `resid_pre` is the residual stream before a layer. ActAdd reads there and later writes there, at
# the same layer. `run_with_cache` runs the model and keeps the activations.

# %%
hook_name = f"blocks.{layer}.hook_resid_pre"
_, plus_cache = model.run_with_cache(plus_tokens, names_filter=hook_name)
_, minus_cache = model.run_with_cache(minus_tokens, names_filter=hook_name)
plus, minus = plus_cache[hook_name][0], minus_cache[hook_name][0]
print(list(plus.shape), "= [positions, d_model]")

# %% [markdown]
# ### Step 4: subtract
#
# The result is not one vector but a small **matrix**, one row for each position. Nothing is averaged
# and nothing is normalised. Row 0 belongs to BOS, and it is zero: a token sees only what stands
# before it, and before BOS both prompts are the same.

# %%
v = plus - minus
assert v[0].abs().max() < 1e-4 * plus[0].abs().max(), "the BOS row must be zero"
pd.DataFrame(
    {
        "plus": names(plus_tokens),
        "minus": names(minus_tokens),
        "length of the row of v": v.norm(dim=-1).tolist(),
        "length of the activation (plus)": plus.norm(dim=-1).tolist(),
    }
)

# %% [markdown]
# Compare the last two columns: the difference of two words can be as long as the activations
# themselves. Look at the lengths of BOS, too. In many models it is far longer than any other token's,
# which is one more reason to be glad that its row is zero.
#
# ### Step 5: add it to the front of another text
#
# A strength `c` multiplies the matrix. Row 0 goes to position 0 of the text (BOS, so nothing
# happens), row 1 to position 1, and so on. The text's own words stand there; they do not matter to
# the recipe. `clone` makes a copy, so that the tensor the model gave us stays as it was.

# %%
TEXT = "I went to the cinema with a friend and the film was"
c = 4.0
text_tokens = model.to_tokens(TEXT)


def add_to_front(activation, hook):
    steered = activation.clone()
    steered[:, : len(v)] += c * v
    return steered


by_hand = model.run_with_hooks(text_tokens, fwd_hooks=[(hook_name, add_to_front)])
plain = model(text_tokens)
front = names(text_tokens)[: len(v)]
pd.DataFrame({"this row of v": range(len(v)), "is added to the token": front}).T

# %% [markdown]
# ### The library does the same
#
# `ActAdd.fit` is steps 1 to 4. What it returns is a `Steering`: a site and what to do there.

# %%
steering = ActAdd.fit(model, POSITIVE, NEGATIVE, layer, c=c)
((site, act_add),) = steering.placed
print(site, act_add)
assert site == Site(layer, "resid_pre")
torch.testing.assert_close(act_add.v, v, rtol=1e-4, atol=1e-4)
assert (act_add.v[0] == 0).all()

# %% [markdown]
# A hook sees activations, but not where in the text they stand. So a steering that depends on
# positions is applied together with a **window**, which says what the coming pass holds.

# %%
tokens, window = steerlens.batch(model, [TEXT])
with steering.applied(model, window):
    by_library = model(tokens)
torch.testing.assert_close(by_library, by_hand, rtol=1e-4, atol=1e-3)
assert not torch.allclose(by_hand, plain, atol=1e-3), "steering changed nothing"
with steering.scaled(0).applied(model, window):
    assert torch.equal(model(tokens), plain), "strength 0 must be no steering at all"

# %% [markdown]
# ## 2. Turn the knobs
#
# To see what a knob does we need a number. We take responses to a few questions, hold them fixed,
# and look at the predictions of every response token:
#
# * **praise**: how much likelier words of praise become, compared with words of blame. It is the
#   change of log P(praise words) - log P(blame words), so +1 means that the odds rise by a factor of
#   about 2.7 (that is *e*).
# * **KL**: how much the predictions change at all, in whatever way (Kullback-Leibler divergence; 0
#   means no change).
#
# A good setting moves *praise* a lot for little *KL*.

# %%
INSTRUCTION = "Be positive."
QUESTIONS = [
    "Review a movie you watched.",
    "Write a movie review.",
    "What did you think of the film?",
    "Review a film.",
]
pairs = steerlens.prompted_pairs(
    model,
    QUESTIONS,
    INSTRUCTION,
    n=2,
    max_new_tokens=30,
    temperature=0.8,
    seed=SEED,
    template=template,
)
both = [steerlens.encode_pair(model, pair, template) for pair in pairs]
plain_rows, prompted_rows = zip(*both, strict=True)

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
    return scores[response.where(window)].log_softmax(dim=-1)


def odds(log_p):
    return log_p[:, praise_ids].logsumexp(dim=-1) - log_p[:, blame_ids].logsumexp(dim=-1)


unsteered = predictions(plain_rows)


def measured(moved):
    return {
        "praise": float((odds(moved) - odds(unsteered)).mean()),
        "KL": float((moved.exp() * (moved - unsteered)).sum(dim=-1).mean()),
    }


prompt_effect = measured(predictions(prompted_rows))
print("the instruction itself:", {name: round(value, 3) for name, value in prompt_effect.items()})

# %% [markdown]
# ### Strength
#
# Negative strengths swap the two prompts. Which range moves *praise* up? Where does *KL* take off
# while *praise* no longer grows? The dotted lines are the effect of the instruction "Be positive."


# %%
def sweep(knob, settings):
    """One row for each setting and measure: a tidy table. `settings` maps values to steerings."""
    rows = [
        {knob: value, "measure": measure, "change": change}
        for value, steering in settings.items()
        for measure, change in measured(predictions(plain_rows, steering)).items()
    ]
    return pd.DataFrame(rows)


def drawn(table, knob):
    figure = px.line(
        table, x=knob, y="change", facet_row="measure", markers=True, height=460, width=760
    )
    figure.update_yaxes(matches=None, title="")
    figure.for_each_annotation(lambda note: note.update(text=note.text.split("=")[-1]))
    for row, measure in ((2, "praise"), (1, "KL")):  # plotly counts these rows from the bottom
        figure.add_hline(
            prompt_effect[measure],
            row=row,
            line={"dash": "dot", "color": "#0072b2"},
            annotation={"text": INSTRUCTION, "font_color": "#0072b2"},
        )
    return figure.update_layout(template="plotly_white")


WONDERFUL, TERRIBLE = " wonderful", " terrible"
pair = ActAdd.fit(model, WONDERFUL, TERRIBLE, layer)
strengths = [-32, -16, -8, -4, -2, 0, 2, 4, 8, 16, 32]
by_strength = sweep("c", {value: pair.scaled(value) for value in strengths})
drawn(by_strength, "c")

# %%
assert by_strength.query("c == 0")["change"].abs().max() < 1e-5

# %% [markdown]
# ### Layer
#
# The vector is read and added at the input of the layer, so layer 0 is before any layer has worked.
# The paper found middle layers best in larger models. Is it so here? The strength stays the same, but
# the activations grow from layer to layer, so the same *c* is not the same share of them.

# %%
by_layer = sweep(
    "layer", {i: ActAdd.fit(model, WONDERFUL, TERRIBLE, i, c=c) for i in range(n_layers)}
)
drawn(by_layer, "layer")

# %% [markdown]
# ### Position
#
# The paper adds at the front. To add further right, put rows of zeros before the vector: they are
# added to the positions that should stay as they are. The questions have different numbers of
# tokens; we stop where the shortest prompt ends.

# %%
vector = pair.placed[0][1].v
shortest = min(row.response for row in plain_rows)


def starting_at(position):
    zeros = torch.zeros(position - 1, d_model)
    return at(Site(layer, "resid_pre"), ActAdd(torch.cat([zeros, vector]), c))


last_start = shortest - len(vector) + 1
by_position = sweep("first position", {p: starting_at(p) for p in range(1, last_start + 1)})
drawn(by_position, "first position")

# %% [markdown]
# In the library the same choice is called `alignment`: "front" (the paper's), "mid" and "back" (the
# last positions of the prompt). Compare the nearest positions with the far ones: the response is
# closer to the end of the prompt, and its first token is even predicted from there.

# %%
by_alignment = sweep(
    "alignment",
    {
        where: ActAdd.fit(model, WONDERFUL, TERRIBLE, layer, c=c, alignment=where)
        for where in ("front", "mid", "back")
    },
)
by_alignment.pivot(index="alignment", columns="measure", values="change").loc[
    ["front", "mid", "back"], ["praise", "KL"]
]

# %% [markdown]
# ## 3. Where it breaks
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
strengths = [0, 4, 16, 64, 256]
texts = [
    steerlens.generate(
        model,
        [Conversation("Review a movie you watched.")],
        pair.scaled(value),
        max_new_tokens=40,
        temperature=0.8,
        seed=SEED,
        template=template,
    ).texts[0]
    for value in strengths
]
flush_left(pd.DataFrame({"text": texts}, index=pd.Index(strengths, name="c")))

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
    swap = ActAdd.fit(model, POSITIVE, NEGATIVE, at_layer, c=1.0)
    with swap.applied(model, whole):
        return float((model(begins_minus) - edited).norm() / edited.norm())


swapped = pd.DataFrame(
    {"layer": range(n_layers), "distance": [distance_to_edited(i) for i in range(n_layers)]}
)
assert swapped["distance"][0] < 1e-4
swapped.set_index("layer").T

# %% [markdown]
# Above layer 0 it is no longer exact. At those positions the activations still become those of the
# plus prompt, but the tokens behind them have already looked at the minus prompt in the layers below.
# So ActAdd at layer *l* with c = 1 is a token swap that only the layers from *l* on take notice of.
# On any other text, and with any other c, it is not even that.

# %% [markdown]
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
    add_to_front(one_new_token, None)
except RuntimeError as error:
    print("by hand:", error)

# %% [markdown]
# An error is the lucky case. A hook that says `activation[:, -len(v):]` to mean "the last tokens"
# runs without complaint when the whole text is computed anew each time, and moves along with the end
# of the growing text. The library fixes positions within the prompt, so that it makes no difference
# whether a cache is used. This is a law that can be tested:

# %%
for where in ("front", "mid", "back"):
    placed = ActAdd.fit(model, WONDERFUL, TERRIBLE, layer, c=c, alignment=where)
    greedy = {"max_new_tokens": 12, "temperature": 0, "template": template}
    ask = [Conversation(text) for text in QUESTIONS[:2]]
    cached = steerlens.generate(model, ask, placed, **greedy)
    recomputed = steerlens.generate(model, ask, placed, cache=False, **greedy)
    assert cached.texts == recomputed.texts, where
    print(f"{where:5}: with and without a cache the same {len(cached.texts)} texts")

# %% [markdown]
# ## 4. Compare with prompting
#
# "Be positive." is a steering, too. How does what it does to each token of the response compare with
# ActAdd? The number is `along`: how far a token was moved in the direction in which the instruction
# moves tokens on average (1 = as far as the instruction, 0 = not at all; see `00_tour`, section 5).

# %%
steerings = {"ActAdd": pair.scaled(c), "ActAdd, back": at(site, ActAdd(vector, c, "back"))}
table = coefficients(model, pairs, range(n_layers), steerings, template=template)
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
at_ends = table[table["layer"].isin([0, layer, n_layers - 1])]
at_ends.pivot_table(index="method", columns="layer", values="relative_norm", aggfunc="mean")

# %%
reached = table[table["method"] != "prompt"].groupby("layer")["norm"].max()
assert (reached.loc[: layer - 1] == 0).all()
assert (reached.loc[layer:] > 0).all()

# %% [markdown]
# The same over the text, at the last layer. The thick underline marks the tokens that the method
# changes itself.

# %%
coloured_text(model, pairs[0], 0, table, steerings, n_layers - 1, template)

# %% [markdown]
# And sorted: how unevenly is the push spread? A flat line would mean that all tokens get the same.

# %%
figures.sorted_strengths(table, n_layers - 1)

# %% [markdown]
# ---
# # Exercises
#
# Each has a task, a cell for your answer (the repository has a solution there; cover it first) and a
# cell that checks it.
#
# ## Exercise 1: add at the back
#
# Write the hook that adds `c * vector` to the **last tokens of the prompt**, for a pass that holds the
# prompt *and* the start of a response. `n_prompt` is the number of prompt tokens; the pass holds more
# columns than that. Leave the tensor that you were given as it is.

# %%
row = Conversation("Review a movie you watched.", response="This film is a story about a man who")
tokens_1, window_1 = steerlens.batch(model, [row], template=template)
n_prompt = int(window_1.response[0])

# %%
# solution


def add_to_back(activation, hook=None):
    steered = activation.clone()
    steered[:, n_prompt - len(vector) : n_prompt] += c * vector
    return steered


# %%
given = torch.randn(1, tokens_1.shape[1], d_model)
copy = given.clone()
added = add_to_back(given) - copy
assert torch.equal(given, copy), "the hook wrote into the tensor that it was given"
assert not added[:, n_prompt:].any(), "response tokens must stay as they are"
torch.testing.assert_close(added[0, n_prompt - 1], c * vector[-1], rtol=1e-3, atol=1e-3)
mine = model.run_with_hooks(tokens_1, fwd_hooks=[(hook_name, add_to_back)])
with at(site, ActAdd(vector, c, "back")).applied(model, window_1):
    library = model(tokens_1)
torch.testing.assert_close(mine, library, rtol=1e-4, atol=1e-3)
print("the same logits as the library's")

# %% [markdown]
# ## Exercise 2: two additions, one matrix
#
# Two ActAdds at the same layer can be put together with `+`: `first + second`. Their matrices come
# from clean runs, so the order does not matter, and a *single* matrix does the same. Compute it from
# `first_v` and `second_v`, which have different numbers of rows, with a strength of 3 for the first
# and -2 for the second. Put it into `joint`.

# %%
first_steering = ActAdd.fit(model, " happy", " sad", layer, c=3.0)
second_steering = ActAdd.fit(model, " a long and old story", " the", layer, c=-2.0)
first_v = first_steering.placed[0][1].v
second_v = second_steering.placed[0][1].v
print(list(first_v.shape), list(second_v.shape))

# %%
# solution
joint = torch.zeros(max(len(first_v), len(second_v)), d_model)
joint[: len(first_v)] += 3 * first_v
joint[: len(second_v)] -= 2 * second_v

# %%
assert joint.shape == (max(len(first_v), len(second_v)), d_model), "no row may get lost"
one = at(Site(layer, "resid_pre"), ActAdd(joint))
with one.applied(model, window):
    from_one = model(tokens)
for pair_of_them in (first_steering + second_steering, second_steering + first_steering):
    with pair_of_them.applied(model, window):
        torch.testing.assert_close(from_one, model(tokens), rtol=1e-4, atol=1e-3)
print("one matrix does what the two additions do, in either order")

# %% [markdown]
# ## Exercise 3: the same share for every token
#
# Section 2 said that the same *c* is not the same share of the activations at every layer, nor at
# every position. Make a matrix `even` with the directions of `act_add.v`, in which each row is
# scaled so that it adds **a quarter of the length** of the activation that it meets in `TEXT`. Rows
# of zeros, such as that of BOS, stay zero (mind the division).
#
# The activations of `TEXT` at the site are in `met`, one row for each position.

# %%
met = steerlens.capture(model, [TEXT], site).of(0, site)[: len(act_add.v)]
print(list(met.shape), list(act_add.v.shape))

# %%
# solution
lengths = act_add.v.norm(dim=-1, keepdim=True)
wanted = met.norm(dim=-1, keepdim=True) / 4
even = torch.where(lengths > 0, act_add.v * wanted / lengths.clamp(min=1e-9), 0)

# %%
assert torch.isfinite(even).all(), "a division by zero"
assert (even[0] == 0).all(), "the BOS row must stay zero"
pushed = act_add.v.norm(dim=-1) > 0
same_way = torch.cosine_similarity(even, act_add.v, dim=-1)
assert (same_way[pushed] > 0.999).all(), "the directions must stay those of v"
evenly = steerlens.capture(model, [TEXT], site, steering=at(site, ActAdd(even))).of(0, site)
shares = (evenly[: len(met)] - met).norm(dim=-1) / met.norm(dim=-1)
np.testing.assert_allclose(shares[pushed], 0.25, rtol=1e-3)
np.testing.assert_allclose(shares[~pushed], 0, atol=1e-6)
shares_of_v = (act_add.v.norm(dim=-1) / met.norm(dim=-1)).tolist()
pd.DataFrame({"token": front, "share of v at c = 1": shares_of_v, "share of even": shares.tolist()})

# %% [markdown]
# Look at the first column of shares: how much do the rows of the paper's vector differ in what they
# add, relative to what they meet? Whether equal shares steer better is an open question; with
# `measured(predictions(...))` from section 2 you can ask it.
