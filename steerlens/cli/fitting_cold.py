"""`steerlens fit cold-kernel` and `cold-fd`."""

from pathlib import Path
from typing import Annotated, Any

import typer

from steerlens.cli import inputs, output
from steerlens.cli.options import (
    AsJson,
    Backend,
    CompatOption,
    Contrasts,
    Device,
    Eta,
    Layers,
    Model,
    Out,
    PairLoss,
    Steered,
    Together,
)


def fit_cold_kernel(
    pairs: Contrasts,
    out: Out,
    layers: Layers,
    loss: PairLoss = "dpo",
    kernel: Annotated[str, typer.Option(help="unit, dot, cosine or rbf.")] = "unit",
    width: Annotated[
        float | None, typer.Option(help="Of rbf; default: the median distance of the examples.")
    ] = None,
    eta: Eta = 1.0,
    scope: Steered = "prompt",
    compat: CompatOption = None,
    batch_size: Together = 8,
    model: Model = "demo",
    backend: Backend = "auto",
    device: Device = "cpu",
    as_json: AsJson = False,
) -> None:
    """COLD-Kernel: the gradients of a loss for the activations, weighted by a kernel.

    What is told at the end is how far it moves the activations of its own examples, over their
    length: some tenths are a usual strength, and `--eta` (or `generate --strength`) sets it.
    """
    options = {"kernel": kernel, "width": width, "eta": eta, "compat": compat}
    options["batch_size"] = batch_size
    _fit_cold(
        "COLD-Kernel", pairs, out, layers, loss, scope, (model, backend, device), as_json, options
    )


def fit_cold_fd(
    pairs: Contrasts,
    out: Out,
    layers: Layers,
    loss: PairLoss = "dpo",
    mode: Annotated[str, typer.Option(help="jvp (the derivative) or fd (a difference).")] = "jvp",
    eps: Annotated[float | None, typer.Option(help="The step of fd; default: automatic.")] = None,
    central: Annotated[bool, typer.Option(help="fd steps to both sides.")] = False,
    eta: Eta = 1.0,
    scope: Steered = "prompt",
    compat: CompatOption = None,
    batch_size: Together = 8,
    model: Model = "demo",
    backend: Backend = "auto",
    device: Device = "cpu",
    as_json: AsJson = False,
) -> None:
    """COLD-FD: what one gradient step on the pairs would do to the activations.

    The file holds the mean gradient, as many numbers as the model has up to the last layer. What is
    told at the end is how far it moves the activations of its own examples, over their length.
    """
    options = {"mode": mode, "eps": eps, "central": central, "eta": eta, "compat": compat}
    options["batch_size"] = batch_size
    _fit_cold(
        "COLD-FD", pairs, out, layers, loss, scope, (model, backend, device), as_json, options
    )


def _fit_cold(
    method: str,
    pairs: Path,
    out: Path,
    layers: str,
    loss: str,
    scope: str,
    choice: tuple[str, str, str],
    as_json: bool,
    options: dict[str, Any],
) -> None:
    from steerlens.analysis import strengths
    from steerlens.cli import cold
    from steerlens.scopes import scope_named

    asked, steered = cold.read(method, pairs, loss, options), scope_named(scope)
    inputs.require_folder_of(out)
    loaded = inputs.load(*choice)
    template = inputs.template_of(loaded)
    steering = asked.fit(loaded, inputs.layers_of(layers, loaded.cfg.n_layers), steered, template)
    steering.save(out)
    shown = strengths(loaded, asked.shown, {method: steering}, template=template)
    moved = shown.loc[shown["norm"] > 0, "relative_norm"]
    found, said = asked.told(float(moved.mean()) if len(moved) else 0.0)
    output.say({"file": str(out), **found}, as_json, f"Wrote {out}: {said}")
