"""Pairs of prompts as rows of tokens, and which of their tokens are steered: their *spans*."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Int
from torch import Tensor

from steerlens.prompts import Encoded, PromptPair, encode_pair, show, stack
from steerlens.scopes import Scope, Window
from steerlens.training.checks import require_steered
from steerlens.types import HookedModel, Tokens, Where


@dataclass(frozen=True, eq=False)
class Examples:
    """Every pair's plain and prompted row, and the positions of the plain one's span."""

    plain: list[Encoded]
    prompted: list[Encoded]
    spans: list[Int[Tensor, " _"]]

    @classmethod
    def of(
        cls, model: HookedModel, pairs: Sequence[PromptPair], scope: Scope, *, aligned: bool
    ) -> "Examples":
        """The pairs on the tokens of `scope`; if `aligned`, both rows must hold the same there."""
        both = [encode_pair(model, pair) for pair in pairs]
        if aligned:
            spans = [aligned_span(model, *rows, scope, i) for i, rows in enumerate(both)]
        else:
            spans = [span_of(plain, scope, i) for i, (plain, _) in enumerate(both)]
            require_steered(spans, scope)
        return cls([plain for plain, _ in both], [prompted for _, prompted in both], spans)

    @property
    def both(self) -> list[tuple[Encoded, Encoded]]:
        """The (plain, prompted) rows."""
        return list(zip(self.plain, self.prompted, strict=True))

    def batch(self, chosen: Sequence[int], device: torch.device) -> tuple[Tokens, Window, Where]:
        """The chosen plain rows, padded on the right, and which of their tokens are steered."""
        tokens, window = stack([self.plain[i] for i in chosen], side="right")
        window = replace(window, row=torch.tensor(list(chosen))).to(device)
        steered = torch.zeros_like(window.mask)
        for number, i in enumerate(chosen):
            steered[number, self.spans[i]] = True
        return tokens.to(device), window, steered


def span_of(row: Encoded, scope: Scope, number: int = 0) -> Int[Tensor, " span"]:
    """The positions in the scope of a row, which has this number among all."""
    _, window = stack([row])
    window = replace(window, row=torch.tensor([number]))
    return torch.nonzero(scope.where(window)[0])[:, 0]


def aligned_span(
    model: HookedModel, plain: Encoded, prompted: Encoded, scope: Scope, number: int = 0
) -> Int[Tensor, " span"]:
    """The plain row's positions in the scope, checked to hold the tokens that the prompted has."""
    span, other_span = (span_of(row, scope, number) for row in (plain, prompted))
    left = [plain.ids[int(i)] for i in span]
    right = [prompted.ids[int(i)] for i in other_span]
    # The first token of the span may be the instruction's own last one: no token is the same there.
    if len(left) == len(right) > 0 and _alike(model, left[1:], right[1:]):
        return span
    raise ValueError(
        f"On `{scope}` the plain run holds {show(model, left)} and the prompted run "
        f"{show(model, right)}: they must be the same tokens. Where the instruction stands in the "
        "user turn use the surface R."
    )


def _alike(model: HookedModel, left: Sequence[int], right: Sequence[int]) -> bool:
    """Whether both are the same tokens, but for a space that is joined to the first word of one."""
    if list(left[1:]) != list(right[1:]):
        return False
    first, second = (show(model, ids[:1]) for ids in (left, right))
    one, other = sorted(("".join(words).strip() for words in (first, second)), key=len)
    return other.endswith(one)
