"""Activation Addition: two prompts make a matrix, added to the first positions of a third.

Turner et al., "Activation Addition: Steering Language Models Without Optimization",
arXiv 2308.10248, algorithm 1, with h = `resid_pre` of the same layer for reading and writing:

    v  = h(p+) - h(p-)                clean passes, p+ and p- padded to equal length T with spaces
    h' = h + c v                      at positions 0 .. T-1 of the prompt ("front")

v is a [T, d_model] matrix, one vector a position: not averaged, not normalised. Row 0 is the BOS,
and is exactly 0 for a pair. With several additions every v comes from a clean pass: add Steerings.
"""

from dataclasses import dataclass, field
from typing import Literal, get_args

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from steerlens.activations import capture
from steerlens.checks import require_finite
from steerlens.combinators import masked
from steerlens.identity import origin_of
from steerlens.prompts import Encoded, batch, encode, tokenizer_of
from steerlens.saving import saveable
from steerlens.scopes import Window
from steerlens.sites import Site
from steerlens.steering import Steering
from steerlens.types import Hook, HookedModel, Residual, Steer

Alignment = Literal["front", "mid", "back"]
Padding = Literal["space"] | int | None


@saveable
@dataclass(frozen=True, eq=False)
class ActAdd:
    """Add c v at the positions that `alignment` gives v's rows in each prompt.

    "front" is the paper's; "mid" and "back" count within the prompt, so that a cached and a full
    pass agree (the authors' code lets them move with the growing text). `dims` limits the addition
    to residual dimensions [start, stop).
    """

    v: Float[Tensor, "row d_model"] = field(repr=False)
    c: float = 1.0
    alignment: Alignment = "front"
    dims: tuple[int, int] | None = None
    needs_window = True

    def __post_init__(self) -> None:
        require_finite(self.v, "ActAdd's v")
        require_finite(torch.tensor(self.c), "ActAdd's coefficient c")
        if self.alignment not in get_args(Alignment):
            raise ValueError(
                f"Unknown alignment {self.alignment!r}. "
                f"Use one of: {', '.join(get_args(Alignment))}."
            )
        start, stop = self.dims or (0, self.d_model)
        if not 0 <= start < stop <= self.d_model:
            raise ValueError(
                f"dims=({start}, {stop}) is no range of residual dimensions: v has {self.d_model}."
            )

    @property
    def d_model(self) -> int:
        """The width of the residual stream that v belongs to."""
        return self.v.shape[1]

    @classmethod
    def fit(
        cls,
        model: HookedModel,
        positive: str,
        negative: str | None,
        layer: int,
        *,
        c: float = 1.0,
        padding: Padding = "space",
        alignment: Alignment = "front",
        dims: tuple[int, int] | None = None,
    ) -> Steering:
        """The addition of p+ less p-, placed at the input of block `layer`.

        `negative=""` is the usual neutral prompt, padding alone; None adds p+ without subtracting
        anything, BOS row included. `padding` is the model's space token, a token id, or None to
        leave lengths unequal, in which case the longer prompt's tail stands alone.
        """
        site = Site(layer, "resid_pre")
        rows = [_content(model, text) for text in (positive, negative) if text is not None]
        if padding is not None:
            filler = space_token(model) if padding == "space" else padding
            rows = _padded(rows, filler)
        clean = capture(model, rows, site)
        sides = [clean.of(number, site) for number in range(len(rows))]
        v = sides[0].new_zeros(max(len(side) for side in sides), sides[0].shape[1])
        for side, sign in zip(sides, (1, -1), strict=False):
            v[: len(side)] += sign * side
        origin = origin_of(model, data=[clean.tokens])
        return Steering(((site, cls(v, c, alignment, dims)),), origin)

    def bind(self, window: Window) -> Steer:
        """The addition laid out on the positions of one pass."""
        n, rows = window.response, self.v.shape[0]
        if bool((n < rows).any()):
            raise ValueError(
                f"ActAdd's v covers {rows} positions, but a prompt has only {int(n.min())} tokens. "
                "Use a longer prompt or shorter contrast prompts."
            )
        row = window.positions - self._start(n)[:, None]
        return Laid.out(self, row, (row >= 0) & (row < rows) & window.mask)

    def _start(self, n: Int[Tensor, "batch"]) -> Int[Tensor, "batch"]:
        rows = self.v.shape[0]
        return {"front": 0 * n, "mid": n // 2 - rows // 2, "back": n - rows}[self.alignment]

    def __call__(self, activation: Residual, hook: Hook = None) -> Residual:
        raise ValueError(
            "ActAdd adds another vector at every position, and a hook cannot see positions. Use "
            "generate(...), or steering.hooks(window) / steering.applied(model, window)."
        )


@dataclass(frozen=True, eq=False)
class Laid:
    """c v laid out on one pass: `v` is its row at every covered column, anything elsewhere."""

    v: Float[Tensor, "batch pos d_model"]
    c: float

    @classmethod
    def out(
        cls, of: ActAdd, row: Int[Tensor, "batch pos"], covered: Bool[Tensor, "batch pos"]
    ) -> Steer:
        """`of`, its row number `row` at every column; columns not covered stay as they are."""
        rows = of.v.to(row.device)[row.clamp(0, of.v.shape[0] - 1)]
        if of.dims is not None:
            inside = torch.zeros(of.d_model, dtype=torch.bool, device=row.device)
            inside[slice(*of.dims)] = True
            rows = rows * inside
        return masked(cls(rows, of.c), covered)

    def __call__(self, activation: Residual, hook: Hook = None) -> Residual:
        h, c, v = activation, self.c, self.v.to(activation)
        return h + c * v


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
