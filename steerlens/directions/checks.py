"""What a caller may get wrong about directions, and the rows that they are from."""

import warnings
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from steerlens.checks import require_finite
from steerlens.parsing import few
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


def require_pairs_of_prompts(
    positive: Sequence[object], negative: Sequence[object], method: str = "CAA"
) -> None:
    """Raise ValueError unless there are as many prompts on either side."""
    if len(positive) != len(negative):
        raise ValueError(
            f"{method} needs pairs: {len(positive)} positive and {len(negative)} negative prompts "
            "were given. Give as many of each, in the same order."
        )


def require_scores(
    scores: tuple[Sequence[float], Sequence[float]], pairs: int, what: str
) -> tuple[Float[np.ndarray, " pair"], Float[np.ndarray, " pair"]]:
    """Both sides' scores as arrays; ValueError unless there is one from 0 to 100 for each pair."""
    sides = [np.asarray(side, dtype=float) for side in scores]
    if len(sides) != 2 or any(side.shape != (pairs,) for side in sides):
        raise ValueError(
            f"{what} are two lists, of the positive and of the negative answers, with a score for "
            f"each of the {pairs} pairs; found {[side.shape for side in sides]}."
        )
    for side in sides:
        if not bool(((side >= 0) & (side <= 100) | np.isnan(side)).all()):
            raise ValueError(
                f"{what} are from 0 to 100, NaN where the judge cannot tell; found {side.min():g} "
                f"to {side.max():g}."
            )
    return sides[0], sides[1]


def require_some_kept(kept: int, found: int, why: str) -> None:
    """Raise ValueError if of so many nothing is kept."""
    if kept == 0:
        raise ValueError(
            f"None of {found} {why}, so nothing is left to fit. Look at the answers and the "
            "scores, give instructions that the model follows, or lower the bound."
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


def require_one_direction(sites: Sequence[Site]) -> None:
    """Raise ValueError where the directions of several sites would all be taken out everywhere."""
    if len(sites) > 1:
        raise ValueError(
            f"A direction was asked for at each of {len(sites)} sites ("
            f"{', '.join(map(str, sites[:3]))}{', ...' * (len(sites) > 3)}), and one is taken out "
            "everywhere. Give the one site whose direction you want (the paper tries each on other "
            'prompts), or written="where read": each at its own site.'
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


# -- Conditions ------------------------------------------------------------------------------------


def require_pairs_to_search(pairs: int) -> None:
    """Raise ValueError unless a direction can be found on some pairs and a threshold on others."""
    if pairs < 4:
        raise ValueError(
            "A condition is found on half of its pairs of prompts, and its threshold on the "
            f"others: give at least 4 pairs, better 50; found {pairs}."
        )


def require_apart_from(f1: float, pairs: int) -> None:
    """Raise ValueError if no threshold tells the prompts apart at all."""
    if f1 == 0:
        raise ValueError(
            f"The {pairs} pairs of prompts of the condition have the same activations at every "
            "site that was looked at, so nothing tells them apart. Give prompts that differ."
        )


def require_condition_below(candidates: Sequence[Site], places: Sequence[Site]) -> None:
    """Raise ValueError unless the condition is read before the lowest steered site."""
    order = ("resid_pre", "z", "attn_out", "resid_mid", "mlp_out", "resid_post")
    depth = {site: (site.layer, order.index(site.stream)) for site in (*candidates, *places)}
    lowest = min(places, key=depth.__getitem__)
    above = [str(site) for site in candidates if depth[site] > depth[lowest]]
    if above:
        raise ValueError(
            f"The condition would be read at {', '.join(above)}, after {lowest} is steered: in the "
            "pass that reads the prompt it is not known there yet. Read it at that site or before."
        )


def require_run(context: object, method: str) -> None:
    """Raise ValueError where a window does not know the run that its pass belongs to."""
    if context is None:
        raise ValueError(
            f"{method} must know which run a pass belongs to, and this window does not. Take a "
            "window of tokens, window = steerlens.batch(model, prompts), or use generate(...), "
            "which keeps count from pass to pass."
        )


def require_read_before(read: bool) -> None:
    """Raise ValueError unless the condition of a steer was read in this pass."""
    if not read:
        raise ValueError(
            "A CAST acted before its condition was read in this pass. Place both, the condition "
            "first and at its own site: CAST.conditional(steering, condition) does."
        )


# -- Heads -----------------------------------------------------------------------------------------


def require_heads(heads: int, there: int) -> None:
    """Raise ValueError unless so many heads can be chosen."""
    if not 1 <= heads <= there:
        raise ValueError(
            f"heads={heads}: the layers that were given have {there} heads together, and 1 to "
            f"{there} of them can be chosen. Give more layers (range(model.cfg.n_layers)), or a "
            "lower number."
        )


def require_heads_of(
    positive: Float[Tensor, "positive head d_head"],
    negative: Float[Tensor, "negative head d_head"],
    chosen: Sequence[int],
) -> None:
    """Raise ValueError unless both sides are finite and have the same heads, those chosen too."""
    require_finite(positive, "positive activations")
    require_finite(negative, "negative activations")
    heads = positive.shape[1:]
    if negative.shape[1:] != heads:
        raise ValueError(
            f"The positive activations have {heads[0]} heads of {heads[1]} numbers and the "
            f"negative ones {negative.shape[1]} of {negative.shape[2]}. Read both at one site."
        )
    absent = [head for head in chosen if not -heads[0] <= head < heads[0]]
    if absent or len(chosen) == 0:
        found = f"found {few(absent)}" if absent else "none was chosen"
        raise ValueError(f"Heads count from 0 to {heads[0] - 1} here; {found}. Give some of them.")


def require_pairs_to_probe(pairs: int, held_out: float) -> None:
    """Raise ValueError unless probes can be fitted on some pairs and judged on others."""
    fitted = n_fitted(2 * pairs, held_out) // 2
    if fitted < 2 or fitted == pairs:
        raise ValueError(
            f"Of {pairs} pairs, with held_out={held_out:g}, probes would be fitted on {fitted} and "
            f"judged on {pairs - fitted}. Give 10 pairs or more, better 100."
        )
