"""What a comparison found, in three sentences with their numbers: the headline of its page."""

from collections.abc import Sequence

import pandas as pd

from steerlens.checks import FEW

from ..measures.entries import LEAST_SQUARES, RESERVED, as_fitted
from .compared import Comparison

HARDEST = 0.1
"""The share of tokens whose part of the push is told."""


def found(comparison: Comparison) -> list[str]:
    """How strong and uneven the prompt is; who predicts like it; who is near its activations.

    Methods are told of as fitted, and of their predictions at the least-squares strength too.
    """
    shift, errors = comparison.logit_shift, as_fitted(comparison.faithfulness)
    shift = shift.loc[~shift["method"].isin(RESERVED)]
    last = int(errors["layer"].max())
    said = [
        _of_prompt(comparison),
        _recovered(as_fitted(shift)) + _at_least_squares(shift),
        _faithful(errors.loc[errors["layer"] == last], last),
    ]
    few = f"All of this is from {comparison.n_test} examples: too few to rely on."
    return [*said, few] if comparison.n_test < FEW else said


def _of_prompt(comparison: Comparison) -> str:
    table = comparison.coefficients
    prompt = table.loc[(table["method"] == "prompt") & (table["layer"] == comparison.layer)]
    sizes = prompt.loc[~prompt["sink"], "norm"].sort_values(ascending=False)
    hardest = max(1, round(HARDEST * len(sizes)))
    part = sizes.iloc[:hardest].sum() / sizes.sum()
    row = comparison.logit_shift.set_index("method").loc["prompt"]
    n = comparison.n_test
    return (
        f"The prompt moves the predictions by {row['mean_kl']:.2g} nats a token (KL, {n} "
        f"example{'s' * (n != 1)}, {row['n_tokens']} tokens) and changes the likeliest next token "
        f"at {_percent(row['top_changed'])} of the places. It does not push all tokens alike: the "
        f"tenth that it pushes hardest gets {_percent(part)} of the push at layer "
        f"{comparison.layer}."
    )


def _recovered(methods: pd.DataFrame) -> str:
    """Whose predictions are nearer to the prompted ones than the unsteered ones are."""
    ranked = methods.sort_values("recovered", ascending=False)
    shares = [(row["method"], row["recovered"]) for _, row in ranked.iterrows()]
    some = [(name, share) for name, share in shares if share > 0]
    if not some:
        return (
            "As fitted, no method brings the predictions nearer to the prompted model's: "
            f"{_listed(shares)} of the way (0 % is no steering, below it is further away)."
        )
    best, share = some[0]
    others = f" Of the others: {_listed(shares[1:])}." if len(shares) > 1 else ""
    return (
        f"{best} goes {_percent(share)} of the way from the unsteered predictions to the prompted "
        f"ones.{others}"
    )


def _at_least_squares(methods: pd.DataFrame) -> str:
    """The same at the strengths of least squares, where those were looked for."""
    rows = methods.loc[methods["strength"] == LEAST_SQUARES]
    if rows.empty:
        return ""
    shares = [
        (f"{row['method']} (× {row['strength_value']:.2g})", row["recovered"])
        for _, row in rows.sort_values("recovered", ascending=False).iterrows()
    ]
    return f" At the strengths that fit the activations best on other pairs: {_listed(shares)}."


def _percent(share: float) -> str:
    return f"{share:.0%}".replace("%", " %").replace("-", "−")


def _faithful(errors: pd.DataFrame, layer: int) -> str:
    """Whose activations are nearer to the prompted ones than doing nothing, beyond the interval."""
    methods = errors.loc[~errors["method"].isin(RESERVED)].sort_values("relative_rmse")
    nearer = methods.loc[methods["high"] < 1]
    further = methods.loc[methods["low"] > 1]
    said = [f"At layer {layer}, the last, doing nothing is a relative error of 1."]
    if len(nearer):
        said.append(f"Nearer to the prompt than that: {_errors(nearer)}.")
    if len(further):
        said.append(f"Further away: {_errors(further)}.")
    between = methods.drop(index=[*nearer.index, *further.index])
    if len(between):
        said.append(f"Not told apart from it: {_errors(between)}.")
    same = errors.loc[errors["method"] == "equivalent prompts"]
    if len(same):
        said.append(f"The same instruction in other words is at {_errors(same, named=False)}.")
    return " ".join(said)


def _errors(rows: pd.DataFrame, named: bool = True) -> str:
    return ", ".join(
        f"{row['method'] + ' ' if named else ''}{row['relative_rmse']:.2f} "
        f"[{row['low']:.2f}, {row['high']:.2f}]"
        for _, row in rows.iterrows()
    )


def _listed(shares: Sequence[tuple[str, float]]) -> str:
    return ", ".join(f"{name} {_percent(share)}" for name, share in shares)
