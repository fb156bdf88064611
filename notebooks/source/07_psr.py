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
# # PSR: train a replacement for a prompt
#
# An instruction changes the activations of all tokens behind it. If we know these changes, can a small
# module make them *without* the instruction? A **Prompt Steering Replacement** (PSR; Heyman and
# Vandeputte, 2026) adds to each token
#
# $$h' = h + \mathrm{relu}(w \cdot h + b)\; z,$$
#
# where the **gate** relu(w · h + b) says how strongly and *z* says where to. CLAS (unit 6) learned from
# words. PSR learns from *activations*: the steered run shall have those of the prompted one.
#
# **Goals.** After this unit you can
#
# - collect the activations that a prompt makes, aligned token by token, as targets;
# - build a gate, train it by imitation, and notice when it has closed for good;
# - say what the best single vector can do, and how much of the rest a gate gets;
# - tell apart three things that people mean by "it works": loss, faithfulness and text.
#
# **Before.** Unit 6 (training through a frozen model). Units 4 and 5 tell why strengths differ from token
# to token.
#
# **Time.** 125 minutes, 70 of them for nine exercises.

# %%
import os
import warnings

import numpy as np
import pandas as pd
import torch
from checks.display import quiet

import steerlens
from steerlens import PSR, Sampling, Schedule, Site, at, benchmark_set, scope
from steerlens.analysis import (
    Coherence,
    Setting,
    coefficients,
    coloured_text,
    faithfulness,
    figures,
    judge_of,
    likelihood,
    reworded,
)
from steerlens.methods.psr import Gates, difference_of_means

# %%
quiet()
SEED = 0
NAME = os.environ.get("STEERLENS_MODEL", "demo")
model = steerlens.load(NAME)
# A chat template says how a conversation is written down. Models without one get a plain one.
model.tokenizer.chat_template = model.tokenizer.chat_template or steerlens.PLAIN
for parameter in model.parameters():
    parameter.requires_grad_(False)  # only the steering learns

# %%
n_layers, d_model = model.cfg.n_layers, model.cfg.d_model
layer = n_layers // 2
large = n_layers > 12  # then train on less, to save time
print(f"{n_layers} layers, {d_model} numbers in an activation; we steer after layer {layer}")

# %% [markdown]
# ## 1. What to imitate
#
# Requests, each with a response that the model wrote **under the instruction**. The same response stands
# behind the prompt with the instruction (the *prompted* row) and without it (the *plain* row). So the two
# rows end in the same tokens.

# %%
INSTRUCTION = "Be positive."
attribute = benchmark_set.read("positive")


def answered(split, n_questions, n):
    questions = attribute.questions(split)[:n_questions]
    options = {"max_new_tokens": 30, "temperature": 0.8, "seed": SEED}
    return steerlens.prompted_pairs(model, questions, INSTRUCTION, n=n, **options)


train, test = answered("train", 12 if large else 24, 2), answered("validation", 10, 1)
rows = [steerlens.encode_pair(model, pair) for pair in train]
plain_row, prompted_row = rows[0]
print(len(train), "pairs to train on,", len(test), "to measure on, with other requests")
for name, row in (("plain", plain_row), ("prompted", prompted_row)):
    print(f"{name:9}{len(row.ids)} tokens, the response begins at position {row.response}")

# %% [markdown]
# Which tokens are steered? Those of the response, and **the last token of the prompt**: its activation
# predicts the first word of the response, so without it the steering would come one word too late.

# %% exercise [markdown] name="n_steered" difficulty=1 importance=2 minutes=5
# ### How many tokens?
#
# Write `n_steered(row)`: how many tokens are steered in a row. `row.ids` is the list of its tokens,
# `row.response` is the position at which the response begins. Positions are counted from 0.

# %% hint [markdown]
# If the response began at position 0, it would be all of the row. How many tokens are there from
# `row.response` to the end?

# %% hint [markdown]
# `len(row.ids) - row.response` are those of the response. One more is steered.


