"""Labelled activations -> one unit direction, with how well it tells held-out rows apart.

    fitted = fit_direction("rfm", activations, labels)
    fitted.direction, fitted.auroc

What the kinds are (v is brought to length 1, its sign such that label 1 projects higher):

rfm          top eigenvector of a recursive feature machine's metric (`steerlens.directions.rfm`)
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
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import inf, nan
from typing import Literal, get_args

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from steerlens.activations import capture, default_read
from steerlens.checks import require_choice, require_seed, warn_if_few
from steerlens.directions.checks import (
    SAME,
    Labels,
    Rows,
    n_fitted,
    require_alternating,
    require_apart,
    require_binary,
    require_both_labels,
    require_labelled,
    require_partners,
    require_share,
    require_varied,
    warn_of_repeated,
)
from steerlens.directions.means import principal_direction, unit
from steerlens.directions.rfm import CLAS_RFM, RFM, auroc, best_direction, correlation
from steerlens.directions.token_means import alternating_means, counted
from steerlens.kinds import require_kinds
from steerlens.precision import wide
from steerlens.prompts import Prompt, encode_all
from steerlens.scopes import Scope
from steerlens.sinks import SINK, Kept, ordinary, require_ordinary
from steerlens.sites import Site, Sites, as_sites
from steerlens.types import Direction, HookedModel

Kind = Literal["rfm", "ridge", "logistic", "means", "pca", "random"]
RIDGE = (0.0, 1e-9, 1e-7, 1e-5, 1e-3, 1e-1, 1.0, 10.0, 100.0, 1e3, 1e4)
LOGISTIC = (1000.0, 100.0, 10.0, 1.0, 0.1, 0.01)


@dataclass(frozen=True, eq=False)
class FittedDirection:
    """A unit direction, and on rows that it was not fitted on: correlation with the labels, AUROC.

    `setting` says what the held-out rows chose (a penalty, a bandwidth), if anything; where they
    chose, their scores flatter a little. `n_held_out` is how many rows the scores rest on; where
    these do not have both labels, as may be for "random", the scores are nan. `n_sinks` is how many
    rows (of `fit_direction`) or tokens (of `contrast_directions`) were left out as sinks.
    """

    kind: str
    direction: Direction
    correlation: float
    auroc: float
    setting: str = ""
    n_held_out: int = 0
    n_sinks: int = 0


def fit_direction(
    kind: Kind,
    activations: Rows,
    labels: Labels | Int[Tensor, " row"] | Bool[Tensor, " row"],
    *,
    held_out: float = 0.2,
    rfm: RFM = CLAS_RFM,
    seed: int = 0,
    sinks: float = SINK,
) -> FittedDirection:
    """Fit one direction; the last `held_out` share of the rows (in pairs) is held out.

    Labels are 0 and 1. Shuffle the rows first if they are sorted; keep partners together for pca.
    "random" asks for no more than one row. Rows longer than `sinks` times the median are left out,
    for pca with their partners; infinity keeps all.
    """
    require_kinds(fit_direction, locals())
    require_seed(seed)
    options = _Options(kind, held_out, rfm, seed)
    require_labelled(activations, labels, "activations")
    keep = _ordinary_rows(activations, paired=kind == "pca", times=sinks)
    split = options.split(activations[keep], labels[keep].double())
    fitted = replace(options.fitted(split), n_sinks=int((~keep).sum()))
    warn_of_repeated(options.repeated(split), fitted.n_held_out)
    return fitted


def _ordinary_rows(activations: Rows, *, paired: bool, times: float) -> Kept:
    """The rows that are no sinks; in pairs the partner of a sink goes too."""
    (keep,) = ordinary([activations], times)
    require_ordinary(keep, "activations")
    if paired and len(keep) % 2 == 0:
        keep = (keep[0::2] & keep[1::2]).repeat_interleave(2)
    return keep


def contrast_directions(
    model: HookedModel,
    kind: Kind,
    positive: Sequence[Prompt],
    negative: Sequence[Prompt],
    sites: Sites,
    *,
    read: Scope | None = None,
    held_out: float = 0.2,
    rfm: RFM = CLAS_RFM,
    seed: int = 0,
    sinks: float = SINK,
) -> dict[Site, FittedDirection]:
    """A direction at each site from prompts with (label 1) and without the behaviour (label 0).

    Prompt i of one list is the partner of prompt i of the other; the pairs are shuffled by the
    seed before the last are held out. A row is the mean over the tokens of `read`: by default
    those of the response where all prompts have one, else the last prompt token. Tokens whose norm
    is above `sinks` times the median are left out.
    """
    require_kinds(contrast_directions, locals())
    require_seed(seed)
    options, sites = _Options(kind, held_out, rfm, seed), as_sites(sites, model)
    require_partners(positive, negative)
    order = random.Random(f"pairs {seed}").sample(range(len(positive)), len(positive))
    prompts = [side[number] for number in order for side in (negative, positive)]
    rows = encode_all(model, prompts)
    captured = capture(model, rows, sites, scope=read or default_read(rows))
    splits: dict[Site, _Split] = {}
    for site in sites:
        means = wide(alternating_means(captured, site, len(rows), sinks))
        if kind != "random":
            require_apart(means, site)
        splits[site] = options.split(means, (torch.arange(len(means)) % 2).float())
    left_out = counted([captured], sites, sinks)
    fitted = {
        site: replace(options.fitted(split), n_sinks=left_out[site])
        for site, split in splits.items()
    }
    repeated = max(options.repeated(split) for split in splits.values())
    warn_of_repeated(repeated, len(rows) - n_fitted(len(rows), held_out))
    return fitted


@dataclass(frozen=True, eq=False)
class _Split:
    """Rows x with labels y to fit on, and the held-out ones."""

    x: Rows
    y: Labels
    x_out: Tensor
    y_out: Tensor
    dtype: torch.dtype


@dataclass(frozen=True)
class _Options:
    """Which direction is fitted, and how."""

    kind: Kind
    held_out: float
    rfm: RFM
    seed: int

    def __post_init__(self) -> None:
        require_choice("kind", self.kind, get_args(Kind))
        require_share(self.held_out)

    def split(self, activations: Rows, labels: Labels) -> _Split:
        """The rows in float64, those to fit on and the others."""
        require_labelled(activations, labels, "activations")
        require_binary(labels, both=self.kind != "random")
        x, y, n = activations.double(), labels.double(), n_fitted(len(labels), self.held_out)
        if self.kind != "random":
            require_both_labels(y[:n], y[n:], self.held_out)
            require_varied(x[:n])
        return _Split(x[:n], y[:n], x[n:], y[n:], activations.dtype)

    def fitted(self, split: _Split) -> FittedDirection:
        """The direction of these rows, and its scores on the others."""
        v, setting = _FITS[self.kind](split, self)
        v = unit(v)
        x, y = torch.cat([split.x, split.x_out]), torch.cat([split.y, split.y_out])
        # Where both labels have the same rows, rounding must not turn a random direction round.
        v = -v if correlation(x @ v, y) < -SAME else v
        scores, along = (nan, nan), split.x_out @ v
        if len(set(split.y_out.tolist())) == 2:
            warn_if_few(len(split.y_out) // 2, "held-out AUROC and correlation", "held-out pair")
            scores = correlation(along, split.y_out), auroc(along, split.y_out)
        return FittedDirection(self.kind, v.to(split.dtype), *scores, setting, len(split.y_out))

    def repeated(self, split: _Split) -> int:
        """How many held-out rows equal a fitted row of the same label."""
        if self.kind == "random":
            return 0
        size = torch.cat([split.x, split.x_out]).norm(dim=1).mean()
        near = torch.cdist(split.x_out, split.x) <= SAME * size
        return int((near & (split.y_out[:, None] == split.y)).any(dim=1).sum())


# -- The kinds: each makes a direction, and says what the held-out rows chose ----------------------


def _rfm(rows: _Split, options: _Options) -> tuple[Tensor, str]:
    best = best_direction(rows.x, rows.y, rows.x_out, rows.y_out, options.rfm)
    scale = "unit" if best.normalised else "raw"
    return best.direction, f"bandwidth {best.bandwidth:g}, {scale} rows, step {best.iteration}"


def _ridge(rows: _Split, options: _Options) -> tuple[Tensor, str]:
    # Dual form: the weights lie in the span of the rows.
    gram = rows.x @ rows.x.T
    size, identity = float(gram.diagonal().mean()), torch.eye(len(gram)).to(gram)
    tried = {
        penalty: rows.x.T
        @ torch.linalg.lstsq(gram + penalty * size * identity, rows.y[:, None])[0][:, 0]
        for penalty in RIDGE
    }
    best = _best(tried, lambda v: abs(correlation(rows.x_out @ v, rows.y_out)))
    return tried[best], f"penalty {best:g}"


def _logistic(rows: _Split, options: _Options) -> tuple[Tensor, str]:
    from sklearn.linear_model import LogisticRegression

    tried = {}
    for C in LOGISTIC:
        regression = LogisticRegression(C=C, fit_intercept=False, max_iter=1000)
        tried[C] = torch.from_numpy(regression.fit(rows.x.numpy(), rows.y.numpy()).coef_[0])
    best = _best(tried, lambda v: auroc(rows.x_out @ v, rows.y_out))
    return tried[best], f"C {best:g}"


def _means(rows: _Split, options: _Options) -> tuple[Tensor, str]:
    return rows.x[rows.y == 1].mean(dim=0) - rows.x[rows.y == 0].mean(dim=0), ""


def _pca(rows: _Split, options: _Options) -> tuple[Tensor, str]:
    require_alternating(rows.y)
    return principal_direction(rows.x[1::2], rows.x[0::2], sinks=inf), ""


def _random(rows: _Split, options: _Options) -> tuple[Tensor, str]:
    generator = torch.Generator().manual_seed(options.seed)
    return torch.randn(rows.x.shape[1], generator=generator).to(rows.x), ""


_FITS: Mapping[str, Callable[[_Split, _Options], tuple[Tensor, str]]] = {
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
