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
# # Directions, and how each can fool you
#
# Most steering methods push along a **direction**: one vector that is said to stand for a behaviour. It
# comes from two sets of texts, with the behaviour and without. This unit finds directions in three ways,
# measures how well they tell the two sets apart, and then shows that this measure is very easy to pass.
#
# **Goals.** After this unit you can
#
# - find a direction by means, by principal components and by a recursive feature machine (RFM);
# - measure it by AUROC, on texts that it was not fitted on, with partners kept together;
# - say what each of the three takes up beside the behaviour, and show it where the answer is known;
# - catch a direction that stands for the *words* of an instruction and not for what it asks.
#
# **Before.** Unit 1. Linear algebra: projection, eigenvectors. Unit 2 helps.
#
# **Time.** 130 minutes, 75 of them for nine exercises.

# %%
import os
import re

import pandas as pd
import torch
from checks.display import quiet

import steerlens
from steerlens import CAA, Conversation, Sampling, at, benchmark_set, fit_direction, scope
from steerlens.analysis import Coherence, Setting, judge_of

quiet()
SEED = 0
model = steerlens.load(os.environ.get("STEERLENS_MODEL", "demo"))
# A chat template says how a conversation is written down. Models without one get a plain one.
model.tokenizer.chat_template = model.tokenizer.chat_template or steerlens.PLAIN
n_layers, d_model = model.cfg.n_layers, model.cfg.d_model
layer = n_layers // 2

# %% [markdown]
# ## 1. Two sets of activations
#
# The behaviour: writing in lowercase. Sixty requests, each once **without** an instruction (label 0) and
# once **with** it (label 1). We read the activation of the last token of the prompt, after which the
# answer begins. Row 2i and row 2i + 1 are partners: the same request, without and with.

# %%
attribute = benchmark_set.read("lowercase")
INSTRUCTION = attribute.wordings[0]
requests = list(dict.fromkeys(pair.plain.user for pair in attribute.pairs("train")))[:60]


def activations(requests, with_it, without=None):
    """Rows of activations, partners together, and their labels."""
    sides = [
        steerlens.capture(
            model, [Conversation(r, system) for r in requests], layer, scope=scope.last
        )
        for system in (without, with_it)
    ]
    x = torch.stack([side.at(layer) for side in sides], dim=1).flatten(0, 1)
    return x, torch.tensor([0.0, 1.0]).repeat(len(requests))


x, y = activations(requests, INSTRUCTION)
print(f"{INSTRUCTION!r}: {list(x.shape)} activations, labels {y[:6].tolist()} ...")

# %% [markdown]
# ## 2. The difference of means
#
# The simplest direction: from the middle of one set to the middle of the other. CAA steers with it.

# %% exercise [markdown] name="mean_difference" difficulty=1 importance=3 minutes=5
# ### From one middle to the other
#
# Write `mean_difference(x, y)`: the mean of the rows with label 1 less the mean of the rows with label 0,
# `[d_model]`. There may be more rows of one label than of the other.

# %% hint [markdown]
# `x[y == 1]` are the rows with label 1. Over which axis do you average, so that `d_model` numbers remain?

# %% hint [markdown]
# `.mean(dim=0)` averages over rows. The direction shall lead *to* the behaviour.


# %% stub
def mean_difference(x, y):
    """From label 0 to label 1, [d_model]."""
    ...


# %% wrong says="Wrong sign"
def mean_difference(x, y):
    return x[y == 0].mean(dim=0) - x[y == 1].mean(dim=0)


# %% wrong says="Wrong axis"
def mean_difference(x, y):
    return (x[y == 1].mean() - x[y == 0].mean()).expand(x.shape[1])


# %% wrong says="sums, not means"
def mean_difference(x, y):
    return x[y == 1].sum(dim=0) - x[y == 0].sum(dim=0)


# %% wrong says="every second row"
def mean_difference(x, y):
    return x[1::2].mean(dim=0) - x[0::2].mean(dim=0)


