"""One step of gradient descent on a few examples, done to the weights: what COLD approximates.

Sharma & Trivedi, "COLD-Steer: Steering Large Language Models via In-Context One-step Learning
Dynamics", arXiv 2603.06495. With L_i the loss of example i of N and eta the size of the step:

    theta' = theta - (eta / N) sum_i dL_i/dtheta

The examples, the losses and the mean gradient are those of COLD-FD (`methods/cold/`), which adds to
activations what this step would do to them, to first order. `ColdFD` follows the parameters that
act up to its site; here they are all parameters, or with `up_to` those that act up to a site. An
embedding that is also the unembedding is one parameter, so it changes in both places.

A steering is hooks on a model that stays as it is; this is another model. So, as with a LoRA, it is
there inside `with step.applied(model):`, where everything else works as ever. The model's own
parameters are never written to: others stand in their place, and afterwards they are back, to the
bit, however the block is left. Works on TransformerBridge and HookedTransformer.
"""

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import torch
from jaxtyping import Float
from torch import Tensor

from steerlens.checks import require_finite
from steerlens.kinds import require_kinds
from steerlens.methods.cold.checks import (
    require_eta,
    require_parameters,
    require_precise,
    require_unfolded,
    writable_sites,
)
from steerlens.methods.cold.examples import Examples, Prompted, examples_of
from steerlens.methods.cold.finite_difference import deepest
from steerlens.methods.cold.gradients import (
    BATCH_SIZE,
    mean_gradient,
    places_of,
    standing_in,
    weights_at,
)
from steerlens.methods.cold.losses import Loss, loss_named, name_of
from steerlens.runtime.turns import refusing_others
from steerlens.sites import Sites
from steerlens.types import HookedModel, SteeringWarning

LOST = 0.1
"""The share of its length that a step may lose to the rounding of the weights without a warning."""


@dataclass(frozen=True, eq=False)
class GradientStep:
    """The mean gradient of each parameter, by its name, and the size eta of the step against it.

    The names are those of the backend on which it was fitted, so it is applied to the same one.
    """

    gradient: Mapping[str, Float[Tensor, "..."]] = field(repr=False)
    eta: float = 1.0
    loss: str = ""

    def __post_init__(self) -> None:
        require_eta(self.eta)
        if not self.gradient:
            raise ValueError("A gradient step has the gradient of at least one parameter.")
        for name, value in self.gradient.items():
            require_finite(value, f"GradientStep's gradient of {name}")

    @classmethod
    def fit(
        cls,
        model: HookedModel,
        examples: Examples | Prompted,
        *,
        loss: str | Loss = "dpo",
        eta: float = 1.0,
        up_to: Sites | None = None,
        batch_size: int = BATCH_SIZE,
    ) -> "GradientStep":
        """The step down the mean gradient of the examples; `examples.py` says what a loss looks at.

        `up_to` is a site, or several: of all parameters only those change that act up to the
        deepest of them, which are those that ColdFD follows at these sites. `batch_size` is the
        most examples a pass. The gradient is held in float32, in float64 where the model is.
        """
        require_kinds(GradientStep.fit, locals())
        require_unfolded(model)
        require_precise(model)
        last = None if up_to is None else deepest(writable_sites(model, up_to))
        value, batch = loss_named(loss), examples_of(model, loss, examples)
        return cls(mean_gradient(model, batch, value, last, batch_size), eta, name_of(loss))

    @property
    def length(self) -> float:
        """How far the step moves the parameters: eta times the Euclidean norm of the gradient."""
        return abs(self.eta) * sum(float(dL.norm()) ** 2 for dL in self.gradient.values()) ** 0.5

    def scaled(self, strength: float) -> "GradientStep":
        """The same step, so many times as long: eta times the strength."""
        require_kinds(GradientStep.scaled, locals())
        return replace(self, eta=strength * self.eta)

    @contextmanager
    def applied(self, model: HookedModel) -> Iterator[HookedModel]:
        """The model after the step inside the `with` block, the model as it was after it."""
        require_unfolded(model)
        places = places_of(model, None)
        weights = weights_at(places)
        require_parameters(self.gradient, weights)
        moved = {name: self._moved(name, weights[name]) for name in self.gradient}
        self._warn_if_lost(weights, moved)
        with refusing_others(model), standing_in(places, moved):
            yield model

    @torch.no_grad()
    def _moved(self, name: str, weight: Float[Tensor, "..."]) -> torch.nn.Parameter:
        """The parameter after the step, in its own dtype."""
        theta, eta, dL = weight.detach(), self.eta, self.gradient[name].to(weight.device)
        return torch.nn.Parameter((theta - eta * dL).to(theta.dtype), requires_grad=False)

    @torch.no_grad()
    def _warn_if_lost(
        self, weights: Mapping[str, Float[Tensor, "..."]], moved: Mapping[str, Tensor]
    ) -> None:
        """A SteeringWarning where the step is so short that weights are rounded back."""
        left = 0.0
        for name, dL in self.gradient.items():
            taken = moved[name].to(dL) - weights[name].to(dL)
            left += float((taken + self.eta * dL).norm()) ** 2
        if left**0.5 > LOST * self.length:
            dtype = next(iter(weights.values())).dtype
            message = (
                f"{left**0.5 / self.length:.0%} of the gradient step at eta = {self.eta:g} is "
                f"lost: it is too short for weights in {dtype}, which are rounded back. Take a "
                "longer step, or load the model in a wider dtype: steerlens.load(..., "
                "dtype='float32')."
            )
            warnings.warn(message, SteeringWarning, stacklevel=4)