# %% stub
def n_steered(row):
    """The tokens of the response, and the last one of the prompt."""
    ...


# %% wrong says="last token of the prompt is missing"
def n_steered(row):
    return len(row.ids) - row.response


# %% wrong says="number of *prompt* tokens"
def n_steered(row):
    return row.response


# %% wrong says="off by two"
def n_steered(row):
    return len(row.ids) - row.response - 1


# %% wrong says="all tokens"
def n_steered(row):
    return len(row.ids)


# %% solution
def n_steered(row):
    """The tokens of the response, and the last one of the prompt."""
    return len(row.ids) - row.response + 1


# %% [markdown]
# What shall the steered run imitate? The prompted activations at our layer **and at all layers above it**.
# A push that looks right here, and is wrong two layers later, is not the prompt's.

# %% exercise [markdown] name="targets" difficulty=2 importance=3 minutes=10
# ### The targets
#
# Write `targets(model, ids, n, layers)` for one row of token ids (a list): for each of `layers` the
# activations that **leave** the layer, at the **last** `n` positions. Return a list with one tensor
# `[n, d_model]` for each layer.

# %% hint [markdown]
# What leaves a layer is `f"blocks.{i}.hook_resid_post"`. `model.run_with_cache(torch.tensor([ids]))` runs
# the row.

# %% hint [markdown]
# `cache[name]` is `[1, positions, d_model]`: take text 0, and of its positions the last `n`, with
# `[0, -n:]`.


# %% stub
def targets(model, ids, n, layers):
    """The activations after each layer at the last n positions, a list of [n, d_model]."""
    _, cache = model.run_with_cache(torch.tensor([ids]))
    return ...


# %% wrong says="go *into* the layers"
def targets(model, ids, n, layers):
    _, cache = model.run_with_cache(torch.tensor([ids]))
    return [cache[f"blocks.{i}.hook_resid_pre"][0, -n:] for i in layers]


# %% wrong says="first n positions"
def targets(model, ids, n, layers):
    _, cache = model.run_with_cache(torch.tensor([ids]))
    return [cache[f"blocks.{i}.hook_resid_post"][0, :n] for i in layers]


# %% wrong says="axis of texts"
def targets(model, ids, n, layers):
    _, cache = model.run_with_cache(torch.tensor([ids]))
    return [cache[f"blocks.{i}.hook_resid_post"][:, -n:] for i in layers]


# %% wrong says="last token is missing"
def targets(model, ids, n, layers):
    _, cache = model.run_with_cache(torch.tensor([ids]))
    return [cache[f"blocks.{i}.hook_resid_post"][0, -n - 1 : -1] for i in layers]


# %% wrong says="lowest layer alone"
def targets(model, ids, n, layers):
    _, cache = model.run_with_cache(torch.tensor([ids]))
    return [cache[f"blocks.{layers[0]}.hook_resid_post"][0, -n:]]


# %% solution
def targets(model, ids, n, layers):
    """The activations after each layer at the last n positions, a list of [n, d_model]."""
    names = [f"blocks.{i}.hook_resid_post" for i in layers]
    _, cache = model.run_with_cache(torch.tensor([ids]), names_filter=lambda name: name in names)
    return [cache[name][0, -n:] for name in names]


# %% [markdown]
# They never change, so they are computed once. So is, for comparison, what the *plain* run has at the same
# tokens.

# %%
above = list(range(layer, n_layers))
counts = [n_steered(plain) for plain, _ in rows]
wanted = [targets(model, row.ids, n, above) for (_, row), n in zip(rows, counts, strict=True)]
begun = [targets(model, row.ids, n, above) for (row, _), n in zip(rows, counts, strict=True)]
plain_here, prompted_here = (torch.cat([each[0] for each in side]) for side in (begun, wanted))
print(f"at layer {layer}: {list(plain_here.shape)} = [tokens of all pairs, d_model]")

# %% [markdown]
# ## 2. Without a gate
#
# First the simplest replacement: one vector for every token. Which one?

