"""The text of each token, also where it is no whole character: `pieces`.

A character that the tokenizer splits (an emoji, Chinese, the ï of "naïve") is a run of tokens that
say nothing alone. Each of them is shown as what they say together and which part it is: `ï⟨1/2⟩`,
`ï⟨2/2⟩`. What stays half a character is shown as its bytes, `⟨byte C3⟩`.
"""

import re
from collections.abc import Sequence
from typing import Any

HALF = "\ufffd"
SPACE = "▁"
LONGEST = 8
"""So many tokens are tried for one character, which is four bytes at most."""
_FALLBACK = re.compile(r"<0x([0-9A-Fa-f]{2})>")


def pieces(tokenizer: Any, ids: Sequence[int]) -> list[str]:
    """One text per token, none of which has a half character in it."""
    texts: list[str] = []
    while len(texts) < len(ids):
        rest = ids[len(texts) : len(texts) + LONGEST]
        texts += _whole(tokenizer, rest) or [_bytes(tokenizer, rest[0])]
    return texts


def _whole(tokenizer: Any, ids: Sequence[int]) -> list[str]:
    """The first tokens that are whole characters together; none where they never are."""
    for n in range(1, len(ids) + 1):
        text = tokenizer.decode(list(ids[:n]))
        if HALF not in text:
            text = _spaced(tokenizer, ids[0], text)
            return [text] if n == 1 else [f"{text}⟨{part}/{n}⟩" for part in range(1, n + 1)]
    return []


def _spaced(tokenizer: Any, first: int, text: str) -> str:
    """The text with the spaces before it, which SentencePiece writes as `▁` and decodes away."""
    written = str(tokenizer.convert_ids_to_tokens(first))
    spaces = len(written) - len(written.lstrip(SPACE))
    missing = spaces - (len(text) - len(text.lstrip(" ")))
    return " " * max(0, missing) + text


def _bytes(tokenizer: Any, token: int) -> str:
    """The token's bytes, each in hexadecimal; its text where they are not known, or are whole."""
    written = str(tokenizer.convert_ids_to_tokens(token))
    fallback, table = _FALLBACK.fullmatch(written), _byte_of_letter()
    if fallback:
        return f"⟨byte {fallback[1].upper()}⟩"
    if any(letter not in table for letter in written):
        return tokenizer.decode([token])
    raw = bytes(table[letter] for letter in written)
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        known = raw.decode("utf-8", "surrogateescape")
    return "".join(
        f"⟨byte {ord(c) - 0xDC00:02X}⟩" if "\udc80" <= c <= "\udcff" else c for c in known
    )


def _byte_of_letter() -> dict[str, int]:
    """The letters by which byte-level tokenizers (GPT-2 and after) write each byte."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    letters = {chr(byte): byte for byte in printable}
    return letters | {chr(256 + i): byte for i, byte in enumerate(others)}
