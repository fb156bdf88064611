"""Where in a sequence: `Window`, which says what one forward pass holds, and the scopes.

A hook sees `[batch, pos, d_model]` of one pass. With a KV cache that is a single token; with left
padding column 0 is no token. So nothing here reads a position off a shape: whoever runs the pass
says in a `Window` which absolute positions it holds. Position 0 is a row's first real token.
"""

import re
from collections.abc import Callable, Hashable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import zip_longest
from typing import Any, SupportsIndex, TypeVar

import numpy as np
import torch
from jaxtyping import Bool, Int
from torch import Tensor

from steerlens.expressions import evaluated
from steerlens.kinds import require_fields, require_kinds
from steerlens.types import HookedModel, Tokens, Where, whole_number

PADDING = -1
AFTER_FIRST = "after_first"
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
    `context`, where it is known, is the run that the pass belongs to; `row`, the numbers of the
    prompts that the rows are, where they are not simply the first ones.
    """

    mask: Where
    first: Int[Tensor, "batch"]
    question: Int[Tensor, "batch"]
    response: Int[Tensor, "batch"]
    bos: Bool[Tensor, "batch"]
    context: Context | None = None
    row: Int[Tensor, "batch"] | None = None

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
        first = self.first + (self.mask.sum(dim=1) if self.padded else self.mask.shape[1])
        ones = torch.ones((self.mask.shape[0], n), dtype=torch.bool, device=self.mask.device)
        following = Window(ones, first, self.question, self.response, self.bos, None, self.row)
        if n == 1:  # known without counting, and wanted for every token that is written
            vars(following).update(positions=first[:, None], padded=False)
        return following

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
            row=None if self.row is None else self.row.to(device),
        )


@dataclass(frozen=True)
class Scope:
    """A named set of token positions, the same set with and without a KV cache.

    Padding is in no scope. BOS is in a scope where its position is (its activation can be 20-30
    times as long as others', so decide): `scope.without_bos` is the same scope without it.
    `a | b` holds what either holds, `a & b` what both hold, `~a` every other real token.
    """

    name: str
    start: int | None = None
    stop: int | None = None
    bos: bool = field(default=True, kw_only=True)

    def __post_init__(self) -> None:
        require_fields(self)
        if self.name not in _RULES:
            raise ValueError(f"Unknown scope {self.name!r}. The scopes are: {', '.join(_RULES)}.")
        if self.name not in ("positions", "last_k") and (self.start, self.stop) != (None, None):
            raise ValueError(
                f"The scope {self.name!r} has no start and stop; {self.name} & positions(2, 5) is "
                "both."
            )
        if self.name == "positions":
            _require_some(self.start, self.stop)
        if self.name == "last_k" and (self.start is None or self.start >= 0 or self.stop):
            raise ValueError("last_k is made by last_k(k), with k at least 1.")

    @property
    def without_bos(self) -> "Scope":
        """The same scope, BOS left out."""
        return replace(self, bos=False)

    def where(self, window: Window) -> Where:
        """True on the tokens of `window` that the scope holds."""
        inside = self.inside(window) & window.mask
        if self.bos:
            return inside
        return inside & ~((window.positions == 0) & window.bos[:, None])

    def inside(self, window: Window) -> Where:
        """`where` before padding, and BOS if that is left out, are taken out."""
        return _RULES[self.name](self, window)

    def over(self, window: Window) -> bool:
        """Whether neither `window` nor any pass after it can hold a token of the scope."""
        stop = window.response if self.name in ("prompt", "last", "last_k") else None
        if self.name == "positions" and self.stop is not None:
            stop = _absolute(self.stop, window)
        return stop is not None and bool((window.first >= stop).all())

    def holds_rest(self, window: Window) -> bool:
        """Whether `window` and every pass after it hold no real token that is not in the scope."""
        starts = {
            "everywhere": window.first,
            "generated": window.response,
            "response": window.response - 1,
            "question_and_response": window.question - 1,
        }
        start = starts.get(self.name)
        if self.name == "positions" and self.stop is None:
            start = _absolute(self.start or 0, window)
        begun = start is not None and bool((window.first >= start).all())
        return begun and (self.bos or not bool((window.bos & (window.first == 0)).any()))

    def __or__(self, other: object) -> "Scope":
        return Combined("|", of=(self, _require_scope(other)))

    def __and__(self, other: object) -> "Scope":
        return Combined("&", of=(self, _require_scope(other)))

    def __invert__(self) -> "Scope":
        return Combined("~", of=(self,))

    def __str__(self) -> str:
        return self.shown if self.bos else f"{self.shown}.without_bos"

    @property
    def shown(self) -> str:
        """The scope as `scope_named` reads it, BOS included."""
        if self.name == "last_k":
            return f"last_k({-(self.start or 0)})"
        if self.name != "positions":
            return self.name
        ends = (self.start, self.stop)
        return AFTER_FIRST if ends == (1, None) else f"positions({ends[0]}, {ends[1]})"


@dataclass(frozen=True)
class Combined(Scope):
    """What the scopes in `of` hold together: either ("|"), both ("&"), or not the one ("~")."""

    of: tuple[Scope, ...] = ()

    def __post_init__(self) -> None:
        needed = {"|": 2, "&": 2, "~": 1}.get(self.name)
        if needed != len(self.of):
            raise ValueError(
                f"{self.name!r} of {len(self.of)} scopes is none: a | b, a & b and ~a are."
            )

    def inside(self, window: Window) -> Where:
        first, *others = (scope.where(window) for scope in self.of)
        if self.name == "~":
            return ~first
        return first | others[0] if self.name == "|" else first & others[0]

    def over(self, window: Window) -> bool:
        if self.name == "~":
            return self.of[0].holds_rest(window)
        return (all if self.name == "|" else any)(scope.over(window) for scope in self.of)

    def holds_rest(self, window: Window) -> bool:
        if not self.bos and bool((window.bos & (window.first == 0)).any()):
            return False
        if self.name == "~":
            return self.of[0].over(window)
        return (any if self.name == "|" else all)(scope.holds_rest(window) for scope in self.of)

    @property
    def shown(self) -> str:
        # A "~" binds more closely than either, and ".without_bos" more closely than a "~".
        inner = [f"({scope})" if scope.name in ("|", "&") else str(scope) for scope in self.of]
        text = f"~{inner[0]}" if self.name == "~" else f" {self.name} ".join(inner)
        return text if self.bos else f"({text})"


@dataclass(frozen=True)
class Listed(Scope):
    """The positions of a list, each from 0 or from the end of the prompt."""

    numbers: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if not self.numbers:
            raise ValueError("positions([]) holds no position. Give at least one.")

    def inside(self, window: Window) -> Where:
        wanted = torch.stack([_absolute(number, window) for number in self.numbers], dim=1)
        return (window.positions[:, :, None] == wanted[:, None]).any(dim=-1)

    def over(self, window: Window) -> bool:
        return all(
            bool((window.first > _absolute(number, window)).all()) for number in self.numbers
        )

    def holds_rest(self, window: Window) -> bool:
        return False

    @property
    def shown(self) -> str:
        return f"positions({list(self.numbers)})"


@dataclass(frozen=True, eq=False)
class Marked(Scope):
    """The tokens that a mask marks: `marks[i, p]` is for position p of prompt i.

    A mask of one row is for every prompt. What comes after its last column is not marked.
    """

    marks: Bool[Tensor, "row pos"] = field(default_factory=lambda: torch.zeros(1, 0).bool())

    def __post_init__(self) -> None:
        if not bool(self.marks.any()):
            raise ValueError("marked(mask): the mask is True nowhere, so it holds no token.")

    def inside(self, window: Window) -> Where:
        marks = self._of_rows(window)
        beyond = window.positions >= marks.shape[1]
        found = marks.gather(1, window.positions.clamp(0, marks.shape[1] - 1))
        return found & ~beyond

    def over(self, window: Window) -> bool:
        marks = self._of_rows(window)
        columns = torch.arange(marks.shape[1], device=marks.device)
        return not bool((marks & (columns >= window.first[:, None])).any())

    def holds_rest(self, window: Window) -> bool:
        return False

    def _of_rows(self, window: Window) -> Bool[Tensor, "batch pos"]:
        """The marks of the rows of a pass; ValueError where the mask is for other texts."""
        marks, batch = self.marks.to(window.mask.device), window.mask.shape[0]
        if len(marks) == 1:
            marks = marks.expand(batch, -1)
        elif window.row is not None and int(window.row.max()) < len(marks):
            marks = marks[window.row]
        elif window.row is not None or batch != len(marks):
            needed = batch if window.row is None else f"{int(window.row.max()) + 1} or more"
            raise ValueError(
                f"The mask marks {len(marks)} prompts, and there are {needed}. Give one row of "
                "marks for each prompt, in their order, or one row for all."
            )
        texts = window.first + window.mask.sum(dim=1)
        columns = torch.arange(marks.shape[1], device=marks.device)
        if bool((marks & (columns >= texts[:, None])).any()):
            raise ValueError(
                f"The mask marks {self.marks.shape[1]} columns, in one of them a token that its "
                "prompt has not. Column p is position p, the first real token being 0: for a mask "
                "with the columns of a padded batch write marked(mask, window), with tokens, "
                "window = steerlens.batch(model, prompts)."
            )
        return marks

    @property
    def shown(self) -> str:
        return f"marked({len(self.marks)} x {self.marks.shape[1]})"


def _position(value: object) -> int:
    number = whole_number(value)
    if number is None:
        raise ValueError(
            f"A position is a whole number, from 0 at the row's first real token or from -1 at the "
            f"last prompt token; found {value!r}."
        )
    return number


def _require_some(start: int | None, stop: int | None) -> None:
    """Raise ValueError if no text has a position from `start` to `stop`."""
    if stop is None:
        return
    same_side = (start or 0) >= 0 if stop >= 0 else start is not None and start < 0
    if stop == 0 or (same_side and stop <= (start or 0)):
        raise ValueError(
            f"positions({start}, {stop}) holds no position: stop must be larger than start."
        )


def _require_scope(other: object) -> Scope:
    if isinstance(other, Scope):
        return other
    raise TypeError(
        f"A scope is joined with a scope: prompt | generated; found {type(other).__name__}. A mask "
        "is a scope by marked(mask), and a list of positions by positions([2, 4, 7])."
    )


def _absolute(number: int, window: Window) -> Int[Tensor, "batch"]:
    """A position of every row, counted from 0; one before the row's first token is below 0."""
    if number < 0:
        return window.response + number
    return torch.full_like(window.response, number)


def _between(scope: Scope, window: Window) -> Where:
    inside = window.positions >= _absolute(scope.start or 0, window)[:, None]
    if scope.stop is None:
        return inside
    return inside & (window.positions < _absolute(scope.stop, window)[:, None])


_RULES: dict[str, Callable[[Scope, Window], Where]] = {
    "everywhere": lambda scope, window: window.mask,
    "prompt": lambda scope, window: window.positions < window.response[:, None],
    "response": lambda scope, window: window.positions >= window.response[:, None] - 1,
    "question_and_response": lambda scope, window: window.positions >= window.question[:, None] - 1,
    "generated": lambda scope, window: window.positions >= window.response[:, None],
    "last": lambda scope, window: window.positions == window.response[:, None] - 1,
    "last_k": lambda scope, window: (
        _between(scope, window) & (window.positions < window.response[:, None])
    ),
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


def positions(start: Any = None, stop: SupportsIndex | None = None) -> Scope:
    """Positions `start` (included) to `stop` (excluded); None leaves that end open.

    Or those of a list: `positions([2, 4, 7])`. They count from 0, the row's first real token, or
    from the end of the prompt: -1 is the last prompt token, whatever follows it. So `positions(-3)`
    is the last three prompt tokens and all that is generated; `last_k(3)` ends with the prompt.
    What a shorter prompt lacks is left out.

    >>> model = sl.load("demo")
    >>> _, window = sl.batch(model, ["The film was long"])
    >>> sl.positions(1, 3).where(window).int()
    tensor([[0, 1, 1, 0, 0]], dtype=torch.int32)
    """
    require_kinds(positions, locals())
    if start is None or whole_number(start) is not None or not hasattr(start, "__iter__"):
        ends = (None if end is None else _position(end) for end in (start, stop))
        return Scope("positions", *ends)
    if stop is not None:
        raise ValueError(
            f"positions({start!r}, {stop}): a list of positions has no stop. Leave one out."
        )
    if getattr(start, "dtype", None) in (torch.bool, np.dtype(bool)):
        raise ValueError("positions(mask): for a mask write marked(mask).")
    return Listed("positions", numbers=tuple(map(_position, start)))


after_first = positions(1)
"""Every token but the first, which most models make a sink, be it a BOS or not.

For methods that set what lies along a direction: what a sink has there, a hundred times what others
have, is no part of the text, and a model from which it is taken breaks (`steerlens.sinks`).
"""


def last_k(k: SupportsIndex) -> Scope:
    """The last `k` prompt tokens; all of a shorter prompt.

    >>> _, window = sl.batch(sl.load("demo"), ["The film was long"])
    >>> sl.last_k(2).where(window).int()
    tensor([[0, 0, 0, 1, 1]], dtype=torch.int32)
    """
    require_kinds(last_k, locals())
    number = whole_number(k)
    if number is None or number < 1:
        raise ValueError(f"last_k(k) holds the last k prompt tokens, 1 or more; found {k!r}.")
    return Scope("last_k", -number)


def marked(mask: Any, window: Window | None = None) -> Scope:
    """The tokens at which `mask` is True: a tensor, array or list of bools, one row a prompt.

    One row alone, [pos], is for every prompt. Column p is position p, 0 being the first real token
    of the prompt; given the `window` of `steerlens.batch`, it is column p of that batch, padding
    included. Rows may be of unequal length. ValueError for a mask of another kind, or True nowhere.
    """
    require_kinds(marked, locals())
    rows = [mask] if _is_row(mask) else list(mask)
    whole = [[_truth(one) for one in row] for row in rows]
    marks = torch.tensor(list(zip_longest(*whole, fillvalue=False)), dtype=torch.bool).T
    if window is not None:
        marks = _moved(marks, window)
    return Marked("marked", marks=marks.contiguous())


def _is_row(mask: Any) -> bool:
    if (
        not hasattr(mask, "__iter__")
        or isinstance(mask, type)
        or getattr(mask, "ndim", 1) not in (1, 2)
    ):
        raise ValueError(
            f"A mask is bools, [pos] or [prompt, pos]; found {getattr(mask, 'shape', mask)!r}."
        )
    return not any(hasattr(row, "__iter__") and getattr(row, "ndim", 1) for row in mask)


def _truth(value: Any) -> bool:
    if isinstance(value, bool) or getattr(value, "dtype", None) in (torch.bool, np.dtype(bool)):
        return bool(value)
    raise ValueError(
        f"A mask holds bools; found {value!r}. Of 0 and 1 they are made by mask.bool(), of "
        "positions a scope by positions([2, 4, 7])."
    )


def _moved(marks: Bool[Tensor, "row col"], window: Window) -> Bool[Tensor, "batch pos"]:
    """Marks of the columns of a batch as marks of positions."""
    if tuple(marks.shape) != tuple(window.mask.shape):
        raise ValueError(
            f"The mask is {list(marks.shape)} and the window {list(window.mask.shape)}. Take both "
            "from one batch."
        )
    places, moved = window.positions.cpu().clamp(min=0), torch.zeros_like(marks)
    for row, (place, mark) in enumerate(zip(places, marks & window.mask.cpu(), strict=True)):
        moved[row, place[mark]] = True
    return moved


NAMED_SCOPES: dict[str, Scope] = {
    scope.name: scope
    for scope in (everywhere, prompt, response, question_and_response, generated, last)
} | {AFTER_FIRST: after_first}


def scope_named(name: str) -> Scope:
    """The scope that `name` writes out: `response`, `positions(2, 5)`, `prompt & ~last_k(3)`."""
    require_kinds(scope_named, locals())
    # An end may be left out, which is no Python.
    text = re.sub(r"positions\(\s*,", "positions(None,", name)
    text = re.sub(r"(positions\([^(),\[]+,)\s*\)", r"\1 None)", text)
    makers = {"positions": _positions_written, "last_k": last_k}
    attributes = {"without_bos": lambda scope: scope.without_bos}
    try:
        return evaluated(text, NAMED_SCOPES, makers, attributes)
    except (SyntaxError, TypeError, UnicodeEncodeError) as error:
        raise ValueError(
            f"Unknown scope {name!r}. Use one of: {', '.join(NAMED_SCOPES)}, positions(START, STOP)"
            ", positions([2, 4, 7]), last_k(K); add .without_bos to leave the BOS token out; join "
            "them by | (either), & (both) and ~ (not)."
        ) from error


def _positions_written(*ends: Any) -> Scope:
    if len(ends) == 2 or (len(ends) == 1 and isinstance(ends[0], list)):
        return positions(*ends)
    raise SyntaxError("a list, or both ends")
