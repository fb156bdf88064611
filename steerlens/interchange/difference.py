"""How far a constant is from the steering that it stands for."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Difference:
    """How far an approximation is from the steering, on these many tokens of responses.

    `kl` and `worst` are the mean and the largest KL(steered || approximation) of a token, and
    `kl_of_nothing` the mean of KL(steered || unsteered); nats.
    """

    kl: float
    worst: float
    kl_of_nothing: float
    tokens: int

    def __str__(self) -> str:
        return (
            f"KL {self.kl:.3g} nats a token from the steering (at worst {self.worst:.3g}); without "
            f"any steering it would be {self.kl_of_nothing:.3g} ({self.tokens} tokens)"
        )
