"""Tidy tables as text for a paper (`latex_table`) or a page (`markdown_table`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

_LATEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_",
    "{": r"\{", "}": r"\}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
    "×": r"$\times$", "−": "$-$", "≤": r"$\le$", "≥": r"$\ge$",
}  # fmt: skip


def latex_table(
    table: pd.DataFrame,
    columns: Sequence[str] | Mapping[str, str] | None = None,
    *,
    digits: int = 3,
    caption: str = "",
    label: str = "",
) -> str:
    """A `table` with booktabs rules; numbers to so many digits, intervals behind their number.

    `columns` are those to show, or the heading of each. A column with `<name>_low` and
    `<name>_high` (or, if it is the only number, `low` and `high`) is written 0.41 [0.38, 0.44].
    """
    heads, rows, numeric = _cells(table, columns, digits)
    lines = [
        r"\begin{table}",
        r"\centering",
        *([rf"\caption{{{_latex(caption)}}}"] if caption else []),
    ]
    lines += [rf"\label{{{label}}}"] if label else []
    lines += [rf"\begin{{tabular}}{{{''.join('r' if n else 'l' for n in numeric)}}}", r"\toprule"]
    lines += [" & ".join(map(_latex, heads)) + r" \\", r"\midrule"]
    lines += [" & ".join(map(_latex, row)) + r" \\" for row in rows]
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", r"\end{table}", ""])


def markdown_table(
    table: pd.DataFrame,
    columns: Sequence[str] | Mapping[str, str] | None = None,
    *,
    digits: int = 3,
) -> str:
    """The table in Markdown, numbers on the right; `columns` and intervals as in `latex_table`.

    >>> table = pd.DataFrame({"method": ["CAA"], "recovered": [0.2846]})
    >>> print(analysis.markdown_table(table, digits=2))
    | method | recovered |
    | --- | ---: |
    | CAA | 0.28 |
    <BLANKLINE>
    """
    heads, rows, numeric = _cells(table, columns, digits)
    rule = ["---:" if is_number else "---" for is_number in numeric]
    lines = [
        [_markdown(head) for head in heads],
        rule,
        *([_markdown(c) for c in row] for row in rows),
    ]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def _cells(
    table: pd.DataFrame, columns: Sequence[str] | Mapping[str, str] | None, digits: int
) -> tuple[list[str], list[list[str]], list[bool]]:
    """Headings, texts of all rows, and which columns are of numbers."""
    ends = {name for name in table if _is_end(str(name), table)}
    names = [name for name in table if name not in ends] if columns is None else list(columns)
    missing = [name for name in names if name not in table]
    if missing:
        raise ValueError(f"the table has no column {missing}; it has {list(table.columns)}.")
    titles = dict(columns) if isinstance(columns, Mapping) else {}
    heads = [titles.get(str(name), str(name)) for name in names]
    texts = [_column(table, str(name), digits) for name in names]
    numeric = [pd.api.types.is_numeric_dtype(table[name]) for name in names]
    return heads, [list(row) for row in zip(*texts, strict=True)], numeric


def _is_end(name: str, table: pd.DataFrame) -> bool:
    """Whether a column is the end of another's interval."""
    for end in ("_low", "_high"):
        if name.endswith(end) and name[: -len(end)] in table:
            return True
    return name in ("low", "high") and _owner_of_interval(table) is not None


def _owner_of_interval(table: pd.DataFrame) -> str | None:
    """The column that plain `low` and `high` belong to: the one before them."""
    names = [str(name) for name in table]
    if "low" not in names or "high" not in names:
        return None
    before = names[: names.index("low")]
    numbers = [name for name in before if pd.api.types.is_float_dtype(table[name])]
    return numbers[-1] if numbers else None


def _column(table: pd.DataFrame, name: str, digits: int) -> list[str]:
    texts = [_text(value, digits) for value in table[name]]
    ends = (f"{name}_low", f"{name}_high")
    if not set(ends) <= set(table.columns):
        ends = ("low", "high") if _owner_of_interval(table) == name else ()
    if not ends:
        return texts
    lows, highs = ([_text(value, digits) for value in table[end]] for end in ends)
    trios = zip(texts, lows, highs, strict=True)
    return [text if low == "–" else f"{text} [{low}, {high}]" for text, low, high in trios]


def _text(value: object, digits: int) -> str:
    if value is None or value is pd.NA or (isinstance(value, float) and np.isnan(value)):
        return "–"
    if isinstance(value, bool | np.bool_):
        return "yes" if value else "no"
    if isinstance(value, float | np.floating):
        return f"{value:.{digits}g}".replace("-", "−")
    return str(value)


def _latex(text: str) -> str:
    return "".join(_LATEX.get(character, character) for character in text).replace("–", "--")


def _markdown(text: str) -> str:
    return text.replace("\\", "\\\\").replace("|", "\\|").replace("\n", " ").replace("<", "&lt;")
