"""Steerings out of files, those of earlier versions and of other tools too.

Knows every method, so it stands on top.

A file is checked to be whole, ours, and for the model at hand before anything is built from it, and
only classes that were declared saveable are built.
"""

import warnings
from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from os import PathLike
from pathlib import Path
from typing import Any

from torch import Tensor

import steerlens.interchange.sae  # registers its gate as saveable
import steerlens.methods  # noqa: F401  registers every method as saveable
from steerlens.digests import digest_over, read_safetensors
from steerlens.identity import (
    Imported,
    ModelIdentity,
    Origin,
    differences,
    identity_of,
    is_fingerprint_of,
)
from steerlens.interchange.opening import kind_of
from steerlens.interchange.placing import read_foreign
from steerlens.kinds import require_kinds
from steerlens.parsing import few, parse_json
from steerlens.saving import FORMAT, KEY, SAVEABLE, require_placeable
from steerlens.sites import Sites
from steerlens.steering import Steering
from steerlens.trees import Tree, require_header, require_values
from steerlens.types import HookedModel, SteeringWarning


def load_steering(
    path: str | Path | object,
    model: HookedModel,
    *,
    fitted_on: HookedModel | str | None = None,
    sites: Sites | None = None,
    convention: str | None = None,
    concept: int | None = None,
    strength: float | None = None,
) -> Steering:
    """Read a steering and check that it belongs to `model` (by fingerprint, not by name).

    A steering of the same model in another precision, such as one fitted on a quantised copy, is
    refused unless `fitted_on` names the model that it was fitted on (or is that model): then both
    are compared, and a SteeringWarning says how far apart they are.

    Vectors of other tools are read too (docs/interchange.md says which), from their files or their
    objects, and are added at every token. They name no model, so that `model` fits is the caller's
    word; their width and layers are checked. What such a file does not say is given: `sites`, the
    layers that are steered; `convention`, whether a number k is the output of block k ("block") or
    of block k - 1 ("hidden_states"); `concept`, the row of AxBench's weights; `strength`, a factor.
    A file that leaves one open is a ValueError that says which. No pickle is ever run.

    >>> model = sl.load("demo")
    >>> caa = sl.CAA.fit(model, (["I loved it"], ["I hated it"]), 3).steering
    >>> sl.load_steering(caa.save("caa.safetensors"), model).sites
    (Site(layer=3, stream='resid_post'),)
    """
    require_kinds(load_steering, locals())
    path = Path(path) if isinstance(path, PathLike) else path
    if not isinstance(path, str | Path) or is_foreign(path):
        _require_no_model(fitted_on)
        return read_foreign(
            path, model, sites=sites, convention=convention, concept=concept, strength=strength
        )
    header, tensors = read_file(path)
    given = {"sites": sites, "convention": convention, "concept": concept, "strength": strength}
    if beyond := [name for name, value in given.items() if value is not None]:
        raise ValueError(
            f"{path} is a steering of steerlens, which says itself what {', '.join(beyond)} would. "
            "Leave that out; for another strength write 2.0 * steering."
        )
    steering = _steering_of(header, tensors, Path(path))
    if header["origin"] is not None:
        origin = _origin(header["origin"])
        saved, here = origin.model, identity_of(model)
        if is_fingerprint_of(model, saved.fingerprint):
            if saved.fingerprint != here.fingerprint:  # that of version 0.1.0
                origin = replace(origin, model=here)
        elif fitted_on is None or not _of_one_shape(saved, here):
            raise ValueError(_another_model(path, saved, here))
        else:
            origin = _moved(steering, origin, model, fitted_on)
        steering = replace(steering, origin=origin)
    require_placeable(steering.placed, model)
    return steering


def _require_no_model(fitted_on: object) -> None:
    """Raise ValueError where vectors of another tool are said to be fitted on a model."""
    if fitted_on is not None:
        raise ValueError(
            "fitted_on= is for steerings of steerlens, which say what model they are of; vectors "
            "of other tools name none. Leave it out."
        )


def read_steering(path: str | Path) -> Steering:
    """The steering of a file and its origin, without the model that it is for.

    Nothing is checked against a model: to steer with it, `load_steering` it.
    """
    header, tensors = read_file(path)
    steering = _steering_of(header, tensors, Path(path))
    origin = header["origin"]
    return steering if origin is None else replace(steering, origin=_origin(origin))


