"""Activation Addition: two prompts make a matrix, added to the first positions of a third.

Turner et al., "Activation Addition: Steering Language Models Without Optimization",
arXiv 2308.10248, algorithm 1, with h = `resid_pre` of the same layer for reading and writing:

    v  = h(p+) - h(p-)                clean passes, p+ and p- padded to equal length T with spaces
    h' = h + c v                      at positions 0 .. T-1 of the prompt ("front")

v is a [T, d_model] matrix, one vector a position: not averaged, not normalised. Row 0 is the BOS,
and is exactly 0 for a pair. With several additions every v comes from a clean pass: add Steerings.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

import torch
from jaxtyping import Float, Int
from torch import Tensor

from steerlens.activations import capture
from steerlens.checks import require_choice, require_texts, require_two_sides
from steerlens.combinators import masked
from steerlens.forms import Laid
from steerlens.kinds import require_kinds
from steerlens.precision import wide
from steerlens.prompts import Encoded, encode, tokenizer_of
from steerlens.scopes import Window
from steerlens.sites import Site, Sites, as_site, as_sites
from steerlens.steers import steer
from steerlens.training.fit import Fit
from steerlens.types import Hook, HookedModel, Residual, Steer

Alignment = Literal["front", "mid", "back"]
Padding = Literal["space"] | int | None
Rows = Float[Tensor, "row d_model"]


@steer
class ActAdd:
    """Add c v at the positions that `alignment` gives v's rows in each prompt.

    "front" is the paper's; "mid" and "back" count within the prompt, so that a cached and a full
    pass agree (the authors' code lets them move with the growing text). `dims` limits the addition
    to residual dimensions [start, stop).
    """

    v: Rows
    c: float = 1.0
    alignment: Alignment = "front"
    dims: tuple[int, int] | None = None
    needs_window = True

    def __post_init__(self) -> None:
        require_choice("alignment", self.alignment, get_args(Alignment))
        _require_dims(self.dims, self.v.shape[1])

    @property
    def form(self) -> Laid | None:
        """For other tools: rows laid on the first positions, where they begin at the front."""
        if self.alignment != "front":
            return None
        v = torch.zeros_like(wide(self.v))
        kept = slice(*self.dims) if self.dims is not None else slice(None)
        v[:, kept] = self.c * wide(self.v)[:, kept]
        return Laid(v)

    @classmethod
    def from_activations(
        cls,
        positive: Rows,
        negative: Float[Tensor, "other d_model"] | None = None,
        *,
        c: float = 1.0,
        alignment: Alignment = "front",
        dims: tuple[int, int] | None = None,
    ) -> "ActAdd":
        """V of activations row by row; of the longer side the tail stands alone."""
        require_kinds(ActAdd.from_activations, locals())
        sides = [positive] if negative is None else [positive, -negative]
        v = positive.new_zeros(max(len(side) for side in sides), positive.shape[1])
        for side in sides:
            v[: len(side)] += side
        return cls(v, c, alignment, dims)

    @classmethod
    def fit(
        cls,
        model: HookedModel,
        prompts: tuple[str, str | None],
        sites: Sites,
        *,
        c: float = 1.0,
        padding: Padding = "space",
        alignment: Alignment = "front",
        dims: tuple[int, int] | None = None,
    ) -> "Fit[ActAdd]":
        """The addition of p+ less p-, at the input of each block (a bare layer is its `resid_pre`).

        `negative=""` is the usual neutral prompt, padding alone; None adds p+ without subtracting
        anything, BOS row included. `padding` is the model's space token, a token id, or None to
        leave lengths unequal, in which case the longer prompt's tail stands alone.
        """
        require_kinds(ActAdd.fit, locals())
        places = block_inputs(sites, model)
        _require_padding(padding)
        require_two_sides(prompts, "ActAdd")
        require_texts(prompts, "ActAdd")
        rows = [_content(model, text) for text in prompts if text is not None]
        if padding is not None:
            rows = _padded(rows, space_token(model) if padding == "space" else padding)
        clean = capture(model, rows, places)
        steers: dict[Site, ActAdd] = {}
        _require_unlike(rows, prompts)
        for site in places:
            sides = [clean.of(number, site) for number in range(len(rows))]
            steers[site] = cls.from_activations(*sides, c=c, alignment=alignment, dims=dims)
        return Fit.of(model, steers, [clean.tokens])

    def bind(self, window: Window) -> Steer:
        """The addition laid out on the positions of one pass."""
        n, rows = window.response, self.v.shape[0]
        _require_long_enough(n, rows)
        start = {"front": 0 * n, "mid": n // 2 - rows // 2, "back": n - rows}[self.alignment]
        row = window.positions - start[:, None]
        return masked(self._at(row), (row >= 0) & (row < rows) & window.mask)

    def _at(self, row: Int[Tensor, "batch pos"]) -> "AddEach":
        """The addition with row number `row` of v at every column."""
        v = self.v.to(row.device)[row.clamp(0, self.v.shape[0] - 1)]
        if self.dims is not None:
            inside = torch.zeros(self.v.shape[1], dtype=torch.bool, device=row.device)
            inside[slice(*self.dims)] = True
            v = v * inside
        return AddEach(v, self.c)

    def __call__(self, activation: Residual, hook: Hook = None) -> Residual:
        raise ValueError(
            "ActAdd adds another vector at every position, and a hook cannot see positions. Use "
            "generate(...), or steering.hooks(window) / steering.applied(model, window)."
        )


@dataclass(frozen=True, eq=False, repr=False)
class AddEach:
    """Add c v for one pass: `v` has a vector for every column. What `ActAdd` binds to."""

    v: Float[Tensor, "batch pos d_model"]
    c: float

    def __call__(self, activation: Residual, hook: Hook = None) -> Residual:
        h, c, v = activation, self.c, self.v.to(activation)
        return h + c * v


def block_inputs(sites: Sites, model: HookedModel) -> tuple[Site, ...]:
    """The sites, a bare layer as the input of its block."""
    # A number of NumPy or torch without axes says that it can be iterated, and cannot.
    several = isinstance(sites, Iterable) and getattr(sites, "ndim", 1)
    listed: Any = sites if several else [sites]
    inputs = [w if isinstance(w, Site) else replace(as_site(w), stream="resid_pre") for w in listed]
    return as_sites(inputs, model)


def space_token(model: HookedModel) -> int:
    """The id of the model's single-token space; ValueError if it has none."""
    tokenizer = tokenizer_of(model)
    for piece in ("Ġ", "▁", " "):
        token = tokenizer.convert_tokens_to_ids(piece)
        if token is not None and token != tokenizer.unk_token_id:
            return token
    raise ValueError(
        "This tokenizer has no single token for a space, which ActAdd pads with. Pass the id of a "
        "neutral token: padding=model.tokenizer.encode('.')[0]."
    )


def _content(model: HookedModel, text: str) -> Encoded:
    if text:
        return encode(model, text)
    bos = tokenizer_of(model).bos_token_id
    if bos is None:
        raise ValueError("The empty prompt needs a BOS token, which this model lacks. Use ' '.")
    return Encoded((bos,), question=1, response=1, bos=True)


def _padded(rows: list[Encoded], filler: int) -> list[Encoded]:
    """Both prompts at equal length, the filler an ordinary, attended token."""
    length = max(len(row.ids) for row in rows)
    return [
        Encoded(row.ids + (filler,) * (length - len(row.ids)), row.question, length, row.bos)
        for row in rows
    ]


def _require_padding(padding: object) -> None:
    """Raise ValueError unless the padding is the space, a token, or none."""
    if isinstance(padding, str) and padding != "space":
        raise ValueError(
            f"padding is 'space', a token id, or None; found {padding!r}. Of a text the id is "
            "model.tokenizer.encode(text)[0]."
        )


def _require_unlike(rows: list[Encoded], prompts: tuple[str, str | None]) -> None:
    """Raise ValueError where both prompts are the same tokens, and their difference is 0."""
    if len(rows) == 2 and rows[0].ids == rows[1].ids:
        raise ValueError(
            f"Both prompts are the same tokens ({prompts[0]!r} and {prompts[1]!r}), so there is "
            "nothing to add. Give prompts that differ by more than spaces at their end."
        )


def _require_dims(dims: tuple[int, int] | None, d_model: int) -> None:
    """Raise ValueError unless `dims` is a range of the residual dimensions."""
    start, stop = dims or (0, d_model)
    if not 0 <= start < stop <= d_model:
        raise ValueError(
            f"dims=({start}, {stop}) is no range of residual dimensions: v has {d_model}."
        )


def _require_long_enough(n: Int[Tensor, "batch"], rows: int) -> None:
    """Raise ValueError if a prompt has fewer tokens than v has rows."""
    if bool((n < rows).any()):
        raise ValueError(
            f"ActAdd's v covers {rows} positions, but a prompt has only {int(n.min())} tokens. "
            "Use a longer prompt or shorter contrast prompts."
        )
