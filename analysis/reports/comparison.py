"""Prompt steering and activation methods on the same tokens: all tables, and their report."""

from collections.abc import Mapping, Sequence

import pandas as pd

from steerlens.kinds import require_kinds
from steerlens.prompts import PromptPair
from steerlens.sinks import SINK
from steerlens.steering import Steering
from steerlens.types import HookedModel

from ..figures.faithfulness import relative_rmse_curve
from ..figures.heatmaps import coefficient_heatmap
from ..figures.strengths import sorted_strengths
from ..figures.tokens import TokenView
from ..measures.coefficients import coefficients, require_others
from ..measures.decodability import decodability
from ..measures.effects import logit_shift
from ..measures.entries import as_fitted
from ..measures.faithfulness import faithfulness
from ..measures.least_squares import entries_for, split_by_question
from ..measures.plain_side import BY_TEMPLATE
from .coloured_text import coloured_text
from .compared import Comparison
from .found import found
from .linked import SAYS, linked_views
from .measured import (
    FAR,
    NUMBERS,
    Against,
    against_said,
    any_instruction_said,
    halves_said,
    in_other_words,
    lines_said,
    sinks_said,
    with_train,
)
from .page import Report
from .shown_layer import ENOUGH_QUESTIONS, ShownLayer, shown_layer


def compare(
    model: HookedModel,
    pairs: Sequence[PromptPair],
    steerings: Mapping[str, Steering],
    *,
    train_pairs: Sequence[PromptPair] | None = None,
    equivalents: Sequence[str] = (),
    neutral: Sequence[str] = (),
    n_shown: int = 2,
    seed: int = 0,
    baseline: str = BY_TEMPLATE,
    sinks: float = SINK,
) -> Comparison:
    """Coefficients, faithfulness and logit shifts of the prompt and of every steering.

    Least-squares strengths are found on `train_pairs`, by default those of every second question,
    which are then not measured; with fewer than four questions there is nothing to spare and
    methods appear as fitted only. `equivalents` are other wordings of the instruction, `neutral`
    ones ask for nothing of the kind. `baseline` is what the prompt is compared with: "template",
    "none", "neutral", or an instruction; tokens longer than `sinks` times the median are left out
    of statistics. One layer is shown where there is room for one (`shown_layer`).
    """
    require_kinds(compare, locals())
    if not steerings:
        raise ValueError("No steering was given. Pass at least one: {'CAA': steering}.")
    if train_pairs is None:
        train_pairs, pairs = split_by_question(pairs)
    require_others(len(pairs))
    against = Against(baseline=baseline, sinks=sinks)
    entries = entries_for(model, steerings, train_pairs, **against)
    shown = _shown(model, pairs, steerings, seed, against)
    table = coefficients(model, pairs, range(model.cfg.n_layers), entries, **against)
    others = in_other_words(pairs, equivalents, neutral)
    errors = faithfulness(model, pairs, entries, seed=seed, **others, **against)
    shift = logit_shift(model, pairs, entries, baseline=baseline)
    chosen = (model, pairs, steerings, shown.layer, seed, against, equivalents)
    return Comparison(
        coefficients=table,
        faithfulness=with_train(errors, len(train_pairs)),
        logit_shift=shift,
        token_views=_views(model, pairs[:n_shown], table, steerings, shown.layer),
        layer=shown.layer,
        n_train=len(train_pairs),
        n_test=len(pairs),
        seed=seed,
        layer_reason=shown.reason,
        baseline=baseline,
        explorer=linked_views(*chosen, _best(shift)),
    )


def _views(
    model: HookedModel,
    pairs: Sequence[PromptPair],
    table: pd.DataFrame,
    steerings: Mapping[str, Steering],
    layer: int,
) -> tuple[TokenView, ...]:
    """The coloured text of each of the first examples."""
    return tuple(
        coloured_text(model, pair, number, table, steerings, layer)
        for number, pair in enumerate(pairs)
    )


def _best(shift: pd.DataFrame) -> str:
    """The method that recovers most of the prompt's effect on the predictions."""
    methods = as_fitted(shift.loc[shift["method"] != "prompt"])
    return str(methods.sort_values("recovered", na_position="first")["method"].iloc[-1])


