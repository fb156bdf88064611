"""A key taken out of whatever a server sends back, however it is written there."""

import base64
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from html.entities import codepoint2name
from typing import Any

SHORTEST_KEY = 8
"""A shorter key, as the "0" of a server that wants none, is no secret, and part of any answer."""
SHOWN = "[key]"


@dataclass(frozen=True)
class Redaction:
    """Takes one key out of texts and out of JSON that is read.

    The key is found as it is, with any of its characters escaped as in JSON, URLs or HTML, also
    twice, and in base64 and hexadecimal; and so is either half, since a server may cut what it
    echoes.
    """

    key: str = field(repr=False)
    _found: re.Pattern[str] | None = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        secret = len(self.key) >= SHORTEST_KEY
        pattern = re.compile("|".join(_forms(self.key))) if secret else None
        object.__setattr__(self, "_found", pattern)

    def text(self, text: str) -> str:
        """The text without the key."""
        return text if self._found is None else self._found.sub(SHOWN, text)

    def value(self, value: Any) -> Any:
        """What was read of JSON, its texts and the names of its fields without the key."""
        if self._found is None:
            return value
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, list):
            return [self.value(each) for each in value]
        if isinstance(value, dict):
            return {self.text(name): self.value(each) for name, each in value.items()}
        return value


def _forms(key: str) -> Iterator[str]:
    """Patterns of the key, the longest first."""
    half = len(key) // 2
    parts = [key]
    if half >= SHORTEST_KEY:
        parts += [key[:half], key[half:]]
    yield from ("".join(map(_character, part)) for part in parts)
    for part in parts:
        yield f"(?i:{part.encode().hex()})"
        for shift in range(3):
            encoded = base64.b64encode(b"\0" * shift + part.encode()).decode().rstrip("=")
            inner = encoded[(0, 2, 3)[shift] : len(encoded) - 1]  # what no neighbour changes
            yield re.escape(inner).replace(r"\+", "[-+]").replace("/", r"(?:\\*/|_)")


def _character(character: str) -> str:
    """A pattern of one character, as it is or escaped."""
    number = ord(character)
    names = [str(number), f"0*{number}", f"(?i:x0*{number:x})"]
    if number in codepoint2name:
        names.append(codepoint2name[number])
    entities = "|".join(f"#{name}" for name in names[:3]) + "".join(f"|{n}" for n in names[3:])
    ways = [
        re.escape(character),
        rf"\\+(?:{re.escape(character)}|u(?i:00{number:02x})|x(?i:{number:02x}))",
        rf"%(?:25)*(?i:{number:02x})",
        f"&(?:amp;)*(?:{entities});",
    ]
    return f"(?:{'|'.join([*ways, '[+]'] if character == ' ' else ways)})"
