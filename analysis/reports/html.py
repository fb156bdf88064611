"""The pieces of a report as HTML: escaped texts, tables, the contents, how it was made."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from html import escape
from typing import Any

import pandas as pd

from ..figures.style import method_colours
from .columns import named

PLAIN_METHODS = ("unsteered", "prompt")
"""Have no strength: their columns come first, without one."""


@dataclass(frozen=True)
class Part:
    """A finished piece of the page; a heading also has a level and a text for the contents."""

    html: str
    level: int = 0
    text: str = ""


def escaped(text: str) -> str:
    """The text as HTML shows it; what no page can hold (controls, half characters) is U+FFFD."""
    unheld = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")
    return escape(unheld.sub("\ufffd", text))


def paragraphs(text: str) -> str:
    """A paragraph for each part between blank lines."""
    return "".join(f"<p>{escaped(part.strip())}</p>" for part in text.split("\n\n"))


def require_rows(table: pd.DataFrame, part: str) -> None:
    """ValueError for a table without rows."""
    if table.empty:
        raise ValueError(f"the {part} of the report got a table without rows: leave it out.")


def cell_of(value: Any) -> str:
    """A value of a table as it is shown: numbers to three significant digits, nothing as a dash."""
    if not pd.api.types.is_scalar(value):
        return escaped(str(value))
    if pd.isna(value):
        return "–"
    if pd.api.types.is_bool(value):
        return "yes" if value else "no"
    if pd.api.types.is_float(value):
        number = float(value)
        return f"{number:,.0f}" if 1000 <= abs(number) < 1e15 else f"{number:.3g}"
    return escaped(str(value))


LONG = 12
"""A table of more rows is folded up."""


def table_of(table: pd.DataFrame, says: str) -> str:
    """A table that scrolls sideways and is sorted by a click on a head, with its caption beneath.

    A long one is folded: its caption and the number of its rows are seen, and a click opens it.
    """
    columns = [_column(table[name]) for name in table.columns]
    heads = "".join(
        f'<th scope="col"{kind} data-column="{escaped(str(name))}" aria-sort="none">'
        f'<button type="button">{escaped(named(str(name)))}</button></th>'
        for name, (kind, _) in zip(table.columns, columns, strict=True)
    )
    rows = "".join(f"<tr>{''.join(row)}</tr>" for row in zip(*(c for _, c in columns), strict=True))
    # The caption stays outside: a wide table scrolls, and its caption should not.
    whole = (
        f'<div class="scroll" tabindex="0"><table class="sortable" aria-label="{escaped(says)}">'
        f"<thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table></div>"
    )
    caption = f"<figcaption>{escaped(says)}</figcaption>"
    if len(table) <= LONG:
        return f"<figure>{whole}{caption}</figure>"
    summary = f"<summary>Table of {len(table)} rows</summary>"
    return f"<figure><details>{summary}{whole}</details>{caption}</figure>"


def _column(values: pd.Series) -> tuple[str, list[str]]:
    """The class attribute of a column, and its cells; numbers keep all digits in `data-value`."""
    is_number = pd.api.types.is_numeric_dtype(values) and not pd.api.types.is_bool_dtype(values)
    if not is_number:
        return "", [f"<td>{cell_of(value)}</td>" for value in values]
    cells = [f'<td class="number" data-value="{value}">{cell_of(value)}</td>' for value in values]
    return ' class="number"', cells


def answers_of(table: pd.DataFrame, says: str) -> str:
    """Completions: under each prompt a card for each method and strength."""
    is_plain = table["method"].isin(PLAIN_METHODS) | table["strength_value"].isna()
    as_fitted = table["strength_value"] == 1
    times = table["strength_value"].map(" × {:g}".format).mask(is_plain | as_fitted, "")
    titled = table.assign(column=table["method"] + times, is_plain=is_plain)
    repeated = titled.loc[titled.duplicated(["prompt", "sample", "column"])]
    if len(repeated):
        raise ValueError(
            f"there are two texts of {repeated['column'].iloc[0]!r} for sample "
            f"{repeated['sample'].iloc[0]} of prompt {repeated['prompt'].iloc[0]!r}: number the "
            "samples of one prompt and method 0, 1, 2, ..."
        )
    columns = titled.sort_values("is_plain", ascending=False, kind="stable")
    columns = columns.drop_duplicates("column")
    colours = method_colours(columns["method"])
    sections: list[str] = []
    for prompt, part in titled.groupby("prompt", sort=False):
        texts = part.pivot(index="sample", columns="column", values="text")
        cards = "".join(
            _card(column, colours[method], texts.reindex(columns=[column])[column].tolist())
            for method, column in zip(columns["method"], columns["column"], strict=True)
        )
        question = f'<h4 dir="auto">{escaped(str(prompt))}</h4>'
        sections.append(f'<section>{question}<div class="cards">{cards}</div></section>')
    return (
        f'<figure class="answers">{"".join(sections)}<figcaption>{escaped(says)}</figcaption>'
        "</figure>"
    )


def _card(title: str, colour: str, texts: list[Any]) -> str:
    """What one method wrote: a text for each sample."""
    written = "".join(f'<p dir="auto">{cell_of(text)}</p>' for text in texts)
    swatch = f'<span class="swatch" style="background:{colour}"></span>'
    return f"<article><h5>{swatch}{escaped(title)}</h5>{written}</article>"


def contents(parts: Iterable[Part]) -> str:
    """The list of the headings, each a link; nothing if there is none."""
    items = "".join(
        f'<li class="level-{part.level}"><a href="#part-{i}">{escaped(part.text)}</a></li>'
        for i, part in enumerate(parts)
        if part.level
    )
    list_of_all = f'<nav aria-label="Contents"><h2>Contents</h2><ol>{items}</ol></nav>\n'
    return list_of_all if items else ""


def facts_box(made: Mapping[str, object]) -> str:
    """The last box of the page: how the results came about."""
    facts = "".join(
        f"<dt>{escaped(str(name))}</dt><dd>{escaped(str(fact))}</dd>" for name, fact in made.items()
    )
    return f'<section class="made"><h2>How this was made</h2><dl>{facts}</dl></section>\n'
