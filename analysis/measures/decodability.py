"""Assumption 3.2a of vector steering (arXiv 2605.03907): a token's strength is readable from it.

R^2, on questions that were not fitted on, of the strength as a function of the activation in the
plain run. A gate, such as that of a PSR, is such a read-out.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Literal, TypeAlias, get_args

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Int

from steerlens.checks import require_choice
from steerlens.kinds import require_kinds
from steerlens.prompts import PromptPair
from steerlens.scopes import Scope, generated
from steerlens.sinks import SINK, require_times
from steerlens.sites import Sites
from steerlens.types import HookedModel

from .aligned import Aligned
from .deltas import prompt_deltas
from .folds import (
    Kept,
    at_layers,
    folds_of,
    kept_at,
    ratio_of_sums,
    with_counts,
    with_interval,
)
from .intervals import PerToken
from .plain_side import BY_TEMPLATE, noted
from .progress import watched

Rows: TypeAlias = Float[np.ndarray, "token d_model"]
Examples: TypeAlias = Int[np.ndarray, " token"]
Strength = Literal["along", "norm"]
Readout = Literal["linear", "relu"]
PENALTIES = tuple(10.0**power for power in range(-1, 6))
"""Ridge penalties that are tried, for standardised activations."""


def decodability(
    model: HookedModel,
    pairs: Sequence[PromptPair],
    layers: Sites | None = None,
    *,
    strength: Strength = "along",
    folds: int = 5,
    span: Scope = generated,
    seed: int = 0,
    baseline: str = BY_TEMPLATE,
    sinks: float = SINK,
    readouts: Sequence[Readout] = get_args(Readout),
) -> pd.DataFrame:
    """R^2, on other questions, of a token's strength as a function of its plain activation.

    Columns: layer, strength, readout, r2, low, high, r2_with_sinks, n_sinks, n_examples,
    n_questions, n_tokens. `strength` is "along",
    <Delta, v> / <v, v> with v the mean push on the questions fitted on, or "norm", |Delta|.
    Read-outs: "linear" (ridge regression) and "relu", max(0, w.h + b), the paper's gate. 1 is a
    strength that is read off exactly, 0 no better than the mean strength. `baseline` is the plain
    side (`measures.plain_side`). Tokens whose norm is above `sinks` times the median in either run
    are left out; `r2_with_sinks` is with them. `readouts` chooses among the read-outs. It shows a
    progress bar when it takes longer than five seconds. Beyond the limit of `parts.holding`,
    layers are measured in groups, of one at least.
    """
    require_kinds(decodability, locals())
    if len(readouts) == 0:
        raise ValueError(f"No read-outs were given. Give some of {', '.join(get_args(Readout))}.")
    for name in readouts:
        require_choice("read-out", name, get_args(Readout))
    require_times(sinks)
    if strength not in ("along", "norm"):
        raise ValueError(f"strength is 'along' or 'norm'; found {strength!r}.")
    rows: list[dict[str, object]] = []
    aligned = None
    for aligned in at_layers(model, pairs, layers, span, folds, baseline):
        for site in watched(aligned.sites, "decodability", "layer"):
            delta = prompt_deltas(model, aligned)[site].numpy()
            h, keep = aligned.plain.at(site).double().numpy(), kept_at(aligned, site, sinks)
            measured = partial(_missed, delta, h, aligned, strength, folds, seed, readouts)
            missed = measured(keep)
            of_all = missed if keep.all() else measured()
            for name in readouts:
                with_sinks = of_all[name], of_all["mean"]
                found = _r2(missed[name], missed["mean"], *with_sinks, aligned, seed)
                counts = {"n_sinks": int((~keep).sum())}
                place = {"layer": site.layer, "strength": strength, "readout": name}
                rows.append({**place, **found, **counts})
    assert aligned is not None
    return noted(with_counts(rows, aligned, "decodability"), model, baseline, sinks)


def _r2(
    missed: PerToken,
    by_mean: PerToken,
    missed_of_all: PerToken,
    by_mean_of_all: PerToken,
    aligned: Aligned,
    seed: int,
) -> dict[str, float]:
    """R^2 with its interval, and R^2 with sinks."""
    left, low, high = ratio_of_sums(missed, by_mean, aligned, seed)
    left_of_all = ratio_of_sums(missed_of_all, by_mean_of_all, aligned, seed)[0]
    r2 = with_interval("r2", 1 - left, 1 - high, 1 - low)
    return {**r2, "r2_with_sinks": 1 - left_of_all}


def _missed(
    delta: Rows,
    h: Float[np.ndarray, "token feature"],
    aligned: Aligned,
    strength: Strength,
    folds: int,
    seed: int,
    readouts: Sequence[Readout] = get_args(Readout),
    keep: Kept | None = None,
) -> dict[str, PerToken]:
    """By read-out, the squared error at each token, from read-outs fitted on other questions.

    It is 0 at tokens that are not kept, which have no part in anything.
    """
    missed = {name: np.zeros(len(delta)) for name in ("mean", *readouts)}
    for train, test in folds_of(aligned, folds, seed, keep):
        if len(test) == 0:
            continue
        y = _strengths(delta, delta[train].mean(axis=0), strength)
        x = _standardised(h, train)
        linear = _ridge(x[train], y[train], aligned.question.numpy()[train])
        guesses = {
            "mean": np.full(len(test), y[train].mean()),
            "linear": linear[0] + x[test] @ linear[1],
        }
        if "relu" in readouts:
            guesses["relu"] = _relu(x[train], y[train], linear)(x[test])
        for name, guess in guesses.items():
            if name not in missed:
                continue
            # In units of the training questions' strengths, so that folds can be added up.
            with np.errstate(divide="ignore", invalid="ignore"):
                missed[name][test] = np.square((y[test] - guess) / y[train].std())
    return missed


def _strengths(delta: Rows, v: Float[np.ndarray, " d_model"], strength: Strength) -> PerToken:
    return delta @ v / (v @ v) if strength == "along" else np.linalg.norm(delta, axis=1)


def _standardised(h: Rows, train: np.ndarray) -> Rows:
    spread = h[train].std(axis=0)
    return (h - h[train].mean(axis=0)) / np.where(spread > 0, spread, 1)


def _ridge(x: Rows, y: PerToken, question: Examples) -> tuple[float, np.ndarray]:
    """Intercept and weights; the penalty is chosen by leaving out questions."""
    from sklearn.linear_model import RidgeCV
    from sklearn.model_selection import GroupKFold

    n = len(np.unique(question))
    splits = None if n < 2 else [*GroupKFold(min(n, 4)).split(x, y, question)]
    fitted = RidgeCV(alphas=PENALTIES, cv=splits).fit(x, y)
    return float(fitted.intercept_), np.asarray(fitted.coef_)


def _relu(rows: Rows, y: PerToken, linear: tuple[float, np.ndarray]) -> Callable[[Rows], PerToken]:
    """max(0, w.h + b) by least squares from the linear read-out on, kept near it as ridge is."""
    x, wanted = torch.from_numpy(rows), torch.from_numpy(y)
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
    weights, bias = w.detach().numpy(), float(b.detach())
    return lambda new: np.maximum(new @ weights + bias, 0)
