"""What has to be true of a prompt for a vector to do its work, measured (arXiv 2605.03907).

Adding alpha z to every token imitates a prompt if (assumption 3.1) what the prompt does to the
tokens lies along one direction, and (3.2) is equally strong at each of them. A gate needs less than
3.2, namely (3.2a) that the strength can be read off the token's own activation:

    rank_share     3.1   share of |Delta|^2 along the mean push, and along the best r axes
    dispersion     3.2   how unequal the strengths of the tokens are
    decodability   3.2a  R^2 of the strength as a function of the activation in the plain run

Delta is the accumulated change on the response tokens. Whatever is fitted here (axes, read-outs) is
fitted on some questions and measured on others; intervals come from resampling questions (of a
coefficient table, which does not know them, examples).
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Literal, TypeAlias

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Int

from steerlens.prompts import PromptPair
from steerlens.scopes import Scope, generated
from steerlens.sites import Site
from steerlens.types import HookedModel

from .deltas import Aligned, align, prompt_deltas
from .intervals import UNKNOWN, interval_of_ratio, percentile_interval, resamples

Rows: TypeAlias = Float[np.ndarray, "token d_model"]
PerToken: TypeAlias = Float[np.ndarray, " token"]
Examples: TypeAlias = Int[np.ndarray, " token"]
Strength = Literal["along", "norm"]
MEAN_PUSH = "mean push"
PENALTIES = tuple(10.0**power for power in range(-1, 6))
"""Ridge penalties that are tried, for standardised activations."""


# -- 3.1: one direction ----------------------------------------------------------------------------


def rank_share(
    model: HookedModel,
    pairs: Sequence[PromptPair],
    layers: Sequence[int] | None = None,
    *,
    ranks: Sequence[int] = (1, 2, 4, 8),
    folds: int = 5,
    span: Scope = generated,
    template: str | None = None,
    seed: int = 0,
) -> pd.DataFrame:
    """The share of the prompt's squared push that lies along few directions of other questions.

    Columns: layer, axes, share, low, high, n_examples, n_tokens. `axes` is "mean push" (the mean
    Delta, the most that a difference of means can hold) or "best r" (the r directions with the
    largest share on the other questions). 1 is all of it.
    """
    aligned = _aligned(model, pairs, layers, span, template)
    deltas = prompt_deltas(model, aligned)
    rows = []
    for site in aligned.sites:
        delta = deltas[site].numpy()
        kept: dict[str, np.ndarray] = {}
        for train, test in _folds(aligned, folds, seed):
            axes = {MEAN_PUSH: _orthonormal(delta[train].mean(axis=0)[None])}
            found = np.linalg.svd(delta[train], full_matrices=False)[2]
            axes |= {f"best {rank}": found[:rank] for rank in ranks}
            for name, basis in axes.items():
                part = kept.setdefault(name, np.zeros(len(delta)))
                part[test] = np.square(delta[test] @ basis.T).sum(axis=1)
        whole = np.square(delta).sum(axis=1)
        for name, part in kept.items():
            share = _ratio(part, whole, aligned, seed)
            rows.append({"layer": site.layer, "axes": name, **_named("share", share)})
    return _counted(rows, aligned)


# -- 3.2: equally strong ---------------------------------------------------------------------------


def dispersion(
    table: pd.DataFrame, measure: str = "norm", *, n_bootstrap: int = 1000, seed: int = 0
) -> pd.DataFrame:
    """How unequal the strengths of tokens are, per layer, method and strength label.

    `table` is what `coefficients` returned, `measure` one of its columns, of which the size counts.
    Columns: layer, method, strength, measure, gini (0 all alike, 1 all on one token), ratio (95th
    over 5th percentile; 1 all alike), their low and high, n_examples, n_tokens; stream and view if
    the table has them.
    """
    if measure not in table.columns or table.empty:
        raise ValueError(
            f"dispersion reads the column {measure!r} of a coefficient table with rows; the table "
            f"has {len(table)} rows and the columns {list(table.columns)}."
        )
    rows = []
    keys = [key for key in ("layer", "stream", "method", "strength", "view") if key in table]
    for _, part in table.groupby(keys, sort=False):
        sizes = part[measure].abs().to_numpy(dtype=np.float64)
        example = part["example"].to_numpy()
        rows.append(
            {
                **{key: part[key].iloc[0] for key in keys},
                "measure": measure,
                **_unequal(sizes, example, n_bootstrap, seed),
                "n_examples": len(np.unique(example)),
                "n_tokens": len(part),
            }
        )
    return pd.DataFrame(rows)


def gini(sizes: PerToken) -> float:
    """Half the mean difference of two tokens, over the mean: 0 all alike, near 1 all on one."""
    return float(_inequality(np.sort(sizes), np.ones((1, len(sizes))))[0][0])


def _unequal(sizes: PerToken, example: np.ndarray, n_bootstrap: int, seed: int) -> dict[str, float]:
    order = np.argsort(sizes)
    ordered = sizes[order]
    names, place = np.unique(example, return_inverse=True)
    found = [float(values[0]) for values in _inequality(ordered, np.ones((1, len(sizes))))]
    intervals = [UNKNOWN, UNKNOWN]
    if len(names) > 1:
        drawn = resamples(len(names), n_bootstrap, seed)
        pieces: list[tuple[np.ndarray, np.ndarray]] = []
        for some in np.array_split(drawn, max(1, len(drawn) // 100)):
            times = np.stack([np.bincount(one, minlength=len(names)) for one in some])
            pieces.append(_inequality(ordered, times[:, place[order]].astype(np.float64)))
        intervals = [
            percentile_interval(np.concatenate(part)) for part in zip(*pieces, strict=True)
        ]
    columns: dict[str, float] = {}
    for name, value, (low, high) in zip(("gini", "ratio"), found, intervals, strict=True):
        columns |= {name: value, f"{name}_low": low, f"{name}_high": high}
    return columns


def _inequality(
    ordered: PerToken, times: Float[np.ndarray, "resample token"]
) -> tuple[np.ndarray, np.ndarray]:
    """Gini, and the 95th over the 5th percentile, of sorted sizes each counted so many times."""
    total = times.cumsum(axis=1)
    n = total[:, -1]
    held = (times * ordered).cumsum(axis=1)
    before = np.concatenate([np.zeros((len(times), 1)), held[:, :-1]], axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        unequal = 1 - (times * (held + before)).sum(axis=1) / (n * held[:, -1])
        ends = [ordered[np.argmax(total >= (share * n)[:, None], axis=1)] for share in (0.05, 0.95)]
        return unequal, ends[1] / ends[0]


# -- 3.2a: readable from the activation ------------------------------------------------------------


def decodability(
    model: HookedModel,
    pairs: Sequence[PromptPair],
    layers: Sequence[int] | None = None,
    *,
    strength: Strength = "along",
    folds: int = 5,
    span: Scope = generated,
    template: str | None = None,
    seed: int = 0,
) -> pd.DataFrame:
    """R^2, on other questions, of a token's strength as a function of its plain activation.

    Columns: layer, strength, readout, r2, low, high, n_examples, n_tokens. `strength` is "along",
    <Delta, v> / <v, v> with v the mean push on the questions fitted on, or "norm", |Delta|.
    Read-outs: "linear" (ridge regression) and "relu", max(0, w.h + b), the paper's gate. 1 is a
    strength that is read off exactly, 0 no better than the mean strength.
    """
    if strength not in ("along", "norm"):
        raise ValueError(f"strength is 'along' or 'norm'; found {strength!r}.")
    aligned = _aligned(model, pairs, layers, span, template)
    deltas = prompt_deltas(model, aligned)
    rows = []
    for site in aligned.sites:
        delta, h = deltas[site].numpy(), aligned.plain.at(site).double().numpy()
        missed = {name: np.zeros(len(delta)) for name in ("mean", "linear", "relu")}
        for train, test in _folds(aligned, folds, seed):
            y = _strengths(delta, delta[train].mean(axis=0), strength)
            read = _standardised(h, train)
            linear = _ridge(read[train], y[train], aligned.question.numpy()[train])
            found = {
                "mean": np.full(len(test), y[train].mean()),
                "linear": linear[0] + read[test] @ linear[1],
                "relu": _relu(read[train], y[train], linear)(read[test]),
            }
            for name, guess in found.items():
                # In units of the training questions' strengths, so that folds can be added up.
                with np.errstate(divide="ignore", invalid="ignore"):
                    missed[name][test] = np.square((y[test] - guess) / y[train].std())
        for name in ("linear", "relu"):
            left, low, high = _ratio(missed[name], missed["mean"], aligned, seed)
            rows.append(
                {
                    "layer": site.layer,
                    "strength": strength,
                    "readout": name,
                    **_named("r2", (1 - left, 1 - high, 1 - low)),
                }
            )
    return _counted(rows, aligned)


def _strengths(delta: Rows, v: Float[np.ndarray, " d_model"], strength: Strength) -> PerToken:
    return delta @ v / (v @ v) if strength == "along" else np.linalg.norm(delta, axis=1)


def _standardised(h: Rows, train: np.ndarray) -> Rows:
    spread = h[train].std(axis=0)
    return (h - h[train].mean(axis=0)) / np.where(spread > 0, spread, 1)


def _ridge(read: Rows, y: PerToken, question: Examples) -> tuple[float, np.ndarray]:
    """Intercept and weights; the penalty is chosen by leaving out questions."""
    from sklearn.linear_model import RidgeCV
    from sklearn.model_selection import GroupKFold

    n = len(np.unique(question))
    splits = None if n < 2 else [*GroupKFold(min(n, 4)).split(read, y, question)]
    fitted = RidgeCV(alphas=PENALTIES, cv=splits).fit(read, y)
    return float(fitted.intercept_), np.asarray(fitted.coef_)


def _relu(read: Rows, y: PerToken, linear: tuple[float, np.ndarray]) -> Callable[[Rows], PerToken]:
    """max(0, w.h + b) by least squares from the linear read-out on, kept near it as ridge is."""
    x, wanted = torch.from_numpy(read), torch.from_numpy(y)
    start = torch.from_numpy(linear[1])
    w, b = start.clone().requires_grad_(), torch.tensor(linear[0], dtype=x.dtype).requires_grad_()
    penalty = float(wanted.var()) * 1e-2 / max(float(start.square().sum()), 1e-12)
    optimiser = torch.optim.LBFGS([w, b], max_iter=100, line_search_fn="strong_wolfe")

    def loss() -> torch.Tensor:
        optimiser.zero_grad()
        missed = (torch.relu(x @ w + b) - wanted).square().mean()
        total = missed + penalty * (w - start).square().sum()
        total.backward()
        return total

    optimiser.step(loss)
    found, shift = w.detach().numpy(), float(b.detach())
    return lambda new: np.maximum(new @ found + shift, 0)


# -- Questions, folds, sums ------------------------------------------------------------------------


def _aligned(
    model: HookedModel,
    pairs: Sequence[PromptPair],
    layers: Sequence[int] | None,
    span: Scope,
    template: str | None,
) -> Aligned:
    sites = [Site(layer) for layer in (range(model.cfg.n_layers) if layers is None else layers)]
    return align(model, pairs, sites, span=span, template=template)


def _folds(aligned: Aligned, folds: int, seed: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """(training, test) tokens: every question is tested once, with all of its responses."""
    n = max(aligned.questions) + 1
    if folds < 2 or n < folds:
        raise ValueError(
            f"{folds} folds of {n} questions: what is fitted on some is measured on "
            "others, so at least two folds and as many questions are needed."
        )
    fold_of = np.random.default_rng(seed).permutation(np.arange(n) % folds)
    fold = fold_of[aligned.question.numpy()]
    for number in range(folds):
        yield np.flatnonzero(fold != number), np.flatnonzero(fold == number)


def _orthonormal(v: Rows) -> Rows:
    size = np.linalg.norm(v)
    return v / size if size > 0 else v


def _ratio(
    above: PerToken, below: PerToken, aligned: Aligned, seed: int
) -> tuple[float, float, float]:
    """sum(above) / sum(below) over tokens, and its interval over questions."""
    sums = [aligned.by_question(torch.from_numpy(part)) for part in (above, below)]
    with np.errstate(divide="ignore", invalid="ignore"):
        return (
            float(sums[0].sum() / sums[1].sum()),
            *interval_of_ratio(sums[0], sums[1], seed=seed),
        )


def _named(name: str, found: tuple[float, float, float]) -> dict[str, float]:
    return {name: found[0], "low": found[1], "high": found[2]}


def _counted(rows: list[dict[str, object]], aligned: Aligned) -> pd.DataFrame:
    counts = {"n_examples": len(aligned.plain_rows), "n_tokens": len(aligned.example)}
    return pd.DataFrame(rows).assign(**counts)
