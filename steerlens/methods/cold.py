"""COLD-Steer: one step of gradient descent on a few examples, taken by the activations alone.

Sharma & Trivedi, "COLD-Steer: Steering Large Language Models via In-Context One-step Learning
Dynamics", arXiv 2603.06495. A step of size eta on the losses L_i of N examples would move the
activations Z of any text x at a site, to first order, by

    dZ(x) = -(eta / N) dZ(x; theta)/dtheta . sum_i dL_i/dtheta

COLD-FD takes this as it is, with theta all that acts below the site. The paper divides a finite
difference by its step; here it is the derivative itself, unless mode="fd" asks for the paper's:

    dZ(x) = -eta d/d eps Z(x; theta + eps g) at eps = 0,    g = (1 / N) sum_i dL_i/dtheta

COLD-Kernel lets a kernel of activations stand for the products of parameter gradients:

    dZ(x) = -(eta / N) sum_i kappa(Z(x), Z(x_i)) dL_i/dZ(x_i)

read at the last prompt token of each example. The unit kernel, kappa = 1, makes it one direction.
Both act on the prompt by default, as the authors' code does. docs/methods/cold.md says where that
code differs, and what compat="released" brings back.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from steerlens.asked import AskedAtLast
from steerlens.carried import Carried
from steerlens.combinators import unchanged
from steerlens.directions import require_finite
from steerlens.gradients import (
    BATCH_SIZE,
    activation_gradients,
    mean_gradient,
    places_of,
    require_parameters,
    require_precise,
    require_unfolded,
    weights_at,
)
from steerlens.losses import DPO, Example, Loss, Wish, examples_of, loss_named, name_of
from steerlens.models import require_choice
from steerlens.positions import Scope, Window, everywhere, prompt
from steerlens.prompts import Prompts
from steerlens.saving import Origin, origin_of, save_steering, saveable
from steerlens.steering import AnySteering, Site, Steering, Together, as_site, require_writable
from steerlens.tangent import Derivative, Difference, step_size
from steerlens.types import Direction, Hook, HookedModel, Residual, Steer, Tokens

Kernel = Literal["unit", "dot", "cosine", "rbf"]
Mode = Literal["jvp", "fd"]
Compat = Literal["released"]
RELEASED_STEP = 1e-6


@saveable
@dataclass(frozen=True, eq=False)
class ColdKernel:
    """Subtract eta times the gradients of the examples, weighted by kappa.

    `gradients` are each divided by N. `anchors`, which the unit kernel lacks, are the Z(x_i).
    """

    gradients: Float[Tensor, "row d_model"] = field(repr=False)
    anchors: Float[Tensor, "row d_model"] | None = field(default=None, repr=False)
    kernel: Kernel = "unit"
    eta: float = 1.0
    width: float = 0.0

    def __post_init__(self) -> None:
        require_choice("kernel", self.kernel, get_args(Kernel))
        require_finite(self.gradients, "ColdKernel's gradients")
        _require_eta(self.eta)
        if (self.kernel == "unit") != (self.anchors is None):
            raise ValueError(
                "The 'unit' kernel looks at no anchors, the activations Z(x_i), and every other "
                f"needs them; found {self.kernel!r} with{'out' if self.anchors is None else ''}."
            )
        if self.anchors is not None:
            require_finite(self.anchors, "ColdKernel's anchors")
            if self.anchors.shape != self.gradients.shape:
                raise ValueError(
                    "There is one anchor for each gradient; found anchors of shape "
                    f"{list(self.anchors.shape)} and gradients of {list(self.gradients.shape)}."
                )
        if self.kernel == "rbf" and not self.width > 0:
            raise ValueError(f"The 'rbf' kernel needs a width above 0; found {self.width}.")

    @property
    def d_model(self) -> int:
        """The width of the residual stream that the gradients belong to."""
        return self.gradients.shape[1]

    @property
    def direction(self) -> Direction:
        """What the unit kernel adds to every token at eta = 1: minus the mean gradient."""
        if self.kernel != "unit":
            raise ValueError(f"The {self.kernel!r} kernel has another direction for each token.")
        return -self.gradients.sum(dim=0)

    @classmethod
    def fit(
        cls,
        model: HookedModel,
        sites: Sequence[int | Site] | int | Site,
        positive: Prompts = (),
        negative: Prompts = (),
        *,
        loss: str | Loss = "dpo",
        kernel: Kernel = "unit",
        eta: float = 1.0,
        width: float | None = None,
        probabilities: Sequence[Wish] | None = None,
        scope: Scope = prompt,
        template: str | None = None,
        compat: Compat | None = None,
        batch_size: int = BATCH_SIZE,
    ) -> Steering:
        """Fit all sites, from one pass over each example; `losses.py` says what each loss needs.

        `width` is that of the RBF kernel, by default the median distance between anchors;
        `batch_size` the number of examples a pass, which changes the speed and nothing else.
        """
        released, places, value = _released(compat), _sites(model, sites), loss_named(loss)
        _require_kernel(kernel, width)
        require_precise(model)
        examples = examples_of(model, loss, positive, negative, probabilities, template)
        reads = list(activation_gradients(model, examples, value, places, batch_size))
        # The released code overwrites the chosen answer's activations by the rejected one's.
        kept = slice(-1, None) if released and isinstance(value, DPO) else slice(None)
        placed: list[tuple[Site, Steer]] = []
        for site in places:
            anchors = torch.cat([read[site].activation[kept] for read in reads])
            gradients = torch.cat([read[site].gradient[kept] for read in reads]) / len(examples)
            steer = cls._of(gradients, anchors, kernel, eta, width)
            shared = released and kernel != "unit"
            placed.append((site, AskedAtLast(steer) if shared else steer))
        steering = Steering(tuple(placed), origin_of(model, data=_ids(examples)))
        return steering if scope == everywhere else steering.only(scope)

    @classmethod
    def _of(
        cls,
        gradients: Float[Tensor, "row d_model"],
        anchors: Float[Tensor, "row d_model"],
        kernel: Kernel,
        eta: float,
        width: float | None,
    ) -> "ColdKernel":
        if kernel == "unit":
            return cls(gradients.sum(dim=0, keepdim=True), eta=eta)
        if kernel == "rbf" and width is None:
            width = _median_distance(anchors)
        return cls(gradients, anchors, kernel, eta, width or 0.0)

    def kappa(self, Z: Float[Tensor, "*token d_model"]) -> Float[Tensor, "*token row"]:
        """The kernel between each activation and each anchor."""
        if self.anchors is None:
            return Z.new_ones((*Z.shape[:-1], len(self.gradients)))
        anchors = self.anchors.to(Z)
        if self.kernel == "rbf":
            rows, exact = Z.reshape(-1, Z.shape[-1]), "donot_use_mm_for_euclid_dist"
            apart = torch.cdist(rows, anchors, compute_mode=exact)
            far = apart.reshape(*Z.shape[:-1], -1) / self.width
            return torch.exp(-(far**2) / 2)
        if self.kernel == "cosine":
            Z, anchors = (torch.nn.functional.normalize(side, dim=-1) for side in (Z, anchors))
        return Z @ anchors.T

    def __call__(self, activation: Residual, hook: Hook = None) -> Residual:
        wide = torch.promote_types(activation.dtype, torch.float32)
        Z, eta, dL = activation.to(wide), self.eta, self.gradients.to(activation.device, wide)
        return (Z - eta * self.kappa(Z) @ dL).to(activation.dtype)


def _number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _require_eta(eta: float) -> None:
    if not _number(eta) or not math.isfinite(eta):
        raise ValueError(f"eta is the size of the step and must be a finite number; found {eta!r}.")


def _require_kernel(kernel: str, width: float | None) -> None:
    require_choice("kernel", kernel, get_args(Kernel))
    if width is not None and not _number(width):
        raise TypeError(f"width is a number or None, the median distance; found {width!r}.")
    if kernel != "rbf" and width is not None:
        raise ValueError(f"Only the 'rbf' kernel has a width; asked for {kernel!r} with {width}.")


def _median_distance(anchors: Float[Tensor, "row d_model"]) -> float:
    apart = torch.pdist(anchors.double())
    if not bool((apart > 0).any()):
        raise ValueError(
            "All anchors are the same, so their median distance is no width. Give other examples, "
            "or a width."
        )
    return float(apart[apart > 0].median())


def _released(compat: str | None) -> bool:
    if compat is not None:
        require_choice("compat", compat, get_args(Compat))
    return compat is not None


def _sites(model: HookedModel, sites: Sequence[int | Site] | int | Site) -> tuple[Site, ...]:
    places = [as_site(s) for s in sites] if isinstance(sites, Iterable) else [as_site(sites)]
    if not places:
        raise ValueError("No sites were given. Pass a layer, a Site, or a list of them.")
    for site in places:
        require_writable(model, site)
    return tuple(sorted(set(places)))


def _ids(examples: Sequence[Example]) -> list[Tensor]:
    return [torch.tensor(row.ids) for example in examples for row in example.rows]


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
