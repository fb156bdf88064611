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
# # Whose coefficients look like the prompt's?
#
# Unit 4 measured what a prompt does to every token. Now steering methods get the same treatment. Does a
# method push the tokens that the prompt pushes? Where do its activations end up, near the prompted ones or
# elsewhere? And if it is near, does it also *do* what the prompt does? A number alone says nothing here, so
# half of this unit is about what to compare it with.
#
# **Goals.** After this unit you can
#
# - say whether a method's strengths follow the prompt's from token to token, and not only in the mean;
# - measure **faithfulness** by the relative RMSE, and tell a wrong strength from a wrong direction;
# - draw the two lines that the number needs: the same instruction in other words, and any instruction;
# - measure how many directions a prompt's push takes, on requests that the directions were not found on;
# - set the effect on predictions against the distance, and say why they are two things.
#
# **Before.** Unit 4. Unit 2: ActAdd and KL. Singular vectors (unit 3).
#
# **Time.** 125 minutes, 70 of them for eight exercises.

# %%
import os
from contextlib import nullcontext

import pandas as pd
import torch
from checks.display import flush_left, quiet

import steerlens
from steerlens import PSR, ActAdd, Schedule, Site, benchmark_set
from steerlens.analysis import (
    NEUTRAL,
    Entry,
    align,
    coefficients,
    coloured_text,
    effect_and_faithfulness,
    faithfulness,
    figures,
    prompt_deltas,
    prompt_effect_by_token,
    prompt_effect_recovered,
    rank_share,
    reworded,
    steering_deltas,
)

# %%
quiet()
SEED = 0
model = steerlens.load(os.environ.get("STEERLENS_MODEL", "demo"))
# A chat template says how a conversation is written down. Models without one get a plain one.
model.tokenizer.chat_template = model.tokenizer.chat_template or steerlens.PLAIN
n_layers, d_model = model.cfg.n_layers, model.cfg.d_model
layer = n_layers // 2
INSTRUCTION = "Be positive."
attribute = benchmark_set.read("positive")


def answered(split, n_requests):
    """Requests, each with two responses that the model wrote under the instruction."""
    requests = attribute.questions(split)[:n_requests]
    sampling = {"max_new_tokens": 30, "temperature": 0.8, "seed": SEED}
    return steerlens.prompted_pairs(model, requests, INSTRUCTION, n=2, **sampling)


train, pairs = answered("train", 24), answered("validation", 12)
print(len(train), "pairs to fit methods on,", len(pairs), "to measure on, with other requests")

# %% [markdown]
# ## 1. Three methods
#
# * **DiM** adds the mean push to every token of the response: one vector, one strength.
# * **ActAdd** (unit 2) adds a matrix at the front of the prompt. The response feels it through attention.
# * **PSR** has a gate: each token's strength is read off its own activation. Gate and vector are learned so
#   that the plain run becomes like the prompted one. Unit 7 builds it; here we take the library's.
#
# The gate was trained to look like the prompt; the other two were not. That is not unfair, as long as we
# measure on requests that none of them has seen.

# %%
from steerlens.methods.psr import difference_of_means

schedule = Schedule(epochs=6, batch_size=2, learning_rate=0.02, seed=SEED)
methods = {
    "DiM": difference_of_means(model, train, layer),
    "ActAdd": ActAdd.fit(model, (" wonderful", " terrible"), layer, c=4.0).steering,
    "PSR": PSR.fit(model, train, layer, schedule=schedule).steering,
}
table = coefficients(model, pairs, [layer, n_layers - 1], methods)
coloured_text(model, pairs[1], 1, table[table["layer"] == layer], methods, layer)

# %% [markdown]
# The colour is `along`: how far a token was moved along the prompt's mean push (unit 0, unit 4). *prompt* is
# what is to be imitated. Whose colours are like its colours? By eye that is hard to say. So make a number of
# it.

# %% exercise [markdown] name="follows" difficulty=2 importance=3 minutes=10
# ### From token to token
#
# Write `follows(prompt, method, example)`: the **correlation** of the method's strengths with the prompt's,
# both `[tokens]`, *within* examples. Before you correlate, subtract from each strength the mean of its own
# example (`example`, `[tokens]`: 0, 1, 2, ...): examples differ in how hard all of their tokens are pushed, and
# that is not what is asked. If what remains of the method is next to nothing (its norm below a thousandth
# of the method's norm), return 0: a constant follows nobody. Return a number.

