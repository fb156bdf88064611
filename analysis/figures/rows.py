"""The rows of a tidy table that a figure draws, and their names; a bad table is a ValueError."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

import pandas as pd

from .tokens import visible

CELL = ["example", "token_index", "token", "layer", "method", "strength", "strength_value", "view"]


def require_columns(table: pd.DataFrame, columns: Sequence[str], figure: str) -> None:
    """ValueError unless the table has these columns and a row."""
    missing = [column for column in columns if column not in table.columns]
    if missing:
        raise ValueError(
            f"{figure} needs the columns {missing}, which the table lacks; it has "
            f"{list(table.columns)}. Pass the table as the analysis function returned it."
        )
    if table.empty:
        raise ValueError(f"{figure} got a table without rows: there is nothing to draw.")


def chosen(table: pd.DataFrame, column: str, value: object) -> pd.DataFrame:
    """The rows with this value in the column; ValueError where there are none."""
    rows = table.loc[table[column] == value]
    if rows.empty:
        there = ", ".join(repr(v) for v in table[column].drop_duplicates().tolist())
        raise ValueError(f"no row has {column} {value!r}; the table has {there}. Choose of these.")
    return rows


def of_methods(table: pd.DataFrame, methods: Sequence[str] | None) -> pd.DataFrame:
    """The rows of these methods, in the order asked for."""
    if methods is None:
        return table
    if not methods:
        raise ValueError("methods is empty: name at least one, or leave it out to draw all.")
    return pd.concat([chosen(table, "method", method) for method in methods])


def lines_of(table: pd.DataFrame) -> list[pd.DataFrame]:
    """The rows of each method at each strength label, in the table's order."""
    return [rows for _, rows in table.groupby(["method", "strength"], sort=False, dropna=False)]


def require_single(line: pd.DataFrame, keys: list[str]) -> None:
    """ValueError where several rows share the values of these columns."""
    repeated = line.loc[line.duplicated(keys)]
    if len(repeated):
        where = ", ".join(f"{key} {repeated[key].iloc[0]}" for key in keys)
        raise ValueError(
            f"{name_of(line)} has several rows at {where}, where one can be drawn. "
            "Keep one stream, strength value and seed, or aggregate first."
        )


def plain_text(text: str) -> str:
    """The text as plotly shows it unchanged: it reads no tag, entity or formula into it."""
    return escape(visible(text), quote=False).replace("$", "&#36;")


def sinks_in(table: pd.DataFrame) -> pd.Series:
    """Which rows of a coefficient table are sinks; none where it does not say."""
    return table["sink"].astype(bool) if "sink" in table else pd.Series(False, index=table.index)


def against(table: pd.DataFrame) -> str:
    """What the table's plain side is, short enough for a subtitle; "" where it does not say."""
    baseline = table.attrs.get("baseline")
    if baseline is None:
        return ""
    known = {
        "template": "the chat template's own system turn, if it has one",
        "none": "no system turn",
        "neutral": "the neutral instruction",
    }
    short = str(baseline) if len(str(baseline)) <= 40 else f"{str(baseline)[:39]}…"
    named = plain_text(known.get(str(baseline), f"“{short}”"))
    return f"<br>Compared with: {named}."


def strength_of(line: pd.DataFrame) -> str:
    """The label of the strength that the rows have in common; empty for none."""
    strength = line["strength"].iloc[0]
    return "" if pd.isna(strength) else str(strength)


def name_of(line: pd.DataFrame, separator: str = ", ") -> str:
    """Method and strength, with its value where it is one number: `CAA, matched (× 0.4)`."""
    values = line["strength_value"].drop_duplicates()
    times = f" (× {values.iloc[0]:.3g})" if len(values) == 1 and values.notna().all() else ""
    strength = strength_of(line)
    return (
        plain_text(line["method"].iloc[0])
        + bool(strength) * f"{separator}{plain_text(strength)}{times}"
    )
