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
# # A prompt is an intervention
#
# Put "Be positive." in front of a request and the model writes something else. Seen from inside,
# whatever the instruction did, it did by changing the activations of the tokens behind it. (Part of
# that is no meaning at all: in a model with learned positions it also moves them along. The neutral
# prompts in section 4 show how much that is.) So a prompt *is* an activation intervention, and one that we can measure exactly. This notebook follows "Steer
# Like the LLM" (Heyman and Vandeputte, 2026, arXiv 2605.03907):
#
# 1. measure what the instruction does to each token at each layer,
# 2. ask what would have to be true for a single vector to do the same,
# 3. see which methods are **faithful** to the prompt,
# 4. train a **Prompt Steering Replacement** (PSR) by hand, and compare it with the library's.
#
# You should know hooks and `Site` (notebook `00_tour`).

# %%
import os
import warnings

import numpy as np
import pandas as pd
import torch
from IPython.display import HTML

import steerlens
from steerlens import PSR, Schedule, Site, at, benchmark_set, scope
from steerlens.analysis import (
    Coherence,
    Entry,
    Setting,
    align,
    assumption_curves,
    coefficients,
    coloured_text,
    decodability,
    dispersion,
    faithfulness,
    figures,
    gini,
    judge_of,
    prompt_deltas,
    rank_share,
    reworded,
    side_by_side,
    tradeoff,
    tradeoff_curve,
)
from steerlens.generation import Sampling
from steerlens.methods.psr import Gates, difference_of_means

warnings.filterwarnings("ignore", message="IProgress not found")  # a progress bar we do without

SEED = 0
pd.set_option("display.max_colwidth", None)
pd.set_option("display.precision", 3)

model = steerlens.load(os.environ.get("STEERLENS_MODEL", "demo"))
# A chat template says how a conversation is written down. Models without one get a plain one.
model.tokenizer.chat_template = model.tokenizer.chat_template or steerlens.PLAIN
n_layers, d_model = model.cfg.n_layers, model.cfg.d_model
layer = n_layers // 2
print(f"{n_layers} layers, {d_model} numbers in an activation; single layers act at {layer}")

# %% [markdown]
# Some requests, each with a response that the model wrote **under the instruction**. Those of the
# first list are for training, those of the second for measuring. (The benchmark set has a third
# list, "test". It is for final results such as docs/results, so we do not look at it while we learn.)

# %%
INSTRUCTION = "Be positive."
attribute = benchmark_set.read("positive")


def answered(split, n_questions, n):
    return steerlens.prompted_pairs(
        model,
        attribute.questions(split)[:n_questions],
        INSTRUCTION,
        n=n,
        max_new_tokens=40,
        temperature=0.8,
        seed=SEED,
    )


train, test = answered("train", 32, 3), answered("validation", 12, 2)
print(len(train), "pairs to train on,", len(test), "to measure on, with other requests")

# %% [markdown]
# ## 1. What the instruction does
#
# ### By hand
#
# The same response stands behind a prompt with the instruction (*prompted*) and behind one without
# (*plain*). We run both and subtract, token by token of the response. The two rows have different
# lengths, and the response stands at their right ends: so we align by the end.

# %%
pair = test[0]
plain, prompted = steerlens.encode_pair(model, pair)
n = len(plain.ids) - plain.response  # tokens of the response
assert plain.ids[-n:] == prompted.ids[-n:], "the same response in both rows"

name = f"blocks.{layer}.hook_resid_post"
_, plain_cache = model.run_with_cache(torch.tensor([plain.ids]), names_filter=name)
_, prompted_cache = model.run_with_cache(torch.tensor([prompted.ids]), names_filter=name)
delta = prompted_cache[name][0, -n:] - plain_cache[name][0, -n:]
print("delta:", list(delta.shape), "= [response tokens, d_model]")

# %% [markdown]
# That is the whole measurement. The library does it for many pairs and layers at once:

# %%
sites = [Site(i) for i in range(n_layers)]
aligned = align(model, test, sites)
deltas = prompt_deltas(model, aligned)
of_first = deltas[Site(layer)][aligned.example == 0]
torch.testing.assert_close(of_first.float(), delta, rtol=1e-3, atol=1e-3)

# %% [markdown]
# ### Draw it
#
# `along` is the part of a token's delta that points where the instruction pushes tokens on average
# (on *other* examples), in units of that average: 1 is the mean push.

# %%
table = coefficients(model, test, range(n_layers), {})
figures.coefficient_heatmap(table, example=0, colour_quantile=0.98)

# %%
coloured_text(model, test[0], 0, table, {}, layer)

