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
# # One gradient step, without taking it
#
# Fine-tuning on a few examples changes the parameters, and by that the activations of every text.
# **COLD-Steer** (Sharma and Trivedi, 2026, arXiv 2603.06495) leaves the parameters alone and adds
# to the activations what *one step* of gradient descent would have done to them, to first order:
#
# > ΔZ(x) = -η · dZ(x; θ)/dθ · g
#
# *Z(x)* are the activations of a text at a site, *θ* the parameters, and *g* the mean gradient of
# the examples' losses. In this notebook you
# 1. take a real step on a copy of the parameters, and see **what it does to the activations**,
# 2. build the cheap form, **COLD-Kernel**, from gradients for activations,
# 3. build the paper's **finite difference**, and see it drown in rounding,
# 4. build the **exact derivative** with dual numbers, which is what the library does,
# 5. steer with it, and look at how it pushes each token, beside the prompt.
#
# You should know hooks and `Site` (notebook `00_tour`) and what a gradient is.

# %%
import os
import warnings
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import torch
import torch.autograd.forward_ad as dual
from analysis.coefficients import coefficients
from analysis.comparison import coloured_text, side_by_side
from analysis.curves import tradeoff_curve
from analysis.strengths import Entry
from analysis.tradeoff import Setting, tradeoff
from IPython.display import HTML
from torch.nn.attention import SDPBackend, sdpa_kernel

import steerlens
from analysis import figures
from analysis.judges import Coherence, judge_of
from steerlens import ColdFD, ColdKernel, Conversation, Site, everywhere
from steerlens.demo import benchmark_set
from steerlens.generation import Sampling
from steerlens.methods.cold.gradients import places_of, standing_in, weights_at
from steerlens.steering import scaled

warnings.filterwarnings("ignore", message="IProgress not found")  # a progress bar we do without

SEED = 0
pd.set_option("display.max_colwidth", None)
pd.set_option("display.precision", 3)

NAME = os.environ.get("STEERLENS_MODEL", "demo")
model = steerlens.load(NAME)
template = None if model.tokenizer.chat_template else steerlens.PLAIN
n_layers, d_model = model.cfg.n_layers, model.cfg.d_model
layer = n_layers // 2
site = Site(layer)
print(f"{n_layers} layers, {d_model} numbers in an activation; we act at layer {layer}")

# %% [markdown]
# Ten examples. Each is a request with two answers, both written by the demonstration model: one
# when it was told to be positive, one when it was told nothing. (The benchmark set has a third
# list, "test". It is for final results such as docs/results, so we do not look at it here.)

# %%
INSTRUCTION = "Be positive."
asked = benchmark_set.read("positive")
chosen = asked.split("train")[:10]
positive = [Conversation(row.user, response=row.prompted) for row in chosen]
negative = [Conversation(row.user, response=row.plain) for row in chosen]
print("asked:   ", chosen[0].user)
print("positive:", chosen[0].prompted[:90])
print("negative:", chosen[0].plain[:90])

# %% [markdown]
# ## 1. A real step
#
# ### The loss
#
# It is low where the model finds the positive answer likelier than the negative one. With ℓ the
# mean log-probability of the tokens of an answer, **DPO** without a reference model is
#
# > L = -log σ(β (ℓ⁺ - ℓ⁻)), β = 0.1
#
# An answer begins at `row.response`. The logits at one place predict the token at the next.


# %%
def log_likelihood(row):
    logits = model(torch.tensor([row.ids]))[0]
    spoken = logits[:-1].log_softmax(dim=-1)[range(len(row.ids) - 1), row.ids[1:]]
    return spoken[row.response - 1 :].mean()


def dpo(chosen_row, rejected_row):
    margin = log_likelihood(chosen_row) - log_likelihood(rejected_row)
    return -torch.nn.functional.logsigmoid(0.1 * margin)


rows = [
    [steerlens.encode(model, answered, template) for answered in example]
    for example in zip(positive, negative, strict=True)
]
with torch.no_grad():
    print(f"loss of the first example: {dpo(*rows[0]):.4f}; of indifference: {np.log(2):.4f}")

