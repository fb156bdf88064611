"""Contextual Linear Activation Steering: a fixed direction, as strong as each token asks for.

Hsu, Beaglehole, Radhakrishnan & Belkin, "Contextual Linear Activation Steering of Language Models",
arXiv 2604.24693, at the output of every block, at every token:

    alpha = c h + b
    h'    = h + alpha v

v is a unit direction found beforehand and kept; c and b (the *sensing vector*) are learnt from a
few pairs "plain prompt, completion that shows the behaviour" by the likelihood of the completions.
They begin at zero, so step 0 is the model itself, and is kept if no step beats it on validation
pairs. alpha has no bounds unless `limit` sets some: far from what was trained on it can be large.

With c = 0 it is a constant strength, one per block (`layerwise`) or one for all (`single`); with
c = -v and b = 0 it takes the direction out; with v learnt too, of any length, from a random one and
at one rate for everything, it is the paper's ReFT baseline. With several directions at a block each
has its own c and b, and what they add is summed.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeAlias, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from steerlens.activations import capture
from steerlens.checks import require_choice, require_finite
from steerlens.directions.means import unit
from steerlens.prompts import PromptPair, encode_pair
from steerlens.saving import saveable
from steerlens.scopes import Scope, everywhere
from steerlens.sites import Site, as_site, require_writable
from steerlens.steering import Steering
from steerlens.training.gates import key_of
from steerlens.training.likelihood import by_likelihood
from steerlens.training.loop import Parameters, Trained
from steerlens.types import Direction, Hook, HookedModel, Residual

Kind = Literal["contextual", "layerwise", "single"]
Rows: TypeAlias = Float[Tensor, "rank d_model"]
Directions: TypeAlias = Direction | Rows
STEPS, RATE = 8, 3e-3
BIAS_SHARE = 0.01
"""The learning rate of b, as a share of the median norm of the activations in scope, BOS aside."""


@saveable
@dataclass(frozen=True, eq=False)
class CLAS:
    """Add each direction as strongly as its sensing vector says; computed in float32."""

    c: Float[Tensor, "rank d_model"] = field(repr=False)
    b: Float[Tensor, " rank"] = field(repr=False)
    v: Float[Tensor, "rank d_model"] = field(repr=False)
    limit: float | None = None

    def __post_init__(self) -> None:
        for name, value in (("c", self.c), ("b", self.b), ("v", self.v)):
            require_finite(value.detach(), f"CLAS's {name}")
        if self.c.shape != self.v.shape or self.b.shape != self.v.shape[:1]:
            raise ValueError(
                "CLAS has one c and one b for each v: shapes [rank, d_model], [rank] and "
                f"[rank, d_model]; found c {list(self.c.shape)}, b {list(self.b.shape)} and "
                f"v {list(self.v.shape)}."
            )
        if self.limit is not None and not self.limit > 0:
            raise ValueError(f"limit bounds |alpha| and must be above 0; found {self.limit}.")

    @property
    def d_model(self) -> int:
        """The width of the residual stream that the vectors belong to."""
        return self.v.shape[1]

    @classmethod
    def fixed(cls, v: Direction, strength: float) -> "CLAS":
        """The same strength at every token: ordinary linear steering."""
        return cls(torch.zeros_like(v)[None], torch.tensor([strength]), v[None])

    @classmethod
    def ablation(cls, v: Direction) -> "CLAS":
        """Take the direction out: nothing of h' lies along v."""
        return cls(-unit(v)[None], torch.zeros(1), unit(v)[None])

    @classmethod
    def fit(
        cls,
        model: HookedModel,
        pairs: Sequence[PromptPair],
        validation: Sequence[PromptPair],
        directions: Mapping[Site, Directions] | Mapping[int, Directions],
        *,
        kind: Kind = "contextual",
        learn_directions: bool = False,
        steps: int = STEPS,
        rate: float = RATE,
        bias_rate: float | None = None,
        bias_share: float | None = None,
        scope: Scope = everywhere,
        limit: float | None = None,
        template: str | None = None,
        seed: int = 0,
        progress: bool = False,
    ) -> "Fit":
        """Fit all sites at once: `steps` updates on all pairs, the best by validation loss kept.

        Only the plain prompt and the response of each pair are used. `directions` are one vector
        for each site, or several as rows, and are brought to length 1; with `learn_directions` as
        many random ones are learnt instead. `rate` is the learning rate; that of b is `bias_rate`,
        or else `bias_share` (0.01) of the median activation norm at each site, and of these their
        mean where one b is for all. Learnt directions have `rate` for everything, unless either
        is given.
        """
        require_choice("kind", kind, get_args(Kind))
        found = _unit_directions(model, directions)
        _require_rates(bias_rate, bias_share)
        modules = _Modules(tuple(found), found, kind, learn_directions, limit)
        if bias_rate is None and bias_share is None and learn_directions:
            bias_rate = rate
        if bias_rate is None:
            share = BIAS_SHARE if bias_share is None else bias_share
            rates = _rates(model, [*pairs, *validation], tuple(found), scope, template, share)
        else:
            rates = dict.fromkeys(found, bias_rate)
        steering, trained = by_likelihood(
            model,
            modules,
            pairs,
            validation,
            steps=steps,
            rate=rate,
            rates=modules.rates(rates),
            scope=scope,
            template=template,
            seed=seed,
            progress=progress,
        )
        return Fit(steering, modules.build(trained.parameters), trained)

    def gates(self, h: Float[Tensor, "*token d_model"]) -> Float[Tensor, "*token rank"]:
        """Alpha of each token, of either sign."""
        alpha = h.float() @ self.c.to(h.device).T + self.b.to(h.device)
        return alpha if self.limit is None else alpha.clamp(-self.limit, self.limit)

    def __call__(self, activation: Residual, hook: Hook = None) -> Residual:
        h, v = activation.float(), self.v.to(activation.device)
        return (h + self.gates(h) @ v).to(activation.dtype)


