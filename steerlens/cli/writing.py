"""`steerlens demo` and `generate`."""

from pathlib import Path
from typing import Annotated

import typer

from steerlens.cli import inputs, output
from steerlens.cli.options import (
    AsJson,
    Backend,
    Device,
    MaxNewTokens,
    Model,
    Seed,
    Temperature,
    TopP,
)


def demo(
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the report.")] = Path(
        "demo-report"
    ),
    seed: Seed = 0,
    backend: Backend = "auto",
) -> None:
    """Steer the embedded model by prompt, ActAdd and CAA; write an HTML report. Offline."""
    import torch

    from steerlens.analysis import run_demo

    # The model is tiny: a second thread gains nothing, and on a busy machine it waits, spinning.
    torch.set_num_threads(1)
    print(f"The report is at {run_demo(out, seed=seed, backend=backend)}")


def generate(
    prompt: Annotated[str, typer.Option("--prompt", "-p", help="The user turn, or raw text.")],
    model: Model = "demo",
    system: Annotated[str | None, typer.Option(help="Instruction in the system turn.")] = None,
    steering: Annotated[
        list[Path] | None, typer.Option(help="A steering file; repeatable.")
    ] = None,
    strength: Annotated[float, typer.Option(help="0 off, 1 as fitted.")] = 1.0,
    n: Annotated[int, typer.Option("--n", help="Completions to write.")] = 1,
    seed: Seed = 0,
    max_new_tokens: MaxNewTokens = 64,
    temperature: Temperature = 1.0,
    top_p: TopP = 1.0,
    raw: Annotated[
        bool, typer.Option(help="Continue the prompt as raw text, no template.")
    ] = False,
    backend: Backend = "auto",
    device: Device = "cpu",
    as_json: AsJson = False,
) -> None:
    """Write completions, unsteered and, given a steering file, steered by it."""
    from steerlens.generation import generate as write
    from steerlens.prompts import Conversation
    from steerlens.reading import load_steering
    from steerlens.steering import Steering, scaled, together

    if raw and system is not None:
        raise ValueError("--raw has no turns, so --system has no place. Leave one of them out.")
    loaded = inputs.load(model, backend, device)
    parts = [scaled(load_steering(path, loaded), strength) for path in steering or []]
    acting: Steering | None = together(parts) if parts else None
    asked = prompt if raw else Conversation(prompt, system)
    runs = {"unsteered": None} if acting is None else {"unsteered": None, "steered": acting}
    texts = {
        name: write(
            loaded,
            [asked],
            way,
            n=n,
            seed=seed,
            max_new_tokens=max_new_tokens,
            temperature=temperature,
            top_p=top_p,
            template=inputs.template_of(loaded),
        ).texts
        for name, way in runs.items()
    }
    found = {"model": model, "prompt": prompt, "seed": seed, "strength": strength, **texts}
    shown = [
        f"── {name} {number}\n{text}"
        for name, written in texts.items()
        for number, text in enumerate(written, start=1)
    ]
    output.say(found, as_json, "\n".join(shown))
