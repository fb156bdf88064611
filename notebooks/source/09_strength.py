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
# # Choosing strength honestly
#
# Every steering shows its attribute if it is strong enough, and breaks the text if it is stronger still. So
# "our method scores 93" says little: at which strength, who chose it, on which questions, according to which
# judge, and would the next seed say the same? This unit is about the sentence that you may write at the end.
#
# **Goals.** After this unit you can
#
# - draw a trade-off between attribute and coherence, and choose a strength by a rule that was fixed before;
# - put an interval on a score, on a difference and on several seeds, and say what it does and does not cover;
# - choose on validation questions, and measure how much choosing on the test would have flattered you;
# - fool a judge on purpose, and report the score of texts that show nothing beside that of your method.
#
# **Before.** Unit 2 (strength by measuring) and one of units 6 to 8. Means and quantiles.
#
# **Time.** 120 minutes, 70 of them for nine exercises.

# %%
import os
import warnings
from dataclasses import replace

import numpy as np
import pandas as pd
import torch
from checks.display import flush_left, panels, quiet

import steerlens
from steerlens import CAA, Conversation, benchmark_set, scope
from steerlens.analysis import Coherence, judge_of, likelihood
from steerlens.analysis.bench.nulls import echoed, keywords_of, looped, shuffled

# %%
quiet()
SEED = 0
model = steerlens.load(os.environ.get("STEERLENS_MODEL", "demo"))
# A chat template says how a conversation is written down. Models without one get a plain one.
model.tokenizer.chat_template = model.tokenizer.chat_template or steerlens.PLAIN
layer = model.cfg.n_layers // 2
large = model.cfg.n_layers > 12  # then fewer questions and strengths, to save time

# %% [markdown]
# The method is CAA: a difference of means, one vector. Nothing in this unit depends on that. Our questions
# fall in three parts, and no question is in two of them. *Training* questions make the vector. On
# *validation* questions we look as often as we like. The *test* questions we open once, at the end.

# %%
INSTRUCTION = "Be positive."
attribute = benchmark_set.read("positive")
fitted_on = attribute.pairs("train", INSTRUCTION)[: 16 if large else 32]
n = 10 if large else 20
questions = attribute.questions("validation")
validation, test = questions[:n], questions[-n:]
assert not set(validation) & set(test)


def fitted(pairs):
    """CAA of these pairs, acting on the response."""
    wanted = [replace(pair.prompted, response=pair.response) for pair in pairs]
    plain = [replace(pair.plain, response=pair.response) for pair in pairs]
    return CAA.fit(model, (wanted, plain), layer).steering.only(scope.response)


# %% [markdown]
# A strength of 1 means another thing for every method, model and layer. So we take a unit that all methods
# can share: the strength at which the predictions change **as much as under the prompt** (in KL, on training
# answers). `calibrate` finds it.

# %%
caa = fitted(fitted_on)
unit = steerlens.calibrate(model, caa, fitted_on[:16], progress=False)
print("one unit:", unit)
STRENGTHS = [0.5, 1.0, 2.0, 4.0, 8.0] if large else [0.5, 1.0, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0, 24.0]

# %% [markdown]
# ## 1. The trade-off
#
# Two judges, from 0 to 100. *attribute*: how positive a text is, according to a classifier of film reviews.
# *coherence*: whether it hangs together. Each question is answered twice. A text that a judge can say nothing
# about counts as 0. Judges also warn of texts that they do not know; we keep what they say for later.

# %%
SAMPLES = 1 if large else 2
positive, coherent = judge_of("positive"), Coherence()
warned = []


def texts_of(questions, steering=None, instruction=None, seed=SEED):
    """Completions, question by question."""
    asked = [Conversation(question, instruction) for question in questions]
    options = {"n": SAMPLES, "batch_size": 64, "max_new_tokens": 32, "seed": seed}
    made = steerlens.generate(model, asked, steering, **options)
    return [made.texts[i] for i in np.lexsort((made.sample, made.prompt))]


def score(judge, texts, questions):
    """The judge's scores, [questions, samples]."""
    asked = [Conversation(question) for question in questions for _ in range(SAMPLES)]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        scores = np.nan_to_num(judge(texts, asked))
    warned.extend(str(w.message) for w in caught if w.category is steerlens.SteeringWarning)
    return torch.tensor(scores, dtype=torch.float32).reshape(len(questions), SAMPLES)


# %%
written = {"unsteered": texts_of(validation), "prompt": texts_of(validation, None, INSTRUCTION)}
for strength in STRENGTHS:
    written[strength] = texts_of(validation, strength * unit.steering)
a = {name: score(positive, texts, validation) for name, texts in written.items()}
c = {name: score(coherent, texts, validation) for name, texts in written.items()}

