"""What changes weights instead of steering, and how it is there for a while, like a steering."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeAlias

from steerlens.baselines.gradient_step import GradientStep
from steerlens.baselines.lora import LoRA
from steerlens.steering import Steering
from steerlens.types import HookedModel

Weights: TypeAlias = LoRA | GradientStep
"""What is there inside `with it.applied(model):`."""
Change: TypeAlias = Steering | Weights | None
"""A steering, other weights, or None: the model as it is."""


@contextmanager
def changed(model: HookedModel, change: Change) -> Iterator[Steering | None]:
    """The steering of the passes inside: `change` itself, or None where it changes weights."""
    if not isinstance(change, Weights):
        yield change
        return
    with change.applied(model):
        yield None