# %% solution
def mean_difference(x, y):
    """From label 0 to label 1, [d_model]."""
    return x[y == 1].mean(dim=0) - x[y == 0].mean(dim=0)


# %% exercise [markdown] name="pointing" difficulty=1 importance=2 minutes=5
# ### Length 1, and the right way round
#
# Some methods find a line and not a direction: v and -v are the same to them. Write `pointing(v, x, y)`:
# `v` at length 1, with its sign such that rows with label 1 lie further along it **on average** than rows
# with label 0.

# %% hint [markdown]
# `x @ v` is how far each row lies along v. Compare the two averages of it.

# %% hint [markdown]
# Divide by `v.norm()`. If the average of label 1 is below that of label 0, return `-v`.


# %% stub
def pointing(v, x, y):
    """v at length 1, toward label 1."""
    ...


# %% wrong says="sign is as it was"
def pointing(v, x, y):
    return v / v.norm()


# %% wrong says="length is as it was"
def pointing(v, x, y):
    along = x @ v
    return v if along[y == 1].mean() >= along[y == 0].mean() else -v


# %% wrong says="wrong sign everywhere"
def pointing(v, x, y):
    along = x @ v
    v = v / v.norm()
    return -v if along[y == 1].mean() >= along[y == 0].mean() else v


# %% wrong says="wrote into the tensor"
def pointing(v, x, y):
    v /= v.norm()
    along = x @ v
    return v if along[y == 1].mean() >= along[y == 0].mean() else -v


# %% solution
def pointing(v, x, y):
    """v at length 1, toward label 1."""
    along = x @ v
    sign = 1 if along[y == 1].mean() >= along[y == 0].mean() else -1
    return sign * v / v.norm()


# %% [markdown]
# ## 3. How well does it tell them apart?
#
# Project every row on v. Then take one row of each label at random: how often does the one with label 1
# lie further along? This share is the **AUROC**. 1 is always, 0.5 is what a coin does, and it needs no
# threshold.

# %% exercise [markdown] name="auroc" difficulty=2 importance=3 minutes=10
# ### AUROC
#
# Write `auroc(scores, y)`: over all pairs of one row with label 1 and one with label 0, the share in which
# the former has the higher score. A tie counts one half. Return a number.

# %% hint [markdown]
# All differences at once: `scores[y == 1][:, None] - scores[y == 0][None, :]` is a table, one row for each
# with label 1, one column for each with label 0.

# %% hint [markdown]
# `(table > 0).float().mean()` is the share above. Add half of the share that is exactly 0.


# %% stub
def auroc(scores, y):
    """The share of pairs in which label 1 scores higher; a tie is one half."""
    ...


# %% wrong says="tie counts one half"
def auroc(scores, y):
    table = scores[y == 1][:, None] - scores[y == 0][None, :]
    return float((table > 0).float().mean())


# %% wrong says="Wrong way round"
def auroc(scores, y):
    table = scores[y == 0][:, None] - scores[y == 1][None, :]
    return float((table > 0).float().mean() + 0.5 * (table == 0).float().mean())


# %% wrong says="needs no threshold"
def auroc(scores, y):
    return float(((scores > 0).float() == y).float().mean())


# %% wrong says="neighbours alone"
def auroc(scores, y):
    table = scores[y == 1] - scores[y == 0]
    return float((table > 0).float().mean() + 0.5 * (table == 0).float().mean())


# %% wrong says="one number"
def auroc(scores, y):
    table = scores[y == 1][:, None] - scores[y == 0][None, :]
    return (table > 0).float().mean(dim=1) + 0.5 * (table == 0).float().mean(dim=1)


# %% solution
def auroc(scores, y):
    """The share of pairs in which label 1 scores higher; a tie is one half."""
    table = scores[y == 1][:, None] - scores[y == 0][None, :]
    return float((table > 0).float().mean() + 0.5 * (table == 0).float().mean())


# %% [markdown]
# On which rows? A direction that was fitted on some rows tells *these* apart better than others. So some
# are **held out**.

