"""What fitting a method gives: a steering, its steers, and how training went."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from steerlens.sites import Site
from steerlens.steering import Steering
from steerlens.training.loop import Trained


@dataclass(frozen=True, eq=False)
class Fit:
    """A fitted method: `steering` is the `steers` at their sites, on the tokens meant for them."""

    steering: Steering
    steers: Mapping[Site, Any]
    trained: Trained | None = None