# %% exercise [markdown] name="harmonic" difficulty=1 importance=3 minutes=5
# ### One number of two
#
# Write `harmonic(a, c)` for two tensors of one shape, a score for each text: the harmonic mean of both,
# $2ac / (a + c)$, text by text. Where both are 0 it is 0.

# %% hint [markdown]
# The formula as it stands, on whole tensors. What does torch make of 0 / 0?

# %% hint [markdown]
# The numerator is 0 there. So any denominator above 0 will do: `(a + c).clamp(min=1e-9)`.


# %% stub
def harmonic(a, c):
    """2ac / (a + c), of the shape of a."""
    ...


# %% wrong says="arithmetic mean"
def harmonic(a, c):
    return (a + c) / 2


# %% wrong says="0 by 0, which is NaN"
def harmonic(a, c):
    return 2 * a * c / (a + c)


# %% wrong says="geometric mean"
def harmonic(a, c):
    return (a * c).sqrt()


# %% wrong says="You averaged first"
def harmonic(a, c):
    a, c = a.mean(), c.mean()
    return 2 * a * c / (a + c)


# %% wrong says="factor 2 is missing"
def harmonic(a, c):
    return a * c / (a + c).clamp(min=1e-9)


# %% wrong says="Small scores come out too small"
def harmonic(a, c):
    return 2 * a * c / (a + c).clamp(min=1)


# %% solution
def harmonic(a, c):
    """2ac / (a + c), of the shape of a."""
    return 2 * a * c / (a + c).clamp(min=1e-9)


# %%
h = {name: harmonic(a[name], c[name]) for name in written}
measures = {"attribute": a, "coherence": c, "harmonic mean": h}
curve = pd.DataFrame(
    [
        {"strength, in units": s, "measure": measure, "change": float(scores[s].mean())}
        for measure, scores in measures.items()
        for s in STRENGTHS
    ]
)
lines = {measure: float(scores["prompt"].mean()) for measure, scores in measures.items()}
figure = panels(curve, "strength, in units", lines, "prompt")
ends = np.log10([STRENGTHS[0] / 1.3, 2 * STRENGTHS[-1]])  # room for the label
figure.update_xaxes(type="log", tickvals=STRENGTHS, range=ends)

# %% [markdown]
# Does the attribute rise and rise? Follow it to the right end. **The effect is not monotone in the strength:**
# it rises, stays, and falls again as the text falls apart. Coherence falls off as from a cliff. So "stronger
# is better" is wrong, and so is "the effect at strength 1" without saying what 1 is. Read some texts, too:

# %%
peak = max(STRENGTHS, key=lambda s: float(h[s].mean()))
flush_left(
    pd.DataFrame(
        {s: written[s][:2] for s in ("unsteered", STRENGTHS[0], peak, STRENGTHS[-1])},
        index=["first text", "second text"],
    ).T.rename_axis("strength")
)

# %% [markdown]
# Now choose one. By a *rule*, which is fixed before the scores are seen, and which you write down.

# %% exercise [markdown] name="best_strength" difficulty=1 importance=2 minutes=5
# ### Rule 1: the best mean
#
# Write `best_strength(strengths, scores)`. `strengths` is a list from weak to strong, `scores` is
# `[strengths, questions]`. Return the strength with the highest mean over questions. Of equals the weaker.

# %% hint [markdown]
# Which axis are the questions? After the mean there is one number for each strength.

# %% hint [markdown]
# `means.tolist()` is a list; `list.index(max(list))` is the first place of the largest. Return
# `strengths[place]`.


# %% stub
def best_strength(strengths, scores):
    """The strength with the highest mean score, the weaker of equals."""
    ...


# %% wrong says="the score itself"
def best_strength(strengths, scores):
    return scores.mean(dim=1).max()


# %% wrong says="Two strengths are equally good"
def best_strength(strengths, scores):
    means = scores.mean(dim=1).tolist()
    return max(s for s, mean in zip(strengths, means, strict=True) if mean == max(means))


# %% wrong says="best single question"
def best_strength(strengths, scores):
    return strengths[int(scores.max(dim=1).values.argmax())]


# %% wrong says="*place* in the list"
def best_strength(strengths, scores):
    means = scores.mean(dim=1).tolist()
    return means.index(max(means))


# %% wrong says="one of the `strengths`, which are floats"
def best_strength(strengths, scores):
    return torch.tensor(strengths)[scores.mean(dim=1).argmax()]


# %% wrong says="highest *median*"
def best_strength(strengths, scores):
    return strengths[int(scores.median(dim=1).values.argmax())]