@dataclass(frozen=True, eq=False)
class Fit:
    """A fitted CLAS, and how training went: step 0 is the model without steering."""

    steering: Steering
    steers: dict[Site, CLAS]
    trained: Trained


def _unit_directions(
    model: HookedModel, directions: Mapping[Site, Directions] | Mapping[int, Directions]
) -> dict[Site, Rows]:
    """The directions of each site as rows of length 1, the lowest site first."""
    if not directions:
        raise ValueError("No directions were given. Pass {Site(layer): vector, ...}.")
    found: dict[Site, Rows] = {}
    for where, given in directions.items():
        site = as_site(where)
        require_writable(model, site)
        if site in found:
            raise ValueError(f"Directions were given twice for {site}. Give them as rows of one.")
        rows = torch.as_tensor(given).float()
        rows = rows[None] if rows.ndim == 1 else rows
        if rows.ndim != 2 or rows.shape[1] != model.cfg.d_model:
            raise ValueError(
                f"The directions at {site} have shape {list(rows.shape)}; this model's are vectors "
                f"of {model.cfg.d_model} numbers, or several as rows."
            )
        found[site] = _unit_rows(rows)
    return dict(sorted(found.items()))


def _unit_rows(rows: Rows) -> Rows:
    return torch.stack([unit(row) for row in rows])


def _require_rates(bias_rate: float | None, bias_share: float | None) -> None:
    if bias_rate is not None and bias_share is not None:
        raise ValueError(
            f"bias_rate={bias_rate} and bias_share={bias_share} both set the learning rate of b. "
            "Give one of them."
        )
    for name, value in (("bias_rate", bias_rate), ("bias_share", bias_share)):
        if value is not None and not 0 <= value < math.inf:
            raise ValueError(f"{name} must be a finite number, 0 or more; found {value}.")


def _rates(
    model: HookedModel,
    pairs: Sequence[PromptPair],
    sites: Sequence[Site],
    scope: Scope,
    template: str | None,
    share: float,
) -> dict[Site, float]:
    """The learning rate of b at each site."""
    rows = [encode_pair(model, pair, template)[0] for pair in pairs]
    found = capture(model, rows, list(sites), scope=scope.without_bos)
    return {site: share * float(found.at(site).norm(dim=-1).median()) for site in sites}


@dataclass(frozen=True)
class _Modules:
    """One module a site, and its parameters by name."""

    sites: tuple[Site, ...]
    directions: Mapping[Site, Rows]
    kind: Kind
    learn_directions: bool
    limit: float | None

    def begin(self, generator: torch.Generator) -> Parameters:
        """Sensing vectors of zero; random unit directions where these are learnt."""
        parameters: Parameters = {}
        for site in self.sites:
            rank, d_model = self.directions[site].shape
            if self.kind == "contextual":
                parameters[key_of(site, "c")] = torch.zeros(rank, d_model)
            if self.learn_directions:
                v = torch.randn(rank, d_model, generator=generator)
                parameters[key_of(site, "v")] = _unit_rows(v)
            parameters[self._bias(site)] = torch.zeros(1 if self.kind == "single" else rank)
        return parameters

    def build(self, parameters: Parameters) -> dict[Site, CLAS]:
        """The modules with these parameters."""
        return {site: self._one(parameters, site) for site in self.sites}

    def rates(self, of_bias: Mapping[Site, float]) -> dict[str, float]:
        """The rate of every b by its name."""
        if self.kind == "single":
            return {"b": sum(of_bias[site] for site in self.sites) / len(self.sites)}
        return {self._bias(site): of_bias[site] for site in self.sites}

    def _one(self, parameters: Parameters, site: Site) -> CLAS:
        v = self.directions[site]
        learnt = parameters.get(key_of(site, "v"), v)
        c = parameters.get(key_of(site, "c"), torch.zeros_like(v))
        b = parameters[self._bias(site)].expand(len(v)).contiguous()
        return CLAS(c, b, learnt, self.limit)

    def _bias(self, site: Site) -> str:
        return "b" if self.kind == "single" else key_of(site, "b")
