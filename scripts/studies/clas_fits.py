"""How the CLAS study fits each method."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import cache, cached_property
from typing import Any

import torch
from clas_plan import MULTIPLES, N_PROBE, N_TRAIN, N_VALIDATION, SHARES, layer_of
from study import material, model

import steerlens
from steerlens import (
    CLAS,
    Conversation,
    InstructionVector,
    LoReFT,
    PromptPair,
    ReFTr1,
    Scope,
    Site,
    capture,
    contrast_directions,
    everywhere,
)
from steerlens.baselines import las
from steerlens.baselines.lora import LoRA
from steerlens.methods.clas import BIAS_SHARE, Kind
from steerlens.steering import Steering
from steerlens.training.fit import Fit
from steerlens.training.schedule import RATE, Schedule, Share
from steerlens.types import Direction, HookedModel


@dataclass(frozen=True, eq=False)
class Case:
    """An attribute and a seed: the pairs to fit on, and prompts that show where directions lie."""

    attribute: str
    seed: int

    @cached_property
    def drawn(self) -> list[PromptPair]:
        return material(self.attribute).training(model(), N_TRAIN + N_VALIDATION, self.seed)

    @property
    def train(self) -> list[PromptPair]:
        return self.drawn[:N_TRAIN]

    @property
    def validation(self) -> list[PromptPair]:
        return self.drawn[N_TRAIN:]

    @cached_property
    def probes(self) -> list[str]:
        """Training questions that no pair of this seed asks."""
        questions = material(self.attribute).questions
        assert questions is not None
        used = {_user(pair) for pair in self.drawn}
        return [question for question in questions["train"] if question not in used][:N_PROBE]

    @cached_property
    def length(self) -> float:
        """The median length of the plain activations of the training pairs, over all blocks."""
        rows = [steerlens.encode_pair(model(), pair)[0] for pair in self.train]
        sites = [Site(layer) for layer in range(model().cfg.n_layers)]
        plain = capture(model(), rows, sites, scope=everywhere.without_bos)
        return float(torch.cat([plain.at(site).norm(dim=-1) for site in sites]).median())

    def directions(self, kind: Any) -> dict[Site, Direction]:
        """A unit vector at every block, from the last prompt token with and without instruction."""
        instruction = material(self.attribute).instruction
        fitted = contrast_directions(
            model(),
            kind,
            [Conversation(question, instruction) for question in self.probes],
            [Conversation(question) for question in self.probes],
            range(model().cfg.n_layers),
            seed=self.seed,
        )
        return {site: each.direction for site, each in fitted.items()}


@dataclass(frozen=True, eq=False)
class Fitted:
    """A steering, or a model changed for as long as a `with` block lasts."""

    steering: Steering | None
    lora: LoRA | None = None
    best_step: int | None = None

    @contextmanager
    def model(self) -> Iterator[HookedModel]:
        bare = model("bridge") if self.lora else model()
        with self.lora.applied(bare) if self.lora else nullcontext(bare) as adapted:
            yield adapted


def _linear(case: Case, configuration: int) -> Fitted:
    strength = SHARES[configuration] * case.length
    return Fitted(las.fixed(case.directions("rfm"), strength))


def fit_clas(
    case: Case,
    configuration: int,
    directions: str,
    kind: Kind = "contextual",
    scope: Scope = everywhere,
) -> Fit[CLAS]:
    """CLAS on frozen directions, at the configuration's multiple of both of its rates."""
    times = MULTIPLES[configuration]
    return CLAS.fit(
        model(),
        case.train,
        directions=case.directions(directions),
        validation=case.validation,
        kind=kind,
        schedule=_schedule(case, configuration, {"b": Share(BIAS_SHARE * times)}),
        scope=scope,
    )


def _schedule(
    case: Case, configuration: int, rates: Mapping[str, float | Share] | None = None
) -> Schedule:
    """Eight updates on all pairs, at a multiple of the rate that all learned methods have."""
    return Schedule.full_batch(rate=RATE * MULTIPLES[configuration], rates=rates, seed=case.seed)


def _clas(directions: str, kind: Kind = "contextual") -> Callable[[Case, int], Fitted]:
    def fit(case: Case, configuration: int) -> Fitted:
        return _fitted(fit_clas(case, configuration, directions, kind))

    return fit


def _fitted(fit: Fit[Any]) -> Fitted:
    assert fit.trained is not None
    return Fitted(fit.steering, best_step=fit.trained.best_epoch)


def _reft(case: Case, configuration: int) -> Fitted:
    """The CLAS paper's ReFT: v is learnt too, from a random one, and one rate is for everything."""
    rate = RATE * MULTIPLES[configuration]
    fit = CLAS.fit(
        model(),
        case.train,
        directions=case.directions("random"),
        validation=case.validation,
        learn_directions=True,
        schedule=_schedule(case, configuration, {"b": rate}),
    )
    return _fitted(fit)


def _loreft(case: Case, configuration: int) -> Fitted:
    fit = LoReFT.fit(
        model(),
        case.train,
        range(model().cfg.n_layers),
        validation=case.validation,
        schedule=_schedule(case, configuration),
    )
    return _fitted(fit)


def _reft_r1(case: Case, configuration: int) -> Fitted:
    """At one block, which is its configuration; other responses to the prompts are negatives."""
    schedule = replace(steerlens.methods.reft_r1.AXBENCH, epochs=24, seed=case.seed)
    try:
        fit = ReFTr1.fit(
            model(),
            case.train,
            layer_of(configuration),
            validation=case.validation,
            negatives=_unsteered(case.attribute, case.seed),
            schedule=schedule,
        )
    except ValueError as error:
        if "a_max" not in str(error):
            raise
        return Fitted(None)  # its latent opens on no training token: the model as it is
    return _fitted(fit)


def _instruction(case: Case, configuration: int) -> Fitted:
    """At one block, which is its configuration; the prompts alone are read."""
    instruction = material(case.attribute).instruction
    assert instruction is not None
    pairs = [PromptPair.with_system(question, instruction, "x") for question in case.probes]
    return Fitted(InstructionVector.fit(model(), pairs, layer_of(configuration)).steering)


def _lora(case: Case, configuration: int) -> Fitted:
    fit = LoRA.fit(
        model("bridge"),
        case.train,
        validation=case.validation,
        schedule=_schedule(case, configuration),
    )
    return Fitted(None, fit.lora, fit.trained.best_epoch)


FITS: dict[str, Callable[[Case, int], Fitted]] = {
    "LAS grid": _linear,
    "LAS single": _clas("rfm", "single"),
    "LAS layerwise": _clas("rfm", "layerwise"),
    "CLAS, RFM": _clas("rfm"),
    "CLAS, means": _clas("means"),
    "CLAS, random": _clas("random"),
    "ReFT": _reft,
    "LoReFT": _loreft,
    "ReFT-r1": _reft_r1,
    "instruction vector": _instruction,
    "LoRA": _lora,
}


def _user(pair: PromptPair) -> str:
    assert isinstance(pair.plain, Conversation)
    return pair.plain.user


@cache
def _unsteered(attribute: str, seed: int) -> list[PromptPair]:
    """What the model itself answers to the training prompts of a seed."""
    users = [_user(pair) for pair in Case(attribute, seed).train]
    asked = [Conversation(user) for user in users]
    texts = steerlens.generate(model(), asked, temperature=1.0, max_new_tokens=64, seed=seed).texts
    both = zip(users, texts, strict=True)
    return [PromptPair(Conversation(u), Conversation(u), text) for u, text in both if text]
