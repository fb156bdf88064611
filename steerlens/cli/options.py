"""The options that several commands take, and those of them that go together."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

Model = Annotated[
    str, typer.Option("--model", "-m", help="'demo', a Hugging Face folder, or a hub name.")
]
Backend = Annotated[str, typer.Option(help="auto, hooked or bridge.")]
Device = Annotated[str, typer.Option(help="cpu, cuda or mps.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for scripts.")]
Out = Annotated[Path, typer.Option("--out", "-o", help="The file to write.")]
Pairs = Annotated[
    Path, typer.Option(help='JSON Lines of {"user": ..., "system": ..., "response": ...}.')
]
Contrasts = Annotated[Path, typer.Option(help='JSON Lines of {"positive": ..., "negative": ...}.')]
Layers = Annotated[
    str, typer.Option(help='Steered layers: "4", "2,4", "2-5", "-1" (the last) or "all".')
]
Read = Annotated[str, typer.Option(help="Scope whose activations are read (their mean).")]
Steered = Annotated[str, typer.Option(help="Scope that is steered.")]
Seed = Annotated[int, typer.Option(help="Seed of the sampling noise.")]
MaxNewTokens = Annotated[int, typer.Option(help="The most tokens that a completion may have.")]


@dataclass(frozen=True)
class RunOptions:
    """The model that a fit is for, where it is run, and how the outcome is printed."""

    model: Model = "demo"
    backend: Backend = "auto"
    device: Device = "cpu"
    as_json: AsJson = False

    @property
    def place(self) -> tuple[str, str, str]:
        """What `inputs.load` needs."""
        return self.model, self.backend, self.device
