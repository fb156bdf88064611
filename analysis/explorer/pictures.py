"""The figures of an explorer's present state, made by `analysis.figures`."""

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from ..figures.differences import difference_heatmap
from ..figures.faithfulness import relative_rmse_curve
from ..figures.heatmaps import coefficient_heatmap
from ..figures.strengths import sorted_strengths
from ..figures.tokens import TokenView, token_views
from ..measures.entries import Entry
from ..measures.faithfulness import faithfulness, reworded
from .methods import PROMPT, Place, by_name
from .payload import LABELS, State
from .readings import Reading
from .states import subtracted
from .study import Key, Study
from .table import strength_label, table_of

KINDS = ("heatmap", "faithfulness", "strengths", "tokens")


def picture(study: Study, state: State, place: Place, kind: str) -> go.Figure | TokenView:
    """A figure of the state; ValueError that lists the kinds for an unknown one."""
    if kind not in KINDS:
        raise ValueError(f"There is no figure {kind!r} of an explorer: {', '.join(KINDS)}.")
    readings = shown(study, state, place)
    if kind == "tokens":
        return _tokens(study, state, readings)
    if kind == "faithfulness":
        return relative_rmse_curve(_errors(study, state, place))
    number = state["text"]
    keys = {
        (number, method, place.label, reading.strength): reading
        for method, reading in readings.items()
    }
    if kind == "strengths":
        return sorted_strengths(table_of(study, keys), state["layer"], view=state["view"])
    if state["minus"] not in (None, state["method"]):
        return _difference(study, state, keys)
    return coefficient_heatmap(table_of(study, keys), state["measure"], view=state["view"])


def _difference(study: Study, state: State, keys: dict[Key, Reading]) -> go.Figure:
    """The map of the method less the one that is subtracted from it."""
    other, index, strength = subtracted(study, state)
    place = by_name(study.methods, other).offered(True)[index]
    reading = study.reading(state["text"], other, place, strength)
    keys = {**keys, (state["text"], other, place.label, strength): reading}
    both = table_of(study, keys)
    return difference_heatmap(both, state["method"], other, state["measure"], view=state["view"])


def shown(study: Study, state: State, place: Place) -> dict[str, Reading]:
    """The readings that the state compares: the prompt's, and the method's."""
    number, method = state["text"], state["method"]
    nowhere = study.methods[0].places[0]
    readings = {PROMPT: study.reading(number, PROMPT, nowhere, 1.0)}
    if method != PROMPT:
        readings[method] = study.reading(number, method, place, state["strength"])
    return readings


def _tokens(study: Study, state: State, readings: dict[str, Reading]) -> TokenView:
    text, layer, measure = study.line(state["text"]), state["layer"], state["measure"]
    first, every = text.row.response, len(text.tokens)
    none = [False] * first
    tables = {
        method: pd.DataFrame(
            {
                "position": range(every),
                "token": text.tokens,
                "value": np.r_[
                    np.full(first, np.nan), reading.cells[state["view"]][measure][layer]
                ],
                "read": [place >= first for place in range(every)],
                "steered": [place in reading.steered for place in range(every)],
                "sink": [*none, *reading.sinks[layer].tolist()],
                "template": text.template,
            }
        )
        for method, reading in readings.items()
    }
    return token_views(tables, f"{LABELS[measure].format(unit=study.units.unit)}, layer {layer}")


def _errors(study: Study, state: State, place: Place) -> pd.DataFrame:
    """The faithfulness of the present method, at its strength, on the present text."""
    pair, method, strength = [study.pairs[state["text"]]], state["method"], state["strength"]
    entries = []
    if place.steering is not None:
        label = strength_label(method, strength)
        entries = [Entry(method, place.steering.scaled(strength), label, strength)]
    return faithfulness(
        study.model,
        pair,
        entries,
        equivalents=[reworded(pair, words) for words in study.equivalents],
        baseline=study.baseline,
        sinks=study.sinks,
        n_bootstrap=1,
    )
