"""The command line. Heavy imports wait until a command runs, so that `--help` is quick."""

import sys
import warnings
from collections.abc import Sequence
from typing import Any

import typer

from steerlens.cli.fitting import fit_act_add, fit_caa, fit_direction
from steerlens.cli.fitting_clas import fit_clas
from steerlens.cli.fitting_cold import fit_cold_fd, fit_cold_kernel
from steerlens.cli.fitting_psr import fit_psr
from steerlens.cli.looking import doctor, info, models
from steerlens.cli.measuring import compare, faithfulness
from steerlens.cli.writing import demo, generate

app = typer.Typer(
    help="Steer language models by prompt or by activation, and see what it does per token.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
fit_app = typer.Typer(help="Fit a steering and write it to a file.", no_args_is_help=True)
FITS = {
    "act-add": fit_act_add,
    "caa": fit_caa,
    "psr": fit_psr,
    "direction": fit_direction,
    "clas": fit_clas,
    "cold-kernel": fit_cold_kernel,
    "cold-fd": fit_cold_fd,
}

for command in (demo, generate, compare, faithfulness, models, info, doctor):
    app.command()(command)
for name, command in FITS.items():
    fit_app.command(name)(command)
app.add_typer(fit_app, name="fit")


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
