"""`read_pairs`: which file it is, by its fields, and what it holds."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from steerlens.kinds import require_kinds
from steerlens.pairs.formats import ASKED, FORMATS, Format
from steerlens.pairs.records import Pairs
from steerlens.pairs.table import Table, shown
from steerlens.pairs.tables import read_table
from steerlens.parsing import STANDARD_INPUT, few

OURS = ("contrasts", "pairs with an instruction", "shares of options")
"""Formats whose JSON Lines the readers of `steerlens.jsonl` read."""
OTHERS = (".csv", ".tsv", ".tab", ".json", ".parquet")


def read_pairs(
    path: str | Path,
    *,
    columns: Sequence[str | int] | None = None,
    split: str | None = None,
) -> Pairs:
    """What a data file holds: contrasts, pairs, choices, questions, told by its fields.

    JSON Lines, JSON, CSV, TSV, Parquet, or a folder that `save_to_disk` wrote, of the formats that
    docs/interchange.md lists; `-` is standard input. `columns` names the positive and the negative
    column of a table with other names, or gives their numbers (from 0) where a CSV has no header.
    `split` is that of a saved data set with several.

    ValueError names the line where a record is not what its format says, and for an unknown file
    what was seen and what is known. OSError where there is no such file.
    """
    require_kinds(read_pairs, locals())
    path = Path(path)
    if columns is not None:
        _require_two(columns)
    table = read_table(path, columns=columns, split=split)
    if columns is not None:
        table = _renamed(table, columns)
    return _read(table, format_of(table))


def format_of(table: Table) -> Format:
    """The format that the fields of a table tell; ValueError for an unknown one."""
    found = next((one for one in FORMATS if one.tells(table)), None)
    if found is None:
        known = "; ".join(f"{one.name} ({one.told_by})" for one in FORMATS)
        raise ValueError(
            f"{table.path} is not known: {shown(table)}. Name two columns, columns=(positive, "
            f"negative), or write one of: {known}."
        )
    return found


def foreign(path: Path) -> bool:
    """Whether a file is read by `read_pairs`, and not as the JSON Lines that are our own.

    A file of JSON Lines that is unknown or damaged counts as our own, whose readers say what is
    wrong with it.
    """
    if path != STANDARD_INPUT and not path.exists():
        return False
    try:
        table = read_table(path)
    except ValueError:
        return path != STANDARD_INPUT and (path.is_dir() or path.suffix.lower() in OTHERS)
    lines = table.container == "JSON Lines" or table.whole is not None
    if not lines:
        return True
    return any(one.tells(table) for one in FORMATS if one.name not in OURS)


def _read(table: Table, told: Format) -> Pairs:
    records, notes, about = told.parse(table)
    numbered = [
        one if one.number else replace(one, number=place)
        for place, one in enumerate(records, start=1)
    ]
    whole = table.whole is not None and len(records) > 1
    unit = "record" if whole else table.unit
    return Pairs(told.kind, told.name, table.path, unit, tuple(numbered), notes, about)


def _require_two(columns: Sequence[str | int]) -> None:
    kinds = {type(one) for one in columns}
    two = len(columns) == len(set(columns)) == 2
    if isinstance(columns, str) or not two or kinds not in ({str}, {int}):
        raise ValueError(
            "columns are two different names, or two numbers from 0, the positive first; "
            f"found {columns!r}."
        )


def _renamed(table: Table, columns: Sequence[str | int]) -> Table:
    """The two columns alone, as positive and negative, and what is asked before them."""
    names = [str(one) for one in columns]
    absent = [name for name in names if name not in table.fields]
    if absent:
        raise ValueError(
            f"{table.path} has no column {few(absent)}. It has {few(table.fields, 12)}."
        )
    given = dict(zip(names, ("positive", "negative"), strict=True))
    kept = {*names, *ASKED}
    rows = [
        {given.get(name, name): value for name, value in row.items() if name in kept}
        for row in table.rows
    ]
    return replace(table, rows=tuple(rows), whole=None)
