"""The cells of a sweep, and those of them that one pass can hold."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from numbers import Real
from typing import Literal

from steerlens.baselines.lora import LoRA
from steerlens.calibration import calibrate
from steerlens.prompts import PromptPair
from steerlens.scopes import Scope
from steerlens.sites import Site
from steerlens.steering import Steering
from steerlens.types import HookedModel

from .entering import Entry
from .entries import RESERVED
from .plain_side import NO_SYSTEM, against

Unit = Literal["as fitted", "kl"]
AS_FITTED = "as fitted"
"""A strength of 1 is the steering as it was fitted; also the scope of a steering that has its own.
"""


@dataclass(frozen=True, eq=False)
class Line:
    """The cells of one steering on one scope, which differ in their strength alone.

    `steering` is as it was given. `factor` is the number that it has at a strength of 1.
    """

    method: str
    steering: Steering
    scope: Scope | None
    factor: float = 1.0

    @property
    def own(self) -> Site:
        """The output of the lowest steered block."""
        return Site(min(site.layer for site in self.steering.sites))

    @property
    def entry(self) -> Entry:
        """Where its passes can begin."""
        return Entry.of(self.steering.sites)

    @property
    def limited(self) -> Steering:
        """The steering on the scope."""
        return self.steering if self.scope is None else self.steering.only(self.scope)

    @property
    def names(self) -> dict[str, object]:
        """The columns that say which cells these are."""
        scope = AS_FITTED if self.scope is None else str(self.scope)
        return {"method": self.method, "layer": self.own.layer, "scope": scope}

    def calibrated(self, model: HookedModel, pairs: Sequence[PromptPair], baseline: str) -> "Line":
        """The line whose strength 1 has as much KL from this plain side as the prompt has."""
        given, bare = against(pairs, baseline), baseline == NO_SYSTEM
        found = calibrate(model, self.limited, given, like="prompt", progress=False, bare=bare)
        return replace(self, factor=found.strength)


def lines_of(
    model: HookedModel,
    steerings: Mapping[str, Steering],
    scopes: Sequence[Scope | None] | None,
) -> list[Line]:
    """Every steering on every scope; ValueError where two could not be told apart in a table."""
    _require_steerings(steerings)
    places = [None] if scopes is None else list(scopes)
    _require_scopes(places)
    lines = [
        Line(name, steering.on(model), scope)
        for name, steering in steerings.items()
        for scope in places
    ]
    lines = [
        replace(line, method=line.method.removesuffix(f", layer {line.own.layer}"))
        for line in lines
    ]
    names = [tuple(line.names.values()) for line in lines]
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        method, layer, scope = twice[0]
        raise ValueError(
            f"Two steerings are {method!r} at layer {layer} on the scope {scope!r}. Give each a "
            "name of its own, and each scope once."
        )
    return lines


def require_strengths(strengths: Iterable[float | int]) -> tuple[float, ...]:
    """The strengths as floats; ValueError unless they are finite and each is there once."""
    listed = list(strengths)
    numbers = [s for s in listed if isinstance(s, Real) and not isinstance(s, bool)]
    if not listed or len(numbers) < len(listed) or not all(map(math.isfinite, numbers)):
        raise ValueError(
            f"The strengths are finite numbers, one or more, such as (0.25, 0.5, 1, 2); found "
            f"{listed!r}."
        )
    if len(set(numbers)) < len(numbers):
        raise ValueError(f"A strength is there twice: {listed!r}. Leave one out.")
    return tuple(map(float, numbers))


def _require_steerings(steerings: Mapping[str, Steering]) -> None:
    if not isinstance(steerings, Mapping) or not steerings:
        raise ValueError(
            'A sweep takes steerings by name, {"CAA": steering}; at_layers(model, pairs, "CAA", '
            "range(6)) makes one for each layer."
        )
    for name, steering in steerings.items():
        if isinstance(steering, LoRA):
            raise ValueError(
                f"{name} is a LoRA, which changes weights of every layer: there is no layer to "
                "sweep over, and nothing below it to share. Measure it inside `with "
                "lora.applied(model)`, one strength at a time."
            )
        if not isinstance(steering, Steering):
            advice = "pass its steering: fit.steering" if hasattr(steering, "steering") else "at()"
            raise TypeError(
                f"{name} is a {type(steering).__name__}, no Steering. Make it one: {advice}."
            )
    taken = [name for name in steerings if name in RESERVED]
    if taken:
        raise ValueError(f"{taken[0]!r} is the name of a reference. Call the steering otherwise.")


def _require_scopes(scopes: Sequence[Scope | None]) -> None:
    if not scopes:
        raise TypeError(
            "Scopes are values such as steerlens.response, or None for the steering's own; found "
            "none. steerlens.scope_named('response') makes one of text."
        )
