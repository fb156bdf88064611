"""How activations move when parameters do: passes that carry a derivative along, and their caches.

With theta the parameters and g a direction in them, `Derivative` gives dZ/d eps of Z(x; theta +
eps g) at eps = 0, exactly, by forward-mode differentiation: every number of the pass is a dual
number, its second half the derivative. `Difference` gives the quotient of two ordinary passes,
whose error is that of the step plus rounding divided by the step.

Both read any number of sites in one unsteered pass that ends at the deepest of them, and keep a
key-value cache of their own: dual numbers, or one cache for each of the two sets of parameters. So
a generated token costs one more pass over one token (two for a difference), whatever came before.
"""

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.autograd.forward_ad as dual
from jaxtyping import Float
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from steerlens.identity import is_bridge
from steerlens.methods.cold.checks import require_differentiation
from steerlens.methods.cold.gradients import (
    Place,
    standing_in,
    weights_at,
)
from steerlens.runtime.forward import Cache, read
from steerlens.runtime.turns import alone_with
from steerlens.scopes import Window
from steerlens.sites import Site
from steerlens.types import HookedModel, Residual, Tokens

Weights = Mapping[str, Float[Tensor, "..."]]
one_at_a_time = threading.RLock()
"""torch has dual numbers for one thread at a time, whatever the model."""


@dataclass(eq=False)
class Derivative:
    """dZ/d eps at eps = 0 along `direction`, at every token of one text after the other pass."""

    model: HookedModel
    sites: tuple[Site, ...]
    places: Mapping[str, Sequence[Place]]
    direction: Weights
    cache: Cache | None = None
    tangents: list[Tensor] = field(default_factory=list)

    def __post_init__(self) -> None:
        require_differentiation()
        weights = weights_at({name: self.places[name] for name in self.direction})
        self.direction = {n: self.direction[n].to(weight) for n, weight in weights.items()}

    @torch.no_grad()
    def of(self, tokens: Tokens, window: Window) -> dict[Site, Residual]:
        """The derivative at each site; a window that begins at position 0 begins a new text."""
        require_differentiation()
        if self.cache is None or not bool(window.first.any()):
            self.cache, self.tangents = Cache.empty(self.model, len(tokens)), []
        found: dict[Site, Tensor] = {}

        def reader_of(site: Site) -> Any:
            def reader(activation: Residual) -> None:
                found[site] = halves(activation)[1].clone()

            return reader

        readers = _filling({site: reader_of(site) for site in self.sites})
        # The fused attention kernels have no forward-mode derivative; the plain one has.
        plain = sdpa_kernel(SDPBackend.MATH)
        with (
            alone_with(self.model),
            one_at_a_time,
            differentiable(),
            dual.dual_level(),
            plain,
            self._dual_cache(self.cache),
            standing_in(self.places, moving(self.places, self.direction)),
        ):
            read(self.model, tokens, window, readers, cache=self.cache)
        return found

    @contextmanager
    def _dual_cache(self, cache: Cache) -> Iterator[None]:
        """Dual numbers in the cache during a pass; between passes the halves are kept apart."""
        for (layer, name), tangent in zip(_kept(self.model, cache), self.tangents, strict=False):
            setattr(layer, name, dual.make_dual(getattr(layer, name), tangent))
        yield
        self.tangents = []
        for layer, name in _kept(self.model, cache):
            value, tangent = halves(getattr(layer, name))
            self.tangents.append(tangent)
            setattr(layer, name, value)


def moving(places: Mapping[str, Sequence[Place]], direction: Weights) -> Weights:
    """The weights as dual numbers that move along `direction`, which is of their own kind."""
    weights = weights_at({name: places[name] for name in direction})
    return {name: dual.make_dual(one.detach(), direction[name]) for name, one in weights.items()}


def halves(number: Float[Tensor, "..."]) -> tuple[Float[Tensor, "..."], Float[Tensor, "..."]]:
    """The value of a dual number and its derivative; an ordinary one has zeros."""
    value, tangent = dual.unpack_dual(number)
    return value, torch.zeros_like(value) if tangent is None else tangent


