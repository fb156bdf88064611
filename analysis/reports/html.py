"""The pieces of a report as HTML: escaped texts, tables, the contents, how it was made."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from html import escape
from typing import Any

import pandas as pd

from ..figures.style import method_colours

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


def _cell(value: Any) -> str:
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


def column_of(values: pd.Series) -> tuple[str, list[str]]:
    """The class attribute of a column, and its cells."""
    is_number = pd.api.types.is_numeric_dtype(values) and not pd.api.types.is_bool_dtype(values)
    return ' class="number"' if is_number else "", [_cell(value) for value in values]


def table_of(kind: str, says: str, heads: Iterable[str], rows: Iterable[str]) -> str:
    """A table that scrolls sideways, with its caption beneath."""
    # The caption stays outside: a wide table scrolls, and its caption should not.
    return (
        f'<figure><div class="scroll" tabindex="0"><table{kind} aria-label="{escaped(says)}">'
        f"<thead><tr>{''.join(heads)}</tr></thead>"
        f"<tbody>{''.join(f'<tr>{row}</tr>' for row in rows)}</tbody></table></div>"
        f"<figcaption>{escaped(says)}</figcaption></figure>"
    )


def side_by_side(table: pd.DataFrame) -> tuple[list[str], list[str]]:
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
        f"{escaped(column)}</th>"
        for method, column in zip(columns["method"], columns["column"], strict=True)
    ]
    rows: list[str] = []
    for prompt, part in named.groupby("prompt", sort=False):
        texts = part.pivot(index="sample", columns="column", values="text")
        head = f'<th scope="rowgroup" rowspan="{len(texts)}" dir="auto">{escaped(str(prompt))}</th>'
        for row in texts.reindex(columns=columns["column"]).to_numpy(dtype=object):
            rows.append(head + "".join(f'<td dir="auto">{_cell(text)}</td>' for text in row))
            head = ""
    return ['<th scope="col">prompt</th>', *heads], rows


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
