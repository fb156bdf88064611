"""A training in a file: written after each epoch, and gone on from where it was cut off."""

import hashlib
import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeAlias

import torch
from safetensors import SafetensorError
from torch import Tensor

from steerlens.digests import digest_over, read_safetensors, write_safetensors
from steerlens.parsing import parse_json
from steerlens.training.schedule import Schedule

FORMAT = "steerlens training 2"
EARLIER = ("steerlens training 1",)
COLUMNS = {"epoch", "steps", "rate", "loss", "validation_loss"}

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
    about["content"] = digest_over(about, tensors)
    write_safetensors(path, tensors, about)


def read(path: Path, digest: str) -> State:
    """The state in a checkpoint; ValueError if it is damaged, or belongs to something else."""
    about, parts = _parts(path)
    if about["digest"] != digest:
        raise ValueError(
            f"{path} belongs to a training with other data, other options or another schedule. "
            "Name another file, or delete it to begin anew."
        )
    parameters = {name: value.requires_grad_() for name, value in parts["now"].items()}
    moments = {name: (parts["first"][name], parts["second"][name]) for name in parameters}
    return State(parameters, moments, parts["best"], parse_json(about["rows"]))


def require_checkpoint(path: Path) -> None:
    """Raise ValueError unless the file is a whole checkpoint, of whatever training."""
    _parts(path)


def _parts(path: Path) -> tuple[dict[str, str], dict[str, Parameters]]:
    """The metadata and the tensors of a checkpoint, as they were written; ValueError if not."""
    parts: dict[str, Parameters] = {"now": {}, "best": {}, "first": {}, "second": {}}
    try:
        about, tensors = read_safetensors(path)
        if about.get("format") in EARLIER:
            raise ValueError(f"it is of an earlier version, {about['format']!r}")
        if set(about) != {"format", "digest", "rows", "content"} or about["format"] != FORMAT:
            raise ValueError("its metadata is another's")
        signed = {name: value for name, value in about.items() if name != "content"}
        if about["content"] != digest_over(signed, tensors):
            raise ValueError("it was changed after it was written")
        for key, value in tensors.items():
            part, _, name = key.partition("/")
            parts[part][name] = value
        _require_whole(parts, parse_json(about["rows"]))
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{path} is no training checkpoint, or a damaged one ({error}). Delete it to begin "
            "anew."
        ) from error
    return about, parts


def _require_whole(parts: dict[str, Parameters], rows: Any) -> None:
    """Raise ValueError unless every parameter has its best value and its moments, and rows do."""
    shapes = [{name: value.shape for name, value in part.items()} for part in parts.values()]
    if not shapes[0] or any(part != shapes[0] for part in shapes):
        raise ValueError("its parts are not of the same parameters")
    numbers = [row["epoch"] for row in rows]
    if numbers != list(range(len(numbers))) or any(set(row) != COLUMNS for row in rows):
        raise ValueError("its rows are no epochs")