def _steering_of(header: Mapping[str, Any], tensors: Mapping[str, Tensor], path: Path) -> Steering:
    """The steering of a file that is whole; ValueError where that is none that can be."""
    try:
        found = _from_tree(upgraded(header["steering"]), tensors, path)
        if not isinstance(found, Steering):
            raise ValueError(f"it holds a {type(found).__name__} and no steering")
    except Unknown as error:
        raise ValueError(str(error)) from None
    except BUILDING as error:
        said = str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"
        said = "it is nested too deeply" if isinstance(error, RecursionError) else said
        raise ValueError(
            f"{path} holds no steering that can be used ({said.rstrip('.')}). Use the original, or "
            "fit it again."
        ) from error
    return found


PLAIN = {
    "torch.bool",
    *(f"torch.{kind}" for kind in ("float16", "bfloat16", "float32", "float64")),
    *(f"torch.{kind}" for kind in ("uint8", "int8", "int16", "int32", "int64")),
}
"""The kinds of numbers that a steering may hold."""
BUILDING = (
    ValueError,
    TypeError,
    KeyError,
    IndexError,
    AttributeError,
    AssertionError,
    OverflowError,
    RuntimeError,
    RecursionError,
)
"""What building a steer of values that do not belong there may raise."""


class Unknown(ValueError):
    """A class or a field that this version does not know; the message says what to do."""


def _another_model(path: str | Path, saved: ModelIdentity, here: ModelIdentity) -> str:
    name = saved.name or "name not recorded"
    advice = (
        f"Load the model it was fitted on ({name}{_in_brackets(saved.made_of)}), or fit it again "
        "on this one."
    )
    if _of_one_shape(saved, here):
        advice += (
            " If both are one model in two precisions, say so: fitted_on= (on the command line "
            f"--fitted-on) with {saved.name or 'the model it was fitted on'!r} measures how far "
            "apart they are, and allows it."
        )
    return f"{path} is a steering for another model ({differences(saved, here)}). {advice}"


def _in_brackets(text: str) -> str:
    return f", {text}" if text else ""


def _of_one_shape(first: ModelIdentity, second: ModelIdentity) -> bool:
    shapes = [(one.n_layers, one.d_model, one.processing) for one in (first, second)]
    return shapes[0] == shapes[1]


def _moved(
    steering: Steering, origin: Origin, model: HookedModel, fitted_on: HookedModel | str
) -> Origin:
    """The origin of a steering that acts on the same model in another precision, with a warning."""
    from steerlens.models import load
    from steerlens.models.distance import distance

    other = load(fitted_on) if isinstance(fitted_on, str) else fitted_on
    saved, here = origin.model, identity_of(model)
    if not is_fingerprint_of(other, saved.fingerprint):
        raise ValueError(
            f"fitted_on is not the model that the steering was fitted on "
            f"({differences(saved, identity_of(other))}). Give that one: "
            f"{saved.name or 'its name is not recorded'}."
        )
    apart = distance(other, model, [site for site, _ in steering.placed])
    first = saved.made_of or saved.name or "another model"
    warnings.warn(
        f"The steering was fitted on {first}, and acts here on {here.made_of or here.name}: "
        f"{apart}. Its effect may differ too; measure it on this model.",
        SteeringWarning,
        stacklevel=3,
    )
    return replace(origin, model=here, moved_from=f"{first} ({saved.fingerprint})")


def is_foreign(path: str | Path) -> bool:
    """Whether a file is another tool's: of another kind, or safetensors without our entry."""
    from safetensors import SafetensorError, safe_open

    path = Path(path)
    if path.is_dir():
        return True
    kind = kind_of(path) if path.is_file() else ""
    if kind != "safetensors":
        return kind != ""
    try:
        with safe_open(path, "pt") as file:
            return KEY not in (file.metadata() or {})
    except (SafetensorError, OSError, ValueError, RuntimeError):
        return False  # a damaged one, which `read_file` tells of


