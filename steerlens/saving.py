"""Steerings into files: safetensors with JSON metadata. No pickle, and nothing half-written.

A steering is a tree of frozen dataclasses. Its numbers and names go into the JSON metadata, its
tensors into the safetensors body, and a digest over both tells a damaged file. Only the classes in
`SAVEABLE` are ever built from a file; `reading.py` does that.
"""

import importlib.metadata
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from numbers import Integral, Real
from pathlib import Path
from typing import Any, Protocol, TypeVar, runtime_checkable

from torch import Tensor

from steerlens.combinators import Chain, Only, Scaled, When
from steerlens.digests import digest_over
from steerlens.identity import Origin, differences, is_fingerprint_of, origin_of
from steerlens.scopes import Combined, Listed, Marked, Scope
from steerlens.sites import Site, require_fit, require_site
from steerlens.types import HookedModel
from steerlens.whole import write_whole

FORMAT = 1
KEY = "steerlens"
PACKAGES = ("steerlens", "torch", "transformer-lens")
Class = TypeVar("Class", bound=type)
SAVEABLE: dict[str, type] = {}


def saveable(cls: Class) -> Class:
    """Let a frozen dataclass of numbers, names, tensors and steers be saved (a decorator)."""
    name = cls.__name__
    if not hasattr(cls, "__dataclass_fields__"):
        raise TypeError(f"{name} must be a dataclass to be saved.")
    known = SAVEABLE.get(name, cls)
    # A notebook cell that is run again defines the same class anew.
    if (known.__module__, known.__qualname__) != (cls.__module__, cls.__qualname__):
        raise ValueError(f"Another class called {name} is already saveable. Rename one.")
    SAVEABLE[name] = cls
    return cls


for _wrapper in (Scaled, Only, Chain, When, Scope, Combined, Listed, Marked, Site):
    saveable(_wrapper)


@runtime_checkable
class Placing(Protocol):
    """What can be written: a `Steering`, of which this file needs no more than these."""

    @property
    def placed(self) -> tuple[tuple[Site, Any], ...]: ...

    @property
    def origin(self) -> Origin | None: ...


@dataclass(eq=False)
class Body:
    """The tensors of a file by name; a tensor that stands in two places is written once."""

    tensors: dict[str, Tensor] = field(default_factory=dict)
    names: dict[int, str] = field(default_factory=dict)

    def name_of(self, tensor: Tensor) -> str:
        """What `tensor` is called in the file."""
        name = self.names.setdefault(id(tensor), f"tensor_{len(self.tensors)}")
        if name not in self.tensors:
            held = tensor.detach().cpu().contiguous()
            # The file's format knows no two tensors in one memory, and views bring all of theirs.
            whole = held.untyped_storage().nbytes() == held.nbytes
            shared = held.data_ptr() in {one.data_ptr() for one in self.tensors.values()}
            self.tensors[name] = held if whole and not shared else held.clone()
        return name


def write_steering(steering: Placing, path: str | Path, model: HookedModel | None = None) -> Path:
    """`Steering.save`: write to `path`, wholly or not at all; returns the path."""
    from safetensors.torch import save

    path, body, origin = Path(path), Body(), steering.origin
    if model is not None:
        require_placeable(steering.placed, model)
        origin = _origin_on(model, origin)
    tree = _to_tree(_counted_from_0(steering, origin), body)
    header = {
        "format": FORMAT,
        "steering": tree,
        "origin": _written(origin) if origin else None,
        "versions": {name: importlib.metadata.version(name) for name in PACKAGES},
    }
    header["digest"] = digest_over(header, body.tensors)
    write_whole(path, save(body.tensors, {KEY: json.dumps(header)}))
    return path


def _written(origin: Origin) -> dict[str, Any]:
    """The origin as JSON, without the fields that say nothing: older versions do not know them."""
    tree = asdict(origin)
    for entries, name in ((tree, "moved_from"), (tree, "imported"), (tree["model"], "made_of")):
        if not entries[name]:
            del entries[name]
    return tree


def _counted_from_0(steering: Placing, origin: Origin | None) -> Placing:
    """The steering with every layer counted from 0; ValueError if no model says how many are."""
    if all(site.layer >= 0 for site, _ in steering.placed):
        return steering
    if origin is None:
        raise ValueError(
            "This steering counts layers from the end, and a file must say which they are. Save it "
            "with its model: steering.save(path, model)."
        )
    placed = [(site.among(origin.model.n_layers), steer) for site, steer in steering.placed]
    return replace(steering, placed=tuple(placed))  # pyright: ignore[reportArgumentType]


def require_placeable(placed: Sequence[tuple[Site, Any]], model: HookedModel) -> None:
    """Raise ValueError if `model` lacks a site, or a steer is of another width."""
    for site, steer in placed:
        require_site(model, site)
        require_fit(model, site, steer)


def _origin_on(model: HookedModel, origin: Origin | None) -> Origin:
    """The steering's own origin, checked to be on `model`; else one that knows no more than it."""
    here = origin_of(model)
    if origin is not None and not is_fingerprint_of(model, origin.model.fingerprint):
        raise ValueError(
            "This steering was fitted on another model "
            f"({differences(origin.model, here.model)}). Save it with the model it was fitted "
            "on, or fit it again on this one."
        )
    return origin or here


def digest_of(steer: object) -> str:
    """A digest of a steer's or a steering's classes, numbers and tensors, if it can be saved."""
    body = Body()
    return digest_over({"steering": _to_tree(steer, body)}, body.tensors)[:16]


def _to_tree(value: Any, body: Body) -> Any:
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Integral | Real):  # of NumPy, which JSON does not know
        return int(value) if isinstance(value, Integral) else float(value)
    if isinstance(value, Tensor):
        return {"tensor": body.name_of(value)}
    if isinstance(value, tuple | list):
        return {"tuple": [_to_tree(item, body) for item in value]}
    kind = type(value).__name__
    if SAVEABLE.get(kind) is not type(value):
        raise ValueError(
            f"A {kind} cannot be saved: only steers made of saveable dataclasses can. Write it as "
            "a frozen dataclass and decorate it with @steerlens.saving.saveable."
        )
    return {
        "class": kind,
        "fields": {
            item.name: _to_tree(getattr(value, item.name), body)
            for item in fields(value)
            if item.name != "origin"
        },
    }
