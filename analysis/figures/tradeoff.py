"""Curves of the table of `analysis.tradeoff`: attribute against coherence over strength."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from .rows import require_columns
from .style import method_colours, titled

_TRADEOFF = ["method", "strength", "attribute", "attribute_low", "attribute_high"]
_TRADEOFF += ["coherence", "coherence_low", "coherence_high", "n"]
_POINTS = ("unsteered", "prompt")


def tradeoff_curve(
    table: pd.DataFrame, methods: Sequence[str] | None = None, bound: float | None = None
) -> go.Figure:
    """Attribute against coherence: a line per method over its strengths, the prompt as a star.

    Further up is more of the attribute, further right better text. `bound` draws a coherence, such
    as 80 % of the unsteered.
    """
    require_columns(table, _TRADEOFF, "tradeoff_curve")
    drawn = [name for name in table["method"].drop_duplicates() if name not in _POINTS]
    unknown = sorted(set(methods or ()) - set(drawn))
    if unknown:
        raise ValueError(f"no row has method {', '.join(unknown)}; the table has {drawn}.")
    colours = method_colours(table["method"])
    figure = go.Figure()
    for name in drawn if methods is None else methods:
        part = table.loc[table["method"] == name].sort_values("strength")
        figure.add_trace(_path(part, name, colours[name]))
    for name, symbol in zip(_POINTS, ("circle", "star"), strict=True):
        part = table.loc[table["method"] == name]
        if len(part):
            figure.add_trace(_point(part, name, colours[name], symbol))
    if bound is not None:
        figure.add_vline(bound, line={"dash": "dash", "color": "#7f7f7f"}, annotation_text="bound")
    figure.update_xaxes(title="coherence (mean score)")
    figure.update_yaxes(title="attribute (mean score)")
    figure.update_layout(
        height=520, legend={"orientation": "h", "yref": "container", "y": 0.01, "yanchor": "bottom"}
    )
    n = int(table["n"].min())
    return titled(
        figure,
        "What the effect costs in coherence",
        f"Numbers on a line are strengths. Bars: 95 % intervals over questions, {n} completions.",
    )


def _path(part: pd.DataFrame, name: str, colour: str) -> go.Scatter:
    return go.Scatter(
        x=part["coherence"].tolist(),
        y=part["attribute"].tolist(),
        error_y=_error(part, "attribute"),
        error_x=_error(part, "coherence"),
        name=name,
        mode="lines+markers+text",
        text=[f"{strength:g}" for strength in part["strength"]],
        textposition="top center",
        textfont={"size": 10, "color": colour},
        line={"color": colour, "width": 2},
        marker={"size": 7},
        hovertemplate=f"<b>{name} × %{{text}}</b><br>coherence %{{x:.1f}}<br>"
        "attribute %{y:.1f}<extra></extra>",
    )


def _point(part: pd.DataFrame, name: str, colour: str, symbol: str) -> go.Scatter:
    return go.Scatter(
        x=part["coherence"].tolist(),
        y=part["attribute"].tolist(),
        error_y=_error(part, "attribute"),
        error_x=_error(part, "coherence"),
        name=name,
        mode="markers",
        marker={"color": colour, "size": 14 if symbol == "star" else 10, "symbol": symbol},
        hovertemplate=f"<b>{name}</b><br>coherence %{{x:.1f}}<br>attribute %{{y:.1f}}"
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
