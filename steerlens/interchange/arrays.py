"""NumPy's `.npz` files, read a row at a time: of a matrix of gigabytes only what is asked for.

An array is a member of a zip. What `numpy.savez` writes lies there as it is, so that a row or a
column is read where it stands; of a compressed member the bytes before it are unpacked and let go.
Sizes are checked against the file before anything is read, and objects are refused.
"""

import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from steerlens.parsing import few, short

MOST_HEADER = 10_000
"""Characters of an array's header: its shape and type take some hundred."""
PACKED = 100
"""So many times smaller a compressed member may be; weights hardly shrink at all."""
AT_ONCE = 1 << 22
"""Bytes that are unpacked at a time."""
LOCAL_HEADER = 30
"""Bytes before the name of a member of a zip."""
DAMAGED = (
    OSError,
    ValueError,
    EOFError,
    KeyError,
    struct.error,
    zlib.error,
    zipfile.BadZipFile,
    RuntimeError,  # encrypted; NotImplementedError is one: packed in another way
    OverflowError,
)
"""What zipfile and NumPy raise where a file is damaged."""


@dataclass(frozen=True)
class Member:
    """An array of the file: its shape and type, and where its numbers begin inside the member.

    `stands` is where they begin in the file itself, if they lie there unpacked.
    """

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    by_columns: bool
    begins: int
    stands: int | None

    @property
    def n_bytes(self) -> int:
        """The bytes of its numbers."""
        return prod(self.shape) * self.dtype.itemsize


@dataclass(frozen=True, eq=False)
class Arrays:
    """The arrays of a `.npz` file, of which none is read yet."""

    path: Path
    members: dict[str, Member]

    @classmethod
    def of(cls, path: Path) -> "Arrays":
        """The arrays of a file; ValueError where it is damaged or holds something else."""
        with _damage(path), zipfile.ZipFile(path) as archive:
            return cls(path, {one.name: one for one in _members(archive, path)})

    def named(self, name: str) -> Member:
        """The array of this name, in small or capital letters; ValueError where there is none."""
        for key, member in self.members.items():
            if key.lower() == name.lower():
                return member
        raise ValueError(f"{self.path} has no array {name!r}; it has {few(self.members)}.")

    def has(self, name: str) -> bool:
        """Whether there is an array of this name, in small or capital letters."""
        return name.lower() in {key.lower() for key in self.members}

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of an array."""
        return self.named(name).shape

    def whole(self, name: str) -> Float[Tensor, "..."]:
        """All numbers of an array."""
        member = self.named(name)
        numbers = _tensor(self._flat(member, 0, prod(member.shape)))
        if member.by_columns:
            return numbers.reshape(member.shape[::-1]).permute(*range(len(member.shape))[::-1])
        return numbers.reshape(member.shape)

    def line(self, name: str, index: int, axis: int = 0) -> Float[Tensor, " n"]:
        """Row `index` of a matrix, or with axis=1 its column."""
        member = self.named(name)
        if len(member.shape) != 2 or not 0 <= index < member.shape[axis]:
            raise ValueError(
                f"{self.path} has {name!r} of shape {member.shape}, which has no "
                f"{('row', 'column')[axis]} {index}."
            )
        n_rows, n_columns = member.shape
        if (axis == 0) != member.by_columns:
            width = n_columns if axis == 0 else n_rows
            return _tensor(self._flat(member, index * width, width))
        step, n = (n_rows, n_columns) if member.by_columns else (n_columns, n_rows)
        return _tensor(self._strided(member, index, step, n))

    def _flat(self, member: Member, first: int, n: int) -> Float[np.ndarray, " n"]:
        """`n` numbers of the member in the order in which they lie."""
        size = member.dtype.itemsize
        with self._numbers(member) as file:
            file.seek((member.begins if member.stands is None else member.stands) + first * size)
            content = file.read(n * size)
        if len(content) != n * size:
            raise Damaged(f"{self.path} is damaged, or cut off, in {member.name!r}.")
        return np.frombuffer(content, member.dtype)

    def _strided(self, member: Member, first: int, step: int, n: int) -> Float[np.ndarray, " n"]:
        """`n` numbers, every `step`th from the `first` on."""
        found = np.empty(n, member.dtype)
        block = max(1, AT_ONCE // (step * member.dtype.itemsize))
        for start in range(0, n, block):
            rows = min(block, n - start)
            found[start : start + rows] = self._flat(member, start * step, rows * step)[first::step]
        return found

    @contextmanager
    def _numbers(self, member: Member) -> Iterator[IO[bytes]]:
        with _damage(self.path):
            if member.stands is not None:
                with self.path.open("rb") as file:
                    yield file
                return
            with zipfile.ZipFile(self.path) as archive, archive.open(f"{member.name}.npy") as file:
                yield file


def _members(archive: zipfile.ZipFile, path: Path) -> Iterator[Member]:
    for entry in archive.infolist():
        if not entry.filename.endswith(".npy"):
            raise ValueError(f"it holds {short(entry.filename)}, which is no array")
        if entry.file_size > PACKED * entry.compress_size + AT_ONCE:
            raise ValueError(f"{short(entry.filename)} unpacks to {entry.file_size} bytes")
        with archive.open(entry) as file:
            shape, by_columns, dtype = _header(file)
            stands = _stands(entry, path, file.tell())
            member = Member(entry.filename[:-4], shape, dtype, by_columns, file.tell(), stands)
        if dtype.kind != "f" or dtype.itemsize > 8:  # longdouble, which torch does not have
            raise ValueError(
                f"{short(member.name)} holds numbers of the kind {dtype}, "
                "not floats of 2 to 8 bytes"
            )
        if member.begins + member.n_bytes != entry.file_size:
            raise ValueError(f"{short(member.name)} is not as long as its shape {shape} says")
        yield member


def _stands(entry: zipfile.ZipInfo, path: Path, begins: int) -> int | None:
    """Where in the file the numbers of a member begin; None for one that is compressed."""
    if entry.compress_type != zipfile.ZIP_STORED:
        return None
    with path.open("rb") as file:
        file.seek(entry.header_offset + LOCAL_HEADER - 4)
        lengths = struct.unpack("<2H", file.read(4))  # of the name, and of what follows it
    return entry.header_offset + LOCAL_HEADER + sum(lengths) + begins


def _header(file: Any) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    version = np.lib.format.read_magic(file)
    read = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }.get(version)
    if read is None:
        raise ValueError(f"an array has the format {version}")
    try:
        return read(file, max_header_size=MOST_HEADER)
    except Exception as error:  # NumPy raises whatever it meets in a damaged one
        said = f"{type(error).__name__}: {error}".partition("\n")[0]
        raise ValueError(f"the header of an array cannot be read, {said}") from error


def _tensor(numbers: Float[np.ndarray, " n"]) -> Float[Tensor, " n"]:
    return torch.from_numpy(numbers.astype(numbers.dtype.newbyteorder("="), copy=True))


@contextmanager
def _damage(path: Path) -> Iterator[None]:
    try:
        yield
    except Damaged:
        raise
    except DAMAGED as error:
        said = f"{error}".rstrip(".")
        raise Damaged(f"{path} is damaged, or is no file of arrays ({said}).") from error


class Damaged(ValueError):
    """A file that is not as it was written, or holds something else; the message names it."""
