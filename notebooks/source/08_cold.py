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
# # COLD: learning dynamics, without learning
#
# Fine-tuning on a few examples changes the parameters θ, and by that the activations of every text.
# **COLD-Steer** (Sharma and Trivedi, 2026) leaves the parameters alone. It asks how *one step* of gradient
# descent would move the activations *Z* of a text *x*, to first order, and adds that:
#
# $$\Delta Z(x) = -\eta\, \frac{\partial Z(x;\theta)}{\partial \theta}\, g .$$
#
# *g* is the mean gradient of the examples' losses, and *η* is the size of the step. CLAS and PSR (units 6
# and 7) train for many steps. Here nothing is trained, and a few examples are enough to begin.
#
# **Goals.** After this unit you can
#
# - take a gradient step on a copy of the parameters, and say what it does to the activations of other texts;
# - compute a derivative by differences, foretell how much of it rounding destroys, and choose the step;
# - compute the same derivative exactly with dual numbers, by hand and in a whole model;
# - write the kernel form, say where it is exact and what is left out where it is not;
# - measure how well each of them stands in for the real step, and up to which size.
#
# **Before.** Unit 6 (losses and gradients through a model). The chain rule.
#
# **Time.** 130 minutes, 75 of them for ten exercises.

# %%
import os
from dataclasses import replace

import numpy as np
import pandas as pd
import torch
import torch.autograd.forward_ad as dual
from checks.display import error_curves, flush_left, quiet
from torch.nn.attention import SDPBackend, sdpa_kernel

import steerlens
from steerlens import ColdFD, ColdKernel, Conversation, Sampling, Site, at, benchmark_set, scope
from steerlens.analysis import (
    Coherence,
    Setting,
    coefficients,
    coloured_text,
    judge_of,
    likelihood,
    tradeoff,
    tradeoff_curve,
)
from steerlens.methods.cold.gradients import places_of, standing_in, weights_at

# %%
quiet()
SEED, NAME = 0, os.environ.get("STEERLENS_MODEL", "demo")
model = steerlens.load(NAME)
# A chat template says how a conversation is written down. Models without one get a plain one.
model.tokenizer.chat_template = model.tokenizer.chat_template or steerlens.PLAIN
for parameter in model.parameters():
    parameter.requires_grad_(False)  # gradients are for the copies that we make

# %%
n_layers, d_model = model.cfg.n_layers, model.cfg.d_model
layer = n_layers // 2
site = Site(layer)
large = n_layers > 12  # then fewer examples and steps, to save time
print(f"{n_layers} layers, {d_model} numbers in an activation; we look at layer {layer}")

# %% [markdown]
# The examples: requests, each with two answers by the demonstration model. It wrote the *wanted* one when it
# was told to be positive, and the *unwanted* one when it was told nothing. No instruction is among them.

# %%
INSTRUCTION = "Be positive."
attribute = benchmark_set.read("positive")
chosen = attribute.split("train")[: 4 if large else 10]
wanted = [Conversation(row.user, response=row.prompted) for row in chosen]
unwanted = [Conversation(row.user, response=row.plain) for row in chosen]
print("asked:   ", chosen[0].user)
print("wanted:  ", chosen[0].prompted[:90])
print("unwanted:", chosen[0].plain[:90])

# %% [markdown]
# ## 1. A real step
#
# The loss should be low where the model finds the wanted answer likelier than the unwanted one. Let ℓ be the
# mean log-probability of the tokens of an answer. The loss of **DPO** (direct preference optimisation),
# without a reference model, is
#
# $$L = -\log \sigma\big(\beta\,(\ell^+ - \ell^-)\big), \qquad \sigma(x) = \frac{1}{1 + e^{-x}} .$$

# %% exercise [markdown] name="dpo" difficulty=1 importance=2 minutes=5
# ### The loss
#
# Write `dpo(plus, minus, beta)`: the loss of DPO for the tensors `plus` (ℓ of the wanted answer) and `minus`
# (of the unwanted one). Keep it finite where the margin is large.

# %% hint [markdown]
# The margin is `plus - minus`. β stands before it, inside σ.

# %% hint [markdown]
# `torch.nn.functional.logsigmoid(x)` is log σ(x), also where σ(x) itself is rounded to 0. Mind the sign.


# %% stub
def dpo(plus, minus, beta):
    """-log σ(β (plus - minus)), of the shape of plus."""
    ...


# %% wrong says="Wrong way round"
def dpo(plus, minus, beta):
    return -torch.nn.functional.logsigmoid(beta * (minus - plus))


# %% wrong says="Wrong sign"
def dpo(plus, minus, beta):
    return torch.nn.functional.logsigmoid(beta * (plus - minus))


# %% wrong says="β stands outside"
def dpo(plus, minus, beta):
    return -beta * torch.nn.functional.logsigmoid(plus - minus)


# %% wrong says="The logarithm is missing"
def dpo(plus, minus, beta):
    return -torch.sigmoid(beta * (plus - minus))


# %% wrong says="far from 0 it is infinite"
def dpo(plus, minus, beta):
    return -torch.sigmoid(beta * (plus - minus)).log()


# %% wrong says="holds σ away from 0"
def dpo(plus, minus, beta):
    return -torch.sigmoid(beta * (plus - minus)).clamp(min=1e-6).log()


# %% solution
def dpo(plus, minus, beta):
    """-log σ(β (plus - minus)), of the shape of plus."""
    return -torch.nn.functional.logsigmoid(beta * (plus - minus))


# %% [markdown]
# θ is everything that acts on our site: the embeddings, and the blocks up to this layer. `standing_in` runs
# the model with other tensors in the place of its own, and puts its own back. So we can try steps on copies.

