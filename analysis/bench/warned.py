"""What the library warned of while the cells of a bench were made: kept in each, told of all.

A warning belongs to the cell that is being made when it is raised, whatever its kind: a fit that
learnt nothing, a steering that changes nothing, a judge that is asked about texts it was not made
for. It stands in the cell's result under "warnings", a key that cells without any have not.
"""

import re
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TextIO, TypeAlias

import pandas as pd

from steerlens.types import SteeringWarning

from .catalogue import METHODS
from .cells import Cell
from .kinds import PROMPT
from .plan import Plan

KEY = "warnings"
NUMBER = re.compile(r"\d+(?:\.\d+)?(?:e[-+]?\d+)?")
SENTENCE = re.compile(r"(?<=[.!?])\s")
CALLED = {
    "fit": "fits",
    "write": "sets of completions",
    "odds": "sets of choices",
    "judge": "sets of scores",
    "scale": "scales of a judge",
    "effects": "comparisons with the prompted run",
    "side": "sets of side effects",
    "spread": "spreads of the push",
}
"""The kinds of cells, as a sentence names them."""
Counts: TypeAlias = tuple[int, int, int]
"""Cells with a warning, cells whose warnings were kept, and all."""
COLUMNS = ("kind", "task", "method", "seed", "warning", "cells")
Show: TypeAlias = Callable[..., None]


# -- Kept while cells are made ---------------------------------------------------------------------


@dataclass(eq=False)
class Warned:
    """The warnings that one worker hears: each of the library's is kept by the innermost `kept`.

    The first of each kind is shown as well, as it would be without this; so is every warning of
    another package.
    """

    shown: set[str] = field(default_factory=set[str])
    stack: list[set[str]] = field(default_factory=list[set[str]])

    @contextmanager
    def kept(self) -> Iterator[set[str]]:
        """The texts of the library's warnings inside; the set is filled as they come."""
        said: set[str] = set()
        with warnings.catch_warnings():
            warnings.simplefilter("always", SteeringWarning)
            if not self.stack:  # else the one around this has the hook in place
                warnings.showwarning = self._before(warnings.showwarning)
            self.stack.append(said)
            try:
                yield said
            finally:
                self.stack.pop()

    def _before(self, show: Show) -> Show:
        """What Python calls for a warning: it keeps the library's, and shows what is new."""

        def keep(
            message: Warning | str,
            category: type[Warning],
            filename: str,
            lineno: int,
            file: TextIO | None = None,
            line: str | None = None,
        ) -> None:
            if issubclass(category, SteeringWarning):
                text = str(message)
                self.stack[-1].add(text)
                if kind_of(text) in self.shown:
                    return
                self.shown.add(kind_of(text))
            show(message, category, filename, lineno, file, line)

        return keep


def first_sentence(text: str) -> str:
    """What is wrong; the sentences behind it say what to do."""
    return SENTENCE.split(text, maxsplit=1)[0]


def kind_of(text: str) -> str:
    """The first sentence without its numbers: warnings of one kind differ in nothing else."""
    return NUMBER.sub("#", first_sentence(text))


# -- Told of all cells -----------------------------------------------------------------------------


def warned_cells(plan: Plan) -> tuple[pd.DataFrame, dict[str, Counts]]:
    """The warnings of all cells that are done, and how many cells of each kind have one.

    The table has a row for each kind, attribute (`task`), method, seed and `warning` (its first
    sentence), with the number of `cells` that have it; `seed` is missing for what has none. The
    counts are cells with a warning, those whose warnings were kept, and all. Where a text has no
    method, `method` says what else it is of: the model itself, the prompt, a null.
    """
    rows: list[list[Any]] = []
    counts: dict[str, Counts] = {}
    for cell in plan.asked().values():
        told = plan.cells.read(cell)
        if told is None:
            continue
        texts = sorted({first_sentence(text) for text in told.get(KEY) or ()})
        kept = KEY in told or plan.cells.code_of(cell) is not None  # earlier cells kept neither
        n_warned, n_kept, n = counts.get(cell.kind, (0, 0, 0))
        counts[cell.kind] = (n_warned + bool(texts), n_kept + kept, n + 1)
        own = [cell.kind, cell["task"], method_of(cell), cell.flat.get("seed")]
        rows += [[*own, text, 1] for text in texts]
    table = pd.DataFrame(rows, columns=pd.Index(COLUMNS)).astype({"seed": "Int64"})
    by = list(COLUMNS[:-1])
    return table.groupby(by, sort=False, dropna=False, as_index=False)["cells"].sum(), counts


def method_of(cell: Cell) -> str:
    """The method of a cell; without one, what its text is of ("unsteered", "prompt", a null)."""
    flat = cell.flat
    if "method" not in flat:
        return flat.get("source", "")
    text = cell["of"] if "of" in cell.settings else cell.settings
    if text.get("source") == PROMPT:  # of two methods with one fit, the one that has the prompt too
        both = [n for n, m in METHODS.items() if m.prompted and m.fit_as == flat["method"]]
        return next(iter(both), flat["method"])
    return flat["method"]


def by_kind(table: pd.DataFrame) -> pd.DataFrame:
    """A row for each kind of cell, method, and kind of warning, the commonest first.

    `warning` is the first of its kind: others may have other numbers in it. `attributes` names
    them.
    """
    grouped = table.assign(of=table["warning"].map(kind_of)).groupby(
        ["kind", "method", "of"], sort=False, as_index=False
    )
    joined = grouped.agg(
        warning=("warning", "first"),
        cells=("cells", "sum"),
        attributes=("task", lambda names: ", ".join(dict.fromkeys(names))),
    )
    return joined.drop(columns="of").sort_values("cells", ascending=False, kind="stable")


def warning_sentences(table: pd.DataFrame, counts: Mapping[str, Counts]) -> list[str]:
    """How many cells of a kind have a warning, and which is the commonest; none where none has."""
    told = []
    for kind, (n_warned, n_kept, n) in counts.items():
        if n_warned:
            rows = table.loc[table["kind"] == kind]
            of = rows["warning"].map(kind_of)
            sums = rows.groupby(of, sort=False)["cells"].sum()
            first = rows.loc[of == sums.idxmax(), "warning"].iloc[0].rstrip(".")
            told.append(
                f"{n_warned} of {n_kept} {CALLED[kind]} ended with a warning of the library, most "
                f"often ({sums.max()}): {first}."
                + f" (Not known of {n - n_kept} made earlier.)"
                * (n > n_kept)
            )
    return told
