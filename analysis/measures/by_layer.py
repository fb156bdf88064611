"""One method at each of several layers, each fitted as if it were alone there.

What is read from activations (a mean difference, a vector of an instruction) is fitted at all
layers from one capture, since each layer's fit looks at that layer alone. What is trained is
fitted layer by layer: together the modules would divide the work between them.
"""

import importlib
import inspect
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, TypeAlias, cast, get_args, get_origin

from steerlens.exports import exported
from steerlens.kinds import require_kinds
from steerlens.methods.psr import difference_of_means
from steerlens.prompts import PromptPair, Prompts, encode_pair
from steerlens.runtime.progress import progress_bar
from steerlens.sites import Layer, as_sites
from steerlens.steering import Steering
from steerlens.training.fit import Fit
from steerlens.types import HookedModel

Fitting: TypeAlias = "Callable[..., Fit[Any] | Steering]"
"""(model, data, sites) -> Fit or Steering."""
MEANS = "DiM"
"""The name of S-Const_DiM, `methods.psr.difference_of_means`, which is a function and no class."""
ONE_CAPTURE = ("ActAdd", "Angular", "CAA", "ColdKernel", "InstructionVector", MEANS)
"""What is fitted at several sites looks at each of them alone."""


def at_layers(
    model: HookedModel,
    data: Sequence[PromptPair] | tuple[Any, Any],
    method: str | Any,
    layers: Iterable[Layer],
    *,
    name: str | None = None,
    progress: bool | None = None,
) -> dict[str, Steering]:
    """{"CAA, layer 3": steering, ...}: the method at each layer, for `sweep`.

    `method` is the name of an exported method ("CAA", "InstructionVector", "PSR"), "DiM" (the
    difference of means S-Const_DiM), the class of a method, or any function `(model, data, sites)`
    that returns a fit or a steering: `functools.partial(PSR.fit, schedule=...)`, then called
    `name`. `data` is what it is fitted on. A method that takes two sides of prompts takes pairs
    too: the prompted side with its response is positive, the plain side with it negative.
    ValueError for a name that is none, or where a fit needs more than the data.
    """
    require_kinds(at_layers, locals())
    fit, known = _fitting(method)
    name = name or known
    if not name:
        raise ValueError("A function has no name that a table could show: pass name='...' too.")
    sites = as_sites(layers, model)
    given = _as_sides(model, data) if _takes_sides(fit) else data
    if known in ONE_CAPTURE:
        steering = _steering_of(fit(model, given, list(sites)))
        return {
            f"{name}, layer {site.layer}": Steering(((site, steer),), steering.origin)
            for site, steer in steering.placed
        }
    fitted: dict[str, Steering] = {}
    with progress_bar(len(sites), f"fit {name}", "layer", progress) as bar:
        for site in sites:
            fitted[f"{name}, layer {site.layer}"] = _steering_of(fit(model, given, [site]))
            bar.update()
    return fitted


def require_method(method: str) -> None:
    """Raise ValueError unless a method of this name can be fitted on pairs alone."""
    fit, name = _named(method)
    data = _data_of(fit)
    if data != tuple[Prompts, Prompts] and get_args(data) != (PromptPair,):
        raise ValueError(
            f"{name} is not fitted on pairs, so it cannot be fitted at each layer here. Fit it by "
            "`steerlens fit`, and give its file as a steering."
        )


def takes_sides(method: str) -> bool:
    """Whether a method of this name is fitted on two sides of prompts."""
    return _takes_sides(_named(method)[0])


def _fitting(method: str | Any) -> tuple[Fitting, str]:
    """What fits it, and the name by which it is known."""
    if isinstance(method, str):
        return _named(method)
    if method is difference_of_means:
        return method, MEANS
    if hasattr(method, "fit"):
        return _require_simple(method.fit, method.__name__), method.__name__
    if callable(method):
        return cast("Fitting", method), ""
    raise TypeError(f"A method is a name, a class with `fit` or a function; found {method!r}.")


def _named(method: str) -> tuple[Fitting, str]:
    known = exported("methods")
    names = {_plain(name): name for name in (*known, MEANS)} | {
        "spsr": "PSR",
        "differenceofmeans": MEANS,
    }
    name = names.get(_plain(method))
    if name is None:
        raise ValueError(
            f"There is no method {method!r}. The methods are: {', '.join((*known, MEANS))}."
        )
    if name == MEANS:
        return difference_of_means, MEANS
    return _require_simple(getattr(importlib.import_module(known[name]), name).fit, name), name


def _plain(name: str) -> str:
    """The name without what people write differently: "COLD-FD" is "ColdFD"."""
    return "".join(letter for letter in name.lower() if letter.isalnum())


def _require_simple(fit: Fitting, name: str) -> Fitting:
    """Raise ValueError where a fit has keywords that must be given."""
    needed = [
        item.name
        for item in inspect.signature(fit).parameters.values()
        if item.kind is item.KEYWORD_ONLY and item.default is item.empty
    ]
    if needed:
        raise ValueError(
            f"{name}.fit needs {' and '.join(needed)} besides the pairs. Give a function that has "
            f"them: at_layers(model, pairs, functools.partial({name}.fit, {needed[0]}=...), "
            f'layers, name="{name}").'
        )
    return fit


def _takes_sides(fit: Fitting) -> bool:
    """Whether the data of a fit are (positive, negative) prompts."""
    data = _data_of(fit)
    return get_origin(data) is tuple and len(get_args(data)) == 2


def _data_of(fit: Fitting) -> Any:
    """The annotation of what a fit takes behind the model; None where there is none."""
    named = fit.func if isinstance(fit, partial) else fit
    try:
        given = list(inspect.signature(named, eval_str=True).parameters.values())
    except (NameError, ValueError):  # annotations of the caller's own that cannot be read
        return None
    return given[1].annotation if len(given) > 1 else None


def _as_sides(model: HookedModel, data: Any) -> Any:
    """Pairs as (prompted, plain) rows with their responses; two sides as they are."""
    listed = list(data) if isinstance(data, Sequence) else []
    if not listed or not all(isinstance(pair, PromptPair) for pair in listed):
        return data
    both = [encode_pair(model, pair) for pair in listed]
    return [prompted for _, prompted in both], [plain for plain, _ in both]


def _steering_of(fitted: Any) -> Steering:
    found = getattr(fitted, "steering", fitted)
    if not isinstance(found, Steering):
        raise TypeError(
            f"The function of at_layers returned a {type(found).__name__}; a fit or a Steering is "
            "needed."
        )
    return found
