"""Prompt steering on one page: how uneven it is, whether that is readable, and who is faithful."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from steerlens.kinds import require_kinds
from steerlens.prompts import PromptPair
from steerlens.sinks import SINK
from steerlens.steering import Steering
from steerlens.types import HookedModel

from ..figures.assumptions import assumption_curves
from ..figures.faithfulness import relative_rmse_curve
from ..figures.strengths import sorted_strengths
from ..figures.tokens import TokenView
from ..measures.coefficients import coefficients
from ..measures.decodability import decodability
from ..measures.dispersion import dispersion
from ..measures.entries import Entry
from ..measures.faithfulness import NothingToMeasure, faithfulness
from ..measures.least_squares import entries_for, split_by_question
from ..measures.plain_side import BY_TEMPLATE
from ..measures.rank_share import rank_share
from .coloured_text import coloured_text
from .linked import SAYS, linked_views
from .measured import (
    FAR,
    NUMBERS,
    Against,
    Others,
    against_said,
    any_instruction_said,
    halves_said,
    in_other_words,
    lines_said,
    sinks_said,
    with_train,
)
from .page import Report
from .shown_layer import shown_layer

FOLDS = 5


@dataclass(frozen=True)
class FaithfulnessStudy:
    """Every table of the page. `layer` is shown where a picture has one layer.

    `layer_reason` says why it is that one, and `baseline` what the plain side of every pair is;
    `explorer` is the content of the linked views, where there are steerings (`reports.linked`).
    """

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
    layer_reason: str = ""
    baseline: str = BY_TEMPLATE
    explorer: Mapping[str, Any] | None = None


def faithfulness_study(
    model: HookedModel,
    pairs: Sequence[PromptPair],
    steerings: Mapping[str, Steering] | None = None,
    *,
    equivalents: Sequence[str] = (),
    neutral: Sequence[str] = (),
    seed: int = 0,
    baseline: str = BY_TEMPLATE,
    sinks: float = SINK,
) -> FaithfulnessStudy:
    """The three assumptions for the prompt, and how faithful each steering is to it.

    Without steerings, and without other wordings, only the prompt and any instruction are looked
    at. With steerings and at least four questions, least-squares strengths are found on every
    second question, which is then not measured. `baseline` is what the prompt is compared with:
    "template", "none", "neutral", or an instruction; tokens whose norm is above `sinks` times the
    median are left out of directions and statistics.
    """
    require_kinds(faithfulness_study, locals())
    steerings = steerings or {}
    train, pairs = split_by_question(pairs) if steerings else ((), pairs)
    folds, n_layers = _folds(pairs), model.cfg.n_layers
    against: Against = {"baseline": baseline, "sinks": sinks}
    entries = entries_for(model, steerings, train, **against)
    table = coefficients(model, pairs, range(n_layers), entries, **against)
    readouts = decodability(model, pairs, folds=folds, seed=seed, **against)
    shown = shown_layer(n_layers, readouts, _reached(model, steerings))
    others = in_other_words(pairs, equivalents, neutral)
    return FaithfulnessStudy(
        coefficients=table,
        dispersion=dispersion(table, seed=seed),
        rank_share=rank_share(model, pairs, folds=folds, seed=seed, **against),
        decodability=readouts,
        faithfulness=_errors_of(model, pairs, entries, others, len(train), seed, against),
        token_view=coloured_text(model, pairs[0], 0, table, steerings, shown.layer),
        layer=shown.layer,
        n_train=len(train),
        n_test=len(pairs),
        seed=seed,
        layer_reason=shown.reason,
        baseline=baseline,
        explorer=linked_views(model, pairs, steerings, shown.layer, seed, against, equivalents),
    )


def _reached(model: HookedModel, steerings: Mapping[str, Steering]) -> int:
    """The lowest layer that all steerings have reached; 0 without any."""
    return max(
        (min(s.layer for s in steering.on(model).sites) for steering in steerings.values()),
        default=0,
    )


def _errors_of(
    model: HookedModel,
    pairs: Sequence[PromptPair],
    entries: Sequence[Entry],
    others: Others,
    n_train: int,
    seed: int,
    against: Against,
) -> pd.DataFrame | None:
    """The errors of all entries and references; None where there are none at all."""
    try:
        errors = faithfulness(model, pairs, entries, **others, seed=seed, **against)
    except NothingToMeasure:
        return None
    return with_train(errors, n_train)


def _folds(pairs: Sequence[PromptPair]) -> int:
    """As many folds as there are questions, five at most; ValueError for a single question."""
    questions = len({pair.plain for pair in pairs})
    require_questions(questions)
    return min(FOLDS, questions)


def require_questions(questions: int) -> None:
    """Raise ValueError unless there are other questions to fit directions on."""
    if questions < 2:
        raise ValueError(
            "With one question there are no others to fit directions on. Give pairs of at least "
            "two questions; of four with steerings, every second of which sets their strength."
        )


def faithfulness_report(
    study: FaithfulnessStudy, made: Mapping[str, object], title: str, intro: str
) -> Report:
    """All tables and pictures as one page."""
    require_kinds(faithfulness_report, locals())
    page = Report(title=title, intro=intro, made=made)
    if study.explorer is not None:
        page = page.heading("Look around").explorer(study.explorer, SAYS)
    page = _tokens(page, study)
    page = _assumptions(page, study)
    return page if study.faithfulness is None else _errors(page, study.faithfulness)


def _tokens(page: Report, study: FaithfulnessStudy) -> Report:
    return (
        page.heading("What the prompt does to each token")
        .paragraph(halves_said(study) if _has_methods(study) else "All pairs are measured.")
        .paragraph(against_said(study.coefficients))
        .tokens(
            study.token_view,
            f"The first example, unprompted text, coloured by the push at layer {study.layer} "
            "along the mean push of the other examples (1 = that mean). Grey: written by the chat "
            f"template. {study.layer_reason}",
        )
        .figure(
            sorted_strengths(study.coefficients, study.layer),
            "A flat line pushes all tokens alike; a steep one pushes few tokens hard. "
            f"{sinks_said(study.coefficients)}",
        )
    )


def _has_methods(study: FaithfulnessStudy) -> bool:
    return set(study.coefficients["method"]) != {"prompt"}


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
            f"is such a read-out. {sinks_said(study.coefficients)}",
        )
        .table(
            of_prompt.drop(columns=["strength", "stream", "view"]),
            "Gini coefficient and percentile ratio of |Δ| over tokens that are no sinks, with 95 % "
            "intervals over examples, and with sinks.",
        )
        .table(
            _with_sinks(study),
            "The shares and R² without sinks and with them, at the layers that have some."
            if _some_sinks(study)
            else "The shares and R² of every layer; no token is a sink.",
        )
    )


def _some_sinks(study: FaithfulnessStudy) -> bool:
    return bool(study.rank_share["n_sinks"].any())


def _with_sinks(study: FaithfulnessStudy) -> pd.DataFrame:
    """What stands behind the curves, both with and without sinks."""
    shares = study.rank_share.rename(
        columns={"axes": "of", "share": "value", "share_with_sinks": "with_sinks"}
    )
    r2 = study.decodability.rename(columns={"r2": "value", "r2_with_sinks": "with_sinks"})
    r2 = r2.assign(of="R² of " + r2["strength"] + ", " + r2["readout"])
    columns = ["layer", "of", "value", "low", "high", "with_sinks", "n_sinks", "n_questions"]
    both = pd.concat([shares, r2])[[*columns, "n_tokens"]]
    return both.loc[both["n_sinks"] > 0] if _some_sinks(study) else both


def _errors(page: Report, errors: pd.DataFrame) -> Report:
    curve = relative_rmse_curve(errors, log=bool(errors["relative_rmse"].max() > FAR))
    columns = ["method", "strength", "strength_value", "layer", "relative_rmse", "low", "high"]
    return (
        page.heading("Who is faithful to the prompt?")
        .figure(
            curve,
            "How far each method leaves the model from where the prompt would have put it, on the "
            "same tokens. 1 is the error of doing nothing. "
            f"{lines_said(errors)} {any_instruction_said(errors)} {sinks_said(errors)}",
        )
        .table(
            errors.loc[:, [*columns, *NUMBERS]],
            "Relative RMSE with its 95 % bootstrap interval over questions, without sinks and with "
            "them, and how many examples are measured and how many set the strengths.",
        )
    )
