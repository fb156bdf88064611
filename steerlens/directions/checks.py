"""What a caller may get wrong about directions, and the rows that they are from."""

import warnings
from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from steerlens.checks import require_finite
from steerlens.scopes import Scope
from steerlens.sites import Layer, Site, by_site, require_writable
from steerlens.types import HookedModel, SteeringWarning, VectorLike

Rows = Float[Tensor, "row d_model"]
Labels = Float[Tensor, " row"]
SAME = 1e-5
"""Of the activations' length: below it a difference is rounding."""


def require_labelled(rows: Tensor, labels: Tensor, what: str) -> None:
    """Raise ValueError unless `rows` are vectors, each with its label, and all are finite."""
    if rows.ndim != 2:
        raise ValueError(
            f"{what}: a matrix is needed, one row for each label; found shape {tuple(rows.shape)}. "
            "Take one position of each text, or the mean over its positions."
        )
    require_finite(rows, what)
    if labels.shape != rows.shape[:1]:
        raise ValueError(
            f"{what}: {len(rows)}, with labels of shape {tuple(labels.shape)}. Give one label for "
            "each row."
        )
    require_finite(labels, f"labels of the {what}")


def require_same_width(fitted: Rows, held_out: Float[Tensor, "other width"]) -> None:
    """Raise ValueError unless both sets of rows are as wide."""
    if fitted.shape[1] != held_out.shape[1]:
        raise ValueError(
            f"The fitted rows have width {fitted.shape[1]} and the held-out rows "
            f"{held_out.shape[1]}. Take both from the same site."
        )


def require_model_first(model: object, call: str) -> None:
    """Raise TypeError where the kind stands in the model's place, as it once did."""
    if isinstance(model, str):
        raise TypeError(f"The model comes first: {call}.")


def require_share(held_out: float) -> None:
    """Raise ValueError unless `held_out` is a share of the rows."""
    if not 0 < held_out < 1:
        raise ValueError(
            f"held_out={held_out}: it is the share of the rows that the direction is scored on and "
            "not fitted on, above 0 and below 1."
        )


def require_partners(positive: Sequence[object], negative: Sequence[object]) -> None:
    """Raise ValueError unless there are as many prompts on either side."""
    if len(positive) != len(negative):
        raise ValueError(
            f"Prompts come in pairs; found {len(positive)} positive and {len(negative)} negative."
        )


def require_binary(labels: Labels, *, both: bool) -> None:
    """Raise ValueError unless every label is 0 or 1, and both occur if `both`."""
    values = set(labels.tolist())
    if not values <= {0.0, 1.0} or (both and len(values) < 2):
        raise ValueError(f"Labels are 0 and 1, and both must occur; found {sorted(values)[:5]}.")


def require_both_labels(fitted: Labels, others: Float[Tensor, " other"], held_out: float) -> None:
    """Raise ValueError unless both labels occur among the fitted and among the held-out rows."""
    pairs, most = (len(fitted) + len(others)) // 2, 1000
    enough = (p for p in range(2, most) if 0 < n_fitted(2 * p, held_out) < 2 * p)
    needed = next(enough, most)
    if pairs < needed:
        raise ValueError(
            f"At least {needed} pairs are needed to fit a direction and to score it; found {pairs} "
            f"(held_out={held_out:g})."
        )
    for part, name in ((fitted, "fitted on"), (others, "held out")):
        if len(set(part.tolist())) < 2:
            raise ValueError(
                f"The rows {name} have one label only ({len(part)} rows). Shuffle them, give "
                "more, or change held_out."
            )


def n_fitted(rows: int, held_out: float) -> int:
    """How many rows are fitted on: whole pairs."""
    return 2 * round(rows * (1 - held_out) / 2)


def require_varied(rows: Rows) -> None:
    """Raise ValueError if all rows are the same."""
    if (rows - rows[0]).norm(dim=1).max() <= SAME * rows.norm(dim=1).mean():
        raise ValueError(
            f"The {len(rows)} rows to fit on are all the same, so no direction tells them apart. "
            "Read tokens or a layer at which the texts differ."
        )


def require_apart(rows: Rows, site: Site) -> None:
    """Raise ValueError if each row is the same as its partner's, which comes after it."""
    apart = (rows[0::2] - rows[1::2]).norm(dim=-1).max()
    if apart <= SAME * rows.norm(dim=-1).mean():
        raise ValueError(
            f"The positive and the negative prompts have the same activations at {site}, so "
            "no direction tells them apart. Read tokens that differ, or come after some that "
            "do (read=), or leave this layer out."
        )


