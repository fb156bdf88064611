"""Prompt Steering Replacement: what an instruction does to each token, read off that token.

Heyman & Vandeputte, "Steer Like the LLM: Activation Steering that Mimics Prompting",
arXiv 2605.03907, section 3 (equations 7 and 8), at every steered layer:

    lambda = relu( W h + b )
    h'     = h + (alpha + b_m) lambda Z

W, b and Z are learned for an attribute and a layer; one gate and one direction (rank 1) in the
paper. With W = 0 and b = 1 every token is steered alike: `Const`, the paper's baseline. b_m is 0
unless responses without the attribute are learned from: there alpha, a response's label, is below
-b_m, and lambda Z is also fitted to the attribute's absence.

They are fitted so that the run without the instruction, steered, does what the run with it does on
the same response: its residual stream at the lowest steered layer and all above (MSE), or its words
(LL). Each layer's module sees what those below it have done.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from steerlens.activations import capture
from steerlens.checks import require_finite
from steerlens.identity import origin_of
from steerlens.prompts import PromptPair, encode_pair
from steerlens.saving import saveable
from steerlens.scopes import Scope, question_and_response, response
from steerlens.sites import Site, as_site
from steerlens.steering import Steering
from steerlens.training.gates import key_of, revive
from steerlens.training.imitation import (
    MEMORY,
    Imitation,
    Objective,
    aligned_span,
    require_instructions,
)
from steerlens.training.loop import Parameters, Schedule, Trained, train
from steerlens.types import Direction, Hook, HookedModel, Residual

Surface = Literal["R", "QR"]
REGULARISE = 0.1
SURFACES = {"R": response, "QR": question_and_response}


@saveable
@dataclass(frozen=True, eq=False)
class PSR:
    """Add each direction as strongly as its gate says; computed in float32."""

    W: Float[Tensor, "rank d_model"] = field(repr=False)
    b: Float[Tensor, " rank"] = field(repr=False)
    Z: Float[Tensor, "rank d_model"] = field(repr=False)
    alpha: float = 1.0
    b_m: float = 0.0

    def __post_init__(self) -> None:
        for name, value in (("W", self.W), ("b", self.b), ("Z", self.Z)):
            require_finite(value.detach(), f"PSR's {name}")

    @property
    def d_model(self) -> int:
        """The width of the residual stream that gates and directions belong to."""
        return self.Z.shape[1]

    @property
    def can_close(self) -> bool:
        """Whether some activation closes every gate, and an open one would change something."""
        acts = self.alpha + self.b_m != 0 and bool(self.Z.any())
        return acts and (bool(self.W.any()) or bool((self.b <= 0).all()))

    @classmethod
    def constant(cls, Z: Direction | Float[Tensor, "rank d_model"]) -> "PSR":
        """The paper's Const: every gate is 1 at every token."""
        Z = Z.reshape(-1, Z.shape[-1])
        return cls(W=torch.zeros_like(Z), b=torch.ones(len(Z), device=Z.device), Z=Z)

    @classmethod
    def fit(
        cls,
        model: HookedModel,
        pairs: Sequence[PromptPair],
        sites: Sequence[int | Site] | int | Site,
        *,
        objective: Objective = "MSE",
        ll_weight: float = 1.0,
        surface: Surface = "R",
        rank: int = 1,
        gated: bool = True,
        directions: Mapping[Site, Float[Tensor, "rank d_model"]] | None = None,
        labels: Sequence[float] | None = None,
        b_m: float = 0.0,
        learn_b_m: bool = False,
        regularise: float = REGULARISE,
        schedule: Schedule | None = None,
        template: str | None = None,
        memory: int = MEMORY,
        reuse: bool = True,
        teacher: Steering | None = None,
        checkpoint: str | Path | None = None,
        progress: bool = False,
    ) -> "Fit":
        """Fit one module at each site, all at once.

        `objective="both"` is MSE plus `ll_weight` times LL. `gated=False` is Const. `directions`
        are frozen, and only the gates trained. `labels` say how much of the attribute each response
        has (0 to 1), and are alpha in training; with `b_m=-0.5` responses below one half are
        learned from as examples of the opposite, and with `learn_b_m` each layer learns its own
        b_m, from the given one on. `regularise` weighs max(0, 1 - sum of the gates), which keeps
        gates from closing. With a `teacher` that steering is imitated instead of the instruction.
        `reuse=False` recomputes what never changes, to check that it does not.
        """
        places = [sites] if isinstance(sites, int | Site) else list(sites)
        placed = tuple(sorted({as_site(place) for place in places}))
        modules = _Modules(placed, rank, model.cfg.d_model, gated, directions, b_m, learn_b_m)
        modules.require_labels(labels)
        schedule, scope = schedule or Schedule(), _surface(surface)
        task = Imitation(
            model,
            pairs,
            placed,
            build=modules.build,
            begin=modules.begin,
            scope=scope,
            objective=objective,
            ll_weight=ll_weight,
            labels=labels,
            shift=b_m,
            regularise=regularise if gated else 0.0,
            template=template,
            memory=memory,
            seed=schedule.seed,
            reuse=reuse,
            teacher=teacher,
        )
        trained = train(
            task,
            schedule,
            mend=lambda now, epoch: revive(now, modules.begin, task.fired(), epoch, schedule.seed),
            checkpoint=checkpoint,
            progress=progress,
        )
        steers = modules.fitted(trained.parameters)
        ids = [torch.tensor(row.ids) for row in (*task.rows, *task.prompted)]
        origin = origin_of(model, schedule.seed, ids)
        steering = Steering(tuple(steers.items()), origin).only(scope)
        name = name_of(len(placed), gated, objective, surface)
        return Fit(name, steering, steers, trained, task.firing_rates(trained.parameters))

    def gates(self, h: Float[Tensor, "*token d_model"]) -> Float[Tensor, "*token rank"]:
        """Lambda of each token: how strongly it is steered, before alpha."""
        return torch.relu(h.float() @ self.W.to(h.device).T + self.b.to(h.device))

    def __call__(self, activation: Residual, hook: Hook = None) -> Residual:
        h, alpha, b_m, Z = activation.float(), self.alpha, self.b_m, self.Z.to(activation.device)
        return (h + (alpha + b_m) * self.gates(h) @ Z).to(activation.dtype)


