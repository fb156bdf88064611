"""The command line. Heavy imports wait until a command runs, so that `--help` is quick."""

import sys
import warnings
from collections.abc import Sequence
from typing import Any

import typer

from steerlens.cli import (
    bench,
    explore,
    export,
    fit,
    generate,
    hub,
    importing,
    lint,
    look,
    measure,
    models,
    sweep,
)
from steerlens.cli.given import Interrupted
from steerlens.parsing import harmless

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
    sweep.sweep,
    lint.lint,
    explore.explore,
    export.export,
    look.explain,
    look.lens,
    models.models,
    models.info,
    models.doctor,
    hub.push,
    hub.pull,
)
for command in COMMANDS:
    app.command()(command)
app.command("import")(importing.import_vectors)
app.add_typer(fit.app, name="fit")
app.add_typer(bench.app, name="bench")


def _warn(message: Any, category: Any, filename: str, lineno: int, *_: Any) -> None:
    print(f"warning: {_cut(harmless(str(message)))}", file=sys.stderr)


EXPECTED = (
    ValueError,
    TypeError,
    OSError,
    ImportError,
    RuntimeError,
    MemoryError,
    RecursionError,
    OverflowError,
)
"""What can go wrong without a mistake in this program: inputs, packages, the machine."""
STOPPED = 130
"""The exit code after Ctrl-C."""
MOST = 2000
"""The longest message."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line.

    What a user can mend is one line on stderr and exit code 2, a mistake in the usage too. What is
    a mistake of this program is one line and exit code 1. `--debug` shows where it was. Ctrl-C is
    exit code 130, and a line that says what was kept.
    """
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in arguments
    arguments = [argument for argument in arguments if argument != "--debug"]
    warnings.showwarning = _warn
    try:
        code = app(arguments, prog_name="steerlens", standalone_mode=False)
    except (Interrupted, typer.Abort, KeyboardInterrupt) as error:
        print(f"stopped. {_in_one_line(str(error))}".rstrip(), file=sys.stderr)
        raise SystemExit(STOPPED) from None
    except Exception as error:
        if debug:
            raise
        usage = _usage(error)
        expected = usage is not None or isinstance(error, EXPECTED)
        print(f"error: {usage or _line(error, expected)}", file=sys.stderr)
        raise SystemExit(2 if expected else 1) from None
    if code == STOPPED:  # as newer versions of typer tell of Ctrl-C
        print("stopped.", file=sys.stderr)
    raise SystemExit(code if isinstance(code, int) else 0)


def _usage(error: Exception) -> str | None:
    """What was wrong with the arguments themselves, and the command that explains them."""
    ask: Any = getattr(error, "format_message", None)
    if ask is None:
        return None
    context = getattr(error, "ctx", None)
    command = context.command_path if context is not None else "steerlens"
    said = _in_one_line(ask()) or "a command is missing"
    return f"{said.rstrip('.')}. '{command} --help' says what there is."


def _line(error: Exception, expected: bool) -> str:
    """An exception in one line."""
    said = _in_one_line(str(error))
    if isinstance(error, MemoryError):
        return f"there is too little memory{f' ({said})' * bool(said)}. Ask for less at a time."
    if isinstance(error, RecursionError):
        return "what was given is nested too deeply. Give it flat."
    if expected and said:
        return said
    name = type(error).__name__
    return (
        f"{name}{f': {said}' * bool(said)}. This is a mistake in steerlens: the same command with "
        "--debug shows where. Please report it."
    )


def _in_one_line(text: str) -> str:
    """One line that commands no terminal, and fits on one."""
    return _cut(harmless(" ".join(text.split())))


def _cut(text: str) -> str:
    """The text; of a very long one the beginning, and how long it is."""
    return text if len(text) <= MOST else f"{text[:MOST]}... ({len(text)} characters)"
