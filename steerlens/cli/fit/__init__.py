"""`steerlens fit`: a file for each group of commands written by hand; `generated` has the others.

A method that `steerlens.methods` exports and that is not here gets a command from the signature of
its `fit`. Its module is imported when the command is asked for, not for a list of commands.
"""

import importlib
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_command

from steerlens.cli.fit.clas import fit_clas
from steerlens.cli.fit.cold import fit_cold_fd, fit_cold_kernel
from steerlens.cli.fit.contrasts import fit_act_add, fit_caa
from steerlens.cli.fit.directions import fit_direction
from steerlens.cli.fit.psr import fit_psr
from steerlens.exports import exported, title_of

BY_HAND = {
    "act-add": ("ActAdd", fit_act_add),
    "caa": ("CAA", fit_caa),
    "psr": ("PSR", fit_psr),
    "direction": (None, fit_direction),
    "clas": ("CLAS", fit_clas),
    "cold-kernel": ("ColdKernel", fit_cold_kernel),
    "cold-fd": ("ColdFD", fit_cold_fd),
}
"""The method and the function of each command."""


def generated_names() -> dict[str, str]:
    """The method of each command that is generated; the command is called as the method's file."""
    written = {method for method, _ in BY_HAND.values()}
    return {
        module.rpartition(".")[2].replace("_", "-"): method
        for method, module in exported("methods").items()
        if method not in written
    }


class FitGroup(TyperGroup):
    """The commands by hand, then the generated ones."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        for name, method in generated_names().items():
            title = title_of(exported("methods")[method])
            self.add_command(TyperCommand(name, help=title))

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[Any, Any, list[str]]:
        """The command that is asked for, with its options."""
        name, command, rest = super().resolve_command(ctx, args)
        method = generated_names().get(name or "")
        return name, command if method is None else _command_of(name, method), rest


def _command_of(name: Any, method: str) -> Any:
    from steerlens.cli.fit.generated import command_of

    module = importlib.import_module(exported("methods")[method])
    alone = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    alone.command(name)(command_of(getattr(module, method)))
    return get_command(alone)


app = typer.Typer(cls=FitGroup, help="Fit a steering and write it to a file.", no_args_is_help=True)
for name, (_, command) in BY_HAND.items():
    app.command(name)(command)
