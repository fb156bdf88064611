"""A text with its tokens coloured by a number, as static HTML that renders wherever HTML does.

Only `span`, `br` and `wbr` with inline styles and `title`: no script and no style sheet, so that
GitHub, VS Code and nbconvert show it as it is. Hover over a token for its position and value.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape

import pandas as pd

DIVERGING = ("#2166ac", "#67a9cf", "#d1e5f0", "#f7f7f7", "#fddbc7", "#ef8a62", "#b2182b")
"""Colours from the most negative value over zero to the most positive; safe for colour-blind."""

COLUMNS = ("position", "token", "value", "read", "steered")
MARKS = ("sink", "template")

# As `steerlens.pieces` writes a token that is part of a character: the character, then which part.
PART = re.compile(r"(.+)⟨(\d)/\d⟩", re.DOTALL)
_LOW_DIGITS = str.maketrans("0123456789", "₀₁₂₃₄₅₆₇₈₉")

_PAGE = (
    "display:block;background:#ffffff;color:#222222;padding:10px 14px;border-radius:6px;"
    "font:15px/1.9 system-ui,'Segoe UI',Roboto,'Noto Sans',sans-serif"
)
_NAME = "display:block;font-size:13px;font-weight:600;line-height:1.4;margin-top:6px"
_TEXT = "display:block;unicode-bidi:plaintext;text-align:start;overflow-wrap:anywhere"
_LEGEND = "display:block;font-size:12px;line-height:2;margin-top:8px;opacity:0.85"
_TOKEN = "padding:1px 0 2px;margin-left:1px"
_STEERED = "border-bottom:3px solid currentColor"
_NOT_STEERED = "border-bottom:3px solid transparent"
_SINK = "outline:2px dashed currentColor;outline-offset:-2px"
_FOLDED = "background:#f0f0f0;color:#444444;font-size:12px;padding:1px 6px 2px;border-radius:8px"


@dataclass(frozen=True)
class TokenView:
    """Finished HTML of a coloured text; notebooks show it, reports embed `.html`.

    `tables`, `label` and `limit` are what it was made of, for `token_figure` and `save`.
    """

    html: str
    tables: Mapping[str, pd.DataFrame] = field(default_factory=dict, repr=False, compare=False)
    label: str = "value"
    limit: float = 1.0

    def _repr_html_(self) -> str:
        return self.html


def token_view(table: pd.DataFrame, label: str = "value", limit: float | None = None) -> TokenView:
    """One text coloured by `value`; see `token_views`."""
    return token_views({"": table}, label, limit)


def token_views(
    tables: Mapping[str, pd.DataFrame], label: str = "value", limit: float | None = None
) -> TokenView:
    """The same text once per name, all on one colour scale centred at zero.

    Each table has one row per token: `position`, `token`, `value`, `read`, `steered`, and may have
    `sink` (tokens that are outlined, and do not stretch the colours) and `template` (tokens that
    are folded up where several of them follow each other and none has a value). `label` says what
    the value is, with its unit. Colours end at `limit`, by default the largest finite |value| of
    all tables. NaN has no colour and is titled "not measured".
    """
    if not tables:
        raise ValueError("token_views got no table: pass at least one, such as {'CAA': table}.")
    rows = {name: _checked(table, name) for name, table in tables.items()}
    _require_same_text(rows)
    ordinary = [table.loc[~table["sink"], "value"] for table in rows.values()]
    limit = _limit([value for values in ordinary for value in values], limit)
    texts = [
        (f'<span style="{_NAME}">{escape(_whole(name))}</span>' if name else "")
        + f'<span style="{_TEXT}">{_text(table, label, limit)}</span>'
        for name, table in rows.items()
    ]
    legend = f'<span style="{_LEGEND}">{_legend(list(rows.values()), label, limit)}</span>'
    html = f'<span style="{_PAGE}">{"".join(texts)}{legend}</span>'
    return TokenView(html, rows, label, limit)


def visible(token: str) -> str:
    """The token with everything unseen made seen: `·` for a space at an end, `⏎` for a newline.

    Control and direction characters become their code points, bytes that are no whole character
    (surrogate escapes) their hexadecimal value, and the empty token `∅`.
    """
    return "⏎".join(_visible_line(line) for line in token.split("\n")) or "∅"


def part_shown(token: str) -> str:
    """The token as it stands in a text: a character in its first part, `₂`, `₃` for the others."""
    found = PART.fullmatch(token)
    if found is None:
        return token
    return found[1] if found[2] == "1" else found[2].translate(_LOW_DIGITS)


def colour_of(value: float, limit: float) -> str:
    """The colour `#rrggbb` of a value on `DIVERGING` from -limit to +limit, clipped at the ends."""
    place = (min(max(value / limit, -1.0), 1.0) + 1) / 2 * (len(DIVERGING) - 1)
    low = min(int(place), len(DIVERGING) - 2)
    ends = zip(_channels(DIVERGING[low]), _channels(DIVERGING[low + 1]), strict=True)
    return "#" + "".join(f"{round(a + (b - a) * (place - low)):02x}" for a, b in ends)


def contrast(first: str, second: str) -> float:
    """The WCAG contrast ratio of two colours `#rrggbb`, from 1 (same) to 21 (black and white)."""
    dark, light = sorted((_luminance(first), _luminance(second)))
    return (light + 0.05) / (dark + 0.05)


def ink_on(background: str) -> str:
    """Black or white, whichever reads better on the background: at least 4.58:1 on any colour."""
    return max("#000000", "#ffffff", key=lambda ink: contrast(ink, background))


def _channels(colour: str) -> tuple[int, int, int]:
    return int(colour[1:3], 16), int(colour[3:5], 16), int(colour[5:7], 16)


def _luminance(colour: str) -> float:
    shares = [channel / 255 for channel in _channels(colour)]
    linear = [s / 12.92 if s <= 0.04045 else ((s + 0.055) / 1.055) ** 2.4 for s in shares]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def _visible_line(line: str) -> str:
    body = line.strip(" ")
    if not body:
        return "·" * len(line)
    before, after = len(line) - len(line.lstrip(" ")), len(line) - len(line.rstrip(" "))
    # A joiner shapes the letters or emoji around it, and a mark needs a letter to sit on.
    joined = any(unicodedata.category(c)[0] not in "CM" for c in body)
    shown = "".join(c if joined and c in "\u200c\u200d" else _visible_character(c) for c in body)
    base = "◌" if unicodedata.category(body[0])[0] == "M" else ""
    return "·" * before + base + shown + "·" * after


def _visible_character(character: str) -> str:
    if character == "\t":
        return "⇥"
    if "\udc80" <= character <= "\udcff":
        return f"⟨byte {ord(character) - 0xDC00:02X}⟩"
    if unicodedata.category(character) in {"Cc", "Cf", "Cs", "Zl", "Zp"}:
        return f"⟨U+{ord(character):04X}⟩"
    return character


def _whole(text: str) -> str:
    """The text without half characters, which no UTF-8 file can hold."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def _checked(table: pd.DataFrame, name: str) -> pd.DataFrame:
    of = f"the token table of {name!r}" if name else "the token table"
    missing = [column for column in COLUMNS if column not in table.columns]
    if missing:
        raise ValueError(
            f"{of} lacks the columns {missing}; it has {list(table.columns)}. "
            f"It needs one row per token with {list(COLUMNS)}."
        )
    if table.empty:
        raise ValueError(f"{of} has no rows: pass one row per token of the text.")
    repeated = table.loc[table["position"].duplicated(), "position"].tolist()
    if repeated:
        raise ValueError(
            f"{of} has several rows at position {repeated[0]}. Keep one example, layer and method."
        )
    marks = {name: table.get(name, False) for name in MARKS}
    return table.assign(**marks).astype({"value": float}).sort_values("position")


