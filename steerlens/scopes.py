"""Where in a sequence: `Window`, which says what one forward pass holds, and the scopes.

A hook sees `[batch, pos, d_model]` of one pass. With a KV cache that is a single token; with left
padding column 0 is no token. So nothing here reads a position off a shape: whoever runs the pass
says in a `Window` which absolute positions it holds. Position 0 is a row's first real token.
"""

from collections.abc import Callable, Hashable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, TypeVar

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from steerlens.types import HookedModel, Tokens, Where

PADDING = -1
Kept = TypeVar("Kept")


@dataclass(frozen=True, eq=False)
class Context:
    """The run that a pass belongs to, for steers that must see more than activations.

    `memory` lasts from pass to pass of one run, `this_pass` for one pass. `alone` is the one steer
    that acts on this pass, or None where there are several or that is not known: only then are the
    activations that it is given those of the unsteered model. `around` are context managers that
    `bind` asks to be open while the pass runs.
    """

    model: HookedModel
    tokens: Tokens
    memory: dict[Hashable, Any] = field(default_factory=dict)
    alone: object = None
    this_pass: dict[Hashable, Any] = field(default_factory=dict)
    around: list[AbstractContextManager[Any]] = field(default_factory=list)

    def remembered(self, key: Hashable, make: Callable[[], Kept]) -> Kept:
        """What this run keeps under `key`, made when it is first asked for."""
        if key not in self.memory:
            self.memory[key] = make()
        return self.memory[key]


@dataclass(frozen=True, eq=False)
class Window:
    """What one forward pass holds, row by row.

    `first` is how many real tokens of the row earlier passes held; `mask` is False on padding;
    `question` is the absolute position of the first token of the user turn; `response` that of the
    first response token (the number of prompt tokens); `bos` says whether position 0 is a BOS.
    `context`, where it is known, is the run that the pass belongs to.
    """

    mask: Where
    first: Int[Tensor, "batch"]
    question: Int[Tensor, "batch"]
    response: Int[Tensor, "batch"]
    bos: Bool[Tensor, "batch"]
    context: Context | None = None

    @classmethod
    def of(
        cls,
        mask: Where,
        *,
        question: Int[Tensor, "batch"] | None = None,
        response: Int[Tensor, "batch"] | None = None,
        bos: bool | Bool[Tensor, "batch"] = False,
    ) -> "Window":
        """The window of a first pass. Without `response`, all its tokens are prompt."""
        batch, device = mask.shape[0], mask.device
        has_bos = torch.full((batch,), bos, device=device) if isinstance(bos, bool) else bos
        return cls(
            mask=mask,
            first=torch.zeros(batch, dtype=torch.long, device=device),
            question=has_bos.long() if question is None else question,
            response=mask.sum(dim=1) if response is None else response,
            bos=has_bos,
        )

    @cached_property
    def positions(self) -> Int[Tensor, "batch pos"]:
        """Absolute position of every column; -1 on padding."""
        counted = self.first[:, None] + self.mask.long().cumsum(dim=1) - 1
        return counted.masked_fill(~self.mask, PADDING)

    @cached_property
    def padded(self) -> bool:
        """Whether any column is padding."""
        return not bool(self.mask.all())

    def next(self, n: int = 1) -> "Window":
        """The window of the following pass, of `n` real tokens in every row."""
        ones = torch.ones((self.mask.shape[0], n), dtype=torch.bool, device=self.mask.device)
        return replace(self, mask=ones, first=self.first + self.mask.sum(dim=1), context=None)

    def extended(self, n: int = 1) -> "Window":
        """The window of the same pass with `n` real tokens more in every row."""
        ones = torch.ones((self.mask.shape[0], n), dtype=torch.bool, device=self.mask.device)
        return replace(self, mask=torch.cat([self.mask, ones], dim=1), context=None)

    def to(self, device: torch.device | str) -> "Window":
        """The same window on another device."""
        known = self.context
        return Window(
            mask=self.mask.to(device),
            first=self.first.to(device),
            question=self.question.to(device),
            response=self.response.to(device),
            bos=self.bos.to(device),
            context=known and replace(known, tokens=known.tokens.to(device)),
        )


