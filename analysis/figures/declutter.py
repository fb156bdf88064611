"""Labels at points: each on the side where it lies over nothing else, the first ones first."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import plotly.graph_objects as go

from .lettering import LINE, text_width
from .looks import Look

Box = tuple[float, float, float, float]
"""Left, right, lower and upper end, in pixels from the lower left corner of a panel."""
Point = tuple[float, float]
SIDES: dict[str, Point] = {
    "top center": (0, 1),
    "bottom center": (0, -1),
    "middle right": (1, 0),
    "middle left": (-1, 0),
    "top right": (1, 1),
    "top left": (-1, 1),
    "bottom right": (1, -1),
    "bottom left": (-1, -1),
}
"""Where plotly can put a text at a point, the usual side first: across, and up."""


@dataclass
class _Field:
    """A panel in pixels, with what is drawn on it: boxes to keep off, and lines to cross seldom."""

    x: Sequence[float | int]
    y: Sequence[float | int]
    width: float
    height: float
    taken: list[Box] = field(default_factory=list)
    lines: list[tuple[Point, Point]] = field(default_factory=list)

    def place(self, x: Any, y: Any) -> Point:
        """Where a point of the data is; NaN where it has none."""
        x, y = (math.nan if each is None else float(each) for each in (x, y))
        across = (x - self.x[0]) / (self.x[1] - self.x[0]) * self.width
        return across, (y - self.y[0]) / (self.y[1] - self.y[0]) * self.height

    def draw(self, trace: Any) -> None:
        """Note the markers, the line and the error bars of a trace."""
        points = [self.place(x, y) for x, y in zip(trace.x, trace.y, strict=True)]
        if "markers" in trace.mode:
            half = _radius(trace) + 1
            self.taken += [(a - half, a + half, u - half, u + half) for a, u in points]
        if "lines" in trace.mode:
            self.lines += pairwise(points)
        for bar, along in ((trace.error_x, 0), (trace.error_y, 1)):
            for (x, y), more, less in zip(
                zip(trace.x, trace.y, strict=True),
                bar.array or (),
                bar.arrayminus or (),
                strict=False,
            ):
                ends = (
                    ((x + more, y), (x - less, y)) if along == 0 else ((x, y + more), (x, y - less))
                )
                self.lines.append((self.place(*ends[0]), self.place(*ends[1])))

    def side_of(self, point: Point, radius: float, wide: float, high: float) -> str | None:
        """The side at which a label lies over no mark and fewest lines, which is then taken."""
        free: dict[str, Box] = {}
        for side, (across, up) in SIDES.items():
            off = (wide / 2 + radius) * across, (high / 2 + radius) * up
            x, y = point[0] + off[0], point[1] + off[1]
            box = (x - wide / 2, x + wide / 2, y - high / 2, y + high / 2)
            if self._holds(box) and not any(_meet(box, other) for other in self.taken):
                free[side] = box
        if not free:
            return None
        side = min(free, key=lambda name: sum(_crosses(free[name], line) for line in self.lines))
        self.taken.append(free[side])
        return side

    def _holds(self, box: Box) -> bool:
        return box[0] >= 0 and box[1] <= self.width and box[2] >= 0 and box[3] <= self.height


def declutter(figure: go.Figure, width: float, height: float, look: Look) -> None:
    """Move labels of points aside that would lie over something at this size; leave out the rest.

    The hover text has them still. The axes need their ranges. The whole labels are kept in each
    trace's `meta`.
    """
    for axes, traces in _panels(figure):
        x, y = (figure.layout[name].range for name in axes)  # pyright: ignore
        panel = _Field(x, y, width, height)
        for trace in traces:
            panel.draw(trace)
        for trace in traces:
            if "text" in trace.mode:
                _label(trace, panel, look)


def _panels(figure: go.Figure) -> Iterator[tuple[tuple[str, str], list[Any]]]:
    """The axes of each panel, and the traces on it that have points."""
    found: dict[tuple[str, str], list[Any]] = defaultdict(list)
    traces: Any = figure.data
    for trace in traces:
        axes = (trace.xaxis or "x")[1:], (trace.yaxis or "y")[1:]
        if trace.mode:
            found[f"xaxis{axes[0]}", f"yaxis{axes[1]}"].append(trace)
    yield from found.items()


def _label(trace: Any, panel: _Field, look: Look) -> None:
    size, high = 0.8 * look.size, LINE * 0.8 * look.size
    away = _radius(trace) / 0.8 + 1  # as plotly.js has it
    every, shown, sides = list(trace.meta or trace.text), [], []
    for x, y, label in zip(trace.x, trace.y, every, strict=True):
        wide = text_width(label, 0.8 * look.letters) + 4
        place = panel.place(x, y)
        side = panel.side_of(place, away, wide, high) if label else None
        shown.append(label if side else "")
        sides.append(side or "top center")
    trace.update(meta=every, text=shown, textposition=sides, textfont_size=size)


def _radius(trace: Any) -> float:
    """Half of the size of a trace's marks, or of the largest of them."""
    size = trace.marker.size
    return max(size if isinstance(size, Sequence) else [size or 6]) / 2


def _meet(first: Box, second: Box) -> bool:
    return (
        first[0] < second[1]
        and second[0] < first[1]
        and first[2] < second[3]
        and second[2] < first[3]
    )


def _crosses(box: Box, line: tuple[Point, Point]) -> bool:
    """Whether a line goes through a box: what is left of it between two ends, then two more."""
    (x, y), (to_x, to_y) = line
    if not all(map(math.isfinite, (x, y, to_x, to_y))):
        return False
    begin, end = 0.0, 1.0
    for start, step, low, high in ((x, to_x - x, *box[:2]), (y, to_y - y, *box[2:])):
        if step == 0:
            if not low < start < high:
                return False
            continue
        near, far = sorted(((low - start) / step, (high - start) / step))
        begin, end = max(begin, near), min(end, far)
    return begin < end
