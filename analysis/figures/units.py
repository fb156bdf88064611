"""The unit of a table's coefficients: its own column `unit`, which survives a file and a concat."""

from __future__ import annotations

import pandas as pd

IN_UNITS = ("along", "difference")
"""Columns that count lengths of the direction; the others are of the activations' own size."""
NOT_SAID = "the table's direction"


def unit_of(rows: pd.DataFrame, column: str = "along") -> str:
    """` (1 = mean prompt push)` for the unit of these rows; "" where the column has none.

    Several units are all named; a table that does not say (of an older version) says that too.
    """
    if column not in IN_UNITS:
        return ""
    if "unit" not in rows:
        return f" (1 = {NOT_SAID})"
    named = [str(unit) for unit in rows["unit"].dropna().drop_duplicates()]
    return f" (1 = {', or '.join(named) or NOT_SAID})"
