"""One steer at several strengths in one pass: the same rows once for each strength."""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Int
from torch import Tensor

from steerlens.checks import require_steer
from steerlens.combinators import Only, bind, parts, positional, steered
from steerlens.scopes import Scope, Window
from steerlens.steering import Steering
from steerlens.types import Hook, Residual, Steer, Tokens


@dataclass(frozen=True, eq=False)
class RowStrengths:
    """h + s (steer(h) - h), as `Scaled` is, with a strength s for each part of the rows.

    The rows of a pass are the same texts once for each strength, one part after the other
    (`repeated`). A steer that depends on positions, or on the tokens, is bound to one part, and
    acts on each of them: what it works out for a text is worked out once.
    """

    steer: Steer
    strengths: tuple[float, ...]
    needs_window = True

    def __post_init__(self) -> None:
        require_steer(self.steer, "RowStrengths")

    @property
    def may_be_idle(self) -> bool:
        """Whether no strength but 0 was asked for."""
        return not any(self.strengths)

    def bind(self, window: Window) -> "BoundRowStrengths":
        """The same strengths on the steer as it is bound to one part of the rows."""
        if not positional(self.steer):
            return BoundRowStrengths(self.steer, self.strengths, by_part=False)
        part = _first_rows(window, len(window.mask) // len(self.strengths))
        return BoundRowStrengths(bind(self.steer, part), self.strengths, by_part=True)

    def __call__(self, activation: Residual, hook: Hook = None) -> Residual:
        raise ValueError("RowStrengths needs the window of its pass: bind it first.")


@dataclass(frozen=True, eq=False)
class BoundRowStrengths:
    """The strengths for one pass; `by_part` where the steer is bound to the rows of one part."""

    steer: Steer
    strengths: tuple[float, ...]
    by_part: bool

    def __call__(self, activation: Residual, hook: Hook = None) -> Residual:
        h, n = activation, len(self.strengths)
        pieces = h.chunk(n) if self.by_part else (h,)
        moved = torch.cat([steered(self.steer, piece, hook) for piece in pieces])
        # As one number is taken by `Scaled`: in float32 at least, whatever the activation is in.
        wide = torch.promote_types(h.dtype, torch.float32)
        s = torch.tensor(self.strengths, dtype=wide, device=h.device)
        weight = s.repeat_interleave(len(h) // n)[:, None, None]
        return torch.lerp(h.to(wide), moved.to(wide), weight).to(h.dtype)


def runs_alone(steering: Steering) -> bool:
    """Whether a steer of it reads the rows of a pass for others: then no strength may share it."""
    inside = (part for _, steer in steering.placed for part in parts(steer))
    return any(getattr(part, "reads_rows", False) for part in inside)


def at_strengths(
    steering: Steering, strengths: tuple[float, ...], scope: Scope | None = None
) -> Steering:
    """What `steering.scaled(s).only(scope)` is for one strength, for several at once."""
    placed = [(site, RowStrengths(steer, strengths)) for site, steer in steering.placed]
    limited = [(site, s if scope is None else Only(s, scope)) for site, s in placed]
    return replace(steering, placed=tuple(limited))


def repeated(tokens: Tokens, window: Window, n: int) -> tuple[Int[Tensor, "several pos"], Window]:
    """The rows n times, one part after the other."""
    rows = window.row
    return tokens.repeat(n, 1), replace(
        window,
        mask=window.mask.repeat(n, 1),
        first=window.first.repeat(n),
        question=window.question.repeat(n),
        response=window.response.repeat(n),
        bos=window.bos.repeat(n),
        row=None if rows is None else rows.repeat(n),
    )


def _first_rows(window: Window, n: int) -> Window:
    if n == len(window.mask):
        return window
    context, rows = window.context, window.row
    return replace(
        window,
        mask=window.mask[:n],
        first=window.first[:n],
        question=window.question[:n],
        response=window.response[:n],
        bos=window.bos[:n],
        context=context and replace(context, tokens=context.tokens[:n]),
        row=None if rows is None else rows[:n],
    )
