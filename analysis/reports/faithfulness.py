"""Prompt steering on one page: how uneven it is, whether that is readable, and who is faithful."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from steerlens.prompts import PromptPair
from steerlens.steering import Steering
from steerlens.types import HookedModel

from ..figures.assumptions import assumption_curves
from ..figures.faithfulness import relative_rmse_curve
from ..figures.strengths import sorted_strengths
from ..figures.tokens import TokenView
from ..measures.coefficients import coefficients
from ..measures.decodability import decodability
from ..measures.dispersion import dispersion
from ..measures.faithfulness import faithfulness, reworded
from ..measures.least_squares import entries_for, split_by_question
from ..measures.rank_share import rank_share
from .coloured_text import coloured_text
from .page import Report

FOLDS = 5


@dataclass(frozen=True)
class FaithfulnessStudy:
    """Every table of the page. `layer` is the middle one, shown where a picture has one layer."""

    coefficients: pd.DataFrame
    dispersion: pd.DataFrame
    rank_share: pd.DataFrame
    decodability: pd.DataFrame
    faithfulness: pd.DataFrame | None
    token_view: TokenView
    layer: int
    n_train: int
    n_test: int
    seed: int


def faithfulness_study(
    model: HookedModel,
    pairs: Sequence[PromptPair],
    steerings: Mapping[str, Steering] | None = None,
    *,
    equivalents: Sequence[str] = (),
    neutral: Sequence[str] = (),
    seed: int = 0,
) -> FaithfulnessStudy:
    """The three assumptions for the prompt, and how faithful each steering is to it.

    Without steerings, and without other wordings, only the prompt is looked at. Least-squares
    strengths are found on every second question, which is then not measured.
    """
    steerings = steerings or {}
    train, pairs = split_by_question(pairs) if steerings else ((), pairs)
    folds, layer = _folds(pairs), model.cfg.n_layers // 2
    entries = entries_for(model, steerings, train)
    table = coefficients(model, pairs, range(model.cfg.n_layers), entries)
    others = [[reworded(pairs, text) for text in wordings] for wordings in (equivalents, neutral)]
    errors = None
    if entries or equivalents or neutral:
        errors = faithfulness(
            model, pairs, entries, equivalents=others[0], neutral=others[1], seed=seed
        )
    return FaithfulnessStudy(
        coefficients=table,
        dispersion=dispersion(table, seed=seed),
        rank_share=rank_share(model, pairs, folds=folds, seed=seed),
        decodability=decodability(model, pairs, folds=folds, seed=seed),
        faithfulness=errors,
        token_view=coloured_text(model, pairs[0], 0, table, steerings, layer),
        layer=layer,
        n_train=len(train),
        n_test=len(pairs),
        seed=seed,
    )


def _folds(pairs: Sequence[PromptPair]) -> int:
    """As many folds as there are questions, five at most; ValueError for a single question."""
    questions = len({pair.plain for pair in pairs})
    if questions < 2:
        raise ValueError(
            "With one question there are no others to fit directions on. Give pairs of at least "
            "two questions; of four with steerings, every second of which sets their strength."
        )
    return min(FOLDS, questions)


def faithfulness_report(
    study: FaithfulnessStudy, made: Mapping[str, object], title: str, intro: str
) -> Report:
    """All tables and pictures as one page."""
    page = _tokens(Report(title=title, intro=intro, made=made), study)
    page = _assumptions(page, study)
    return page if study.faithfulness is None else _errors(page, study.faithfulness)


def _tokens(page: Report, study: FaithfulnessStudy) -> Report:
    return (
        page.heading("What the prompt does to each token")
        .tokens(
            study.token_view,
            f"The first example, unprompted text, coloured by the push at layer {study.layer} "
            "along the mean push of the other examples (1 = that mean).",
        )
        .figure(
            sorted_strengths(study.coefficients, study.layer),
            "A flat line pushes all tokens alike; a steep one pushes few tokens hard.",
        )
    )


def _assumptions(page: Report, study: FaithfulnessStudy) -> Report:
    of_prompt = study.dispersion.loc[study.dispersion["method"] == "prompt"]
    return (
        page.heading("Would one vector do the same?")
        .figure(
            assumption_curves(study.rank_share, study.dispersion, study.decodability),
            "Left: how much of the squared push lies along the mean push, or along the best few "
            "directions, of other questions. Middle: how many times harder the 95th percentile of "
            "tokens is pushed than the 5th. Right: how well a token's strength can be read off its "
            "own activation in the plain run, on questions that were not fitted on; a PSR's gate "
            "is such a read-out.",
        )
        .table(
            of_prompt.drop(columns=["strength", "stream", "view"]),
            "Gini coefficient and percentile ratio of |Δ| over tokens, with 95 % intervals over "
            "examples.",
        )
    )


def _errors(page: Report, errors: pd.DataFrame) -> Report:
    curve = relative_rmse_curve(errors)
    if errors["relative_rmse"].max() > 3:
        curve.update_yaxes(type="log", row=1)
    columns = ["method", "strength", "strength_value", "layer", "relative_rmse", "low", "high"]
    return (
        page.heading("Who is faithful to the prompt?")
        .figure(
            curve,
            "How far each method leaves the model from where the prompt would have put it, on the "
            "same tokens. 1 is the error of doing nothing. Equivalent prompts say the same in "
            "other words; neutral ones ask for nothing of the kind.",
        )
        .table(
            errors.loc[:, [*columns, "token_median", "denominator", "n_tokens"]],
            "Relative RMSE with its 95 % bootstrap interval over questions.",
        )
    )
