"""What others wrote: JSON whose faults are ValueErrors, and text that cannot command a terminal."""

import json
import re
import sys
import weakref
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

STANDARD_INPUT = Path("-")
"""The name under which a file of lines is read from standard input."""
_read_already: weakref.WeakKeyDictionary[Any, bytes] = weakref.WeakKeyDictionary()

# What a terminal obeys (C0 and C1 controls), and what makes text stand where it is not: marks of
# writing direction and of invisible width, separators of lines, halves of a character.
_OBEYED = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b\u2028-\u202e\u2060-\u206f\ufeff\ud800-\udfff]"
)


def parse_json(
    text: str | bytes, object_of: Callable[[list[tuple[str, Any]]], dict[str, Any]] | None = None
) -> Any:
    """What `json.loads` makes of it; ValueError too where it is nested too deeply to be read.

    `object_of` makes an object of its fields, of which a name may be there twice.
    """
    try:
        return json.loads(text, object_pairs_hook=object_of)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def each_once(fields: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object of its fields; ValueError where a name is there twice."""
    found = dict(fields)
    if len(found) < len(fields):
        counts = Counter(name for name, _ in fields)
        twice = min(name for name, count in counts.items() if count > 1)
        raise ValueError(f"the field {short(twice)} is there twice")
    return found


def harmless(text: str) -> str:
    """The text with what a terminal would obey written out, as backslash and number.

    Line feeds and tabs stay, and so does every letter.
    """
    return _OBEYED.sub(_written_out, text)


def _written_out(found: re.Match[str]) -> str:
    number = ord(found[0])
    return f"\\x{number:02x}" if number < 0x100 else f"\\u{number:04x}"


def short(value: object, most: int = 40) -> str:
    """A value for a message, cut where it is long."""
    text = repr(value)
    return text if len(text) <= most else f"{text[: most - 10]}... ({len(text)} characters)"


def few(names: Iterable[object], most: int = 5) -> str:
    """Names for a message: the first few, and how many more there are; those of a set by name."""
    listed = sorted(map(str, names)) if isinstance(names, set) else list(map(str, names))
    shown = ", ".join(name if len(name) <= 40 else short(name) for name in listed[:most])
    more = len(listed) - most
    return f"{shown} and {more} more" if more > 0 else shown


def bytes_of_input(path: Path) -> bytes:
    """What a file that is read holds; `-` is standard input, which is read once and kept.

    ValueError for what is no regular file: reading a pipe or a device may wait for ever.
    """
    if path == STANDARD_INPUT:
        stream = sys.stdin
        if stream not in _read_already:
            _read_already[stream] = stream.buffer.read()
        return _read_already[stream]
    if path.exists() and not path.is_file():
        kind = "a folder" if path.is_dir() else "a pipe or a device"
        raise ValueError(f"{path} is {kind}, no regular file. Give a file; '-' is standard input.")
    return path.read_bytes()


def text_of_input(path: Path) -> str:
    """The same as text; ValueError that names file and line where it is no UTF-8."""
    content = bytes_of_input(path)
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        number = content[: error.start].count(b"\n") + 1
        name = "standard input" if path == STANDARD_INPUT else path
        wide = content.startswith((b"\xff\xfe", b"\xfe\xff"))
        found = "UTF-16" if wide else f"byte 0x{content[error.start]:02x}: {error.reason}"
        raise ValueError(
            f"{name}, line {number}: this is no UTF-8 text ({found}). Save it as UTF-8."
        ) from error


def require_encodable(text: str) -> None:
    """Raise ValueError where a text holds half of a character (a surrogate), which no token has."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        half = ord(text[error.start])
        raise ValueError(
            f"The text {short(text)} holds half of a character (\\u{half:04x}), which is no text. "
            "Write the character; bytes that are no UTF-8 are read with errors='replace'."
        ) from None


_HALF = re.compile(r"\\u[dD][89a-fA-F]")


def require_whole_characters(value: Any, text: str) -> None:
    """Raise ValueError where what was read of `text` holds half of a character (a surrogate)."""
    if not _HALF.search(text):
        return
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        half = ord(error.object[error.start])
        raise ValueError(
            f"a text holds half of a character (\\u{half:04x}). Write the pair, or the character"
        ) from None
