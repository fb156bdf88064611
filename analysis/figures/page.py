"""Where everything of a figure goes at a given width, in pixels, from how wide its texts are."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import plotly.graph_objects as go

from .legend import Legend, legend_of
from .lettering import LINE, lines_in, shortened, text_width, wrapped
from .looks import Look
from .plan import Panel, Plan, Ticks

WIDE = 560
NUMBER = "−0.000"
"""As wide as the numbers on an axis get."""


@dataclass(frozen=True)
class Page:
    """Where everything goes, in pixels."""

    plan: Plan
    look: Look
    legend: Legend | None
    title: str
    subtitle: str
    left: float
    right: float
    gap: float
    across: int
    heights: tuple[float, ...]
    both: bool = False

    @classmethod
    def of(cls, figure: go.Figure, plan: Plan, look: Look) -> "Page":
        wide, letters = look.base - 24, look.letters
        title = wrapped(plan.title, 1.25 * letters, wide) if look.title else ""
        subtitle = wrapped(plan.subtitle, 0.95 * letters, wide) if look.title else ""
        page = cls(plan, look, None, title, subtitle, 0.0, 0.0, 0.0, 1, ())
        left = max(page.beside(panel) for panel in plan.panels)
        legend = None if plan.bar else legend_of(figure, look, left, aside=plan.across == 1)
        right = 1.5 * look.size + (legend.width if legend and legend.beside else 0.0)
        page = replace(page, legend=legend, right=right)
        gap = 0.9 * look.size if plan.share_y else left + 0.6 * look.size
        page = replace(page, left=left, gap=gap)
        labels = page.right_labels
        both = replace(page, right=right + labels, both=True)._side_by_side()
        page = both if labels and both.across > 1 else page._side_by_side()
        return page._with_heights()

    def _side_by_side(self) -> "Page":
        """With as many panels in a row as there is room for, and rows of about as many each."""
        room = self.look.base - self.left - self.right
        across = int((room + self.gap) // (self.plan.least * self.look.size * 0.9 + self.gap))
        panels = len(self.plan.panels)
        most = max(1, min(panels, self.plan.across, across))
        return replace(self, across=math.ceil(panels / math.ceil(panels / most)))

    @property
    def right_labels(self) -> float:
        """Room for the labels of the y axis once more on the right; 0 where none are wanted."""
        if not self.plan.both_sides or self.look.base < WIDE:
            return 0.0
        size = 0.9 * self.look.letters
        labels = self.y_labels(self.plan.panels[0])
        return max(text_width(label, size) for label in labels) + 6

    def has_right_labels(self, number: int) -> bool:
        """Whether the panel, the last of a full row, has the labels of the y axis on its right."""
        return self.both and number % self.across == self.across - 1

    @property
    def panel_width(self) -> float:
        room = self.look.base - self.left - self.right
        return (room - self.gap * (self.across - 1)) / self.across

    @property
    def rows(self) -> list[tuple[Panel, ...]]:
        panels = self.plan.panels
        return [tuple(panels[i : i + self.across]) for i in range(0, len(panels), self.across)]

    def ticks(self, place: int | None) -> Ticks | None:
        return None if place is None else self.plan.ticks[place]

    def beside(self, panel: Panel) -> float:
        """Room left of a panel, for the labels and the title of its y axis."""
        labels = self.y_labels(panel)
        size = 0.9 * self.look.letters
        wide = max((text_width(label, size) for label in labels), default=0.0)
        return wide + 9 + (lines_in(self.y_title(panel)) * LINE * self.look.size + 4)

    def y_labels(self, panel: Panel) -> list[str]:
        ticks = self.ticks(panel.y_ticks)
        if ticks is None:
            return [NUMBER]
        size = 0.9 * self.look.letters
        limit = (0.26 if ticks.cells else 0.38) * self.look.base
        return [shortened(label, size, limit) for label in ticks.labels]

    def y_title(self, panel: Panel) -> str:
        return wrapped(panel.y, self.look.letters, 1.05 * self._height(panel, 1))

    def panel_title(self, panel: Panel) -> str:
        lines = wrapped(panel.title, 0.95 * self.look.letters, self.panel_width).split("<br>")
        letters = 0.95 * self.look.letters
        return "<br>".join(shortened(line, letters, self.panel_width) for line in lines)

    def above(self, row: tuple[Panel, ...]) -> float:
        """Room above a row of panels, for their titles."""
        most = max(lines_in(self.panel_title(panel)) for panel in row)
        return most * LINE * 0.95 * self.look.size + 7

    def below(self, number: int) -> float:
        """Room below a row of panels, for the labels and the titles of x axes."""
        shown = [p for i, p in self._in_row(number) if self.has_x_labels(i)]
        return max((self._below(panel) for panel in shown), default=0.0)

    def has_x_labels(self, number: int) -> bool:
        """Whether the panel has its own labels below: with a shared axis the lowest one has."""
        if self.plan.panels[number].bare:
            return False
        return not self.plan.share_x or number + self.across >= len(self.plan.panels)

    def _in_row(self, number: int) -> list[tuple[int, Panel]]:
        first = number * self.across
        return list(enumerate(self.rows[number], first))

    def _below(self, panel: Panel) -> float:
        ticks, size = self.ticks(panel.x_ticks), 0.9 * self.look.letters
        labels = LINE * 0.9 * self.look.size
        if ticks is not None and ticks.turned:
            labels = max(text_width(label, size) for label in ticks.labels)
        title = wrapped(panel.x, self.look.letters, self.panel_width)
        return labels + 9 + lines_in(title) * LINE * self.look.size + 2

    def _height(self, panel: Panel, rows: int) -> float:
        """How high a panel is, where so many rows of panels stand on the page."""
        ticks = self.ticks(panel.y_ticks)
        if ticks is None or not ticks.cells:
            return max(panel.high * self.look.panel, 6.2 * self.look.size)
        most = max(min(self.look.tallest, 2.2 * self.look.tallest / rows), 4 * self.look.size)
        each = min(1.3 * self.look.size, most / len(ticks.values))
        return max(each * len(ticks.values), 4 * self.look.size)

    def _with_heights(self) -> "Page":
        rows = self.rows
        heights = [max(self._height(panel, len(rows)) for panel in row) for row in rows]
        legend = self.legend.height if self.legend else 0.0
        # A legend higher than the panels would get a scroll bar.
        grown = max(1.0, 1.06 * legend / sum(heights))
        return replace(self, heights=tuple(grown * height for height in heights))

    @property
    def top(self) -> float:
        size, lines = self.look.size, lines_in(self.title)
        return 8 + LINE * size * (1.25 * lines + 0.95 * lines_in(self.subtitle)) + 8 * bool(lines)

    @property
    def bottom(self) -> float:
        """Room for the legend or the colour bar."""
        if self.plan.bar:
            lines = lines_in(self.bar_title)
            return 16 + LINE * self.look.size * (0.95 * lines + 0.9) + 0.8 * self.look.size
        return self.legend.height + 4 if self.legend and not self.legend.beside else 4.0

    @property
    def bar_length(self) -> float:
        return min(self.look.base - self.right - 2 * self.look.size, 34 * self.look.size)

    @property
    def bar_title(self) -> str:
        return wrapped(self.plan.bar, 0.95 * self.look.letters, self.bar_length)

    @property
    def inner(self) -> float:
        """Height of all panels with their labels."""
        rows = self.rows
        texts = sum(self.above(row) + self.below(i) for i, row in enumerate(rows))
        return texts + sum(self.heights)

    def as_high_as(self, height: float | int) -> "Page":
        """The page with panels higher or lower; ValueError where they would have no room."""
        room = height - self.top - self.bottom - self.inner + sum(self.heights)
        if room < 3 * self.look.size * len(self.heights):
            least = height - room + 3 * self.look.size * len(self.heights)
            raise ValueError(
                f"height={height:g} pixels leaves no room for the figure beside its texts: give "
                f"{math.ceil(least)} or more, or a wider one."
            )
        grown = room / sum(self.heights)
        return replace(self, heights=tuple(grown * each for each in self.heights))
