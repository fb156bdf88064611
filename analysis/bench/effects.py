"""How near a run is to the prompted one on the same answers: activations and predictions.

Kept are sums over the tokens of each answer, so that any ratio, mean and interval can be made of
them: of the squared distances at every layer, sinks left out, and of the KL.
"""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from steerlens.activations import capture
from steerlens.baselines.weights import Change, changed
from steerlens.divergence import chunks, divergence, log_probabilities
from steerlens.precision import wide_dtype
from steerlens.prompts import Encoded, PromptPair
from steerlens.runtime.hooks import Watch
from steerlens.scopes import generated
from steerlens.sinks import SINK
from steerlens.steering import Steering
from steerlens.types import HookedModel

from ..measures.deltas import Deltas, difference
from ..measures.faithfulness import Pushes, reworded
from ..measures.plain_side import BY_TEMPLATE
from ..measures.responses import Responses
from .cells import Cell
from .fitting import at_strength
from .maker import Maker

LogP = Float[Tensor, "_ d_vocab"]
SLOT = "answers of the effects"
KEPT = 3
"""Of how many sets of answers a worker keeps the runs: cells go through the seeds of a task again
and again."""


def effects(maker: Maker, cell: Cell) -> dict[str, Any]:
    """By layer and answer: `missed` and `whole` squares; by answer: `kl_left`, `kl_prompt`, tokens.

    A fit that came to nothing has None.
    """
    written = Cell.of_json(cell["pairs"])
    numbers, pairs = answered(maker, written)
    answers = _kept(maker, written.digest, pairs)
    if "fit" in cell.settings:
        change = at_strength(maker, Cell.of_json(cell["fit"]), cell["strength"])
        if change is None:
            return {"missed": None}
        runs = [answers.run(change)]
    else:
        runs = [answers.worded(reworded(pairs, text)) for text in cell["instructions"]]
    return {"question": numbers, **answers.sums(runs)}


Noted: TypeAlias = "tuple[Answers, list[warnings.WarningMessage]]"
"""Runs, and what was warned of while they were made."""


def _kept(maker: Maker, digest: str, pairs: Sequence[PromptPair]) -> "Answers":
    """The runs of these answers; those that were not asked for longest give way to new ones."""
    known: dict[str, Noted] = maker.memory.setdefault(SLOT, {})
    found = known.pop(digest, None)
    while found is None and len(known) >= KEPT:
        known.pop(next(iter(known)))
    if found is None:
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            answers = Answers.of(maker.model, pairs)
        found = answers, list(said)
    known[digest] = found
    for one in found[1]:  # every cell that is made of them has their warnings, whoever comes first
        warnings.warn_explicit(one.message, one.category, one.filename, one.lineno)
    return found[0]


def answered(maker: Maker, written: Cell) -> tuple[list[int], list[PromptPair]]:
    """The prompted answers of a split that are not empty, as pairs, and the question of each."""
    task = maker.tasks[written["task"]]
    texts = maker.result(written)["texts"]
    numbers = [number for number, row in enumerate(texts) if row[0].strip()]
    asked = task.questions[written["split"]]
    return numbers, [
        PromptPair.with_system(asked[number], task.instruction, texts[number][0])
        for number in numbers
    ]


@dataclass(frozen=True, eq=False)
class Answers:
    """The plain and the prompted run of some answers, which all others are compared with."""

    model: HookedModel
    pushes: Pushes
    responses: Responses
    prompted: list[LogP]
    kl_prompt: Float[np.ndarray, " token"]

    @classmethod
    def of(cls, model: HookedModel, pairs: Sequence[PromptPair]) -> "Answers":
        """Both runs; the prompted predictions are kept in float32, or float64 as the model."""
        layers = range(model.cfg.n_layers)
        pushes = Pushes.of(model, pairs, layers, generated, BY_TEMPLATE, SINK)
        responses = Responses.of(model, pairs, BY_TEMPLATE)
        prompted = predicted(model, responses.prompted, None)
        plain = _kl(model, responses.plain, None, prompted)
        return cls(model, pushes, responses, prompted, plain)

    def run(self, change: Change) -> tuple[Deltas, Float[np.ndarray, " token"]]:
        """What a method does to the activations, and the KL that it leaves."""
        aligned = self.pushes.aligned
        with changed(self.model, change) as steering:
            after = capture(
                self.model,
                aligned.plain_rows,
                aligned.sites,
                scope=aligned.span,
                steering=steering,
            )
            left = _kl(self.model, self.responses.plain, steering, self.prompted)
        return difference(after, aligned.plain), left

    def worded(self, others: Sequence[PromptPair]) -> tuple[Deltas, Float[np.ndarray, " token"]]:
        """What another instruction does to them, and the KL that it leaves."""
        rows = self.responses.worded(self.model, others)
        return self.pushes.other(self.model, others), _kl(self.model, rows, None, self.prompted)

    def sums(self, runs: Sequence[tuple[Deltas, Float[np.ndarray, " token"]]]) -> dict[str, Any]:
        """Over each answer's tokens; of several runs the mean."""
        missed, whole = [], []
        for site in self.pushes.aligned.sites:
            target, keep = self.pushes.target[site], self.pushes.kept[site]
            squares = torch.stack([(run[site] - target).square().sum(dim=-1) for run, _ in runs])
            missed.append(self._by_answer(torch.where(keep, squares.mean(dim=0), 0)))
            whole.append(self._by_answer(torch.where(keep, target.square().sum(dim=-1), 0)))
        lengths = [len(row.ids) - row.response for row in self.responses.plain]
        of = np.repeat(np.arange(len(lengths)), lengths)
        return {
            "missed": missed,
            "whole": whole,
            "kl_left": np.bincount(of, np.mean([left for _, left in runs], axis=0)).tolist(),
            "kl_prompt": np.bincount(of, self.kl_prompt).tolist(),
            "tokens": [int(length) for length in lengths],
        }

    def _by_answer(self, values: Float[Tensor, " token"]) -> list[float]:
        aligned = self.pushes.aligned
        n = len(aligned.plain_rows)
        return torch.bincount(aligned.example, values, minlength=n).tolist()


def predicted(
    model: HookedModel,
    rows: Sequence[Encoded],
    steering: Steering | None,
    reduced: Callable[[LogP, int], Tensor] | None = None,
) -> list[Tensor]:
    """The log-probabilities of every response position, or what they are reduced to, in chunks.

    They are in float32, in float64 where the model is; `reduced` is given them in float64, and the
    number of the chunk.
    """
    found = []
    for number, chosen in enumerate(chunks(len(rows))):
        log_p = log_probabilities(model, list(rows), chosen, steering, Watch())
        found.append(reduced(log_p, number) if reduced else log_p.to(wide_dtype(model)))
    return found


def _kl(
    model: HookedModel,
    rows: Sequence[Encoded],
    steering: Steering | None,
    prompted: Sequence[LogP],
) -> Float[np.ndarray, " token"]:
    """KL(prompted || run) of every response token; nats."""

    def kl(log_p: LogP, number: int) -> Tensor:
        return divergence(prompted[number].double(), log_p.double())

    return torch.cat(predicted(model, rows, steering, kl)).clamp(min=0).numpy()