# %% [markdown]
# ### The parameters
#
# θ is what acts on our site: the embeddings, and the blocks up to this layer. `standing_in` runs
# the model with other tensors in their place, and puts its own back. So we can step on a
# **copy**.

# %%
places = places_of(model, layer)
theta = {name: weight.detach() for name, weight in weights_at(places).items()}
print(len(theta), "tensors,", sum(weight.numel() for weight in theta.values()), "numbers")


def copy_of_theta():
    return {name: weight.clone().requires_grad_() for name, weight in theta.items()}


def mean_loss(weights):
    with standing_in(places, weights):
        return sum(dpo(*pair) for pair in rows) / len(rows)


# %% [markdown]
# The gradient, by autograd, and one step of `torch.optim.SGD`. How far does the loss fall? Along
# -g it falls by η |g|² if η is small enough.

# %%
leaves = copy_of_theta()
mean_loss(leaves).backward()
g = {name: leaf.grad for name, leaf in leaves.items() if leaf.grad is not None}


def length(tensors):
    return float(torch.stack([one.norm() for one in tensors]).norm())


print(f"|theta| = {length(theta[name] for name in g):.1f}, |g| = {length(g.values()):.3f}")


def stepped(eta):
    copy = copy_of_theta()
    for name, weight in copy.items():
        weight.grad = g.get(name)
    torch.optim.SGD(copy.values(), lr=eta).step()
    return {name: weight.detach() for name, weight in copy.items()}


@torch.no_grad()
def losses_at(etas):
    before = float(mean_loss(theta))
    falls = [before - float(mean_loss(stepped(eta))) for eta in etas]
    return pd.DataFrame(
        {
            "eta": etas,
            "the loss falls by": falls,
            "eta |g|²": [eta * length(g.values()) ** 2 for eta in etas],
        }
    )


losses_at([0.1, 1.0, 10.0])

# %% [markdown]
# ### What it does to activations
#
# Take a text that is not among the examples, run it with θ and with the stepped θ, and subtract.
# The step was taken on other texts; still every token moves.

# %%
pairs = asked.pairs("validation")[:8]
row, _ = steerlens.encode_pair(model, pairs[0], template)
tokens = torch.tensor([row.ids])


@torch.no_grad()
def activations(weights, tokens=tokens, model=model, places=places):
    """Z at our site, one row a token."""
    with standing_in(places, weights):
        _, cache = model.run_with_cache(tokens, names_filter=site.hook_name)
    return cache[site.hook_name][0].detach()


Z = activations(theta)
real = {eta: activations(stepped(eta)) - Z for eta in (10.0, 1.0, 0.1, 0.01)}
last_prompt_token = row.response - 1
shown = slice(max(0, last_prompt_token - 6), last_prompt_token + 9)
pd.DataFrame(
    {"token": steerlens.prompts.show(model, row.ids)[shown], "|Z|": Z.norm(dim=-1)[shown]}
    | {f"|ΔZ|, eta = {eta:g}": delta.norm(dim=-1)[shown] for eta, delta in real.items()}
).T

# %% [markdown]
# ### The limit
#
# A tenth of the step, a tenth of the change: so it is in the limit. We divide ΔZ by η and compare
# each η with the next smaller one.


# %%
def distance(one, other):
    """|one - other| / |other|, over all tokens."""
    return float((one - other).norm() / other.norm())


etas = list(real)
limit_table = pd.DataFrame(
    {
        "eta": etas[:-1],
        "next eta": etas[1:],
        "|ΔZ/eta|": [float((real[eta] / eta).norm()) for eta in etas[:-1]],
        "distance": [
            distance(real[eta] / eta, real[smaller] / smaller) for eta, smaller in pairwise(etas)
        ],
    }
)
limit_table

# %%
assert limit_table["distance"].is_monotonic_decreasing

# %% [markdown]
# The distances shrink with η: there is a limit. It is linear in g, and it is the derivative of
# the activations along -g. **COLD-Steer adds this limit, times η.** For a large η that is not
# what the real step does, but its straight continuation.
#
# ## 2. The kernel
#
# What acts below the site acts through the activations. So, by the chain rule, the limit is a sum
# over the tokens of the examples *i*, of the gradients for *their own* activations, with weights
# that say how much a step for the one text moves the other:
#
# > ΔZ(x) = -(η / N) Σᵢ K(x, xᵢ) dLᵢ/dZ(xᵢ)
#
# The weights K are large matrices. **COLD-Kernel** puts a single number κ in their place, and
# looks at only one token of each example, the last of the prompt. Then all it needs is a gradient
# for an activation, which a hook can catch.


