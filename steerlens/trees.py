"""Whether what a steering file holds has the form that `saving` writes, before anything is built.

A digest tells a damaged file; it does not tell one that a stranger wrote. So every node is looked
at: first its form, then the values of a class against the class's own annotations.
"""

import math
import types
import typing
from collections.abc import Callable, Collection, Mapping
from typing import Any

import torch
from jaxtyping import Shaped
from torch import Tensor

Tree = Any
"""JSON: numbers, text, and dictionaries with "class" and "fields", with "tuple", or "tensor"."""
MODEL = {
    "fingerprint": str,
    "n_layers": int,
    "d_model": int,
    "processing": str,
    "name": str,
    "made_of": str,
}
"""What an origin says of its model; the last one may be absent."""
IMPORTED = {"format", "source", "index", "norm", "measured", "note"}
"""What an origin says of each part that another tool made: texts."""
PLAIN = (bool, int, float, str, type(None))


def require_header(header: Mapping[str, Any], tensors: Collection[str]) -> None:
    """Raise ValueError unless steering, origin and versions have the form that `saving` writes."""
    versions = header["versions"]
    if not isinstance(versions, dict) or not all(isinstance(v, str) for v in versions.values()):
        raise ValueError("its versions are no names with versions")
    if header["origin"] is not None:
        _require_origin(header["origin"])
    require_tree(header["steering"], tensors)
    if not isinstance(header["steering"], dict) or "class" not in header["steering"]:
        raise ValueError("it is no object of a class")


def _require_origin(origin: Any) -> None:
    if not isinstance(origin, dict) or not {"model", "seed", "data"} <= set(origin):
        raise ValueError("its origin does not say of which model, seed and data it is")
    if set(origin) - {"model", "seed", "data", "moved_from", "imported"}:
        raise ValueError("its origin has unknown fields")
    seed, texts = origin["seed"], (origin["data"], origin.get("moved_from", ""))
    if not (seed is None or type(seed) is int) or not all(isinstance(one, str) for one in texts):
        raise ValueError("its origin has values of another kind")
    _require_imported(origin.get("imported", []))
    model = origin["model"]
    if not isinstance(model, dict) or not set(MODEL) - {"made_of"} <= set(model) <= set(MODEL):
        raise ValueError("its model is not described as models are")
    if not all(type(value) is MODEL[name] for name, value in model.items()):
        raise ValueError("its model is described by values of another kind")


def _require_imported(parts: Any) -> None:
    if not isinstance(parts, list):
        raise ValueError("its origin has values of another kind")
    for part in parts:
        if not isinstance(part, dict) or set(part) != IMPORTED:
            raise ValueError("what it was imported from is not described as such things are")
        if not all(isinstance(text, str) for text in part.values()):
            raise ValueError("what it was imported from is described by values of another kind")


def require_tree(tree: Tree, tensors: Collection[str]) -> None:
    """Raise ValueError unless every node is a plain value, a tensor, a tuple or a class."""
    if isinstance(tree, PLAIN):
        return
    if not isinstance(tree, dict):
        raise ValueError(f"it holds a {type(tree).__name__}, which no steering does")
    if set(tree) == {"tensor"}:
        if not isinstance(tree["tensor"], str) or tree["tensor"] not in tensors:
            raise ValueError(f"its tensor {_short(tree['tensor'])} is not there")
    elif set(tree) == {"tuple"} and isinstance(tree["tuple"], list):
        for item in tree["tuple"]:
            require_tree(item, tensors)
    elif set(tree) == {"class", "fields"} and isinstance(tree["fields"], dict):
        if not isinstance(tree["class"], str):
            raise ValueError("the name of a class is no text")
        for item in tree["fields"].values():
            require_tree(item, tensors)
    else:
        raise ValueError(f"it holds a node with {_short(sorted(tree))}, which no steering does")


def require_values(build: Callable[..., Any], values: Mapping[str, Any]) -> None:
    """Raise ValueError where a value is of another kind than the class says of its field."""
    try:
        hints = typing.get_type_hints(build)
    except (NameError, TypeError):  # a class of somebody else's, annotated in a way of its own
        return
    for name, value in values.items():
        if name in hints and not _fits(value, hints[name]):
            raise ValueError(
                f"{getattr(build, '__name__', build)} has {_short(value)} as its {name}, which is "
                "something else"
            )
        if isinstance(value, float) and not math.isfinite(value) and name != "sinks":
            raise ValueError(f"{getattr(build, '__name__', build)} has {value} as its {name}")


def _fits(value: Any, hint: Any) -> bool:
    """Whether a value of a file can be one of this annotation; True where that is unknown."""
    origin, inside = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Annotated:
        return _fits(value, inside[0])
    if origin in (typing.Union, types.UnionType):
        return any(_fits(value, one) for one in inside)
    if origin is typing.Literal:
        return any(value == one and type(value) is type(one) for one in inside)
    if origin is tuple:
        return _fits_tuple(value, inside)
    if hasattr(hint, "array_type") or (isinstance(hint, type) and issubclass(hint, Tensor)):
        return isinstance(value, Tensor) and _of_kind(value, hint)
    if hint in (bool, int, float, str, type(None)):
        return type(value) is hint or (hint is float and type(value) is int)
    if isinstance(hint, type) and not getattr(hint, "_is_protocol", False):
        return isinstance(value, hint)
    known = origin is not None or getattr(hint, "_is_protocol", False)
    return not known or (callable(value) and not isinstance(value, Tensor))


def _of_kind(tensor: Shaped[Tensor, "..."], hint: Any) -> bool:
    """Whether truth values stand where these are, and numbers where numbers are."""
    kinds = getattr(hint, "dtypes", ())
    return not isinstance(kinds, tuple | list) or ("bool" in kinds) == (tensor.dtype == torch.bool)


def _fits_tuple(value: Any, inside: tuple[Any, ...]) -> bool:
    if not isinstance(value, tuple):
        return False
    if len(inside) == 2 and inside[1] is Ellipsis:
        return all(_fits(item, inside[0]) for item in value)
    return len(value) == len(inside) and all(map(_fits, value, inside))


def _short(value: object) -> str:
    text = repr(value) if not isinstance(value, Tensor) else "a tensor"
    return text if len(text) <= 60 else f"{text[:60]}..."
