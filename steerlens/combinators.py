"""Wrappers that say how much, where, in what order and when a steer acts.

A steer that depends on positions has a method `bind(window)` that returns a position-free steer
for one forward pass, and says so: `needs_window = True`. One that must see the tokens or run the
model says `needs_run = True` too, and finds both in `window.context`. The wrappers bind what they
wrap.
"""

import copy
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

import torch
from jaxtyping import Bool
from torch import Tensor

from steerlens.checks import described, require_like, require_steer
from steerlens.kinds import require_fields
from steerlens.scopes import Scope, Window
from steerlens.types import Hook, Residual, Steer, Where


def bind(steer: Steer, window: Window) -> Steer:
    """`steer` for the one pass that `window` describes; a position-free steer is returned as is."""
    return steer.bind(window) if hasattr(steer, "bind") else steer  # pyright: ignore


def parts(steer: object) -> Iterator[object]:
    """`steer` and every steer, scope and condition inside it, outermost first."""
    yield steer
    if not is_dataclass(steer):
        return
    for inner in (getattr(steer, item.name) for item in fields(steer)):
        for part in inner if isinstance(inner, tuple) else (inner,):
            if is_dataclass(part) or (callable(part) and not isinstance(part, Tensor)):
                yield from parts(part)


def positional(steer: Steer) -> bool:
    """Whether `steer`, or a steer inside it, needs a `Window` to know where it acts."""
    return any(getattr(part, "needs_window", False) for part in parts(steer))


def needs_run(steer: Steer) -> bool:
    """Whether `steer`, or a steer inside it, needs the model and the tokens to bind."""
    return any(getattr(part, "needs_run", False) for part in parts(steer))


def innermost(steer: Steer) -> Steer:
    """What `Scaled` and `Only` are wrapped around: it sees the activation as the pass has it."""
    while isinstance(steer, Scaled | Only):
        steer = steer.steer
    return steer


def on_device(value: Any, device: torch.device | str, moved: dict[int, Tensor]) -> Any:
    """`value`, a tree of steers, with every tensor on `device`; functions stay as they are.

    `moved` keeps what is there already, so that a tensor in two places stays one tensor.
    """
    if isinstance(value, Tensor):
        return moved.setdefault(id(value), value.to(device))
    if isinstance(value, tuple):
        return tuple(on_device(item, device, moved) for item in value)
    if not is_dataclass(value) or isinstance(value, type):
        return value
    # Not built anew: its checks have passed, and on "meta" there are no numbers to check.
    copied = copy.copy(value)
    for name in {item.name for item in fields(value)} | set(getattr(value, "__dict__", ())):
        object.__setattr__(copied, name, on_device(getattr(value, name), device, moved))
    return copied


def steered(steer: Steer, activation: Residual, hook: Hook) -> Residual:
    """steer(h), checked before arithmetic could broadcast or promote a wrong result."""
    result = steer(activation, hook)
    require_like(activation, result, type(steer).__name__)
    return result


@dataclass(frozen=True, eq=False)
class Scaled:
    """h + s (steer(h) - h): the one strength dial. Off at 0, the steer itself at 1."""

    steer: Steer
    strength: float

    def __post_init__(self) -> None:
        require_steer(self.steer, "Scaled")
        require_fields(self)
        if not math.isfinite(self.strength):
            raise ValueError(
                f"The strength must be a finite number; found {self.strength}. 0 switches the "
                "steer off, 1 leaves it as fitted, negative values reverse it."
            )

    def bind(self, window: Window) -> "Scaled":
        """The same strength on the bound steer."""
        return Scaled(bind(self.steer, window), self.strength)

    def __call__(self, activation: Residual, hook: Hook = None) -> Residual:
        h, s = activation, self.strength
        # lerp is h + s (steer(h) - h), and exact at 0 and at 1 in every dtype.
        return torch.lerp(h, steered(self.steer, h, hook), s)


@dataclass(frozen=True, eq=False)
class Masked:
    """steer(h) where `where` is True, h elsewhere, for one pass. What `Only` binds to."""

    steer: Steer
    where: Where

    def __call__(self, activation: Residual, hook: Hook = None) -> Residual:
        h = activation
        return torch.where(self.where[..., None], steered(self.steer, h, hook), h)


def unchanged(activation: Residual, hook: Hook = None) -> Residual:
    """The steer that does nothing."""
    return activation


def masked(steer: Steer, where: Where) -> Steer:
    """`steer` limited to `where`; `steer` itself where that is everywhere.

    A steer that says `sees_all` is given every pass, also one of which it may change nothing.
    """
    if bool(where.all()):
        return steer
    needed = bool(where.any()) or any(getattr(part, "sees_all", False) for part in parts(steer))
    return Masked(steer, where) if needed else unchanged


@dataclass(frozen=True, eq=False)
class Only:
    """`steer` on the positions of `scope`, nothing elsewhere."""

    steer: Steer
    scope: Scope
    needs_window = True

    def __post_init__(self) -> None:
        require_steer(self.steer, "Only")
        if not isinstance(self.scope, Scope):
            raise TypeError(
                f"Only needs a scope such as `response` or `positions(2, 5)`; found "
                f"{type(self.scope).__name__}. steerlens.scope_named('response') makes one of text."
            )

    def bind(self, window: Window) -> Steer:
        """The steer, limited to the scope's tokens in this pass."""
        if self.scope.over(window):  # and a steer that runs the model to bind need not
            return unchanged
        return masked(bind(self.steer, window), self.scope.where(window))

    def __call__(self, activation: Residual, hook: Hook = None) -> Residual:
        raise ValueError(
            f"Only(..., {self.scope}) depends on positions, which a hook cannot see. Use "
            "generate(...), or steering.hooks(window) / steering.applied(model, window)."
        )


@dataclass(frozen=True, eq=False)
class Chain:
    """Several steers at one site, the first acting first."""

    steers: tuple[Steer, ...]

    def __post_init__(self) -> None:
        require_fields(self)
        if len(self.steers) == 0:
            raise ValueError("Chain(()) holds no steer. Give at least one.")
        for steer in self.steers:
            require_steer(steer, "Chain")

    def bind(self, window: Window) -> "Chain":
        """The chain of the bound steers."""
        return Chain(tuple(bind(steer, window) for steer in self.steers))

    def __call__(self, activation: Residual, hook: Hook = None) -> Residual:
        for steer in self.steers:
            activation = steer(activation, hook)
        return activation


@dataclass(frozen=True, eq=False)
class When:
    """steer(h) on the tokens whose own activation meets `condition`, h elsewhere. Stateless."""

    steer: Steer
    condition: Callable[[Residual], Bool[Tensor, "batch pos"]]

    def __post_init__(self) -> None:
        require_steer(self.steer, "When")
        require_steer(self.condition, "When (as its condition)")

    def bind(self, window: Window) -> "When":
        """The same condition on the bound steer."""
        return When(bind(self.steer, window), self.condition)

    def __call__(self, activation: Residual, hook: Hook = None) -> Residual:
        h, met = activation, self.condition(activation)
        if described(met) != f"{torch.bool} {tuple(h.shape[:2])}":
            raise ValueError(
                f"A condition must return one bool a token, {torch.bool} {tuple(h.shape[:2])}; it "
                f"returned {described(met)}. For a threshold: lambda h: h @ direction > 0."
            )
        return torch.where(met[..., None], steered(self.steer, h, hook), h)
