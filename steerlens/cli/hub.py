"""`steerlens push` and `pull`: steerings on the Hugging Face hub."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import typer

from steerlens.cli import inputs, output
from steerlens.cli.grouped import grouped
from steerlens.cli.options import AsJson, Backend, Dtype, Out

OnModel = Annotated[
    str | None,
    typer.Option("--model", "-m", help="Check the file against this model, by fingerprint."),
]


@dataclass(frozen=True)
class About:
    """What the card says beyond what is in the file."""

    base_model: Annotated[
        str | None,
        typer.Option(help="Name of the model on the hub, where the file names a local one."),
    ] = None
    licence: Annotated[
        str | None, typer.Option(help="Licence of the steering: mit, apache-2.0, ...")
    ] = None
    faithfulness: Annotated[
        Path | None, typer.Option(help="What `steerlens faithfulness --json` printed.")
    ] = None
    measured_on: Annotated[str, typer.Option(help="On which texts that was measured.")] = ""
    dataset: Annotated[
        list[str] | None, typer.Option(help="Name of a data set on the hub; repeatable.")
    ] = None
    also: Annotated[
        list[Path] | None, typer.Option(help="Another file for the repository; repeatable.")
    ] = None


@grouped
def push(
    *,
    steering: Annotated[Path, typer.Argument(help="A steering file.")],
    to: Annotated[str, typer.Option(help="The repository: owner/name. Made if it is not there.")],
    about: About,
    model: OnModel = None,
    private: Annotated[bool, typer.Option("--private", help="Make a private repository.")] = False,
    backend: Backend = "auto",
    dtype: Dtype = "float32",
    as_json: AsJson = False,
) -> None:
    """Publish a steering file on the Hugging Face hub, with a card, in one commit.

    The token is that of `hf auth login` or of HF_TOKEN. What is published stays public in the
    repository's history.
    """
    from steerlens.interchange import hub

    inputs.require_steering_paths([steering])
    measured = None
    if about.faithfulness is not None:
        from steerlens.parsing import bytes_of_input
        from steerlens.reading import read_steering

        named = inputs.method_of(read_steering(steering))
        measured = hub.rows_of_report(bytes_of_input(about.faithfulness), [named])
    done = hub.push(
        steering,
        to,
        model=None if model is None else inputs.load(model, backend, "cpu", dtype=dtype),
        base_model=about.base_model,
        licence=about.licence,
        faithfulness=measured,
        measured_on=about.measured_on,
        datasets=about.dataset or (),
        also=about.also or (),
        private=private,
    )
    output.say(asdict(done), as_json, str(done))


@grouped
def pull(
    *,
    repository: Annotated[str, typer.Argument(help="owner/name, or owner/name@revision.")],
    out: Out,
    file: Annotated[str, typer.Option(help="Its name in the repository.")] = "steering.safetensors",
    model: OnModel = None,
    backend: Backend = "auto",
    dtype: Dtype = "float32",
    as_json: AsJson = False,
) -> None:
    """Fetch a steering file from the Hugging Face hub, checked to be whole.

    Without a revision it is the newest; which one is printed, and pins it.
    """
    from steerlens.interchange import hub

    loaded = None if model is None else inputs.load(model, backend, "cpu", dtype=dtype)
    done = hub.pull(repository, out, model=loaded, file=file)
    output.say({**asdict(done), "file": str(done.file)}, as_json, str(done))
