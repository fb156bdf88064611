"""The constant that is nearest to a steering, and how far the two are apart on given texts.

On the texts, with everything steered, each steer pushes each token by d_t. The constant nearest to
these pushes in squared distance is their mean, over the tokens that it pushes at all: other tools
add it everywhere.

    v = mean_{t: d_t != 0} d_t

How far it is from the steering is the mean KL(steered || constant) over the tokens of the
responses, in nats, beside the KL(steered || unsteered) of leaving it out.
"""

from dataclasses import dataclass, field, replace

import torch
from jaxtyping import Float
from torch import Tensor

from steerlens.combinators import bind
from steerlens.divergence import chunks, divergence, log_probabilities
from steerlens.generation import generate
from steerlens.interchange.difference import Difference
from steerlens.interchange.request import ExportError
from steerlens.methods.caa import CAA
from steerlens.precision import wide_dtype
from steerlens.prompts import Encoded, Prompts, encode_all, with_response
from steerlens.runtime.hooks import Watch
from steerlens.scopes import Window
from steerlens.steering import Steering
from steerlens.types import Hook, HookedModel, Residual, Steer, Where

WRITTEN = 24
"""Tokens that the model writes, steered, to a prompt that has no response."""


def nearest_constant(
    model: HookedModel, steering: Steering, texts: Prompts
) -> tuple[Steering, Difference]:
    """The steering that adds the mean push at each site everywhere, and what that changes.

    Prompts without a response are continued by the steered model, greedily. ExportError where the
    steering pushes no token of the texts.
    """
    rows = _answered(model, steering, texts)
    pushes: list[_Pushes] = [_Pushes() for _ in steering.placed]
    noting = replace(
        steering,
        placed=tuple(
            (site, _Noting(steer, seen))
            for (site, steer), seen in zip(steering.placed, pushes, strict=True)
        ),
    )
    for chosen in chunks(len(rows)):
        log_probabilities(model, rows, chosen, noting, Watch())
    placed = tuple(
        (site, CAA(seen.mean().to(wide_dtype(model))))
        for (site, _), seen in zip(steering.placed, pushes, strict=True)
        if seen.n
    )
    if not placed:
        raise ExportError(
            "The steering pushes no token of these texts, so no constant is near to it. Give texts "
            "that it acts on."
        )
    nearest = Steering(placed, steering.origin)
    return nearest, _difference(model, rows, steering, nearest)


def _difference(
    model: HookedModel, rows: list[Encoded], steering: Steering, nearest: Steering
) -> Difference:
    """How far the two are apart; the distributions of a few rows are held at a time."""
    kls: list[list[Tensor]] = []
    for chosen in chunks(len(rows)):
        steered, *others = (
            log_probabilities(model, rows, chosen, change, Watch())
            for change in (steering, nearest, None)
        )
        kls.append([divergence(steered, other) for other in others])
    kl, kl_of_nothing = (torch.cat(side) for side in zip(*kls, strict=True))
    return Difference(float(kl.mean()), float(kl.max()), float(kl_of_nothing.mean()), len(kl))


def _answered(model: HookedModel, steering: Steering, texts: Prompts) -> list[Encoded]:
    """The texts as rows with a response each."""
    rows = encode_all(model, texts)
    unanswered = [number for number, row in enumerate(rows) if row.response == len(row.ids)]
    if unanswered:
        asked = [rows[number] for number in unanswered]
        made = generate(model, asked, steering, max_new_tokens=WRITTEN, temperature=0.0)
        for number, text in zip(unanswered, made.texts, strict=True):
            if text.strip():
                rows[number] = with_response(model, rows[number], text)
    answered = [row for row in rows if row.response < len(row.ids)]
    if not answered:
        raise ExportError(
            "The steered model writes nothing to these texts, so nothing can be measured on them. "
            "Give texts with responses."
        )
    return answered


@dataclass(eq=False)
class _Pushes:
    """The sum of the pushes of one steer, and how many tokens it pushed."""

    n: int = 0
    total: Float[Tensor, " d_model"] | None = field(default=None, repr=False)

    def add(self, pushes: Float[Tensor, "token d_model"]) -> None:
        pushed = pushes[(pushes != 0).any(dim=-1)]
        self.n += len(pushed)
        summed = pushed.sum(dim=0).cpu()
        self.total = summed if self.total is None else self.total + summed

    def mean(self) -> Float[Tensor, " d_model"]:
        assert self.total is not None
        return self.total / self.n


@dataclass(frozen=True, eq=False)
class _Noting:
    """A steer that notes how far it pushes each token."""

    steer: Steer
    seen: _Pushes = field(repr=False)
    needs_window = True
    may_be_idle = True

    @property
    def needs_run(self) -> bool:
        return bool(getattr(self.steer, "needs_run", False))

    def bind(self, window: Window) -> "_BoundNoting":
        """The same for one pass."""
        return _BoundNoting(bind(self.steer, window), window.mask, self.seen)

    def __call__(self, activation: Residual, hook: Hook = None) -> Residual:
        raise ValueError("A steer that notes its pushes needs the window of its pass.")


@dataclass(frozen=True, eq=False)
class _BoundNoting:
    """The steer of one pass, which knows what is padding."""

    steer: Steer
    mask: Where
    seen: _Pushes = field(repr=False)

    def __call__(self, activation: Residual, hook: Hook = None) -> Residual:
        steered = self.steer(activation, hook)
        self.seen.add((steered.double() - activation.double())[self.mask])
        return steered
