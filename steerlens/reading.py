"""Steerings out of files, those of earlier versions too. Knows every method, so it stands on top.

A file is checked to be whole, ours, and for the model at hand before anything is built from it, and
only classes that were declared saveable are built.
"""

import json
import warnings
from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from torch import Tensor

import steerlens.methods  # noqa: F401  registers every method as saveable
from steerlens.identity import (
    ModelIdentity,
    Origin,
    differences,
    identity_of,
    is_fingerprint_of,
)
from steerlens.saving import FORMAT, KEY, SAVEABLE, digest_over, require_placeable
from steerlens.steering import Steering
from steerlens.types import HookedModel, SteeringWarning

Tree = Any
"""JSON: numbers, text, and dictionaries with "class" and "fields", with "tuple", or "tensor"."""


def load_steering(
    path: str | Path, model: HookedModel, *, fitted_on: HookedModel | str | None = None
) -> Steering:
    """Read a steering and check that it belongs to `model` (by fingerprint, not by name).

    A steering of the same model in another precision, such as one fitted on a quantised copy, is
    refused unless `fitted_on` names the model that it was fitted on (or is that model): then both
    are compared, and a SteeringWarning says how far apart they are.
    """
    header, tensors = read_file(path)
    steering = _from_tree(upgraded(header["steering"]), tensors, Path(path))
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
    if header["digest"] != digest_over({k: v for k, v in header.items() if k != "digest"}, tensors):
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
    moved = saved.get("moved_from", "")
    return Origin(ModelIdentity(**saved["model"]), saved["seed"], saved["data"], moved)


def _from_tree(tree: Tree, tensors: Mapping[str, Tensor], path: Path) -> Any:
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
