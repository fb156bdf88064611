"""The one training loop of the learned methods: schedule, validation, checkpoint, stop, resume.

A method says what its parameters are and what they cost on some examples (a `Task`); this file does
the rest. AdamW with a learning rate that falls linearly to zero; the validation loss before the
first step and after every epoch, of which the best parameters are kept; the same seed gives the
same parameters, in one go or resumed.

With a falling rate AdamW moves a parameter by at most about rate x steps / 2, its *reach*. The
15,000 steps at 1e-3 that the authors of PSR take reach 7.5, and 900 steps at that rate train hardly
at all. So where no rate is given it is the one with the same reach, within bounds:

    rate = clip(2 x 7.5 / steps, 1e-3, 1e-2)

A reach below 1, by a low rate or by few steps, is warned about.
"""

import hashlib
import json
import math
import os
import random
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol, TypeAlias, runtime_checkable

import torch
from jaxtyping import Float
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from steerlens.types import SteeringWarning

REACH = 7.5
SHORT_REACH = 1.0
RATES = (1e-3, 1e-2)
FORMAT = "steerlens training 1"

Parameters: TypeAlias = dict[str, Tensor]
Row: TypeAlias = "dict[str, float | int]"


@runtime_checkable
class Task(Protocol):
    """What is trained: how many examples there are, and what the parameters cost on some."""

    @property
    def size(self) -> int:
        """How many examples there are."""
        ...

    def start(self, generator: torch.Generator) -> Parameters:
        """Parameters before the first step, float32."""
        ...

    def loss(self, parameters: Parameters, examples: Sequence[int]) -> Float[Tensor, ""]:
        """Mean loss over these examples, to be differentiated."""
        ...


@dataclass(frozen=True)
class Schedule:
    """How long and how fast. `learning_rate=None` chooses it from the number of steps.

    `validation` is the share of examples that is held back; after `patience` epochs without a
    better validation loss training stops (None: never). The rate falls to zero unless `falling` is
    False; `clip` bounds the norm of the gradient.
    """

    epochs: int = 15
    batch_size: int = 8
    learning_rate: float | None = None
    weight_decay: float = 1e-6
    validation: float = 0.2
    patience: int | None = 5
    seed: int = 0
    falling: bool = True
    clip: float | None = None

    def __post_init__(self) -> None:
        if self.epochs < 1 or self.batch_size < 1:
            raise ValueError(
                "epochs and batch_size must be at least 1; found "
                f"{self.epochs} and {self.batch_size}."
            )
        if not 0 <= self.validation < 1:
            raise ValueError(
                "validation is the share of the examples held back, from 0 to below 1; found "
                f"{self.validation}."
            )
        if self.learning_rate is not None and not 0 < self.learning_rate < math.inf:
            raise ValueError(f"learning_rate must be above 0; found {self.learning_rate}.")
        if self.patience is not None and self.patience < 1:
            raise ValueError(f"patience must be at least 1, or None; found {self.patience}.")

    @classmethod
    def whole_batches(
        cls, training: int, validation: int, steps: int, rate: float, seed: int
    ) -> "Schedule":
        """`steps` updates, each on all training pairs, at one rate: CLAS and its baselines.

        One batch holds either side, so that both losses are means over tokens.
        """
        if training < 1:
            raise ValueError("No pairs were given to fit on. About ten are enough.")
        if validation < 1:
            raise ValueError("No validation pairs were given: they choose among the steps.")
        if isinstance(steps, bool) or not isinstance(steps, int) or steps < 1:
            raise ValueError(f"steps is a number of updates, 1 or more; found {steps}.")
        if not 0 < rate < math.inf:
            raise ValueError(f"rate, the learning rate, must be finite and above 0; found {rate}.")
        return cls(
            epochs=steps,
            batch_size=max(training, validation),
            learning_rate=rate,
            weight_decay=0.0,
            patience=None,
            seed=seed,
            falling=False,
            clip=1.0,
        )

    def split(self, size: int) -> tuple[list[int], list[int]]:
        """(training, validation) examples; ValueError if nothing is left to train on."""
        order = random.Random(f"split {self.seed}").sample(range(size), size)
        held = round(self.validation * size)
        held = max(held, 1) if self.validation and size > 1 else held
        if size - held < 1:
            raise ValueError(
                f"{size} examples leave none to train on when {self.validation:.0%} are held back "
                "for validation. Give more examples, or validation=0."
            )
        return sorted(order[held:]), sorted(order[:held])

    def rate(self, steps: int) -> float:
        """The first learning rate of a run of so many steps."""
        rate = self.learning_rate or min(max(2 * REACH / steps, RATES[0]), RATES[1])
        reach = rate * steps / 2
        if self.falling and reach < SHORT_REACH:
            warnings.warn(
                f"{steps} steps at a learning rate of {rate:g} can move a parameter by {reach:.2g} "
                f"at most, which may be too little. {self._advice(steps)}",
                SteeringWarning,
                stacklevel=3,
            )
        return rate

    def _advice(self, steps: int) -> str:
        """What lengthens the reach: more steps always, another rate if it would be enough."""
        enough = math.ceil(2 * SHORT_REACH / RATES[1])
        if self.learning_rate is None or steps < enough:
            return (
                f"Take more epochs, more examples or smaller batches: from {enough} steps on the "
                "rate that learning_rate=None chooses is enough."
            )
        return "Take more epochs or a higher rate, or leave learning_rate=None."


