"""Activations -> a direction at one site. None of these normalises; `unit` does, on request."""

from typing import Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from steerlens.checks import require_finite, require_pairs
from steerlens.types import Direction

Centring = Literal["pair", "none", "mean"]
SAME = 1e-5
"""Of the activations' length: below it a difference is rounding."""


def unit(direction: Direction) -> Direction:
    """`direction` at length 1; ValueError if its length is 0 or not finite."""
    length = direction.norm()
    if not bool(torch.isfinite(length)) or length == 0:
        raise ValueError(
            f"A direction of length {float(length)} cannot be normalised. Are the positive and "
            "negative activations the same, or not finite?"
        )
    return direction / length


def difference_of_means(
    positive: Float[Tensor, "positive d_model"], negative: Float[Tensor, "negative d_model"]
) -> Direction:
    """mean(positive) - mean(negative). Pointing from negative to positive, length kept."""
    require_finite(positive, "positive activations")
    require_finite(negative, "negative activations")
    return positive.mean(dim=0) - negative.mean(dim=0)


def principal_direction(
    positive: Float[Tensor, "pair d_model"],
    negative: Float[Tensor, "pair d_model"],
    centring: Centring = "pair",
) -> Direction:
    """First principal direction of paired activations, at length 1.

    `centring` says what is subtracted before the decomposition (they are not the same method):
    "pair": both members of a pair, each less the pair's mean (repeng `pca_center`, CAST);
    "none": the differences positive - negative as they are (steering-vectors). Both find the mean
    difference when it dominates. "mean": the differences less their mean, as scikit-learn's PCA
    does. This is the trap: it takes out the very mean difference one looks for, and finds what
    varies between pairs. The sign is such that positives project higher on average.
    """
    require_pairs(positive, negative)
    differences = positive - negative
    rows = {
        "pair": torch.cat([differences / 2, -differences / 2]),
        "none": differences,
        "mean": differences - differences.mean(dim=0),
    }
    if centring not in rows:
        raise ValueError(
            f"Unknown centring {centring!r}. Use one of: {', '.join(get_args(Centring))}."
        )
    _, sizes, axes = torch.linalg.svd(rows[centring].double(), full_matrices=False)
    if sizes[0] == 0:
        raise ValueError(
            f"With centring={centring!r} nothing varies between these {len(differences)} pairs, so "
            "there is no principal direction. Give more pairs, or use difference_of_means."
        )
    first = axes[0].to(positive)
    return first if differences.mean(dim=0) @ first >= 0 else -first
