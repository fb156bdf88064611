"""Scores of completions, from 0 to 100: the attribute, coherence, and words that no model chose.

The demonstration model has judges of its own. Every other model judges itself by likelihood, on a
scale from training questions; what a claim rests on has the second judge beside it.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from itertools import pairwise
from typing import Any

import numpy as np

from steerlens.conversations import Conversation
from steerlens.sampling import Sampling

from ..judges import Coherence, Judge, Likelihood, LikelihoodCoherence, judge_of, likelihood
from ..judges.likelihood import MadeOf, Sides
from .cells import Cell
from .maker import Maker
from .tasks import Task

SCALED_ON = 12
"""Training questions at most that a likelihood judge has its scale from."""


def judge(maker: Maker, cell: Cell) -> dict[str, Any]:
    """Attribute, coherence and words of every completion, as [question][sample]; None: no score."""
    written, by = Cell.of_json(cell["of"]), maker.tasks[cell["task"]]
    if written.kind == "odds":
        return of_odds(maker.result(written))
    attribute, coherence = judges_of(maker, by, cell)  # without a judge nothing need be written
    texts = maker.result(written)["texts"]
    asked = maker.tasks[written["task"]].questions[written["split"]]
    flat = [(text, Conversation(q)) for q, row in zip(asked, texts, strict=True) for text in row]
    told = {
        "attribute": _scores(attribute, flat),
        "coherence": _scores(coherence, flat),
        "words": None if by.words is None else [100.0 * found(by.words, text) for text, _ in flat],
    }
    sizes = np.cumsum([0, *map(len, texts)])
    return {
        key: None if some is None else [some[a:b] for a, b in pairwise(sizes)]
        for key, some in told.items()
    }


def of_odds(told: Mapping[str, Any]) -> dict[str, Any]:
    """Scores of multiple choice: 100 times the share of the options that match, and their mass.

    The share is the logistic function of the log odds, which are kept as they are besides.
    """
    return {
        "attribute": [[_percent(one) for one in row] for row in told["log_odds"]],
        "coherence": [[100.0 * one for one in row] for row in told["mass"]],
        "words": None,
        "log_odds": told["log_odds"],
    }


def _percent(log_odds: float) -> float:
    """100 / (1 + exp(-log odds)), without overflow."""
    return round(50.0 * (1.0 + float(np.tanh(log_odds / 2))), 4)


def found(pattern: str, text: str) -> bool:
    """Whether a text has one of the words."""
    return re.search(pattern, text, re.IGNORECASE) is not None


def _scores(by: Judge, flat: Sequence[tuple[str, Conversation]]) -> list[float | None]:
    scores = by([text for text, _ in flat], [asked for _, asked in flat])
    return [None if np.isnan(one) else round(float(one), 4) for one in scores]


def judges_of(maker: Maker, task: Task, cell: Cell) -> tuple[Judge, Judge]:
    """The judge of the attribute and that of coherence."""
    if task.judge == "demo":
        return judge_of(task.name), Coherence()
    told = maker.result(Cell.of_json(cell["scale"]))
    neutral = task.neutral[0] if task.neutral else None
    sides = Sides(maker.model, task.instruction, neutral)
    losses, repetitions = (tuple(told[key]) for key in ("losses", "repetitions"))
    made_of = MadeOf(told["longest"], told["latin"]) if "longest" in told else None
    coherence = LikelihoodCoherence(sides, losses, repetitions, made_of=made_of)
    scale = told["plain"], told["prompted"]
    return Likelihood(sides, *scale, coherence, task.name, made_of=made_of), coherence


def scale(maker: Maker, cell: Cell) -> dict[str, Any]:
    """The likelihood judge's scale, from training questions alone."""
    task = maker.tasks[cell["task"]]
    made = likelihood(
        maker.model,
        task.instruction,
        task.questions["train"][:SCALED_ON],
        neutral=task.neutral[0] if task.neutral else None,
        sampling=Sampling(max_new_tokens=cell["max_new_tokens"], seed=1000),
        name=task.name,
    )
    return {
        "plain": made.plain,
        "prompted": made.prompted,
        "losses": list(made.coherence.losses),
        "repetitions": list(made.coherence.repetitions),
        **({} if made.made_of is None else asdict(made.made_of)),
    }
