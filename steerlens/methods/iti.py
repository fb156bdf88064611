"""Inference-time intervention: the heads that know an answer is true are moved the way it is.

Li et al., "Inference-Time Intervention: Eliciting Truthful Answers from a Language Model",
arXiv 2306.03341, section 3, at the outputs z of chosen heads, before their output matrix:

    theta = unit( mean z(positive) - mean z(negative) )          of each head: mass mean shift
    sigma = standard deviation of z theta
    z'    = z + alpha sigma theta                                of the K chosen heads

A head is chosen by how many held-out answers a logistic regression on its z tells apart. By default
it acts from the last prompt token on, as the authors' code does at each step of writing.
"""

import random
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from steerlens.activations import capture, default_read
from steerlens.checks import require_seed, require_two_sides
from steerlens.directions.checks import (
    n_fitted,
    require_difference,
    require_heads,
    require_heads_of,
    require_pairs_of_prompts,
    require_pairs_to_probe,
    require_share,
)
from steerlens.directions.probes import accuracy
from steerlens.forms import Added
from steerlens.kinds import require_kinds
from steerlens.precision import wide
from steerlens.prompts import Prompts, encode_all
from steerlens.scopes import Scope, response
from steerlens.sites import Site, Sites, as_sites, require_site
from steerlens.steers import steer
from steerlens.training.fit import Fit, token_ids
from steerlens.types import Hook, HookedModel, Residual

Sides = Float[Tensor, "side row head d_head"]


@steer
class ITI:
    """Add alpha sigma theta to each head's z; a head that was not chosen has theta and sigma 0."""

    theta: Float[Tensor, "head d_head"]
    sigma: Float[Tensor, " head"]
    alpha: float = 15.0

    @property
    def heads(self) -> tuple[int, int]:
        """How many heads there are, and how many numbers each has."""
        return self.theta.shape[0], self.theta.shape[1]

    @property
    def form(self) -> Added:
        """For other tools: one vector of all heads, added everywhere."""
        return Added((self.alpha * wide(self.sigma)[:, None] * wide(self.theta)).flatten())

    @property
    def chosen(self) -> list[int]:
        """The numbers of the heads that are moved."""
        return torch.nonzero(self.sigma)[:, 0].tolist()

    @classmethod
    def from_activations(
        cls,
        positive: Float[Tensor, "positive head d_head"],
        negative: Float[Tensor, "negative head d_head"],
        chosen: Sequence[int],
        alpha: float = 15.0,
    ) -> "ITI":
        """The shift of the `chosen` heads from their z at positive and at negative answers."""
        require_kinds(ITI.from_activations, locals())
        positive, negative = wide(positive), wide(negative)
        require_heads_of(positive, negative, chosen)
        difference = positive.mean(dim=0) - negative.mean(dim=0)
        theta = difference / difference.norm(dim=1, keepdim=True).clamp(min=1e-12)
        along = torch.einsum("rhd,hd->rh", torch.cat([positive, negative]), theta)
        inside = torch.zeros(len(theta), dtype=torch.bool)
        inside[list(chosen)] = True
        return cls(theta * inside[:, None], along.std(dim=0) * inside, alpha)

    @classmethod
    def fit(
        cls,
        model: HookedModel,
        prompts: tuple[Prompts, Prompts],
        sites: Sites,
        *,
        heads: int = 48,
        alpha: float = 15.0,
        held_out: float = 0.2,
        scope: Scope = response,
        read: Scope | None = None,
        seed: int = 0,
    ) -> "Fit[ITI]":
        """Choose heads of the layers of `sites` from (positive, negative) prompts, in one order.

        `heads` is how many are chosen, of all layers together. `alpha` is how many standard
        deviations they are moved. `held_out` is the share of pairs on which the probes are judged.
        `scope` is where it acts. `read` says which tokens are read, as in CAA; where it holds
        several of a prompt, their mean is. `seed` shuffles the pairs. ValueError for more heads
        than there are.
        """
        require_kinds(ITI.fit, locals())
        require_two_sides(prompts, "ITI")
        require_seed(seed)
        require_share(held_out)
        places = [Site(site.layer, "z") for site in as_sites(sites, model)]
        for place in places:
            require_site(model, place)
        require_heads(heads, len(places) * model.cfg.n_heads)
        positive, negative = (encode_all(model, side) for side in prompts)
        require_pairs_of_prompts(positive, negative, "ITI")
        require_pairs_to_probe(len(positive), held_out)
        z = _read(model, (positive, negative), places, read)
        accuracies = _accuracies(z, held_out, seed)
        best = sorted(accuracies, key=lambda one: -accuracies[one])[:heads]
        steers: dict[Site, ITI] = {}
        for site in places:
            chosen = [head for place, head in best if place == site]
            if chosen:
                steers[site] = cls.from_activations(z[site][0], z[site][1], chosen, alpha)
        found = [accuracies[one] for one in best]
        name = f"ITI, {heads} heads of probe accuracy {min(found):.2f} to {max(found):.2f}"
        ids = token_ids([*positive, *negative])
        return Fit.of(model, steers, ids, scope=scope, seed=seed, name=name)

    def __call__(self, activation: Residual, hook: Hook = None) -> Residual:
        z, alpha = wide(activation), self.alpha
        sigma, theta = self.sigma.to(z)[:, None], self.theta.to(z)
        return (z + (alpha * sigma * theta).flatten()).to(activation.dtype)


def _read(
    model: HookedModel, sides: tuple[list, list], places: Sequence[Site], read: Scope | None
) -> dict[Site, Sides]:
    """The mean z of each prompt, by site: [side, row, head, d_head]."""
    read = read or default_read([*sides[0], *sides[1]])
    seen = [capture(model, rows, places, scope=read) for rows in sides]
    heads, found = (model.cfg.n_heads, model.cfg.d_head), dict[Site, Sides]()
    for site in places:
        positive, negative = (s.row_means(site, len(sides[0])) for s in seen)
        require_difference((positive - negative).mean(dim=0), positive, site, read)
        found[site] = torch.stack([positive, negative]).unflatten(2, heads)
    return found


def _accuracies(z: dict[Site, Sides], held_out: float, seed: int) -> dict[tuple[Site, int], float]:
    """How well a probe of each head does on the pairs that are held out."""
    pairs = next(iter(z.values())).shape[1]
    order = random.Random(f"pairs {seed}").sample(range(pairs), pairs)
    n = n_fitted(2 * pairs, held_out) // 2
    return {
        (site, head): accuracy(sides[:, order[:n], head], sides[:, order[n:], head])
        for site, sides in z.items()
        for head in range(sides.shape[2])
    }
