"""A derivative that the steered pass itself carries along, up to the site where it is wanted.

`tangent.Derivative` runs a pass of its own, which computes the activations Z of every block beside
their derivatives. Where one site alone is steered, the steered pass has the same Z up to there. So
its own numbers below the site are made dual ones: the weights are, each block's cached keys and
values are, and the last block hands on ordinary numbers again. Of the four products that a matrix
below the site costs (W x twice, W x' and W' x) one is spared: with f the share of the blocks up to
the site a pass costs about 1 + 2f unsteered ones instead of 1 + 3f.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
import torch.autograd.forward_ad as dual
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.overrides import TorchFunctionMode

from steerlens.methods.cold.checks import require_differentiation
from steerlens.methods.cold.gradients import (
    Place,
    standing_in,
)
from steerlens.methods.cold.tangent import (
    Derivative,
    Weights,
    differentiable,
    halves,
    moving,
    one_at_a_time,
)
from steerlens.runtime.bare import blocks_run
from steerlens.runtime.forward import in_place_of
from steerlens.runtime.turns import alone_with
from steerlens.scopes import Window
from steerlens.sites import Site
from steerlens.types import HookedModel, Residual


@dataclass(eq=False, repr=False)
class SharedPass:
    """dZ/d eps at eps = 0 along `direction`, from a pass that is steered at `site` alone.

    `direction` is that of a `Derivative`, which has brought it to the weights' kind and device.
    `tangents` are the derivatives of the cached keys and values, by block, between passes.
    """

    model: HookedModel
    site: Site
    places: Mapping[str, Sequence[Place]]
    direction: Weights
    tangents: dict[int, list[Tensor]] = field(default_factory=dict)
    begins: bool = True
    inside: bool = False

    def __post_init__(self) -> None:
        self.below, self.attention = ExitStack(), _Attention()

    @classmethod
    def of(cls, derivative: Derivative) -> "SharedPass":
        """The same derivative at its one site, taken along by the steered pass."""
        (site,) = derivative.sites
        return cls(derivative.model, site, derivative.places, derivative.direction)

    def begin(self, window: Window) -> None:
        """Ready for the pass of `window`; one that holds position 0 begins a new text."""
        require_differentiation()
        self.begins = not bool(window.first.any())
        if self.begins:
            self.tangents = {}

    @contextmanager
    def carrying(self) -> Iterator[None]:
        """Dual numbers from the embedding to the site's block of the pass inside."""
        blocks = blocks_run(self.model)[: self.site.layer + 1]
        with ExitStack() as self.below:
            self.below.enter_context(alone_with(self.model))
            self.below.enter_context(one_at_a_time)
            self.below.enter_context(dual.dual_level())
            self.below.enter_context(standing_in(self.places, moving(self.places, self.direction)))
            for number, block in enumerate(blocks):
                self.below.enter_context(
                    in_place_of(block, partial(self._block, number, block.forward))
                )
            self.inside = True
            self.below.callback(setattr, self, "inside", False)
            yield

    def value_and_derivative(self, activation: Residual) -> tuple[Residual, Residual]:
        """An activation at the site, and its derivative along the direction."""
        if not self.inside:
            raise RuntimeError(
                "A second pass ran under the hooks of one: ready the run before each pass."
            )
        return halves(activation)

    def _block(self, number: int, forward: Callable[..., Any], *given: Any, **options: Any) -> Any:
        """One block on dual numbers.

        The site's block returns ordinary numbers, so that the blocks above it cost what they always
        do, and takes the dual weights off the model.
        """
        cached = partial(_cached, (*given, *options.values()), number)
        if not self.begins and not self.tangents.get(number):
            raise RuntimeError(
                f"Block {number} of this model is not handed its key-value cache, which is to hold "
                "the derivatives of earlier tokens: call generate(..., cache=False)."
            )
        for (holder, name), tangent in zip(cached(), self.tangents.get(number, ()), strict=False):
            setattr(holder, name, dual.make_dual(getattr(holder, name), tangent))
        watched = self.begins or self.attention.seen
        with differentiable(), self.attention if watched else nullcontext():
            found = forward(*given, **options)
        self.tangents[number] = [_split(holder, name) for holder, name in cached()]
        if number < self.site.layer:
            return found
        first, *rest = found if isinstance(found, tuple) else (found,)
        out = dual.unpack_dual(first).primal
        self.below.close()
        return (out, *rest) if isinstance(found, tuple) else out


class _Attention(TorchFunctionMode):
    """The fused kernels' numbers with the plain one's derivative, which the fused ones have not."""

    seen = False

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        options = kwargs or {}
        if func is not torch.nn.functional.scaled_dot_product_attention:
            return func(*args, **options)
        self.seen = True
        with sdpa_kernel(SDPBackend.MATH):
            tangent = dual.unpack_dual(func(*args, **options)).tangent
        value = func(
            *map(_ordinary, args), **{name: _ordinary(one) for name, one in options.items()}
        )
        return value if tangent is None else dual.make_dual(value, tangent)


def _ordinary(one: Any) -> Any:
    return dual.unpack_dual(one).primal if isinstance(one, Tensor) else one


def _split(holder: Any, name: str) -> Tensor:
    """Leave the ordinary half in its place, and return the other."""
    value, tangent = halves(getattr(holder, name))
    setattr(holder, name, value)
    return tangent


def _cached(given: Sequence[Any], number: int) -> list[tuple[Any, str]]:
    """Where the keys and values of block `number` are, if a cache is among what it is given."""
    for one in given:
        if hasattr(one, "past_keys"):
            return [(one, "past_keys"), (one, "past_values")]
        if hasattr(one, "get_seq_length") and number < len(one.layers):
            return [(one.layers[number], "keys"), (one.layers[number], "values")]
    return []
