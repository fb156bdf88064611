"""JSON Lines, JSON, CSV and TSV as tables; what is wrong in them is told with its line."""

import csv
import io
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from steerlens.pairs.table import Table, name_of
from steerlens.parsing import each_once, few, parse_json, require_whole_characters, short

LINES = (".jsonl", ".ndjson")


def table_of_text(path: Path, text: str, columns: Sequence[str | int] | None) -> Table:
    """The table of a file of text: JSON where it begins as that, else CSV or TSV."""
    begins = text.lstrip()[0]
    if begins in "[{":
        return _of_json(path, text, lines=begins == "{")
    return _of_csv(path, text, columns)


# -- JSON ------------------------------------------------------------------------------------------


def _of_json(path: Path, text: str, *, lines: bool) -> Table:
    listed = [(n, line) for n, line in enumerate(re.split(r"\r?\n", text), 1) if line.strip()]
    if lines and (path.suffix.lower() in LINES or (len(listed) > 1 and _is_object(listed[0][1]))):
        rows = [_parsed(line, f"{name_of(path)}, line {n}") for n, line in listed]
        return _table(path, "JSON Lines", "line", rows, [n for n, _ in listed])
    whole = _parsed(text, name_of(path))
    if isinstance(whole, dict):
        return Table(name_of(path), "JSON", "line", (whole,), (listed[0][0],), whole)
    if not isinstance(whole, list) or not whole:
        raise ValueError(
            f"{name_of(path)} is JSON, but no list of records: {short(whole)}. It should be a list "
            "of objects, or one object a line."
        )
    return _table(path, "JSON", "record", whole, range(1, len(whole) + 1))


def _is_object(line: str) -> bool:
    """Whether a line is an object by itself; a broken one of JSON Lines ends with its brace."""
    try:
        return isinstance(parse_json(line), dict)
    except ValueError:
        return line.strip().endswith("}") and ":" in line


def _parsed(text: str, where: str) -> Any:
    try:
        value = parse_json(text, each_once)
        require_whole_characters(value, text)
    except ValueError as error:
        raise ValueError(f"{where}: this is no JSON that can be read ({error}).") from error
    return value


def _table(
    path: Path, container: str, unit: str, rows: Sequence[Any], numbers: Sequence[int]
) -> Table:
    for row, number in zip(rows, numbers, strict=True):
        if not isinstance(row, dict):
            raise ValueError(
                f"{name_of(path)}, {unit} {number}: a {type(row).__name__}, not an object with "
                "named fields."
            )
    return Table(name_of(path), container, unit, tuple(rows), tuple(numbers))


# -- CSV and TSV -----------------------------------------------------------------------------------


def _of_csv(path: Path, text: str, columns: Sequence[str | int] | None) -> Table:
    first = text.lstrip("\r\n").splitlines()[0]
    counts = {mark: first.count(mark) for mark in (",", "\t", ";")}
    delimiter = max(counts, key=lambda mark: counts[mark])
    if path.suffix.lower() in (".tsv", ".tab"):
        delimiter = "\t"
    cells = list(_cells(path, text, delimiter))
    container = {"\t": "TSV", ",": "CSV", ";": "CSV with semicolons"}[delimiter]
    bare = columns is not None and all(isinstance(one, int) for one in columns)
    header = [str(n) for n in range(len(cells[0][1]))] if bare else _header(path, cells.pop(0))
    rows, numbers = [], []
    for number, row in cells:
        if len(row) != len(header):
            raise ValueError(
                f"{name_of(path)}, line {number}: {len(row)} cells, where the first line has "
                f"{len(header)} ({few(header)}). Put a cell that holds {delimiter!r} or a line "
                'break between double quotes, and write a quote in it as "".'
            )
        rows.append(dict(zip(header, row, strict=True)))
        numbers.append(number)
    if not rows:
        raise ValueError(f"{name_of(path)} has a header and no rows: {few(header)}.")
    return Table(name_of(path), container, "line", tuple(rows), tuple(numbers))


def _cells(path: Path, text: str, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """Every row that is not blank, with the line that it begins on."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    begins = 1
    try:
        for row in reader:
            if any(cell.strip() for cell in row):
                yield begins, row
            begins = reader.line_num + 1
    except csv.Error as error:
        if "field limit" in str(error):
            raise ValueError(
                f"{name_of(path)}, line {begins}: a cell of more than {csv.field_size_limit()} "
                "characters. Where a double quote is opened and not closed, all that follows is "
                "one cell: close it, or write it as two. A text that long fits no model."
            ) from error
        raise ValueError(
            f"{name_of(path)}, line {begins}: this is no CSV row ({error}). A cell that holds a "
            'quote, a comma or a line break stands between double quotes, and "" in it is a quote.'
        ) from error


def _header(path: Path, first: tuple[int, list[str]]) -> list[str]:
    names = [name.strip() for name in first[1]]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"{name_of(path)}: the column {short(twice[0])} is there twice.")
    return names
