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
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from steerlens.checks import require_finite
from steerlens.prompts import PromptPair
from steerlens.saving import saveable
from steerlens.scopes import Scope, everywhere
from steerlens.sites import Site, as_site
from steerlens.steering import Steering
from steerlens.training.gates import key_of
from steerlens.training.likelihood import by_likelihood
from steerlens.training.loop import Parameters, Trained
from steerlens.types import Hook, HookedModel, Residual

STEPS, RATE = 8, 3e-3
SKEW = 1e-3
"""How far the rows of R may be from orthonormal."""


@saveable
@dataclass(frozen=True, eq=False)
class LoReFT:
    """Put W h + b in place of R h, in the span of R's rows; computed in float32."""

    R: Float[Tensor, "rank d_model"] = field(repr=False)
    W: Float[Tensor, "rank d_model"] = field(repr=False)
    b: Float[Tensor, " rank"] = field(repr=False)

    def __post_init__(self) -> None:
        for name, value in (("R", self.R), ("W", self.W), ("b", self.b)):
            require_finite(value.detach(), f"LoReFT's {name}")
        R = self.R.detach().float()
        off = float((R @ R.T - torch.eye(len(R)).to(R)).abs().max())
        if off > SKEW:
            raise ValueError(
                f"The rows of LoReFT's R must be orthonormal; R R^T is off the identity by "
                f"{off:.2g}. steerlens.methods.loreft.orthonormal(R) makes them so."
            )

    @property
    def d_model(self) -> int:
        """The width of the residual stream that the subspace lies in."""
        return self.R.shape[1]

    @classmethod
    def fit(
        cls,
        model: HookedModel,
        pairs: Sequence[PromptPair],
        validation: Sequence[PromptPair],
        sites: Sequence[int | Site] | int | Site,
        *,
        rank: int = 1,
        steps: int = STEPS,
        rate: float = RATE,
        scope: Scope = everywhere,
        template: str | None = None,
        seed: int = 0,
        progress: bool = False,
    ) -> "Fit":
        """Fit all sites at once: `steps` updates on all pairs, the best by validation loss kept.

        Only the plain prompt and the response of each pair are used.
        """
        if not 1 <= rank <= model.cfg.d_model:
            raise ValueError(f"rank is from 1 to d_model = {model.cfg.d_model}; found {rank}.")
        listed = [sites] if isinstance(sites, int | Site) else list(sites)
        modules = _Modules(tuple(sorted({as_site(s) for s in listed})), rank, model.cfg.d_model)
        steering, trained = by_likelihood(
            model,
            modules,
            pairs,
            validation,
            steps=steps,
            rate=rate,
            project=modules.project,
            scope=scope,
            template=template,
            seed=seed,
            progress=progress,
        )
        return Fit(steering, modules.build(trained.parameters), trained)

    def gates(self, h: Float[Tensor, "*token d_model"]) -> Float[Tensor, "*token rank"]:
        """How far each token is moved along each row of R, of either sign."""
        h, R, W, b = h.float(), self.R.to(h.device), self.W.to(h.device), self.b.to(h.device)
        return h @ W.T + b - h @ R.T

    def __call__(self, activation: Residual, hook: Hook = None) -> Residual:
        h, R = activation.float(), self.R.to(activation.device)
        return (h + self.gates(h) @ R).to(activation.dtype)


@dataclass(frozen=True, eq=False)
class Fit:
    """A fitted LoReFT, and how training went: step 0 is the model without steering."""

    steering: Steering
    steers: dict[Site, LoReFT]
    trained: Trained


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

    def project(self, parameters: Parameters) -> None:
        """Make the rows of every R orthonormal again."""
        for site in self.sites:
            R = parameters[key_of(site, "R")]
            R.copy_(orthonormal(R))
