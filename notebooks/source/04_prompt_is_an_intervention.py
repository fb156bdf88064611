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
# # A prompt is an intervention
#
# Put "Be positive." in front of a request and the model writes something else. Seen from inside, whatever
# the instruction did, it did by changing the activations of the tokens behind it. So a prompt *is* an
# intervention on activations, and one that we can measure exactly, token by token and layer by layer. This
# unit measures it, puts it back by hooks alone, and asks which of it a simpler intervention could imitate.
#
# **Goals.** After this unit you can
#
# - measure what an instruction does to each token of a response, at each layer;
# - prove that it is an intervention: get the prompted predictions from a plain prompt and hooks;
# - tell what a layer *adds* from what has *accumulated* below it;
# - measure how unequal the pushes are, and whether a token's activation tells how hard it is pushed.
#
# **Before.** Unit 1: hooks. Unit 0: `along` and its direction. Unit 3: why one holds out.
#
# **Time.** 120 minutes, 70 of them for seven exercises.

# %%
import os

import pandas as pd
import torch
from checks.display import flush_left, quiet

import steerlens
from steerlens import Site, benchmark_set
from steerlens.analysis import (
    align,
    coefficients,
    coloured_text,
    decodability,
    dispersion,
    figures,
    prompt_deltas,
)

quiet()
SEED = 0
model = steerlens.load(os.environ.get("STEERLENS_MODEL", "demo"))
# A chat template says how a conversation is written down. Models without one get a plain one.
model.tokenizer.chat_template = model.tokenizer.chat_template or steerlens.PLAIN
n_layers, d_model = model.cfg.n_layers, model.cfg.d_model
layer = n_layers // 2

# %% [markdown]
# Twelve requests, each with two responses that the model wrote **under the instruction**. From now on the
# responses are fixed: we do not let the model write, we let it *read* the same words after two prompts.

# %%
INSTRUCTION = "Be positive."
attribute = benchmark_set.read("positive")
pairs = steerlens.prompted_pairs(
    model,
    attribute.questions("validation")[:12],
    INSTRUCTION,
    n=2,
    max_new_tokens=30,
    temperature=0.8,
    seed=SEED,
)
some = {pair.plain.user: pair.response for pair in pairs[:6:2]}
some = {asked: model.tokenizer.decode(ids) for asked, ids in some.items()}
flush_left(pd.DataFrame({"response, written under the instruction": some}))

# %% [markdown]
# ## 1. What the instruction does
#
# One pair. The same response stands behind a prompt without the instruction (*plain*) and behind one with
# it (*prompted*). The two rows of tokens have different lengths.

# %%
pair = pairs[0]
plain, prompted = steerlens.encode_pair(model, pair)
n = len(plain.ids) - plain.response  # tokens of the response
print(f"{len(plain.ids)} plain tokens, {len(prompted.ids)} prompted; {n} are the response")
for row in (plain, prompted):
    print(repr(model.tokenizer.decode(list(row.ids))))

# %% [markdown]
# We run both and keep what goes into layer 0 and what comes out of every layer. `activations` gives
# `[positions, d_model]` for each place.

# %%
ENTRY = "blocks.0.hook_resid_pre"
OUT = [f"blocks.{i}.hook_resid_post" for i in range(n_layers)]


def activations(row):
    _, cache = model.run_with_cache(
        torch.tensor([row.ids]), names_filter=lambda place: place in (ENTRY, *OUT)
    )
    return {place: cache[place][0] for place in (ENTRY, *OUT)}


plain_run, prompted_run = activations(plain), activations(prompted)
print(list(plain_run[OUT[0]].shape), list(prompted_run[OUT[0]].shape))

# %% exercise [markdown] name="push" difficulty=1 importance=3 minutes=5
# ### The push on each token
#
# Write `push(plain, prompted, n)`. Both are activations `[positions, d_model]`, of different lengths. Return
# by how much the instruction changed the activation of each of the `n` tokens of the response,
# `[n, d_model]`.

# %% hint [markdown]
# Where does the response stand in both rows: at the left end or at the right end?

# %% hint [markdown]
# `prompted[-n:]` are the last n rows. A push is what must be *added* to the plain activation.


