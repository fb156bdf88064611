"""How often the studies' intervals hold what they estimate, by simulation.

    python scripts/studies/coverage.py

A score has a part of its seed, a part of its question, and noise. The estimate is the mean over
three seeds and 120 questions; what it should hold is the mean that all seeds and questions have.
"""

from __future__ import annotations

import numpy as np
from estimates import Estimate, mean_of, mean_score

from analysis.reports.markdown import markdown_table

SEEDS, QUESTIONS, NOISE = 3, 120, 20.0
REPEATS = 300
CASES = ((0.0, 10.0, 1), (2.0, 10.0, 1), (5.0, 10.0, 1), (10.0, 10.0, 1), (2.0, 10.0, 5))
"""Spread between seeds, between questions, and over how many attributes the mean is taken."""


def drawn(rng: np.random.Generator, of_seeds: float, of_questions: float, draw: int) -> Estimate:
    """The estimate of a mean that is 0."""
    scores = (
        rng.normal(0, of_seeds, (SEEDS, 1))
        + rng.normal(0, of_questions, (1, QUESTIONS))
        + rng.normal(0, NOISE, (SEEDS, QUESTIONS))
    )
    return mean_score(scores, draw)


def coverage(of_seeds: float, of_questions: float, attributes: int) -> float:
    """The share of intervals that hold 0."""
    rng = np.random.default_rng(0)
    held = 0
    for repeat in range(REPEATS):
        found = mean_of([drawn(rng, of_seeds, of_questions, repeat) for _ in range(attributes)])
        low, high = found.interval
        held += low <= 0 <= high
    return held / REPEATS


def main() -> None:
    """Print the table."""
    rows = [[f"{s:g}", f"{q:g}", str(a), f"{coverage(s, q, a):.2f}"] for s, q, a in CASES]
    print(markdown_table(["spread of seeds", "of questions", "attributes", "coverage"], rows))


if __name__ == "__main__":
    main()