@dataclass(frozen=True, eq=False)
class Trained:
    """The best parameters, and how training went.

    There is a row for the start and one an epoch: epoch, steps, rate, loss, validation_loss.
    """

    parameters: Parameters
    rows: tuple[Row, ...]
    best_epoch: int
    stopped_early: bool

    @property
    def table(self) -> Any:
        """The rows as a pandas table."""
        import pandas as pd

        return pd.DataFrame(list(self.rows)).astype({"epoch": int, "steps": int})


@dataclass(eq=False)
class _State:
    """Everything that a checkpoint holds."""

    parameters: Parameters
    moments: dict[str, tuple[Tensor, Tensor]]
    best: Parameters
    rows: list[Row]

    @property
    def epoch(self) -> int:
        return int(self.rows[-1]["epoch"])

    @property
    def best_epoch(self) -> int:
        watched = "loss" if math.isnan(self.rows[0]["validation_loss"]) else "validation_loss"
        if watched == "loss":  # nothing held back to judge by: the last is the best
            return self.epoch
        return int(min(self.rows, key=lambda row: row[watched])["epoch"])


def train(
    task: Task,
    schedule: Schedule,
    *,
    multipliers: Mapping[str, float] | None = None,
    mend: Callable[[Parameters, int], None] | None = None,
    cost: "Cost | None" = None,
    project: Callable[[Parameters], None] | None = None,
    split: tuple[Sequence[int], Sequence[int]] | None = None,
    checkpoint: str | Path | None = None,
    progress: bool = False,
) -> Trained:
    """Train, or go on from `checkpoint` where it stopped.

    `multipliers` are of the learning rate, by parameter. `mend(parameters, epoch)` is called after
    each epoch but the last, once it is judged, and may change parameters in place.
    `cost(parameters, examples, progress)` is what is minimised where that is not the loss,
    `progress` the share of the steps done; validation is by the loss. `project(parameters)` is
    called after each step and may change them in place. `split` names the training and the
    validation examples; by default the schedule draws them. `checkpoint` is a file, written after
    each epoch.
    """
    from tqdm.auto import tqdm

    training, validation = map(list, split or schedule.split(task.size))
    batches = math.ceil(len(training) / schedule.batch_size)
    steps = schedule.epochs * batches
    rate = schedule.rate(steps)
    path = None if checkpoint is None else Path(checkpoint)
    state = _resumed(path, task, schedule) or _begun(task, schedule, validation)
    optimiser = _optimiser(state, schedule, multipliers or {}, state.epoch * batches)
    bar = tqdm(total=steps, initial=state.epoch * batches, desc="fit", disable=not progress)
    with bar:
        while state.epoch < schedule.epochs and not _stopped(state, schedule):
            epoch, losses = state.epoch + 1, []
            drawn = random.Random(f"epoch {epoch} of {schedule.seed}")
            order = drawn.sample(training, len(training))
            for number in range(batches):
                done = (epoch - 1) * batches + number
                now = rate * (1 - done / steps) if schedule.falling else rate
                some = order[number * schedule.batch_size : (number + 1) * schedule.batch_size]
                price = partial(_priced, task, cost, done / steps)
                losses.append(_step(price, state, optimiser, some, now, schedule.clip))
                if project is not None:
                    with torch.no_grad():
                        project(state.parameters)
                bar.update()
            held = _validation_loss(task, state.parameters, validation, schedule)
            mean = sum(losses) / len(losses)
            state.rows.append(_row(epoch, epoch * batches, rate, mean, held))
            bar.set_postfix(loss=f"{mean:.4g}", validation=f"{held:.4g}")
            if state.best_epoch == epoch:
                state.best = _copied(state.parameters)
            if mend is not None and epoch < schedule.epochs:
                with torch.no_grad():
                    mend(state.parameters, epoch)
            if path is not None:
                _write(path, state, optimiser, task, schedule)
    stopped_early = state.epoch < schedule.epochs
    return Trained(state.best, tuple(state.rows), state.best_epoch, stopped_early)


Cost: TypeAlias = Callable[[Parameters, Sequence[int], float], Tensor]


def _priced(
    task: Task, cost: Cost | None, progress: float, parameters: Parameters, some: Sequence[int]
) -> Float[Tensor, ""]:
    """What is minimised."""
    return task.loss(parameters, some) if cost is None else cost(parameters, some, progress)