# %% exercise [markdown] name="split" difficulty=2 importance=3 minutes=10
# ### Hold out the last pairs
#
# Rows 2i and 2i + 1 belong to one request. If one of them is fitted on and its partner held out, the
# direction has seen the request already. Write `split(n_pairs, n_held_out)`: two lists of row numbers,
# `(fitted, held_out)`. The last `n_held_out` **pairs** are held out, all others are fitted on.

# %% hint [markdown]
# How many rows are there, and at which row do the held-out ones begin?

# %% hint [markdown]
# `list(range(start, end))` is a list of row numbers. The held-out rows begin at `2 * (n_pairs - n_held_out)`.


# %% stub
def split(n_pairs, n_held_out):
    """The row numbers to fit on, and those held out."""
    ...


# %% wrong says="held-out pairs are among those"
def split(n_pairs, n_held_out):
    border = 2 * (n_pairs - n_held_out)
    return list(range(2 * n_pairs)), list(range(border, 2 * n_pairs))


# %% wrong says="partners are torn apart"
def split(n_pairs, n_held_out):
    border = 2 * n_pairs - n_held_out
    return list(range(border)), list(range(border, 2 * n_pairs))


# %% wrong says="numbers of pairs"
def split(n_pairs, n_held_out):
    border = n_pairs - n_held_out
    return list(range(border)), list(range(border, n_pairs))


# %% wrong says="two lists"
def split(n_pairs, n_held_out):
    border = 2 * (n_pairs - n_held_out)
    return range(border), range(border, 2 * n_pairs)


# %% wrong says="swapped"
def split(n_pairs, n_held_out):
    border = 2 * (n_pairs - n_held_out)
    return list(range(border, 2 * n_pairs)), list(range(border))


# %% solution
def split(n_pairs, n_held_out):
    """The row numbers to fit on, and those held out."""
    border = 2 * (n_pairs - n_held_out)
    return list(range(border)), list(range(border, 2 * n_pairs))


# %% [markdown]
# Does it matter? Give the rows **labels at random**, so that there is nothing to find, and fit the
# direction that separates them best (least squares).

# %%
fitted, held_out = split(len(requests), 20)


def least_squares(x, y):
    signs = (2 * y - 1)[:, None]
    return torch.linalg.lstsq(x - x.mean(dim=0), signs, driver="gelsd").solution[:, 0]


def scored(v, x=x, y=y):
    return {
        name: auroc(x[rows] @ v, y[rows])
        for name, rows in (("fitted", fitted), ("held out", held_out))
    }


nonsense = (torch.rand(len(y), generator=torch.Generator().manual_seed(SEED)) > 0.5).float()
pd.DataFrame(
    {
        "real labels, means": scored(mean_difference(x[fitted], y[fitted])),
        "random labels, means": scored(mean_difference(x[fitted], nonsense[fitted]), y=nonsense),
        "random labels, least squares": scored(
            least_squares(x[fitted], nonsense[fitted]), y=nonsense
        ),
    }
).T

# %% [markdown]
# In hundreds of dimensions eighty rows can be told apart **whatever their labels**. A score on the fitted
# rows says nothing. And the score of the real labels on held-out rows? It looks splendid. Keep that in
# mind until section 6.
#
# ## 4. Principal components
#
# The differences of partners, row 2i + 1 less row 2i, form a cloud. In which direction is it longest? That
# is the first right singular vector of the matrix of differences. If all differences point about the same
# way, it is about their mean.

# %% exercise [markdown] name="first_principal" difficulty=2 importance=2 minutes=10
# ### The longest direction
#
# Write `first_principal(differences)` for `[pairs, d_model]`: the unit vector v that makes the sum of
# squares of `differences @ v` largest, `[d_model]`. Take the differences **as they are**: do not subtract
# their mean. The sign is left open.

# %% hint [markdown]
# `torch.linalg.svd(a, full_matrices=False)` gives three things, U, S, Vh. The rows of `Vh` are the right
# singular vectors, the largest first.

# %% hint [markdown]
# If you subtract the mean first, you take out the very difference that you look for. This is what
# scikit-learn's PCA does, and the most common mistake in published code.


