"""How a configuration and a strength are chosen: from validation scores, and from nothing else.

harmonic   the largest mean over completions of 2 a c / (a + c), a the attribute and c coherence
C80        the largest strength whose mean coherence is 80 % of the unsteered, read off the curve;
           the strongest tried where that one has more, the weakest where that one has less
equal KL   strength 1: the prompt's own KL on training answers

One configuration of a method is kept for all rules: the one with the best harmonic mean. Of equal
values the weaker strength, and the earlier configuration, is taken. Fits of other seeds use the
same number of *their own* units.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

Scores = Float[np.ndarray, "question sample"]
INSIDE, BEYOND, BEFORE = "inside", "beyond the strongest", "before the weakest"


@dataclass(frozen=True, eq=False)
class Curve:
    """Validation scores of one configuration at each strength that was tried."""

    attribute: Mapping[float, Scores]
    coherence: Mapping[float, Scores]

    def harmonic(self, strength: float) -> float:
        """Mean over completions, one without an attribute score counted as 0."""
        return harmonic(self.attribute[strength], self.coherence[strength])


@dataclass(frozen=True)
class Chosen:
    """A configuration, and a strength in units of the fit.

    `crossing` says where the rule's threshold lies: inside the strengths tried (the strength has
    it), beyond the strongest (which is chosen, and has more coherence than the rule asks for), or
    before the weakest (which is chosen, and has less). It is "" for a rule without a threshold.
    """

    configuration: int
    strength: float
    crossing: str = ""

    @property
    def met(self) -> bool:
        """Whether the strength has at least the coherence that the rule asks for."""
        return self.crossing != BEFORE


def harmonic(attribute: Scores, coherence: Scores) -> float:
    """The mean of 2 a c / (a + c) over completions; no score counts as 0."""
    return float(harmonic_scores(attribute, coherence).mean())


def harmonic_scores(attribute: Scores, coherence: Scores) -> Scores:
    """2 a c / (a + c) of every completion; 0 where there is no score."""
    a, c = np.nan_to_num(attribute), np.nan_to_num(coherence)
    total = a + c
    return np.where(total > 0, 2 * a * c / np.where(total > 0, total, 1), 0.0)


def choose(rule: str, curves: Mapping[int, Curve], unsteered: Scores) -> Chosen:
    """The choice of a rule; `unsteered` is the coherence of the model itself, on validation."""
    configuration = max(
        sorted(curves), key=lambda number: _best(curves[number])[1]
    )  # max keeps the first of equals
    curve = curves[configuration]
    if rule == "harmonic":
        return Chosen(configuration, _best(curve)[0])
    if rule == "equal KL":
        return Chosen(configuration, 1.0)
    if rule == "C80":
        strength, crossing = at_coherence(curve, 0.8 * float(np.nanmean(unsteered)))
        return Chosen(configuration, strength, crossing)
    raise ValueError(f"No rule is called {rule!r}.")


def _best(curve: Curve) -> tuple[float, float]:
    """The strength with the best harmonic mean, and that mean."""
    strength = max(sorted(curve.attribute), key=curve.harmonic)
    return strength, curve.harmonic(strength)


def at_coherence(curve: Curve, target: float) -> tuple[float, str]:
    """The largest strength with this mean coherence, and where the crossing lies.

    Inside the strengths tried it is read off a straight line between two of them. Where the
    strongest still has this coherence or more it is the strongest ("beyond the strongest"); where
    even the weakest has less it is the weakest ("before the weakest").
    """
    strengths = sorted(curve.coherence)
    found = [float(np.nanmean(curve.coherence[s])) for s in strengths]
    holding = [number for number, value in enumerate(found) if value >= target]
    if not holding:
        return strengths[0], BEFORE
    last = holding[-1]
    if last == len(strengths) - 1:
        return strengths[-1], BEYOND
    share = (found[last] - target) / (found[last] - found[last + 1])
    low, high = np.log(strengths[last]), np.log(strengths[last + 1])
    return float(f"{np.exp(low + share * (high - low)):.3g}"), INSIDE
