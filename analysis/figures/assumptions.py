"""Curves of the three assumptions of vector steering: what one vector would need, by layer."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import cycle

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from .frame import planned
from .plan import Panel, Plan, Ticks, figure_of, on_panel
from .rows import against, require_columns

_SHARE_COLOURS = ("#d55e00", "#0072b2", "#56b4e9", "#009e73", "#cc79a7", "#e69f00")
_READOUT_COLOURS = {"linear": "#0072b2", "relu": "#d55e00"}
_DASHES = ("solid", "dot", "dash", "dashdot")
_SHARE = ["layer", "axes", "share", "low", "high"]
_SPREAD = ["layer", "method", "strength", "ratio", "ratio_low", "ratio_high", "gini", "measure"]
ENOUGH_QUESTIONS = 4
"""Over fewer questions an R^2 says nothing."""
LOWEST_R2 = -1.0
_R2 = ["layer", "strength", "readout", "r2", "low", "high"]


def assumption_curves(
    shares: pd.DataFrame, spread: pd.DataFrame, readouts: pd.DataFrame, method: str = "prompt"
) -> go.Figure:
    """What a single vector would need, by layer: one direction, equal strengths, readable ones.

    The tables are those of `rank_share`, `dispersion` and `decodability`. An R^2 below -1 is drawn
    at the edge, as a note says; of fewer than four questions there is none, and a note in its
    place. Hover for the numbers with sinks.
    """
    require_columns(shares, _SHARE, "assumption_curves")
    require_columns(spread, _SPREAD, "assumption_curves")
    require_columns(readouts, _R2, "assumption_curves")
    spread = spread.loc[spread["method"] == method]
    require_columns(spread, _SPREAD, f"assumption_curves(method={method!r})")
    parts = (_shares(shares), _ratios(spread), _readouts(readouts))
    traces = [trace for i, part in enumerate(parts) for trace in on_panel(part, i)]
    layers = sorted(shares["layer"].unique().tolist())
    figure = figure_of(traces, 3)
    _set_ranges(figure, readouts)
    panels = [
        Panel("One direction?", "layer", "share of |Δ|²", x_ticks=0),
        Panel("Equally strong?", "layer", "ratio of strengths", x_ticks=0),
        Panel(
            f"Readable from the token?{_note(readouts)}",
            "layer",
            "R² on other questions",
            x_ticks=0,
        ),
    ]
    plan = Plan(
        "Would one vector do what the prompt does?",
        "A vector needs 1, 1 and nothing more; a gate needs 1 on the left and 1 on the right. "
        f"Bars: 95 % intervals.<br>{_counts(shares)}{against(shares)}",
        panels,
        [Ticks(layers, [str(layer) for layer in layers])],
        across=3,
        least=13.0,
    )
    return planned(figure, plan)


def _counts(shares: pd.DataFrame) -> str:
    """Over how many questions and tokens, and how many sinks were left out at most."""
    if "n_questions" not in shares:
        return ""
    worst = shares.sort_values("n_sinks").iloc[-1]
    sinks, questions = int(worst["n_sinks"]), int(worst["n_questions"])
    tokens = int(worst["n_tokens"]) + sinks
    left_out = f" Sinks left out: up to {sinks} of them a layer." if sinks else ""
    return f"n = {questions} questions, {tokens} tokens.{left_out}"


def _few(readouts: pd.DataFrame) -> int | None:
    """The number of questions, where it is too small for an R^2."""
    questions = int(readouts["n_questions"].iloc[0]) if "n_questions" in readouts else None
    return questions if questions is not None and questions < ENOUGH_QUESTIONS else None


def _note(readouts: pd.DataFrame) -> str:
    """What there is to say below the title of the read-outs; "" for nothing."""
    few = _few(readouts)
    if few is not None:
        enough = f"give {ENOUGH_QUESTIONS} or more"
        return f"<br>not drawn: an R² over {few} questions says nothing; {enough}"
    below = readouts.loc[readouts["r2"] < LOWEST_R2, "r2"]
    if below.empty:
        return ""
    few, most = len(below), len(readouts)
    return f"<br>{few} of {most} R² lie below {LOWEST_R2:g} (down to {below.min():.3g})"


def _shares(shares: pd.DataFrame) -> list[go.Scatter]:
    coloured = zip(shares.groupby("axes", sort=False), cycle(_SHARE_COLOURS), strict=False)
    return [_line(part, "share", str(axes), colour) for (axes, part), colour in coloured]


def _ratios(spread: pd.DataFrame) -> list[go.Scatter]:
    ratios = spread.rename(columns={"ratio_low": "low", "ratio_high": "high"})
    traces = []
    for (strength, part), dash in _dashed(ratios, "strength"):
        name = f"95th / 5th percentile{f', {strength}' if strength else ''}"
        traces.append(_line(part, "ratio", name, "#444444", dash))
    return traces


def _readouts(readouts: pd.DataFrame) -> list[go.Scatter]:
    traces = []
    if _few(readouts) is not None:
        # A picture without a line would have no axes.
        layers = sorted(readouts["layer"].unique())
        return [go.Scatter(x=layers, y=[None] * len(layers), showlegend=False)]
    # What is below the edge is drawn on it: plotly would leave its line out without a word.
    ends = {name: readouts[name].clip(lower=LOWEST_R2) for name in ("r2", "low", "high")}
    readouts = readouts.assign(measured=readouts["r2"], **ends)
    for (strength, some), dash in _dashed(readouts, "strength"):
        for readout, part in some.groupby("readout", sort=False):
            colour = _READOUT_COLOURS.get(str(readout), "#444444")
            name = f"{readout} read-out of {strength}"
            traces.append(_line(part, "r2", name, colour, dash))
    return traces


def _set_ranges(figure: go.Figure, readouts: pd.DataFrame) -> None:
    lowest = min(float(readouts["low"].min()), 0.0) if len(readouts) else 0.0
    lowest = 0.0 if _few(readouts) is not None else max(lowest, LOWEST_R2)
    figure.update_layout(
        yaxis_range=[0, 1.02], yaxis2_rangemode="tozero", yaxis3_range=[lowest - 0.02, 1.02]
    )


def _dashed(table: pd.DataFrame, column: str) -> Iterable[tuple[tuple[object, pd.DataFrame], str]]:
    """The rows of each value of a column, with a dash for its line."""
    return zip(table.groupby(column, sort=False), cycle(_DASHES), strict=False)


def _line(
    part: pd.DataFrame, column: str, name: str, colour: str, dash: str = "solid"
) -> go.Scatter:
    part = part.sort_values("layer")
    return go.Scatter(
        x=part["layer"].tolist(),
        y=part[column].tolist(),
        error_y={
            "type": "data",
            "symmetric": False,
            "array": (part["high"] - part[column]).tolist(),
            "arrayminus": (part[column] - part["low"]).tolist(),
            "thickness": 1,
            "width": 3,
        },
        name=name,
        mode="lines+markers",
        line={"color": colour, "width": 2.2, "dash": dash},
        marker={"size": 6},
        customdata=_hover(part, column),
        hovertemplate=f"<b>{name}</b><br>layer %{{x}}: %{{customdata[0]:.3f}}<br>with "
        "%{customdata[2]} sinks %{customdata[1]:.3f}<extra></extra>",
    )


def _hover(part: pd.DataFrame, column: str) -> np.ndarray:
    """The value as measured, the value with sinks, and how many these are."""
    measured = part["measured"] if "measured" in part else part[column]
    with_sinks = part.get(f"{column}_with_sinks", measured)
    sinks = part.get("n_sinks", pd.Series(0, index=part.index))
    return np.column_stack([measured, with_sinks, sinks])
