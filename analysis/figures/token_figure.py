"""A coloured text as a figure of boxes, for PDF and SVG: `token_figure`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pandas as pd
import plotly.graph_objects as go

from .lettering import shortened, text_width, wrapped
from .looks import Look, look_of, template_of, users_template
from .rows import plain_text
from .tokens import DIVERGING, TokenView, colour_of, folded_runs, ink_on, part_shown

LINE_HEIGHT = 1.85
"""Of a line of boxes, in font sizes."""
TOKENS = "steerlens tokens"
NOT_MEASURED, FOLDED = "#dddddd", "#f0f0f0"


def token_figure(
    view: TokenView,
    style: str = "notebook",
    *,
    width: float | int | None = None,
    columns: int | None = None,
    font: str | None = None,
    dark: bool = False,
) -> go.Figure:
    """The texts of a view as boxes, `width` pixels across: steered underlined, read with a dot.

    Sinks are framed, and what the chat template wrote is folded up as in the view. `style` and the
    rest are those of `styled`, which cannot lay boxes out anew.
    """
    if not view.tables:
        raise ValueError(
            "this view holds its HTML alone, and a figure is drawn of its tables: make it with "
            "token_view or token_views."
        )
    look = look_of(style, columns, font, dark)
    sheet = _Sheet(look, view.label, view.limit, float(width or look.width or 700))
    for name, table in view.tables.items():
        sheet.add(name, table)
    sheet.add_legend(pd.concat(view.tables.values()))
    return sheet.figure()


@dataclass
class _Sheet:
    """Boxes and texts so far, and the place of the next one; pixels, down from the top."""

    look: Look
    label: str
    limit: float
    width: float
    x: float = 4.0
    y: float = 4.0
    shapes: list[dict[str, Any]] = field(default_factory=list)
    texts: list[tuple[float, float, str, str, str]] = field(default_factory=list)

    @property
    def size(self) -> float:
        return self.look.size

    @property
    def line(self) -> float:
        return LINE_HEIGHT * self.size

    def add(self, name: str, table: pd.DataFrame) -> None:
        """A text under its name, on lines of its own."""
        if name:
            self.write(f"<b>{plain_text(name)}</b>")
        for run, is_folded in folded_runs(table):
            if is_folded:
                self.box(
                    f"⋯ {len(run)} template tokens", FOLDED, steered=bool(run["steered"].any())
                )
                continue
            for row in run.itertuples():
                self.token(row)
        self.down(1.15)

    def token(self, row: Any) -> None:
        value = float(row.value)
        missing = value != value
        colour = NOT_MEASURED if missing else colour_of(value, self.limit)
        words = "not measured" if missing else f"{self.label} {value:+.3g}"
        marks = [name for name in ("read", "steered", "sink") if getattr(row, name)]
        hover = ", ".join([f"position {row.position}: {words}", *marks])
        self.box(
            plain_text(part_shown(row.token)),
            colour,
            steered=bool(row.steered),
            sink=bool(row.sink),
            read=bool(row.read),
            hover=plain_text(hover),
        )
        if str(row.token).endswith("\n"):
            self.down()

    def box(
        self,
        text: str,
        colour: str,
        *,
        steered: bool = False,
        sink: bool = False,
        read: bool = False,
        hover: str = "",
    ) -> None:
        """A box with its text, on the next line where this one has no room."""
        text = shortened(text, self.look.letters, self.width - 20)
        wide = text_width(text, self.look.letters) + 0.3 * self.size
        if self.x + wide > self.width - 4:
            self.down()
        top, high = self.y, 1.42 * self.size
        ink = self.ink
        rim = {"color": ink, "width": 1.5, "dash": "dash"} if sink else {"width": 0}
        self.shape(
            "rect", (self.x, top, self.x + wide, top + high), {"fillcolor": colour, "line": rim}
        )
        if steered:
            below = (self.x, top + high + 1.5, self.x + wide, top + high + 1.5)
            self.shape("line", below, {"line": {"color": ink, "width": 0.13 * self.size}})
        self.texts.append((self.x + wide / 2, top + high / 2, text, ink_on(colour), hover))
        self.x += wide + 1

    @property
    def ink(self) -> str:
        return "#e3e5e8" if self.look.dark else "#222222"

    def shape(
        self, kind: str, box: tuple[float, float, float, float], look: dict[str, Any]
    ) -> None:
        x0, y0, x1, y1 = box
        self.shapes.append(
            {"type": kind, "x0": x0, "y0": y0, "x1": x1, "y1": y1, "layer": "below", **look}
        )

    def write(self, text: str, x: float | None = None) -> float:
        """Plain text from the left, on this line; where it ends."""
        start = self.x if x is None else x
        wide = text_width(text, 1.05 * self.look.letters)
        self.texts.append((start + wide / 2, self.y + 0.7 * self.size, text, self.ink, ""))
        if x is None:
            self.down(0.92)
        return start + wide

    def down(self, lines: float = 1.0) -> None:
        self.x, self.y = 4.0, self.y + lines * self.line

    def add_legend(self, table: pd.DataFrame) -> None:
        """The scale of the colours, and what the marks mean."""
        if self.x > 4:
            self.down()
        for part in wrapped(plain_text(self.label), self.look.letters, self.width - 12).split(
            "<br>"
        ):
            self.write(part)
        beyond = bool((table["value"].abs() > self.limit).any())
        low, high = (
            f"{sign}{end:+.3g}"
            for sign, end in (("≤ " * beyond, -self.limit), ("≥ " * beyond, self.limit))
        )
        self.x = self.write(low, self.x) + 4
        for colour in DIVERGING:
            self.box("\u2002", colour)
        self.x = self.write(high, self.x + 4) + 8
        for mark in ("read", "steered", "sink"):
            if table[mark].any():
                self.box(
                    mark,
                    "#3a3e45" if self.look.dark else "#ffffff",
                    steered=mark == "steered",
                    sink=mark == "sink",
                    read=mark == "read",
                )
                self.x += 6
        if table["value"].isna().any():
            self.box("not measured", NOT_MEASURED)
        self.down(1.05)

    def figure(self) -> go.Figure:
        """All of it, at the width and the height that it takes."""
        across, down, texts, inks, hovers = zip(*self.texts, strict=True)
        figure = go.Figure(
            go.Scatter(
                x=across, y=down, text=texts, mode="text", hovertext=hovers, hoverinfo="text",
                textfont={"color": inks, "size": self.size}, showlegend=False, cliponaxis=False,
            )
        )  # fmt: skip
        hidden = {"visible": False, "fixedrange": True}
        return figure.update_layout(
            template=template_of(self.look, users_template(figure)),
            width=self.width,
            height=self.y + 4,
            margin={"l": 0, "r": 0, "t": 0, "b": 0},
            xaxis={**hidden, "range": [0, self.width]},
            yaxis={**hidden, "range": [self.y + 4, 0]},
            shapes=self.shapes,
            meta={TOKENS: True},
        )
