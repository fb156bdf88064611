"""The strength at which a steering is nearest the prompt, found on pairs that are not measured."""

from collections.abc import Callable, Mapping, Sequence

import torch

from steerlens.prompts import PromptPair
from steerlens.scopes import Scope, generated
from steerlens.sites import Site
from steerlens.steering import Steering
from steerlens.types import HookedModel

from .aligned import Aligned, align
from .deltas import prompt_deltas, steering_deltas
from .entries import LEAST_SQUARES, Entry, as_entries

GRID = tuple(sign * 2.0**power for sign in (-1, 1) for power in range(-3, 4))
ENOUGH_TO_SPLIT = 4


def with_least_squares(
    model: HookedModel,
    steerings: Mapping[str, Steering],
    train_pairs: Sequence[PromptPair],
    *,
    span: Scope = generated,
) -> list[Entry]:
    """Every steering twice: as fitted, and at the least-squares strength of `train_pairs`."""
    entries = []
    for name, steering in steerings.items():
        value = least_squares_strength(model, steering, train_pairs, span=span)
        entries.append(Entry(name, steering))
        entries.append(Entry(name, steering.scaled(value), LEAST_SQUARES, value))
    return entries


def entries_for(
    model: HookedModel,
    steerings: Mapping[str, Steering],
    train_pairs: Sequence[PromptPair],
) -> Sequence[Entry]:
    """Every steering as fitted, and, if there are pairs to find it on, at least squares too."""
    entries = as_entries(steerings)
    return with_least_squares(model, steerings, train_pairs) if train_pairs else entries


def least_squares_strength(
    model: HookedModel,
    steering: Steering,
    pairs: Sequence[PromptPair],
    *,
    span: Scope = generated,
) -> float:
    """The strength whose delta is nearest the prompt's, where the steering first meets the span.

    That is its own site if it acts on the span itself, where the delta is strength times the delta
    at 1 and the answer is a division. A method such as ActAdd, which acts on the prompt's first
    tokens, reaches the response through attention above its site, and not in proportion; there
    the strength is the best of a grid of powers of two, refined by a parabola.
    """
    steering = steering.on(model)
    lowest = min(site.layer for site in steering.sites)
    own = [site for site in steering.sites if site.layer == lowest]
    for site in (*own, *(Site(layer) for layer in range(lowest, model.cfg.n_layers))):
        aligned = align(model, pairs, [site], span=span)
        target = prompt_deltas(model, aligned)[site]
        delta = steering_deltas(model, aligned, steering)[site]
        if not bool(delta.any()):
            continue
        if site in own:
            return float((delta * target).sum() / (delta * delta).sum())
        return _best_of_grid(
            lambda s, a=aligned, at=site: _squared_error(model, a, steering, s, at)
        )
    raise ValueError(
        "The steering changes no activation of the response tokens at any layer, so no strength "
        "makes it resemble the prompt. Does its scope meet these prompts?"
    )


def _squared_error(
    model: HookedModel, aligned: Aligned, steering: Steering, strength: float, site: Site
) -> float:
    target = prompt_deltas(model, aligned)[site]
    delta = steering_deltas(model, aligned, steering.scaled(strength))[site]
    return float(torch.sum((delta - target).square()))


def _best_of_grid(error: Callable[[float], float]) -> float:
    points = sorted((0.0, *GRID))
    errors = [error(point) for point in points]
    best = min(range(len(points)), key=errors.__getitem__)
    if best in (0, len(points) - 1):
        return points[best]
    (a, b, c), (fa, fb, fc) = points[best - 1 : best + 2], errors[best - 1 : best + 2]
    top = (b - a) ** 2 * (fb - fc) - (b - c) ** 2 * (fb - fa)
    bottom = (b - a) * (fb - fc) - (b - c) * (fb - fa)
    vertex = b if bottom == 0 else b - top / (2 * bottom)
    return vertex if error(vertex) < errors[best] else points[best]


def split_by_question(
    pairs: Sequence[PromptPair],
) -> tuple[Sequence[PromptPair], Sequence[PromptPair]]:
    """Training and test pairs: every second question, with all of its responses."""
    questions = list(dict.fromkeys(pair.plain for pair in pairs))
    if len(questions) < ENOUGH_TO_SPLIT:
        return (), pairs
    training = set(questions[1::2])
    train = [pair for pair in pairs if pair.plain in training]
    return train, [pair for pair in pairs if pair.plain not in training]
