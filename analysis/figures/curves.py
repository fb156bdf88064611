"""Lines of any summed-up table, a panel for each value of a column: models, attributes, ..."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from .frame import planned
from .plan import Panel, Plan, Ticks, figure_of, on_panel
from .rows import against, lines_of, name_of, of_methods, plain_text, require_columns, strength_of
from .style import Look, line_of, marker_of, method_looks
from .units import unit_of

NAMES = {
    "layer": "layer",
    "token_index": "position in the response",
    "strength_value": "strength",
    "relative_rmse": "relative RMSE (0 = as the prompt)",
    "recovered": "share of the prompt’s effect recovered",
    "mean_kl": "KL from unsteered, nats a token",
    "along": "along the direction",
}
"""What columns are called on an axis; others by their own name."""
FEW_PLACES = 40


def line_panels(
    table: pd.DataFrame,
    y: str = "mean",
    *,
    x: str = "layer",
    panel: str | None = None,
    methods: Sequence[str] | None = None,
    bands: str = "95 % interval",
    title: str = "",
    says: str = "",
) -> go.Figure:
    """A line per method and strength with its interval, in a panel for each value of a column.

    For tables with a row per method, strength, `x` (and `panel`): of several models or attributes
    (concatenated, with a column that names them), of `over_seeds`, of `by_position`. The interval
    is that of the columns `low` and `high`, if there are any; `bands` says what they hold. All
    panels share their scale.
    """
    needed = ["method", "strength", x, y, *([panel] if panel else [])]
    require_columns(table, needed, "line_panels")
    rows = of_methods(table, methods)
    rows = rows.assign(strength_value=rows.get("strength_value", np.nan))
    parts = [rows] if panel is None else [part for _, part in rows.groupby(panel, sort=False)]
    figure = figure_of(_lines(parts, rows, x, y, panel), len(parts))
    figure.update_yaxes(range=_range(rows, y))
    places = sorted(rows[x].unique().tolist())
    ticks = [Ticks(places, [f"{place:g}" for place in places])]
    names = [""] if panel is None else [plain_text(str(part[panel].iloc[0])) for part in parts]
    x_ticks = 0 if len(places) <= FEW_PLACES else None
    said, label = NAMES.get(x, plain_text(x)), _named(rows, y)
    panels = [Panel(name, said, label, x_ticks=x_ticks) for name in names]
    plan = Plan(
        title or f"{label} by {said}",
        f"{says}{over_what(rows, 'Bands', bands)}{against(rows)}".strip(),
        panels,
        ticks,
        across=4,
        least=10.5,
        share_x=True,
        share_y=True,
    )
    return planned(figure, plan)


def _lines(
    parts: list[pd.DataFrame], rows: pd.DataFrame, x: str, y: str, panel: str | None
) -> list[go.Scatter]:
    """The lines of all panels; one of a name is in the legend once."""
    looks = method_looks(rows["method"])
    traces: list[go.Scatter] = []
    seen: set[str] = set()
    for number, part in enumerate(parts):
        for line in lines_of(part):
            _require_one(line, x, panel)
            pair = _line(line, x, y, looks[line["method"].iloc[0]], shown=name_of(line) not in seen)
            seen.add(name_of(line))
            traces += on_panel(pair, number)
    return sorted(traces, key=lambda trace: trace.mode != "none")  # no band over a line


def _named(rows: pd.DataFrame, y: str) -> str:
    """What is on the y axis, with the unit that the table has."""
    column = str(rows["measure"].iloc[0]) if y == "mean" and "measure" in rows else y
    unit = escape(unit_of(rows, column), quote=False) if "unit" in rows else ""
    return f"{NAMES.get(column, plain_text(column))}{unit}"


def over_what(rows: pd.DataFrame, drawn: str, what: str = "95 % interval") -> str:
    """What the intervals of the rows are drawn as, and over what; "" where they have none."""
    if not {"low", "high"} <= set(rows.columns):
        return ""
    if np.isnan(rows[["low", "high"]].to_numpy(dtype=np.float64)).all():  # of a single value
        return ""
    if "n_seeds" in rows:
        fewest, most = int(rows["n_seeds"].min()), int(rows["n_seeds"].max())
        if most == 1:
            return f" {drawn}: {what}, of one seed."
        number = f"{fewest} to {most}" if fewest != most else f"{most}"
        return f" {drawn}: {what} over {number} seeds."
    if "n_examples" in rows:
        fewest, most = int(rows["n_examples"].min()), int(rows["n_examples"].max())
        number = f"{fewest} to {most}" if fewest != most else f"{most}"
        return f" {drawn}: {what} over {number} examples."
    return f" {drawn}: {what}."


def _require_one(line: pd.DataFrame, x: str, panel: str | None) -> None:
    if line[x].duplicated().any():
        place = line.loc[line[x].duplicated(), x].iloc[0]
        hint = "" if panel else " Does a column tell them apart? Pass it as panel=."
        raise ValueError(
            f"{name_of(line)} has several rows at {x} {place}, where one can be drawn.{hint}"
        )


def _range(rows: pd.DataFrame, y: str) -> list[float]:
    """From the lowest value or end of an interval to the highest, 0 in sight."""
    columns = [y, *(name for name in ("low", "high") if name in rows)]
    values = rows[columns].to_numpy(dtype=np.float64).ravel()
    values = values[np.isfinite(values)]
    low, high = (min(0.0, *values), max(0.0, *values)) if len(values) else (0.0, 1.0)
    spare = 0.04 * ((high - low) or 1.0)
    return [low - spare * (low < 0), high + spare]


def _line(line: pd.DataFrame, x: str, y: str, look: Look, *, shown: bool) -> list[go.Scatter]:
    line, name = line.sort_values(x), name_of(line)
    strength, places = strength_of(line), line[x].tolist()
    drawn = go.Scatter(
        x=places,
        y=line[y].tolist(),
        name=name,
        legendgroup=name,
        showlegend=shown,
        mode="lines+markers",
        line=line_of(look, strength),
        marker={"symbol": marker_of(look, strength), "size": 7, "maxdisplayed": 10},
        hovertemplate=f"<b>{name}</b><br>%{{x}}: %{{y:.3g}}<extra></extra>",
    )
    if not {"low", "high"} <= set(line.columns) or line[["low", "high"]].isna().all(axis=None):
        return [drawn]
    known = line.loc[line[["low", "high"]].notna().all(axis=1)]
    ends = [*known["low"], *known["high"][::-1]]
    band = go.Scatter(
        x=[*known[x], *known[x][::-1]], y=ends, name=f"{name}, 95 % interval", legendgroup=name,
        showlegend=False, fill="toself", fillcolor=look.colour, opacity=0.16, mode="none",
        hoverinfo="skip",
    )  # fmt: skip
    return [band, drawn]
