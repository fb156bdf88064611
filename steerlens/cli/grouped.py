"""Options that belong together are one frozen dataclass; typer sees each of its fields.

Here too is what holds for the options of every command: what is written is no input and can be
written, and numbers are numbers. All of it is looked at before the command does anything.
"""

import inspect
from collections.abc import Callable, Iterator
from dataclasses import MISSING, fields, is_dataclass
from functools import wraps
from inspect import Parameter, Signature
from typing import Any, get_type_hints

from steerlens.cli import inputs
from steerlens.cli.given import keeping, require_files, require_numbers, require_texts


def grouped(command: Callable[..., None]) -> Callable[..., None]:
    """A command whose parameters may be dataclasses of options, as typer can read it.

    The fields of each dataclass stand in its place, so that options keep their order in `--help`.
    """
    hints = get_type_hints(command, include_extras=True)
    groups: dict[str, Any] = {name: hint for name, hint in hints.items() if is_dataclass(hint)}

    @wraps(command)
    def flat(**options: Any) -> None:
        _require(options, flat.__annotations__)
        given = dict(options)
        for name, group in groups.items():
            options[name] = group(**{item.name: options.pop(item.name) for item in fields(group)})
        with keeping(given, flat.__annotations__):
            command(**options)

    parameters = list(_flattened(inspect.signature(command), hints))
    flat.__signature__ = Signature(parameters)  # pyright: ignore[reportAttributeAccessIssue]
    flat.__annotations__ = {item.name: item.annotation for item in parameters}
    return flat


def _require(options: dict[str, Any], annotations: dict[str, Any]) -> None:
    """Raise an error for what no command can do anything with."""
    require_numbers(options, annotations)
    require_texts(options, annotations)
    require_files(options, annotations)
    if options.get("layers") is not None:
        inputs.require_layers(options["layers"])
    if "sinks" in options:
        from steerlens.sinks import require_times

        require_times(options["sinks"])


def _flattened(signature: Signature, hints: dict[str, Any]) -> Iterator[Parameter]:
    for parameter in signature.parameters.values():
        hint = hints[parameter.name]
        if is_dataclass(hint):
            own = get_type_hints(hint, include_extras=True)
            for item in fields(hint):
                default = Parameter.empty if item.default is MISSING else item.default
                yield option(item.name, own[item.name], default)
        else:
            yield option(parameter.name, hint, parameter.default)


def option(name: str, annotation: Any, default: Any = ...) -> Parameter:
    """One option, by keyword alone, so that one without a default may follow one with it."""
    default = Parameter.empty if default is ... else default
    return Parameter(name, Parameter.KEYWORD_ONLY, default=default, annotation=annotation)
