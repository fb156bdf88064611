"""Maps of a coefficient table: tokens against layers, a panel for each method and strength."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from .rows import (
    CELL,
    chosen,
    lines_of,
    name_of,
    of_methods,
    plain_text,
    require_columns,
    require_single,
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
_GAP = 84  # pixels between rows of panels
NOT_FINITE = "#a6a6a6"
_HOVER_CELL = "<b>“%{hovertext}”</b><br>position %{y:d}, layer %{x}<br>"


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
    at the `colour_quantile` of |value|, as the colour bar then says. What is not finite is grey.
    """
    require_columns(table, [*CELL, *MEASURES], "coefficient_heatmap")
    if column not in MEASURES:
        raise ValueError(f"there is no measure {column!r} to draw: choose of {list(MEASURES)}.")
    rows = _of_example(of_methods(chosen(table, "view", view), methods), example)
    tokens, layers, lines = _tokens(rows), sorted(rows["layer"].unique().tolist()), lines_of(rows)
    across = min(len(lines), PANELS_ACROSS)
    down = -(-len(lines) // across)
    height = max(17 * (max(tokens) - min(tokens) + 1), 220)
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
    _label_map(figure, tokens)
    figure.update_layout(height=down * (height + _GAP) - _GAP + 180)
    figure.update_layout(coloraxis=_colour_axis(rows[column], column, colour_quantile))
    grey = " Grey cells: × not measured, ∞ infinite." if any(p[1:] for p in panels) else ""
    subtitle = f"Example {rows['example'].iloc[0]}, {view} view, tokens against layers.{grey}"
    return titled(figure, "The push on each token at each layer", subtitle, top=120)


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
    cells = line.pivot(index="token_index", columns="layer").reindex(places)
    values, off_axis, relative = (
        cells.reindex(columns=[(name, layer) for layer in layers]).to_numpy(dtype=np.float64)
        for name in (column, "off_axis", "relative_norm")
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
    return [map_of_cells, *_grey(map_of_cells, values)]


def _grey(map_of_cells: go.Heatmap, values: np.ndarray) -> list[go.Heatmap]:
    if np.isfinite(values).all():
        return []
    infinite = np.where(values > 0, "∞", "−∞")
    return [
        go.Heatmap(
            x=map_of_cells.x,
            y=map_of_cells.y,
            z=np.where(np.isfinite(values), np.nan, 0.0),
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


def _label_map(figure: go.Figure, tokens: dict[int, str]) -> None:
    names = {place: visible(token) for place, token in tokens.items()}
    short = {place: n if len(n) <= 16 else n[:15] + "…" for place, n in names.items()}
    figure.update_yaxes(
        range=[max(tokens) + 0.5, min(tokens) - 0.5],
        tickvals=list(tokens),
        ticktext=[f"{place} {plain_text(name)}" for place, name in short.items()],
        tickfont={"size": 11},
        showgrid=False,
        zeroline=False,
    )
    figure.update_xaxes(type="category", showgrid=False, tickangle=0, tickfont={"size": 10})
    figure.update_xaxes(title={"text": "layer", "standoff": 4})
    figure.update_annotations(font={"size": 12})