@dataclass(frozen=True, eq=False)
class Fit:
    """A fitted PSR or Const: its name in the paper's scheme, and how training went.

    `steering` is the `steers` on the tokens of the surface; `firing` is how often each gate is open
    on the tokens it was fitted on.
    """

    name: str
    steering: Steering
    steers: dict[Site, PSR]
    trained: Trained
    firing: dict[Site, Float[Tensor, " rank"]]


def name_of(n_sites: int, gated: bool, objective: str, surface: str) -> str:
    """The paper's name: {S|A}-{Const|PSR}_{DiM|MSE|LL}|{R|QR}, S for a single layer."""
    return f"{'S' if n_sites == 1 else 'A'}-{'PSR' if gated else 'Const'}_{objective}|{surface}"


def difference_of_means(
    model: HookedModel,
    pairs: Sequence[PromptPair],
    site: int | Site,
    *,
    surface: Surface = "R",
    template: str | None = None,
) -> Steering:
    """S-Const_DiM: add the mean of what the prompt does to a token of the span, at one site."""
    place, scope = as_site(site), _surface(surface)
    rows = [encode_pair(model, pair, template) for pair in pairs]
    require_instructions(rows)
    for plain, prompted in rows:
        aligned_span(model, plain, prompted, scope)
    sides = [
        capture(model, [pair[side] for pair in rows], place, scope=scope).at(place).float()
        for side in (0, 1)
    ]
    z = sides[1].mean(dim=0) - sides[0].mean(dim=0)
    ids = [torch.tensor(row.ids) for pair in rows for row in pair]
    return Steering(((place, PSR.constant(z)),), origin_of(model, data=ids)).only(scope)


def _surface(surface: str) -> Scope:
    if surface not in SURFACES:
        raise ValueError(
            f"The surface is 'R' (from the last prompt token on) or 'QR' (from the user turn on); "
            f"found {surface!r}."
        )
    return SURFACES[surface]


@dataclass(frozen=True)
class _Modules:
    """One module a site, and its parameters by name."""

    sites: tuple[Site, ...]
    rank: int
    d_model: int
    gated: bool
    directions: Mapping[Site, Float[Tensor, "rank d_model"]] | None = None
    b_m: float = 0.0
    learn_b_m: bool = False

    def __post_init__(self) -> None:
        if self.rank < 1:
            raise ValueError(f"rank must be at least 1; found {self.rank}.")
        if not math.isfinite(self.b_m):
            raise ValueError(f"b_m must be a finite number, like -0.5; found {self.b_m}.")
        if self.directions is None:
            return
        if not self.gated:
            raise ValueError("directions are frozen and gated=False has no gate: nothing to train.")
        for site in self.sites:
            shape = None if site not in self.directions else tuple(self.directions[site].shape)
            if shape != (self.rank, self.d_model):
                raise ValueError(
                    f"directions need one [rank, d_model] = {(self.rank, self.d_model)} at {site}; "
                    f"found {shape or 'none'}."
                )

    def require_labels(self, labels: Sequence[float] | None) -> None:
        """Raise ValueError where a learnt b_m could do no more than scale Z."""
        if self.learn_b_m and len(set(labels or ())) < 2:
            raise ValueError(
                "b_m is learnt from responses with more and with less of the attribute, and all "
                "labels are the same. Give labels that differ, or a fixed b_m."
            )

    def begin(self, generator: torch.Generator) -> Parameters:
        """All of U(-1/sqrt d, 1/sqrt d), as the authors' linear layers begin; b_m as given."""
        bound, parameters = self.d_model**-0.5, {}
        for site in self.sites:
            wide = (self.rank, self.d_model)
            for name, shape in (("W", wide), ("b", (self.rank,)), ("Z", wide)):
                value = (2 * torch.rand(shape, generator=generator) - 1) * bound
                if (name == "Z" and self.directions is None) or (name != "Z" and self.gated):
                    parameters[key_of(site, name)] = value
            if self.learn_b_m:
                parameters[key_of(site, "b_m")] = torch.tensor(self.b_m)
        return parameters

    def build(self, parameters: Parameters) -> dict[Site, PSR]:
        """The modules with these parameters."""
        steers = {}
        for site in self.sites:
            Z = parameters[key_of(site, "Z")] if self.directions is None else self.directions[site]
            if self.gated:
                W, b = parameters[key_of(site, "W")], parameters[key_of(site, "b")]
                steers[site] = PSR(W, b, Z)
            else:
                steers[site] = PSR.constant(Z)
        return steers

    def fitted(self, parameters: Parameters) -> dict[Site, PSR]:
        """The modules with these parameters and their b_m, as they act from now on."""
        known = {site: parameters.get(key_of(site, "b_m"), self.b_m) for site in self.sites}
        built = self.build(parameters)
        return {site: replace(built[site], b_m=float(known[site])) for site in self.sites}
