"""Labelled activations -> one unit direction, with how well it tells held-out rows apart.

    found = fit_direction("rfm", activations, labels)
    found.direction, found.auroc

What the kinds are (v is brought to length 1, its sign such that label 1 projects higher):

rfm          top eigenvector of a recursive feature machine's metric (`steerlens.rfm`)
ridge        weights of ridge regression, no intercept, penalty by held-out correlation
logistic     weights of logistic regression, no intercept, penalty by held-out AUROC
means        mean(label 1) - mean(label 0)
pca          first principal direction of the pairs (row 2i has label 0, row 2i + 1 its partner)
random       nothing is fitted but the sign, where both labels occur: what any of these must beat

They read whatever was captured; every one is fitted on some rows and scored on the others. How
each can fool you: means and pca take up whatever else differs between the classes, ridge and
logistic what separates these few rows by chance, rfm more slowly the same; AUROC on held-out rows
of the same templates does not show that the direction is the concept and not the template.
"""

import random
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import nan
from typing import Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from steerlens.activations import capture, default_read
from steerlens.directions.means import SAME, principal_direction, unit
from steerlens.directions.rfm import (
    CLAS_RFM,
    RFM,
    auroc,
    best_direction,
    correlation,
    require_labelled,
)
from steerlens.prompts import Prompt, encode_all
from steerlens.scopes import Scope
from steerlens.sites import Site, as_site
from steerlens.types import Direction, HookedModel, SteeringWarning

Kind = Literal["rfm", "ridge", "logistic", "means", "pca", "random"]
Rows = Float[Tensor, "row d_model"]
Labels = Float[Tensor, " row"]
RIDGE = (0.0, 1e-9, 1e-7, 1e-5, 1e-3, 1e-1, 1.0, 10.0, 100.0, 1e3, 1e4)
LOGISTIC = (1000.0, 100.0, 10.0, 1.0, 0.1, 0.01)


@dataclass(frozen=True, eq=False)
class FoundDirection:
    """A unit direction, and on rows that it was not fitted on: correlation with the labels, AUROC.

    `setting` says what the held-out rows chose (a penalty, a bandwidth), if anything; where they
    chose, their scores flatter a little. `held` is how many rows the scores rest on; where these
    do not have both labels, as may be for "random", the scores are nan.
    """

    kind: str
    direction: Direction
    correlation: float
    auroc: float
    setting: str = ""
    held: int = 0


def fit_direction(
    kind: Kind,
    activations: Rows,
    labels: Labels,
    *,
    held_out: float = 0.2,
    rfm: RFM = CLAS_RFM,
    seed: int = 0,
) -> FoundDirection:
    """Fit one direction; the last `held_out` share of the rows (in pairs) is held out.

    Labels are 0 and 1. Shuffle the rows first if they are sorted; keep partners together for pca.
    "random" asks for no more than one row.
    """
    _require_known(kind, held_out)
    found, repeated = _fitted(kind, activations, labels, held_out, rfm, seed)
    _warn_of_repeated(repeated, found.held)
    return found


def contrast_directions(
    kind: Kind,
    model: HookedModel,
    positive: Sequence[Prompt],
    negative: Sequence[Prompt],
    sites: Sequence[int | Site],
    *,
    read: Scope | None = None,
    template: str | None = None,
    held_out: float = 0.2,
    rfm: RFM = CLAS_RFM,
    seed: int = 0,
) -> dict[Site, FoundDirection]:
    """A direction at each site from prompts with (label 1) and without the behaviour (label 0).

    Prompt i of one list is the partner of prompt i of the other; the pairs are shuffled by the
    seed before the last are held out. A row is the mean over the tokens of `read`: by default
    those of the response where all prompts have one, else the last prompt token.
    """
    _require_known(kind, held_out)
    if len(positive) != len(negative):
        raise ValueError(
            f"Prompts come in pairs; found {len(positive)} positive and {len(negative)} negative."
        )
    order = random.Random(f"pairs {seed}").sample(range(len(positive)), len(positive))
    prompts = [side[number] for number in order for side in (negative, positive)]
    rows = encode_all(model, prompts, template)
    places = [as_site(site) for site in sites]
    captured = capture(model, rows, places, scope=read or default_read(rows))
    labels = (torch.arange(len(rows)) % 2).float()
    found, repeated = {}, 0
    for site in places:
        means = captured.row_means(site, len(rows)).float()
        if kind != "random":
            _require_apart(means, site)
        found[site], again = _fitted(kind, means, labels, held_out, rfm, seed)
        repeated = max(repeated, again)
    _warn_of_repeated(repeated, len(rows) - _split(len(rows), held_out))
    return found


def _fitted(
    kind: Kind, activations: Rows, labels: Labels, held_out: float, rfm: RFM, seed: int
) -> tuple[FoundDirection, int]:
    """The direction, and how many held-out rows are also among the fitted ones."""
    require_labelled(activations, labels, "activations")
    known = set(labels.tolist())
    if not known <= {0.0, 1.0} or (kind != "random" and len(known) < 2):
        raise ValueError(f"Labels are 0 and 1, and both must occur; found {sorted(known)[:5]}.")
    x, y, n = activations.double(), labels.double(), _split(len(labels), held_out)
    repeated = 0
    if kind != "random":
        _require_both_labels(y, n, held_out)
        _require_varied(x[:n])
        repeated = _repeated(x, y, n)
    v, setting = _FITS[kind](x[:n], y[:n], x[n:], y[n:], rfm, seed)
    v = unit(v)
    # Where both labels have the same rows, rounding must not turn a random direction round.
    v = -v if correlation(x @ v, y) < -SAME else v
    scores = nan, nan
    if len(set(y[n:].tolist())) == 2:
        scores = correlation(x[n:] @ v, y[n:]), auroc(x[n:] @ v, y[n:])
    found = FoundDirection(kind, v.to(activations.dtype), *scores, setting, len(y) - n)
    return found, repeated


