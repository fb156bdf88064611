"""The strength at which a steering scores as the prompt does: "matched" strengths.

A relative error, and every other number, depends on the strength. Two methods are compared fairly
where they have the same effect, so the effect is what is matched: the mean score of a judge over
completions of validation prompts, all sampled with the same seeds.

The score need not rise with the strength for long: far above the prompt's effect the text falls
apart. So the search doubles the strength until the prompt's score is passed or two steps in a row
are worse, and goes down in halves where even the first step was too strong; then it bisects the
lowest crossing, or, where there is none, closes in on the best strength from both sides.
"""

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pandas as pd

from steerlens.generation import Sampling, generate
from steerlens.prompts import Conversation
from steerlens.steering import AnySteering, scaled
from steerlens.types import HookedModel, SteeringWarning

from ..judges.protocol import Judge, Scores
from .entries import AS_FITTED, MATCHED, Entry

FIRST, SMALLEST, LARGEST = 0.5, 1 / 64, 64.0
Gap = Callable[[float], float]
Done = Callable[[], bool]
MOST_UNSCORED = 0.2
"""Share of completions that a judge may leave without a score before the text counts as broken."""


@dataclass(frozen=True)
class Trial:
    """One strength, the mean score under it, and how many of `n` completions had a score."""

    strength: float
    score: float
    scored: int
    n: int

    @property
    def broken(self) -> bool:
        """Whether too many completions could not be scored."""
        return self.scored < (1 - MOST_UNSCORED) * self.n


@dataclass(frozen=True)
class Match:
    """The strength found, what was aimed at, and every strength tried on the way.

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


@dataclass(frozen=True, eq=False)
class Aim:
    """The prompt's scores on the questions, and the unsteered ones: the same for every method."""

    questions: tuple[str, ...]
    judge: Judge
    sampling: Sampling
    template: str | None
    prompted: Scores
    plain: Scores

    @classmethod
    def of(
        cls,
        model: HookedModel,
        questions: Sequence[str],
        instruction: str,
        judge: Judge,
        sampling: Sampling | None = None,
        template: str | None = None,
    ) -> "Aim":
        """Sample and score the completions with and without the instruction."""
        if not questions:
            raise ValueError("No questions were given. Pass the validation prompts' user turns.")
        with_and_without = [
            [Conversation(question, system) for question in questions]
            for system in (instruction, None)
        ]
        sampling = sampling or Sampling()
        prompted, plain = (
            _scores(model, prompts, None, judge, sampling, template) for prompts in with_and_without
        )
        for found in (prompted, plain):
            if np.isnan(found).all():
                raise ValueError(
                    f"The judge {judge.name!r} could score none of {len(found)} completions. Does "
                    "it fit these questions? Look at some completions first."
                )
        return cls(tuple(questions), judge, sampling, template, prompted, plain)

    def match(
        self, model: HookedModel, steering: AnySteering, tolerance: float, steps: int
    ) -> Match:
        """Search for the strength; `steps` trials at most once the search has a range."""
        target, plain = float(np.nanmean(self.prompted)), float(np.nanmean(self.plain))
        sign = 1.0 if target >= plain else -1.0
        scores = {0.0: self.plain}

        def trial(strength: float) -> Trial:
            if strength not in scores:
                prompts = [Conversation(question) for question in self.questions]
                steered = scaled(steering, strength)
                scores[strength] = _scores(
                    model, prompts, steered, self.judge, self.sampling, self.template
                )
            found = scores[strength]
            scored = int((~np.isnan(found)).sum())
            return Trial(
                strength, float(np.nanmean(found)) if scored else np.nan, scored, len(found)
            )

        def gap(strength: float) -> float:
            """How far the score is beyond the prompt's, in the direction of its effect."""
            found = trial(strength)
            return -np.inf if found.broken else sign * (found.score - target)

        def done() -> bool:
            return any(abs(gap(strength)) <= tolerance for strength in list(scores))

        _survey(gap, scores, done)
        for _ in range(steps):
            if done():
                break
            gap(_next_between(sorted(scores), gap))
        best = min(scores, key=lambda strength: (abs(gap(strength)), strength))
        difference = scores[best] - self.prompted
        known = difference[~np.isnan(difference)]
        error = float(known.std(ddof=1) / len(known) ** 0.5) if len(known) > 1 else np.nan
        trials = tuple(trial(strength) for strength in scores)
        return Match(best, trial(best).score, target, plain, error, done(), trials)


