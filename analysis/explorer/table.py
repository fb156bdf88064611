"""The readings of an explorer as one tidy table, with the columns of `coefficients`."""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from ..measures.deltas import View
from ..measures.entries import AS_FITTED
from ..measures.plain_side import noted
from .methods import PROMPT
from .readings import MEASURES, Reading
from .study import Key, Study

CHOSEN = "chosen"
"""The label of a strength that is not 1."""


def strength_label(method: str, strength: float) -> str:
    """How a table calls a strength: none for the prompt, as fitted for 1."""
    if method == PROMPT:
        return ""
    return AS_FITTED if strength == 1 else CHOSEN


def table_of(study: Study, readings: Mapping[Key, Reading]) -> pd.DataFrame:
    """One row per text, token, layer, method, place, strength and view; in full precision."""
    tables = [
        _rows(study, key, reading, view)
        for key, reading in readings.items()
        for view in reading.cells
    ]
    return noted(pd.concat(tables, ignore_index=True), study.model, study.baseline, study.sinks)


def _rows(study: Study, key: Key, reading: Reading, view: View) -> pd.DataFrame:
    number, method, place, strength = key
    tokens, cells = study.line(number).response, reading.cells[view]
    n_layers, n_tokens = reading.sinks.shape
    return pd.DataFrame(
        {
            "example": number,
            "token_index": np.tile(np.arange(n_tokens), n_layers),
            "token": list(tokens) * n_layers,
            "layer": np.repeat(np.arange(n_layers), n_tokens),
            "stream": "resid_post",
            "method": method,
            "place": place,
            "strength": strength_label(method, strength),
            "strength_value": float("nan") if method == PROMPT else strength,
            "view": view,
            **{name: cells[name].ravel() for name in MEASURES},
            "sink": reading.sinks.ravel(),
            "unit": study.units.unit,
        }
    )