def _require_same_text(tables: Mapping[str, pd.DataFrame]) -> None:
    texts = {name: list(zip(t["position"], t["token"], strict=True)) for name, t in tables.items()}
    first = next(iter(texts))
    for name, text in texts.items():
        if text != texts[first]:
            raise ValueError(
                f"the tables of {first!r} and {name!r} hold different texts ({len(texts[first])} "
                f"and {len(text)} tokens). Stack tables of one text; show others on their own."
            )


def _limit(values: Sequence[float], asked: float | None) -> float:
    if asked is None:
        return max((abs(value) for value in values if math.isfinite(value)), default=0.0) or 1.0
    if not (math.isfinite(asked) and asked > 0):
        raise ValueError(f"limit={asked} is no end of a colour scale: pass a positive number.")
    return asked


def _text(table: pd.DataFrame, label: str, limit: float) -> str:
    return "".join(
        _folded(run) if is_folded else _tokens(run, label, limit)
        for run, is_folded in folded_runs(table)
    )


def folded_runs(table: pd.DataFrame) -> list[tuple[pd.DataFrame, bool]]:
    """The rows in runs, and whether each is folded up: several tokens of the template in a row."""
    hidden = table["template"] & table["value"].isna() & ~table["read"]
    runs = table.groupby((hidden != hidden.shift()).cumsum(), sort=False)
    return [(run, len(run) > 1 and bool(hidden.loc[run.index[0]])) for _, run in runs]


