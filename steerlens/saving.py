"""Steerings in files: safetensors with JSON metadata. No pickle, and nothing half-written.

A steering is a tree of frozen dataclasses. Its numbers and names go into the JSON metadata, its
tensors into the safetensors body, and a digest over both tells a damaged file. Only the classes in
`SAVEABLE` are ever built from a file.
"""

import hashlib
import importlib.metadata
import json
import os
import tempfile
from collections.abc import Callable
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any, TypeVar

from torch import Tensor

from steerlens import __version__
from steerlens.combinators import Chain, Only, Scaled, When
from steerlens.identity import ModelIdentity, Origin, bytes_of, differences, joint_origin, origin_of
from steerlens.scopes import Scope
from steerlens.sites import Site, require_fit, require_site
from steerlens.steering import AnySteering, Limit, Mapped, Rescale, Steering, Together
from steerlens.types import HookedModel

FORMAT = 1
KEY = "steerlens"
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


for _known in (Scaled, Only, Chain, When, Scope, Site, Steering, Together, Mapped, Rescale, Limit):
    saveable(_known)


def save_steering(
    steering: AnySteering, path: str | Path, model: HookedModel | None = None
) -> Path:
    """Write `steering` to `path`, wholly or not at all; returns the path."""
    from safetensors.torch import save

    path = Path(path)
    tensors: dict[str, Tensor] = {}
    tree = _to_tree(steering, tensors)
    origin = _origin_in(steering)
    if model is not None:
        _require_placeable(steering, model)
        known = origin_of(model)
        if origin is not None and origin.model.fingerprint != known.model.fingerprint:
            raise ValueError(
                "This steering was fitted on another model "
                f"({differences(origin.model, known.model)}). Save it with the model it was fitted "
                "on, or fit it again on this one."
            )
        origin = origin or known
    header = {
        "format": FORMAT,
        "steering": tree,
        "origin": asdict(origin) if origin else None,
        "versions": {
            "steerlens": __version__,
            **{name: importlib.metadata.version(name) for name in ("torch", "transformer-lens")},
        },
    }
    header["digest"] = _digest(header, tensors)
    write_whole(path, save(tensors, {KEY: json.dumps(header)}))
    return path


def load_steering(path: str | Path, model: HookedModel) -> AnySteering:
    """Read a steering and check that it belongs to `model` (by fingerprint, not by name)."""
    import steerlens.methods  # noqa: F401  registers every method as saveable

    header, tensors = read_file(path)
    steering = _from_tree(header["steering"], tensors, Path(path))
    if header["origin"] is not None:
        from steerlens.identity import identity_of

        origin = _origin(header["origin"])
        saved, here = origin.model, identity_of(model)
        if saved.fingerprint != here.fingerprint:
            raise ValueError(
                f"{path} is a steering for another model ({differences(saved, here)}). Load the "
                f"model it was fitted on ({saved.name or 'name not recorded'}), or fit it again on "
                "this one."
            )
        steering = _with_origin(steering, origin)
    _require_placeable(steering, model)
    return steering


def _inner(steering: AnySteering) -> tuple[AnySteering, ...]:
    if isinstance(steering, Together):
        return steering.steerings
    return (steering.steering,) if isinstance(steering, Mapped) else ()


def _require_placeable(steering: AnySteering, model: HookedModel) -> None:
    for site, steer in getattr(steering, "placed", ()):
        require_site(model, site)
        require_fit(model, site, steer)
    for part in _inner(steering):
        _require_placeable(part, model)


def _origin_in(steering: AnySteering) -> Origin | None:
    origin = getattr(steering, "origin", None)
    for part in _inner(steering):
        origin = joint_origin(origin, _origin_in(part))
    return origin


def _with_origin(steering: Any, origin: Origin) -> Any:
    """`steering` with `origin` in every part that has a place for one."""
    if isinstance(steering, Together):
        return Together(tuple(_with_origin(part, origin) for part in steering.steerings))
    if isinstance(steering, Mapped):
        return replace(steering, steering=_with_origin(steering.steering, origin))
    held = any(item.name == "origin" for item in fields(steering))
    return replace(steering, origin=origin) if held else steering