# %% stub
def push(plain, prompted, n):
    """What the instruction adds to each token of the response, [n, d_model]."""
    ...


# %% wrong says="from the left"
def push(plain, prompted, n):
    return prompted[:n] - plain[:n]


# %% wrong says="Wrong sign"
def push(plain, prompted, n):
    return plain[-n:] - prompted[-n:]


# %% wrong says="Off by one along axis 0"
def push(plain, prompted, n):
    return prompted[-n - 1 :] - plain[-n - 1 :]


# %% wrong says="often a wrong axis"
def push(plain, prompted, n):
    return prompted - plain


# %% wrong says="same position"
def push(plain, prompted, n):
    start = len(plain) - n
    return prompted[start : start + n] - plain[start:]


# %% solution
def push(plain, prompted, n):
    """What the instruction adds to each token of the response, [n, d_model]."""
    return prompted[-n:] - plain[-n:]


# %% [markdown]
# That is the whole measurement. The library does it for many pairs and layers at once; `align` runs both
# sides, and `prompt_deltas` subtracts.

# %%
of_first = {place: push(plain_run[place], prompted_run[place], n) for place in OUT}
sites = [Site(i) for i in range(n_layers)]
aligned = align(model, pairs, sites)
deltas = prompt_deltas(model, aligned)
theirs = deltas[Site(layer)][aligned.example == 0]
torch.testing.assert_close(of_first[OUT[layer]].double(), theirs, rtol=1e-3, atol=1e-3)
sizes = {
    "push": of_first[OUT[layer]].norm(dim=-1),
    "activation": plain_run[OUT[layer]][-n:].norm(dim=-1),
}
words = [repr(model.tokenizer.decode([token])) for token in plain.ids[-n:]]
pd.DataFrame({name: of.tolist() for name, of in sizes.items()}, index=words).head(12).T

# %% [markdown]
# ## 2. Put it back
#
# Is this *all* that the instruction does? Then the plain prompt, with the prompted activations put in place
# on the response, must lead to the prompted predictions.

# %% exercise [markdown] name="putting" difficulty=2 importance=3 minutes=10
# ### Put activations in place
#
# Write `putting(values)`, for `values` `[n, d_model]`. It gives back a hook that **replaces** the activations
# of the last n positions by these values, in activations `[texts, positions, d_model]`. The tensor that the
# model hands to the hook stays as it is.

# %% hint [markdown]
# Copy first: `changed = activation.clone()`. Which slice are the last n positions? n is `len(values)`.

# %% hint [markdown]
# `changed[:, -len(values) :] = values`. Replacing is `=`, not `+=`.


# %% stub
def putting(values):
    """A hook that replaces the activations of the last len(values) positions."""

    def hook(activation, hook=None):
        # your lines
        ...

    return hook


# %% wrong says="You *added*"
def putting(values):
    def hook(activation, hook=None):
        changed = activation.clone()
        changed[:, -len(values) :] += values
        return changed

    return hook


# %% wrong says="wrote into the tensor"
def putting(values):
    def hook(activation, hook=None):
        activation[:, -len(values) :] = values
        return activation

    return hook


# %% wrong says="at the front"
def putting(values):
    def hook(activation, hook=None):
        changed = activation.clone()
        changed[:, : len(values)] = values
        return changed

    return hook


# %% wrong says="positions before them are gone"
def putting(values):
    return lambda activation, hook=None: values.expand(len(activation), -1, -1)


# %% wrong says="returns nothing"
def putting(values):
    def hook(activation, hook=None):
        changed = activation.clone()
        changed[:, -len(values) :] = values

    return hook


# %% solution
def putting(values):
    """A hook that replaces the activations of the last len(values) positions."""

    def hook(activation, hook=None):
        changed = activation.clone()
        changed[:, -len(values) :] = values
        return changed

    return hook


# %% [markdown]
# `far` says how far predictions on the response are from the prompted ones: the mean of
# KL(prompted || run), in nats a token (unit 2). Now put the prompted activations in place at one layer at a
# time.

# %%
ids = torch.tensor([plain.ids])
wanted = model(torch.tensor([prompted.ids]))[0, -n:].double().log_softmax(dim=-1)