# %%
BETA = 0.1
places = places_of(model, layer)
theta = {name: weight.detach() for name, weight in weights_at(places).items()}
print(len(theta), "tensors,", sum(weight.numel() for weight in theta.values()), "numbers")
rows = [
    [steerlens.encode(model, answered) for answered in example]
    for example in zip(wanted, unwanted, strict=True)
]


def log_p(row):
    """The mean log-probability of the tokens of an answer."""
    tokens = torch.tensor([row.ids])
    each = model(tokens)[0, :-1].log_softmax(dim=-1).gather(1, tokens[0, 1:, None])[:, 0]
    return each[row.response - 1 :].mean()


def mean_loss(weights):
    with standing_in(places, weights):
        return sum(dpo(log_p(plus), log_p(minus), BETA) for plus, minus in rows) / len(rows)


# %% [markdown]
# The gradient g by autograd, as in unit 6. Parameters that take no part get none; they are not in `g`.

# %%
leaves = {name: weight.clone().requires_grad_() for name, weight in theta.items()}
mean_loss(leaves).backward()
g = {name: leaf.grad for name, leaf in leaves.items() if leaf.grad is not None}
del leaves


def length(weights):
    """All tensors together as one long vector: its length."""
    return float(torch.stack([each.norm() for each in weights.values()]).norm())


print(f"|θ| = {length({name: theta[name] for name in g}):.1f}, |g| = {length(g):.3g}")

# %% exercise [markdown] name="stepped" difficulty=1 importance=3 minutes=5
# ### One step of gradient descent
#
# Write `stepped(theta, g, eta)`: the parameters after one step of size `eta`. `theta` and `g` are dicts from
# names to tensors. Return a **new** dict with all names of `theta`; parameters that `g` does not have stay as
# they are. The tensors of `theta` are those of the model: do not write into them.

# %% hint [markdown]
# The loss falls along *minus* the gradient. A dict can be made in one line:
# `{name: ... for name, weight in theta.items()}`.

# %% hint [markdown]
# `weight - eta * g[name] if name in g else weight`.


# %% stub
def stepped(theta, g, eta):
    """theta after one step of gradient descent, a new dict."""
    ...


# %% wrong says="goes uphill"
def stepped(theta, g, eta):
    return {n: weight + eta * g[n] if n in g else weight for n, weight in theta.items()}


# %% wrong says="wrote into the dict"
def stepped(theta, g, eta):
    for n in g:
        theta[n] -= eta * g[n]
    return theta


# %% wrong says="without a gradient are lost"
def stepped(theta, g, eta):
    return {n: theta[n] - eta * g[n] for n in g}


# %% wrong says="as long as it is"
def stepped(theta, g, eta):
    size = torch.cat([each.flatten() for each in g.values()]).norm()
    return {n: weight - eta * g[n] / size if n in g else weight for n, weight in theta.items()}


# %% wrong says="stopped with KeyError"
def stepped(theta, g, eta):
    return {n: weight - eta * g[n] for n, weight in theta.items()}


# %% wrong says="what was a tensor is none"
def stepped(theta, g, eta):
    return {n: weight - eta * g[n] if n in g else None for n, weight in theta.items()}


# %% wrong says="Parameters without a gradient became 0"
def stepped(theta, g, eta):
    none = torch.zeros(())
    return {n: weight - eta * g[n] if n in g else none * weight for n, weight in theta.items()}


# %% solution
def stepped(theta, g, eta):
    """theta after one step of gradient descent, a new dict."""
    return {n: weight - eta * g[n] if n in g else weight for n, weight in theta.items()}


# %% [markdown]
# Now take a text that is *not* among the examples. `z_of(weights)` are its activations at our site with other
# parameters, one row for each token. How far does a step move them? We measure η by that: with `scale`, the
# first-order push on the median token is as long as the activation itself. (You will compute that push below.)

# %%
pairs = attribute.pairs("validation")[: 4 if large else 8]
row, _ = steerlens.encode_pair(model, pairs[0])
tokens = torch.tensor([row.ids])


def z_of(weights, model=model, places=places):
    """The activations of the text at our site, [tokens, d_model]."""
    kept = []

    def keep(activation, hook=None):
        kept.append(activation[0])

    # Fast kernels of attention know no dual numbers (section 3), so we ask for the plain one.
    plain = sdpa_kernel(SDPBackend.MATH)
    with torch.no_grad(), standing_in(places, weights), plain:
        model.run_with_hooks(tokens, fwd_hooks=[(site.hook_name, keep)])
    return kept[0]


# %%
examples = wanted, unwanted
cold = ColdFD.fit(model, examples, site, scope=scope.everywhere, stored="float32").steer
_, window = steerlens.batch(model, [row])
exact = cold.derivative(model, tokens, window)[site][0]
Z = z_of(theta)
scale = float((Z.norm(dim=-1) / exact.norm(dim=-1)).median())
print(f"η = {scale:.3g} would be a push as long as the activation")

# %%
SHARES = (0.3, 0.1, 0.01, 0.001)
moved = {share: z_of(stepped(theta, g, share * scale)) - Z for share in SHARES}
last = row.response - 1  # the last token of the prompt
shown = slice(max(0, last - 5), last + 7)
pd.DataFrame(
    {"token": steerlens.prompts.show(model, row.ids)[shown]}
    | {
        f"|ΔZ| / |Z|, η = {share:g} scale": (moved[share].norm(dim=-1) / Z.norm(dim=-1))[shown]
        for share in SHARES
    }
).T

