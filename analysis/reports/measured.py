"""What a report says of how it was measured: plain side, halves, sinks, any instruction."""

from collections.abc import Sequence
from typing import Protocol, TypedDict, runtime_checkable

import pandas as pd

from steerlens.prompts import PromptPair

from ..measures.entries import AS_FITTED, LEAST_SQUARES
from ..measures.faithfulness import EQUIVALENT, NEUTRAL, reworded
from ..measures.least_squares import ENOUGH_TO_SPLIT
from ..measures.plain_side import ANY_INSTRUCTION


class Against(TypedDict):
    """The keywords that every measure takes: the plain side, and which tokens are sinks."""

    baseline: str
    sinks: float


class Others(TypedDict):
    """The keywords of `faithfulness` for the same pairs under other instructions."""

    equivalents: Sequence[Sequence[PromptPair]]
    neutral: Sequence[Sequence[PromptPair]]


FAR = 3.0
"""Relative errors beyond this are drawn on a logarithmic axis."""

NUMBERS = (
    "relative_rmse_with_sinks",
    "n_sinks",
    "token_median",
    "denominator",
    "n_examples",
    "n_train",
    "n_tokens",
)
"""Columns of a faithfulness table that stand behind the errors in a report."""


@runtime_checkable
class Halved(Protocol):
    """What was measured, on how many pairs, and how many of the others set the strengths."""

    @property
    def n_train(self) -> int: ...
    @property
    def n_test(self) -> int: ...


def in_other_words(
    pairs: Sequence[PromptPair], equivalents: Sequence[str], neutral: Sequence[str]
) -> Others:
    """The pairs under each of the other instructions."""
    return {
        "equivalents": [reworded(pairs, text) for text in equivalents],
        "neutral": [reworded(pairs, text) for text in neutral],
    }


def with_train(table: pd.DataFrame, n_train: int) -> pd.DataFrame:
    """The table with the number of pairs that set the strengths and are not measured."""
    counted = table.assign(n_train=n_train)
    counted.attrs.update(table.attrs)
    return counted


def halves_said(measured: Halved) -> str:
    """How the pairs were divided."""
    every = measured.n_train + measured.n_test
    if measured.n_train:
        return (
            f"Of {every} pairs {measured.n_test} are measured. The other {measured.n_train}, those "
            "of every second question, set the least-squares strengths of the methods and are "
            "measured nowhere."
        )
    spare = (
        f": least-squares strengths are found on every second question, and that takes at least "
        f"{ENOUGH_TO_SPLIT} questions"
    )
    few = every < ENOUGH_TO_SPLIT
    return f"All {every} pairs are measured. Methods appear as fitted only{spare * few}."


def against_said(table: pd.DataFrame) -> str:
    """What the prompt is compared with."""
    baseline, plain = table.attrs["baseline"], table.attrs["plain_system"]
    if plain == "none":
        return "The prompt is compared with the same question without a system turn."
    kind = f" (baseline: {baseline})" if baseline in ("template", "neutral") else ""
    return f"The prompt is compared with the same question under the system text {plain}{kind}."


def lines_said(errors: pd.DataFrame) -> str:
    """What the lines of a curve of errors are, of those that there are."""
    strengths, methods = set(errors["strength"]), set(errors["method"])
    said = []
    if LEAST_SQUARES in strengths:
        said.append(
            "Each method is shown as fitted and at the least-squares strength found on other pairs."
        )
    elif AS_FITTED in strengths:
        said.append("Methods are shown as fitted.")
    if EQUIVALENT in methods:
        said.append("Equivalent prompts say the same in other words.")
    if NEUTRAL in methods:
        said.append("Neutral prompts are instructions that ask for nothing of the kind.")
    return " ".join(said)


def any_instruction_said(table: pd.DataFrame) -> str:
    """What the line of the neutral instruction shows, or why there is none."""
    said = str(table.attrs.get("any_instruction", ""))
    if ANY_INSTRUCTION not in set(table["method"]):
        return f"There is no line of any instruction: {said}."
    return (
        f"Any instruction is “{said}”, measured as if it were a method: how far it lies below 1 is "
        "what another system prompt does, whatever it asks for."
    )


def sinks_said(table: pd.DataFrame) -> str:
    """How many tokens are sinks, and where; `table` is of coefficients or of errors."""
    times = table.attrs.get("sinks")
    rule = f"norm above {times:g} times the median" if times is not None else "much longer"
    by_layer = _sinks_by_layer(table)
    found = by_layer.loc[by_layer["sinks"] > 0]
    if found.empty:
        return f"No token is a sink at any layer ({rule})."
    most = found.loc[found["sinks"].idxmax()]
    layers = found.index.tolist()
    where = f"layer {layers[0]}" if len(layers) == 1 else f"layers {layers[0]} to {layers[-1]}"
    return (
        f"Sinks ({rule} in either run) are left out of directions, scales and statistics: up to "
        f"{int(most['sinks'])} of {int(most['tokens'])} tokens, at {where}."
    )


def _sinks_by_layer(table: pd.DataFrame) -> pd.DataFrame:
    first = table.loc[table["method"] == table["method"].iloc[0]]
    first = first.loc[first["strength"] == first["strength"].iloc[0]]
    if "sink" in table:
        sinks = first.groupby("layer")["sink"]
        return pd.DataFrame({"sinks": sinks.sum(), "tokens": sinks.size()})
    rows = first.set_index("layer")
    return pd.DataFrame({"sinks": rows["n_sinks"], "tokens": rows["n_tokens"] + rows["n_sinks"]})
