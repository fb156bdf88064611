"""Maps of a coefficient table: tokens against layers, a panel for each method and strength."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

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
)
from .style import titled
from .tokens import DIVERGING, visible

MEASURES = {
    "along": "along the direction (mean prompt push = 1)",
    "off_axis": "off the axis (norm of the change not along the direction)",
    "norm": "norm of the change",
    "relative_norm": "norm of the change / norm of the plain activation",
    "rank1_share": "share of the change along the direction (1 = all)",
}
"""What can be drawn of a coefficient table, with its unit."""
PANELS_ACROSS = 5
CELLS_ACROSS = 60  # layers of all panels beside each other, and so narrow a cell at most
HIGHEST = 1400  # pixels of a panel of many tokens, unless a token would have less than five
SINK_MARK = "◇"
_GAP = 84  # pixels between rows of panels
NOT_FINITE = "#a6a6a6"
GREY = "not finite"
_HOVER_CELL = "<b>“%{hovertext}”</b><br>position %{y:d}, layer %{x}<br>"

NEARLY_ALL, SPOILS = 0.98, 3.0
"""Colours end at this quantile where the largest value is over so many times as far from 0."""


def coefficient_heatmap(
    table: pd.DataFrame,
    column: str = "along",
    *,
    example: int | None = None,
    methods: Sequence[str] | None = None,
    view: str = "accumulated",
    colour_quantile: float | None = None,
) -> go.Figure:
    """A token x layer map of one measure, a panel per method and strength, on one scale around 0.

    It shows one example: name it if the table has several. Colours end at the largest |value|, or
    at the `colour_quantile` of |value|, as the colour bar then says; without one they end at the
    98 % quantile where the largest is over three times as far and would leave the rest pale. Sinks
    (`sink` in the table) are marked and do not count there. What is not finite is grey. Rows get
    lower and labels fewer where there are many tokens, and panels go below each other where there
    are many layers.
    """
    require_columns(table, [*CELL, *MEASURES], "coefficient_heatmap")
    if column not in MEASURES:
        raise ValueError(f"there is no measure {column!r} to draw: choose of {list(MEASURES)}.")
    rows = _of_example(of_methods(chosen(table, "view", view), methods), example)
    tokens, layers, lines = _tokens(rows), sorted(rows["layer"].unique().tolist()), lines_of(rows)
    across = min(len(lines), PANELS_ACROSS, max(1, CELLS_ACROSS // len(layers)))
    down, each = -(-len(lines) // across), _row_height(tokens)
    height = max(each * (max(tokens) - min(tokens) + 1), 220)
    figure = make_subplots(
        rows=down,
        cols=across,
        shared_yaxes=True,
        horizontal_spacing=0.012,
        vertical_spacing=_GAP / (down * (height + _GAP) - _GAP),
        subplot_titles=[name_of(line, "<br>") for line in lines],
    )
    panels = [_panel(line, column, tokens, layers) for line in lines]
    for i, panel in enumerate(panels):
        for trace in panel:
            figure.add_trace(trace, row=i // across + 1, col=i % across + 1)
    _label_axes(figure, tokens, each, layers, across)
    figure.update_layout(height=down * (height + _GAP) - _GAP + 200)
    ordinary = rows.loc[~sinks_in(rows), column]
    figure.update_layout(coloraxis=_colour_axis(ordinary, column, colour_quantile))
    grey = any(trace.name == GREY for panel in panels for trace in panel)
    said = " Grey cells: × not measured, ∞ infinite." * grey + _sinks_said(rows) + against(rows)
    subtitle = f"Example {rows['example'].iloc[0]}, {view} view, tokens against layers.{said}"
    return titled(figure, "The push on each token at each layer", subtitle, top=140)


def _row_height(tokens: dict[int, str]) -> int:
    """Pixels for a token."""
    return min(17, max(5, HIGHEST // (max(tokens) - min(tokens) + 1)))


def _sinks_said(rows: pd.DataFrame) -> str:
    """How many tokens of the example are sinks, at which layers."""
    sinks = rows.loc[sinks_in(rows)]
    if sinks.empty:
        return ""
    layers, n = sorted(sinks["layer"].unique()), sinks["token_index"].nunique()
    where = f"layer {layers[0]}" if len(layers) == 1 else f"layers {layers[0]} to {layers[-1]}"
    several = n > 1
    return f"<br>{SINK_MARK} {n} sink{'s' * several} ({where}), not in the direction or the scale."


def _of_example(table: pd.DataFrame, example: int | None) -> pd.DataFrame:
    there = table["example"].drop_duplicates().tolist()
    if example is None and len(there) > 1:
        raise ValueError(
            f"the table holds {len(there)} examples, {there[:10]}, and a map shows one: "
            f"pass example={there[0]}."
        )
    return chosen(table, "example", there[0] if example is None else example)


def _tokens(table: pd.DataFrame) -> dict[int, str]:
    pairs = table.drop_duplicates(["token_index", "token"]).sort_values("token_index")
    clash = pairs.loc[pairs["token_index"].duplicated(keep=False)]
    if len(clash):
        raise ValueError(
            f"the methods disagree on the token at position {clash['token_index'].iloc[0]}: "
            f"{clash['token'].tolist()[:4]}. Measure all of them on the same response ids."
        )
    return dict(zip(pairs["token_index"].tolist(), pairs["token"].tolist(), strict=True))


def _panel(
    line: pd.DataFrame, column: str, tokens: dict[int, str], layers: list[int]
) -> list[go.Heatmap]:
    """The cells of one panel and, where some are not finite, those again in grey."""
    require_single(line, ["token_index", "layer"])
    places = range(min(tokens), max(tokens) + 1)
    line = line.assign(sink=sinks_in(line).astype(float))
    cells = line.pivot(index="token_index", columns="layer").reindex(places)
    values, off_axis, relative, sinks = (
        cells.reindex(columns=[(name, layer) for layer in layers]).to_numpy(dtype=np.float64)
        for name in (column, "off_axis", "relative_norm", "sink")
    )
    map_of_cells = go.Heatmap(
        x=[str(layer) for layer in layers],
        y=list(places),
        z=np.where(np.isfinite(values), values, np.nan),
        hovertext=[[plain_text(tokens.get(place, ""))] * len(layers) for place in places],
        customdata=np.dstack([off_axis, relative]),
        coloraxis="coloraxis",
        hoverongaps=False,
        hovertemplate=f"{_HOVER_CELL}{column} %{{z:.3g}}<br>off axis %{{customdata[0]:.3g}}<br>"
        "change / activation %{customdata[1]:.3g}<extra></extra>",
    )
    return [map_of_cells, *_grey(map_of_cells, values), *_marked(map_of_cells, sinks)]


def _marked(map_of_cells: go.Heatmap, sinks: np.ndarray) -> list[go.Heatmap]:
    """A see-through layer with a mark on each sink."""
    if not (sinks == 1).any():
        return []
    return [
        go.Heatmap(
            x=map_of_cells.x,
            y=map_of_cells.y,
            z=np.where(sinks == 1, 0.0, np.nan),
            name="sink",
            text=np.where(sinks == 1, SINK_MARK, ""),
            texttemplate="%{text}",
            textfont={"size": 10, "color": "#000000"},
            colorscale=[[0, "rgba(255,255,255,0.55)"], [1, "rgba(255,255,255,0.55)"]],
            showscale=False,
            hoverinfo="skip",
            hoverongaps=False,
        )
    ]


def _grey(map_of_cells: go.Heatmap, values: np.ndarray) -> list[go.Heatmap]:
    if np.isfinite(values).all():
        return []
    infinite = np.where(values > 0, "∞", "−∞")
    return [
        go.Heatmap(
            x=map_of_cells.x,
            y=map_of_cells.y,
            z=np.where(np.isfinite(values), np.nan, 0.0),
            name=GREY,
            text=np.where(np.isnan(values), "×", np.where(np.isinf(values), infinite, "")),
            texttemplate="%{text}",
            textfont={"size": 9},
            hovertext=map_of_cells.hovertext,
            customdata=np.where(np.isnan(values), "not measured", infinite),
            colorscale=[[0, NOT_FINITE], [1, NOT_FINITE]],
            showscale=False,
            hoverongaps=False,
            hovertemplate=f"{_HOVER_CELL}%{{customdata}}<extra></extra>",
        )
    ]


def _colour_axis(values: pd.Series, column: str, quantile: float | None) -> dict[str, object]:
    if quantile is not None and not 0 < quantile <= 1:
        raise ValueError(f"colour_quantile={quantile} is no share: pass one above 0, at most 1.")
    sizes = np.abs(values.to_numpy(dtype=np.float64))
    sizes = sizes[np.isfinite(sizes)]
    if (
        quantile is None
        and sizes.size
        and sizes.max() > SPOILS * np.quantile(sizes, NEARLY_ALL) > 0
    ):
        quantile = NEARLY_ALL
    limit = float(np.quantile(sizes, quantile or 1.0)) if sizes.size else 0.0
    ends = f"<br>colours end at the {100 * quantile:g} % quantile" if quantile else ""
    return {
        "colorscale": list(DIVERGING),
        "cmin": -(limit or 1.0),
        "cmid": 0,
        "cmax": limit or 1.0,
        "colorbar": {
            "title": {"text": MEASURES[column] + ends, "side": "right", "font": {"size": 13}},
            "thickness": 14,
            "exponentformat": "power",
        },
    }


def _label_axes(
    figure: go.Figure, tokens: dict[int, str], each: int, layers: list[int], across: int
) -> None:
    _label_map(figure, tokens, each)
    _label_layers(figure, layers, across)


def _label_layers(figure: go.Figure, layers: list[int], across: int) -> None:
    """A number below each layer, or below every second, third, ... where they are many."""
    step = -(-len(layers) * across // 50)
    shown = [str(layer) for layer in layers[::step]]
    figure.update_xaxes(tickmode="array", tickvals=shown, ticktext=shown)


def _label_map(figure: go.Figure, tokens: dict[int, str], each: int) -> None:
    """A label beside each token, or beside every second, third, ... where rows are low."""
    step = -(-13 // each)
    names = {p: visible(token) for i, (p, token) in enumerate(tokens.items()) if i % step == 0}
    short = {place: n if len(n) <= 16 else n[:15] + "…" for place, n in names.items()}
    figure.update_yaxes(
        range=[max(tokens) + 0.5, min(tokens) - 0.5],
        tickvals=list(short),
        ticktext=[f"{place} {plain_text(name)}" for place, name in short.items()],
        tickfont={"size": 11},
        showgrid=False,
        zeroline=False,
    )
    figure.update_xaxes(type="category", showgrid=False, tickangle=0, tickfont={"size": 10})
    figure.update_xaxes(title={"text": "layer", "standoff": 4})
    figure.update_annotations(font={"size": 12})
