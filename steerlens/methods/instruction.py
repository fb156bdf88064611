"""Instruction vectors: bring each token as far along one direction as the instruction would.

Stolfo et al., "Improving Instruction-Following in Language Models through Activation Steering",
arXiv 2410.12877, section 2, read at the last prompt token and written at the output of the same
block, at every token (here but the first, a sink of most models, which breaks them if it is moved):

    u  = unit( mean( h(x + instruction) - h(x) ) )
    z  = mean( h(x + instruction) u )
    h' = h + (z - h u) u                 "adjust": the projection on u becomes z
    h' = h + w u                         "add": w is the strength

The paper adjusts for formats, and adds for lengths and key words, where w is swept. It chooses the
layer by validation, which is the caller's work here.
"""

from collections.abc import Sequence
from dataclasses import replace
from math import inf

from jaxtyping import Float
from torch import Tensor

from steerlens.activations import capture
from steerlens.directions.checks import require_instruction_seen, require_unit
from steerlens.directions.means import ordinary_pairs, unit
from steerlens.directions.token_means import counted, pairs_of_means
from steerlens.forms import Clamped
from steerlens.kinds import require_kinds
from steerlens.methods.caa import CAA
from steerlens.precision import wide
from steerlens.prompts import Encoded, PromptPair, encode_pair
from steerlens.scopes import Scope, after_first, last
from steerlens.sinks import SINK
from steerlens.sites import Site, Sites, as_sites
from steerlens.steering import Steering
from steerlens.steers import steer
from steerlens.training.checks import require_some
from steerlens.training.fit import Fit, token_ids
from steerlens.types import Direction, Hook, HookedModel, Residual


@steer
class InstructionVector:
    """Make the projection on the unit direction u equal z; computed in float32 or wider."""

    u: Direction
    z: float

    def __post_init__(self) -> None:
        require_unit(self.u, "InstructionVector's u")

    @property
    def form(self) -> Clamped:
        """For other tools: a projection that is clamped."""
        return Clamped(self.u, self.z)

    @classmethod
    def from_activations(
        cls,
        plain: Float[Tensor, "pair d_model"],
        prompted: Float[Tensor, "pair d_model"],
        *,
        sinks: float = SINK,
    ) -> "InstructionVector":
        """Fit from activations at the last prompt token, without and with the instruction.

        A pair with a row longer than `sinks` times the median is left out; infinity keeps all.
        """
        require_kinds(InstructionVector.from_activations, locals())
        keep = ordinary_pairs(plain, prompted, sinks)
        u = unit((prompted - plain)[keep].mean(dim=0))
        return cls(u, float((prompted[keep] @ u).mean()))

    @classmethod
    def fit(
        cls,
        model: HookedModel,
        pairs: Sequence[PromptPair],
        sites: Sites,
        *,
        scope: Scope = after_first,
        sinks: float = SINK,
    ) -> "Fit[InstructionVector]":
        """Fit each site by itself from the two prompts of each pair; responses are not read.

        The steering adjusts, on the tokens of `scope`; `InstructionVector.adding(fit)` is the one
        that adds, at every token. Pairs whose last prompt token has a norm above `sinks` times the
        median are left out.
        """
        require_kinds(InstructionVector.fit, locals())
        sites = as_sites(sites, model)
        plain, prompted = (
            [replace(row, ids=row.prompt_ids) for row in side] for side in _sides(model, pairs)
        )
        before, after = (capture(model, rows, sites, scope=last) for rows in (plain, prompted))
        steers: dict[Site, InstructionVector] = {}
        for site in sites:
            h, h_prompted = (
                wide(side) for side in pairs_of_means([before, after], site, len(plain), sinks)
            )
            require_instruction_seen(h, h_prompted, site)
            steers[site] = cls.from_activations(h, h_prompted, sinks=inf)
        left_out = counted([before, after], sites, sinks)
        data = token_ids([*plain, *prompted])
        return Fit.of(model, steers, data, scope=scope, sinks=left_out)

    @staticmethod
    def adding(fit: "Fit[InstructionVector]") -> Steering:
        """The other way to use the vectors: add u at every token, with w as the strength."""
        require_kinds(InstructionVector.adding, locals())
        placed = tuple((site, CAA(vector.u)) for site, vector in fit.steers.items())
        return Steering(placed, fit.steering.origin)

    def __call__(self, activation: Residual, hook: Hook = None) -> Residual:
        h, z = wide(activation), self.z
        u = self.u.to(h)
        return (h + (z - h @ u)[..., None] * u).to(activation.dtype)


def _sides(model: HookedModel, pairs: Sequence[PromptPair]) -> tuple[list[Encoded], list[Encoded]]:
    """The plain and the prompted rows of the pairs."""
    require_some(pairs)
    both = [encode_pair(model, pair) for pair in pairs]
    return [plain for plain, _ in both], [prompted for _, prompted in both]
