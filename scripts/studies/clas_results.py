"""The results of the CLAS study, read from its cells, and what the hypotheses ask of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import clas_plan as plan
import numpy as np
from cells import Cells
from estimates import NOT, SUPPORTED, UNDECIDED, Estimate, estimate, mean_score

NEEDED = 0.8
MARGIN = 3.0
"""Points that CLAS may be below a rival and still be called as good."""

CLAS, GRID = "CLAS, RFM", "LAS grid"


@dataclass(frozen=True, eq=False)
class Results:
    """The cells of the study."""

    cells: Cells
    options: plan.Options

    def tests(self, attribute: str, method: str) -> list[dict]:
        """The results of every seed; "unsteered" and "prompt" are methods too."""
        seeds = range(self.options.seeds)
        if method in ("unsteered", "prompt"):
            return [self.cells.get("reference", attribute, "test", seed)[method] for seed in seeds]
        one = plan.chosen(self.cells, attribute, method)
        return [self.cells.get("test", attribute, method, one, seed) for seed in seeds]

    def scores(self, attribute: str, method: str, kind: str = "harmonic") -> np.ndarray:
        """[seed, question]."""
        return np.array([one[kind] for one in self.tests(attribute, method)], dtype=float)

    def beyond(self, attribute: str) -> list[dict]:
        """The cells of every seed, for questions of its own and beyond."""
        one = plan.chosen(self.cells, attribute, CLAS)
        return [
            self.cells.get("beyond", attribute, one, seed) for seed in range(self.options.seeds)
        ]


def gains(results: Results, first: str, second: str) -> list[Estimate]:
    """By attribute: the score of one method less that of another, question by question."""
    return [
        mean_score(results.scores(attribute, first) - results.scores(attribute, second), draw)
        for draw, attribute in enumerate(results.options.attributes)
    ]


def on_most(found: Sequence[Estimate]) -> str:
    """The verdict of H1."""
    needed = int(np.ceil(NEEDED * len(found)))
    above = sum(one.interval[0] > 0 for one in found)
    below = sum(one.interval[1] < 0 for one in found)
    if above >= needed:
        return SUPPORTED
    return NOT if below > len(found) - needed else UNDECIDED


def not_below(one: Estimate) -> str:
    """The verdict of H2."""
    low, high = one.interval
    if high < 0:
        return NOT
    return SUPPORTED if low > -MARGIN else UNDECIDED


def _coherence(cell: dict, where: str, name: str) -> np.ndarray:
    return np.array(cell[where]["scores"][name]["coherence"], dtype=float)


def _ratio(cells: Sequence[dict], own: np.ndarray, other: np.ndarray) -> float:
    beyond, here = (
        np.array([cell[where]["by_text"] for cell in cells])[:, some]
        for where, some in (("beyond", other), ("own", own))
    )
    return float(beyond.mean() / here.mean())


def _cost(cells: Sequence[dict], own: np.ndarray, other: np.ndarray) -> float:
    """Coherence lost beyond, less that lost on own questions."""
    lost = [
        np.nanmean(
            [
                (_coherence(cell, where, "unsteered") - _coherence(cell, where, "as fitted"))[some]
                for cell in cells
            ]
        )
        for where, some in (("beyond", other), ("own", own))
    ]
    return float(lost[0] - lost[1])


def _given_back(name: str) -> "Statistic":
    def statistic(cells: Sequence[dict], own: np.ndarray, other: np.ndarray) -> float:
        gained = [
            (_coherence(cell, "beyond", name) - _coherence(cell, "beyond", "as fitted"))[other]
            for cell in cells
        ]
        return float(np.nanmean(gained))

    return statistic


Statistic = Callable[[Sequence[dict], np.ndarray, np.ndarray], float]
BEYOND: tuple[tuple[str, Statistic, float], ...] = (
    ("H4a mean alpha beyond / own > 1", _ratio, 1.0),
    ("H4b coherence lost beyond, less that on own questions > 0", _cost, 0.0),
    ("H4c coherence given back by the bound > 0", _given_back("bounded"), 0.0),
    ("H4d coherence given back without BOS > 0", _given_back("without BOS"), 0.0),
)


def elsewhere(results: Results, attribute: str, statistic: Statistic) -> Estimate:
    cells = results.beyond(attribute)
    sizes = [len(cells[0][where]["by_text"]) for where in ("own", "beyond")]

    def of(seeds: np.ndarray, own: np.ndarray, other: np.ndarray) -> float:
        return statistic([cells[seed] for seed in seeds], own, other)

    return estimate(of, len(cells), sizes, draw=results.options.attributes.index(attribute))
