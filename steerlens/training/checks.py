"""What a caller may get wrong about the data of a fit: each check says what to do."""

import math
from collections.abc import Collection, Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from steerlens.prompts import Encoded, PromptPair
from steerlens.sites import Site, require_writable
from steerlens.training.objectives import Objective
from steerlens.types import HookedModel


def require_prompt_pairs(pairs: object) -> None:
    """Raise TypeError unless `pairs` is a list of PromptPairs, which may be empty."""
    listed = [pairs]
    if isinstance(pairs, Collection) and not isinstance(pairs, str | Mapping):
        listed = list(pairs)
    wrong = [pair for pair in listed if not isinstance(pair, PromptPair)]
    if wrong:
        raise TypeError(
            f"The pairs are a list of PromptPair; found a {type(wrong[0]).__name__}. The order is "
            "fit(model, pairs, sites); prompted_pairs(model, questions, instruction) makes pairs."
        )


def require_some(pairs: Sequence[object]) -> None:
    """Raise an error unless there are pairs, and each is a PromptPair."""
    require_prompt_pairs(pairs)
    if len(pairs) == 0:
        raise ValueError("No pairs were given. Pass some PromptPairs: prompted_pairs(...).")


def require_data(model: HookedModel, pairs: Sequence[PromptPair], sites: Sequence[Site]) -> None:
    """Raise ValueError unless there are pairs, and sites of this model."""
    require_some(pairs)
    if not sites:
        raise ValueError("No sites were given. Pass at least one layer.")
    for site in sites:
        require_writable(model, site)


def require_both(pairs: Sequence[PromptPair], validation: Sequence[PromptPair]) -> None:
    """Raise ValueError unless there are pairs to fit on and pairs to choose by."""
    require_prompt_pairs(pairs)
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
        seen = f" from {labels.min():.3g} to {labels.max():.3g}" if len(labels) else ""
        raise ValueError(
            f"labels are one number from 0 to 1 for each of the {size} pairs (a judge's score "
            f"over 100); found {len(labels)}{seen}."
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


def as_labels(
    labels: Sequence[float | bool] | None, size: int, dtype: torch.dtype
) -> Float[Tensor, " example"]:
    """One label a pair, 1 where none are given."""
    numbers = [1.0] * size if labels is None else [float(label) for label in labels]
    tensor = torch.tensor(numbers, dtype=dtype)
    require_labels(tensor, size)
    return tensor


# -- What is learnt --------------------------------------------------------------------------------


def require_gates(
    rank: int, b_m: float, regularise: float, *, frozen: bool, constant: bool
) -> None:
    """Raise ValueError unless there is something to learn."""
    if rank < 1:
        raise ValueError(f"rank must be at least 1; found {rank}.")
    if not 0 <= regularise < math.inf:
        raise ValueError(
            f"regularise is a weight, a finite number, 0 or more; found {regularise}. Below 0 it "
            "would close the gates that it is to keep open."
        )
    if not math.isfinite(b_m):
        raise ValueError(f"b_m must be a finite number, like -0.5; found {b_m}.")
    if frozen and constant:
        raise ValueError("directions are frozen and constant=True has no gate: nothing to train.")


def require_frozen(
    directions: Mapping[Site, Tensor] | None, sites: Sequence[Site], shape: tuple[int, int]
) -> None:
    """Raise ValueError unless frozen directions, if any, are there at every site."""
    if directions is None:
        return
    for site in sites:
        given = tuple(directions[site].shape) if site in directions else None
        if given != shape:
            raise ValueError(
                f"directions need one [rank, d_model] = {shape} at {site}; found {given or 'none'}."
            )


def require_varied(labels: Sequence[float | bool] | None, learn_b_m: bool) -> None:
    """Raise ValueError where a learnt b_m could do no more than scale Z."""
    if learn_b_m and (labels is None or len(set(map(float, labels))) < 2):
        raise ValueError(
            "b_m is learnt from responses with more and with less of the attribute, and all "
            "labels are the same. Give labels that differ, or a fixed b_m."
        )


def require_rank(rank: int, d_model: int) -> None:
    """Raise ValueError unless so many directions fit into the residual stream."""
    if not 1 <= rank <= d_model:
        raise ValueError(f"rank is from 1 to d_model = {d_model}; found {rank}.")


def require_limit(limit: float | None) -> None:
    """Raise ValueError unless the bound of alpha, if any, is above 0."""
    if limit is not None and not 0 < limit < math.inf:
        raise ValueError(
            f"limit bounds |alpha| and must be above 0 and finite; found {limit}. None is no bound."
        )


def require_latents(k: int, l1: float) -> None:
    """Raise ValueError unless k and l1 make sense."""
    if k < 1 or not 0 <= l1 < math.inf:
        raise ValueError(f"k is at least 1 and l1 at least 0; found k={k} and l1={l1}.")


def require_opened(a_max: float) -> None:
    """Raise ValueError unless some token of the training text opened the latent."""
    if not 0 < a_max < math.inf:
        raise ValueError(
            f"a_max is the largest latent on the training text and must be above 0; found "
            f"{a_max}. If no token of the training text opens the latent, lower the rate "
            "or take another seed."
        )


def require_beta(beta: float) -> None:
    """Raise ValueError unless beta weighs preferences."""
    if not 0 < beta < math.inf:
        raise ValueError(f"beta must be finite and above 0; found {beta}. The paper's is 0.1.")


def require_answers(rows: Sequence[Encoded]) -> None:
    """Raise ValueError unless every row has a response."""
    for number, row in enumerate(rows):
        if len(row.ids) <= row.response:
            raise ValueError(
                f"Prompt {number} of {len(rows)} (the positive ones first) has no response, whose "
                "likelihood is what is learnt from. Give Conversation(user, response=...)."
            )


def require_some_preference(positive: Sequence[Encoded], negative: Sequence[Encoded]) -> None:
    """Raise ValueError if the two answers of every pair are the same."""
    if all(one.ids == other.ids for one, other in zip(positive, negative, strict=True)):
        raise ValueError(
            f"In all {len(positive)} pairs the preferred and the rejected answer are the same "
            "tokens, so nothing can be learnt. Give answers that differ."
        )
