"""`steerlens export`: a steering file for another tool."""

import importlib
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from steerlens.cli import inputs, output
from steerlens.cli.given import files_of
from steerlens.cli.grouped import grouped
from steerlens.cli.options import AsJson, Backend, Device, Dtype, FittedOn, Model, argument
from steerlens.parsing import short
from steerlens.whole import require_apart, require_place

if TYPE_CHECKING:
    from steerlens.prompts import Prompts


@dataclass(frozen=True)
class Exporting:
    """What is written, for which tool, and what to do where that tool cannot do the same."""

    to: Annotated[
        str, typer.Option(help="The tool, or its kind of file; docs/interchange.md lists them.")
    ]
    out: Annotated[Path, typer.Option("--out", "-o", help="The file or new folder to write.")]
    model: Model = "demo"
    fitted_on: FittedOn = None
    strength: Annotated[float, typer.Option(help="1 is as in the file.")] = 1.0
    approximate: Annotated[
        bool,
        typer.Option(
            help="Write the nearest constant where the tool cannot express the steering, and "
            "measure on --texts how far it is from it."
        ),
    ] = False
    texts: Annotated[
        Path | None,
        typer.Option(
            help='JSON Lines of {"user": ..., "response": ...} for --approximate, the system turn '
            "optional as well; the steered model answers those without a response."
        ),
    ] = None
    option: Annotated[
        list[str] | None,
        typer.Option(help="For the target: dtype=bfloat16; repeatable."),
    ] = None
    backend: Backend = "auto"
    device: Device = "cpu"
    dtype: Dtype = "float32"
    as_json: AsJson = False

    @property
    def options(self) -> dict[str, Any]:
        """The target's own options."""
        return dict(argument(text, "--option") for text in self.option or ())

    def require(self, steering: Path) -> "Prompts | None":
        """The texts; an error for whatever can be found out before the model is loaded."""
        from steerlens.interchange.export import TARGETS
        from steerlens.jsonl import read_prompts

        if self.to not in TARGETS:
            raise ValueError(f"--to is one of {', '.join(TARGETS)}; found {short(self.to)}.")
        if self.approximate != (self.texts is not None):
            raise ValueError(
                "--approximate measures how far the nearest constant is on --texts FILE: give both "
                "of them, or none."
            )
        inputs.require_steering_paths([steering])
        read = {
            "STEERING": [steering],
            "--texts": [self.texts] if self.texts else [],
            "--model": files_of(self.model),
            "--fitted-on": files_of(self.fitted_on) if self.fitted_on else [],
        }
        require_apart({"--out": [self.out]}, read)
        self._require_place()
        _ = self.options
        return None if self.texts is None else read_prompts(self.texts)

    def _require_place(self) -> None:
        from steerlens.interchange.export import TARGETS
        from steerlens.interchange.folders import require_folder_place

        target = importlib.import_module(TARGETS[self.to][0])
        (require_folder_place if getattr(target, "FOLDER", False) else require_place)(self.out)


@grouped
def export(
    steering: Annotated[Path, typer.Argument(help="A steering file.")], exporting: Exporting
) -> None:
    """A steering file for another tool: the same effect there, or an error that says why not."""
    from steerlens.reading import load_steering

    texts = exporting.require(steering)
    model = inputs.load(exporting.model, exporting.backend, exporting.device, None, exporting.dtype)
    read = load_steering(steering, model, fitted_on=exporting.fitted_on)
    done = read.scaled(exporting.strength).export(
        exporting.out,
        to=exporting.to,
        model=model,
        approximate=exporting.approximate,
        texts=texts,
        **exporting.options,
    )
    content = {
        "target": done.target,
        "files": [str(path) for path in done.files],
        "strength": exporting.strength,
        "difference": asdict(done.difference) if done.difference else None,
    }
    output.say(content, exporting.as_json, str(done))