# %%
def read(row_pair):
    """Z and dL/dZ at the last prompt token of both rows of an example."""
    held = []

    def hold(activation, hook):
        activation = activation.detach().requires_grad_()
        held.append(activation)
        return activation

    with model.hooks(fwd_hooks=[(site.hook_name, hold)]):
        loss = dpo(*row_pair)
    found = torch.autograd.grad(loss, held)
    last = [one.response - 1 for one in row_pair]
    return (
        torch.stack([z[0, i].detach() for z, i in zip(held, last, strict=True)]),
        torch.stack([dz[0, i] for dz, i in zip(found, last, strict=True)]),
    )


anchors, gradients = (torch.cat(side) for side in zip(*map(read, rows), strict=True))
gradients = gradients / len(rows)
print(list(anchors.shape), "anchors, two for each example: its positive and its negative row")

# %% [markdown]
# **unit**: κ = 1. All tokens of all texts get the same vector. The other kernels compare
# activations: **dot**, **cosine**, and **rbf**, which is 1 at an anchor and falls off with the
# distance; its width is the median distance of the anchors.

# %%
unit = -gradients.sum(dim=0)
apart = torch.pdist(anchors)
width = float(apart[apart > 1e-4 * anchors.norm(dim=-1).mean()].double().quantile(0.5))


def kappa(kernel, z):
    if kernel == "unit":
        return torch.ones(len(z), len(anchors))
    if kernel == "dot":
        return z @ anchors.T
    if kernel == "cosine":
        return (z @ anchors.T) / (z.norm(dim=-1)[:, None] * anchors.norm(dim=-1))
    return torch.exp(-(torch.cdist(z, anchors) ** 2) / (2 * width**2))


# %%
KERNELS = ("unit", "dot", "cosine", "rbf")
kernels = {}
for kernel in KERNELS:
    options = {"width": width} if kernel == "rbf" else {}
    fitted = ColdKernel.fit(
        model,
        site,
        positive,
        negative,
        kernel=kernel,
        template=template,
        scope=everywhere,
        **options,
    )
    ((_, kernels[kernel]),) = fitted.placed
    mine = kappa(kernel, Z) @ gradients
    assert distance(kernels[kernel].kappa(Z) @ kernels[kernel].gradients, mine) < 1e-3
assert distance(kernels["unit"].direction, unit) < 1e-3
print("COLD-Kernel by hand is the library's")

# %% [markdown]
# Who resembles the anchors? The mean κ over them, for tokens of our text, as a share of the
# largest:

# %%
like = {kernel: kappa(kernel, Z).mean(dim=1) for kernel in KERNELS}
pd.DataFrame(
    {"token": steerlens.prompts.show(model, row.ids)[shown]}
    | {kernel: (one / one.abs().max())[shown].tolist() for kernel, one in like.items()}
).T

# %% [markdown]
# All anchors are last prompt tokens, after which the answer begins. What does each kernel make of
# that token here, and what of all others?
#
# ## 3. The finite difference
#
# **COLD-FD** needs no kernel. The paper runs the model twice, with θ and with a θ moved a little
# along g, and divides:
#
# > dZ/dθ · g ≈ (Z(x; θ + ε g) - Z(x; θ)) / ε, with ε = 10⁻⁶
#
# A small ε keeps near the straight line. But a computer keeps about seven digits of a number (in
# float32), and what is lost of Z is divided by ε. Which wins?
#
# To see it we need the exact derivative. Section 4 builds it; until then we take the library's.

# %%
cold = ColdFD.fit(model, site, positive, negative, template=template, scope=everywhere)
for name, one in zip(cold.names, cold.gradients, strict=True):
    torch.testing.assert_close(one, g[name], rtol=1e-3, atol=1e-5 * length(g.values()))

