"""Teacher-forced passes over a few rows that begin at the lowest steered layer, where they can.

Below the lowest site of a steering nothing differs from the unsteered pass. So that pass keeps its
residual stream there, and every steered pass goes on from it. Whether a model can be entered in the
middle is tried, not assumed: a model may hand more from layer to layer than the residual stream.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import pad

from steerlens.identity import device_of
from steerlens.prompts import Encoded, stack
from steerlens.runtime.forward import logits, logits_from, logits_where
from steerlens.runtime.hooks import Run, Watch, running
from steerlens.runtime.turns import hooked
from steerlens.scopes import Window
from steerlens.sites import Site
from steerlens.steering import Steering
from steerlens.types import Hook, HookedModel, Residual, Tokens, Where

from .row_strengths import repeated

Kept = dict[Site, Tensor]
"""Activations by site: of whole rows, or of the response tokens alone."""
APART = 1e-4
"""What rounding may change when a pass is entered: the largest root mean square difference of a
position's logits, as a share of their spread; in half precision 4 times its own rounding. SmolLM2
has 4e-7 in float32."""


@dataclass(frozen=True, eq=False)
class Batch:
    """A few rows with a response, padded on the right, and where it is and is predicted."""

    tokens: Tokens
    window: Window
    answered: Where

    @classmethod
    def of(cls, model: HookedModel, rows: Sequence[Encoded], chosen: Sequence[int]) -> "Batch":
        """The chosen rows, on the model's device."""
        tokens, window = stack([rows[i] for i in chosen], side="right")
        window = replace(window, row=torch.tensor(list(chosen)))
        tokens, window = tokens.to(device_of(model)), window.to(device_of(model))
        return cls(tokens, window, window.mask & (window.positions >= window.response[:, None]))

    @property
    def predicting(self) -> Where:
        """The tokens before those of the response."""
        return pad(self.answered[:, 1:], (0, 1))

    @property
    def ids(self) -> Tensor:
        """The response tokens, row by row."""
        return self.tokens[self.answered]

    def times(self, n: int) -> "Batch":
        """The same rows n times, one part after the other."""
        tokens, window = repeated(self.tokens, self.window, n)
        return Batch(tokens, window, self.answered.repeat(n, 1))


@dataclass(frozen=True)
class Entry:
    """Where passes of a steering begin: the last `site` of the unsteered pass, and the block above.

    Steers at an output of a block are applied `by_hand`, so that this block need not run either.
    """

    site: Site
    layer: int
    by_hand: bool

    @classmethod
    def of(cls, sites: Iterable[Site]) -> "Entry":
        """That of a steering at these sites."""
        layer = min(site.layer for site in sites)
        streams = {site.stream for site in sites if site.layer == layer}
        if streams == {"resid_post"}:
            return cls(Site(layer), layer + 1, by_hand=True)
        return cls(Site(layer, "resid_pre"), layer, by_hand=False)


@dataclass(frozen=True, eq=False)
class Seen:
    """The logits at the tokens before those of the response, and the activations that were kept."""

    logits: Float[Tensor, "token d_vocab"]
    held: Kept


@torch.no_grad()
def whole_pass(model: HookedModel, batch: Batch, sites: Iterable[Site]) -> Seen:
    """The unsteered pass; the activations at the sites are those of whole rows."""
    return _passed(model, batch, lambda: logits(model, batch.tokens, batch.window), sites, None)


@torch.no_grad()
def steered_pass(
    model: HookedModel,
    batch: Batch,
    steering: Steering,
    residual: tuple[Entry, Residual] | None,
    sites: Sequence[Site],
    watch: Watch,
) -> Seen:
    """A pass under `steering`, whose activations are those of the response tokens.

    With `residual`, what the unsteered pass had at the entry, it begins there. `batch` may be those
    rows several times.
    """
    with running(model, steering, watch, lasting=False) as run:
        assert run is not None
        run.plan(batch.tokens, batch.window)
        # What a steer wants open around the pass counts on a pass from the bottom.
        if residual is None or run.around:
            run.attach()
            full = partial(logits, model, batch.tokens, batch.window)
            seen = _passed(model, batch, full, sites, batch.answered)
        else:
            seen = _entered(model, batch, run, residual, sites)
        run.require_reached()
    return seen


