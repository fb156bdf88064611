"""COLD-FD: the derivative of activations along the mean gradient of a few examples."""

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from steerlens.checks import require_choice
from steerlens.combinators import unchanged
from steerlens.identity import Origin, origin_of
from steerlens.methods.cold.dual_pass import Carried
from steerlens.methods.cold.gradients import (
    BATCH_SIZE,
    mean_gradient,
    places_of,
    require_parameters,
    require_precise,
    require_unfolded,
    weights_at,
)
from steerlens.methods.cold.kernel import (
    RELEASED_STEP,
    Compat,
    _ids,
    _number,
    _released,
    _require_eta,
    _sites,
)
from steerlens.methods.cold.losses import (
    Loss,
    Wish,
    examples_of,
    loss_named,
    name_of,
)
from steerlens.methods.cold.tangent import Derivative, Difference, step_size
from steerlens.prompts import Prompts
from steerlens.saving import save_steering, saveable
from steerlens.scopes import Scope, Window, everywhere, prompt
from steerlens.sites import Site, require_writable
from steerlens.steering import AnySteering, Steering, Together
from steerlens.types import Hook, HookedModel, Residual, Steer, Tokens

Mode = Literal["jvp", "fd"]


@saveable
@dataclass(frozen=True, eq=False)
class ColdFD:
    """Subtract eta times the derivative of each token's activation along the mean gradient.

    It sees the tokens. Where one site alone is steered the pass itself carries the derivative. Else
    the unsteered model is run before each pass on the same tokens, up to the deepest site and with
    a cache of its own. `gradients` belong to the parameters of these `names`.
    """

    names: tuple[str, ...] = field(repr=False)
    gradients: tuple[Float[Tensor, "..."], ...] = field(repr=False)
    sites: tuple[Site, ...]
    eta: float = 1.0
    mode: Mode = "jvp"
    eps: float | None = None
    central: bool = False
    scope: Scope = prompt
    loss: str = ""
    origin: Origin | None = None

    def __post_init__(self) -> None:
        require_choice("mode", self.mode, get_args(Mode))
        _require_eta(self.eta)
        if not self.sites:
            raise ValueError("ColdFD has no sites. Pass a layer, a Site, or a list of them to fit.")
        if not isinstance(self.scope, Scope):
            raise TypeError(
                f"scope must be a Scope; found {self.scope!r}. Use steerlens.prompt, "
                "steerlens.everywhere, ..., or positions.scope_named(name)."
            )
        if self.mode == "jvp" and (self.eps is not None or self.central):
            raise ValueError(
                "mode='jvp' is the derivative itself and has no step: leave out eps and central, "
                "or ask for mode='fd'."
            )
        if self.eps is not None and not (_number(self.eps) and 0 < self.eps < math.inf):
            raise ValueError(f"eps is a step and must be finite and above 0; found {self.eps!r}.")

    @classmethod
    def fit(
        cls,
        model: HookedModel,
        sites: Sequence[int | Site] | int | Site,
        positive: Prompts = (),
        negative: Prompts = (),
        *,
        loss: str | Loss = "dpo",
        eta: float = 1.0,
        mode: Mode = "jvp",
        eps: float | None = None,
        central: bool = False,
        probabilities: Sequence[Wish] | None = None,
        scope: Scope = prompt,
        template: str | None = None,
        compat: Compat | None = None,
        batch_size: int = BATCH_SIZE,
    ) -> "ColdFD":
        """The mean gradient of the examples; `losses.py` says what each loss needs.

        With mode="fd", `eps=None` takes a step in proportion to |theta| / |g|, and `central` steps
        to both sides.
        """
        places = _sites(model, sites)
        if _released(compat):
            if (mode, eps, central) != ("jvp", None, False):
                raise ValueError(
                    f"The released code steps forward by {RELEASED_STEP}: with compat='released' "
                    "leave out mode, eps and central."
                )
            mode, eps = "fd", RELEASED_STEP
        require_unfolded(model)
        require_precise(model, by_difference=mode == "fd")
        examples = examples_of(model, loss, positive, negative, probabilities, template)
        g = mean_gradient(model, examples, loss_named(loss), _deepest(places), batch_size)
        origin = origin_of(model, data=_ids(examples))
        found = (tuple(g), tuple(g.values()), places)
        return cls(*found, eta, mode, eps, central, scope, name_of(loss), origin)

    def start(self, model: HookedModel, batch: int) -> "ColdRun":
        """Begin a run: nothing is computed before the first tokens come."""
        for site in self.sites:
            require_writable(model, site)
        places = places_of(model, _deepest(self.sites), unembedding=False)
        require_precise(model, by_difference=self.mode == "fd")
        g = dict(zip(self.names, self.gradients, strict=True))
        require_parameters(g, places)
        if self.mode == "jvp":
            derivative = Derivative(model, self.sites, places, g)
            shared = (model, self.sites[0], places, derivative.direction)
            return ColdRun(self, derivative, Carried(*shared) if len(self.sites) == 1 else None)
        weights = weights_at(places)
        eps = self.eps or step_size(model, weights, g, self.central)
        down = -eps if self.central else 0.0
        return ColdRun(self, Difference(model, self.sites, places, g, eps, down))

    def derivative(
        self, model: HookedModel, tokens: Tokens, window: Window
    ) -> dict[Site, Residual]:
        """The derivative dZ at each token of a batch, whatever the scope; steering adds -eta dZ."""
        if bool(window.first.any()):
            raise ValueError(
                "The derivative at a token depends on all tokens before it: give whole texts, as "
                "steerlens.batch makes them."
            )
        return self.start(model, len(tokens)).run.of(tokens, window)

    def __add__(self, then: AnySteering) -> Together:
        return Together((self, then))

    def save(self, path: str | Path, model: HookedModel | None = None) -> Path:
        """Write to a safetensors file, as `Steering.save`; g is as large as the parameters."""
        return save_steering(self, path, model)


