"""Curves of the table of `analysis.tradeoff`: attribute against coherence over strength."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from .frame import planned
from .plan import Panel, Plan, figure_of, on_panel
from .rows import plain_text, require_columns
from .style import Look, line_of, method_looks

_TRADEOFF = ["method", "strength", "attribute", "attribute_low", "attribute_high"]
_TRADEOFF += ["coherence", "coherence_low", "coherence_high", "n"]
_POINTS = ("unsteered", "prompt")
MOST_TOGETHER = 8
"""Methods whose lines can still be told apart in one panel."""


def tradeoff_curve(
    table: pd.DataFrame,
    methods: Sequence[str] | None = None,
    bound: float | int | None = None,
    *,
    apart: bool | None = None,
) -> go.Figure:
    """Attribute against coherence: a line per method over its strengths, the prompt as a star.

    Further up is more of the attribute, further right better text. `bound` draws a coherence, such
    as 80 % of the unsteered. `apart` gives each method a panel of its own, all on one scale; by
    default where there are more than eight.
    """
    require_columns(table, _TRADEOFF, "tradeoff_curve")
    drawn = [name for name in table["method"].drop_duplicates() if name not in _POINTS]
    unknown = sorted(set(methods or ()) - set(drawn))
    if unknown:
        raise ValueError(f"no row has method {', '.join(unknown)}; the table has {drawn}.")
    looks = method_looks(table["method"])
    shown = list(drawn if methods is None else methods)
    if len(shown) > MOST_TOGETHER if apart is None else apart:
        return _apart(table, shown, looks, bound)
    figure = figure_of([])
    for name in drawn if methods is None else methods:
        part = table.loc[table["method"] == name].sort_values("strength")
        figure.add_trace(_path(part, name, looks[name]))
    for name, symbol in zip(_POINTS, ("circle", "star"), strict=True):
        part = table.loc[table["method"] == name]
        if len(part):
            figure.add_trace(_point(part, name, looks[name].colour, symbol))
    figure.update_xaxes(range=_range(table, "coherence", bound))
    figure.update_yaxes(range=_range(table, "attribute"))
    if bound is not None:
        figure.add_trace(_bound(bound, _range(table, "attribute")))
    n = int(table["n"].min())
    plan = Plan(
        "What the effect costs in coherence",
        f"Numbers on a line are strengths. Bars: 95 % intervals over questions, {n} completions.",
        [Panel(x="coherence (mean score)", y="attribute (mean score)", high=1.25)],
        labels=True,
    )
    return planned(figure, plan)


def _apart(
    table: pd.DataFrame,
    methods: Sequence[str],
    looks: Mapping[str, Look],
    bound: float | int | None,
) -> go.Figure:
    """A panel for each method, with the model and the prompt in every one."""
    x_range, y_range = _range(table, "coherence", bound), _range(table, "attribute")
    traces: list[go.Scatter] = []
    for number, name in enumerate(methods):
        part = table.loc[table["method"] == name].sort_values("strength")
        own = [_path(part, name, looks[name]).update(showlegend=False)]
        for point, symbol in zip(_POINTS, ("circle", "star"), strict=True):
            row = table.loc[table["method"] == point]
            if len(row):
                drawn = _point(row, point, looks[point].colour, symbol)
                size = {"size": 9 if symbol == "star" else 7}
                drawn.update(showlegend=number == 0, legendgroup=point, marker=size)
                own.append(drawn)
        if bound is not None:
            line = _bound(bound, y_range)
            own.append(line.update(showlegend=number == 0, legendgroup="bound"))
        traces += on_panel(own, number)
    panels = [
        Panel(plain_text(name), "coherence", "attribute", 0.75, x_range=x_range, y_range=y_range)
        for name in methods
    ]
    n = int(table["n"].min())
    plan = Plan(
        "What the effect costs in coherence",
        f"Numbers on a line are strengths. Bars: 95 % intervals over questions, {n} completions.",
        panels,
        across=4,
        least=11.0,
        share_x=True,
        share_y=True,
        labels=True,
    )
    return planned(figure_of(traces, len(panels)), plan)


def _range(table: pd.DataFrame, column: str, also: float | int | None = None) -> list[float]:
    """From the lowest end of an interval to the highest, with room for the labels."""
    ends = table[[column, f"{column}_low", f"{column}_high"]].to_numpy(dtype=np.float64).ravel()
    ends = [float(end) for end in (*ends, also) if end is not None and np.isfinite(end)]
    if not ends:
        return [0.0, 1.0]
    spare = 0.08 * ((max(ends) - min(ends)) or 1.0)
    return [min(ends) - spare, max(ends) + spare]


def _bound(bound: float | int, ends: list[float]) -> go.Scatter:
    """An upright line; a trace, so that it has a place in the legend."""
    return go.Scatter(
        x=[bound, bound],
        y=ends,
        name=f"bound: {bound:.3g}",
        mode="lines",
        line={"dash": "dash", "color": "#7f7f7f", "width": 1.5},
        hoverinfo="skip",
    )


def _path(part: pd.DataFrame, name: str, look: Look) -> go.Scatter:
    return go.Scatter(
        x=part["coherence"].tolist(),
        y=part["attribute"].tolist(),
        error_y=_error(part, "attribute"),
        error_x=_error(part, "coherence"),
        name=plain_text(name),
        mode="lines+markers+text",
        text=[f"{strength:g}" for strength in part["strength"]],
        textposition="top center",
        customdata=[f"{strength:g}" for strength in part["strength"]],
        textfont={"size": 10, "color": look.colour},
        line=line_of(look, ""),
        marker={"size": 7, "symbol": look.marker},
        hovertemplate=f"<b>{plain_text(name)} × %{{customdata}}</b><br>coherence %{{x:.1f}}<br>"
        "attribute %{y:.1f}<extra></extra>",
    )


def _point(part: pd.DataFrame, name: str, colour: str, symbol: str) -> go.Scatter:
    return go.Scatter(
        x=part["coherence"].tolist(),
        y=part["attribute"].tolist(),
        error_y=_error(part, "attribute"),
        error_x=_error(part, "coherence"),
        name=plain_text(name),
        mode="markers",
        marker={"color": colour, "size": 14 if symbol == "star" else 10, "symbol": symbol},
        hovertemplate=f"<b>{plain_text(name)}</b><br>coherence %{{x:.1f}}<br>attribute %{{y:.1f}}"
        "<extra></extra>",
    )


def _error(part: pd.DataFrame, column: str) -> dict[str, object]:
    middle = part[column].to_numpy(dtype=np.float64)
    return {
        "type": "data",
        "symmetric": False,
        "array": (part[f"{column}_high"].to_numpy() - middle).tolist(),
        "arrayminus": (middle - part[f"{column}_low"].to_numpy()).tolist(),
        "thickness": 0.7,
        "width": 0,
    }
