"""Methods at labelled strengths. A relative error depends on the strength, so it is always named.

as fitted       1, the steering as its `fit` made it (ActAdd: with the c it was given)
least squares   minimises the relative RMSE where the method first acts, on training pairs
matched         the attribute score of the prompt, on validation prompts: analysis.match
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from steerlens.kinds import require_fields
from steerlens.steering import Steering

AS_FITTED, LEAST_SQUARES, MATCHED = "as fitted", "least squares", "matched"
RESERVED = ("prompt", "unsteered", "equivalent prompts", "neutral prompts", "any instruction")


@dataclass(frozen=True, eq=False)
class Entry:
    """A method in a table: its name, its steering at that strength, and the strength's label."""

    method: str
    steering: Steering | None
    strength: str = AS_FITTED
    strength_value: float = 1.0

    def __post_init__(self) -> None:
        require_fields(self)

    @property
    def key(self) -> str:
        """The name that tells entries apart: the method, and its strength unless as fitted."""
        return (
            self.method if self.strength in ("", AS_FITTED) else f"{self.method}, {self.strength}"
        )


def as_entries(steerings: Mapping[str, Steering] | Sequence[Entry]) -> tuple[Entry, ...]:
    """Entries as they are, or steerings by name, as fitted."""
    if isinstance(steerings, Mapping):
        entries = tuple(Entry(name, steering) for name, steering in steerings.items())
    else:
        entries = tuple(steerings)
    keys = [*RESERVED, *(entry.key for entry in entries)]
    twice = {key for key in keys if keys.count(key) > 1}
    if twice:
        raise ValueError(
            f"Two methods are called {', '.join(sorted(twice))}. Give each a name of its own; "
            f"{', '.join(RESERVED)} are taken."
        )
    return entries


def as_fitted(table: pd.DataFrame) -> pd.DataFrame:
    """The rows of the prompt, and of the methods as fitted."""
    return table.loc[table["strength"].isin(["", AS_FITTED])]
