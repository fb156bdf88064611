"""`steerlens fit cold-kernel` and `cold-fd`."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, get_args

import typer

from steerlens.cli import inputs
from steerlens.cli.fit.outcome import finish
from steerlens.cli.grouped import grouped
from steerlens.cli.options import AUTO, Contrasts, Layers, Out, RunOptions, Steered, Strength

if TYPE_CHECKING:
    from steerlens.prompts import Prompt
    from steerlens.types import HookedModel

    Wanted = tuple[dict[str, Sequence[Prompt]], list[dict[str, float]] | None]

SIDES = {
    "dpo": ("positive", "negative"),
    "sft": ("positive",),
    "negative_sft": ("negative",),
    "options": ("positive",),
}
"""The sides of a pair that each loss looks at."""


def _looked_at(loss: str, sides: "tuple[Any, Any]") -> "dict[str, Sequence[Prompt]]":
    both = dict(zip(("positive", "negative"), sides, strict=True))
    return {name: both[name] for name in SIDES[loss]}


@dataclass(frozen=True)
class Fitted:
    """On what a COLD method is fitted, and where it is written."""

    pairs: Contrasts
    out: Out
    layers: Layers
    loss: Annotated[
        str,
        typer.Option(
            help="dpo, sft (positive), negative_sft (negative), or options, which reads lines of "
            '{"prompt": ..., "options": {" good": 0.7, " bad": 0.3}} instead.'
        ),
    ] = "dpo"

    def __post_init__(self) -> None:
        from steerlens.checks import require_choice

        require_choice("loss", self.loss, tuple(SIDES))

    def read(self) -> "Callable[[HookedModel], Wanted]":
        """Read the file, and what makes its examples for a model.

        They are the prompts of each side that the loss looks at, and the shares of `options`.
        """
        from steerlens.cli.data import read_contrasts, read_wishes

        if self.loss == "options":
            prompts, shares = read_wishes(self.pairs)
            return lambda model: ({"positive": prompts}, shares)
        contrasts = read_contrasts(self.pairs)
        return lambda model: (_looked_at(self.loss, contrasts.sides(model)), None)


@dataclass(frozen=True)
class Step:
    """The step of gradient descent: its size, where it acts, how it is computed."""

    eta: Annotated[
        float | None,
        typer.Option(
            help="The paper's step size; what it does differs a million times from model to model. "
            "Default: 1, at the strength that --strength auto finds."
        ),
    ] = None
    scope: Steered = "prompt"
    compat: Annotated[
        str | None, typer.Option("--compat", help='"released": as the authors\' code does.')
    ] = None
    batch_size: Annotated[int, typer.Option("--batch-size", help="Examples a pass.")] = 8

    @property
    def size(self) -> float:
        """Eta as the fit takes it."""
        return 1.0 if self.eta is None else self.eta


@grouped
def fit_cold_kernel(
    *,
    fitted: Fitted,
    kernel: Annotated[str, typer.Option(help="unit, dot, cosine or rbf.")] = "unit",
    width: Annotated[
        float | None, typer.Option(help="Of rbf; default: the median distance of the examples.")
    ] = None,
    step: Step,
    strength: Strength,
    run: RunOptions,
) -> None:
    """COLD-Kernel: the gradients of a loss for the activations, weighted by a kernel.

    What is told at the end is how far it moves the activations of its own examples, over their
    length: some tenths are a usual strength, and `--eta` (or `generate --strength`) sets it.
    """
    from steerlens.methods.cold.checks import require_kernel
    from steerlens.methods.cold.kernel import ColdKernel

    require_kernel(kernel, width)
    _fit("COLD-Kernel", ColdKernel, fitted, {"kernel": kernel, "width": width}, step, strength, run)


@grouped
def fit_cold_fd(
    *,
    fitted: Fitted,
    mode: Annotated[str, typer.Option(help="jvp (the derivative) or fd (a difference).")] = "jvp",
    eps: Annotated[float | None, typer.Option(help="The step of fd; default: automatic.")] = None,
    central: Annotated[bool, typer.Option(help="fd steps to both sides.")] = False,
    stored: Annotated[
        str, typer.Option(help="The file's numbers: float32, bfloat16, or auto (by its size).")
    ] = "auto",
    step: Step,
    strength: Strength,
    run: RunOptions,
) -> None:
    """COLD-FD: what one gradient step on the pairs would do to the activations.

    The file holds the mean gradient, as many numbers as the model has up to the last of the layers,
    in bfloat16 where these are more than 16.8 million (--stored). What is
    told at the end is how far it moves the activations of its own examples, over their length.
    """
    from steerlens.checks import require_choice
    from steerlens.methods.cold.checks import Stored, require_step
    from steerlens.methods.cold.finite_difference import ColdFD

    require_step(mode, eps, central)
    require_choice("stored", stored, get_args(Stored))
    own = {"mode": mode, "eps": eps, "central": central, "stored": stored}
    _fit("COLD-FD", ColdFD, fitted, own, step, strength, run)


def _fit(
    name: str,
    method: Any,
    fitted: Fitted,
    own: dict[str, Any],
    step: Step,
    strength: Strength,
    run: RunOptions,
) -> None:
    """Fit by `method`, whose `own` options these are; bad options are errors before any work."""
    from steerlens.checks import require_choice
    from steerlens.methods.cold.examples import Examples
    from steerlens.methods.cold.kernel import Compat
    from steerlens.scopes import scope_named

    if step.compat is not None:
        require_choice("compat", step.compat, get_args(Compat))
    examples_of, scope = fitted.read(), scope_named(step.scope)
    model = inputs.load(*run.place)
    sides, shares = examples_of(model)
    options = {**own, "eta": step.size, "compat": step.compat, "batch_size": step.batch_size}
    fit = method.fit(
        model,
        Examples(**sides, probabilities=shares),
        inputs.layers_of(fitted.layers, model.cfg.n_layers),
        **options,
        loss=fitted.loss,
        scope=scope,
    )
    examples = next(iter(sides.values()))
    unsaid = strength.strength is None and not strength.by_effect
    by_effect = Strength(AUTO) if step.eta is None and unsaid else strength
    steering, found, shown = by_effect.of_fit(model, fit.steering, examples, fitted.out)
    push = _push(model, examples, name, steering)
    content = {"file": str(fitted.out), "method": name, "loss": fitted.loss, "push": push, **found}
    text = (
        f"Wrote {fitted.out}{shown}: {name} with eta {step.size:g} moves the activations of its "
        f"own examples by {push:.2g} of their length"
    )
    finish(steering, fitted.out, content | options, run.as_json, text)


def _push(model: "HookedModel", examples: "Sequence[Prompt]", name: str, steering: Any) -> float:
    """How far some of the examples' activations are moved, over their length, on average."""
    from steerlens.analysis import strengths

    shown = strengths(model, list(examples)[:16], {name: steering})
    moved = shown.loc[shown["norm"] > 0, "relative_norm"]
    push = float(moved.mean()) if len(moved) else 0.0
    if not math.isfinite(push):
        raise ValueError(
            f"{name} at this size moves the activations of its own examples by more than a number "
            "can say. Lower --eta, or give --strength auto."
        )
    return push
