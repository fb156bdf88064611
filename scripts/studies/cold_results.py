"""The results of the COLD study, read from its cells, and what the hypotheses ask of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import cold_plan as plan
import numpy as np
from cells import Cells
from estimates import N_BOOTSTRAP, NOT, SUPPORTED, UNDECIDED, Estimate, mean_score
from sklearn.isotonic import IsotonicRegression

FEWER, NEAR, FEW = 50, 0.95, 5
OURS, TUNED = ("COLD-FD", "COLD-Kernel"), ("CAA", "ReFT-vector", "ReFT-r1")


@dataclass(frozen=True, eq=False)
class Results:
    """The cells of the study."""

    cells: Cells
    options: plan.Options

    def tests(self, attribute: str, method: str, n: int) -> list[dict]:
        """The results of every seed."""
        one = plan.chosen(self.cells, attribute, method)
        seeds = range(self.options.seeds)
        return [self.cells.get("test", attribute, method, one, n, seed) for seed in seeds]

    def scores(self, attribute: str, method: str, n: int, kind: str = "attribute") -> np.ndarray:
        """[seed, question]; "unsteered" and "prompt" are methods too, at any n."""
        if method in ("unsteered", "prompt"):
            seeds = range(self.options.seeds)
            found = [self.cells.get("reference", attribute, "test", s)[method] for s in seeds]
        else:
            found = self.tests(attribute, method, n)
        return np.array([one[kind] for one in found], dtype=float)

    def strengths(self, group: str, method: str, n: int) -> list[float]:
        """The strength of every seed; those of the grid's ends may not be the best there are."""
        if method == "unsteered":
            return []
        layer, seeds = plan.layer_of(self.cells, group, method), range(self.options.seeds)
        return [self.cells.get("spread", group, method, layer, n, s)["strength"] for s in seeds]

    def spreads(self, group: str, method: str, n: int, kind: str) -> np.ndarray:
        """[seed, question]."""
        if method == "unsteered":
            return np.array([self.cells.get("unspread", group)[kind]] * self.options.seeds)
        layer = plan.layer_of(self.cells, group, method)
        seeds = range(self.options.seeds)
        return np.array(
            [self.cells.get("spread", group, method, layer, n, seed)[kind] for seed in seeds]
        )


def fewest(gains: np.ndarray, sizes: Sequence[int], best: float) -> float:
    """The fewest pairs with `NEAR` of the best gain; infinity where no number is enough."""
    enough = [n for n, gain in zip(sizes, gains, strict=True) if gain >= NEAR * best]
    return float(min(enough, default=math.inf))


def rising(gains: np.ndarray) -> np.ndarray:
    """The nearest curve that does not fall: more pairs are no worse, but for noise."""
    return IsotonicRegression().fit_transform(np.arange(len(gains)), gains)


def times_fewer(ours: Sequence[float], tuned: Sequence[float]) -> float:
    """How many times more pairs the better of the others needs; 0 where ours never get there."""
    return 0.0 if math.isinf(min(ours)) else min(tuned) / min(ours)


def times(needed: dict[str, float], method: str) -> float:
    """How many times the pairs of COLD-FD a method needs; 0 where COLD-FD never gets there."""
    return times_fewer([needed["COLD-FD"]], [needed[method]])


def far_fewer(ratios: np.ndarray) -> str:
    """The verdict of H1, from resampled ratios, which may be infinite."""
    low, high = np.quantile(ratios, [0.025, 0.975], method="nearest")
    if low >= FEWER:
        return SUPPORTED
    return NOT if high < FEWER else UNDECIDED


@dataclass(frozen=True, eq=False)
class Curves:
    """The gain of every method at every number of pairs, on the mean over attributes."""

    results: Results
    read: dict[tuple[str, str, int], np.ndarray] = field(default_factory=dict)
    """Scores that were read from their files: every resample needs them again."""

    @property
    def sizes(self) -> tuple[int, ...]:
        return self.results.options.sizes

    def gains(self, seeds: np.ndarray, *questions: np.ndarray) -> dict[str, np.ndarray]:
        """By method, one gain a number of pairs, on these seeds and questions."""
        names = self.results.options.attributes
        floor = [
            np.nanmean(self._of(a, "unsteered", 0)[np.ix_(seeds, q)])
            for a, q in zip(names, questions, strict=True)
        ]
        return {
            method: np.array(
                [
                    np.mean(
                        [
                            np.nanmean(self._of(a, method, n)[np.ix_(seeds, q)]) - low
                            for a, q, low in zip(names, questions, floor, strict=True)
                        ]
                    )
                    for n in self.sizes
                ]
            )
            for method in plan.METHODS
        }

    def needed(
        self, among: Sequence[str], seeds: np.ndarray, *questions: np.ndarray
    ) -> dict[str, float]:
        """By method, the fewest pairs with `NEAR` of the best gain that any of these has."""
        gains = {m: rising(one) for m, one in self.gains(seeds, *questions).items()}
        best = max(float(gains[method].max()) for method in among)
        return {method: fewest(one, self.sizes, best) for method, one in gains.items()}

    def resampled(self, among: Sequence[str]) -> tuple[dict[str, float], list[dict[str, float]]]:
        """The numbers needed, and those of every resample."""
        options, rng = self.results.options, np.random.default_rng(0)
        sizes = [options.n_test] * len(options.attributes)
        whole = self.needed(among, np.arange(options.seeds), *(np.arange(n) for n in sizes))
        drawn = [
            self.needed(
                among,
                rng.integers(0, options.seeds, options.seeds),
                *(rng.integers(0, n, n) for n in sizes),
            )
            for _ in range(N_BOOTSTRAP)
        ]
        return whole, drawn

    def _of(self, attribute: str, method: str, n: int) -> np.ndarray:
        key = (attribute, method, n)
        if key not in self.read:
            self.read[key] = self.results.scores(attribute, method, n)
        return self.read[key]


def gap(results: Results, first: str, second: str, n: int) -> list[Estimate]:
    return [
        mean_score(results.scores(a, first, n) - results.scores(a, second, n), draw)
        for draw, a in enumerate(results.options.attributes)
    ]
