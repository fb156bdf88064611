"""Which method is best, and how sure that is: means, ranks and paired comparisons over attributes.

The input is `scores[method][attribute][seed, question]`. All comparisons are paired: the same
attributes, seeds and questions on both sides. No winner is declared inside the intervals.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np
import pandas as pd

from .estimates import SCORES, Estimate, difference, mean_of, mean_score, paired
from .maxima import simultaneous
from .variance import Values
from .verdicts import verdict

OfMethod: TypeAlias = Mapping[str, Values]
Table: TypeAlias = Mapping[str, OfMethod]


@dataclass(frozen=True, eq=False)
class Pairs:
    """The paired differences of all methods, each made once, when it is first asked for.

    The other way round it is the same with the other sign, so half of the work is enough.
    """

    scores: Table
    _known: dict[tuple[str, str], dict[str, Estimate | None]] = field(
        default_factory=dict, init=False, repr=False
    )

    def by_attribute(self, method: str, other: str) -> dict[str, Estimate | None]:
        """How much higher `method` is on each attribute; None where one of them has no score."""
        if (method, other) not in self._known:
            names = attributes(self.scores)
            found = _differences(self.scores[method], self.scores[other], names)
            self._known[method, other] = found
            self._known[other, method] = {name: one and -one for name, one in found.items()}
        return self._known[method, other]

    def mean(self, method: str, other: str) -> Estimate:
        """The mean over the attributes that both have; ValueError where there is none."""
        found = self.by_attribute(method, other).values()
        return mean_of([one for one in found if one is not None])

    def gaps(self, method: str, others: Sequence[str]) -> dict[str, tuple[float, float]]:
        """How much higher the method is than each other one: intervals that hold together."""
        found = [self.mean(method, other) for other in others]
        return dict(zip(others, simultaneous(found), strict=True)) if found else {}


def standings(scores: Table, pairs: Pairs | None = None) -> pd.DataFrame:
    """One row per method, the best first.

    mean, low, high   over all attributes, with the 95 % interval
    rank              by the mean
    rank_low, _high   the ranks that the paired intervals leave open, made to hold together for all
                      comparisons of a method (Mogstad, Romano, Shaikh and Wilhelm 2024, "Inference
                      for ranks")
    win_rate          the share of answers that are better than another method's to the same
                      question with the same seed, ties half; the mean over methods and attributes
    first             the share of resamples in which the mean is the highest; NaN where a mean has
                      no interval
    tied_with_best    the interval of the difference to the best, one of those that hold together
                      for all comparisons of the best, holds 0
    missing           attributes on which the method has no score
    seeds             the fewest seeds with a score on any of the others: a fit that failed has none

    A method with missing attributes is not averaged over fewer: it has a win rate, neither mean nor
    rank, and comes last. `pairs` are those of the same scores, where they are asked for again.
    ValueError for no methods.
    """
    names = attributes(scores)
    means = {method: _mean(of, names) for method, of in scores.items() if not _missing(of, names)}
    order = sorted(means, key=lambda method: -means[method].value)
    first, pairs = _first([means[method] for method in order]), pairs_of(scores, pairs)
    behind = pairs.gaps(order[0], order[1:]) if order else {}
    rows = []
    for i, method in enumerate(order):
        one, found = means[method], pairs.gaps(method, [name for name in order if name != method])
        above = sum(high < 0 for _, high in found.values())
        below = sum(low > 0 for low, _ in found.values())
        tied = i == 0 or not behind[method][0] > 0
        numbers = one.value, one.low, one.high, i + 1, above + 1, len(order) - below
        wins, seeds = _wins(scores, method, names), fewest_seeds(scores[method])
        rows.append([method, *numbers, wins, first[i], tied, "", seeds])
    for method in scores:
        if method not in means:
            wins, missing = _wins(scores, method, names), _missing(scores[method], names)
            none = [*[np.nan] * 3, *[pd.NA] * 3, wins, np.nan, pd.NA]
            rows.append([method, *none, ", ".join(missing), fewest_seeds(scores[method])])
    columns = (
        "method mean low high rank rank_low rank_high win_rate first tied_with_best missing seeds"
    )
    kinds = dict.fromkeys(("rank", "rank_low", "rank_high"), "Int64")
    table = pd.DataFrame(rows, columns=pd.Index(columns.split()))
    return table.astype({**kinds, "tied_with_best": "boolean"})


def pairwise(scores: Table, pairs: Pairs | None = None) -> pd.DataFrame:
    """One row for each ordered pair of methods: how much higher `method` is than `other`.

    difference, low, high             the mean over the attributes that both have, each interval by
                                      itself: among many pairs some exclude 0 by chance
    win_rate                          as in `standings`
    n_for, n_against, n_undecided     attributes whose interval is above 0, below 0, holds 0
    n_missing                         attributes that one of the two has no score on

    `pairs` are those of the same scores, where they are asked for again.
    """
    names, rows, pairs = attributes(scores), [], pairs_of(scores, pairs)
    for method, of in scores.items():
        for other, against in scores.items():
            if method == other:
                continue
            found = verdict(pairs.by_attribute(method, other), 0.0, above=True)
            one = found.mean
            numbers = [np.nan] * 3 if one is None else [one.value, one.low, one.high]
            counts = found.n_for, found.n_against, found.n_undecided, found.n_dropped
            rows.append([method, other, *numbers, _win_rate(of, against, names), *counts])
    columns = "method other difference low high win_rate n_for n_against n_undecided n_missing"
    return pd.DataFrame(rows, columns=pd.Index(columns.split()))


def pairs_of(scores: Table, pairs: Pairs | None) -> Pairs:
    """The pairs of these scores; ValueError for those of others."""
    if pairs is not None and pairs.scores is not scores:
        raise ValueError("The pairs are of other scores. Leave them out, or pass Pairs(scores).")
    return pairs or Pairs(scores)


def attributes(scores: Table) -> list[str]:
    """All attributes that any method has. ValueError where there are none."""
    names = list(dict.fromkeys(name for of in scores.values() for name in of))
    if not names:
        raise ValueError("Standings need scores[method][attribute]; found no attribute.")
    return names


def seeds_of(rows: Values) -> int:
    """How many seeds have a score."""
    return int((~np.isnan(rows)).any(axis=1).sum())


def fewest_seeds(of: OfMethod) -> int:
    """The fewest that any attribute has which has some."""
    return min((n for n in map(seeds_of, of.values()) if n), default=0)


def _missing(of: OfMethod, names: Sequence[str]) -> list[str]:
    return [name for name in names if name not in of or bool(np.isnan(of[name]).all())]


def _mean(of: OfMethod, names: Sequence[str]) -> Estimate:
    return mean_of([mean_score(of[name], draw=i) for i, name in enumerate(names)], bounds=SCORES)


def _differences(a: OfMethod, b: OfMethod, names: Sequence[str]) -> dict[str, Estimate | None]:
    """For each attribute; None where one of the two has no score."""
    dropped = {*_missing(a, names), *_missing(b, names)}
    return {
        name: None if name in dropped else difference(a[name], b[name], draw=i)
        for i, name in enumerate(names)
    }


def _first(means: Sequence[Estimate]) -> list[float]:
    """For each method the share of resamples in which it is the best; ties are shared out."""
    if not means:
        return []
    if any(np.isnan(one.low) for one in means):  # a single question: its resamples are all alike
        return [float("nan")] * len(means)
    draws = np.stack([one.resampled for one in means])
    best = draws == draws.max(axis=0)
    return (best / best.sum(axis=0)).mean(axis=1).tolist()


def _wins(scores: Table, method: str, names: Sequence[str]) -> float:
    """The mean win rate over the other methods."""
    found = [
        _win_rate(scores[method], of, names) for other, of in scores.items() if other != method
    ]
    known = [rate for rate in found if not np.isnan(rate)]
    return float(np.mean(known)) if known else float("nan")


def _win_rate(a: OfMethod, b: OfMethod, names: Sequence[str]) -> float:
    dropped = {*_missing(a, names), *_missing(b, names)}
    rates = []
    for name in names:
        if name not in dropped:
            apart = paired(a[name], b[name])
            apart = apart[~np.isnan(apart)]
            if len(apart):
                rates.append(float(((apart > 0) + (apart == 0) / 2).mean()))
    return float(np.mean(rates)) if rates else float("nan")
