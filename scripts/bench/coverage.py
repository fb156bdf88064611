"""How often the bench's intervals hold what they estimate, by simulation.

    python scripts/bench/coverage.py            prints the table
    python scripts/bench/coverage.py --write    and writes analysis/bench/coverage.json

A score is a mean, a part of its seed, a part of its question (spread 10), and noise (spread 20). An
interval should hold the mean that all seeds and questions have. *bootstrap* is what the first three
studies did: percentiles of resampled seeds and questions, widened by sqrt(S / (S - 1)).
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from analysis.bench.estimates import COVERAGE, NONE, Estimate, mean_of, mean_score, ratio
from analysis.bench.maxima import largest_of
from analysis.bench.variance import resampled_means, resampled_sums
from analysis.reports.markdown import markdown_table
from steerlens.digests import signed
from steerlens.whole import write_whole

OF_QUESTIONS, NOISE, FALL, LAYERS = 10.0, 20.0, 40.0, 6
Interval = tuple[float, float]
SeedParts = Callable[[np.random.Generator, int], np.ndarray]


@dataclass(frozen=True)
class Case:
    """What is estimated, from how much, and how the seeds differ."""

    what: str
    spread: str
    seeds: int
    questions: int
    run: Callable[[np.random.Generator, Case], tuple[float, Interval, Interval]]

    @property
    def fails(self) -> bool:
        """Whether seeds fail."""
        return "fails" in self.spread

    @property
    def usual(self) -> bool:
        """Whether the head of a table is about it: a mean or a ratio, no seed failing."""
        return not self.fails and not self.what.startswith("largest")


def scores(rng: np.random.Generator, case: Case, of_seeds: SeedParts, shared=0.0) -> np.ndarray:
    """One draw of [seed, question] scores; `shared` is a part of the questions drawn before."""
    return (
        of_seeds(rng, case.seeds)[:, None]
        + np.asarray(shared)
        + rng.normal(0, OF_QUESTIONS, (1, case.questions))
        + rng.normal(0, NOISE, (case.seeds, case.questions))
    )


def normal(spread: float) -> SeedParts:
    """Seeds that differ by a normal spread."""
    return lambda rng, n: rng.normal(0, spread, n)


def failing(rng: np.random.Generator, n: int) -> np.ndarray:
    """One seed in three fails; the mean is 0."""
    return FALL / 3 - FALL * (rng.random(n) < 1 / 3)


def seen_failing(rng: np.random.Generator, n: int) -> np.ndarray:
    """The same, where some seeds fail and some do not."""
    while True:
        found = failing(rng, n)
        if found.std() > 0:
            return found


def percentiles(draws: np.ndarray, value: float, n_seeds: int) -> Interval:
    """The interval of the first studies."""
    widened = value + (n_seeds / (n_seeds - 1)) ** 0.5 * (draws - value)
    low, high = np.quantile(widened, [0.025, 0.975])
    return float(low), float(high)


def both(one: Estimate, draws: np.ndarray) -> tuple[Interval, Interval]:
    """The bench's interval and the bootstrap's."""
    return (one.low, one.high), percentiles(draws, one.value, one.n_seeds)


def mean(of_seeds: SeedParts, n_attributes: int, shared: float = 0.0):
    """The mean over attributes, whose questions have a part in common."""

    def run(rng: np.random.Generator, case: Case):
        common = rng.normal(0, shared, (1, case.questions))
        every = [scores(rng, case, of_seeds, common) for _ in range(n_attributes)]
        ones = [mean_score(values, bounds=NONE, draw=i) for i, values in enumerate(every)]
        draws = np.mean([resampled_means(values, i) for i, values in enumerate(every)], axis=0)
        return 0.0, *both(mean_of(ones), draws)

    return run


def ceiling(rng: np.random.Generator, case: Case):
    """Scores that often reach 100: 90 plus all parts, clipped to 0 to 100."""
    values = np.clip(90 + scores(rng, case, normal(5.0)), 0, 100)
    return ceiling_mean(), *both(mean_score(values), resampled_means(values, 0))


def ceiling_mean() -> float:
    """The mean of a normal of 90 and the whole spread, clipped to 0 to 100."""
    at = np.linspace(-8, 8, 100_001)
    spread = (25 + OF_QUESTIONS**2 + NOISE**2) ** 0.5
    weights = np.exp(-(at**2) / 2)
    return float((np.clip(90 + spread * at, 0, 100) * weights).sum() / weights.sum())


def largest(in_common: float):
    """The largest of six layers that are all 0 and have a share of their parts in common."""

    def run(rng: np.random.Generator, case: Case):
        parts = [scores(rng, case, normal(5.0)) for _ in range(LAYERS + 1)]
        weights = (1 - in_common) ** 0.5, in_common**0.5
        layers = [weights[0] * one + weights[1] * parts[0] for one in parts[1:]]
        one = largest_of([mean_score(values, bounds=NONE) for values in layers])
        draws = np.max([resampled_means(values, 0) for values in layers], axis=0)
        return 0.0, *both(one, draws)

    return run


def root_ratio(rng: np.random.Generator, case: Case):
    """sqrt(sum above / sum below) of squares that have a part of their question in common."""
    shape, size = (case.seeds, case.questions), np.exp(rng.normal(0, 0.5, (1, case.questions)))
    of_seeds = np.exp(rng.normal(0, 0.2, (case.seeds, 1)) - 0.02)
    above = size * of_seeds * rng.gamma(2, 0.5, shape)
    below = size * rng.gamma(4, 0.25, shape)
    one = ratio(above, below)
    draws = (resampled_sums(above, 0) / resampled_sums(below, 0)) ** 0.5
    return 1.0, *both(one, draws)


def cases() -> list[Case]:
    """All that is simulated."""
    found = []
    for n, q in ((n, q) for n in (3, 5) for q in (24, 120)):
        for a in (1, 5):
            what = "mean" if a == 1 else f"mean of {a} attributes"
            found += [Case(what, f"{s:g}", n, q, mean(normal(s), a)) for s in (0.0, 2.0, 5.0, 10.0)]
        found += [
            Case("mean of 5 attributes, same questions", "2", n, q, mean(normal(2.0), 5, 10.0)),
            Case("mean near 100", "5", n, q, ceiling),
            Case("largest of 6 layers", "5", n, q, largest(0.0)),
            Case("largest of 6 alike layers", "5", n, q, largest(0.8)),
            Case("root of a ratio", "20 %", n, q, root_ratio),
            Case("mean", "1 in 3 fails", n, q, mean(failing, 1)),
            Case("mean", "1 in 3 fails, and some did", n, q, mean(seen_failing, 1)),
        ]
    return found


def coverage(case: Case, repeats: int) -> tuple[float, float]:
    """The share of intervals that hold the truth: the bench's, the bootstrap's."""
    rng = np.random.default_rng(0)
    held = np.zeros(2)
    for _ in range(repeats):
        truth, *intervals = case.run(rng, case)
        held += [low <= truth <= high for low, high in intervals]
    ours, old = (held / repeats).tolist()
    return ours, old


def by_seeds(found: list[tuple[Case, float, float]]) -> dict[str, dict[str, float]]:
    """For each number of seeds the range, and the least where one seed in three fails."""
    ranges = {}
    for n in sorted({case.seeds for case, _, _ in found}):
        usual = [ours for case, ours, _ in found if case.seeds == n and case.usual]
        failing = [ours for case, ours, _ in found if case.seeds == n and case.fails]
        ranges[str(n)] = {"low": min(usual), "high": max(usual), "failing": min(failing)}
    return ranges


def main() -> None:
    """Print the table, and write what the head of a table quotes."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--repeats", type=int, default=1000)
    parser.add_argument("--write", action="store_true", help="write analysis/bench/coverage.json")
    arguments = parser.parse_args()
    found = [(case, *coverage(case, arguments.repeats)) for case in cases()]
    rows = [
        [c.what, c.spread, str(c.seeds), str(c.questions), f"{ours:.2f}", f"{old:.2f}"]
        for c, ours, old in found
    ]
    head = ["estimate", "spread of seeds", "seeds", "questions", "bench", "bootstrap"]
    print(markdown_table(head, rows))
    if arguments.write:
        written = {"repeats": arguments.repeats, "seeds": by_seeds(found), "rows": [head, *rows]}
        signed_ = signed(json.loads(json.dumps(written)))
        write_whole(COVERAGE, f"{json.dumps(signed_, indent=1)}\n".encode())


if __name__ == "__main__":
    main()
