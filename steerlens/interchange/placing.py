"""Vectors of other tools on a model: which number is which block, checked against the model."""

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

from steerlens.checks import require_choice
from steerlens.identity import Imported, Origin, identity_of
from steerlens.interchange.formats import (
    NAMED,
    Convention,
    Found,
    direction_of,
    norm_of,
    of_object,
    recognised,
    with_steers,
)
from steerlens.interchange.opening import Content, opened
from steerlens.parsing import few
from steerlens.saving import require_placeable
from steerlens.sites import Site, Sites, as_sites, width_of
from steerlens.steering import Steering
from steerlens.types import HookedModel, Steer, SteeringWarning

INDEX = {
    "block": "k is the output of block k, counted from 0",
    "hidden_states": "k is hidden_states[k], the output of block k - 1; 0 is the embedding",
}
BY_COMMAND = "on the command line: steerlens import FILE --model MODEL --out OURS"


def read_foreign(
    given: object,
    model: HookedModel,
    *,
    sites: Sites | None = None,
    convention: str | None = None,
    concept: int | None = None,
    strength: float | None = None,
) -> Steering:
    """The steering of another tool's file or object, for `model`; see `load_steering`."""
    if convention is not None:
        require_choice("convention", convention, get_args(Convention))
    content = opened(Path(given)) if isinstance(given, str | Path) else of_object(given)
    found = recognised(content, concept)
    chosen = None if sites is None else as_sites(sites, model)
    _require_width(content, found, model, chosen)
    placed, index = _placed(content, found, model, chosen, convention)
    _require_no_later_norm(found, model)
    used = with_steers(found, placed)
    imported = Imported(
        found.format, content.source, index, norm_of(used), found.measured, found.note
    )
    origin = Origin(identity_of(model), imported=(imported,))
    steering = Steering(tuple(sorted(placed.items(), key=lambda pair: pair[0])), origin)
    require_placeable(steering.placed, model)
    return steering if strength is None else steering.scaled(strength)


def _require_width(
    content: Content, found: Found, model: HookedModel, sites: tuple[Site, ...] | None
) -> None:
    """Raise ValueError where a vector is not as long as activations are where it is placed."""
    for key, steer in found.steers.items():
        n = len(direction_of(steer))
        given = (key,) if isinstance(key, Site) else sites if key is None else None
        for site in given or (Site(0),):
            if n == width_of(model, site):
                continue
            what = "n_heads * d_head" if site.stream == "z" else "d_model"
            raise ValueError(
                f"{content.named} ({found.format}) holds vectors of length {n}, and this model has "
                f"{what} {width_of(model, site)}. They are of another model, or of another stream."
            )


def _placed(
    content: Content,
    found: Found,
    model: HookedModel,
    sites: tuple[Site, ...] | None,
    convention: str | None,
) -> tuple[dict[Site, Steer], str]:
    """The steers by site, and in words what the numbers of the file were taken to mean."""
    numbers = {key: steer for key, steer in found.steers.items() if isinstance(key, int)}
    if convention is not None and not numbers:
        raise ValueError(
            f"convention={convention!r} says what numbers of layers mean, and {content.named} "
            f"({found.format}) has none. Leave it out."
        )
    if None in found.steers:
        given = _given(content, found, sites)
        return dict.fromkeys(given, found.steers[None]), "the site was given by the reader"
    if not numbers:
        named = {key: steer for key, steer in found.steers.items() if isinstance(key, Site)}
        return _chosen(content, named, sites), NAMED
    meant: Any = convention or found.convention or _told_by_count(content, found, model)
    if found.choose and sites is None:
        raise ValueError(
            f"{content.named} holds a row for each layer, of which its maker uses one at a time. "
            f"Choose: sites=3, or several ({BY_COMMAND} --layers 3)."
        )
    by_site = {_site(number, meant): steer for number, steer in numbers.items()}
    _require_blocks(content, numbers, meant, model)
    picked = _chosen(content, by_site, _as_outputs(sites))
    if meant == "hidden_states" and found.choose and Site(model.cfg.n_layers - 1) in picked:
        warnings.warn(
            f"{content.named}: hidden_states[{model.cfg.n_layers}] of transformers is read after "
            "the last norm, so this row is not the output of the last block, to which it is added.",
            SteeringWarning,
            stacklevel=4,
        )
    return picked, INDEX[meant]


