"""`steerlens bench plan | run | collect | script`: every method, tuned and tested alike."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import typer

from steerlens.cli import output
from steerlens.cli.grouped import grouped
from steerlens.cli.options import (
    AsJson,
    Backend,
    Device,
    Dtype,
    Templating,
    argument,
    folder_named,
)

app = typer.Typer(
    help="Compare every method on a model: tuned by one rule, tested with seeds and intervals.",
    no_args_is_help=True,
)

Folder = Annotated[
    Path, typer.Option(help="The folder of the bench.", parser=folder_named, metavar="<path>")
]


def names_in(text: str, known: Iterable[str] = ()) -> tuple[str, ...]:
    """Names with commas between them; a known one may hold commas itself, as "CAA, 4 examples"."""
    names, parts, found = {_squeezed(name): name for name in known}, text.split(","), []
    while parts:
        n = max((n for n in range(1, len(parts) + 1) if _squeezed(",".join(parts[:n])) in names),
                default=1)  # fmt: skip
        asked = _squeezed(",".join(parts[:n]))
        found += [names.get(asked, asked)] * bool(asked)
        parts = parts[n:]
    return tuple(found)


def _squeezed(text: str) -> str:
    return " ".join(text.split())


def _numbers(name: str, text: str, kind: Any) -> tuple[Any, ...]:
    try:
        return tuple(kind(part) for part in text.split(","))
    except ValueError as error:
        raise ValueError(f"{name} is numbers with commas between them; found {text!r}.") from error


@dataclass(frozen=True)
class Planned(Templating):
    """What is compared on what, and how all are tuned."""

    model: Annotated[
        str, typer.Option(help="demo, smollm2, a folder, a GGUF file, a hub name.")
    ] = "demo"
    data: Annotated[
        str,
        typer.Option(
            help="demo, smollm2, a JSON file of attributes (docs/bench.md), or data that "
            "read_pairs knows: multiple choice, questions, answers (docs/interchange.md)."
        ),
    ] = "demo"
    instruction: Annotated[
        str | None,
        typer.Option(help="Asks for the attribute, where the data have no instruction."),
    ] = None
    attributes: Annotated[
        str, typer.Option(help="Of the data, with commas between; empty for all.")
    ] = ""
    methods: Annotated[
        str, typer.Option(help="Of the catalogue, with commas between; empty for the usual ones.")
    ] = ""
    seeds: Annotated[int, typer.Option(help="Of fits and of samples.")] = 3
    configurations: Annotated[
        int, typer.Option(help="Layers or rates that every method may choose from, 1 to 3.")
    ] = 1
    strengths: Annotated[
        str, typer.Option(help="Tried on validation questions; 1 has the KL of the prompt.")
    ] = "0.5,0.71,1,1.41,2,2.83"
    rules: Annotated[
        str, typer.Option(help="How a strength is chosen: harmonic, C80, equal KL.")
    ] = "harmonic,C80,equal KL"
    questions: Annotated[
        str, typer.Option(help="At most so many of training, validation and test; 0 for all.")
    ] = "0,0,0"
    examples: Annotated[
        int, typer.Option(help="Training questions that a seed draws; 0 for all.")
    ] = 0
    samples: Annotated[int, typer.Option(help="Completions of a validation question.")] = 1
    max_new_tokens: Annotated[int, typer.Option(help="Of a completion.")] = 48
    backend: Backend = "auto"
    device: Device = "cpu"
    dtype: Dtype = "float32"
    as_json: AsJson = False

    def loading(self) -> Any:
        """How the model is loaded; ValueError for what cannot be."""
        from steerlens.analysis.bench.loading import Loading  # pyright: ignore[reportMissingImports]

        return Loading(
            self.backend,
            self.device,
            self.dtype,
            self.default_system,
            self.instruction_in,
            dict(argument(text) for text in self.template_argument or ()),
        )

    def spec(self, folder: Path, tasks: str | None) -> Any:
        """The settings of the bench; ValueError for what cannot be."""
        from steerlens.analysis.bench.catalogue import METHODS, STANDARD  # pyright: ignore[reportMissingImports]
        from steerlens.analysis.bench.spec import Spec, tasks_text  # pyright: ignore[reportMissingImports]

        most = tuple(number or None for number in _numbers("--questions", self.questions, int))
        if len(most) != 3 or min(number or 0 for number in most) < 0:
            raise ValueError(
                "--questions is three numbers, of training, validation and test, 0 for all; found "
                f"{self.questions!r}."
            )
        spec = Spec(
            model=self.model,
            data=self.data,
            methods=names_in(self.methods, METHODS) or STANDARD,
            seeds=self.seeds,
            configurations=self.configurations,
            factors=_numbers("--strengths", self.strengths, float),
            rules=names_in(self.rules),
            most=most,
            examples=self.examples or None,
            samples=self.samples,
            max_new_tokens=self.max_new_tokens,
            loading=self.loading(),
        )
        known = () if self.data == "demo" else spec.tasks(folder, tasks_text(spec, folder, tasks))
        return replace(spec, attributes=names_in(self.attributes, known))


def counted(n: int, name: str) -> str:
    """A number with its noun."""
    return f"{n} {name}{'s' * (n != 1)}"


@app.command()
@grouped
def plan(*, out: Folder, planned: Planned) -> None:
    """Write down what will be run, and say how many cells that is. Nothing is computed yet."""
    from steerlens.analysis.bench.bench import Bench  # pyright: ignore[reportMissingImports]
    from steerlens.analysis.bench.from_pairs import tasks_made_of  # pyright: ignore[reportMissingImports]

    tasks = tasks_made_of(planned.data, planned.instruction)
    bench = Bench.planned(out, planned.spec(out, tasks), tasks)
    left, total = len(bench.plan.left()), bench.plan.total()
    content = {
        "folder": str(out),
        "attributes": list(bench.tasks),
        "methods": list(bench.spec.methods),
        "cells": total,
        "done": len(bench.plan.named()) - left,
    }
    text = (
        f"{counted(len(bench.spec.methods), 'method')} on "
        f"{counted(len(bench.tasks), 'attribute')} of {bench.spec.model}: about {total} cells in "
        f"{out}, {content['done']} of them done.\n"
        f"Next: steerlens bench run --out {out}"
    )
    output.say(content, planned.as_json, text)


@app.command()
@grouped
def run(
    *,
    out: Folder,
    workers: Annotated[int, typer.Option(help="Processes, each with the model in memory.")] = 1,
    backend: Annotated[
        str, typer.Option(help="loky (this machine), dask, ray, or submitit (SLURM).")
    ] = "loky",
    scheduler: Annotated[
        str | None,
        typer.Option(help="The address of a running Dask scheduler; submitit's cluster (local)."),
    ] = None,
    shard: Annotated[str, typer.Option(help="i/n: only that part of the cells, i from 0.")] = "0/1",
    as_json: AsJson = False,
) -> None:
    """Make the cells that are not done. Stop it at any time: it goes on where it was."""
    from steerlens.analysis.bench import parallel  # pyright: ignore[reportMissingImports]
    from steerlens.analysis.bench.bench import Bench  # pyright: ignore[reportMissingImports]

    made = parallel.run(
        out, workers=workers, backend=backend, scheduler=scheduler, shard=_shard(shard)
    )
    left = len(Bench.of(out).plan.left())
    text = f"{counted(made, 'cell')} made by these workers, {left or 'none'} left."
    following = "run" if left else "collect"
    output.say(
        {"folder": str(out), "made": made, "left": left},
        as_json,
        f"{text}\nNext: steerlens bench {following} --out {out}",
    )


def _shard(text: str) -> tuple[int, int]:
    try:
        number, n = (int(part) for part in text.split("/"))
    except ValueError as error:
        raise ValueError(f"--shard is i/n, such as 0/4; found {text!r}.") from error
    return number, n


@app.command()
def collect(*, out: Folder, as_json: AsJson = False) -> None:
    """Tables as CSV, and an HTML report, of what is done so far."""
    from steerlens.analysis.bench.bench import Bench  # pyright: ignore[reportMissingImports]
    from steerlens.analysis.bench.report import write_report  # pyright: ignore[reportMissingImports]

    bench = Bench.of(out)
    written = write_report(bench, out)
    missing = len(bench.collected.left)
    text = "\n".join(
        [
            *bench.collected.found,
            *([f"{counted(missing, 'cell')} not done yet, and left out."] if missing else []),
            f"The report is at {written}; the tables are beside it.",
        ]
    )
    content = {"report": str(written), "missing": missing, "found": bench.collected.found}
    output.say(content, as_json, text)


@app.command()
def script(
    *,
    out: Folder,
    shards: Annotated[int, typer.Option(help="Elements of the array.")] = 8,
    cpus: Annotated[int, typer.Option(help="Of each element.")] = 4,
    memory: Annotated[str, typer.Option(help="Of each element.")] = "16G",
    time: Annotated[str, typer.Option(help="Of each element.")] = "12:00:00",
) -> None:
    """Print a SLURM array job that runs the bench: steerlens bench script --out DIR | sbatch."""
    from steerlens.analysis.bench.script import slurm_script  # pyright: ignore[reportMissingImports]
    from steerlens.analysis.bench.spec import read_spec  # pyright: ignore[reportMissingImports]

    read_spec(out)  # so that no job is queued for a folder that holds no bench
    print(slurm_script(out, shards, cpus=cpus, memory=memory, time=time), end="")
