"""Estimates of a study with their resamples, and verdicts on claims."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

N_BOOTSTRAP = 1000
SUPPORTED, NOT, UNDECIDED = "supported", "not supported", "undecided"


@dataclass(frozen=True, eq=False)
class Estimate:
    """A number and what it was in each resample."""

    value: float
    resampled: np.ndarray

    @property
    def interval(self) -> tuple[float, float]:
        low, high = np.nanquantile(self.resampled, [0.025, 0.975])
        return float(low), float(high)

    def __str__(self) -> str:
        low, high = self.interval
        return f"{self.value:.2f} [{low:.2f}, {high:.2f}]"


def mean_of(estimates: Sequence[Estimate]) -> Estimate:
    """The mean over attributes, each resampled by itself."""
    return Estimate(
        float(np.mean([one.value for one in estimates])),
        np.mean([one.resampled for one in estimates], axis=0),
    )


def estimate(
    statistic: Callable[..., float], n_seeds: int, n: int | Sequence[int], draw: int
) -> Estimate:
    """`statistic(seeds, questions)` of all, and of resampled seeds and questions.

    Where there are several sets of questions, `n` has the size of each, and each is an argument.
    """
    rng = np.random.default_rng(draw)
    sizes = (n_seeds, n) if isinstance(n, int) else (n_seeds, *n)
    found = np.array(
        [statistic(*(rng.integers(0, size, size) for size in sizes)) for _ in range(N_BOOTSTRAP)]
    )
    value = statistic(*(np.arange(size) for size in sizes))
    # Resampling few seeds shows less than their spread: the variance of n of them is (n - 1) / n.
    widened = (n_seeds / (n_seeds - 1)) ** 0.5 if n_seeds > 1 else 1.0
    return Estimate(value, value + widened * (found - value))


def mean_score(scores: np.ndarray, draw: int) -> Estimate:
    """The mean of [seed, question] scores."""
    return estimate(lambda s, q: float(np.nanmean(scores[np.ix_(s, q)])), *scores.shape, draw)


def verdict(one: Estimate, bound: float, above: bool) -> str:
    """Whether the claim "above (or below) the bound" is supported."""
    low, high = one.interval
    if low > bound:
        return SUPPORTED if above else NOT
    if high < bound:
        return NOT if above else SUPPORTED
    return UNDECIDED
