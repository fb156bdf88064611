"""What the results of a bench say, in sentences: no winner is named inside the intervals."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from steerlens.checks import FEW

from .kinds import PROMPT, UNSTEERED
from .writing import NULL

HIGH_NULL = 0.5
"""A null above this share of the prompt's score says that the judge of the attribute is fooled."""

Scores = Mapping[str, Mapping[str, np.ndarray]]


def sentences(standings: pd.DataFrame, scores: Scores, rule: str) -> list[str]:
    """The best and what is not told apart from it, the two ends, and the nulls."""
    if standings.empty or standings["mean"].isna().all():
        return ["No method has been tested on all attributes yet."]
    ranked = standings.loc[standings["mean"].notna()]
    methods = ranked.loc[~ranked["method"].map(is_reference)]
    told = []
    if len(methods):
        best = methods.iloc[0]
        told.append(
            f"Of the methods, {best['method']} has the highest mean ({_interval(best)}) where the "
            f"strength is chosen by {rule}; {_tied(methods, str(best['method']), scores)}."
            if len(methods) > 1
            else f"{best['method']}, the only method with a mean, has {_interval(best)} where the "
            f"strength is chosen by {rule}."
        )
    for name, called in ((PROMPT, "The prompt"), (UNSTEERED, "The model itself")):
        row = ranked.loc[ranked["method"] == name]
        if len(row):
            told.append(f"{called} has {_interval(row.iloc[0])}.")
    return [*told, *_as_unsteered(methods, scores), *_lacking(scores), *_small(scores)]


def _as_unsteered(methods: pd.DataFrame, scores: Scores) -> list[str]:
    """The methods whose paired difference to no steering holds 0, or has no interval."""
    from .standings import pairwise

    if UNSTEERED not in scores:
        return []
    names = [name for name in methods["method"] if name in scores]
    against = pairwise({name: scores[name] for name in (*names, UNSTEERED)})
    rows = against.loc[against["other"] == UNSTEERED]
    same = set(rows.loc[~((rows["low"] > 0) | (rows["high"] < 0)), "method"])
    listed = ", ".join(name for name in names if name in same)
    return [f"Not told apart from the model itself, one by one: {listed}."] if same else []


def _lacking(scores: Scores) -> list[str]:
    """The methods that have no score on an attribute, or not with every seed."""
    from .standings import seeds_of

    told = []
    asked = max(rows.shape[0] for of in scores.values() for rows in of.values())
    every = list(dict.fromkeys(name for of in scores.values() for name in of))
    for method, of in scores.items():
        seeds = {name: seeds_of(of[name]) if name in of else 0 for name in every}
        few = [f"{name} ({n})" for name, n in seeds.items() if n < asked]
        if few and not is_reference(method):
            told.append(f"{method} on {', '.join(few)}")
    if not told:
        return []
    return [
        f"Not with all of the {asked} seeds, since a fit came to nothing or is not done: "
        f"{'; '.join(told)}. Where there are some, means and intervals are of these alone."
    ]


def _small(scores: Scores) -> list[str]:
    """What to hold against intervals over one seed, or over few questions."""
    shapes = [rows.shape for of in scores.values() for rows in of.values()]
    seeds, questions = (min(shape[i] for shape in shapes) for i in (0, 1))
    told = ["One seed: the intervals say nothing of other seeds."] * (seeds == 1)
    if questions < FEW:
        told.append(
            f"{questions} test question{'s' * (questions != 1)}: over fewer than {FEW} an interval "
            "says little, and over one there is none."
        )
    return told


def _tied(methods: pd.DataFrame, best: str, scores: Scores) -> str:
    """The methods whose paired difference to the best holds 0, or has no interval.

    One by one, and where all these comparisons are to hold together, as ranks do.
    """
    from .standings import attributes, gaps, pairwise

    names = methods["method"].tolist()
    against = pairwise({name: scores[name] for name in names})
    rows = against.loc[against["method"] == best]
    one_by_one = set(rows.loc[~(rows["low"] > 0), "other"])
    wider = gaps(scores, best, names, attributes(scores))
    together = {name for name, (low, _) in wider.items() if not low > 0} - one_by_one
    told = "every other method tested on all attributes is lower, by intervals that exclude 0"
    if one_by_one:
        told = f"not told apart from it: {', '.join(n for n in names if n in one_by_one)}"
    if together:
        listed = ", ".join(n for n in names if n in together)
        told += f" (one by one; to hold together, the comparisons also leave open {listed})"
    return told


@dataclass(frozen=True)
class Nulls:
    """The mean scores of an attribute: the prompt's, the model's own, and those of null texts."""

    prompt: float
    plain: float
    nulls: Mapping[str, float]

    @property
    def high(self) -> dict[str, float]:
        """The null texts that get more than `HIGH_NULL` of what the prompt adds."""
        least = self.plain + HIGH_NULL * (self.prompt - self.plain)
        return {name: score for name, score in self.nulls.items() if score > least}


def nulls_by_attribute(scores: Scores) -> dict[str, Nulls]:
    """For each attribute; none where there are no null texts, as of multiple choice."""
    of_nulls = {n.removeprefix(NULL): of for n, of in scores.items() if n.startswith(NULL)}
    if not of_nulls:
        return {}
    return {
        attribute: Nulls(
            float(np.nanmean(rows)),
            float(np.nanmean(scores.get(UNSTEERED, {}).get(attribute, np.zeros(1)))),
            {n: float(np.nanmean(of[attribute])) for n, of in of_nulls.items() if attribute in of},
        )
        for attribute, rows in scores.get(PROMPT, {}).items()
    }


def null_sentences(scores: Scores) -> list[str]:
    """The attributes on which texts that show nothing score high."""
    found = nulls_by_attribute(scores)
    if not found:
        return []
    fooled, idle = [], []
    for attribute, one in found.items():
        if not one.prompt > one.plain:
            idle.append(f"{attribute} (prompt {one.prompt:.0f}, unsteered {one.plain:.0f})")
        elif one.high:
            worst = max(one.high, key=one.high.__getitem__)
            fooled.append(
                f"{attribute} ({worst} {one.high[worst]:.0f}, unsteered {one.plain:.0f}, prompt "
                f"{one.prompt:.0f})"
            )
    told = []
    if idle:
        told.append(
            f"The prompt itself adds nothing on {', '.join(idle)}: the model does not follow the "
            "instruction there, or the judge does not see it, and nothing can be compared with it."
        )
    if fooled:
        told.append(
            f"Texts that show nothing score high on {', '.join(fooled)}: there a high score tells "
            "little, and no claim should rest on it."
        )
    if told:
        return told
    return ["No null text gets more than half of what the prompt adds, on any attribute."]


def is_reference(method: str) -> bool:
    """Whether a row is no method: a prompt, no steering, or a null text."""
    return method in (PROMPT, UNSTEERED, "equivalent", "neutral") or method.startswith(NULL)


def _interval(row: pd.Series) -> str:
    if np.isnan(row["low"]):
        return f"{_short(row['mean'])} (no interval)"
    return f"{_short(row['mean'])} [{_short(row['low'])}, {_short(row['high'])}]"


def _short(score: float) -> str:
    """A score from 0 to 100; a small one with a digit more."""
    return f"{score:.0f}" if abs(score) >= 9.5 or score == 0 else f"{score:.1f}"
