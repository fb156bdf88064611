"""The search for the strength whose mean score is the prompt's, over scores of the same questions.

The score need not rise with the strength for long: far above the prompt's effect the text falls
apart. So the search doubles the strength until the prompt's score is passed or two steps in a row
are worse, and goes down in halves where even the first step was too strong; then it bisects the
lowest crossing, or, where there is none, closes in on the best strength from both sides.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
import pandas as pd

from ..judges.protocol import Scores

FIRST, SMALLEST, LARGEST = 0.5, 1 / 64, 64.0
MOST_UNSCORED = 0.2
"""Share of completions that a judge may leave without a score before the text counts as broken."""


@dataclass(frozen=True)
class Trial:
    """One strength, the mean score under it, and how many of `n` completions had a score."""

    strength: float
    score: float
    scored: int
    n: int

    @classmethod
    def of(cls, strength: float, scores: Scores) -> "Trial":
        """What the scores of all completions under a strength come to."""
        scored = int((~np.isnan(scores)).sum())
        return cls(strength, float(np.nanmean(scores)) if scored else np.nan, scored, len(scores))

    @property
    def broken(self) -> bool:
        """Whether too many completions could not be scored."""
        return self.scored < (1 - MOST_UNSCORED) * self.n


@dataclass(frozen=True)
class Match:
    """The strength that was chosen, what was aimed at, and every strength tried on the way.

    `reached` is False where no strength scores as high as the prompt; `strength` is then the best
    of those tried. `standard_error` is that of the mean difference from the prompt's score, over
    the same questions: a match is no better known than that.
    """

    strength: float
    score: float
    prompt_score: float
    plain_score: float
    standard_error: float
    reached: bool
    trials: tuple[Trial, ...]

    def table(self) -> pd.DataFrame:
        """Strength, score, and numbers of completions of every trial, sorted by strength."""
        rows = sorted(self.trials, key=lambda trial: trial.strength)
        return pd.DataFrame([vars(trial) for trial in rows])


@dataclass(eq=False)
class Search:
    """The strengths tried for one steering: `scores_at` is asked once for each, 0 is unsteered."""

    scores_at: Callable[[float], Scores]
    prompted: Scores
    plain: Scores
    tolerance: float
    tried: dict[float, Scores] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.tried[0.0] = self.plain

    @property
    def target(self) -> float:
        """The mean score of the prompt."""
        return float(np.nanmean(self.prompted))

    @property
    def start(self) -> float:
        """The mean score without prompt and steering."""
        return float(np.nanmean(self.plain))

    def trial(self, strength: float) -> Trial:
        """What a strength scores."""
        if strength not in self.tried:
            self.tried[strength] = self.scores_at(strength)
        return Trial.of(strength, self.tried[strength])

    def gap(self, strength: float) -> float:
        """How far the score is beyond the prompt's, in the direction of the prompt's effect."""
        trial = self.trial(strength)
        sign = 1.0 if self.target >= self.start else -1.0
        return -np.inf if trial.broken else sign * (trial.score - self.target)

    @property
    def done(self) -> bool:
        """Whether a strength scores as the prompt does."""
        return any(abs(self.gap(strength)) <= self.tolerance for strength in self.tried)

    @property
    def strongest(self) -> float:
        """The strength with the most effect of those tried."""
        return max(self.tried, key=self.gap)

    def double_from_the_first_step(self) -> None:
        """Until the prompt's score is passed, or two steps in a row are worse than the best."""
        strength, worse = FIRST, 0
        while not self.done and self.gap(strength) < 0 and strength < LARGEST and worse < 2:
            strength *= 2
            worse = worse + 1 if self._is_worse(strength) else 0

    def halve_from_the_first_step(self) -> None:
        """The same downwards, where nothing passed the prompt's score on the way up."""
        strength, worse = FIRST, 0
        while not self.done and self.gap(self.strongest) < 0 and strength > SMALLEST and worse < 2:
            if self.strongest > FIRST:
                return  # the best lies above: nothing to look for below
            strength /= 2
            worse = worse + 1 if self._is_worse(strength) else 0

    def _is_worse(self, strength: float) -> bool:
        """Whether a strength has less effect than the best; it is tried first."""
        return self.gap(strength) <= self.gap(self.strongest) - 1e-9

    def close_in(self, steps: int) -> None:
        """Try the middle of the most promising range, so many times at most."""
        for _ in range(steps):
            if self.done:
                return
            self.trial(self._next())

    def _next(self) -> float:
        """The middle of the lowest crossing, else of the wider side of the strongest."""
        strengths = sorted(self.tried)
        for low, high in pairwise(strengths):
            if self.gap(low) < 0 <= self.gap(high):
                return (low + high) / 2
        best = max(range(len(strengths)), key=lambda i: self.gap(strengths[i]))
        sides = [strengths[max(best - 1, 0)], strengths[min(best + 1, len(strengths) - 1)]]
        return (strengths[best] + max(sides, key=lambda side: abs(side - strengths[best]))) / 2

    def result(self) -> Match:
        """The strength nearest the prompt's score, the weaker of two that are as near."""
        best = min(self.tried, key=lambda strength: (abs(self.gap(strength)), strength))
        return Match(
            strength=best,
            score=self.trial(best).score,
            prompt_score=self.target,
            plain_score=self.start,
            standard_error=_standard_error(self.tried[best] - self.prompted),
            reached=self.done,
            trials=tuple(map(self.trial, self.tried)),
        )


def _standard_error(differences: Scores) -> float:
    """Of the mean over the questions with both scores; NaN for fewer than two."""
    both = differences[~np.isnan(differences)]
    return float(both.std(ddof=1) / len(both) ** 0.5) if len(both) > 1 else np.nan
