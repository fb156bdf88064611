"""How long a training lasts, and how fast every parameter learns.

With a falling rate AdamW moves a parameter by at most about rate x steps / 2, its *reach*. The
15,000 steps at 1e-3 that the authors of PSR take reach 7.5, and 900 steps at that rate train hardly
at all. So where no rate is given it is the one with the same reach, within bounds:

    rate = clip(2 x 7.5 / steps, 1e-3, 1e-2)

A reach below 1, by a low rate or by few steps, is warned about. How long is counted in steps: so
many passes over eight pairs are so many steps, and over a thousand pairs a hundred times as many.
"""

import math
import random
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from steerlens.checks import require_seed
from steerlens.kinds import require_fields, require_kinds
from steerlens.types import SteeringWarning, whole_number

REACH = 7.5
SHORT_REACH = 1.0
RATES = (1e-3, 1e-2)
EPOCHS, LEAST_STEPS = 15, 240
BATCH = 8
"""How long a training lasts that is told nothing else: so many epochs, and steps at least."""
STEPS, RATE = 8, 3e-3
"""How CLAS and what it is compared with are fitted: so many updates on all pairs, at this rate."""


@dataclass(frozen=True)
class Share:
    """A learning rate as a share of the median norm of the steered activations, BOS aside.

    So one number serves models whose residual streams differ by a hundred times.
    """

    share: float