def _step(
    cost: Callable[[Parameters, Sequence[int]], Tensor],
    state: _State,
    optimiser: torch.optim.AdamW,
    some: Sequence[int],
    rate: float,
    clip: float | None,
) -> float:
    """One update on some examples; their loss before it."""
    for group in optimiser.param_groups:
        group["lr"] = rate * group["multiplier"]
    loss = cost(state.parameters, some)
    _require_finite(loss, state.epoch + 1)
    optimiser.zero_grad()
    loss.backward(inputs=list(state.parameters.values()))  # a model's weights get no gradient
    if clip is not None:
        torch.nn.utils.clip_grad_norm_(state.parameters.values(), clip)
    optimiser.step()
    return loss.item()


def _begun(task: Task, schedule: Schedule, validation: Sequence[int]) -> _State:
    start = task.start(torch.Generator().manual_seed(schedule.seed))
    parameters = {name: value.clone().requires_grad_() for name, value in start.items()}
    held = _validation_loss(task, parameters, validation, schedule)
    return _State(parameters, {}, _copied(parameters), [_row(0, 0, math.nan, math.nan, held)])


def _row(epoch: int, steps: int, rate: float, loss: float, held: float) -> Row:
    return {
        "epoch": epoch, "steps": steps, "rate": rate, "loss": loss, "validation_loss": held
    }  # fmt: skip


def _copied(parameters: Parameters) -> Parameters:
    return {name: value.detach().clone() for name, value in parameters.items()}


def _stopped(state: _State, schedule: Schedule) -> bool:
    return schedule.patience is not None and state.epoch - state.best_epoch >= schedule.patience


def _optimiser(
    state: _State, schedule: Schedule, multipliers: Mapping[str, float], steps: int
) -> torch.optim.AdamW:
    unknown = set(multipliers) - set(state.parameters)
    if unknown:
        raise ValueError(
            f"There is no parameter called {', '.join(sorted(unknown))}. There are "
            f"{', '.join(state.parameters)}."
        )
    groups = [
        {"params": [value], "multiplier": multipliers.get(name, 1.0), "name": name}
        for name, value in state.parameters.items()
    ]
    optimiser = torch.optim.AdamW(groups, lr=0.0, weight_decay=schedule.weight_decay)
    for name, (first, second) in state.moments.items():
        optimiser.state[state.parameters[name]] = {
            "step": torch.tensor(float(steps)), "exp_avg": first, "exp_avg_sq": second
        }  # fmt: skip
    return optimiser


@torch.no_grad()
def _validation_loss(
    task: Task, parameters: Parameters, examples: Sequence[int], schedule: Schedule
) -> float:
    if not examples:
        return math.nan
    total = 0.0
    for start in range(0, len(examples), schedule.batch_size):
        some = examples[start : start + schedule.batch_size]
        total += task.loss(parameters, some).item() * len(some)
    return total / len(examples)


def _require_finite(loss: Tensor, epoch: int) -> None:
    if not bool(torch.isfinite(loss)):
        raise ValueError(
            f"The loss is {loss.item()} in epoch {epoch}. Lower the learning rate; if it is so "
            "from the first step on, the data holds NaN or infinity."
        )


# -- Checkpoints -----------------------------------------------------------------------------------


def _digest(task: Task, schedule: Schedule) -> str:
    about = {"schedule": asdict(schedule), "size": task.size, "task": repr(task)}
    return hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()


def _write(
    path: Path, state: _State, optimiser: torch.optim.AdamW, task: Task, schedule: Schedule
) -> None:
    tensors: dict[str, Tensor] = {}
    for name, value in state.parameters.items():
        moments = optimiser.state[value]
        tensors[f"now/{name}"] = value.detach().clone()
        tensors[f"best/{name}"] = state.best[name].clone()
        tensors[f"first/{name}"] = moments["exp_avg"].clone()
        tensors[f"second/{name}"] = moments["exp_avg_sq"].clone()
    about = {
        "format": FORMAT, "digest": _digest(task, schedule), "rows": json.dumps(state.rows)
    }  # fmt: skip
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(path.name + ".part")
    save_file(tensors, draft, about)
    os.replace(draft, path)


def _resumed(path: Path | None, task: Task, schedule: Schedule) -> _State | None:
    if path is None or not path.exists():
        return None
    parts: dict[str, Parameters] = {"now": {}, "best": {}, "first": {}, "second": {}}
    try:
        with safe_open(path, "pt") as file:
            about: dict[str, Any] = file.metadata() or {}
            for key in file.keys():  # noqa: SIM118  (it is no dictionary)
                part, _, name = key.partition("/")
                parts[part][name] = file.get_tensor(key)
        rows = json.loads(about["rows"])
    except (SafetensorError, KeyError, ValueError) as error:
        raise ValueError(
            f"{path} is no training checkpoint, or a damaged one ({error}). Delete it to begin "
            "anew."
        ) from error
    if about["format"] != FORMAT or about["digest"] != _digest(task, schedule):
        raise ValueError(
            f"{path} belongs to a training with other data, other options or another schedule. "
            "Name another file, or delete it to begin anew."
        )
    parameters = {name: value.requires_grad_() for name, value in parts["now"].items()}
    moments = {name: (parts["first"][name], parts["second"][name]) for name in parameters}
    return _State(parameters, moments, parts["best"], rows)
