"""Angular steering: each activation turned towards a direction, by an angle, its length kept.

Vu & Nguyen, "Angular Steering: Behavior Control via Rotation in Activation Space",
arXiv 2510.26243, at every token (here but the first, a sink of most models, which breaks them if it
is turned), in the plane of the activation h and the direction v:

    w  = |h| unit( v - (v h / h h) h )          across h, on v's side, as long as h
    h' = cos(angle) h + sin(angle) w

v is the mean difference of contrast prompts, as in CAA. The paper turns what of h lies in one fixed
plane to an absolute angle there; here the plane is h's own, and the angle is by how much it turns:
past v, if h was nearer to v than that. The length of h stays, so no angle can blow it up.

Where h and v span no plane there is nothing to turn in, and h stays as it is: at h = 0, and at an h
that is parallel or antiparallel to v (closer than a sine of `PARALLEL`).

`scaled(s)` goes along the chord between h and h', which is shorter than the arc: for half the angle
give half the angle.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from steerlens.checks import require_two_sides
from steerlens.directions.means import difference_of_means, unit
from steerlens.kinds import require_kinds
from steerlens.methods.caa import CAA
from steerlens.prompts import Prompts
from steerlens.scopes import Scope, after_first
from steerlens.sinks import SINK
from steerlens.sites import Sites
from steerlens.steers import steer
from steerlens.training.fit import Fit
from steerlens.types import Direction, Hook, HookedModel, Residual

PARALLEL = 1e-3


@steer
class Angular:
    """Turn each activation towards `direction` by `angle` degrees; computed in float32 or wider."""

    direction: Direction
    angle: float

    def __post_init__(self) -> None:
        unit(self.direction.float())

    @classmethod
    def fit(
        cls,
        model: HookedModel,
        prompts: tuple[Prompts, Prompts],
        sites: Sites,
        *,
        angle: float = 30.0,
        read: Scope | None = None,
        scope: Scope = after_first,
        sinks: float = SINK,
    ) -> "Fit[Angular]":
        """Fit from positive and negative prompts; `angle` is in degrees, negative ones turn away.

        `read` is the scope whose activations are read, and `sinks` what is left out, as in CAA.
        `scope` has the tokens that are turned.
        """
        require_kinds(Angular.fit, locals())
        require_two_sides(prompts, "Angular")
        fit = CAA.fit(model, prompts, sites, read=read, sinks=sinks)
        return fit.mapped(lambda caa: cls(caa.direction, angle), scope)

    @classmethod
    def from_activations(
        cls,
        positive: Float[Tensor, "positive d_model"],
        negative: Float[Tensor, "negative d_model"],
        angle: float,
        *,
        sinks: float = SINK,
    ) -> "Angular":
        """Fit from activations of positive and negative examples, as `difference_of_means` does."""
        require_kinds(Angular.from_activations, locals())
        return cls(difference_of_means(positive, negative, sinks=sinks), angle)

    def across(self, h: Residual) -> Residual:
        """The vector w of each token; 0 where it has none."""
        length, v = h.norm(dim=-1, keepdim=True), unit(self.direction.to(h))
        along = h / length.clamp(min=torch.finfo(h.dtype).tiny)
        w = v - (along @ v)[..., None] * along
        sine = w.norm(dim=-1, keepdim=True)
        return torch.where(sine > PARALLEL, length * w / sine.clamp(min=PARALLEL), 0.0)

    def __call__(self, activation: Residual, hook: Hook = None) -> Residual:
        h = activation.to(torch.promote_types(activation.dtype, torch.float32))
        w, angle = self.across(h), math.radians(self.angle)
        turned = math.cos(angle) * h + math.sin(angle) * w
        return torch.where(w.any(dim=-1, keepdim=True), turned, h).to(activation.dtype)
