"""Looks for where a figure goes, a paper, a notebook or slides, light or dark: `styled`.

Fonts and colours are in the figure's template, so that what a user sets stays: a template of their
own (`figure.update_layout(template=...)`, or `plotly.io.templates.default`) wins where it says
something.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import plotly.graph_objects as go
import plotly.io as pio

SANS = "Arial, Helvetica, 'Liberation Sans', sans-serif"
SERIF = "'Times New Roman', Times, 'Liberation Serif', serif"
SCREEN = "system-ui, 'Segoe UI', Roboto, 'Noto Sans', sans-serif"
FONTS = {"sans": SANS, "serif": SERIF}
NARROW_FONTS = {SCREEN: 1.0, SANS: 0.92, SERIF: 0.86}
"""How wide the letters are, next to those of a broad font."""
POINT = 96 / 72
COLUMNS = {1: 3.25 * 96, 2: 6.75 * 96}
"""Pixels of one and of two columns of a paper, 3.25 and 6.75 inches."""
OURS = "steerlens"


@dataclass(frozen=True)
class Look:
    """What a place asks of a figure. Sizes are in pixels, 96 an inch."""

    name: str
    width: float | None
    size: float
    family: str
    panel: float
    tallest: float
    title: bool = True
    dark: bool = False

    @property
    def base(self) -> float:
        """The narrowest page that it is made for."""
        return self.width or 660.0

    @property
    def scale(self) -> float:
        """Size of lines and markers, next to those in a notebook."""
        return {"paper": 0.62, "slides": 1.5}.get(self.name, 1.0)

    @property
    def letters(self) -> float:
        """The font size of a broad font that is as wide as this one."""
        return self.size * NARROW_FONTS.get(self.family, 1.0)


NOTEBOOK = Look("notebook", None, 13.0, SCREEN, panel=330.0, tallest=1000.0)
PAPER = Look("paper", COLUMNS[1], 8 * POINT, SANS, panel=165.0, tallest=600.0, title=False)
SLIDES = Look("slides", 1200.0, 20.0, SANS, panel=400.0, tallest=640.0)
LOOKS = {look.name: look for look in (PAPER, NOTEBOOK, SLIDES)}


def look_of(name: str, columns: int | None, font: str | None, dark: bool) -> Look:
    """The look of this name, with what was asked of it; ValueError for what there is not."""
    if name not in LOOKS:
        raise ValueError(f"there is no style {name!r}: choose of {', '.join(map(repr, LOOKS))}.")
    if columns is not None and (name != "paper" or columns not in COLUMNS):
        raise ValueError(
            f"columns={columns} with style {name!r}: only 'paper' has columns, 1 (3.25 in) or 2 "
            "(6.75 in)."
        )
    if font is not None and font not in FONTS:
        raise ValueError(f"font={font!r} is neither 'sans' nor 'serif'.")
    look = replace(LOOKS[name], dark=dark)
    if columns == 2:
        look = replace(look, width=COLUMNS[2], panel=190.0)
    return replace(look, family=FONTS[font]) if font else look


def template_of(look: Look, users: Any = None) -> go.layout.Template:
    """Fonts, colours and grids of a look; what the user's own template says is over it."""
    ink, soft, page = (
        ("#e3e5e8", "#3a3e45", "#1b1e22") if look.dark else ("#222222", "#e4e4e4", "#ffffff")
    )
    axis = {
        "gridcolor": soft, "linecolor": ink if look.name == "paper" else soft,
        "zerolinecolor": soft,
        "title": {"font": {"size": look.size}}, "tickfont": {"size": 0.9 * look.size},
        "showline": look.name == "paper", "ticks": "outside" if look.name == "paper" else "",
        "ticklen": 3, "zerolinewidth": 1,
    }  # fmt: skip
    ours = go.layout.Template(
        layout={
            "meta": OURS,
            "font": {"family": look.family, "size": look.size, "color": ink},
            "paper_bgcolor": page, "plot_bgcolor": page,
            "title": {
                "font": {"size": 1.25 * look.size},
                "subtitle": {"font": {"size": 0.95 * look.size}},
            },
            "xaxis": {**axis, "zeroline": False}, "yaxis": axis, "hoverlabel": {"align": "left"},
            "legend": {"font": {"size": 0.92 * look.size}},
        }
    )  # fmt: skip
    return ours if users is None else pio.templates.merge_templates(ours, users)


def users_template(figure: go.Figure) -> Any:
    """The template that a user set on the figure or as plotly's default; None where ours is."""
    own: Any = figure.layout.template  # pyright: ignore[reportAttributeAccessIssue]
    default = pio.templates.default
    if own.layout.meta == OURS or own == pio.templates["plotly"]:
        own = None
    if own is not None and own.to_plotly_json():
        return own
    return None if default in (None, "plotly") else pio.templates[default]
