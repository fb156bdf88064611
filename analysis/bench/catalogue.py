"""Every method that is compared: how it is fitted, and which configurations it may choose from.

A method is fitted from the same material: training questions, and what the model answered to them
with and without the instruction. Its configurations are as many as every other's (`Budget`); a
method that has fewer by nature (LoRA has one rate and no layer) is given as many rates.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TypeVar

import torch

from steerlens.activations import capture
from steerlens.baselines import las
from steerlens.baselines.gradient_step import GradientStep
from steerlens.baselines.lora import LoRA, LoRAFit
from steerlens.conversations import Conversation
from steerlens.directions.labelled import Kind, contrast_directions
from steerlens.methods import (
    CAA,
    CLAS,
    ICV,
    ITI,
    PSR,
    ActAdd,
    Angular,
    BiPO,
    ColdFD,
    ColdKernel,
    DirectionalAblation,
    InstructionVector,
    LoReFT,
    PersonaVector,
    ReFTr1,
)
from steerlens.methods.psr import Gates
from steerlens.methods.reft_r1 import AXBENCH
from steerlens.precision import wide, wide_dtype
from steerlens.prompts import PromptPair, encode_pair
from steerlens.scopes import everywhere, generated, response
from steerlens.sites import Site
from steerlens.steering import Steering, at
from steerlens.training.fit import Fit as FitOf
from steerlens.training.loop import Trained
from steerlens.training.objectives import LL, MSE
from steerlens.training.schedule import RATE, Schedule
from steerlens.types import Direction, HookedModel

from .tasks import Task

HELD_BACK = 4
"""One pair of so many is held back by the methods that choose a step by a validation loss."""
RATES = (3e-3, 1e-2, 3e-2)
MULTIPLES = (1.0, 4.0, 1 / 4)
LAYERS = (1 / 2, 1 / 3, 2 / 3)
"""The first is the one of a bench with a single configuration."""
AnyFit = TypeVar("AnyFit", bound=FitOf | LoRAFit)


@dataclass(frozen=True, eq=False)
class Case:
    """What a fit is given: a task, a seed, and answers with and without the instruction."""

    model: HookedModel
    task: Task
    seed: int
    questions: Sequence[str]
    prompted: Sequence[str]
    plain: Sequence[str]
    configuration: int = 0
    trained: list[Trained] = field(default_factory=list[Trained], repr=False)
    """How the fit of this case was trained; the fit puts it there, where it was."""

    def noted(self, fit: AnyFit) -> AnyFit:
        """The same fit, with its training in `trained`."""
        if fit.trained is not None:
            self.trained.append(fit.trained)
        return fit

    @cached_property
    def pairs(self) -> list[PromptPair]:
        """The prompted answers, with and without the instruction in front."""
        return [
            PromptPair.with_system(question, self.task.instruction, text)
            for question, text in zip(self.questions, self.prompted, strict=True)
        ]

    @property
    def train(self) -> list[PromptPair]:
        """The pairs that are learnt from where others are held back."""
        return [pair for number, pair in enumerate(self.pairs) if number % HELD_BACK]

    @property
    def held_back(self) -> list[PromptPair]:
        return self.pairs[::HELD_BACK]

    @property
    def liked(self) -> list[Conversation]:
        return _answered(self.questions, self.prompted)

    @property
    def disliked(self) -> list[Conversation]:
        return _answered(self.questions, self.plain)

    @property
    def n_layers(self) -> int:
        return self.model.cfg.n_layers

    @property
    def layer(self) -> int:
        """The layer of a method that acts at one: by the configuration, the middle first."""
        return layer_of(self.configuration, self.n_layers)

    @property
    def schedule(self) -> Schedule:
        """Of the methods that are trained for eight updates on all pairs."""
        return Schedule.full_batch(rate=RATE * MULTIPLES[self.configuration], seed=self.seed)

    def directions(self, kind: Kind) -> dict[Site, Direction]:
        """A unit vector at every block between the answers with and without the instruction."""
        found = contrast_directions(
            self.model,
            kind,
            self.liked,
            self.disliked,
            range(self.n_layers),
            read=generated,
            seed=self.seed,
        )
        return {site: one.direction for site, one in found.items()}


def layer_of(configuration: int, n_layers: int) -> int:
    """The layer of a configuration: half, a third and two thirds of the way up."""
    return max(round(n_layers * LAYERS[configuration]) - 1, 0)


def _answered(questions: Sequence[str], texts: Sequence[str]) -> list[Conversation]:
    return [Conversation(q, response=text) for q, text in zip(questions, texts, strict=True)]


Fitted = Steering | LoRA | GradientStep
Fit = Callable[[Case], Fitted]


@dataclass(frozen=True)
class Method:
    """One row of the comparison.

    `layered` says whether a configuration is a layer (else a rate). With `prompted` the instruction
    is given as well; `fit_as` names the method whose fit it shares. `needs` says which optional
    part of a task it takes, and `null` that it is there to be beaten: it knows nothing of the task.
    `examples` is how many training questions it is given, where that is what is asked about it.
    `configurations` is 1 for a method that has neither a layer nor a rate to choose.
    """

    fit: Fit | None
    paper: str
    layered: bool = True
    prompted: bool = False
    fit_as: str | None = None
    needs: str | None = None
    null: bool = False
    examples: int | None = None
    configurations: int | None = None


def _act_add(case: Case) -> Steering:
    assert case.task.contrast is not None
    return ActAdd.fit(case.model, case.task.contrast, case.layer + 1).steering


def _caa(case: Case) -> Steering:
    sides = (case.liked, case.disliked)
    return CAA.fit(case.model, sides, case.layer, read=generated).steering.only(response)


def _angular(case: Case) -> Steering:
    sides = (case.liked, case.disliked)
    return Angular.fit(case.model, sides, case.layer, read=generated).steering.only(response)


def _ablation(case: Case) -> Steering:
    """What the plain answers have and the prompted ones have not is taken out."""
    sides = (case.disliked, case.liked)
    return DirectionalAblation.fit(case.model, sides, case.layer, read=generated).steering


def _icv(case: Case) -> Steering:
    sides = (case.liked, case.disliked)
    return ICV.fit(case.model, sides, range(case.n_layers), read=generated).steering.only(response)


def _persona(case: Case) -> Steering:
    """Without its judge: the bench's own may not choose what it scores."""
    told = [replace(one, system=case.task.instruction) for one in case.liked]
    sides = (told, case.disliked)
    return PersonaVector.fit(case.model, sides, case.layer).steering.only(response)


