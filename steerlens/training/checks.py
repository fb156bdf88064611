"""What a caller may get wrong about the data of a fit: each check says what to do."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from steerlens.prompts import Encoded, PromptPair
from steerlens.sites import Site, require_writable
from steerlens.training.objectives import Objective
from steerlens.types import HookedModel


def require_data(model: HookedModel, pairs: Sequence[PromptPair], sites: Sequence[Site]) -> None:
    """Raise ValueError unless there are pairs, and sites of this model."""
    if not pairs:
        raise ValueError("No pairs were given. Pass some PromptPairs: prompted_pairs(...).")
    if not sites:
        raise ValueError("No sites were given. Pass at least one layer.")
    for site in sites:
        require_writable(model, site)


def require_both(pairs: Sequence[PromptPair], validation: Sequence[PromptPair]) -> None:
    """Raise ValueError unless there are pairs to fit on and pairs to choose by."""
    if not pairs:
        raise ValueError("No pairs were given to fit on. About ten are enough.")
    if not validation:
        raise ValueError("No validation pairs were given: they choose among the steps.")


def require_objective(objective: object, teacher: object) -> None:
    """Raise an error unless `objective` is one, and one that a teacher, if any, can give."""
    if not isinstance(objective, Objective):
        raise TypeError(
            f"An objective is a value: MSE(), LL(), MSE() + 0.5 * LL(); found {objective!r}."
        )
    if objective.name == "LL" and teacher is not None:
        raise ValueError(
            "LL imitates the words of the responses, and no teacher. Choose the objective "
            "'MSE' or 'both', or leave the teacher out."
        )


def require_labels(labels: Float[Tensor, " example"], size: int) -> None:
    """Raise ValueError unless there is one label from 0 to 1 for each of the pairs."""
    if len(labels) != size or not bool(((labels >= 0) & (labels <= 1)).all()):
        raise ValueError(
            f"labels are one number from 0 to 1 for each of the {size} pairs (a judge's score "
            f"over 100); found {len(labels)} from {labels.min():.3g} to {labels.max():.3g}."
        )


def require_instructions(both: Sequence[tuple[Encoded, Encoded]]) -> None:
    """Raise ValueError if no (plain, prompted) pair differs."""
    if all(plain.ids == prompted.ids for plain, prompted in both):
        raise ValueError(
            "The prompted and the plain prompts are the same, so there is nothing to imitate. "
            "Give pairs with an instruction: PromptPair.with_system(user, system, response)."
        )


def require_steered(spans: Sequence[Tensor], scope: object) -> None:
    """Raise ValueError if the scope holds no token of any row."""
    if not any(len(span) for span in spans):
        raise ValueError(
            f"No token of these {len(spans)} pairs lies in the scope `{scope}`, so nothing "
            "would be steered. Choose another scope: everywhere, response, ..."
        )


def as_labels(labels: Sequence[float] | None, size: int) -> Float[Tensor, " example"]:
    """One label a pair, 1 where none are given."""
    numbers = [1.0] * size if labels is None else list(labels)
    tensor = torch.tensor(numbers, dtype=torch.float32)
    require_labels(tensor, size)
    return tensor
