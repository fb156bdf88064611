"""What a judge may be used on, and the warning where it is used on something else.

A judge's `domain` says the first, in words that follow "made for". A score outside of it is worth
less than none: it looks like any other. The signs are cheap and miss much; that nothing is said
does not mean that a text is inside.
"""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from steerlens.types import SteeringWarning


@dataclass(frozen=True)
class Sign:
    """What shows that a text is outside, in words that follow "3 texts": "are not in English".

    It is told where more than `share` of the texts show it, and `fewest` of them or more: some
    texts inside show it as well.
    """

    what: str
    shows: Callable[[str], bool]
    share: float = 0.0
    fewest: int = 1

    def is_told(self, showing: int, of: int) -> bool:
        """Whether so many texts are more than there are inside."""
        return showing >= self.fewest and showing > self.share * of


def warn_outside(name: str, domain: str, texts: Sequence[str], signs: Sequence[Sign]) -> None:
    """One SteeringWarning, about the caller's caller, if texts are outside the domain."""
    found = {sign.what: {i for i, text in enumerate(texts) if sign.shows(text)} for sign in signs}
    told = [
        (sign.what, found[sign.what])
        for sign in signs
        if sign.is_told(len(found[sign.what]), len(texts))
    ]
    if not told:
        return
    outside = set[int]().union(*(some for _, some in told))
    warnings.warn(
        f"The judge of {name} cannot be relied on for {len(outside)} of {len(texts)} texts: "
        f"{', '.join(f'{len(some)} {what}' for what, some in told)}. It is made for {domain}. "
        "Leave these scores out, or take another judge.",
        SteeringWarning,
        stacklevel=3,
    )


def is_foreign(text: str) -> bool:
    """Whether most letters of a text are not Latin."""
    letters = [c for c in text if c.isalpha()]
    return 2 * sum(c >= "\u0250" for c in letters) > len(letters)


def is_caseless(text: str) -> bool:
    """Whether most letters of a text have no capitals, as in Chinese, Arabic or Hindi."""
    letters = [c for c in text if c.isalpha()]
    return 2 * sum(not has_case(c) for c in letters) > len(letters)


def has_case(letter: str) -> bool:
    """Whether there is a capital and a small form of a letter."""
    return letter.lower() != letter.upper()


FOREIGN = Sign("not in Latin letters", is_foreign)
CASELESS = Sign("in a script without capitals", is_caseless)
