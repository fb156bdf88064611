"""Whether the sizes that a model folder names can be those of the weights in it.

transformers builds a model from config.json before it looks at the weights: a configuration of a
million layers fills the machine. The header of a .safetensors file is read for this, no tensor.
"""

import math
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from steerlens.parsing import short

LAYERS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers", "num_decoder_layers")
WIDTHS = ("hidden_size", "n_embd", "d_model", "dim", "word_embed_proj_dim")
ROWS = ("vocab_size", "intermediate_size", "ffn_dim", "n_inner", "num_attention_heads", "n_head")
POSITIONS = ("max_position_embeddings", "n_positions", "n_ctx", "max_sequence_length")
MOST_POSITIONS = 10**8
PACKED = 8
"""Quantised weights hold up to so many numbers in one."""


def require_regular(folder: Path) -> None:
    """Raise ValueError where something in a model folder is neither file nor folder.

    Opening a pipe waits until somebody writes into it, which may be never.
    """
    for path in folder.iterdir():
        try:
            mode = path.stat().st_mode
        except OSError:
            continue  # a link to nothing is as good as no file
        if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
            raise ValueError(
                f"{path} is no regular file, and reading it may wait for ever. Take it out of the "
                "model folder."
            )


def require_sizes(folder: Path, config: dict[str, Any]) -> None:
    """Raise ValueError where config.json names sizes that the weights beside it cannot have."""
    names, elements = _weights(folder)
    room = PACKED * elements
    for part in _parts(config):
        widths = [size for _, size in _sizes(part, WIDTHS)]
        width = max(widths, default=1)
        for name, size in _sizes(part, LAYERS):
            _require(size <= names, folder, name, size, f"{names} tensors")
        for name, size in _sizes(part, WIDTHS):
            _require(size <= room, folder, name, size, f"{elements} numbers")
        for name, size in _sizes(part, ROWS):
            each = 1 if "head" in name else width
            _require(size * each <= room, folder, name, size, f"{elements} numbers")
        for name, size in _sizes(part, POSITIONS):
            _require(size <= MOST_POSITIONS, folder, name, size, "no room for so many positions")


def _parts(config: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The configuration, and those of its parts, as of the text model of one that sees."""
    yield config
    yield from (part for part in config.values() if isinstance(part, dict))


def _sizes(config: dict[str, Any], names: tuple[str, ...]) -> Iterator[tuple[str, int | float]]:
    for name in names:
        size = config.get(name)
        if isinstance(size, int | float) and not isinstance(size, bool):
            yield name, size if isinstance(size, int) or not math.isfinite(size) else int(size)


def _weights(folder: Path) -> tuple[int, int]:
    """How many tensors the folder's .safetensors files hold, and how many numbers in all."""
    from safetensors import SafetensorError, safe_open

    names = elements = 0
    for path in sorted(folder.glob("*.safetensors")):
        try:
            with safe_open(path, "pt") as file:
                shapes = [file.get_slice(name).get_shape() for name in file.keys()]  # noqa: SIM118
        except SafetensorError as error:
            raise ValueError(f"{path} is damaged ({error}). Fetch it again.") from error
        names += len(shapes)
        elements += sum(map(math.prod, shapes))
    return names, elements


def _require(holds: bool, folder: Path, name: str, size: int | float, found: str) -> None:
    if not holds:
        raise ValueError(
            f"{folder / 'config.json'} says {name} = {short(size)}, and the weights beside it have "
            f"{found}: it is not the configuration of these weights. Fetch both again, from one "
            "place."
        )
