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

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import inf
from pathlib import Path
from typing import Literal, cast

import torch
from jaxtyping import Float
from torch import Tensor

from steerlens.activations import capture
from steerlens.checks import require_finite
from steerlens.directions.means import ordinary_pairs
from steerlens.forms import Added
from steerlens.kinds import require_fields, require_kinds
from steerlens.precision import wide
from steerlens.prompts import PromptPair
from steerlens.scopes import Scope, question_and_response, response
from steerlens.sinks import SINK, require_ordinary
from steerlens.sites import Layer, Site, Sites, as_sites, by_site
from steerlens.steering import Steering
from steerlens.steers import steer
from steerlens.training.checkpoint import Parameters
from steerlens.training.checks import (
    require_frozen,
    require_gates,
    require_instructions,
    require_rank,
    require_varied,
)
from steerlens.training.examples import Examples
from steerlens.training.fit import Fit, token_ids
from steerlens.training.gates import key_of, revive
from steerlens.training.imitation import Imitation
from steerlens.training.loop import train
from steerlens.training.objectives import MSE, Objective
from steerlens.training.schedule import Schedule
from steerlens.training.store import Storage
from steerlens.types import Direction, Hook, HookedModel, Residual

Surface = Literal["R", "QR"]
Rows = Float[Tensor, "rank d_model"]
REGULARISE = 0.1
SURFACES = {"R": response, "QR": question_and_response}


@steer
class PSR:
    """Add each direction as strongly as its gate says; computed in float32 or wider."""

    W: Rows
    b: Float[Tensor, " rank"]
    Z: Rows
    alpha: float = 1.0
    b_m: float = 0.0

    @property
    def form(self) -> Added | None:
        """For other tools: one vector, where every gate is the same at every token (Const)."""
        if bool(self.W.any()):
            return None
        gates = torch.relu(wide(self.b))
        return Added((self.alpha + self.b_m) * gates @ self.Z.to(gates))

    @property
    def can_close(self) -> bool:
        """Whether some activation closes every gate, and an open one would change something."""
        acts = self.alpha + self.b_m != 0 and bool(self.Z.any())
        return acts and (bool(self.W.any()) or bool((self.b <= 0).all()))

    @classmethod
    def constant(cls, Z: Direction | Rows) -> "PSR":
        """The paper's Const: every gate is 1 at every token."""
        require_kinds(PSR.constant, locals())
        require_finite(Z, "PSR's Z")
        Z = Z.reshape(-1, Z.shape[-1])
        return cls(W=torch.zeros_like(Z), b=torch.ones(len(Z), device=Z.device), Z=Z)

    @classmethod
    def from_activations(
        cls,
        plain: Float[Tensor, "token d_model"],
        prompted: Float[Tensor, "token d_model"],
        *,
        sinks: float = SINK,
    ) -> "PSR":
        """The paper's Const_DiM: the mean of what the prompt does to a token, added to all.

        Tokens longer than `sinks` times the median in either run are left out; infinity keeps all.
        """
        require_kinds(PSR.from_activations, locals())
        keep = ordinary_pairs(plain, prompted, sinks)
        return cls.constant(wide(prompted[keep]).mean(dim=0) - wide(plain[keep]).mean(dim=0))

    @classmethod
    def fit(
        cls,
        model: HookedModel,
        pairs: Sequence[PromptPair],
        sites: Sites,
        *,
        objective: Objective = MSE(),  # noqa: B008  a frozen value
        surface: Surface = "R",
        gates: "Gates | None" = None,
        labels: Sequence[float | bool] | None = None,
        schedule: Schedule = Schedule(),  # noqa: B008  a frozen value
        teacher: Steering | None = None,
        storage: Storage = Storage(),  # noqa: B008  a frozen value
        checkpoint: str | Path | None = None,
        progress: bool = False,
    ) -> "Fit[PSR]":
        """Fit one module at each site, all at once.

        `gates` says what is learnt there. `labels` say how much of the attribute each response has
        (0 to 1), and are alpha in training; with `Gates(b_m=-0.5)` responses below one half are
        learned from as examples of the opposite. With a `teacher` that steering is imitated instead
        of the instruction.
        """
        require_kinds(PSR.fit, locals())
        gates, scope = gates or Gates(), scope_of(surface)
        if gates.directions is not None:
            gates = replace(gates, directions=by_site(gates.directions, model))
        modules = _Modules(tuple(sorted(as_sites(sites, model))), gates, model.cfg.d_model)
        require_varied(labels, gates.learn_b_m)
        task = Imitation(
            model, pairs, modules, scope=scope, objective=objective, labels=labels,
            shift=gates.b_m, regularise=0.0 if gates.constant else gates.regularise,
            teacher=teacher, storage=storage, seed=schedule.seed,
        )  # fmt: skip

        def revive_gates(parameters: Parameters, epoch: int) -> None:
            revive(parameters, modules.begin, task.fired(), epoch, schedule.seed)

        trained = train(
            task, schedule, after_epoch=revive_gates, checkpoint=checkpoint, progress=progress
        )
        steers, firing = modules.fitted(trained.parameters), task.firing_rates(trained.parameters)
        ids = token_ids([*task.examples.plain, *task.examples.prompted])
        name = name_of(len(steers), not gates.constant, objective.name, surface)
        return Fit.of(
            model, steers, ids, scope=scope, seed=schedule.seed, trained=trained, name=name,
            firing=firing,
        )  # fmt: skip

    def gates(self, h: Float[Tensor, "*token d_model"]) -> Float[Tensor, "*token rank"]:
        """Lambda of each token: how strongly it is steered, before alpha."""
        h = wide(h)
        return torch.relu(h @ self.W.to(h).T + self.b.to(h))

    def __call__(self, activation: Residual, hook: Hook = None) -> Residual:
        h, alpha, b_m = wide(activation), self.alpha, self.b_m
        Z = self.Z.to(h)
        return (h + (alpha + b_m) * self.gates(h) @ Z).to(activation.dtype)


