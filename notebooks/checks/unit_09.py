"""The checks of unit 9, choosing strength. Each is named like its exercise."""

from typing import Any

import torch
from torch import Tensor

from checks.answers import called, described
from checks.comparing import as_number, expect
from checks.material import normal
from checks.verdicts import NotYet, require


def harmonic(harmonic):
    a = torch.tensor([[80.0, 100, 0, 0.3], [20, 60, 0, 50]])
    c = torch.tensor([[80.0, 10, 90, 0.2], [90, 30, 0, 50]])
    both = (a + c).clamp(min=1e-9)
    right = 2 * a * c / both
    got = called(harmonic, a, c)
    if isinstance(got, Tensor) and got.isnan().any():
        raise NotYet(
            "where both are 0 you divide 0 by 0, which is NaN. The score there is 0.",
            "`.clamp(min=1e-9)` keeps a denominator above 0.",
        )
    expect(
        got,
        right,
        [
            (
                (a + c) / 2,
                "This is the arithmetic mean: perfect nonsense would get 50. The harmonic one asks for "
                "both.",
            ),
            ((a * c).sqrt(), "This is the geometric mean. 2 a c / (a + c) is asked for."),
            (
                2 * a * c / (a + c).clamp(min=1),
                "Small scores come out too small: keep the denominator above 0 by less, "
                "`.clamp(min=1e-9)`.",
            ),
            (right / 2, "The factor 2 is missing: 80 and 80 should be 80."),
            (
                torch.minimum(a, c),
                "This is the smaller one. The harmonic mean is near it, and above.",
            ),
            (
                right.mean(),
                "You averaged already. Return one number for each completion.",
            ),
            (
                2 * a.mean() * c.mean() / (a.mean() + c.mean()),
                "You averaged first. Then a method that writes half of its texts well on one side and "
                "half on the other gets what no single text has.",
            ),
        ],
        what="`harmonic(a, c)`",
    )
    return "High only where both are."


def best_strength(best_strength):
    strengths = [0.5, 1.0, 2.0, 4.0]
    scores = torch.tensor(
        [[50.0, 60, 10, 60], [70, 70, 60, 40], [65, 80, 55, 40], [99, 20, 20, 20]]
    )
    got = called(best_strength, strengths, scores)
    expect(
        got,
        1.0,
        [
            (60.0, "This is the score itself. At which *strength* is it?"),
            (2.0, "Two strengths are equally good. Take the weaker one: it does less harm."),
            (4.0, "That strength has the best single question, or is merely the strongest."),
            (0.5, "This is the weakest. Average over questions, then take the largest."),
        ],
        what="`best_strength` of four strengths, with means 45, 60, 60 and 39.75,",
    )
    _require_of_list(got, "`best_strength`")
    later = torch.tensor([[10.0, 20, 15], [5, 50, 50], [45, 20, 25]])
    expect(
        called(best_strength, [3.0, 4.5, 12.0], later),
        4.5,
        [
            (1.0, "This is the *place* in the list. `strengths[...]` is the strength at it."),
            (12.0, "This is the strongest, whatever its score."),
        ],
        what="`best_strength` of strengths 3, 4.5 and 12, with means 15, 35 and 30,",
    )
    skewed = torch.tensor([[60.0, 60, 0], [50, 50, 50]])
    expect(
        called(best_strength, [3.0, 4.5], skewed),
        4.5,
        [(3.0, "That one has the highest *median*. The mean is asked for.")],
        what="`best_strength` of strengths 3 and 4.5, with means 40 and 50,",
    )
    return "A peak, and not the far end."