row_tokens, window = steerlens.batch(model, [row])
assert torch.equal(row_tokens, tokens)
exact = cold.derivative(model, tokens, window)[site][0]
pd.DataFrame(
    {"eta": etas, "distance of -ΔZ/eta": [distance(-real[eta] / eta, exact) for eta in etas]}
)

# %% [markdown]
# The real steps of section 1 go there. Now the differences. Beside DPO there is **SFT** (the
# plain surprise at the positive answers), whose g is longer; a **central** difference, which
# steps to both sides; and the model in **bfloat16**, which keeps two to three digits.

# %%
sft = ColdFD.fit(model, site, positive, loss="sft", template=template, scope=everywhere)
g_sft = dict(zip(sft.names, sft.gradients, strict=True))
exact_sft = sft.derivative(model, tokens, window)[site][0]

half = steerlens.load(NAME, dtype=torch.bfloat16)
half_places = places_of(half, layer)
half_theta = {name: weight.detach() for name, weight in weights_at(half_places).items()}


def moved(weights, direction, eps):
    return {
        name: weight + eps * direction[name].to(weight) if name in direction else weight
        for name, weight in weights.items()
    }


def forward(direction, eps):
    return (activations(moved(theta, direction, eps)) - Z) / eps


def central(direction, eps):
    ends = [activations(moved(theta, direction, step)) for step in (eps, -eps)]
    return (ends[0] - ends[1]) / (2 * eps)


half_z = activations(half_theta, tokens, half, half_places).float()


def in_half(direction, eps):
    there = activations(moved(half_theta, direction, eps), tokens, half, half_places)
    return (there.float() - half_z) / eps


ways = {
    "DPO, forward": (forward, g, exact),
    "DPO, central": (central, g, exact),
    "SFT, forward": (forward, g_sft, exact_sft),
    "DPO, forward, bfloat16": (in_half, g, exact),
}
EPS = [10.0**power for power in np.arange(-8, 0.1, 0.5)]
errors = pd.DataFrame(
    {name: [distance(way(d, eps), limit) for eps in EPS] for name, (way, d, limit) in ways.items()},
    index=pd.Index(EPS, name="eps"),
)

PAPER = 1e-6
COLOURS = ("#0072b2", "#56b4e9", "#d55e00", "#7f7f7f")
figure = go.Figure(
    [
        go.Scatter(x=EPS, y=errors[name], name=name, mode="lines+markers", line={"color": colour})
        for name, colour in zip(errors, COLOURS, strict=True)
    ]
)
figure.add_vline(PAPER, line={"dash": "dot", "color": "black"})
figure.add_annotation(x=-6, y=1.02, yref="paper", yanchor="bottom", showarrow=False, text="paper")
figure.add_hline(1, line={"dash": "dash", "color": "#7f7f7f"})
figure.update_xaxes(type="log", title="step ε", exponentformat="power", dtick=1)
figure.update_yaxes(type="log", title="relative error", exponentformat="power", dtick=1)
figure.update_layout(template="plotly_white", height=480, width=820)
figure

# %% [markdown]
# On the left is rounding: ten times the step, a tenth of the error. On the right is curvature: ten
# times the step, ten times the error (a hundred times for the central difference). An error of 1
# (dashed) is what no steering at all has; above it the difference is mostly noise.
#
# At the paper's step, in plain numbers, and how many of the parameters *change at all* when ε g is
# added to them:

# %%


def changed(weights, direction, eps):
    after = moved(weights, direction, eps)
    counts = [int((after[name] != weights[name]).sum()) for name in direction]
    return sum(counts) / sum(weights[name].numel() for name in direction)


at_paper = errors.loc[PAPER].rename("error at 1e-6").to_frame()
at_paper["parameters that change"] = [
    changed(half_theta if way is in_half else theta, direction, PAPER)
    for way, direction, _ in ways.values()
]
at_paper["smallest error"] = errors.min()
at_paper["at step"] = errors.idxmin()
at_paper

# %%
float32 = errors.drop(columns="DPO, forward, bfloat16")
assert (float32.loc[PAPER] > 5 * float32.min()).all(), "the paper's step is far from the best"

