"""Means over the tokens of each prompt that are no sinks, for directions from prompts."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from steerlens.activations import Activations
from steerlens.sinks import SINK, require_ordinary, warn_of_rows
from steerlens.sites import Site

Means = Float[Tensor, "_ d_model"]


def pairs_of_means(
    sides: Sequence[Activations], site: Site, rows: int, sinks: float = SINK
) -> list[Means]:
    """For each side, the mean of each prompt over its tokens that are no sinks, in pairs.

    A pair of which one prompt has no such token is left out with a warning; ValueError if all are.
    """
    means, kept = zip(*(side.ordinary_means(site, rows, sinks) for side in sides), strict=True)
    keep = kept[0] & kept[1]
    require_ordinary(keep, f"pairs of prompts, by the tokens that are read, at {site},")
    warn_of_rows(keep, f"pairs at {site}")
    return [side[keep] for side in means]


def shared_pairs_of_means(
    sides: Sequence[Activations], sites: Sequence[Site], rows: int, sinks: float = SINK
) -> dict[Site, tuple[Means, Means]]:
    """The same at every site, of the pairs that have such a token at all of them.

    For methods that look at several sites of a pair at once.
    """
    found = {site: [side.ordinary_means(site, rows, sinks) for side in sides] for site in sites}
    kept = [kept for both in found.values() for _, kept in both]
    keep = torch.stack(kept).all(dim=0)
    require_ordinary(keep, "pairs of prompts, by the tokens that are read at all sites,")
    warn_of_rows(keep, "pairs")
    return {site: (both[0][0][keep], both[1][0][keep]) for site, both in found.items()}


def alternating_means(side: Activations, site: Site, rows: int, sinks: float = SINK) -> Means:
    """The same where the partners follow each other in one list."""
    means, kept = side.ordinary_means(site, rows, sinks)
    keep = kept[0::2] & kept[1::2]
    require_ordinary(keep, f"pairs of prompts, by the tokens that are read, at {site},")
    warn_of_rows(keep, f"pairs at {site}")
    return means[keep.repeat_interleave(2)]


def counted(sides: Sequence[Activations], sites: Sequence[Site], sinks: float) -> dict[Site, int]:
    """How many of the tokens that were read are sinks at each site, on all sides together."""
    return {site: sum(int(side.sinks(site, sinks).sum()) for side in sides) for site in sites}