# %% [markdown]
# The step was taken on other texts, and still every token moves, each by another amount. And a tenth of the
# step makes about a tenth of the change. Does the loss fall, and by how much? Along -g it should fall by
# η |g|², if η is small enough:

# %%
with torch.no_grad():
    before = float(mean_loss(theta))
    falls = [before - float(mean_loss(stepped(theta, g, share * scale))) for share in SHARES[:3]]
pd.DataFrame(
    {
        "η / scale": SHARES[:3],
        "the loss falls by": falls,
        "η |g|²": [share * scale * length(g) ** 2 for share in SHARES[:3]],
    }
)

# %% [markdown]
# ## 2. The limit, by differences
#
# Divide ΔZ by η, and let η become small. What it comes near is the derivative of Z along -g, and that times η
# is what **COLD-Steer adds**. For a large η it is not what the real step does, but its straight continuation.
#
# The paper computes it without a step of learning: run the model with θ, and with a θ moved a little along g.

# %% exercise [markdown] name="forward_difference" difficulty=1 importance=3 minutes=5
# ### A finite difference
#
# Write `forward_difference(z_of, theta, g, eps)`:
#
# $$\frac{Z(\theta + \varepsilon\, g) - Z(\theta)}{\varepsilon}.$$
#
# `z_of` is a function from parameters to activations. Mind the sign: it is the derivative along **plus** g.

# %% hint [markdown]
# Which step of your `stepped` leads to θ + ε g?

# %% hint [markdown]
# `stepped(theta, g, -eps)`. Two calls of `z_of`, a subtraction, a division.


# %% stub
def forward_difference(z_of, theta, g, eps):
    """The derivative of Z along g, by a step of size eps."""
    ...


# %% wrong says="along *minus* g"
def forward_difference(z_of, theta, g, eps):
    return (z_of(stepped(theta, g, eps)) - z_of(theta)) / eps


# %% wrong says="Wrong sign"
def forward_difference(z_of, theta, g, eps):
    return (z_of(theta) - z_of(stepped(theta, g, -eps))) / eps


# %% wrong says="not divided by ε"
def forward_difference(z_of, theta, g, eps):
    return z_of(stepped(theta, g, -eps)) - z_of(theta)


# %% wrong says="to *both* sides"
def forward_difference(z_of, theta, g, eps):
    return (z_of(stepped(theta, g, -eps)) - z_of(stepped(theta, g, eps))) / (2 * eps)


# %% wrong says="Nothing was subtracted"
def forward_difference(z_of, theta, g, eps):
    return z_of(stepped(theta, g, -eps)) / eps


# %% wrong says="Brackets: the *difference*"
def forward_difference(z_of, theta, g, eps):
    return z_of(stepped(theta, g, -eps)) - z_of(theta) / eps


# %% solution
def forward_difference(z_of, theta, g, eps):
    """The derivative of Z along g, by a step of size eps."""
    return (z_of(stepped(theta, g, -eps)) - z_of(theta)) / eps


# %% [markdown]
# Which ε? A large one leaves the straight line. A small one drowns in **rounding**: a float32 has about seven
# digits, and what is lost of Z is divided by ε. The paper takes ε = 10⁻⁶. We try many, beside the exact
# derivative (section 3 builds it; until then it is the library's), in three ways: as you wrote it; to both
# sides, which is the mean of a step forward and a step back; and on the same model in bfloat16, which keeps
# two to three digits.

# %%
half = steerlens.load(NAME, dtype=torch.bfloat16)
half_places = places_of(half, layer)
half_theta = {name: weight.detach() for name, weight in weights_at(half_places).items()}
half_g = {name: g[name].to(torch.bfloat16) for name in g}


def forward(eps):
    return forward_difference(z_of, theta, g, eps)


def both_sides(eps):
    return (forward(eps) + forward(-eps)) / 2


def in_bfloat16(eps):
    def z_half(weights):
        return z_of(weights, half, half_places).float()

    return forward_difference(z_half, half_theta, half_g, eps)


# %%
def distance(found, right):
    """|found - right| / |right| over all tokens but the first, which is unlike others (unit 1)."""
    return float((found - right)[1:].norm() / right[1:].norm())


PAPER = 1e-6
EPS = [10.0**power for power in np.arange(-7, 0.1, 1.0 if large else 0.5)]
ways = {"forward": forward, "both sides": both_sides, "forward, bfloat16": in_bfloat16}
errors = pd.DataFrame(
    {name: [distance(way(eps), exact) for eps in EPS] for name, way in ways.items()},
    index=pd.Index(EPS, name="step ε"),
)
error_curves(errors, PAPER, "the paper's")

# %% [markdown]
# A V with two sides. On the right the error grows with ε (for both sides with ε², which is why they do
# better). On the left it grows as ε *shrinks*. An error of 1 is as bad as no steering at all. In bfloat16
# there may be no good step: where ε g is smaller than the last digit of θ, no parameter changes, and the
# difference is exactly 0.

# %% exercise [markdown] name="rounding" difficulty=2 importance=2 minutes=10
# ### Foretell the left side
#
# A float32 keeps a number to about 2⁻²⁴ of its size. So Z, as a whole, is off by about 2⁻²⁴ |Z|, and the
# difference divides that by ε. Write `rounding(Z, dZ, eps)`: this error, **relative** to the length of the
# derivative `dZ`. Both are `[tokens, d_model]`; a length is that of all entries together. Return a number.

# %% hint [markdown]
# What is lost of Z: `2**-24 * Z.norm()`. What becomes of that when the difference is divided by ε?

# %% hint [markdown]
# Divide by `eps`, and by `dZ.norm()`, because it is a relative error. `float(...)` makes it a number.


