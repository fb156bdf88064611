"""The one training loop of the learned methods: validation, checkpoint, stop, resume.

A method says what its parameters are and what they cost on some examples (a `Task`), a `Schedule`
how long and how fast; this file does the rest. AdamW; the validation loss before the first step and
after every epoch, of which the best parameters are kept; the same seed gives the same parameters,
in one go or resumed.
"""

import math
import random
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Protocol, TypeAlias, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from steerlens.training import checkpoint as checkpoints
from steerlens.training.checkpoint import Parameters, Row, State
from steerlens.training.schedule import BATCH, Schedule
from steerlens.types import SteeringWarning
from steerlens.whole import require_place

Cost: TypeAlias = Callable[[Parameters, Sequence[int], float], Tensor]
Split: TypeAlias = tuple[Sequence[int], Sequence[int]]


@runtime_checkable
class Task(Protocol):
    """What is trained: how many examples there are, and what the parameters cost on some."""

    @property
    def size(self) -> int:
        """How many examples there are."""
        ...

    def start(self, generator: torch.Generator) -> Parameters:
        """Parameters before the first step, float32, or float64 where the model is."""
        ...

    def loss(self, parameters: Parameters, examples: Sequence[int]) -> Float[Tensor, ""]:
        """Mean loss over these examples, to be differentiated."""
        ...


@dataclass(frozen=True, eq=False)
class Trained:
    """The best parameters, and how training went.

    There is a row for the start and one an epoch: epoch, steps, rate, loss, validation_loss.
    """

    parameters: Parameters = field(repr=False)
    rows: tuple[Row, ...] = field(repr=False)  # `table` shows them
    best_epoch: int
    stopped_early: bool

    @property
    def table(self) -> Any:
        """The rows as a pandas table."""
        import pandas as pd

        return pd.DataFrame(list(self.rows)).astype({"epoch": int, "steps": int})


def train(
    task: Task,
    schedule: Schedule,
    *,
    cost: Cost | None = None,
    after_step: Callable[[Parameters], None] | None = None,
    after_epoch: Callable[[Parameters, int], None] | None = None,
    split: Split | None = None,
    checkpoint: str | Path | None = None,
    progress: bool = False,
) -> Trained:
    """Train, or go on from `checkpoint` where it stopped.

    `cost(parameters, examples, done)` is what is minimised where that is not the loss, `done` the
    share of the steps done; validation is by the loss. `after_step(parameters)` may change them in
    place, and so may `after_epoch(parameters, epoch)`, called after each epoch but the last once it
    is judged. `split` names the training and the validation examples; by default the schedule draws
    them. `checkpoint` is a file, written after each epoch.
    """
    plan = _Plan.of(task, schedule, split)
    path = None if checkpoint is None else require_place(checkpoint)
    digest = "" if path is None else checkpoints.digest_of(schedule, task.size, repr(task))
    state = checkpoints.read(path, digest) if path and path.exists() else _begun(task, plan)
    optimiser = _optimiser(state, plan)
    with _bar(plan, state, progress) as bar:
        while state.epoch < plan.epochs and not _stopped(state, schedule):
            epoch, losses = state.epoch + 1, []
            for examples, done in plan.batches(epoch):
                price = partial(_price, task, cost, done)
                losses.append(_step(price, state, optimiser, examples, plan, done))
                _changed(after_step, state.parameters)
                bar.update()
            _judge(task, plan, state, sum(losses) / len(losses))
            bar.set_postfix({name: f"{state.rows[-1][name]:.4g}" for name in LOSSES})
            if epoch < plan.epochs:
                _changed(after_epoch, state.parameters, epoch)
            if path is not None:
                path = _kept(path, state, optimiser, digest)
    _warn_if_worse(state, judged_alike=cost is None)
    stopped_early = state.epoch < plan.epochs
    return Trained(state.best, tuple(state.rows), state.best_epoch, stopped_early)


