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
# # A direction, and how strongly for each token
#
# Linear steering adds the same amount of one direction to every token. **CLAS** (Contextual Linear
# Activation Steering; Hsu and others, 2026, arXiv 2604.24693) keeps the direction and lets each token
# say how much of it it gets:
#
# > α = c · h + b
# >
# > h' = h + α v
#
# *v* is found beforehand, *c* and *b* are learned from ten examples. In this notebook you
# 1. find directions in several ways, and see **how each can fool you**,
# 2. build CLAS by hand, and compare it with the library's,
# 3. see its strengths over a text, beside those of the prompt,
# 4. see what it writes, and what it does where it was not trained.
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
from steerlens import (
    CLAS,
    Conversation,
    Schedule,
    Site,
    benchmark_set,
    contrast_directions,
    fit_direction,
    scope,
)
from steerlens.analysis import (
    Coherence,
    Entry,
    Setting,
    coefficients,
    coloured_text,
    figures,
    judge_of,
    side_by_side,
    strengths,
)
from steerlens.baselines import las
from steerlens.generation import Sampling

warnings.filterwarnings("ignore", message="IProgress not found")  # a progress bar we do without

SEED = 0
pd.set_option("display.max_colwidth", None)
pd.set_option("display.precision", 3)

model = steerlens.load(os.environ.get("STEERLENS_MODEL", "demo"))
# A chat template says how a conversation is written down. Models without one get a plain one.
model.tokenizer.chat_template = model.tokenizer.chat_template or steerlens.PLAIN
n_layers, d_model = model.cfg.n_layers, model.cfg.d_model
layer = n_layers // 2
print(f"{n_layers} layers, {d_model} numbers in an activation")

# %% [markdown]
# The behaviour: writing in lowercase. CLAS wants pairs of a **plain** prompt, that does not ask for it,
# and a completion that **shows** it. Ten to learn from and ten to choose by. (The benchmark set has a
# third list, "test". It is for final results such as docs/results, so we do not look at it here.)

# %%
attribute = benchmark_set.read("lowercase")
INSTRUCTION = attribute.wordings[0]
pairs = attribute.pairs("train")
train, validation = pairs[:10], pairs[10:20]
print("the instruction:", INSTRUCTION)
print("a plain prompt: ", train[0].plain.user)
print("its completion: ", train[0].response[:100])

# %% [markdown]
# ## 1. A direction
#
# Forty more requests, each with and without the instruction. We read the activation of the **last
# prompt token**, after which the answer begins: label 1 with the instruction, 0 without.

# %%
requests = [pair.plain.user for pair in pairs[20:60]]
with_it = [Conversation(user, INSTRUCTION) for user in requests]
without = [Conversation(user) for user in requests]

KINDS = ("means", "pca", "ridge", "logistic", "rfm", "random")
fitted = {
    kind: contrast_directions(model, kind, with_it, without, range(n_layers), seed=SEED)
    for kind in KINDS
}
rows = [
    {"kind": kind, "layer": site.layer, "held-out AUROC": at_site.auroc}
    for kind, sites in fitted.items()
    for site, at_site in sites.items()
]
pd.DataFrame(rows).pivot(index="kind", columns="layer", values="held-out AUROC").loc[list(KINDS)]

# %% [markdown]
# An AUROC of 1 tells the two kinds of prompts apart without a mistake, on requests that were held
# out. Which kinds manage? Does a **random** direction, at some layer? (Where the instruction moves the
# last prompt token far enough, it hardly matters where one looks.) Are those that manage the same
# direction?

# %%
unit_vectors = torch.stack([fitted[kind][Site(layer)].direction for kind in KINDS])
cosines = (unit_vectors @ unit_vectors.T).numpy()
pd.DataFrame(cosines, index=list(KINDS), columns=list(KINDS)).round(2)

# %% [markdown]
# A 1 off the diagonal is the same direction found twice. But telling two sets of prompts apart is easy
# in hundreds of dimensions, and quite different directions do it. Which of them *is* the behaviour?
#
# ### How each can fool you
#
# A test where we know the answer. The concept is one direction; beside it is a strong **nuisance**,
# eight directions along which rows vary a lot, and which by chance goes a little with the label.


