"""The papers' claims as they are decided: what is estimated, the bound, and on which side.

Written before any test question of SmolLM2 was opened; what had been seen is said with each claim.
`claims_page.py` writes the page. A claim is an estimate for each attribute of a bench; its verdict
counts attributes (`analysis.bench.verdicts`), and a mean alone decides nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, TypeAlias

import numpy as np
from scipy import stats

from analysis.bench.catalogue import layer_of
from analysis.bench.collect import ATTRIBUTE, HARMONIC, Collected
from analysis.bench.estimates import Estimate, difference, gap, mean_score
from analysis.bench.found import nulls_by_attribute
from analysis.bench.kinds import EQUIVALENT, PROMPT
from analysis.bench.standings import seeds_of
from analysis.bench.verdicts import Verdict, verdict
from analysis.measures.plain_side import BY_TEMPLATE, NEUTRALLY

ByAttribute = Mapping[str, Estimate | None]
"""None: there is no such number for the attribute, which then counts as dropped."""
Nearness: TypeAlias = Callable[[Collected, str, str], Estimate | None]
"""How near a method is to the prompt, under an attribute."""
AS_FITTED, EQUAL_KL = "as fitted", "equal KL"
LAST = -1
MARGIN = 2.0
"""Points of a score within which two count as equal, where a claim is that one is no worse."""


@dataclass(frozen=True)
class Claim:
    """One line of the table. `above` says on which side of the bound the claim is true."""

    name: str
    says: str
    estimate: Callable[[Collected], ByAttribute]
    bound: float = 0.0
    above: bool = True
    seen: str = ""
    of: str | None = None
    """The score it is about: an attribute whose null texts score high in it is on neither side."""
    compared: tuple[str, str, str] | None = None
    """The two methods whose scores are compared, and the rule of their strengths."""

    def estimates(self, collected: Collected) -> ByAttribute:
        """By attribute; made once for a bench, as tables, figures and verdicts all ask for them."""
        return _estimates(self, collected)

    def verdict(self, collected: Collected) -> Verdict:
        fooled = fooled_on(collected, self.of) if self.of else ()
        return verdict(self.estimates(collected), self.bound, self.above, fooled)

    def without_nulls(self, collected: Collected) -> Verdict:
        """The verdict if what null texts score were not looked at."""
        return verdict(self.estimates(collected), self.bound, self.above)


def fooled_on(collected: Collected, measure: str) -> set[str]:
    """The attributes on which a text that shows nothing gets half of what the prompt adds."""
    found = nulls_by_attribute(collected.scores("harmonic", measure))
    return {attribute for attribute, one in found.items() if one.high}


def than(name: str, says: str, a: str, b: str, *, rule: str = "harmonic", **given: Any) -> Claim:
    """The claim that a scores higher than b: in the harmonic mean, or in the attribute at C80."""
    measure = HARMONIC if rule == "harmonic" else ATTRIBUTE
    estimate = scores(a, b, rule, measure)
    return Claim(name, says, estimate, of=measure, compared=(a, b, rule), **given)


@cache
def _estimates(claim: Claim, collected: Collected) -> ByAttribute:
    found = claim.estimate(collected)
    return {task: found.get(task) for task in planned(collected)}


def planned(collected: Collected) -> list[str]:
    """All attributes of the data: one that a bench has not run yet is no reason to count fewer."""
    return list(replace(collected.plan.spec, attributes=()).tasks())


def scores(
    a: str, b: str, rule: str = "harmonic", measure: str = HARMONIC
) -> Callable[[Collected], ByAttribute]:
    """How much higher a scores than b, on the same seeds and questions."""

    def estimate(collected: Collected) -> ByAttribute:
        table = collected.scores(rule, measure)
        return {
            task: _difference(table, a, b, task, draw)
            for draw, task in enumerate(collected.plan.tasks)
        }

    return estimate


def _difference(
    table: Mapping[str, Mapping[str, np.ndarray]], a: str, b: str, task: str, draw: int
) -> Estimate | None:
    if task not in table.get(a, {}) or task not in table.get(b, {}):
        return None
    return difference(table[a][task], table[b][task], draw=draw)


def own_layer(method: str, strength: str) -> Callable[[Collected], ByAttribute]:
    """The relRMSE of a method at the layer where it acts."""

    def estimate(collected: Collected) -> ByAttribute:
        return {task: _at(collected, task, method, strength, None) for task in collected.plan.tasks}

    return estimate


def last_less_own(method: str, strength: str) -> Callable[[Collected], ByAttribute]:
    """The relRMSE at the last layer less that at the layer where the method acts."""

    def estimate(collected: Collected) -> ByAttribute:
        return {
            task: _gap(
                _at(collected, task, method, strength, LAST),
                _at(collected, task, method, strength, None),
            )
            for task in collected.plan.tasks
        }

    return estimate


def farther(
    a: str, b: str, strength: str, layer: int | None, of_b: str | None = None
) -> Callable[[Collected], ByAttribute]:
    """The relRMSE of a less that of b, at a layer; None is the layer where both act."""

    def estimate(collected: Collected) -> ByAttribute:
        other = strength if of_b is None else of_b
        return {
            task: _gap(
                _at(collected, task, a, strength, layer), _at(collected, task, b, other, layer)
            )
            for task in collected.plan.tasks
        }

    return estimate


def _at(
    collected: Collected, task: str, method: str, strength: str, layer: int | None
) -> Estimate | None:
    if layer is None:
        layer = collected.layer(task, method, collected.n_layers)
    return None if layer is None else collected.distance(task, method, strength, layer)


def _gap(a: Estimate | None, b: Estimate | None) -> Estimate | None:
    """None where there is none of either, or of other seeds: then nothing can be paired yet."""
    if a is None or b is None or a.n_seeds != b.n_seeds:
        return None
    return gap(a, b)


def share_of_effect(method: str, other: str) -> Callable[[Collected], ByAttribute]:
    """What a method adds to the attribute at C80, less half of what another adds."""

    def estimate(collected: Collected) -> ByAttribute:
        table, found = collected.scores("C80", ATTRIBUTE), {}
        for draw, task in enumerate(collected.plan.tasks):
            needed = [table.get(name, {}).get(task) for name in (method, other, "unsteered")]
            if any(one is None for one in needed):
                found[task] = None
                continue
            few, many, plain = (one for one in needed if one is not None)
            found[task] = difference(few - plain, (many - plain) / 2, draw=draw)
        return found

    return estimate


def predicts(nearness: Nearness) -> Callable[[Collected], ByAttribute]:
    """Over the methods of an attribute: the rank correlation of nearness with the score at C80.

    The interval is of new seeds and questions, the methods stay: it is of the ranks draw by draw.
    """

    def estimate(collected: Collected) -> ByAttribute:
        found: dict[str, Estimate | None] = {}
        for task in collected.plan.tasks:
            pairs = list(pairs_of(collected, task, nearness).values())
            found[task] = rank_correlation(pairs) if len(pairs) >= LEAST_METHODS else None
        return found

    return estimate


def pairs_of(
    collected: Collected, task: str, nearness: Nearness, measure: str = ATTRIBUTE
) -> dict[str, tuple[Estimate, Estimate]]:
    """How near each method is to the prompt, and its score at C80.

    A method with a single seed of several, as its other fits came to nothing, is left out.
    """
    table, found = collected.scores("C80", measure), {}
    for method in collected.plan.spec.methods:
        rows = table.get(method, {}).get(task)
        if rows is None or seeds_of(rows) < min(2, len(rows)):
            continue
        near = nearness(collected, task, method)
        if near is not None:
            found[method] = near, mean_score(rows)
    return found


def rank_correlation(pairs: Sequence[tuple[Estimate, Estimate]]) -> Estimate:
    """Spearman's, of the values and of every resample.

    Resampling adds noise to values that have some already, which brings ranks nearer to chance: so
    the resamples give the spread (on Fisher's scale), about the correlation of the values.
    """
    sides = [
        np.column_stack([[one[side].value, *one[side].resampled] for one in pairs])
        for side in (0, 1)
    ]
    a, b = (stats.rankdata(side, axis=1) for side in sides)
    a, b = a - a.mean(axis=1, keepdims=True), b - b.mean(axis=1, keepdims=True)
    lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    rho = np.clip((a * b).sum(axis=1) / np.where(lengths > 0, lengths, 1), -MOST, MOST)
    value, draws = float(rho[0]), np.arctanh(rho[1:])
    around = np.tanh(np.arctanh(value) + draws - draws.mean())
    low, high = np.quantile(around, [0.025, 0.975]).tolist()
    error = float(np.std(around))
    return replace(
        pairs[0][0], value=value, low=low, high=high, resampled=around, standard_error=error
    )


def uneven(baseline: str) -> Callable[[Collected], ByAttribute]:
    """How unevenly the prompt pushes, at the middle layer."""

    def estimate(collected: Collected) -> ByAttribute:
        layer = layer_of(0, collected.n_layers)
        return {
            task: collected.unevenness(task, baseline, layer) if collected.n_layers else None
            for task in collected.plan.tasks
        }

    return estimate


def last_distance(collected: Collected, task: str, method: str) -> Estimate | None:
    return collected.distance(task, method, EQUAL_KL, LAST)


def effect_recovered(collected: Collected, task: str, method: str) -> Estimate | None:
    return collected.share(task, method, EQUAL_KL)


LEAST_METHODS, MOST = 5, 0.999
TRIAL = (
    "In a trial on 4 held-out pirate pairs of SmolLM2, before any of this was written, relRMSE at "
    "the last layer was: A-PSR 0.55, S-PSR 0.65, CLAS 0.79, constants 0.92 to 0.94, another "
    "wording 0.37, a neutral instruction 0.85."
)
VALIDATED = (
    "Validation scores of *pirate* were seen while the bench was written: harmonic means and words "
    "under CAA, COLD-FD, S-PSR_MSE, CLAS, ActAdd and a random direction."
)
UNEVEN = (
    "On the demonstration model the ratio of claim 1 was seen to be 2 to 4 within an answer, "
    "before any bound was set."
)
CLAIMS = (
    Claim(
        "1",
        "The prompt's strength differs by an order of magnitude between the tokens of an answer: "
        "the decadic logarithm of the 95th over the 5th percentile of the length of its push, at "
        "the middle layer, sinks left out, mean over answers.",
        uneven(BY_TEMPLATE),
        1.0,
        seen=UNEVEN,
    ),
    Claim(
        "1 neutral",
        "The same against a neutral instruction in place of none.",
        uneven(NEUTRALLY),
        1.0,
        seen=UNEVEN,
    ),
    Claim(
        "2a CAA",
        "A constant of mean differences is unfaithful where it acts: relRMSE at its own layer, at "
        "the prompt's KL, is above 1.",
        own_layer("CAA", EQUAL_KL),
        1.0,
        seen=TRIAL,
    ),
    Claim(
        "2a S-Const_MSE",
        "The same of a trained constant.",
        own_layer("S-Const_MSE", EQUAL_KL),
        1.0,
        seen=TRIAL,
    ),
    Claim(
        "2b CAA",
        "Later layers bring it back: relRMSE at the last layer less that at its own.",
        last_less_own("CAA", EQUAL_KL),
        above=False,
        seen=TRIAL,
    ),
    Claim(
        "2c own",
        "S-PSR_MSE overshoots at its own layer: its relRMSE there is above that of S-Const_MSE, "
        "both as fitted.",
        farther("S-PSR_MSE", "S-Const_MSE", AS_FITTED, None),
        seen=TRIAL,
    ),
    Claim(
        "2c last",
        "and at the last layer it is below.",
        farther("S-PSR_MSE", "S-Const_MSE", AS_FITTED, LAST),
        above=False,
        seen=TRIAL,
    ),
    Claim(
        "2d",
        "A-PSR_MSE as fitted is nearer to the prompt at the last layer than the prompt in other "
        "words.",
        farther("A-PSR_MSE", EQUIVALENT, AS_FITTED, LAST, ""),
        above=False,
        seen=TRIAL,
    ),
    than(
        "3a",
        "S-PSR_MSE has more of the attribute than S-Const_MSE at 80 % of the unsteered coherence.",
        "S-PSR_MSE",
        "S-Const_MSE",
        rule="C80",
        seen=VALIDATED,
    ),
    than(
        "3b",
        "A-PSR_MSE is no worse than the prompt, to within 2 points of the harmonic mean.",
        "A-PSR_MSE",
        PROMPT,
        bound=-MARGIN,
        seen=VALIDATED,
    ),
    than(
        "3c",
        "A-PSR_MSE with the prompt is better than the prompt.",
        "A-PSR_MSE + prompt",
        PROMPT,
    ),
    than(
        "4a",
        "CLAS is better than the same directions at one fixed strength (LAS grid).",
        "CLAS",
        "LAS grid",
        seen=VALIDATED,
    ),
    than("4b ReFT-r1", "CLAS is better than ReFT-r1.", "CLAS", "ReFT-r1", seen=VALIDATED),
    than("4b LoReFT", "CLAS is better than LoReFT.", "CLAS", "LoReFT", seen=VALIDATED),
    than("4b LoRA", "CLAS is better than LoRA.", "CLAS", "LoRA", seen=VALIDATED),
    Claim(
        "5a",
        "COLD-FD with 4 examples has at least half of the effect of S-PSR_LL, which has all of "
        "them: of what that adds to the attribute at C80.",
        share_of_effect("COLD-FD, 4 examples", "S-PSR_LL"),
        of=ATTRIBUTE,
    ),
    than(
        "5b",
        "COLD-FD with 4 examples is better than mean differences of the same 4 (CAA).",
        "COLD-FD, 4 examples",
        "CAA, 4 examples",
    ),
    than(
        "5c",
        "COLD-FD is no worse than the gradient step that it approximates, to within 2 points.",
        "COLD-FD",
        "gradient step",
        bound=-MARGIN,
    ),
    Claim(
        "7 relRMSE",
        "A method that is nearer to the prompt at the last layer, at the prompt's KL, has more of "
        "the attribute at C80: their rank correlation over methods is negative.",
        predicts(last_distance),
        above=False,
        of=ATTRIBUTE,
    ),
    Claim(
        "7 recovered",
        "The same of the share of the prompt's effect on the predictions: positive.",
        predicts(effect_recovered),
        of=ATTRIBUTE,
    ),
)
