"""The shapes and protocols that everything else is written in."""

import inspect
import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from operator import index
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, TypeVar, runtime_checkable

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

Residual: TypeAlias = Float[Tensor, "batch pos d_model"]
Direction: TypeAlias = Float[Tensor, "d_model"]
Tokens: TypeAlias = Int[Tensor, "batch pos"]
Where: TypeAlias = Bool[Tensor, "batch pos"]

VectorLike: TypeAlias = Float[Tensor, "..."] | Float[np.ndarray, "..."] | Sequence[float]
"""What a steer takes for a direction: a vector, or a row or column that is one."""
Class = TypeVar("Class", bound=type)

# A HookPoint, or in TransformerLens' compatibility mode a stand-in for one; no steer reads it.
Hook: TypeAlias = Any


class SteeringWarning(UserWarning):
    """A steering that did nothing, or less than its caller may believe."""


@runtime_checkable
class Steer(Protocol):
    """A TransformerLens hook: maps an activation to a steered one, pure, same shape and dtype.

    A plain function is already a steer, and a steer is already a valid `fwd_hooks` entry.
    """

    def __call__(self, activation: Residual, hook: Hook = None) -> Residual: ...


@runtime_checkable
class HookedModel(Protocol):
    """What steerlens asks of a model: HookedTransformer and TransformerBridge both are one."""

    cfg: Any
    tokenizer: Any

    if TYPE_CHECKING:  # a bridge builds it at every look, and `isinstance` in tests looks each call

        @property
        def hook_dict(self) -> dict[str, Any]: ...

    def hooks(self, fwd_hooks: Sequence[tuple[str, Any]] = ...) -> AbstractContextManager[Any]: ...

    def __call__(self, *args: Any, **options: Any) -> Any: ...


def whole_number(value: object) -> int | None:
    """`value` as an int if it is a whole number of Python, NumPy or torch; None if it is not."""
    # A truth value is a whole number to Python, and to torch.
    if isinstance(value, bool) or getattr(value, "dtype", None) == torch.bool:
        return None
    try:
        return index(value)  # pyright: ignore[reportArgumentType]  it raises for what has none
    except (TypeError, RuntimeError, ValueError):  # RuntimeError: torch, of a tensor of several
        return None


def finite(value: object) -> bool:
    """Whether `value` is a number, no truth value, that is finite as a float."""
    try:
        return not isinstance(value, bool) and math.isfinite(value)  # pyright: ignore[reportArgumentType]
    except (TypeError, ValueError, OverflowError, RuntimeError):
        return False


def converting(**converters: Callable[[Any], Any]) -> Callable[[Class], Class]:
    """A decorator of dataclasses: their arguments of these names go through the converters.

    So a field may be declared as what it is, and given as what can be made that.
    """

    def decorate(cls: Class) -> Class:
        declared: Any = cls.__init__
        signature = inspect.signature(declared)

        def __init__(self: Any, *given: Any, **options: Any) -> None:  # noqa: N807
            try:
                bound = signature.bind(self, *given, **options)
            except TypeError:
                declared(self, *given, **options)  # its message names the class
                raise
            for name in converters.keys() & bound.arguments.keys():
                bound.arguments[name] = converters[name](bound.arguments[name])
            declared(*bound.args, **bound.kwargs)

        loose = [
            item.replace(annotation=Any) if item.name in converters else item
            for item in signature.parameters.values()
        ]
        __init__.__signature__ = signature.replace(parameters=loose)  # pyright: ignore
        __init__.__annotations__ = {item.name: item.annotation for item in loose[1:]}
        __init__.__qualname__ = declared.__qualname__
        cls.__init__ = __init__  # pyright: ignore[reportAttributeAccessIssue]
        return cls

    return decorate