def require_alternating(labels: Labels) -> None:
    """Raise ValueError unless rows are pairs, the one of label 0 before its partner."""
    if not bool((labels[0::2] == 0).all() and (labels[1::2] == 1).all()):
        raise ValueError(
            "pca needs pairs: rows 0, 2, 4, ... of label 0, each before its partner of label 1."
        )


def require_spread(largest: Tensor, pairs: int, centring: str) -> None:
    """Raise ValueError if the largest singular value of the centred rows is 0."""
    if largest == 0:
        raise ValueError(
            f"With centring={centring!r} nothing varies between these {pairs} pairs, so "
            "there is no principal direction. Give more pairs, or use difference_of_means."
        )


def require_length(length: Tensor) -> None:
    """Raise ValueError unless a direction of this length can be brought to length 1."""
    if not bool(torch.isfinite(length)) or length == 0:
        raise ValueError(
            f"A direction of length {float(length)} cannot be normalised. Are the positive and "
            "negative activations the same, or not finite?"
        )


def warn_of_repeated(repeated: int, n_held_out: int) -> None:
    """Warn where held-out rows are also among the fitted ones."""
    if repeated:
        warnings.warn(
            f"{repeated} of {n_held_out} held-out rows are also among the fitted rows, so "
            "correlation and AUROC look better than they are. Leave out prompts that occur twice.",
            SteeringWarning,
            stacklevel=3,
        )


# -- Prompts, and directions of a method -----------------------------------------------------------


def require_pairs_of_prompts(positive: Sequence[object], negative: Sequence[object]) -> None:
    """Raise ValueError unless there are as many prompts on either side."""
    if len(positive) != len(negative):
        raise ValueError(
            f"CAA needs pairs: {len(positive)} positive and {len(negative)} negative prompts "
            "were given. Give as many of each, in the same order."
        )


def require_difference(
    direction: Float[Tensor, "d_model"],
    positive: Float[Tensor, "pair d_model"],
    site: Site,
    read: Scope,
) -> None:
    """Raise ValueError if the difference of the two sides is no more than rounding."""
    if direction.norm() <= SAME * positive.norm(dim=-1).mean():
        raise ValueError(
            f"The positive and the negative prompts have the same activations at {site} on "
            f"the tokens of `{read}`, so there is no difference to add. Read tokens that "
            "differ, or come after some that do: read=steerlens.generated, say."
        )


def require_instruction_seen(
    plain: Float[Tensor, "pair d_model"], prompted: Float[Tensor, "pair d_model"], site: Site
) -> None:
    """Raise ValueError if the instruction changes nothing at the site."""
    difference = prompted.mean(dim=0) - plain.mean(dim=0)
    if difference.norm() <= SAME * plain.norm(dim=-1).mean():
        raise ValueError(
            "With and without the instruction the last prompt token has the same activation "
            f"at {site}, so there is no direction. Give pairs with an instruction, and a site "
            "that has seen it: the output of a block."
        )


def require_unit(direction: Float[Tensor, "d_model"], what: str) -> None:
    """Raise ValueError unless the direction has length 1."""
    length = float(direction.detach().float().norm())
    if abs(length - 1) > 1e-3:
        raise ValueError(f"{what} must have length 1; found {length:.4g}. Use steerlens.unit(u).")


def require_directions(
    model: HookedModel, directions: Mapping[Site, VectorLike] | Mapping[Layer, VectorLike]
) -> None:
    """Raise ValueError unless there are directions of this model's width, once for each site."""
    if not directions:
        raise ValueError("No directions were given. Pass {Site(layer): vector, ...}.")
    for site, given in by_site(directions, model).items():
        require_writable(model, site)
        shape = list(torch.atleast_2d(torch.as_tensor(given)).shape)
        if len(shape) != 2 or shape[1] != model.cfg.d_model:
            raise ValueError(
                f"The directions at {site} have shape {shape}; this model's are vectors "
                f"of {model.cfg.d_model} numbers, or several as rows."
            )


def require_direction_at(directions: Mapping[Site, object], sites: Sequence[Site]) -> None:
    """Raise ValueError unless every site has directions."""
    absent = [str(site) for site in sites if site not in directions]
    if absent:
        raise ValueError(
            f"There are no directions at {', '.join(absent)}. Give some for every site, or leave "
            "sites out: then it is every site that has directions."
        )


def require_orthonormal(R: Float[Tensor, "rank d_model"], tolerance: float) -> None:
    """Raise ValueError unless the rows have length 1 and are at right angles."""
    R = R.detach().float()
    off = float((R @ R.T - torch.eye(len(R)).to(R)).abs().max())
    if off > tolerance:
        raise ValueError(
            f"The rows of LoReFT's R must be orthonormal; R R^T is off the identity by "
            f"{off:.2g}. steerlens.methods.loreft.orthonormal(R) makes them so."
        )