@dataclass(eq=False)
class ColdRun:
    """One generation under a `ColdFD`."""

    cold: ColdFD
    run: Derivative | Difference
    carried: Carried | None = None

    def step(self, tokens: Tokens, window: Window) -> Steering:
        """The steers of a pass over `tokens`; no pass is run once the scope is left behind."""
        if self.cold.scope.over(window):
            steers: dict[Site, Steer] = dict.fromkeys(self.cold.sites, unchanged)
        else:
            moves = self.run.of(tokens, window)
            steers = {site: Moved(moves[site], self.cold.eta) for site in self.cold.sites}
        return self._limited(steers)

    def step_alone(
        self, tokens: Tokens, window: Window
    ) -> tuple[Steering, AbstractContextManager[object]]:
        """The same where nothing else steers the pass: at a site alone it has the unsteered Z.

        So it carries the derivative along, or is itself the lower end of a forward difference.
        """
        site, eta = self.cold.sites[0], self.cold.eta
        alone = len(self.cold.sites) == 1 and not torch.is_grad_enabled()
        if alone and not self.cold.scope.over(window):
            if self.carried is not None:
                self.carried.begin(window)
                along = MovedAlong(self.carried.halves, eta)
                return self._limited({site: along}), self.carried.carrying()
            if isinstance(self.run, Difference) and not self.run.down:
                above = self.run.above(tokens, window)[site]
                return self._limited({site: MovedFrom(above, self.run.up, eta)}), nullcontext()
        return self.step(tokens, window), nullcontext()

    def _limited(self, steers: Mapping[Site, Steer]) -> Steering:
        steering = Steering(tuple(steers.items()))
        return steering if self.cold.scope == everywhere else steering.only(self.cold.scope)


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

    halves: Callable[[Residual], tuple[Residual, Residual]]
    eta: float

    def __call__(self, activation: Residual, hook: Hook = None) -> Residual:
        Z, dZ = self.halves(activation)
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


def _deepest(sites: Sequence[Site]) -> int:
    """The last block that acts on any of the sites; -1 where only the embedding does."""
    return max(site.layer - (site.stream == "resid_pre") for site in sites)
