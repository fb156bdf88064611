"""The threshold that tells two sets of numbers apart best."""

from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor

Numbers = Float[Tensor, " _"]


def best_threshold(wanted: Numbers, others: Numbers) -> tuple[float, float, float, bool]:
    """(F1, gap, threshold, above): `wanted` is on that side of the threshold, `others` is not.

    Thresholds lie halfway between neighbouring numbers; of equal F1 the one in the widest gap is
    taken. 0 is the F1 where all numbers are the same.

    >>> from steerlens.directions.thresholds import best_threshold
    >>> best_threshold(torch.tensor([3.0, 4.0]), torch.tensor([1.0, 2.0]))
    (1.0, 1.0, 2.5, True)
    """
    values = torch.cat([wanted, others]).unique()
    best = (0.0, 0.0, float(values.mean()), True)
    for low, high in pairwise(values):
        threshold = (low + high) / 2
        for above in (True, False):
            inside, caught = (_beyond(side, threshold, above) for side in (wanted, others))
            f1 = 2 * inside / max(inside + caught + len(wanted), 1)
            candidate = (float(f1), float(high - low), float(threshold), above)
            best = max(best, candidate, key=lambda one: one[:2])
    return best


def _beyond(values: Numbers, threshold: Float[Tensor, ""], above: bool) -> int:
    return int((values > threshold if above else values < threshold).sum())
