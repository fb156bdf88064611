"""Estimates of the bench with their 95 % intervals: means, paired differences, ratios.

    mean_score(scores[seed, question])                    one method on one attribute
    mean_of([...])                                        over attributes
    difference(a, b), ratio(above, below)                 paired on the same seeds and questions

Each holds for new seeds and new questions, not for those of the data alone (`variance` has the
formulas). `coverage_note` says how often such intervals hold what they estimate, by simulation.
"""

from collections.abc import Collection
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import TypeAlias

import numpy as np
from jaxtyping import Float

from steerlens.digests import require_signed
from steerlens.parsing import parse_json

from .variance import (
    N_DRAWS,
    Draws,
    Values,
    error_of_mean,
    present,
    quantile,
    resampled_means,
    resampled_sums,
    rescaled,
)

Bounds: TypeAlias = tuple[float, float]
SCORES: Bounds = (0.0, 100.0)
NONE: Bounds = (-np.inf, np.inf)
COVERAGE = Path(__file__).with_name("coverage.json")
"""What `scripts/bench/coverage.py` measured."""


@dataclass(frozen=True, eq=False)
class Estimate:
    """A number with its 95 % interval; NaN where a single value tells nothing of the spread.

    `resampled` is the number in resamples of seeds and questions, spread as wide as the interval
    and not clipped to bounds. Estimates of one shape share their resamples: those of several
    methods, layers or attributes are compared draw by draw. With one seed the interval is about
    new questions alone.
    """

    value: float
    low: float
    high: float
    resampled: Draws
    n_seeds: int
    n_questions: int
    standard_error: float = float("nan")
    degrees_of_freedom: float = 0.0

    def __str__(self) -> str:
        text = f"{self.value:.2f} [{self.low:.2f}, {self.high:.2f}]"
        return text if self.n_seeds > 1 else f"{text} (one seed: says nothing of others)"

    def __neg__(self) -> "Estimate":
        """The same of the other sign: b - a for a - b."""
        low, high = 0.0 - self.high, 0.0 - self.low  # 0 stays 0, and is not written as -0.0
        draws = 0.0 - self.resampled
        return replace(self, value=0.0 - self.value, low=low, high=high, resampled=draws)


def mean_score(scores: Values, *, bounds: Bounds = SCORES, draw: int = 0) -> Estimate:
    """The mean over seeds and questions, without NaN; the interval is clipped to the bounds.

    Give each attribute a `draw` of its own: its seeds are then resampled apart from those of the
    others. NaN for scores that are all NaN. ValueError for a score outside the bounds.
    """
    _require_within(scores, bounds)
    kept = present(scores)
    if not kept.size:
        return _nothing(np.nan, kept.shape)
    error, degrees = error_of_mean(kept)
    return _symmetric(
        float(np.nanmean(kept)), error, degrees, resampled_means(kept, draw), kept.shape, bounds
    )


def difference(a: Values, b: Values, *, draw: int = 0) -> Estimate:
    """The mean of a - b over the seeds and questions that both have.

    One that has a single seed (nothing in it is random) is compared with each seed of the other.
    ValueError for other shapes that differ.
    """
    return mean_score(paired(a, b), bounds=NONE, draw=draw)


def paired(a: Values, b: Values) -> Values:
    """The difference a - b, [seed, question]; ValueError for other seeds or questions."""
    same = a.shape[1] == b.shape[1] and (a.shape[0] == b.shape[0] or 1 in (a.shape[0], b.shape[0]))
    if not same:
        raise ValueError(
            f"A paired comparison needs the same seeds and questions on both sides; found "
            f"{a.shape} and {b.shape} seeds and questions. Take the seeds that both were run with."
        )
    return a - b


def ratio(above: Values, below: Values, *, root: bool = True, draw: int = 0) -> Estimate:
    """sqrt(sum(above) / sum(below)) over what both have, or without the root: relRMSE, shares.

    The interval is made for the logarithm, linearised, so that it is above 0 and wider upwards.
    ValueError for negative values, and for a sum below that is 0.
    """
    above, below = _both(above, below)
    if not above.size:
        return _nothing(np.nan, above.shape)
    sums = float(np.nansum(above)), float(np.nansum(below))
    if sums[1] == 0:
        raise ValueError("What the ratio divides by sums up to 0. Leave this case out.")
    if sums[0] == 0:
        return _nothing(0.0, above.shape)
    power = 0.5 if root else 1.0
    error, degrees = error_of_mean(above / np.nanmean(above) - below / np.nanmean(below))
    upper, lower = resampled_sums(above, draw), resampled_sums(below, draw)
    known = (upper > 0) & (lower > 0)
    logs = np.log(np.divide(upper, lower, out=np.full_like(upper, sums[0] / sums[1]), where=known))
    value = power * float(np.log(sums[0] / sums[1]))
    return _exponential(_symmetric(value, power * error, degrees, power * logs, above.shape))


def _both(above: Values, below: Values) -> tuple[Values, Values]:
    """Both, where both have a value."""
    missing = np.isnan(paired(above, below))
    above, below = (
        np.where(missing, np.nan, np.broadcast_to(side, missing.shape)) for side in (above, below)
    )
    if np.nanmin(above, initial=0.0) < 0 or np.nanmin(below, initial=0.0) < 0:
        raise ValueError("A ratio of sums needs values of 0 or more; found a negative one.")
    return present(above), present(below)


