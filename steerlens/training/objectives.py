"""What a fit minimises, as a value: `MSE()`, `LL()`, `MSE() + 0.5 * LL()`.

With S the steered and T the prompted residual stream on the tokens of the span:

    MSE = sum over layers of the mean over span and d_model of (S - T)^2
    LL  = mean over response tokens of -log p(token)

The layers are the lowest steered one and all above it; those below would only add a constant. Each
is divided by its mean at the start, so that both, and the regulariser, have one scale:

    MSE() + w * LL()   is   MSE / MSE at the start + w x LL / LL at the start
"""

import math
from dataclasses import dataclass, replace
from typing import Literal, get_args

from steerlens.checks import require_choice

Name = Literal["MSE", "LL", "both"]


@dataclass(frozen=True)
class Objective:
    """A sum of MSE and LL, each with its weight; 0 leaves it out.

    `by_token` makes LL the mean over the tokens of all examples, not over examples, and leaves it
    undivided.
    """

    mse: float = 0.0
    ll: float = 0.0
    by_token: bool = False

    def __post_init__(self) -> None:
        if self.by_token and self.mse:
            raise ValueError(
                "LL(by_token=True) stays undivided, so it has another scale than MSE. Write LL()."
            )

    @property
    def name(self) -> Name:
        """The name in files and in the paper's scheme."""
        if self.mse and self.ll:
            return "both"
        return "MSE" if self.mse else "LL"

    @property
    def weights(self) -> dict[str, float]:
        """The weight of every term in the sum."""
        weights = {"MSE": self.mse, "LL": self.ll}
        return {term: weight for term, weight in weights.items() if weight}

    def __add__(self, other: "Objective") -> "Objective":
        if not isinstance(other, Objective):
            return NotImplemented
        by_token = self.by_token or other.by_token
        return Objective(self.mse + other.mse, self.ll + other.ll, by_token)

    def __radd__(self, first: object) -> "Objective":
        """`sum([...])` begins with 0."""
        return self if type(first) is int and first == 0 else NotImplemented

    def __mul__(self, weight: float) -> "Objective":
        if not 0 < weight < math.inf:
            raise ValueError(
                f"The weight of an objective must be above 0; found {weight}. For one of them "
                "alone write MSE() or LL()."
            )
        return replace(self, mse=weight * self.mse, ll=weight * self.ll)

    __rmul__ = __mul__


def MSE() -> Objective:  # noqa: N802  the paper's name
    """The squared distance to the prompted run's residual stream."""
    return Objective(mse=1.0)


def LL(*, by_token: bool = False) -> Objective:  # noqa: N802  the paper's name
    """The surprise of the responses, -log p."""
    return Objective(ll=1.0, by_token=by_token)


def objective_named(name: str, ll_weight: float = 1.0) -> Objective:
    """The objective of that name in files; "both" is MSE() + ll_weight * LL()."""
    if name == "DiM":
        raise ValueError(
            "DiM is not trained: steerlens.methods.psr.difference_of_means makes S-Const_DiM."
        )
    require_choice("objective", name, get_args(Name))
    if not 0 < ll_weight < math.inf:
        raise ValueError(
            f"ll_weight is the weight of LL beside MSE and must be above 0; found {ll_weight}. For "
            "one of them alone choose the objective 'MSE' or 'LL'."
        )
    if name != "both" and ll_weight != 1:
        raise ValueError(
            f"ll_weight={ll_weight:g} weighs LL against MSE, and the objective is {name!r} "
            "alone. Choose the objective 'both', or leave ll_weight out."
        )
    return {"MSE": MSE(), "LL": LL(), "both": MSE() + ll_weight * LL()}[name]
