"""What the PSR study tries: options, methods, configurations, and how one of them is chosen."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from cells import Cells
from material import DEMO_ATTRIBUTES, PREFIXES, Material, demo, from_file, prefixed
from study import StudyOptions, model, options

BUDGET = 3
"""Configurations that every method may try on validation data."""

RATES = (3e-3, 1e-2, 3e-2)
TOLERANCE = 2.0
"""Points of coherence that count as equal to the prompt's."""

MATCHED_SHARE = 0.1
"""A matched strength scores as the prompt does to within this share of the prompt's effect."""


@dataclass(frozen=True)
class Method:
    """A row of the study. `objective` None is a difference of means."""

    objective: str | None
    gated: bool
    all_layers: bool


METHODS = {
    "S-Const_DiM": Method(None, False, False),
    "S-Const_MSE": Method("MSE", False, False),
    "S-PSR_MSE": Method("MSE", True, False),
    "S-PSR_LL": Method("LL", True, False),
    "A-Const_MSE": Method("MSE", False, True),
    "A-PSR_MSE": Method("MSE", True, True),
    "A-PSR_LL": Method("LL", True, True),
}
SAME_LAYER = ("S-Const_MSE", "S-PSR_MSE")
"""Compared with each other at the middle layer, whatever configuration each has kept (H3)."""


@dataclass(frozen=True)
class Options(StudyOptions):
    """What the results depend on."""

    model: str = "demo"
    prefix: bool = False
    questions: str = ""
    judge: tuple[str, str] | None = None
    attributes: tuple[str, ...] = ()
    n_train: int = 120
    n_test: int = 120
    epochs: int = 8
    samples: int = 2
    bisections: int = 4
    seeds: int = 3

    @property
    def loaded(self) -> str:
        """The name of the model, as `steerlens.load` takes it."""
        return self.model

    @property
    def judged(self) -> bool:
        """Whether there are judges."""
        return not self.prefix and (not self.questions or self.judge is not None)


@cache
def material(attribute: str) -> Material:
    if options().prefix:
        return prefixed(model(), attribute, (options().n_train, 20, options().n_test))
    if options().questions:
        return from_file(model(), Path(options().questions), attribute, options().judge)
    return demo(attribute)


def attributes() -> tuple[str, ...]:
    if options().attributes:
        return options().attributes
    if options().prefix:
        return tuple(PREFIXES)
    if options().questions:
        return tuple(json.loads(Path(options().questions).read_text(encoding="utf-8")))
    return DEMO_ATTRIBUTES


def layers_tried(n_layers: int) -> tuple[int, ...]:
    """A third, half and two thirds of the way up: what a single-layer method may choose from."""
    return tuple(
        dict.fromkeys(max(round(n_layers * part) - 1, 0) for part in (1 / 3, 1 / 2, 2 / 3))
    )


def middle(n_layers: int) -> int:
    """The configuration of a single-layer method at the middle layer."""
    return layers_tried(n_layers).index(round(n_layers / 2) - 1)


def configurations(method: str, n_layers: int) -> range:
    tried = RATES if METHODS[method].all_layers else layers_tried(n_layers)
    return range(len(tried))


def described(method: str, configuration: int, n_layers: int) -> str:
    if METHODS[method].all_layers:
        return f"learning rate {RATES[configuration]:g}"
    return f"layer {layers_tried(n_layers)[configuration]}"


def own_layer(method: str, configuration: int, n_layers: int) -> int:
    return 0 if METHODS[method].all_layers else layers_tried(n_layers)[configuration]


def chosen(cells: Cells, attribute: str, name: str, n_layers: int) -> int:
    """The configuration with the best validation result at seed 0."""
    found = {
        configuration: cells.get("validate", attribute, name, configuration, 0)
        for configuration in configurations(name, n_layers)
    }
    if "relative_rmse" in found[0]:
        return min(found, key=lambda one: found[one]["relative_rmse"])

    def rank(one: int) -> tuple[bool, float]:
        at = found[one]["C80"]
        return at["reached"], float(np.nan_to_num(at["attribute"], nan=-1.0))

    return max(found, key=rank)