# %% exercise [markdown] name="best_constant" difficulty=1 importance=2 minutes=5
# ### The best single vector
#
# Write `best_constant(plain, prompted)`, both `[tokens, d_model]`: the vector `z`, `[d_model]`, for which
# the mean square of `plain + z - prompted` is smallest.

# %% hint [markdown]
# What a single token would want is `prompted - plain`, of that token. The number with the smallest mean
# square distance from many numbers is well known.

# %% hint [markdown]
# It is their mean. Over which axis?


# %% stub
def best_constant(plain, prompted):
    """The one vector that brings plain closest to prompted, [d_model]."""
    ...


# %% wrong says="Wrong sign"
def best_constant(plain, prompted):
    return (plain - prompted).mean(dim=0)


# %% wrong says="*median*"
def best_constant(plain, prompted):
    return (prompted - plain).median(dim=0).values


# %% wrong says="its length counts"
def best_constant(plain, prompted):
    z = (prompted - plain).mean(dim=0)
    return z / z.norm()


# %% wrong says="a vector for each token"
def best_constant(plain, prompted):
    return prompted - plain


# %% wrong says="right axis"
def best_constant(plain, prompted):
    return (prompted - plain).mean(dim=1)


# %% solution
def best_constant(plain, prompted):
    """The one vector that brings plain closest to prompted, [d_model]."""
    return (prompted - plain).mean(dim=0)


# %% [markdown]
# What does it leave? The error, as a share of the error of doing nothing. Longer, shorter and other vectors
# leave more; that is a law, not a finding.

# %%
push = best_constant(plain_here, prompted_here)


def left(z):
    """The root mean square error with this vector, over that of doing nothing."""
    error = (plain_here + z - prompted_here).square().mean()
    return float((error / (plain_here - prompted_here).square().mean()).sqrt())


noise = torch.randn(d_model, generator=torch.Generator().manual_seed(SEED))
other = push + 0.3 * push.norm() * noise / noise.norm()
shares = {"the best": push, "half of it": push / 2, "twice": 2 * push, "another": other}
assert all(left(push) <= left(z) for z in shares.values())
pd.Series(
    {name: left(z) for name, z in shares.items()}, name="error left, at this layer"
).to_frame().T

# %% [markdown]
# This difference of means is known as **S-Const_DiM**: a single layer, a constant. It is CAA, on tokens of
# the response. Whatever error it leaves is there because tokens want *different* pushes.
#
# ## 3. A gate

# %% exercise [markdown] name="gate" difficulty=1 importance=3 minutes=5
# ### How strongly
#
# Write `gate(h, w, b)`: relu(w · h + b) for activations `h`, `[..., d_model]`, a vector `w` and a number `b`.
# Return one number for each token, `[...]`.

# %% hint [markdown]
# The inside is the strength of CLAS. relu puts 0 in place of whatever is negative.

# %% hint [markdown]
# `torch.relu(h @ w + b)`: is b inside?


# %% stub
def gate(h, w, b):
    """How strongly each token is steered, 0 or more."""
    ...


# %% wrong says="never closes"
def gate(h, w, b):
    return h @ w + b


# %% wrong says="b stands outside"
def gate(h, w, b):
    return torch.relu(h @ w) + b


# %% wrong says="b is missing"
def gate(h, w, b):
    return torch.relu(h @ w)


# %% wrong says="sigmoid"
def gate(h, w, b):
    return torch.sigmoid(h @ w + b)


# %% wrong says="have not summed"
def gate(h, w, b):
    return torch.relu(h * w + b)


# %% solution
def gate(h, w, b):
    """How strongly each token is steered, 0 or more."""
    return torch.relu(h @ w + b)


# %% exercise [markdown] name="psr_hook" difficulty=2 importance=3 minutes=10
# ### Add it to the end of the row
#
# Write `psr_hook(w, b, z, n)`. It gives back a hook that adds gate times `z` to the last `n` tokens of
# activations `[texts, positions, d_model]`, and leaves the tokens before them as they are. As in unit 6,
# gradients go through it: do not write into the tensor of the model.

