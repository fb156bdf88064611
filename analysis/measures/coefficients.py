"""The per-token coefficients of prompt steering and of every method, on the same tokens.

For a change delta of the activation h of one token, and one vector v per site,

    along         = <delta, v> / <v, v>            1 where the change is the mean prompt push
    off_axis      = |delta - along v|
    norm          = |delta|
    relative_norm = |delta| / |h|                  h of the plain run
    rank1_share   = <delta, v>^2 / (|delta|^2 |v|^2)

v is shared by all methods of a table and is never fitted on the example that it measures: by
default it is the mean accumulated prompt delta over the span's tokens of the other examples. Tokens
that are sinks in either run (`steerlens.sinks`) have no part in v, and are marked in the table.
Nothing here asks a method: every number is measured from activations.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from typing import get_args

import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from steerlens.kinds import require_kinds
from steerlens.prompts import PromptPair, Prompts, show
from steerlens.runtime.hooks import Watch, watching
from steerlens.scopes import Scope, everywhere, generated
from steerlens.sinks import SINK, require_ordinary, require_times
from steerlens.sites import Layer, Site, Sites, by_site
from steerlens.steering import Steering
from steerlens.types import Direction, HookedModel

from .aligned import Aligned, alone
from .deltas import Deltas, View, prompt_deltas, steering_deltas
from .entries import Entry, as_entries
from .mean_push import Push, push_of_others, pushes_of, require_others
from .parts import Parts
from .plain_side import BY_TEMPLATE, noted
from .progress import watched

MEAN_PUSH, GIVEN = "mean prompt push", "the given direction"
OWN_AXIS = "length 1 along the steering's main direction"
"""What an `along` of 1 is: the column `unit`, which a file and a concatenation keep."""


def coefficients(
    model: HookedModel,
    pairs: Sequence[PromptPair],
    sites: Sites,
    steerings: Mapping[str, Steering] | Sequence[Entry],
    direction: Mapping[Site, Direction] | Mapping[Layer, Direction] | None = None,
    view: View = "accumulated",
    *,
    span: Scope = generated,
    baseline: str = BY_TEMPLATE,
    sinks: float = SINK,
) -> pd.DataFrame:
    """One row per example, token, site and method; prompt steering is the method "prompt".

    Columns: example, token_index, token, layer, stream, method, strength, strength_value, view,
    along, off_axis, norm, relative_norm, rank1_share, sink, unit (what an `along` of 1 is). Prompt
    and methods are comparable in the accumulated view; the local view says what each adds at its
    own site. `baseline` is the plain side: "template", "none", "neutral", or an instruction
    (`measures.plain_side`). `sink` marks tokens whose norm is above `sinks` times the median in
    either run. Activations beyond the limit of `parts.holding` are never held at once.
    The table itself takes some 170 bytes a row.
    """
    require_kinds(coefficients, locals())
    if view not in get_args(View):
        raise ValueError(f"Unknown view {view!r}. Use one of: {', '.join(get_args(View))}.")
    require_times(sinks)
    if direction is None:
        require_others(len(pairs))
    parts = Parts.of(model, pairs, sites, span=span, baseline=baseline)
    vectors = None if direction is None else _vectors(model, parts.sites, direction)
    totals = pushes_of(model, parts, sinks) if vectors is None else None
    unit = MEAN_PUSH if direction is None else GIVEN
    entries = [Entry("prompt", None, "", float("nan")), *as_entries(steerings)]
    found: dict[tuple[str, Site], list[pd.DataFrame]] = {}
    with ExitStack() as stack:
        watches = [stack.enter_context(watching()) for _ in entries]
        for aligned, first in parts.numbered():
            axes = _axes(model, aligned, vectors, totals, sinks)
            texts = show(model, aligned.plain.tokens.tolist())
            methods = list(zip(entries, watches, strict=True))
            for entry, watch in watched(methods, "methods", "method"):
                deltas = _deltas(model, aligned, entry.steering, view, watch)
                for site in aligned.sites:
                    rows = _rows(aligned, texts, entry, site, deltas, axes(site))
                    rows["example"] += first
                    left_out = aligned.sinks(site, sinks).numpy()
                    rows = rows.assign(view=view, sink=left_out, unit=unit)
                    found.setdefault((entry.key, site), []).append(rows)
    tables = [table for of in _by_entry(entries, parts.sites) for table in found.pop(of)]
    return noted(pd.concat(tables, ignore_index=True), model, baseline, sinks)


def _by_entry(entries: Sequence[Entry], sites: Sequence[Site]) -> list[tuple[str, Site]]:
    return [(entry.key, site) for entry in entries for site in sites]


def _deltas(
    model: HookedModel, aligned: Aligned, steering: Steering | None, view: View, watch: Watch
) -> Deltas:
    """What a steering did or, without one, what the prompt did."""
    if steering is None:
        return prompt_deltas(model, aligned, view)
    return steering_deltas(model, aligned, steering, view, watch)


def strengths(
    model: HookedModel,
    texts: Prompts,
    steerings: Mapping[str, Steering] | Sequence[Entry],
    direction: Mapping[Site, Direction] | Mapping[Layer, Direction] | None = None,
    *,
    span: Scope = everywhere,
    baseline: str = BY_TEMPLATE,
    sinks: float = SINK,
) -> pd.DataFrame:
    """How strongly each steering acts on every token of a text, at each of its own sites.

    The table of `coefficients` in the local view, without a prompt. `along` counts lengths of
    `direction` at a site, such as the v of a CLAS; by default the unit vector along which most of
    the steering's own deltas on tokens that are no sinks lie (no centring), with the sign that
    makes their sum positive. `off_axis` is what no single direction tells: 0 for a gate of rank 1.
    `baseline` is the system turn of conversations that came without one, `sinks` as above.
    """
    require_kinds(strengths, locals())
    require_times(sinks)
    tables = []
    entries = as_entries(steerings)
    if not entries:
        raise ValueError('No steerings were given. Pass {"name": steering, ...}.')
    vectors = None if direction is None else by_site(direction, model)
    for site, v in (vectors or {}).items():
        require_direction(model, site, v)
    for entry in entries:
        if entry.steering is None:
            raise ValueError(f"{entry.method} has no steering, so there is nothing to measure.")
        aligned = alone(model, texts, entry.steering.sites, span=span, baseline=baseline)
        deltas = steering_deltas(model, aligned, entry.steering, "local")
        pieces = show(model, aligned.plain.tokens.tolist())
        for site in aligned.sites:
            if vectors is not None and site not in vectors:
                raise ValueError(f"No direction was given for {site}, where {entry.key} acts.")
            left_out = aligned.sinks(site, sinks)
            if vectors is None:
                require_ordinary(~left_out, f"tokens at {site}")
            own = vectors is None
            v = _main_direction(deltas[site][~left_out]) if own else vectors[site].double()
            rows = _rows(aligned, pieces, entry, site, deltas, v.expand(len(pieces), -1))
            unit = OWN_AXIS if own else GIVEN
            tables.append(rows.assign(view="local", sink=left_out.numpy(), unit=unit))
    return noted(pd.concat(tables, ignore_index=True), model, baseline, sinks)


def require_direction(model: HookedModel, site: Site, v: Direction) -> None:
    """Raise ValueError unless `v` is a vector of the model's width, finite and of some length."""
    shape, width = list(v.shape), model.cfg.d_model
    if shape != [width] or not bool(torch.isfinite(v).all()) or not bool(v.any()):
        raise ValueError(
            f"The direction at {site} must be {width} finite numbers, not all of them 0; found "
            f"shape {shape}, of which {int(torch.isfinite(v).sum())} are finite and "
            f"{int((v != 0).sum())} not 0."
        )


