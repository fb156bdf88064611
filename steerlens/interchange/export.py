"""Write a steering for another tool, by the target's name; each target has a module of its own."""

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from steerlens.interchange.difference import Difference
from steerlens.interchange.request import ExportError, Refused, Request
from steerlens.kinds import require_kinds
from steerlens.parsing import short
from steerlens.saving import Placing
from steerlens.types import HookedModel

if TYPE_CHECKING:
    from steerlens.prompts import Prompts

TARGETS: Mapping[str, tuple[str, str]] = {
    "gguf": ("steerlens.interchange.gguf_vector", "a GGUF control vector"),
    "checkpoint": ("steerlens.interchange.checkpoint", "a checkpoint with biases"),
    "peft": ("steerlens.interchange.adapter", "a PEFT adapter"),
    "lm-eval": ("steerlens.interchange.lm_eval_steered", "lm-evaluation-harness"),
    "vllm-lens": ("steerlens.interchange.vllm_lens", "vllm-lens"),
    "easysteer": ("steerlens.interchange.easysteer", "EasySteer"),
}
"""The module that writes each target, and what messages call the target.

The module has a function `write(request) -> list of paths`, and `FOLDER = True` where the path is
that of a folder."""

NEAREST = "steerlens.interchange.nearest"
"""Like the targets it knows what steerings are made of, which `Steering.export` does not."""


@dataclass(frozen=True)
class Exported:
    """What was written, and for an approximation how far it is from the steering."""

    target: str
    files: tuple[Path, ...]
    difference: Difference | None = None

    def __str__(self) -> str:
        said = f"; nearest constant: {self.difference}" if self.difference else ""
        return f"{', '.join(map(str, self.files))}{said}"


def export(
    steering: Placing,
    path: str | Path,
    *,
    to: str,
    model: HookedModel,
    approximate: bool = False,
    texts: "Prompts | None" = None,
    **options: Any,
) -> Exported:
    """Write `steering` for another tool: `to` is one of `TARGETS`.

    ExportError, a ValueError, where the target cannot express the steering. With
    `approximate=True` the nearest constant is written then, and its difference is measured on
    `texts`: prompts, or prompts with responses. `options` are the target's own.
    """
    require_kinds(export, locals())
    if texts is not None and not approximate:
        raise ValueError(
            "texts= are what approximate=True measures the nearest constant on. Give both of them, "
            "or leave the texts out."
        )
    if to not in TARGETS:
        raise ValueError(f"There is no target {short(to)}. There are {', '.join(TARGETS)}.")
    module, name = TARGETS[to]
    write = importlib.import_module(module).write
    try:
        return Exported(to, tuple(write(Request(steering, model, Path(path), name, options))))
    except ExportError as error:
        if not approximate or isinstance(error, Refused):
            raise
    if texts is None:
        raise ValueError(
            "approximate=True measures how far the nearest constant is from the steering: give "
            "texts=[...] (--texts) that it is to act on."
        )
    nearest, difference = importlib.import_module(NEAREST).nearest_constant(model, steering, texts)
    files = write(Request(nearest, model, Path(path), name, options))
    return Exported(to, tuple(files), difference)
