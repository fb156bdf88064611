"""What a caller may get wrong, in one place: each check raises an error that says what to do."""

import warnings
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from steerlens.parsing import short
from steerlens.types import Residual, SteeringWarning, whole_number

FEW = 8
"""Statistics over fewer examples warn."""


def require_choice(what: str, found: str, known: tuple[str, ...]) -> None:
    """Raise ValueError unless `found` is one of `known`."""
    if found not in known:
        raise ValueError(f"Unknown {what} {found!r}. Use one of: {', '.join(known)}.")


LARGEST_SEED = 2**32 - 1
"""The largest seed that every generator of random numbers here takes."""


def require_count(name: str, found: int, most: int, why: str = "") -> None:
    """Raise ValueError unless it is from 1 to `most`; `why` says where that limit is from."""
    if not 1 <= found <= most:
        raise ValueError(f"{name} must be from 1 to {most}{why}; found {short(found)}.")


def require_seed(seed: object, name: str = "seed") -> None:
    """Raise ValueError unless `seed` is a whole number from 0 to 2^32 - 1, as all seeds are."""
    number = whole_number(seed)
    if number is None or not 0 <= number <= LARGEST_SEED:
        shown = repr(seed)
        shown = shown if len(shown) <= 40 else f"a number of {len(shown)} digits"
        raise ValueError(f"{name} must be a whole number from 0 to {LARGEST_SEED}; found {shown}.")


def require_finite(activations: Float[Tensor, "..."], what: str) -> None:
    """Raise ValueError if `activations` is empty or holds NaN or infinity."""
    if activations.numel() == 0:
        raise ValueError(f"{what}: empty, shape {tuple(activations.shape)}. Give at least one row.")
    if not bool(torch.isfinite(activations).all()):
        bad = int((~torch.isfinite(activations)).sum())
        raise ValueError(
            f"{what}: {bad} of {activations.numel()} values are NaN or infinite. Find the row with "
            "torch.isfinite(x).all(dim=-1), and load the model in float32 or bfloat16."
        )


def require_pairs(
    positive: Float[Tensor, "pair d_model"], negative: Float[Tensor, "pair d_model"]
) -> None:
    """Raise ValueError unless both sides are finite and hold as many rows."""
    require_finite(positive, "positive activations")
    require_finite(negative, "negative activations")
    if positive.shape != negative.shape:
        raise ValueError(
            f"Pairs are needed; found positive activations of shape {tuple(positive.shape)} and "
            f"negative ones of {tuple(negative.shape)}. Give as many of each, in the same order; "
            "difference_of_means takes unequal numbers."
        )


def require_steer(steer: object, of: str) -> None:
    """Raise TypeError unless `steer` can be called as a hook."""
    if isinstance(steer, type):
        raise TypeError(
            f"{of} needs a steer and was given the class {steer.__name__} itself. Make one: "
            f"{steer.__name__}(...), or fit it: {steer.__name__}.fit(model, data, sites)."
        )
    if not callable(steer):
        raise TypeError(
            f"{of} needs a steer, a function (activation, hook) -> activation; found "
            f"{type(steer).__name__}. For a bare direction write CAA(direction)."
        )


def require_like(activation: Residual, steered: object, of: str) -> None:
    """Raise ValueError unless `steered` is a tensor of the activation's shape and dtype."""
    kind = isinstance(steered, Tensor) and (steered.dtype, steered.shape)
    if kind == (activation.dtype, activation.shape):
        return
    raise ValueError(
        f"{of} must return a tensor like the activation, {described(activation)}; it returned "
        f"{described(steered)}. A steer is a function (activation, hook) -> activation."
    )


def described(value: object) -> str:
    """Dtype and shape of a tensor, the type's name of anything else; for messages."""
    if isinstance(value, Tensor):
        return f"{value.dtype} {tuple(value.shape)}"
    return type(value).__name__


def require_two_sides(prompts: object, method: str) -> None:
    """Raise TypeError unless `prompts` is a pair of a positive and a negative side.

    A list of two is refused: it may be two prompts of one side.
    """
    if not isinstance(prompts, tuple) or len(prompts) != 2:
        raise TypeError(
            f"{method}.fit takes both sides as one pair, and then the sites: {method}.fit(model, "
            f"(positive, negative), 3); found a {type(prompts).__name__}."
        )


def require_texts(prompts: Sequence[object], method: str) -> None:
    """Raise TypeError unless every prompt is a text, or None."""
    for prompt in prompts:
        if prompt is not None and not isinstance(prompt, str):
            raise TypeError(
                f"{method} is fitted on two texts, each a string; found a {type(prompt).__name__}."
            )


def warn_if_few(n: int, of: str, what: str = "question") -> None:
    """A SteeringWarning where the statistics `of` are over fewer than `FEW` examples."""
    if n < FEW:
        warnings.warn(
            f"{of}: over {n} {what}{'s' * (n != 1)}. Of fewer than {FEW} a score can be perfect by "
            "chance, and a bootstrap interval is too narrow. Give more, or read it as an anecdote.",
            SteeringWarning,
            stacklevel=3,
        )
