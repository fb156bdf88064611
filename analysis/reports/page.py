"""A report of an experiment: one HTML file that needs no network, no server and no other file.

```python
report = Report("Does CAA do what the prompt does?", "Two ways to ask for joy.", {"seed": 0})
report = report.heading("Faithfulness").figure(relative_rmse_curve(table), says="CAA is above ...")
report.write("report.html")
```
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd
import plotly.graph_objects as go
from plotly.offline import get_plotlyjs

from ..figures.tokens import TokenView
from .html import (
    Part,
    column_of,
    contents,
    escaped,
    facts_box,
    paragraphs,
    require_rows,
    side_by_side,
    table_of,
)
from .style import STYLE

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

    def figure(self, figure: go.Figure, says: str, alt: str = "") -> "Report":
        """An interactive figure; `says` tells in plain words what one sees, `alt` what it is."""
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

    def tokens(
        self, view: TokenView, says: str, alt: str = "a text with coloured tokens"
    ) -> "Report":
        """A coloured text; `says` tells in plain words what one sees."""
        return self._picture(view.html, says, alt)

    def table(self, table: pd.DataFrame, says: str) -> "Report":
        """The table as it is, numbers to three significant digits, no index."""
        require_rows(table, "table")
        columns = [column_of(table[name]) for name in table.columns]
        heads = [
            f'<th scope="col"{kind}>{escaped(str(name))}</th>'
            for name, (kind, _) in zip(table.columns, columns, strict=True)
        ]
        cells = [[f"<td{kind}>{cell}</td>" for cell in cells] for kind, cells in columns]
        return self._with(table_of("", says, heads, map("".join, zip(*cells, strict=True))))

    def generations(self, table: pd.DataFrame, says: str) -> "Report":
        """Completions side by side: a row per prompt and sample, a column per method and strength.

        Columns of the table: `prompt`, `method`, `strength_value`, `sample`, `text`.
        """
        require_rows(table, "generations")
        missing = [column for column in _GENERATIONS if column not in table.columns]
        if missing:
            raise ValueError(
                f"generations needs the columns {missing}; the table has {list(table.columns)}."
            )
        heads, rows = side_by_side(table)
        return self._with(table_of(' class="generations"', says, heads, rows))

    @property
    def html(self) -> str:
        """The whole page; plotly.js is in it once, and only if there is a figure."""
        script = f"<script>{get_plotlyjs()}</script>"
        has_plot = any('<div class="plot">' in part.html for part in self.parts)
        return (
            '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
            '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
            f"<title>{escaped(self.title)}</title>\n<style>{STYLE}</style>\n"
            f"{script if has_plot else ''}</head>\n<body>\n<main>\n"
            f"<header><h1>{escaped(self.title)}</h1>\n"
            f'<div class="intro">{paragraphs(self.intro)}</div></header>\n'
            f"{contents(self.parts)}{''.join(part.html + chr(10) for part in self.parts)}"
            f"{facts_box(self.made)}</main>\n</body>\n</html>\n"
        )

    def write(self, path: str | Path) -> Path:
        """The page as a file, whole or not at all: an earlier one stays if this fails."""
        path = Path(path)
        draft = path.with_name(f".{path.name}.{os.getpid()}.draft")
        try:
            draft.write_text(self.html, encoding="utf-8", newline="\n")
            os.replace(draft, path)
        except OSError as error:
            with suppress(OSError):
                draft.unlink()
            raise OSError(
                f"the report could not be written to {path}: {error.strerror or error}. "
                "Give a file name in a folder that exists and can be written to."
            ) from error
        return path

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
