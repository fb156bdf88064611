"""Claims whose numbers come from commands of their own: what these wrote, and what it says.

`act_add.py` writes act_add_MODEL.json, `cold_step.py` writes cold_step_MODEL.csv.gz, and
`token_kinds.py` writes token_kinds_MODEL.csv.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from analysis.bench.verdicts import AGAINST, SUPPORTED, UNDECIDED, word_of

Told = Mapping[str, Any]
ORDER = ("demo", "smollm2")
NEAR_ONE, POINTS = 0.02, 0.05
"""Claim 6: how far a ratio may be from 1, and an accuracy from what it was."""
LEAST_TOKENS = 3
"""Below these nothing is counted."""


@dataclass(frozen=True)
class Alone:
    """What is there, by model."""

    act_add: Mapping[str, Told]
    cold_step: Mapping[str, pd.DataFrame]
    kinds: Mapping[str, pd.DataFrame]

    @classmethod
    def read(cls, folder: Path) -> Alone:
        """Of a folder of cells; a model that was not measured is left out."""
        added = {name: folder / f"act_add_{name}.json" for name in ORDER}
        steps = {name: folder / f"cold_step_{name}.csv.gz" for name in ORDER}
        kinds = {name: folder / f"token_kinds_{name}.csv" for name in ORDER}
        return cls(
            {n: json.loads(p.read_text("utf-8")) for n, p in added.items() if p.exists()},
            {n: pd.read_csv(p) for n, p in steps.items() if p.exists()},
            {n: pd.read_csv(p) for n, p in kinds.items() if p.exists()},
        )


def of_act_add(found: Mapping[str, Told]) -> list[tuple[str, str, dict[str, str]]]:
    """Each part of claim 6: its name, what it says, and the verdict on each model."""
    return [
        (name, says, {model: decide(told) for model, told in found.items()})
        for name, says, decide in (
            ("6a", "Perplexity falls on reviews with the most wedding words.", _on_topic),
            ("6b", "That of encyclopedia text stays, to within 2 %.", _off_topic),
            ("6c", "As many cloze items are answered, to within 5 points.", _knowledge),
            ("6d", "Words of the topic are likelier (those that occur 20 times or more).", _words),
        )
    ]


def _on_topic(told: Told) -> str:
    bins = [one for one in told["bins"] if one["source"] == "reviews"]
    most = max(bins, key=lambda one: one["frequency"])
    return _said(most["ratio"], most["ratio_low"], most["ratio_high"], below=1.0)


def _off_topic(told: Told) -> str:
    (one,) = [one for one in told["bins"] if one["source"] == "encyclopedia"]
    ends = (1 - NEAR_ONE, 1 + NEAR_ONE)
    return _said(one["ratio"], one["ratio_low"], one["ratio_high"], within=ends) + _idle(told)


def _knowledge(told: Told) -> str:
    (one,) = [one for one in told["cloze"] if one["kind"] == "all" and one["method"] != "unsteered"]
    change = one["change"], one["change_low"], one["change_high"]
    said = _said(*change, within=(-POINTS, POINTS))
    return f"{said}, of {one['n_items']} items{_idle(told)}"


def _idle(told: Told) -> str:
    """Said where nothing happened on topic: that nothing happened off it is then little news."""
    return "" if _on_topic(told).startswith(SUPPORTED) else ", with no effect shown on topic"


def _words(told: Told) -> str:
    """Counted over tokens as a verdict is over attributes."""
    words = {word.lower() for word in told["words"]}
    found: Sequence[Told] = [o for o in told["shifts"] if o["token"].strip().lower() in words]
    if not found:
        return f"{UNDECIDED} (no word of the topic occurs 20 times)"
    n, over, under = len(found), *(
        sum(one[end] * sign > 0 for one in found) for end, sign in (("low", 1), ("high", -1))
    )  # fmt: skip
    shifts = ", ".join(f"{o['token'].strip()} {o['shift']:+.2f}" for o in found)
    word = word_of(over, under, n) if n >= LEAST_TOKENS else UNDECIDED
    tokens = f"{over} of {n} token{'s' * (n != 1)} for, {under} against"
    return f"{word} ({tokens}; nats: {shifts})"


def overheads(found: Mapping[str, Told]) -> str:
    """How much longer a forward pass takes with the addition, on each model."""
    told = [
        f"{model} {100 * one['premium']:.0f} % longer [{100 * one['low']:.0f}, "
        f"{100 * one['high']:.0f}]"
        for model, each in found.items()
        for one in each["overhead"]
    ]
    return f"A forward pass with the addition takes on {'; on '.join(told)}."


def _said(
    value: float,
    low: float,
    high: float,
    *,
    below: float | None = None,
    within: tuple[float, float] | None = None,
) -> str:
    """The word for an interval, and the interval."""
    if below is not None:
        holds, fails = high < below, low > below
    else:
        assert within is not None
        holds, fails = within[0] < low and high < within[1], high < within[0] or low > within[1]
    word = SUPPORTED if holds else AGAINST if fails else UNDECIDED
    return f"{word} ({value:.3f} [{low:.3f}, {high:.3f}])"
