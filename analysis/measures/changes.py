"""What is done to a model, by name: steerings, a LoRA, a gradient step; and the model as it is."""

from collections.abc import Mapping, Sequence
from typing import TypeAlias, cast

from steerlens.baselines.weights import Change, Weights

from .entries import Entry

UNSTEERED, STEERED = "unsteered", "steered"
Changes: TypeAlias = "Change | Mapping[str, Change] | Sequence[Entry]"
"""One steering (or LoRA, or GradientStep), several by name, or entries of `measures.entries`."""


def named(changes: Changes) -> dict[str, Change]:
    """The changes by name, "unsteered" first: nothing is done there. A single one is "steered"."""
    if isinstance(changes, Mapping):
        given = dict(cast("Mapping[str, Change]", changes))
    elif isinstance(changes, list | tuple):
        given = {entry.key: entry.steering for entry in changes}
    else:
        given = {STEERED: cast("Change", changes)}
    if UNSTEERED in given:
        raise ValueError(
            f"No method may be called {UNSTEERED!r}: that is the model as it is, and is measured "
            "with the others."
        )
    for name, change in given.items():
        _require_change(name, change)
    return {UNSTEERED: None, **given}


def _require_change(name: str, change: object) -> None:
    """Raise TypeError unless it is a Steering, or changes weights."""
    if isinstance(change, Weights) or hasattr(change, "placed"):
        return
    advice = "Pass its steering: fit.steering." if hasattr(change, "steering") else ""
    advice = "Pass its lora: fit.lora." if hasattr(change, "lora") else advice
    raise TypeError(
        f"{name!r} is to be a Steering, a LoRA or a GradientStep; found "
        f"{type(change).__name__}. {advice}".rstrip()
    )
