"""COLD-Kernel: one step of gradient descent, a kernel of activations in place of the parameters.

Sharma & Trivedi, "COLD-Steer: Steering Large Language Models via In-Context One-step Learning
Dynamics", arXiv 2603.06495. COLD-FD moves an activation Z(x) by what a step on the losses L_i of N
examples x_i does to it; here a kernel of activations stands for products of parameter gradients:

    h' = Z - (eta / N) sum_i kappa(Z(x), Z(x_i)) dL_i/dZ(x_i)

read at the last prompt token of each example. The unit kernel, kappa = 1, makes it one direction.
It acts on the prompt by default, as the authors' code does. docs/methods/cold.md says where that
code differs, and what compat="released" brings back.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from steerlens.forms import Added
from steerlens.kinds import require_kinds
from steerlens.methods.cold.checks import (
    Compat,
    Kernel,
    is_released,
    require_anchors,
    require_eta,
    require_kernel,
    require_precise,
    writable_sites,
)
from steerlens.methods.cold.examples import Examples, Prompted, examples_of
from steerlens.methods.cold.gradients import BATCH_SIZE, activation_gradients
from steerlens.methods.cold.losses import DPO, Loss, loss_named
from steerlens.methods.cold.released import LastTokenChange
from steerlens.precision import wide
from steerlens.scopes import Scope, prompt
from steerlens.sites import Site, Sites
from steerlens.steers import steer
from steerlens.training.fit import Fit, token_ids
from steerlens.types import Direction, Hook, HookedModel, Residual, Steer


@steer
class ColdKernel:
    """Subtract eta times the gradients of the examples, weighted by kappa.

    `gradients` are each divided by N. `anchors`, which the unit kernel lacks, are the Z(x_i).
    """

    gradients: Float[Tensor, "row d_model"]
    anchors: Float[Tensor, "row d_model"] | None = None
    kernel: Kernel = "unit"
    eta: float = 1.0
    width: float = 0.0

    def __post_init__(self) -> None:
        require_eta(self.eta)
        require_anchors(self.kernel, self.gradients, self.anchors, self.width)

    @property
    def direction(self) -> Direction:
        """What the unit kernel adds to every token at eta = 1: minus the mean gradient."""
        if self.kernel != "unit":
            raise ValueError(f"The {self.kernel!r} kernel has another direction for each token.")
        return -self.gradients.sum(dim=0)

    @property
    def form(self) -> Added | None:
        """For other tools: one vector, added everywhere, where the kernel is the unit kernel."""
        if self.kernel != "unit":
            return None
        return Added(self.eta * wide(self.direction))

    @classmethod
    def fit(
        cls,
        model: HookedModel,
        examples: Examples | Prompted,
        sites: Sites,
        *,
        loss: str | Loss = "dpo",
        kernel: Kernel = "unit",
        eta: float = 1.0,
        width: float | None = None,
        scope: Scope = prompt,
        compat: Compat | None = None,
        batch_size: int = BATCH_SIZE,
    ) -> Fit:
        """Fit all sites, from one pass over each example; `examples.py` says what each loss needs.

        `width` is that of the RBF kernel, by default the median distance between anchors;
        `batch_size` the number of examples a pass, which changes the speed and nothing else.
        """
        require_kinds(ColdKernel.fit, locals())
        released, places, value = (
            is_released(compat),
            writable_sites(model, sites),
            loss_named(loss),
        )
        require_kernel(kernel, width)
        require_precise(model)
        batch = examples_of(model, loss, examples)
        reads = list(activation_gradients(model, batch, value, places, batch_size))
        # The released code overwrites the chosen answer's activations by the rejected one's.
        rows = slice(-1, None) if released and isinstance(value, DPO) else slice(None)
        steers: dict[Site, Steer] = {}
        for site in places:
            anchors = torch.cat([read[site].activation[rows] for read in reads])
            gradients = torch.cat([read[site].gradient[rows] for read in reads]) / len(batch)
            own = cls.from_activations(gradients, anchors, kernel, eta, width)
            steers[site] = LastTokenChange(own) if released and kernel != "unit" else own
        rows = [row for example in batch for row in example.rows]
        return Fit.of(model, steers, token_ids(rows), scope=scope)

    @classmethod
    def from_activations(
        cls,
        gradients: Float[Tensor, "row d_model"],
        anchors: Float[Tensor, "row d_model"],
        kernel: Kernel = "unit",
        eta: float = 1.0,
        width: float | None = None,
    ) -> "ColdKernel":
        """From the gradients dL_i/dZ(x_i), divided by N, and the activations Z(x_i)."""
        require_kinds(ColdKernel.from_activations, locals())
        require_kernel(kernel, width)
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
            distances = torch.cdist(rows, anchors, compute_mode=exact)
            widths = distances.reshape(*Z.shape[:-1], -1) / self.width
            return torch.exp(-(widths**2) / 2)
        if self.kernel == "cosine":
            Z, anchors = (torch.nn.functional.normalize(side, dim=-1) for side in (Z, anchors))
        return Z @ anchors.T

    def __call__(self, activation: Residual, hook: Hook = None) -> Residual:
        wide = torch.promote_types(activation.dtype, torch.float32)
        Z, eta, dL = activation.to(wide), self.eta, self.gradients.to(activation.device, wide)
        return (Z - eta * self.kappa(Z) @ dL).to(activation.dtype)


def _median_distance(anchors: Float[Tensor, "row d_model"]) -> float:
    distances = torch.pdist(anchors.double())
    if not bool((distances > 0).any()):
        raise ValueError(
            "All anchors are the same, so their median distance is no width. Give other examples, "
            "or a width."
        )
    return float(distances[distances > 0].median())
