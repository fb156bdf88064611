"""The logit lens: which words a direction, or what a steering changed, would make likelier.

nostalgebraist, "interpreting GPT: the logit lens" (2020): the model's final norm and unembedding
are put on an activation of any layer.

    lens(v) = U( N(v) ) - U( N(0) )                      of a direction v, whatever its length
    lens    = mean_t [ U( N(h'_t) ) - U( N(h_t) ) ]      of a change, h' with and h without it

N is the final norm and U the unembedding, biases and caps included. What a vector does on its way
through the layers above is not in it: late layers are read truly, early ones roughly.
"""

from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from typing import Any, TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor

from steerlens.activations import capture
from steerlens.combinators import parts
from steerlens.identity import device_of
from steerlens.kinds import require_kinds
from steerlens.pieces import pieces
from steerlens.precision import wide
from steerlens.prompts import Prompts, encode_all
from steerlens.runtime.forward import logits_from
from steerlens.runtime.turns import in_turn
from steerlens.scopes import Scope, Window, last
from steerlens.sinks import SINK
from steerlens.sites import Layer, Site, Sites, as_sites, by_site, require_layer, width_of
from steerlens.steering import Steering
from steerlens.steers import as_vectors
from steerlens.types import HookedModel, VectorLike, whole_number

TOP, ROWS = 10, 64
Directions: TypeAlias = "VectorLike | Mapping[Site, VectorLike] | Mapping[Layer, VectorLike]"


def lens(what: "Directions | Steering | Any", model: HookedModel, *, top: int = TOP) -> Any:
    """The words that a direction points to and away from, as a tidy pandas table.

    `what` is a vector [d_model], several by site or layer, a steering or a fit, of which the
    directions of each steer are read, or a direction of `contrast_directions`. Columns: layer and
    stream (None for a bare vector), name, side ("up" or "down"), rank (from 1), token, id, score
    (the logit less the mean over the vocabulary). ValueError where no direction of this width is
    in it.

    >>> model = sl.load("demo")
    >>> table = sl.lens(sl.CAA.fit(model, (["I loved it"], ["I hated it"]), 5), model, top=3)
    >>> table.groupby("side").size().to_dict()
    {'down': 3, 'up': 3}
    """
    require_kinds(lens, locals())
    _require_top(top)
    found = list(_directions(what, model))
    if not found:
        raise ValueError(
            f"{type(what).__name__} holds no direction of {model.cfg.d_model} numbers. Give a "
            "vector, or lens_of_change(steering, model, prompts) for what a steering does."
        )
    tables = []
    for site, name, v in found:
        if not bool(torch.isfinite(v).all() and v.any()):
            raise ValueError(
                f"The {name} at {site} is 0, or holds NaN or infinity, so it points to no words. "
                "Leave it out, or find what made it."
            )
        both = torch.stack([wide(v), torch.zeros_like(wide(v))])
        scores = _unembedded(model, both)
        tables += _rows(model, scores[0] - scores[1], site, name, top)
    return _table(tables)


def lens_of_change(
    steering: Steering,
    model: HookedModel,
    prompts: Prompts,
    *,
    layers: Sites | None = None,
    scope: Scope = last,
    top: int = TOP,
) -> Any:
    """The words that a steering makes likelier and unlikelier at the end of each layer, as `lens`.

    Over the tokens of `scope` of all prompts, those left out that are sinks without the steering:
    the mean of their logits with it less the mean without. `layers` are all unless given. The name
    is "change"; a layer below the lowest steered one has scores of 0.
    """
    require_kinds(lens_of_change, locals())
    _require_top(top)
    sites = as_sites(range(model.cfg.n_layers) if layers is None else layers, model)
    rows = encode_all(model, prompts)
    plain = capture(model, rows, sites, scope=scope)
    steered = capture(model, rows, sites, scope=scope, steering=steering)
    tables = []
    for site in sites:
        keep = ~plain.sinks(site, SINK)
        keep = keep if bool(keep.any()) else ~keep
        scores = [_mean(model, wide(seen.at(site)[keep])) for seen in (steered, plain)]
        tables += _rows(model, scores[0] - scores[1], site, "change", top)
    return _table(tables)


