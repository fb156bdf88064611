"""Maps of a coefficient table: tokens against layers, a panel for each method and strength."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from html import escape

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from .cells import ABOVE, BELOW, BEYOND, GREY, SINK_MARK, Map
from .frame import planned
from .plan import Panel, Plan, Ticks, figure_of, on_panel
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
from .tokens import DIVERGING, visible
from .units import unit_of

MEASURES = {
    "along": "along the direction",
    "off_axis": "off the axis (norm of the change not along the direction)",
    "norm": "norm of the change",
    "relative_norm": "norm of the change / norm of the plain activation",
    "rank1_share": "share of the change along the direction (1 = all)",
}
"""What can be drawn of a coefficient table."""
PANELS_ACROSS = 5
MANY_TOKENS = 40
"""With more tokens than this labels are on both sides."""
PER_STRIP, MOST_STRIPS = 60, 24
NEARLY_ALL = 0.98
"""Colours end at this quantile of |value|."""


def coefficient_heatmap(
    table: pd.DataFrame,
    column: str = "along",
    *,
    example: int | None = None,
    methods: Sequence[str] | None = None,
    view: str = "accumulated",
    colour_quantile: float | None = None,
    tokens: tuple[int, int] | None = None,
    transposed: bool = False,
    per_strip: int | None = None,
) -> go.Figure:
    """A token x layer map of one measure, a panel per method and strength, on one scale around 0.

    It shows one example: name it if the table has several; `tokens=(0, 60)` shows its first 60.
    Colours end at the 98 % quantile of |value|, or at `colour_quantile`, as the colour bar says,
    and ▴ and ▾ mark the cells beyond. Sinks (`sink` in the table) are marked and do not count
    there. What is not finite is grey. `transposed` has the tokens from left to right, in strips of
    `per_strip` tokens below each other, by default of 60 where that makes no more than 24 strips.
    The unit is the table's own (`unit`).
    """
    require_columns(table, [*CELL, *MEASURES], "coefficient_heatmap")
    if column not in MEASURES:
        raise ValueError(f"there is no measure {column!r} to draw: choose of {list(MEASURES)}.")
    rows = of_example(of_methods(chosen(table, "view", view), methods), example, tokens)
    plan = Plan(
        "The push on each token at each layer",
        f"Example {rows['example'].iloc[0]}, {view} view, tokens against layers.",
        bar=f"{MEASURES[column]}{escape(unit_of(rows, column), quote=False)}",
    )
    strips = (per_strip or _per_strip(rows)) if transposed else None
    return map_of(rows, column, plan, colour_quantile, strips)


def map_of(
    rows: pd.DataFrame, column: str, plan: Plan, quantile: float | None, per_strip: int | None
) -> go.Figure:
    """The map of all rows, which are of one example; with strips, tokens run from left to right."""
    names, layers = _tokens(rows), sorted(rows["layer"].unique().tolist())
    limit = _limit(rows.loc[~sinks_in(rows), column], quantile)
    parts = [names] if per_strip is None else _strips(names, per_strip)
    turned = per_strip is not None
    traces: list[go.Heatmap | go.Scatter] = []
    panels: list[Panel] = []
    lines, clipped = lines_of(rows), 0
    for number, part in enumerate(parts):
        for line in lines:
            require_single(line, ["token_index", "layer"])
            cells = Map.of(line, column, part, layers, limit)
            clipped += int(cells.beyond.sum())
            traces += on_panel(cells.traces(turned), len(panels))
            panels.append(_panel(name_of(line, "<br>"), number, part, per_strip))
            if turned and line is not lines[-1]:
                panels[-1] = replace(panels[-1], bare=True)
    figure = figure_of(traces, len(panels))
    figure.update_layout(coloraxis=_colour_axis(limit))
    _set_axes(figure, layers, turned)
    plan = replace(
        plan,
        subtitle=f"{plan.subtitle}{_grey_said(traces)}{_sinks_said(rows)}{against(rows)}",
        panels=panels,
        ticks=_all_ticks(parts, layers, turned),
        across=1 if turned else PANELS_ACROSS,
        least=max(6.5, 0.38 * len(layers)),
        share_y=not turned,
        bar=plan.bar + _ends_said(clipped, traces, quantile or NEARLY_ALL),
        both_sides=not turned and len(names) > MANY_TOKENS,
    )
    return planned(figure, plan)


def _per_strip(rows: pd.DataFrame) -> int:
    """60 tokens, or as many as leave no more than so many strips."""
    panels = max(1, MOST_STRIPS // len(lines_of(rows)))
    places = int(rows["token_index"].max() - rows["token_index"].min()) + 1
    return max(PER_STRIP, -(-places // panels))


def _ends_said(clipped: int, traces: Sequence[go.Heatmap | go.Scatter], quantile: float) -> str:
    """Where the colours end, if some cells lie beyond, and how those are marked."""
    if not clipped:
        return ""
    marked = sum(len(list(trace.x or ())) for trace in traces if trace.name == BEYOND)
    how = f"{ABOVE} {BELOW} beyond" if marked == clipped else f"{clipped} cells lie beyond"
    return f"<br>colours end at the {100 * quantile:g} % quantile; {how}"


def _grey_said(traces: Sequence[go.Heatmap | go.Scatter]) -> str:
    grey = any(trace.name == GREY for trace in traces)
    return " Grey cells: × not measured, △ ▽ infinite." * grey


def _sinks_said(rows: pd.DataFrame) -> str:
    """How many tokens of the example are sinks, at which layers."""
    sinks = rows.loc[sinks_in(rows)]
    if sinks.empty:
        return ""
    layers, n = sorted(sinks["layer"].unique()), sinks["token_index"].nunique()
    where = f"layer {layers[0]}" if len(layers) == 1 else f"layers {layers[0]} to {layers[-1]}"
    several = n > 1
    return f"<br>{SINK_MARK} {n} sink{'s' * several} ({where}), not in the direction or the scale."


def of_example(
    table: pd.DataFrame, example: int | None, tokens: tuple[int, int] | None
) -> pd.DataFrame:
    """The rows of one example, and of its tokens from the first place to before the second."""
    there = table["example"].drop_duplicates().tolist()
    if example is None and len(there) > 1:
        raise ValueError(
            f"the table holds {len(there)} examples, {there[:10]}, and a map shows one: "
            f"pass example={there[0]}."
        )
    rows = chosen(table, "example", there[0] if example is None else example)
    if tokens is None:
        return rows
    some = rows.loc[rows["token_index"].between(tokens[0], tokens[1] - 1)]
    if some.empty:
        raise ValueError(
            f"tokens={tokens} holds none: the example has tokens {rows['token_index'].min()} to "
            f"{rows['token_index'].max()}, and the second number is the first left out."
        )
    return some


def _tokens(table: pd.DataFrame) -> dict[int, str]:
    pairs = table.drop_duplicates(["token_index", "token"]).sort_values("token_index")
    clash = pairs.loc[pairs["token_index"].duplicated(keep=False)]
    if len(clash):
        raise ValueError(
            f"the methods disagree on the token at position {clash['token_index'].iloc[0]}: "
            f"{clash['token'].tolist()[:4]}. Measure all of them on the same response ids."
        )
    return dict(zip(pairs["token_index"].tolist(), pairs["token"].tolist(), strict=True))


def _strips(tokens: dict[int, str], per_strip: int) -> list[dict[int, str]]:
    """The tokens in parts of so many places."""
    if per_strip < 1:
        raise ValueError(f"per_strip={per_strip} is no number of tokens: pass 1 or more.")
    starts = range(min(tokens), max(tokens) + 1, per_strip)
    parts = [{p: t for p, t in tokens.items() if s <= p < s + per_strip} for s in starts]
    return [part for part in parts if part]


def _panel(name: str, strip: int, part: dict[int, str], per_strip: int | None) -> Panel:
    first, last = min(part) - 0.5, max(part) + 0.5
    if per_strip is None:
        return Panel(name, "layer", x_ticks=0, y_ticks=1, y_range=(last, first))
    # A last strip of few tokens has cells as wide as the others'.
    wide = (first, max(last, first + per_strip) if strip else last)
    title = name.replace("<br>", ", ")
    return Panel(title, y="layer", x_ticks=strip + 1, y_ticks=0, x_range=wide)


def _all_ticks(parts: list[dict[int, str]], layers: list[int], turned: bool) -> list[Ticks]:
    """Those of the layers first, then those of the tokens of each strip."""
    named = [str(layer) for layer in layers]
    return [
        Ticks(named, named, cells=turned),
        *(
            Ticks(list(part), [_label(p, t) for p, t in part.items()], turned, not turned)
            for part in parts
        ),
    ]


def _label(place: int, token: str) -> str:
    name = visible(token)
    return f"{place} {plain_text(name if len(name) <= 16 else name[:15] + '…')}"


def _set_axes(figure: go.Figure, layers: list[int], turned: bool) -> None:
    bare = {"showgrid": False, "zeroline": False, "showline": False, "ticks": ""}
    named = {**bare, "type": "category", "categoryarray": [str(layer) for layer in layers]}
    figure.update_xaxes(bare if turned else named)
    figure.update_yaxes(named if turned else bare)


def _limit(values: pd.Series, quantile: float | None) -> float:
    """Where the colours end; sinks are not among the values."""
    if quantile is not None and not 0 < quantile <= 1:
        raise ValueError(f"colour_quantile={quantile} is no share: pass one above 0, at most 1.")
    sizes = np.abs(values.to_numpy(dtype=np.float64))
    sizes = sizes[np.isfinite(sizes)]
    limit = float(np.quantile(sizes, quantile or NEARLY_ALL)) if sizes.size else 0.0
    return limit or float(max(sizes, default=0.0)) or 1.0


def _colour_axis(limit: float) -> dict[str, object]:
    return {"colorscale": list(DIVERGING), "cmin": -limit, "cmid": 0, "cmax": limit}
