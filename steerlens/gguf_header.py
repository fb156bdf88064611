"""The header of a GGUF file, walked to its end before anything believes it.

The package gguf loops as often as a header claims, and a header may claim a billion entries. These
few lines stop at the end of the file.
"""

import mmap
import struct
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from steerlens.parsing import short

MAGIC = b"GGUF"
PLAIN = {0: ("B", 1), 1: ("b", 1), 2: ("H", 2), 3: ("h", 2), 4: ("I", 4), 5: ("i", 4), 6: ("f", 4)}
PLAIN |= {7: ("?", 1), 10: ("Q", 8), 11: ("q", 8), 12: ("d", 8)}
"""The values of a header by the number of their type: how they are unpacked, and their bytes."""
TEXT, LIST = 8, 9
VERSIONS = (2, 3)
DAMAGE = (struct.error, OSError, UnicodeDecodeError, OverflowError)
"""What a damaged file raises in a `Walk`."""


class Refused(ValueError):
    """What makes a file none that can be read; the message goes on after its name."""


def mapped(file: Any) -> mmap.mmap:
    """The bytes of an open file; OSError for an empty one."""
    try:
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except ValueError as error:  # it is empty
        raise OSError(str(error)) from error


@dataclass
class Walk:
    """A place in the file, which moves on; struct.error past the end."""

    content: mmap.mmap
    place: int = 0

    def take(self, form: str, size: int) -> Any:
        """The next value of a form that `struct` knows."""
        (value,) = struct.unpack_from(f"<{form}", self.content, self.place)
        self.place += size
        return value

    def skip(self, size: int) -> int:
        """Go on by so many bytes; where they began."""
        begun = self.place
        if size > len(self.content) - begun:
            raise struct.error(f"{size} bytes are claimed where {len(self.content) - begun} are")
        self.place += size
        return begun

    def text(self) -> str:
        """The next text."""
        n = self.take("Q", 8)
        begun = self.skip(n)
        return self.content[begun : begun + n].decode("utf-8")

    def value(self, kind: int) -> Any:
        """A value of the header; of a list only that it is one, as control vectors need none."""
        if kind == TEXT:
            return self.text()
        if kind in PLAIN:
            return self.take(*PLAIN[kind])
        if kind != LIST:
            raise Refused(f"is damaged: its header has a value of the unknown type {kind}.")
        inner, n = self.take("I", 4), self.take("Q", 8)
        if inner in PLAIN:
            self.skip(n * PLAIN[inner][1])
        elif inner == TEXT:
            for _ in range(n):  # each takes eight bytes at least, so the file ends it
                self.skip(self.take("Q", 8))
        else:
            raise Refused(f"is damaged: its header has a list of the type {inner}.")
        return f"a list of {n}"


@dataclass(frozen=True)
class Entry:
    """A tensor of the file: its name, lengths of its axes, type, and place among the numbers."""

    name: str
    shape: tuple[int, ...]
    kind: int
    offset: int


def entry_of(walk: Walk) -> Entry:
    """The next tensor of the list; Refused for one with more axes than any has."""
    name, n_axes = walk.text(), walk.take("I", 4)
    if n_axes > 4:
        raise Refused(f"is damaged: its tensor {short(name)} has {n_axes} axes.")
    shape = tuple(walk.take("Q", 8) for _ in range(n_axes))
    return Entry(name, shape, walk.take("I", 4), walk.take("Q", 8))


def begun(walk: Walk) -> tuple[int, int]:
    """How many tensors and values the file claims; Refused where it is none that is read."""
    if walk.content[:4] != MAGIC:
        raise Refused(f"is no GGUF file: it begins with {walk.content[:4]!r}.")
    walk.place = 4
    version = walk.take("I", 4)
    if version not in VERSIONS:
        raise Refused(f"is a GGUF file of version {version}; versions 2 and 3 are read.")
    return walk.take("Q", 8), walk.take("Q", 8)


def require_header(path: Path) -> None:
    """ValueError where the header of a GGUF file claims more than the file holds, or is none."""
    try:
        with path.open("rb") as file, closing(mapped(file)) as content:
            walk = Walk(content)
            n_tensors, n_values = begun(walk)
            for _ in range(n_values):
                walk.text()
                walk.value(walk.take("I", 4))
            for _ in range(n_tensors):
                entry_of(walk)
    except DAMAGE as error:
        raise ValueError(
            f"{path} is damaged or cut off, or newer than what is read here ({error}). Fetch it "
            "again."
        ) from error
    except Refused as error:
        raise ValueError(f"{path} {error}") from error