# %% hint [markdown]
# Cut the activations in two: `activation[:, :-n]` stays, `activation[:, -n:]` is steered. `torch.cat` puts
# them together again; along which axis?

# %% hint [markdown]
# The gate is `[texts, n]`. It needs an axis more before it is multiplied with `z`: `[..., None]`.


# %% stub
def psr_hook(w, b, z, n):
    """A hook that adds gate * z to the last n tokens."""

    def hook(activation, hook=None):
        # your lines
        ...

    return hook


# %% wrong says="every token"
def psr_hook(w, b, z, n):
    def hook(activation, hook=None):
        return activation + gate(activation, w, b)[..., None] * z

    return hook


# %% wrong says="wrote into the tensor"
def psr_hook(w, b, z, n):
    def hook(activation, hook=None):
        activation[:, -n:] += gate(activation[:, -n:], w, b)[..., None] * z
        return activation

    return hook


# %% wrong says="*first* n tokens"
def psr_hook(w, b, z, n):
    def hook(activation, hook=None):
        end = activation[:, :n]
        return torch.cat([end + gate(end, w, b)[..., None] * z, activation[:, n:]], dim=1)

    return hook


# %% wrong says="tokens before are lost"
def psr_hook(w, b, z, n):
    def hook(activation, hook=None):
        end = activation[:, -n:]
        return end + gate(end, w, b)[..., None] * z

    return hook


# %% wrong says="gate is missing"
def psr_hook(w, b, z, n):
    def hook(activation, hook=None):
        return torch.cat([activation[:, :-n], activation[:, -n:] + z], dim=1)

    return hook


# %% wrong says="often a wrong axis"
def psr_hook(w, b, z, n):
    def hook(activation, hook=None):
        end = activation[:, -n:]
        return torch.cat([activation[:, :-n], end + gate(end, w, b) * z], dim=1)

    return hook


# %% solution
def psr_hook(w, b, z, n):
    """A hook that adds gate * z to the last n tokens."""

    def hook(activation, hook=None):
        end = activation[:, -n:]
        steered = end + gate(end, w, b)[..., None] * z
        return torch.cat([activation[:, :-n], steered], dim=1)

    return hook


# %%
generator = torch.Generator().manual_seed(SEED)
bound = d_model**-0.5


def begin():
    """w, b and z as linear layers begin: small random numbers."""
    shapes = (d_model,), (), (d_model,)
    return [
        (2 * torch.rand(s, generator=generator) - 1).mul(bound).requires_grad_() for s in shapes
    ]


w, b, z = begin()
h = torch.randn(2, 5, d_model, generator=generator)
steer = PSR(w.detach()[None], b.detach()[None], z.detach()[None])
torch.testing.assert_close(psr_hook(w, b, z, 5)(h).detach(), steer(h))
print("the library's PSR adds the same;", 2 * d_model + 1, "numbers are learned")

# %% [markdown]
# ## 4. Train it
#
# Run a *plain* row with the hook, and keep what the layers above make of it.


# %%
def reached(number, w, b, z):
    """The steered activations of a pair after each layer from ours on, a list of [n, d_model]."""
    (plain, _), n, kept = rows[number], counts[number], []

    def keep(activation, hook=None):
        kept.append(activation[0, -n:])

    hooks = [(f"blocks.{layer}.hook_resid_post", psr_hook(w, b, z, n))]
    hooks += [(f"blocks.{i}.hook_resid_post", keep) for i in above]
    model.run_with_hooks(torch.tensor([plain.ids]), fwd_hooks=hooks)
    return kept


# %% exercise [markdown] name="imitation_loss" difficulty=2 importance=3 minutes=10
# ### How far from the prompt?
#
# Write `imitation_loss(reached, wanted)`. Both are lists with one tensor `[n, d_model]` for each layer. At
# each layer take the **mean** of the squared differences, over tokens and width; then the **sum** over
# layers.

