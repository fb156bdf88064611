"""Prompt steering and activation methods on the same tokens: all tables, and their report."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from steerlens.prompts import PromptPair
from steerlens.steering import Steering
from steerlens.types import HookedModel

from ..figures.faithfulness import relative_rmse_curve
from ..figures.heatmaps import coefficient_heatmap
from ..figures.strengths import sorted_strengths
from ..figures.tokens import TokenView
from ..measures.coefficients import coefficients
from ..measures.effects import logit_shift
from ..measures.entries import as_fitted
from ..measures.faithfulness import faithfulness, reworded
from ..measures.least_squares import entries_for, split_by_question
from .coloured_text import coloured_text
from .page import Report


@dataclass(frozen=True)
class Comparison:
    """Every table of one comparison. `layer` is shown where a picture shows a single layer."""

    coefficients: pd.DataFrame
    faithfulness: pd.DataFrame
    logit_shift: pd.DataFrame
    token_views: tuple[TokenView, ...]
    layer: int
    n_train: int
    n_test: int
    seed: int


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
) -> Comparison:
    """Coefficients, faithfulness and logit shifts of the prompt and of every steering.

    Least-squares strengths are found on `train_pairs`, by default those of every second question,
    which are then not measured; with fewer than four questions there is nothing to spare and
    methods appear as fitted only. `equivalents` are other wordings of the instruction, `neutral`
    instructions that ask for nothing of the kind.
    """
    if not steerings:
        raise ValueError("No steering was given. Pass at least one: {'CAA': steering}.")
    if train_pairs is None:
        train_pairs, pairs = split_by_question(pairs)
    entries = entries_for(model, steerings, train_pairs)
    layer = min(site.layer for steering in steerings.values() for site in steering.on(model).sites)
    table = coefficients(model, pairs, range(model.cfg.n_layers), entries)
    views = [
        coloured_text(model, pair, number, table, steerings, layer)
        for number, pair in enumerate(pairs[:n_shown])
    ]
    errors = faithfulness(
        model,
        pairs,
        entries,
        equivalents=[reworded(pairs, text) for text in equivalents],
        neutral=[reworded(pairs, text) for text in neutral],
        seed=seed,
    )
    return Comparison(
        coefficients=table,
        faithfulness=errors,
        logit_shift=logit_shift(model, pairs, entries),
        token_views=tuple(views),
        layer=layer,
        n_train=len(train_pairs),
        n_test=len(pairs),
        seed=seed,
    )


def comparison_report(
    comparison: Comparison,
    made_by: Mapping[str, object],
    *,
    title: str,
    intro: str,
    generations: pd.DataFrame | None = None,
) -> Report:
    """All tables and pictures of a comparison as one page."""
    page = Report(title=title, intro=intro, made=made_by)
    if generations is not None:
        page = page.heading("What the model writes").generations(
            generations,
            "The same question and the same random numbers under each method. The prompt column "
            "saw the instruction; the methods saw the question alone and were steered inside.",
        )
    page = _per_token(page, comparison)
    return _per_layer(page, comparison)


def _per_token(page: Report, comparison: Comparison) -> Report:
    table, layer = comparison.coefficients, comparison.layer
    page = page.heading("What it does to each token").paragraph(
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
            "pushes, blue ones against it. Dotted: measured. Underlined: steered by the method.",
        ).figure(
            figure,
            "Rows are the tokens of the response, columns are layers. A method that steers one "
            "layer is blank below it.",
        )
    return page.figure(
        sorted_strengths(shown, layer),
        "A flat line pushes all tokens alike; a steep one pushes few tokens hard. Compare the "
        "prompt's line with the methods'. A method that adds one vector to every token is a "
        "staircase with a step for each example, because each example has its own unit: the mean "
        "push of the prompt on the others.",
    )


def _per_layer(page: Report, comparison: Comparison) -> Report:
    table = comparison.faithfulness
    curve = relative_rmse_curve(table)
    if table["relative_rmse"].max() > 3:
        curve.update_yaxes(type="log", row=1)
    page = page.heading("Is it faithful to the prompt?").figure(
        curve,
        "How far each method leaves the model from where the prompt would have put it, on the same "
        "tokens. 1 is the error of doing nothing; below 1 is closer to the prompt than nothing. "
        "Each method is shown as fitted and at the least-squares strength found on other pairs. "
        "Equivalent prompts say the same in other words; neutral ones are instructions that ask "
        "for nothing of the kind, so what lies between them and 1 is what any instruction does.",
    )
    shift = comparison.logit_shift
    still = shift.loc[~shift["moved"], "method"].tolist()
    page = page.heading("Did the predictions move?").table(
        shift,
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
        table.loc[:, [*columns, "token_median", "denominator", "n_examples", "n_tokens"]],
        "Relative RMSE with its 95 % bootstrap interval over questions, the median over tokens, "
        "and the root mean square norm of the prompt's own change.",
    )
