"""Files of other tools, opened for their numbers alone: no pickle is run, nothing is trusted.

Which kind a file is its first bytes say, not its name. A `.pt` file is a pickle; torch's own reader
(`weights_only=True`) takes tensors, numbers, texts, lists and dictionaries of it, and refuses all
that would run code. What comes out is looked at before anything is computed with it.
"""

import re
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Shaped
from torch import Tensor

from steerlens.digests import read_safetensors
from steerlens.gguf_header import MAGIC
from steerlens.interchange.arrays import Arrays
from steerlens.interchange.control_vectors import ControlVectors, read_control_vectors
from steerlens.parsing import few, short
from steerlens.types import whole_number

LARGEST = 4 << 30
"""Bytes: a file of vectors is not larger. All concepts of AxBench are 0.2 GB."""
MOST = 100_000
"""Entries of a file, all dictionaries together."""
FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
PLAIN = (bool, int, float, str, type(None))
ZIP, PICKLE = b"PK\x03\x04", b"\x80"


@dataclass(frozen=True, eq=False)
class Content:
    """What a file or an object holds: a tensor, or values by name, of one level or two.

    `kind` is what it is written as; `about` are the values of a header beside the tensors.
    """

    kind: str
    source: str
    values: Any
    path: Path | None = None
    about: dict[str, Any] = field(default_factory=dict)
    gguf: ControlVectors | None = None

    @property
    def named(self) -> str:
        """What messages call it: a file by its path."""
        return self.source if self.path is None else str(self.path)

    @property
    def not_ours(self) -> str:
        """Of a safetensors file, that it is none that `steering.save` writes."""
        if self.kind != "safetensors":
            return ""
        return (
            " It is a safetensors file, but not a steering of ours: its metadata has no "
            "'steerlens' entry, as those have that steering.save(path) writes."
        )


def kind_of(path: Path) -> str:
    """What a file is by its first bytes: GGUF, .pt, .npz, safetensors, pickle, or "" for others."""
    with path.open("rb") as file:
        start = file.read(9)
    if start.startswith(MAGIC):
        return "GGUF"
    if start.startswith(ZIP):
        return ".npz" if _names_in(path, ".npy") else ".pt"
    # First, since the length of a header may begin with the byte that pickles begin with.
    if start[8:9] == b"{" and int.from_bytes(start[:8], "little") <= path.stat().st_size - 8:
        return "safetensors"
    return "pickle" if start.startswith(PICKLE) else ""


def _names_in(path: Path, ending: str) -> bool:
    try:
        with zipfile.ZipFile(path) as archive:
            return any(name.endswith(ending) for name in archive.namelist())
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
        return False


def opened(path: Path) -> Content:
    """What a file of another tool holds; ValueError where that is damaged, too large or code."""
    if path.is_dir():
        raise FileNotFoundError(
            f"There is no steering file {path}: it is a folder. steering.save(path) makes a file; "
            "of a folder with a sparse autoencoder give the feature: steerlens.sae_feature(path, "
            "index), on the command line steerlens import FOLDER --feature N."
        )
    if not path.is_file():
        raise FileNotFoundError(f"There is no steering file {path}. steering.save(path) makes one.")
    if path.stat().st_size > LARGEST:
        raise ValueError(
            f"{path} has {path.stat().st_size / 1e9:.1f} GB; files of vectors have {LARGEST >> 30} "
            "at most. Is it a model, or a sparse autoencoder (steerlens.sae_feature)?"
        )
    kind = kind_of(path)
    if kind == "GGUF":
        found = read_control_vectors(path)
        return Content(kind, path.name, found.vectors, path, found.fields, found)
    reading = {".pt": _of_torch, ".npz": _of_numpy, "safetensors": _of_safetensors}.get(kind)
    if reading is None:
        raise ValueError(_unknown(path, kind))
    return Content(kind, path.name, checked(reading(path), str(path)), path)


def _unknown(path: Path, kind: str) -> str:
    if kind == "pickle":
        return (
            f"{path} is no safetensors file: it is a pickle, which may run any code when it is "
            "opened. Pickle files (.pt, .pkl) are never opened, but for the tensors in what "
            f"torch.save wrote. {CONVERT}"
        )
    return (
        f"{path} is no file of a kind that is known: steerings of steerlens (safetensors), GGUF, "
        ".pt, .npz, and other safetensors. A small text file in its place is a pointer of Git LFS."
    )


CONVERT = (
    "Where you trust it, open it yourself with the package that wrote it, and "
    "give load_steering the object, or save its vectors alone: "
    'torch.save({f"blocks.{n}.hook_resid_post": torch.as_tensor(v) for n, v in vectors.items()}, '
    '"vectors.pt"), '
    "with n the block, from 0, whose output they are for."
)


# -- Kinds of files --------------------------------------------------------------------------------