# %% hint [markdown]
# First write `within(x)`, which subtracts from x the mean of each example, in a loop over
# `example.unique()`. The correlation of two centred tensors is their cosine.

# %% hint [markdown]
# `a, b = within(prompt), within(method)`, then `a @ b / (a.norm() * b.norm())`; before that, the case
# `b.norm() < 1e-3 * method.norm()`.


# %% stub
def follows(prompt, method, example):
    """The correlation of two strengths within examples; 0 for a method that does not vary."""
    ...


# %% wrong says="between examples"
def follows(prompt, method, example):
    return float(torch.corrcoef(torch.stack([prompt, method]))[0, 1])


# %% wrong says="without subtracting any mean"
def follows(prompt, method, example):
    return float(prompt @ method / (prompt.norm() * method.norm()))


# %% wrong says="a covariance"
def follows(prompt, method, example):
    a, b = prompt.clone(), method.clone()
    for k in example.unique():
        a[example == k] -= a[example == k].mean()
        b[example == k] -= b[example == k].mean()
    return float((a * b).mean())


# %% wrong says="follows nobody"
def follows(prompt, method, example):
    a, b = prompt.clone(), method.clone()
    for k in example.unique():
        a[example == k] -= a[example == k].mean()
        b[example == k] -= b[example == k].mean()
    return float(a @ b / (a.norm() * b.norm()))


# %% wrong says="wrote into the tensor"
def follows(prompt, method, example):
    for k in example.unique():
        prompt[example == k] -= prompt[example == k].mean()
        method[example == k] -= method[example == k].mean()
    return float(prompt @ method / (prompt.norm() * method.norm()))


# %% solution
def follows(prompt, method, example):
    """The correlation of two strengths within examples; 0 for a method that does not vary."""

    def within(x):
        centred = x.clone()
        for k in example.unique():
            centred[example == k] -= x[example == k].mean()
        return centred

    a, b = within(prompt), within(method)
    if b.norm() < 1e-3 * method.norm():
        return 0.0
    return float(a @ b / (a.norm() * b.norm()))


# %%
ordinary = table[~table["sink"]]
rows = {}
for place, part in ordinary.groupby("layer"):
    places = ["example", "token_index"]
    along = part.pivot_table(index=places, columns="method", values="along")
    example = torch.tensor(along.index.get_level_values("example").to_numpy())
    of = {name: torch.tensor(along[name].to_numpy()) for name in ("prompt", *methods)}
    rows[f"layer {place}: follows"] = {
        name: follows(of["prompt"], of[name], example) for name in of
    }
    rows[f"layer {place}: mean along"] = {name: float(of[name].mean()) for name in of}
pd.DataFrame(rows).T.round(3)

# %% [markdown]
# At the layer where it acts, DiM follows nobody. Further up it may, a little: the layers above make
# something of the push, and not the same at every token. Look at *mean along*, too. A method can follow
# closely and be far too weak, or have the right mean and push the wrong tokens. And both rows look at one
# direction only.
#
# ## 2. How far from the prompted activations?
#
# The **relative RMSE** looks at everything. In unit 0 it compared activations; with pushes it is shorter. For
# a method's pushes ("reached") and the prompt's ("target"):
#
# $$\text{relRMSE} = \sqrt{\frac{\sum_t \lVert \text{reached}_t - \text{target}_t \rVert^2}
#                               {\sum_t \lVert \text{target}_t \rVert^2}}$$

# %% exercise [markdown] name="relative_rmse" difficulty=1 importance=3 minutes=5
# ### Of pushes
#
# Write `relative_rmse(reached, target)` for pushes `[tokens, d_model]`. Return a number. The sums run over all
# tokens *before* they are divided.

# %% hint [markdown]
# Doing nothing is `reached = 0`. Which number must come out then?

# %% hint [markdown]
# `(reached - target).square().sum()`, divided by `target.square().sum()`, and the root of that.


# %% stub
def relative_rmse(reached, target):
    """0: as the prompt; 1: as far from it as doing nothing."""
    ...


# %% wrong says="The root is missing"
def relative_rmse(reached, target):
    return float((reached - target).square().sum() / target.square().sum())


# %% wrong says="tokens that are hardly pushed"
def relative_rmse(reached, target):
    return float(((reached - target).norm(dim=-1) / target.norm(dim=-1)).mean())