# %% hint [markdown]
# `zip(reached, wanted)` goes through both lists together. What is the loss of one layer?

# %% hint [markdown]
# `(a - b).square().mean()` is that of one layer. Python's `sum(...)` adds tensors, too.


# %% stub
def imitation_loss(reached, wanted):
    """The sum over layers of the mean squared difference, a tensor without axes."""
    ...


# %% wrong says="averaged over layers"
def imitation_loss(reached, wanted):
    each = [(a - b).square().mean() for a, b in zip(reached, wanted, strict=True)]
    return sum(each) / len(each)


# %% wrong says="long response would weigh"
def imitation_loss(reached, wanted):
    return sum((a - b).square().sum() for a, b in zip(reached, wanted, strict=True))


# %% wrong says="one layer alone"
def imitation_loss(reached, wanted):
    return (reached[0] - wanted[0]).square().mean()


# %% wrong says="not squared"
def imitation_loss(reached, wanted):
    return sum((a - b).abs().mean() for a, b in zip(reached, wanted, strict=True))


# %% wrong says="cancel"
def imitation_loss(reached, wanted):
    return sum((a - b).mean().square() for a, b in zip(reached, wanted, strict=True))


# %% solution
def imitation_loss(reached, wanted):
    """The sum over layers of the mean squared difference, a tensor without axes."""
    return sum((a - b).square().mean() for a, b in zip(reached, wanted, strict=True))


# %% [markdown]
# ### A gate can close for good
#
# relu has a flat side. If w · h + b is negative at *every* token of the data, the gate is 0 everywhere, and
# a small change of w or b changes nothing. So the gradient is zero, and no training opens it again:

# %%
shut = torch.tensor(-1e4, requires_grad=True)
w_shut = w.detach().clone().requires_grad_()
gate(plain_here, w_shut, shut).sum().backward()
print("gradient of b:", float(shut.grad), " of w:", float(w_shut.grad.norm()))

# %% exercise [markdown] name="firing_rate" difficulty=1 importance=2 minutes=5
# ### Is it open?
#
# Write `firing_rate(h, w, b)`: the **share** of the tokens of `h`, `[tokens, d_model]`, at which the gate is
# open, which means above 0. Return a number. 0 is a dead gate. 1 is a gate that never closes: no switch, but
# a dial.

# %% hint [markdown]
# `gate(h, w, b) > 0` is True where it is open.

# %% hint [markdown]
# The mean of True and False is a share, once they are numbers: `.float().mean()`.


# %% stub
def firing_rate(h, w, b):
    """The share of tokens at which the gate is open."""
    ...


# %% wrong says="how *far* it is open"
def firing_rate(h, w, b):
    return float(gate(h, w, b).mean())


# %% wrong says="how many"
def firing_rate(h, w, b):
    return float((gate(h, w, b) > 0).sum())


# %% wrong says="A closed gate is 0"
def firing_rate(h, w, b):
    return float((gate(h, w, b) >= 0).float().mean())


# %% wrong says="closed"
def firing_rate(h, w, b):
    return float((gate(h, w, b) == 0).float().mean())


# %% solution
def firing_rate(h, w, b):
    """The share of tokens at which the gate is open."""
    return float((gate(h, w, b) > 0).float().mean())


# %% [markdown]
# To keep it from closing, the paper adds a **penalty** to the loss. For each response it asks that the gates
# of its tokens add up to 1 at least. (It has to act early: once the gate is shut everywhere, the penalty has
# no gradient either. Then the library begins the gate anew, and says so.)

# %% exercise [markdown] name="closed" difficulty=2 importance=2 minutes=10
# ### The penalty
#
# Write `closed(gates)` for the gates of one response, `[n]`: max(0, 1 - sum of the gates). It must remain a
# tensor, so that gradients can go through it.

# %% hint [markdown]
# Where the gates add up to 1 or more, there is no penalty. Which function puts 0 in place of what is
# negative, and is torch's?

