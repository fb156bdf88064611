"""The mean push of the prompt on the other examples, by which coefficients are measured.

It is never fitted on the example that it measures. Tokens that are sinks have no part in it.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from steerlens.sinks import SINK, require_ordinary
from steerlens.sites import Site
from steerlens.types import HookedModel

from .aligned import Aligned
from .deltas import Deltas, prompt_deltas
from .parts import Parts


def require_others(pairs: int) -> None:
    """Raise ValueError unless there are pairs besides the one that is measured."""
    if pairs == 1:
        raise ValueError(
            "With one pair there are no other examples to take the direction from. Give at least "
            "two pairs, or direction={site: vector} fitted on other text."
        )


@dataclass(frozen=True, eq=False)
class Push:
    """Summed over the tokens of all examples that are no sinks: the push, and their number."""

    total: Float[Tensor, "d_model"]
    tokens: Int[Tensor, ""]


def pushes_of(model: HookedModel, parts: Parts, sinks: float) -> dict[Site, Push]:
    """The prompt's push at every site, summed over all parts."""
    found: dict[Site, Push] = {}
    for aligned in parts:
        deltas = prompt_deltas(model, aligned)
        for site in aligned.sites:
            sums, counts = _sums(aligned, site, deltas[site], sinks)
            total, tokens = sums.sum(dim=0), counts.sum()
            if site in found:
                total, tokens = found[site].total + total, found[site].tokens + tokens
            found[site] = Push(total, tokens)
    return found


def leave_one_out(
    aligned: Aligned, deltas: Deltas, sinks: float = SINK
) -> dict[Site, Float[Tensor, "token d_model"]]:
    """For each token, the mean delta over the tokens of all other examples that are no sinks."""
    require_others(len(aligned.plain_rows))
    return {
        site: push_of_others(aligned, site, delta, sinks)[aligned.example]
        for site, delta in deltas.items()
    }


def push_of_others(
    aligned: Aligned,
    site: Site,
    delta: Float[Tensor, "token d_model"],
    sinks: float,
    totals: Mapping[Site, Push] | None = None,
) -> Float[Tensor, "example d_model"]:
    """For each example, the mean delta over the tokens of all others; `totals` has more of them."""
    sums, counts = _sums(aligned, site, delta, sinks)
    every = Push(sums.sum(dim=0), counts.sum()) if totals is None else totals[site]
    of_others = every.tokens - counts
    some = (of_others > 0).all() & (every.tokens > 0)
    require_ordinary(some.expand(len(aligned.example)), f"tokens of the other examples at {site}")
    return (every.total - sums) / of_others[:, None]


def _sums(
    aligned: Aligned, site: Site, delta: Float[Tensor, "token d_model"], sinks: float
) -> tuple[Float[Tensor, "example d_model"], Int[Tensor, "example"]]:
    """The sum of the deltas of each example's tokens that are no sinks, and their number."""
    keep, n_examples = ~aligned.sinks(site, sinks), len(aligned.plain_rows)
    example = aligned.example[keep]
    sums = torch.zeros((n_examples, delta.shape[1]), dtype=delta.dtype)
    counts = torch.bincount(example, minlength=n_examples)
    return sums.index_add(0, example, delta[keep]), counts
