"""`steerlens fit psr`."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args

import typer

from steerlens.cli import inputs
from steerlens.cli.fit.directions import directions_of_rank
from steerlens.cli.fit.outcome import finish, outcome_of
from steerlens.cli.given import Written
from steerlens.cli.grouped import grouped
from steerlens.cli.options import Layers, MaxNewTokens, Out, RunOptions, Seed, Strength

if TYPE_CHECKING:
    from steerlens.methods.psr import Gates
    from steerlens.prompts import PromptPair
    from steerlens.training.schedule import Schedule
    from steerlens.types import HookedModel

DIM = "DiM"
LabelledPairs = Annotated[
    Path,
    typer.Option(
        "--pairs",
        help='JSON Lines of {"user": ..., "system": ..., "response": ...}; with a "label" from 0 '
        "to 1 a response is learned from as far as it has the attribute.",
    ),
]


@dataclass(frozen=True)
class Module:
    """What is fitted at each layer, and what it is trained for."""

    objective: Annotated[
        str, typer.Option(help="MSE, LL, both, or DiM (difference of means: one layer, constant).")
    ] = "MSE"
    ll_weight: Annotated[float, typer.Option(help="Of LL beside MSE, for both.")] = 1.0
    surface: Annotated[str, typer.Option(help="R (the response) or QR (the user turn too).")] = "R"
    constant: Annotated[bool, typer.Option(help="No gate: the paper's Const.")] = False
    rank: Annotated[int, typer.Option(help="Gates and directions a layer.")] = 1
    direction: Annotated[
        Path | None,
        typer.Option(
            help="A steering file whose vectors at these layers are kept: only gates train."
        ),
    ] = None
    shift: Annotated[float, typer.Option(help="The paper's b_m, -0.5 to learn from negatives.")] = 0
    learn_shift: Annotated[bool, typer.Option(help="Each layer learns its b_m.")] = False
    regularise: Annotated[
        float, typer.Option(help="Weight of what keeps gates from closing; 0 is none.")
    ] = 0.1

    def __post_init__(self) -> None:
        from steerlens.checks import require_choice
        from steerlens.methods.psr import Surface
        from steerlens.training.objectives import Name

        require_choice("objective", self.objective, (*get_args(Name), DIM))
        require_choice("surface", self.surface, get_args(Surface))
        for name, value in (("--shift", self.shift), ("--regularise", self.regularise)):
            if not math.isfinite(value):
                raise ValueError(f"{name} must be a finite number; found {value}.")
        if self.regularise < 0:
            raise ValueError(f"--regularise is a weight, 0 or more; found {self.regularise}.")
        if self.rank < 1:
            raise ValueError(f"--rank is at least 1; found {self.rank}.")
        if self.constant and self.regularise != Module.regularise:
            raise ValueError("--constant has no gates: leave out --regularise.")

    def options(self) -> dict[str, Any]:
        """What is imitated, and on which tokens, as `PSR.fit` takes it."""
        from steerlens.training.objectives import objective_named

        objective = objective_named(self.objective, self.ll_weight)
        return {"objective": objective, "surface": self.surface}

    def gates(self, model: "HookedModel", layers: Sequence[int]) -> "Gates":
        """What is learnt at each layer; the file of --direction is read."""
        from steerlens.methods.psr import Gates
        from steerlens.training.checks import require_rank

        require_rank(self.rank, model.cfg.d_model)
        directions = None
        if self.direction is not None:
            directions = directions_of_rank(self.rank, self.direction, model, layers)
        return Gates(
            rank=self.rank,
            constant=self.constant,
            directions=directions,
            b_m=self.shift,
            learn_b_m=self.learn_shift,
            regularise=self.regularise,
        )


@dataclass(frozen=True)
class Training:
    """How the modules are trained."""

    epochs: Annotated[
        int | None, typer.Option(help="Passes over the pairs; default: see --steps.")
    ] = None
    steps: Annotated[
        int | None,
        typer.Option(
            help="Updates, with --epochs at least; default: 240, or 15 passes over many pairs."
        ),
    ] = None
    batch_size: Annotated[
        int | None,
        typer.Option(help="Pairs a step; default: 8, and at most a quarter without a length."),
    ] = None
    learning_rate: Annotated[
        float | None, typer.Option(help="By default chosen from the number of steps.")
    ] = None
    checkpoint: Annotated[
        Path | None,
        typer.Option(help="Written after each epoch; if it is there, the fit goes on."),
        Written(),
    ] = None
    seed: Seed = 0

    def schedule(self) -> "Schedule":
        """The schedule of the training loop."""
        from steerlens.training.schedule import Schedule

        return Schedule(
            self.epochs,
            "auto" if self.batch_size is None else self.batch_size,
            self.learning_rate,
            seed=self.seed,
            steps=self.steps,
        )


@grouped
def fit_psr(
    *,
    pairs: LabelledPairs,
    out: Out,
    layers: Layers,
    module: Module,
    training: Training,
    max_new_tokens: MaxNewTokens = 64,
    strength: Strength,
    run: RunOptions,
) -> None:
    """PSR: a gate and a direction for each layer, trained to do what the instruction does.

    A line of the pairs file without a response is answered by the prompted model first.
    """
    from steerlens.cli.data import read_labelled_pairs
    from steerlens.methods.psr import PSR

    schedule = training.schedule()
    lines, labels = read_labelled_pairs(pairs)
    options = _options(module, training, lines, labels)
    model = inputs.load(*run.place)
    sites = _layers(model, layers, module)
    gates = module.gates(model, sites)
    answered = inputs.answered(model, lines, training.seed, max_new_tokens)
    if module.objective == DIM:
        return _fit_means(out, model, answered, sites, module.surface, strength, run)
    fit = PSR.fit(
        model,
        answered,
        sites,
        **options,
        gates=gates,
        labels=labels,
        schedule=schedule,
        checkpoint=training.checkpoint,
        progress=not run.as_json,
    )
    steering, found, shown = strength.of_fit(model, fit.steering, answered, out, training.seed)
    content, text = outcome_of(fit)
    content = {"file": str(out), **content, **found}
    finish(steering, out, content, run.as_json, f"Wrote {out}{shown}: {text}")


def _options(
    module: Module, training: Training, lines: Sequence[Any], labels: Sequence[float] | None
) -> dict[str, Any]:
    """What is imitated; ValueError for what cannot be fitted, before the model is loaded."""
    from steerlens.training import checkpoint
    from steerlens.training.checks import require_varied

    if training.checkpoint is not None and training.checkpoint.exists():
        checkpoint.require_checkpoint(training.checkpoint)
    if module.objective == DIM:
        _require_untrained(module, training, labels)
        return {}
    require_varied(labels, module.learn_shift)
    training.schedule().split(len(lines))  # ValueError for too few
    return module.options()


def _fit_means(
    out: Path,
    model: "HookedModel",
    pairs: "Sequence[PromptPair]",
    layers: Sequence[int],
    surface: Any,
    strength: Strength,
    run: RunOptions,
) -> None:
    """S-Const_DiM, which is not trained."""
    from steerlens.methods.psr import difference_of_means

    means = difference_of_means(model, pairs, layers, surface=surface)
    steering, found, shown = strength.of_fit(model, means, pairs, out)
    name = f"S-Const_DiM|{surface}"
    content = {"file": str(out), "method": name, **found}
    finish(steering, out, content, run.as_json, f"Wrote {out}{shown}: {name}")


def _layers(model: "HookedModel", text: str, module: Module) -> list[int]:
    """The layers of --layers; ValueError if the model lacks one, or DiM is asked for at several."""
    from steerlens.sites import Site, require_site

    layers = inputs.layers_of(text, model.cfg.n_layers)
    for layer in layers:
        require_site(model, Site(layer))
    if module.objective == DIM and (len(layers) != 1 or module.rank != 1):
        raise ValueError(
            f"DiM is one vector at one layer; asked for {len(layers)} layers and rank "
            f"{module.rank}."
        )
    return layers


def _require_untrained(module: Module, training: Training, labels: Sequence[float] | None) -> None:
    """Raise ValueError where DiM is asked for with what only a training takes."""
    options = {
        "--ll-weight": module.ll_weight != Module.ll_weight,
        "--shift": module.shift != Module.shift,
        "--learn-shift": module.learn_shift,
        "--direction": module.direction is not None,
        "--checkpoint": training.checkpoint is not None,
        "--regularise": module.regularise != Module.regularise,
        "--epochs": training.epochs is not None,
        "--steps": training.steps is not None,
        "--batch-size": training.batch_size != Training.batch_size,
        "--learning-rate": training.learning_rate is not None,
        "the labels of the pairs file": labels is not None,
    }
    ignored = [name for name, given in options.items() if given]
    if ignored:
        raise ValueError(f"DiM is not trained: leave out {', '.join(ignored)}.")
