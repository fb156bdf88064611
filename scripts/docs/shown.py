"""Whether a page shows what its code prints: the same words, and numbers that rounding explains."""

import re
import textwrap
from itertools import zip_longest

LONGEST = 84
NUMBER = re.compile(r"-?\d+(?:\.\d+)?(?:e[-+]?\d+)?%?")
NEAR = 0.02
"""The share by which a number that is no count may be off: processors round differently."""


def wrapped(said: str) -> str:
    """Lines that fit the page: a longer one goes on, indented, on the next."""
    lines = (
        piece
        for line in said.rstrip().splitlines()
        for piece in textwrap.wrap(line, LONGEST, subsequent_indent="    ", drop_whitespace=True)
        or [""]
    )
    return "".join(f"{line.rstrip()}\n" for line in lines)


def difference(shown: str, said: str) -> str:
    """Where a page first shows something else than was printed, in words; "" if it does not.

    Where the lines are broken does not matter, but inside of a very long word.
    """
    mine, theirs = shown.split(), wrapped(said).split()
    for place, (one, other) in enumerate(zip_longest(mine, theirs)):
        if one is None or other is None or not _alike(one, other):
            return f"{_around(mine, place)!r}, where {_around(theirs, place)!r} is printed"
    return ""


def _around(words: list[str], place: int) -> str:
    return " ".join(words[max(0, place - 3) : place + 4])


def _alike(one: str, other: str) -> bool:
    if NUMBER.split(one) != NUMBER.split(other):
        return False
    return all(map(_near, NUMBER.findall(one), NUMBER.findall(other)))


def _near(one: str, other: str) -> bool:
    """The same count, or two measured numbers that differ by little or by one last digit."""
    if one == other:
        return True
    if not all({".", "e", "%"} & set(each) for each in (one, other)):
        return False
    a, b = (float(each.rstrip("%")) for each in (one, other))
    mantissa, _, power = one.rstrip("%").partition("e")
    last = 10.0 ** (int(power or 0) - len(mantissa.partition(".")[2]))
    return abs(a - b) <= max(NEAR * abs(a), 1.01 * last)
