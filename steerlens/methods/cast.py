"""Conditional activation steering: a steer that acts on a text if its prompt meets a condition.

Lee et al., "Programming Refusal with Conditional Activation Steering", arXiv 2409.05907, section 3:

    s  = cos( m, c )         m the mean over the prompt's tokens of unit( h ), at one layer
    h' = h + f v             f = 1 where s > threshold (or <, as found), else 0

c is the first principal direction of pairs of prompts that should meet the condition and prompts
that should not, the layer, the threshold and its side those that tell other such prompts apart best
(F1). So it is a `When` that is decided once a prompt, and holds for all that is written after it.

It acts from the last prompt token on: before that the prompt has not been read. Any steer can be
made conditional: `CAST.conditional(steering, condition)`.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias, get_args

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from steerlens.activations import capture
from steerlens.checks import require_choice, require_steer, require_two_sides
from steerlens.combinators import bind
from steerlens.directions.checks import (
    require_apart_from,
    require_condition_below,
    require_pairs_of_prompts,
    require_pairs_to_search,
    require_read_before,
    require_run,
)
from steerlens.directions.means import principal_direction
from steerlens.directions.thresholds import best_threshold
from steerlens.kinds import require_kinds
from steerlens.methods.caa import CAA
from steerlens.precision import wide
from steerlens.prompts import Encoded, Prompts, encode_all
from steerlens.saving import digest_of
from steerlens.scopes import Scope, Window, prompt
from steerlens.sinks import SINK
from steerlens.sites import Site, Sites, as_sites, require_layer
from steerlens.steering import Steering
from steerlens.steers import steer
from steerlens.training.fit import Fit
from steerlens.types import Direction, Hook, HookedModel, Residual, Steer, Where

Similarity = Literal["cosine", "projected"]
READ = prompt.without_bos
"""The tokens that a condition is read from."""


@steer
class PromptCondition:
    """Whether a prompt's mean activation at `read_at` is like c: above the threshold, or below.

    Placed at that site it reads each pass and changes nothing; a `CAST` with the same condition
    acts on the rows that met it. `similarity` is the cosine, or the authors' "projected", the
    cosine of m and tanh of its projection on c, which has no sign.
    """

    c: Direction
    threshold: float
    read_at: Site
    above: bool = True
    similarity: Similarity = "cosine"
    needs_window = True
    needs_run = True
    may_be_idle = True
    reads_rows = True
    reads_only = True

    def __post_init__(self) -> None:
        require_choice("similarity", self.similarity, get_args(Similarity))

    @classmethod
    def fit(
        cls,
        model: HookedModel,
        prompts: tuple[Prompts, Prompts],
        sites: Sites,
        *,
        similarity: Similarity = "cosine",
    ) -> "tuple[PromptCondition, float]":
        """The best condition at one of `sites` from prompts that should meet it and prompts not.

        c is found on every second pair, and site, threshold and side on the others: those with the
        highest F1, and of several the widest gap, in standard deviations. Returns the F1 on these
        others too.
        """
        require_kinds(PromptCondition.fit, locals())
        require_two_sides(prompts, "PromptCondition")
        rows = [_prompts_of(encode_all(model, side)) for side in prompts]
        require_pairs_of_prompts(rows[0], rows[1], "PromptCondition")
        require_pairs_to_search(len(rows[0]))
        places = as_sites(sites, model)
        seen = [capture(model, side, places, scope=READ) for side in rows]
        found: list[tuple[float, float, PromptCondition]] = []
        for site in places:
            met, other = (_means(s.at(site), s.row, len(rows[0])) for s in seen)
            c = principal_direction(met[0::2], other[0::2], "pair")
            at = cls(c, 0.0, site, similarity=similarity)
            values = at.similarities(met[1::2]), at.similarities(other[1::2])
            f1, gap, threshold, above = best_threshold(*values)
            spread = float(torch.cat(values).std().clamp(min=1e-12))
            found.append((f1, gap / spread, cls(c, threshold, site, above, similarity)))
        f1, _, best = max(found, key=lambda one: one[:2])
        require_apart_from(f1, len(rows[0]))
        return best, f1

    def similarities(self, m: Float[Tensor, "row d_model"]) -> Float[Tensor, " row"]:
        """How similar the mean activation of each prompt is to c."""
        c = self.c.to(m)
        if self.similarity == "projected":
            return torch.cosine_similarity(m, torch.tanh((m @ c / (c @ c))[:, None] * c), dim=-1)
        return torch.cosine_similarity(m, c[None], dim=-1)

    def met(self, m: Float[Tensor, "row d_model"]) -> Bool[Tensor, " row"]:
        """Whether a prompt with this mean activation meets the condition."""
        s = self.similarities(m)
        return s > self.threshold if self.above else s < self.threshold

    def seen(self, window: Window) -> "Seen":
        """What the run of this pass has read so far."""
        require_run(window.context, "CAST")
        assert window.context is not None
        return window.context.remembered((PromptCondition, digest_of(self)), Seen)

    def bind(self, window: Window) -> "Reading":
        """The reading of one pass."""
        return Reading(self, self.seen(window), window)

    def __call__(self, activation: Residual, hook: Hook = None) -> Residual:
        raise ValueError(
            "A PromptCondition must see which tokens are the prompt. Use generate(...) or "
            "capture(...), or steering.applied(model, window) with a window of batch(...)."
        )


Sums: TypeAlias = tuple[Float[Tensor, "batch d_model"], Int[Tensor, " batch"]]


@dataclass(eq=False, repr=False)
class Seen:
    """What a run has read: the sum of the unit activations of each prompt, and who met it."""

    sums: Float[Tensor, "batch d_model"] | None = None
    counts: Int[Tensor, " batch"] | None = None
    earlier: Sums | None = None
    """Sums and counts of the passes before that of `window`."""
    met: Bool[Tensor, " batch"] | None = None
    window: Window | None = None


@dataclass(frozen=True, eq=False, repr=False)
class Reading:
    """Reads the prompt's tokens of one pass, and returns what it was given."""

    condition: PromptCondition
    seen: Seen
    window: Window
    sees_all = True

    def __call__(self, activation: Residual, hook: Hook = None) -> Residual:
        seen, inside, begun = self.seen, READ.where(self.window), self.window.first == 0
        h = _unit_rows(wide(activation)) * inside[..., None]
        sums, counts = h.sum(dim=1), inside.sum(dim=1)
        if seen.window is not self.window:  # else it is there for another steering too
            read = None if seen.sums is None or seen.counts is None else (seen.sums, seen.counts)
            seen.earlier, seen.window = read, self.window
        if seen.earlier is not None and not bool(begun.all()):
            sums = sums + torch.where(begun[:, None], 0.0, seen.earlier[0])
            counts = counts + torch.where(begun, 0, seen.earlier[1])
        seen.sums, seen.counts = sums, counts
        seen.met = self.condition.met(sums / counts.clamp(min=1)[:, None])
        return activation