def far(*hooks):
    got = model.run_with_hooks(ids, fwd_hooks=list(hooks))
    got = got[0, -n:].double().log_softmax(dim=-1)
    return float((wanted.exp() * (wanted - got)).sum(dim=-1).mean())


nothing = far()
left = {i: far((OUT[i], putting(prompted_run[OUT[i]][-n:]))) / nothing for i in range(n_layers)}
assert left[n_layers - 1] < 1e-3, "above the last layer there is nothing left to go wrong"
pd.DataFrame({"share of the KL that is left": left}).rename_axis("put in at layer").T

# %% [markdown]
# At the last layer nothing is left. Further down some is, at low layers often most of it: from there on the
# response goes through layers whose attention looks at the *plain* prompt. The instruction is not there to
# look at. So what a prompt does cannot be put in at one early layer; later layers add to it.
#
# ## 3. What each layer adds
#
# What we measured at a layer has **accumulated** in all layers below it. The **local** push is what this
# layer adds *because of the prompt*: give the layer's input its prompted value, but let it attend to the
# plain prompt, and see what is missing in its output,
#
# $$\text{local}_\ell = A_\ell(\text{prompted}) - F_\ell\bigl(A_{\ell-1}(\text{prompted})\bigr),$$
#
# where F is the layer as it works in the plain run.

# %% exercise [markdown] name="local_push" difficulty=3 importance=2 minutes=15
# ### The local push
#
# Write `local_push(model, plain_ids, layer, before, after)`. `plain_ids` `[1, positions]` is the plain row;
# `before` and `after`, `[n, d_model]`, are the *prompted* input (`resid_pre`) and output (`resid_post`) of the
# layer on the response. Return the local push, `[n, d_model]`. Use your `putting`.

# %% hint [markdown]
# Two hooks in one run of the plain row: one at `resid_pre` puts `before` in place, one at `resid_post` of the
# same layer remembers what comes out.

# %% hint [markdown]
# A hook that remembers: `kept = []` outside, and `kept.append(activation[0, -len(before) :])` in it; it
# returns nothing. The local push is `after - kept[0]`.


# %% stub
def local_push(model, plain_ids, layer, before, after):
    """What the layer adds because of the prompt, [n, d_model]."""
    ...


# %% wrong says="accumulated"
def local_push(model, plain_ids, layer, before, after):
    kept = []
    place = f"blocks.{layer}.hook_resid_post"

    def keep(activation, hook=None):
        kept.append(activation[0, -len(before) :])

    model.run_with_hooks(plain_ids, fwd_hooks=[(place, keep)])
    return after - kept[0]


# %% wrong says="all that the layer adds"
def local_push(model, plain_ids, layer, before, after):
    return after - before


# %% wrong says="Wrong sign"
def local_push(model, plain_ids, layer, before, after):
    kept = []
    name = f"blocks.{layer}.hook_resid_"

    def keep(activation, hook=None):
        kept.append(activation[0, -len(before) :])

    model.run_with_hooks(
        plain_ids, fwd_hooks=[(name + "pre", putting(before)), (name + "post", keep)]
    )
    return kept[0] - after


# %% wrong says="still to be subtracted"
def local_push(model, plain_ids, layer, before, after):
    kept = []
    name = f"blocks.{layer}.hook_resid_"

    def keep(activation, hook=None):
        kept.append(activation[0, -len(before) :])

    model.run_with_hooks(
        plain_ids, fwd_hooks=[(name + "pre", putting(before)), (name + "post", keep)]
    )
    return kept[0]


# %% wrong says="put in place *after*"
def local_push(model, plain_ids, layer, before, after):
    kept = []
    place = f"blocks.{layer}.hook_resid_post"

    def keep(activation, hook=None):
        kept.append(activation[0, -len(before) :])

    model.run_with_hooks(plain_ids, fwd_hooks=[(place, putting(before)), (place, keep)])
    return after - kept[0]


# %% solution
def local_push(model, plain_ids, layer, before, after):
    """What the layer adds because of the prompt, [n, d_model]."""
    kept = []

    def keep(activation, hook=None):
        kept.append(activation[0, -len(before) :])

    hooks = [
        (f"blocks.{layer}.hook_resid_pre", putting(before)),
        (f"blocks.{layer}.hook_resid_post", keep),
    ]
    model.run_with_hooks(plain_ids, fwd_hooks=hooks)
    return after - kept[0]


