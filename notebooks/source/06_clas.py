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
# # CLAS: each token says how strongly
#
# Usual steering adds the same amount of one direction to every token. **CLAS** (Contextual Linear
# Activation Steering; Hsu and others, 2026) keeps the direction *v*, and reads off each token's own
# activation *h* how much of it that token gets:
#
# $$\alpha = c \cdot h + b, \qquad h' = h + \alpha\, v.$$
#
# *v* is found beforehand (unit 3). *c* and *b* are learned from ten examples, and that is the first
# training of this course.
#
# **Goals.** After this unit you can
#
# - build CLAS from nothing but hooks, and name two older methods that are special cases of it;
# - train a steering through a frozen model: loss, step, and the step that is kept;
# - measure how much of a strength depends on the context at all, and compare it with the prompt's;
# - say where a strength that was learned from ten texts cannot be trusted.
#
# **Before.** Units 1 and 3. What a gradient is, and that an optimiser follows it.
#
# **Time.** 130 minutes, 75 of them for nine exercises.

# %%
import os

import pandas as pd
import torch
from checks.display import quiet

import steerlens
from steerlens import CLAS, Conversation, Sampling, Site, benchmark_set, contrast_directions, scope
from steerlens.analysis import (
    Coherence,
    Setting,
    coefficients,
    coloured_text,
    figures,
    judge_of,
    strengths,
)

# %%
quiet()
SEED = 0
model = steerlens.load(os.environ.get("STEERLENS_MODEL", "demo"))
# A chat template says how a conversation is written down. Models without one get a plain one.
model.tokenizer.chat_template = model.tokenizer.chat_template or steerlens.PLAIN
n_layers, d_model = model.cfg.n_layers, model.cfg.d_model

# %% [markdown]
# The method steers at the output of every block. To save time we take about six blocks where a model
# has many.

