"""The cells of a bench as one file that is kept beside a page: every number of it made anew.

A line of compressed JSON for each cell that the bench asks for, in the order of their digests, so
two packings of the same cells are the same bytes. Numbers have six digits. Texts are left out but
for the first answers to test questions: they are nine tenths of the size, and no number is made of
them but by judging anew.
"""

import gzip
import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from steerlens.parsing import parse_json
from steerlens.whole import write_whole

from .bench import Bench
from .cells import Cell, Cells, read_whole
from .plan import Plan
from .spec import spec_from

LARGEST = 2**30
"""Bytes of a packed bench, unpacked; those of the pages have some megabytes."""
TEXTS_KEPT = 2
"""Completions that are kept of each set of test questions."""


def pack(bench: Bench, path: str | Path) -> Path:
    """Write what is done of a bench to one file."""
    lines = [json.dumps({"bench": bench.spec.as_json()}, sort_keys=True)]
    for digest, whole in sorted(_asked(bench).items()):
        result = rounded(whole["result"])
        kept = {"digest": digest, "result": result, "provenance": whole["provenance"]}
        lines.append(json.dumps(kept, sort_keys=True, ensure_ascii=False))
    content = gzip.compress("\n".join(lines).encode(), compresslevel=9, mtime=0)
    return write_whole(path, content)


def rounded(value: Any) -> Any:
    """The same with six digits of every number: more is noise, and most of the size."""
    if isinstance(value, float):
        return float(f"{value:.6g}")
    if isinstance(value, list):
        return [rounded(one) for one in value]
    if isinstance(value, dict):
        return {key: rounded(one) for key, one in value.items()}
    return value


def unpacked(path: str | Path) -> Plan:
    """The plan of a packed bench with its results, to collect from; no model is needed."""
    path = Path(path)
    try:
        with gzip.open(path) as packed:
            content = packed.read(LARGEST + 1)
        if len(content) > LARGEST:
            raise ValueError(f"it unpacks to more than {LARGEST >> 20} MB")
        first, *lines = content.decode().split("\n")
        spec = spec_from(parse_json(first)["bench"])
        rows = [parse_json(line) for line in lines]
        known = {row["digest"]: row["result"] for row in rows}
    except (OSError, EOFError, ValueError, KeyError, TypeError, zlib.error) as error:
        raise ValueError(f"{path} is no packed bench, or a damaged one ({error}).") from error
    return Plan(spec, spec.tasks(), Cells(path.parent / "no folder", known))


def _asked(bench: Bench) -> dict[str, dict[str, Any]]:
    """The cells that tables are made of, whole, and those that these are made of."""
    found: dict[str, dict[str, Any]] = {}
    for cell in bench.plan.named():
        for one in (cell, *inner(cell)):
            path = bench.cells.path(one)
            if one.digest not in found and path.exists():
                found[one.digest] = _without_texts(read_whole(path))
    return found


def inner(cell: Cell) -> Iterator[Cell]:
    """The cells that a cell names, at any depth."""
    for value in cell.settings.values():
        if isinstance(value, dict) and "kind" in value:
            one = Cell.of_json(value)
            yield one
            yield from inner(one)


def _without_texts(whole: dict[str, Any]) -> dict[str, Any]:
    result = whole["result"]
    if "texts" not in result:
        return whole
    kept = result["texts"][:TEXTS_KEPT] if whole["cell"].get("split") == "test" else []
    return {**whole, "result": {**result, "texts": kept}}