# %%
through = [prompted_run[place][-n:] for place in (ENTRY, *OUT)]  # into layer 0, out of layer 0, ...
entry = push(plain_run[ENTRY], prompted_run[ENTRY], n)
local = torch.stack(
    [local_push(model, ids, i, through[i], through[i + 1]) for i in range(n_layers)]
)
one = align(model, [pair], sites)
theirs = prompt_deltas(model, one, view="local")
torch.testing.assert_close(local[layer].double(), theirs[Site(layer)], rtol=1e-3, atol=1e-3)
pd.DataFrame(
    {
        "local": local.norm(dim=-1).mean(dim=-1).tolist(),
        "accumulated": [float(of_first[place].norm(dim=-1).mean()) for place in OUT],
    }
).rename_axis("layer").T

# %% [markdown]
# Which layers add most? The accumulated push is not the sum of the local ones: layers also work on what
# comes from below, and may undo it.
#
# And `entry`, before any layer? A token's activation there is its word alone, in models with **rotary**
# positions; then `entry` is zero. A model with a *learned vector for every position* adds that, too, and an
# instruction in front moves the response to later positions. That part of the push has no meaning at all.
#
# Now the proof. Run the plain prompt, add `entry` before layer 0 and each local push behind its layer. If
# every push is right, the response's activations are the prompted ones *at every layer*: a prompt is
# exactly an intervention.

# %% exercise [markdown] name="hooks_of" difficulty=2 importance=3 minutes=10
# ### The prompt as hooks
#
# Write `hooks_of(entry, local)` for `entry` `[n, d_model]` and `local` `[n_layers, n, d_model]`. Return a list
# of (name, hook): at `blocks.0.hook_resid_pre` a hook that **adds** `entry` to the last n positions, and at
# `blocks.i.hook_resid_post` one that adds `local[i]` to them, for every layer i.

# %% hint [markdown]
# Write a function `adding(values)` like `putting`, and call it once for each place.

# %% hint [markdown]
# Begin with `hooks = [("blocks.0.hook_resid_pre", adding(entry))]`, then append one for each
# `i, values in enumerate(local)`. A hook that is defined inside of the loop would look up `i` when it *runs*,
# and by then the loop is over.


# %% stub
def hooks_of(entry, local):
    """(name, hook) of every place: all that the prompt does to the response."""
    ...


# %% wrong says="`entry` is missing"
def hooks_of(entry, local):
    def adding(values):
        def hook(activation, hook=None):
            changed = activation.clone()
            changed[:, -len(values) :] += values
            return changed

        return hook

    return [(f"blocks.{i}.hook_resid_post", adding(values)) for i, values in enumerate(local)]


# %% wrong says="push of the last layer"
def hooks_of(entry, local):
    def first(activation, hook=None):
        changed = activation.clone()
        changed[:, -len(entry) :] += entry
        return changed

    hooks = [("blocks.0.hook_resid_pre", first)]
    for i in range(len(local)):

        def later(activation, hook=None):
            changed = activation.clone()
            changed[:, -len(entry) :] += local[i]
            return changed

        hooks.append((f"blocks.{i}.hook_resid_post", later))
    return hooks


# %% wrong says="replaces"
def hooks_of(entry, local):
    hooks = [("blocks.0.hook_resid_pre", putting(entry))]
    return hooks + [(f"blocks.{i}.hook_resid_post", putting(v)) for i, v in enumerate(local)]


# %% wrong says="goes *into*"
def hooks_of(entry, local):
    def adding(values):
        def hook(activation, hook=None):
            changed = activation.clone()
            changed[:, -len(values) :] += values
            return changed

        return hook

    return [(f"blocks.{i}.hook_resid_pre", adding(v)) for i, v in enumerate([entry, *local])]


# %% solution
def hooks_of(entry, local):
    """(name, hook) of every place: all that the prompt does to the response."""

    def adding(values):
        def hook(activation, hook=None):
            changed = activation.clone()
            changed[:, -len(values) :] += values
            return changed

        return hook

    hooks = [("blocks.0.hook_resid_pre", adding(entry))]
    for i, values in enumerate(local):
        hooks.append((f"blocks.{i}.hook_resid_post", adding(values)))
    return hooks


