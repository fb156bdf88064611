"""The strength at which a steering is nearest the prompt, found on pairs that are not measured."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from steerlens.checks import require_choice
from steerlens.prompts import PromptPair
from steerlens.scopes import Scope, generated
from steerlens.sinks import SINK, require_ordinary, require_times
from steerlens.sites import Site
from steerlens.steering import Steering
from steerlens.types import HookedModel

from .aligned import Aligned, align
from .deltas import Deltas, prompt_deltas, steering_deltas
from .entries import LEAST_SQUARES, Entry, as_entries
from .plain_side import BY_TEMPLATE, require_pairs
from .progress import watched

Which = Literal["steered", "last", "site"]
Pushes: TypeAlias = Float[Tensor, "_ d_model"]
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
    ValueError if the steering changes nothing there.
    """
    require_choice("layers", layers, get_args(Which))
    require_times(sinks)
    aligned = align(
        model, pairs, _sites(model, steering.on(model), layers), span=span, baseline=baseline
    )
    prompt = Push.of(aligned, model, sinks)
    if layers == "site":
        prompt = prompt.at(_first_changed(model, aligned, steering))
    return _least(lambda strength: prompt.missed(model, steering, strength))


@dataclass(frozen=True, eq=False)
class Push:
    """What the prompt does at some layers, each of the same size: what a steering is to do."""

    aligned: Aligned
    scales: dict[Site, Float[Tensor, "token 1"]]
    target: Pushes

    @classmethod
    def of(cls, aligned: Aligned, model: HookedModel, sinks: float) -> "Push":
        """The prompt's deltas over their size at each layer; 0 at tokens that are sinks."""
        deltas, scales = prompt_deltas(model, aligned), dict[Site, Tensor]()
        for site in aligned.sites:
            keep = ~aligned.sinks(site, sinks)
            require_ordinary(keep, f"tokens at {site}")
            size = float(deltas[site][keep].norm())
            # Where the prompt does nothing, as at the first input, there is nothing to be near to.
            scales[site] = (keep.double() / size if size else torch.zeros(len(keep)))[:, None]
        return cls(aligned, scales, _scaled(deltas, scales))

    def at(self, site: Site) -> "Push":
        """The same at one of the sites alone."""
        start = list(self.scales).index(site) * len(self.aligned.example)
        target = self.target[start : start + len(self.aligned.example)]
        return Push(self.aligned, {site: self.scales[site]}, target)

    def missed(self, model: HookedModel, steering: Steering, strength: float) -> Pushes:
        """The steering's deltas at a strength, scaled as the prompt's, less the prompt's."""
        if strength == 0:
            return -self.target
        deltas = steering_deltas(model, self.aligned, steering.scaled(strength))
        return _scaled(deltas, self.scales) - self.target


def _scaled(deltas: Deltas, scales: dict[Site, Float[Tensor, "token 1"]]) -> Pushes:
    return torch.cat([deltas[site] * scale for site, scale in scales.items()]).float()


def _sites(model: HookedModel, steering: Steering, layers: Which) -> list[Site]:
    """Where the distance is measured: outputs of layers, and for "site" the lowest sites too."""
    lowest = min(site.layer for site in steering.sites)
    own = [site for site in steering.sites if site.layer == lowest and layers == "site"]
    first = model.cfg.n_layers - 1 if layers == "last" else lowest
    return list(dict.fromkeys([*own, *(Site(n) for n in range(first, model.cfg.n_layers))]))


def _first_changed(model: HookedModel, aligned: Aligned, steering: Steering) -> Site:
    """The lowest site where the steering changes a token of the span; the lowest where none is."""
    deltas = steering_deltas(model, aligned, steering)
    return next((site for site in aligned.sites if bool(deltas[site].any())), aligned.sites[0])


def _least(missed: Callable[[float], Pushes]) -> float:
    """The strength with the least |missed|^2 of those that secants and parabolas lead to."""
    best, other = (1.0, missed(1.0)), (0.0, missed(0.0))
    require_change(best[1] - other[1])
    errors = {strength: _square(left) for strength, left in (best, other)}
    for _ in range(MOST_TRIALS):
        vertex = _vertex(errors)
        strength = _where_straight(best, other) if vertex is None else vertex
        nearest = min(errors, key=lambda tried: abs(tried - strength))
        if abs(strength) > LARGEST or abs(strength - nearest) <= CLOSE * abs(strength):
            break
        found = (strength, missed(strength))
        errors[strength] = _square(found[1])
        best, other = (found, best) if errors[strength] <= errors[best[0]] else (best, found)
    return min(errors, key=lambda tried: (errors[tried], abs(tried)))


def _square(left: Pushes) -> float:
    return float(left.double().square().sum())


def _where_straight(last: tuple[float, Pushes], other: tuple[float, Pushes]) -> float:
    """The strength that would miss least if the change between these two went on as it is."""
    (s, left), (s_other, left_other) = last, other
    slope = (left - left_other) / (s - s_other)
    steepness = _square(slope)
    return s if steepness == 0 else s - float((slope.double() * left).sum()) / steepness


def _vertex(errors: Mapping[float, float]) -> float | None:
    """The lowest point of the parabola through the best strength and the two nearest to it."""
    if len(errors) < 3:
        return None
    best = min(errors, key=errors.__getitem__)
    a, b, c = sorted(sorted(errors, key=lambda tried: abs(tried - best))[:3])
    first, second = (errors[b] - errors[a]) / (b - a), (errors[c] - errors[b]) / (c - b)
    bend = (second - first) / (c - a)
    return (a + b) / 2 - first / (2 * bend) if bend > 0 else None


def require_change(change: Pushes) -> None:
    """Raise ValueError unless the steering changes something."""
    if not bool(change.any()):
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
    require_pairs(pairs)
    questions = list(dict.fromkeys(pair.plain for pair in pairs))
    if len(questions) < ENOUGH_TO_SPLIT:
        return (), pairs
    training = set(questions[1::2])
    train = [pair for pair in pairs if pair.plain in training]
    return train, [pair for pair in pairs if pair.plain not in training]