def _exponential(one: Estimate) -> Estimate:
    value, low, high = np.exp([one.value, one.low, one.high]).tolist()
    return replace(
        one,
        value=value,
        low=low,
        high=high,
        resampled=np.exp(one.resampled),
        standard_error=value * one.standard_error,
    )


def mean_of(estimates: Collection[Estimate], *, bounds: Bounds = NONE) -> Estimate:
    """The mean of estimates, one for each attribute.

    What the attributes have in common (the same questions) is read off their resamples; where they
    vary against each other nothing is gained by it. ValueError for none.
    """
    ones = list(estimates)
    if not ones:
        raise ValueError("A mean over attributes needs at least one; found none.")
    n = len(ones)
    errors = np.array([one.standard_error for one in ones]) / n
    draws = np.stack([one.resampled for one in ones])
    together = max(float(errors @ (_correlations(draws) @ errors)) - float(errors @ errors), 0.0)
    variance = float(errors @ errors) + together
    n_questions = min(one.n_questions for one in ones)
    told = sum(e**4 / one.degrees_of_freedom for e, one in zip(errors, ones, strict=True) if e > 0)
    told += together**2 / max(n_questions - 1, 1)
    value = float(np.mean([one.value for one in ones]))
    degrees = variance**2 / told if told else min(one.degrees_of_freedom for one in ones)
    shape = min(one.n_seeds for one in ones), n_questions
    return _symmetric(value, variance**0.5, degrees, draws.mean(axis=0), shape, bounds)


def _correlations(
    draws: Float[np.ndarray, "attribute resample"],
) -> Float[np.ndarray, "attribute attribute"]:
    """Of the resamples; what does not vary goes with nothing."""
    centred = draws - draws.mean(axis=1, keepdims=True)
    norms = np.linalg.norm(centred, axis=1, keepdims=True)
    unit = np.divide(centred, norms, out=np.zeros_like(centred), where=norms > 0)
    found = unit @ unit.T
    np.fill_diagonal(found, 1.0)
    return found


def _symmetric(
    value: float,
    error: float,
    degrees: float,
    draws: Draws,
    shape: tuple[int, ...],
    bounds: Bounds = NONE,
) -> Estimate:
    half = quantile(degrees) * error
    low, high = value - half, value + half
    return Estimate(
        value,
        max(low, bounds[0]) if low == low else low,
        min(high, bounds[1]) if high == high else high,
        rescaled(draws, value, low, high),
        shape[0],
        shape[1],
        error,
        degrees,
    )


def _nothing(value: float, shape: tuple[int, ...]) -> Estimate:
    """Of values that are all NaN, or all 0."""
    draws = np.full(N_DRAWS, value)
    return Estimate(value, value, value, draws, shape[0], shape[1], value, 0.0)


def _require_within(scores: Values, bounds: Bounds) -> None:
    low, high = float(np.nanmin(scores, initial=np.inf)), float(np.nanmax(scores, initial=-np.inf))
    if low < bounds[0] or high > bounds[1]:
        raise ValueError(
            f"These scores should be from {bounds[0]:g} to {bounds[1]:g}; found {low:g} to "
            f"{high:g}. Pass bounds=(low, high) of this scale, or (-inf, inf)."
        )


def coverage_note(n_seeds: int) -> str:
    """How often the intervals held what they estimate, for the head of a table.

    Without a simulation of this number of seeds, that of the next lower number that there is.
    """
    found = _coverage()
    below = [n for n in found if n <= n_seeds]
    if n_seeds == 1:
        return "intervals of one seed say nothing of other seeds"
    if not below:
        return f"intervals of {n_seeds} seeds, whose coverage was not simulated: take 3 or more"
    one = found[max(below)]
    return (
        f"95 % intervals, which covered {one['low']:.2f} to {one['high']:.2f} in simulations with "
        f"{max(below)} seeds ({one['failing']:.2f} where one seed in three fails)"
    )


@cache
def _coverage() -> dict[int, dict[str, float]]:
    try:
        content = parse_json(COVERAGE.read_text(encoding="utf-8"))
        found = require_signed(content, {"repeats", "seeds", "rows"})
        return {int(n): shares for n, shares in found["seeds"].items()}
    except (OSError, ValueError, AttributeError) as error:
        raise ValueError(
            f"{COVERAGE} is missing or damaged ({error}). Reinstall steerlens."
        ) from error


def gap(a: Estimate, b: Estimate) -> Estimate:
    """The difference a - b, draw by draw, of two estimates that share their resamples.

    ValueError where they are of other numbers of seeds or questions.
    """
    if (a.n_seeds, a.n_questions) != (b.n_seeds, b.n_questions):
        raise ValueError(
            "Two estimates are compared draw by draw where they are of the same seeds and "
            f"questions; found {a.n_seeds} seeds and {a.n_questions} questions, and {b.n_seeds} "
            f"and {b.n_questions}."
        )
    draws = a.resampled - b.resampled
    low, high = np.quantile(draws, [0.025, 0.975]).tolist()
    return replace(
        a,
        value=a.value - b.value,
        low=low,
        high=high,
        resampled=draws,
        standard_error=float(draws.std()),
        degrees_of_freedom=min(a.degrees_of_freedom, b.degrees_of_freedom),
    )
