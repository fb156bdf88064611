"""Whether what a caller gave is of the kind that the annotation says, told before any work.

    def fit(model: HookedModel, pairs: Sequence[PromptPair], *, schedule: Schedule = ...) -> Fit:
        require_kinds(fit, locals())

A list where a number is needed would else end somewhere inside, in words about something else.
Which values are in range each function says itself. What an annotation leaves open passes.
"""

import inspect
import types
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import MISSING, Field, dataclass, fields
from functools import cache
from numbers import Real
from os import PathLike
from pathlib import Path
from typing import Any, Literal, SupportsIndex, TypeAlias, TypeVar, Union, get_args, get_origin

import numpy as np
import torch
from torch import Tensor

from steerlens.parsing import few, short
from steerlens.types import HookedModel, Steer, whole_number

Holds: TypeAlias = Callable[[Any], bool]
ELSEWHERE = ("seed",)
"""Parameters with one rule for all functions: `checks.require_seed`."""
SUCH = {
    "Gates": "Gates(rank=2)",
    "HookedModel": "steerlens.load('demo') gives",
    "Objective": "MSE() or LL()",
    "PromptPair": "prompted_pairs(model, questions, instruction) makes",
    "Sampling": "Sampling(max_new_tokens=64)",
    "Schedule": "Schedule(steps=100)",
    "Scope": "steerlens.response or scope_named('response')",
    "Site": "Site(3)",
    "Steering": "fit.steering or at(6, steer) gives",
    "Storage": "Storage(memory=10**9)",
    "Template": "Template(system=None)",
    "loss": "'sft' or losses.DPO(beta=0.1)",
    "baseline": "'template', 'none' or 'neutral'",
}
"""How a value of a class, or for a parameter, is had: for messages."""


class WrongKind(TypeError, ValueError):
    """A value of another kind than was asked for; ValueError too, as other bad arguments are."""


@dataclass(frozen=True)
class Kind:
    """What an annotation allows: in words for one and for several, and as a question."""

    words: str
    several: str
    holds: Holds
    such: str = ""


def require_kinds(
    function: Callable[..., Any], given: Mapping[str, Any], but: Iterable[str] = ()
) -> None:
    """Raise an error where a parameter of `function` was given something of another kind.

    `given` has the parameters by name, as `locals()` does in the function's first line. Those of
    the names in `but` are left to their own checks.
    """
    plain = inspect.unwrap(getattr(function, "__func__", function))
    for name, kind in _kinds_of(plain):
        if name in given and name not in but:
            _require(plain.__qualname__, name, given[name], kind)


def require_fields(value: Any, but: Iterable[str] = ()) -> None:
    """Raise an error where a field of a dataclass is of another kind than it declares.

    Fields of the names in `but` are left to their own checks. A field's default is always right:
    many write `scale: int = None`.
    """
    for name, kind in _kinds_of_fields(type(value)):
        if name not in but and getattr(value, name) is not getattr(type(value), name, MISSING):
            _require(type(value).__name__, name, getattr(value, name), kind)


def _require(of: str, name: str, value: Any, kind: Kind) -> None:
    if kind.holds(value):
        return
    such = kind.such or SUCH.get(name)
    such = f", as {such}" if such else ""
    said = f"{of} takes {kind.words} for {name}{such}; found {_found(value)}."
    raise WrongKind(said)


def _found(value: Any) -> str:
    if value is None:
        return "None"
    if isinstance(value, bool | int | float | str | bytes):
        return f"{type(value).__name__} {short(value)}"
    if isinstance(value, type):
        return f"the class {value.__name__} itself"
    name = _article(type(value).__name__)
    if isinstance(value, Tensor | np.ndarray):
        return f"{name} {list(value.shape)} ({value.dtype})"
    if not isinstance(value, list | tuple | set | dict):
        return name
    if len(value) == 0:
        return f"an empty {type(value).__name__}"
    if isinstance(value, dict):
        return f"{name} of {_types(value.values())} by {_types(value)}"
    return f"{name} of {_types(value)}"


def _types(values: Iterable[Any]) -> str:
    return few(dict.fromkeys(type(one).__name__ for one in values), 3)


def _article(name: str) -> str:
    spelled = name[:2].isupper()  # an RFM
    vowel = name[:1] in "AEFHILMNORSX" if spelled else name[:1].lower() in "aeiou"
    return f"{'an' if vowel else 'a'} {name}"


@cache
def _kinds_of(function: Callable[..., Any]) -> tuple[tuple[str, Kind], ...]:
    """The parameters of which the annotation says something, and what it says."""
    found = []
    for name, parameter in inspect.signature(function).parameters.items():
        several = parameter.kind in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL)
        unsaid = several or name in ELSEWHERE or parameter.annotation is parameter.empty
        kind = None if unsaid else _kind(_annotation_of(function, name, parameter.annotation))
        if kind is not None:
            found.append((name, kind))
    return tuple(found)