@dataclass(frozen=True)
class Scope:
    """A named set of token positions, the same set with and without a KV cache.

    Padding is in no scope. BOS is in a scope where its position is (its activation can be 20-30
    times as long as others', so decide): `scope.without_bos` is the same scope without it.
    """

    name: str
    start: int | None = None
    stop: int | None = None
    bos: bool = field(default=True, kw_only=True)

    def __post_init__(self) -> None:
        if self.name not in _RULES:
            raise ValueError(f"Unknown scope {self.name!r}. The scopes are: {', '.join(_RULES)}.")
        if self.name != "positions":
            return
        for bound in (self.start, self.stop):
            if bound is not None and bound < 0:
                raise ValueError(
                    f"positions({self.start}, {self.stop}): positions are absolute and count from "
                    "0, the row's first real token. For the end of the prompt use `last` or "
                    "`response`."
                )
        if self.stop is not None and self.stop <= (self.start or 0):
            raise ValueError(
                f"positions({self.start}, {self.stop}) holds no position: stop must be larger than "
                "start."
            )

    @property
    def without_bos(self) -> "Scope":
        """The same scope, BOS left out."""
        return replace(self, bos=False)

    def where(self, window: Window) -> Where:
        """True on the tokens of `window` that the scope holds."""
        inside = _RULES[self.name](self, window) & window.mask
        if self.bos:
            return inside
        return inside & ~((window.positions == 0) & window.bos[:, None])

    def over(self, window: Window) -> bool:
        """Whether neither `window` nor any pass after it can hold a token of the scope."""
        ends = {"prompt": window.response, "last": window.response, "positions": self.stop}
        end = ends.get(self.name)
        return end is not None and bool((window.first >= end).all())

    def __str__(self) -> str:
        name = f"positions({self.start}, {self.stop})" if self.name == "positions" else self.name
        return name if self.bos else f"{name}.without_bos"


def _between(scope: Scope, window: Window) -> Where:
    inside = window.positions >= (scope.start or 0)
    return inside if scope.stop is None else inside & (window.positions < scope.stop)


_RULES: dict[str, Callable[[Scope, Window], Where]] = {
    "everywhere": lambda scope, window: window.mask,
    "prompt": lambda scope, window: window.positions < window.response[:, None],
    "response": lambda scope, window: window.positions >= window.response[:, None] - 1,
    "question_and_response": lambda scope, window: window.positions >= window.question[:, None] - 1,
    "generated": lambda scope, window: window.positions >= window.response[:, None],
    "last": lambda scope, window: window.positions == window.response[:, None] - 1,
    "positions": _between,
}

everywhere = Scope("everywhere")
"""Every real token."""
prompt = Scope("prompt")
"""Every prompt token, BOS, system and user turn and template included."""
response = Scope("response")
"""From the last prompt token on: its residual predicts the first response token."""
question_and_response = Scope("question_and_response")
"""From the last token before the user turn (the system turn's last token, or BOS) on.

Where the template puts the system text inside the user turn: from the last token before the
user's words.
"""
generated = Scope("generated")
"""From the first response token on."""
last = Scope("last")
"""The last prompt token alone."""


def positions(start: int | None = None, stop: int | None = None) -> Scope:
    """Absolute positions `start` (included) to `stop` (excluded); None leaves that end open."""
    return Scope("positions", start, stop)


NAMED_SCOPES: dict[str, Scope] = {
    scope.name: scope
    for scope in (everywhere, prompt, response, question_and_response, generated, last)
}


def scope_named(name: str) -> Scope:
    """The scope called `name`: a scope's name, or `positions(2, 5)` written out."""
    stem, _, tail = name.strip().partition(".")
    if stem.startswith("positions(") and stem.endswith(")"):
        bounds = [part.strip() for part in stem[len("positions(") : -1].split(",")]
        try:
            numbers = [None if part in ("", "None") else int(part) for part in bounds]
        except ValueError:
            numbers = []
        if len(numbers) == 2 and tail in ("", "without_bos"):
            return positions(*numbers) if tail != "without_bos" else positions(*numbers).without_bos
    if stem not in NAMED_SCOPES or tail not in ("", "without_bos"):
        raise ValueError(
            f"Unknown scope {name!r}. Use one of: {', '.join(NAMED_SCOPES)}, positions(START, STOP)"
            "; add .without_bos to leave the BOS token out."
        )
    return NAMED_SCOPES[stem] if not tail else NAMED_SCOPES[stem].without_bos
