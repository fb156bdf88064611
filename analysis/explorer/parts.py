"""The explorer as a part of a report: the examples that it shows, at a few strengths."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pandas as pd

from steerlens.prompts import PromptPair
from steerlens.sinks import SINK
from steerlens.types import HookedModel

from ..measures.plain_side import BY_TEMPLATE
from .explorer import explore
from .methods import UNSTEERED, Steerings
from .study import Study

STRENGTHS = (0.5, 1.0, 2.0)


def report_payload(
    model: HookedModel,
    pairs: Sequence[PromptPair],
    steerings: Steerings,
    *,
    n_shown: int = 2,
    strengths: Sequence[float] = STRENGTHS,
    generations: pd.DataFrame | None = None,
    equivalents: Sequence[str] = (),
    lens: bool = False,
    seed: int = 0,
    baseline: str = BY_TEMPLATE,
    sinks: float = SINK,
) -> dict[str, Any]:
    """The payload of the first `n_shown` pairs; the direction is from all of them.

    Nothing is generated: what methods write is taken from the table of `side_by_side`, where it has
    the question. `explorer_place` makes HTML of the payload.
    """
    explorer = explore(
        model,
        steerings=steerings,
        pairs=pairs,
        strengths=strengths,
        equivalents=equivalents,
        seed=seed,
        baseline=baseline,
        sinks=sinks,
    )
    texts = range(min(n_shown, len(pairs)))
    if generations is not None:
        for number in texts:
            _take(explorer.study, number, generations)
    return explorer.payload(texts, completions=False, lens=lens)


def _take(study: Study, number: int, generations: pd.DataFrame) -> None:
    """The texts of a question, each as that of its method at its strength."""
    rows = generations.loc[generations["prompt"] == study.line(number).question]
    rows = rows.loc[rows["sample"] == rows["sample"].min()]
    places = {method.name: method.places[0] for method in study.methods}
    for method, strength, text in zip(
        rows["method"], rows["strength_value"], rows["text"], strict=True
    ):
        if method == UNSTEERED:
            study.written[number, method] = text
        elif method in places and strength in study.strengths:
            reading = study.reading(number, method, places[method], strength)
            key = (number, method, places[method].label, float(strength))
            study.readings[key] = replace(reading, text=text)