# %% stub
def first_principal(differences):
    """The unit vector along which the differences are longest, [d_model]."""
    ...


# %% wrong says="subtracted the mean"
def first_principal(differences):
    centred = differences - differences.mean(dim=0)
    return torch.linalg.svd(centred, full_matrices=False)[2][0]


# %% wrong says="a row of Vh"
def first_principal(differences):
    return torch.linalg.svd(differences, full_matrices=False)[2][:, 0]


# %% wrong says="belongs to the pairs"
def first_principal(differences):
    return torch.linalg.svd(differences, full_matrices=False)[0][:, 0]


# %% wrong says="shortest"
def first_principal(differences):
    return torch.linalg.svd(differences, full_matrices=False)[2][-1]


# %% wrong says="This is their mean"
def first_principal(differences):
    mean = differences.mean(dim=0)
    return mean / mean.norm()


# %% solution
def first_principal(differences):
    """The unit vector along which the differences are longest, [d_model]."""
    return torch.linalg.svd(differences, full_matrices=False)[2][0]


# %% [markdown]
# ### Where the answer is known
#
# Real activations do not tell which direction *is* the behaviour. So we plant one. The concept is one
# direction; beside it is a strong **nuisance**, eight directions along which rows vary a lot, and of which
# one by chance goes a little with the label.


# %%
def planted(n=300, d=256, seed=SEED):
    generator = torch.Generator().manual_seed(seed)
    basis = torch.linalg.qr(torch.randn(d, 9, generator=generator)).Q.T
    concept, nuisance = basis[0], basis[1:]
    y = (torch.arange(n) % 2).float()
    loads = 6 * torch.randn(n, 8, generator=generator)
    loads[:, 0] += 2.5 * (2 * y - 1)  # goes with the label, but says little
    noise = 0.7 * torch.randn(n, d, generator=generator)
    return noise + loads @ nuisance + 3.0 * (2 * y[:, None] - 1) * concept, y, concept


px, py, concept = planted()
pv = {
    "means": pointing(mean_difference(px, py), px, py),
    "principal": pointing(first_principal(px[1::2] - px[0::2]), px, py),
}
pd.DataFrame(
    {
        name: {"AUROC": auroc(px @ v, py), "cosine with the concept": float(v @ concept)}
        for name, v in pv.items()
    }
).T

# %% [markdown]
# * **means** takes up whatever differs on average. The nuisance does, so it is in it.
# * **principal** looks where the pairs differ *most*, and that is the nuisance. Here it has mostly
#   missed the concept.
# * **AUROC** cannot tell: held-out rows have the same nuisance.
#
# ## 5. A recursive feature machine
#
# A third way asks another question: which direction do *predictions* depend on? Fit a kernel machine f that
# predicts the label, take its gradients at all rows, and see where they point. Then measure distances mostly
# along these directions (a matrix M says how), fit again, and so on.

# %% exercise [markdown] name="distances" difficulty=3 importance=1 minutes=10
# ### Distances under a metric
#
# Write `distances(a, b, M)`: for each row of `a`, `[n, d]`, and each row of `b`, `[m, d]`, the distance
#
# $$D_{ij} = \sqrt{(a_i - b_j)^\top M (a_i - b_j)},$$
#
# `[n, m]`. If M is the identity, this is the usual distance.

# %% hint [markdown]
# All differences at once: `a[:, None] - b[None]` is `[n, m, d]`. Multiply with M, then again with the
# difference, and sum over d.

# %% hint [markdown]
# `((delta @ M) * delta).sum(dim=-1)` is the square of the distance. Rounding can bring it just below 0:
# `.clamp(min=0).sqrt()`.


# %% stub
def distances(a, b, M):
    """The distance of each row of a from each row of b, [n, m]."""
    ...


# %% wrong says="squares of distances"
def distances(a, b, M):
    delta = a[:, None] - b[None]
    return ((delta @ M) * delta).sum(dim=-1)


