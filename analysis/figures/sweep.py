"""Maps of a sweep: strengths against layers, a panel for each method and scope."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from jaxtyping import Float

from .frame import planned
from .plan import Panel, Plan, Ticks, figure_of, on_panel
from .rows import against, of_methods, plain_text, require_columns
from .tokens import DIVERGING

Cells = Float[np.ndarray, "layer strength"]
MOST_TEXTS = 12
"""Cells of more strengths than this hold no number: there is no room."""


@dataclass(frozen=True)
class Scale:
    """A measure: what it is, what is white, how the ends are labelled, and which end is better.

    Colours are of `by(value, reference)`, from minus `limit` to plus `limit`, and white at 0.
    """

    says: str
    bar: str
    reference: Callable[[pd.DataFrame], float]
    limit: float
    ticks: tuple[str, str, str]
    best: Literal["max", "min"] | None
    by: Callable[[Any, float], Any] = lambda value, white: value - white


def _octaves(value: Any, white: float) -> Any:
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.log2(value / white)


SCALES = {
    "recovered": Scale(
        "share of the prompt’s effect recovered",
        "share recovered (white: 0, no steering)",
        lambda _: 0.0,
        1.0,
        ("≤ −1", "0", "1"),
        "max",
    ),
    "mean_kl": Scale(
        "KL from unsteered, nats a token",
        "times that of the prompt (white: as much)",
        lambda rows: float(rows["kl_prompt"].iloc[0]),
        4.0,
        ("≤ 1/16", "1", "≥ 16"),
        None,
        _octaves,
    ),
    "kl_left": Scale(
        "KL of the prompt from steered, nats a token",
        "times that from unsteered (white: as much)",
        lambda rows: float(rows["kl_prompt"].iloc[0]),
        4.0,
        ("≤ 1/16", "1", "≥ 16"),
        "min",
        _octaves,
    ),
    "relative_rmse": Scale(
        "relative RMSE at the last layer",
        "relative RMSE (white: 1, no steering)",
        lambda _: 1.0,
        1.0,
        ("0", "1", "≥ 2"),
        "min",
    ),
    "relative_rmse_own_layer": Scale(
        "relative RMSE at the steered layer",
        "relative RMSE (white: 1, no steering)",
        lambda _: 1.0,
        1.0,
        ("0", "1", "≥ 2"),
        "min",
    ),
    "log_p": Scale(
        "log-probability of the response, nats a token",
        "change from unsteered (white: none)",
        lambda rows: float(rows["log_p_unsteered"].iloc[0]),
        1.0,
        ("≤ −1", "0", "≥ 1"),
        "max",
    ),
}
"""What can be drawn of a sweep."""


def sweep_heatmap(
    table: pd.DataFrame,
    column: str = "recovered",
    *,
    methods: Sequence[str] | None = None,
    title: str = "",
) -> go.Figure:
    """A map of one measure of a sweep, layers against strengths, a panel per method and scope.

    White is doing nothing (of a KL, the prompt's own size), and colours end where the bar says. A
    frame is around the best cell of each panel. Cells that are not there, or that the steering
    broke, are grey.
    """
    needed = ["method", "layer", "strength", "scope"]
    require_columns(table, [*needed, *SCALES, "kl_prompt", "log_p_unsteered"], "sweep_heatmap")
    if column not in SCALES:
        raise ValueError(f"there is no measure {column!r} to draw: choose of {list(SCALES)}.")
    rows = of_methods(table, methods)
    layers, strengths = (sorted(rows[name].unique().tolist()) for name in ("layer", "strength"))
    scale, panels = SCALES[column], [p for _, p in rows.groupby(["method", "scope"], sort=False)]
    traces: list[Any] = []
    for number, part in enumerate(panels):
        _require_one(part)
        cells = part.pivot(index="layer", columns="strength", values=column)
        values = cells.reindex(index=layers, columns=strengths).to_numpy(dtype=np.float64)
        traces += on_panel(_map(values, scale, scale.reference(part), layers, strengths), number)
    figure = figure_of(traces, len(panels))
    figure.update_layout(coloraxis=_colour_axis(scale), plot_bgcolor="#d9d9d9")
    figure.update_xaxes(showgrid=False, zeroline=False, ticks="")
    figure.update_yaxes(showgrid=False, zeroline=False, ticks="")
    return planned(figure, _plan(rows, panels, scale, (layers, strengths), title))


def _require_one(part: pd.DataFrame) -> None:
    if part.duplicated(["layer", "strength"]).any():
        raise ValueError(
            f"{part['method'].iloc[0]} has several rows at one layer and strength, where one can "
            "be drawn. Give the sweep of one model, unit and seed."
        )


def _map(
    values: Cells, scale: Scale, white: float, layers: list[Any], strengths: list[Any]
) -> list[go.Heatmap | go.Scatter]:
    """The colours, with the numbers on them, and a frame around the best cell."""
    places = list(range(len(strengths))), list(range(len(layers)))
    finite = np.isfinite(values)
    shown = np.where(finite, scale.by(values, white), np.nan)
    numbers = [[_number(value) for value in row] for row in values]
    few = len(strengths) <= MOST_TEXTS
    colours = go.Heatmap(
        x=places[0],
        y=places[1],
        z=shown,
        text=numbers,
        texttemplate="%{text}" if few else None,
        textfont={"size": 10},
        customdata=[[(layer, f"{s:g}") for s in strengths] for layer in layers],
        coloraxis="coloraxis",
        hoverongaps=False,
        xgap=1,
        ygap=1,
        hovertemplate="layer %{customdata[0]}, strength %{customdata[1]}<br>"
        f"{scale.says}: %{{text}}<extra></extra>",
    )
    if scale.best is None or not finite.any():
        return [colours]
    signed = values if scale.best == "max" else -values
    layer, strength = np.unravel_index(np.where(finite, signed, -np.inf).argmax(), values.shape)
    frame = go.Scatter(
        x=[int(strength) + dx for dx in (-0.5, 0.5, 0.5, -0.5, -0.5)],
        y=[int(layer) + dy for dy in (-0.5, -0.5, 0.5, 0.5, -0.5)],
        mode="lines",
        line={"color": "#111111", "width": 2},
        hoverinfo="skip",
        showlegend=False,
    )
    return [colours, frame]


def _number(value: float) -> str:
    """Short enough for a cell."""
    if np.isnan(value):
        return ""
    size = abs(value)
    digits = ".0f" if size >= 100 else ".1f" if size >= 10 else ".2f" if size >= 0.1 else ".1g"
    return f"{value:{digits}}".replace("-", "−", 1 if value < 0 else 0)


def _colour_axis(scale: Scale) -> dict[str, object]:
    ticks = [-scale.limit, 0, scale.limit]
    return {
        "colorscale": list(DIVERGING),
        "cmin": -scale.limit,
        "cmid": 0,
        "cmax": scale.limit,
        "colorbar": {
            "tickmode": "array",
            "tickvals": ticks,
            "ticktext": list(scale.ticks),
        },
    }


def _plan(
    rows: pd.DataFrame,
    parts: Sequence[pd.DataFrame],
    scale: Scale,
    places: tuple[list[Any], list[Any]],
    title: str,
) -> Plan:
    layers, strengths = places
    several = rows["scope"].nunique() > 1
    names = [
        plain_text(str(part["method"].iloc[0]))
        + several * f"<br>{plain_text(str(part['scope'].iloc[0]))}"
        for part in parts
    ]
    unit = str(rows["strength_unit"].iloc[0]) if "strength_unit" in rows else ""
    one = {"as fitted": "1 = as fitted", "kl": "1 = as much KL as the prompt"}.get(unit, "")
    ends = (-0.5, len(strengths) - 0.5), (-0.5, len(layers) - 0.5)
    below = f"strength ({one})" if one else "strength"
    panels = [
        Panel(name, below, "layer", x_ticks=0, y_ticks=1, x_range=ends[0], y_range=ends[1])
        for name in names
    ]
    alone = "" if several else f", scope {plain_text(str(rows['scope'].iloc[0]))}"
    frame = " Framed: the best cell." if scale.best else ""
    return Plan(
        title or f"{scale.says[0].upper()}{scale.says[1:]}, by layer and strength",
        f"Over {int(rows['n_examples'].iloc[0])} examples{alone}.{frame}{against(rows)}",
        panels,
        [
            Ticks(list(range(len(strengths))), [f"{s:g}" for s in strengths]),
            Ticks(list(range(len(layers))), [str(layer) for layer in layers], cells=True),
        ],
        across=3,
        least=max(8.0, 2.8 * len(strengths)) if len(strengths) <= MOST_TEXTS else 12.0,
        share_y=True,
        bar=scale.bar,
    )