# %%
print(f"KL left without any hook:      {nothing:.4f} nats a token")
print(f"KL left with all local pushes: {far(*hooks_of(entry, local)):.4f}")
assert far(*hooks_of(entry, local)) < 1e-3 * nothing
without = torch.zeros_like(entry)
print(f"... without `entry`:           {far(*hooks_of(without, local)):.4f}")
accumulated = torch.stack(list(of_first.values()))
print(f"... accumulated in their place: {far(*hooks_of(entry, accumulated)):.4f}")

# %% [markdown]
# The instruction's own tokens are nowhere in this run, and the predictions are the prompted ones. What it
# took is one vector for each token and each layer. All of steering by vectors is the question how much of
# this table of vectors can be said with less. (The accumulated pushes in their place count everything
# several times.)
#
# ## 4. One number for each token
#
# A table of vectors is hard to look at. `along` (unit 0) makes one number of each: how far the token was
# moved along the mean push v, with 1 for as far as v. But on which tokens is v the mean?

# %% exercise [markdown] name="leave_one_out" difficulty=2 importance=3 minutes=10
# ### A direction that has not seen the example
#
# If v is the mean over all tokens, each token has had a part in its own ruler. Write
# `leave_one_out(deltas, example)`: for each token the mean of `deltas`, `[tokens, d_model]`, over **all tokens of
# all other examples**. `example`, `[tokens]`, says to which example a token belongs, 0, 1, 2, ... The result is
# `[tokens, d_model]`.

# %% hint [markdown]
# For one example k: `deltas[example != k].mean(dim=0)`. Every token of example k gets this row.

# %% hint [markdown]
# Fill `axes = torch.zeros_like(deltas)` in a loop over `example.unique()`:
# `axes[example == k] = deltas[example != k].mean(dim=0)`.


# %% stub
def leave_one_out(deltas, example):
    """For each token, the mean delta over the tokens of all other examples, [tokens, d_model]."""
    ...


# %% wrong says="part in its own ruler"
def leave_one_out(deltas, example):
    return deltas.mean(dim=0).expand_as(deltas).clone()


# %% wrong says="left out the token"
def leave_one_out(deltas, example):
    return (deltas.sum(dim=0) - deltas) / (len(deltas) - 1)


# %% wrong says="of its *own* example"
def leave_one_out(deltas, example):
    axes = torch.zeros_like(deltas)
    for k in example.unique():
        axes[example == k] = deltas[example == k].mean(dim=0)
    return axes


# %% wrong says="short examples weigh as much"
def leave_one_out(deltas, example):
    means = torch.stack([deltas[example == k].mean(dim=0) for k in example.unique()])
    others = (means.sum(dim=0) - means) / (len(means) - 1)
    return others[example]


# %% wrong says="one row for each example"
def leave_one_out(deltas, example):
    return torch.stack([deltas[example != k].mean(dim=0) for k in example.unique()])


# %% solution
def leave_one_out(deltas, example):
    """For each token, the mean delta over the tokens of all other examples, [tokens, d_model]."""
    axes = torch.zeros_like(deltas)
    for k in example.unique():
        axes[example == k] = deltas[example != k].mean(dim=0)
    return axes


# %% [markdown]
# The library does it so, too. It also leaves out **sinks**, the few tokens with a very long activation
# (unit 1), of which a mean would otherwise consist.

# %%
table = coefficients(model, pairs, range(n_layers), {})
kept = ~aligned.sinks(Site(layer))
at_layer, example = deltas[Site(layer)][kept], aligned.example[kept]
v = leave_one_out(at_layer, example)
strength = (at_layer * v).sum(dim=-1) / (v * v).sum(dim=-1)
theirs = table[(table["layer"] == layer) & ~table["sink"]]["along"].to_numpy()
torch.testing.assert_close(strength, torch.tensor(theirs), rtol=1e-3, atol=1e-3)
figures.coefficient_heatmap(table, example=0, colour_quantile=0.98)

# %%
coloured_text(model, pairs[0], 0, table, {}, layer)