def at_c80(at_c80):
    strengths = [0.5, 1.0, 2.0, 4.0, 7.5, 16.0]
    coherence = [84.0, 78.0, 63.0, 68.0, 66.0, 61.0]
    got = called(at_c80, strengths, coherence, 80.0)
    expect(
        got,
        7.5,
        [
            (
                0.5,
                "Is this the first strength that holds? The largest is asked for. Or did you ask for a "
                "coherence of 80? The bound is 80 % of the unsteered, here 64.",
            ),
            (0.0, "No strength was found. The bound is 80 % of the unsteered, here 64."),
            (
                1.0,
                "You stopped at the first strength that is below. A curve has bumps: take the largest "
                "strength that holds.",
            ),
            (2.0, "This comes *nearest* to the bound, from below. It has to hold it."),
            (
                4.0,
                "You took 80 % of the best coherence of the curve. The reference is the unsteered model.",
            ),
            (16.0, "This is the strongest. It has 61, and the bound is 80 % of 80, which is 64."),
            (66.0, "This is the coherence. At which *strength* is it?"),
        ],
        what="`at_c80(strengths, coherence, 80.0)`",
    )
    _require_of_list(got, "`at_c80`")
    expect(
        called(at_c80, [1.0, 2.0], [50.0, 30.0], 80.0),
        0.0,
        [(1.0, "No strength holds the bound. Then the answer is 0: do not steer.")],
        what="`at_c80` of two strengths that are both below the bound",
    )
    expect(
        called(at_c80, [1.0, 2.0], [80.0, 64.0], 80.0),
        2.0,
        [(1.0, "80 % or *more*: a strength right at the bound holds it, `>=`.")],
        what="`at_c80` right at the bound",
    )
    return "As strong as the text can bear."


def interval(interval):
    scores, draws = _scores(9, 3, seed=51), _draws(9, seed=52)
    each = scores.mean(dim=1)
    means = each[draws].mean(dim=1)
    expect(
        _ends(called(interval, scores, draws), "`interval(scores, draws)`"),
        _middle(means),
        [
            (
                torch.tensor([means.quantile(0.05), means.quantile(0.95)]),
                "These are the middle 90 %. For 95 % cut off 2.5 % on each side.",
            ),
            (
                _normal_interval(means, 1),
                "This takes the means for a normal distribution. Cut off 2.5 % on each side: "
                "`means.quantile(0.025)`.",
            ),
            (
                _middle(each),
                "This is how far *questions* lie apart. How far do their *means* lie apart, over the "
                "resamples?",
            ),
            (
                _middle(each[draws].flatten()),
                "This is how far *questions* lie apart. Average within each resample first, `dim=1`.",
            ),
            (
                _middle(each[draws].mean(dim=0)),
                "Is it the right axis? A row of `each[draws]` is one resample: average over the row.",
            ),
            (
                _middle(scores.flatten()[draws].mean(dim=1)),
                "Two texts on one question are not independent. First the mean of each question, then "
                "resample questions.",
            ),
            (
                _normal_interval(each),
                "This is the formula with a standard error. It is near; here resample.",
            ),
            (
                _normal_interval(scores.flatten()),
                "You counted every text as independent, which makes the interval too narrow.",
            ),
            (
                torch.stack([means.min(), means.max()]),
                "These are the extremes, not the middle 95 %.",
            ),
            (_middle(means).flip(0), "The low end comes first."),
        ],
        what="`interval(scores, draws)`",
    )
    return "With another 95 % of question sets the mean would be in there, about."


def paired(paired):
    a, b, draws = *_related(), _draws(9, seed=53)
    right = _middle((a - b)[draws].mean(dim=1))
    (a_low, a_high), (b_low, b_high) = (_middle(x[draws].mean(dim=1)) for x in (a, b))
    expect(
        _ends(called(paired, a, b, draws), "`paired(a, b, draws)`"),
        right,
        [
            (-right.flip(0), "Wrong way round: a less b."),
            (
                torch.stack([a_low - b_low, a_high - b_high]),
                "You subtracted the ends of two intervals. Subtract the scores, question by question, "
                "and make one interval.",
            ),
            (
                torch.stack([a_low - b_high, a_high - b_low]),
                "As if the two had nothing in common. They answered the same questions, so an easy "
                "question is easy for both: subtract the scores, question by question.",
            ),
            (
                _middle(a[draws].mean(dim=1) - b[draws.flip(0)].mean(dim=1)),
                "The two sides have different questions. Draw the same ones for both.",
            ),
            (_middle((a - b).abs()[draws].mean(dim=1)), "Differences have a sign. Keep it."),
            (
                _middle(a - b),
                "This is how far the questions lie apart. Resample, as in `interval`.",
            ),
            (right.flip(0), "The low end comes first."),
        ],
        what="`paired(a, b, draws)`",
    )
    return "What is hard for both is taken away."


