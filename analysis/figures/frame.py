"""The layout of a figure at a given width: margins, panels, ticks and legend from widths of texts.

Nothing is left to plotly's own margins, which know no legend below and no small page: every text
gets its room beforehand, so that none lies over another.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

import plotly.graph_objects as go

from .declutter import declutter
from .lettering import shortened, text_width, wrapped
from .looks import NOTEBOOK, Look, template_of, users_template
from .page import Page
from .plan import IN_CELLS, Panel, Plan, Ticks, axes_of, plan_of
from .recolour import recolour

STEPS = (1, 2, 3, 4, 5, 8, 10, 16, 20, 25, 32, 40, 50, 64, 80, 100, 128, 200)
CLEAR = '<br><span style="font-size:5px">\u200b</span>'
"""Behind the title of a colour bar, which plotly would lay over the bar."""


def planned(figure: go.Figure, plan: Plan) -> go.Figure:
    """The figure with its plan, laid out as in a notebook; returned for chaining."""
    plan.keep(figure)
    return fit(figure, NOTEBOOK)


def fitted(
    figure: go.Figure, width: float | int | None, height: float | int | None = None
) -> go.Figure:
    """A copy at this width (and height) in the look it has."""
    plan, copy = plan_of(figure), go.Figure(figure)
    if plan is None:
        return copy.update_layout(width=width, height=height)
    look = Look(**plan.state["look"])
    return fit(copy, replace(look, width=float(width)) if width else look, height)


def fit(figure: go.Figure, look: Look, height: float | int | None = None) -> go.Figure:
    """Lay a figure of ours out for a look; its own texts, panels and data stay."""
    plan = plan_of(figure)
    assert plan is not None
    figure.update_layout(template=template_of(look, users_template(figure)))
    state = recolour(figure, plan.state, look)
    page = Page.of(figure, plan, look)
    page = page.as_high_as(height) if height else page
    _write_head(figure, page)
    _write_panels(figure, page)
    _write_foot(figure, page)
    _size_marks(figure, page)
    if plan.labels:
        declutter(figure, page.panel_width, page.heights[0], look)
    replace(plan, state={**state, "look": asdict(look)}).keep(figure)
    return figure


def _write_head(figure: go.Figure, page: Page) -> None:
    figure.update_layout(
        width=page.look.width,
        height=page.top + page.inner + page.bottom,
        margin={"l": page.left, "r": page.right, "t": page.top, "b": page.bottom, "pad": 0},
        title={
            "text": page.title or None,
            "subtitle": {"text": page.subtitle or None},
            "x": 0,
            "xref": "container",
            "y": 1,
            "yref": "container",
            "yanchor": "top",
            "pad": {"t": 8, "l": 10},
        },
    )


def _write_panels(figure: go.Figure, page: Page) -> None:
    width = page.look.base - page.left - page.right
    notes: list[dict[str, Any]] = []
    top = 0.0
    for number, row in enumerate(page.rows):
        top += page.above(row)
        high = 1 - top / page.inner
        low = high - page.heights[number] / page.inner
        for column, panel in enumerate(row):
            place = number * page.across + column
            left = column * (page.panel_width + page.gap) / width
            right = min(1.0, left + page.panel_width / width)
            _write_axes(figure, page, place, (left, right), (max(0.0, low), high))
            if panel.title:
                notes.append(_panel_title(page, panel, (left + right) / 2, high))
        top += page.heights[number] + page.below(number)
    figure.update_layout(annotations=notes)


def _panel_title(page: Page, panel: Panel, middle: float, high: float) -> dict[str, Any]:
    return {
        "text": page.panel_title(panel),
        "xref": "paper", "yref": "paper", "x": middle, "y": high, "xanchor": "center",
        "yanchor": "bottom", "yshift": 1, "showarrow": False, "borderpad": 0,
        "font": {"size": 0.95 * page.look.size},
    }  # fmt: skip


def _write_axes(
    figure: go.Figure,
    page: Page,
    place: int,
    columns: tuple[float, float],
    rows: tuple[float, float],
) -> None:
    panel, first = page.plan.panels[place], place % page.across == 0
    x, y = axes_of(place)
    size = page.look.size
    last = page.has_right_labels(place)
    shown = page.has_x_labels(place)
    high = page.heights[place // page.across]
    x_title = wrapped(panel.x, page.look.letters, page.panel_width) if shown else ""
    figure.layout[f"xaxis{x[1:]}"].update(  # pyright: ignore
        domain=columns,
        anchor=y,
        automargin=False,
        showticklabels=shown,
        **({"range": list(panel.x_range)} if panel.x_range else {}),
        title={"text": x_title or None, "standoff": 0.4 * size},
        **_ticks(page, panel.x_ticks, panel.x_range, page.panel_width, across=True),
    )
    has_y = first or last or not page.plan.share_y
    figure.layout[f"yaxis{y[1:]}"].update(  # pyright: ignore
        domain=rows,
        anchor=x,
        automargin=False,
        side="right" if last else "left",
        showticklabels=has_y,
        **({"range": list(panel.y_range)} if panel.y_range else {}),
        title={"text": (page.y_title(panel) or None) if has_y and not last else None,
               "standoff": 0.4 * size},
        **_ticks(page, panel.y_ticks, panel.y_range, high, across=False),
    )  # fmt: skip


def _ticks(
    page: Page, number: int | None, span: Sequence[float] | None, pixels: float, *, across: bool
) -> dict[str, Any]:
    """Which places of an axis are labelled: all, or every second, third, ... that has room."""
    size, letters = 0.9 * page.look.size, 0.9 * page.look.letters
    ticks = page.ticks(number)
    if ticks is None:
        each = 1.5 * text_width("0.000", letters) if across else 2.4 * size
        return {"nticks": max(2, int(pixels / each) + 1), "tickangle": 0}
    labels = _short(page, ticks, letters, across)
    flat = across and not ticks.turned
    need = max(text_width(label, letters) for label in labels) + 0.7 * size if flat else 1.3 * size
    fitting = max(1, math.ceil(need * _span(page, number, span) / pixels))
    step = next((step for step in STEPS if step >= fitting), fitting)
    return {
        "tickmode": "array",
        "tickvals": list(ticks.values[::step]),
        "ticktext": labels[::step],
        "tickangle": -90 if across and ticks.turned else 0,
    }


def _short(page: Page, ticks: Ticks, letters: float, across: bool) -> list[str]:
    limit = (0.16 if across else 0.26 if ticks.cells else 0.38) * page.look.base
    return [shortened(label, letters, limit) for label in ticks.labels]


def _size_marks(figure: go.Figure, page: Page) -> None:
    """Marks in the cells of a map, as large as the cells allow."""
    traces: Any = figure.data
    for trace in traces:
        if trace.meta != IN_CELLS:
            continue
        place = int((trace.xaxis or "x")[1:] or 1) - 1
        panel = page.plan.panels[place]
        spans = (
            _span(page, panel.x_ticks, panel.x_range),
            _span(page, panel.y_ticks, panel.y_range),
        )
        room = (page.panel_width, page.heights[place // page.across])
        cell = min(pixels / span for pixels, span in zip(room, spans, strict=True))
        trace.marker.size = max(1.0, min(0.62 * cell, 0.7 * page.look.size))


def _span(page: Page, number: int | None, span: Sequence[float] | None) -> float:
    """How many cells an axis has."""
    ticks = page.ticks(number)
    return abs(span[1] - span[0]) if span else float(len(ticks.values) if ticks else 1)


def _write_foot(figure: go.Figure, page: Page) -> None:
    size = page.look.size
    if page.plan.bar:
        figure.update_layout(
            showlegend=False,
            coloraxis_colorbar={
                "orientation": "h", "xref": "paper", "yref": "container", "x": 1, "y": 0,
                "xanchor": "right", "yanchor": "bottom", "ypad": 6, "xpad": 0,
                "lenmode": "pixels", "len": page.bar_length, "thickness": 0.8 * size,
                "title": {
                    "text": page.bar_title + CLEAR,
                    "side": "top",
                    "font": {"size": 0.95 * size},
                },
                "tickfont": {"size": 0.9 * size}, "nticks": 5, "tickangle": 0,
                "exponentformat": "power", "outlinewidth": 0,
            },
        )  # fmt: skip
        return
    figure.update_layout(showlegend=page.legend is not None)
    if page.legend is not None:
        figure.update_layout(legend=page.legend.layout)
