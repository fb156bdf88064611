"""COLD-FD: what one step of gradient descent on a few examples would do to each activation.

Sharma & Trivedi, "COLD-Steer: Steering Large Language Models via In-Context One-step Learning
Dynamics", arXiv 2603.06495. A step of size eta on the losses L_i of N examples, theta all that acts
below the site, moves the activations Z of any text x, to first order, by -eta dZ:

    g  = (1 / N) sum_i dL_i/dtheta
    dZ = d/d eps Z(x; theta + eps g) at eps = 0
    h' = Z - eta dZ

The paper divides a finite difference by its step; here it is the derivative itself, unless
mode="fd" asks for the paper's. It acts on the prompt by default, as the authors' code does.
docs/methods/cold.md says where that code differs, and what compat="released" brings back.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import get_args

import torch
from jaxtyping import Float
from torch import Tensor

from steerlens.checks import require_choice
from steerlens.kinds import require_kinds
from steerlens.methods.cold.checks import (
    Compat,
    Mode,
    Stored,
    context_of,
    require_eta,
    require_own_site,
    require_parameters,
    require_precise,
    require_step,
    require_unfolded,
    require_whole_texts,
    step_options,
    writable_sites,
)
from steerlens.methods.cold.dual_pass import SharedPass
from steerlens.methods.cold.examples import Examples, Prompted, examples_of
from steerlens.methods.cold.gradients import BATCH_SIZE, mean_gradient, places_of, weights_at
from steerlens.methods.cold.losses import Loss, loss_named, name_of
from steerlens.methods.cold.tangent import Derivative, Difference, step_size
from steerlens.scopes import Context, Scope, Window, prompt
from steerlens.sites import Site, Sites
from steerlens.steers import steer
from steerlens.training.fit import Fit, token_ids
from steerlens.types import Hook, HookedModel, Residual, Steer, Tokens

MANY = 2**24
"""From so many numbers on, 64 MB in float32, the gradient is stored in half of that."""


@steer
class ColdFD:
    """Subtract eta times the derivative of each token's activation along the mean gradient g.

    It sees the tokens. Where it alone steers a pass, that pass carries the derivative itself.
    Else the unsteered model is run before each pass on the same tokens, with a cache of its own, up
    to the deepest of `sites`, all that were fitted together: one such pass serves them all.
    `gradients` are g, of the parameters of these `names`.
    """

    names: tuple[str, ...]
    gradients: tuple[Float[Tensor, "..."], ...]
    site: Site
    sites: tuple[Site, ...]
    eta: float = 1.0
    mode: Mode = "jvp"
    eps: float | None = None
    central: bool = False
    loss: str = ""
    needs_window = True
    needs_run = True
    of_unsteered = True  # the step is that of the model without any steering

    def __post_init__(self) -> None:
        require_step(self.mode, self.eps, self.central)
        require_eta(self.eta)
        require_own_site(self.site, self.sites)

    @classmethod
    def fit(
        cls,
        model: HookedModel,
        examples: Examples | Prompted,
        sites: Sites,
        *,
        loss: str | Loss = "dpo",
        eta: float = 1.0,
        mode: Mode = "jvp",
        eps: float | None = None,
        central: bool = False,
        scope: Scope = prompt,
        compat: Compat | None = None,
        batch_size: int = BATCH_SIZE,
        stored: Stored = "auto",
    ) -> Fit:
        """The mean gradient of the examples; `examples.py` says what each loss looks at.

        With mode="fd", `eps=None` takes a step in proportion to |theta| / |g|, and `central` steps
        to both sides. `batch_size` is the most examples a pass, fewer where they are long: the
        memory and the speed and nothing else. `stored` is the dtype in which g, computed in
        float32, is kept here and in files: "auto" is bfloat16 from 16.8 M numbers on, which moves
        the derivative by 0.02 to 0.2 % of its length (docs/methods/cold.md).
        """
        require_kinds(ColdFD.fit, locals())
        require_choice("stored", stored, get_args(Stored))
        places = writable_sites(model, sites)
        mode, eps, central = step_options(compat, mode, eps, central)
        require_unfolded(model)
        require_precise(model, by_difference=mode == "fd")
        batch = examples_of(model, loss, examples)
        g = mean_gradient(model, batch, loss_named(loss), deepest(places), batch_size)
        names = tuple(g)
        shared = (names, _stored(g, stored))
        options = (eta, mode, eps, central, name_of(loss))
        steers = {site: cls(*shared, site, places, *options) for site in places}
        rows = [row for example in batch for row in example.rows]
        return Fit.of(model, steers, token_ids(rows), scope=scope)

    def bind(self, window: Window) -> Steer:
        """The step on the tokens of one pass; that pass may share its numbers with it."""
        context = context_of(window)
        # The steers of one fit share g, and so the passes: each run begins its own.
        options = (self.sites, self.mode, self.eps, self.central)
        key = (ColdFD, *map(id, self.gradients), *options)
        along = context.remembered(key, lambda: self.along(context.model))
        if context.alone is self and self.sites == (self.site,) and not torch.is_grad_enabled():
            shared = self._sharing(along, window, context)
            if shared is not None:
                return shared
        if key not in context.this_pass:
            context.this_pass[key] = along.of(context.tokens, window)
        return Moved(context.this_pass[key][self.site], self.eta)

    def _sharing(
        self, along: Derivative | Difference, window: Window, context: Context
    ) -> "MovedAlong | MovedFrom | None":
        """The step from the steered pass's own numbers: Z is that of the unsteered model there.

        So it carries the derivative along, or is itself the lower end of a forward difference.
        """
        if isinstance(along, Derivative):
            carried = context.remembered(along, lambda: SharedPass.of(along))
            carried.begin(window)
            context.around.append(carried.carrying())
            return MovedAlong(carried, self.eta)
        if not along.down:
            return MovedFrom(along.above(context.tokens, window)[self.site], along.up, self.eta)
        return None

    def along(self, model: HookedModel) -> Derivative | Difference:
        """What gives dZ at `sites`, pass after pass of one run: a derivative, or a difference."""
        # A difference measures g, and half precision is too coarse for that.
        wide = (one.to(torch.promote_types(one.dtype, torch.float32)) for one in self.gradients)
        g = dict(zip(self.names, wide, strict=True))
        places = places_of(model, deepest(self.sites), unembedding=False)
        weights = weights_at(places)
        require_precise(model, by_difference=self.mode == "fd")
        require_parameters(g, weights)
        if self.mode == "jvp":
            return Derivative(model, self.sites, places, g)
        eps = self.eps or step_size(model, weights, g, self.central)
        return Difference(model, self.sites, places, g, eps, -eps if self.central else 0.0)

    def derivative(
        self, model: HookedModel, tokens: Tokens, window: Window
    ) -> dict[Site, Residual]:
        """The derivative dZ at each token of a batch, whatever the scope; steering adds -eta dZ."""
        require_whole_texts(window)
        return self.along(model).of(tokens, window)

    def __call__(self, activation: Residual, hook: Hook = None) -> Residual:
        raise ValueError(
            "COLD-FD must see the tokens, and a hook cannot. Use generate(...) or capture(...), or "
            "steering.applied(model, window) with tokens, window = steerlens.batch(model, prompts)."
        )


@dataclass(frozen=True, eq=False)
class Moved:
    """Subtract eta times the derivative dZ, laid out on the tokens of one pass."""

    dZ: Residual = field(repr=False)  # noqa: N815  the paper's symbol
    eta: float

    def __call__(self, activation: Residual, hook: Hook = None) -> Residual:
        Z, eta, dZ = activation, self.eta, self.dZ.to(activation)
        return Z - eta * dZ


@dataclass(frozen=True, eq=False)
class MovedAlong:
    """Subtract eta times the derivative dZ that the pass carries along with Z."""

    carried: SharedPass = field(repr=False)
    eta: float

    def __call__(self, activation: Residual, hook: Hook = None) -> Residual:
        Z, dZ = self.carried.value_and_derivative(activation)
        eta = self.eta
        return Z - eta * dZ


@dataclass(frozen=True, eq=False)
class MovedFrom:
    """Subtract eta times the difference quotient to `above`, Z(x; theta + eps g), of one pass."""

    above: Residual = field(repr=False)
    eps: float
    eta: float

    def __call__(self, activation: Residual, hook: Hook = None) -> Residual:
        Z, eta, dZ = activation, self.eta, (self.above - activation) / self.eps
        return Z - eta * dZ


def _stored(g: dict[str, Float[Tensor, "..."]], stored: Stored) -> tuple[Float[Tensor, "..."], ...]:
    """The gradients in the dtype in which they are kept, each taken out of `g` as it is done."""
    many = sum(one.numel() for one in g.values()) >= MANY
    half = stored == "bfloat16" or (stored == "auto" and many)
    return tuple(g.pop(name).to(torch.bfloat16) if half else g.pop(name) for name in list(g))


def deepest(sites: Sequence[Site]) -> int:
    """The last block that acts on any of the sites; -1 where only the embedding does."""
    return max(site.layer - (site.stream == "resid_pre") for site in sites)
