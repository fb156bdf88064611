"""What the CLAS study tries: options, configurations, and how one of them is chosen."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from cells import Cells
from material import DEMO_ATTRIBUTES
from study import StudyOptions

METHODS = (
    "LAS grid",
    "LAS single",
    "LAS layerwise",
    "CLAS, RFM",
    "CLAS, means",
    "CLAS, random",
    "ReFT",
    "LoReFT",
    "ReFT-r1",
    "instruction vector",
    "LoRA",
)

N_TRAIN, N_VALIDATION, N_PROBE = 10, 10, 100
MULTIPLES = (1 / 4, 1 / 2, 1.0, 2.0, 4.0, 8.0)
"""Of a method's own learning rate: the six configurations of every learned method."""

SHARES = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32)
"""Strengths of a fixed direction, over the median length of the activations."""

BEYOND = ("positive", "negative")
"""Attributes whose questions are all about films."""

OTHER = "lowercase"
"""An attribute with questions of every kind; those that are not about films are *beyond*."""

NO_FILM = ("encyclopedia", "What do you know about", "fairy tale", "a story")
FACTORS = (1.0, 1.5, 2.0, 3.0)
CLAMP = 0.99
"""The quantile of |alpha| on the training tokens that bounds alpha, a site."""


@dataclass(frozen=True)
class Options(StudyOptions):
    """What a study is made of; the work folder remembers it."""

    attributes: tuple[str, ...] = DEMO_ATTRIBUTES
    seeds: int = 3
    n_validation: int = 40
    n_test: int = 120
    n_beyond: int = 60
    configurations: int = 6


def described(method: str, configuration: int) -> str:
    """What a configuration of a method is."""
    if method == "LAS grid":
        return f"strength {SHARES[configuration]:g} of the length"
    if method in ("ReFT-r1", "instruction vector"):
        return f"layer {layer_of(configuration)}"
    return f"rate x {MULTIPLES[configuration]:g}"


def layer_of(configuration: int) -> int:
    """The demonstration model has as many blocks as there are configurations."""
    return configuration


def chosen(cells: Cells, attribute: str, method: str) -> int:
    """The configuration with the best mean harmonic score on validation questions, at seed 0."""
    found = [
        np.mean(cells.get("search", attribute, method, configuration, 0)["harmonic"])
        for configuration in range(cells.options.configurations)
    ]
    return int(np.argmax(found))
