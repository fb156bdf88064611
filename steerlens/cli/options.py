"""The options that several commands take, and those of them that go together."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from steerlens.templates import Template

Model = Annotated[
    str, typer.Option("--model", "-m", help="'demo', a Hugging Face folder, or a hub name.")
]
Backend = Annotated[str, typer.Option(help="auto, hooked or bridge.")]
Device = Annotated[str, typer.Option(help="cpu, cuda or mps.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for scripts.")]
Out = Annotated[Path, typer.Option("--out", "-o", help="The file to write.")]
Pairs = Annotated[
    Path,
    typer.Option(
        help='JSON Lines of {"user": ..., "system": ..., "response": ...}, or of several turns: '
        '{"messages": [{"role": ..., "content": ...}, ...], "response": ...}.'
    ),
]
Contrasts = Annotated[Path, typer.Option(help='JSON Lines of {"positive": ..., "negative": ...}.')]
Layers = Annotated[
    str, typer.Option(help='Steered layers: "4", "2,4", "2-5", "-1" (the last) or "all".')
]
Read = Annotated[str, typer.Option(help="Scope whose activations are read (their mean).")]
Steered = Annotated[str, typer.Option(help="Scope that is steered.")]
Sinks = Annotated[
    float,
    typer.Option(
        help="Tokens whose norm is above so many times the median are left out; inf keeps all."
    ),
]
SINK_TIMES = 4.0  # steerlens.sinks.SINK, which waits for torch; a test holds them together
Seed = Annotated[int, typer.Option(help="Seed of the sampling noise.")]
MaxNewTokens = Annotated[int, typer.Option(help="The most tokens that a completion may have.")]


@dataclass(frozen=True)
class Templating:
    """How conversations are written down, where the model's chat template leaves a choice."""

    default_system: Annotated[
        str | None,
        typer.Option(
            help="System text of a conversation that has none: a text, or none for no system turn "
            "at all; default: what the model's chat template puts there by itself."
        ),
    ] = None
    instruction_in: Annotated[
        str,
        typer.Option(help="system, or user: the user turn, for templates without a system role."),
    ] = "system"
    template_argument: Annotated[
        list[str] | None,
        typer.Option(help="For the chat template: enable_thinking=false; repeatable."),
    ] = None

    def template(self) -> "Template":
        """What these options choose of the model's own template."""
        from steerlens.templates import Own, Template

        given = {"none": None, None: Own.DEFAULT}
        return Template(
            system=given.get(self.default_system, self.default_system),
            instruction=self.instruction_in,  # pyright: ignore[reportArgumentType]  (it is checked)
            arguments=dict(_argument(text) for text in self.template_argument or ()),
        )


def _argument(text: str) -> tuple[str, Any]:
    """NAME=VALUE as a name and a value: JSON where it is that, as false and 3 are, else text."""
    name, equals, value = text.partition("=")
    if not name.isidentifier() or not equals:
        raise ValueError(f"--template-argument is NAME=VALUE; found {text!r}.")
    written = {"True": "true", "False": "false", "None": "null"}.get(value, value)
    try:
        return name, json.loads(written)
    except ValueError:
        return name, value


@dataclass(frozen=True)
class RunOptions(Templating):
    """The model that a fit is for, where it is run, and how the outcome is printed."""

    model: Model = "demo"
    backend: Backend = "auto"
    device: Device = "cpu"
    as_json: AsJson = False

    @property
    def place(self) -> "tuple[str, str, str, Template]":
        """What `inputs.load` needs."""
        return self.model, self.backend, self.device, self.template()
