"""A report of an experiment: one HTML file that needs no network, no server and no other file.

```python
report = Report("Does CAA do what the prompt does?", "Two ways to ask for joy.", {"seed": 0})
report = report.heading("Faithfulness").figure(relative_rmse_curve(table), says="CAA is above ...")
report.write("report.html")
```
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from html import escape
from pathlib import Path
from typing import Any

import pandas as pd
import plotly.graph_objects as go
from plotly.offline import get_plotlyjs

from analysis.figures import method_colours
from analysis.token_view import TokenView

PLAIN_METHODS = ("unsteered", "prompt")
"""Have no strength: their columns come first, without one."""

_GENERATIONS = ("prompt", "method", "strength_value", "sample", "text")

# Since plotly.js 4 a button sends the data to a server unless it is taken away.
_PLOT = {
    "responsive": True,
    "displaylogo": False,
    "showSendToCloud": False,
    "plotlyServerURL": "",
    "modeBarButtonsToRemove": ["select2d", "lasso2d", "zoomIn2d", "zoomOut2d", "autoScale2d"],
}

_STYLE = """
:root { color-scheme: light dark; --page: #f6f6f4; --card: #ffffff; --ink: #22252a;
  --soft: #5b616b; --line: #dcdddf; --link: #1a5fa8; }
@media (prefers-color-scheme: dark) { :root { --page: #17191c; --card: #202327; --ink: #e3e5e8;
  --soft: #a2a8b1; --line: #3a3e45; --link: #8ab8ee; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink);
  font: 16px/1.6 system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", sans-serif; }
main { max-width: 1000px; margin: 0 auto; padding: 40px 20px 80px; }
h1 { font-size: 2rem; line-height: 1.2; letter-spacing: -0.01em; margin: 0 0 12px; }
h2 { font-size: 1.4rem; margin: 56px 0 8px; padding-top: 16px; border-top: 1px solid var(--line); }
h3 { font-size: 1.1rem; margin: 32px 0 4px; }
p { max-width: 72ch; margin: 10px 0; overflow-wrap: anywhere; }
.intro p { font-size: 1.1rem; color: var(--soft); }
a { color: var(--link); }
nav ol { list-style: none; margin: 0; padding: 0; columns: 2 300px; }
nav .level-3 { padding-left: 1.2em; font-size: 0.94em; }
nav, .made { background: var(--card); border: 1px solid var(--line); border-radius: 10px;
  padding: 14px 20px; margin: 24px 0; }
nav h2, .made h2 { font-size: 1rem; margin: 0 0 6px; padding: 0; border: 0; }
figure { margin: 20px 0 28px; }
figcaption { color: var(--soft); font-size: 0.94rem; max-width: 76ch; margin-top: 8px;
  overflow-wrap: anywhere; }
.picture { background: #ffffff; color: #222222; border: 1px solid var(--line);
  border-radius: 10px; padding: 6px; overflow-x: auto; }
.plot { min-width: 620px; }
.scroll { overflow-x: auto; background: var(--card); border: 1px solid var(--line);
  border-radius: 10px; padding: 4px 14px 10px; }
table { border-collapse: collapse; width: 100%; font-size: 0.9rem; }
th, td { text-align: left; vertical-align: top; padding: 7px 12px 7px 0; }
tbody tr + tr > * { border-top: 1px solid var(--line); }
thead th { border-bottom: 2px solid var(--line); white-space: nowrap; }
.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
.generations td { white-space: pre-wrap; min-width: 200px; overflow-wrap: anywhere; }
.generations tbody th { white-space: pre-wrap; min-width: 130px; max-width: 220px; }
.swatch { display: inline-block; width: 0.7em; height: 0.7em; border-radius: 2px;
  margin-right: 0.45em; }
dl { display: grid; grid-template-columns: minmax(90px, max-content) 1fr; gap: 4px 18px;
  margin: 0; font-size: 0.92rem; }
dt { color: var(--soft); }
dd { margin: 0; overflow-wrap: anywhere; white-space: pre-wrap;
  font-family: ui-monospace, "SF Mono", Menlo, Consolas, monospace; }
@media (max-width: 600px) { main { padding: 24px 12px 48px; } dl { grid-template-columns: 1fr; } }
@media print { :root { --page: #fff; --card: #fff; --ink: #000; --soft: #444; --line: #bbb; }
  main { max-width: none; padding: 0; } figure, tr, .made { break-inside: avoid; }
  h2, h3 { break-after: avoid; } .picture, .scroll { overflow: visible; } .plot { min-width: 0; }
  .modebar { display: none; } * { print-color-adjust: exact; } }
"""


@dataclass(frozen=True)
class Part:
    """A finished piece of the page; a heading also has a level and a text for the contents."""

    html: str
    level: int = 0
    text: str = ""


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
        html = f'<h{level} id="{anchor}">{_escaped(text)}</h{level}>'
        return replace(self, parts=(*self.parts, Part(html, level, text)))

    def paragraph(self, text: str) -> "Report":
        """Plain text; a blank line begins a new paragraph."""
        return self._with(_paragraphs(text))

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
        _require_rows(table, "table")
        columns = [_column(table[name]) for name in table.columns]
        heads = [
            f'<th scope="col"{kind}>{_escaped(str(name))}</th>'
            for name, (kind, _) in zip(table.columns, columns, strict=True)
        ]
        cells = [[f"<td{kind}>{cell}</td>" for cell in cells] for kind, cells in columns]
        return self._with(_table("", says, heads, map("".join, zip(*cells, strict=True))))

    def generations(self, table: pd.DataFrame, says: str) -> "Report":
        """Completions side by side: a row per prompt and sample, a column per method and strength.

        Columns of the table: `prompt`, `method`, `strength_value`, `sample`, `text`.
        """
        _require_rows(table, "generations")
        missing = [column for column in _GENERATIONS if column not in table.columns]
        if missing:
            raise ValueError(
                f"generations needs the columns {missing}; the table has {list(table.columns)}."
            )
        heads, rows = _side_by_side(table)
        return self._with(_table(' class="generations"', says, heads, rows))

    @property
    def html(self) -> str:
        """The whole page; plotly.js is in it once, and only if there is a figure."""
        script = f"<script>{get_plotlyjs()}</script>"
        has_plot = any('<div class="plot">' in part.html for part in self.parts)
        return (
            '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
            '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
            f"<title>{_escaped(self.title)}</title>\n<style>{_STYLE}</style>\n"
            f"{script if has_plot else ''}</head>\n<body>\n<main>\n"
            f"<header><h1>{_escaped(self.title)}</h1>\n"
            f'<div class="intro">{_paragraphs(self.intro)}</div></header>\n'
            f"{_contents(self.parts)}{''.join(part.html + chr(10) for part in self.parts)}"
            f"{_made(self.made)}</main>\n</body>\n</html>\n"
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
            f'<figure data-figure="{_escaped(alt)}">'
            f'<div class="picture" role="group" aria-label="{_escaped(alt)}">{content}'
            f"</div><figcaption>{_escaped(says)}</figcaption></figure>"
        )


def _escaped(text: str) -> str:
    """The text as HTML shows it; what no page can hold (controls, half characters) is U+FFFD."""
    unheld = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")
    return escape(unheld.sub("\ufffd", text))


def _paragraphs(text: str) -> str:
    return "".join(f"<p>{_escaped(part.strip())}</p>" for part in text.split("\n\n"))


def _require_rows(table: pd.DataFrame, part: str) -> None:
    if table.empty:
        raise ValueError(f"the {part} of the report got a table without rows: leave it out.")


def _cell(value: Any) -> str:
    if not pd.api.types.is_scalar(value):
        return _escaped(str(value))
    if pd.isna(value):
        return "–"
    if pd.api.types.is_bool(value):
        return "yes" if value else "no"
    if pd.api.types.is_float(value):
        number = float(value)
        return f"{number:,.0f}" if 1000 <= abs(number) < 1e15 else f"{number:.3g}"
    return _escaped(str(value))


def _column(values: pd.Series) -> tuple[str, list[str]]:
    """The class attribute of a column, and its cells."""
    is_number = pd.api.types.is_numeric_dtype(values) and not pd.api.types.is_bool_dtype(values)
    return ' class="number"' if is_number else "", [_cell(value) for value in values]


def _table(kind: str, says: str, heads: Iterable[str], rows: Iterable[str]) -> str:
    # The caption stays outside: a wide table scrolls, and its caption should not.
    return (
        f'<figure><div class="scroll" tabindex="0"><table{kind} aria-label="{_escaped(says)}">'
        f"<thead><tr>{''.join(heads)}</tr></thead>"
        f"<tbody>{''.join(f'<tr>{row}</tr>' for row in rows)}</tbody></table></div>"
        f"<figcaption>{_escaped(says)}</figcaption></figure>"
    )


def _side_by_side(table: pd.DataFrame) -> tuple[list[str], list[str]]:
    """The column heads of a comparison, and its rows."""
    is_plain = table["method"].isin(PLAIN_METHODS) | table["strength_value"].isna()
    times = table["strength_value"].map(" × {:g}".format).mask(is_plain, "")
    named = table.assign(column=table["method"] + times, is_plain=is_plain)
    repeated = named.loc[named.duplicated(["prompt", "sample", "column"])]
    if len(repeated):
        raise ValueError(
            f"there are two texts of {repeated['column'].iloc[0]!r} for sample "
            f"{repeated['sample'].iloc[0]} of prompt {repeated['prompt'].iloc[0]!r}: number the "
            "samples of one prompt and method 0, 1, 2, ..."
        )
    columns = named.sort_values("is_plain", ascending=False, kind="stable")
    columns = columns.drop_duplicates("column")
    colours = method_colours(columns["method"])
    heads = [
        f'<th scope="col"><span class="swatch" style="background:{colours[method]}"></span>'
        f"{_escaped(column)}</th>"
        for method, column in zip(columns["method"], columns["column"], strict=True)
    ]
    rows: list[str] = []
    for prompt, part in named.groupby("prompt", sort=False):
        texts = part.pivot(index="sample", columns="column", values="text")
        head = (
            f'<th scope="rowgroup" rowspan="{len(texts)}" dir="auto">{_escaped(str(prompt))}</th>'
        )
        for row in texts.reindex(columns=columns["column"]).to_numpy(dtype=object):
            rows.append(head + "".join(f'<td dir="auto">{_cell(text)}</td>' for text in row))
            head = ""
    return ['<th scope="col">prompt</th>', *heads], rows


def _contents(parts: Iterable[Part]) -> str:
    """The list of the headings, each a link; nothing if there is none."""
    items = "".join(
        f'<li class="level-{part.level}"><a href="#part-{i}">{_escaped(part.text)}</a></li>'
        for i, part in enumerate(parts)
        if part.level
    )
    list_of_all = f'<nav aria-label="Contents"><h2>Contents</h2><ol>{items}</ol></nav>\n'
    return list_of_all if items else ""


def _made(made: Mapping[str, object]) -> str:
    facts = "".join(
        f"<dt>{_escaped(str(name))}</dt><dd>{_escaped(str(fact))}</dd>"
        for name, fact in made.items()
    )
    return f'<section class="made"><h2>How this was made</h2><dl>{facts}</dl></section>\n'