# %%
def planted(n=300, d=256, seed=0):
    generator = torch.Generator().manual_seed(seed)
    basis = torch.linalg.qr(torch.randn(d, 9, generator=generator)).Q.T
    concept, nuisance = basis[0], basis[1:]
    y = (torch.arange(n) % 2).float()
    loads = 6 * torch.randn(n, 8, generator=generator)
    loads[:, 0] += 2.5 * (2 * y - 1)  # goes with the label, but says little
    x = torch.randn(n, d, generator=generator) * 0.7 + loads @ nuisance
    return x + 3.0 * (2 * y[:, None] - 1) * concept, y, concept


x, y, concept = planted(seed=SEED)
rows = []
for kind in KINDS:
    v = fit_direction(kind, x, y)
    rows.append({"kind": kind, "AUROC": v.auroc, "cosine": float(v.direction @ concept)})
planted_table = pd.DataFrame(rows).set_index("kind")
planted_table

# %%
assert planted_table.loc["rfm", "cosine"] > planted_table.loc["means", "cosine"]

# %% [markdown]
# * **means** takes up whatever differs on average, so the nuisance is in it; **pca** looks where the
#   pairs differ *most*, and that is the nuisance.
# * **ridge** and **logistic** look for what *separates*; with few rows, they find what separates these
#   rows.
# * **rfm** asks which direction a kernel machine's predictions depend on. It is slower to be fooled.
# * **AUROC** cannot tell: held-out rows have the same nuisance. Neither can it tell the behaviour from
#   the *wording* of the prompts, since every label-1 prompt has the same words in it.
#
# The only real test of a steering direction is to steer with it.
#
# ## 2. CLAS by hand
#
# At the output of every block: c and b begin at zero, so at step 0 nothing happens.

# %%
v = {site.layer: at_site.direction for site, at_site in fitted["rfm"].items()}
for parameter in model.parameters():
    parameter.requires_grad_(False)


def new_parameters():
    c = torch.zeros(n_layers, d_model, requires_grad=True)
    b = torch.zeros(n_layers, requires_grad=True)
    return c, b


def clas_hooks(c, b):
    def hook_of(i):
        def steer(h, hook):
            alpha = h @ c[i] + b[i]
            return h + alpha[..., None] * v[i]

        return f"blocks.{i}.hook_resid_post", steer

    return [hook_of(i) for i in range(n_layers)]


# %% [markdown]
# The loss: how surprised is the steered model by the completions? Of the prompt's tokens none counts.


# %%
def surprise(pair, c, b):
    """Summed -log p of the completion's tokens, and how many there are."""
    row, _ = steerlens.encode_pair(model, pair)
    tokens = torch.tensor([row.ids])
    logits = model.run_with_hooks(tokens, fwd_hooks=clas_hooks(c, b))[0]
    wanted = tokens[0, row.response :]
    losses = torch.nn.functional.cross_entropy(
        logits[row.response - 1 : -1], wanted, reduction="sum"
    )
    return losses, len(wanted)


def loss_of(some, c, b):
    sums, counts = zip(*(surprise(pair, c, b) for pair in some), strict=True)
    return sum(sums) / sum(counts)


# %% [markdown]
# Eight steps on all ten examples. c and b have different rates: b adds to a *strength*, whose natural
# size is that of the activations, so its rate follows their length.

# %%
lengths = steerlens.capture(
    model,
    [steerlens.encode_pair(model, pair)[0] for pair in [*train, *validation]],
    range(n_layers),
    scope=scope.everywhere.without_bos,
)
rates = [0.01 * float(lengths.at(i).norm(dim=-1).median()) for i in range(n_layers)]

c, b = new_parameters()
biases = [b[i : i + 1].detach().clone().requires_grad_() for i in range(n_layers)]
groups = [{"params": [c], "lr": 3e-3}]
groups += [{"params": [bias], "lr": rate} for bias, rate in zip(biases, rates, strict=True)]
optimiser = torch.optim.AdamW(groups, weight_decay=0.0)

best, curve = None, []
for step in range(9):
    with torch.no_grad():
        curve.append(float(loss_of(validation, c, torch.cat(biases))))
        if curve[-1] == min(curve):
            best = c.detach().clone(), torch.cat(biases).detach().clone()
    if step < 8:
        optimiser.zero_grad()
        loss_of(train, c, torch.cat(biases)).backward()
        torch.nn.utils.clip_grad_norm_([c, *biases], 1.0)
        optimiser.step()
