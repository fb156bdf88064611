"""Contrastive Activation Addition: one mean difference, added at every position.

Rimsky et al., "Steering Llama 2 via Contrastive Activation Addition", arXiv 2312.06681, section 3:

    v  = mean_i ( h(q_i + positive answer) - h(q_i + negative answer) )
    h' = h + v

read at the answer token of each pair and written at the output of the same block (`resid_post`)
from the end of the instruction on: `caa.only(response)`. The paper's multiplier is the strength.
"""

from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from steerlens.activations import capture, default_read
from steerlens.checks import require_finite, require_pairs
from steerlens.directions.means import SAME
from steerlens.identity import origin_of
from steerlens.prompts import Prompts, encode_all
from steerlens.saving import saveable
from steerlens.scopes import Scope
from steerlens.sites import Site, as_site
from steerlens.steering import Steering
from steerlens.types import Direction, Hook, HookedModel, Residual


@saveable
@dataclass(frozen=True, eq=False)
class CAA:
    """Add `direction` to every position."""

    direction: Direction = field(repr=False)

    def __post_init__(self) -> None:
        require_finite(self.direction, "CAA's direction")

    @property
    def d_model(self) -> int:
        """The width of the residual stream that the direction belongs to."""
        return self.direction.shape[0]

    @classmethod
    def fit(
        cls, positive: Float[Tensor, "pair d_model"], negative: Float[Tensor, "pair d_model"]
    ) -> "CAA":
        """Fit from activations at the answer token of each pair, in the same order."""
        require_pairs(positive, negative)
        return cls(direction=(positive - negative).mean(dim=0))

    @classmethod
    def from_prompts(
        cls,
        model: HookedModel,
        positive: Prompts,
        negative: Prompts,
        site: int | Site,
        *,
        read: Scope | None = None,
        template: str | None = None,
    ) -> Steering:
        """Capture and fit in one call, placed at `site`.

        `read` says which tokens are read; where it holds several of a prompt, their mean is. By
        default that is the response where all prompts have one, else the last prompt token.
        """
        place = as_site(site)
        rows = [encode_all(model, prompts, template) for prompts in (positive, negative)]
        if len(rows[0]) != len(rows[1]):
            raise ValueError(
                f"CAA needs pairs: {len(rows[0])} positive and {len(rows[1])} negative prompts "
                "were given. Give as many of each, in the same order."
            )
        read = read or default_read([*rows[0], *rows[1]])
        sides = [capture(model, side, place, scope=read) for side in rows]
        means = [
            side.row_means(place, len(encoded)) for side, encoded in zip(sides, rows, strict=True)
        ]
        fitted = cls.fit(*means)
        if fitted.direction.norm() <= SAME * means[0].norm(dim=-1).mean():
            raise ValueError(
                f"The positive and the negative prompts have the same activations at {place} on "
                f"the tokens of `{read}`, so there is no difference to add. Read tokens that "
                "differ, or come after some that do: read=steerlens.generated, say."
            )
        origin = origin_of(model, data=[torch.tensor(row.ids) for side in rows for row in side])
        return Steering(((place, fitted),), origin)

    def __call__(self, activation: Residual, hook: Hook = None) -> Residual:
        h, v = activation, self.direction.to(activation)
        return h + v