@steer
class CAST:
    """`steer`, from the last prompt token on, on the rows whose prompt met the condition."""

    steer: Steer
    condition: PromptCondition
    needs_window = True
    needs_run = True
    may_be_idle = True

    def __post_init__(self) -> None:
        require_steer(self.steer, "CAST")

    @classmethod
    def fit(
        cls,
        model: HookedModel,
        prompts: tuple[Prompts, Prompts],
        sites: Sites,
        *,
        condition: tuple[Prompts, Prompts],
        condition_sites: Sites | None = None,
        similarity: Similarity = "cosine",
        read: Scope | None = None,
        sinks: float = SINK,
    ) -> "Fit[CAST]":
        """Fit what is done from (positive, negative) prompts as CAA does, and when it is done.

        `condition` are prompts at which it should act, and prompts at which it should not, in
        pairs. `condition_sites` are where such prompts may be told apart; unless given the outputs
        of all blocks up to the lowest of `sites`. `similarity` is "cosine", or the authors'
        "projected". `read` and `sinks` are for what is done, as in CAA.
        """
        require_kinds(CAST.fit, locals())
        require_two_sides(condition, "CAST")
        places = as_sites(sites, model)
        for site in places:
            require_layer(model, site)
        below = range(min(site.layer for site in places) + 1)
        candidates = as_sites(below if condition_sites is None else condition_sites, model)
        require_condition_below(candidates, places)
        when, f1 = PromptCondition.fit(model, condition, candidates, similarity=similarity)
        fit = CAA.fit(model, prompts, places, read=read, sinks=sinks)
        steers: dict[Site, CAST] = {site: cls(caa, when) for site, caa in fit.steers.items()}
        placed = ((when.read_at, when), *steers.items())
        side = "above" if when.above else "below"
        name = f"CAST, where {when.read_at} is {side} {when.threshold:.3g} (F1 {f1:.2f})"
        return Fit(Steering(placed, fit.steering.origin), steers, name=name, sinks=fit.sinks)

    @classmethod
    def conditional(cls, steering: Steering, condition: PromptCondition) -> Steering:
        """Any steering, on the rows whose prompt meets the condition."""
        require_kinds(CAST.conditional, locals())
        require_condition_below([condition.read_at], steering.sites)
        placed = tuple((site, cls(steer, condition)) for site, steer in steering.placed)
        return Steering(((condition.read_at, condition), *placed), steering.origin)

    def bind(self, window: Window) -> "Gated":
        """The steer on the rows and tokens of one pass."""
        inside = window.positions >= window.response[:, None] - 1
        return Gated(bind(self.steer, window), self.condition.seen(window), window, inside)

    def __call__(self, activation: Residual, hook: Hook = None) -> Residual:
        raise ValueError(
            "CAST must see which tokens are the prompt. Use generate(...) or capture(...), or "
            "steering.applied(model, window) with a window of batch(...)."
        )


@dataclass(frozen=True, eq=False, repr=False)
class Gated:
    """A bound steer where the condition that this pass, or an earlier one, has read is met."""

    steer: Steer
    seen: Seen
    window: Window
    inside: Where

    def __call__(self, activation: Residual, hook: Hook = None) -> Residual:
        require_read_before(self.seen.window is self.window)
        h, met = activation, self.seen.met
        assert met is not None
        return torch.where((met[:, None] & self.inside)[..., None], self.steer(h, hook), h)


def _prompts_of(rows: Iterable[Encoded]) -> list[Encoded]:
    """The rows without their responses, which a condition does not look at."""
    return [replace(row, ids=row.prompt_ids) for row in rows]


def _means(
    h: Float[Tensor, "token d_model"], row: Int[Tensor, " token"], rows: int
) -> Float[Tensor, "row d_model"]:
    """The mean over each row's tokens of the unit activations."""
    one: Any = _unit_rows(wide(h))
    sums = torch.zeros((rows, h.shape[1]), dtype=one.dtype).index_add(0, row, one)
    return sums / torch.bincount(row, minlength=rows).clamp(min=1)[:, None]


def _unit_rows(h: Float[Tensor, "*token d_model"]) -> Float[Tensor, "*token d_model"]:
    """Every vector at length 1; one of length 0 as it is."""
    return h / h.norm(dim=-1, keepdim=True).clamp(min=torch.finfo(h.dtype).tiny)