# %% [markdown]
# The best step depends on the loss. What matters is how far ε g goes compared with θ: the
# library's `mode="fd"` therefore takes ε = r |θ| / |g|, with r = 10⁻⁵ in float32. In half
# precision it refuses.

# %%
by_difference = replace(cold, mode="fd")
quotient = by_difference.start(model, 1).run
print(f"the library's step: {quotient.up:.2g}")
print(f"its error:          {distance(quotient.of(tokens, window)[site][0], exact):.2g}")
try:
    by_difference.start(half, 1)
except ValueError as error:
    print(f"in bfloat16:        {error}")

# %% [markdown]
# ## 4. The exact derivative
#
# **Dual numbers** carry a derivative along: instead of *a* compute with a + a'ε, where ε² = 0. Then
# (a + a'ε)(b + b'ε) = ab + (a'b + ab')ε, which is the product rule. torch has them:

# %%
with dual.dual_level():
    x = dual.make_dual(torch.tensor(3.0), torch.tensor(1.0))
    print(dual.unpack_dual(x**2))  # d(x²)/dx = 2x

# %% [markdown]
# So let the parameters be θ + gε, run the model *once*, and read the second half of Z. There is
# no step, so there is nothing to choose and nothing to divide. (Fast attention kernels have no
# such rule; `SDPBackend.MATH` asks for the plain one.)

# %%


@torch.no_grad()
def derivative(direction, tokens=tokens):
    held = []

    def keep(activation, hook):
        held.append(dual.unpack_dual(activation).tangent.clone())

    with dual.dual_level(), sdpa_kernel(SDPBackend.MATH):
        duals = {name: dual.make_dual(theta[name], direction[name]) for name in direction}
        with standing_in(places, duals), model.hooks(fwd_hooks=[(site.hook_name, keep)]):
            model(tokens)
    return held[0][0]


by_hand = derivative(g)
print(f"distance to the library's derivative: {distance(by_hand, exact):.1e}")
assert distance(by_hand, exact) < 1e-4
assert distance(-real[0.1] / 0.1, by_hand) < 0.05

# %% [markdown]
# And what `ColdFD` adds to a text is -η times this:

# %%
eta = 3.0
before, after = (
    steerlens.capture(model, [row], site, steering=one).at(site)
    for one in (None, replace(cold, eta=eta))
)
torch.testing.assert_close(after - before, -eta * by_hand, rtol=1e-3, atol=1e-5 * float(Z.norm()))

# %% [markdown]
# ### How good a stand-in is the kernel?
#
# Now we can ask. For each token of the text: does the kernel push where the step pushes? (A
# cosine of 1 is the same direction; a random direction has a cosine of about ±1/√`d_model`.)

# %%
rows_of_table = []
for kernel in KERNELS:
    push = -kappa(kernel, Z) @ gradients
    cosine = torch.cosine_similarity(push, -exact, dim=-1)
    rows_of_table.append(
        {
            "kernel": kernel,
            "cosine, mean over tokens": float(cosine.mean()),
            "lowest": float(cosine.min()),
            "highest": float(cosine.max()),
            "at the last prompt token": float(cosine[last_prompt_token]),
            "eta for the length": f"{float((exact.norm(dim=-1) / push.norm(dim=-1)).median()):.2g}",
        }
    )
pd.DataFrame(rows_of_table).set_index("kernel").round(3)

# %% [markdown]
# The step reaches every token through all parameters below; the kernel knows of one token per
# example and nothing of the parameters. So they agree only in part. Nor do they count η alike:
# the last column is the η at which the kernel's push is as long as the step's is at η = 1 (the
# median over tokens). In what follows the kernels get that η. (For rbf there is none to speak of:
# away from the anchors its κ is next to nothing.)
#
# ## 5. Steer with it
#
# By default both act on the prompt alone, as the authors' code does. Attribute and coherence, over
# the strength (here a factor on η), beside the unsteered model and the prompt:

# %%
as_long = float((exact.norm(dim=-1) / unit.norm()).median())
fd = ColdFD.fit(model, site, positive, negative, template=template)
unit_kernel = ColdKernel.fit(model, site, positive, negative, eta=as_long, template=template)

