"""What a figure consists of, kept in it so that it can be laid out anew for another width."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import plotly.graph_objects as go

KEY = "steerlens"
IN_CELLS = "in cells"
"""The `meta` of marks in the cells of a map, which are as large as these allow."""


@dataclass(frozen=True)
class Ticks:
    """The places on an axis that have a name each, such as layers or tokens; all or some shown."""

    values: Sequence[Any]
    labels: Sequence[str]
    turned: bool = False
    cells: bool = False
    """Whether each has a row of a map, so that the axis is as high as they are many."""


@dataclass(frozen=True)
class Panel:
    """One pair of axes: a title above, titles of axes, and which ticks (a place in the plan's).

    A bare panel has no labels below: those of the panel under it are its own too.
    """

    title: str = ""
    x: str = ""
    y: str = ""
    high: float = 1.0
    bare: bool = False
    x_ticks: int | None = None
    y_ticks: int | None = None
    x_range: Sequence[float] | None = None
    y_range: Sequence[float] | None = None


@dataclass(frozen=True)
class Plan:
    """Texts and panels of a figure, without a size: `frame.fit` makes a layout of it.

    `least` is how narrow a panel may be, in font sizes; `across` how many stand side by side at
    most. Panels that share an axis have its labels once a row or column.
    """

    title: str
    subtitle: str = ""
    panels: Sequence[Panel] = (Panel(),)
    ticks: Sequence[Ticks] = ()
    across: int = 1
    least: float = 16.0
    share_x: bool = False
    share_y: bool = False
    bar: str = ""
    both_sides: bool = False
    labels: bool = False
    state: dict[str, Any] = field(default_factory=dict)
    """What the last layout did: the look, its scale, and the colours that dark mode replaced."""

    @property
    def caption(self) -> str:
        """Title and subtitle as the running text below a figure."""
        end = "" if self.title.endswith(("?", "!", ".")) else "."
        return f"{self.title}{end} {self.subtitle}".replace("<br>", " ").strip()

    def keep(self, figure: go.Figure) -> None:
        """Write the plan into the figure."""
        meta = dict(figure.layout.meta or {})  # pyright: ignore[reportAttributeAccessIssue]
        figure.update_layout(meta={**meta, KEY: asdict(self)})


def plan_of(figure: go.Figure) -> Plan | None:
    """The plan that is in a figure; None for a figure that is not of this package."""
    meta: Any = figure.layout.meta  # pyright: ignore[reportAttributeAccessIssue]
    if not isinstance(meta, dict) or KEY not in meta:
        return None
    kept = dict(meta[KEY])
    kept["panels"] = tuple(Panel(**panel) for panel in kept["panels"])
    kept["ticks"] = tuple(Ticks(**ticks) for ticks in kept["ticks"])
    return Plan(**kept)


def axes_of(number: int) -> tuple[str, str]:
    """How plotly names the axes of a panel in a trace: `x`, `y` of the first, then `x2`, `y2`."""
    return (f"x{number + 1}", f"y{number + 1}") if number else ("x", "y")


def on_panel(traces: Sequence[Any], number: int) -> list[Any]:
    """The traces, moved to the axes of a panel."""
    x, y = axes_of(number)
    return [trace.update(xaxis=x, yaxis=y) for trace in traces]


def figure_of(traces: Sequence[Any], panels: int = 1) -> go.Figure:
    """A figure of these traces with the axes of so many panels."""
    figure = go.Figure(list(traces))
    for number in range(panels):
        x, y = axes_of(number)
        figure.update_layout({f"xaxis{x[1:]}": {}, f"yaxis{y[1:]}": {}})
    return figure
