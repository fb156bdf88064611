"""An instance of every exported steer and combinator: the laws of test_laws.py hold for each.

A new method is added here in one entry, with its equation again in oracles.py. `build` makes the
steering for a tiny model (fit it there if it must be fitted); `oracle` is the same steering on one
row in NumPy, or None where the equation needs more than the activation and the row.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import oracles
import torch
from oracles import Oracle, Row
from tiny_models import D_MODEL, D_VOCAB

import steerlens
from steerlens import (
    CAA,
    CAST,
    CLAS,
    ICV,
    ITI,
    PSR,
    ActAdd,
    Angular,
    BiPO,
    Chain,
    ColdFD,
    ColdKernel,
    Conversation,
    DirectionalAblation,
    InstructionVector,
    LoReFT,
    Only,
    PersonaVector,
    ReFTr1,
    Scaled,
    Site,
    Steering,
    When,
    Window,
    at,
)
from steerlens.methods.cast import PromptCondition
from steerlens.methods.loreft import orthonormal
from steerlens.saving import saveable

LAYER = 1


@dataclass(frozen=True)
class Entry:
    """One catalogued steering: the exported name it covers, if any, how to build it, its oracle."""

    covers: str | None
    build: Callable[[Any], Steering]
    oracle: Oracle | None = None
    positional: bool = False


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    """Numbers of the size of a tiny model's activations, the same for the same seed."""
    return torch.from_numpy(np.random.default_rng(seed).standard_normal(shape)).float()


V = random(D_MODEL, seed=1)
U = random(D_MODEL, seed=2)
MATRIX = random(3, D_MODEL, seed=3)
GATES = torch.tensor([2.0, -4.0, 3.0])  # open, closed and open, in any precision
UNIT = V / V.norm()
ROWS = orthonormal(MATRIX)
UNIT64, ROWS64 = UNIT.double().numpy(), ROWS.double().numpy()
V64, U64, MATRIX64, GATES64 = (tensor.double().numpy() for tensor in (V, U, MATRIX, GATES))


@saveable
@dataclass(frozen=True, eq=False)
class ByToken:
    """The toy that must see the tokens: adds v times the mean id so far, over d_vocab.

    It must see each token once, in order, and carry a sum from pass to pass, as COLD-FD carries a
    second cache.
    """

    v: torch.Tensor
    needs_window = True
    needs_run = True

    def bind(self, window: Window) -> Any:
        context = window.context
        assert context is not None
        sums = context.remembered(self, dict)
        before = sums.get("total", torch.zeros(len(context.tokens), dtype=torch.long))
        carried = torch.where(window.first > 0, before, 0)
        totals = carried[:, None] + (context.tokens * window.mask).cumsum(dim=1)
        sums["total"] = totals[:, -1]
        share = totals / (window.positions + 1).clamp(min=1) / D_VOCAB
        return AddLaid(share[..., None] * self.v)

    def __call__(self, activation: torch.Tensor, hook: Any = None) -> torch.Tensor:
        raise ValueError("ByToken must see the tokens.")


@dataclass(frozen=True, eq=False)
class AddLaid:
    """Add its own vector at every column of one pass."""

    laid: torch.Tensor

    def __call__(self, activation: torch.Tensor, hook: Any = None) -> torch.Tensor:
        return activation + self.laid.to(activation)


def kernels(kernel: str) -> ColdKernel:
    width = 30.0 if kernel == "rbf" else 0.0
    return ColdKernel(0.2 * MATRIX, MATRIX.flip(0), kernel, eta=0.7, width=width)


@cache
def cold_fd(model: Any) -> Steering:
    """A COLD-FD of two pairs, fitted once for each model."""
    kind, unkind = (
        [Conversation("What is it?", response=one), Conversation("I", response=other)]
        for one, other in ((" A good day.", " love"), (" I hate", " not"))
    )
    fit = ColdFD.fit(model, (kind, unkind), LAYER, eta=0.15, scope=steerlens.everywhere)
    return fit.steering


def first_positive(activation: torch.Tensor) -> torch.Tensor:
    """A condition: the first dimension is above zero."""
    return activation[..., 0] > 0


def halved(activation: torch.Tensor, hook: Any = None) -> torch.Tensor:
    """A steer that is a plain function."""
    return activation / 2


def _response_without_bos(h: oracles.Array, row: Row) -> oracles.Array:
    def inside(t: int) -> bool:
        return oracles.in_scope("response", t, row) and not (t == 0 and row.bos)

    return oracles.where(h, oracles.caa(h, V64), inside)


