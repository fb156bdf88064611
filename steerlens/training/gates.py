"""Steers with gates, as modules made of parameters; and gates that have closed for good."""

import random
import warnings
from collections.abc import Callable, Mapping
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from steerlens.sites import Site
from steerlens.training.checkpoint import Parameters
from steerlens.types import Hook, Residual, SteeringWarning


@runtime_checkable
class Gated(Protocol):
    """A steer with gates: what is trained here."""

    def gates(self, h: Float[Tensor, "*token d_model"]) -> Float[Tensor, "*token rank"]: ...

    def __call__(self, activation: Residual, hook: Hook = None) -> Residual: ...


@runtime_checkable
class Modules(Protocol):
    """One gated steer a site, made of parameters: what a learned method gives to training."""

    @property
    def sites(self) -> tuple[Site, ...]:
        """The steered sites, the lowest first."""
        ...

    def begin(self, generator: torch.Generator) -> Parameters:
        """The parameters before the first step."""
        ...

    def build(self, parameters: Parameters) -> Mapping[Site, Gated]:
        """The steers with these parameters."""
        ...


def key_of(site: Site, name: str) -> str:
    """What a parameter of the module at a site is called in a training."""
    return f"{site.layer}.{site.stream}.{name}"


def revive(
    parameters: Parameters,
    begin: Callable[[torch.Generator], Parameters],
    fired: Mapping[Site, Float[Tensor, " rank"]],
    epoch: int,
    seed: int,
) -> None:
    """Begin anew the gates that were open on no token of the epoch: their gradient is zero.

    What they begin with depends on the fit's seed and the epoch, so that a resumed fit does the
    same as one that was never cut off.
    """
    drawn = random.Random(f"gates after epoch {epoch} of {seed}").getrandbits(63)
    fresh = begin(torch.Generator().manual_seed(drawn))
    for site, rates in fired.items():
        dead = rates == 0
        if not bool(dead.any()):
            continue
        warnings.warn(
            f"{int(dead.sum())} of {len(rates)} gates at {site} opened on no token in epoch "
            f"{epoch}, and begin anew. If it goes on, lower the learning rate or raise regularise.",
            SteeringWarning,
            stacklevel=2,
        )
        for name in ("W", "b"):
            parameters[key_of(site, name)][dead] = fresh[key_of(site, name)][dead]
