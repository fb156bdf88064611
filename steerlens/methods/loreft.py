"""Low-rank linear subspace ReFT: inside a few directions, put what a linear map says.

Wu et al., "ReFT: Representation Finetuning for Language Models", arXiv 2404.03592, section 3.2, at
the output of every steered block:

    h' = h + R^T ( W h + b - R h )

R has orthonormal rows: of h nothing changes but its part R h in their span, which becomes W h + b.
R, W and b are learnt by the likelihood of the responses. R keeps its rows orthonormal by a QR
decomposition, in every step's gradient and after it. They begin at W = R and b = 0, so that step 0
is the model itself, as CLAS begins (the authors begin with random W and b); the dropout and the
nonlinearity that the authors offer are not here.

The paper steers the first n and the last m tokens of the prompt, "f{n}+l{m}", and no other. Here
it is every token unless `scope` says else: `positions(0, n)` is f{n} where prompts are that long,
`last` is l1; there is no scope for both at once.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from steerlens.directions.checks import require_orthonormal
from steerlens.forms import Sensed
from steerlens.kinds import require_kinds
from steerlens.precision import wide
from steerlens.prompts import PromptPair
from steerlens.scopes import Scope, everywhere
from steerlens.sites import Site, Sites, as_sites
from steerlens.steers import steer
from steerlens.training.checkpoint import Parameters
from steerlens.training.checks import require_rank
from steerlens.training.fit import Fit
from steerlens.training.gates import key_of
from steerlens.training.likelihood import by_likelihood
from steerlens.training.schedule import Schedule
from steerlens.types import Hook, HookedModel, Residual

SKEW = 1e-3
"""How far the rows of R may be from orthonormal."""


@steer
class LoReFT:
    """Put W h + b in place of R h, in the span of R's rows; computed in float32 or wider."""

    R: Float[Tensor, "rank d_model"]
    W: Float[Tensor, "rank d_model"]
    b: Float[Tensor, " rank"]

    def __post_init__(self) -> None:
        require_orthonormal(self.R, SKEW)

    @property
    def sensed(self) -> Sensed:
        """For a tool that reads activations: (W - R) h + b along the rows of R."""
        R = wide(self.R)
        return Sensed(wide(self.W) - R, wide(self.b), R)

    @staticmethod
    def require(model: HookedModel, *, rank: int) -> None:
        """Raise ValueError for keywords of `fit` that cannot be; asked before any work."""
        require_rank(rank, model.cfg.d_model)

    @classmethod
    def fit(
        cls,
        model: HookedModel,
        pairs: Sequence[PromptPair],
        sites: Sites,
        *,
        validation: Sequence[PromptPair],
        rank: int = 1,
        schedule: Schedule = Schedule.full_batch(),  # noqa: B008  a frozen value
        scope: Scope = everywhere,
        progress: bool = False,
    ) -> "Fit[LoReFT]":
        """Fit all sites at once, the best step by validation loss kept: step 0 is the model itself.

        Only the plain prompt and the response of each pair are used.
        """
        require_kinds(LoReFT.fit, locals())
        cls.require(model, rank=rank)
        modules = _Modules(tuple(sorted(as_sites(sites, model))), rank, model.cfg.d_model)
        return by_likelihood(
            model,
            pairs,
            modules,
            validation=validation,
            schedule=schedule,
            scope=scope,
            after_step=modules.make_orthonormal,
            progress=progress,
        )

    def gates(self, h: Float[Tensor, "*token d_model"]) -> Float[Tensor, "*token rank"]:
        """How far each token is moved along each row of R, of either sign."""
        h = wide(h)
        R, W, b = self.R.to(h), self.W.to(h), self.b.to(h)
        return h @ W.T + b - h @ R.T

    def __call__(self, activation: Residual, hook: Hook = None) -> Residual:
        h = wide(activation)
        R = self.R.to(h)
        return (h + self.gates(h) @ R).to(activation.dtype)


def orthonormal(rows: Float[Tensor, "rank d_model"]) -> Float[Tensor, "rank d_model"]:
    """Rows of length 1 at right angles that span what `rows` span; orthonormal rows stay."""
    Q, triangle = torch.linalg.qr(rows.T)
    return (Q * triangle.diagonal().sign()).T


@dataclass(frozen=True)
class _Modules:
    """One module a site, and its parameters by name."""

    sites: tuple[Site, ...]
    rank: int
    d_model: int

    def begin(self, generator: torch.Generator) -> Parameters:
        """A random subspace at each site, in which nothing is changed."""
        parameters: Parameters = {}
        for site in self.sites:
            R = orthonormal(torch.randn(self.rank, self.d_model, generator=generator))
            parameters |= {key_of(site, "R"): R, key_of(site, "W"): R.clone()}
            parameters[key_of(site, "b")] = torch.zeros(self.rank)
        return parameters

    def build(self, parameters: Parameters) -> dict[Site, LoReFT]:
        """The modules with these parameters."""
        steers = {}
        for site in self.sites:
            R, W, b = (parameters[key_of(site, name)] for name in "RWb")
            turned = orthonormal(R)
            # R's own value, to the bit, with the gradient of orthonormal rows.
            steers[site] = LoReFT(R.detach() + (turned - turned.detach()), W, b)
        return steers

    def make_orthonormal(self, parameters: Parameters) -> None:
        """Make the rows of every R orthonormal again."""
        for site in self.sites:
            R = parameters[key_of(site, "R")]
            R.copy_(orthonormal(R))
