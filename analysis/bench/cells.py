"""Results as small files: a frozen configuration, its digest for a name, written once and whole.

A file that is there is done. So any number of workers share a folder without a coordinator: each
takes a cell by a lock of the operating system, which a killed process gives back, and what was made
before stays. The lock is `flock`: on a file system of a network that has none, give every worker
cells of its own (`--shard`).
"""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from steerlens.digests import require_signed, signed
from steerlens.parsing import parse_json
from steerlens.whole import write_whole

from .shapes import require_result

FORMAT = 1


@dataclass(frozen=True, eq=False)
class Cell:
    """What is computed, as plain JSON: two cells with the same settings are the same cell."""

    kind: str
    settings: Mapping[str, Any]

    @cached_property
    def digest(self) -> str:
        """Of the kind and the settings, whatever their order."""
        return digest_of({"kind": self.kind, **self.settings})

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Cell) and self.digest == other.digest

    def __hash__(self) -> int:
        return hash(self.digest)

    def __getitem__(self, key: str) -> Any:
        return self.settings[key]

    def as_json(self) -> dict[str, Any]:
        """Kind and settings, as a cell that depends on this one names it."""
        return {"kind": self.kind, **self.settings}

    @classmethod
    def of_json(cls, given: Mapping[str, Any]) -> "Cell":
        """The cell that `as_json` wrote."""
        return cls(given["kind"], {key: given[key] for key in given if key != "kind"})

    @property
    def flat(self) -> dict[str, Any]:
        """The plain settings, and those of the cells that it is made of; an outer one wins."""
        return dict(_flat(self.settings))

    @property
    def directly_in(self) -> "Iterator[Cell]":
        """The cells that its settings name."""
        for value in self.settings.values():
            if isinstance(value, dict) and "kind" in value:
                yield Cell.of_json(value)

    @property
    def inner(self) -> "Iterator[Cell]":
        """The cells that it names, at any depth."""
        for one in self.directly_in:
            yield one
            yield from one.inner

    def __str__(self) -> str:
        named = ("task", "method", "seed", "split", "strength", "configuration")
        flat = self.flat
        return " ".join([self.kind, *(str(flat[key]) for key in named if key in flat)])


def _flat(settings: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """The settings of a cell and of those it is made of; an outer one comes last, and wins."""
    for value in settings.values():
        if isinstance(value, Mapping):
            yield from _flat(value)
    yield from ((k, v) for k, v in settings.items() if not isinstance(v, Mapping | list))


def digest_of(value: Any) -> str:
    """A name for any JSON value; equal values have equal names."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:24]


class Busy(Exception):
    """Another worker makes this cell now."""


@dataclass(frozen=True, eq=False)
class Cells:
    """The results of a folder: those that are there are done."""

    folder: Path
    known: dict[str, dict[str, Any]] = field(default_factory=dict, repr=False)
    codes: dict[str, str | None] = field(default_factory=dict, repr=False)
    """By what code those that are known were made; None for cells of a time that kept none."""

    def path(self, cell: Cell) -> Path:
        """Where the result of a cell is, or will be."""
        return self.file(cell.digest)

    def file(self, digest: str) -> Path:
        """The same, of the cell with this digest."""
        return self.folder / "cells" / f"{digest}.json"

    def there(self, cell: Cell) -> bool:
        """Whether the cell is done."""
        return cell.digest in self.known or self.path(cell).exists()

    def read(self, cell: Cell) -> dict[str, Any] | None:
        """The result of a cell, None where it is not done; ValueError for a damaged file."""
        if cell.digest not in self.known:
            path = self.path(cell)
            if not path.exists():
                return None
            whole = read_whole(path)
            self.known[cell.digest] = whole["result"]
            self.codes[cell.digest] = whole["provenance"].get("code")
        return self.known[cell.digest]

    def code_of(self, cell: Cell) -> str | None:
        """The digest of the code that made a cell; None where that is not known."""
        self.read(cell)
        return self.codes.get(cell.digest)

    def make(
        self,
        cell: Cell,
        compute: Callable[[Cell], dict[str, Any]],
        provenance: Callable[[], Mapping[str, Any]],
    ) -> dict[str, Any]:
        """The result, made now unless it is there; Busy where another worker is at it."""
        found = self.read(cell)
        if found is None:
            with self._claimed(cell):
                found = self.read(cell)  # made while the lock was waited for
                if found is None:
                    found = compute(cell)
                    self.write(cell, found, provenance())
        return found

    @contextmanager
    def _claimed(self, cell: Cell) -> Iterator[None]:
        locks = self.folder / "locks"
        locks.mkdir(parents=True, exist_ok=True)
        lock = FileLock(locks / f"{cell.digest}.lock", timeout=0)
        try:
            lock.acquire()
        except Timeout as error:
            raise Busy(str(cell)) from error
        try:
            yield
        finally:
            lock.release()

    def write(self, cell: Cell, result: Mapping[str, Any], provenance: Mapping[str, Any]) -> None:
        """The file of a cell, whole."""
        path = self.path(cell)
        path.parent.mkdir(parents=True, exist_ok=True)
        whole = {
            "format": FORMAT,
            "cell": cell.as_json(),
            "result": result,
            "provenance": provenance,
        }
        plain = json.loads(json.dumps(whole))  # as it will be read: tuples are lists
        write_whole(path, json.dumps(signed(plain), ensure_ascii=False).encode())


def read_whole(path: Path) -> dict[str, Any]:
    """The cell of a file, with its result and provenance; ValueError for a damaged file."""
    fields = {"format", "cell", "result", "provenance"}
    try:
        content = parse_json(path.read_text(encoding="utf-8"))
        whole = require_signed(content, fields, unsigned=True)
        if whole["format"] != FORMAT:
            raise ValueError(f"format {whole['format']}, where {FORMAT} is read")
        if Cell.of_json(whole["cell"]).digest != path.stem:
            raise ValueError("it holds another cell than its name says")
        require_result(whole["cell"]["kind"], whole["result"])
        return whole
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{path} is no cell of this version ({error}). Remove the file: the next run makes it "
            "anew."
        ) from error
