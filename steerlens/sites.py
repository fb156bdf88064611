"""Where in the model: `Site` names a hook point."""

import difflib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from numbers import Real
from typing import Any, Literal, SupportsIndex, TypeAlias, TypeVar, get_args

from jaxtyping import Float
from torch import Tensor

from steerlens.combinators import parts
from steerlens.parsing import short
from steerlens.types import HookedModel, converting, whole_number

Stream = Literal["resid_pre", "resid_mid", "resid_post", "attn_out", "mlp_out", "z"]
RESIDUAL: tuple[Stream, ...] = ("resid_pre", "resid_mid", "resid_post", "attn_out", "mlp_out")
"""The streams that are the residual stream, or are added to it: [batch, pos, d_model]."""
MOST_LAYERS = 10**6
"""No model has as many layers, and a number as long as a page helps nobody in a message."""
Act = Callable[..., Any]
Value = TypeVar("Value")


@converting(layer=lambda layer: layer if (n := whole_number(layer)) is None else n)
@dataclass(frozen=True, order=True)
class Site:
    """A stream of the residual at one layer. Layers count from 0, or from the end: -1 is the last.

    `resid_pre` is the input of the block, `resid_post` its output; ActAdd reads and writes the
    first, almost every other method the second. `z` is what the attention heads found, before their
    output matrix: one head beside the other, [batch, pos, n_heads * d_head]. A layer that counts
    from the end becomes one that counts from 0 where the model is known: in every fit, on every run
    and in every file.

    >>> sl.Site(3).hook_name
    'blocks.3.hook_resid_post'
    >>> sl.Site(-1).on(sl.load("demo"))
    Site(layer=5, stream='resid_post')
    """

    layer: int
    stream: Stream = "resid_post"

    def __post_init__(self) -> None:
        number = whole_number(self.layer)
        if number is None or abs(number) > MOST_LAYERS:
            raise ValueError(
                f"Site(layer={short(self.layer)}): a layer is a whole number, counting from 0 at "
                "the bottom or from -1 at the top, where model.cfg.n_layers - 1 is the same as -1."
            )
        if not isinstance(self.stream, str) or self.stream not in get_args(Stream):
            raise ValueError(
                f"Unknown stream {short(self.stream)}. The streams are: "
                f"{', '.join(get_args(Stream))}."
            )

    @property
    def hook_name(self) -> str:
        """The legacy name: the one spelling that every TransformerLens model answers to.

        ValueError where the layer counts from the end.
        """
        if self.layer < 0:
            raise ValueError(
                f"{self!r} counts layers from the end, so where it is depends on the model: "
                "steering.on(model), or site.on(model), is the same on that model."
            )
        inside = "attn." if self.stream == "z" else ""
        return f"blocks.{self.layer}.{inside}hook_{self.stream}"

    def hook(self, act: Act) -> tuple[str, Act]:
        """`act` as an entry of `fwd_hooks` at this site.

        TransformerLens gives z as [batch, pos, head, d_head]; `act` sees, and returns, the heads
        one beside the other.
        """
        return self.hook_name, beside(act) if self.stream == "z" else act

    def on(self, model: HookedModel) -> "Site":
        """The same site with its layer counted from 0; ValueError if the model has fewer layers."""
        return self.among(model.cfg.n_layers)

    def among(self, n_layers: int) -> "Site":
        """The same site in a model of so many layers, its layer counted from 0."""
        if self.layer >= 0:
            return self
        if self.layer < -n_layers:
            raise ValueError(
                f"{self!r} counts {-self.layer} layers from the end; this model has {n_layers} "
                f"layers, -{n_layers} to -1 from the end and 0 to {n_layers - 1} from the bottom."
            )
        return replace(self, layer=self.layer + n_layers)

    def __str__(self) -> str:
        return f"layer {self.layer} {self.stream}"


Layer: TypeAlias = SupportsIndex
"""A layer's number: a whole number of Python, NumPy or torch."""
Sites: TypeAlias = Layer | Site | Iterable[Layer | Site]
"""Where a method acts: a layer, a `Site`, or several of them."""


def as_site(where: "Layer | Site", model: HookedModel | None = None) -> Site:
    """`where` as a `Site`, on the model if one is given; a bare layer means its `resid_post`."""
    site = where if isinstance(where, Site) else _of_layer(where)
    return site if model is None else site.on(model)


def _of_layer(where: object) -> Site:
    if not isinstance(where, Real | str | Tensor) and whole_number(where) is None:
        raise TypeError(
            f"A site is a layer (a whole number) or a Site; found a {type(where).__name__}. The "
            "order is fit(model, data, sites), and at(sites, steer)."
        )
    if isinstance(where, str):
        raise TypeError(f"A site is a layer or a Site; found {where!r}. Write Site(3, {where!r}).")
    return Site(where)  # pyright: ignore[reportArgumentType]  it checks the number


