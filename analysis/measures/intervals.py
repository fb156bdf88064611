"""Confidence intervals by resampling examples: tokens of one text are not independent."""

from typing import TypeAlias

import numpy as np
from jaxtyping import Float, Int

from steerlens.checks import require_seed
from steerlens.parsing import short
from steerlens.types import whole_number

PerToken: TypeAlias = Float[np.ndarray, " token"]
PerExample: TypeAlias = Float[np.ndarray, " example"]
Draws: TypeAlias = Int[np.ndarray, "resample example"]
Interval: TypeAlias = tuple[float, float]
UNKNOWN = (float("nan"), float("nan"))
"""The interval of a single example."""


def resamples(n: int, n_bootstrap: int = 1000, seed: int = 0) -> Draws:
    """For each resample, the examples that were drawn, with replacement."""
    require_seed(seed)
    if (whole_number(n_bootstrap) or 0) < 1:
        raise ValueError(
            "n_bootstrap, the resamples that an interval is made of, is a whole number, 1 or more; "
            f"found {short(n_bootstrap)}."
        )
    return np.random.default_rng(seed).integers(0, n, size=(n_bootstrap, n))


def percentile_interval(values: Float[np.ndarray, " resample"]) -> Interval:
    """The middle 95 %. Between infinite values nothing can be interpolated."""
    method = "linear" if np.isfinite(values).all() else "inverted_cdf"
    low, high = np.quantile(values, [0.025, 0.975], method=method)
    return float(low), float(high)


def interval_of_mean(values: PerExample, n_bootstrap: int = 1000, seed: int = 0) -> Interval:
    """Of the mean over examples; NaN are left out. Unknown for fewer than two examples."""
    there = values[~np.isnan(values)]
    if len(there) < 2:
        return UNKNOWN
    return percentile_interval(there[resamples(len(there), n_bootstrap, seed)].mean(axis=1))


def interval_of_ratio(
    above: PerExample, below: PerExample, n_bootstrap: int = 1000, seed: int = 0
) -> Interval:
    """Of sum(above) / sum(below) over examples. Unknown for fewer than two examples."""
    if len(above) < 2:
        return UNKNOWN
    drawn = resamples(len(above), n_bootstrap, seed)
    return percentile_interval(above[drawn].sum(axis=1) / below[drawn].sum(axis=1))
