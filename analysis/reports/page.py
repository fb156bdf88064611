"""A report of an experiment: one HTML file that needs no network, no server and no other file.

```python
report = Report("Does CAA do what the prompt does?", "Two ways to ask for joy.", {"seed": 0})
report = report.heading("Faithfulness").figure(relative_rmse_curve(table), says="CAA is above ...")
report.write("report.html")
```
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd
import plotly.graph_objects as go
from plotly.offline import get_plotlyjs

from ..explorer.page import explorer_assets, explorer_place
from ..figures.tokens import TokenView
from .html import (
    Part,
    answers_of,
    contents,
    escaped,
    facts_box,
    paragraphs,
    require_rows,
    table_of,
)
from .script import SCRIPT
from .style import STYLE

TEXT = "a text with coloured tokens"
_GENERATIONS = ("prompt", "method", "strength_value", "sample", "text")

# Since plotly.js 4 a button sends the data to a server unless it is taken away.
_PLOT = {
    "responsive": True,
    "displaylogo": False,
    "showSendToCloud": False,
    "plotlyServerURL": "",
    "modeBarButtonsToRemove": ["select2d", "lasso2d", "zoomIn2d", "zoomOut2d", "autoScale2d"],
}


@dataclass(frozen=True)
class Report:
    """A page under construction: each method returns a new report with one more part at the end.

    All texts are plain: nothing in them is read as HTML. `made` says how the results came about
    (versions, seed, model, command); without it nobody can make them again, so it is required.
    """

    title: str
    intro: str
    made: Mapping[str, object]
    parts: tuple[Part, ...] = ()

    def __post_init__(self) -> None:
        if not self.title.strip():
            raise ValueError("the report has no title: say in one line what was asked.")
        if not self.made:
            raise ValueError("`made` is empty: give at least the model, the seed and the versions.")

    def heading(self, text: str, level: int = 2) -> "Report":
        """A heading of level 2, or 3 below one of level 2; listed in the contents."""
        above = max((part.level for part in self.parts), default=0)
        if level not in (2, 3) or (level == 3 and not above):
            raise ValueError(
                f"heading {text!r} of level {level}: use 2 for a section and, inside one, 3."
            )
        anchor = f"part-{len(self.parts)}"
        html = f'<h{level} id="{anchor}">{escaped(text)}</h{level}>'
        return replace(self, parts=(*self.parts, Part(html, level, text)))

    def paragraph(self, text: str) -> "Report":
        """Plain text; a blank line begins a new paragraph."""
        return self._with(paragraphs(text))

    def found(self, sentences: Sequence[str]) -> "Report":
        """What came out, in a box: a few sentences with their numbers, the headline of the page."""
        if not sentences or not all(text.strip() for text in sentences):
            raise ValueError("found says nothing: pass at least one sentence, with its numbers.")
        items = "".join(f"<li>{escaped(text)}</li>" for text in sentences)
        return self._with(f'<section class="found"><ul>{items}</ul></section>')

    def figure(self, figure: go.Figure | TokenView, says: str, alt: str = "") -> "Report":
        """An interactive figure; `says` tells in plain words what one sees, `alt` what it is.

        A token view goes where `tokens` puts it.
        """
        if isinstance(figure, TokenView):
            return self.tokens(figure, says, alt or TEXT)
        if not isinstance(figure, go.Figure):
            raise TypeError(
                f"figure got {type(figure).__name__}: it takes a plotly figure or a token view. "
                "Tables go into table, texts into paragraph."
            )
        alt = alt or str(figure["layout"]["title"]["text"] or "")
        if not alt:
            raise ValueError("the figure has no title: pass alt, for those who cannot see it.")
        plot = figure.to_html(
            full_html=False,
            include_plotlyjs=False,
            include_mathjax=False,
            div_id=f"plot-{len(self.parts)}",
            config=_PLOT,
        )
        return self._picture(f'<div class="plot">{plot}</div>', says, alt)

    def tokens(self, view: TokenView, says: str, alt: str = TEXT) -> "Report":
        """A coloured text; `says` tells in plain words what one sees."""
        if not isinstance(view, TokenView):
            raise TypeError(
                f"tokens got {type(view).__name__}: it takes what token_view or token_views "
                "returned. A plotly figure goes into figure."
            )
        return self._picture(view.html, says, alt)

    def explorer(self, content: Mapping[str, Any], says: str) -> "Report":
        """Linked views to click through; `content` is an explorer's `payload()`."""
        if not isinstance(content, Mapping) or "readings" not in content:
            raise TypeError(
                "explorer takes what explorer.payload() gives: sl.explore(model, steerings=..., "
                "pairs=...).payload()."
            )
        place = explorer_place(content, "<p>These views need scripts.</p>")
        return self._with(f"<figure>{place}<figcaption>{escaped(says)}</figcaption></figure>")

    def table(self, table: pd.DataFrame, says: str) -> "Report":
        """The table, numbers to three significant digits, no index; over 12 rows it is folded up.

        Columns are named in words (`reports.columns`), and a click on a name sorts by it.
        """
        require_rows(table, "table")
        return self._with(table_of(table, says))

    def generations(self, table: pd.DataFrame, says: str) -> "Report":
        """Completions side by side: under each prompt a card per method and strength.

        Columns of the table: `prompt`, `method`, `strength_value`, `sample`, `text`.
        """
        require_rows(table, "generations")
        missing = [column for column in _GENERATIONS if column not in table.columns]
        if missing:
            raise ValueError(
                f"generations needs the columns {missing}; the table has {list(table.columns)}."
            )
        return self._with(answers_of(table, says))

    @property
    def html(self) -> str:
        """The whole page; plotly.js is in it once, and only if there is a figure.

        What stands before the first heading comes before the contents.
        """
        script = f"<script>{get_plotlyjs()}</script>"
        first = next((i for i, part in enumerate(self.parts) if part.level), len(self.parts))
        halves = self.parts[:first], self.parts[first:]
        head, rest = ("".join(f"{part.html}\n" for part in half) for half in halves)
        has_plot = any('<div class="plot">' in part.html for part in self.parts)
        has_views = any("data-steerlens-explorer" in part.html for part in self.parts)
        views = f"{explorer_assets()}\n" if has_views else ""
        return (
            '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
            '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
            f"<title>{escaped(self.title)}</title>\n<style>{STYLE}</style>\n"
            f"{script if has_plot else ''}</head>\n<body>\n<main>\n"
            f"<header><h1>{escaped(self.title)}</h1>\n"
            f'<div class="intro">{paragraphs(self.intro)}</div></header>\n'
            f"{head}{contents(self.parts)}{rest}"
            f"{facts_box(self.made)}</main>\n<script>{SCRIPT}</script>\n{views}</body>\n</html>\n"
        )

    def write(self, path: str | Path) -> Path:
        """The page as a file, whole or not at all: an earlier one stays if this fails.

        The folder is made where only that is missing, not what is above it.
        """
        from steerlens.whole import write_whole  # here alone, so that a page needs no library

        return write_whole(path, self.html.encode("utf-8"))

    def _with(self, html: str) -> "Report":
        return replace(self, parts=(*self.parts, Part(html)))

    def _picture(self, content: str, says: str, alt: str) -> "Report":
        if not says.strip():
            raise ValueError(f"{alt!r} says nothing: pass a sentence on what one sees in it.")
        return self._with(
            f'<figure data-figure="{escaped(alt)}">'
            f'<div class="picture" role="group" aria-label="{escaped(alt)}">{content}'
            f"</div><figcaption>{escaped(says)}</figcaption></figure>"
        )
