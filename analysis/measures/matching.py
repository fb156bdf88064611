"""The strength at which a steering scores as the prompt does: "matched" strengths.

A relative error, and every other number, depends on the strength. Two methods are compared fairly
where they have the same effect, so the effect is what is matched: the mean score of a judge over
completions of validation prompts, all sampled with the same seeds.
"""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from steerlens.generation import Sampling, generate
from steerlens.kinds import require_kinds
from steerlens.prompts import Conversation
from steerlens.steering import Steering
from steerlens.types import HookedModel, SteeringWarning

from ..judges.protocol import Judge, Scores
from .entries import AS_FITTED, MATCHED, Entry
from .search import Match, Search


@dataclass(frozen=True, eq=False)
class Aim:
    """The prompt's scores on the questions, and the unsteered ones: the same for every method."""

    questions: tuple[str, ...]
    judge: Judge
    sampling: Sampling
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
    ) -> "Aim":
        """Sample and score the completions with and without the instruction."""
        if not questions:
            raise ValueError("No questions were given. Pass the validation prompts' user turns.")
        sampling = sampling or Sampling()
        prompted, plain = (
            _scores(model, [Conversation(q, system) for q in questions], None, judge, sampling)
            for system in (instruction, None)
        )
        for scores in (prompted, plain):
            if np.isnan(scores).all():
                raise ValueError(
                    f"The judge {judge.name!r} could score none of {len(scores)} completions. Does "
                    "it fit these questions? Look at some completions first."
                )
        return cls(tuple(questions), judge, sampling, prompted, plain)

    def match(self, model: HookedModel, steering: Steering, tolerance: float, steps: int) -> Match:
        """Search for the strength; `steps` trials at most once the search has a range."""
        search = Search(
            lambda strength: self.scores(model, steering.scaled(strength)),
            self.prompted,
            self.plain,
            tolerance,
        )
        search.double_from_the_first_step()
        search.halve_from_the_first_step()
        search.close_in(steps)
        return search.result()

    def scores(self, model: HookedModel, steering: Steering) -> Scores:
        """The score of every question under a steering, with the random numbers of the prompt's."""
        prompts = [Conversation(question) for question in self.questions]
        return _scores(model, prompts, steering, self.judge, self.sampling)


def _scores(
    model: HookedModel,
    prompts: Sequence[Conversation],
    steering: Steering | None,
    judge: Judge,
    sampling: Sampling,
) -> Scores:
    """The judge's score of one completion of each prompt."""
    made = generate(model, prompts, steering, **vars(sampling))
    return judge(made.texts, [prompts[number] for number in made.prompt])


def match(
    model: HookedModel,
    steering: Steering,
    questions: Sequence[str],
    instruction: str,
    judge: Judge,
    *,
    sampling: Sampling | None = None,
    tolerance: float = 2.0,
    steps: int = 6,
) -> Match:
    """The strength whose mean score is within `tolerance` points of the prompt's.

    `questions` should be validation prompts, and many: a strength chosen on the test prompts would
    flatter the method, and the score of few prompts is mostly chance (`standard_error`).
    """
    require_kinds(match, locals())
    aim = Aim.of(model, questions, instruction, judge, sampling)
    return aim.match(model, steering, tolerance, steps)


def with_matched(
    model: HookedModel,
    steerings: Mapping[str, Steering],
    questions: Sequence[str],
    instruction: str,
    judge: Judge,
    *,
    sampling: Sampling | None = None,
    tolerance: float = 2.0,
    steps: int = 6,
) -> list[Entry]:
    """Every steering twice: as fitted, and at the strength that scores as the prompt does.

    A steering that never scores as high is left out at that strength, with a warning; so are all
    of them where the prompt itself has no effect on the score.
    """
    require_kinds(with_matched, locals())
    aim = Aim.of(model, questions, instruction, judge, sampling)
    entries = []
    for name, steering in steerings.items():
        entries.append(Entry(name, steering, AS_FITTED))
        best = aim.match(model, steering, tolerance, steps)
        if best.reached and best.strength > 0:
            entries.append(Entry(name, steering.scaled(best.strength), MATCHED, best.strength))
            continue
        warnings.warn(
            f"{name} has no matched strength and is compared as fitted only: "
            f"{_reason(best, judge, tolerance)}.",
            SteeringWarning,
            stacklevel=2,
        )
    return entries


def _reason(best: Match, judge: Judge, tolerance: float) -> str:
    """Why no strength is used."""
    if best.reached:
        return (
            f"the instruction itself changes the score on {judge.name!r} by no more than "
            f"{tolerance:g} points ({best.plain_score:.0f} to {best.prompt_score:.0f})"
        )
    return (
        f"it scores {best.score:.0f} on {judge.name!r} at best (strength {best.strength:g}), the "
        f"prompt {best.prompt_score:.0f}"
    )
