"""Activations -> a direction at one site. None of these normalises; `unit` does, on request."""

from typing import Literal, get_args

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from steerlens.checks import require_choice, require_finite, require_pairs
from steerlens.directions.checks import require_length, require_spread
from steerlens.kinds import require_kinds
from steerlens.sinks import SINK, ordinary, require_ordinary
from steerlens.types import Direction

Centring = Literal["pair", "none", "mean"]


def unit(direction: Direction) -> Direction:
    """`direction` at length 1; ValueError if its length is 0 or not finite.

    >>> sl.unit(torch.tensor([3.0, 4.0]))
    tensor([0.6000, 0.8000])
    """
    require_kinds(unit, locals())
    length = direction.norm()
    require_length(length)
    return direction / length


def difference_of_means(
    positive: Float[Tensor, "positive d_model"],
    negative: Float[Tensor, "negative d_model"],
    *,
    sinks: float = SINK,
) -> Direction:
    """mean(positive) - mean(negative). Pointing from negative to positive, length kept.

    Rows longer than `sinks` times the median of both sides are left out; infinity keeps all.
    ValueError if that leaves nothing of a side.
    """
    require_kinds(difference_of_means, locals())
    require_finite(positive, "positive activations")
    require_finite(negative, "negative activations")
    keep_positive, keep_negative = ordinary([positive, negative], sinks)
    require_ordinary(keep_positive, "positive activations")
    require_ordinary(keep_negative, "negative activations")
    return positive[keep_positive].mean(dim=0) - negative[keep_negative].mean(dim=0)


def ordinary_pairs(
    first: Float[Tensor, "pair d_model"], second: Float[Tensor, "pair d_model"], sinks: float
) -> Bool[Tensor, " pair"]:
    """The pairs of which neither row is a sink; ValueError if there are none."""
    keep_first, keep_second = ordinary([first, second], sinks)
    require_ordinary(keep_first & keep_second, "pairs of activations")
    return keep_first & keep_second


def principal_direction(
    positive: Float[Tensor, "pair d_model"],
    negative: Float[Tensor, "pair d_model"],
    centring: Centring = "pair",
    *,
    sinks: float = SINK,
) -> Direction:
    """First principal direction of paired activations, at length 1.

    `centring` says what is subtracted before the decomposition (they are not the same method):
    "pair": both members of a pair, each less the pair's mean (repeng `pca_center`, CAST);
    "none": the differences positive - negative as they are (steering-vectors). Both find the mean
    difference when it dominates. "mean": the differences less their mean, as scikit-learn's PCA
    does. This is the trap: it takes out the very mean difference one looks for, and finds what
    varies between pairs. The sign is such that positives project higher on average. A pair with a
    row longer than `sinks` times the median is left out; infinity keeps all.
    """
    require_kinds(principal_direction, locals())
    require_pairs(positive, negative)
    require_choice("centring", centring, get_args(Centring))
    differences = (positive - negative)[ordinary_pairs(positive, negative, sinks)]
    rows = {
        "pair": torch.cat([differences / 2, -differences / 2]),
        "none": differences,
        "mean": differences - differences.mean(dim=0),
    }[centring]
    _, sizes, axes = torch.linalg.svd(rows.double(), full_matrices=False)
    require_spread(sizes[0], len(differences), centring)
    first = axes[0].to(positive)
    return first if differences.mean(dim=0) @ first >= 0 else -first