print("validation loss by step:", [round(loss, 3) for loss in curve])
assert min(curve) < curve[0]

# %% [markdown]
# The library does the same steps on batches, and runs what lies below the lowest steered block once.

# %%
directions = {site: at_site.direction for site, at_site in fitted["rfm"].items()}
fit = CLAS.fit(model, train, directions=directions, validation=validation)
for i in range(n_layers):
    torch.testing.assert_close(fit.steers[Site(i)].c[0], best[0][i], rtol=1e-2, atol=1e-4)
    torch.testing.assert_close(fit.steers[Site(i)].b[0], best[1][i], rtol=1e-2, atol=1e-4)
fit.trained.table[["epoch", "loss", "validation_loss"]]

# %% [markdown]
# ## 3. Its strengths, over the text
#
# `strengths` measures what a steering adds at each of its sites, token by token. It does not ask the
# method, it looks at activations before and after. For CLAS, measured along v, that is α:

# %%
text = Conversation(validation[0].plain.user, None, validation[0].response)
table = strengths(model, [text], {"CLAS": fit.steering}, directions)
given = steerlens.capture(model, [text], layer, moment="before", steering=fit.steering).at(layer)
steer = fit.steers[Site(layer)]
np.testing.assert_allclose(
    table.loc[table["layer"] == layer, "along"], (given @ steer.c[0] + steer.b), atol=1e-3
)
figures.coefficient_heatmap(table, example=0, view="local", colour_quantile=0.98)

# %% [markdown]
# And the prompt's own? It does its work without any v, so we measure how far *its* push goes along v
# at the same tokens, beside what CLAS has done there, accumulated over the layers below.

# %%
methods = {"CLAS": fit.steering}
A_UNIT = "the length of v"
both = coefficients(model, validation[:6], range(n_layers), methods, directions)
coloured_text(model, validation[0], 0, both, methods, layer, A_UNIT)

# %%
along = both.pivot_table(
    index=["layer", "example", "token_index"], columns="method", values="along"
)
agreement = along.groupby("layer").corr().xs("prompt", level=1)["CLAS"]
agreement.rename("correlation of CLAS and the prompt, over tokens").to_frame().T

# %% [markdown]
# CLAS never saw the prompt's activations, only completions. Where the correlation is high it has found
# the tokens that the prompt works on by itself; where it is low it gets the same words in another way.
# (The signs need not agree either: v was read at the last prompt token, and what the completions ask
# for may lie on the other side of it.)
#
# ## 4. What it writes
#
# Beside the prompt, and the same direction at **one fixed strength**, the best of a grid. The grid is
# searched on a few training requests, as the paper does.

# %%
judge, coherence = judge_of("lowercase"), Coherence()


def setting(questions, n=1):
    return Setting(
        model,
        questions,
        judge,
        coherence,
        Sampling(max_new_tokens=40, seed=SEED),
        n,
        batch_size=64,
    )


def harmonic(scored):
    a, k = scored.attribute, scored.coherence
    return float(np.nan_to_num(2 * a * k / np.maximum(a + k, 1e-9)).mean())


length = float(torch.cat([lengths.at(i).norm(dim=-1) for i in range(n_layers)]).median())
searching = setting(requests[:10])
searched = las.search(
    lambda steering: harmonic(searching.score(steering)),
    las.fixed(directions),
    [share * length for share in (0.0, 0.02, 0.04, 0.08, 0.16)],
)
fixed = las.fixed(directions, searched.strength)
searched.table

# %%
measuring = setting(attribute.questions("validation")[:24], n=2)
scores = pd.DataFrame(
    {
        "unsteered": measuring.score().row(),
        "prompt": measuring.score(instruction=INSTRUCTION).row(),
        "one fixed strength": measuring.score(fixed).row(),
        "CLAS": measuring.score(fit.steering).row(),
    }
).T
scores[["attribute", "attribute_low", "attribute_high", "coherence", "coherence_low"]]

# %% [markdown]
# 48 completions each: mind the intervals. `docs/results/clas.md` has more methods and attributes.

