"""A data file as records of named fields, each with the line or row that it came from."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from steerlens.parsing import STANDARD_INPUT, few, short

MOST_BYTES = 2**29
"""The largest file or folder that is read, also as it is when unpacked."""


@dataclass(frozen=True)
class Table:
    """Records of one file. `whole` is the object of a JSON file that holds one and no list."""

    path: str
    container: str
    unit: str
    rows: tuple[dict[str, Any], ...]
    numbers: tuple[int, ...]
    whole: dict[str, Any] | None = field(default=None, repr=False)

    @property
    def fields(self) -> tuple[str, ...]:
        """The names of the first record's fields."""
        return tuple(self.rows[0]) if self.rows else ()

    def where(self, number: int) -> str:
        """A record by its place in the file."""
        return f"{self.path}, {self.unit} {self.numbers[number]}"


def name_of(path: Path) -> str:
    """A file as messages call it."""
    return "standard input" if path == STANDARD_INPUT else str(path)


def require_size(size: int, name: str) -> None:
    """Raise ValueError for what is too large to be held in memory some times over."""
    if size > MOST_BYTES:
        raise ValueError(
            f"{name} has {size:,} bytes, and at most {MOST_BYTES:,} are read. Give a part of it."
        )


def shown(table: Table) -> str:
    """What was seen of a file, for a message."""
    sample = {name: table.rows[0][name] for name in table.fields[:3]} if table.rows else {}
    text = json.dumps(sample, ensure_ascii=False, default=str)
    return (
        f"{table.container} with {len(table.rows)} record{'s' * (len(table.rows) != 1)} of the "
        f"fields {few(table.fields, 8) or 'none'} (the first: {short(text, 120)})"
    )
