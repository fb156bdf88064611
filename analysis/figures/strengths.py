"""How unevenly a push is spread: the strengths of all tokens of a coefficient table, sorted."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from .frame import planned
from .plan import Panel, Plan, figure_of
from .rows import (
    CELL,
    against,
    chosen,
    lines_of,
    name_of,
    of_methods,
    plain_text,
    require_columns,
    require_single,
    sinks_in,
    strength_of,
)
from .style import Look, line_of, marker_of, method_looks


def sorted_strengths(
    table: pd.DataFrame,
    layer: int,
    methods: Sequence[str] | None = None,
    view: str = "accumulated",
) -> go.Figure:
    """|along| of all tokens at one layer, sorted and divided by its maximum, a curve per method.

    Flat at 1: every token is pushed alike. Steep: a few tokens carry the push. Sinks (`sink` in the
    table) are left out and counted.
    """
    require_columns(table, [*CELL, "along"], "sorted_strengths")
    rows = of_methods(chosen(chosen(table, "view", view), "layer", layer), methods)
    sinks = sinks_in(rows)
    places = rows.loc[sinks, ["example", "token_index"]].drop_duplicates()
    rows = rows.loc[~sinks]
    if rows.empty:
        raise ValueError(
            f"every token at layer {layer} is a sink: draw another layer, or measure with "
            "sinks=inf."
        )
    looks = method_looks(rows["method"])
    figure = figure_of(
        [_sorted_line(each, looks[each["method"].iloc[0]]) for each in lines_of(rows)]
    )
    figure.update_xaxes(tickformat=".0%")
    figure.update_yaxes(range=[-0.02, 1.05])
    left_out = f" Sinks left out: {len(places)}." if len(places) else ""
    subtitle = f"Layer {layer}, {view} view. Flat at 1: every token is pushed alike.{left_out}"
    title = "How unevenly the push is spread over tokens"
    panel = Panel(x="share of the tokens, strongest first", y="|along| / its largest value")
    return planned(figure, Plan(title, f"{subtitle}{against(rows)}", [panel]))


def _sorted_line(line: pd.DataFrame, look: Look) -> go.Scatter:
    require_single(line, ["example", "token_index"])
    line = line.loc[np.isfinite(line["along"])]
    line = line.assign(size=line["along"].abs()).sort_values("size", ascending=False, kind="stable")
    if line.empty:
        raise ValueError("a method has no finite `along` at this layer: leave it out of `methods`.")
    name, largest = name_of(line), line["size"].iloc[0]
    return go.Scatter(
        x=(np.arange(len(line)) + 1) / len(line),
        y=(line["size"] / (largest or 1.0)).to_numpy(),
        name=f"{name}: largest {largest:.3g}" if largest else f"{name}: no change at this layer",
        mode="lines+markers",  # a single token has no line
        line={**line_of(look, strength_of(line)), "shape": "vh"},
        marker={"size": 6, "symbol": marker_of(look, strength_of(line)), "maxdisplayed": 10},
        text=[plain_text(token) for token in line["token"]],
        customdata=line[["example", "token_index", "along"]].to_numpy(dtype=object),
        hovertemplate=f"<b>“%{{text}}”</b>, {name}<br>example %{{customdata[0]}}, "
        "position %{customdata[1]}<br>along %{customdata[2]:.3g}, %{y:.0%} of the largest"
        "<extra></extra>",
    )