@contextmanager
def differentiable() -> Iterator[None]:
    """Say what to do where an operation of the model has no forward-mode derivative."""
    try:
        yield
    except NotImplementedError as error:
        raise NotImplementedError(
            "An operation of this model has no forward-mode derivative in torch (experts and own "
            f"kernels often have none): take mode='fd'. It said: {str(error).splitlines()[0]}"
        ) from error


def _kept(model: HookedModel, cache: Cache) -> list[tuple[Any, str]]:
    """Where the filled keys and values of a cache are, from the lowest block up."""
    if cache.entries is None:
        return []
    if is_bridge(model):
        filled = [layer for layer in cache.entries.layers if layer.is_initialized]
        return [(layer, name) for layer in filled for name in ("keys", "values")]
    filled = [entry for entry in cache.entries.entries if entry.past_keys.numel()]
    return [(entry, name) for entry in filled for name in ("past_keys", "past_values")]


@dataclass(eq=False)
class Difference:
    """(Z(x; theta + up g) - Z(x; theta + down g)) / (up - down), by two passes."""

    model: HookedModel
    sites: tuple[Site, ...]
    places: Mapping[str, Sequence[Place]]
    direction: Weights
    up: float
    down: float = 0.0
    caches: tuple[Cache, ...] = ()

    def __post_init__(self) -> None:
        weights = weights_at({name: self.places[name] for name in self.direction})
        self.moved = [
            {n: value.add(self.direction[n].to(value), alpha=step) for n, value in weights.items()}
            if step
            else {}
            for step in (self.up, self.down)
        ]

    def of(self, tokens: Tokens, window: Window) -> dict[Site, Residual]:
        """The quotient at each site; a window that begins at position 0 begins a new text."""
        high, low = self._ends(tokens, window, 2)
        return {site: (high[site] - low[site]) / (self.up - self.down) for site in self.sites}

    def above(self, tokens: Tokens, window: Window) -> dict[Site, Residual]:
        """Z(x; theta + up g) alone, for where the other end is at hand."""
        return self._ends(tokens, window, 1)[0]

    @torch.no_grad()
    def _ends(self, tokens: Tokens, window: Window, n: int) -> list[dict[Site, Residual]]:
        if not self.caches or not bool(window.first.any()):
            self.caches = tuple(Cache.empty(self.model, len(tokens)) for _ in range(n))
        ends: list[dict[Site, Residual]] = []
        for weights, cache in zip(self.moved[:n], self.caches, strict=True):
            found: dict[Site, Tensor] = {}
            readers = _filling({site: _keeper(found, site) for site in self.sites})
            with alone_with(self.model), standing_in(self.places, weights):
                read(self.model, tokens, window, readers, cache=cache)
            ends.append(found)
        return ends


def step_size(model: HookedModel, weights: Weights, direction: Weights, central: bool) -> float:
    """The step r |theta| / |g| at which truncation and rounding cost about as much.

    In float32 r is 1e-5, to both sides 3e-5: the best of a grid on four small models. What error is
    left on a model, `scripts/bench/cold_precision.py` prints.

    A bridge takes its softmax in float32, so there even a float64 model is no finer than that.
    """
    lengths = [
        torch.stack([side[name].norm() for name in direction]).norm()
        for side in (weights, direction)
    ]
    dtypes = [weights[name].dtype for name in direction]
    dtypes += [torch.float32] if is_bridge(model) else []
    precision = max(torch.finfo(dtype).eps for dtype in dtypes)
    share = precision ** (1 / 3) / 160 if central else precision**0.5 / 35
    return float(share * lengths[0] / lengths[1])


def _filling(readers: dict[Site, Any]) -> dict[Site, Any]:
    """The readers, and one above where all are below the first block: its cache must grow."""
    below = all(site == Site(0, "resid_pre") for site in readers)
    return {**readers, Site(0): lambda activation: None} if below else readers


def _keeper(found: dict[Site, Tensor], site: Site) -> Any:
    def reader(activation: Residual) -> None:
        found[site] = activation.clone()

    return reader
