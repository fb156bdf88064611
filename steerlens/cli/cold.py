"""What `steerlens fit cold-kernel` and `fit cold-fd` do once their options are read."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from steerlens.checks import require_choice
from steerlens.jsonl import read_contrasts, read_wishes
from steerlens.methods.cold.finite_difference import ColdFD, Mode
from steerlens.methods.cold.kernel import ColdKernel, Compat, Kernel
from steerlens.prompts import Prompt
from steerlens.scopes import Scope
from steerlens.steering import Steering
from steerlens.types import HookedModel

LOSSES = {
    "dpo": ("positive", "negative"),
    "sft": ("positive",),
    "negative_sft": ("negative",),
    "options": ("positive",),
}
_METHODS: dict[str, Any] = {"COLD-Kernel": ColdKernel, "COLD-FD": ColdFD}
_NAMES = {"kernel": get_args(Kernel), "mode": get_args(Mode), "compat": get_args(Compat)}


@dataclass(frozen=True)
class Asked:
    """A method, its options, and the sides of the pairs that its loss looks at."""

    method: str
    loss: str
    options: Mapping[str, Any]
    sides: Mapping[str, Sequence[Prompt]]
    wishes: Sequence[Mapping[str, float]] | None = None

    @property
    def shown(self) -> list[Prompt]:
        """Some of the examples, to see what the steering does to them."""
        return list(next(iter(self.sides.values())))[:16]

    def fit(
        self, model: HookedModel, layers: Sequence[int], scope: Scope, template: str | None
    ) -> Steering | ColdFD:
        """The steering."""
        return _METHODS[self.method].fit(
            model,
            layers,
            **self.sides,
            **self.options,
            loss=self.loss,
            probabilities=self.wishes,
            scope=scope,
            template=template,
        )

    def told(self, push: float) -> tuple[dict[str, Any], str]:
        """What there is to tell, with how far the activations of its own examples are moved."""
        found = {"method": self.method, "loss": self.loss, "push": push, **self.options}
        return found, (
            f"{self.method} with eta {self.options['eta']:g} moves the activations of its own "
            f"examples by {push:.2g} of their length"
        )


def read(method: str, pairs: Path, loss: str, options: Mapping[str, Any]) -> Asked:
    """The examples of a file; names that do not exist are errors before any work."""
    require_choice("loss", loss, tuple(LOSSES))
    for name, known in _NAMES.items():
        if options.get(name) is not None:
            require_choice(name, options[name], known)
    if loss == "options":
        prompts, wishes = read_wishes(pairs)
        return Asked(method, loss, options, {"positive": prompts}, wishes)
    sides = dict(zip(("positive", "negative"), read_contrasts(pairs), strict=True))
    return Asked(method, loss, options, {name: sides[name] for name in LOSSES[loss]})
