"""The checks of unit 9, choosing strength. Each is named like its exercise."""

from typing import Any

import torch
from torch import Tensor

from checks.answers import called, described
from checks.comparing import expect
from checks.material import normal
from checks.verdicts import NotYet, require


def harmonic(harmonic):
    a = torch.tensor([[80.0, 100, 0], [20, 60, 0]])
    c = torch.tensor([[80.0, 10, 90], [90, 30, 0]])
    both = (a + c).clamp(min=1)
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
    expect(
        called(best_strength, strengths, scores),
        1.0,
        [
            (60.0, "This is the score itself. At which *strength* is it?"),
            (2.0, "Two strengths are equally good. Take the weaker one: it does less harm."),
            (4.0, "That strength has the best single question, or is merely the strongest."),
            (0.5, "This is the weakest. Average over questions, then take the largest."),
        ],
        what="`best_strength` of four strengths, with means 45, 60, 60 and 39.75,",
    )
    ascending = torch.tensor([[10.0, 20], [30, 40], [25, 30]])
    expect(
        called(best_strength, [3.0, 6.0, 12.0], ascending),
        6.0,
        [
            (1.0, "This is the *place* in the list. `strengths[...]` is the strength at it."),
            (12.0, "This is the strongest, whatever its score."),
        ],
        what="`best_strength` of strengths 3, 6 and 12, with means 15, 35 and 27.5,",
    )
    return "A peak, and not the far end."


def at_c80(at_c80):
    strengths = [0.5, 1.0, 2.0, 4.0, 8.0, 16.0]
    coherence = [84.0, 78.0, 63.0, 68.0, 66.0, 30.0]
    expect(
        called(at_c80, strengths, coherence, 80.0),
        8.0,
        [
            (0.5, "You asked for a coherence of 80. Asked for is 80 % of the unsteered, here 64."),
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
            (16.0, "This is the strongest, which does not hold the bound."),
            (66.0, "This is the coherence. At which *strength* is it?"),
        ],
        what="`at_c80(strengths, coherence, 80.0)`",
    )
    expect(
        called(at_c80, [1.0, 2.0], [50.0, 30.0], 80.0),
        0.0,
        [(1.0, "No strength holds the bound. Then the answer is 0: do not steer.")],
        what="`at_c80` of two strengths that are both below the bound",
    )
    expect(called(at_c80, [1.0, 2.0], [80.0, 64.0], 80.0), 2.0, what="`at_c80` right at the bound")
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
    right = _middle(torch.stack([scores[s][:, q].mean() for s, q in drawn]))
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
            (right.flip(0), "The low end comes first."),
        ],
        what="`over_seeds(scores, seed_draws, question_draws)`",
    )
    return "For new seeds and new questions at once."


def chosen_then_tested(chosen_then_tested):
    validation = torch.tensor([[50.0, 40, 60], [70, 60, 80], [65, 75, 40]])
    test = torch.tensor([[52.0, 44, 57], [60, 55, 62], [80, 70, 75]])
    expect(
        called(chosen_then_tested, validation, test),
        59.0,
        [
            (
                70.0,
                "This is the *validation* score of the best. It was chosen for being high there.",
            ),
            (
                75.0,
                "You chose on the test questions. They have to be new when the choice is made.",
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
    text, words = "a b c d e f g h i j k", ["X", "Y"]
    got = called(stuffed, text, words, 3)
    require(isinstance(got, str), f"It should be a text; found {described(got)}.", "' '.join(...)")
    expect(
        got,
        "a b X d e Y g h X j k",
        [
            ("X b c Y e f X h i Y k", "Off by one: the *third* word is the first to go."),
            ("a b X d e X g h X j k", "Take the words in turn: the next one at the next place."),
            (
                "a b c X d e f Y g h i X j k",
                "You put words in. They should *replace* one, so that the length stays.",
            ),
            ("a b X d e Y g h i j k", "After the last word begin again with the first: `%`."),
        ],
        what="`stuffed('a b c d e f g h i j k', ['X', 'Y'], 3)`",
    )
    expect(called(stuffed, "only two", words, 3), "only two", what="`stuffed` of a short text")
    return "No steering, no meaning, and some judges love it."


def null_share(null_share):
    expect(
        called(null_share, 40.0, 80.0, 70.0),
        0.75,
        [
            (
                70 / 80,
                "You did not subtract the unsteered score. How much do both *add* to it?",
            ),
            (4 / 3, "Upside down: the null over the prompt."),
            (0.25, "This is what the null lacks to the prompt. What does it have?"),
            (30.0, "This is what the null adds, in points. Divide by what the prompt adds."),
            (-0.75, "Wrong sign: one of the two differences is the wrong way round."),
        ],
        what="`null_share(40.0, 80.0, 70.0)`",
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


def _normal_interval(values: Tensor) -> Tensor:
    error = 1.96 * values.std() / len(values) ** 0.5
    return torch.stack([values.mean() - error, values.mean() + error])


def _ends(got: Any, what: str) -> Tensor:
    """The two ends of an interval, as a tensor."""
    if isinstance(got, Tensor) and got.shape == (2,):
        return got.float()
    if not (isinstance(got, (tuple, list)) and len(got) == 2):
        raise NotYet(
            f"{what} should be a pair, the low and the high end; found {described(got)}.",
            "`return low, high`",
        )
    for end in got:
        size = getattr(end, "numel", lambda: 1)()
        require(size == 1, f"An end should be one number; found {described(end)}.", "Which axis?")
    low, high = (float(end) for end in got)
    return torch.tensor([low, high])