# %%
layers = list(range(0, n_layers, max(1, n_layers // 6)))
layer = layers[len(layers) // 2]
large = n_layers > 12  # then fewer pairs and steps, to save time
print(f"{n_layers} blocks, of which we steer {layers}; single pictures show {layer}")

# %% [markdown]
# ## 1. Strengths
#
# The behaviour is the one of unit 3, writing in lowercase, and so are the directions: for each block the
# mean activation of requests *with* an instruction less the mean *without*, at the last token of the
# prompt, brought to length 1.

# %%
attribute = benchmark_set.read("lowercase")
INSTRUCTION = attribute.wordings[0]
pairs = attribute.pairs("train")
train, validation = (pairs[:6], pairs[10:14]) if large else (pairs[:10], pairs[10:18])
users = [pair.plain.user for pair in pairs[20:60]]
with_it = [Conversation(user, INSTRUCTION) for user in users]
without = [Conversation(user) for user in users]
found = contrast_directions(model, "means", with_it, without, layers)
directions = {site: at_site.direction for site, at_site in found.items()}
v = {site.layer: direction for site, direction in directions.items()}
print("length of each v:", [round(float(v[i].norm()), 3) for i in layers])

# %% exercise [markdown] name="alphas" difficulty=1 importance=3 minutes=5
# ### The strength of each token
#
# Write `alphas(h, c, b)`: $\alpha = c \cdot h + b$ for activations `h`, `[texts, positions, d_model]`, a
# vector `c`, `[d_model]`, and a number `b`. Return `[texts, positions]`: one strength for each token.

# %% hint [markdown]
# `c · h` multiplies the two entry by entry and sums. Over which axis?

# %% hint [markdown]
# `h @ c` is that sum for all tokens at once. Nothing else is done to it: a strength may be negative.


# %% stub
def alphas(h, c, b):
    """The strength of each token, [texts, positions]."""
    ...


# %% wrong says="b is missing"
def alphas(h, c, b):
    return h @ c


# %% wrong says="cut off at 0"
def alphas(h, c, b):
    return torch.relu(h @ c + b)


# %% wrong says="You have not summed"
def alphas(h, c, b):
    return h * c + b


# %% wrong says="added b before the sum"
def alphas(h, c, b):
    return (h * c + b).sum(dim=-1)


# %% wrong says="returns nothing"
def alphas(h, c, b):
    alpha = h @ c + b


# %% solution
def alphas(h, c, b):
    """The strength of each token, [texts, positions]."""
    return h @ c + b


# %% exercise [markdown] name="clas_hook" difficulty=2 importance=3 minutes=10
# ### Add it
#
# Write `clas_hook(c, b, v)`. It gives back a hook that adds to each token its own $\alpha$ times `v`,
# `[d_model]`. Use your `alphas`. The tensor that the model hands over must stay as it is: we are going to
# take gradients through it, and a tensor that was written into has lost what they need.

# %% hint [markdown]
# `alphas(...)` is `[texts, positions]`, and what is added must be `[texts, positions, d_model]`. It needs
# one more axis before it is multiplied with `v`.

# %% hint [markdown]
# `alpha[..., None]` has an axis of length 1 at the end. Return the activations *with* the push.


# %% stub
def clas_hook(c, b, v):
    """A hook that adds alpha * v to each token."""

    def hook(activation, hook=None):
        # your lines
        ...

    return hook


# %% wrong says="often a wrong axis"
def clas_hook(c, b, v):
    def hook(activation, hook=None):
        return activation + alphas(activation, c, b) * v

    return hook


# %% wrong says="wrote into the tensor"
def clas_hook(c, b, v):
    def hook(activation, hook=None):
        activation += alphas(activation, c, b)[..., None] * v
        return activation

    return hook


# %% wrong says="the push alone"
def clas_hook(c, b, v):
    def hook(activation, hook=None):
        return alphas(activation, c, b)[..., None] * v

    return hook


# %% wrong says="one strength for all tokens"
def clas_hook(c, b, v):
    def hook(activation, hook=None):
        return activation + alphas(activation, c, b).mean() * v

    return hook


# %% wrong says="pushed along c"
def clas_hook(c, b, v):
    def hook(activation, hook=None):
        return activation + alphas(activation, c, b)[..., None] * c

    return hook


# %% wrong says="Wrong sign"
def clas_hook(c, b, v):
    def hook(activation, hook=None):
        return activation - alphas(activation, c, b)[..., None] * v

    return hook


# %% solution
def clas_hook(c, b, v):
    """A hook that adds alpha * v to each token."""

    def hook(activation, hook=None):
        alpha = alphas(activation, c, b)
        return activation + alpha[..., None] * v

    return hook


# %% [markdown]
# The library's steer does the same. It holds rows, since it can have several directions at one place.

# %%
generator = torch.Generator().manual_seed(SEED)
h = torch.randn(2, 5, d_model, generator=generator)
some_c = torch.randn(d_model, generator=generator)
by_library = CLAS(some_c[None], torch.tensor([0.5]), v[layer][None])
torch.testing.assert_close(clas_hook(some_c, 0.5, v[layer])(h), by_library(h))

# %% [markdown]
# ### Old methods inside the new one
#
# With `c = 0` every token gets `b`: that is ordinary steering, at a fixed strength. Another choice is
# **ablation**, which takes away whatever lies along *v*, from each token as much as it has.

# %% exercise [markdown] name="ablation" difficulty=2 importance=2 minutes=10
# ### Take the direction out
#
# Write `ablation(v)` for a `v` of length 1: the pair `(c, b)` with which CLAS makes `h' · v = 0` for every
# token, and leaves everything else of `h` as it is.

# %% hint [markdown]
# h' · v = h · v + α (v · v), and v · v is 1. Which α makes this 0?

# %% hint [markdown]
# α = -(h · v). Compare with α = c · h + b, and read off c and b.


# %% stub
def ablation(v):
    """c, [d_model], and b that take out what lies along v."""
    ...


# %% wrong says="doubles"
def ablation(v):
    return v, 0.0


# %% wrong says="same for all tokens"
def ablation(v):
    return torch.zeros_like(v), -1.0


# %% wrong says="the other side"
def ablation(v):
    return -2 * v, 0.0


# %% wrong says="b moves"
def ablation(v):
    return -v, -1.0


# %% wrong says="a pair"
def ablation(v):
    return -v


# %% solution
def ablation(v):
    """c, [d_model], and b that take out what lies along v."""
    return -v, 0.0


# %%
ablated = clas_hook(*ablation(v[layer]), v[layer])(h)
print(f"largest h · v before: {float((h @ v[layer]).abs().max()):.3f}")
print(f"and after:            {float((ablated @ v[layer]).abs().max()):.6f}")
torch.testing.assert_close(CLAS.ablation(v[layer])(h), ablated, rtol=1e-3, atol=1e-4)

# %% [markdown]
# ## 2. What is learned, and from what
#
# Of a pair only two parts are used: the **plain** prompt, which does not ask for the behaviour, and a
# **completion** that shows it. The instruction itself is never seen.

# %%
print("plain prompt:", train[0].plain.user)
print("completion:  ", train[0].response[:100])
row, _ = steerlens.encode_pair(model, train[0])
print(f"{len(row.ids)} tokens, the completion begins at position {row.response}")

# %% [markdown]
# *c* and *b* are good if the steered model finds such completions likely. How **surprised** is it by each
# token of the completion? By $-\log p$ of that token, where p is predicted from the tokens before it.

# %% exercise [markdown] name="surprise" difficulty=2 importance=3 minutes=10
# ### The loss
#
# Write `surprise(logits, tokens, start)`. `logits` is `[positions, vocabulary]`, `tokens` is
# `[positions]`, and the completion begins at position `start`. Return $-\log p$ of each token of the
# **completion**, from the first to the last: `[positions - start]`. They are averaged later, over all
# examples together.

# %% hint [markdown]
# The logits at position i predict the token at position i + 1. At which position is the first token of
# the completion predicted?

# %% hint [markdown]
# `log_p = logits[start - 1 : -1].log_softmax(dim=-1)` has one row for each token of `tokens[start:]`. Of
# each row take the column of its token: `log_p.gather(1, wanted[:, None])[:, 0]`. (Or
# `torch.nn.functional.cross_entropy(..., reduction="none")`, which does all of it.)


# %% stub
def surprise(logits, tokens, start):
    """-log p of each token of the completion, [positions - start]."""
    ...


# %% wrong says="predict the *next* token"
def surprise(logits, tokens, start):
    log_p = logits[start:].log_softmax(dim=-1)
    return -log_p.gather(1, tokens[start:, None])[:, 0]


# %% wrong says="The prompt is counted"
def surprise(logits, tokens, start):
    log_p = logits[:-1].log_softmax(dim=-1)
    return -log_p.gather(1, tokens[1:, None])[:, 0]


# %% wrong says="Wrong sign"
def surprise(logits, tokens, start):
    log_p = logits[start - 1 : -1].log_softmax(dim=-1)
    return log_p.gather(1, tokens[start:, None])[:, 0]


# %% wrong says="are not probabilities"
def surprise(logits, tokens, start):
    return -logits[start - 1 : -1].gather(1, tokens[start:, None])[:, 0]


# %% wrong says="a long completion would count as much"
def surprise(logits, tokens, start):
    log_p = logits[start - 1 : -1].log_softmax(dim=-1)
    return -log_p.gather(1, tokens[start:, None])[:, 0].mean()


# %% wrong says="over positions"
def surprise(logits, tokens, start):
    log_p = logits[start - 1 : -1].log_softmax(dim=0)
    return -log_p.gather(1, tokens[start:, None])[:, 0]


# %% solution
def surprise(logits, tokens, start):
    """-log p of each token of the completion, [positions - start]."""
    log_p = logits[start - 1 : -1].log_softmax(dim=-1)
    return -log_p.gather(1, tokens[start:, None])[:, 0]


# %% [markdown]
# With this the loss of some pairs under some *c* and *b*. They begin at zero, so that step 0 is the model
# itself. The model's own weights are frozen: no gradient is computed for them.

# %%
for parameter in model.parameters():
    parameter.requires_grad_(False)


def loss_of(some, c, b):
    """Mean surprise at the completion tokens of these pairs, steered with c[i] and b[i]."""
    hooks = [
        (f"blocks.{i}.hook_resid_post", clas_hook(c[place], b[place], v[i]))
        for place, i in enumerate(layers)
    ]
    each = []
    for pair in some:
        row, _ = steerlens.encode_pair(model, pair)
        tokens = torch.tensor([row.ids])
        logits = model.run_with_hooks(tokens, fwd_hooks=hooks)[0]
        each.append(surprise(logits, tokens[0], row.response))
    return torch.cat(each).mean()


# %% [markdown]
# One step of training has five parts, always in this order: forget the old gradients, compute the loss,
# compute its gradients, bound them, move. The bound keeps one odd batch from throwing everything away.

# %% exercise [markdown] name="one_step" difficulty=2 importance=3 minutes=10
# ### One step downhill
#
# Write `one_step(parameters, optimiser, loss_of)`. `parameters` is a list of tensors, `loss_of()` computes
# the loss as it is now. Bound the gradients of all parameters **together** to norm 1, with
# `torch.nn.utils.clip_grad_norm_(parameters, 1.0)`. Return the loss before the move, as a float.

# %% hint [markdown]
# `optimiser.zero_grad()`, `loss.backward()` and `optimiser.step()` are three of the five parts. torch
# *adds* new gradients to the old ones unless these are forgotten.

# %% hint [markdown]
# The bound is for gradients: it comes after `backward`, which computes them, and before `step`, which uses
# them. `loss.item()` is the number.


# %% stub
def one_step(parameters, optimiser, loss_of):
    """Move the parameters one step; the loss before it, a float."""
    ...


# %% wrong says="old gradients"
def one_step(parameters, optimiser, loss_of):
    loss = loss_of()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(parameters, 1.0)
    optimiser.step()
    return loss.item()


# %% wrong says="not bounded"
def one_step(parameters, optimiser, loss_of):
    optimiser.zero_grad()
    loss = loss_of()
    loss.backward()
    optimiser.step()
    return loss.item()


# %% wrong says="have not moved"
def one_step(parameters, optimiser, loss_of):
    optimiser.zero_grad()
    loss = loss_of()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(parameters, 1.0)
    return loss.item()


# %% wrong says="each on its own"
def one_step(parameters, optimiser, loss_of):
    optimiser.zero_grad()
    loss = loss_of()
    loss.backward()
    for parameter in parameters:
        torch.nn.utils.clip_grad_norm_([parameter], 1.0)
    optimiser.step()
    return loss.item()


# %% wrong says="as a float"
def one_step(parameters, optimiser, loss_of):
    optimiser.zero_grad()
    loss = loss_of()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(parameters, 1.0)
    optimiser.step()
    return loss


# %% wrong says="after the move"
def one_step(parameters, optimiser, loss_of):
    optimiser.zero_grad()
    loss_of().backward()
    torch.nn.utils.clip_grad_norm_(parameters, 1.0)
    optimiser.step()
    return loss_of().item()


# %% solution
def one_step(parameters, optimiser, loss_of):
    """Move the parameters one step; the loss before it, a float."""
    optimiser.zero_grad()
    loss = loss_of()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(parameters, 1.0)
    optimiser.step()
    return loss.item()


# %% [markdown]
# Eight steps (four on a large model), each on all training pairs. AdamW moves every number by about its **learning rate** in a step,
# however small the gradient is. So the rate has to suit what is moved: `b` is a strength, and a strength
# is measured against the length of activations, which differs from model to model and from block to block.
# Its rate is 1 % of their median length at each block. (The first token is left out: unit 1 said why.)

# %%
rows = [steerlens.encode_pair(model, pair)[0] for pair in [*train, *validation]]
read = steerlens.capture(model, rows, layers, scope=scope.everywhere.without_bos)
sizes = [float(read.at(i).norm(dim=-1).median()) for i in layers]

c = [torch.zeros(d_model, requires_grad=True) for _ in layers]
b = [torch.zeros((), requires_grad=True) for _ in layers]
groups = [{"params": c, "lr": 3e-3}]
groups += [{"params": [each], "lr": 0.01 * size} for each, size in zip(b, sizes, strict=True)]
optimiser = torch.optim.AdamW(groups, weight_decay=0.0)

history, states = [], []
STEPS = 4 if large else 8
for step in range(STEPS + 1):
    with torch.no_grad():
        held_out = float(loss_of(validation, c, b))
    states.append([[each.detach().clone() for each in both] for both in (c, b)])
    fitted = one_step([*c, *b], optimiser, lambda: loss_of(train, c, b)) if step < STEPS else None
    history.append({"step": step, "validation": held_out, "train": fitted})
pd.DataFrame(history).set_index("step").T.style.format(precision=3, na_rep="")

# %% [markdown]
# Which of these states do we keep? The loss on the training pairs would fall on and on: in the end they
# are learned by heart. The validation pairs say when that begins.

# %% exercise [markdown] name="kept" difficulty=1 importance=3 minutes=5
# ### The step that is kept
#
# Write `kept(losses)`: given the validation losses as a list, beginning with that of step 0, the number of
# the step with the lowest. Of equals take the first. Step 0, at which nothing is steered, counts: a
# training that only did harm should come out as no steering at all.

# %% hint [markdown]
# You want to know *where* the smallest number is, not how small it is.

# %% hint [markdown]
# `losses.index(x)` is the first place at which the list has `x`.


# %% stub
def kept(losses):
    """The number of the step with the lowest loss; the list begins with step 0."""
    ...


# %% wrong says="the loss itself"
def kept(losses):
    return min(losses)


# %% wrong says="the last step"
def kept(losses):
    return len(losses) - 1


# %% wrong says="Step 0 is left out"
def kept(losses):
    return 1 + losses[1:].index(min(losses[1:]))


# %% wrong says="off by one"
def kept(losses):
    return losses.index(min(losses)) + 1


# %% wrong says="Of equals"
def kept(losses):
    return max(step for step, loss in enumerate(losses) if loss == min(losses))


# %% solution
def kept(losses):
    """The number of the step with the lowest loss; the list begins with step 0."""
    return losses.index(min(losses))


# %%
best = kept([row["validation"] for row in history])
print(f"step {best} of {len(history) - 1} is kept")
assert history[best]["validation"] < history[0]["validation"], "nothing was learned"

# %% [markdown]
# ### The library does the same steps
#
# It works on batches, and runs the blocks below the lowest steered one only once.

# %%
options = {"validation": validation, "schedule": steerlens.Schedule.full_batch(steps=STEPS)}
fit = CLAS.fit(model, train, directions=directions, **options)
print("step kept:", fit.trained.best_epoch)
best_c, _ = states[fit.trained.best_epoch]
same = [
    float(torch.cosine_similarity(fit.steers[Site(i)].c[0], best_c[place], dim=0))
    for place, i in enumerate(layers)
]
print("cosine of the two c at each block:", [round(x, 4) for x in same])
assert min(same) > 0.98

# %% exercise [markdown] name="learned" difficulty=1 importance=2 minutes=5
# ### How many numbers?
#
# CLAS has smaller and larger relatives. Write `learned(n_blocks, d_model)`, a dict of how many numbers each
# of them learns:
#
# - `"contextual"`: CLAS, a `c` and a `b` at each block;
# - `"layerwise"`: one fixed strength at each block;
# - `"single"`: one fixed strength, the same for all blocks;
# - `"directions too"`: CLAS which also learns its `v`, at each block.

# %% hint [markdown]
# `c` is a vector as wide as an activation, `b` is one number.

# %% hint [markdown]
# At one block CLAS learns `d_model + 1` numbers. Which of the four do not depend on `d_model`?


# %% stub
def learned(n_blocks, d_model):
    """How many numbers each kind learns."""
    return {
        "contextual": ...,
        "layerwise": ...,
        "single": ...,
        "directions too": ...,
    }


# %% wrong says="forgot b"
def learned(n_blocks, d_model):
    wide = n_blocks * d_model
    return {"contextual": wide, "layerwise": n_blocks, "single": 1, "directions too": 2 * wide}


# %% wrong says="at one block"
def learned(n_blocks, d_model):
    both = 2 * d_model + 1
    return {"contextual": d_model + 1, "layerwise": 1, "single": 1, "directions too": both}


# %% wrong says="two vectors"
def learned(n_blocks, d_model):
    wide = n_blocks * (d_model + 1)
    return {"contextual": wide, "layerwise": n_blocks, "single": 1, "directions too": wide}


# %% wrong says="same for all blocks"
def learned(n_blocks, d_model):
    one, two = n_blocks * (d_model + 1), n_blocks * (2 * d_model + 1)
    return {"contextual": one, "layerwise": n_blocks, "single": n_blocks, "directions too": two}


# %% solution
def learned(n_blocks, d_model):
    """How many numbers each kind learns."""
    return {
        "contextual": n_blocks * (d_model + 1),
        "layerwise": n_blocks,
        "single": 1,
        "directions too": n_blocks * (2 * d_model + 1),
    }


# %% [markdown]
# Hundreds of times as many numbers as a fixed strength has, from ten examples. Do they pay? The same
# training with one strength a block:

# %%
fixed = CLAS.fit(model, train, directions=directions, kind="layerwise", **options)
counts = learned(len(layers), d_model)
values = fit.trained.parameters.values()
assert counts["contextual"] == sum(value.numel() for value in values)
pd.DataFrame(
    {
        name: {
            "numbers": numbers,
            "lowest validation loss": min(row["validation_loss"] for row in rows),
        }
        for name, numbers, rows in (
            ("unsteered", 0, fit.trained.rows[:1]),
            ("one strength a block", counts["layerwise"], fixed.trained.rows),
            ("CLAS", counts["contextual"], fit.trained.rows),
        )
    }
).T.astype({"numbers": int})

# %% [markdown]
# ## 3. How contextual is it?
#
# Now the strengths themselves. `strengths` measures what a steering adds at each of its sites, token by
# token. It does not ask the method; it looks at activations before and after.

# %%
text = Conversation(validation[0].plain.user, None, validation[0].response)
table = strengths(model, [text], {"CLAS": fit.steering}, directions)
given = steerlens.capture(model, [text], layer, moment="before", steering=fit.steering).at(layer)
steer = fit.steers[Site(layer)]
mine = alphas(given.float(), steer.c[0], steer.b[0])
theirs = torch.tensor(table.loc[table["layer"] == layer, "along"].to_numpy(), dtype=torch.float32)
assert torch.allclose(mine, theirs, rtol=1e-2, atol=1e-2 * float(mine.abs().max()))
figures.coefficient_heatmap(table, view="local", colour_quantile=0.98)

# %% [markdown]
# Does α really differ from token to token, or is it one number with some noise on it? Take its mean square
# apart: what a fixed strength (the mean) has of it, and what is left.

# %% exercise [markdown] name="contextual_share" difficulty=2 importance=3 minutes=10
# ### The part that depends on the token
#
# Write `contextual_share(alpha)` for strengths `[tokens]`: the mean square **distance from their mean**,
# divided by their mean square. A fixed strength has 0; strengths that cancel on average have 1. Return a
# number.

# %% hint [markdown]
# The numerator is the variance, with division by the number of tokens. `torch.var` divides by one less
# unless it is told otherwise.

# %% hint [markdown]
# `(alpha - alpha.mean()).square().mean()`, and the same without subtracting for the denominator.


# %% stub
def contextual_share(alpha):
    """The share of the mean square that a fixed strength does not have, 0 to 1."""
    ...


# %% wrong says="the share of the mean"
def contextual_share(alpha):
    return float(alpha.mean().square() / alpha.square().mean())


# %% wrong says="variance itself"
def contextual_share(alpha):
    return float(alpha.var(correction=0))


# %% wrong says="one less"
def contextual_share(alpha):
    return float(alpha.var() / alpha.square().mean())


# %% wrong says="square root"
def contextual_share(alpha):
    return float(alpha.std(correction=0) / alpha.square().mean().sqrt())


# %% wrong says="one number"
def contextual_share(alpha):
    return (alpha - alpha.mean()).square() / alpha.square().mean()


# %% solution
def contextual_share(alpha):
    """The share of the mean square that a fixed strength does not have, 0 to 1."""
    around = (alpha - alpha.mean()).square().mean()
    return float(around / alpha.square().mean())


# %%
rows = {}
for i in layers:
    along = torch.tensor(table.loc[table["layer"] == i, "along"].to_numpy())
    rows[i] = {
        "all tokens": contextual_share(along),
        "without the first": contextual_share(along[1:]),
    }
pd.DataFrame(rows).T.rename_axis("block").T

# %% [markdown]
# Why two rows? The first token is unlike all others in many models. One token can make a steering look
# contextual whose strength on the text hardly varies.
#
# ### Beside the prompt's
#
# The prompt does its work without any *v*. But we can measure how far *its* push goes along v at the same
# tokens, beside what CLAS has done there, accumulated over the blocks below.

# %%
methods = {"CLAS": fit.steering}
beside = coefficients(model, validation[:6], layers, methods, directions)
coloured_text(model, validation[0], 0, beside, methods, layer, "the length of v")

# %% [markdown]
# Do both push at the same tokens? A plain correlation over all tokens can be high merely because some
# *texts* get more than others from both. So we ask **within** texts.

# %% exercise [markdown] name="within_correlation" difficulty=3 importance=2 minutes=10
# ### Correlation within texts
#
# Write `within_correlation(x, y, text)`. `x` and `y` are strengths `[tokens]`; `text`, `[tokens]`, is the
# number of the text that each token is in. Subtract from each strength the mean of its text, for x and for
# y. Of what is left, over all tokens,
#
# $$r = \frac{\sum x\,y}{\sqrt{\sum x^2 \; \sum y^2}}.$$
#
# Return a number.

# %% hint [markdown]
# `text == t` marks the tokens of text `t`. Write a small function that centres one tensor, and use it
# twice. Copy before you write: `centred = x.clone()`.

# %% hint [markdown]
# ```python
# for t in text.unique():
#     centred[text == t] -= centred[text == t].mean()
# ```


# %% stub
def within_correlation(x, y, text):
    """The correlation of x and y after each text's mean is taken out."""
    ...


# %% wrong says="means of the texts are still in it"
def within_correlation(x, y, text):
    x, y = x - x.mean(), y - y.mean()
    return float((x * y).sum() / (x.square().sum() * y.square().sum()).sqrt())


# %% wrong says="averaged the correlations"
def within_correlation(x, y, text):
    rs = []
    for t in text.unique():
        a, b = x[text == t] - x[text == t].mean(), y[text == t] - y[text == t].mean()
        rs.append(float((a * b).sum() / (a.square().sum() * b.square().sum()).sqrt()))
    return sum(rs) / len(rs)


# %% wrong says="wrote into the tensor"
def within_correlation(x, y, text):
    for t in text.unique():
        x[text == t] -= x[text == t].mean()
        y[text == t] -= y[text == t].mean()
    return float((x * y).sum() / (x.square().sum() * y.square().sum()).sqrt())


# %% wrong says="covariance"
def within_correlation(x, y, text):
    for t in text.unique():
        one = (text == t).float()
        x = x - one * (x * one).sum() / one.sum()
        y = y - one * (y * one).sum() / one.sum()
    return float((x * y).mean())


# %% solution
def within_correlation(x, y, text):
    """The correlation of x and y after each text's mean is taken out."""

    def centred(values):
        values = values.clone()
        for t in text.unique():
            values[text == t] -= values[text == t].mean()
        return values

    x, y = centred(x), centred(y)
    return float((x * y).sum() / (x.square().sum() * y.square().sum()).sqrt())


# %%
wide = beside.pivot_table(
    index=["layer", "example", "token_index"], columns="method", values="along"
).reset_index()
rows = {}
for i, of_block in wide.groupby("layer"):
    text_of = torch.tensor(of_block["example"].to_numpy())
    ours, prompts = (torch.tensor(of_block[name].to_numpy()) for name in ("CLAS", "prompt"))
    rows[i] = {"within texts": within_correlation(ours, prompts, text_of)}
pd.DataFrame(rows).rename_axis("block", axis=1)

# %% [markdown]
# CLAS never saw the prompt's activations, only completions. Where the number is high, it has found the
# tokens that the prompt works on by itself. Where it is low, it gets the same words in another way; it need
# not be worse for that. A negative number is possible too: v was read at the last token of the prompt, and
# what the completions ask for later may lie on its other side.
#
# ## 4. What it writes
#
# The loss was about texts that somebody else wrote. Now the model writes, and the whole steering is
# multiplied with a strength, 1 being what was learned.

# %%
setting = Setting(
    model,
    attribute.questions("validation")[:12],
    judge_of("lowercase"),
    Coherence(),
    Sampling(max_new_tokens=30, seed=SEED),
    batch_size=64,
)
scores = {
    "unsteered": setting.score().row(),
    "prompt": setting.score(instruction=INSTRUCTION).row(),
    "one strength a block": setting.score(fixed.steering).row(),
}
for strength in (0.5, 1.0, 2.0):
    scores[f"CLAS x {strength}"] = setting.score(strength * fit.steering).row()
pd.DataFrame(scores).T[["attribute", "attribute_low", "attribute_high", "coherence"]]

# %% [markdown]
# Twelve texts each: mind the intervals. Is strength 1, at which the loss is lowest, where the *texts* are
# best? The loss asks how likely ten given texts are, not how lowercase a new one is.
#
# ### Where it was not trained
#
# α has no bounds. On a token unlike those of the training, c · h can be anything. How strong is CLAS on
# texts of another kind?

# %%
elsewhere = {
    "validation": text,
    "the first token": text,
    "capitals": Conversation("TELL ME EVERYTHING ABOUT THE NEW FILM!!!"),
    "numbers": Conversation("17 + 4 = 21; 3 * 9 = 27; 100 / 8 = 12.5"),
    "one word, many times": Conversation(" ".join(["cinema"] * 20)),
}
sizes_of = {}
for name, one in elsewhere.items():
    measured = strengths(model, [one], methods, directions)
    here = measured["token_index"] == 0
    chosen = measured[here if name == "the first token" else ~here]
    sizes_of[name] = chosen.groupby("layer")["along"].agg(lambda x: x.abs().max())
pd.DataFrame(sizes_of).T.rename_axis("largest |α| at block", axis=1)

# %% [markdown]
# Two options keep it in bounds. `CLAS.fit(..., limit=2.0)` clamps α, and
# `CLAS.fit(..., scope=scope.everywhere.without_bos)` leaves the first token alone.

# %% [markdown]
# ## What could go wrong
#
# * **Learned by heart.** There are many numbers and few texts. Without validation pairs you keep the last
#   step, and it can be worse than no steering.
# * **One learning rate for everything.** With the rate of `c`, `b` would hardly move in eight steps; with
#   the rate of `b`, `c` would explode. A rate that suits one model's activations does not suit another's.
# * **Logits and tokens off by one.** The loss then asks the model to predict a token that it has just read.
#   It becomes small very fast, and the steering is good for nothing.
# * **Prompt tokens in the loss.** The steering then learns to write *questions* in lowercase.
# * **A direction that does not carry the behaviour.** Then there is nothing to learn, and step 0 is kept.
#   That is an honest result. Say so, and look for a better direction (unit 3).
# * **"Contextual", because of one token.** Look at the strengths without the first token.
# * **Far from the training texts** α can be anything. Bound it, or look at it.

# %% [markdown]
# ### On another model
#
# `STEERLENS_MODEL=smollm2` runs this unit on SmolLM2-135M, in minutes, with six pairs and four steps, at six
# of its thirty blocks. Its activations are far longer than the demonstration model's, above all at the first
# token, so strengths are larger numbers there; compare them with the lengths of activations, not across
# models. The examples were written by the demonstration model, so SmolLM2 finds them more surprising.

# %% [markdown]
# ## An open experiment
#
# Does the direction matter at all? `c` and `b` are fitted to whatever *v* they are given. Take **random**
# directions, `contrast_directions(model, "random", with_it, without, layers)`, and fit CLAS on them. Compare
# the validation losses, the texts, and the correlation with the prompt. Then let CLAS learn its directions
# too (`learn_directions=True`). Write down beforehand: if random directions do nearly as well, what has
# been learned, and where is it?

# %% [markdown]
# ## References
#
# - Hsu, Beaglehole, Radhakrishnan and Belkin, *Contextual Linear Activation Steering of Language Models*,
#   2026, [arXiv 2604.24693](https://arxiv.org/abs/2604.24693).
# - The method's page, with what the authors' code does and what was measured: `docs/methods/clas.md`.
# - Arditi and others, *Refusal in Language Models Is Mediated by a Single Direction*, 2024,
#   [arXiv 2406.11717](https://arxiv.org/abs/2406.11717): ablation of a direction.
# - In the library: `steerlens/methods/clas.py` and `steerlens/training/likelihood.py`.
