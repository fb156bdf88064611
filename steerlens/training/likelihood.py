"""CLAS and its rivals are fitted alike: a few steps by the likelihood of responses."""

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol, runtime_checkable

import torch

from steerlens.identity import origin_of
from steerlens.prompts import PromptPair
from steerlens.scopes import Scope, everywhere
from steerlens.sites import Site
from steerlens.steering import Steering
from steerlens.training.gates import Gated
from steerlens.training.imitation import Imitation
from steerlens.training.loop import Parameters, Schedule, Trained, train
from steerlens.types import HookedModel


@runtime_checkable
class Modules(Protocol):
    """Steers at sites, made of parameters."""

    @property
    def sites(self) -> tuple[Site, ...]: ...

    def begin(self, generator: torch.Generator) -> Parameters: ...

    def build(self, parameters: Parameters) -> Mapping[Site, Gated]: ...


def by_likelihood(
    model: HookedModel,
    modules: Modules,
    pairs: Sequence[PromptPair],
    validation: Sequence[PromptPair],
    *,
    steps: int,
    rate: float,
    scope: Scope,
    template: str | None,
    seed: int,
    progress: bool,
    rates: Mapping[str, float] | None = None,
    project: Callable[[Parameters], None] | None = None,
) -> tuple[Steering, Trained]:
    """`steps` updates on all pairs by the likelihood of their responses, as CLAS is fitted.

    The best parameters by the validation pairs are kept, those before the first step included.
    `rates` has the learning rates of the parameters whose own is not `rate`.
    """
    schedule = Schedule.whole_batches(len(pairs), len(validation), steps, rate, seed)
    both = [*pairs, *validation]
    task = Imitation(
        model,
        both,
        modules.sites,
        build=modules.build,
        begin=modules.begin,
        scope=scope,
        objective="LL",
        by_token=True,
        template=template,
        seed=seed,
    )
    trained = train(
        task,
        schedule,
        multipliers={name: own / rate for name, own in (rates or {}).items()},
        project=project,
        split=(range(len(pairs)), range(len(pairs), len(both))),
        progress=progress,
    )
    ids = [torch.tensor(row.ids) for row in task.rows]
    placed = tuple(modules.build(trained.parameters).items())
    steering = Steering(placed, origin_of(model, seed, ids))
    return steering if scope == everywhere else steering.only(scope), trained
