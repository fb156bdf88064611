"""The grid of a static page: which readings are in it, and the whole payload of them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..measures.progress import watched
from .methods import PROMPT, by_name
from .payload import (
    FORMAT,
    NAMES,
    VIEWS,
    State,
    curves_json,
    effect_json,
    key_of,
    measures_json,
    method_json,
    reading_json,
    text_json,
    words_of,
)
from .readings import Reading
from .study import Study


@dataclass(frozen=True)
class Grid:
    """Which texts at which strengths; those of `lens` with the logit lens, and the prompt's if any.

    Completions are written at all strengths, or at those of `completions` alone.
    Unless `anew`, only what is known already is in it: what was measured and written. A `live` one
    has every text, so that the numbers of texts are the study's own, and what is missing is asked
    for; the runs of those in `measured` are in it.
    """

    texts: tuple[int, ...]
    strengths: tuple[float, ...]
    completions: tuple[float, ...] | None = None
    lens: tuple[float, ...] = ()
    anew: bool = True
    live: bool = False
    measured: tuple[int, ...] | None = None

    @property
    def some_completions(self) -> bool:
        """Whether anything is written."""
        return self.completions is None or bool(self.completions)

    def written(self, strength: float) -> bool:
        """Whether completions at a strength are written."""
        return self.anew and (self.completions is None or strength in self.completions)

    @property
    def run(self) -> dict[int, int]:
        """The place in the payload of each text that is run, by its number."""
        among = self.texts if self.measured is None else self.measured
        return {number: place for place, number in enumerate(self.texts) if number in among}


def payload_of(
    study: Study,
    grid: Grid,
    state: State,
    title: str,
    made: Mapping[str, object],
) -> dict[str, Any]:
    """Everything that a page needs; what is not measured yet is measured now."""
    cells = _readings(study, grid)
    return {
        "format": FORMAT,
        "title": title,
        "made": {name: str(value) for name, value in made.items()},
        "model": str(made.get("model", "")),
        "layers": list(range(study.model.cfg.n_layers)),
        "vocabulary": words_of(study, [cell.reading for cell in cells]),
        "measures": measures_json(study, grid.live),
        "views": list(VIEWS),
        "texts": [
            text_json(study, number, number in grid.run and grid.some_completions)
            for number in grid.texts
        ],
        "methods": [method_json(one, grid.strengths, grid.live) for one in study.methods],
        "readings": {cell.key: reading_json(cell.reading) for cell in cells},
        "curves": {
            str(place): curves_json(study.references(number)) for number, place in grid.run.items()
        },
        "effect": {
            str(place): [cell.effect for cell in cells if cell.text == place and cell.steered]
            for place in grid.run.values()
        },
        "state": _state(study, grid, state),
        **({"live": {"questions": True}} if grid.live else {}),
    }


def _state(study: Study, grid: Grid, state: State) -> State:
    """The state as a page has it, whose texts and places may be fewer."""
    method = by_name(study.methods, state["method"])
    known = len(method.offered(grid.live))
    text = grid.texts.index(state["text"]) if state["text"] in grid.texts else 0
    place = state["place"] if state["place"] < known else 0
    return {**{name: state[name] for name in NAMES}, "text": text, "place": place}


@dataclass(frozen=True)
class Cell:
    """A reading in the grid: its text's and place's numbers there, and its method."""

    text: int
    method: str
    place: int
    reading: Reading

    @property
    def key(self) -> str:
        """The key of the reading in the payload."""
        return key_of(self.text, self.method, self.place, self.reading.strength)

    @property
    def steered(self) -> bool:
        """Whether this is a steering, not the prompt."""
        return self.method != PROMPT

    @property
    def effect(self) -> dict[str, Any]:
        """The point of strength against effect."""
        return effect_json(self.method, self.place, self.reading)


def _readings(study: Study, grid: Grid) -> list[Cell]:
    wanted = [
        (number, place, method, index, where, strength)
        for number, place in grid.run.items()
        for method in study.methods
        for index, where in enumerate(method.offered(grid.live))
        for strength in ((1.0,) if method.name == PROMPT else grid.strengths)
    ]
    cells = []
    for number, place, method, index, where, strength in watched(wanted, "readings", "reading"):
        given = (number, method.name, where, strength)
        if not grid.anew and (number, method.name, where.label, strength) not in study.readings:
            continue
        seen = strength in grid.lens or (grid.lens and method.name == PROMPT)
        reading = study.with_lens(*given) if seen else study.reading(*given)
        if grid.written(strength):
            reading = study.with_text(*given)
        cells.append(Cell(place, method.name, index, reading))
    return cells