# %% wrong says="without M"
def distances(a, b, M):
    return torch.cdist(a, b)


# %% wrong says="diagonal of M"
def distances(a, b, M):
    delta = a[:, None] - b[None]
    return ((delta * M.diagonal()) * delta).sum(dim=-1).sqrt()


# %% wrong says="It is transposed"
def distances(a, b, M):
    delta = b[:, None] - a[None]
    return ((delta @ M) * delta).sum(dim=-1).clamp(min=0).sqrt()


# %% wrong says="often a wrong axis"
def distances(a, b, M):
    delta = a - b
    return ((delta @ M) * delta).sum(dim=-1).sqrt()


# %% solution
def distances(a, b, M):
    """The distance of each row of a from each row of b, [n, m]."""
    delta = a[:, None] - b[None]
    return ((delta @ M) * delta).sum(dim=-1).clamp(min=0).sqrt()


# %% exercise [markdown] name="outer_product" difficulty=2 importance=2 minutes=10
# ### Where the gradients point
#
# Write `outer_product(gradients)`: the **average gradient outer product** of gradients `[n, d]`,
#
# $$M = \frac{1}{n} \sum_j g_j\, g_j^\top,$$
#
# `[d, d]`. Its top eigenvector is the direction along which f changes most.

# %% hint [markdown]
# A sum of outer products of rows is one matrix product. Which of `G @ G.T` and `G.T @ G` is `[d, d]`?

# %% hint [markdown]
# Divide by the number of rows, `len(gradients)`.


# %% stub
def outer_product(gradients):
    """The average outer product of the rows, [d, d]."""
    ...


# %% wrong says="Wrong axis"
def outer_product(gradients):
    return gradients @ gradients.T / len(gradients)


# %% wrong says="not the average"
def outer_product(gradients):
    return gradients.T @ gradients


# %% wrong says="averaged the gradients first"
def outer_product(gradients):
    mean = gradients.mean(dim=0)
    return torch.outer(mean, mean)


# %% wrong says="diagonal alone"
def outer_product(gradients):
    return torch.diag(gradients.square().mean(dim=0))


# %% solution
def outer_product(gradients):
    """The average outer product of the rows, [d, d]."""
    return gradients.T @ gradients / len(gradients)


# %% [markdown]
# With these two the machine is short. The kernel is $K = e^{-D/L}$, the weights are
# $\alpha = (K + \lambda I)^{-1} y$, and the gradient of f at row j is
# $\frac{1}{L} \sum_i \alpha_i \frac{K_{ij}}{D_{ij}} M (a_i - a_j)$.


# %%
def machine(a, y, L=10.0, ridge=1e-3, rounds=4):
    """The top eigenvector of M after some rounds."""
    M = torch.eye(a.shape[1])
    for _ in range(rounds):
        D = distances(a, a, M)
        K = (-D / L).exp()
        alpha = torch.linalg.solve(K + ridge * torch.eye(len(a)), y)
        weights = alpha[:, None] * K / D.clamp(min=1e-6) * (1 - torch.eye(len(a)))
        gradients = (weights.T @ a - weights.sum(dim=0)[:, None] * a) @ M / L
        M = outer_product(gradients)
        M = M / M.abs().max()
    return torch.linalg.eigh(M)[1][:, -1]


pv["RFM"] = pointing(machine(px, 2 * py - 1), px, py)
table = {
    name: {"AUROC": auroc(px @ v, py), "cosine with the concept": float(v @ concept)}
    for name, v in pv.items()
}
assert table["RFM"]["cosine with the concept"] > table["means"]["cosine with the concept"]
pd.DataFrame(table).T

# %% [markdown]
# It is slower to be fooled, because a prediction need not depend on what merely differs. The library has
# all of these, and two more that look for what separates. `rfm` there tries several settings and keeps
# what is best on held-out rows.

# %%
KINDS = ("means", "pca", "ridge", "logistic", "rfm", "random")
found = {kind: fit_direction(kind, px, py, seed=SEED) for kind in KINDS}
pd.DataFrame(
    {
        kind: {
            "held-out AUROC": each.auroc,
            "cosine with the concept": float(each.direction @ concept),
        }
        for kind, each in found.items()
    }
).T

