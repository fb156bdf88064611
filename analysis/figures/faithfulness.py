"""Lines of a faithfulness table: how far each method is from the prompt's effect, by layer."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from .frame import planned
from .plan import Panel, Plan, Ticks, figure_of, on_panel
from .rows import (
    against,
    lines_of,
    name_of,
    of_methods,
    plain_text,
    require_columns,
    require_single,
    strength_of,
)
from .style import Look, line_of, marker_of, method_looks

_FAITHFULNESS = ["method", "strength", "strength_value", "layer", "relative_rmse", "low", "high"]
_FAITHFULNESS += ["token_median", "denominator", "n_examples", "n_tokens", "seed"]
_HOVER_ERROR = ["strength_value", "low", "high", "token_median", "n_examples", "n_tokens", "seed"]
_WITH_SINKS = ["relative_rmse_with_sinks", "n_sinks"]


def relative_rmse_curve(
    table: pd.DataFrame, methods: Sequence[str] | None = None, log: bool = False
) -> go.Figure:
    """Relative error against layer, a line with its 95 % interval per method and strength.

    Beneath: the size of the prompt's own change, which the errors are relative to. Early layers
    can lie far above 1; `log` makes room for them. Sinks are left out, as the subtitle says; the
    number with them is in the hover text.
    """
    require_columns(table, _FAITHFULNESS, "relative_rmse_curve")
    rows = of_methods(table, methods)
    looks, layers = method_looks(rows["method"]), sorted(rows["layer"].unique().tolist())
    traces: list[go.Scatter] = []
    for line in lines_of(rows):
        traces += _error_line(line, looks[line["method"].iloc[0]])
    traces += [*on_panel(_denominators(rows, looks), 1), _no_steering(layers)]
    figure = figure_of(traces, 2)
    figure.update_xaxes(showgrid=False).update_layout(xaxis_matches="x2")
    figure.update_yaxes(rangemode="tozero")
    if log:
        figure.update_layout(yaxis=_logarithmic(rows["relative_rmse"]))
    undrawn = int((~np.isfinite(rows["relative_rmse"])).sum())
    gaps = f" Not drawn because not finite: {undrawn}." if undrawn else ""
    subtitle = f"Bands: 95 % bootstrap interval over questions.{gaps}{_left_out(table)}"
    said = f"{against(table)}{_without_neutral(table)}"
    panels = [
        Panel(x="layer", y="relative RMSE (0 = as the prompt)", x_ticks=0),
        Panel(x="layer", y="RMS norm of prompt’s change", high=0.3, x_ticks=0),
    ]
    title = "How far each method is from the prompt's effect"
    ticks = [Ticks(layers, [str(layer) for layer in layers])]
    return planned(figure, Plan(title, f"{subtitle}{said}", panels, ticks, share_x=True))


def _logarithmic(errors: pd.Series) -> dict[str, object]:
    """A logarithmic axis with ticks at 1, 2 and 5 times the powers of ten that are in sight."""
    seen = errors[np.isfinite(errors) & (errors > 0)]
    powers = range(int(np.floor(np.log10(seen.min()))), int(np.ceil(np.log10(seen.max()))) + 1)
    ticks = [digit * 10.0**power for power in powers for digit in (1, 2, 5)]
    return {"type": "log", "tickvals": ticks, "ticktext": [f"{tick:g}" for tick in ticks]}


def _left_out(table: pd.DataFrame) -> str:
    """How many sinks are not in the errors, of how many tokens."""
    if "n_sinks" not in table or not table["n_sinks"].any():
        return ""
    worst = table.sort_values("n_sinks").iloc[-1]
    every = int(worst["n_tokens"] + worst["n_sinks"])
    return f" Sinks left out: up to {int(worst['n_sinks'])} of {every} tokens a layer."


def _without_neutral(table: pd.DataFrame) -> str:
    """Why there is no line of any instruction, where it was not to be had."""
    said = str(table.attrs.get("any_instruction", ""))
    if not said or "any instruction" in set(table["method"]) or said == "not asked for":
        return ""
    return f" No line of “any instruction”: {plain_text(said.partition(' (')[0])}."


def _error_line(line: pd.DataFrame, look: Look) -> list[go.Scatter]:
    """The interval as a band, and the line over it."""
    require_single(line, ["layer"])
    line, name = line.sort_values("layer"), name_of(line)
    line = line.assign(**{each: np.nan for each in _WITH_SINKS if each not in line})
    hover = (
        f"<b>{name}</b>, strength %{{customdata[0]:.3g}}<br>layer %{{x}}: %{{y:.3f}} "
        "[%{customdata[1]:.3f}, %{customdata[2]:.3f}]<br>median of tokens %{customdata[3]:.3f}<br>"
        "n = %{customdata[4]} examples, %{customdata[5]} tokens, seed %{customdata[6]}"
        "<br>with %{customdata[8]} sinks %{customdata[7]:.3f}"
        "<extra></extra>"
    )
    values = line["relative_rmse"].to_numpy(dtype=np.float64)
    return [
        _band(line, look.colour, name),
        go.Scatter(
            x=line["layer"].tolist(),
            y=np.where(np.isfinite(values), values, np.nan),
            name=name,
            legendgroup=name,
            mode="lines+markers",
            line=line_of(look, strength_of(line)),
            marker={"symbol": marker_of(look, strength_of(line)), "size": 7, "maxdisplayed": 12},
            customdata=line[[*_HOVER_ERROR, *_WITH_SINKS]].to_numpy(dtype=object),
            hovertemplate=hover,
        ),
    ]


def _band(line: pd.DataFrame, colour: str, name: str) -> go.Scatter:
    """A polygon per run of layers with a finite interval, so that no band bridges a gap."""
    drawn = np.isfinite(line[["low", "high"]]).all(axis=1)
    layers: list[float | None] = []
    values: list[float | None] = []
    for _, run in line[drawn].groupby((~drawn).cumsum()[drawn]):
        if len(run) == 1:  # give the band of a single layer some width
            run = pd.concat([run.assign(layer=run["layer"] + side) for side in (-0.1, 0.1)])
        layers += [*run["layer"], *run["layer"][::-1], None]
        values += [*run["low"], *run["high"][::-1], None]
    return go.Scatter(
        x=layers,
        y=values,
        name=f"{name}, 95 % interval",
        legendgroup=name,
        showlegend=False,
        fill="toself",
        fillcolor=colour,
        opacity=0.16,
        mode="none",
        hoverinfo="skip",
    )


def _no_steering(layers: list[int]) -> go.Scatter:
    """The constant 1; a trace, so that it has a place in the legend."""
    side = 0 if max(layers) > min(layers) else 0.5
    return go.Scatter(
        x=[min(layers) - side, max(layers) + side],
        y=[1, 1],
        name="1: same error as no steering",
        mode="lines",
        line={"color": "#7f7f7f", "dash": "dash", "width": 1.2},
        hoverinfo="skip",
    )


def _denominators(table: pd.DataFrame, looks: dict[str, Look]) -> list[go.Scatter]:
    """One line if all methods are measured against the same change, else one per method."""
    first = table.groupby("layer")["denominator"].transform("first").to_numpy(dtype=np.float64)
    own = table["denominator"].to_numpy(dtype=np.float64)
    shared = np.allclose(own, first, rtol=1e-6, atol=0, equal_nan=True)
    parts = {"all methods": table} if shared else dict(list(table.groupby("method", sort=False)))
    return [
        go.Scatter(
            x=part["layer"].tolist(),
            y=part["denominator"].to_numpy(dtype=np.float64),
            name=f"prompt's change, {plain_text(str(method))}",
            showlegend=False,
            mode="lines+markers",
            line={"color": "#444444" if shared else looks[str(method)].colour, "width": 1.5},
            marker={"size": 5, "maxdisplayed": 12},
            hovertemplate="layer %{x}: %{y:.3g}",
        )
        for method, rows in parts.items()
        for part in [rows.drop_duplicates("layer").sort_values("layer")]
    ]
