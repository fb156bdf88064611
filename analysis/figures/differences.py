"""The difference of two methods, token by token and layer by layer."""

from __future__ import annotations

from html import escape

import pandas as pd
import plotly.graph_objects as go

from .heatmaps import MEASURES, map_of, of_example
from .plan import Plan
from .rows import CELL, chosen, require_columns, require_single, sinks_in
from .units import unit_of


def difference_heatmap(
    table: pd.DataFrame,
    first: str,
    second: str,
    column: str = "along",
    *,
    strength: str | None = None,
    example: int | None = None,
    view: str = "accumulated",
    colour_quantile: float | None = None,
    tokens: tuple[int, int] | None = None,
) -> go.Figure:
    """A map of `first` minus `second`: red where the first pushes a token more.

    `strength` names the strength label of methods that have several, such as "as fitted"; a method
    with one, such as the prompt, needs none. A cell that is a sink of either is marked.
    """
    require_columns(table, [*CELL, *MEASURES], "difference_heatmap")
    if column not in MEASURES:
        raise ValueError(f"there is no measure {column!r} to draw: choose of {list(MEASURES)}.")
    rows = of_example(chosen(table, "view", view), example, tokens)
    one, other = (_cells(rows, method, strength) for method in (first, second))
    places = one.index.intersection(other.index)
    if places.empty:
        raise ValueError(f"{first} and {second} share no token and layer: nothing to subtract.")
    numbers = [name for name in MEASURES if name in one]
    made = one.loc[places].copy()
    made[numbers] = one.loc[places, numbers] - other.loc[places, numbers]
    made["sink"] = sinks_in(one.loc[places]) | sinks_in(other.loc[places])
    made = made.reset_index().assign(method=f"{first} − {second}", strength="", strength_value=None)
    plan = Plan(
        f"{first} minus {second}",
        f"Example {rows['example'].iloc[0]}, {view} view. Red: {first} is higher.",
        bar=f"difference {MEASURES[column]}{escape(unit_of(rows, column), quote=False)}",
    )
    made.attrs.update(table.attrs)
    return map_of(made, column, plan, colour_quantile, None)


def _cells(rows: pd.DataFrame, method: str, strength: str | None) -> pd.DataFrame:
    """The cells of a method at one strength."""
    found = chosen(rows, "method", method)
    labels = found["strength"].drop_duplicates().tolist()
    if len(labels) > 1:
        if strength is None:
            raise ValueError(f"{method} is there at {labels}: pass strength={labels[0]!r}.")
        found = chosen(found, "strength", strength)
    require_single(found, ["token_index", "layer"])
    return found.set_index(["token_index", "layer"])