# %% [markdown]
# ## 6. Words
#
# Back to real activations, where the score was splendid. But what differs between our two sets? Those with
# label 1 have **the same words in them**, all of them. Here is a detector that knows nothing of language.

# %% exercise [markdown] name="word_scores" difficulty=1 importance=3 minutes=10
# ### A detector of words
#
# Write `word_scores(texts, word)`: for each text, how many times `word` occurs in it as a whole word,
# whatever its case. Return a float tensor, `[texts]`. Words are what `re.findall(r"\w+", text)` finds.

# %% hint [markdown]
# Bring both the text and the word to lowercase (`.lower()`), and count in the list of words.

# %% hint [markdown]
# A list has `.count(word)`. `torch.tensor([...], dtype=torch.float32)`, or begin with `float(...)`.


# %% stub
def word_scores(texts, word):
    """How many times the word occurs in each text, [texts]."""
    ...


# %% wrong says="inside of other words"
def word_scores(texts, word):
    return torch.tensor([float(text.lower().count(word.lower())) for text in texts])


# %% wrong says="whatever its case"
def word_scores(texts, word):
    return torch.tensor([float(re.findall(r"\w+", text).count(word)) for text in texts])


# %% wrong says="how *many* times"
def word_scores(texts, word):
    return torch.tensor([float(word.lower() in re.findall(r"\w+", text.lower())) for text in texts])


# %% wrong says="should be a tensor"
def word_scores(texts, word):
    return [float(re.findall(r"\w+", text.lower()).count(word.lower())) for text in texts]


# %% solution
def word_scores(texts, word):
    """How many times the word occurs in each text, [texts]."""
    words = [re.findall(r"\w+", text.lower()) for text in texts]
    return torch.tensor([float(of_one.count(word.lower())) for of_one in words])


# %%
WORD = re.findall(r"\w+", INSTRUCTION.lower())[-1]
texts = [text for r in requests for text in (r, f"{INSTRUCTION} {r}")]
v = pointing(mean_difference(x[fitted], y[fitted]), x[fitted], y[fitted])
print(f"means, held out:           AUROC {auroc(x[held_out] @ v, y[held_out]):.2f}")
held_out_texts = [texts[row] for row in held_out]
print(f"counting {WORD!r}: AUROC {auroc(word_scores(held_out_texts, WORD), y[held_out]):.2f}")

# %% [markdown]
# A perfect score, for counting a word. So the score of our direction does not show that it stands for
# lowercase *writing*. To find out, compare with a **control**: prompts that have the same words in them and
# ask for something else.

# %% exercise [markdown] name="control" difficulty=2 importance=3 minutes=5
# ### Choose a control
#
# Put into `control` an instruction that contains **every word** of `INSTRUCTION`, and asks for the
# **opposite**. It should be hardly longer.

# %% hint [markdown]
# One word more turns an instruction into its opposite.

# %% hint [markdown]
# "Never ...", "Do not ..."

# %% stub
control = ...

# %% wrong says="same instruction"
control = INSTRUCTION

# %% wrong says="lacks the word"
control = "Write in uppercase."

# %% wrong says="asks for the same"
control = INSTRUCTION.rstrip(".") + ", please."

# %% wrong says="much longer"
control = (
    "You may do whatever you like, dear model, but you must not, under any condition, "
    + INSTRUCTION
)

# %% solution
control = "Never " + INSTRUCTION[0].lower() + INSTRUCTION[1:]

# %% [markdown]
# And the other way round: prompts that ask for the *same* in other words. A direction of the behaviour
# should put these with label 1, and the control with label 0.