def over_seeds(over_seeds):
    scores = 50 + 12 * normal(4, 1, seed=54) + 8 * normal(4, 9, seed=55)
    seeds, questions = _draws(4, seed=56), _draws(9, seed=57)
    drawn = zip(seeds, questions, strict=True)
    means = torch.stack([scores[s][:, q].mean() for s, q in drawn])
    right = _middle(means)
    only_questions = scores.mean(dim=0)[questions].mean(dim=1)
    only_seeds = scores.mean(dim=1)[seeds].mean(dim=1)
    ends = torch.stack([_middle(row[questions].mean(dim=1)) for row in scores])
    expect(
        _ends(called(over_seeds, scores, seeds, questions), "`over_seeds(...)`"),
        right,
        [
            (
                _middle(only_questions),
                "You resampled questions alone. That is the interval for *these* fits; another seed "
                "would surprise you.",
            ),
            (
                _middle(only_seeds),
                "You resampled seeds alone. That is the interval for *these* questions.",
            ),
            (
                ends.mean(dim=0),
                "This is the mean of the seeds' own intervals. It does not see that seeds differ.",
            ),
            (
                torch.stack([ends[:, 0].min(), ends[:, 1].max()]),
                "You took the hull of the seeds' own intervals. Resample seeds and questions together.",
            ),
            (
                _middle(scores[0][questions].mean(dim=1)),
                "This is the first seed alone.",
            ),
            (
                means.quantile(torch.tensor([0.05, 0.95])),
                "These are the middle 90 %. For 95 % cut off 2.5 % on each side.",
            ),
            (right.flip(0), "The low end comes first."),
        ],
        what="`over_seeds(scores, seed_draws, question_draws)`",
    )
    return "For new seeds and new questions at once."


def chosen_then_tested(chosen_then_tested):
    validation = torch.tensor([[50.0, 40, 60], [70, 60, 80], [65, 85, 30], [62, 52, 54]])
    test = torch.tensor([[52.0, 44, 57], [60, 55, 63.5], [48, 50, 46], [80, 70, 75]])
    expect(
        called(chosen_then_tested, validation, test),
        59.5,
        [
            (
                70.0,
                "This is the *validation* score of the best. It was chosen for being high there.",
            ),
            (
                75.0,
                "You chose on the test questions. They have to be new when the choice is made.",
            ),
            (
                48.0,
                "You chose by the best single question. Take the mean over questions first, `dim=1`.",
            ),
            (
                56.0,
                "Test and validation are swapped: you chose on the test, and report validation.",
            ),
            (1.0, "This is the *number* of the chosen strength. What does it have on the test?"),
            (
                float(test.gather(0, validation.argmax(dim=0)[None]).mean()),
                "You chose a strength for each question. There is one for all.",
            ),
            (float(test.mean()), "This is the mean over all strengths. One of them was chosen."),
            (float(test[0].mean()), "This is the first strength. Which one is best on validation?"),
        ],
        what="`chosen_then_tested(validation, test)`",
    )
    return "The test questions had no say in the choice."


