"""The shapes and protocols that everything else is written in."""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, runtime_checkable

from jaxtyping import Bool, Float, Int
from torch import Tensor

Residual: TypeAlias = Float[Tensor, "batch pos d_model"]
Direction: TypeAlias = Float[Tensor, "d_model"]
Tokens: TypeAlias = Int[Tensor, "batch pos"]
Where: TypeAlias = Bool[Tensor, "batch pos"]

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