def _kept(path: Path, state: State, optimiser: Any, digest: str) -> Path | None:
    """The checkpoint's path; None, with a warning, where it can be written no more.

    What was trained so far is in memory, and worth more than its copy.
    """
    try:
        checkpoints.write(path, state, optimiser, digest)
    except OSError as error:
        warnings.warn(
            f"{error} The training goes on in memory without a checkpoint; whatever of an earlier "
            "epoch is there stays. To be able to resume the next one, name a file on another disk.",
            SteeringWarning,
            stacklevel=4,
        )
        return None
    return path


LOSSES = ("loss", "validation_loss")


@dataclass(frozen=True, eq=False)
class _Plan:
    """A schedule laid out on the examples of one task."""

    schedule: Schedule
    training: list[int]
    validation: list[int]
    batch_size: int
    epochs: int
    n_steps: int
    rate: float

    @classmethod
    def of(cls, task: Task, schedule: Schedule, split: Split | None) -> "_Plan":
        training, validation = map(list, split or schedule.split(task.size))
        batch_size = schedule.batch(max(len(training), 1))
        epochs, n_steps = schedule.length(math.ceil(len(training) / batch_size))
        rate = schedule.rate(epochs * n_steps)
        return cls(schedule, training, validation, batch_size, epochs, n_steps, rate)

    @property
    def n_batches(self) -> int:
        """How many steps a pass over the training examples has."""
        return math.ceil(len(self.training) / self.batch_size)

    @property
    def steps(self) -> int:
        return self.epochs * self.n_steps

    def batches(self, epoch: int) -> Iterator[tuple[list[int], float]]:
        """The examples of each step of an epoch, and the share of all steps before it."""
        for step in range((epoch - 1) * self.n_steps, epoch * self.n_steps):
            number, place = divmod(step, self.n_batches)
            order = self._order(number + 1)
            yield order[place * self.batch_size : (place + 1) * self.batch_size], step / self.steps

    def _order(self, number: int) -> list[int]:
        """The training examples in the order of their `number`-th pass."""
        drawn = random.Random(f"epoch {number} of {self.schedule.seed}")
        return drawn.sample(self.training, len(self.training))

    def rate_at(self, done: float) -> float:
        """The learning rate once this share of the steps is done."""
        return self.rate * (1 - done) if self.schedule.falling else self.rate


def _price(
    task: Task, cost: Cost | None, done: float, parameters: Parameters, examples: Sequence[int]
) -> Float[Tensor, ""]:
    """What is minimised."""
    return task.loss(parameters, examples) if cost is None else cost(parameters, examples, done)


def _step(
    price: Callable[[Parameters, Sequence[int]], Tensor],
    state: State,
    optimiser: torch.optim.AdamW,
    examples: Sequence[int],
    plan: "_Plan",
    done: float,
) -> float:
    """One update on some examples; their loss before it."""
    for group in optimiser.param_groups:
        group["lr"] = plan.rate_at(done) * group["multiplier"]
    loss = price(state.parameters, examples)
    _require_finite(loss, state.epoch + 1)
    optimiser.zero_grad()
    loss.backward(inputs=list(state.parameters.values()))  # a model's weights get no gradient
    if plan.schedule.clip is not None:
        torch.nn.utils.clip_grad_norm_(state.parameters.values(), plan.schedule.clip)
    optimiser.step()
    return loss.item()


def _changed(change: Callable[..., None] | None, *arguments: object) -> None:
    """Let a method change its parameters in place."""
    if change is not None:
        with torch.no_grad():
            change(*arguments)


def _judge(task: Task, plan: _Plan, state: State, loss: float) -> None:
    """Add the row of the epoch that has ended, and keep its parameters if they are the best."""
    epoch = state.epoch + 1
    validation_loss = _validation_loss(task, plan, state.parameters)
    state.rows.append(_row(epoch, epoch * plan.n_steps, plan.rate, loss, validation_loss))
    if state.best_epoch == epoch:
        state.best = _copied(state.parameters)


