"""`steerlens lint`: what is wrong with pairs, before anything is fitted on them."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from steerlens.cli import inputs, output
from steerlens.cli.options import AsJson, Model

if TYPE_CHECKING:
    from steerlens.pairs.records import Pairs

FOUND = 3
"""The exit code where something was found: 1 and 2 are errors of the program and of the usage."""
FAIL_ON = ("error", "warning", "note", "never")

Read = Annotated[
    Path,
    typer.Argument(help="A file of pairs, contrasts or choices that read_pairs knows, or '-'."),
]


def lint(
    pairs: Read,
    test: Annotated[Path | None, typer.Option(help="Test data: what leaks into it?")] = None,
    group: Annotated[str | None, typer.Option(help="Of a file with several, one.")] = None,
    columns: Annotated[
        str | None, typer.Option(help="Two columns of a table: POSITIVE,NEGATIVE.")
    ] = None,
    split: Annotated[str | None, typer.Option(help="Of a saved data set with several.")] = None,
    steering: Annotated[
        Path | None, typer.Option(help="Fitted on the pairs: does it read words, or more?")
    ] = None,
    paraphrases: Annotated[
        Path | None, typer.Option(help="The same attribute in other words, for --steering.")
    ] = None,
    model: Model = "demo",
    fail_on: Annotated[
        str, typer.Option(help="Exit code 3 from this severity on: error, warning, note, never.")
    ] = "warning",
    as_json: AsJson = False,
) -> None:
    """Look at pairs before anything is fitted: duplicates, contradictions, lengths, words, leaks.

    Every finding comes with its numbers, examples, and what to do. With --steering, the AUROC of
    its direction on the pairs, on paraphrases, and on their telling words alone.
    """
    from steerlens.checks import require_choice
    from steerlens.pairs.lint import lint as look

    require_choice("--fail-on", fail_on, FAIL_ON)
    if paraphrases is not None and steering is None:
        raise ValueError("--paraphrases are scored by a direction: give --steering FILE as well.")
    given = _given(pairs, columns, split, group)
    options: dict[str, Any] = {"test": None if test is None else _given(test, columns, split, None)}
    if steering is not None:
        from steerlens.reading import load_steering

        inputs.require_steering_paths([steering])
        loaded = inputs.load(model, "auto", "cpu")
        options |= {"model": loaded, "steering": load_steering(steering, loaded)}
        options["paraphrases"] = None if paraphrases is None else _given(paraphrases)
    found = look(given, **options)
    output.say(found.as_json(), as_json, str(found))
    if fail_on != "never" and found.at_least(fail_on):  # pyright: ignore[reportArgumentType]
        raise typer.Exit(FOUND)


def _given(
    path: Path, columns: str | None = None, split: str | None = None, group: str | None = None
) -> "Pairs":
    from steerlens.pairs.reading import read_pairs

    two = None if columns is None else _columns(columns)
    found = read_pairs(path, columns=two, split=split)
    return found if group is None else found.only(group)


def _columns(text: str) -> list[str | int]:
    """Names, or numbers from 0 where a table has no header."""
    parts = [part.strip() for part in text.split(",")]
    if all(part.isdecimal() and len(part) < 5 for part in parts):
        return [int(part) for part in parts]
    return list(parts)