def _of_torch(path: Path) -> Any:
    """What torch reads of a file without running anything."""
    _require_unpacked(path)
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises whatever it meets
        named = re.search(r"GLOBAL ([\w.]+)", str(error))
        if named:
            raise ValueError(
                f"{path} holds an object of the class {short(named[1], 80)}, and building one may "
                f"run any code. {CONVERT}"
            ) from error
        said = str(error).strip().partition("\n")[0]
        raise ValueError(
            f"{path} is damaged, or is no file of tensors ({type(error).__name__}: "
            f"{short(said, 120)}). Copy it again from where it was made."
        ) from error


def _require_unpacked(path: Path) -> None:
    """Raise ValueError where a `.pt` file is packed, as torch writes none: it could be a bomb."""
    try:
        with zipfile.ZipFile(path) as archive:
            packed = [one.filename for one in archive.infolist() if one.compress_type != 0]
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        raise ValueError(
            f"{path} is damaged or cut off ({error}). Copy it again from where it was made."
        ) from error
    if packed:
        raise ValueError(
            f"{path} is a compressed zip ({short(packed[0])} in it), which torch.save writes none "
            "of. Unpack it, or save it anew."
        )


def _of_numpy(path: Path) -> Any:
    arrays = Arrays.of(path)
    return {name: arrays.whole(name) for name in arrays.members}


def _of_safetensors(path: Path) -> Any:
    from safetensors import SafetensorError

    try:
        return read_safetensors(path)[1]
    except (SafetensorError, OSError, ValueError, RuntimeError) as error:
        raise ValueError(
            f"{path} is damaged or is no safetensors file ({error}). Copy it again from where it "
            "was made."
        ) from error


# -- What came out ---------------------------------------------------------------------------------


def checked(values: Any, source: str) -> Any:
    """A tensor, or a dictionary of tensors and plain values of two levels; else ValueError.

    Tensors come out as they are but detached; other things are named by their type.
    """
    left = [MOST]
    return _checked(values, source, 2, left)


def _checked(value: Any, source: str, depth: int, left: list[int]) -> Any:
    left[0] -= 1
    if left[0] < 0:
        raise ValueError(f"{source} holds more than {MOST} entries, which no file of vectors does.")
    if isinstance(value, np.ndarray | np.number):
        value = _of_array(np.asarray(value), source)
    if isinstance(value, Tensor):
        return _whole(value, source)
    if isinstance(value, PLAIN):
        return value
    if isinstance(value, Mapping) and depth:
        named = ((_name(key, inner, source), inner) for key, inner in value.items())
        return {
            name: _checked(inner, source, depth - 1, left)
            for name, inner in named
            if name is not None
        }
    return f"a {type(value).__name__}"


def _name(key: object, value: object, source: str) -> str | int | None:
    """What an entry is called; None for one to leave out, ValueError where that were a vector."""
    name = key if isinstance(key, str) else whole_number(key)
    if name is None and isinstance(value, Tensor | np.ndarray):
        raise ValueError(
            f"{source} has a vector under {short(key)}, which is neither a text nor a whole "
            "number. Name it by its block, as {3: vector}."
        )
    return name


def _of_array(array: Shaped[np.ndarray, "..."], source: str) -> Tensor:
    if array.dtype.kind not in "fiu":
        raise ValueError(f"{source} holds an array of the kind {array.dtype}, not of numbers.")
    return torch.tensor(array.astype(np.float64 if array.dtype.itemsize > 4 else np.float32))


def _whole(tensor: Tensor, source: str) -> Tensor:
    """The tensor without its history; ValueError where it is of no kind that a vector has."""
    tensor = tensor.detach()
    if tensor.layout != torch.strided or tensor.is_quantized or tensor.is_meta:
        raise ValueError(f"{source} holds a sparse or quantised tensor. Save it as a plain one.")
    if tensor.dtype not in FLOATS and not _counts(tensor):
        raise ValueError(
            f"{source} holds a tensor of the kind {tensor.dtype}; vectors are floating-point."
        )
    # Strides of 0 make a tensor of gigabytes out of one number.
    if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
        raise ValueError(f"{source} holds a tensor that is larger than the numbers in the file.")
    return tensor.cpu()


def _counts(tensor: Tensor) -> bool:
    return not tensor.is_complex() and tensor.dtype != torch.bool


def seen(values: Any) -> str:
    """What was found, for a message: shapes of tensors, names of entries."""
    if isinstance(values, Tensor):
        return f"a tensor of shape {list(values.shape)}"
    if not isinstance(values, Mapping):
        return f"{values}" if isinstance(values, str) and values[:2] == "a " else short(values)
    if not values:
        return "nothing"
    return few((f"{str(key)[:60]}: {_seen_in(value)}" for key, value in values.items()), 4)


def _seen_in(value: Any) -> str:
    if isinstance(value, Mapping):
        return f"entries {few(value)}"
    return f"{list(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
