"""What all figures share: colours of methods, dashes of strengths, titles and margins.

A method has the same colour in every figure (`method_colours`), a strength the same dash and
marker.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable

import plotly.graph_objects as go

METHOD_COLOURS = {
    "prompt": "#0072b2",
    "ActAdd": "#d55e00",
    "CAA": "#009e73",
    "PSR": "#cc79a7",
    "S-Const_DiM": "#44aa99",
    "S-Const_MSE": "#88c057",
    "S-PSR_MSE": "#c51b7d",
    "S-PSR_LL": "#7a3b69",
    "A-Const_MSE": "#c9a227",
    "A-PSR_MSE": "#b2182b",
    "A-PSR_LL": "#8c510a",
    "CLAS": "#e69f00",
    "COLD-FD": "#56b4e9",
    "unsteered": "#595959",
    "equivalent prompts": "#7f7f7f",
    "neutral prompts": "#b5a642",
    "any instruction": "#8a6d3b",
}
SPARE_COLOURS = ("#332288", "#882255", "#999933", "#117733", "#aa4499", "#661100")
STRENGTH_LINES = {
    "": ("solid", "circle"),
    "as fitted": ("solid", "circle"),
    "least squares": ("dot", "square"),
    "matched": ("dashdot", "diamond"),
}
REFERENCES = ("equivalent prompts", "neutral prompts", "any instruction")
LEGEND = {"orientation": "h", "yref": "container", "y": 0.01, "yanchor": "bottom"}


def method_colours(methods: Iterable[str]) -> dict[str, str]:
    """A colour for each method: fixed for those in `METHOD_COLOURS`, else drawn from its name.

    Two unknown names that draw the same spare colour get different ones while there are some.
    """
    colours: dict[str, str] = {}
    for method in sorted(set(methods)):
        start = zlib.crc32(method.encode("utf-8", "backslashreplace"))
        spare = [SPARE_COLOURS[(start + i) % len(SPARE_COLOURS)] for i in range(len(SPARE_COLOURS))]
        free = [colour for colour in spare if colour not in colours.values()]
        colours[method] = METHOD_COLOURS.get(method) or (free or spare)[0]
    return colours


def titled(figure: go.Figure, title: str, subtitle: str, top: int = 90) -> go.Figure:
    """The figure with title, subtitle and the look that all have; returned for chaining."""
    figure.update_xaxes(title_font_size=13)
    figure.update_yaxes(title_font_size=13)
    return figure.update_layout(
        template="plotly_white",
        font={"family": "system-ui, 'Segoe UI', Roboto, 'Noto Sans', sans-serif", "size": 13},
        title={"text": title, "subtitle": {"text": subtitle}, "x": 0.01},
        title_y=1,
        title_yanchor="top",
        title_pad={"t": 14},
        hoverlabel={"align": "left"},
        margin={"t": top, "r": 20, "b": 60},
    )
