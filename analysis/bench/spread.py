"""How unevenly the instruction pushes the tokens of an answer: percentiles of the push's length.

Kept are the 5th, 50th and 95th percentile over the tokens of each answer at every layer, sinks left
out, against what the chat template puts there by itself, and against a neutral instruction.
"""

from typing import Any

import numpy as np

from steerlens.scopes import generated
from steerlens.sinks import SINK

from ..measures.faithfulness import Pushes
from .cells import Cell
from .effects import answered
from .maker import Maker

PERCENTILES = (5, 50, 95)
LEAST_TOKENS = 8
"""Answers with fewer tokens have no percentiles."""


def spread(maker: Maker, cell: Cell) -> dict[str, Any]:
    """`percentiles` as [layer][percentile][answer], None for an answer that is too short."""
    numbers, pairs = answered(maker, Cell.of_json(cell["pairs"]))
    layers = range(maker.model.cfg.n_layers)
    pushes = Pushes.of(maker.model, pairs, layers, generated, cell["baseline"], SINK)
    found = []
    for site in pushes.aligned.sites:
        lengths = pushes.target[site].norm(dim=-1)
        keep = pushes.kept[site]
        rows = [
            lengths[keep & (pushes.aligned.example == number)].numpy()
            for number in range(len(pairs))
        ]
        told = [
            np.percentile(row, PERCENTILES).tolist() if len(row) >= LEAST_TOKENS else None
            for row in rows
        ]
        found.append([[None if one is None else one[i] for one in told] for i in range(3)])
    return {"question": numbers, "percentiles": found}
