"""`steerlens demo` and `generate`."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from steerlens.cli import inputs, output
from steerlens.cli.grouped import grouped
from steerlens.cli.options import (
    AsJson,
    Backend,
    Device,
    Dtype,
    FittedOn,
    MaxNewTokens,
    Model,
    Seed,
    Templating,
)

if TYPE_CHECKING:
    from steerlens.steering import Steering


def demo(
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the report.")] = Path(
        "demo-report"
    ),
    seed: Seed = 0,
    backend: Backend = "auto",
) -> None:
    """Steer the embedded model by prompt, ActAdd and CAA; write an HTML report. Offline."""
    from steerlens.analysis import run_demo

    inputs.choose_threads(inputs.TINY)
    print(f"The report is at {run_demo(out, seed=seed, backend=backend)}")


@dataclass(frozen=True)
class Steered:
    """What is written about, and what steers it."""

    prompt: Annotated[str, typer.Option("--prompt", "-p", help="The user turn, or raw text.")]
    model: Model = "demo"
    system: Annotated[str | None, typer.Option(help="Instruction in the system turn.")] = None
    steering: Annotated[list[Path] | None, typer.Option(help="A steering file; repeatable.")] = None
    strength: Annotated[float, typer.Option(help="0 off, 1 as fitted.")] = 1.0
    fitted_on: FittedOn = None


@dataclass(frozen=True)
class Sampling:
    """How many completions are drawn, and how."""

    n: Annotated[int, typer.Option("--n", help="Completions to write.")] = 1
    seed: Seed = 0
    max_new_tokens: MaxNewTokens = 64
    temperature: Annotated[float, typer.Option(help="0 is greedy.")] = 1.0
    top_p: Annotated[
        float, typer.Option(help="Keep the smallest set with more than this probability.")
    ] = 1.0
    top_k: Annotated[int, typer.Option(help="Keep the k likeliest tokens; 0 keeps all.")] = 0
    min_p: Annotated[
        float, typer.Option(help="Keep tokens at least so many times as likely as the likeliest.")
    ] = 0.0
    repetition_penalty: Annotated[
        float, typer.Option(help="Above 1: tokens that were there before are less likely.")
    ] = 1.0
    frequency_penalty: Annotated[
        float, typer.Option(help="Taken off a token's logit for each time it was there before.")
    ] = 0.0
    stop: Annotated[
        list[str] | None, typer.Option(help="A text that ends a completion; repeatable.")
    ] = None


@grouped
def generate(
    *,
    steered: Steered,
    templating: Templating,
    sampling: Sampling,
    raw: Annotated[
        bool, typer.Option(help="Continue the prompt as raw text, no template.")
    ] = False,
    backend: Backend = "auto",
    device: Device = "cpu",
    dtype: Dtype = "float32",
    as_json: AsJson = False,
) -> None:
    """Write completions, unsteered and, given a steering file, steered by it."""
    from dataclasses import asdict

    from steerlens import generation
    from steerlens.prompts import Conversation

    if raw and steered.system is not None:
        raise ValueError("--raw has no turns, so --system has no place. Leave one of them out.")
    if raw and templating != Templating():
        raise ValueError("--raw has no template: leave out the options that are about templates.")
    model = inputs.load(steered.model, backend, device, templating.template(), dtype)
    prompt = steered.prompt if raw else Conversation(steered.prompt, steered.system)
    runs: dict[str, Steering | None] = {"unsteered": None}
    if steered.steering:
        given, strength = steered.steering, steered.strength
        runs["steered"] = inputs.together(given, model, strength, steered.fitted_on)
    texts = {
        name: generation.generate(model, [prompt], steering, **asdict(sampling)).texts
        for name, steering in runs.items()
    }
    asked = {"model": steered.model, "prompt": steered.prompt, "seed": sampling.seed}
    shown = [
        f"── {name} {number}\n{text}"
        for name, written in texts.items()
        for number, text in enumerate(written, start=1)
    ]
    output.say({**asked, "strength": steered.strength, **texts}, as_json, "\n".join(shown))
