"""Sinks: tokens whose activation is many times longer than that of the others, at some layers.

Most models turn a few tokens into a place that attention heads can look at when there is nothing to
see: the first token, and others (in SmolLM2-135M the first " the" of a text, at layers 2 to 8).
Such *massive activations* (Sun et al., arXiv 2402.17762) hold most of the squared length of a batch
and say nothing about the text, so a mean over tokens is theirs alone. They are found by their norm:

    token is a sink at a site  <=>  |h| > times * median |h|

with the median over all tokens of the texts, also over those that were not asked for. `SINK` is the
default of `times`. Of ordinary tokens the longest were 2.9 medians in SmolLM2 (layer 0), 1.9 in the
demonstration model (its BOS 3.3); SmolLM2's sinks are 3.8 to 10 medians, its first token up to 190.
"""

import warnings
from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from steerlens.types import SteeringWarning

SINK = 4.0
"""A token is a sink if its norm is above so many times the median; infinity finds none."""

FEWEST = 3
"""Of fewer rows the median is no typical length."""

Rows = Float[Tensor, "_ d_model"]
Kept = Bool[Tensor, " _"]


def require_times(times: float) -> None:
    """Raise ValueError unless `times` is above 1."""
    if not times > 1:
        raise ValueError(
            f"sinks={times}: it is how many times the median norm a token must have to be left out "
            f"as a sink, above 1; {SINK:g} is the default, and infinity (inf) keeps all tokens."
        )


def lengths(activation: Float[Tensor, "*token d_model"]) -> Float[Tensor, "*token"]:
    """The norm of every activation, in float32 or wider."""
    wide = torch.promote_types(activation.dtype, torch.float32)
    return torch.linalg.vector_norm(activation, dim=-1, dtype=wide)


def is_sink(
    activation: Float[Tensor, "token d_model"],
    typical: Float[Tensor, " token"],
    times: float = SINK,
) -> Bool[Tensor, " token"]:
    """Whether each activation is longer than `times` the median of the `typical` lengths.

    `typical` has, for each token, the median length in its own text.
    """
    require_times(times)
    if len(typical) == 0:
        return torch.zeros(0, dtype=torch.bool)
    median = typical.median()
    return (lengths(activation) > times * median) & (median > 0)


def ordinary(sides: Sequence[Rows], times: float = SINK) -> list[Kept]:
    """For each side, which of its rows are no sinks, by the median of the rows of all sides."""
    require_times(times)
    every = torch.cat([lengths(side.detach()) for side in sides])
    median = every.median() if len(every) >= FEWEST else torch.zeros(())
    limit = times * median if median > 0 else torch.inf  # nothing is long beside nothing
    return [lengths(side.detach()) <= limit for side in sides]


def require_ordinary(kept: Kept, what: str) -> None:
    """Raise ValueError if every one of them is a sink."""
    if len(kept) > 0 and not bool(kept.any()):
        raise ValueError(
            f"All {len(kept)} {what} are sinks: activations several times longer than the others, "
            "which say nothing about the text. Read other tokens, such as steerlens.generated, or "
            "another layer; sinks=inf takes them all the same (float('inf') in Python)."
        )


def warn_of_rows(kept: Kept, what: str) -> None:
    """Warn where a prompt is left out, because each of its tokens that were read is a sink."""
    missing = int((~kept).sum())
    if missing:
        warnings.warn(
            f"{missing} of {len(kept)} {what} are left out: every token that was read of them is a "
            "sink, an activation several times longer than the others. To read other tokens give "
            "read=..., to keep these sinks=inf.",
            SteeringWarning,
            stacklevel=3,
        )
