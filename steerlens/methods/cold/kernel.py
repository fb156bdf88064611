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
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from steerlens.checks import require_choice, require_finite
from steerlens.identity import origin_of
from steerlens.methods.cold.gradients import (
    BATCH_SIZE,
    activation_gradients,
    require_precise,
)
from steerlens.methods.cold.losses import (
    DPO,
    Example,
    Loss,
    Wish,
    examples_of,
    loss_named,
)
from steerlens.methods.cold.released import AskedAtLast
from steerlens.prompts import Prompts
from steerlens.saving import saveable
from steerlens.scopes import Scope, everywhere, prompt
from steerlens.sites import Site, as_site, require_writable
from steerlens.steering import Steering
from steerlens.types import Direction, Hook, HookedModel, Residual, Steer

Kernel = Literal["unit", "dot", "cosine", "rbf"]
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