@cache
def _kinds_of_fields(cls: type) -> tuple[tuple[str, Kind], ...]:
    try:
        hints = typing.get_type_hints(cls)
    except (NameError, TypeError):  # a class of somebody else's, annotated in a way of its own
        return ()
    kinds = ((item.name, _kind(hints[item.name])) for item in _asked(cls))
    return tuple((name, kind) for name, kind in kinds if kind is not None)


def _asked(cls: type) -> list[Field[Any]]:
    return [item for item in fields(cls) if item.init and item.name not in ELSEWHERE]


def _annotation_of(function: Any, name: str, written: Any) -> Any:
    """What an annotation means that may be written as text."""
    alone = types.SimpleNamespace(__annotations__={name: written})
    try:
        return typing.get_type_hints(alone, function.__globals__)[name]
    except (NameError, TypeError):  # of a name that only type checkers import, or know
        return Any if isinstance(written, str) else written


# -- What annotations say --------------------------------------------------------------------------


def _kind(annotation: Any) -> Kind | None:
    """The kind that an annotation asks for; None where it leaves that open."""
    origin, inside = get_origin(annotation), get_args(annotation)
    if annotation in (Any, object, Steer):
        return None
    if annotation in _PLAIN:
        return _PLAIN[annotation]
    if isinstance(annotation, TypeVar):
        return _any_of([_kind(one) for one in annotation.__constraints__])
    if origin in (Union, types.UnionType):
        return _union(inside)
    if origin is Literal:
        return _literal(inside)
    if hasattr(annotation, "dim_str"):
        return _array(annotation)
    if origin is Callable:
        return Kind("a function", "functions", callable)
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return _mapping(inside)
    if origin is Sequence or (origin is tuple and inside[1:] == (...,)):
        return _sequence(inside[0])
    if origin is Iterable:
        return Kind("a list", "lists", _is_iterable)
    if origin is tuple:
        return _tuple([_kind(one) for one in inside])
    if isinstance(origin, type) and origin.__module__.startswith("steerlens."):
        return _of_class(origin)  # a class of ours that says of what, as Fit[PSR]
    return _of_class(annotation) if isinstance(annotation, type) and origin is None else None


def _union(inside: tuple[Any, ...]) -> Kind | None:
    # Of sites, and of several things that can be iterated, more is said where they are used.
    if SupportsIndex in inside or any(get_origin(one) is Iterable for one in inside):
        return None
    # What is given for a vector may be a row or a column of numbers, or a list of tensors.
    vectors = any("..." in getattr(one, "dim_str", "") for one in inside)
    rows = [_ROWS if vectors and one == Sequence[float] else _kind(one) for one in inside]
    return _any_of(rows)


def _any_of(kinds: Sequence[Kind | None]) -> Kind | None:
    known = [kind for kind in kinds if kind is not None]
    if not known or len(known) < len(kinds):
        return None
    such = next((kind.such for kind in known if kind.such), "")
    one, several = ([*dict.fromkeys(words)] for words in zip(*map(_words, known), strict=True))
    return Kind(_or(one), _or(several), lambda given: any(k.holds(given) for k in known), such)


def _words(kind: Kind) -> tuple[str, str]:
    return kind.words, kind.several


def _or(words: Sequence[str]) -> str:
    *before, last = words
    if not before:
        return last
    comma = "," if any(" or " in word for word in before) else ""  # True or False, or None
    return f"{', '.join(before)}{comma} or {last}"


def _literal(values: tuple[Any, ...]) -> Kind:
    """One of some words; which of them are known is asked where they are used."""
    words = _or([repr(value) for value in values])
    known = [_PLAIN[type(value)] for value in values]
    return Kind(words, words, lambda given: any(kind.holds(given) for kind in known))


def _array(annotation: Any) -> Kind:
    """A tensor or an array, with as many axes as are named where all are, and of such numbers."""
    axes, array, allowed = annotation.dim_str.split(), annotation.array_type, annotation.dtypes
    some = any(axis.startswith(("*", "...")) for axis in axes)
    named = f" [{', '.join(axes)}]" if axes else ""
    truths = "bool" in allowed or "bool_" in allowed
    of = "truth values" if truths else "numbers" if "float32" in allowed else "whole numbers"

    def holds(given: Any) -> bool:
        if not isinstance(given, array) or (given.ndim != len(axes) and not some):
            return False
        name = str(given.dtype).removeprefix("torch.")
        return name in allowed or (some and not truths and "int" in name)

    what = ("a tensor", "tensors") if array is Tensor else ("an array", "arrays")
    if some:
        return Kind("a vector", "vectors", holds)
    return Kind(*(f"{word}{named} of {of}" for word in what), holds=holds)


def _mapping(inside: tuple[Any, ...]) -> Kind:
    sites = SupportsIndex in inside[:1] or getattr(inside[0], "__name__", "") == "Site"
    keys, values = _PLACES if sites else _kind(inside[0]), _kind(inside[1])

    def holds(given: Any) -> bool:
        return (
            isinstance(given, Mapping)
            and (keys is None or all(map(keys.holds, given)))
            and (values is None or all(map(values.holds, given.values())))
        )

    of = f" of {values.several}" if values and " or " not in values.several else ""
    by = f" by {keys.several}" if keys and of else ""
    such = values.such if values else ""
    return Kind(f"a dictionary{of}{by}", f"dictionaries{of}{by}", holds, such)