# %%
texts = side_by_side(
    model,
    attribute.questions("validation")[:2],
    INSTRUCTION,
    [Entry("one fixed strength", fixed), Entry("CLAS", fit.steering)],
    max_new_tokens=40,
    temperature=0.8,
    seed=SEED,
)
HTML(texts.pivot(index="prompt", columns="method", values="text").to_html())

# %% [markdown]
# ### Where it was not trained
#
# α has no bounds. On a token unlike those of the training, c · h can be anything. The first token is
# such a one in many models: its activations are of another size. How strong is CLAS there, against the
# text?

# %%
first = table["token_index"] == 0
pd.DataFrame(
    {
        "first token": table[first].groupby("layer")["along"].mean(),
        "others, mean |α|": table[~first].groupby("layer")["along"].apply(lambda a: a.abs().mean()),
        "length of the first": [
            float(lengths_of[0])
            for lengths_of in (
                steerlens.capture(model, [text], i).at(i).norm(dim=-1) for i in range(n_layers)
            )
        ],
    }
)

# %% [markdown]
# Two options keep it in bounds: `CLAS.fit(..., limit=2.0)` clamps α, and
# `CLAS.fit(..., scope=scope.everywhere.without_bos)` leaves the first token alone.
#
# ---
# # Exercises
#
# Each has a task, a cell for your answer (the repository has a solution there; cover it first) and a
# cell that checks it.
#
# ## Exercise 1: three old methods in one
#
# CLAS has known methods inside it. Which c and b make it
#
# * `constant`: plain linear steering with strength 2, and
# * `ablated`: take away what lies along v, so that nothing of h' does?

# %%
one_v = directions[Site(layer)]

# %%
# solution
constant = CLAS(torch.zeros(1, d_model), torch.tensor([2.0]), one_v[None])
ablated = CLAS(-one_v[None], torch.zeros(1), one_v[None])

# %%
h = torch.randn(2, 5, d_model, generator=torch.Generator().manual_seed(SEED))
torch.testing.assert_close(constant(h), h + 2 * one_v)
assert float((ablated(h) @ one_v).abs().max()) < 1e-4
print("constant steering and directional ablation are CLAS")

# %% [markdown]
# ## Exercise 2: how many numbers are learned?
#
# Count the parameters that CLAS learns at every block, those of its `layerwise` and `single` kinds
# (one strength a block; one for all), and those of the variant that learns its directions too.

# %%
# solution
counts = {
    "contextual": n_layers * (d_model + 1),
    "layerwise": n_layers,
    "single": 1,
    "directions too": n_layers * (2 * d_model + 1),
}

# %%
options = {
    "contextual": {},
    "layerwise": {"kind": "layerwise"},
    "single": {"kind": "single"},
    "directions too": {"learn_directions": True},
}
for name, option in options.items():
    tried = CLAS.fit(
        model,
        train[:1],
        directions=directions,
        validation=validation[:1],
        schedule=Schedule.full_batch(steps=1),
        **option,
    )
    assert counts[name] == sum(value.numel() for value in tried.trained.parameters.values())
print(counts)

# %% [markdown]
# ## Exercise 3: does the direction matter?
#
# c and b are fitted to whatever direction they are given. Fit CLAS on **random** directions (they are in
# `fitted`) and compare the best validation losses. What does that say about the learned part?

# %%
# solution
random_directions = {site: at_site.direction for site, at_site in fitted["random"].items()}
by_chance = CLAS.fit(model, train, directions=random_directions, validation=validation)

# %%
losses = {
    name: min(row["validation_loss"] for row in tried.trained.rows)
    for name, tried in (("rfm", fit), ("random", by_chance))
}
assert torch.equal(by_chance.steers[Site(0)].v[0], random_directions[Site(0)])
print({**losses, "unsteered": fit.trained.rows[0]["validation_loss"]})

# %% [markdown]
# ## Where to go on
#
# * `steerlens fit direction` and `steerlens fit clas` do this on the command line.
# * What it is compared with: `ReFTr1`, `LoReFT`, `InstructionVector`, `LoRA` (README, Methods).
# * `steerlens.at(layer, CLAS.ablation(v))` removes a direction, at one layer or at many.