# %% stub
def rounding(Z, dZ, eps):
    """The relative error that float32 leaves in a difference, about."""
    ...


# %% wrong says="Relative to what"
def rounding(Z, dZ, eps):
    return float(2**-24 * Z.norm() / eps)


# %% wrong says="division by ε is missing"
def rounding(Z, dZ, eps):
    return float(2**-24 * Z.norm() / dZ.norm())


# %% wrong says="Upside down"
def rounding(Z, dZ, eps):
    return float(eps * dZ.norm() / (2**-24 * Z.norm()))


# %% wrong says="averaged over tokens"
def rounding(Z, dZ, eps):
    return float((2**-24 * Z.norm(dim=-1) / (eps * dZ.norm(dim=-1))).mean())


# %% wrong says="one number"
def rounding(Z, dZ, eps):
    return 2**-24 * Z.norm(dim=-1) / (eps * dZ.norm(dim=-1))


# %% wrong says="Brackets: a / b * c"
def rounding(Z, dZ, eps):
    return float(2**-24 * Z.norm() / eps * dZ.norm())


# %% solution
def rounding(Z, dZ, eps):
    """The relative error that float32 leaves in a difference, about."""
    return float(2**-24 * Z.norm() / (eps * dZ.norm()))


# %%
small = [eps for eps in EPS if eps <= 1e-4]
guessed = [rounding(Z[1:], exact[1:], eps) for eps in small]
table = pd.DataFrame({"guessed": guessed, "measured": errors.loc[small, "forward"]}).T
table.rename(columns="{:.0e}".format)

# %% [markdown]
# It is a lower bound: θ and all that lies on the way to Z are rounded, too. So do not choose ε by hand. What
# matters is how far ε g goes *compared with θ*, and that can be fixed:

# %% exercise [markdown] name="step_size" difficulty=1 importance=2 minutes=5
# ### A step in proportion
#
# Write `step_size(theta, g, r)`: the ε with which ε g is as long as `r` times θ, |ε g| = r |θ|. Lengths are those of
# all tensors together, as one long vector; of `theta` only the parameters that `g` has. Return a number.

# %% hint [markdown]
# ε = r |θ| / |g|. The `length` above is the length of a dict of tensors.

# %% hint [markdown]
# `{name: theta[name] for name in g}` is the part of θ that moves.


# %% stub
def step_size(theta, g, r):
    """The eps with which eps * g is r times as long as theta."""
    ...


# %% wrong says="do not move"
def step_size(theta, g, r):
    return r * length(theta) / length(g)


# %% wrong says="Upside down"
def step_size(theta, g, r):
    return r * length(g) / length({name: theta[name] for name in g})


# %% wrong says="You added lengths"
def step_size(theta, g, r):
    return r * float(sum(theta[n].norm() for n in g)) / float(sum(g[n].norm() for n in g))


# %% wrong says="length of θ is missing"
def step_size(theta, g, r):
    return r / length(g)


# %% solution
def step_size(theta, g, r):
    """The eps with which eps * g is r times as long as theta."""
    return r * length({name: theta[name] for name in g}) / length(g)


# %% [markdown]
# The library's `mode="fd"` does this, with r = 10⁻⁵ in float32. In bfloat16 it refuses.

# %%
quotient = replace(cold, mode="fd").along(model)
eps = step_size(theta, g, 1e-5)
print(f"your step {eps:.2g}, the library's {quotient.up:.2g}")
for name, step in {"with it": eps, "with the paper's": PAPER}.items():
    print(f"error {name}: {distance(forward(step), exact):.1%}")
try:
    replace(cold, mode="fd").along(half)
except ValueError as refused:
    print("in bfloat16:", refused)

# %% [markdown]
# ## 3. The same, exactly
#
# A derivative needs no step. Compute with **dual numbers** a + a' ε, where ε² = 0. The first part is the
# *value*, the second its *tangent*: how fast the value changes. Then (a + a' ε)(b + b' ε) = ab + (a' b + a b') ε,
# which is the product rule. Teach this to each operation of a network, begin with the tangent g at θ, and the
# tangent of Z comes out beside Z. This is **forward-mode differentiation**.
#
# Two rules by hand, then torch does the rest. A dual number is a pair `(value, tangent)`.

# %% exercise [markdown] name="matmul_rule" difficulty=2 importance=3 minutes=10
# ### A layer
#
# Write `matmul_rule(x, W)`. `x` is a pair of tensors `[tokens, d_in]`, the activations and their tangent;
# `W` is a pair `[d_in, d_out]`, the weights and their tangent. Return the pair of `x @ W`.

# %% hint [markdown]
# Take the pairs apart: `x, dx = x`. Order matters with matrices; it stays x first, W second.

# %% hint [markdown]
# The tangent is what the change of x makes, plus what the change of W makes: two matrix products.


# %% stub
def matmul_rule(x, W):
    """The pair of x W: its value and its tangent."""
    (x, dx), (W, dW) = x, W
    return x @ W, ...


# %% wrong says="change of x alone"
def matmul_rule(x, W):
    (x, dx), (W, dW) = x, W
    return x @ W, dx @ W


# %% wrong says="change of W alone"
def matmul_rule(x, W):
    (x, dx), (W, dW) = x, W
    return x @ W, x @ dW


# %% wrong says="of second order. Change one"
def matmul_rule(x, W):
    (x, dx), (W, dW) = x, W
    return x @ W, dx @ dW


# %% wrong says="comes with ε²"
def matmul_rule(x, W):
    (x, dx), (W, dW) = x, W
    return x @ W, (x + dx) @ (W + dW) - x @ W


