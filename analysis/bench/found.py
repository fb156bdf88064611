"""What the results of a bench say, in sentences: no winner is named inside the intervals."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from steerlens.checks import FEW

from .kinds import PROMPT, UNSTEERED
from .rules import BEFORE, BEYOND
from .standings import Pairs, pairs_of, seeds_of
from .writing import NULL

TOGETHER = "where all these comparisons must hold together"
LOWER = "every other method tested on all attributes is lower, by intervals that exclude 0"
HIGH_NULL = 0.5
"""A null above this share of the prompt's score says that the judge of the attribute is fooled."""

Scores = Mapping[str, Mapping[str, np.ndarray]]


def sentences(
    standings: pd.DataFrame, scores: Scores, rule: str, pairs: Pairs | None = None
) -> list[str]:
    """The best and what is not told apart from it, the two ends, and the nulls.

    `pairs` are those of the same scores, where they are there already.
    """
    pairs = pairs_of(scores, pairs)
    if standings.empty or standings["mean"].isna().all():
        return ["No method has been tested on all attributes yet."]
    ranked = standings.loc[standings["mean"].notna()]
    methods = ranked.loc[~ranked["method"].map(is_reference)]
    told = []
    if len(methods):
        best = methods.iloc[0]
        told.append(
            f"Of the methods, {best['method']} has the highest mean ({_interval(best)}) where the "
            f"strength is chosen by {rule}; {_tied(methods, str(best['method']), pairs)}."
            if len(methods) > 1
            else f"{best['method']}, the only method with a mean, has {_interval(best)} where the "
            f"strength is chosen by {rule}."
        )
    for name, called in ((PROMPT, "The prompt"), (UNSTEERED, "The model itself")):
        row = ranked.loc[ranked["method"] == name]
        if len(row):
            told.append(f"{called} has {_interval(row.iloc[0])}.")
    return [*told, *_as_unsteered(methods, pairs), *_lacking(scores), *_small(scores)]


def listed(names: Sequence[str]) -> str:
    """Names in a row; where one has a comma of its own ("CAA, 4 examples"), with semicolons."""
    return ("; " if any("," in name for name in names) else ", ").join(names)


def _as_unsteered(methods: pd.DataFrame, pairs: Pairs) -> list[str]:
    """The methods whose paired difference to no steering holds 0, or has no interval."""
    if UNSTEERED not in pairs.scores:
        return []
    names = [name for name in methods["method"] if name in pairs.scores]
    together, alone = _open(pairs, UNSTEERED, names, lambda low, high: low > 0 or high < 0)
    if not together:
        return []
    by_one = ""
    if together != alone:
        only = f"only {listed(alone)}" if alone else "every method is told apart"
        by_one = f" (one by one, {only})"
    return [f"Not told apart from the model itself, {TOGETHER}: {listed(together)}{by_one}."]


def _lacking(scores: Scores) -> list[str]:
    """The methods that have no score on an attribute, or not with every seed."""
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


def _tied(methods: pd.DataFrame, best: str, pairs: Pairs) -> str:
    """The methods whose paired difference to the best holds 0, or has no interval.

    Those that all comparisons leave open where they must hold together, as ranks do, are the claim;
    those that are open one by one come second.
    """
    names = methods["method"].tolist()
    together, alone = _open(pairs, best, names, lambda low, _: low > 0)
    if not together:
        return f"{LOWER}, also {TOGETHER}"
    told = f"not told apart from it, {TOGETHER}: {listed(together)}"
    if together == alone:
        return told
    if alone:
        return f"{told} (one by one, only {listed(alone)})"
    return f"{told} (one by one, {LOWER})"


def _open(
    pairs: Pairs, one: str, names: Sequence[str], decided: Callable[[float, float], bool]
) -> tuple[list[str], list[str]]:
    """The other methods that the intervals of the difference to `one` leave undecided.

    First with intervals that hold together for all of them, then with each interval by itself. The
    intervals are of the score of `one` minus that of the other; NaN decides nothing.
    """
    others = [name for name in names if name != one]
    wider = pairs.gaps(one, others)
    single = {other: pairs.mean(one, other) for other in others}
    alone = [n for n in others if not decided(single[n].low, single[n].high)]
    return [n for n in others if not decided(*wider[n])], alone


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


def choice_sentences(chosen: pd.DataFrame) -> list[str]:
    """How often a rule ended at the strongest or the weakest strength that was tried.

    `chosen` is the table `Collected.chosen`; equal KL searches no strength, and has no sentence.
    """
    told = []
    for rule, rows in chosen.groupby("rule", sort=False):
        n, beyond = len(rows), rows["crossing"] == BEYOND
        if beyond.any():
            kept = rows.loc[beyond, "coherence_kept"].median()
            much = f" (on test questions {100 * kept:.0f} % of the unsteered, the median)"
            told.append(
                f"By {rule}, in {beyond.sum()} of {n} choices the strongest strength tried still "
                f"kept 80 % of the unsteered coherence: there {rule} is that strength, with more "
                f"coherence{'' if np.isnan(kept) else much}."
            )
        if before := int((rows["crossing"] == BEFORE).sum()):
            told.append(
                f"By {rule}, in {before} of {n} choices even the weakest strength tried kept less "
                f"than 80 % of the unsteered coherence: there {rule} is that strength."
            )
        if rule == "harmonic" and (at_end := int(rows["strongest"].sum())):
            told.append(
                f"By {rule}, {at_end} of {n} choices are the strongest strength tried: there a "
                "stronger one might score higher."
            )
    return told


def training_sentences(fits: pd.DataFrame) -> list[str]:
    """How many trainings were best in their last epoch; none where no cell tells of a training."""
    if not len(fits):
        return []
    known = fits.loc[fits["best_loss"].notna()]
    improving = int((known["best_epoch"] == known["epochs"]).sum())
    if not improving:
        return []
    return [
        f"{improving} of {len(known)} trainings had their lowest validation loss in the last "
        "epoch: with more steps it might fall further."
    ]


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
