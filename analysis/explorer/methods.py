"""The methods of an explorer: under which name, and at which places each of them steers."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from steerlens.sites import Layer, Site, as_site
from steerlens.steering import Steering
from steerlens.types import HookedModel

from ..figures.style import method_looks
from ..measures.entries import RESERVED

PROMPT, UNSTEERED = "prompt", "unsteered"
ALL_LAYERS = "all its layers"
Family: TypeAlias = "Mapping[Layer, Steering] | Mapping[Site, Steering]"
Steerings: TypeAlias = "Mapping[str, Steering | Family]"


@dataclass(frozen=True, eq=False)
class Place:
    """Where a method steers: in words, its layers, and the steering that does it."""

    label: str
    layers: tuple[int, ...]
    steering: Steering | None

    @property
    def lowest(self) -> int:
        """The lowest layer that it steers; 0 for the prompt."""
        return min(self.layers, default=0)


@dataclass(frozen=True, eq=False)
class Method:
    """A method in every picture: its name, its colour and dash, and its places.

    The places of a family are steerings that were made for one layer each; those of a single
    steering are all of its layers and, where it has several, each of them alone (`parts`). `keys`
    are the layers or sites under which the steerings of a family were given.
    """

    name: str
    colour: str
    dash: str
    places: tuple[Place, ...]
    parts: tuple[Place, ...] = ()
    keys: tuple[Any, ...] = ()

    def offered(self, live: bool) -> tuple[Place, ...]:
        """The places that can be chosen: parts of a steering in live use alone."""
        return (*self.places, *self.parts) if live else self.places


def as_methods(steerings: Steerings, model: HookedModel) -> tuple[Method, ...]:
    """The prompt and every method, in the order given; ValueError for what cannot be one."""
    named = isinstance(steerings, Mapping) and all(isinstance(name, str) for name in steerings)
    if not named or not steerings:
        raise ValueError(
            'steerings is {"name": steering, ...}, at least one; a method fitted at several layers '
            'is {"CAA": {3: steering, 4: steering}}.'
        )
    taken = [name for name in steerings if name in RESERVED or not str(name).strip()]
    if taken:
        raise ValueError(f"No method can be called {taken[0]!r}. Taken are {', '.join(RESERVED)}.")
    looks = method_looks([PROMPT, *steerings])
    methods = [Method(PROMPT, looks[PROMPT].colour, "solid", (Place("", (), None),))]
    for name, given in steerings.items():
        look = (name, looks[name].colour, looks[name].dash)
        methods.append(_method(look, given, model))
    return tuple(methods)


def _method(look: tuple[str, str, str], given: "Steering | Family", model: HookedModel) -> Method:
    name = look[0]
    if isinstance(given, Mapping) and given:
        order = sorted(given.items(), key=lambda item: as_site(item[0], model))
        places = [_at(where, _checked(name, one), model) for where, one in order]
        return Method(*look, tuple(places), keys=tuple(where for where, _ in order))
    steering = _checked(name, given).on(model)
    layers = _layers(steering)
    if len(layers) == 1:
        return Method(*look, (_place(steering, model, f"layer {layers[0]}"),))
    parts = [_place(_part(steering, layer), model, f"layer {layer} alone") for layer in layers]
    return Method(*look, (_place(steering, model, ALL_LAYERS),), tuple(parts))


def _at(where: Layer | Site, steering: Steering, model: HookedModel) -> Place:
    """A member of a family; ValueError unless it steers where its key says.

    A site is that site alone, a bare layer all sites of the layer.
    """
    site, sites = as_site(where, model), steering.on(model).sites
    there = {site} if isinstance(where, Site) else {s for s in sites if s.layer == site.layer}
    if set(sites) != there:
        named = ", ".join(map(str, sites))
        raise ValueError(
            f"A family has the steering of each layer under that layer: the one under {where} "
            f"steers at {named}. Give {{layer: steering fitted there}}, or the steering alone."
        )
    return _place(steering, model, _label(site))


def _label(site: Site) -> str:
    return f"layer {site.layer}" if site.stream == "resid_post" else str(site)


def _place(steering: Steering, model: HookedModel, label: str) -> Place:
    steering = steering.on(model)
    return Place(label, _layers(steering), steering)


def _part(steering: Steering, layer: int) -> Steering:
    """What the steering does at one of its layers."""
    kept = tuple((site, steer) for site, steer in steering.placed if site.layer == layer)
    return Steering(kept, steering.origin)


def _layers(steering: Steering) -> tuple[int, ...]:
    return tuple(sorted({site.layer for site in steering.sites}))


def _checked(name: str, given: object) -> Steering:
    if isinstance(given, Steering):
        return given
    advice = f" Give its steering: {name}.steering." if hasattr(given, "steering") else ""
    raise TypeError(
        f"steerings[{name!r}] is a Steering, or one for each layer, {{3: steering, 4: steering}}; "
        f"found {type(given).__name__}.{advice}"
    )


def by_name(methods: Sequence[Method], name: str) -> Method:
    """The method of a name; ValueError that lists those that there are."""
    for method in methods:
        if method.name == name:
            return method
    raise ValueError(
        f"There is no method {name!r}. There are {', '.join(one.name for one in methods)}."
    )


def families(steerings: Mapping[str, Steering]) -> "dict[str, Steering | Family]":
    """Steerings of files, those of one method at several layers as one family.

    They are taken for one where their names are alike but for numbers, `CAA (joy_3)` and
    `CAA (joy_4)`, and each steers one site, another than the others do.
    """
    alike: dict[str, list[str]] = {}
    for name in steerings:
        alike.setdefault(re.sub(r"\d+", "", name), []).append(name)
    found: dict[str, Steering | Family] = {}
    for bare, names in alike.items():
        sites = [site for name in names for site in steerings[name].sites]
        if len(names) == 1 or len(set(sites)) < len(sites) or len(sites) != len(names):
            found |= {name: steerings[name] for name in names}
            continue
        stem = re.sub(r"[\s._-]*(layer|l)?[\s._-]*\)$", ")", bare).replace(" ()", "")
        title = stem.rstrip(" ._-") if stem not in found else names[0]
        found[title] = {steerings[name].sites[0]: steerings[name] for name in names}
    return found