def _begun(task: Task, plan: _Plan) -> State:
    start = task.start(torch.Generator().manual_seed(plan.schedule.seed))
    parameters = {name: value.clone().requires_grad_() for name, value in start.items()}
    validation_loss = _validation_loss(task, plan, parameters)
    row = _row(0, 0, math.nan, math.nan, validation_loss)
    return State(parameters, {}, _copied(parameters), [row])


def _row(epoch: int, steps: int, rate: float, loss: float, validation_loss: float) -> Row:
    return {
        "epoch": epoch,
        "steps": steps,
        "rate": rate,
        "loss": loss,
        "validation_loss": validation_loss,
    }


def _copied(parameters: Parameters) -> Parameters:
    return {name: value.detach().clone() for name, value in parameters.items()}


def _stopped(state: State, schedule: Schedule) -> bool:
    return schedule.patience is not None and state.epoch - state.best_epoch >= schedule.patience


def _optimiser(state: State, plan: _Plan) -> torch.optim.AdamW:
    multipliers = plan.schedule.multipliers(plan.rate, state.parameters)
    groups = [
        {"params": [value], "multiplier": multipliers[name], "name": name}
        for name, value in state.parameters.items()
    ]
    optimiser = torch.optim.AdamW(groups, lr=0.0, weight_decay=plan.schedule.weight_decay)
    step = torch.tensor(float(state.epoch * plan.n_steps))
    for name, (first, second) in state.moments.items():
        moments = {"step": step.clone(), "exp_avg": first, "exp_avg_sq": second}
        optimiser.state[state.parameters[name]] = moments
    return optimiser


def _bar(plan: _Plan, state: State, progress: bool) -> Any:
    from tqdm.auto import tqdm

    done = state.epoch * plan.n_steps
    return tqdm(total=plan.steps, initial=done, desc="fit", disable=not progress)


def _warn_if_worse(state: State, *, judged_alike: bool) -> None:
    """Warn where a loss ended higher than it began.

    That of training counts only where every epoch is `judged_alike`, by the loss alone: a penalty
    that grows with the steps raises it by itself.
    """
    first, last = state.rows[min(1, state.epoch)], state.rows[-1]
    begun, ended = state.rows[0]["validation_loss"], last["validation_loss"]
    if state.epoch and state.best_epoch == 0:
        said = (
            f"No epoch had a lower validation loss than the start ({begun:.4g}; at the end "
            f"{ended:.4g}), so the start is what is kept: nothing was learnt"
        )
    elif ended > begun:
        kept = state.rows[state.best_epoch]
        said = (
            f"The validation loss ended higher than it began ({ended:.4g}; at the start "
            f"{begun:.4g}); kept is epoch {kept['epoch']}, where it was "
            f"{kept['validation_loss']:.4g}"
        )
    elif judged_alike and last["loss"] > first["loss"]:
        said = (
            f"The training loss ended higher ({last['loss']:.4g}) than it was in the first epoch "
            f"({first['loss']:.4g})"
        )
    else:
        return
    advice = "Lower learning_rate, give more pairs, or steer a later layer."
    warnings.warn(f"{said}. {advice}", SteeringWarning, stacklevel=4)


@torch.no_grad()
def _validation_loss(task: Task, plan: _Plan, parameters: Parameters) -> float:
    if not plan.validation:
        return math.nan
    total = 0.0
    size = plan.schedule.batch_size
    size = BATCH if size == "auto" else size or len(plan.validation)
    for start in range(0, len(plan.validation), size):
        examples = plan.validation[start : start + size]
        total += task.loss(parameters, examples).item() * len(examples)
    return total / len(plan.validation)


def _require_finite(loss: Tensor, epoch: int) -> None:
    if not bool(torch.isfinite(loss)):
        raise ValueError(
            f"The loss is {loss.item()} in epoch {epoch}. Lower the learning rate; if it is so "
            "from the first step on, the data holds NaN or infinity."
        )