def read_file(path: str | Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The JSON header and the tensors of a steering file, checked to be whole and ours."""
    from safetensors import SafetensorError

    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"There is no steering file {path}. steering.save(path) makes one.")
    try:
        about, tensors = read_safetensors(path)
        text = about.get(KEY)
    except (SafetensorError, OSError, ValueError, RuntimeError) as error:
        raise ValueError(
            f"{path} is damaged or is no safetensors file ({error}). Copy it again from where it "
            "was saved. Of pickles (.pt) tensors alone are read, .pkl is never opened."
        ) from error
    if text is None:
        raise ValueError(
            f"{path} is a safetensors file, but not a steering: its metadata has no {KEY!r} entry. "
            "steering.save(path) makes one."
        )
    odd = {str(tensor.dtype) for tensor in tensors.values()} - PLAIN
    if odd:
        raise ValueError(
            f"{path} holds numbers of the kind {', '.join(sorted(odd))}, which no steering does. "
            "Use the original."
        )
    header = _header(path, text)
    if header["digest"] != digest_over({k: v for k, v in header.items() if k != "digest"}, tensors):
        raise ValueError(
            f"{path} was changed after it was saved: its contents do not match its digest. Use the "
            "original, or save it anew from Python."
        )
    try:
        require_header(header, tensors)
    except (ValueError, RecursionError) as error:
        said = "nested too deeply" if isinstance(error, RecursionError) else error
        raise ValueError(f"{path} holds no steering ({said}). Use the original.") from error
    return header, tensors


def _header(path: Path, text: str) -> dict[str, Any]:
    try:
        header = parse_json(text)
    except ValueError as error:
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
    moved = saved.get("moved_from", "")
    imported = tuple(Imported(**part) for part in saved.get("imported", []))
    return Origin(ModelIdentity(**saved["model"]), saved["seed"], saved["data"], moved, imported)


def _from_tree(tree: Tree, tensors: Mapping[str, Tensor], path: Path) -> Any:
    if not isinstance(tree, dict):
        return tree
    if "tensor" in tree:
        return tensors[tree["tensor"]]
    if "tuple" in tree:
        return tuple(_from_tree(item, tensors, path) for item in tree["tuple"])
    build: Callable[..., Any] | None = SAVEABLE.get(tree["class"])
    if build is None:
        raise Unknown(
            f"{path} holds a {tree['class']!r}, which this steerlens does not know: "
            f"{', '.join(sorted(SAVEABLE))}. Import the module that defines it, or upgrade."
        )
    values = {name: _from_tree(item, tensors, path) for name, item in tree["fields"].items()}
    unknown = set(values) - {item.name for item in fields(build)}
    if unknown:
        raise Unknown(
            f"{path} gives {tree['class']} {few(unknown)}, which this steerlens does "
            "not know. It was saved by a newer one: upgrade."
        )
    require_values(build, values)
    return build(**values)


# -- Files of version 0.1.0 ------------------------------------------------------------------------
#
# There COLD-FD was no steer at a site but a steering of its own kind, which held its sites and its
# scope, and there were classes that put steerings of both kinds together or wrapped them.

_RENAMED = {"AskedAtLast": "LastTokenChange"}


def upgraded(tree: Tree) -> Tree:
    """What a file holds, in the classes of today: a `Steering` whatever it was."""
    tree = _renamed(tree)
    kind = tree.get("class") if isinstance(tree, dict) else None
    if kind in ("ColdFD", "Together", "Mapped"):
        placed = [{"tuple": [site, steer]} for site, steer in _placed(tree)]
        return _node("Steering", {"placed": {"tuple": placed}})
    return tree


def _renamed(tree: Tree) -> Tree:
    if isinstance(tree, list):
        return [_renamed(item) for item in tree]
    if not isinstance(tree, dict):
        return tree
    tree = {key: _renamed(item) for key, item in tree.items()}
    return tree | {"class": _RENAMED.get(tree["class"], tree["class"])} if "class" in tree else tree


def _placed(tree: Tree) -> list[tuple[Tree, Tree]]:
    """The sites and steers of a steering of any kind."""
    values = tree["fields"]
    if tree["class"] == "Steering":
        return [tuple(pair["tuple"]) for pair in values["placed"]["tuple"]]
    if tree["class"] == "Together":
        return [pair for part in values["steerings"]["tuple"] for pair in _placed(part)]
    if tree["class"] == "Mapped":
        change = values["change"]
        wrapper = {"Rescale": "Scaled", "Limit": "Only"}[change["class"]]
        return [
            (site, _node(wrapper, {"steer": steer, **change["fields"]}))
            for site, steer in _placed(values["steering"])
        ]
    if tree["class"] != "ColdFD":
        raise ValueError(
            f"This file holds a {tree['class']!r} as a steering of its own kind, which version "
            "0.1.0 allowed. Make it a steer that says needs_run = True, place it with "
            "at(site, steer), and save it again."
        )
    scope = values["scope"]
    own = {name: value for name, value in values.items() if name != "scope"}
    steers = [(site, _node("ColdFD", {"site": site, **own})) for site in values["sites"]["tuple"]]
    if scope["fields"] == {"name": "everywhere", "start": None, "stop": None, "bos": True}:
        return steers
    return [(site, _node("Only", {"steer": steer, "scope": scope})) for site, steer in steers]


def _node(kind: str, values: Tree) -> Tree:
    return {"class": kind, "fields": values}