@torch.no_grad()
def _unembedded(
    model: HookedModel, h: Float[Tensor, "row d_model"]
) -> Float[Tensor, "row d_vocab"]:
    """The logits of activations as if each were the end of the last block."""
    device = device_of(model)
    tokens = torch.zeros((len(h), 1), dtype=torch.long, device=device)
    window = Window.of(torch.ones_like(tokens, dtype=torch.bool))
    entering = h.to(device, model.cfg.dtype)[:, None]
    return logits_from(model, entering, model.cfg.n_layers, tokens, window)[:, 0].double().cpu()


def _mean(model: HookedModel, h: Float[Tensor, "row d_model"]) -> Float[Tensor, " d_vocab"]:
    chunks = [_unembedded(model, some) for some in h.split(ROWS)]
    return torch.stack([chunk.sum(dim=0) for chunk in chunks]).sum(dim=0) / len(h)


def _directions(what: Any, model: HookedModel) -> Iterator[tuple[Site | None, str, Tensor]]:
    """The site, the name and the vector of every direction in it."""
    if isinstance(what, Mapping):
        for site, one in by_site(what, model).items():
            yield from ((site, name, v) for _, name, v in _directions(one, model))
        return
    placed = getattr(getattr(what, "steering", what), "placed", None)
    if placed is not None:
        for site, steer in placed:
            require_layer(model, site)
            yield from ((site.on(model), name, v) for _, name, v in _directions(steer, model))
        return
    if is_dataclass(what) and not isinstance(what, type):
        for part in parts(what):
            yield from ((None, name, v) for name, v in _of_part(part, model))
        return
    if callable(what) and not isinstance(what, Tensor):
        return  # a steer that is a plain function
    vectors = torch.atleast_2d(as_vectors(what, n_axes=1))
    if vectors.shape[-1] == model.cfg.d_model and vectors.ndim == 2:
        yield from ((None, "direction", v) for v in vectors)


def _of_part(part: object, model: HookedModel) -> Iterator[tuple[str, Tensor]]:
    """The fields of a steer that are directions of this model: [d_model], or rows of them."""
    if not is_dataclass(part):
        return
    for item in fields(part):
        value, width = getattr(part, item.name), width_of(model, Site(0))
        if not isinstance(value, Tensor) or value.ndim not in (1, 2) or value.shape[-1] != width:
            continue
        name = f"{type(part).__name__}.{item.name}"
        for number, v in enumerate(torch.atleast_2d(value)):
            if bool(v.any()):
                yield (name if value.ndim == 1 else f"{name}[{number}]"), v


def _rows(
    model: HookedModel, scores: Float[Tensor, " d_vocab"], site: Site | None, name: str, top: int
) -> list[dict[str, Any]]:
    """The highest and the lowest of the scores."""
    # Some models have more logits than words.
    scores = (scores - scores.mean())[: len(model.tokenizer)]
    order = scores.argsort(descending=True, stable=True)
    sides = {"up": order[:top], "down": order.flip(0)[:top]}
    place = {"layer": site and site.layer, "stream": site and site.stream, "name": name}
    with in_turn(model):
        words = {
            number: pieces(model.tokenizer, [number])[0]
            for ids in sides.values()
            for number in ids.tolist()
        }
    return [
        {
            **place, "side": side, "rank": rank, "token": words[number], "id": number,
            "score": float(scores[number]),
        }
        for side, ids in sides.items()
        for rank, number in enumerate(ids.tolist(), start=1)
    ]  # fmt: skip


def _table(rows: list[dict[str, Any]]) -> Any:
    import pandas as pd

    return pd.DataFrame(rows)


def _require_top(top: int) -> None:
    if (whole_number(top) or 0) < 1:
        raise ValueError(f"top is how many words there are on either side, 1 or more; found {top}.")
