"""Which kinds of tokens are pushed: a mark with its interval per method, kind under kind."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
import plotly.graph_objects as go

from .curves import NAMES
from .frame import planned
from .plan import Panel, Plan, Ticks, figure_of
from .rows import against, lines_of, name_of, of_methods, plain_text, require_columns, strength_of
from .style import marker_of, method_looks

_KINDS = [
    "method",
    "strength",
    "strength_value",
    "kind",
    "mean",
    "low",
    "high",
    "n_tokens",
    "layer",
]
SPREAD = 0.7
"""How much of the room of a kind its methods take."""


def kind_profile(table: pd.DataFrame, methods: Sequence[str] | None = None) -> go.Figure:
    """The mean push of each kind of token with its 95 % interval, a mark per method and strength.

    The table is that of `by_kind`. Kinds are in the table's order, with how many tokens they are.
    """
    require_columns(table, _KINDS, "kind_profile")
    rows = of_methods(table, methods)
    kinds = rows["kind"].drop_duplicates().tolist()
    lines, looks = lines_of(rows), method_looks(rows["method"])
    traces = []
    for number, line in enumerate(lines):
        if line["kind"].duplicated().any():
            raise ValueError(f"{name_of(line)} has a kind twice: keep one layer, view and measure.")
        aside = ((number + 0.5) / len(lines) - 0.5) * SPREAD
        look, strength = looks[line["method"].iloc[0]], strength_of(line)
        traces.append(
            go.Scatter(
                x=line["mean"].tolist(),
                y=[kinds.index(kind) + aside for kind in line["kind"]],
                error_x={
                    "type": "data",
                    "symmetric": False,
                    "array": (line["high"] - line["mean"]).fillna(0).tolist(),
                    "arrayminus": (line["mean"] - line["low"]).fillna(0).tolist(),
                    "thickness": 1.2,
                    "width": 0,
                },
                name=name_of(line),
                mode="markers",
                marker={"symbol": marker_of(look, strength), "size": 8, "color": look.colour},
                customdata=line[["kind", "n_tokens"]].to_numpy(dtype=object),
                hovertemplate=f"<b>{name_of(line)}</b><br>%{{customdata[0]}}: %{{x:.3g}} "
                "(%{customdata[1]} tokens)<extra></extra>",
            )
        )
    figure = figure_of(traces)
    figure.update_xaxes(zeroline=True)
    figure.update_yaxes(showgrid=False, zeroline=False)
    return planned(figure, _plan(rows, kinds, len(lines)))


def _plan(rows: pd.DataFrame, kinds: list[str], lines: int) -> Plan:
    counts = rows.drop_duplicates("kind").set_index("kind")["n_tokens"]
    labels = [f"{plain_text(str(kind))} ({int(counts[kind])})" for kind in kinds]
    column = str(rows["measure"].iloc[0]) if "measure" in rows else "mean"
    unit = f" (1 = {rows['unit'].iloc[0]})" if column == "along" and "unit" in rows else ""
    high = max(0.6, 0.05 * len(kinds) * (1.2 + 0.45 * lines))
    panel = Panel(
        x=f"{NAMES.get(column, plain_text(column))}{unit}", high=float(high), y_ticks=0,
        y_range=(len(kinds) - 0.5, -0.5),
    )  # fmt: skip
    layer = int(rows["layer"].iloc[0])
    return Plan(
        "Which kinds of tokens are pushed",
        f"Layer {layer}. In brackets: how many tokens. Lines: 95 % intervals over examples."
        f"{against(rows)}",
        [panel],
        [Ticks(list(range(len(kinds))), labels)],
    )
