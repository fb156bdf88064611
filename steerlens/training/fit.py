"""What every `fit` returns."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

from steerlens.identity import origin_of
from steerlens.prompts import Encoded
from steerlens.scopes import Scope, everywhere
from steerlens.sites import Site
from steerlens.steering import Steering
from steerlens.training.loop import Trained
from steerlens.types import HookedModel, Steer

AnySteer = TypeVar("AnySteer", bound=Steer)
OtherSteer = TypeVar("OtherSteer", bound=Steer)


@dataclass(frozen=True, eq=False)
class Fit(Generic[AnySteer]):
    """A fitted method: `steering` is ready to use, `steers` is what stands at each site.

    `trained` says how training went, and is None where nothing is trained. Its epoch 0 is the
    start: the model without steering, or for PSR and ReFT-r1 random parameters. `name` is the
    method's in its paper's scheme, where there is one, and `firing` how often each gate is open on
    the tokens that it was fitted on. `sinks` says how many tokens were left out at each site as
    sinks (`steerlens.sinks`), for methods that average activations.
    """

    steering: Steering
    steers: dict[Site, AnySteer]
    trained: Trained | None = None
    name: str = ""
    firing: dict[Site, Float[Tensor, " rank"]] = field(default_factory=dict)
    sinks: dict[Site, int] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        model: HookedModel,
        steers: Mapping[Site, AnySteer],
        data: Sequence[Int[Tensor, " _"]],
        *,
        scope: Scope = everywhere,
        seed: int | None = None,
        trained: Trained | None = None,
        name: str = "",
        firing: Mapping[Site, Float[Tensor, " rank"]] | None = None,
        sinks: Mapping[Site, int] | None = None,
    ) -> "Fit[AnySteer]":
        """The steers, placed on the tokens of `scope`, and what they were fitted on."""
        steering = Steering(tuple(steers.items()), origin_of(model, seed, data))
        return cls(
            steering.only(scope), dict(steers), trained, name, dict(firing or {}), dict(sinks or {})
        )

    def mapped(
        self, make: Callable[[AnySteer], OtherSteer], scope: Scope = everywhere
    ) -> "Fit[OtherSteer]":
        """The same fit with `make(steer)` in place of each steer, on the tokens of `scope`."""
        steers = {site: make(steer) for site, steer in self.steers.items()}
        steering = Steering(tuple(steers.items()), self.steering.origin)
        return Fit(steering.only(scope), steers, self.trained, sinks=self.sinks)

    def __mul__(self, strength: object) -> Steering:
        raise TypeError(f"A Fit has no strength. Multiply its steering: {strength} * fit.steering.")

    __rmul__ = __mul__

    @property
    def steer(self) -> AnySteer:
        """The steer, where it was fitted at one site."""
        if len(self.steers) > 1:
            raise ValueError(
                f"There is a steer at each of {len(self.steers)} sites: "
                f"fit.steers[site], with one of {', '.join(map(repr, self.steers))}."
            )
        return next(iter(self.steers.values()))


def token_ids(rows: Sequence[Encoded]) -> list[Int[Tensor, " _"]]:
    """The tokens of every row, as the data that a fit is from."""
    return [torch.tensor(row.ids) for row in rows]
