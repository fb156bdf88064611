"""CLAS and its rivals are fitted alike: a few steps by the likelihood of responses."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol, runtime_checkable

import torch

from steerlens.gates import Gated
from steerlens.imitation import Imitation
from steerlens.positions import Scope, everywhere
from steerlens.prompts import PromptPair
from steerlens.saving import origin_of
from steerlens.steering import Site, Steering
from steerlens.training import Parameters, Schedule, Trained, train
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
    if not pairs:
        raise ValueError("No pairs were given to fit on. About ten are enough.")
    if not validation:
        raise ValueError("No validation pairs were given: they choose among the steps.")
    if isinstance(steps, bool) or not isinstance(steps, int) or steps < 1:
        raise ValueError(f"steps is a number of updates, 1 or more; found {steps}.")
    if not 0 < rate < math.inf:
        raise ValueError(f"rate, the learning rate, must be finite and above 0; found {rate}.")
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
        # One batch holds either side, so that both losses are means over tokens.
        Schedule.whole_batches(max(len(pairs), len(validation)), steps, rate, seed),
        multipliers={name: own / rate for name, own in (rates or {}).items()},
        project=project,
        split=(range(len(pairs)), range(len(pairs), len(both))),
        progress=progress,
    )
    ids = [torch.tensor(row.ids) for row in task.rows]
    placed = tuple(modules.build(trained.parameters).items())
    steering = Steering(placed, origin_of(model, seed, ids))
    return steering if scope == everywhere else steering.only(scope), trained
