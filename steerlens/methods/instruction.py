"""Instruction vectors: bring each token as far along one direction as the instruction would.

Stolfo et al., "Improving Instruction-Following in Language Models through Activation Steering",
arXiv 2410.12877, section 2, read at the last prompt token and written at the output of the same
block, at every token:

    u  = unit( mean( h(x + instruction) - h(x) ) )
    z  = mean( h(x + instruction) u )
    h' = h + (z - h u) u                 "adjust": the projection on u becomes z
    h' = h + w u                         "add": w is the strength

The paper adjusts for formats, and adds for lengths and key words, where w is swept. It chooses the
layer by validation, which is the caller's work here.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch
from jaxtyping import Float
from torch import Tensor

from steerlens.activations import capture
from steerlens.checks import require_finite
from steerlens.directions.means import SAME, unit
from steerlens.identity import origin_of
from steerlens.methods.caa import CAA
from steerlens.prompts import PromptPair, encode_pair
from steerlens.saving import saveable
from steerlens.scopes import last
from steerlens.sites import Site, as_site
from steerlens.steering import Steering
from steerlens.types import Direction, Hook, HookedModel, Residual


@saveable
@dataclass(frozen=True, eq=False)
class InstructionVector:
    """Make the projection on the unit direction u equal z; computed in float32."""

    u: Direction = field(repr=False)
    z: float

    def __post_init__(self) -> None:
        require_finite(self.u, "InstructionVector's u")
        require_finite(torch.tensor(self.z), "InstructionVector's z")
        length = float(self.u.float().norm())
        if abs(length - 1) > 1e-3:
            raise ValueError(
                f"InstructionVector's u must have length 1; found {length:.4g}. "
                "Use steerlens.unit(u)."
            )

    @property
    def d_model(self) -> int:
        """The width of the residual stream that u belongs to."""
        return self.u.shape[0]

    @classmethod
    def fit(
        cls,
        model: HookedModel,
        pairs: Sequence[PromptPair],
        site: int | Site,
        *,
        template: str | None = None,
    ) -> "Fit":
        """Fit from the two prompts of each pair; responses are not read."""
        if not pairs:
            raise ValueError("No pairs were given. Pass some PromptPairs: prompted_pairs(...).")
        place = as_site(site)
        both = [encode_pair(model, pair, template) for pair in pairs]
        prompts = [
            [replace(row, ids=row.prompt_ids) for row in side] for side in zip(*both, strict=True)
        ]
        plain, prompted = (
            capture(model, rows, place, scope=last).at(place).float() for rows in prompts
        )
        difference = prompted.mean(dim=0) - plain.mean(dim=0)
        if difference.norm() <= SAME * plain.norm(dim=-1).mean():
            raise ValueError(
                "With and without the instruction the last prompt token has the same activation "
                f"at {place}, so there is no direction. Give pairs with an instruction, and a site "
                "that has seen it: the output of a block."
            )
        adjust = cls.from_activations(plain, prompted)
        origin = origin_of(model, data=[torch.tensor(row.ids) for side in prompts for row in side])
        return Fit(
            Steering(((place, adjust),), origin),
            Steering(((place, CAA(adjust.u)),), origin),
            adjust,
        )

    @classmethod
    def from_activations(
        cls, plain: Float[Tensor, "pair d_model"], prompted: Float[Tensor, "pair d_model"]
    ) -> "InstructionVector":
        """Fit from activations at the last prompt token, without and with the instruction."""
        u = unit((prompted - plain).mean(dim=0))
        return cls(u, float((prompted @ u).mean()))

    def __call__(self, activation: Residual, hook: Hook = None) -> Residual:
        h, u, z = activation.float(), self.u.to(activation.device), self.z
        return (h + (z - h @ u)[..., None] * u).to(activation.dtype)


@dataclass(frozen=True, eq=False)
class Fit:
    """Both ways to use an instruction vector: `adjust`, and `add` with w as its strength."""

    adjust: Steering
    add: Steering
    vector: InstructionVector