# %% solution
def best_strength(strengths, scores):
    """The strength with the highest mean score, the weaker of equals."""
    means = scores.mean(dim=1).tolist()
    return strengths[means.index(max(means))]


# %% exercise [markdown] name="at_c80" difficulty=2 importance=2 minutes=10
# ### Rule 2: as strong as the text can bear
#
# To compare methods, compare them **at the same coherence**. *C80* is the largest strength whose mean coherence is
# 80 % of the unsteered model's, or more. Write `at_c80(strengths, coherence, unsteered)`: two lists from weak
# to strong, and a number. Return the strength, and `0.0` if none holds the bound.

# %% hint [markdown]
# Collect the strengths that hold the bound. Which of them is asked for?

# %% hint [markdown]
# `[s for s, found in zip(strengths, coherence) if found >= 0.8 * unsteered]`, and `max(..., default=0.0)`.


# %% stub
def at_c80(strengths, coherence, unsteered):
    """The largest strength with 80 % of the unsteered coherence; 0.0 if there is none."""
    ...


# %% wrong says="80 % of the unsteered, here 64"
def at_c80(strengths, coherence, unsteered):
    return max(
        (s for s, found in zip(strengths, coherence, strict=True) if found >= 80), default=0.0
    )


# %% wrong says="stopped at the first"
def at_c80(strengths, coherence, unsteered):
    largest = 0.0
    for s, found in zip(strengths, coherence, strict=True):
        if found < 0.8 * unsteered:
            break
        largest = s
    return largest


# %% wrong says="comes *nearest*"
def at_c80(strengths, coherence, unsteered):
    bound = 0.8 * unsteered
    return min(zip(coherence, strengths, strict=True), key=lambda both: abs(both[0] - bound))[1]


# %% wrong says="80 % of the best coherence"
def at_c80(strengths, coherence, unsteered):
    bound = 0.8 * max(coherence)
    return max(
        (s for s, found in zip(strengths, coherence, strict=True) if found >= bound), default=0.0
    )


# %% wrong says="stopped with ValueError"
def at_c80(strengths, coherence, unsteered):
    holding = [s for s, found in zip(strengths, coherence, strict=True) if found >= 0.8 * unsteered]
    return max(holding)


# %% wrong says="the bound is 80 % of 80"
def at_c80(strengths, coherence, unsteered):
    bound = unsteered - 20
    return max(
        (s for s, found in zip(strengths, coherence, strict=True) if found >= bound), default=0.0
    )


# %% wrong says="right at the bound"
def at_c80(strengths, coherence, unsteered):
    bound = 0.8 * unsteered
    return max(
        (s for s, found in zip(strengths, coherence, strict=True) if found > bound), default=0.0
    )


# %% solution
def at_c80(strengths, coherence, unsteered):
    """The largest strength with 80 % of the unsteered coherence; 0.0 if there is none."""
    bound = 0.8 * unsteered
    return max(
        (s for s, found in zip(strengths, coherence, strict=True) if found >= bound), default=0.0
    )


# %%
by_question = torch.stack([h[s].mean(dim=1) for s in STRENGTHS])
coherences = [float(c[s].mean()) for s in STRENGTHS]
rules = {
    "best harmonic mean": best_strength(STRENGTHS, by_question),
    "C80": at_c80(STRENGTHS, coherences, float(c["unsteered"].mean())),
    "the prompt's KL": 1.0,
}
pd.DataFrame(
    {
        rule: {"strength": s, "attribute": float(a[s].mean()), "coherence": float(c[s].mean())}
        for rule, s in rules.items()
        if s
    }
).T

# %% [markdown]
# Different rules, different strengths, different scores, from one and the same method. None of them is *the*
# right one. The mistake would be to take for each method the rule that suits it.
#
# ## 2. Would it come out again?
#
# Other questions would give another mean. How far off could it be? **Resample**: draw as many questions as
# there are, with replacement, take their mean, and do it a thousand times. The middle 95 % of these means
# is an interval.


# %%
def draws_of(n, seed=SEED, times=1000):
    """Which of n things are drawn, [times, n]."""
    return torch.randint(n, (times, n), generator=torch.Generator().manual_seed(seed))


draws = draws_of(len(validation))
print("the first resample has questions", sorted(draws[0].tolist()))

# %% exercise [markdown] name="interval" difficulty=2 importance=3 minutes=10
# ### An interval
#
# Write `interval(scores, draws)`. `scores` is `[questions, samples]`, `draws` is `[resamples, questions]`: a
# row says which questions were drawn. Texts on one question are alike, so they do not count as independent:
# take the mean of each question first. Return the pair `(low, high)` of the middle 95 % of the means.

# %% hint [markdown]
# `each = scores.mean(dim=1)` has one number for each question. `each[draws]` has the drawn ones, a row for
# each resample.

