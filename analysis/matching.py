"""The strength at which a steering scores as the prompt does: "matched" strengths.

A relative error, and every other number, depends on the strength. Two methods are compared fairly
where they have the same effect, so the effect is what is matched: the mean score of a judge over
completions of validation prompts, all sampled with the same seeds.
"""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from analysis.judges.protocol import Judge
from analysis.strengths import AS_FITTED, MATCHED, Entry
from steerlens.generation import Sampling, generate
from steerlens.prompts import Conversation
from steerlens.steering import AnySteering, scaled
from steerlens.types import HookedModel, SteeringWarning

FIRST_STEP = 0.5
LARGEST = 64.0


@dataclass(frozen=True)
class Trial:
    """One strength, and the mean score of the completions under it."""

    strength: float
    score: float


@dataclass(frozen=True)
class Match:
    """The strength found, what was aimed at, and every strength tried on the way.

    `reached` is False where no strength scores as high as the prompt; `strength` is then the best.
    """

    strength: float
    score: float
    prompt_score: float
    plain_score: float
    reached: bool
    trials: tuple[Trial, ...]

    def table(self) -> pd.DataFrame:
        """Strength and score of every trial, sorted by strength."""
        rows = sorted(self.trials, key=lambda trial: trial.strength)
        return pd.DataFrame([vars(trial) for trial in rows])


def match(
    model: HookedModel,
    steering: AnySteering,
    questions: Sequence[str],
    instruction: str,
    judge: Judge,
    *,
    sampling: Sampling | None = None,
    tolerance: float = 2.0,
    halvings: int = 6,
    template: str | None = None,
) -> Match:
    """Bracket the prompt's mean score by doubling the strength, then halve the bracket.

    Stops within `tolerance` points of the prompt's score. `questions` should be validation prompts:
    a strength chosen on the test prompts would flatter the method. NaN scores are left out.
    """
    if not questions:
        raise ValueError("No questions were given. Pass the validation prompts' user turns.")
    sampling = sampling or Sampling()
    trials: dict[float, Trial] = {}

    def score(prompts: list[Conversation], steering: AnySteering | None) -> float:
        made = generate(model, prompts, steering, template=template, **vars(sampling))
        scores = judge(made.texts, [prompts[number] for number in made.prompt])
        if np.isnan(scores).all():
            raise ValueError(
                f"The judge {judge.name!r} could score none of {len(made.texts)} completions. "
                "Does it fit these questions? Look at some completions first."
            )
        return float(np.nanmean(scores))

    plain = [Conversation(question) for question in questions]
    target = score([replace(one, system=instruction) for one in plain], None)
    trials[0.0] = Trial(0.0, score(plain, None))
    sign = 1.0 if target >= trials[0.0].score else -1.0

    def gap(strength: float) -> float:
        if strength not in trials:
            trials[strength] = Trial(strength, score(plain, scaled(steering, strength)))
        return sign * (trials[strength].score - target)

    low, high = 0.0, FIRST_STEP
    while gap(high) < -tolerance and high < LARGEST:
        low, high = high, 2 * high
        if gap(high) < gap(low) - 4 * tolerance and gap(low) < -tolerance:
            break  # beyond its best strength, where the text falls apart
    for _ in range(halvings):
        middle = (low + high) / 2
        if abs(min(gap(low), gap(high), gap(middle), key=abs)) <= tolerance:
            break
        low, high = (middle, high) if gap(middle) < 0 else (low, middle)
    best = min(trials.values(), key=lambda trial: (abs(trial.score - target), trial.strength))
    reached = abs(best.score - target) <= tolerance
    return Match(
        best.strength, best.score, target, trials[0.0].score, reached, tuple(trials.values())
    )


def with_matched(
    model: HookedModel,
    steerings: Mapping[str, AnySteering],
    questions: Sequence[str],
    instruction: str,
    judge: Judge,
    *,
    sampling: Sampling | None = None,
    template: str | None = None,
) -> list[Entry]:
    """Every steering twice: as fitted, and at the strength that scores as the prompt does.

    A steering that never scores as high is left out at that strength, with a warning.
    """
    entries = []
    for name, steering in steerings.items():
        entries.append(Entry(name, steering, AS_FITTED))
        found = match(
            model, steering, questions, instruction, judge, sampling=sampling, template=template
        )
        if found.reached:
            entries.append(Entry(name, scaled(steering, found.strength), MATCHED, found.strength))
        else:
            _warn_unmatched(name, found, judge)
    return entries


def _warn_unmatched(name: str, found: Match, judge: Judge) -> None:
    warnings.warn(
        f"{name} scores {found.score:.0f} on {judge.name!r} at best (strength "
        f"{found.strength:g}), the prompt {found.prompt_score:.0f}: it has no matched strength and "
        "is compared as fitted only.",
        SteeringWarning,
        stacklevel=3,
    )