# %% wrong says="divided by the method's"
def relative_rmse(reached, target):
    return float(((reached - target).square().sum() / reached.square().sum()).sqrt())


# %% wrong says="compared lengths"
def relative_rmse(reached, target):
    missed = (reached.norm(dim=-1) - target.norm(dim=-1)).square().sum()
    return float((missed / target.square().sum()).sqrt())


# %% solution
def relative_rmse(reached, target):
    """0: as the prompt; 1: as far from it as doing nothing."""
    return float(((reached - target).square().sum() / target.square().sum()).sqrt())


# %%
sites = [Site(i) for i in range(n_layers)]
aligned = align(model, pairs, sites)
kept = {site: ~aligned.sinks(site) for site in sites}
target = {site: of[kept[site]] for site, of in prompt_deltas(model, aligned).items()}


def reached_by(steering):
    return {site: of[kept[site]] for site, of in steering_deltas(model, aligned, steering).items()}


reached = {name: reached_by(steering) for name, steering in methods.items()}
errors = faithfulness(model, pairs, methods, any_instruction=False, seed=SEED)
for name, of in reached.items():
    theirs = errors[errors["method"] == name]["relative_rmse"].tolist()
    mine = [relative_rmse(of[site], target[site]) for site in sites]
    torch.testing.assert_close(torch.tensor(mine), torch.tensor(theirs), rtol=1e-3, atol=1e-3)
figures.relative_rmse_curve(errors)

# %% [markdown]
# 1 is the error of *not steering*. So all are at 1 below the layer where they act. Whatever is above 1 is
# further from the prompt than nothing at all; it may have an effect, but not as the prompt has it. The lower
# panel is what is divided by.
#
# ### Wrong strength, or wrong direction?
#
# A method can be far off because it pushes too hard, which is easily mended, or because it pushes elsewhere.
# So multiply its pushes by the best number s. What is left then is not a matter of strength.

# %% exercise [markdown] name="least_error" difficulty=2 importance=3 minutes=10
# ### What no strength can mend
#
# Write `least_error(reached, target)`: the lowest `relative_rmse(s * reached, target)` over all numbers s (also
# negative ones). There is one s for all tokens. Return a number.

# %% hint [markdown]
# The best s is `(reached * target).sum() / reached.square().sum()` (unit 0).

# %% hint [markdown]
# Put that s in. Or think of both as one long vector each: with the angle between them, it is its sine,
# $\sqrt{1 - \cos^2}$.


# %% stub
def least_error(reached, target):
    """The relative RMSE at the best strength, a number."""
    ...


# %% wrong says="strength of its own"
def least_error(reached, target):
    s = (reached * target).sum(dim=-1, keepdim=True) / reached.square().sum(dim=-1, keepdim=True)
    return relative_rmse(s * reached, target)


# %% wrong says="This is the cosine"
def least_error(reached, target):
    return float((reached * target).sum() / (reached.norm() * target.norm()))


# %% wrong says="less the cosine"
def least_error(reached, target):
    return float(1 - (reached * target).sum() / (reached.norm() * target.norm()))


# %% wrong says="equally long"
def least_error(reached, target):
    return relative_rmse(reached * target.norm() / reached.norm(), target)


# %% wrong says="strength as it is"
def least_error(reached, target):
    return relative_rmse(reached, target)


# %% solution
def least_error(reached, target):
    """The relative RMSE at the best strength, a number."""
    s = (reached * target).sum() / reached.square().sum()
    return relative_rmse(s * reached, target)


# %%
rows = {}
for name, of in reached.items():
    for site in (Site(layer), sites[-1]):
        error = relative_rmse(of[site], target[site])
        least = least_error(of[site], target[site])
        assert least <= min(error, 1) + 1e-6
        rows[name, f"layer {site.layer}"] = {"as fitted": error, "at the best s": least}
pd.DataFrame(rows).T

# %% [markdown]
# Where the two columns are alike, the strength was right already, and what is missing is *direction* or *the
# right tokens*. Is the right column near 1? Then the push has nearly nothing to do with the prompt's.
#
# ## 3. How low can one hope to get?
#
# Not to 0. Say the *same instruction in other words*: that prompt's activations differ, too.

# %% exercise [markdown] name="equivalents" difficulty=1 importance=2 minutes=5
# ### Other words
#
# Put into `equivalents` a list of at least two instructions that ask for the same as `INSTRUCTION`, each
# without its telling word ("positive"), and hardly longer.

