"""`steerlens fit psr`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from steerlens.cli import inputs, output
from steerlens.cli.options import (
    AsJson,
    Backend,
    Checkpoint,
    Device,
    Direction,
    LabelledPairs,
    Layers,
    MaxNewTokens,
    Model,
    Out,
    Seed,
)

if TYPE_CHECKING:
    from steerlens.cli.psr import Wanted
    from steerlens.training.loop import Schedule


def fit_psr(
    pairs: LabelledPairs,
    out: Out,
    layers: Layers,
    objective: Annotated[
        str, typer.Option(help="MSE, LL, both, or DiM (difference of means: one layer, constant).")
    ] = "MSE",
    ll_weight: Annotated[float, typer.Option(help="Of LL beside MSE, for both.")] = 1.0,
    surface: Annotated[str, typer.Option(help="R (the response) or QR (the user turn too).")] = "R",
    constant: Annotated[bool, typer.Option(help="No gate: the paper's Const.")] = False,
    rank: Annotated[int, typer.Option(help="Gates and directions a layer.")] = 1,
    direction: Direction = None,
    shift: Annotated[
        float, typer.Option(help="The paper's b_m, -0.5 to learn from negatives.")
    ] = 0,
    learn_shift: Annotated[bool, typer.Option(help="Each layer learns its b_m.")] = False,
    regularise: Annotated[
        float, typer.Option(help="Weight of what keeps gates from closing; 0 is none.")
    ] = 0.1,
    epochs: Annotated[int, typer.Option(help="Passes over the pairs.")] = 15,
    batch_size: Annotated[int, typer.Option(help="Pairs a step.")] = 8,
    learning_rate: Annotated[
        float | None, typer.Option(help="By default chosen from the number of steps.")
    ] = None,
    checkpoint: Checkpoint = None,
    seed: Seed = 0,
    max_new_tokens: MaxNewTokens = 64,
    model: Model = "demo",
    backend: Backend = "auto",
    device: Device = "cpu",
    as_json: AsJson = False,
) -> None:
    """PSR: a gate and a direction for each layer, trained to do what the instruction does.

    A line of the pairs file without a response is answered by the prompted model first.
    """
    from steerlens.cli import psr
    from steerlens.training.loop import Schedule

    wanted = psr.Wanted(
        objective, surface, constant, rank, ll_weight, shift, learn_shift, direction, checkpoint,
        regularise,
    )  # fmt: skip
    schedule = Schedule(epochs, batch_size, learning_rate, seed=seed)
    found, text = _fitted_psr(
        (pairs, out, layers), wanted, schedule, (model, backend, device), max_new_tokens, as_json
    )
    output.say(found, as_json, text)


def _fitted_psr(
    asked: tuple[Path, Path, str],
    wanted: "Wanted",
    schedule: "Schedule",
    choice: tuple[str, str, str],
    longest: int,
    as_json: bool,
) -> tuple[dict[str, Any], str]:
    """Fit, write the file, and say what came of it; bad files are errors before any work."""
    from steerlens.cli import psr
    from steerlens.jsonl import read_labelled_pairs

    pairs, out, layers = asked
    lines, labels = read_labelled_pairs(pairs)
    if wanted.objective == "DiM":
        psr.require_untrained(wanted, schedule, labels)
    loaded = inputs.load(*choice)
    sites, template = inputs.layers_of(layers, loaded.cfg.n_layers), inputs.template_of(loaded)
    inputs.require_folder_of(out)
    psr.frozen(loaded, sites, wanted)
    answered = inputs.answered(loaded, lines, schedule.seed, longest, template)
    if wanted.objective == "DiM":
        return psr.fit_means(out, loaded, answered, sites, wanted, template)
    fitted = psr.fit(
        loaded, answered, labels, sites, wanted, schedule, template, progress=not as_json
    )
    fitted.steering.save(out)
    return psr.told(out, fitted)
