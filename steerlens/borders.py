"""Where in the tokens of a text a character stands, with fast and with slow tokenizers."""

from collections.abc import Sequence
from typing import Any

from steerlens.parsing import require_encodable

SPACE = "\N{LOWER ONE EIGHTH BLOCK}"
"""How SentencePiece spells a space."""
NEUTRAL = ("\n", ".", "a")
"""Texts that a tokenizer seldom joins to what comes after them."""


def ids_of(tokenizer: Any, text: str) -> list[int]:
    """The token ids of a text, with no special token added."""
    require_encodable(text)
    return tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]


def split_at(tokenizer: Any, text: str, start: int) -> tuple[list[int], list[int]]:
    """The tokens of `text`, cut before the first that reaches beyond its first `start` characters.

    A token that holds characters on both sides is in the second part.
    """
    require_encodable(text)
    if not tokenizer.is_fast:
        ids = ids_of(tokenizer, text)
        border = _token_by_decoding(tokenizer, text, ids, start)
        return ids[:border], ids[border:]
    found = tokenizer(text, add_special_tokens=False, verbose=False, return_offsets_mapping=True)
    ids, spans = found["input_ids"], found["offset_mapping"]
    border = next((i for i, (_, stop) in enumerate(spans) if stop > start), len(spans))
    return ids[:border], ids[border:]


def split_at_word(tokenizer: Any, text: str, start: int) -> tuple[list[int], list[int]]:
    """The same, cut before the first word: the tokens of blanks are in the first part."""
    word = start + len(text[start:]) - len(text[start:].lstrip())
    before, rest = split_at(tokenizer, text, word)
    # SentencePiece has a token for a space that it adds itself, at the place of the word after it.
    while len(rest) > 1 and not _token(tokenizer, rest[0]).strip(SPACE):
        before, rest = [*before, rest[0]], rest[1:]
    return before, rest


def _token(tokenizer: Any, number: int) -> str:
    """The token as its vocabulary spells it."""
    return str(tokenizer.convert_ids_to_tokens([number])[0])


def _token_by_decoding(tokenizer: Any, text: str, ids: Sequence[int], start: int) -> int:
    """From which token on the tokens are read as the rest of the text, blanks aside."""
    rest = _squeezed(text[start:])
    if not rest:
        return len(ids) - common_tail(ids, ids_of(tokenizer, text[start:]))
    # The rest by itself is often the same tokens: the search begins near there.
    number = min(max(len(ids) - len(ids_of(tokenizer, text[start:])) + 3, 0), len(ids) - 1)
    while number < len(ids) - 1 and _read(tokenizer, ids[number + 1 :]).endswith(rest):
        number += 1
    while number >= 0 and not _read(tokenizer, ids[number:]).endswith(rest):
        number -= 1
    if number >= 0:
        return number
    # The tokenizer alters text (lower case, unknown words), so that nothing can be read back.
    return len(ids) - common_tail(ids, ids_of(tokenizer, text[start:]))


def _read(tokenizer: Any, ids: Sequence[int]) -> str:
    return _squeezed(tokenizer.decode(ids, skip_special_tokens=False))


def _squeezed(text: str) -> str:
    return "".join(text.split())


def common_tail(first: Sequence[Any], second: Sequence[Any]) -> int:
    """How many tokens (or characters) two rows share, counted from the right."""
    return common_head(first[::-1], second[::-1])


def common_head(first: Sequence[Any], second: Sequence[Any]) -> int:
    """How many tokens (or characters) two rows share, counted from the left."""
    shared = 0
    for left, right in zip(first, second, strict=False):
        if left != right:
            break
        shared += 1
    return shared


def continued(tokenizer: Any, contexts: Sequence[str], text: str) -> tuple[int, ...]:
    """The tokens of `text` as they come after a context, which keeps its own.

    Of the contexts, and some that join to nothing, the first that does; else the text alone.
    """
    for context in (*contexts, *NEUTRAL):
        own, joint = (ids_of(tokenizer, words) for words in (context, context + text))
        if joint[: len(own)] == own:
            return tuple(joint[len(own) :])
    return tuple(ids_of(tokenizer, text))
