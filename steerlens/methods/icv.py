"""In-context vectors: the main direction of the differences of demonstrations, the length kept.

Liu et al., "In-context Vectors: Making In Context Learning More Effective and Controllable Through
Latent Space Shifting", arXiv 2311.06668, section 3, at every layer and every token:

    v  = first principal direction of { h(y_i) - h(x_i) }        all layers one beside the other
    h' = |h| unit( unit(h) + lambda v )                          each layer has its part of v

x_i is a demonstration as it is and y_i as it should be. The part of v at each layer has length 1,
so that lambda is a share of the activation's own length, as in the authors' code.

The differences are not centred: less their mean, what is looked for would be gone
(`principal_direction` says more). The sign is such that the y_i project higher.
"""

from math import inf

import torch
from jaxtyping import Float
from torch import Tensor

from steerlens.activations import capture, default_read
from steerlens.checks import require_two_sides
from steerlens.directions.checks import (
    require_difference,
    require_pairs_of_prompts,
    require_unit,
)
from steerlens.directions.means import principal_direction, unit
from steerlens.directions.token_means import counted, shared_pairs_of_means
from steerlens.kinds import require_kinds
from steerlens.precision import wide
from steerlens.prompts import Prompts, encode_all
from steerlens.scopes import Scope
from steerlens.sinks import SINK
from steerlens.sites import Site, Sites, as_sites
from steerlens.steers import steer
from steerlens.training.fit import Fit, token_ids
from steerlens.types import Direction, Hook, HookedModel, Residual


@steer
class ICV:
    """Move each activation by lam v of its own length, and keep that; in float32 or wider."""

    v: Direction
    lam: float = 0.1

    def __post_init__(self) -> None:
        require_unit(self.v, "ICV's v")

    @classmethod
    def from_activations(
        cls,
        positive: Float[Tensor, "pair d_model"],
        negative: Float[Tensor, "pair d_model"],
        lam: float = 0.1,
        *,
        sinks: float = SINK,
    ) -> "ICV":
        """The vector of one layer from activations of y (positive) and x (negative), in pairs.

        A pair with a row longer than `sinks` times the median is left out; infinity keeps all.
        """
        require_kinds(ICV.from_activations, locals())
        return cls(principal_direction(positive, negative, "none", sinks=sinks), lam)

    @classmethod
    def fit(
        cls,
        model: HookedModel,
        prompts: tuple[Prompts, Prompts],
        sites: Sites,
        *,
        lam: float = 0.1,
        read: Scope | None = None,
        sinks: float = SINK,
    ) -> "Fit[ICV]":
        """Fit all sites at once from (positive, negative) prompts, in the same order.

        `lam` is how far each activation goes, as a share of its length. `read` says which tokens
        are read; where it holds several of a prompt, their mean is. By default that is the response
        where all prompts have one, else the last prompt token. Tokens whose norm is above `sinks`
        times the median are left out, as `Fit.sinks` counts.
        """
        require_kinds(ICV.fit, locals())
        require_two_sides(prompts, "ICV")
        sites = as_sites(sites, model)
        positive, negative = (encode_all(model, side) for side in prompts)
        require_pairs_of_prompts(positive, negative, "ICV")
        read = read or default_read([*positive, *negative])
        seen = [capture(model, rows, sites, scope=read) for rows in (positive, negative)]
        means = shared_pairs_of_means(seen, sites, len(positive), sinks)
        for site, (y, x) in means.items():
            require_difference((y - x).mean(dim=0), y, site, read)
        steers = {site: cls(v, lam) for site, v in _parts(means).items()}
        left_out = counted(seen, sites, sinks)
        return Fit.of(model, steers, token_ids([*positive, *negative]), sinks=left_out)

    def __call__(self, activation: Residual, hook: Hook = None) -> Residual:
        h, lam = wide(activation), self.lam
        v, length = self.v.to(h), h.norm(dim=-1, keepdim=True)
        return (length * _unit_rows(_unit_rows(h) + lam * v)).to(activation.dtype)


def _unit_rows(h: Residual) -> Residual:
    """Every vector at length 1; one of length 0 as it is."""
    return h / h.norm(dim=-1, keepdim=True).clamp(min=torch.finfo(h.dtype).tiny)


def _parts(
    means: dict[Site, tuple[Float[Tensor, "pair d_model"], Float[Tensor, "pair d_model"]]],
) -> dict[Site, Direction]:
    """The part of each site in the one principal direction of all of them, at length 1."""
    y, x = (torch.cat([wide(pair[side]) for pair in means.values()], dim=1) for side in (0, 1))
    whole = principal_direction(y, x, "none", sinks=inf)
    widths = [pair[0].shape[1] for pair in means.values()]
    return {site: unit(v) for site, v in zip(means, whole.split(widths), strict=True)}
