"""Prompt steering and activation methods on the same tokens: all tables, and their report."""

import importlib.metadata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import pandas as pd

from analysis import figures
from analysis.coefficients import coefficients
from analysis.deltas import acts_on, sites_of
from analysis.effects import logit_shift
from analysis.faithfulness import faithfulness, reworded
from analysis.report import Report
from analysis.strengths import AS_FITTED, Entry, as_entries, with_least_squares
from analysis.token_view import TokenView, token_views
from steerlens import __version__
from steerlens.generation import generate
from steerlens.identity import identity_of
from steerlens.prompts import Conversation, Prompt, PromptPair, encode_pair, show
from steerlens.sites import Site
from steerlens.steering import AnySteering
from steerlens.types import HookedModel

ENOUGH_TO_SPLIT = 4


@runtime_checkable
class Measured(Protocol):
    """What was measured with which seed."""

    @property
    def n_train(self) -> int: ...
    @property
    def n_test(self) -> int: ...
    @property
    def seed(self) -> int: ...


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
    steerings: Mapping[str, AnySteering],
    *,
    train_pairs: Sequence[PromptPair] | None = None,
    equivalents: Sequence[str] = (),
    neutral: Sequence[str] = (),
    n_shown: int = 2,
    seed: int = 0,
    template: str | None = None,
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
    entries = as_entries(steerings)
    if train_pairs:
        entries = tuple(with_least_squares(model, steerings, train_pairs, template=template))
    layers = range(model.cfg.n_layers)
    layer = min(s.layer for x in steerings.values() for s in sites_of(x, model.cfg.n_layers))
    table = coefficients(model, pairs, layers, entries, template=template)
    return Comparison(
        coefficients=table,
        faithfulness=faithfulness(
            model,
            pairs,
            entries,
            equivalents=[reworded(pairs, text) for text in equivalents],
            neutral=[reworded(pairs, text) for text in neutral],
            template=template,
            seed=seed,
        ),
        logit_shift=logit_shift(model, pairs, entries, template),
        token_views=tuple(
            coloured_text(model, pair, number, table, steerings, layer, template)
            for number, pair in enumerate(pairs[:n_shown])
        ),
        layer=layer,
        n_train=len(train_pairs),
        n_test=len(pairs),
        seed=seed,
    )


def split_by_question(
    pairs: Sequence[PromptPair],
) -> tuple[Sequence[PromptPair], Sequence[PromptPair]]:
    """Training and test pairs: every second question, with all of its responses."""
    questions = list(dict.fromkeys(pair.plain for pair in pairs))
    if len(questions) < ENOUGH_TO_SPLIT:
        return (), pairs
    training = set(questions[1::2])
    train = [pair for pair in pairs if pair.plain in training]
    return train, [pair for pair in pairs if pair.plain not in training]


def coloured_text(
    model: HookedModel,
    pair: PromptPair,
    example: int,
    table: pd.DataFrame,
    steerings: Mapping[str, AnySteering],
    layer: int,
    template: str | None = None,
    unit: str = "the mean push of the prompt",
) -> TokenView:
    """The unprompted text of one example, coloured by each method's `along` at `layer`, as fitted.

    Read are the tokens that were measured; steered those whose activation a method changes. `unit`
    says what 1 is where the table was made with other directions than its own.
    """
    row, _ = encode_pair(model, pair, template)
    texts = show(model, row.ids)
    chosen = table.loc[(table["example"] == example) & (table["layer"] == layer)]
    drawn = {}
    for method in ("prompt", *steerings):
        mine = _as_fitted(chosen.loc[chosen["method"] == method])
        values = [float("nan")] * row.response + mine.sort_values("token_index")["along"].tolist()
        steered = (
            acts_on(model, row, steerings[method], _sites(steerings[method], model))
            if method in steerings
            else [False] * len(texts)
        )
        drawn[method] = pd.DataFrame(
            {
                "position": range(len(texts)),
                "token": texts,
                "value": values,
                "read": [place >= row.response for place in range(len(texts))],
                "steered": steered,
            }
        )
    return token_views(drawn, f"along (1 = {unit}), layer {layer}")