def _given(content: Content, found: Found, sites: tuple[Site, ...] | None) -> tuple[Site, ...]:
    """The sites that were given for a vector that names none."""
    if sites is None:
        raise ValueError(
            f"{content.named} holds {found.format}, and nothing says of which layer. Give it: "
            f"sites=3, the block whose output it is added to ({BY_COMMAND} --layers 3)."
            f"{content.not_ours}"
        )
    return sites


def _site(number: int, convention: Convention) -> Site:
    if convention == "block":
        return Site(number)
    return Site(number - 1) if number else Site(0, "resid_pre")


def _told_by_count(content: Content, found: Found, model: HookedModel) -> Convention:
    """What the numbers mean, where as many rows as layers, or one more, say so."""
    n, n_layers = len(found.steers), model.cfg.n_layers
    if found.choose and n in (n_layers, n_layers + 1):
        return "block" if n == n_layers else "hidden_states"
    what = f"{n} rows" if found.choose else f"vectors for the numbers {few(found.steers)}"
    concepts = " If its rows are concepts, as AxBench's are, give concept=." if found.choose else ""
    raise ValueError(
        f"{content.named} holds {what}, and the model has {n_layers} layers, so nothing says what "
        "the numbers count. Say it: convention='block' (k is the output of block k) or "
        "convention='hidden_states' (k is the output of block k - 1, 0 the embedding); "
        f"{BY_COMMAND} --convention block.{concepts}"
    )


def _require_blocks(
    content: Content, numbers: Mapping[Any, Steer], meant: Convention, model: HookedModel
) -> None:
    """Raise ValueError for a number that no block of the model has."""
    most = model.cfg.n_layers - (meant == "block")
    beyond = sorted(number for number in numbers if number > most)
    if beyond:
        other = (
            " If they count from 1, give convention='hidden_states'." if meant == "block" else ""
        )
        raise ValueError(
            f"{content.named} ({found_in(meant)}) has a vector for {few(beyond)}, and the model "
            f"has {model.cfg.n_layers} layers.{other} Else it is of a larger model."
        )


def found_in(convention: Convention) -> str:
    """What numbers mean, for a message."""
    return f"where {INDEX[convention]}"


def _as_outputs(sites: tuple[Site, ...] | None) -> tuple[Site, ...] | None:
    """Inputs of blocks as outputs of those before, which are the same stream."""
    if sites is None:
        return None
    return tuple(
        Site(site.layer - 1) if site.stream == "resid_pre" and site.layer else site
        for site in sites
    )


def _chosen(
    content: Content, by_site: Mapping[Site, Steer], sites: tuple[Site, ...] | None
) -> dict[Site, Steer]:
    """Those of the sites that were asked for; ValueError where one is not in the file."""
    if sites is None:
        return dict(by_site)
    absent = [site for site in sites if site not in by_site]
    if absent:
        raise ValueError(
            f"{content.named} has no vector for {few(absent)}; it has {few(sorted(by_site), 8)}."
        )
    return {site: by_site[site] for site in sites}


def _require_no_later_norm(found: Found, model: HookedModel) -> None:
    """Raise ValueError where a module's output goes through a norm before it is a stream."""
    if found.inner and getattr(model.cfg, "use_normalization_before_and_after", False):
        raise ValueError(
            f"The {found.format} is for the output of a module ({found.note}), which this model "
            "normalises before it adds it to the residual stream; what is added there is another "
            "vector. Take vectors of decoder_block."
        )
