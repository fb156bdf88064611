"""What was looked at after the tests: no claim, and beside the claims that it may shake.

A second judge that knows no model, the coherence that was reached where two methods are compared at
"C80", and claim 7 with fewer methods, with the second judge and with a test over methods.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
from claims import CLAIMS, last_distance, pairs_of, scores
from jaxtyping import Float
from scipy import stats

from analysis.bench.collect import COHERENCE, WORDS, Collected
from analysis.bench.estimates import Estimate
from analysis.bench.kinds import UNSTEERED
from analysis.reports.markdown import markdown_folded, markdown_table

RANDOM = "random direction"
PERMUTATIONS = 9999
Found = Mapping[str, Collected]
Pairs = Mapping[str, tuple[Estimate, Estimate]]
INTRODUCTION = "No claims: these were not written down before, and may shake those that were."
WORDS_SAY = """\
**The second judge.** What a bench of any model scores is likeness to the model's own prompted text.
The second judge knows no model: the share of answers with a word of the attribute, in points.
Where it says another thing than a verdict, the verdict is about the first judge alone."""
C80_SAYS = """\
**Equal coherence.** "C80" is the strongest strength that was tried that kept 80 % of the unsteered
coherence on validation questions. Where even the strongest kept more, it is that one, and methods
are not compared at the same coherence. The shares of claim 3a on test questions:"""
RANKS_SAY = """\
**Claim 7 again.** The rank correlations of "7 relRMSE" without the random direction, which is far
and weak by its making, and with the second judge, without it too. p is the share of {n} dealings of
the scores to the methods (seed 0) that correlate as much: the intervals of the verdict are over
seeds and questions, with the methods as they are, and p is about the methods. The first judge of
SmolLM2 scores likeness to the prompted text, so part of the correlation may be between two measures
of the same likeness."""


def sections(found: Found) -> list[str]:
    """Each with what it is and a folded table; those of which nothing was measured are left out."""
    return [INTRODUCTION, *by_words(found), *reached(found), *ranks_again(found)]


def by_words(found: Found) -> list[str]:
    """A table of the comparisons by the second judge, where a model has one."""
    rows = []
    for claim in CLAIMS:
        if claim.compared is None:
            continue
        a, b, rule = claim.compared
        for model, collected in found.items():
            first = claim.estimates(collected)
            for task, one in scores(a, b, rule, WORDS)(collected).items():
                if one is not None:
                    told = [str(first[task] or ""), str(one)]
                    rows.append([claim.name, f"{a} less {b}", model, task, *told])
    head = ["claim", "difference", "model", "attribute", "first judge", "words"]
    folded = markdown_folded("By the second judge", markdown_table(head, rows))
    return [WORDS_SAY, folded] if rows else []


def reached(found: Found) -> list[str]:
    """A table of the coherence of two methods where they are compared at C80."""
    (a, b, _), *_ = (one.compared for one in CLAIMS if one.compared and one.compared[2] == "C80")
    rows = [
        [model, task, *(f"{share:.2f}" for share in shares)]
        for model, collected in found.items()
        for task, shares in _shares(collected, (a, b))
    ]
    folded = markdown_folded(
        "Coherence reached", markdown_table(["model", "attribute", a, b], rows)
    )
    return [C80_SAYS, folded] if rows else []


def _shares(collected: Collected, methods: tuple[str, ...]) -> Iterator[tuple[str, list[float]]]:
    """For each attribute that all have: their coherence at C80 over the unsteered model's."""
    table = collected.scores("C80", COHERENCE)
    for task in collected.plan.tasks:
        rows = [table.get(method, {}).get(task) for method in (*methods, UNSTEERED)]
        if all(one is not None for one in rows):
            *own, plain = (float(np.nanmean(one)) for one in rows if one is not None)
            yield task, [one / plain for one in own]


def ranks_again(found: Found) -> list[str]:
    """Claim 7 with fewer methods, with the second judge, and tested over methods."""
    rows = []
    for model, collected in found.items():
        for task in collected.plan.tasks:
            pairs = pairs_of(collected, task, last_distance)
            fewer = {method: pair for method, pair in pairs.items() if method != RANDOM}
            if len(fewer) < 3:
                continue
            words = pairs_of(collected, task, last_distance, WORDS)
            again = {method: pair for method, pair in words.items() if method != RANDOM}
            numbers = [rho(pairs), rho(fewer), p_of(fewer), rho(again), p_of(again)]
            rows.append([model, task, str(len(pairs)), *map(_said, numbers)])
    head = ["model", "attribute", "methods", "all", "without random", "p", "by words", "p of these"]
    says = RANKS_SAY.format(n=PERMUTATIONS)
    return [says, markdown_folded("Claim 7 again", markdown_table(head, rows))] if rows else []


def rho(pairs: Pairs) -> float:
    """Spearman's correlation of the values; NaN for fewer than three methods."""
    near, score = _ranks(pairs)
    return float(near @ score) if len(near) >= 3 else float("nan")


def p_of(pairs: Pairs) -> float:
    """How often a dealing out of the scores gives a correlation at least as far from 0."""
    near, score = _ranks(pairs)
    if len(near) < 3:
        return float("nan")
    rng = np.random.default_rng(0)
    dealt = rng.permuted(np.tile(score, (PERMUTATIONS, 1)), axis=1) @ near
    return float((1 + (np.abs(dealt) >= abs(near @ score) - 1e-12).sum()) / (1 + PERMUTATIONS))


def _ranks(pairs: Pairs) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]]:
    """Ranks of both sides, centred and of length 1, so that their product is the correlation."""
    sides = []
    for side in (0, 1):
        ranks = stats.rankdata([pair[side].value for pair in pairs.values()])
        ranks = ranks - ranks.mean() if len(ranks) else ranks
        sides.append(ranks / (np.linalg.norm(ranks) or 1.0))
    return sides[0], sides[1]


def _said(number: float) -> str:
    return "" if np.isnan(number) else f"{number:.2g}" if 0 < number < 0.01 else f"{number:.2f}"
