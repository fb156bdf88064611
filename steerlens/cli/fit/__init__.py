"""`steerlens fit`: a file for each group of commands that are written by hand."""

import typer

from steerlens.cli.fit.clas import fit_clas
from steerlens.cli.fit.cold import fit_cold_fd, fit_cold_kernel
from steerlens.cli.fit.contrasts import fit_act_add, fit_caa
from steerlens.cli.fit.directions import fit_direction
from steerlens.cli.fit.psr import fit_psr

app = typer.Typer(help="Fit a steering and write it to a file.", no_args_is_help=True)
BY_HAND = {
    "act-add": fit_act_add,
    "caa": fit_caa,
    "psr": fit_psr,
    "direction": fit_direction,
    "clas": fit_clas,
    "cold-kernel": fit_cold_kernel,
    "cold-fd": fit_cold_fd,
}
for name, command in BY_HAND.items():
    app.command(name)(command)