# %% hint [markdown]
# `means = each[draws].mean(dim=1)`, then `means.quantile(0.025)` and `means.quantile(0.975)`.


# %% stub
def interval(scores, draws):
    """The ends of the middle 95 % of resampled means, (low, high)."""
    ...


# %% wrong says="middle 90 %"
def interval(scores, draws):
    means = scores.mean(dim=1)[draws].mean(dim=1)
    return means.quantile(0.05), means.quantile(0.95)


# %% wrong says="how far *questions* lie apart"
def interval(scores, draws):
    each = scores.mean(dim=1)
    return each.quantile(0.025), each.quantile(0.975)


# %% wrong says="Is it the right axis"
def interval(scores, draws):
    means = scores.mean(dim=1)[draws].mean(dim=0)
    return means.quantile(0.025), means.quantile(0.975)


# %% wrong says="counted every text as independent"
def interval(scores, draws):
    values = scores.flatten()
    error = 1.96 * values.std() / len(values) ** 0.5
    return values.mean() - error, values.mean() + error


# %% wrong says="a pair"
def interval(scores, draws):
    return scores.mean(dim=1)[draws].mean(dim=1)


# %% wrong says="found the text"
def interval(scores, draws):
    means = scores.mean(dim=1)[draws].mean(dim=1)
    return f"{means.quantile(0.025):.3f}", f"{means.quantile(0.975):.3f}"


# %% solution
def interval(scores, draws):
    """The ends of the middle 95 % of resampled means, (low, high)."""
    means = scores.mean(dim=1)[draws].mean(dim=1)
    return means.quantile(0.025), means.quantile(0.975)


# %%
def told(scores, draws=draws):
    low, high = interval(scores, draws)
    return f"{float(scores.mean()):.0f} [{low:.0f}, {high:.0f}]"


pd.DataFrame(
    {
        str(name): {measure: told(scores[name]) for measure, scores in measures.items()}
        for name in written
    }
).T

# %% [markdown]
# May we say that the best strength is better than its neighbours? Their intervals overlap. But that is **not the
# question**: both answered the same questions, and where a question is hard it is hard for both. What counts
# is the interval of the *difference*.

# %% exercise [markdown] name="paired" difficulty=2 importance=3 minutes=10
# ### A paired difference
#
# Write `paired(a, b, draws)` for the scores of two methods on the same questions, `[questions]` each: the
# interval `(low, high)` of the mean of a - b.

# %% hint [markdown]
# Subtract first, question by question. What you have then is one score for each question.

# %% hint [markdown]
# `interval((a - b)[:, None], draws)`: your `interval` wants an axis of samples.


# %% stub
def paired(a, b, draws):
    """The interval of the mean of a - b, over the same questions."""
    ...


# %% wrong says="ends of two intervals"
def paired(a, b, draws):
    (a_low, a_high), (b_low, b_high) = interval(a[:, None], draws), interval(b[:, None], draws)
    return a_low - b_low, a_high - b_high


# %% wrong says="nothing in common"
def paired(a, b, draws):
    (a_low, a_high), (b_low, b_high) = interval(a[:, None], draws), interval(b[:, None], draws)
    return a_low - b_high, a_high - b_low


# %% wrong says="Wrong way round"
def paired(a, b, draws):
    return interval((b - a)[:, None], draws)


# %% wrong says="Differences have a sign"
def paired(a, b, draws):
    return interval((a - b).abs()[:, None], draws)


# %% wrong says="often a wrong axis"
def paired(a, b, draws):
    return interval(a - b, draws)


# %% solution
def paired(a, b, draws):
    """The interval of the mean of a - b, over the same questions."""
    return interval((a - b)[:, None], draws)


# %%
chosen = rules["best harmonic mean"]
strongest = max(STRENGTHS, key=lambda s: float(a[s].mean()))
compared = {}
for name, scores, one, other in (
    *(("harmonic mean", h, chosen, s) for s in STRENGTHS if s != chosen),
    ("attribute", a, STRENGTHS[-1], strongest),
):
    x, y = scores[one].mean(dim=1), scores[other].mean(dim=1)
    low, high = (float(end) for end in paired(x, y, draws))
    verdict = "better" if low > 0 else "worse" if high < 0 else "not told apart"
    compared[f"{name}: {one:g} against {other:g}"] = f"{verdict} [{low:.0f}, {high:.0f}]"
pd.Series(compared, name="difference, 95 %").to_frame()

# %% [markdown]
# The last row is the claim of section 1, tested: is the attribute at the strongest steering below its peak?
# "Not told apart" is a result, too. It means: with these questions nobody can say. It does *not* mean "equal".
#
# ### Seeds
#
# So far the vector was fixed. Whoever repeats the study takes other training pairs, and other random numbers
# when texts are sampled. So fit several times:

# %%
everything, size = attribute.pairs("train", INSTRUCTION), len(fitted_on)
of_seed = []
for seed in range(3):
    again = unit.strength * fitted(everything[seed * size : (seed + 1) * size])
    texts = texts_of(validation, chosen * again, seed=seed)
    both = [score(judge, texts, validation) for judge in (positive, coherent)]
    of_seed.append(harmonic(*both).mean(dim=1))
of_seed = torch.stack(of_seed)
print("harmonic mean of each seed:", [round(float(one.mean()), 1) for one in of_seed])

# %% exercise [markdown] name="over_seeds" difficulty=3 importance=2 minutes=10
# ### Seeds and questions
#
# Write `over_seeds(scores, seed_draws, question_draws)`. `scores` is `[seeds, questions]`; the draws are
# `[resamples, seeds]` and `[resamples, questions]`. For each resample take the drawn seeds *and* the drawn
# questions, and the mean of that whole table. Return the pair `(low, high)` of the middle 95 %.

# %% hint [markdown]
# For one resample: `scores[s]` are the drawn rows, and `[:, q]` of that are the drawn columns. A loop over
# `zip(seed_draws, question_draws)` does all.

# %% hint [markdown]
# `torch.stack([scores[s][:, q].mean() for s, q in zip(...)])` are the means; then two quantiles.


# %% stub
def over_seeds(scores, seed_draws, question_draws):
    """The middle 95 % of means over resampled seeds and questions, (low, high)."""
    ...


# %% wrong says="questions alone"
def over_seeds(scores, seed_draws, question_draws):
    means = scores.mean(dim=0)[question_draws].mean(dim=1)
    return means.quantile(0.025), means.quantile(0.975)


# %% wrong says="seeds alone"
def over_seeds(scores, seed_draws, question_draws):
    means = scores.mean(dim=1)[seed_draws].mean(dim=1)
    return means.quantile(0.025), means.quantile(0.975)


# %% wrong says="often a wrong axis"
def over_seeds(scores, seed_draws, question_draws):
    means = scores[seed_draws, question_draws].mean(dim=1)
    return means.quantile(0.025), means.quantile(0.975)


# %% wrong says="seeds' own intervals"
def over_seeds(scores, seed_draws, question_draws):
    ends = [interval(row[:, None], question_draws) for row in scores]
    return sum(low for low, _ in ends) / len(ends), sum(high for _, high in ends) / len(ends)


# %% wrong says="middle 90 %"
def over_seeds(scores, seed_draws, question_draws):
    drawn = zip(seed_draws, question_draws, strict=True)
    means = torch.stack([scores[s][:, q].mean() for s, q in drawn])
    return means.quantile(0.05), means.quantile(0.95)


# %% solution
def over_seeds(scores, seed_draws, question_draws):
    """The middle 95 % of means over resampled seeds and questions, (low, high)."""
    drawn = zip(seed_draws, question_draws, strict=True)
    means = torch.stack([scores[s][:, q].mean() for s, q in drawn])
    return means.quantile(0.025), means.quantile(0.975)


# %%
low, high = over_seeds(of_seed, draws_of(len(of_seed), seed=1), draws)
one_low, one_high = interval(of_seed[0][:, None], draws)
print(f"one seed:    {float(of_seed[0].mean()):.1f} [{one_low:.1f}, {one_high:.1f}]")
print(f"three seeds: {float(of_seed.mean()):.1f} [{low:.1f}, {high:.1f}]")

# %% [markdown]
# The interval of one seed is about *other questions with this very fit*. The second is about other fits, too.
# It need not be wider: three seeds also bring more texts. But three seeds are few. Where one fit in three fails,
# three seeds in a row may all be good, and no interval can know what it has not seen (in simulations such
# intervals held the truth in 68 of 100 cases, not in 95: `docs/results/bench_demo.md`).
#
# ## 3. Choose here, report there
#
# The strength was chosen *because* its score is high on these questions. So that score is too high: part of it
# is luck, and the luck does not come along to new questions.

# %% exercise [markdown] name="chosen_then_tested" difficulty=1 importance=3 minutes=5
# ### The honest number
#
# Write `chosen_then_tested(validation, test)`, both `[strengths, questions]`: choose the strength with the best
# mean on validation, and return *its* mean on test, a number.

# %% hint [markdown]
# `validation.mean(dim=1).argmax()` is the place of the best.

# %% hint [markdown]
# Use this place to read `test`: `test[place].mean()`.


# %% stub
def chosen_then_tested(validation, test):
    """The test mean of the strength that is best on validation."""
    ...


