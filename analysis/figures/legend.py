"""The legend of a figure: below it in columns, or beside it where many lines leave room."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import plotly.graph_objects as go

from .lettering import LINE, lines_in, text_width
from .looks import Look

MANY = 8
"""More lines than this have their legend beside the figure, where it leaves most of the width."""
_MARK = 42  # pixels that plotly takes for the line and its gaps


@dataclass(frozen=True)
class Legend:
    """Its size in pixels, and what plotly is told."""

    width: float
    height: float
    beside: bool
    layout: dict[str, Any]


def legend_of(figure: go.Figure, look: Look, left: float, *, aside: bool) -> Legend | None:
    """The legend of the traces that ask for one; None for fewer than two.

    Plotly makes a legend below as wide as the panels, so what is `left` of them is no room;
    `aside` says whether it may stand beside them.
    """
    traces: Any = figure.data
    names = [trace.name for trace in traces if trace.name and trace.showlegend is not False]
    if len(names) < 2:
        return None
    letters = 0.92 * look.letters
    entry = max(text_width(name, letters) for name in names) + 4
    lines = max(lines_in(name) for name in names)
    each = max(LINE * 0.92 * look.size * lines, 16) + 3
    common = {"traceorder": "normal", "tracegroupgap": 0, "bgcolor": "rgba(0,0,0,0)"}
    if aside and len(names) > MANY and look.base >= 560 and entry + _MARK < 0.4 * look.base:
        place = {"orientation": "v", "x": 1, "xanchor": "left", "y": 1, "yanchor": "top"}
        refs = {"xref": "paper", "yref": "paper", "entrywidth": 0}
        layout = {**common, **place, **refs}
        return Legend(entry + _MARK + 10, float(each * len(names) + 16), True, layout)
    room = look.base - left - 14
    one_row = sum(text_width(name, letters) + _MARK + 6 for name in names) < room
    across = len(names) if one_row else max(1, int(room // (entry + _MARK + 4)))
    rows = -(-len(names) // across)
    place = {"orientation": "h", "x": 0, "xanchor": "left", "y": 0, "yanchor": "bottom"}
    refs = {"xref": "container", "yref": "container", "entrywidth": 0 if one_row else entry}
    layout = {**common, **place, **refs}
    return Legend(room, float(each * rows + 5), False, layout)
