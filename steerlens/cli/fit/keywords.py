"""The keywords of a method's `fit` as options of a command."""

import inspect
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from inspect import Parameter
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import typer

from steerlens.checks import require_choice
from steerlens.cli.data import read_contrasts, read_prompt_pairs
from steerlens.cli.given import Written
from steerlens.cli.grouped import option
from steerlens.prompts import PromptPair, Prompts
from steerlens.scopes import Scope, scope_named
from steerlens.training.schedule import Schedule

SCHEDULE = {
    "epochs": "Passes over the pairs.",
    "steps": "Updates, whatever the number of pairs; default: as the method has it.",
    "batch_size": "Pairs a step; default: as the method has it.",
    "learning_rate": "Default: as the method has it.",
    "seed": "Seed of the fit and of the sampling noise.",
}
USUAL = {
    "read": "Scope whose activations are read (their mean).",
    "scope": "Scope that is steered.",
    "seed": "Seed of the fit and of the sampling noise.",
    "validation": "Pairs that choose which step is kept.",
}
"""What keywords mean where the docstring of `fit` does not say."""
SIMPLE = (bool, int, float, str)
WRITTEN = ("checkpoint",)
"""Keywords whose file is written."""


@dataclass(frozen=True)
class Keyword:
    """One keyword of `fit`: its options, and how their values become the keyword's.

    `of_pairs` says that the value is lines of a file, which the model may still have to answer.
    """

    name: str
    options: tuple[Parameter, ...]
    read: Callable[..., Any]
    of_pairs: bool = False

    def value(self, given: dict[str, Any]) -> Any:
        """The value of the keyword; ValueError where an option's value is none."""
        return self.read(*(given[item.name] for item in self.options))


def keywords_of(fit: Callable[..., Any]) -> Iterator[Keyword]:
    """The keywords that fit on a command line; TypeError if one does not and is needed."""
    text = inspect.getdoc(fit) or ""
    for parameter in inspect.signature(fit, eval_str=True).parameters.values():
        if parameter.kind is not Parameter.KEYWORD_ONLY or parameter.name == "progress":
            continue
        keyword = _keyword(parameter, sentence_on(parameter.name, text))
        if keyword is not None:
            yield keyword
        elif parameter.default is Parameter.empty:
            raise TypeError(
                f"{fit.__qualname__} needs {parameter.name}, which no option can give. Write its "
                "command by hand, as steerlens/cli/fit/clas.py does."
            )


def sentence_on(name: str, text: str) -> str:
    """What a docstring says of a keyword: the first sentence with its name in backticks."""
    sentences = re.split(r"(?<=[.;])\s+", " ".join(text.split()))
    about = (sentence for sentence in sentences if f"`{name}`" in sentence)
    return next(about, USUAL.get(name, f"The method's {name.replace('_', ' ')}."))


def _keyword(parameter: Parameter, text: str) -> Keyword | None:
    name, annotation, default = parameter.name, parameter.annotation, parameter.default
    inside = get_args(annotation)
    if get_origin(annotation) is Literal and all(isinstance(choice, str) for choice in inside):
        option_ = _option(name, str, f"{text} One of: {', '.join(inside)}.", default)
        return Keyword(name, (option_,), lambda given: _chosen(name, given, inside))
    if annotation is Schedule:
        return _schedule(name, default)
    if get_origin(annotation) is Sequence and inside == (PromptPair,):
        return _file_of_pairs(name, text, default)
    if annotation == tuple[Prompts, Prompts]:
        return _file_of_contrasts(name, text, default)
    kinds = inside if get_origin(annotation) in (Union, UnionType) else (annotation,)
    if Scope in kinds:
        default = "" if default is None else default if default is Parameter.empty else str(default)
        read = lambda given: scope_named(given) if given else None  # noqa: E731
        return Keyword(name, (_option(name, str, text, default),), read)
    simple = Path if Path in kinds else next((kind for kind in SIMPLE if kind in kinds), None)
    if simple is None or set(kinds) - {simple, str, NoneType}:
        return None
    kind = simple | None if NoneType in kinds else simple
    return Keyword(name, (_option(name, kind, text, default),), lambda given: given)


def _chosen(name: str, given: str, choices: tuple[str, ...]) -> str:
    require_choice(name, given, choices)
    return given


def _schedule(name: str, default: Any) -> Keyword:
    whole = Schedule() if default is Parameter.empty else default
    kinds = {item.name: item.type for item in fields(Schedule)} | {"batch_size": int | None}
    usual = {item: getattr(whole, item) for item in SCHEDULE}
    usual["batch_size"] = None if whole.batch_size == "auto" else whole.batch_size
    options = (_option(name, kinds[name], text, usual[name]) for name, text in SCHEDULE.items())
    return Keyword(name, tuple(options), lambda *given: _scheduled(whole, given))


def _scheduled(whole: Schedule, given: Sequence[Any]) -> Schedule:
    """The schedule with the values of its options.

    Steps alone take the place of the method's own passes; with other passes they are the least.
    """
    values = dict(zip(SCHEDULE, given, strict=True))
    if values["steps"] != whole.steps and values["epochs"] == whole.epochs:
        values["epochs"] = None
    if values["batch_size"] is None:  # not given
        values["batch_size"] = whole.batch_size
    return replace(whole, **values)


def _file_of_pairs(name: str, text: str, default: Any) -> Keyword:
    optional = default is not Parameter.empty
    help_ = f"{text} JSON Lines, as --pairs."
    kind, default = (Path | None, None) if optional else (Path, Parameter.empty)
    return Keyword(
        name,
        (_option(name, kind, help_, default),),
        lambda path: () if path is None else read_prompt_pairs(path),
        of_pairs=True,
    )


def _file_of_contrasts(name: str, text: str, default: Any) -> Keyword | None:
    if default is not Parameter.empty:
        return None
    help_ = f'{text} JSON Lines of {{"positive": ..., "negative": ...}}.'
    return Keyword(
        name, (_option(name, Path, help_, default),), lambda path: read_contrasts(path).contrasts
    )


def _option(name: str, kind: Any, text: str, default: Any) -> Parameter:
    if name in WRITTEN:
        return option(name, Annotated[kind, typer.Option(help=text), Written()], default)
    return option(name, Annotated[kind, typer.Option(help=text)], default)