# %% [markdown]
# Which tokens get the most? Is it the first ones, the adjectives, the full stops? Is it the same at
# every layer?
#
# ### Accumulated and local
#
# What a layer shows has *accumulated* in all layers below it. The **local** delta is what this layer
# adds because of the prompt: give the layer's input its prompted value, but let it attend to the
# plain prompt, and see what is missing. (Exercise 3 builds it.)

# %%
local = coefficients(model, test[:4], range(n_layers), {}, view="local")
both = pd.concat([table[table["example"] < 4], local])
both.pivot_table(index="view", columns="layer", values="norm", aggfunc="mean")

# %% [markdown]
# ## 2. Would one vector do the same?
#
# The usual steering adds alpha times one vector z to every token. That imitates a prompt only if
#
# * **(3.1)** the deltas of all tokens lie along one direction, and
# * **(3.2)** they are equally long.
#
# A **gate** in front of the vector needs less than 3.2: that the strength can be read off the token's
# own activation **(3.2a)**. Each can be measured. Whatever has to be fitted (directions, read-outs) is
# fitted on some requests and measured on others.

# %%
shares = rank_share(model, test)
spread = dispersion(table)
readouts = decodability(model, test)
assumption_curves(shares, spread, readouts)

# %% [markdown]
# How to read it:
#
# * Left: how much of the squared push lies along the mean push, or along the best few directions. The
#   mean push can hardly be beaten by another single direction if the two lowest lines coincide.
# * Middle: tokens at the 95th percentile are pushed this many times harder than those at the 5th. One
#   vector on every token would have 1.
# * Right: R² of the strength, read off the plain activation. The closer to 1, the better a gate can
#   know how hard to push.

# %%
spread[["layer", "ratio", "ratio_low", "ratio_high", "gini"]]

# %% [markdown]
# ## 3. PSR by hand
#
# A Prompt Steering Replacement adds to each token
#
# > relu(w · h + b) z
#
# where *h* is the token's activation. `w`, `b` and `z` are learned, so that the plain run, steered,
# gets the activations of the prompted run. Three steps.
#
# ### Step 1: the targets
#
# The prompted activations of every pair, at our layer and at all layers above it: a push that looks
# right here and is wrong two layers later is not the prompt's. They never change, so we compute them
# once. As in the paper the tokens are those of the response *and the last token of the prompt*, whose
# activation predicts the first word of the response.

# %%
above = range(layer, n_layers)
rows = [steerlens.encode_pair(model, pair) for pair in train]
hooks_above = [f"blocks.{i}.hook_resid_post" for i in above]
targets = []
for plain, prompted in rows:
    n = len(plain.ids) - plain.response + 1
    _, cache = model.run_with_cache(
        torch.tensor([prompted.ids]), names_filter=lambda hook: hook in hooks_above
    )
    targets.append([cache[hook][0, -n:] for hook in hooks_above])

# %% [markdown]
# ### Step 2: a gate and a direction
#
# Small random numbers to begin with. Twice `d_model` plus one: that is all there is to learn.

# %%
torch.manual_seed(SEED)
bound = d_model**-0.5
w = torch.empty(d_model).uniform_(-bound, bound).requires_grad_()
b = torch.empty(1).uniform_(-bound, bound).requires_grad_()
z = torch.empty(d_model).uniform_(-bound, bound).requires_grad_()


def psr(h):
    return h + torch.relu(h @ w + b)[..., None] * z


# %% [markdown]
# ### Step 3: make the steered run like the prompted one
#
# One pair at a time: run the *plain* row with the steer on the last `n` tokens, compare the
# activations from our layer on with the targets, and move `w`, `b` and `z` downhill. `requires_grad`
# is off for the model's own weights: only the steer learns.


# %%
def loss_of(number):
    plain, _ = rows[number]
    n = len(plain.ids) - plain.response + 1
    total = 0.0

    def steer(activation, hook):
        return torch.cat([activation[:, :-n], psr(activation[:, -n:])], dim=1)

    def compare(place):
        def hook(activation, hook):
            nonlocal total
            total = total + (activation[0, -n:] - targets[number][place]).square().mean()

        return hook

    hooks = [(hooks_above[0], steer)]
    hooks += [(hook, compare(place)) for place, hook in enumerate(hooks_above)]
    model.run_with_hooks(torch.tensor([plain.ids]), fwd_hooks=hooks)
    return total


for parameter in model.parameters():
    parameter.requires_grad_(False)