def _between_2_and_5(h: oracles.Array, row: Row) -> oracles.Array:
    return oracles.where(h, oracles.caa(h, V64), lambda t: t in (2, 3, 4))


def _gated(h: oracles.Array, row: Row) -> oracles.Array:
    return oracles.where(h, oracles.caa(h, V64), lambda t: h[t, 0] > 0)


THETA = torch.nn.functional.normalize(random(4, 8, seed=6), dim=1)
SIGMA = torch.tensor([0.5, 0.0, 0.0, 0.3])
# Of the rows of every batch of these tests, on every model and in each environment of the Makefile,
# some are above 0 along it, by 0.02 at least, and some below.
TELLING = random(D_MODEL, seed=100963)
TELLING64 = TELLING.double().numpy()


def cast(above: bool) -> Steering:
    """CAA on the rows whose prompt's mean is on one side of 0."""
    condition = PromptCondition(TELLING, 0.0, Site(LAYER), above)
    return CAST.conditional(at(LAYER, CAA(V)), condition)


PRE = Site(LAYER, "resid_pre")

CATALOGUE: dict[str, Entry] = {
    "CAA": Entry("CAA", lambda model: at(LAYER, CAA(V)), lambda h, row: oracles.caa(h, V64)),
    "ActAdd": Entry(
        "ActAdd",
        lambda model: at(PRE, ActAdd(MATRIX, c=1.5)),
        lambda h, row: oracles.act_add(h, row, MATRIX64, 1.5),
        positional=True,
    ),
    "ActAdd, middle": Entry(
        "ActAdd",
        lambda model: at(PRE, ActAdd(MATRIX, alignment="mid", dims=(4, 20))),
        lambda h, row: oracles.act_add(h, row, MATRIX64, 1.0, "mid", (4, 20)),
        positional=True,
    ),
    "ActAdd, back": Entry(
        "ActAdd",
        lambda model: at(PRE, ActAdd(MATRIX, c=-2.0, alignment="back")),
        lambda h, row: oracles.act_add(h, row, MATRIX64, -2.0, "back"),
        positional=True,
    ),
    "PSR": Entry(
        "PSR",
        lambda model: at(LAYER, PSR(0.05 * MATRIX, GATES, 0.3 * MATRIX.flip(0), alpha=0.8)),
        lambda h, row: oracles.psr(h, 0.05 * MATRIX64, GATES64, 0.3 * MATRIX64[::-1], 0.8),
    ),
    "PSR, constant": Entry(
        "PSR",
        lambda model: at(LAYER, PSR.constant(V)),
        lambda h, row: oracles.caa(h, V64),
    ),
    "CLAS": Entry(
        "CLAS",
        lambda model: at(LAYER, CLAS(0.05 * MATRIX, 0.1 * GATES, 0.3 * MATRIX.flip(0), limit=0.4)),
        lambda h, row: oracles.clas(h, 0.05 * MATRIX64, 0.1 * GATES64, 0.3 * MATRIX64[::-1], 0.4),
    ),
    "LoReFT": Entry(
        "LoReFT",
        lambda model: at(LAYER, LoReFT(ROWS, 0.1 * MATRIX, 0.5 * GATES)),
        lambda h, row: oracles.loreft(h, ROWS64, 0.1 * MATRIX64, 0.5 * GATES64),
    ),
    "ReFT-r1": Entry(
        "ReFTr1",
        lambda model: at(LAYER, ReFTr1(UNIT, 3.5)),
        lambda h, row: oracles.reft_r1(h, UNIT64, 3.5),
    ),
    "instruction vector": Entry(
        "InstructionVector",
        lambda model: at(LAYER, InstructionVector(UNIT, 4.5)),
        lambda h, row: oracles.instruction(h, UNIT64, 4.5),
    ),
    "Angular": Entry(
        "Angular",
        lambda model: at(LAYER, Angular(3 * V, 40.0)),
        lambda h, row: oracles.angular(h, V64, 40.0),
    ),
    "DirectionalAblation": Entry(
        "DirectionalAblation",
        lambda model: at(LAYER, DirectionalAblation(UNIT)),
        lambda h, row: oracles.ablation(h, UNIT64),
    ),
    "DirectionalAblation, everywhere": Entry(
        "DirectionalAblation",
        lambda model: DirectionalAblation.everywhere(model, 3 * V, scope=steerlens.everywhere),
        lambda h, row: oracles.ablation(h, UNIT64),
    ),
    "ICV": Entry(
        "ICV",
        lambda model: at(LAYER, ICV(UNIT, 0.7)),
        lambda h, row: oracles.icv(h, UNIT64, 0.7),
    ),
    "PersonaVector": Entry(
        "PersonaVector",
        lambda model: at(LAYER, PersonaVector(V)),
        lambda h, row: oracles.caa(h, V64),
    ),
    **{
        f"CAST, {side} the threshold": Entry(
            "CAST",
            lambda model, side=side: cast(side == "above"),
            lambda h, row, side=side: oracles.cast(h, row, TELLING64, 0.0, side == "above", V64),
            positional=True,
        )
        for side in ("above", "below")
    },
    "ITI": Entry(
        "ITI",
        lambda model: at(Site(LAYER, "z"), ITI(THETA, SIGMA, alpha=8.0)),
        lambda h, row: oracles.iti(h, THETA.double().numpy(), SIGMA.double().numpy(), 8.0),
    ),
    "BiPO": Entry("BiPO", lambda model: at(LAYER, BiPO(V)), lambda h, row: oracles.caa(h, V64)),
    "ColdKernel": Entry(
        "ColdKernel",
        lambda model: at(LAYER, ColdKernel(0.3 * MATRIX[:1], eta=-0.8)),
        lambda h, row: oracles.cold_kernel(h, 0.3 * MATRIX64[:1], None, "unit", -0.8),
    ),
    **{
        f"ColdKernel, {kernel}": Entry(
            "ColdKernel",
            lambda model, kernel=kernel: at(LAYER, kernels(kernel)),
            lambda h, row, kernel=kernel: oracles.cold_kernel(
                h, 0.2 * MATRIX64, MATRIX64[::-1], kernel, 0.7, 30.0
            ),
        )
        for kernel in ("dot", "cosine", "rbf")
    },
    "ColdFD": Entry("ColdFD", cold_fd, positional=True),
    "ColdFD, on the prompt": Entry(
        "ColdFD", lambda model: cold_fd(model).only(steerlens.prompt), positional=True
    ),
    "Scaled": Entry(
        "Scaled",
        lambda model: at(LAYER, Scaled(CAA(V), -0.7)),
        lambda h, row: oracles.scaled(h, oracles.caa(h, V64), -0.7),
    ),
    "Only, response": Entry(
        "Only",
        lambda model: at(LAYER, Only(CAA(V), steerlens.response.without_bos)),
        _response_without_bos,
        positional=True,
    ),
    "Only, positions": Entry(
        "Only",
        lambda model: at(LAYER, Only(CAA(V), steerlens.positions(2, 5))),
        _between_2_and_5,
        positional=True,
    ),
    "Chain": Entry(
        "Chain",
        lambda model: at(LAYER, Chain((CAA(V), halved, CAA(U)))),
        lambda h, row: oracles.caa(oracles.caa(h, V64) / 2, U64),
    ),
    "When": Entry("When", lambda model: at(LAYER, When(CAA(V), first_positive)), _gated),
    "When, of a scope": Entry(
        "When",
        lambda model: at(LAYER, When(Only(CAA(V), steerlens.positions(1)), first_positive)),
        lambda h, row: oracles.where(
            h,
            oracles.caa(h, V64),
            lambda t: h[t, 0] > 0 and t >= 1,
        ),
        positional=True,
    ),
    "wrapped together": Entry(
        "Chain",
        lambda model: at(
            PRE, Scaled(Chain((ActAdd(MATRIX), Only(CAA(V), steerlens.generated))), 0.5)
        ),
        lambda h, row: oracles.scaled(
            h,
            oracles.where(
                (one := oracles.act_add(h, row, MATRIX64)),
                oracles.caa(one, V64),
                lambda t: oracles.in_scope("generated", t, row),
            ),
            0.5,
        ),
        positional=True,
    ),
    "a steer that sees the tokens": Entry(
        None,
        lambda model: at(LAYER, ByToken(V)),
        lambda h, row: oracles.by_token(h, row, V64, D_VOCAB),
        positional=True,
    ),
    "a steer that sees the tokens, scaled and limited": Entry(
        None,
        lambda model: (3.0 * at(LAYER, ByToken(V))).only(steerlens.response),
        lambda h, row: oracles.where(
            h,
            oracles.scaled(h, oracles.by_token(h, row, V64, D_VOCAB), 3.0),
            lambda t: oracles.in_scope("response", t, row),
        ),
        positional=True,
    ),
    "a steer that sees the tokens after a steering": Entry(
        None,
        lambda model: at(LAYER, halved) + at(LAYER, ByToken(V)),
        lambda h, row: oracles.by_token(h / 2, row, V64, D_VOCAB),
        positional=True,
    ),
}

COMBINATORS = {"Chain", "Only", "Scaled", "When"}
"""What `steerlens.combinators` exports, and what the catalogue must therefore also hold."""