# %% hint [markdown]
# `torch.relu` of something. First the sum, then the difference, then relu.


# %% stub
def closed(gates):
    """How much the gates of a response lack to 1 together, a tensor without axes."""
    ...


# %% wrong says="rewards"
def closed(gates):
    return 1 - gates.sum()


# %% wrong says="each gate on its own"
def closed(gates):
    return torch.relu(1 - gates).sum()


# %% wrong says="mean of the gates"
def closed(gates):
    return torch.relu(1 - gates.mean())


# %% wrong says="Wrong sign"
def closed(gates):
    return torch.relu(gates.sum() - 1)


# %% wrong says="should be a tensor"
def closed(gates):
    return max(0.0, float(1 - gates.sum()))


# %% solution
def closed(gates):
    """How much the gates of a response lack to 1 together, a tensor without axes."""
    return torch.relu(1 - gates.sum())


# %% [markdown]
# Now all of it. The imitation loss is divided by that of doing nothing, so that 1 is where we start and the
# penalty (0.1 of it) has a size that one can judge. The step is the one of unit 6.

# %%
nothing = sum(imitation_loss(a, b) for a, b in zip(begun, wanted, strict=True)) / len(rows)


def loss_of(numbers, w, b, z):
    total = 0.0
    for number in numbers:
        steered = reached(number, w, b, z)
        total = total + imitation_loss(steered, wanted[number]) / nothing
        total = total + 0.1 * closed(gate(begun[number][0], w, b))
    return total / len(numbers)


