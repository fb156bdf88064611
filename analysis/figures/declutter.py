"""Labels at points: only those that lie over no other are drawn, the first ones first."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import plotly.graph_objects as go

from .lettering import LINE, text_width
from .looks import Look

Box = tuple[float, float, float, float]


def declutter(figure: go.Figure, width: float, height: float, look: Look) -> None:
    """Leave out labels of points that would overlap at this size; the hover text has them still.

    The axes need their ranges. The whole labels are kept in each trace's `meta`.
    """
    layout: Any = figure.layout
    (left, right), (low, high) = layout.xaxis.range, layout.yaxis.range
    size = 0.8 * look.size
    taken: list[Box] = []
    traces: Any = figure.data
    for trace in traces:
        if "text" not in (trace.mode or ""):
            continue
        every = list(trace.meta or trace.text)
        shown = []
        for x, y, label in zip(trace.x, trace.y, every, strict=True):
            across = (x - left) / (right - left) * width
            up = (y - low) / (high - low) * height
            half = 0.5 * text_width(label, 0.8 * look.letters) + 2
            box = (across - half, across + half, up + 3, up + 5 + LINE * size)
            fits = _inside(box, width, height) and not any(_meet(box, other) for other in taken)
            taken += [box] * fits
            shown.append(label if fits else "")
        trace.update(meta=every, text=shown, textfont_size=size)


def _inside(box: Box, width: float, height: float) -> bool:
    return box[0] >= 0 and box[1] <= width and box[3] <= height


def _meet(first: Sequence[float], second: Sequence[float]) -> bool:
    return (
        first[0] < second[1]
        and second[0] < first[1]
        and first[2] < second[3]
        and second[2] < first[3]
    )
