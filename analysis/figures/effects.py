"""Effect against faithfulness: what a method does to the predictions, and how it gets there."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from .curves import NAMES
from .frame import planned
from .plan import Panel, Plan, figure_of
from .rows import against, of_methods, plain_text, require_columns
from .style import REFERENCES, line_of, marker_of, method_looks

_JOINED = ["method", "strength", "strength_value", "relative_rmse"]
_AS_FITTED = ("", "as fitted")


def effect_against_faithfulness(
    table: pd.DataFrame,
    effect: str = "recovered",
    methods: Sequence[str] | None = None,
    *,
    title: str = "What a method does, and whether as the prompt does it",
    says: str | None = None,
    x: str = "relative RMSE, mean over layers (0 = as the prompt)",
) -> go.Figure:
    """Effect on the predictions against the distance from the prompt, a line over strengths each.

    The table is that of `effect_and_faithfulness`. Up and left is what the prompt does: its effect
    (1 recovered) at relative RMSE 0. Numbers at the points are strengths. `title`, `says` (the
    line below it) and `x` (the name of the axis) are for tables that are about something else.
    """
    require_columns(table, [*_JOINED, effect], "effect_against_faithfulness")
    rows = of_methods(table, methods)
    rows = rows.loc[np.isfinite(rows["relative_rmse"]) & np.isfinite(rows[effect])]
    require_columns(rows, _JOINED, "effect_against_faithfulness (finite values)")
    looks = method_looks(rows["method"])
    parts = [part for _, part in rows.groupby("method", sort=False)]
    traces = [_path(part, effect, looks[part["method"].iloc[0]]) for part in parts]
    figure = figure_of([*traces, *_ideal(rows, effect)])
    figure.update_xaxes(range=_range(rows["relative_rmse"], 1.0))
    figure.update_yaxes(range=_range(rows[effect], 1.0 if effect == "recovered" else 0.0))
    usual = "Up and left is the prompt. Numbers at points are strengths."
    plan = Plan(
        title,
        f"{usual}{_layers(table)}{against(table)}" if says is None else says,
        [Panel(x=x, y=NAMES.get(effect, plain_text(effect)), high=1.1)],
        labels=True,
    )
    return planned(figure, plan)


def _layers(table: pd.DataFrame) -> str:
    if "first_layer" not in table:
        return ""
    first, last = int(table["first_layer"].min()), int(table["last_layer"].max())
    return f" Layers {first} to {last}."


def _path(part: pd.DataFrame, effect: str, look: object) -> go.Scatter:
    part = part.sort_values("strength_value")
    name = str(part["method"].iloc[0])
    labels = ["" if pd.isna(value) else f"{value:.3g}" for value in part["strength_value"]]
    fitted = [str(strength) if pd.notna(strength) else "" for strength in part["strength"]]
    line = line_of(look, "")  # pyright: ignore[reportArgumentType]
    return go.Scatter(
        x=part["relative_rmse"].tolist(),
        y=part[effect].tolist(),
        name=plain_text(name),
        mode="markers" if name in REFERENCES else "lines+markers+text",
        text=labels,
        customdata=labels,
        textposition="top center",
        textfont={"size": 10, "color": line["color"]},
        line=line,
        marker={
            "size": 8,
            "color": line["color"],
            "symbol": [marker_of(look, each) for each in fitted],  # pyright: ignore
        },
        hovertemplate=f"<b>{plain_text(name)} × %{{customdata}}</b><br>relative RMSE %{{x:.3f}}<br>"
        f"{effect} %{{y:.3f}}<extra></extra>",
    )


def _ideal(rows: pd.DataFrame, effect: str) -> list[go.Scatter]:
    """The prompt itself, where its effect is known: all of it, at no distance."""
    if effect != "recovered" or "prompt" in set(rows["method"]):
        return []
    return [
        go.Scatter(
            x=[0.0],
            y=[1.0],
            name="prompt",
            mode="markers",
            marker={"symbol": "star", "size": 14, "color": "#0072b2"},
            hovertemplate="<b>prompt</b>: by definition<extra></extra>",
        )
    ]


def _range(values: pd.Series, also: float) -> list[float]:
    ends = [0.0, also, *values.tolist()]
    spare = 0.08 * (max(ends) - min(ends))
    return [min(ends) - spare, max(ends) + spare]
