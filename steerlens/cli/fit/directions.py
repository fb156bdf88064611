"""`steerlens fit direction`, and the directions that other fits take from a file."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args

import typer

from steerlens.cli import inputs
from steerlens.cli.fit.outcome import finish, scores_of
from steerlens.cli.grouped import grouped
from steerlens.cli.options import (
    SINK_TIMES,
    Contrasts,
    Layers,
    Out,
    Read,
    RunOptions,
    Sinks,
    Steered,
)

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

    from steerlens.sites import Site
    from steerlens.types import HookedModel


@grouped
def fit_direction(
    *,
    pairs: Contrasts,
    out: Out,
    layers: Layers = "all",
    kind: Annotated[str, typer.Option(help="rfm, ridge, logistic, means, pca, random.")] = "rfm",
    read: Read = "",
    scope: Steered = "everywhere",
    seed: Annotated[int, typer.Option(help="Seed of the order of the pairs.")] = 0,
    sinks: Sinks = SINK_TIMES,
    run: RunOptions,
) -> None:
    """A unit direction at each layer that tells the positive from the negative prompts.

    The file is a steering that adds them with strength 1; `fit clas --direction` reads it too.
    """
    from steerlens.checks import require_choice
    from steerlens.cli.data import read_contrasts
    from steerlens.directions.labelled import Kind, contrast_directions
    from steerlens.identity import origin_of
    from steerlens.methods.clas import CLAS
    from steerlens.scopes import scope_named
    from steerlens.steering import Steering

    require_choice("kind", kind, get_args(Kind))
    given = read_contrasts(pairs)
    reading, steered = scope_named(read) if read else None, scope_named(scope)
    model = inputs.load(*run.place)
    directions = contrast_directions(
        model,
        kind,  # pyright: ignore[reportArgumentType]  (checked above)
        *given.sides(model),
        inputs.layers_of(layers, model.cfg.n_layers),
        read=reading,
        seed=seed,
        sinks=sinks,
    )
    placed = tuple((site, CLAS.fixed(v.direction, 1.0)) for site, v in directions.items())
    table, shown = scores_of(directions)
    text = f"Wrote {out}: {kind} from {len(given.contrasts[0])} pairs{shown}"
    content = {"file": str(out), "kind": kind, "directions": table}
    steering = Steering(placed, origin_of(model, seed)).only(steered)
    finish(steering, out, content, run.as_json, text)


def stored_directions(
    path: Path, model: "HookedModel", layers: Sequence[int]
) -> 'dict[Site, Float[Tensor, "rank d_model"]]':
    """The vectors of a steering file at these layers' outputs; float32, or float64 as the model."""
    from steerlens.precision import wide_dtype
    from steerlens.reading import load_steering
    from steerlens.sites import Site

    vectors: dict[Site, Any] = {}
    for site, steer in load_steering(path, model).placed:
        if site in vectors:
            raise ValueError(
                f"{path} has several steers at {site}; needed are the vectors of one. Save each "
                "to a file of its own."
            )
        vectors[site] = _vectors(steer)
    sites = [Site(layer) for layer in layers]
    missing = [str(site) for site in sites if vectors.get(site) is None]
    if missing:
        present = [f"{site}" for site, rows in vectors.items() if rows is not None]
        raise ValueError(
            f"{path} has no vector at {', '.join(missing)}; it has {', '.join(present) or 'none'}. "
            "Give a file of CAA, PSR or CLAS at the output of every layer of --layers (`steerlens "
            "fit direction`, `fit caa`, or `fit psr --constant`)."
        )
    return {site: vectors[site].to(wide_dtype(model)) for site in sites}


def _vectors(steer: object) -> 'Float[Tensor, "rank d_model"] | None':
    from steerlens.combinators import Only
    from steerlens.methods.caa import CAA
    from steerlens.methods.clas import CLAS
    from steerlens.methods.psr import PSR

    if isinstance(steer, Only):
        return _vectors(steer.steer)
    if isinstance(steer, CAA):
        return steer.direction[None]
    if isinstance(steer, PSR):
        return steer.Z
    return steer.v if isinstance(steer, CLAS) else None


def directions_of_rank(
    rank: int, path: Path, model: "HookedModel", layers: Sequence[int]
) -> 'dict[Site, Float[Tensor, "rank d_model"]]':
    """The same; ValueError unless there are `rank` of them at each layer."""
    vectors = stored_directions(path, model, layers)
    ranks = {len(rows) for rows in vectors.values()}
    if ranks != {rank}:
        raise ValueError(
            f"{path} holds {', '.join(map(str, sorted(ranks)))} directions a layer; "
            f"--rank asks for {rank}."
        )
    return vectors