questions = asked.questions("validation")[:24]
setting = Setting(
    model,
    questions,
    judge_of("positive"),
    Coherence(),
    Sampling(max_new_tokens=40, seed=SEED),
    n=2,
    template=template,
    batch_size=64,
)
scores = tradeoff(
    setting, {"COLD-FD": fd, "COLD-Kernel": unit_kernel}, [2.0, 4.0, 8.0], INSTRUCTION
)
tradeoff_curve(scores)

# %%
scores[["method", "strength", "attribute", "attribute_low", "attribute_high", "coherence", "n"]]

# %% [markdown]
# 24 requests with two completions each, seed 0: compare differences with the intervals before you
# believe them. On the demonstration model the strong steps raise the attribute to about where the
# prompt has it, with text that is less coherent than the prompt's. The kernel's vector of the same
# length does less, and its intervals overlap with those of the unsteered model.

# %%
texts = side_by_side(
    model,
    questions[:2],
    INSTRUCTION,
    [Entry("COLD-Kernel", unit_kernel.scaled(4.0)), Entry("COLD-FD", scaled(fd, 4.0))],
    max_new_tokens=40,
    temperature=0.8,
    seed=SEED,
    template=template,
)
HTML(texts.pivot(index="prompt", columns="method", values="text").to_html())

# %% [markdown]
# ### Token by token
#
# A prompt pushes tokens unevenly (notebook `04_prompt_is_an_intervention`). A unit kernel cannot.
# And the step? We let both act on **all** tokens, to see what they do to those of a response, and
# measure all three along the prompt's mean push.

# %%
methods = {
    "COLD-FD": cold,
    "COLD-Kernel": ColdKernel.fit(
        model, site, positive, negative, eta=as_long, template=template, scope=everywhere
    ),
    "COLD-Kernel, dot": ColdKernel.fit(
        model,
        site,
        positive,
        negative,
        kernel="dot",
        eta=float((exact.norm(dim=-1) / (kappa("dot", Z) @ gradients).norm(dim=-1)).median()),
        template=template,
        scope=everywhere,
    ),
}
table = coefficients(model, pairs, [layer], methods, template=template)
coloured_text(model, pairs[0], 0, table, methods, layer, template)

# %%
figures.sorted_strengths(table, layer)

# %% [markdown]
# (The unit kernel's line has stairs, one for each text: the mean push that is the unit of a text is
# that of the *other* texts.)
#
# In numbers, over the tokens of eight responses: how many times harder a token at the 95th
# percentile is pushed than one at the 5th; the mean push along the prompt's; how much of a push
# lies along it; and whether a method pushes hard **where the prompt does** (a correlation of
# lengths over tokens, within texts). Mind one trap: two pushes that only fade towards the end of
# a text correlate as well. So there is the correlation with the **place** in the text, and, in
# the last column, what is left of the first when the mean of each place (over the texts) is taken
# away too.


# %%
def centred(values, *groups):
    for group in groups:
        values = values - values.groupby(group).transform("mean")
    return values


pushes = table.pivot_table(index=["example", "token_index"], columns="method", values="norm")
in_text = centred(pushes, "example")
place = pd.Series(pushes.index.get_level_values("token_index"), pushes.index, dtype=float)
by_method = table.groupby("method")
uneven = pd.DataFrame(
    {
        "95th / 5th": by_method["norm"].quantile(0.95) / by_method["norm"].quantile(0.05),
        "along, mean": by_method["along"].mean(),
        "share along it": by_method["rank1_share"].mean(),
        "with the prompt": in_text.corr()["prompt"],
        "with the place": in_text.corrwith(centred(place, "example")),
        "prompt, place away": centred(pushes, "token_index", "example").corr()["prompt"],
    }
)
# What varies in a constant is rounding: it has no correlation.
uneven.loc["COLD-Kernel", ["with the prompt", "with the place", "prompt, place away"]] = np.nan
print(len(pushes), "tokens of", table["example"].nunique(), "responses, seed", SEED)
uneven

# %%
assert abs(uneven.loc["COLD-Kernel", "95th / 5th"] - 1) < 1e-2, "a constant is even"

