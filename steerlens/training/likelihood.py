"""CLAS and its rivals are fitted alike: a few steps by the likelihood of responses."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch

from steerlens.activations import capture
from steerlens.prompts import Encoded, PromptPair, encode_pair
from steerlens.scopes import Scope
from steerlens.training.checkpoint import Parameters
from steerlens.training.checks import require_both
from steerlens.training.fit import Fit, token_ids
from steerlens.training.gates import Modules, key_of
from steerlens.training.imitation import Imitation
from steerlens.training.loop import train
from steerlens.training.objectives import LL
from steerlens.training.schedule import Schedule, Share
from steerlens.types import HookedModel


def by_likelihood(
    model: HookedModel,
    pairs: Sequence[PromptPair],
    modules: Modules,
    *,
    validation: Sequence[PromptPair],
    schedule: Schedule,
    scope: Scope,
    after_step: Callable[[Parameters], None] | None = None,
    progress: bool = False,
) -> Fit[Any]:
    """Modules fitted by the likelihood of the pairs' responses, the plain prompts before them.

    The best parameters by the validation pairs are kept, those before the first step included.
    """
    require_both(pairs, validation)
    both = [*pairs, *validation]
    rows = [encode_pair(model, pair)[0] for pair in both]
    schedule = with_shares_measured(model, rows, modules, schedule, scope)
    objective = LL(by_token=True)
    task = Imitation(model, both, modules, scope=scope, objective=objective, seed=schedule.seed)
    trained = train(
        task,
        schedule,
        after_step=after_step,
        split=(range(len(pairs)), range(len(pairs), len(both))),
        progress=progress,
    )
    return Fit.of(
        model,
        modules.build(trained.parameters),
        token_ids(rows),
        scope=scope,
        seed=schedule.seed,
        trained=trained,
    )


def with_shares_measured(
    model: HookedModel,
    rows: Sequence[Encoded],
    modules: Modules,
    schedule: Schedule,
    scope: Scope,
) -> Schedule:
    """The schedule with a number in place of every `Share`.

    A parameter that all sites have in common gets the mean of their rates.
    """
    shares = {name: own for name, own in schedule.rates.items() if isinstance(own, Share)}
    if not shares:
        return schedule
    sites, rates = modules.sites, dict(schedule.rates)
    seen = capture(model, rows, list(sites), scope=scope.without_bos)
    sizes = {site: float(seen.at(site).norm(dim=-1).median()) for site in sites}
    common = modules.begin(torch.Generator())
    for name, own in shares.items():
        del rates[name]
        at_sites = {key_of(site, name): own.share * sizes[site] for site in sites}
        mean = sum(at_sites.values()) / len(sites)
        rates |= {name: mean} if name in common else at_sites
    return replace(schedule, rates=rates)
