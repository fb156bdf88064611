"""The tables of a page in Markdown, read back: what a figure of the page is drawn from."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

_NUMBER = r"[-+]?[\d.]+(?:e[-+]?\d+)?"
_ESTIMATE = re.compile(
    rf"({_NUMBER})%?(?: \[({_NUMBER})%?, ({_NUMBER})%?\])?(?:, n \d+)?", re.IGNORECASE
)
NOT_KNOWN = ("", "–", "no match", "no C80")
"""What stands in a table where there is no number."""


@dataclass(frozen=True)
class Page:
    """A page and its tables, each under the heading that it stands beneath."""

    text: str
    tables: Sequence[tuple[str, pd.DataFrame]]

    @classmethod
    def of(cls, text: str) -> Page:
        """The page, read."""
        tables: list[tuple[str, pd.DataFrame]] = []
        heading, lines = "", list[str]()
        for line in [*text.splitlines(), ""]:
            if line.startswith("|"):
                lines.append(line)
                continue
            if len(lines) > 2:
                tables.append((heading, _table(lines)))
            lines = []
            heading = line.lstrip("# ") if line.startswith("#") else heading
        return cls(text, tables)

    def table(self, heading: str, number: int = 0) -> pd.DataFrame:
        """The texts of a table beneath a heading that begins like this; the first of several."""
        found = [table for under, table in self.tables if under.startswith(heading)]
        if len(found) <= number:
            known = sorted({under for under, _ in self.tables})
            raise ValueError(
                f"the page has {len(found)} tables beneath {heading!r}, and number {number + 1} of "
                f"them was asked for; there are tables beneath {known}."
            )
        return found[number]

    def said(self, pattern: str) -> str:
        """What the first group of a pattern finds in the prose, such as the number of seeds."""
        found = re.search(pattern, self.text)
        if found is None:
            raise ValueError(f"the page does not say {pattern!r}, which its figure has to say.")
        return found[1]


def _table(lines: Sequence[str]) -> pd.DataFrame:
    """The cells as texts; a column whose name is there already has a number behind it."""
    inner = [line.strip().removeprefix("|").removesuffix("|") for line in lines]
    cells = [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)] for line in inner]
    names: list[str] = []
    for name in cells[0]:
        again = sum(each == name or each.startswith(f"{name} (") for each in names)
        names.append(f"{name} ({again + 1})" if name in names else name)
    return pd.DataFrame(cells[2:], columns=pd.Index(names))


def estimates(cells: pd.Series) -> pd.DataFrame:
    """`0.41 [0.38, 0.44]` as `mean`, `low` and `high`; ValueError for another text."""
    return pd.DataFrame([_estimate(str(cell)) for cell in cells], index=cells.index)


def _estimate(cell: str) -> dict[str, float]:
    cell = cell.strip().strip("*")
    if cell in NOT_KNOWN:
        return dict.fromkeys(("mean", "low", "high"), np.nan)
    found = _ESTIMATE.fullmatch(cell)
    if found is None:
        raise ValueError(f"{cell!r} is no number, nor a number with its interval [low, high].")
    values = [np.nan if each is None else float(each) for each in found.groups()]
    return dict(zip(("mean", "low", "high"), values, strict=True))


def with_estimates(table: pd.DataFrame, column: str) -> pd.DataFrame:
    """The table with `mean`, `low` and `high` of a column, without the rows that have no number."""
    table = table.reset_index(drop=True)
    return table.join(estimates(table[column])).dropna(subset=["mean"])


def melted(
    table: pd.DataFrame, keep: Sequence[str], columns: Mapping[str, object], name: str
) -> pd.DataFrame:
    """A row for each cell of some columns, with what `columns` calls each in the column `name`."""
    parts = [
        with_estimates(table[[*keep, column]], column).assign(**{name: called})
        for column, called in columns.items()
    ]
    return pd.concat(parts)[[*keep, name, "mean", "low", "high"]]