# %% [markdown]
# On the demonstration model:
#
# * The step is uneven, but not as uneven as the prompt, and part of it points where the prompt
#   pushes. It saw no prompt, only answers.
# * It pushes hard where the prompt does, but much of that is the place: both fade along the text.
#   Some correlation is left without it. Eight texts of one attribute are few: take it as a hint.
# * The dot kernel is uneven too, but once the place is taken away, its strengths do not follow the
#   prompt's. And along the prompt's push lies no more of either kernel's than of a random vector.
#
# ---
# # Exercises
#
# Each has a task, a cell for your answer (the repository has a solution there; cover it first)
# and a cell that checks it.
#
# ## Exercise 1: a loss of your own
#
# `loss` may be any function `(logits, batch) -> scalar`. `batch` holds the rows of one example, the
# positive answer first, and `steerlens.methods.cold.losses.log_likelihood(logits, batch)` gives ℓ of each. Write
# the **margin**, ℓ⁻ - ℓ⁺, without σ and without β. In which direction does its step go, and why is
# it so nearly that of DPO?

# %%
# solution


def margin(logits, batch):
    plus, minus = steerlens.methods.cold.losses.log_likelihood(logits, batch)
    return minus - plus


# %%
mine = ColdFD.fit(model, site, positive, negative, loss=margin, template=template, scope=everywhere)
pushes_alike = torch.cosine_similarity(
    derivative(dict(zip(mine.names, mine.gradients, strict=True))).flatten(),
    exact.flatten(),
    dim=0,
)
assert float(pushes_alike) > 0.99
print(f"cosine of the two pushes: {float(pushes_alike):.4f}")

# %% [markdown]
# (The derivative of -log σ(β m) is -β σ(-β m), and with β m near 0 that is -β/2 for each example.)
#
# ## Exercise 2: who pushes?
#
# The derivative is linear in g, and g is a mean over examples. So each example has a share in the
# push on each token, and the shares add up. Compute `shares`, of shape [examples, tokens,
# d_model], from `each`, the steps fitted on one example alone. `derivative(direction)` of section
# 4 takes a dictionary of gradients.

# %%
each = [
    ColdFD.fit(model, site, [plus], [minus], template=template, scope=everywhere)
    for plus, minus in zip(positive, negative, strict=True)
]

# %%
# solution
shares = torch.stack(
    [derivative(dict(zip(one.names, one.gradients, strict=True))) / len(each) for one in each]
)

# %%
assert shares.shape == (len(each), *exact.shape)
assert distance(shares.sum(dim=0), exact) < 1e-4
total = (exact * exact).sum(dim=-1)
by_example = ((shares * exact).sum(dim=-1) / total)[:, last_prompt_token]
assert abs(float(by_example.sum()) - 1) < 1e-3
pd.DataFrame(
    {
        "asked": [example.user for example in positive],
        "share of the push on the last prompt token": by_example.tolist(),
    }
)

# %% [markdown]
# ## Exercise 3: guess the rounding
#
# The left side of the V can be foretold from a few numbers. A float32 keeps a number to about
# 2⁻²⁴ of its size. So Z is off by about 2⁻²⁴ |Z|; the difference divides that by ε. Write
# `guess(eps)`, the *relative* error of the forward difference of DPO. `Z` and `exact` are there.

# %%
# solution


def guess(eps):
    return float(2**-24 * Z.norm() / (eps * exact.norm()))


# %%
compared = pd.DataFrame(
    {"guessed": [guess(eps) for eps in EPS[:9]], "measured": errors["DPO, forward"].iloc[:9]}
)
rounded = compared.loc[1e-5:1e-4]
assert (rounded["measured"] / rounded["guessed"]).between(1, 100).all(), "the order of magnitude"
compared

# %% [markdown]
# It is a lower bound: θ and everything on the way to Z are rounded as well. Where the step is so
# small that no parameter changes any more, the difference is 0 and its error 1.
#
# ## Where to go on
#
# * `steerlens fit cold-kernel` and `steerlens fit cold-fd` do this on the command line.
# * Other losses: `loss="sft"`, `"negative_sft"`, and `"options"`, which wants probabilities of
#   tokens.
# * `docs/methods/cold.md`: where the authors' code differs, and `compat="released"`.
