"""The cells of a bench as one file that is kept beside a page: every number of it made anew.

A line of compressed JSON for each cell that the bench asks for, in the order of their digests, so
two packings of the same cells are the same bytes. Numbers have six digits. Texts are left out but
for the first answers to test questions: they are nine tenths of the size, and no number is made of
them but by judging anew.

A bench that is not finished can be packed too, and `restore` puts it back into a folder, to go on
from there on another machine.
"""

import gzip
import json
import warnings
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from steerlens.parsing import parse_json
from steerlens.types import SteeringWarning
from steerlens.whole import write_whole

from .bench import Bench
from .cells import Cell, Cells, read_whole
from .plan import CHOSEN_WITH, Plan
from .spec import Spec, spec_from

LARGEST = 2**30
"""Bytes of a packed bench, unpacked; those of the pages have some megabytes."""
COSTS = {"seconds", "megabytes"}
"""What differs from run to run of the same cell."""
TEXTS_KEPT = 2
"""Completions that are kept of each set of test questions."""


def pack(bench: Bench, path: str | Path) -> Path:
    """Write what is done of a bench to one file.

    What the file there holds of cells that the bench asks for and the folder lacks stays: `restore`
    leaves some out. So does a fit, or a text, that the folder made otherwise, while the file has
    scores made of it that the folder has not made anew; a SteeringWarning names those.
    """
    before = {row["digest"]: row for row in _read(Path(path))[1]} if Path(path).exists() else {}
    lacking = {d: row["result"] for d, row in before.items() if not bench.cells.file(d).exists()}
    plan = Plan(bench.spec, bench.tasks, Cells(bench.folder, dict(lacking)))
    asked = plan.asked()
    rows = {digest: row for digest, row in before.items() if digest in asked}
    finished = not plan.left()
    used = {one.digest for digest in rows.keys() & lacking for one in asked[digest].inner}
    apart: list[Cell] = []
    for digest, cell in asked.items():
        if bench.cells.file(digest).exists():
            whole = read_whole(bench.cells.file(digest))
            result = rounded(_with_texts(whole, finished)["result"])
            if digest in used & rows.keys() and not _alike(rows[digest]["result"], result):
                apart.append(cell)
            else:
                provenance = whole["provenance"]
                rows[digest] = {"digest": digest, "result": result, "provenance": provenance}
    _tell(apart)
    lines = [
        json.dumps(one, sort_keys=True, ensure_ascii=False)
        for one in ({"bench": bench.spec.as_json()}, *(rows[digest] for digest in sorted(rows)))
    ]
    content = gzip.compress("\n".join(lines).encode(), compresslevel=9, mtime=0)
    return write_whole(path, content)


def _alike(packed: dict[str, Any], made: dict[str, Any]) -> bool:
    """Whether a cell came out as before: its costs aside, and of texts those that are kept."""
    for key in packed.keys() & made.keys() - COSTS:
        a, b = packed[key], made[key]
        if key == "texts":
            n = min(len(a), len(b))
            a, b = a[:n], b[:n]
        if a != b:
            return False
    return True


def _tell(apart: list[Cell]) -> None:
    """Warn that these were made again and came out otherwise."""
    if apart:
        warnings.warn(
            f"Of the cells, {len(apart)} came out otherwise than the packed ones, the first: "
            f"{apart[0]}. The packed ones stay, since packed scores were made of them. To have all "
            "of one make, run the bench in an empty folder and pack it into a new file.",
            SteeringWarning,
            stacklevel=3,
        )


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
    spec, rows = _read(path)
    known = {row["digest"]: row["result"] for row in rows}
    codes = {row["digest"]: row["provenance"].get("code") for row in rows}
    return Plan(spec, spec.tasks(), Cells(path.parent / "no folder", known, codes))


def restore(path: str | Path, folder: str | Path) -> int:
    """Put the packed cells that a folder's bench asks for into it; how many.

    Left out are those that were not packed whole and that cells left to make are made of: texts,
    and fits, whose tensors are in files of their own. These are made anew when they are needed.
    """
    bench, (_, rows) = Bench.of(folder), _read(Path(path))
    packed = {row["digest"]: row for row in rows}
    known = {digest: row["result"] for digest, row in packed.items()}
    plan = Plan(bench.spec, bench.tasks, Cells(bench.folder, known))
    asked = plan.asked()
    whole = {digest for digest in asked.keys() & known if _is_whole(asked[digest], known[digest])}
    fits = {cell.digest for left in plan.left() for cell in _made_of(left, whole)}
    put = [d for d in sorted(whole - fits) if not bench.cells.there(asked[d])]
    for digest in put:
        bench.cells.write(asked[digest], known[digest], packed[digest]["provenance"])
    return len(put)


def _is_whole(cell: Cell, result: dict[str, Any]) -> bool:
    """Whether no texts of a cell were left out."""
    return cell.kind != "write" or len(result["texts"]) == result.get("questions")


def _made_of(cell: Cell, whole: set[str]) -> Iterator[Cell]:
    """The cells that must be made, or be there with their files, before this one can be."""
    for one in cell.directly_in:
        if one.kind == "fit" or one.digest not in whole:
            yield one
            yield from _made_of(one, whole)


def _read(path: Path) -> tuple[Spec, list[dict[str, Any]]]:
    """What was asked for, and a row for each cell."""
    try:
        with gzip.open(path) as packed:
            content = packed.read(LARGEST + 1)
        if len(content) > LARGEST:
            raise ValueError(f"it unpacks to more than {LARGEST >> 20} MB")
        first, *lines = content.decode().split("\n")
        spec = spec_from(parse_json(first)["bench"])
        rows = [parse_json(line) for line in lines]
        return spec, [{key: row[key] for key in ("digest", "result", "provenance")} for row in rows]
    except (OSError, EOFError, ValueError, KeyError, TypeError, zlib.error) as error:
        raise ValueError(f"{path} is no packed bench, or a damaged one ({error}).") from error


def _with_texts(whole: dict[str, Any], finished: bool) -> dict[str, Any]:
    """The cell with the texts that are kept, and the number of questions that had some.

    Where the bench is not finished the judges of further attributes will read answers to test
    questions, with the first seed.
    """
    cell, result = whole["cell"], whole["result"]
    if "texts" not in result:
        return whole
    n = TEXTS_KEPT if cell.get("split") == "test" else 0
    if not finished and n and cell["seed"] == CHOSEN_WITH:
        n = len(result["texts"])
    told = {"texts": result["texts"][:n], "questions": len(result["texts"])}
    return {**whole, "result": {**result, **told}}