def _scores(
    model: HookedModel,
    prompts: Sequence[Conversation],
    steering: AnySteering | None,
    judge: Judge,
    sampling: Sampling,
    template: str | None,
) -> Scores:
    """The judge's score of one completion of each prompt."""
    made = generate(model, prompts, steering, template=template, **vars(sampling))
    return judge(made.texts, [prompts[number] for number in made.prompt])


def _survey(gap: Gap, tried: Mapping[float, object], done: Done) -> None:
    """Double from the first step up, or halve it, until the prompt's score lies between two."""
    strength, worse = FIRST, 0
    while not done() and gap(strength) < 0 and strength < LARGEST and worse < 2:
        strength *= 2
        worse = worse + 1 if gap(strength) <= max(map(gap, list(tried))) - 1e-9 else 0
    strength, worse = FIRST, 0
    while not done() and max(map(gap, list(tried))) < 0 and strength > SMALLEST and worse < 2:
        if max(list(tried), key=gap) > FIRST:
            return  # the best lies above: nothing to look for below
        strength /= 2
        worse = worse + 1 if gap(strength) <= max(map(gap, list(tried))) - 1e-9 else 0


def _next_between(strengths: Sequence[float], gap: Gap) -> float:
    """The middle of the lowest crossing, else of the wider side of the best strength."""
    for low, high in pairwise(strengths):
        if gap(low) < 0 <= gap(high):
            return (low + high) / 2
    best = max(range(len(strengths)), key=lambda i: gap(strengths[i]))
    sides = [strengths[max(best - 1, 0)], strengths[min(best + 1, len(strengths) - 1)]]
    return (strengths[best] + max(sides, key=lambda side: abs(side - strengths[best]))) / 2


def match(
    model: HookedModel,
    steering: AnySteering,
    questions: Sequence[str],
    instruction: str,
    judge: Judge,
    *,
    sampling: Sampling | None = None,
    tolerance: float = 2.0,
    steps: int = 6,
    template: str | None = None,
) -> Match:
    """The strength whose mean score is within `tolerance` points of the prompt's.

    `questions` should be validation prompts, and many: a strength chosen on the test prompts would
    flatter the method, and the score of few prompts is mostly chance (`standard_error`).
    """
    aim = Aim.of(model, questions, instruction, judge, sampling, template)
    return aim.match(model, steering, tolerance, steps)


def with_matched(
    model: HookedModel,
    steerings: Mapping[str, AnySteering],
    questions: Sequence[str],
    instruction: str,
    judge: Judge,
    *,
    sampling: Sampling | None = None,
    tolerance: float = 2.0,
    steps: int = 6,
    template: str | None = None,
) -> list[Entry]:
    """Every steering twice: as fitted, and at the strength that scores as the prompt does.

    A steering that never scores as high is left out at that strength, with a warning; so are all
    of them where the prompt itself has no effect on the score.
    """
    aim = Aim.of(model, questions, instruction, judge, sampling, template)
    entries = []
    for name, steering in steerings.items():
        entries.append(Entry(name, steering, AS_FITTED))
        found = aim.match(model, steering, tolerance, steps)
        if found.reached and found.strength > 0:
            entries.append(Entry(name, scaled(steering, found.strength), MATCHED, found.strength))
            continue
        reason = (
            f"the instruction itself changes the score on {judge.name!r} by no more than "
            f"{tolerance:g} points ({found.plain_score:.0f} to {found.prompt_score:.0f})"
            if found.reached
            else f"it scores {found.score:.0f} on {judge.name!r} at best (strength "
            f"{found.strength:g}), the prompt {found.prompt_score:.0f}"
        )
        warnings.warn(
            f"{name} has no matched strength and is compared as fitted only: {reason}.",
            SteeringWarning,
            stacklevel=2,
        )
    return entries
