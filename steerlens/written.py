"""The text of a completion as it is written: what may be shown so far, and where it has to end."""

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from steerlens.prompts import tokenizer_of
from steerlens.types import HookedModel

BYTE = re.compile(r"<0x[0-9A-F]{2}>")
UNFINISHED = "\N{REPLACEMENT CHARACTER}"
INSISTS = "clean_up_tokenization_spaces_for_bpe_even_though_it_will_corrupt_output"
TIDIED = 8
"""More characters than a tokenizer that tidies up spaces before punctuation looks at together."""


@dataclass(frozen=True)
class Stops:
    """What ends a completion: tokens, and strings in its text."""

    tokens: frozenset[int]
    strings: tuple[str, ...] = ()

    @classmethod
    def of(cls, model: HookedModel, ends: Collection[int], strings: Sequence[str]) -> "Stops":
        """The end tokens and the stop strings; those that are a special token's text are tokens.

        ValueError for a string that holds a special token's text and more: texts have none.
        """
        if not strings:
            return cls(frozenset(ends))
        tokenizer, tokens, texts = tokenizer_of(model), set(ends), []
        special = special_tokens(tokenizer)
        for string in strings:
            inside = [token for token in special if token in string]
            if string in special:
                tokens.add(special[string])
            elif inside:
                raise ValueError(
                    f"The stop string {string!r} holds the special token {inside[0]!r}, which the "
                    f"text of a completion leaves out. Stop at {inside[0]!r} alone."
                )
            else:
                texts.append(string)
        return cls(frozenset(tokens), tuple(texts))

    def cut(self, text: str) -> str | None:
        """The text before the first stop string in it; None if there is none."""
        places = [text.find(string) for string in self.strings]
        found = [place for place in places if place >= 0]
        return text[: min(found)] if found else None

    def begun(self, text: str) -> int:
        """How many last characters of the text may be the beginning of a stop string."""
        longest = max(map(len, self.strings), default=1) - 1
        for n in range(min(longest, len(text)), 0, -1):
            if any(string.startswith(text[-n:]) for string in self.strings):
                return n
        return 0


@dataclass(eq=False)
class Written:
    """One completion as far as it is written.

    The pieces that `add` returns, joined, are `text` once it is `over`: what could still change
    (half a character, the beginning of a stop string) is held back until it is certain.
    """

    tokenizer: Any
    stops: Stops
    longest: int
    ids: list[int] = field(default_factory=list)
    shown: str = ""
    over: bool = False

    def add(self, token: int) -> str:
        """Take in a token; returns the text that can be shown now."""
        self.take(token)
        certain = self.cut_text if self.over else self._certain()
        piece, self.shown = certain[len(self.shown) :], max(self.shown, certain, key=len)
        return piece

    def take(self, token: int) -> None:
        """Take in a token, its text left for the end if no stop string has to be looked for."""
        self.ids.append(token)
        self.over = token in self.stops.tokens or len(self.ids) >= self.longest
        if self.stops.strings and self.stops.cut(self.text) is not None:
            self.over = True

    @property
    def text(self) -> str:
        """What the tokens so far say, special ones left out; a stop string is not cut off yet."""
        return self.tokenizer.decode(self.ids, skip_special_tokens=True)

    @property
    def cut_text(self) -> str:
        """`text`, up to the first stop string."""
        text = self.text
        cut = self.stops.cut(text)
        return text if cut is None else cut

    def _certain(self) -> str:
        """The part of the text that no later token can change."""
        # Bytes that stand for themselves are decoded together: a wrong one spoils those before it.
        n = len(self.ids)
        while n and (self.ids[n - 1] in self.special or self._is_byte(self.ids[n - 1])):
            n -= 1
        text = self.tokenizer.decode(self.ids[:n], skip_special_tokens=True).rstrip(UNFINISHED)
        held = max(self.stops.begun(text), TIDIED if tidies(self.tokenizer) else 0)
        return text[: max(len(text) - held, 0)]

    @cached_property
    def special(self) -> frozenset[int]:
        """The tokens that no text shows."""
        return frozenset(special_tokens(self.tokenizer).values())

    def _is_byte(self, token: int) -> bool:
        return BYTE.fullmatch(self.tokenizer.convert_ids_to_tokens(token) or "") is not None


def special_tokens(tokenizer: Any) -> dict[str, int]:
    """The id of each special token, which a text leaves out."""
    added = getattr(tokenizer, "added_tokens_decoder", {}).items()
    listed = zip(tokenizer.all_special_tokens, tokenizer.all_special_ids, strict=True)
    return {token.content: number for number, token in added if token.special} | dict(listed)


def tidies(tokenizer: Any) -> bool:
    """Whether the tokenizer takes spaces out of a text, and so looks back at what came before."""
    if not getattr(tokenizer, "clean_up_tokenization_spaces", False):
        return False
    kind = type(getattr(getattr(tokenizer, "backend_tokenizer", None), "model", None)).__name__
    # transformers leaves BPE alone, if it knows this way to insist; before it did, it tidied all.
    return kind != "BPE" or bool(getattr(tokenizer, INSISTS, True))
