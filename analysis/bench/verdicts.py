"""Whether a claim holds: counted over attributes, never decided by their mean."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from .estimates import Estimate, mean_of

SUPPORTED, AGAINST, UNDECIDED = "supported", "not supported", "undecided"
UNMEASURED = "not measured"


@dataclass(frozen=True)
class Verdict:
    """What is said about a claim, and how many attributes say so.

    `mean` is over the attributes that were measured, for a table; None where none was.
    """

    word: str
    n_for: int
    n_against: int
    n_undecided: int
    n_dropped: int
    mean: Estimate | None
    n_fooled: int = 0

    @property
    def n_attributes(self) -> int:
        """All of them, the dropped ones too."""
        said = self.n_for + self.n_against + self.n_undecided
        return said + self.n_fooled + self.n_dropped

    def __str__(self) -> str:
        if self.word == UNMEASURED:
            return self.word
        others = [
            f", {n} {name}"
            for n, name in (
                (self.n_against, "against"),
                (self.n_undecided, "undecided"),
                (self.n_fooled, "fooled"),
                (self.n_dropped, "dropped"),
            )
            if n
        ]
        return f"{self.word} ({self.n_for} of {self.n_attributes} for{''.join(others)})"


def verdict(
    by_attribute: Mapping[str, Estimate | None],
    bound: float,
    above: bool,
    fooled: Collection[str] = (),
) -> Verdict:
    """Whether "above the bound" (or below it) holds: that of each attribute's interval, counted.

    "supported" where the intervals of more than half of all attributes are wholly on the claimed
    side and none is wholly on the other; "not supported" the other way round; else "undecided".
    An attribute with one seed is undecided: its interval says nothing of other seeds.
    None is an attribute that dropped out: it counts among all; where all did, it is "not measured".
    So do the `fooled`, on which texts that show nothing score high: they are on neither side.
    ValueError for no attributes.
    """
    if not by_attribute:
        raise ValueError("A verdict is counted over attributes; found none.")
    measured = [one for one in by_attribute.values() if one is not None]
    trusted = [one for name, one in by_attribute.items() if one and name not in fooled]
    decided = [one for one in trusted if one.n_seeds > 1]
    over, under = (
        sum(one.low > bound for one in decided),
        sum(one.high < bound for one in decided),
    )
    n_for, n_against = (over, under) if above else (under, over)
    n = len(by_attribute)
    return Verdict(
        word_of(n_for, n_against, n) if measured else UNMEASURED,
        n_for,
        n_against,
        len(trusted) - n_for - n_against,
        n - len(measured),
        mean_of(measured) if measured else None,
        len(measured) - len(trusted),
    )


def word_of(n_for: int, n_against: int, n: int) -> str:
    """What is said of n intervals: more than half on one side and none on the other, or neither."""
    if 2 * n_for > n and not n_against:
        return SUPPORTED
    return AGAINST if 2 * n_against > n and not n_for else UNDECIDED
