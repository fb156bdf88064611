"""Sizes and colours of what is drawn, for a look: thinner lines on paper, lighter ones on dark."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import plotly.graph_objects as go

from .looks import Look
from .tokens import DIVERGING, contrast

DARK_PAGE = "#1b1e22"
ENOUGH = 3.6
"""Contrast of a line with the page."""
DIVERGING_DARK = ("#7fbde8", "#3f82b8", "#24506f", "#2b2f35", "#7a3a24", "#c05f3c", "#f79a74")
_SIZES = ("line.width", "marker.size", "marker.line.width", "textfont.size")
_COLOURS = ("line.color", "marker.color", "marker.line.color", "fillcolor", "textfont.color")
VEIL, DARK_VEIL = "rgba(255,255,255,0.55)", "rgba(0,0,0,0.35)"


def recolour(figure: go.Figure, state: dict[str, Any], look: Look) -> dict[str, Any]:
    """Set sizes and colours of all traces and return the new state, from which this is undone."""
    was_dark, is_dark = bool(state.get("dark")), look.dark
    factor = look.scale / float(state.get("scale", 1.0))
    light = {str(k): str(v) for k, v in dict(state.get("light", {})).items()}
    replaced: dict[str, str] = {}

    def colour(given: Any) -> Any:
        if not isinstance(given, str) or not given.startswith("#"):
            return given
        plain = light.get(given, given)
        shown = on_dark(plain) if is_dark else plain
        replaced[shown] = plain
        return shown

    traces: Any = figure.data
    for trace in traces:
        for path in _SIZES:
            _change(
                trace, path, lambda size: size * factor if isinstance(size, int | float) else size
            )
        for path in _COLOURS:
            _change(trace, path, colour)
    if was_dark != is_dark:
        _recolour_maps(figure, is_dark)
    return {"dark": is_dark, "scale": look.scale, "light": replaced if is_dark else {}}


def on_dark(colour: str) -> str:
    """The colour, lightened until it can be told from a dark page."""
    for share in range(0, 101, 4):
        lighter = _mixed(colour, share / 100)
        if contrast(lighter, DARK_PAGE) >= ENOUGH:
            return lighter
    return "#ffffff"


def _mixed(colour: str, white: float) -> str:
    channels = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return "#" + "".join(f"{round(c + (255 - c) * white):02x}" for c in channels)


def _change(trace: Any, path: str, new: Callable[[Any], Any]) -> None:
    """Replace one property of a trace, if it has it and it is set."""
    *above, last = path.split(".")
    for name in above:
        if name not in trace:
            return
        trace = trace[name]
    if last in trace and trace[last] is not None:
        trace[last] = new(trace[last])


def _recolour_maps(figure: go.Figure, dark: bool) -> None:
    axis: Any = figure.layout["coloraxis"]
    if axis.colorscale is not None:
        axis.colorscale = list(DIVERGING_DARK if dark else DIVERGING)
    veil = DARK_VEIL if dark else VEIL
    traces: Any = figure.data
    for trace in traces:
        if trace.type == "heatmap" and trace.name == "sink":
            trace.colorscale = [[0, veil], [1, veil]]