# %%
others = [requests[row // 2] for row in held_out[::2]]
same_meaning = next(w for w in attribute.wordings if WORD not in w.lower())
compared = {
    f"{INSTRUCTION} | nothing": (INSTRUCTION, None),
    f"{same_meaning} | nothing": (same_meaning, None),
    f"{control} | nothing": (control, None),
    f"{INSTRUCTION} | {control}": (INSTRUCTION, control),
    f"{same_meaning} | {control}": (same_meaning, control),
}
rows = {}
for name, (one, other) in compared.items():
    cx, cy = activations(others, one, other)
    rows[name] = {"AUROC of v": auroc(cx @ v, cy)}
pd.DataFrame(rows).T

# %% [markdown]
# Read it line by line. Is the control, which asks for the opposite, told apart from nothing just as well?
# Then v says "there is an instruction about letters", or just "there is an instruction". Only the last two
# lines ask what one wants to know, and a value near 0.5 there says: v does not know.
#
# ## 7. The only real test
#
# A direction for steering is good if steering with it does what it should. The same push, a quarter of the
# length of the activations, along each direction. *attribute* is how far the text has the behaviour
# (0 to 100), *coherence* how well it hangs together.

# %%
size = float(x.norm(dim=-1).median())
sampling = Sampling(max_new_tokens=30, seed=SEED)
setting = Setting(
    model,
    attribute.questions("validation")[:12],
    judge_of("lowercase"),
    Coherence(),
    sampling,
    batch_size=64,
)
scores = {
    "unsteered": setting.score().row(),
    "prompt": setting.score(instruction=INSTRUCTION).row(),
}
for kind in ("means", "ridge", "rfm", "random"):
    push = CAA(0.25 * size * fit_direction(kind, x, y, seed=SEED).direction)
    scores[kind] = setting.score(at(layer, push).only(scope.response)).row()
pd.DataFrame(scores).T[["attribute", "attribute_low", "attribute_high", "coherence"]]

# %% [markdown]
# Twelve texts each: mind the intervals. Directions with the same AUROC do not steer alike, and what a
# direction is *found* with need not be what the model *writes* with.

# %% [markdown]
# ## What could go wrong
#
# * **Scored where it was fitted.** In many dimensions everything can be told apart. Hold out, and keep
#   partners together.
# * **Words instead of meaning.** If one word tells your sets apart, so will any method. Count words first;
#   make controls.
# * **Length and position.** Prompts with the instruction are longer. On a model with learned positions the
#   last token sits elsewhere, and *that* is in the difference, too. A control of the same length helps.
# * **Centred differences.** `sklearn.decomposition.PCA` on differences removes their mean.
# * **The sign of a principal component** is arbitrary: fix it by the labels.
# * **One very long row** (the first token, unit 1) is most of any average. The library leaves such rows
#   out, and says how many.
# * **A choice made on held-out rows** (a penalty, a layer, a kind) makes their score flatter. Then a third
#   set is needed.

# %% [markdown]
# ### On another model
#
# `STEERLENS_MODEL=smollm2` runs this unit on SmolLM2-135M. It understands "never" better than the
# demonstration model, so look at the last two lines of section 6. Section 7 takes minutes there.

# %% [markdown]
# ## An open experiment
#
# Repair the direction. Fit it on *controlled* sets: label 1 with several wordings of the instruction, label 0
# with a control for each. Measure it on wordings that you did not fit on, and steer with it. Does the better
# direction steer better at the same coherence? Do it at two layers. Write down beforehand which result
# would convince you that the direction is *not* the behaviour.

# %% [markdown]
# ## References
#
# - Rimsky and others, *Steering Llama 2 via Contrastive Activation Addition*, 2023,
#   [arXiv 2312.06681](https://arxiv.org/abs/2312.06681): means.
# - Zou and others, *Representation Engineering*, 2023,
#   [arXiv 2310.01405](https://arxiv.org/abs/2310.01405): principal components of differences.
# - Beaglehole and others, 2025, [arXiv 2502.03708](https://arxiv.org/abs/2502.03708): RFM directions.
# - Hewitt and Liang, *Designing and Interpreting Probes with Control Tasks*, 2019,
#   [arXiv 1909.03368](https://arxiv.org/abs/1909.03368): random labels as a control.
# - In the library: `steerlens/directions/`.