# %% [markdown]
# Which tokens get the most? The first ones, the adjectives, the full stops? Is it the same at every layer?
#
# ## 5. Could one push for all do the same?
#
# The usual steering adds the same vector to every token. That imitates a prompt only if the pushes lie
# along one direction (unit 5 measures that) **and** are equally long. Are they?

# %% exercise [markdown] name="gini" difficulty=2 importance=2 minutes=10
# ### How unequal?
#
# The **Gini coefficient** of numbers x is half their mean absolute difference, over all pairs (each with
# itself, too), divided by their mean. 0: all tokens get the same. Near 1: one gets all. Write `gini(x)` for
# a tensor of sizes, `[tokens]`. Return a number.

# %% hint [markdown]
# All differences at once are a table: `x[:, None] - x[None, :]`.

# %% hint [markdown]
# `.abs().mean()` of that table, divided by `2 * x.mean()`.


# %% stub
def gini(x):
    """0 if all are alike, near 1 if one has all."""
    ...


# %% wrong says="*Half* of"
def gini(x):
    return float((x[:, None] - x[None, :]).abs().mean() / x.mean())


# %% wrong says="signs cancel"
def gini(x):
    return float((x[:, None] - x[None, :]).mean() / (2 * x.mean()))


# %% wrong says="divided by the mean"
def gini(x):
    return float((x[:, None] - x[None, :]).abs().mean() / 2)


# %% wrong says="each with itself"
def gini(x):
    m = len(x)
    return float((x[:, None] - x[None, :]).abs().sum() / (m * (m - 1)) / (2 * x.mean()))


# %% wrong says="neighbours"
def gini(x):
    return float((x[1:] - x[:-1]).abs().mean() / (2 * x.mean()))


# %% solution
def gini(x):
    """0 if all are alike, near 1 if one has all."""
    return float((x[:, None] - x[None, :]).abs().mean() / (2 * x.mean()))


# %%
spread = dispersion(table)  # of the column "norm", the length of a push
sizes = at_layer.norm(dim=-1)
theirs = float(spread.set_index("layer")["gini"][layer])
assert abs(gini(sizes) - theirs) < 1e-4
print(f"Gini coefficient of the prompt at layer {layer}: {gini(sizes):.3f}")
print(f"of a constant push: {gini(torch.ones(40)):.3f}; of gates, half of them closed:", end=" ")
print(f"{gini(torch.tensor([0.0, 1.0]).repeat(20)):.3f}")
spread[["layer", "gini", "gini_low", "gini_high", "ratio", "ratio_low", "ratio_high"]]

# %% [markdown]
# *ratio* is the push of the tokens at the 95th percentile over that of those at the 5th. A constant push
# has 1 at its own layer. So one strength for all is too much for some tokens and too little for others.
#
# ## 6. Does a token know how hard it is pushed?
#
# A **gate** in front of the vector needs less: that the strength can be *read off the token's own
# activation*. Can it? Fit a linear read-out on some requests and measure it on others.

# %%
h = aligned.plain.at(Site(layer)).double()[kept]
question = aligned.question[kept]
fitted, held_out = question < 8, question >= 8


def ridge(x, y, penalty):
    """The weights and the constant of a linear read-out; a penalty keeps the weights small."""
    centre, size = x.mean(dim=0), x.std(dim=0).clamp(min=1e-9)
    z = (x - centre) / size
    gram = z.T @ z / len(z) + penalty * torch.eye(z.shape[1], dtype=z.dtype)
    w = torch.linalg.solve(gram, z.T @ (y - y.mean()) / len(z)) / size
    return w, y.mean() - centre @ w


# %% exercise [markdown] name="r_squared" difficulty=2 importance=3 minutes=10
# ### How good is the read-out?
#
# Write `r_squared(y, guess, mean)`: $R^2 = 1 - \sum (y - \text{guess})^2 \,/\, \sum (y - \text{mean})^2$. `mean` is
# the mean strength of the requests that were **fitted on**, which is what one would guess without a
# read-out. Return a number; 1 is a perfect read-out, 0 is no better than that guess, and below 0 is worse.

# %% hint [markdown]
# Two sums of squares: that of the errors with the read-out, and that of the errors without.

# %% hint [markdown]
# `1 - (y - guess).square().sum() / (y - mean).square().sum()`. `mean` is given: do not take that of `y`.


