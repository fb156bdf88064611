"""Where in the model: `Site` names a hook point."""

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any, Literal, TypeAlias, get_args

from torch import Tensor

from steerlens.combinators import parts
from steerlens.types import HookedModel

Stream = Literal["resid_pre", "resid_mid", "resid_post", "attn_out", "mlp_out"]


@dataclass(frozen=True, order=True)
class Site:
    """A stream of the residual at one layer. Layers count from 0.

    `resid_pre` is the input of the block, `resid_post` its output; ActAdd reads and writes the
    first, almost every other method the second.
    """

    layer: int
    stream: Stream = "resid_post"

    def __post_init__(self) -> None:
        if not isinstance(self.layer, Integral) or isinstance(self.layer, bool) or self.layer < 0:
            raise ValueError(
                f"Site(layer={self.layer!r}): a layer is a whole number counting from 0 at the "
                "bottom; for the last one of a model use model.cfg.n_layers - 1."
            )
        object.__setattr__(self, "layer", int(self.layer))  # NumPy has whole numbers of its own
        if self.stream not in get_args(Stream):
            raise ValueError(
                f"Unknown stream {self.stream!r}. The streams are: {', '.join(get_args(Stream))}."
            )

    @property
    def hook_name(self) -> str:
        """The legacy name: the one spelling that every TransformerLens model answers to."""
        return f"blocks.{self.layer}.hook_{self.stream}"

    def __str__(self) -> str:
        return f"layer {self.layer} {self.stream}"


Sites: TypeAlias = int | Site | Sequence[int | Site]
"""Where a method acts: a layer, a `Site`, or several of them."""


def as_site(where: "int | Site") -> Site:
    """`where` as a `Site`; a bare layer means its `resid_post`."""
    if isinstance(where, Site):
        return where
    if not isinstance(where, Real | str | Tensor):
        raise TypeError(
            f"A site is a layer (a whole number) or a Site; found a {type(where).__name__}. The "
            "order is fit(model, data, sites), and at(sites, steer)."
        )
    if isinstance(where, str):
        raise TypeError(f"A site is a layer or a Site; found {where!r}. Write Site(3, {where!r}).")
    return Site(where)  # pyright: ignore[reportArgumentType]  it checks the number


def as_sites(where: "int | Site | Sequence[int | Site]") -> tuple[Site, ...]:
    """A layer, a `Site`, or several of them, as sites: each once, in the order given."""
    # A number of NumPy or torch without axes says that it can be iterated, and cannot.
    listed = isinstance(where, Iterable) and getattr(where, "ndim", 1) > 0
    several: Any = where if listed else (where,)
    sites = tuple(dict.fromkeys(map(as_site, several)))
    if not sites:
        raise ValueError("No sites were given. Pass a layer, a Site, or a list of them.")
    return sites


def require_site(model: HookedModel, site: Site) -> None:
    """Raise ValueError if `model` lacks the hook point (TransformerBridge 3.x would ignore it)."""
    names = model.hook_dict
    if site.hook_name in names:
        return
    near = difflib.get_close_matches(site.hook_name, names, n=3, cutoff=0.0)
    raise ValueError(
        f"{site!r} names the hook point {site.hook_name!r}, which this model does not have (it has "
        f"{model.cfg.n_layers} layers, 0 to {model.cfg.n_layers - 1}). Close to it: "
        f"{', '.join(near)}."
    )


def require_writable(model: HookedModel, site: Site) -> None:
    """Raise ValueError if `model` lacks the hook point, or what is written there goes astray."""
    from steerlens.identity import is_bridge

    require_site(model, site)
    if site.stream == "resid_mid" and is_bridge(model):
        raise ValueError(
            f"{site} can be read on a TransformerBridge but not steered: that hook point is the "
            "input of the MLP alone, and what is added there never reaches the residual stream. "
            f'Steer Site({site.layer}, "attn_out"): to add there is to add to resid_mid. Or load '
            'the model with backend="hooked".'
        )


def require_own_site(site: Site, steer: object) -> None:
    """Raise ValueError if a part of `steer` was fitted for another site than it is placed at.

    That is one that needs the run and has a `site`, as COLD-FD has.
    """
    for part in parts(steer):
        own = getattr(part, "site", None) if getattr(part, "needs_run", False) else None
        if isinstance(own, Site) and own != site:
            raise ValueError(
                f"{type(part).__name__} was fitted for {own} and would be placed at {site}, where "
                "it means nothing. Place it at its own site, or fit it again there."
            )


def require_fit(model: HookedModel, site: Site, steer: object) -> None:
    """Raise ValueError if a part of `steer` has another width than the model's residual stream."""
    for part in parts(steer):
        width = getattr(part, "d_model", None)
        if width is not None and width != model.cfg.d_model:
            raise ValueError(
                f"{type(part).__name__} at {site} has d_model {width}, this model has d_model "
                f"{model.cfg.d_model}. It was made for another model: fit it again on this one."
            )
