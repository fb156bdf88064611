"""A training in a file: written after each epoch, and gone on from where it was cut off."""

import hashlib
import json
import math
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeAlias

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from steerlens.training.schedule import Schedule

FORMAT = "steerlens training 1"

Parameters: TypeAlias = dict[str, Tensor]
Row: TypeAlias = "dict[str, float | int]"


@dataclass(eq=False)
class State:
    """Where a training is: parameters, AdamW's two moments of each, the best so far, the table."""

    parameters: Parameters
    moments: dict[str, tuple[Tensor, Tensor]]
    best: Parameters
    rows: list[Row]

    @property
    def epoch(self) -> int:
        """How many epochs are done."""
        return int(self.rows[-1]["epoch"])

    @property
    def best_epoch(self) -> int:
        """The epoch with the lowest validation loss; the last one where nothing is held back."""
        if math.isnan(self.rows[0]["validation_loss"]):
            return self.epoch
        return int(min(self.rows, key=lambda row: row["validation_loss"])["epoch"])


def digest_of(schedule: Schedule, size: int, task: str) -> str:
    """What a checkpoint belongs to: another schedule, or another task, has another digest."""
    # What was not there in earlier versions does not count where it is not given.
    given = {k: v for k, v in asdict(schedule).items() if (k, v) != ("steps", None)}
    about = {"schedule": given, "size": size, "task": task}
    return hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()


def write(path: Path, state: State, optimiser: torch.optim.AdamW, digest: str) -> None:
    """Write to `path`, wholly or not at all."""
    tensors: dict[str, Tensor] = {}
    for name, value in state.parameters.items():
        moments = optimiser.state[value]
        tensors[f"now/{name}"] = value.detach().clone()
        tensors[f"best/{name}"] = state.best[name].clone()
        tensors[f"first/{name}"] = moments["exp_avg"].clone()
        tensors[f"second/{name}"] = moments["exp_avg_sq"].clone()
    about = {"format": FORMAT, "digest": digest, "rows": json.dumps(state.rows)}
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(path.name + ".part")
    save_file(tensors, draft, about)
    os.replace(draft, path)


def read(path: Path, digest: str) -> State:
    """The state in a checkpoint; ValueError if it is damaged, or belongs to something else."""
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
    if about["format"] != FORMAT or about["digest"] != digest:
        raise ValueError(
            f"{path} belongs to a training with other data, other options or another schedule. "
            "Name another file, or delete it to begin anew."
        )
    parameters = {name: value.requires_grad_() for name, value in parts["now"].items()}
    moments = {name: (parts["first"][name], parts["second"][name]) for name in parameters}
    return State(parameters, moments, parts["best"], rows)