# %% wrong says="a pair, value and tangent"
def matmul_rule(x, W):
    (x, dx), (W, dW) = x, W
    return dx @ W + x @ dW


# %% wrong says="The value comes first"
def matmul_rule(x, W):
    (x, dx), (W, dW) = x, W
    return dx @ W + x @ dW, x @ W


# %% solution
def matmul_rule(x, W):
    """The pair of x W: its value and its tangent."""
    (x, dx), (W, dW) = x, W
    return x @ W, dx @ W + x @ dW


# %% exercise [markdown] name="softmax_rule" difficulty=3 importance=2 minutes=10
# ### Attention weights
#
# Write `softmax_rule(z)` for a pair `[..., n]`. With p = softmax(z) over the last axis, the tangent of one p is
#
# $$p_i' = p_i \Big(z_i' - \sum_k p_k\, z_k'\Big).$$

# %% hint [markdown]
# `p = z.softmax(dim=-1)`. The sum is over the last axis; it is one number for each row.

# %% hint [markdown]
# `(p * dz).sum(dim=-1, keepdim=True)` keeps the axis, so that it can be subtracted from `dz`.


# %% stub
def softmax_rule(z):
    """The pair of softmax(z) over the last axis."""
    z, dz = z
    p = z.softmax(dim=-1)
    return p, ...


# %% wrong says="their changes to 0"
def softmax_rule(z):
    z, dz = z
    p = z.softmax(dim=-1)
    return p, p * dz


# %% wrong says="by the others, too"
def softmax_rule(z):
    z, dz = z
    p = z.softmax(dim=-1)
    return p, p * (1 - p) * dz


# %% wrong says="over all rows"
def softmax_rule(z):
    z, dz = z
    p = z.softmax(dim=-1)
    return p, p * (dz - (p * dz).sum())


# %% wrong says="plain mean"
def softmax_rule(z):
    z, dz = z
    p = z.softmax(dim=-1)
    return p, p * (dz - dz.mean(dim=-1, keepdim=True))


# %% wrong says="over the wrong axis"
def softmax_rule(z):
    z, dz = z
    p = z.softmax(dim=-1)
    return p, p * (dz - (p * dz).sum(dim=0))


# %% solution
def softmax_rule(z):
    """The pair of softmax(z) over the last axis."""
    z, dz = z
    p = z.softmax(dim=-1)
    return p, p * (dz - (p * dz).sum(dim=-1, keepdim=True))


# %% [markdown]
# With these two a whole head of attention can be done, softmax(x A xᵀ) x V. Is it what torch says?

# %%
generator = torch.Generator().manual_seed(SEED)
x, dx, A, da, V, dv = (torch.randn(6, 6, generator=generator) for _ in range(6))
scores = matmul_rule(matmul_rule((x, dx), (A, da)), (x.T, dx.T))
head = matmul_rule(softmax_rule(scores), matmul_rule((x, dx), (V, dv)))
by_torch = torch.func.jvp(
    lambda x, A, V: (x @ A @ x.T).softmax(dim=-1) @ (x @ V), (x, A, V), (dx, da, dv)
)
torch.testing.assert_close(head[1], by_torch[1], rtol=1e-3, atol=1e-4)
print("the tangent of a head of attention, by hand, is torch's")

# %% [markdown]
# torch knows such a rule for nearly every operation. Its dual numbers are made and read like this; all work
# is done inside one `dual_level`:

# %%
with dual.dual_level():
    three = dual.make_dual(torch.tensor(3.0), torch.tensor(1.0))  # value 3, tangent 1
    print(dual.unpack_dual(three**2))  # 9, and the derivative of x² at 3

# %% exercise [markdown] name="exact_derivative" difficulty=2 importance=3 minutes=10
# ### In a whole model
#
# Write `exact_derivative(z_of, theta, g)`: the derivative of `z_of` along `g`, a plain tensor. Give `z_of` a
# dict in which the parameters of `g` are dual numbers, with tangent `g[name]`, and the others as they are.
# Run it **once**, and return the tangent of what comes out.

# %% hint [markdown]
# `with dual.dual_level():` first. `{**theta, **duals}` is theta, with the entries of `duals` in their place.

# %% hint [markdown]
# `duals = {name: dual.make_dual(theta[name], g[name]) for name in g}`, and at the end
# `dual.unpack_dual(Z).tangent`, still inside the `with`.


# %% stub
def exact_derivative(z_of, theta, g):
    """The derivative of Z along g, in one pass and without a step."""
    with dual.dual_level():
        duals = ...
        Z = z_of({**theta, **duals})
        return ...


# %% wrong says="no level exists"
def exact_derivative(z_of, theta, g):
    duals = {name: dual.make_dual(theta[name], g[name]) for name in g}
    return dual.unpack_dual(z_of({**theta, **duals})).tangent


# %% wrong says="*primal*"
def exact_derivative(z_of, theta, g):
    with dual.dual_level():
        duals = {name: dual.make_dual(theta[name], g[name]) for name in g}
        return dual.unpack_dual(z_of({**theta, **duals})).primal


# %% wrong says="derivative along θ"
def exact_derivative(z_of, theta, g):
    with dual.dual_level():
        duals = {name: dual.make_dual(theta[name], theta[name]) for name in g}
        return dual.unpack_dual(z_of({**theta, **duals})).tangent


# %% wrong says="still a step in it"
def exact_derivative(z_of, theta, g):
    return forward_difference(z_of, theta, g, 1e-3)


# %% wrong says="stopped with KeyError"
def exact_derivative(z_of, theta, g):
    with dual.dual_level():
        duals = {name: dual.make_dual(theta[name], g[name]) for name in g}
        return dual.unpack_dual(z_of(duals)).tangent