def read_file(path: str | Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The JSON header and the tensors of a steering file, checked to be whole and ours."""
    from safetensors import SafetensorError, safe_open

    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"There is no steering file {path}. steering.save(path) makes one.")
    try:
        with safe_open(path, "pt") as file:
            text = (file.metadata() or {}).get(KEY)
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, ValueError) as error:
        raise ValueError(
            f"{path} is damaged or is no safetensors file ({error}). Copy it again from where it "
            "was saved. Pickle files (.pt, .pkl) are never opened."
        ) from error
    if text is None:
        raise ValueError(
            f"{path} is a safetensors file, but not a steering: its metadata has no {KEY!r} entry. "
            "steering.save(path) makes one."
        )
    header = _header(path, text)
    if header["digest"] != _digest({k: v for k, v in header.items() if k != "digest"}, tensors):
        raise ValueError(
            f"{path} was changed after it was saved: its contents do not match its digest. Use the "
            "original, or save it anew from Python."
        )
    return header, tensors


def _header(path: Path, text: str) -> dict[str, Any]:
    try:
        header = json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(
            f"{path}: its metadata is not JSON ({error}). Use the original."
        ) from error
    if not isinstance(header, dict) or header.get("format") != FORMAT:
        found = header.get("format") if isinstance(header, dict) else type(header).__name__
        raise ValueError(
            f"{path} has format {found!r}; this steerlens reads format {FORMAT}. Upgrade steerlens."
        )
    missing = {"steering", "origin", "versions", "digest"} - set(header)
    if missing:
        raise ValueError(
            f"{path}: its metadata lacks {', '.join(sorted(missing))}. Use the original."
        )
    return header


def _origin(saved: dict[str, Any]) -> Origin:
    return Origin(ModelIdentity(**saved["model"]), saved["seed"], saved["data"])


def write_whole(path: Path, content: bytes) -> None:
    """Write to a temporary file beside `path`, then rename: the old file or the new, never half."""
    try:
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    except OSError as error:
        raise OSError(
            f"Cannot write {path}: {error.strerror or error}. Choose a folder that exists and is "
            "writable."
        ) from error
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        Path(name).chmod(0o644)
        Path(name).replace(path)
    except OSError as error:
        raise OSError(
            f"Cannot write {path}: {error.strerror or error}. Nothing was left behind. Choose the "
            "path of a file, on a disk with space."
        ) from error
    finally:
        Path(name).unlink(missing_ok=True)


def digest_of(steer: object) -> str:
    """A digest of a steer's or a steering's classes, numbers and tensors, if it can be saved."""
    tensors: dict[str, Tensor] = {}
    return _digest({"steering": _to_tree(steer, tensors)}, tensors)[:16]


def _digest(header: dict[str, Any], tensors: dict[str, Tensor]) -> str:
    digest = hashlib.sha256(json.dumps(header, sort_keys=True).encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(bytes_of(tensor))
    return digest.hexdigest()


def _to_tree(value: Any, tensors: dict[str, Tensor]) -> Any:
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Tensor):
        name = f"tensor_{len(tensors)}"
        tensors[name] = value.detach().cpu().contiguous().clone()
        return {"tensor": name}
    if isinstance(value, tuple | list):
        return {"tuple": [_to_tree(item, tensors) for item in value]}
    kind = type(value).__name__
    if SAVEABLE.get(kind) is not type(value):
        raise ValueError(
            f"A {kind} cannot be saved: only steers made of saveable dataclasses can. Write it as "
            "a frozen dataclass and decorate it with @steerlens.saving.saveable."
        )
    return {
        "class": kind,
        "fields": {
            item.name: _to_tree(getattr(value, item.name), tensors)
            for item in fields(value)
            if item.name != "origin"
        },
    }


def _from_tree(tree: Any, tensors: dict[str, Tensor], path: Path) -> Any:
    if not isinstance(tree, dict):
        return tree
    if "tensor" in tree:
        return tensors[tree["tensor"]]
    if "tuple" in tree:
        return tuple(_from_tree(item, tensors, path) for item in tree["tuple"])
    build: Callable[..., Any] | None = SAVEABLE.get(tree["class"])
    if build is None:
        raise ValueError(
            f"{path} holds a {tree['class']!r}, which this steerlens does not know: "
            f"{', '.join(sorted(SAVEABLE))}. Import the module that defines it, or upgrade."
        )
    values = {name: _from_tree(item, tensors, path) for name, item in tree["fields"].items()}
    unknown = set(values) - {item.name for item in fields(build)}
    if unknown:
        raise ValueError(
            f"{path} gives {tree['class']} {', '.join(sorted(unknown))}, which this steerlens does "
            "not know. It was saved by a newer one: upgrade."
        )
    return build(**values)
