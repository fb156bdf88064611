"""Fits of a bench: the file of each, what it cost, and the strength that counts as 1.

Methods have strengths of very different meaning. The unit of each is the strength at which it
changes the predictions on the training answers as much as the instruction does (in KL, by
`calibrate`), so that the same factors are tried for all.
"""

import math
import random
import threading
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file

from steerlens.baselines.gradient_step import GradientStep
from steerlens.baselines.lora import LoRA
from steerlens.calibration import calibrate
from steerlens.digests import read_tensors, write_tensors
from steerlens.reading import load_steering
from steerlens.saving import KEY
from steerlens.steering import Steering
from steerlens.types import SteeringWarning

from .catalogue import METHODS, Case, Fitted, fit_of
from .cells import Cell
from .kinds import PROMPT, UNSTEERED, write_cell
from .maker import Maker

CALIBRATED_ON = 16
"""Training pairs at most that the unit is found on."""
ADAPTER = "adapter"
"""What the file of a LoRA says that it is."""
REFIT = "the last fit that is not kept in a file"
TRAINING = ("steps", "epochs", "best_epoch", "first_loss", "best_loss", "last_loss")
"""What a cell tells of a training; the losses are those of validation."""
UNREACHED = "No strength of this steering reaches"
"""How the warning of `calibrate` begins where the largest effect is below the target."""


class NotFitted(ValueError):
    """A method could not be fitted, or what came of it changes nothing."""


def fit(maker: Maker, cell: Cell) -> dict[str, Any]:
    """Fit the method, write its file, and find its unit; a method that cannot be has a reason."""
    case = case_of(maker, cell)
    told: dict[str, Any] = {"examples": len(case.pairs), "reason": None, "unit": None}
    begun, method = time.process_time(), METHODS[cell["method"]]
    if method.needs and not getattr(case.task, method.needs):
        return told | {"reason": f"the task {case.task.name!r} has no {method.needs}"}
    with watched_memory() as memory:
        try:
            fitted = fit_of(cell["method"])(case)
        except ValueError as error:
            return told | {"reason": str(error)}
    told |= {
        "seconds": time.process_time() - begun,
        "megabytes": memory.most,
        "parameters": write_fitted(fitted, maker.file(cell)),
        "refit": isinstance(fitted, GradientStep),
    }
    return told | training_of(case) | _unit(maker, case, fitted)


def training_of(case: Case) -> dict[str, Any]:
    """How long the fit was trained, and the validation loss at the start, at best, at the end.

    Empty where nothing was trained. A loss that is no number is None.
    """
    if not case.trained:
        return {}
    (trained,) = case.trained
    first, best, last = (trained.rows[i] for i in (0, trained.best_epoch, -1))
    numbers = last["steps"], last["epoch"], trained.best_epoch
    losses = (one["validation_loss"] for one in (first, best, last))
    kept = [loss if math.isfinite(loss) else None for loss in losses]
    return {"training": dict(zip(TRAINING, (*numbers, *kept), strict=True))}


def case_of(maker: Maker, cell: Cell) -> Case:
    """The material of a fit: questions that were answered both with and without the instruction."""
    task = maker.tasks[cell["task"]]
    both = [
        [row[0] for row in maker.result(written)["texts"]]
        for written in (
            write_cell(maker.spec, task, "train", cell["seed"], source)
            for source in (PROMPT, UNSTEERED)
        )
    ]
    rows = zip(task.questions["train"], *both, strict=True)
    answered = [row for row in rows if row[1].strip() and row[2].strip()]
    if not answered:
        raise NotFitted(f"The model answered no training question of {task.name!r}.")
    n = min(cell["examples"] or len(answered), len(answered))
    kept = random.Random(f"training {cell['seed']}").sample(answered, n)
    questions, prompted, plain = zip(*kept, strict=True)
    return Case(maker.model, task, cell["seed"], questions, prompted, plain, cell["configuration"])


