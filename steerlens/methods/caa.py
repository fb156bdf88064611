"""Contrastive Activation Addition: one mean difference, added at every position.

Rimsky et al., "Steering Llama 2 via Contrastive Activation Addition", arXiv 2312.06681, section 3:

    v  = mean_i ( h(q_i + positive answer) - h(q_i + negative answer) )
    h' = h + v

read at the answer token of each pair and written at the output of the same block (`resid_post`)
from the end of the instruction on: `caa.only(response)`. The paper's multiplier is the strength.
"""

from math import inf

from jaxtyping import Float
from torch import Tensor

from steerlens.activations import capture, default_read
from steerlens.checks import require_pairs, require_two_sides
from steerlens.directions.checks import require_difference, require_pairs_of_prompts
from steerlens.directions.means import ordinary_pairs
from steerlens.directions.token_means import counted, pairs_of_means
from steerlens.forms import Added
from steerlens.kinds import require_kinds
from steerlens.prompts import Prompts, encode_all
from steerlens.scopes import Scope
from steerlens.sinks import SINK
from steerlens.sites import Site, Sites, as_sites
from steerlens.steering import Steering
from steerlens.steers import steer
from steerlens.training.fit import Fit, token_ids
from steerlens.types import Direction, Hook, HookedModel, Residual


@steer
class CAA:
    """Add `direction` to every position."""

    direction: Direction

    @property
    def form(self) -> Added:
        """For other tools: one vector, added everywhere."""
        return Added(self.direction)

    @classmethod
    def from_activations(
        cls,
        positive: Float[Tensor, "pair d_model"],
        negative: Float[Tensor, "pair d_model"],
        *,
        sinks: float = SINK,
    ) -> "CAA":
        """The mean difference of activations at the answer token of each pair, in one order.

        A pair with a row longer than `sinks` times the median is left out; infinity keeps all.
        """
        require_kinds(CAA.from_activations, locals())
        require_pairs(positive, negative)
        keep = ordinary_pairs(positive, negative, sinks)
        return cls(direction=(positive - negative)[keep].mean(dim=0))

    @classmethod
    def fit(
        cls,
        model: HookedModel,
        prompts: tuple[Prompts, Prompts],
        sites: Sites,
        *,
        read: Scope | None = None,
        sinks: float = SINK,
    ) -> "Fit[CAA]":
        """Fit each site by itself from (positive, negative) prompts, in the same order.

        `read` says which tokens are read; where it holds several of a prompt, their mean is. By
        default that is the response where all prompts have one, else the last prompt token. Tokens
        whose norm is above `sinks` times the median are left out, as `Fit.sinks` counts.
        """
        require_kinds(CAA.fit, locals())
        require_two_sides(prompts, "CAA")
        sites = as_sites(sites, model)
        positive, negative = (encode_all(model, side) for side in prompts)
        require_pairs_of_prompts(positive, negative)
        read = read or default_read([*positive, *negative])
        seen = [capture(model, rows, sites, scope=read) for rows in (positive, negative)]
        steers: dict[Site, CAA] = {}
        for site in sites:
            means = pairs_of_means(seen, site, len(positive), sinks)
            steers[site] = cls.from_activations(*means, sinks=inf)
            require_difference(steers[site].direction, means[0], site, read)
        left_out = counted(seen, sites, sinks)
        return Fit.of(model, steers, token_ids([*positive, *negative]), sinks=left_out)

    @classmethod
    def from_prompts(
        cls,
        model: HookedModel,
        positive: Prompts,
        negative: Prompts,
        sites: Sites,
        *,
        read: Scope | None = None,
        sinks: float = SINK,
    ) -> Steering:
        """The steering that `fit` finds: the short way."""
        require_kinds(CAA.from_prompts, locals())
        return cls.fit(model, (positive, negative), sites, read=read, sinks=sinks).steering

    def __call__(self, activation: Residual, hook: Hook = None) -> Residual:
        h, v = activation, self.direction.to(activation)
        return h + v