def _require_known(kind: str, held_out: float) -> None:
    if kind not in get_args(Kind):
        raise ValueError(f"Unknown kind {kind!r}. Use one of: {', '.join(get_args(Kind))}.")
    if not 0 < held_out < 1:
        raise ValueError(
            f"held_out={held_out}: it is the share of the rows that the direction is scored on and "
            "not fitted on, above 0 and below 1."
        )


def _split(rows: int, held_out: float) -> int:
    """How many rows are fitted on: whole pairs."""
    return 2 * round(rows * (1 - held_out) / 2)


def _require_both_labels(y: Labels, n: int, held_out: float) -> None:
    """Raise ValueError unless both labels occur among the fitted and among the held-out rows."""
    pairs, most = len(y) // 2, 1000
    enough = (p for p in range(2, most) if 0 < _split(2 * p, held_out) < 2 * p)
    needed = next(enough, most)
    if pairs < needed:
        raise ValueError(
            f"At least {needed} pairs are needed to fit a direction and to score it; found {pairs} "
            f"(held_out={held_out:g})."
        )
    for part, name in ((y[:n], "fitted on"), (y[n:], "held out")):
        if len(set(part.tolist())) < 2:
            raise ValueError(
                f"The rows {name} have one label only ({len(part)} rows). Shuffle them, give "
                "more, or change held_out."
            )


def _require_varied(x: Rows) -> None:
    if (x - x[0]).norm(dim=1).max() <= SAME * x.norm(dim=1).mean():
        raise ValueError(
            f"The {len(x)} rows to fit on are all the same, so no direction tells them apart. Read "
            "tokens or a layer at which the texts differ."
        )


def _require_apart(means: Rows, site: Site) -> None:
    """Raise ValueError if each row is the same as its partner's."""
    apart = (means[0::2] - means[1::2]).norm(dim=-1).max()
    if apart <= SAME * means.norm(dim=-1).mean():
        raise ValueError(
            f"The positive and the negative prompts have the same activations at {site}, so "
            "no direction tells them apart. Read tokens that differ, or come after some that "
            "do (read=), or leave this layer out."
        )


def _repeated(x: Rows, y: Labels, n: int) -> int:
    """How many held-out rows equal a fitted row of the same label."""
    near = torch.cdist(x[n:], x[:n]) <= SAME * x.norm(dim=1).mean()
    return int((near & (y[n:, None] == y[:n])).any(dim=1).sum())


def _warn_of_repeated(repeated: int, held: int) -> None:
    if repeated:
        warnings.warn(
            f"{repeated} of {held} held-out rows are also among the fitted rows, so correlation "
            "and AUROC look better than they are. Leave out prompts that occur twice.",
            SteeringWarning,
            stacklevel=3,
        )


Fitted = tuple[Tensor, str]


def _rfm(x: Tensor, y: Tensor, held: Tensor, held_y: Tensor, rfm: RFM, seed: int) -> Fitted:
    found = best_direction(x, y, held, held_y, rfm)
    rows = "unit" if found.normalised else "raw"
    return found.direction, f"bandwidth {found.bandwidth:g}, {rows} rows, step {found.iteration}"


def _ridge(x: Tensor, y: Tensor, held: Tensor, held_y: Tensor, rfm: RFM, seed: int) -> Fitted:
    # Dual form: the weights lie in the span of the rows.
    gram = x @ x.T
    size, one = float(gram.diagonal().mean()), torch.eye(len(x)).to(x)
    tried = {
        penalty: x.T @ torch.linalg.lstsq(gram + penalty * size * one, y[:, None])[0][:, 0]
        for penalty in RIDGE
    }
    best = _best(tried, lambda v: abs(correlation(held @ v, held_y)))
    return tried[best], f"penalty {best:g}"


def _logistic(x: Tensor, y: Tensor, held: Tensor, held_y: Tensor, rfm: RFM, seed: int) -> Fitted:
    from sklearn.linear_model import LogisticRegression

    tried = {}
    for C in LOGISTIC:
        model = LogisticRegression(C=C, fit_intercept=False, max_iter=1000)
        tried[C] = torch.from_numpy(model.fit(x.numpy(), y.numpy()).coef_[0])
    best = _best(tried, lambda v: auroc(held @ v, held_y))
    return tried[best], f"C {best:g}"


def _means(x: Tensor, y: Tensor, held: Tensor, held_y: Tensor, rfm: RFM, seed: int) -> Fitted:
    return x[y == 1].mean(dim=0) - x[y == 0].mean(dim=0), ""


def _pca(x: Tensor, y: Tensor, held: Tensor, held_y: Tensor, rfm: RFM, seed: int) -> Fitted:
    if not bool((y[0::2] == 0).all() and (y[1::2] == 1).all()):
        raise ValueError(
            "pca needs pairs: rows 0, 2, 4, ... of label 0, each before its partner of label 1."
        )
    return principal_direction(x[1::2], x[0::2]), ""


def _random(x: Tensor, y: Tensor, held: Tensor, held_y: Tensor, rfm: RFM, seed: int) -> Fitted:
    return torch.randn(x.shape[1], generator=torch.Generator().manual_seed(seed)).to(x), ""


_FITS: dict[str, Callable[..., Fitted]] = {
    "rfm": _rfm,
    "ridge": _ridge,
    "logistic": _logistic,
    "means": _means,
    "pca": _pca,
    "random": _random,
}


def _best(tried: dict[float, Tensor], score: Callable[[Tensor], float]) -> float:
    """The setting whose direction scores best; the first of equals."""
    return max(tried, key=lambda setting: score(tried[setting]))