# %% wrong says="asked for after the `with`"
def exact_derivative(z_of, theta, g):
    with dual.dual_level():
        duals = {name: dual.make_dual(theta[name], g[name]) for name in g}
        Z = z_of({**theta, **duals})
    return dual.unpack_dual(Z).tangent


# %% wrong says="Value and tangent are swapped"
def exact_derivative(z_of, theta, g):
    with dual.dual_level():
        duals = {name: dual.make_dual(g[name], theta[name]) for name in g}
        return dual.unpack_dual(z_of({**theta, **duals})).tangent


# %% solution
def exact_derivative(z_of, theta, g):
    """The derivative of Z along g, in one pass and without a step."""
    with dual.dual_level():
        duals = {name: dual.make_dual(theta[name], g[name]) for name in g}
        Z = z_of({**theta, **duals})
        return dual.unpack_dual(Z).tangent


# %%
by_hand = exact_derivative(z_of, theta, g)
print(f"to the library's:               {distance(by_hand, exact):.1e}")
print(f"to the best difference above:   {float(errors.min().min()):.1e}")
print(f"to the smallest real step:      {distance(-moved[0.001] / (0.001 * scale), by_hand):.1e}")
assert distance(by_hand, exact) < 1e-3

# %% [markdown]
# And what `ColdFD` adds to the activations is -η times this:

# %%
eta = 0.1 * scale
before, after = (
    steerlens.capture(model, [row], site, steering=steering).at(site)
    for steering in (None, at(site, replace(cold, eta=eta)))
)
added = (after - before).float()
print(f"added by the library, against -η times yours: {distance(added, -eta * by_hand):.1e}")
assert distance(added, -eta * by_hand) < 1e-2

# %% [markdown]
# ## 4. The kernel form
#
# Why should a step on one text move another? Take a single layer Z = x W. The gradient of a loss for W is
# xᵢᵀ times its gradient for Zᵢ. So a step on N examples moves Z at a new x by
#
# $$\Delta Z(x) = -\frac{\eta}{N} \sum_i \kappa(x, x_i)\, \frac{\partial L_i}{\partial Z_i},
# \qquad \kappa(x, x_i) = x \cdot x_i .$$
#
# **An example pushes a text as strongly as the two are alike**, along its own gradient. κ is a *kernel*. No
# parameter is left in the formula.

# %% exercise [markdown] name="kernel_push" difficulty=2 importance=3 minutes=10
# ### Push by likeness
#
# Write `kernel_push(kappa, gradients, eta)`. `kappa` is `[tokens, N]`, how alike each token is to each
# example; `gradients` is `[N, d_model]`, the gradient of each example's loss for its own activation. Return
# what is added to each token, `[tokens, d_model]`.

# %% hint [markdown]
# The sum over examples is a matrix product. Which axis do `kappa` and `gradients` share?

# %% hint [markdown]
# `kappa @ gradients`; then the factor -η / N, with N = `len(gradients)`.


# %% stub
def kernel_push(kappa, gradients, eta):
    """What a step of size eta adds to each token, [tokens, d_model]."""
    ...


# %% wrong says="Wrong sign"
def kernel_push(kappa, gradients, eta):
    return eta / len(gradients) * kappa @ gradients


# %% wrong says="is their *mean*"
def kernel_push(kappa, gradients, eta):
    return -eta * kappa @ gradients


# %% wrong says="the unit kernel's"
def kernel_push(kappa, gradients, eta):
    return -eta * gradients.mean(dim=0).expand(len(kappa), -1)


# %% wrong says="made κ add up to 1"
def kernel_push(kappa, gradients, eta):
    return -eta * (kappa / kappa.sum(dim=1, keepdim=True)) @ gradients


# %% wrong says="number of examples"
def kernel_push(kappa, gradients, eta):
    return -eta / len(kappa) * kappa @ gradients


# %% wrong says="summed κ and the gradients apart"
def kernel_push(kappa, gradients, eta):
    return -eta / len(gradients) * kappa.sum(dim=1)[:, None] * gradients.sum(dim=0)


# %% solution
def kernel_push(kappa, gradients, eta):
    """What a step of size eta adds to each token, [tokens, d_model]."""
    return -eta / len(gradients) * kappa @ gradients


# %% [markdown]
# Is it true? Four examples for a layer, a loss of its outputs, a real step on W:

# %%
X, new, aim = (torch.randn(n, 6, generator=generator) for n in (4, 3, 4))
W = torch.randn(6, 6, generator=generator, requires_grad=True)
outputs = X @ W
loss = (outputs - aim).square().sum() / len(X)
slope_w, slope_out = torch.autograd.grad(loss, (W, outputs))
real = new @ (W - 0.1 * slope_w) - new @ W
# `slope_out` has the 1/N of the mean in it already; kernel_push wants each example's own gradient.
by_kernel = kernel_push(new @ X.T, len(X) * slope_out, 0.1)
torch.testing.assert_close(by_kernel, real, rtol=1e-3, atol=1e-4)
print("for one linear layer the kernel form is the step, whatever its size")

# %% [markdown]
# In a deep network κ becomes a large matrix for every two tokens, made of all parameters below (the *neural
# tangent kernel*). **COLD-Kernel** puts a single number in its place, and looks at only one token of each
# example, the last of the prompt. All it needs is a gradient for an activation, and a hook can catch that:


# %%
def read(row_pair):
    """Z and dL/dZ at the last prompt token of both rows of an example."""
    kept = []

    def begin_here(activation, hook):
        kept.append(activation.detach().requires_grad_())
        return kept[-1]

    with model.hooks(fwd_hooks=[(site.hook_name, begin_here)]):
        loss = dpo(*map(log_p, row_pair), BETA)
    slopes = torch.autograd.grad(loss, kept)
    ends = [row.response - 1 for row in row_pair]
    return [
        torch.stack([each[0, i].detach() for each, i in zip(side, ends, strict=True)])
        for side in (kept, slopes)
    ]


read_rows = [read(pair) for pair in rows]
anchors = torch.cat([z for z, _ in read_rows])
# Both rows of a pair belong to one example, so N is the number of pairs, half of the gradients.
gradients = 2 * torch.cat([dz for _, dz in read_rows])

# %% [markdown]
# Three kernels: **unit**, κ = 1, by which all tokens get the same vector; **dot**, z · zᵢ; and **cosine**.

# %%
kappas = {
    "unit": torch.ones(len(Z), len(anchors)),
    "dot": Z @ anchors.T,
    "cosine": torch.nn.functional.normalize(Z, dim=-1)
    @ torch.nn.functional.normalize(anchors, dim=-1).T,
}
pushes = {name: kernel_push(kappa, gradients, 1.0) for name, kappa in kappas.items()}
for name, push in pushes.items():
    steer = ColdKernel.fit(model, examples, site, kernel=name, scope=scope.everywhere).steering
    after = steerlens.capture(model, [row], site, steering=1e4 * steer).at(site)
    assert distance((after - before).float() / 1e4, push) < 0.02
print("COLD-Kernel by hand is the library's")

# %% [markdown]
# ## 5. What do they approximate?
#
# One gradient step. So take the step, and measure how far each is from it, token by token.

# %% exercise [markdown] name="approximation_error" difficulty=1 importance=3 minutes=5
# ### The error of a token
#
# Write `approximation_error(found, step)`, both `[tokens, d_model]`: what was found, and what the real step
# does. For each token take |found - step| / |step|, and return the **median** over tokens, a number.

# %% hint [markdown]
# `.norm(dim=-1)` is the length at each token.

# %% hint [markdown]
# Divide the two lengths token by token; then `.median()`, and `float(...)`.


# %% stub
def approximation_error(found, step):
    """The median over tokens of |found - step| / |step|."""
    ...


# %% wrong says="This is the mean"
def approximation_error(found, step):
    return float(((found - step).norm(dim=-1) / step.norm(dim=-1)).mean())


# %% wrong says="All tokens at once"
def approximation_error(found, step):
    return float((found - step).norm() / step.norm())


# %% wrong says="a push that is too long"
def approximation_error(found, step):
    return float(torch.cosine_similarity(found, step, dim=-1).median())


# %% wrong says="You compared lengths"
def approximation_error(found, step):
    return float((found.norm(dim=-1) / step.norm(dim=-1) - 1).abs().median())


# %% wrong says="not relative yet"
def approximation_error(found, step):
    return float((found - step).norm(dim=-1).median())


# %% wrong says="Wrong axis"
def approximation_error(found, step):
    return float(((found - step).norm(dim=0) / step.norm(dim=0)).median())


# %% solution
def approximation_error(found, step):
    """The median over tokens of |found - step| / |step|."""
    return float(((found - step).norm(dim=-1) / step.norm(dim=-1)).median())


# %% [markdown]
# The kernels do not count η like the step: they leave a product of parameters out. So each gets the factor
# with which it comes nearest to the step (least squares). That is generous, since a user does not know it.

# %%
table = {}
for share in (0.001, 0.01, 0.03, 0.1, 0.3, 1.0):
    step = z_of(stepped(theta, g, share * scale)) - Z
    found = {"COLD-FD": -share * scale * by_hand}
    for name, push in pushes.items():
        found[f"kernel, {name}"] = push * (push * step).sum() / push.square().sum()
    table[f"{share:g}"] = {name: approximation_error(one, step) for name, one in found.items()}
pd.DataFrame(table).rename_axis("error; η / scale:", axis=1)

# %%
assert table["0.001"]["COLD-FD"] < 0.1, "a short step is its first order"
cosines = {name: torch.cosine_similarity(push, -by_hand, dim=-1) for name, push in pushes.items()}
pd.DataFrame(
    {
        name: {
            "median over tokens": float(cosine.median()),
            "at the last prompt token": float(cosine[last]),
            "a random direction, about ±": d_model**-0.5,
        }
        for name, cosine in cosines.items()
    }
).T.rename_axis("cosine with the step", axis=1)

# %% [markdown]
# COLD-FD is the step, as long as the step is short. How long may it be? Read it off your table: the error grows
# with η, until the straight continuation leads elsewhere. The kernels are another matter: even with the best
# factor most of the step is missing at *every* η, so it is not a question of size. Their push points partly
# where the step does (compare with a random direction), and most of it elsewhere. If the three kernels are
# alike in your table, then this site's activations have much in common: κ is nearly the same for all tokens.
# A kernel can still steer well. But then it does so for other reasons than the derivation
# gives: it is a vector of mean gradients, to be judged by what it does.
#
# ## 6. Steer with them
#
# By default both act on the tokens of the prompt alone, as the authors' code does. Strength 1 is a push of a
# fifth of an activation's length, for both. First the numbers, then a text each.

# %%
long = 0.2 * scale
unit_long = 0.2 * float(Z.norm(dim=-1).median() / pushes["unit"][0].norm())
methods = {
    "COLD-FD": ColdFD.fit(model, examples, site, eta=long).steering,
    "COLD-Kernel": ColdKernel.fit(model, examples, site, eta=unit_long).steering,
}
if NAME == "demo":
    judge, coherent = judge_of("positive"), Coherence()