EPOCHS, BATCH = 5, 8
optimiser = torch.optim.AdamW([w, b, z], lr=1e-2)
order = np.random.default_rng(SEED)
curve = []
for _ in range(EPOCHS):
    for some in np.array_split(order.permutation(len(rows)), len(rows) // BATCH):
        optimiser.zero_grad()
        loss = sum(loss_of(i) for i in some) / len(some)
        loss.backward()
        optimiser.step()
        curve.append(loss.item())
print(f"loss: {curve[0]:.3g} at the start, {np.mean(curve[-6:]):.3g} at the end")
assert np.mean(curve[-6:]) < curve[0]

# %% [markdown]
# ### The library does it faster
#
# `PSR.fit` runs what never changes only once (the targets, and the layers below), works on batches,
# holds pairs back for validation and keeps the best epoch. (It also lets the learning rate fall to zero,
# divides the loss by its first value and keeps gates from closing, so the vectors are not the same.) `S-Const` has no gate: it is the best
# single vector, trained in the same way. `A-PSR` has a gate and a vector at *every* layer.

# %%
schedule = Schedule(epochs=6, batch_size=2, seed=SEED)
s_const = PSR.fit(model, train, layer, gates=Gates(constant=True), schedule=schedule)
s_psr = PSR.fit(model, train, layer, schedule=schedule)
with warnings.catch_warnings():
    # A gate that never opened begins anew, and says so.
    warnings.simplefilter("ignore", steerlens.SteeringWarning)
    a_psr = PSR.fit(model, train, range(n_layers), schedule=schedule)
s_psr.trained.table[["epoch", "steps", "loss", "validation_loss"]]

# %% [markdown]
# How alike are the vectors? And how often is the gate open?

# %%
by_hand = at(layer, lambda activation, hook=None: psr(activation).detach()).only(scope.response)
library = s_psr.steer.Z[0]
print(
    "cosine of the two z:",
    f"{float(torch.cosine_similarity(z.detach(), library, dim=0)):.3f}",
)
print("open on this share of the tokens:", {f: round(float(r), 2) for f, r in s_psr.firing.items()})
print("and at every layer of A-PSR:", [round(float(r), 2) for r in a_psr.firing.values()])

# %% [markdown]
# ## 4. Who is faithful?
#
# Run each method on the plain prompts of the held-out pairs and see how far its activations are from
# the prompted ones. 1 is the error of doing nothing. The dashed lines are references: the same
# instruction **in other words**, and a **neutral** one that asks for nothing.

# %%
methods = {
    "S-Const_DiM": difference_of_means(model, train, layer),
    "S-Const_MSE": s_const.steering,
    "S-PSR by hand": by_hand,
    "S-PSR_MSE": s_psr.steering,
    "A-PSR_MSE": a_psr.steering,
}
errors = faithfulness(
    model,
    test,
    methods,
    equivalents=[reworded(test, text) for text in attribute.held_out[:3]],
    neutral=[reworded(test, "Answer the user.")],
)
figures.relative_rmse_curve(errors)

# %%
below = errors[(errors["layer"] < layer) & errors["method"].str.startswith("S-")]
np.testing.assert_allclose(below["relative_rmse"], 1, rtol=1e-5)  # nothing has happened there yet

# %% [markdown]
# What to look for:
#
# * A single-layer method is at 1 below its layer, and cannot undo what it has missed there.
# * The paper finds constant steering *above* 1 at its own layer when it is strong enough to matter,
#   and below 1 later on. `3 * methods["S-Const_DiM"]` is one line; try it.
# * Which methods get below the equivalent prompts, and from which layer on?
#
# ### The strengths, over the text
#
# The gate of a PSR is a number for each token, learned from activations alone. Is it high where the
# prompt pushes hard? The coefficients are measured the same way for all; the method is not asked.

# %%
shown = coefficients(model, test, [layer], {k: methods[k] for k in ("S-Const_MSE", "S-PSR_MSE")})
coloured_text(
    model,
    test[1],
    1,
    shown,
    {k: methods[k] for k in ("S-Const_MSE", "S-PSR_MSE")},
    layer,
)

# %%
along = shown.pivot_table(index=["example", "token_index"], columns="method", values="along")
within = along - along.groupby("example").transform("mean")  # each example has a unit of its own
within.corr()["prompt"].rename("correlation with the prompt's own strength").to_frame()

# %% [markdown]
# A constant cannot follow the prompt from token to token: within an example it does not vary, so it has
# no correlation (what is left is rounding). How often was the gate open, in the cell above? A gate that
# is nearly always open is no switch but a dial: relu(w · h + b) is then simply w · h + b.
#
# ## 5. Does it write like the prompt?
#
# Faithful activations are one thing, text another. The same requests and the same random numbers:

# %%
texts = side_by_side(
    model,
    attribute.questions("validation")[:2],
    INSTRUCTION,
    [Entry(name, methods[name]) for name in ("S-Const_DiM", "S-PSR_MSE", "A-PSR_MSE")],
    max_new_tokens=40,
    temperature=0.8,
    seed=SEED,
)
HTML(texts.pivot(index="prompt", columns="method", values="text").to_html())

# %% [markdown]
# Any method shows the attribute if it is strong enough, and breaks the text if it is stronger still.
# So one draws what the effect **costs**: attribute against coherence, over the strength. Further up
# is more positive, further right is better English. Few samples are drawn here, so mind the bars;
# `docs/results/psr.md` has the careful version.

# %%
setting = Setting(
    model,
    attribute.questions("validation")[:16],
    judge_of("positive"),
    Coherence(),
    Sampling(max_new_tokens=40, seed=SEED),
    n=2,
    batch_size=64,
)
few = {name: methods[name] for name in ("S-Const_DiM", "S-PSR_MSE", "A-PSR_MSE")}
scores = tradeoff(setting, few, [1.0, 2.0, 4.0, 8.0], INSTRUCTION)
tradeoff_curve(scores)

# %% [markdown]
# ---
# # Exercises
#
# Each has a task, a cell for your answer (the repository has a solution there; cover it first) and a
# cell that checks it.
#
# ## Exercise 1: how unequal?
#
# The **Gini coefficient** of numbers x is half their mean absolute difference, over all pairs
# (including each with itself), divided by their mean. Write it for the strengths of the prompt at
# one layer. 0 means that all tokens get the same.

# %%
strengths = table[table["layer"] == layer]["norm"].to_numpy()

# %%
# solution


def my_gini(x):
    return np.abs(x[:, None] - x[None, :]).mean() / (2 * x.mean())


# %%
assert my_gini(np.ones(5)) == 0
assert abs(my_gini(np.array([0.0, 0.0, 0.0, 1.0])) - 0.75) < 1e-9
assert abs(my_gini(strengths) - gini(strengths)) < 1e-6
print(f"Gini coefficient at layer {layer}: {my_gini(strengths):.3f}")

# %% [markdown]
# ## Exercise 2: rank two
#
# One direction is not always enough. The paper's proposed next step has *r* gates and *r* directions:
#
# > h + sum over k of relu(w_k · h + b_k) z_k
#
# Write it for matrices `W` and `Z` of shape [r, d_model] and `b` of shape [r], for activations of
# shape [batch, pos, d_model].

# %%
generator = torch.Generator().manual_seed(SEED)
W, Z = torch.randn(2, 2, d_model, generator=generator) * bound
biases = torch.randn(2, generator=generator)

# %%
# solution


def rank_r(h):
    return h + torch.relu(h @ W.T + biases) @ Z


# %%
h = torch.randn(2, 5, d_model, generator=generator)
torch.testing.assert_close(rank_r(h), PSR(W, biases, Z)(h))
one_by_one = h + sum(PSR(W[k : k + 1], biases[k : k + 1], Z[k : k + 1])(h) - h for k in (0, 1))
torch.testing.assert_close(rank_r(h), one_by_one)
print("the library's PSR of rank 2")

# %% [markdown]
# ## Exercise 3: the local delta
#
# What does layer *l* add because of the prompt? Run the **plain** row, but put the *prompted* input of
# the layer (its `resid_pre`) in place on the response tokens. What comes out of the layer is what it
# makes of the prompted input when it can only attend to the plain prompt. Subtract it from the
# prompted output.
#
# `before` and `after` are the prompted input and output of the layer, on the `n` response tokens.

# %%
plain, prompted = steerlens.encode_pair(model, test[0])
n = len(plain.ids) - plain.response
hook_in, hook_out = f"blocks.{layer}.hook_resid_pre", f"blocks.{layer}.hook_resid_post"
_, cache = model.run_with_cache(
    torch.tensor([prompted.ids]), names_filter=lambda hook: hook in (hook_in, hook_out)
)
before, after = cache[hook_in][0, -n:], cache[hook_out][0, -n:]

# %%
# solution
kept = []


def put_in(activation, hook):
    return torch.cat([activation[:, :-n], before[None]], dim=1)


def keep(activation, hook):
    kept.append(activation[0, -n:])


model.run_with_hooks(torch.tensor([plain.ids]), fwd_hooks=[(hook_in, put_in), (hook_out, keep)])
my_local = after - kept[0]

# %%
aligned = align(model, [test[0]], [Site(layer)])
theirs = prompt_deltas(model, aligned, view="local")[Site(layer)]
torch.testing.assert_close(my_local.double(), theirs, rtol=1e-3, atol=1e-3)
accumulated = prompt_deltas(model, aligned)[Site(layer)]
share = float(my_local.norm() / accumulated.norm())
print(f"the local delta at layer {layer} is {share:.0%} as long as the accumulated one")

# %% [markdown]
# ## Where to go on
#
# * `steerlens.capture` reads activations for your own measure; `steerlens faithfulness` makes a
#   report like section 2 and 4 for your prompts and steering files.
# * Train on the words instead of the activations: `PSR.fit(..., objective=steerlens.LL())`.
# * Keep the direction and train only the gate:
#   `PSR.fit(..., gates=Gates(directions={Site(layer): z[None]}))`.