# %% wrong says="chose on the test questions"
def chosen_then_tested(validation, test):
    return float(test.mean(dim=1).max())


# %% wrong says="*validation* score"
def chosen_then_tested(validation, test):
    return float(validation.mean(dim=1).max())


# %% wrong says="a strength for each question"
def chosen_then_tested(validation, test):
    return float(test.gather(0, validation.argmax(dim=0)[None]).mean())


# %% wrong says="*number* of the chosen"
def chosen_then_tested(validation, test):
    return float(validation.mean(dim=1).argmax())


# %% wrong says="best single question"
def chosen_then_tested(validation, test):
    return float(test[validation.max(dim=1).values.argmax()].mean())


# %% solution
def chosen_then_tested(validation, test):
    """The test mean of the strength that is best on validation."""
    return float(test[validation.mean(dim=1).argmax()].mean())


# %% [markdown]
# How much is luck? Let us make it pure luck: 12 settings (layers, strengths, wordings) that are all **exactly
# as good**, with a true score of 60. Questions differ by 25 points, as yours may. Choose the best of 12, again and
# again.

# %%
SETTINGS, TRUE, SPREAD = 12, 60.0, 25.0
luck = torch.Generator().manual_seed(SEED)
flattered, honest, covered = [], [], []
for repeat in range(200):
    here, there = TRUE + SPREAD * torch.randn(2, SETTINGS, len(validation), generator=luck)
    best = here[here.mean(dim=1).argmax()]
    flattered.append(float(best.mean()))
    honest.append(chosen_then_tested(here, there))
    low, high = interval(best[:, None], draws_of(len(best), repeat, times=300))
    covered.append(float(low <= TRUE <= high))
print(f"all settings are worth {TRUE:.0f}")
print(f"the best of {SETTINGS}, on the questions it was chosen on: {np.mean(flattered):.1f}")
print(f"the same setting, on new questions:            {np.mean(honest):.1f}")
print(f"the 95 % interval of the best holds the truth in {np.mean(covered):.0%} of the cases")
assert np.mean(flattered) > TRUE + 3 * np.std(flattered) / len(flattered) ** 0.5

# %% [markdown]
# An improvement out of nothing, and an interval around it that is too sure of itself. The more settings you
# try, the more you get. So: **all choices on validation**: strength, layer, rule, prompt, and whether to drop a bad seed.
# Then the test, once. Whoever looks at the test and goes back to change something has made it a validation set.
#
# ## 4. Fool the judge
#
# Is a text with a high score a positive text? The judge has learned words. So give it words. A **null** is a
# text that was made without any steering, and shows nothing. What does a null score?

# %% exercise [markdown] name="stuffed" difficulty=2 importance=2 minutes=10
# ### Words, stuffed in
#
# Write `stuffed(text, words, every)`: the text with each `every`-th word (the 3rd, the 6th, ... for 3) replaced by
# the next of `words`, in turn; after the last of them comes the first again. Words of a text are what stands
# between spaces.

# %% hint [markdown]
# `parts = text.split(" ")`. The place of the third word is 2: `range(every - 1, len(parts), every)`.

# %% hint [markdown]
# `for turn, place in enumerate(range(...))` counts the turns; `words[turn % len(words)]` begins again after the
# last. At the end `" ".join(parts)`.


# %% stub
def stuffed(text, words, every):
    """The text with each every-th word replaced by one of words, in turn."""
    ...


# %% wrong says="Off by one"
def stuffed(text, words, every):
    parts = text.split(" ")
    for turn, place in enumerate(range(0, len(parts), every)):
        parts[place] = words[turn % len(words)]
    return " ".join(parts)


# %% wrong says="words in turn"
def stuffed(text, words, every):
    parts = text.split(" ")
    for place in range(every - 1, len(parts), every):
        parts[place] = words[0]
    return " ".join(parts)


