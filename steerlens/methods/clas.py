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
c = -v and b = 0 it takes the direction out; with v learnt too it is the paper's ReFT baseline.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from steerlens.activations import capture
from steerlens.directions import require_finite, unit
from steerlens.gates import key_of
from steerlens.likelihood import by_likelihood
from steerlens.positions import Scope, everywhere
from steerlens.prompts import PromptPair, encode_pair
from steerlens.saving import saveable
from steerlens.steering import Site, Steering
from steerlens.training import Parameters, Trained
from steerlens.types import Direction, Hook, HookedModel, Residual

Kind = Literal["contextual", "layerwise", "single"]
STEPS, RATE = 8, 3e-3
BIAS_SHARE = 0.01
"""The learning rate of b, as a share of the median norm of the activations that it meets."""


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
        directions: Mapping[Site, Direction],
        *,
        kind: Kind = "contextual",
        learn_directions: bool = False,
        steps: int = STEPS,
        rate: float = RATE,
        bias_rate: float | None = None,
        bias_share: float = BIAS_SHARE,
        scope: Scope = everywhere,
        limit: float | None = None,
        template: str | None = None,
        seed: int = 0,
        progress: bool = False,
    ) -> "Fit":
        """Fit all sites at once: `steps` updates on all pairs, the best by validation loss kept.

        Only the plain prompt and the response of each pair are used. `directions` are brought to
        length 1; with `learn_directions` they are random unit vectors instead, and learnt.
        `bias_rate=None` takes `bias_share` of the median activation norm at each site, and of
        these their mean where one b is for all.
        """
        if kind not in get_args(Kind):
            raise ValueError(f"Unknown kind {kind!r}. Use one of: {', '.join(get_args(Kind))}.")
        if not directions:
            raise ValueError("No directions were given. Pass {Site(layer): vector, ...}.")
        sites = tuple(sorted(directions))
        modules = _Modules(
            sites, {s: unit(directions[s].float()) for s in sites}, kind, learn_directions, limit
        )
        both = [*pairs, *validation]
        rates = (
            dict.fromkeys(sites, bias_rate)
            if bias_rate is not None
            else _rates(model, both, sites, template, bias_share)
        )
        steering, trained = by_likelihood(
            model,
            modules,
            pairs,
            validation,
            steps=steps,
            rate=rate,
            multipliers=modules.multipliers(rates, rate),
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


def _rates(
    model: HookedModel,
    pairs: Sequence[PromptPair],
    sites: Sequence[Site],
    template: str | None,
    share: float,
) -> dict[Site, float]:
    """The learning rate of b at each site."""
    rows = [encode_pair(model, pair, template)[0] for pair in pairs]
    found = capture(model, rows, list(sites), scope=everywhere.without_bos)
    return {site: share * float(found.at(site).norm(dim=-1).median()) for site in sites}


@dataclass(frozen=True)
class _Modules:
    """One module a site, and its parameters by name."""

    sites: tuple[Site, ...]
    directions: Mapping[Site, Direction]
    kind: Kind
    learn_directions: bool
    limit: float | None

    def begin(self, generator: torch.Generator) -> Parameters:
        """Sensing vectors of zero; random unit directions where these are learnt."""
        parameters: Parameters = {}
        for site in self.sites:
            d_model = len(self.directions[site])
            if self.kind == "contextual":
                parameters[key_of(site, "c")] = torch.zeros(1, d_model)
            if self.learn_directions:
                v = torch.randn(d_model, generator=generator)
                parameters[key_of(site, "v")] = unit(v)[None]
            parameters[self._bias(site)] = torch.zeros(1)
        return parameters

    def build(self, parameters: Parameters) -> dict[Site, CLAS]:
        """The modules with these parameters."""
        return {site: self._one(parameters, site) for site in self.sites}

    def multipliers(self, rates: Mapping[Site, float], rate: float) -> dict[str, float]:
        """The rate of every b over that of the others."""
        if self.kind == "single":
            return {"b": sum(rates[site] for site in self.sites) / len(self.sites) / rate}
        return {self._bias(site): rates[site] / rate for site in self.sites}

    def _one(self, parameters: Parameters, site: Site) -> CLAS:
        v = self.directions[site][None]
        learnt = parameters.get(key_of(site, "v"), v)
        c = parameters.get(key_of(site, "c"), torch.zeros_like(v))
        return CLAS(c, parameters[self._bias(site)], learnt, self.limit)

    def _bias(self, site: Site) -> str:
        return "b" if self.kind == "single" else key_of(site, "b")