EPOCHS, BATCH = (3, 6) if large else (5, 8)
optimiser = torch.optim.AdamW([w, b, z], lr=1e-2)
order, curve = np.random.default_rng(SEED), []
for _ in range(EPOCHS):
    for some in np.array_split(order.permutation(len(rows)), len(rows) // BATCH):
        optimiser.zero_grad()
        loss = loss_of(some, w, b, z)
        loss.backward()
        optimiser.step()
        curve.append(loss.item())

# %%
per_epoch = np.array(curve).reshape(EPOCHS, -1).mean(axis=1)
print("loss, the mean of each epoch:", [round(float(loss), 3) for loss in per_epoch])
print(f"the gate is open at {firing_rate(plain_here, w.detach(), b.detach()):.0%} of the tokens")
assert per_epoch[-1] < per_epoch[0], "nothing was learned"

# %% [markdown]
# ### The library
#
# `PSR.fit` runs what never changes only once, works on batches, holds pairs back for validation, keeps the
# best epoch, and lets the learning rate fall. `Gates(constant=True)` has no gate: it is the best single
# vector under the *same* loss, all layers above included.

# %%
schedule = Schedule(epochs=2 if large else 6, batch_size=4, seed=SEED)
with warnings.catch_warnings():
    # A gate that never opened begins anew, and says so.
    warnings.simplefilter("ignore", steerlens.SteeringWarning)
    const = PSR.fit(model, train, layer, gates=Gates(constant=True), schedule=schedule)
    psr = PSR.fit(model, train, layer, schedule=schedule)
    rank_two = PSR.fit(model, train, layer, gates=Gates(rank=2), schedule=schedule)
fits = {"const": const, "PSR": psr, "PSR, rank 2": rank_two}
pd.DataFrame(
    {
        name: {
            "best epoch": fit.trained.best_epoch,
            "validation loss": min(row["validation_loss"] for row in fit.trained.rows),
        }
        for name, fit in fits.items()
    }
).T.astype({"best epoch": int})

# %% [markdown]
# What is the rank? If one gate and one direction are not enough, take several:
#
# $$h' = h + \sum_k \mathrm{relu}(w_k \cdot h + b_k)\; z_k.$$

# %% exercise [markdown] name="rank_r" difficulty=3 importance=2 minutes=10
# ### Several gates
#
# Write `rank_r(h, W, b, Z)` for activations `h`, `[texts, positions, d_model]`, `W` and `Z`, `[r, d_model]`,
# and `b`, `[r]`. Return the steered activations. Each gate opens its own direction.

# %% hint [markdown]
# All gates at once are `[texts, positions, r]`: which matrix product gives these? relu comes after b.

# %% hint [markdown]
# `gates @ Z` multiplies each gate with its direction, and sums over k.


# %% stub
def rank_r(h, W, b, Z):
    """h with what r gates add, each along its own direction."""
    ...


# %% wrong says="One gate"
def rank_r(h, W, b, Z):
    return h + torch.relu((h @ W.T + b).sum(dim=-1, keepdim=True)) * Z.sum(dim=0)


# %% wrong says="every gate opens every direction"
def rank_r(h, W, b, Z):
    return h + torch.relu(h @ W.T + b).sum(dim=-1, keepdim=True) * Z.sum(dim=0)


# %% wrong says="never close"
def rank_r(h, W, b, Z):
    return h + (h @ W.T + b) @ Z


# %% wrong says="the push alone"
def rank_r(h, W, b, Z):
    return torch.relu(h @ W.T + b) @ Z


# %% wrong says="often a wrong axis"
def rank_r(h, W, b, Z):
    return h + torch.relu(h @ W + b) @ Z.T


# %% solution
def rank_r(h, W, b, Z):
    """h with what r gates add, each along its own direction."""
    return h + torch.relu(h @ W.T + b) @ Z


# %%
two = rank_two.steers[Site(layer)]
torch.testing.assert_close(rank_r(h, two.W, two.b, two.Z), two(h), rtol=1e-3, atol=1e-4)
torch.testing.assert_close(rank_r(h, w[None], b[None], z[None]), psr_hook(w, b, z, 5)(h))

# %% [markdown]
# ## 5. Is it faithful?
#
# Run each on the plain prompts of the **held-out** pairs: how far are its activations from the prompted
# ones? 1 is the error of doing nothing. The dashed lines are references: the same instruction in other
# words, and a neutral one that asks for nothing.

# %%
ours = PSR(w.detach()[None], b.detach()[None], z.detach()[None])
methods = {
    "difference of means": difference_of_means(model, train, layer),
    "const": const.steering,
    "PSR by hand": at(layer, ours).only(scope.response),
    "PSR": psr.steering,
    "PSR, rank 2": rank_two.steering,
}
errors = faithfulness(
    model,
    test,
    methods,
    equivalents=[reworded(test, text) for text in attribute.held_out[:2]],
    neutral=[reworded(test, "Answer the user.")],
    n_bootstrap=200,
)
figures.relative_rmse_curve(errors)

# %%
below = errors[(errors["layer"] < layer) & errors["method"].isin(list(methods))]
assert below["relative_rmse"].sub(1).abs().max() < 1e-4, "nothing has happened there yet"
errors.pivot_table(index="method", columns="layer", values="relative_rmse")

# %% [markdown]
# Below our layer nothing has happened, so the error is exactly 1, and no method of one layer can make that
# good. At our own layer the difference of means may be ahead of all that was trained: nothing but this layer
# matters to it. Who is ahead at the last layer, where words are predicted? Does a gate get below the constant
# that was trained alike? And below *another wording* of the prompt? A method that does is as close to the
# prompt as prompts are to each other.
#
# ### Token by token
#
# A constant pushes every token alike. Is the gate open where the prompt pushes hard?

# %%
two_methods = {name: methods[name] for name in ("const", "PSR")}
shown = coefficients(model, test, [layer], two_methods)
coloured_text(model, test[1], 1, shown, two_methods, layer)

# %%
along = shown.pivot_table(index=["example", "token_index"], columns="method", values="along")
within = along - along.groupby("example").transform("mean")
agreement = float(within["PSR"].corr(within["prompt"])) if within["PSR"].std() > 1e-6 else 0.0
print(f"within texts, PSR's strengths correlate with the prompt's by {agreement:.2f}")
for rate in psr.firing.values():
    print(f"the gate is open on {float(rate):.0%} of the training tokens")

# %% [markdown]
# This is unit 6's correlation within texts. (For the constant there is none: its strength is the same
# everywhere.)
#
# ## 6. Does it write like the prompt?
#
# Faithful activations are one thing, text is another. The steering times a strength, 1 being what was
# trained. *attribute* is how positive the text is (0 to 100), *coherence* how well it hangs together.

# %%
if NAME == "demo":
    judge, coherent = judge_of("positive"), Coherence()
else:  # these two know the demonstration model's kind of text; others are judged by themselves
    judge = likelihood(model, INSTRUCTION, attribute.questions("train")[:8])
    coherent = judge.coherence
setting = Setting(
    model,
    attribute.questions("validation")[: 8 if large else 12],
    judge,
    coherent,
    Sampling(max_new_tokens=30, seed=SEED),
    batch_size=64,
)
scores = {
    "unsteered": setting.score().row(),
    "prompt": setting.score(instruction=INSTRUCTION).row(),
}
for name in ("difference of means", "PSR"):
    for strength in (1.0, 2.0) if large else (1.0, 2.0, 4.0):
        scored = setting.score(strength * methods[name])
        scores[f"{name} x {strength:g}"] = scored.row()
pd.DataFrame(scores).T[["attribute", "attribute_low", "attribute_high", "coherence"]]

# %% [markdown]
# These are few texts: mind the intervals. At strength 1 a replacement is as faithful as it gets. Is that where
# it writes most like the prompt? Whoever turns it up gets more of the attribute, and leaves the activations
# that the prompt makes. These are two goals, so say which one you report.

# %% [markdown]
# ## What could go wrong
#
# * **Rows aligned by the start.** The prompted row is longer. Align by the *end*, where the response is.
# * **Another response in the two rows.** Then the difference is that of two texts. `encode_pair` checks it.
# * **A closed gate.** The loss stands still, near that of doing nothing. Look at the firing rate before you
#   look at anything else.
# * **A gate that never closes** is a dial, w · h + b. There is nothing wrong with it, but do not describe it
#   as a detector.
# * **The loss at one layer alone** can be lowered by a push that later layers make nothing of.
# * **Trained and measured on the same requests.** A few dozen responses can be learned by heart with
#   hundreds of numbers.
# * **The last prompt token forgotten.** Then the first word is written without steering, and the rest of the
#   response continues what that word began.
# * **Responses that do not follow the instruction.** The prompted activations then belong to a prompt that
#   failed. The paper drops such responses; look at yours.

# %% [markdown]
# ### On another model
#
# `STEERLENS_MODEL=smollm2` runs this unit on SmolLM2-135M, on half as many pairs and fewer epochs, in some
# minutes. With so few steps the learned methods need not beat the difference of means, which needs no steps
# at all. Its chat template puts a system prompt of its own where none is given, and the instruction takes
# its place: what is imitated is the *change* from one to the other. The judges are made of SmolLM2's own
# predictions (unit 9).

# %% [markdown]
# ## An open experiment
#
# Where should a replacement sit? Train a PSR at each layer, and one at **every** layer
# (`PSR.fit(model, train, range(n_layers))`, known as A-PSR). For each, note the error at the last layer and
# the attribute at the prompt's own coherence. Do both choose the same layer? Repeat it with another
# instruction (`benchmark_set.attributes()` lists them). Write down beforehand which of the two you would trust, and
# why.

# %% [markdown]
# ## References
#
# - Heyman and Vandeputte, *Steer Like the LLM: Activation Steering that Mimics Prompting*, 2026,
#   [arXiv 2605.03907](https://arxiv.org/abs/2605.03907).
# - The method's page, with what is known of the authors' code and what was measured: `docs/methods/psr.md`.
# - How faithfulness is measured, and how to read its figure: `docs/figures.md`.
# - In the library: `steerlens/methods/psr.py` and `steerlens/training/imitation.py`.