def _shown(
    model: HookedModel,
    pairs: Sequence[PromptPair],
    steerings: Mapping[str, Steering],
    seed: int,
    against: Against,
) -> ShownLayer:
    """The layer of the pictures that show one, from the lowest that all methods have reached up."""
    lowest = max(min(s.layer for s in steering.on(model).sites) for steering in steerings.values())
    layers, questions = range(lowest, model.cfg.n_layers), len({pair.plain for pair in pairs})
    if questions < ENOUGH_QUESTIONS:
        return shown_layer(model.cfg.n_layers, None, lowest)
    readouts = decodability(
        model, pairs, layers, folds=min(5, questions), seed=seed, readouts=("linear",), **against
    )
    return shown_layer(model.cfg.n_layers, readouts, lowest)


def comparison_report(
    comparison: Comparison,
    made_by: Mapping[str, object],
    *,
    title: str,
    intro: str,
    generations: pd.DataFrame | None = None,
) -> Report:
    """All tables and pictures of a comparison as one page."""
    require_kinds(comparison_report, locals())
    page = Report(title=title, intro=intro, made=made_by).found(found(comparison))
    if generations is not None:
        page = page.heading("What the model writes").generations(
            generations,
            "The same question and the same random numbers under each method. The prompt column "
            "saw the instruction; the methods saw the question alone and were steered inside.",
        )
    if comparison.explorer is not None:
        page = page.heading("Look around").explorer(comparison.explorer, SAYS)
    page = _per_token(page, comparison)
    return _per_layer(page, comparison)


def _per_token(page: Report, comparison: Comparison) -> Report:
    table, layer = comparison.coefficients, comparison.layer
    page = page.heading("What it does to each token").paragraph(halves_said(comparison))
    page = page.paragraph(against_said(table)).paragraph(
        "Prompt steering is an activation intervention: run the same response with and without the "
        "instruction and subtract. Each number says how far that moved one token at one layer, in "
        "units of the mean push of the prompt there (1 = the mean push), measured on the same "
        "response tokens for the prompt and for every method. The direction of that push is from "
        "the other examples, never from the one that is shown."
    )
    shown = as_fitted(table)
    for number, view in enumerate(comparison.token_views):
        figure = coefficient_heatmap(shown, example=number, colour_quantile=0.98)
        page = page.tokens(
            view,
            f"Example {number}, unprompted text. Red tokens are pushed the way the prompt "
            "pushes, blue ones against it; tokens without colour are not measured. Underlined: "
            f"steered by the method. Grey: written by the chat template. {comparison.layer_reason}",
        ).figure(
            figure,
            "Rows are the tokens of the response, columns are layers. A method that steers one "
            f"layer is blank below it. {sinks_said(table)}",
        )
    return page.figure(
        sorted_strengths(shown, layer),
        "A flat line pushes all tokens alike; a steep one pushes few tokens hard. Compare the "
        "prompt's line with the methods'. A method that adds one vector to every token is a "
        "staircase with a step for each example, because each example has its own unit: the mean "
        "push of the prompt on the others.",
    )


def _without_what_all_share(shift: pd.DataFrame) -> pd.DataFrame:
    """The table without the columns of strengths where all methods are as fitted."""
    labels = ["strength", "strength_value"]
    return shift.drop(columns=labels) if len(as_fitted(shift)) == len(shift) else shift


def _per_layer(page: Report, comparison: Comparison) -> Report:
    table = comparison.faithfulness
    curve = relative_rmse_curve(table, log=bool(table["relative_rmse"].max() > FAR))
    page = page.heading("Is it faithful to the prompt?").figure(
        curve,
        "How far each method leaves the model from where the prompt would have put it, on the same "
        "tokens. 1 is the error of doing nothing; below 1 is closer to the prompt than nothing. "
        f"{lines_said(table)} {any_instruction_said(table)} {sinks_said(table)}",
    )
    shift = comparison.logit_shift
    still = shift.loc[~shift["moved"], "method"].tolist()
    page = page.heading("Did the predictions move?").table(
        _without_what_all_share(shift.drop(columns="moved")),
        f"These moved no logit: {', '.join(still)}. Check their scope and layer."
        if still
        else "Mean KL divergence from the unsteered predictions of the response tokens, in nats; "
        "the share of the prompt's effect that is recovered (1 less KL from the prompted "
        "predictions over that of the unsteered ones, so that 0 is no steering); the largest "
        "change of a log-probability; the share of tokens whose likeliest successor "
        "changed.",
    )
    columns = ["method", "strength", "strength_value", "layer", "relative_rmse", "low", "high"]
    return page.heading("The numbers behind the curve").table(
        table.loc[:, [*columns, *NUMBERS]],
        "Relative RMSE with its 95 % bootstrap interval over questions, without sinks and with "
        "them, the median over tokens, the root mean square norm of the prompt's own change, and "
        "how many examples are measured and how many set the least-squares strengths.",
    )
