"""What `steerlens fit psr` does once its options are read."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from steerlens.checks import require_choice
from steerlens.combinators import Only
from steerlens.methods.caa import CAA
from steerlens.methods.clas import CLAS
from steerlens.methods.psr import PSR, REGULARISE, Fit, Surface, difference_of_means
from steerlens.prompts import PromptPair
from steerlens.reading import load_steering
from steerlens.sites import Site, require_site
from steerlens.training.imitation import Objective
from steerlens.training.loop import Schedule
from steerlens.types import HookedModel


@dataclass(frozen=True)
class Wanted:
    """The options that say what is fitted and by which objective."""

    objective: str
    surface: str
    constant: bool
    rank: int
    ll_weight: float = 1.0
    shift: float = 0.0
    learn_shift: bool = False
    direction: Path | None = None
    checkpoint: Path | None = None
    regularise: float = REGULARISE

    def __post_init__(self) -> None:
        require_choice("objective", self.objective, (*get_args(Objective), "DiM"))
        require_choice("surface", self.surface, get_args(Surface))
        for name, value in (("--shift", self.shift), ("--regularise", self.regularise)):
            if not math.isfinite(value):
                raise ValueError(f"{name} must be a finite number; found {value}.")
        if self.constant and self.regularise != REGULARISE:
            raise ValueError("--constant has no gates: leave out --regularise.")
        if self.checkpoint is not None and not self.checkpoint.absolute().parent.is_dir():
            raise ValueError(
                f"Cannot write {self.checkpoint}: its folder does not exist. Make it first."
            )


def fit(
    model: HookedModel,
    pairs: Sequence[PromptPair],
    labels: Sequence[float] | None,
    layers: Sequence[int],
    wanted: Wanted,
    schedule: Schedule,
    template: str | None,
    progress: bool,
) -> Fit:
    """Train one module at each layer."""
    return PSR.fit(
        model,
        pairs,
        layers,
        objective=wanted.objective,  # pyright: ignore[reportArgumentType]  (checked above)
        ll_weight=wanted.ll_weight,
        surface=wanted.surface,  # pyright: ignore[reportArgumentType]
        rank=wanted.rank,
        gated=not wanted.constant,
        directions=frozen(model, layers, wanted),
        labels=labels,
        b_m=wanted.shift,
        learn_b_m=wanted.learn_shift,
        regularise=wanted.regularise,
        schedule=schedule,
        template=template,
        checkpoint=wanted.checkpoint,
        progress=progress,
    )


def frozen(
    model: HookedModel, layers: Sequence[int], wanted: Wanted
) -> dict[Site, Float[Tensor, "rank d_model"]] | None:
    """The directions of --direction; ValueError if they do not suit the layers and the rank."""
    for layer in layers:
        require_site(model, Site(layer))
    if wanted.objective == "DiM" and (len(layers) != 1 or wanted.rank != 1):
        raise ValueError(
            f"DiM is one vector at one layer; asked for {len(layers)} layers and rank "
            f"{wanted.rank}."
        )
    if wanted.direction is None:
        return None
    found = directions(wanted.direction, model, layers)
    wide = {len(vectors) for vectors in found.values()}
    if wide != {wanted.rank}:
        raise ValueError(
            f"{wanted.direction} holds {', '.join(map(str, sorted(wide)))} directions a layer; "
            f"--rank asks for {wanted.rank}."
        )
    return found


def told(out: Path, fitted: Fit) -> tuple[dict[str, Any], str]:
    """The numbers of a fit, for `--json` and for reading."""
    kept = fitted.trained.best_epoch
    rows = [fitted.trained.rows[epoch]["validation_loss"] for epoch in (0, kept)]
    losses = [None if math.isnan(loss) else loss for loss in rows]
    firing = {str(site): rates.tolist() for site, rates in fitted.firing.items()}
    found = {
        "file": str(out),
        "method": fitted.name,
        "validation_loss": losses,
        "epoch": kept,
        "firing": firing,
        "b_m": {str(site): steer.b_m for site, steer in fitted.steers.items()},
    }
    shown = "".join(
        f"\n{site}: open on {', '.join(f'{rate:.0%}' for rate in rates)} of the tokens"
        for site, rates in firing.items()
    )
    return found, (f"Wrote {out}: {fitted.name}, {_course(losses, kept)}{shown}")


def _course(losses: Sequence[float | None], kept: int) -> str:
    first, best = losses
    if first is None or best is None:
        return "no pair held back to choose an epoch by"
    course = f"validation loss {first:.3g} -> {best:.3g}"
    if kept == 0:
        course += " (no epoch was better than the start: these are the random first parameters)"
    return course


def require_untrained(wanted: Wanted, schedule: Schedule, labels: Sequence[float] | None) -> None:
    """Raise ValueError where DiM is asked for with what only a training takes."""
    ignored = {
        "--ll-weight": wanted.ll_weight != 1,
        "--shift": wanted.shift != 0,
        "--learn-shift": wanted.learn_shift,
        "--direction": wanted.direction is not None,
        "--checkpoint": wanted.checkpoint is not None,
        "--regularise": wanted.regularise != REGULARISE,
        "--epochs": schedule.epochs != Schedule.epochs,
        "--batch-size": schedule.batch_size != Schedule.batch_size,
        "--learning-rate": schedule.learning_rate is not None,
        "the labels of the pairs file": labels is not None,
    }
    given = [name for name, value in ignored.items() if value]
    if given:
        raise ValueError(f"DiM is not trained: leave out {', '.join(given)}.")


def fit_means(
    out: Path,
    model: HookedModel,
    pairs: Sequence[PromptPair],
    layers: Sequence[int],
    wanted: Wanted,
    template: str | None,
) -> tuple[dict[str, Any], str]:
    """S-Const_DiM, which is not trained, and what there is to tell."""
    surface: Any = wanted.surface
    difference_of_means(model, pairs, layers[0], surface=surface, template=template).save(out)
    name = f"S-Const_DiM|{surface}"
    return {"file": str(out), "method": name}, f"Wrote {out}: {name}"


def directions(
    path: Path, model: HookedModel, layers: Sequence[int]
) -> dict[Site, Float[Tensor, "rank d_model"]]:
    """The vectors of a steering file at these layers' outputs."""
    steering: Any = load_steering(path, model)
    found: dict[Site, Any] = {}
    for site, steer in getattr(steering, "placed", ()):
        if site in found:
            raise ValueError(
                f"{path} has several steers at {site}; needed are the vectors of one. Save each "
                "to a file of its own."
            )
        found[site] = _vectors(steer)
    sites = [Site(layer) for layer in layers]
    missing = [str(site) for site in sites if found.get(site) is None]
    if missing:
        held = [f"{site}" for site, vectors in found.items() if vectors is not None]
        raise ValueError(
            f"{path} has no vector at {', '.join(missing)}; it has {', '.join(held) or 'none'}. "
            "Give a file of CAA, PSR or CLAS at the output of every layer of --layers (`steerlens "
            "fit direction`, `fit caa`, or `fit psr --constant`)."
        )
    return {site: torch.as_tensor(found[site]).float() for site in sites}


def _vectors(steer: object) -> Float[Tensor, "rank d_model"] | None:
    if isinstance(steer, Only):
        return _vectors(steer.steer)
    if isinstance(steer, CAA):
        return steer.direction[None]
    if isinstance(steer, PSR):
        return steer.Z
    return steer.v if isinstance(steer, CLAS) else None