# %% wrong says="should *replace* one"
def stuffed(text, words, every):
    parts, out = text.split(" "), []
    for place, word in enumerate(parts):
        out.append(word)
        if place % every == every - 1:
            out.append(words[place // every % len(words)])
    return " ".join(out)


# %% wrong says="stopped with IndexError"
def stuffed(text, words, every):
    parts = text.split(" ")
    for turn, place in enumerate(range(every - 1, len(parts), every)):
        parts[place] = words[turn]
    return " ".join(parts)


# %% wrong says="should be a text"
def stuffed(text, words, every):
    parts = text.split(" ")
    for turn, place in enumerate(range(every - 1, len(parts), every)):
        parts[place] = words[turn % len(words)]
    return parts


# %% wrong says="stands twice"
def stuffed(text, words, every):
    parts = text.split(" ")
    for turn, place in enumerate(range(every - 1, len(parts), every)):
        text = text.replace(parts[place], words[turn % len(words)])
    return text


# %% wrong says="count the turns"
def stuffed(text, words, every):
    parts = text.split(" ")
    for place in range(every - 1, len(parts), every):
        parts[place] = words[place % len(words)]
    return " ".join(parts)


# %% solution
def stuffed(text, words, every):
    """The text with each every-th word replaced by one of words, in turn."""
    parts = text.split(" ")
    for turn, place in enumerate(range(every - 1, len(parts), every)):
        parts[place] = words[turn % len(words)]
    return " ".join(parts)


# %% [markdown]
# Which words? Those that prompted answers have more often than plain ones, from training answers. More nulls: the
# instruction repeated at the beginning, the first words of prompted texts in a loop, their words in any order.

# %%
rows = attribute.split("train")
words = keywords_of([row.prompted for row in rows], [row.plain for row in rows])
print(", ".join(words))
plain, prompted = written["unsteered"], written["prompt"]
nulls = {
    "null: every 5th word": [stuffed(text, words, 5) for text in plain],
    "null: every 10th word": [stuffed(text, words, 10) for text in plain],
    "null: echoed": echoed(plain, INSTRUCTION),
    "null: looped": looped(prompted),
    "null: shuffled": shuffled(prompted),
}
print(nulls["null: every 5th word"][0])

# %% [markdown]
# And a **second judge**, made of something else. `likelihood` asks the unsteered model: how much likelier is
# this text under the instruction than without it? 0 is the plain model's own text, 100 its own prompted text. It
# knows no list of words, and tokens that repeat what was said count for nothing.

# %%
second = likelihood(model, INSTRUCTION, attribute.questions("train")[:8], name="second judge")
shown = {"unsteered": plain, "prompt": prompted, **nulls}
shown |= {
    f"CAA x {s:g}": written[s] for s in dict.fromkeys((1.0, chosen, STRENGTHS[-2], STRENGTHS[-1]))
}
judges = {"attribute": positive, "second judge": second, "coherence": coherent}
judged = {
    name: {judge: score(one, texts, validation) for judge, one in judges.items()}
    for name, texts in shown.items()
}
pd.DataFrame({name: {j: told(s) for j, s in each.items()} for name, each in judged.items()}).T

# %% exercise [markdown] name="null_share" difficulty=1 importance=3 minutes=5
# ### How much of the effect does nothing have?
#
# Write `null_share(unsteered, prompt, null)` for three scores: what the null adds to the unsteered score, as a
# share of what the prompt adds.

# %% hint [markdown]
# Two differences, both from the unsteered score.

# %% hint [markdown]
# `(null - unsteered) / (prompt - unsteered)`.


# %% stub
def null_share(unsteered, prompt, null):
    """What a null adds, as a share of what the prompt adds."""
    ...


# %% wrong says="did not subtract the unsteered"
def null_share(unsteered, prompt, null):
    return null / prompt


# %% wrong says="Upside down"
def null_share(unsteered, prompt, null):
    return (prompt - unsteered) / (null - unsteered)


# %% wrong says="in points"
def null_share(unsteered, prompt, null):
    return null - unsteered


# %% wrong says="lacks to the prompt"
def null_share(unsteered, prompt, null):
    return (prompt - null) / (prompt - unsteered)


# %% wrong says="divided by the unsteered score"
def null_share(unsteered, prompt, null):
    return (null - unsteered) / unsteered


# %% wrong says="can do harm"
def null_share(unsteered, prompt, null):
    return max(0.0, (null - unsteered) / (prompt - unsteered))


# %% solution
def null_share(unsteered, prompt, null):
    """What a null adds, as a share of what the prompt adds."""
    return (null - unsteered) / (prompt - unsteered)


# %%
def mean_of(name, judge):
    return float(judged[name][judge].mean())


pd.DataFrame(
    {
        null: {
            judge: null_share(*(mean_of(name, judge) for name in ("unsteered", "prompt", null)))
            for judge in ("attribute", "second judge")
        }
        for null in nulls
    }
).T.rename_axis("share of the prompt's effect", axis=1)

# %% [markdown]
# `steerlens bench` warns where a null has more than half of what the prompt adds: there a high score tells
# little. Which judge is fooled by which null, and which sees through it? Look at broken text, too: what does
# each judge make of the strongest CAA? A judge of words likes the right words in a heap of rubble. That is why
# coherence stands beside it, and why one judge is not enough. And the second is no better as such: it calls
# likely what *this* model is likely to write, whether or not it is what was asked for.
#
# A judge may say itself that it does not know a kind of text. What have ours said, of all that they were given?

# %%
print(len(warned), "warnings")
for message in list(dict.fromkeys(message.split(". ")[0] for message in warned))[:5]:
    print("-", message)

# %% [markdown]
# They warn of articles, tales, chat and other scripts, where the text is whole: rubble is of no kind, and nobody
# warns of it. So no warning does not mean that a score can be relied on. The nulls have to show that.
#
# ## 5. The test, once
#
# All is decided: the rule, the strength, the judges, the nulls. Now open the test questions. This cell is run
# once.

# %%
final = {"unsteered": texts_of(test), "prompt": texts_of(test, None, INSTRUCTION)}
final["null: every 5th word"] = [stuffed(text, words, 5) for text in final["unsteered"]]
for rule, strength in rules.items():
    if strength:
        final[f"CAA, {rule}"] = texts_of(test, strength * unit.steering)
result = {
    name: {judge: score(one, texts, test) for judge, one in judges.items()}
    for name, texts in final.items()
}
for each in result.values():
    each["harmonic mean"] = harmonic(each["attribute"], each["coherence"])
pd.DataFrame({name: {j: told(s) for j, s in each.items()} for name, each in result.items()}).T

# %%
ours, theirs = (
    result[name]["harmonic mean"].mean(dim=1) for name in ("CAA, best harmonic mean", "prompt")
)
low, high = (float(end) for end in paired(ours, theirs, draws_of(len(test))))
apart = float((ours - theirs).mean())
print(f"CAA less the prompt, harmonic mean: {apart:.1f} [{low:.1f}, {high:.1f}]")
print(f"on validation it was {float(h[chosen].mean()):.1f}, on test it is {float(ours.mean()):.1f}")

# %% [markdown]
# Is the chosen strength as good on test as it was on validation? Write the sentence that you may now write. It has
# a method, a model, a rule, the questions that chose and those that tested, two judges, an interval, and what a
# null scores. For example: "At the strength with the best harmonic mean on 20 validation questions, CAA has
# ... [..., ...] on 20 others; the prompt has ..., unsteered text with every fifth word replaced has ...".

# %% [markdown]
# ## What could go wrong
#
# * **The strength that looks best on the test.** It is the most common mistake in this field, and the table
#   does not show it.
# * **One method tuned, the other not.** As many trials for each, or the comparison is between budgets.
# * **Strength 1 against strength 1.** They mean different things. Compare at equal coherence or equal KL.
# * **A grid that ends before the peak,** or that steps over it. If the best strength is the last one tried, go on.
# * **Attribute without coherence.** Rubble of the right words scores high.
# * **One judge.** Tune against a judge long enough, and you have steered the judge.
# * **Overlapping intervals read as "no difference".** Make the interval of the difference.
# * **Texts counted in place of questions.** A hundred texts on five questions are five questions.
# * **The mean of the best three seeds.** Seeds that failed belong in the table.

# %% [markdown]
# ### On another model
#
# `STEERLENS_MODEL=smollm2` runs this unit on SmolLM2-135M, in some minutes, with half as many questions, one text on
# each, and fewer strengths. Its intervals are wide, and "not told apart" is the usual answer. It follows "Be
# positive." only weakly. The judge of film reviews may say that it does not know such texts; read what it
# warns of. The coherence of `Coherence()` is that of the demonstration model's kind of text. On a model of your
# own take `second.coherence`, which is made of that model's own predictions, in its place.

# %% [markdown]
# ## An open experiment
#
# **Is there a strength at all?** So far one number was used for all questions. Choose the best strength for *each*
# question on two of four samples, and test on the other two. Is a strength of its own for each question
# better than one for all, or is it the luck of section 3 once more? Then let the token decide (units 6 and 7),
# with the same number of trials for every method. Write down beforehand how large a difference your questions
# can show: half the width of the paired interval above is a good guess.

# %% [markdown]
# ## References
#
# - Heyman and Vandeputte, *Steer Like the LLM*, 2026, [arXiv 2605.03907](https://arxiv.org/abs/2605.03907): the
#   attribute at 80 % coherence, and at the prompt's.
# - Wu and others, *AxBench*, 2025, [arXiv 2501.17148](https://arxiv.org/abs/2501.17148): harmonic means of
#   judges, and simple baselines that are hard to beat.
# - How all methods are tuned and compared: `docs/bench.md`; what came out, nulls included:
#   `docs/results/bench_demo.md`; verdicts by intervals: `docs/results/claims.md`.
# - How often the second judge errs: `docs/results/likelihood_judge.md`.
# - Strengths and layers in practice: `docs/howto/strength_and_layer.md`.
# - In the library: `analysis/measures/tradeoff.py` (`tradeoff`, `c80`), `analysis/bench/nulls.py`,
#   `analysis/bench/estimates.py`.