def _entered(
    model: HookedModel,
    batch: Batch,
    run: Run,
    residual: tuple[Entry, Residual],
    sites: Sequence[Site],
) -> Seen:
    entry, h = residual
    h = h.repeat(len(batch.tokens) // len(h), 1, 1)
    held: Kept = {}
    if entry.by_hand:
        for place in run.placed:
            h = place.hook(h) if place.site == entry.site else h
        held = {entry.site: h[batch.answered]} if entry.site in sites else {}
    run.attach()
    above = [site for site in sites if site not in held]
    enter = partial(logits_from, model, h, entry.layer, batch.tokens, batch.window)
    seen = _passed(model, batch, enter, above, batch.answered)
    return Seen(seen.logits, {**held, **seen.held})


def _passed(
    model: HookedModel,
    batch: Batch,
    run: Callable[[], Tensor],
    sites: Iterable[Site],
    inside: Where | None,
) -> Seen:
    """What a pass predicts, and what it has at the sites, on the tokens of `inside` or on all."""
    held: Kept = {}

    def keep(site: Site, activation: Residual, hook: Hook = None) -> None:
        # A copy in either case: a later layer may write into it.
        held[site] = activation.clone() if inside is None else activation[inside]

    hooks = [site.hook(partial(keep, site)) for site in dict.fromkeys(sites)]
    with hooked(model, hooks):
        scores = logits_where(model, run, batch.predicting)
    return Seen(scores, held)


@dataclass(eq=False)
class Entrances:
    """Whether a model can be entered at a place, tried once for each on two rows.

    `refused` says of each entry where passes are whole ones instead why they are.
    """

    model: HookedModel
    batch: Batch
    tried: dict[Entry, str | None] = field(default_factory=dict)

    @classmethod
    def of(cls, model: HookedModel, rows: Sequence[Encoded]) -> "Entrances":
        """Tried on the shortest and on the longest row, so that one of them is padded."""
        order = sorted(range(len(rows)), key=lambda i: len(rows[i].ids))
        return cls(model, Batch.of(model, rows, list(dict.fromkeys([order[0], order[-1]]))))

    def open(self, entry: Entry) -> bool:
        """Whether a pass that begins there is the same as a whole one."""
        if entry.layer == 0:
            return False  # the first block's input: nothing is below it but the embedding
        if entry not in self.tried:
            self.tried[entry] = self._why_not(entry)
        return self.tried[entry] is None

    @property
    def refused(self) -> Mapping[str, str]:
        """By entry, why passes that could begin there do not."""
        return {f"{e.site}": why for e, why in self.tried.items() if why is not None}

    @torch.no_grad()
    def _why_not(self, entry: Entry) -> str | None:
        batch = self.batch
        whole = whole_pass(self.model, batch, [entry.site])
        enter = partial(
            logits_from, self.model, whole.held[entry.site], entry.layer, batch.tokens, batch.window
        )
        try:
            found = _passed(self.model, batch, enter, [], batch.answered).logits
        except Exception as error:  # a model that cannot be entered says so in its own way
            return f"{type(error).__name__}: {error}"
        apart, most = _apart(found, whole.logits), max(APART, 4 * _rounding(found))
        return None if apart <= most else f"its logits then differ by {apart:.2g} of their spread"


def _rounding(scores: Tensor) -> float:
    return float(torch.finfo(scores.dtype).eps)


def _apart(found: Float[Tensor, "token d_vocab"], whole: Float[Tensor, "token d_vocab"]) -> float:
    """The largest root mean square difference of a position, as a share of the logits' spread."""
    ours, theirs = (
        (x := side.cpu().double()) - x.mean(dim=-1, keepdim=True) for side in (found, whole)
    )
    return float((ours - theirs).square().mean(dim=-1).sqrt().max() / theirs.std().clamp(min=1e-6))