def _tokens(table: pd.DataFrame, label: str, limit: float) -> str:
    columns = [table[column].tolist() for column in (*COLUMNS, "sink")]
    return "".join(
        _token(position, token, value, (bool(read), bool(steered), bool(sink)), label, limit)
        for position, token, value, read, steered, sink in zip(*columns, strict=True)
    )


def _folded(run: pd.DataFrame) -> str:
    """Tokens of the template as one grey mark; their text is in its title."""
    first, last, steered = run["position"].iloc[0], run["position"].iloc[-1], run["steered"].sum()
    some = f", {steered} of them steered" if steered else ""
    text = "".join(visible(token) for token in run["token"])
    title = f"positions {first} to {last}, written by the chat template{some}: {text}"
    line = _STEERED if steered else _NOT_STEERED
    return (
        f'<span style="{_FOLDED};{line}" title="{escape(_whole(title))}">'
        f"⋯ {len(run)} template tokens</span>"
    )


def _token(
    position: int,
    token: str,
    value: float,
    flags: tuple[bool, bool, bool],
    label: str,
    limit: float,
) -> str:
    read, steered, sink = flags
    words = "not measured" if math.isnan(value) else f"{label} {value:+.3g}"
    marks = ", read" * read + ", steered" * steered + ", a sink" * sink
    title = f"position {position}, token “{visible(token)}”: {words}{marks}"
    lines = part_shown(token).split("\n")
    shown = "⏎<br/>".join(escape(_visible_line(line)) for line in lines) or "∅"
    # A dot offers no place to break the line where the space it stands for did.
    return (
        f"{'<wbr/>' * token.startswith(' ')}"
        f'<span style="{_style(value, limit, flags)}" title="{escape(_whole(title))}">'
        f"{shown}</span>"
    )


def _style(value: float, limit: float, flags: tuple[bool, bool, bool]) -> str:
    _, steered, sink = flags
    colours = []
    if not math.isnan(value):
        background = colour_of(value, limit)
        colours = [f"background:{background};color:{ink_on(background)}"]
    line = _STEERED if steered else _NOT_STEERED
    return ";".join([*colours, _TOKEN, line, *[_SINK] * sink])


def _legend(tables: Sequence[pd.DataFrame], label: str, limit: float) -> str:
    values = [value for table in tables for value in table["value"]]
    beyond = any(abs(value) > limit for value in values)
    swatches = "".join(
        f'<span style="background:{colour};padding:2px 9px">\u00a0</span>' for colour in DIVERGING
    )
    low, high = ("≤ ", "≥ ") if beyond else ("", "")
    parts = [f"{escape(_whole(label))}: {low}{-limit:+.3g} {swatches} {high}{limit:+.3g}"]
    for column, style in (("steered", _STEERED), ("sink", _SINK)):
        if any(table[column].any() for table in tables):
            parts.append(f'<span style="{style}">{column}</span>')
    if any(map(math.isnan, values)):
        parts.append("<span>without colour: not measured</span>")
    return " \u2002 ".join(parts)