def as_sites(where: Sites, model: HookedModel | None = None) -> tuple[Site, ...]:
    """A layer, a `Site`, or several of them, as sites: each once, in the order given.

    Whoever knows the model gives it, so that layers counted from the end become plain ones.
    """
    # A number of NumPy or torch without axes says that it can be iterated, and cannot.
    listed = isinstance(where, Iterable) and getattr(where, "ndim", 1) > 0
    if isinstance(where, bytes | type):
        raise TypeError(
            f"Sites are a layer, a Site, or a list of them; found a {type(where).__name__}. The "
            "order is fit(model, data, sites), and at(sites, steer)."
        )
    several: Any = where if listed else (where,)
    sites = tuple(dict.fromkeys(as_site(one, model) for one in several))
    if not sites:
        raise ValueError("No sites were given. Pass a layer, a Site, or a list of them.")
    return sites


def by_site(
    values: Mapping[Site, Value] | Mapping[Layer, Value], model: HookedModel
) -> dict[Site, Value]:
    """What is given for layers or sites, by the site on the model; ValueError for one twice.

    ValueError too for a layer that the model does not have.
    """
    found: dict[Site, Value] = {}
    for where, value in values.items():
        site = as_site(where, model)
        require_layer(model, site)
        if site in found:
            raise ValueError(
                f"Directions were given twice for {site}, of which {where!r} is another name. Give "
                "them as rows of one."
            )
        found[site] = value
    return found


def beside(act: Act) -> Act:
    """`act` on heads one beside the other, for a hook point that has an axis for them."""

    def of_heads(z: Float[Tensor, "batch pos ..."], hook: Any = None) -> Any:
        acted = act(z.flatten(start_dim=2), hook)
        return None if acted is None else acted.reshape(z.shape)

    return of_heads


def width_of(model: HookedModel, site: Site) -> int:
    """How many numbers an activation has at a site: d_model, or n_heads * d_head at z."""
    cfg = model.cfg
    return cfg.n_heads * cfg.d_head if site.stream == "z" else cfg.d_model


def require_layer(model: HookedModel, site: Site) -> None:
    """Raise ValueError if `model` has no such layer; its hook points are not looked at."""
    if site.on(model).layer >= model.cfg.n_layers:
        require_site(model, site)


def require_site(model: HookedModel, site: Site) -> None:
    """Raise ValueError if `model` lacks the hook point (TransformerBridge 3.x would ignore it)."""
    names, site = model.hook_dict, site.on(model)
    if site.hook_name in names:
        return
    if site.stream == "z" and site.layer < model.cfg.n_layers:
        raise ValueError(
            f"{site!r} names the hook point {site.hook_name!r}, which this model does not have: "
            "its layers have no attention heads, or compute them where no hook can be put. Load it "
            f'with backend="hooked", or steer Site({site.layer}, "attn_out"), what the heads add '
            "together."
        )
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
        # A layer that counts from the end is compared when the model is known.
        unknown = site.layer < 0 and isinstance(own, Site) and own.stream == site.stream
        if isinstance(own, Site) and own != site and not unknown:
            raise ValueError(
                f"{type(part).__name__} was fitted for {own} and would be placed at {site}, where "
                "it means nothing. Place it at its own site, or fit it again there."
            )


def require_fit(model: HookedModel, site: Site, steer: object) -> None:
    """Raise ValueError if a part of `steer` has another width than the activations at the site."""
    for part in parts(steer):
        # What a condition reads at another site is as wide as that.
        width, place = getattr(part, "d_model", None), getattr(part, "read_at", site)
        there = width_of(model, place)
        if width is not None and width != there:
            what = "d_model" if place.stream != "z" else "n_heads * d_head ="
            raise ValueError(
                f"{type(part).__name__} at {site} has d_model {width}, this model has {what} "
                f"{there}. It was made for another model: fit it again on this one."
            )
        heads = getattr(part, "heads", None)
        if heads is not None and (site.stream != "z" or tuple(heads) != _heads(model)):
            raise ValueError(
                f"{type(part).__name__} is for {heads[0]} heads of {heads[1]} numbers and would be "
                f"placed at {site} of a model with {_heads(model)[0]} of {_heads(model)[1]}. Place "
                f'it at Site({site.layer}, "z") of the model that it was fitted on.'
            )


def _heads(model: HookedModel) -> tuple[int, int]:
    return model.cfg.n_heads, model.cfg.d_head
