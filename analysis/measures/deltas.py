"""What a prompt or a steering did to the activations, token by token, on the same response.

accumulated   the steered (or prompted) run less the plain run, on the same response ids.
local         what a steering adds at its own site to the activation it is given there; for a
              prompt, the part that a layer adds because of the prompt (arXiv 2605.03907),
              A_l(prompted) - F_l(A_{l-1}(prompted)), with F_l the layer in the plain run.
"""

import ctypes
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Literal, TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor

from steerlens.activations import Activations, capture, capture_watched
from steerlens.kinds import require_kinds
from steerlens.prompts import Encoded
from steerlens.runtime.hooks import Watch, watching
from steerlens.scopes import Scope, Window
from steerlens.sites import Site
from steerlens.steering import Steering, at, together
from steerlens.types import Hook, HookedModel, Residual, Steer, Where

from .aligned import Aligned

View = Literal["accumulated", "local"]
Deltas: TypeAlias = Mapping[Site, Float[Tensor, "token d_model"]]


@dataclass(frozen=True, eq=False)
class Difference(Mapping[Site, Tensor]):
    """`after` less `before` at a site, in float64, made each time that it is looked at.

    All layers at once would take several times the memory of the activations.
    """

    after: Activations
    before: Activations

    def __getitem__(self, site: Site) -> Float[Tensor, "token d_model"]:
        _give_back()
        return self.after.values[site].double() - self.before.values[site].double()

    def __iter__(self) -> Iterator[Site]:
        return iter(self.after.values)

    def __len__(self) -> int:
        return len(self.after.values)


def _give_back() -> None:
    """Give memory that is free to the system, where the C library is glibc.

    It keeps freed blocks of some megabytes, and small things that last, such as a table's columns,
    are put into them. So every layer would take new ones: 2.8 GB for 24 pairs on SmolLM2, not 0.9.
    """
    trim = _glibc_trim()
    if trim is not None:
        trim(0)


@cache
def _glibc_trim() -> Callable[[int], int] | None:
    if not sys.platform.startswith("linux"):
        return None
    return getattr(ctypes.CDLL(None), "malloc_trim", None)


def difference(after: Activations, before: Activations) -> Deltas:
    """`after` less `before` at every site, in float64."""
    return Difference(after, before)


def prompt_deltas(model: HookedModel, aligned: Aligned, view: View = "accumulated") -> Deltas:
    """What the prompt did."""
    require_kinds(prompt_deltas, locals())
    if view == "accumulated":
        return difference(aligned.prompted, aligned.plain)
    return _local_prompt_deltas(model, aligned)


def steering_deltas(
    model: HookedModel,
    aligned: Aligned,
    steering: Steering,
    view: View = "accumulated",
    watch: Watch | None = None,
) -> Deltas:
    """What `steering` did to the plain run. In the local view, 0 where it does not steer.

    With a `watch`, a steer that changed nothing is not warned of: other pairs follow.
    """
    require_kinds(steering_deltas, locals())
    if watch is None:
        with watching() as watch:
            return steering_deltas(model, aligned, steering, view, watch)
    where = (aligned.plain_rows, aligned.sites, aligned.span)
    after = capture_watched(model, *where, steering, watch)
    if view == "accumulated":
        return difference(after, aligned.plain)
    return difference(after, capture_watched(model, *where, steering, watch, "before"))


@dataclass(frozen=True, eq=False)
class Substitute:
    """The steer that puts given activations in place of those on `scope`, for one row of tokens."""

    values: Float[Tensor, "token d_model"]
    scope: Scope
    needs_window = True
    may_be_idle = True  # an instrument: below the first layer that a prompt changes, nothing moves

    def bind(self, window: Window) -> Steer:
        """The substitution for one pass of one row."""
        return _Substituted(self.values, self.scope.where(window))

    def __call__(self, activation: Residual, hook: Hook = None) -> Residual:
        raise ValueError("Substitute depends on positions: use it through capture or generate.")


@dataclass(frozen=True, eq=False)
class _Substituted:
    values: Float[Tensor, "token d_model"]
    where: Where

    def __call__(self, activation: Residual, hook: Hook = None) -> Residual:
        h = activation.clone()
        h[self.where] = self.values.to(activation)
        return h


def _local_prompt_deltas(model: HookedModel, aligned: Aligned) -> Deltas:
    """What every layer adds because of the prompt.

    One pass a row is enough for all layers: each is given the prompted activations on the span, and
    what comes before the span is the plain run's own, as no token sees a later one.
    """
    for site in aligned.sites:
        if site.stream != "resid_post":
            raise ValueError(
                f"The local view of a prompt is what a whole layer adds, so it is read at "
                f"resid_post; asked for at {site}. Use view='accumulated' there."
            )
    entries = [Site(site.layer, "resid_pre") for site in aligned.sites]
    received = capture(model, aligned.prompted_rows, entries, scope=aligned.span)
    of_layers = []
    for number, row in enumerate(aligned.plain_rows):
        given = [at(e, Substitute(received.of(number, e), aligned.span)) for e in entries]
        run = capture(model, [row], aligned.sites, scope=aligned.span, steering=together(given))
        of_layers.append(run)
    return {
        site: aligned.prompted.at(site).double()
        - torch.cat([run.at(site) for run in of_layers]).double()
        for site in aligned.sites
    }


def acts_on(
    model: HookedModel, row: Encoded, steering: Steering, sites: Sequence[Site]
) -> list[bool]:
    """For every token of a row, whether `steering` changes its activation at any of `sites`."""
    steered = capture(model, [row], sites, steering=steering)
    given = capture(model, [row], sites, steering=steering, moment="before")
    changed = torch.stack([delta.norm(dim=-1) > 0 for delta in difference(steered, given).values()])
    return changed.any(dim=0).tolist()