@dataclass(frozen=True)
class Schedule:
    """How long and how fast. `learning_rate=None` chooses it from the number of steps.

    `epochs` is a number of passes over the examples, `steps` one of updates (rounded up to whole
    epochs of equally many), and both together are so many passes with so many updates at least.
    Without either there are 15 epochs and at least 240 updates, whatever the number of examples,
    and a `batch_size` of "auto" is then a quarter of them at most, so that few examples cost
    little; else it is 8. Where updates are counted, an epoch is the share of them after
    which the validation loss is looked at: several passes, or a part of one.

    `rates` has the learning rates of the parameters that differ, by name: `{"b": 0.1}` is for the b
    of every site, and `{"b": Share(0.01)}` follows the size of the activations. `validation` is the
    share of examples that is held back; after `patience` epochs without a better validation loss
    training stops (None: never). `batch_size=None` is all examples at once. The rate falls to zero
    unless `falling` is False; `clip` bounds the norm of the gradient.
    """

    epochs: int | None = None
    batch_size: int | Literal["auto"] | None = "auto"
    learning_rate: float | None = None
    weight_decay: float = 1e-6
    validation: float = 0.2
    patience: int | None = 5
    seed: int = 0
    falling: bool = True
    clip: float | None = None
    rates: Mapping[str, float | Share] = field(default_factory=dict, hash=False)
    steps: int | None = None

    def __post_init__(self) -> None:
        require_fields(self)
        for name in ("epochs", "steps", "batch_size"):
            given = getattr(self, name)
            if given not in (None, "auto") and (whole_number(given) or 0) < 1:
                raise ValueError(f"{name} must be at least 1, and whole; found {given!r}.")
        require_seed(self.seed)
        if not 0 <= self.weight_decay < math.inf:
            raise ValueError(
                f"weight_decay must be a finite number, 0 or more; found {self.weight_decay}."
            )
        if self.clip is not None and not self.clip > 0:
            raise ValueError(f"clip bounds the gradient and must be above 0; found {self.clip}.")
        if not 0 <= self.validation < 1:
            raise ValueError(
                "validation is the share of the examples held back, from 0 to below 1; found "
                f"{self.validation}."
            )
        if self.learning_rate is not None and not 0 < self.learning_rate < math.inf:
            raise ValueError(f"learning_rate must be above 0; found {self.learning_rate}.")
        if self.patience is not None and self.patience < 1:
            raise ValueError(f"patience must be at least 1, or None; found {self.patience}.")
        for name, own in self.rates.items():
            rate = own.share if isinstance(own, Share) else own
            if not 0 <= rate < math.inf:
                raise ValueError(
                    f"The rate of {name} must be a finite number, 0 or more; found {rate}."
                )

    @classmethod
    def full_batch(
        cls,
        steps: int = STEPS,
        rate: float = RATE,
        *,
        rates: Mapping[str, float | Share] | None = None,
        seed: int = 0,
    ) -> "Schedule":
        """`steps` updates, each on all training examples, at one rate: CLAS and its baselines.

        One batch holds either side, so that both losses are means over tokens.
        """
        require_kinds(Schedule.full_batch, locals())
        if isinstance(steps, bool) or not isinstance(steps, int) or steps < 1:
            raise ValueError(f"steps is a number of updates, 1 or more; found {steps}.")
        if not 0 < rate < math.inf:
            raise ValueError(f"rate, the learning rate, must be finite and above 0; found {rate}.")
        return cls(
            epochs=steps,
            batch_size=None,
            learning_rate=rate,
            weight_decay=0.0,
            patience=None,
            seed=seed,
            falling=False,
            clip=1.0,
            rates=rates or {},
        )

    def batch(self, n_examples: int) -> int:
        """How many of so many training examples a step sees at most."""
        if self.batch_size != "auto":
            return self.batch_size or n_examples
        if self.epochs is not None or self.steps is not None:
            return BATCH
        return min(BATCH, max(1, math.ceil(n_examples / 4)))

    def length(self, n_batches: int) -> tuple[int, int]:
        """How many epochs there are, and the updates of each, where a pass has `n_batches`."""
        if self.epochs is None and self.steps is not None:
            each = math.ceil(self.steps / EPOCHS)
            return math.ceil(self.steps / each), each
        epochs = EPOCHS if self.epochs is None else self.epochs
        least = LEAST_STEPS if self.epochs is None else self.steps or 0
        return epochs, max(n_batches, math.ceil(least / epochs))

    def split(self, size: int) -> tuple[list[int], list[int]]:
        """(training, validation) examples; ValueError if nothing is left to train on."""
        order = random.Random(f"split {self.seed}").sample(range(size), size)
        n_validation = round(self.validation * size)
        if self.validation and size > 1:
            n_validation = max(n_validation, 1)
        if size - n_validation < 1:
            raise ValueError(
                f"{size} examples leave none to train on when {self.validation:.0%} are held back "
                "for validation. Give more examples, or validation=0."
            )
        return sorted(order[n_validation:]), sorted(order[:n_validation])

    def updates(self, n_examples: int) -> int:
        """How many updates there are in all on so many training examples."""
        epochs, each = self.length(math.ceil(n_examples / self.batch(n_examples)))
        return epochs * each

    def chosen_rate(self, steps: int) -> float:
        """The first learning rate of a run of so many steps: the given one, or one by the reach."""
        return self.learning_rate or min(max(2 * REACH / steps, RATES[0]), RATES[1])

    def rate(self, steps: int) -> float:
        """The first learning rate of a run of so many steps; warns where the reach is short."""
        rate = self.chosen_rate(steps)
        reach = rate * steps / 2
        if self.falling and reach < SHORT_REACH:
            warnings.warn(
                f"{steps} steps at a learning rate of {rate:g} can move a parameter by {reach:.2g} "
                f"at most, which may be too little. {self._advice(steps)}",
                SteeringWarning,
                stacklevel=4,
            )
        return rate

    def multipliers(self, rate: float, names: Iterable[str]) -> dict[str, float]:
        """What the learning rate `rate` is multiplied by, for every parameter."""
        names = list(names)
        unknown = {name for name in self.rates if not any(_means(name, full) for full in names)}
        if unknown:
            raise ValueError(
                f"There is no parameter called {', '.join(sorted(unknown))}. There are "
                f"{', '.join(names)}."
            )
        return {name: self._own(name, rate) / rate for name in names}

    def _own(self, parameter: str, rate: float) -> float:
        """The learning rate of a parameter: by its whole name, else by its last part."""
        own = self.rates.get(parameter, self.rates.get(parameter.rpartition(".")[2], rate))
        if isinstance(own, Share):
            raise ValueError(
                f"The rate of {parameter} is a share of the activations' size, which is not "
                "measured here. Give a number."
            )
        return own

    def _advice(self, steps: int) -> str:
        """What lengthens the reach: more steps always, another rate if it would be enough."""
        enough = math.ceil(2 * SHORT_REACH / RATES[1])
        if self.learning_rate is None or steps < enough:
            return (
                f"Take more steps (steps={enough}, more epochs or smaller batches): from {enough} "
                "steps on the rate that learning_rate=None chooses is enough."
            )
        return "Take more steps or a higher rate; learning_rate=None chooses one for so many steps."


def _means(name: str, parameter: str) -> bool:
    """Whether `name` is the parameter's, or that of this parameter at every site."""
    return name in (parameter, parameter.rpartition(".")[2])