@dataclass(frozen=True, eq=False)
class Gates:
    """What PSR learns at each site: `rank` gates W, b, and the directions Z that they open.

    `constant=True` is Const: Z alone, every gate 1. With `directions` Z is frozen and only the
    gates are learnt. `b_m` is given, or with `learn_b_m` learnt at each layer, from the given one
    on. `regularise` weighs max(0, 1 - sum of the gates), which keeps gates from closing.
    """

    rank: int = 1
    constant: bool = False
    directions: Mapping[Site, Rows] | Mapping[Layer, Rows] | None = None
    b_m: float = 0.0
    learn_b_m: bool = False
    regularise: float = REGULARISE

    def __post_init__(self) -> None:
        require_fields(self)
        frozen = self.directions is not None
        require_gates(self.rank, self.b_m, self.regularise, frozen=frozen, constant=self.constant)


def name_of(n_sites: int, gated: bool, objective: str, surface: str) -> str:
    """The paper's name: {S|A}-{Const|PSR}_{DiM|MSE|LL}|{R|QR}, S for a single layer."""
    return f"{'S' if n_sites == 1 else 'A'}-{'PSR' if gated else 'Const'}_{objective}|{surface}"


def difference_of_means(
    model: HookedModel,
    pairs: Sequence[PromptPair],
    sites: Sites,
    *,
    surface: Surface = "R",
    sinks: float = SINK,
) -> Steering:
    """S-Const_DiM: add the mean of what the prompt does to a token of the span, at each site.

    Tokens whose norm is above `sinks` times the median, in either run, are left out.
    """
    require_kinds(difference_of_means, locals())
    sites, scope = as_sites(sites, model), scope_of(surface)
    examples = Examples.of(model, pairs, scope, aligned=True)
    require_instructions(examples.both)
    plain, prompted = (
        capture(model, rows, sites, scope=scope) for rows in (examples.plain, examples.prompted)
    )
    steers: dict[Site, PSR] = {}
    for site in sites:
        keep = ~(plain.sinks(site, sinks) | prompted.sinks(site, sinks))
        require_ordinary(keep, f"tokens of the span at {site}")
        sides = plain.at(site)[keep], prompted.at(site)[keep]
        steers[site] = PSR.from_activations(*sides, sinks=inf)
    rows = [row for pair in examples.both for row in pair]
    return Fit.of(model, steers, token_ids(rows), scope=scope).steering


def scope_of(surface: str) -> Scope:
    """The tokens of a surface."""
    if surface not in SURFACES:
        raise ValueError(
            f"The surface is 'R' (from the last prompt token on) or 'QR' (from the user turn on); "
            f"found {surface!r}."
        )
    return SURFACES[surface]


@dataclass(frozen=True, eq=False)
class _Modules:
    """One module a site, and its parameters by name."""

    sites: tuple[Site, ...]
    gates: Gates
    d_model: int

    def __post_init__(self) -> None:
        require_rank(self.gates.rank, self.d_model)
        require_frozen(self.frozen, self.sites, (self.gates.rank, self.d_model))

    @property
    def frozen(self) -> Mapping[Site, Rows] | None:
        """The directions that are not learnt, by site: `fit` has brought them there."""
        return cast("Mapping[Site, Rows] | None", self.gates.directions)

    def begin(self, generator: torch.Generator) -> Parameters:
        """All of U(-1/sqrt d, 1/sqrt d), as the authors' linear layers begin; b_m as given."""
        gates, bound = self.gates, self.d_model**-0.5
        parameters: Parameters = {}
        wide, learnt = (gates.rank, self.d_model), self._learnt()
        for site in self.sites:
            for name, shape in (("W", wide), ("b", wide[:1]), ("Z", wide)):
                # Drawn whether it is learnt or not, so that a seed means the same start.
                value = (2 * torch.rand(shape, generator=generator) - 1) * bound
                if name in learnt:
                    parameters[key_of(site, name)] = value
            if gates.learn_b_m:
                parameters[key_of(site, "b_m")] = torch.tensor(gates.b_m)
        return parameters

    def _learnt(self) -> str:
        gate = "" if self.gates.constant else "Wb"
        return gate + "Z" if self.gates.directions is None else gate

    def build(self, parameters: Parameters) -> dict[Site, PSR]:
        """The modules with these parameters."""
        return {site: self._at(site, parameters) for site in self.sites}

    def _at(self, site: Site, parameters: Parameters) -> PSR:
        frozen = self.frozen
        Z = parameters[key_of(site, "Z")] if frozen is None else frozen[site]
        if self.gates.constant:
            return PSR.constant(Z)
        return PSR(parameters[key_of(site, "W")], parameters[key_of(site, "b")], Z)

    def fitted(self, parameters: Parameters) -> dict[Site, PSR]:
        """The modules with these parameters and their b_m, as they act from now on."""
        b_m = {s: float(parameters.get(key_of(s, "b_m"), self.gates.b_m)) for s in self.sites}
        built = self.build(parameters)
        return {site: replace(built[site], b_m=b_m[site]) for site in self.sites}
