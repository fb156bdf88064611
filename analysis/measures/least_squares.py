"""The strength at which a steering is nearest the prompt, found on pairs that are not measured."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, TypeAlias, get_args

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from steerlens.checks import require_choice
from steerlens.kinds import require_kinds
from steerlens.prompts import PromptPair
from steerlens.runtime.hooks import Watch, watching
from steerlens.scopes import Scope, generated
from steerlens.sinks import SINK, Kept, require_ordinary, require_times
from steerlens.sites import Site
from steerlens.steering import Steering
from steerlens.types import HookedModel

from .aligned import Aligned
from .deltas import prompt_deltas, steering_deltas
from .entries import LEAST_SQUARES, Entry, as_entries
from .parts import Parts
from .plain_side import BY_TEMPLATE, require_pairs
from .progress import watched

Which = Literal["steered", "last", "site"]
Pushes: TypeAlias = Float[Tensor, "token d_model"]
ENOUGH_TO_SPLIT = 4
MOST_TRIALS = 6
CLOSE = 0.02  # of the strength: what is nearer to one that was tried is not tried again
LARGEST = 1e4


def with_least_squares(
    model: HookedModel,
    steerings: Mapping[str, Steering],
    train_pairs: Sequence[PromptPair],
    *,
    span: Scope = generated,
    layers: Which = "steered",
    baseline: str = BY_TEMPLATE,
    sinks: float = SINK,
) -> list[Entry]:
    """Every steering twice: as fitted, and at the least-squares strength of `train_pairs`."""
    require_kinds(with_least_squares, locals())
    entries = []
    for name, steering in watched(steerings.items(), "least squares", "method"):
        value = least_squares_strength(
            model, steering, train_pairs, span=span, layers=layers, baseline=baseline, sinks=sinks
        )
        entries.append(Entry(name, steering))
        entries.append(Entry(name, steering.scaled(value), LEAST_SQUARES, value))
    return entries


def entries_for(
    model: HookedModel,
    steerings: Mapping[str, Steering],
    train_pairs: Sequence[PromptPair],
    baseline: str = BY_TEMPLATE,
    sinks: float = SINK,
) -> Sequence[Entry]:
    """Every steering as fitted, and, if there are pairs to find it on, at least squares too."""
    entries = as_entries(steerings)
    if not train_pairs:
        return entries
    return with_least_squares(model, steerings, train_pairs, baseline=baseline, sinks=sinks)


def least_squares_strength(
    model: HookedModel,
    steering: Steering,
    pairs: Sequence[PromptPair],
    *,
    span: Scope = generated,
    layers: Which = "steered",
    baseline: str = BY_TEMPLATE,
    sinks: float = SINK,
) -> float:
    """The strength at which the steered run is nearest the prompted one.

    What is least is the sum over layers of relRMSE^2: squared distances on the tokens of `span`
    that are no sinks, over the prompt's own size at that layer. `layers` says over which:
    "steered", from the lowest steered layer up; "last", the last one alone; "site", the lowest
    alone at which the steering changes tokens of the span, its own site if it acts on them.

    Strengths are tried, 0 and 1 first. What to try next follows from taking the change between the
    two last for a straight line (Gauss and Newton's method with a secant for the derivative), then
    from the parabola through the best and the two nearest to it; the best of all is returned.
    ValueError if the steering changes nothing there. Activations beyond the limit of
    `parts.holding` are never held at once: each trial then runs the pairs anew, part by part.
    """
    require_kinds(least_squares_strength, locals())
    require_choice("layers", layers, get_args(Which))
    require_times(sinks)
    places = _sites(model, steering.on(model), layers)
    parts = Parts.of(model, pairs, places, span=span, baseline=baseline)
    distance = Distance(model, steering, parts, sinks)
    return _least(distance.from_first_changed() if layers == "site" else distance)


@dataclass
class Sums:
    """Squared lengths at one site, summed over the tokens that are no sinks.

    `push` is what the prompt does, `missed` what a strength leaves of it, `change` what lies
    between two strengths, `along` the product of the change and what is missed. `changed` is said
    of all tokens.
    """

    push: float = 0.0
    missed: float = 0.0
    change: float = 0.0
    along: float = 0.0
    changed: bool = False
    ordinary: list[Bool[Tensor, "token"]] = field(default_factory=list)

    def add(self, target: Pushes, reached: Pushes, before: Pushes, keep: Kept) -> None:
        """Add some tokens: what the prompt does, and what two strengths do."""
        self.ordinary.append(keep)
        self.push += float(target[keep].square().sum())
        missed, change = reached - target, reached - before
        self.changed = self.changed or bool(change.any())
        self.missed += float(missed[keep].square().sum())
        self.change += float(change[keep].square().sum())
        self.along += float((change * missed)[keep].sum())


@dataclass(frozen=True)
class Distance:
    """How far a steering at some strength is from the prompt: sums over pairs, part by part."""

    model: HookedModel
    steering: Steering
    parts: Parts
    sinks: float
    only: Site | None = None

    def from_first_changed(self) -> "Distance":
        """The same at the lowest site where the steering changes a token; at all where at none."""
        sums = self.by_site(1.0, 0.0)
        changed = (site for site, of_site in sums.items() if of_site.changed)
        return replace(self, only=next(changed, None))

    def __call__(self, strength: float, other: float) -> Sums:
        """Over the sites, each in units of the prompt's own push there."""
        total = Sums()
        for site, sums in self.by_site(strength, other).items():
            # Where the prompt does nothing, as at the first input, there is nothing to be near to.
            if sums.push and self.only in (None, site):
                total.push += 1.0
                for name in ("missed", "change", "along"):
                    more = getattr(sums, name) / sums.push
                    setattr(total, name, getattr(total, name) + more)
        return total

    def by_site(self, strength: float, other: float) -> dict[Site, Sums]:
        """At every site; ValueError where every token is a sink."""
        found = {site: Sums() for site in self.parts.sites}
        with watching() as watch:
            for aligned in self.parts:
                self._add(found, aligned, [self._at(aligned, s, watch) for s in (strength, other)])
        for site, sums in found.items():
            require_ordinary(torch.cat(sums.ordinary), f"tokens at {site}")
        return found

    def _add(
        self, found: Mapping[Site, Sums], aligned: Aligned, two: Sequence[Callable[[Site], Pushes]]
    ) -> None:
        """Add a part at which two strengths were run."""
        target, (reached, before) = prompt_deltas(self.model, aligned), two
        for site, sums in found.items():
            keep = ~aligned.sinks(site, self.sinks)
            sums.add(target[site], reached(site), before(site), keep)

    def _at(self, aligned: Aligned, strength: float, watch: Watch) -> Callable[[Site], Pushes]:
        """What the steering does at a strength; at 0, nothing, which needs no run."""
        if strength == 0:
            return lambda site: torch.zeros_like(aligned.plain.at(site), dtype=torch.float64)
        steering = self.steering.scaled(strength)
        return steering_deltas(self.model, aligned, steering, watch=watch).__getitem__


def _sites(model: HookedModel, steering: Steering, layers: Which) -> list[Site]:
    """Where the distance is measured: outputs of layers, and for "site" the lowest sites too."""
    lowest = min(site.layer for site in steering.sites)
    own = [site for site in steering.sites if site.layer == lowest and layers == "site"]
    first = model.cfg.n_layers - 1 if layers == "last" else lowest
    return list(dict.fromkeys([*own, *(Site(n) for n in range(first, model.cfg.n_layers))]))


def _least(distance: Callable[[float, float], Sums]) -> float:
    """The strength with the least |missed|^2 of those that secants and parabolas lead to.

    `distance` is told a strength, and another from which the change to it is measured.
    """
    best, other, first = 1.0, 0.0, distance(1.0, 0.0)
    require_change(first)
    errors = {1.0: first.missed, 0.0: first.push}
    for _ in range(MOST_TRIALS):
        vertex = _vertex(errors)
        if vertex is None:
            sums = first if other == 0 else distance(best, other)
            vertex = _where_straight(best, other, sums)
        strength = vertex
        nearest = min(errors, key=lambda tried, at=strength: abs(tried - at))
        if abs(strength) > LARGEST or abs(strength - nearest) <= CLOSE * abs(strength):
            break
        errors[strength] = distance(strength, 0.0).missed
        best, other = (strength, best) if errors[strength] <= errors[best] else (best, strength)
    return min(errors, key=lambda tried: (errors[tried], abs(tried)))


def _where_straight(last: float, other: float, sums: Sums) -> float:
    """The strength that would miss least if the change between these two went on as it is."""
    return last if sums.change == 0 else last - (last - other) * sums.along / sums.change


def _vertex(errors: Mapping[float, float]) -> float | None:
    """The lowest point of the parabola through the best strength and the two nearest to it."""
    if len(errors) < 3:
        return None
    best = min(errors, key=errors.__getitem__)
    a, b, c = sorted(sorted(errors, key=lambda tried: abs(tried - best))[:3])
    first, second = (errors[b] - errors[a]) / (b - a), (errors[c] - errors[b]) / (c - b)
    bend = (second - first) / (c - a)
    return (a + b) / 2 - first / (2 * bend) if bend > 0 else None


def require_change(sums: Sums) -> None:
    """Raise ValueError unless the steering changes something."""
    if sums.change == 0:
        raise ValueError(
            "The steering changes no activation of the response tokens at the layers that are "
            "compared, so no strength makes it resemble the prompt. Does its scope meet these "
            "prompts?"
        )


def split_by_question(
    pairs: Sequence[PromptPair],
) -> tuple[Sequence[PromptPair], Sequence[PromptPair]]:
    """Training and test pairs: every second question, with all of its responses.

    >>> pairs = sl.benchmark_set.read("positive").pairs("test")[:8]
    >>> [len(half) for half in analysis.split_by_question(pairs)]
    [4, 4]
    """
    require_kinds(split_by_question, locals())
    require_pairs(pairs)
    questions = list(dict.fromkeys(pair.plain for pair in pairs))
    if len(questions) < ENOUGH_TO_SPLIT:
        return (), pairs
    training = set(questions[1::2])
    train = [pair for pair in pairs if pair.plain in training]
    return train, [pair for pair in pairs if pair.plain not in training]