def _unit(maker: Maker, case: Case, fitted: Fitted) -> dict[str, Any]:
    """The strength with the prompt's own KL on training answers."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", UNREACHED, SteeringWarning)  # "reached" tells it
        try:
            pairs = case.pairs[:CALIBRATED_ON]
            either: Any = fitted
            found = calibrate(maker.model, either, pairs, like="prompt", progress=False)
        except ValueError as error:  # it moves nothing: a latent that never opens, a zero direction
            return {"reason": str(error)}
    return {
        "unit": found.strength,
        "reached": found.reached,
        "kl": found.effect,
        "kl_of_prompt": found.target,
    }


def _again(maker: Maker, cell: Cell) -> Fitted:
    """A fit that is dearer to keep than to make, made once a worker."""
    known = maker.memory.get(REFIT)
    if known is None or known[0] != cell.digest:
        case = case_of(maker, cell)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SteeringWarning)  # the cell of the fit has them
            known = maker.memory[REFIT] = cell.digest, fit_of(cell["method"])(case)
    return known[1]


def at_strength(maker: Maker, cell: Cell, strength: float | str) -> Fitted | None:
    """What was fitted, at so many units; "as fitted" as it was. None where nothing was."""
    told = maker.result(cell)
    if told["reason"] is not None:
        return None
    fitted = _again(maker, cell) if told.get("refit") else read_fitted(maker.file(cell), maker)
    if strength == "as fitted":
        return fitted
    assert isinstance(strength, float)
    return fitted.scaled(float(told["unit"]) * strength)


# -- Files -----------------------------------------------------------------------------------------


def write_fitted(fitted: Fitted, path: Path) -> int:
    """Write the tensors; how many numbers they hold. A gradient step is as large as the model."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(fitted, GradientStep):
        return sum(dL.numel() for dL in fitted.gradient.values())
    if isinstance(fitted, Steering):
        fitted.save(path)
    else:
        sides = {"A": fitted.A, "B": fitted.B}
        tensors = {f"{s}.{name}": t for s, side in sides.items() for name, t in side.items()}
        alpha = torch.tensor(fitted.alpha, dtype=torch.float64)
        write_tensors(path, tensors | {"alpha": alpha}, ADAPTER)
    return sum(t.numel() for t in load_file(path).values())


def read_fitted(path: Path, maker: Maker) -> Fitted:
    """What `write_fitted` wrote; ValueError where that is damaged."""
    try:
        if KEY in _about(path):
            return load_steering(path, maker.model)
        return _adapter(read_tensors(path, ADAPTER, unsigned=True))
    except (OSError, SafetensorError, ValueError, KeyError) as error:
        cell = path.parent.parent / "cells" / f"{path.stem}.json"
        raise ValueError(
            f"A fit of this bench cannot be used: {error} Delete {path} and {cell}, and run again: "
            "it is fitted anew."
        ) from error


def _about(path: Path) -> dict[str, str]:
    """The metadata of a file of tensors."""
    with safe_open(path, "pt") as file:
        return file.metadata() or {}


def _adapter(tensors: dict[str, torch.Tensor]) -> LoRA:
    sides = {s: {n[2:]: t for n, t in tensors.items() if n[:2] == f"{s}."} for s in "AB"}
    return LoRA(sides["A"], sides["B"], float(tensors["alpha"]))


# -- Memory ----------------------------------------------------------------------------------------


class Memory:
    """The most memory of this process above what it held at the start, in MB; None if not known."""

    most: float | None = None


@contextmanager
def watched_memory(every: float = 0.02) -> Iterator[Memory]:
    """Look at the process's resident memory in a thread, where psutil is installed."""
    memory = Memory()
    try:
        import psutil
    except ImportError:
        yield memory
        return
    process, over = psutil.Process(), threading.Event()
    start = process.memory_info().rss

    def watch() -> None:
        while not over.wait(every):
            grown = (process.memory_info().rss - start) / 2**20
            memory.most = max(memory.most or 0.0, grown)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield memory
    finally:
        over.set()
        watcher.join()