def _main_direction(delta: Float[Tensor, "token d_model"]) -> Float[Tensor, "d_model"]:
    v = torch.linalg.svd(delta, full_matrices=False).Vh[0]
    return -v if float((delta @ v).sum()) < 0 else v


def _vectors(
    model: HookedModel,
    sites: Sequence[Site],
    direction: Mapping[Site, Direction] | Mapping[Layer, Direction],
) -> dict[Site, Direction]:
    """The given vector of each site."""
    vectors = by_site(direction, model)
    missing = [str(site) for site in sites if site not in vectors]
    if missing:
        raise ValueError(
            f"No direction was given for {', '.join(missing)}. Give one for each site."
        )
    for site in sites:
        require_direction(model, site, vectors[site])
    return vectors


def _axes(
    model: HookedModel,
    aligned: Aligned,
    vectors: Mapping[Site, Direction] | None,
    totals: Mapping[Site, Push] | None,
    sinks: float,
) -> Callable[[Site], Float[Tensor, "token d_model"]]:
    """The vector v of every token, by site; made when it is asked for."""
    if vectors is not None:
        return lambda site: vectors[site].double().expand(len(aligned.example), -1)
    deltas = prompt_deltas(model, aligned)
    by_example = {
        site: push_of_others(aligned, site, deltas[site], sinks, totals) for site in aligned.sites
    }
    return lambda site: by_example[site][aligned.example]


def _rows(
    aligned: Aligned,
    texts: Sequence[str],
    entry: Entry,
    site: Site,
    deltas: Deltas,
    v: Float[Tensor, "token d_model"],
) -> pd.DataFrame:
    numbers = cells(deltas[site], v, aligned.plain.at(site))
    return pd.DataFrame(
        {
            "example": aligned.example.numpy(),
            "token_index": aligned.token_index.numpy(),
            "token": list(texts),
            "layer": site.layer,
            "stream": site.stream,
            "method": entry.method,
            "strength": entry.strength,
            "strength_value": entry.strength_value,
            **{name: values.numpy() for name, values in numbers.items()},
        }
    )


def cells(
    delta: Float[Tensor, "token d_model"],
    v: Float[Tensor, "token d_model"],
    plain: Float[Tensor, "token d_model"],
) -> dict[str, Float[Tensor, "token"]]:
    """The coefficients of some tokens at one site, by name, in float64; `plain` is what was there.

    The share of what was not changed at all is NaN: it has no direction.
    """
    delta, v = delta.double(), v.double()
    dot, vv = (delta * v).sum(dim=-1), (v * v).sum(dim=-1)
    along, norm = dot / vv, delta.norm(dim=-1)
    return {
        "along": along,
        "off_axis": (delta - along[:, None] * v).norm(dim=-1),
        "norm": norm,
        "relative_norm": norm / plain.double().norm(dim=-1),
        "rank1_share": dot.square() / (norm.square() * vv),
    }