# %% hint [markdown]
# Which words could stand in place of "positive"?

# %% hint [markdown]
# `["Be ...", "Be ..."]`, such as happy, kind, cheerful, warm.

# %% stub
equivalents = ...

# %% wrong says="a list"
equivalents = "Be happy."

# %% wrong says="At least two"
equivalents = ["Be happy."]

# %% wrong says="has the word"
equivalents = ["Be happy.", "Always be very positive."]

# %% wrong says="the opposite"
equivalents = ["Be happy.", "Never be happy."]

# %% wrong says="the same text twice"
equivalents = ["Be happy.", "Be happy."]

# %% wrong says="much longer"
equivalents = ["Be happy.", "You are somebody who is always cheerful, warm and kind to everybody."]

# %% solution
equivalents = ["Be happy.", "Be cheerful."]

# %% [markdown]
# Several wordings make one line. They are averaged, but what of them?

# %% exercise [markdown] name="line" difficulty=2 importance=3 minutes=10
# ### The equivalent line
#
# Write `line(others, target)`. `others` is a list of pushes `[tokens, d_model]`, one for each wording, `target` those
# of the instruction. Average the **squared errors** of the wordings, then proceed as in `relative_rmse`. This
# is the error that *one* other wording typically makes.

# %% hint [markdown]
# Do not average the pushes: the mean of many wordings is nearer to the target than any one of them.

# %% hint [markdown]
# `torch.stack(others) - target` is `[wordings, tokens, d_model]`. Square, sum over the last two axes, average
# over the first; divide by `target.square().sum()`; take the root.


# %% stub
def line(others, target):
    """The relative RMSE of one other wording, typically; a number."""
    ...


# %% wrong says="averaged the *pushes*"
def line(others, target):
    return relative_rmse(torch.stack(others).mean(dim=0), target)


# %% wrong says="averaged the roots"
def line(others, target):
    return sum(relative_rmse(other, target) for other in others) / len(others)


# %% wrong says="the best wording"
def line(others, target):
    return min(relative_rmse(other, target) for other in others)


# %% wrong says="summed over the wordings"
def line(others, target):
    missed = (torch.stack(others) - target).square().sum()
    return float((missed / target.square().sum()).sqrt())


# %% solution
def line(others, target):
    """The relative RMSE of one other wording, typically; a number."""
    missed = torch.stack([(other - target).square().sum() for other in others]).mean()
    return float((missed / target.square().sum()).sqrt())


# %%
def pushed_by(instruction, site):
    others = align(model, reworded(pairs, instruction), [site])
    return prompt_deltas(model, others)[site][kept[site]]


worded = [reworded(pairs, text) for text in equivalents]
errors = faithfulness(model, pairs, methods, equivalents=worded, seed=SEED)
end = sites[-1]
mine = line([pushed_by(text, end) for text in equivalents], target[end])
theirs = errors[(errors["method"] == "equivalent prompts") & (errors["layer"] == end.layer)]
assert abs(mine - theirs["relative_rmse"].item()) < 1e-3
figures.relative_rmse_curve(errors)

# %% [markdown]
# A method that reaches the *equivalent prompts* is as near to the instruction as another way of saying it.
# Below that line there is no reason to go on.
#
# ## 4. And what does any instruction do?
#
# The other dashed line, **any instruction**, is the prompt "You are a person. Talk like a person.", which asks
# for nothing. If *it* is well below 1 at some layer, much of what we call the push of "Be positive." there is
# what any instruction would do: other positions, a system turn where there was none. A method may be close
# to the prompt for that reason, and not because it is positive.

# %% exercise [markdown] name="any_share" difficulty=1 importance=3 minutes=5
# ### How much of the push is anybody's?
#
# Write `any_share(anyone, target)` for the pushes `[tokens, d_model]` of any instruction and of ours: the share
# of our **squared** push that is gone once `anyone` is subtracted from it,
#
# $$1 - \frac{\sum \lVert \text{target} - \text{anyone} \rVert^2}{\sum \lVert \text{target} \rVert^2}.$$
#
# Return a number. Your `relative_rmse` helps.

# %% hint [markdown]
# The fraction is the relative RMSE of `anyone`, squared.

# %% hint [markdown]
# `1 - relative_rmse(anyone, target) ** 2`


# %% stub
def any_share(anyone, target):
    """The share of the squared push that any instruction makes as well."""
    ...


