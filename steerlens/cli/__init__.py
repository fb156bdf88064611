"""The command line. Heavy imports wait until a command runs, so that `--help` is quick."""

import sys
import warnings
from collections.abc import Sequence
from typing import Any

import typer

from steerlens.cli import explore, fit, generate, measure, models

app = typer.Typer(
    help="Steer language models by prompt or by activation, and see what it does per token.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
COMMANDS = (
    generate.demo,
    generate.generate,
    measure.compare,
    measure.faithfulness,
    explore.explore,
    models.models,
    models.info,
    models.doctor,
)
for command in COMMANDS:
    app.command()(command)
app.add_typer(fit.app, name="fit")


def _warn(message: Any, category: Any, filename: str, lineno: int, *_: Any) -> None:
    print(f"warning: {message}", file=sys.stderr)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; user errors are one line on stderr and exit code 2."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in arguments
    arguments = [argument for argument in arguments if argument != "--debug"]
    warnings.showwarning = _warn
    try:
        app(arguments, prog_name="steerlens")
    except (ValueError, TypeError, OSError) as error:
        if debug:
            raise
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from None
