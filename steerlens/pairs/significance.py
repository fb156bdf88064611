"""Whether one side has something more often, or more of it, than the other: tests without models.

All of them hold where the sides of pairs were swapped at random. A family of tests (one for each
word, say) is held to `ALPHA` together, by Tarone's rule: Bonferroni over those tests alone that
could reach the level at all.
"""

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np
from jaxtyping import Float

ALPHA = 0.01
"""The level of each family of tests."""
DIFFERENT = 0.3
"""A difference of shares from here on is told, if it is significant too."""
Numbers = Float[np.ndarray, " _"]


def auroc(positive: Sequence[float] | Numbers, negative: Sequence[float] | Numbers) -> float:
    """How often a positive number is the larger one of two, ties counting half; NaN of none."""
    from scipy.stats import rankdata

    n, m = len(positive), len(negative)
    if not n or not m:
        return float("nan")
    ranks = rankdata(np.concatenate([np.asarray(positive), np.asarray(negative)]))
    return float((ranks[:n].sum() - n * (n + 1) / 2) / (n * m))


def auroc_interval(
    positive: Numbers, negative: Numbers, n_bootstrap: int = 500, seed: int = 0
) -> tuple[float, float]:
    """The 95 % bootstrap interval of `auroc` over pairs, or over each side where they are none."""
    drawn, paired = np.random.default_rng(seed), len(positive) == len(negative)
    found = []
    for _ in range(n_bootstrap):
        rows = drawn.integers(len(positive), size=len(positive))
        others = rows if paired else drawn.integers(len(negative), size=len(negative))
        found.append(auroc(positive[rows], negative[others]))
    low, high = np.quantile(found, [0.025, 0.975])
    return float(low), float(high)


def p_of_numbers(positive: Sequence[float], negative: Sequence[float], paired: bool) -> float:
    """That one side has larger numbers: Wilcoxon's signed ranks, or Mann and Whitney's test."""
    from scipy.stats import mannwhitneyu, wilcoxon

    if not paired:
        return float(mannwhitneyu(positive, negative).pvalue)
    differences = np.asarray(positive, dtype=float) - np.asarray(negative, dtype=float)
    if not differences.any():
        return 1.0
    method: Any = "approx" if len(differences) > 50 or not differences.all() else "auto"
    tested: Any = wilcoxon(differences, method=method)
    return float(tested.pvalue)


@cache
def p_of_shares(with_: tuple[int, int], of: tuple[int, int]) -> float:
    """That one side has something more often: Fisher's exact test of (with, of) on both sides."""
    from scipy.stats import fisher_exact

    table = [[with_[0], of[0] - with_[0]], [with_[1], of[1] - with_[1]]]
    tested: Any = fisher_exact(table)
    return float(tested[1])


@cache
def p_of_discordant(first: int, second: int) -> float:
    """That pairs differ more often in one sense: McNemar's exact test."""
    from scipy.stats import binomtest

    return float(binomtest(first, first + second).pvalue) if first + second else 1.0


def telling(
    there: Mapping[str, tuple[Sequence[bool], Sequence[bool]]], paired: bool
) -> dict[str, tuple[float, float]]:
    """Which things one side has more often: the share of each side that has it.

    Told are those with shares `DIFFERENT` apart, significant at `ALPHA` for all together.
    """
    shares, tested = {}, {}
    for name, (positive, negative) in there.items():
        both = sum(positive), sum(negative)
        shares[name] = (both[0] / len(positive), both[1] / len(negative))
        tested[name] = _tested(positive, negative, paired)
    level = _level([least for _, least in tested.values()])
    return {
        name: shares[name]
        for name, (p, _) in tested.items()
        if p <= level and abs(shares[name][0] - shares[name][1]) >= DIFFERENT
    }


def _tested(
    positive: Sequence[bool], negative: Sequence[bool], paired: bool
) -> tuple[float, float]:
    """The p of one test, and the least that it could have had."""
    if paired:
        first = sum(a and not b for a, b in zip(positive, negative, strict=True))
        second = sum(b and not a for a, b in zip(positive, negative, strict=True))
        return p_of_discordant(first, second), p_of_discordant(first + second, 0)
    n, m, whole = len(positive), len(negative), sum(positive) + sum(negative)
    p = p_of_shares((sum(positive), sum(negative)), (n, m))
    ends = ((min(whole, n), max(whole - n, 0)), (max(whole - m, 0), min(whole, m)))
    return p, min(p_of_shares(end, (n, m)) for end in ends)


def _level(least: Sequence[float]) -> float:
    """Tarone's level: alpha over the smallest k that at most k tests can reach alpha / k."""
    ordered = sorted(least)
    for k in range(1, len(ordered) + 1):
        if sum(one <= ALPHA / k for one in ordered) <= k:
            return ALPHA / k
    return ALPHA / max(len(ordered), 1)
