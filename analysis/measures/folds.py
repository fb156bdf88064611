"""Questions in folds: what is fitted on some is measured on others."""

from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd
import torch

from steerlens.prompts import PromptPair
from steerlens.scopes import Scope
from steerlens.sites import Layer
from steerlens.types import HookedModel

from .aligned import Aligned, align
from .intervals import PerToken, interval_of_ratio


def at_layers(
    model: HookedModel,
    pairs: Sequence[PromptPair],
    layers: Sequence[Layer] | None,
    span: Scope,
) -> Aligned:
    """The pairs, read at the outputs of these layers, by default of all."""
    sites = range(model.cfg.n_layers) if layers is None else layers
    return align(model, pairs, sites, span=span)


def folds_of(aligned: Aligned, folds: int, seed: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
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


def ratio_of_sums(
    above: PerToken, below: PerToken, aligned: Aligned, seed: int
) -> tuple[float, float, float]:
    """sum(above) / sum(below) over tokens, and its interval over questions."""
    sums = [aligned.by_question(torch.from_numpy(part)) for part in (above, below)]
    with np.errstate(divide="ignore", invalid="ignore"):
        return (
            float(sums[0].sum() / sums[1].sum()),
            *interval_of_ratio(sums[0], sums[1], seed=seed),
        )


def with_interval(name: str, value: float, low: float, high: float) -> dict[str, float]:
    """The columns of a value under a name, with its interval."""
    return {name: value, "low": low, "high": high}


def with_counts(rows: list[dict[str, object]], aligned: Aligned) -> pd.DataFrame:
    """The table of these rows, with the numbers of examples and tokens behind it."""
    counts = {"n_examples": len(aligned.plain_rows), "n_tokens": len(aligned.example)}
    return pd.DataFrame(rows).assign(**counts)
