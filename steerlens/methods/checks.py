"""What a caller may get wrong about a method: each check raises an error that says what to do."""

import math
from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from steerlens.checks import require_choice
from steerlens.directions.checks import SAME
from steerlens.scopes import Scope
from steerlens.sites import Site, as_site, require_writable
from steerlens.types import HookedModel

Rows = Float[Tensor, "rank d_model"]


# -- PSR -------------------------------------------------------------------------------------------


def require_gates(rank: int, b_m: float, *, frozen: bool, constant: bool) -> None:
    """Raise ValueError unless there is something to learn."""
    if rank < 1:
        raise ValueError(f"rank must be at least 1; found {rank}.")
    if not math.isfinite(b_m):
        raise ValueError(f"b_m must be a finite number, like -0.5; found {b_m}.")
    if frozen and constant:
        raise ValueError("directions are frozen and constant=True has no gate: nothing to train.")


def require_frozen(
    directions: Mapping[Site, Rows] | None, sites: Sequence[Site], shape: tuple[int, int]
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


def require_varied(labels: Sequence[float] | None, learn_b_m: bool) -> None:
    """Raise ValueError where a learnt b_m could do no more than scale Z."""
    if learn_b_m and len(set(labels or ())) < 2:
        raise ValueError(
            "b_m is learnt from responses with more and with less of the attribute, and all "
            "labels are the same. Give labels that differ, or a fixed b_m."
        )


# -- CAA, instruction vectors ----------------------------------------------------------------------


def require_some(pairs: Sequence[object]) -> None:
    """Raise ValueError if there are no pairs."""
    if not pairs:
        raise ValueError("No pairs were given. Pass some PromptPairs: prompted_pairs(...).")


def require_partners(positive: Sequence[object], negative: Sequence[object]) -> None:
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


# -- ActAdd ----------------------------------------------------------------------------------------


def require_alignment(alignment: str) -> None:
    """Raise ValueError unless it is one of the three."""
    require_choice("alignment", alignment, ("front", "mid", "back"))


def require_dims(dims: tuple[int, int] | None, d_model: int) -> None:
    """Raise ValueError unless `dims` is a range of the residual dimensions."""
    start, stop = dims or (0, d_model)
    if not 0 <= start < stop <= d_model:
        raise ValueError(
            f"dims=({start}, {stop}) is no range of residual dimensions: v has {d_model}."
        )


def require_long_enough(n: Int[Tensor, "batch"], rows: int) -> None:
    """Raise ValueError if a prompt has fewer tokens than v has rows."""
    if bool((n < rows).any()):
        raise ValueError(
            f"ActAdd's v covers {rows} positions, but a prompt has only {int(n.min())} tokens. "
            "Use a longer prompt or shorter contrast prompts."
        )


# -- CLAS, LoReFT, ReFT-r1 -------------------------------------------------------------------------


def require_directions(
    model: HookedModel, directions: Mapping[Site, Tensor] | Mapping[int, Tensor]
) -> None:
    """Raise ValueError unless there are directions of this model's width, once for each site."""
    if not directions:
        raise ValueError("No directions were given. Pass {Site(layer): vector, ...}.")
    sites = [as_site(where) for where in directions]
    for site, given in zip(sites, directions.values(), strict=True):
        require_writable(model, site)
        if sites.count(site) > 1:
            raise ValueError(f"Directions were given twice for {site}. Give them as rows of one.")
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


def require_limit(limit: float | None) -> None:
    """Raise ValueError unless the bound of alpha, if any, is above 0."""
    if limit is not None and not limit > 0:
        raise ValueError(f"limit bounds |alpha| and must be above 0; found {limit}.")


def require_rank(rank: int, d_model: int) -> None:
    """Raise ValueError unless so many directions fit into the residual stream."""
    if not 1 <= rank <= d_model:
        raise ValueError(f"rank is from 1 to d_model = {d_model}; found {rank}.")


def require_orthonormal(R: Rows, tolerance: float) -> None:
    """Raise ValueError unless the rows have length 1 and are at right angles."""
    R = R.detach().float()
    off = float((R @ R.T - torch.eye(len(R)).to(R)).abs().max())
    if off > tolerance:
        raise ValueError(
            f"The rows of LoReFT's R must be orthonormal; R R^T is off the identity by "
            f"{off:.2g}. steerlens.methods.loreft.orthonormal(R) makes them so."
        )


def require_latents(k: int, l1: float) -> None:
    """Raise ValueError unless k and l1 make sense."""
    if k < 1 or not l1 >= 0:
        raise ValueError(f"k is at least 1 and l1 at least 0; found k={k} and l1={l1}.")


def require_opened(a_max: float) -> None:
    """Raise ValueError unless some token of the training text opened the latent."""
    if not 0 < a_max < math.inf:
        raise ValueError(
            f"a_max is the largest latent on the training text and must be above 0; found "
            f"{a_max}. If no token of the training text opens the latent, train longer or "
            "from another seed."
        )