def _as_fitted(table: pd.DataFrame) -> pd.DataFrame:
    """The rows of the prompt, and of the methods as fitted."""
    return table.loc[table["strength"].isin(["", AS_FITTED])]


def _sites(steering: AnySteering, model: HookedModel) -> tuple[Site, ...]:
    return sites_of(steering, model.cfg.n_layers)


def side_by_side(
    model: HookedModel,
    questions: Sequence[str],
    instruction: str,
    entries: Sequence[Entry],
    *,
    n: int = 1,
    seed: int = 0,
    max_new_tokens: int = 60,
    temperature: float = 1.0,
    top_p: float = 1.0,
    template: str | None = None,
) -> pd.DataFrame:
    """Completions of every question unsteered, prompted, and under every entry, from one seed.

    Columns: prompt, method, strength_value, sample, text.
    """
    plain = [Conversation(question) for question in questions]
    asked = [Conversation(question, instruction) for question in questions]
    runs: list[tuple[str, float, Sequence[Prompt], AnySteering | None]] = [
        ("unsteered", float("nan"), plain, None),
        ("prompt", float("nan"), asked, None),
    ]
    runs += [(entry.method, entry.strength_value, plain, entry.steering) for entry in entries]
    rows = []
    for method, value, prompts, steering in runs:
        written = generate(
            model,
            prompts,
            steering,
            n=n,
            seed=seed,
            max_new_tokens=max_new_tokens,
            temperature=temperature,
            top_p=top_p,
            template=template,
        )
        rows += [
            {
                "prompt": questions[number],
                "method": method,
                "strength_value": value,
                "sample": sample,
                "text": text,
            }
            for number, sample, text in zip(
                written.prompt, written.sample, written.texts, strict=True
            )
        ]
    return pd.DataFrame(rows)


def made(model: HookedModel, comparison: Measured, command: str) -> dict[str, object]:
    """How a comparison or a study came about, for the report's last box."""
    identity = identity_of(model)
    versions = ("transformer-lens", "torch", "transformers", "plotly")
    return {
        "command": command,
        "model": identity.name or "(not loaded by steerlens)",
        "model fingerprint": identity.fingerprint,
        "model class": type(model).__name__,
        "weight processing": identity.processing,
        "seed": comparison.seed,
        "pairs": f"{comparison.n_test} measured, {comparison.n_train} for least-squares strengths",
        "versions": ", ".join(
            [f"steerlens {__version__}"]
            + [f"{name} {importlib.metadata.version(name)}" for name in versions]
        ),
    }


def report(
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
    shown = _as_fitted(table)
    for number, view in enumerate(comparison.token_views):
        figure = figures.coefficient_heatmap(shown, example=number, colour_quantile=0.98)
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
        figures.sorted_strengths(shown, layer),
        "A flat line pushes all tokens alike; a steep one pushes few tokens hard. Compare the "
        "prompt's line with the methods'. A method that adds one vector to every token is a "
        "staircase with a step for each example, because each example has its own unit: the mean "
        "push of the prompt on the others.",
    )


def _per_layer(page: Report, comparison: Comparison) -> Report:
    table = comparison.faithfulness
    curve = figures.relative_rmse_curve(table)
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
        "the largest change of a log-probability; the share of tokens whose likeliest successor "
        "changed.",
    )
    columns = ["method", "strength", "strength_value", "layer", "relative_rmse", "low", "high"]
    return page.heading("The numbers behind the curve").table(
        table.loc[:, [*columns, "token_median", "denominator", "n_examples", "n_tokens"]],
        "Relative RMSE with its 95 % bootstrap interval over questions, the median over tokens, "
        "and the root mean square norm of the prompt's own change.",
    )