def stuffed(stuffed):
    text, words = "a b c d e f g h i f k l m", ["X", "Y", "Z"]
    got = called(stuffed, text, words, 3)
    require(isinstance(got, str), f"It should be a text; found {described(got)}.", "' '.join(...)")
    expect(
        got,
        "a b X d e Y g h Z f k X m",
        [
            ("X b c Y e f Z h i X k l Y", "Off by one: the *third* word is the first to go."),
            ("a b c X e f Y h i Z k l X", "Off by one: the place of the third word is 2."),
            ("a b Y d e Z g h X f k Y m", "Off by one: the first of `words` comes first."),
            (
                "a b X d e X g h X f k X m",
                "Take the words in turn: the next one at the next place.",
            ),
            (
                "a b Z d e Z g h Z f k Z m",
                "Take the words in turn: count the turns, not the places in the text.",
            ),
            (
                "a b c X d e f Y g h i Z f k l X m",
                "You put words in. They should *replace* one, so that the length stays.",
            ),
            (
                "a b X d e Y g h Z Y k X m",
                "A word that stands twice was replaced twice. Write to its place, `parts[place] = ...`.",
            ),
            ("a b X d e Y g h Z f k l m", "After the last word begin again with the first: `%`."),
            ("abXdeYghZfkXm", "The spaces are lost: `' '.join(parts)`."),
        ],
        what="`stuffed('a b c d e f g h i f k l m', ['X', 'Y', 'Z'], 3)`",
    )
    expect(called(stuffed, "only two", words, 3), "only two", what="`stuffed` of a short text")
    return "No steering, no meaning, and some judges love it."


def null_share(null_share):
    expect(
        called(null_share, 30.0, 80.0, 60.0),
        0.6,
        [
            (
                60 / 80,
                "You did not subtract the unsteered score. How much do both *add* to it?",
            ),
            (5 / 3, "Upside down: the null over the prompt."),
            (0.4, "This is what the null lacks to the prompt. What does it have?"),
            (30.0, "This is what the null adds, in points. Divide by what the prompt adds."),
            (-0.6, "Wrong sign: one of the two differences is the wrong way round."),
            (1.0, "You divided by the unsteered score. Divide by what the prompt adds to it."),
            (
                30 / 80,
                "You divided by the prompt's score. Divide by what it adds to the unsteered.",
            ),
            (60.0, "A share is between 0 and 1 here, not in per cent."),
            (60 - 30 / 80 - 30, "Brackets: `(null - unsteered) / (prompt - unsteered)`."),
        ],
        what="`null_share(30.0, 80.0, 60.0)`",
    )
    harm = "A null can do harm. Then its share is below 0; keep the sign."
    expect(
        called(null_share, 30.0, 80.0, 25.0),
        -0.1,
        [(0.1, harm), (0.0, harm)],
        what="`null_share(30.0, 80.0, 25.0)`",
    )
    return "1 is a null that looks as good as the prompt. A judge that gives it is blind there."


def _draws(n: int, seed: int, times: int = 400) -> Tensor:
    return torch.randint(n, (times, n), generator=torch.Generator().manual_seed(seed))


def _scores(n_questions: int, n_samples: int, seed: int) -> Tensor:
    """Scores that differ more between questions than within one."""
    between = 60 + 15 * normal(n_questions, 1, seed=seed)
    return between + 6 * normal(n_questions, n_samples, seed=seed + 100)


def _related() -> tuple[Tensor, Tensor]:
    """Two methods on the same questions, some of which are hard for both."""
    hard = 20 * normal(9, seed=58)
    return 64 + hard + 5 * normal(9, seed=59), 60 + hard + 5 * normal(9, seed=60)


def _middle(means: Tensor) -> Tensor:
    return means.quantile(torch.tensor([0.025, 0.975]))


def _normal_interval(values: Tensor, n: int | None = None) -> Tensor:
    error = 1.96 * values.std() / (n or len(values)) ** 0.5
    return torch.stack([values.mean() - error, values.mean() + error])


def _require_of_list(got: Any, what: str) -> None:
    """A tensor is no key of the notebook's tables, and a strength is looked up in them."""
    require(
        not isinstance(got, Tensor),
        f"{what} should be one of the `strengths`, which are floats; found {described(got)}.",
        "Take it out of the list, `strengths[place]`.",
    )


def _ends(got: Any, what: str) -> Tensor:
    """The two ends of an interval, as a tensor."""
    if getattr(got, "shape", None) == (2,):
        return torch.as_tensor(got).float()
    if not (isinstance(got, (tuple, list)) and len(got) == 2):
        raise NotYet(
            f"{what} should be a pair, the low and the high end; found {described(got)}.",
            "`return low, high`",
        )
    return torch.tensor([as_number(end, "an end of the interval") for end in got])
