"""How uncertain a mean over seeds and questions is, and resamples that agree with it.

A value is the mean, plus a part of its seed, plus a part of its question, plus noise (crossed
random effects). With S seeds, Q questions and the mean squares A (seeds), B (questions), E (noise),

    variance of the mean = max(A + B - E, A, B) / (S Q)
    degrees of freedom   = (A + B - E)^2 / (A^2 / (S - 1) + B^2 / (Q - 1) + E^2 / ((S - 1) (Q - 1)))

(Satterthwaite 1946, "An approximate distribution of estimates of variance components"). Resampling
three seeds alone shows too little of their spread: `scripts/bench/coverage.py` measures both.
"""

from functools import lru_cache
from typing import TypeAlias

import numpy as np
from jaxtyping import Float, Int
from scipy import special

N_DRAWS = 1000
LEVEL = 0.975

Values: TypeAlias = Float[np.ndarray, "_ _"]
"""[seed, question]; unnamed, for two sides or attributes may differ in both."""
Draws: TypeAlias = Float[np.ndarray, " resample"]


def present(values: Values) -> Values:
    """Without the seeds and the questions that have no value at all."""
    there = ~np.isnan(values)
    return values[there.any(axis=1)][:, there.any(axis=0)]


def error_of_mean(values: Values) -> tuple[float, float]:
    """The standard error of the mean, and its degrees of freedom, as in the module's docstring.

    One seed: that of the mean over questions, and the other way round. NaN is left out: the parts
    of seeds and questions are then least squares. NaN and 0 where a single value is left.
    """
    values = present(values)
    n_seeds, n_questions = values.shape
    n = int(np.count_nonzero(~np.isnan(values)))
    if n < 2:
        return float("nan"), 0.0
    if 1 in values.shape:
        return float(np.nanstd(values, ddof=1) / n**0.5), float(n - 1)
    degrees = n_seeds - 1, n_questions - 1, n - n_seeds - n_questions + 1
    of_seeds, of_questions, noise = mean_squares(values, degrees)
    variance = max(of_seeds + of_questions - noise, of_seeds, of_questions)
    told = of_seeds**2 / degrees[0] + of_questions**2 / degrees[1]
    told += noise**2 / degrees[2] if degrees[2] > 0 else 0.0
    # No part has fewer than the fewest; where noise is most of it, the approximation can say so.
    least = float(min(degrees[0], degrees[1]))
    return (variance / n) ** 0.5, max(variance**2 / told, least) if told else least


def mean_squares(values: Values, degrees: tuple[int, int, int]) -> tuple[float, float, float]:
    """Of seeds, questions and noise; the noise is 0 where nothing is left to tell it by."""
    centred = values - np.nanmean(values)
    seeds, questions = np.zeros((len(values), 1)), np.zeros((1, values.shape[1]))
    for _ in range(20 if np.isnan(values).any() else 1):
        seeds = np.nanmean(centred - questions, axis=1, keepdims=True)
        questions = np.nanmean(centred - seeds, axis=0, keepdims=True)
    there = ~np.isnan(values)
    sums = [
        float(np.nansum(part**2))
        for part in (seeds * there, questions * there, centred - seeds - questions)
    ]
    return (
        sums[0] / degrees[0],
        sums[1] / degrees[1],
        sums[2] / degrees[2] if degrees[2] > 0 else 0.0,
    )


@lru_cache(maxsize=64)
def counted(n: int, stream: tuple[int, ...]) -> Int[np.ndarray, "resample n"]:
    """How often each of n is drawn in each resample, always the same for the same stream."""
    drawn = np.random.default_rng([n, *stream]).integers(0, n, (N_DRAWS, n))
    found = np.zeros_like(drawn)
    np.add.at(found, (np.arange(N_DRAWS)[:, None], drawn), 1)
    found.setflags(write=False)
    return found


def resampled_sums(values: Values, draw: int) -> Draws:
    """The sum of all values in each resample of seeds and of questions.

    The same `draw` draws the same seeds. The questions drawn depend on their number alone: what
    different attributes or methods got for one question stays together.
    """
    seeds = counted(len(values), (1, draw))
    questions = counted(values.shape[1], (0,))
    return np.einsum("rs,rs->r", seeds, questions @ np.nan_to_num(values).T)


def resampled_means(values: Values, draw: int) -> Draws:
    """The mean in each resample; that of all values where a resample holds none."""
    there, sums = ~np.isnan(values), resampled_sums(values, draw)
    if there.all():  # every resample is of as many values
        return sums / values.size
    n = resampled_sums(there.astype(float), draw)
    return np.where(n > 0, sums / np.maximum(n, 1), np.nanmean(values))


def quantile(degrees: float, level: float = LEVEL) -> float:
    """Student's t."""
    return float(special.stdtrit(degrees, level)) if degrees > 0 else float("nan")


def rescaled(draws: Draws, centre: float, low: float, high: float) -> Draws:
    """The draws about `centre`, with the middle 95 % of them as wide as from `low` to `high`."""
    below, above = np.quantile(draws, [1 - LEVEL, LEVEL])
    if not above > below or np.isnan(high - low):
        return np.full_like(draws, centre)
    return centre + (draws - draws.mean()) * (high - low) / (above - below)
