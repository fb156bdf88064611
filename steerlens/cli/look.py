"""`steerlens explain` and `lens`: what is in a steering, before anything is written with it."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from steerlens.cli import inputs, output
from steerlens.cli.grouped import grouped
from steerlens.cli.options import AsJson, Backend, Device, Dtype, FittedOn, Model

if TYPE_CHECKING:
    from steerlens.prompts import Prompt
    from steerlens.steering import Steering
    from steerlens.types import HookedModel

MOST_WORDS = 100


@dataclass(frozen=True)
class Read:
    """The steering files, their model and their strength."""

    steering: Annotated[list[Path], typer.Option(help="A steering file; repeatable.")]
    model: Model = "demo"
    fitted_on: FittedOn = None
    strength: Annotated[float, typer.Option(help="Scales every steering.")] = 1.0
    backend: Backend = "auto"
    device: Device = "cpu"
    dtype: Dtype = "float32"

    def loaded(self) -> "tuple[HookedModel, Steering]":
        """The model, and the files' steerings together."""
        inputs.require_steering_paths(self.steering)
        model = inputs.load(self.model, self.backend, self.device, dtype=self.dtype)
        return model, inputs.together(self.steering, model, self.strength, self.fitted_on)


@dataclass(frozen=True)
class Asked:
    """A text, as a user turn or raw."""

    prompt: Annotated[
        list[str] | None, typer.Option("--prompt", "-p", help="The user turn; repeatable.")
    ] = None
    system: Annotated[str | None, typer.Option(help="Instruction in the system turn.")] = None
    raw: Annotated[bool, typer.Option(help="The prompt is raw text, no template.")] = False

    def prompts(self) -> "list[Prompt]":
        """The prompts; ValueError for raw text with a system turn."""
        from steerlens.prompts import Conversation

        if self.raw and self.system is not None:
            raise ValueError("--raw has no turns, so --system has no place. Leave one of them out.")
        given = self.prompt or []
        return list(given) if self.raw else [Conversation(one, self.system) for one in given]


@grouped
def explain(*, read: Read, asked: Asked, as_json: AsJson = False) -> None:
    """What a steering would do to a prompt: which tokens, how far, what may be wrong with it."""
    prompts = asked.prompts()
    if not prompts:
        raise ValueError("Nothing was given to explain it on: --prompt TEXT, repeatable.")
    model, steering = read.loaded()
    found = steering.explain(model, prompts)
    content: dict[str, Any] = {
        "problems": list(found.problems),
        "kl": list(found.kl),
        "tokens": output.records(found.table),
    }
    output.say(content, as_json, str(found))


@grouped
def lens(
    *,
    read: Read,
    asked: Asked,
    top: Annotated[int, typer.Option(help="Words on either side.")] = 10,
    as_json: AsJson = False,
) -> None:
    """The words that a steering's directions point to; with --prompt, what it makes likelier."""
    from steerlens.lenses import lens as of_directions
    from steerlens.lenses import lens_of_change

    if not 1 <= top <= MOST_WORDS:
        raise ValueError(f"--top is from 1 to {MOST_WORDS}; found {top}.")
    prompts = asked.prompts()
    model, steering = read.loaded()
    if prompts:
        table = lens_of_change(steering, model, prompts, top=top)
    else:
        table = of_directions(steering, model, top=top)
    output.say(output.records(table), as_json, _shown(table))


def _shown(table: Any) -> str:
    """One line for each side of each direction."""
    lines = []
    for (layer, stream, name, side), rows in table.groupby(
        ["layer", "stream", "name", "side"], sort=False
    ):
        words = "  ".join(f"{token!r} {score:.2f}" for token, score in zip(
            rows["token"], rows["score"], strict=True
        ))  # fmt: skip
        lines.append(f"layer {layer} {stream} {name} {side}: {words}")
    return "\n".join(lines)
