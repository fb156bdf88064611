"""How wide a text is when it is drawn, estimated without a font, and its lines at that width."""

from __future__ import annotations

import re
import unicodedata
from html import unescape

LINE = 1.3
"""Height of a line of text, in font sizes."""
_NARROW, _SLIM, _BROAD = (
    frozenset("ijl|!.,:;'"),
    frozenset(' ftr()[]{}/\\·-"*'),
    frozenset("mwMW%@"),
)
_TAG = re.compile(r"<[^<>]*>")


def text_width(text: str, size: float) -> float:
    """Pixels that the longest line takes in a broad font of this size, such as DejaVu Sans."""
    lines = (unescape(_TAG.sub("", line)) for line in text.split("<br>"))
    return max(sum(_share(character) for character in line) for line in lines) * size


def lines_in(text: str) -> int:
    """How many lines the text has; none where it is empty."""
    return text.count("<br>") + 1 if text else 0


def wrapped(text: str, size: float, pixels: float) -> str:
    """The text with line breaks at spaces so that no line is wider, unless one word is."""
    return "<br>".join(_wrapped_line(line, size, pixels) for line in text.split("<br>"))


def shortened(text: str, size: float, pixels: float) -> str:
    """The text, with its end as `…` where it is wider; never split inside an entity."""
    if text_width(text, size) <= pixels:
        return text
    pieces = re.findall(r"&[#\w]+;|.", text)
    while len(pieces) > 1 and text_width("".join(pieces) + "…", size) > pixels:
        pieces.pop()
    return "".join(pieces) + "…"


def _wrapped_line(line: str, size: float, pixels: float) -> str:
    lines, open_line = [], ""
    for word in line.split(" "):
        longer = f"{open_line} {word}" if open_line else word
        if open_line and text_width(longer, size) > pixels:
            lines.append(open_line)
            longer = word
        open_line = longer
    return "<br>".join([*lines, open_line])


def _share(character: str) -> float:
    """Width in font sizes."""
    if character in _NARROW:
        return 0.33
    if character in _SLIM:
        return 0.42
    if character in _BROAD:
        return 0.98
    if unicodedata.category(character)[0] == "M" or character in "\u200c\u200d":
        return 0.0
    if unicodedata.east_asian_width(character) in "WF":
        return 1.3 if ord(character) > 0x1F000 else 1.0
    if character.isupper():
        return 0.74
    return 0.64 if character.isascii() else 0.8
