"""An explorer's content as JSON: the contract with `front/explorer.js`, format 1.

Numbers have four significant digits; what is not finite is null.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from typing import Any

import numpy as np

from steerlens.prompts import show

from ..figures.tokens import visible
from .methods import PROMPT, UNSTEERED, Method
from .readings import MEASURES, VIEWS, Change, Reading
from .study import Study
from .texts import tokens_of

FORMAT = 1
LABELS = {
    "along": "along (1 = {unit})",
    "relative_norm": "norm of the change / norm of the plain activation",
    "norm": "norm of the change",
    "off_axis": "off the axis (norm of what is not along)",
    "rank1_share": "share of the change along the direction (1 = all)",
}
State = dict[str, Any]
NAMES = ("text", "method", "place", "strength", "layer", "view", "measure", "minus", "token")
"""What a state has."""


def key_of(text: int, method: str, place: int, strength: float) -> str:
    """The key of a reading, its strength as JavaScript writes numbers."""
    return f"{text}|{method}|{place}|{number_text(strength)}"


def number_text(value: float) -> str:
    """A number as JavaScript writes it: 1 for 1.0, 0.00001 for 1e-05, 1e-7 for 1e-07."""
    value = float(value)
    if value.is_integer() and abs(value) < 1e21:
        return str(int(value))
    digits, _, exponent = repr(value).partition("e")
    if not exponent:
        return digits
    if 1e-6 <= abs(value) < 1e21:
        return format(Decimal(repr(value)), "f")
    return f"{digits}e{int(exponent):+d}"


def as_number(value: float) -> float | int:
    """The number in full, as an int where it is whole, so that it and its key agree."""
    return int(value) if float(value).is_integer() and abs(value) < 1e15 else float(value)


def rounded(value: float, digits: int = 4) -> float | int | None:
    """The number to some significant digits; None where it is not finite."""
    if not math.isfinite(value):
        return None
    short = float(f"{value:.{digits}g}")
    return int(short) if short.is_integer() and abs(short) < 1e15 else short


def rows(values: np.ndarray) -> list[Any]:
    """An array as nested lists of rounded numbers."""
    if values.ndim > 1:
        return [rows(row) for row in values]
    return [rounded(value) for value in values.tolist()]


def reading_json(reading: Reading, views: Sequence[str] = VIEWS) -> dict[str, Any]:
    """One reading as the payload has it."""
    content: dict[str, Any] = {
        "cells": {
            view: {name: rows(values) for name, values in measured.items()}
            for view, measured in reading.cells.items()
            if view in views
        },
        "sink": [np.flatnonzero(layer).tolist() for layer in reading.sinks],
        "steered": list(reading.steered),
        "rmse": rows(reading.rmse),
        "kl": rounded(reading.kl),
        "recovered": rounded(reading.recovered),
        "kl_by_token": rows(reading.kl_by_token),
        "next": [_change(change) for change in reading.changes],
        "text": reading.text or "",
        "text_state": "none" if reading.text is None else "done",
    }
    if reading.lens is not None:
        content["lens"] = [[_change(change, 3) for change in layer] for layer in reading.lens]
    return content


def _change(change: Change, digits: int = 4) -> dict[str, list[list[Any]]]:
    return {
        name: [[id_, rounded(value, digits)] for id_, value in ranked]
        for name, ranked in (("up", change.up), ("down", change.down))
    }


def words_of(study: Study, readings: Iterable[Reading]) -> dict[str, str]:
    """The ids that readings name, with their visible text."""
    ids: set[int] = set()
    for reading in readings:
        layers = (reading.changes, *(reading.lens or ()))
        ids |= {id_ for layer in layers for c in layer for id_, _ in (*c.up, *c.down)}
    listed = sorted(ids)
    words = [show(study.model, [id_])[0] for id_ in listed]  # each by itself: they are no text
    return {str(id_): visible(word) for id_, word in zip(listed, words, strict=True)}


def text_json(study: Study, number: int, completions: bool = True) -> dict[str, Any]:
    """A text as the payload has it; without completions, the unsteered one only if it is known."""
    line, known = study.line(number), (number, UNSTEERED) in study.written
    unsteered = study.completion(number, UNSTEERED) if completions or known else ""
    written = [
        {"method": UNSTEERED, "text": unsteered},
        {"method": PROMPT, "text": study.completion(number, PROMPT)},
    ]
    return {
        "question": line.question,
        "instruction": line.instruction,
        "tokens": tokens_of(line),
        "completions": written,
    }


def method_json(method: Method, strengths: Sequence[float], live: bool) -> dict[str, Any]:
    """A method as the payload has it."""
    places = [{"label": p.label, "layers": list(p.layers)} for p in method.offered(live)]
    return {
        "name": method.name,
        "colour": method.colour,
        "dash": method.dash,
        "places": places,
        "strengths": [1] if method.name == PROMPT else [as_number(s) for s in strengths],
    }


def effect_json(method: str, place: int, reading: Reading) -> dict[str, Any]:
    """A point of strength against effect."""
    return {
        "method": method,
        "place": place,
        "strength": as_number(reading.strength),
        "kl": rounded(reading.kl),
        "recovered": rounded(reading.recovered),
        "rmse": rounded(reading.rmse_above),
    }


def curves_json(curves: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Reference curves with rounded numbers."""
    return [
        {
            name: value if name == "name" else [rounded(float(one)) for one in value]
            for name, value in curve.items()
        }
        for curve in curves
    ]


def measures_json(study: Study, asks: bool) -> list[dict[str, Any]]:
    """The measures, the default first.

    Where questions can be asked under other instructions, the unit says whose push it is.
    """
    unit = study.units.unit_of_asked if asks else study.units.unit
    return [
        {"name": name, "label": LABELS[name].format(unit=unit), "signed": name == "along"}
        for name in MEASURES
    ]