# %% stub
def r_squared(y, guess, mean):
    """1 is a perfect read-out, 0 is no better than the mean of what was fitted on."""
    ...


# %% wrong says="square of the correlation"
def r_squared(y, guess, mean):
    return float(torch.corrcoef(torch.stack([y, guess]))[0, 1] ** 2)


# %% wrong says="mean of `y` itself"
def r_squared(y, guess, mean):
    return float(1 - (y - guess).square().sum() / (y - y.mean()).square().sum())


# %% wrong says="what is *missed*"
def r_squared(y, guess, mean):
    return float((y - guess).square().sum() / (y - mean).square().sum())


# %% wrong says="Square the errors"
def r_squared(y, guess, mean):
    return float(1 - (y - guess).abs().sum() / (y - mean).abs().sum())


# %% solution
def r_squared(y, guess, mean):
    """1 is a perfect read-out, 0 is no better than the mean of what was fitted on."""
    return float(1 - (y - guess).square().sum() / (y - mean).square().sum())


# %%
mean = strength[fitted].mean()
rows = {}
for penalty in (1e-4, 0.1, 1.0, 10.0):
    w, b = ridge(h[fitted], strength[fitted], penalty)
    rows[f"{penalty:g}"] = {
        name: r_squared(strength[some], h[some] @ w + b, mean)
        for name, some in (("fitted on", fitted), ("held out", held_out))
    }
pd.DataFrame(rows).rename_axis(columns="penalty").T

# %% [markdown]
# With the smallest penalty the read-out is splendid on what it was fitted on. That says nothing: there are
# as many weights as numbers in an activation. Only the right column counts, and choosing the penalty by it
# flatters it a little. The library chooses the penalty among the fitted requests, and tests every request
# once.

# %%
readable = decodability(model, pairs, [layer], folds=3, readouts=("linear",))
readable[["layer", "readout", "r2", "low", "high", "n_questions"]]

# %% [markdown]
# The closer to 1, the better a gate *can* know how hard to push. CLAS (unit 6) and PSR (unit 7) are gates of
# this kind; a constant vector is a gate with R² = 0.

# %% [markdown]
# ## What could go wrong
#
# * **Other words after the two prompts.** If each side wrote its own response, the difference would be that
#   of the words. Fix the response; `align` refuses anything else.
# * **Aligned from the left.** The first tokens of the two rows are not the same tokens. Nothing complains:
#   the shapes fit.
# * **The last token of the prompt** predicts the first word of the response, and is not among its tokens.
#   `align(..., span=steerlens.response)` takes it along.
# * **Position without meaning.** With learned positions any text in front pushes. Unit 5 measures how much
#   of the push an instruction makes that asks for nothing.
# * **A ruler that has seen what it measures.** With few examples, `along` on the mean of all of them is too
#   close to 1.
# * **Local is not causal.** A layer with a small local push may still be the one that reads the instruction
#   for others. To know, patch it out.

# %% [markdown]
# ### On another model
#
# `STEERLENS_MODEL=smollm2` runs this unit on SmolLM2-135M. What changes there: positions are rotary, so
# `entry` is zero; its chat template writes a system prompt of its own on the plain side, so "plain" is not
# "no instruction" (a warning says so); and there are sinks. The prompt's pushes are spread over 30 layers.

# %% [markdown]
# ## An open experiment
#
# How few of the pushes are needed? Take `hooks_of(entry, local)` and set to zero the local pushes of some
# layers, or of some tokens (only adjectives keep theirs, only the first five tokens, every second one), or
# replace each by its part along the mean push of its layer. Draw the share of the KL that is left against the
# share of numbers that you kept. Write down first which you expect to matter more, layers or tokens. Then do
# it for another pair, and say how sure you are.

# %% [markdown]
# ## References
#
# - Heyman and Vandeputte, *Steer Like the LLM: Activation Steering that Mimics Prompting*, 2026,
#   [arXiv 2605.03907](https://arxiv.org/abs/2605.03907): local and accumulated pushes, and the assumptions.
# - Sun and others, *Massive Activations in Large Language Models*, 2024,
#   [arXiv 2402.17762](https://arxiv.org/abs/2402.17762): sinks.
# - What each figure shows: `docs/figures.md`. In the library: `analysis/measures/deltas.py`.