else:  # these two know the demonstration model's kind of text; others are judged by themselves
    judge = likelihood(model, INSTRUCTION, attribute.questions("train")[:8])
    coherent = judge.coherence
setting = Setting(
    model,
    attribute.questions("validation")[: 12 if large else 24],
    judge,
    coherent,
    Sampling(max_new_tokens=30, seed=SEED),
    n=1 if large else 2,
    batch_size=64,
)
scored = tradeoff(setting, methods, [1.0, 2.0, 4.0], INSTRUCTION)
tradeoff_curve(scored)

# %%
asked = [Conversation(user) for user in setting.questions[:2]]
options = {"max_new_tokens": 30, "temperature": 0.8, "seed": SEED}
written = {
    name: steerlens.generate(model, asked, steering and 2.0 * steering, **options).texts
    for name, steering in {"unsteered": None, **methods}.items()
}
flush_left(pd.DataFrame(written, index=setting.questions[:2]).T)

# %% [markdown]
# A few dozen texts each: mind the bars before you say that one is better (unit 9 says how to
# compare). A push of most of an activation's length is also far outside of where the step was
# approximated. What it does there is the method's own doing, not gradient descent's.
#
# ### Token by token
#
# A prompt pushes tokens unevenly (unit 4). A unit kernel cannot. And the step? Now COLD-FD acts on **all** tokens, so that
# we see those of a response, along the prompt's mean push.

# %%
everywhere = {"COLD-FD": at(site, replace(cold, eta=long))}
shown = coefficients(model, pairs, [layer], everywhere)
coloured_text(model, pairs[0], 0, shown, everywhere, layer)

# %%
lengths = shown.pivot_table(index=["example", "token_index"], columns="method", values="norm")


def within(values, *groups):
    for group in groups:
        values = values - values.groupby(group).transform("mean")
    return values


in_text, no_place = within(lengths, "example"), within(lengths, "token_index", "example")
pd.DataFrame(
    {
        "95th / 5th percentile": lengths.quantile(0.95) / lengths.quantile(0.05),
        "share along the prompt's": shown.groupby("method")["rank1_share"].mean(),
        "with the prompt": in_text.corr()["prompt"],
        "place taken away": no_place.corr()["prompt"],
    }
).loc[["prompt", "COLD-FD"]]

# %% [markdown]
# *With the prompt*: does the step push hard where the prompt does, within texts (unit 6)? Mind one trap. Two
# pushes that only fade towards the end of a text correlate as well. In the last column the mean of each
# *place* in the text is taken away, too. What is left of the correlation? Few texts of one attribute are a hint at
# most.

# %% [markdown]
# ## What could go wrong
#
# * **The paper's ε of 10⁻⁶ with a small gradient.** DPO's is small. In float32 the difference is then mostly
#   rounding, in bfloat16 it is zero: a steering that changes nothing, and no error. Use the derivative.
# * **η from another method, model or loss.** A mean gradient has no natural length. Look at the length of the
#   push first, or let `steerlens.calibrate` find the strength.
# * **"It does what fine-tuning does."** It does what *one* step does, to first order, at *one* site, with the
#   parameters above as they were. Measure how far that holds before you say it.
# * **A kernel taken for the step.** Look at the cosine.
# * **Parameters of the model written into.** Then all that follows is about another model. Step on copies.
# * **A step uphill.** `+g` is the derivative, `-η` times it is added. With the sign wrong the model becomes
#   what the examples are *not*, and that may look like an effect.
# * **Gradients forgotten in `g`.** A tied embedding has two uses, and one gradient from both.
# * **Memory.** g is as large as the parameters below the site. For a large model that is what decides, and the
#   library then keeps g in bfloat16, which moves the derivative by up to 0.2 %. (Here it was told not to.)

# %% [markdown]
# ### On another model
#
# `STEERLENS_MODEL=smollm2` runs this unit on SmolLM2-135M, in some minutes, on four examples. There θ has
# eighty million numbers, the judges are made of SmolLM2's own predictions (unit 9), `scale` is another number, and the first token's activation is so long that
# nothing moves it; so we take medians. Expect the first order to hold for shorter steps only: on the same
# scale the error is several times that of the demonstration model (`docs/results/claims.md`, claim 5). The
# examples were written by the demonstration model, and are unlike what SmolLM2 would write.

# %% [markdown]
# ## An open experiment
#
# **Who pushes?** The derivative is linear in g, and g is a mean over examples, so each example has a share in
# the push on each token, and the shares add up to 1. Compute each example's own gradient, its derivative, and
# its share along the whole push. Do examples about *similar requests* push hardest, as the kernel form says?
# Make one number for "similar" (the cosine of activations, words in common), and correlate. Write down
# beforehand which correlation you expect, and what you would conclude from none.

# %% [markdown]
# ## References
#
# - Sharma and Trivedi, *COLD-Steer: Steering Large Language Models via In-Context One-step Learning Dynamics*,
#   2026, [arXiv 2603.06495](https://arxiv.org/abs/2603.06495).
# - The method's page, with what the authors' code does and a table of errors on two models:
#   `docs/methods/cold.md`; the step itself: `docs/methods/gradient_step.md`; how near COLD comes to it:
#   `docs/results/claims.md`.
# - Jacot, Gabriel and Hongler, *Neural Tangent Kernel*, 2018, [arXiv 1806.07572](https://arxiv.org/abs/1806.07572).
# - Baydin and others, *Automatic differentiation in machine learning: a survey*, 2015,
#   [arXiv 1502.05767](https://arxiv.org/abs/1502.05767): forward and reverse mode.
# - In the library: `steerlens/methods/cold/`, above all `tangent.py` and `kernel.py`.
