"""Estimates with their intervals, row under row: a panel for each value of a column."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from .curves import NAMES, over_what
from .frame import planned
from .plan import Panel, Plan, Ticks, figure_of, on_panel
from .rows import against, of_methods, plain_text, require_columns
from .style import Look, method_looks

SPREAD = 0.6
"""How much of the room of a row its marks take."""
SYMBOLS = ("circle", "square", "diamond", "cross")
PLAIN = Look("#444444", SYMBOLS[0])
"""The mark of a figure that has only one."""


def estimate_panels(
    table: pd.DataFrame,
    value: str = "mean",
    *,
    row: str = "method",
    mark: str = "method",
    panel: str | None = None,
    methods: Sequence[str] | None = None,
    zero: bool = False,
    title: str = "",
    says: str = "",
    bands: str = "95 % interval",
) -> go.Figure:
    """A mark with its interval for each row, in a panel for each value of a column.

    For tables with an estimate per `row`, `mark` and `panel`: scores or errors by method, a panel
    for each attribute or model. Rows and panels are in the table's order, the interval is that of
    the columns `low` and `high`, if there are any; `bands` is what it is called. All panels share
    their scale. With `zero` they reach to 0, and a line stands there: for differences.
    """
    needed = [row, mark, value, *([panel] if panel else [])]
    require_columns(table, needed, "estimate_panels")
    rows = of_methods(table, methods) if "method" in table else table
    names = rows[row].drop_duplicates().tolist()
    marks = rows[mark].astype(str).drop_duplicates().tolist()
    looks = _looks(marks, row, mark)
    parts = [rows] if panel is None else [part for _, part in rows.groupby(panel, sort=False)]
    traces: list[go.Scatter] = []
    seen: set[object] = set() if mark != row else set(names)
    for number, part in enumerate(parts):
        for name, one in part.groupby(mark, sort=False):
            _require_one(one, row, panel)
            places = [names.index(each) + _aside(part, row, each, mark, name) for each in one[row]]
            trace = _marks(one, value, row, places, looks[str(name)])
            trace.update(
                name=plain_text(str(name)), legendgroup=str(name), showlegend=name not in seen
            )
            traces += on_panel([trace], number)
            seen.add(name)
    figure = figure_of(traces, len(parts))
    figure.update_yaxes(showgrid=False, zeroline=False)
    figure.update_xaxes(range=_range(rows, value, zero), zeroline=zero, zerolinewidth=2)
    titles = [""] if panel is None else [plain_text(str(part[panel].iloc[0])) for part in parts]
    most = 1 if mark == row else len(marks)
    return planned(figure, _plan(rows, value, (names, most), titles, (title, says, bands)))


def _looks(marks: list[str], row: str, mark: str) -> dict[str, Look]:
    """As in other figures; a symbol that is even to both sides where it is not to tell methods."""
    if len(marks) == 1:
        return {marks[0]: PLAIN}
    looks = method_looks(marks)
    if mark == "method" != row:
        return looks
    even = [SYMBOLS[0 if mark == row else i % len(SYMBOLS)] for i in range(len(marks))]
    return {name: replace(looks[name], marker=each) for name, each in zip(marks, even, strict=True)}


def _require_one(marks: pd.DataFrame, row: str, panel: str | None) -> None:
    if marks[row].duplicated().any():
        name = marks.loc[marks[row].duplicated(), row].iloc[0]
        hint = "" if panel else " Does a column tell them apart? Pass it as mark= or panel=."
        raise ValueError(f"{name} has several estimates, where one can be drawn.{hint}")


def _aside(part: pd.DataFrame, row: str, at: object, mark: str, name: object) -> float:
    """How far from the middle of its row a mark is, among those that the row has."""
    marks = part.loc[part[row] == at, mark].tolist()
    return ((marks.index(name) + 0.5) / len(marks) - 0.5) * SPREAD


def _marks(part: pd.DataFrame, value: str, row: str, places: list[float], look: Look) -> go.Scatter:
    drawn = go.Scatter(
        x=part[value].tolist(),
        y=places,
        mode="markers",
        marker={"symbol": look.marker, "size": 8, "color": look.colour},
        customdata=[plain_text(str(name)) for name in part[row]],
        hovertemplate="<b>%{customdata}</b>: %{x:.3g}<extra></extra>",
    )
    if {"low", "high"} <= set(part.columns):
        drawn.update(
            error_x={
                "type": "data",
                "symmetric": False,
                "array": (part["high"] - part[value]).fillna(0).tolist(),
                "arrayminus": (part[value] - part["low"]).fillna(0).tolist(),
                "thickness": 1.4,
                "width": 0,
            }
        )
    return drawn


def _range(rows: pd.DataFrame, value: str, zero: bool) -> list[float]:
    """From the lowest end of an interval to the highest."""
    columns = [value, *(name for name in ("low", "high") if name in rows)]
    values = rows[columns].to_numpy(dtype=np.float64).ravel()
    values = np.append(values[np.isfinite(values)], [0.0] if zero else [])
    low, high = (float(min(values)), float(max(values))) if len(values) else (0.0, 1.0)
    spare = 0.08 * ((high - low) or 1.0)
    return [low - spare, high + spare]


def _plan(
    rows: pd.DataFrame,
    value: str,
    drawn: tuple[list[object], int],
    titles: list[str],
    texts: tuple[str, str, str],
) -> Plan:
    names, marks = drawn
    label = NAMES.get(value, plain_text(value))
    high = max(0.3, 0.055 * len(names) * (1 + 0.2 * (marks - 1)))
    ends = (len(names) - 0.5, -0.5)
    panels = [Panel(name, label, "", high, y_ticks=0, y_range=ends) for name in titles]
    return Plan(
        texts[0] or label,
        f"{texts[1]}{over_what(rows, 'Lines', texts[2])}{against(rows)}".strip(),
        panels,
        [Ticks(list(range(len(names))), [plain_text(str(name)) for name in names])],
        across=3,
        least=11.0,
        share_y=True,
    )
