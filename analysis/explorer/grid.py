"""The grid of a static page: which readings are in it, and the whole payload of them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .methods import PROMPT, Method
from .payload import (
    FORMAT,
    VIEWS,
    State,
    curves_json,
    effect_json,
    key_of,
    measures_json,
    method_json,
    places_of,
    reading_json,
    text_json,
    words_of,
)
from .readings import Reading
from .study import Study

Told = Callable[[str, float], None]
"""Is told what is being done, and the share of all that is done."""


def silently(text: str, share: float) -> None:
    """Tell nobody."""


@dataclass(frozen=True)
class Grid:
    """Which texts at which strengths, and what of each: completions, the logit lens."""

    texts: tuple[int, ...]
    strengths: tuple[float, ...]
    completions: bool = True
    lens: bool = True
    live: bool = False


def payload_of(
    study: Study,
    grid: Grid,
    state: State,
    title: str,
    made: Mapping[str, object],
    told: Told = silently,
) -> dict[str, Any]:
    """Everything that a page needs; what is not measured yet is measured now."""
    readings = dict(_readings(study, grid, told))
    named = {key: one for key, (_, _, one) in readings.items()}
    effect: dict[str, list[Any]] = {str(place): [] for place, _ in enumerate(grid.texts)}
    for key, (method, place, reading) in readings.items():
        if method != PROMPT:
            effect[key.partition("|")[0]].append(effect_json(method, place, reading))
    return {
        "format": FORMAT,
        "title": title,
        "made": {name: str(value) for name, value in made.items()},
        "model": str(made.get("model", "")),
        "layers": list(range(study.model.cfg.n_layers)),
        "vocabulary": words_of(study, named.values()),
        "measures": measures_json(study),
        "views": list(VIEWS),
        "texts": [text_json(study, number, grid.completions) for number in grid.texts],
        "methods": [method_json(one, grid.strengths, grid.live) for one in study.methods],
        "readings": {key: reading_json(reading) for key, reading in named.items()},
        "curves": {
            str(place): curves_json(study.references(number))
            for place, number in enumerate(grid.texts)
        },
        "effect": effect,
        "state": state,
        **({"live": {"questions": True}} if grid.live else {}),
    }


def _readings(
    study: Study, grid: Grid, told: Told
) -> list[tuple[str, tuple[str, int, Reading]]]:
    wanted = [
        (place, number, method, where, strength)
        for place, number in enumerate(grid.texts)
        for method in study.methods
        for where in places_of(method, False)
        for strength in _strengths(method, grid.strengths)
    ]
    found = []
    for done, (place, number, method, (index, where), strength) in enumerate(wanted):
        told(f"{method.name} {where.label} at {strength:g}, text {number + 1}", done / len(wanted))
        given = (number, method.name, where, strength)
        reading = study.with_lens(*given) if grid.lens else study.reading(*given)
        if grid.completions:
            reading = study.with_text(*given)
        found.append((key_of(place, method.name, index, strength), (method.name, index, reading)))
    return found


def _strengths(method: Method, strengths: Sequence[float]) -> Sequence[float]:
    return (1.0,) if method.name == PROMPT else strengths


def first_state(study: Study, **changes: Any) -> State:
    """What is shown first: the first method as fitted, in the middle of the layers."""
    method = study.methods[1]
    strengths = study.strengths
    n_layers = study.model.cfg.n_layers
    return {
        "text": 0,
        "method": method.name,
        "place": 0,
        "strength": 1 if 1.0 in strengths else max(strengths),
        "layer": max(method.places[0].lowest, 2 * n_layers // 3),
        "view": "accumulated",
        "measure": "along",
        "minus": None,
        "token": 0,
        **changes,
    }