# %% wrong says="no matter where it points"
def any_share(anyone, target):
    return float(anyone.square().sum() / target.square().sum())


# %% wrong says="of *squares*"
def any_share(anyone, target):
    return 1 - relative_rmse(anyone, target)


# %% wrong says="share that *remains*"
def any_share(anyone, target):
    return relative_rmse(anyone, target) ** 2


# %% wrong says="a cosine"
def any_share(anyone, target):
    return float((anyone * target).sum() / (anyone.norm() * target.norm()))


# %% solution
def any_share(anyone, target):
    """The share of the squared push that any instruction makes as well."""
    return 1 - relative_rmse(anyone, target) ** 2


# %%
some_sites = [*sites[:: max(1, n_layers // 6)], end]
shares = {
    text: {
        site.layer: any_share(pushed_by(text, site), target[site])
        for site in dict.fromkeys(some_sites)
    }
    for text in (NEUTRAL, *equivalents)
}
of_any = errors[errors["method"] == "any instruction"].set_index("layer")["relative_rmse"]
assert abs(shares[NEUTRAL][end.layer] - (1 - of_any[end.layer] ** 2)) < 1e-3
pd.DataFrame(shares).rename_axis("layer").T

# %% [markdown]
# A negative share says that subtracting makes it worse: that instruction pushes elsewhere. Where the first
# row is not much below the others, this layer says little about *positive*, and faithfulness should be read
# further up. Or compare with a plain side that has an instruction already:
# `faithfulness(..., baseline="neutral")`.
#
# ## 5. How many directions?
#
# All three methods add a multiple of few vectors, DiM and PSR of a single one. How much of the prompt's push
# can one direction hold at all, or two, or eight? The best r directions for some pushes are their first r
# right singular vectors. But directions that were found on a request hold its pushes better than those of
# another request.

# %% exercise [markdown] name="share_along" difficulty=3 importance=3 minutes=15
# ### The share along r directions
#
# Write `share_along(fitted, held_out, r)`: find the r directions that hold most of the squared length of `fitted`,
# `[m, d_model]` (nothing is subtracted first), and return the share of the **squared length of `held_out`**,
# `[k, d_model]`, that lies along them. A number from 0 to 1.

# %% hint [markdown]
# `torch.linalg.svd(fitted, full_matrices=False)` gives U, S, Vh. The *rows* of Vh have length 1, are at right
# angles, and the first hold most.

# %% hint [markdown]
# `held_out @ Vh[:r].T` are the parts along the r directions, `[k, r]`. Sum their squares, and divide by
# `held_out.square().sum()`.


# %% stub
def share_along(fitted, held_out, r):
    """The share of the squared held-out pushes along the r best directions of the fitted ones."""
    ...


# %% wrong says="found on `held_out` itself"
def share_along(fitted, held_out, r):
    Vh = torch.linalg.svd(held_out, full_matrices=False)[2]
    return float((held_out @ Vh[:r].T).square().sum() / held_out.square().sum())


# %% wrong says="subtracted the mean"
def share_along(fitted, held_out, r):
    Vh = torch.linalg.svd(fitted - fitted.mean(dim=0), full_matrices=False)[2]
    return float((held_out @ Vh[:r].T).square().sum() / held_out.square().sum())


# %% wrong says="columns of Vh"
def share_along(fitted, held_out, r):
    Vh = torch.linalg.svd(fitted, full_matrices=False)[2]
    return float((held_out @ Vh[:, :r]).square().sum() / held_out.square().sum())


# %% wrong says="of `fitted` itself"
def share_along(fitted, held_out, r):
    S = torch.linalg.svd(fitted, full_matrices=False)[1]
    return float(S[:r].square().sum() / S.square().sum())


# %% wrong says="one of them alone"
def share_along(fitted, held_out, r):
    Vh = torch.linalg.svd(fitted, full_matrices=False)[2]
    return float((held_out @ Vh[r]).square().sum() / held_out.square().sum())


# %% wrong says="each token's share"
def share_along(fitted, held_out, r):
    Vh = torch.linalg.svd(fitted, full_matrices=False)[2]
    along = (held_out @ Vh[:r].T).square().sum(dim=-1)
    return float((along / held_out.square().sum(dim=-1)).mean())


# %% solution
def share_along(fitted, held_out, r):
    """The share of the squared held-out pushes along the r best directions of the fitted ones."""
    _, _, Vh = torch.linalg.svd(fitted, full_matrices=False)
    return float((held_out @ Vh[:r].T).square().sum() / held_out.square().sum())


# %%
RANKS = (1, 2, 4, 8, 16, 32)
rows = {}
for site in (Site(layer), end):
    of_train = align(model, train, [site])
    fitted = prompt_deltas(model, of_train)[site][~of_train.sinks(site)]
    mean = fitted.mean(dim=0, keepdim=True)  # its only direction is that of the mean
    name = f"layer {site.layer}"
    rows[f"{name}, mean push"] = {1: share_along(mean, target[site], 1)}
    rows[f"{name}, best r"] = {r: share_along(fitted, target[site], r) for r in RANKS}
    rows[f"{name}, same, of what was fitted"] = {r: share_along(fitted, fitted, r) for r in RANKS}
rows["r random directions"] = {r: r / d_model for r in RANKS}
pd.DataFrame(rows).T.rename_axis(columns="r").style.format(precision=3, na_rep="")

# %% [markdown]
# * Are **mean push** and **best 1** nearly the same? Then no single direction does better than the mean.
# * What one direction cannot hold is out of reach of DiM and of a PSR of rank 1, whatever the gate does. The
#   lowest relative RMSE that any strengths along it could reach is $\sqrt{1 - \text{share}}$.
# * By how much rows "of what was fitted" are higher is memory.
#
# So **a prompt is not a vector**, and here is by how much. The library does the same with folds, at every layer:

# %%
ranks = rank_share(model, pairs, sorted({0, layer, end.layer}), ranks=(1, 2, 8), folds=4)
ranks.pivot_table(index="axes", columns="layer", values="share")

# %% [markdown]
# ## 6. Does it do what the prompt does?
#
# Being near is one thing. What we want is the *effect*, and here it can be measured without any judge: how
# much of the prompt's change of the **predictions** does a method make, too?
#
# $$\text{recovered} = 1 - \frac{\sum_t \text{KL}(\text{prompted}_t \,\Vert\, \text{steered}_t)}
#                               {\sum_t \text{KL}(\text{prompted}_t \,\Vert\, \text{plain}_t)}$$

# %% exercise [markdown] name="recovered" difficulty=2 importance=3 minutes=10
# ### The share of the effect
#
# Write `recovered(prompted, steered, plain)` for log-probabilities `[tokens, vocabulary]` of the three runs. 1 is
# the prompted model, 0 is what one has without steering, below 0 leads further away. Return a number.

# %% hint [markdown]
# Write `kl(p, q)` first, as in unit 2: `(p.exp() * (p - q)).sum(dim=-1)`. Which distribution does one average
# with?

# %% hint [markdown]
# Sum both KLs over all tokens, then divide. A mean of the tokens' own shares would be ruled by tokens for
# which the prompt changes nothing.


# %% stub
def recovered(prompted, steered, plain):
    """The share of the prompt's effect on the predictions, a number."""
    ...


# %% wrong says="still *missing*"
def recovered(prompted, steered, plain):

    def kl(p, q):
        return (p.exp() * (p - q)).sum()

    return float(kl(prompted, steered) / kl(prompted, plain))


# %% wrong says="averaged the tokens' own shares"
def recovered(prompted, steered, plain):

    def kl(p, q):
        return (p.exp() * (p - q)).sum(dim=-1)

    return float((1 - kl(prompted, steered) / kl(prompted, plain)).mean())


# %% wrong says="other way round"
def recovered(prompted, steered, plain):

    def kl(p, q):
        return (p.exp() * (p - q)).sum()

    return float(1 - kl(steered, prompted) / kl(plain, prompted))


# %% wrong says="how *much* changes"
def recovered(prompted, steered, plain):

    def kl(p, q):
        return (p.exp() * (p - q)).sum()

    return float(kl(steered, plain) / kl(prompted, plain))


# %% solution
def recovered(prompted, steered, plain):
    """The share of the prompt's effect on the predictions, a number."""

    def kl(p, q):
        return (p.exp() * (p - q)).sum()

    return float(1 - kl(prompted, steered) / kl(prompted, plain))


# %%
def predictions(row, steering=None):
    """The log-probabilities of what comes at each token of the response."""
    tokens, window = steerlens.batch(model, [row])
    with nullcontext() if steering is None else steering.applied(model, window):
        logits = model(tokens)[0, row.response - 1 : -1]
    return logits.double().log_softmax(dim=-1)


plain, prompted = steerlens.encode_pair(model, pairs[0])
by_token = prompt_effect_by_token(model, pairs[:1], methods)
for name, steering in methods.items():
    mine = recovered(predictions(prompted), predictions(plain, steering), predictions(plain))
    sums = by_token[by_token["method"] == name][["kl_left", "kl_prompt"]].sum()
    assert abs(mine - (1 - sums["kl_left"] / sums["kl_prompt"])) < 1e-2 * max(1, abs(mine))
    print(f"{name:7} recovers {mine:.0%} of the effect on the first pair")

# %% [markdown]
# One pair is an anecdote. Over all pairs, each method at three strengths, and beside it the distance:

# %%
entries = [
    Entry(name, steering.scaled(s), f"times {s:g}", s)
    for name, steering in methods.items()
    for s in (0.5, 1.0, 2.0)
]
neutral = [reworded(pairs, NEUTRAL)]
same = {"equivalents": worded, "neutral": neutral, "seed": SEED}
effects = prompt_effect_recovered(model, pairs, entries, **same)
upper = range(layer, n_layers)
distances = faithfulness(model, pairs, entries, layers=upper, any_instruction=False, **same)
both = effect_and_faithfulness(effects, distances)
figures.effect_against_faithfulness(both)

# %%
flush_left(both[["method", "strength", "recovered", "low", "high", "relative_rmse"]].round(3))

# %% [markdown]
# Up and left is the prompt. Read it slowly:
#
# * Do the methods come in the same order from left to right as from below to above?
# * Follow one method along its strengths. Is the strength with the most effect the most faithful one?
# * Compare two points that are equally far (one above the other). One does more of what the prompt does at
#   the same distance: not every direction of the residual stream matters for the next word.
#
# The last point in one number: the correlation of the ranks of effect and distance. -1 would be perfect
# agreement.

# %%
ranked = both[["recovered", "relative_rmse"]].rank().corr()
print(f"rank correlation: {ranked.loc['recovered', 'relative_rmse']:.2f}")

# %% [markdown]
# ## What could go wrong
#
# * **A number without its lines.** A relative RMSE of 0.7 is bad where another wording has 0.3, and good
#   where it has 0.65. Always draw both lines.
# * **As fitted.** The error depends on the strength, and each method has its own unit of it. Compare at the
#   best strength, found on other requests (`with_least_squares`), or where the effect is the same.
# * **Low layers.** The denominator is tiny there, or what any instruction does. Look at the lower panel.
# * **One direction.** `along` is blind to everything beside v: a method can have the right `along` everywhere
#   and be far off. Look at `off_axis`, too.
# * **Sinks.** A few very long activations are most of a sum of squares; the library leaves them out and says
#   how many.
# * **Fixed responses.** All of this is measured on what the *prompted* model wrote. Whether the steered model
#   would write such a thing by itself is another question (unit 9).
# * **Few requests.** Two responses to one request are no independent examples. Intervals are drawn over
#   requests.

# %% [markdown]
# ### On another model
#
# `STEERLENS_MODEL=smollm2` runs this unit on SmolLM2-135M in some minutes. What changes there: its template
# writes a system prompt of its own on the plain side, so *any instruction* is another system prompt in its
# place, and that line lies much lower at low layers; pushes need more directions; PSR as trained here, with
# few steps, is a beginning.

# %% [markdown]
# ## An open experiment
#
# Can one be effective without being faithful? Take DiM's vector and turn it: add to it a random vector of
# growing length, at right angles to the mean push. Distance grows by construction. Does the effect fall, and
# at which distance? Do the same with a vector along the *second* best direction of section 5. Write down
# beforehand what "effect follows faithfulness" would predict, then draw both into one figure, with the two
# lines. Is there a direction in which the model does not care at all?

# %% [markdown]
# ## References
#
# - Heyman and Vandeputte, *Steer Like the LLM: Activation Steering that Mimics Prompting*, 2026,
#   [arXiv 2605.03907](https://arxiv.org/abs/2605.03907): relative RMSE, and the assumptions of one vector.
# - Turner and others, *Steering Language Models With Activation Engineering*, 2023,
#   [arXiv 2308.10248](https://arxiv.org/abs/2308.10248): ActAdd.
# - The methods' measured results: `docs/methods/psr.md`, `docs/bench.md`. In the library:
#   `analysis/measures/faithfulness.py`, `rank_share.py` and `recovered.py`.
