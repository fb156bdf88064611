"""Questions in folds: what is fitted on some is measured on others."""

from collections.abc import Iterator, Sequence
from typing import TypeAlias

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool

from steerlens.checks import require_seed, warn_if_few
from steerlens.prompts import PromptPair
from steerlens.scopes import Scope
from steerlens.sites import Site, Sites, as_sites
from steerlens.types import HookedModel

from .aligned import Aligned, align
from .intervals import PerToken, interval_of_ratio
from .parts import layer_groups
from .plain_side import BY_TEMPLATE

Kept: TypeAlias = Bool[np.ndarray, " token"]


def at_layers(
    model: HookedModel,
    pairs: Sequence[PromptPair],
    layers: Sites | None,
    span: Scope,
    folds: int,
    baseline: str = BY_TEMPLATE,
) -> Iterator[Aligned]:
    """The pairs, read at the outputs of some of these layers (by default all) after the others.

    All tokens of a layer are needed at once, so the layers come in groups that fit into the limit
    (`parts.holding`), and at least one at a time.
    """
    require_folds(folds, len({pair.plain for pair in pairs}))
    sites = as_sites(range(model.cfg.n_layers) if layers is None else layers, model)
    for some in layer_groups(model, pairs, sites, span=span, baseline=baseline):
        yield align(model, pairs, some, span=span, baseline=baseline)


def require_folds(folds: int, questions: int) -> None:
    """Raise ValueError unless every fold has a question."""
    if folds < 2 or questions < folds:
        raise ValueError(
            f"{folds} folds of {questions} questions: what is fitted on some is measured on "
            "others, so at least two folds and as many questions are needed."
        )


def folds_of(
    aligned: Aligned, folds: int, seed: int, keep: Kept | None = None
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """(training, test) tokens: every question is tested once, with all of its responses.

    `keep` are the tokens that count, by default all; ValueError where none is left to fit on.
    """
    n = max(aligned.questions) + 1
    require_folds(folds, n)
    keep = np.ones(len(aligned.question), dtype=bool) if keep is None else keep
    require_seed(seed)
    fold_of = np.random.default_rng(seed).permutation(np.arange(n) % folds)
    fold = fold_of[aligned.question.numpy()]
    for number in range(folds):
        train, test = (
            np.flatnonzero(keep & (fold != number)),
            np.flatnonzero(keep & (fold == number)),
        )
        if len(train) == 0:
            raise ValueError(
                "Every token of the questions that would be fitted on is a sink. Give more "
                "questions or longer responses; sinks=inf counts sinks like other tokens."
            )
        yield train, test


def kept_at(aligned: Aligned, site: Site, sinks: float) -> Kept:
    """The tokens that are no sinks at a site."""
    return ~aligned.sinks(site, sinks).numpy()


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


def with_counts(rows: list[dict[str, object]], aligned: Aligned, of: str) -> pd.DataFrame:
    """The table of these rows, with the numbers of examples, questions and tokens behind each.

    Over few questions there is a warning, in which the table is called `of`.
    """
    warn_if_few(max(aligned.questions) + 1, of)
    table = pd.DataFrame(rows)
    return table.assign(
        n_examples=len(aligned.plain_rows),
        n_questions=max(aligned.questions) + 1,
        n_tokens=len(aligned.example) - table["n_sinks"],
    )
