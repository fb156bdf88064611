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

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from steerlens.checks import require_choice
from steerlens.directions.checks import require_direction_at, require_directions
from steerlens.directions.means import unit
from steerlens.forms import Added, Clamped, Sensed
from steerlens.kinds import require_kinds
from steerlens.precision import wide, wide_dtype
from steerlens.prompts import PromptPair
from steerlens.scopes import Scope, everywhere
from steerlens.sites import Layer, Site, Sites, as_sites, by_site
from steerlens.steers import as_vectors, steer
from steerlens.training.checkpoint import Parameters
from steerlens.training.checks import require_limit
from steerlens.training.fit import Fit
from steerlens.training.gates import key_of
from steerlens.training.likelihood import by_likelihood
from steerlens.training.schedule import Schedule, Share
from steerlens.types import Direction, Hook, HookedModel, Residual, VectorLike

Kind = Literal["contextual", "layerwise", "single"]
Rows: TypeAlias = Float[Tensor, "rank d_model"]
Directions: TypeAlias = VectorLike | Rows
UNIT = 1e-4
"""By how much the length of a direction may miss 1."""
BIAS_SHARE = 0.01
"""The learning rate of b, as a share of the median norm of the activations in scope, BOS aside."""


@steer
class CLAS:
    """Add each direction as strongly as its sensing vector says; computed in float32 or wider."""

    c: Rows
    b: Float[Tensor, " rank"]
    v: Rows
    limit: float | None = None

    def __post_init__(self) -> None:
        require_limit(self.limit)

    @property
    def form(self) -> Added | Clamped | None:
        """For other tools: one vector where no token is sensed, a clamp where v is taken out."""
        v = wide(self.v)
        if not bool(self.c.any()):
            return Added(self.gates(v.new_zeros(v.shape[1])) @ v)
        takes_out = len(v) == 1 and torch.equal(self.c, -self.v) and not bool(self.b.any())
        if not takes_out or self.limit is not None or abs(float(v.norm()) - 1) > UNIT:
            return None
        return Clamped(v[0], 0.0)

    @property
    def sensed(self) -> Sensed | None:
        """For a tool that reads activations: all of it, where alpha has no bounds."""
        if self.limit is not None:
            return None
        return Sensed(wide(self.c), wide(self.b), wide(self.v))

    @classmethod
    def fixed(cls, v: Direction, strength: float) -> "CLAS":
        """The same strength at every token: ordinary linear steering."""
        require_kinds(CLAS.fixed, locals())
        return cls(torch.zeros_like(v)[None], v.new_tensor([strength]), v[None])

    @classmethod
    def ablation(cls, v: Direction) -> "CLAS":
        """Take the direction out: nothing of h' lies along v."""
        require_kinds(CLAS.ablation, locals())
        return cls(-unit(v)[None], v.new_zeros(1), unit(v)[None])

    @classmethod
    def fit(
        cls,
        model: HookedModel,
        pairs: Sequence[PromptPair],
        sites: Sites | None = None,
        *,
        directions: Mapping[Site, Directions] | Mapping[Layer, Directions],
        validation: Sequence[PromptPair],
        kind: Kind = "contextual",
        learn_directions: bool = False,
        limit: float | None = None,
        schedule: Schedule = Schedule.full_batch(),  # noqa: B008  a frozen value
        scope: Scope = everywhere,
        progress: bool = False,
    ) -> "Fit[CLAS]":
        """Fit all sites at once, the best step by validation loss kept: step 0 is the model itself.

        Only the plain prompt and the response of each pair are used. `directions` are one vector
        for each site, or several as rows, and are brought to length 1; with `learn_directions` as
        many random ones are learnt instead. `sites` are those of the directions unless given. The
        rate of b is `schedule.rates["b"]`; without one it is 0.01 of the median activation norm at
        each site (of these the mean where one b is for all), or, with learnt directions, that of
        everything.
        """
        require_kinds(CLAS.fit, locals())
        require_choice("kind", kind, get_args(Kind))
        require_directions(model, directions)
        dtype, given = wide_dtype(model), by_site(directions, model)
        rows = {site: _unit_rows(v, dtype) for site, v in given.items()}
        chosen = tuple(sorted(rows if sites is None else as_sites(sites, model)))
        require_direction_at(rows, chosen)
        if not learn_directions:
            schedule = replace(schedule, rates={"b": Share(BIAS_SHARE), **schedule.rates})
        return by_likelihood(
            model,
            pairs,
            _Modules(chosen, rows, kind, learn_directions, limit),
            validation=validation,
            schedule=schedule,
            scope=scope,
            progress=progress,
        )

    def gates(self, h: Float[Tensor, "*token d_model"]) -> Float[Tensor, "*token rank"]:
        """Alpha of each token, of either sign."""
        h = wide(h)
        alpha = h @ self.c.to(h).T + self.b.to(h)
        return alpha if self.limit is None else alpha.clamp(-self.limit, self.limit)

    def __call__(self, activation: Residual, hook: Hook = None) -> Residual:
        h = wide(activation)
        v = self.v.to(h)
        return (h + self.gates(h) @ v).to(activation.dtype)


def _unit_rows(directions: Directions, dtype: torch.dtype = torch.float32) -> Rows:
    """A direction or several, as rows of length 1."""
    rows = torch.atleast_2d(as_vectors(directions)).to(dtype)
    return torch.stack([unit(row) for row in rows])


@dataclass(frozen=True, eq=False)
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
        return {site: self._at(site, parameters) for site in self.sites}

    def _at(self, site: Site, parameters: Parameters) -> CLAS:
        v = self.directions[site]
        learnt = parameters.get(key_of(site, "v"), v)
        c = parameters.get(key_of(site, "c"), torch.zeros_like(v))
        b = parameters[self._bias(site)].expand(len(v)).contiguous()
        return CLAS(c, b, learnt, self.limit)

    def _bias(self, site: Site) -> str:
        return "b" if self.kind == "single" else key_of(site, "b")
