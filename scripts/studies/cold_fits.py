"""How the COLD study fits each method, and brings all of them to one scale of strengths."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from cold_plan import BATCH, PUSH, STEPS, TRIES
from study import model, options

from analysis import strengths
from steerlens import (
    CAA,
    PSR,
    ColdFD,
    ColdKernel,
    Conversation,
    PromptPair,
    ReFTr1,
    Scope,
    at,
)
from steerlens.methods.psr import Gates
from steerlens.methods.reft_r1 import AXBENCH
from steerlens.steering import Steering
from steerlens.training.objectives import LL
from steerlens.training.schedule import Schedule


@cache
def pool_of(attribute: str) -> list[tuple[str, str, str]]:
    path = Path(options().folder) / "pool" / f"{attribute}.json"
    return [tuple(row) for row in json.loads(path.read_text(encoding="utf-8"))]


@dataclass(frozen=True, eq=False)
class Case:
    """The pairs of a fit, and where the steering acts."""

    attribute: str
    n: int
    seed: int
    layer: int
    scope: Scope

    @property
    def drawn(self) -> list[tuple[str, str, str]]:
        """(question, answer with the attribute, answer without); fewer are some of the more."""
        pool = pool_of(self.attribute)
        if len(pool) < self.n:
            raise ValueError(f"{self.attribute} has {len(pool)} pairs; asked for {self.n}.")
        return random.Random(f"examples {self.seed}").sample(pool, len(pool))[: self.n]

    @property
    def liked(self) -> list[Conversation]:
        return [Conversation(user, response=text) for user, text, _ in self.drawn]

    @property
    def disliked(self) -> list[Conversation]:
        return [Conversation(user, response=text) for user, _, text in self.drawn]

    @property
    def schedule(self) -> Schedule:
        """So many updates, whatever the number of pairs, and no pair held back."""
        batches = math.ceil(self.n / BATCH)
        epochs = math.ceil(STEPS / batches)
        return Schedule(epochs, BATCH, validation=0.0, patience=None, seed=self.seed)

    def pairs(self, side: int) -> list[PromptPair]:
        """The answers of one side as responses to the plain question."""
        asked = [(Conversation(row[0]), row[side]) for row in self.drawn]
        return [PromptPair(user, user, text) for user, text in asked]


def _cold_fd(case: Case) -> Steering:
    answers = (case.liked, case.disliked)
    return ColdFD.fit(model(), answers, case.layer, scope=case.scope).steering


def _cold_kernel(case: Case) -> Steering:
    answers = (case.liked, case.disliked)
    return ColdKernel.fit(model(), answers, case.layer, scope=case.scope).steering


def _caa(case: Case) -> Steering:
    return CAA.from_prompts(model(), case.liked, case.disliked, case.layer).only(case.scope)


def _reft_vector(case: Case) -> Steering:
    """A constant vector, learnt by the likelihood of the answers with the attribute."""
    fit = PSR.fit(
        model(),
        case.pairs(1),
        case.layer,
        objective=LL(),
        gates=Gates(constant=True),
        schedule=case.schedule,
    )
    (steer,) = fit.steers.values()
    return at(case.layer, CAA(steer.Z[0])).only(case.scope)


def _reft_r1(case: Case) -> Steering | None:
    """Its w, at the strength of the common scale: a_max is a factor on that.

    From a w whose latent opens on no training token nothing is learnt: another is drawn.
    """
    assert AXBENCH.batch_size is not None
    epochs = math.ceil(STEPS / math.ceil(2 * case.n / AXBENCH.batch_size))
    for attempt in range(TRIES):
        schedule = replace(AXBENCH, epochs=epochs, seed=case.seed + 100 * attempt)
        try:
            fit = ReFTr1.fit(
                model(), case.pairs(1), case.layer, negatives=case.pairs(2), schedule=schedule
            )
        except ValueError as error:
            if "a_max" not in str(error):
                raise
            continue
        return at(case.layer, CAA(fit.steer.w)).only(case.scope)
    return None


FITS: dict[str, Callable[[Case], Steering | None]] = {
    "COLD-FD": _cold_fd,
    "COLD-Kernel": _cold_kernel,
    "CAA": _caa,
    "ReFT-vector": _reft_vector,
    "ReFT-r1": _reft_r1,
}


def on_common_scale(steering: Steering, layer: int, rows: Sequence[Any]) -> Steering:
    """Strength 1 moves the activations of these rows by `PUSH` of their length, on average."""
    table = strengths(model(), list(rows), {"it": steering})
    moved = table[(table["layer"] == layer) & (table["norm"] > 0)]
    return steering.scaled(PUSH / float(moved["relative_norm"].mean()))