def _iti(case: Case) -> Steering:
    sides, there = (case.liked, case.disliked), case.n_layers * case.model.cfg.n_heads
    heads = min(48, there // 4)
    return ITI.fit(
        case.model, sides, range(case.n_layers), heads=heads, read=generated, seed=case.seed
    ).steering


def _bipo(case: Case) -> Steering:
    schedule = Schedule(epochs=20, batch_size=4, seed=case.seed)
    sides = (case.liked, case.disliked)
    return case.noted(BiPO.fit(case.model, sides, case.layer, schedule=schedule)).steering


def _instruction(case: Case) -> Steering:
    return InstructionVector.fit(case.model, case.pairs, case.layer).steering


def _random(case: Case) -> Steering:
    """A random direction as long as the activations: what searching a strength alone gives."""
    rows = [encode_pair(case.model, pair)[0] for pair in case.pairs]
    seen = capture(case.model, rows, [Site(case.layer)], scope=generated).at(Site(case.layer))
    drawn = torch.randn(
        case.model.cfg.d_model, generator=torch.Generator().manual_seed(1000 + case.seed)
    )
    length = float(wide(seen).norm(dim=-1).median())
    drawn = drawn.to(wide_dtype(case.model))
    return at(case.layer, CAA(length * drawn / drawn.norm())).only(response)


def _psr(objective: str, gated: bool, every: bool) -> Fit:
    def fit(case: Case) -> Steering:
        rate = RATES[case.configuration - 1] if every and case.configuration else None
        found = PSR.fit(
            case.model,
            case.pairs,
            range(case.n_layers) if every else case.layer,
            objective=MSE() if objective == "MSE" else LL(),
            gates=Gates(constant=not gated),
            schedule=Schedule(learning_rate=rate, seed=case.seed),
        )
        return case.noted(found).steering

    return fit


def _clas(kind: Kind) -> Fit:
    def fit(case: Case) -> Steering:
        found = CLAS.fit(
            case.model,
            case.train,
            directions=case.directions(kind),
            validation=case.held_back,
            schedule=case.schedule,
        )
        return case.noted(found).steering

    return fit


def _las(case: Case) -> Steering:
    kinds: tuple[Kind, ...] = ("rfm", "means", "ridge")
    return las.fixed(case.directions(kinds[case.configuration]))


def _loreft(case: Case) -> Steering:
    found = LoReFT.fit(
        case.model,
        case.train,
        range(case.n_layers),
        validation=case.held_back,
        schedule=case.schedule,
    )
    return case.noted(found).steering


def _reft_r1(case: Case) -> Steering:
    """The plain answers are the negatives; ValueError if the latent closes in four trainings."""
    rivals = zip(case.questions, case.plain, strict=True)
    negatives = [PromptPair(Conversation(q), Conversation(q), text) for q, text in rivals if text]
    schedule = replace(AXBENCH, epochs=24, seed=case.seed)
    found = ReFTr1.fit(case.model, case.pairs, case.layer, negatives=negatives, schedule=schedule)
    return case.noted(found).steering


def _lora(case: Case) -> LoRA:
    fit = LoRA.fit(case.model, case.train, validation=case.held_back, schedule=case.schedule)
    return case.noted(fit).lora


def _cold_fd(case: Case) -> Steering:
    sides = (case.liked, case.disliked)
    return ColdFD.fit(case.model, sides, case.layer, scope=everywhere).steering


def _gradient_step(case: Case) -> GradientStep:
    """What COLD approximates: all parameters, one step on the same examples and the same loss."""
    return GradientStep.fit(case.model, (case.liked, case.disliked))


def _cold_kernel(case: Case) -> Steering:
    sides = (case.liked, case.disliked)
    return ColdKernel.fit(case.model, sides, case.layer, scope=everywhere).steering


_PSR, _CLAS, _COLD = "arXiv 2605.03907", "arXiv 2604.24693", "arXiv 2603.06495"
FEW_SHOT = 4
METHODS: dict[str, Method] = {
    "random direction": Method(_random, "", null=True),
    "ActAdd": Method(_act_add, "arXiv 2308.10248", needs="contrast"),
    "CAA": Method(_caa, "arXiv 2312.06681"),
    "Angular": Method(_angular, "arXiv 2510.26243"),
    "instruction vector": Method(_instruction, "arXiv 2410.12877"),
    "S-Const_MSE": Method(_psr("MSE", gated=False, every=False), _PSR),
    "S-PSR_MSE": Method(_psr("MSE", gated=True, every=False), _PSR),
    "S-PSR_LL": Method(_psr("LL", gated=True, every=False), _PSR),
    "A-PSR_MSE": Method(_psr("MSE", gated=True, every=True), _PSR, layered=False),
    "A-PSR_MSE + prompt": Method(None, _PSR, layered=False, prompted=True, fit_as="A-PSR_MSE"),
    "LAS grid": Method(_las, _CLAS, layered=False),
    "CLAS": Method(_clas("rfm"), _CLAS, layered=False),
    "LoReFT": Method(_loreft, "arXiv 2404.03592", layered=False),
    "ReFT-r1": Method(_reft_r1, "arXiv 2501.17148"),
    "LoRA": Method(_lora, "arXiv 2106.09685", layered=False),
    "COLD-FD": Method(_cold_fd, _COLD),
    "COLD-Kernel": Method(_cold_kernel, _COLD),
    "COLD-FD, 4 examples": Method(_cold_fd, _COLD, examples=FEW_SHOT),
    "CAA, 4 examples": Method(_caa, "arXiv 2312.06681", examples=FEW_SHOT),
    "gradient step": Method(_gradient_step, _COLD, layered=False, configurations=1),
}
STANDARD = tuple(METHODS)
"""What a bench compares unless it is told others; the committed runs are of these."""
METHODS |= {
    "DirectionalAblation": Method(_ablation, "arXiv 2406.11717"),
    "ICV": Method(_icv, "arXiv 2311.06668", layered=False, configurations=1),
    "PersonaVector": Method(_persona, "arXiv 2507.21509"),
    "ITI": Method(_iti, "arXiv 2306.03341", layered=False, configurations=1),
    "BiPO": Method(_bipo, "arXiv 2406.00045"),
}
"""By the name that the papers use. Prompting and no steering are no methods here: they have nothing
to fit or to tune, and every table has them."""


def fit_of(method: str) -> Fit:
    """What fits a method, or the method whose fit it shares."""
    chosen = METHODS[method]
    found = chosen.fit or METHODS[chosen.fit_as or ""].fit
    assert found is not None
    return found


def require_methods(names: Sequence[str]) -> None:
    """ValueError for a name that the catalogue has not."""
    unknown = [name for name in names if name not in METHODS]
    if unknown:
        raise ValueError(
            f"The bench knows no method {', '.join(map(repr, unknown))}. There are "
            f"{', '.join(map(repr, METHODS))}."
        )
