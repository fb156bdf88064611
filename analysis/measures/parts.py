"""Pairs in parts, so that what is held of their activations at a time stays within a limit.

Numbers of each token are kept for all pairs; activations, which are some thousand times as large,
for one part after the other. Within the limit there is one part, and nothing is run twice.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

import torch

from steerlens.prompts import PromptPair
from steerlens.scopes import Scope, generated, response
from steerlens.sites import Site, Sites, as_sites
from steerlens.types import HookedModel, whole_number

from .aligned import Aligned, align
from .plain_side import BY_TEMPLATE, require_baseline, rows_of

MEMORY = 2**28
"""Bytes of activations that a measurement holds at a time, unless it is told another limit."""
RUNS = 4
"""The runs whose activations are held together: plain, prompted, and two of a method or wording."""
FLOAT64 = 8


_limit: ContextVar[int] = ContextVar("memory", default=MEMORY)


@contextmanager
def holding(memory: int) -> Iterator[None]:
    """Inside, measurements hold at most `memory` bytes of activations at a time, or one pair's."""
    require_memory(memory)
    token = _limit.set(memory)
    try:
        yield
    finally:
        _limit.reset(token)


def require_memory(memory: int) -> None:
    """Raise ValueError unless it is a number of bytes."""
    if (whole_number(memory) or 0) < 1:
        raise ValueError(f"memory is a number of bytes, 1 or more; found {memory!r}.")


@dataclass(eq=False)
class Parts:
    """Pairs part by part, each run plain and prompted; a single part is run once and kept."""

    model: HookedModel
    parts: list[Sequence[PromptPair]]
    sites: tuple[Site, ...]
    span: Scope
    baseline: str
    kept: Aligned | None = None

    @classmethod
    def of(
        cls,
        model: HookedModel,
        pairs: Sequence[PromptPair],
        sites: Sites,
        *,
        span: Scope = generated,
        baseline: str = BY_TEMPLATE,
    ) -> "Parts":
        """Parts of as many pairs as fit into the limit, and of one pair at least."""
        require_baseline(baseline)
        places = tuple(as_sites(sites, model))
        sizes = [
            tokens * bytes_a_token(model, len(places))
            for tokens in tokens_of(model, pairs, span, baseline)
        ]
        return cls(model, _within(pairs, sizes, _limit.get()), places, span, baseline)

    def __iter__(self) -> Iterator[Aligned]:
        if self.kept is not None:
            yield self.kept
            return
        for part in self.parts:
            options = {"span": self.span, "baseline": self.baseline}
            aligned = align(self.model, part, self.sites, **options)
            if len(self.parts) == 1:
                self.kept = aligned
            yield aligned

    def numbered(self) -> Iterator[tuple[Aligned, int]]:
        """The parts, each with the number of its first pair."""
        first = 0
        for aligned in self:
            yield aligned, first
            first += len(aligned.plain_rows)


def bytes_a_token(model: HookedModel, sites: int) -> int:
    """What is held of one token at some sites: each run's activations, and one site's in float64.

    Of that one, `joined` and the measures themselves make some copies.
    """
    size = torch.empty(0, dtype=model.cfg.dtype).element_size()
    return model.cfg.d_model * (RUNS * size * sites + 4 * FLOAT64)


def layer_groups(
    model: HookedModel,
    pairs: Sequence[PromptPair],
    sites: Sequence[Site],
    *,
    span: Scope,
    baseline: str,
) -> list[Sequence[Site]]:
    """The sites in groups, each of as many as fit into the limit, and of one at least."""
    require_baseline(baseline)
    tokens = sum(tokens_of(model, pairs, span, baseline))
    most = 1
    while most < len(sites) and tokens * bytes_a_token(model, most + 1) <= _limit.get():
        most += 1
    return [sites[start : start + most] for start in range(0, len(sites), most)]


def tokens_of(
    model: HookedModel, pairs: Sequence[PromptPair], span: Scope, baseline: str
) -> list[int]:
    """The tokens of each pair that are measured, or an upper bound of them."""
    rows = [rows_of(model, pair, baseline)[0] for pair in pairs]
    answers = span in (generated, response)
    return [len(row.ids) - (row.response - 1 if answers else 0) for row in rows]


def _within(
    pairs: Sequence[PromptPair], sizes: Sequence[int], memory: int
) -> list[Sequence[PromptPair]]:
    starts, held = [0], 0
    for number, size in enumerate(sizes):
        if held and held + size > memory:
            starts.append(number)
            held = 0
        held += size
    return [pairs[a:b] for a, b in zip(starts, [*starts[1:], len(pairs)], strict=True)]
