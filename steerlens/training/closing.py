"""Trainings whose latent closes: they begin anew, slower.

What opens on no token has no gradient, so that hardly anything can open it again. PSR begins such
gates anew and goes on (`gates.revive`). A direction that is its own detector has no other parameter
to go on with, and the large steps that closed it would close the next one: all begins anew.
"""

import random
import warnings
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TypeAlias, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor

from steerlens.sites import Site
from steerlens.training.checkpoint import Parameters
from steerlens.training.imitation import Imitation
from steerlens.training.schedule import Schedule
from steerlens.types import SteeringWarning

SLOWER = 3.0
"""What the rate is divided by when a training begins anew."""
TRAININGS = 4
"""How often it is tried: the last time at 1/27 of the first rate."""
Found = TypeVar("Found")
Shares: TypeAlias = Float[Tensor, " rank"]


class Closed(Exception):
    """At this site no token opens the latent any more."""

    def __init__(self, site: Site, when: str) -> None:
        self.site, self.when = site, when
        super().__init__(f"The latent at {site} opened on no token {when}")


def require_open(opened: Mapping[Site, Shares | bool], when: str) -> None:
    """Raise Closed if at some site nothing was open.

    `opened` has for each site whether the latent opened, or on what share of the tokens.
    """
    for site, open_there in opened.items():
        if not bool(torch.as_tensor(open_there).any()):
            raise Closed(site, when)


def while_open(task: Imitation) -> Callable[[Parameters, int], None]:
    """For `train(after_epoch=)`: raise Closed where no token opened the latent, nor does now.

    An epoch may be part of a pass, so what opened on none of its tokens is asked of all.
    """

    def require(parameters: Parameters, epoch: int) -> None:
        if not all(bool(shares.any()) for shares in task.fired().values()):
            require_open(task.firing_rates(parameters), f"in epoch {epoch}")

    return require


def until_open(attempt: Callable[[Schedule], Found], schedule: Schedule, n_examples: int) -> Found:
    """What `attempt` returns, the first time that it does not raise Closed.

    Each time the learning rate is a third of the one before, and the random start another.
    ValueError where a rate was given (it is not changed then), and after four trainings.
    """
    slower, rates = schedule, [schedule.chosen_rate(schedule.updates(n_examples))]
    while True:
        try:
            return attempt(slower)
        except Closed as closed:
            if schedule.learning_rate is not None or schedule.rates:
                raise ValueError(
                    f"{closed}, and what is closed learns nothing. The learning rate was given "
                    f"({schedule.rates or schedule.learning_rate}) and is not changed. Lower it, "
                    "for example to a third, and take another seed; or give none: then both are "
                    "tried here."
                ) from None
            if len(rates) == TRAININGS:
                tried = ", ".join(f"{one:.2g}" for one in rates)
                raise ValueError(
                    f"{closed}, and so it was in all {TRAININGS} trainings (learning rates "
                    f"{tried}). Give more pairs, steer another layer, or take another seed."
                ) from None
            rates.append(rates[-1] / SLOWER)
            warnings.warn(
                f"{closed}, and what is closed learns nothing: the training begins anew, from "
                f"another start and at a learning rate of {rates[-1]:.2g}.",
                SteeringWarning,
                stacklevel=3,
            )
            seed = random.Random(f"training {len(rates)} of {schedule.seed}").getrandbits(31)
            slower = replace(schedule, seed=seed, learning_rate=rates[-1])
