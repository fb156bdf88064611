"""What a steering's effect costs in coherence: both, over its strength, on the same questions.

Any steering shows the attribute if it is strong enough, and breaks the text if it is stronger
still. So methods are compared where the coherence is the same: TA@C80 is the attribute score at the
largest strength whose mean coherence is 80, TA@Cp that at the coherence of prompting
(arXiv 2605.03907, section 5); `c80` and `cp` are these bounds.

    setting = Setting(model, benchmark_set.read("positive").questions("validation"),
                      judge_of("positive"), Coherence(), n=2)
    best = Tradeoff(setting, steering).at_coherence(c80(setting.score().mean_coherence))
    best.strength, best.scored.row()  # means with intervals

Every completion of a setting is drawn with the same random numbers, so strengths and methods differ
by what they do and not by the draw.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from jaxtyping import Float

from steerlens.checks import warn_if_few
from steerlens.generation import Sampling, generate
from steerlens.kinds import require_kinds
from steerlens.prompts import Conversation
from steerlens.steering import Steering
from steerlens.types import HookedModel

from ..judges.protocol import Judge, Prompt, Scores
from .intervals import interval_of_mean
from .plain_side import noted

LARGEST, SMALLEST = 64.0, 1 / 64
UNSTEERED, PROMPT = "unsteered", "prompt"


@dataclass(frozen=True, eq=False)
class Scored:
    """Both scores (0 to 100) of every completion, one row a question, one column a sample."""

    attribute: Float[np.ndarray, "question sample"]
    coherence: Float[np.ndarray, "question sample"]

    @property
    def mean_attribute(self) -> float:
        """Mean over the completions that could be scored; NaN if none could."""
        return _mean(self.attribute)

    @property
    def mean_coherence(self) -> float:
        """Mean over the completions that could be scored; NaN if none could."""
        return _mean(self.coherence)

    def row(self, seed: int = 0) -> dict[str, float]:
        """Means with their 95 % intervals over questions, and how many had an attribute score."""
        columns: dict[str, float] = {}
        for name, scores in (("attribute", self.attribute), ("coherence", self.coherence)):
            low, high = interval_of_mean(by_question(scores), seed=seed)
            columns |= {name: _mean(scores), f"{name}_low": low, f"{name}_high": high}
        scored = int((~np.isnan(self.attribute)).sum())
        return {**columns, "n": self.attribute.size, "scored": scored}


@dataclass(frozen=True, eq=False)
class Setting:
    """The questions, judges and random numbers that methods are compared under.

    A question is a user turn, or raw text for a model without turns. `n` completions each are
    sampled; temperature 1 unless `sampling` says otherwise.
    """

    model: HookedModel
    questions: Sequence[str]
    attribute: Judge
    coherence: Judge
    sampling: Sampling = field(default_factory=Sampling)
    n: int = 1
    raw: bool = False
    batch_size: int = 32

    def __post_init__(self) -> None:
        if not self.questions:
            raise ValueError("No questions were given. Pass the user turns of some prompts.")
        if self.n < 1:
            raise ValueError(f"n, the completions of each question, must be at least 1: {self.n}.")

    def score(self, steering: Steering | None = None, instruction: str | None = None) -> Scored:
        """Sample and judge, steered or instructed, both, or neither.

        The instruction is a system turn; for raw questions it is put in front of them.
        """
        prompts = [self._prompt(question, instruction) for question in self.questions]
        made = generate(
            self.model,
            prompts,
            steering,
            n=self.n,
            batch_size=self.batch_size,
            **vars(self.sampling),
        )
        # Judges see what was asked, not how it was steered: all see the same prompts.
        asked = [self._prompt(self.questions[number], None) for number in made.prompt]
        shape = (len(self.questions), self.n)
        order = np.lexsort((made.sample, made.prompt))
        attribute, coherence = (
            np.asarray(judge(made.texts, asked), dtype=np.float64)[order].reshape(shape)
            for judge in (self.attribute, self.coherence)
        )
        return Scored(attribute, coherence)

    def _prompt(self, question: str, instruction: str | None) -> Prompt:
        if self.raw:
            return (instruction or "") + question
        return Conversation(question, instruction)


def c80(unsteered: float, absolute: bool = False) -> float:
    """The coherence of TA@C80: 80 % of the unsteered mean, or 80 itself for a judge model."""
    require_kinds(c80, locals())
    return 80.0 if absolute else 0.8 * unsteered


def cp(unsteered: float, prompted: float, tolerance: float = 0.0) -> float:
    """The coherence of TA@Cp: the mean of prompting less `tolerance`, never above the unsteered.

    A prompt can make text more coherent than the model's own; no strength need reach that.
    """
    require_kinds(cp, locals())
    return min(prompted, unsteered) - tolerance


@dataclass(frozen=True, eq=False)
class AtCoherence:
    """The largest strength found whose mean coherence is not below `target`.

    `reached` is False where no strength tried is that coherent; then it is the most coherent one.
    `bounded` is False where the coherence was not yet below the target at the largest strength.
    """

    target: float
    strength: float
    scored: Scored
    reached: bool
    bounded: bool


@dataclass(eq=False)
class Tradeoff:
    """One steering under a setting: every strength is sampled and judged once."""

    setting: Setting
    steering: Steering
    tried: dict[float, Scored] = field(default_factory=dict)

    def at(self, strength: float) -> Scored:
        """The scores at this strength; 0 is unsteered."""
        if strength not in self.tried:
            acting = self.steering.scaled(strength) if strength else None
            self.tried[strength] = self.setting.score(acting)
        return self.tried[strength]

    def at_coherence(self, target: float, *, bisections: int = 7) -> AtCoherence:
        """Double from 1 until the mean coherence is below `target`, then bisect.

        Where 1 is already too strong the search goes down in halves first.
        """
        low, high = self._bracket(target)
        if low > 0 and high < np.inf:
            for _ in range(bisections):
                middle = (low + high) / 2
                low, high = (middle, high) if self._holds(middle, target) else (low, middle)
        holding = [s for s in self.tried if s > 0 and self._holds(s, target)]
        if not holding:
            some = [s for s in self.tried if s > 0]
            best = max(some, key=lambda s: np.nan_to_num(self.at(s).mean_coherence, nan=-1))
            return AtCoherence(target, best, self.at(best), False, True)
        best = max(holding)
        return AtCoherence(target, best, self.at(best), True, high < np.inf)

    def _bracket(self, target: float) -> tuple[float, float]:
        """A strength that holds the target and one above that does not; 0 or infinity for none."""
        strength = 1.0
        if self._holds(strength, target):
            while self._holds(strength, target):
                if strength >= LARGEST:
                    return strength, float("inf")
                strength *= 2
            return strength / 2, strength
        while strength > SMALLEST:
            strength /= 2
            if self._holds(strength, target):
                return strength, 2 * strength
        return 0.0, strength

    def _holds(self, strength: float, target: float) -> bool:
        return self.at(strength).mean_coherence >= target

    def table(self) -> pd.DataFrame:
        """A row for every strength tried: strength, and the columns of `Scored.row`."""
        rows = [{"strength": s, **self.tried[s].row()} for s in sorted(self.tried)]
        return pd.DataFrame(rows)


def tradeoff(
    setting: Setting,
    steerings: Mapping[str, Steering],
    strengths: Sequence[float],
    instruction: str | None = None,
) -> pd.DataFrame:
    """The scores of every steering at every strength, of the unsteered model and of the prompt.

    Columns: method, strength, attribute, attribute_low, attribute_high, coherence, coherence_low,
    coherence_high, n, scored. The strength of "unsteered" and "prompt" is NaN.
    """
    require_kinds(tradeoff, locals())
    taken = sorted({UNSTEERED, PROMPT} & set(steerings))
    if taken:
        raise ValueError(f"{', '.join(taken)}: this name is taken. Call the steering otherwise.")
    warn_if_few(len(setting.questions), "tradeoff")
    no_strength = float("nan")
    rows = [{"method": UNSTEERED, "strength": no_strength, **setting.score().row()}]
    if instruction is not None:
        scored = setting.score(instruction=instruction)
        rows.append({"method": PROMPT, "strength": no_strength, **scored.row()})
    for name, steering in steerings.items():
        curve = Tradeoff(setting, steering)
        for strength in strengths:
            rows.append({"method": name, "strength": strength, **curve.at(strength).row()})
    table = pd.DataFrame(rows)
    return table if setting.raw else noted(table, setting.model)


def by_question(scores: Float[np.ndarray, "question sample"]) -> Scores:
    """The mean of each question's samples, NaN where none has a score."""
    scored = ~np.isnan(scores)
    counts = scored.sum(axis=1)
    sums = np.where(scored, scores, 0).sum(axis=1)
    return np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)


def _mean(scores: Float[np.ndarray, "question sample"]) -> float:
    return float("nan") if np.isnan(scores).all() else float(np.nanmean(scores))