def _sequence(inside: Any) -> Kind:
    kind = _kind(inside)
    numbers = kind is None or kind.holds(0) or kind.holds(False)

    def holds(given: Any) -> bool:
        if isinstance(given, str | bytes | Mapping | set | type):
            return False
        if not all(hasattr(given, name) for name in ("__len__", "__getitem__", "__iter__")):
            return False
        if isinstance(given, Tensor | np.ndarray) and str(given.dtype) != "object":
            if given.ndim == 0 or not (numbers or getattr(given.dtype, "kind", "") == "U"):
                return False
            return kind is None or all(map(kind.holds, given[:1]))  # of one kind are all
        if getattr(given, "ndim", 1) != 1:
            return False  # a table, which lists its columns
        return kind is None or all(map(kind.holds, given))

    of = f" of {kind.several}" if kind else ""
    return Kind(f"a list{of}", f"lists{of}", holds, kind.such if kind else "")


def _is_rows(given: Any) -> bool:
    """Whether it is a list of numbers, of tensors, or of such lists."""
    if isinstance(given, Tensor | np.ndarray):
        return _of_numbers(given)
    return _LISTED.holds(given) and all(_is_number(one) or _is_rows(one) for one in given)


def _tuple(kinds: Sequence[Kind | None]) -> Kind | None:
    known = [kind for kind in kinds if kind is not None]
    if len(known) < len(kinds):
        return None

    def holds(given: Any) -> bool:
        several = isinstance(given, tuple | list) and len(given) == len(known)
        return several and all(k.holds(one) for k, one in zip(known, given, strict=True))

    inside = ", ".join(kind.words for kind in known)
    return Kind(f"a tuple ({inside})", f"tuples ({inside})", holds)


def _of_class(cls: type) -> Kind | None:
    name, such = cls.__name__, SUCH.get(cls.__name__, "")
    if cls is HookedModel:
        return Kind("a model", "models", _is_model, such)
    if getattr(cls, "_is_protocol", False):
        if not getattr(cls, "_is_runtime_protocol", False):
            return None  # nothing tells whether a value is one
        if "__call__" in vars(cls):  # a plain function does, in all but its messages
            return Kind(_article(name), f"{name}s", callable, such)
    several = f"{name[:-1]}ies" if name.endswith("y") else f"{name}s"
    return Kind(_article(name), several, lambda value: isinstance(value, cls), such)


def _is_model(value: Any) -> bool:
    """Whether it can be steered; to ask for more would build a bridge's hook points anew."""
    return not isinstance(value, type) and all(hasattr(value, name) for name in ("cfg", "hooks"))


def _is_number(value: Any) -> bool:
    if isinstance(value, bool) or getattr(value, "ndim", 0) != 0 or not _of_numbers(value):
        return False
    if not isinstance(value, Real | Tensor | np.generic | np.ndarray):
        return False
    try:
        float(value)  # pyright: ignore[reportArgumentType]  it raises for what has none
    except (TypeError, ValueError, OverflowError, RuntimeError):  # RuntimeError: on no device
        return False
    return True


def _of_numbers(value: Any) -> bool:
    """Whether it has no dtype, or one of numbers that lie on a line: no texts, none complex."""
    dtype = getattr(value, "dtype", "")
    named = any(word in str(dtype) for word in ("bool", "complex", "str"))
    return not named and getattr(dtype, "kind", "") not in ("S", "U")


def _is_truth(value: Any) -> bool:
    alone = isinstance(value, Tensor) and value.ndim == 0 and value.dtype == torch.bool
    return isinstance(value, bool | np.bool_) or alone


def _is_iterable(value: Any) -> bool:
    closed = isinstance(value, str | bytes | Mapping | type) or getattr(value, "ndim", 1) == 0
    return isinstance(value, Iterable) and not closed


def _is_whole(value: Any) -> bool:
    number = whole_number(value)
    return number is not None and abs(number) < 2**63


def _is_place(value: Any) -> bool:
    """Whether it is a layer or a Site; a dictionary may have both."""
    return _is_whole(value) or (hasattr(value, "layer") and hasattr(value, "stream"))


_LISTED = _sequence(Any)
_ROWS = Kind("a list of numbers", "lists of numbers", _is_rows)
_WHOLE = Kind("a whole number", "whole numbers", _is_whole)
_PLACES = Kind("a layer", "layers", _is_place)
_PLAIN: dict[Any, Kind] = {
    int: _WHOLE,
    SupportsIndex: _WHOLE,
    float: Kind("a number", "numbers", _is_number),
    bool: Kind("True or False", "truth values", _is_truth),
    str: Kind("a text", "texts", lambda value: isinstance(value, str)),
    type(None): Kind("None", "None", lambda value: value is None),
    Path: Kind("a path", "paths", lambda value: isinstance(value, PathLike)),
    Tensor: Kind("a tensor", "tensors", lambda value: isinstance(value, Tensor)),
}
