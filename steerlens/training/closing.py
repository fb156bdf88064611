"""Trainings whose latent closes for good: they begin anew, slower.

What opens on no token has no gradient, so nothing opens it again. PSR begins such gates anew and
goes on (`gates.revive`). A direction that is its own detector has nothing else, and the large steps
that closed it would close the next one too: then all of the training begins anew.
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
    """Raise Closed if at some site nothing was open: of each, whether, or on what shares."""
    for site, open_there in opened.items():
        if not bool(torch.as_tensor(open_there).any()):
            raise Closed(site, when)


def until_open(
    attempt: Callable[[Schedule], Found], schedule: Schedule, name: str, n_examples: int
) -> Found:
    """What `attempt` returns, the first time that it does not raise Closed.

    Each time the parameter `name` learns at a third of the rate before, from another random start.
    ValueError where a rate was given (it is not changed then), and after four trainings.
    """
    given = schedule.learning_rate is not None or bool(schedule.rates)
    slower, rates = schedule, [schedule.chosen_rate(schedule.n_steps(n_examples))]
    while True:
        try:
            return attempt(slower)
        except Closed as closed:
            if given:
                raise ValueError(
                    f"{closed}, and what is closed learns nothing. The learning rate was given; "
                    f"lower it, for example to a third, or leave it out: then that is tried here."
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
            slower = replace(schedule, seed=seed, rates={name: rates[-1]})
