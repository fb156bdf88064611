"""What the COLD study tries: options, configurations, and how one of them is chosen."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from cells import Cells
from study import StudyOptions

from steerlens import Scope, everywhere
from steerlens.scopes import prompt

METHODS = ("COLD-FD", "COLD-Kernel", "CAA", "ReFT-vector", "ReFT-r1")
SPREADING = ("COLD-FD", "COLD-Kernel", "CAA")
"""Methods that can be fitted to a wished spread over options."""

LAYERS = (1, 2, 4)
SCOPES: tuple[Scope, ...] = (prompt, everywhere)
CONFIGURATIONS = [(layer, scope) for layer in LAYERS for scope in SCOPES]
SEARCHED_WITH = 50
STEPS, BATCH = 120, 8
"""Updates of every trained method, whatever the number of its pairs, and pairs a batch."""

PUSH = 0.25
"""Strength 1 of every method: on average a quarter of the activations' length."""

TRIES = 8
"""Answers of the model itself that are drawn to find one without the attribute, and first vectors
of ReFT-r1."""

SEEN = 6
"""The first test questions, which were looked at while the command was written, are left out."""

GROUPS = ("positive", "negative")
"""Whose instruction makes the spread that is asked for."""

WORDS = ("good", "great", "excellent", "wonderful", "bad", "terrible", "boring", "awful")
OPENING = "It was"
TUNED_WITH = 20
SPREAD_SIZES = (5, 20, 100)
GRID = tuple(2.0**k for k in range(-4, 5))


@dataclass(frozen=True)
class Options(StudyOptions):
    """What a study is made of; the work folder remembers it."""

    attributes: tuple[str, ...] = ("positive", "fairytale")
    seeds: int = 3
    sizes: tuple[int, ...] = (2, 5, 10, 20, 50, 100, 250, 400)
    n_validation: int = 40
    n_test: int = 114
    configurations: int = 6
    bisections: int = 3


def chosen(cells: Cells, attribute: str, method: str) -> int:
    """The best validation score among the configurations that have a strength with C80."""
    tried = [cells.get("search", attribute, method, c) for c in range(cells.options.configurations)]
    scores = [one["attribute"] if one["met"] else -1.0 for one in tried]
    return int(np.nanargmax(scores))


def layer_of(cells: Cells, group: str, method: str) -> int:
    """The layer with the least validation KL."""
    return min(LAYERS, key=lambda layer: cells.get("tune", group, method, layer)["KL"])
