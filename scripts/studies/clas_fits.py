"""How the CLAS study fits each method."""

from __future__ import annotations

from collections.abc import Callable, Iterator
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
    Site,
    capture,
    contrast_directions,
    everywhere,
)
from steerlens.baselines import las
from steerlens.baselines.lora import RATE as LORA_RATE
from steerlens.baselines.lora import LoRA
from steerlens.methods.clas import BIAS_SHARE, RATE, Kind
from steerlens.methods.loreft import RATE as LOREFT_RATE
from steerlens.steering import AnySteering
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
    def held(self) -> list[PromptPair]:
        return self.drawn[N_TRAIN:]

    @cached_property
    def probes(self) -> list[str]:
        """Training questions that no pair of this seed asks."""
        found = material(self.attribute)
        assert found.questions is not None
        asked = {_user(pair) for pair in self.drawn}
        return [one for one in found.questions["train"] if one not in asked][:N_PROBE]

    @cached_property
    def length(self) -> float:
        """The median length of the plain activations of the training pairs, over all blocks."""
        rows = [steerlens.encode_pair(model(), pair)[0] for pair in self.train]
        sites = [Site(layer) for layer in range(model().cfg.n_layers)]
        found = capture(model(), rows, sites, scope=everywhere.without_bos)
        return float(torch.cat([found.at(site).norm(dim=-1) for site in sites]).median())

    def directions(self, kind: Any) -> dict[Site, Direction]:
        """A unit vector at every block, from the last prompt token with and without instruction."""
        instruction = material(self.attribute).instruction
        found = contrast_directions(
            kind,
            model(),
            [Conversation(question, instruction) for question in self.probes],
            [Conversation(question) for question in self.probes],
            range(model().cfg.n_layers),
            seed=self.seed,
        )
        return {site: one.direction for site, one in found.items()}


@dataclass(frozen=True, eq=False)
class Fitted:
    """A steering, or a model changed for as long as a `with` block lasts."""

    steering: AnySteering | None
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


def fit_clas(case: Case, configuration: int, directions: str, **more: Any) -> Any:
    times = MULTIPLES[configuration]
    return CLAS.fit(
        model(),
        case.train,
        case.held,
        case.directions(directions),
        rate=RATE * times,
        bias_share=BIAS_SHARE * times,
        seed=case.seed,
        **more,
    )


def _clas(directions: str, kind: Kind = "contextual") -> Callable[[Case, int], Fitted]:
    def fit(case: Case, configuration: int) -> Fitted:
        found = fit_clas(case, configuration, directions, kind=kind)
        return Fitted(found.steering, best_step=found.trained.best_epoch)

    return fit


def _reft(case: Case, configuration: int) -> Fitted:
    """The CLAS paper's ReFT: v is learnt too, from a random one, and one rate is for everything."""
    rate = RATE * MULTIPLES[configuration]
    v, both = case.directions("random"), (case.train, case.held)
    found = CLAS.fit(
        model(), *both, v, learn_directions=True, rate=rate, bias_rate=rate, seed=case.seed
    )
    return Fitted(found.steering, best_step=found.trained.best_epoch)


def _loreft(case: Case, configuration: int) -> Fitted:
    rate, sites = LOREFT_RATE * MULTIPLES[configuration], range(model().cfg.n_layers)
    found = LoReFT.fit(model(), case.train, case.held, sites, rate=rate, seed=case.seed)
    return Fitted(found.steering, best_step=found.trained.best_epoch)


def _reft_r1(case: Case, configuration: int) -> Fitted:
    """At one block, which is its configuration; other responses to the prompts are negatives."""
    schedule = replace(steerlens.methods.reft_r1.AXBENCH, epochs=24, seed=case.seed)
    try:
        found = ReFTr1.fit(
            model(),
            case.train,
            case.held,
            layer_of(configuration),
            negatives=_unsteered(case.attribute, case.seed),
            schedule=schedule,
        )
    except ValueError as error:
        if "a_max" not in str(error):
            raise
        return Fitted(None)  # its latent opens on no training token: the model as it is
    return Fitted(found.steering, best_step=found.trained.best_epoch)


def _instruction(case: Case, configuration: int) -> Fitted:
    """At one block, which is its configuration; the prompts alone are read."""
    instruction = material(case.attribute).instruction
    assert instruction is not None
    pairs = [PromptPair.with_system(question, instruction, "x") for question in case.probes]
    return Fitted(InstructionVector.fit(model(), pairs, layer_of(configuration)).adjust)


def _lora(case: Case, configuration: int) -> Fitted:
    rate = LORA_RATE * MULTIPLES[configuration]
    found = LoRA.fit(model("bridge"), case.train, case.held, rate=rate, seed=case.seed)
    return Fitted(None, found.lora, found.trained.best_epoch)


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
