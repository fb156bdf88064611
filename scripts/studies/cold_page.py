"""The page of the COLD study: hypotheses and rules first, then verdicts, then the tables."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cold
import numpy as np
from cells import Cells
from estimates import (
    N_BOOTSTRAP,
    NOT,
    SUPPORTED,
    UNDECIDED,
    Estimate,
    markdown,
    mean_of,
    mean_score,
    verdict,
)
from sklearn.isotonic import IsotonicRegression

REASONS = Path(__file__).with_name("cold_reasons.md")
"""What we make of the results, written by hand once they are there."""

FEWER, NEAR, FEW = 50, 0.95, 5
OURS, TUNED = ("COLD-FD", "COLD-Kernel"), ("CAA", "ReFT-vector", "ReFT-r1")

HYPOTHESES = f"""\
Written before the command opened the test split. A score is the mean of the attribute's judge (0
to 100) over completions at C80: at the largest strength whose mean coherence is still 80 % of the
unsteered, found on validation questions. Where there is none, or the fit found no steering, the
score is that of the model itself. A gain is a score less the unsteered one. Intervals are
nominally of 95 %, from {N_BOOTSTRAP} resamples of seeds and of test questions, both at once (of
each attribute by itself, though a few questions are in both); but for H1 they are widened by
sqrt(n / (n - 1)) for n seeds, and with three seeds they hold less often where seeds matter much
(`python scripts/studies/coverage.py`). Attributes are fixed. A claim is **supported** where the
interval lies wholly on the side claimed, **not supported** where it lies wholly on the other,
else **undecided**.

- **H1** The paper: as good with {FEWER} times fewer examples. The best of CAA, ReFT-vector and
  ReFT-r1, at any number of pairs, sets the goal: {NEAR:.0%} of its gain. N is the fewest pairs at
  which a method has as much, by the nearest curve that does not fall as pairs grow. The better of
  the three needs at least {FEWER} times the N of the better COLD method. (Where neither COLD
  method gets there the ratio is 0.)
- **H2** With {FEW} pairs COLD-FD scores above CAA, ReFT-vector and ReFT-r1. One claim each, on
  the mean over attributes.
- **H3** With {cold.SEARCHED_WITH} pairs COLD-FD scores above COLD-Kernel.
- **H4** Spreads (the paper's pluralistic task): with {cold.TUNED_WITH} prompts (a) COLD-Kernel
  has a smaller KL divergence from the wished spread than COLD-FD; (b) COLD-Kernel, and (c)
  COLD-FD, has at most half of the unsteered model's.

Every method tries the same six configurations on validation questions, two completions of each,
with {cold.SEARCHED_WITH} pairs and seed 0: three layers, and the prompt or all tokens as the
scope; then that one is fitted with every number of pairs and every seed. A pair is a training
question with a prompted answer that shows the attribute, and an answer of the model itself that
does not (the judges say so; {cold.TRIES} tries a question, which leaves too few for 500). Fewer
pairs are some of the more. COLD takes the DPO loss and CAA the mean difference over the answers,
of both sides. ReFT-vector is a constant learnt by the likelihood of the answers with the
attribute alone (its authors': DPO on both), ReFT-r1 learns from both by its authors' loss; each
takes {cold.STEPS} updates at the library's rates for so many. ReFT-r1 draws another first vector,
up to {cold.TRIES}, where its latent opens on no token. All are brought to a common scale before
the strength is searched. For the spreads a method tries three layers; the option words follow
"{cold.OPENING}" at the start of the answer, and the wished spread is the model's own under the
instruction.

Not quite blind: the command was tried with the first {cold.SEEN} test questions, two seeds and 2
and 5 pairs, to see that it runs, and its tables were looked at. These questions are left out.
"""


@dataclass(frozen=True, eq=False)
class Results:
    """The cells of the study."""

    cells: Cells
    options: cold.Options

    def tests(self, attribute: str, method: str, n: int) -> list[dict]:
        """The results of every seed."""
        one = cold.chosen(self.cells, attribute, method)
        seeds = range(self.options.seeds)
        return [self.cells.get("test", attribute, method, one, n, seed) for seed in seeds]

    def scores(self, attribute: str, method: str, n: int, kind: str = "attribute") -> np.ndarray:
        """[seed, question]; "unsteered" and "prompt" are methods too, at any n."""
        if method in ("unsteered", "prompt"):
            seeds = range(self.options.seeds)
            found = [self.cells.get("reference", attribute, "test", s)[method] for s in seeds]
        else:
            found = self.tests(attribute, method, n)
        return np.array([one[kind] for one in found], dtype=float)

    def strengths(self, group: str, method: str, n: int) -> list[float]:
        """The strength of every seed; those of the grid's ends may not be the best there are."""
        if method == "unsteered":
            return []
        layer, seeds = cold.layer_of(self.cells, group, method), range(self.options.seeds)
        return [self.cells.get("spread", group, method, layer, n, s)["strength"] for s in seeds]

    def spreads(self, group: str, method: str, n: int, kind: str) -> np.ndarray:
        """[seed, question]."""
        if method == "unsteered":
            return np.array([self.cells.get("unspread", group)[kind]] * self.options.seeds)
        layer = cold.layer_of(self.cells, group, method)
        seeds = range(self.options.seeds)
        return np.array(
            [self.cells.get("spread", group, method, layer, n, seed)[kind] for seed in seeds]
        )


def fewest(gains: np.ndarray, sizes: Sequence[int], best: float) -> float:
    """The fewest pairs with `NEAR` of the best gain; infinity where no number is enough."""
    enough = [n for n, gain in zip(sizes, gains, strict=True) if gain >= NEAR * best]
    return float(min(enough, default=math.inf))


def rising(gains: np.ndarray) -> np.ndarray:
    """The nearest curve that does not fall: more pairs are no worse, but for noise."""
    return IsotonicRegression().fit_transform(np.arange(len(gains)), gains)


def times_fewer(ours: Sequence[float], tuned: Sequence[float]) -> float:
    """How many times more pairs the better of the others needs; 0 where ours never get there."""
    return 0.0 if math.isinf(min(ours)) else min(tuned) / min(ours)


def far_fewer(ratios: np.ndarray) -> str:
    """The verdict of H1, from resampled ratios, which may be infinite."""
    low, high = np.quantile(ratios, [0.025, 0.975], method="nearest")
    if low >= FEWER:
        return SUPPORTED
    return NOT if high < FEWER else UNDECIDED


@dataclass(frozen=True, eq=False)
class Curves:
    """The gain of every method at every number of pairs, on the mean over attributes."""

    results: Results

    @property
    def sizes(self) -> tuple[int, ...]:
        return self.results.options.sizes

    def gains(self, seeds: np.ndarray, *questions: np.ndarray) -> dict[str, np.ndarray]:
        """By method, one gain a number of pairs, on these seeds and questions."""
        names = self.results.options.attributes
        floor = [
            np.nanmean(self._of(a, "unsteered", 0)[np.ix_(seeds, q)])
            for a, q in zip(names, questions, strict=True)
        ]
        return {
            method: np.array(
                [
                    np.mean(
                        [
                            np.nanmean(self._of(a, method, n)[np.ix_(seeds, q)]) - low
                            for a, q, low in zip(names, questions, floor, strict=True)
                        ]
                    )
                    for n in self.sizes
                ]
            )
            for method in cold.METHODS
        }

    def needed(
        self, among: Sequence[str], seeds: np.ndarray, *questions: np.ndarray
    ) -> dict[str, float]:
        """By method, the fewest pairs with `NEAR` of the best gain that any of these has."""
        gains = {m: rising(one) for m, one in self.gains(seeds, *questions).items()}
        best = max(float(gains[method].max()) for method in among)
        return {method: fewest(one, self.sizes, best) for method, one in gains.items()}

    def resampled(self, among: Sequence[str]) -> tuple[dict[str, float], list[dict[str, float]]]:
        """The numbers needed, and those of every resample."""
        options, rng = self.results.options, np.random.default_rng(0)
        sizes = [options.n_test] * len(options.attributes)
        whole = self.needed(among, np.arange(options.seeds), *(np.arange(n) for n in sizes))
        drawn = [
            self.needed(
                among,
                rng.integers(0, options.seeds, options.seeds),
                *(rng.integers(0, n, n) for n in sizes),
            )
            for _ in range(N_BOOTSTRAP)
        ]
        return whole, drawn

    def _of(self, attribute: str, method: str, n: int) -> np.ndarray:
        key = (attribute, method, n)
        if key not in _READ:
            _READ[key] = self.results.scores(attribute, method, n)
        return _READ[key]


_READ: dict[tuple[str, str, int], np.ndarray] = {}


# -- The page --------------------------------------------------------------------------------------


def page(cells: Cells | None, options: cold.Options, until: str) -> str:
    """The page as Markdown; without results the hypotheses alone."""
    head = (
        "# How many examples a steering needs\n\nWritten by `python scripts/studies/cold.py`. The "
        'question is that of Sharma & Trivedi, "COLD-Steer", arXiv 2603.06495: does the effect of '
        "one gradient step, taken by the activations alone, need fewer examples than methods that "
        f"are tuned?\n\n## Hypotheses\n\n{HYPOTHESES}"
    )
    if cells is None or until == "validation":
        return head + "\nThe test split has not been opened yet.\n"
    _READ.clear()
    results = Results(cells, options)
    tables = [_scores(results), _spreads(results), _searches(results), _about(results)]
    parts = [head, _verdicts(results), *tables]
    if REASONS.exists():
        parts.insert(2, "\n" + REASONS.read_text(encoding="utf-8"))
    return "\n".join(parts)


def _verdicts(results: Results) -> str:
    names = results.options.attributes
    whole, drawn = Curves(results).resampled(TUNED)
    ratio = times_fewer([whole[m] for m in OURS], [whole[m] for m in TUNED])
    ratios = np.array(
        [times_fewer([d[m] for m in OURS], [d[m] for m in TUNED]) for d in drawn], dtype=float
    )
    low, high = np.quantile(ratios, [0.025, 0.975], method="nearest")
    claim = f"H1 times fewer pairs >= {FEWER}"
    decided = f"**{far_fewer(ratios)}**"
    rows = [[claim, *[""] * len(names), f"{ratio:g} [{low:g}, {high:g}]", decided]]
    few = FEW if FEW in results.options.sizes else results.options.sizes[0]
    for rival in TUNED:
        found = _gap(results, "COLD-FD", rival, few)
        rows.append(_row(f"H2 COLD-FD less {rival}, {few} pairs > 0", found))
    many = cold.SEARCHED_WITH
    many = many if many in results.options.sizes else results.options.sizes[-1]
    found = _gap(results, "COLD-FD", "COLD-Kernel", many)
    rows.append(_row(f"H3 COLD-FD less COLD-Kernel, {many} pairs > 0", found))
    needed = [
        [
            m,
            _span(whole[m], [d[m] for d in drawn]),
            _span(times(whole, m), [times(d, m) for d in drawn]),
        ]
        for m in cold.METHODS
    ]
    whole, drawn = Curves(results).resampled(tuple(cold.METHODS))
    for row, m in zip(needed, cold.METHODS, strict=True):
        row.append(_span(whole[m], [d[m] for d in drawn]))
    groups = [_row_of_groups(results, *claim) for claim in SPREAD_CLAIMS]
    return (
        f"\n## Verdicts\n\nEstimates with their intervals; {results.options.seeds} seeds, "
        f"{results.options.n_test} test questions for each attribute or group.\n\n"
        f"{markdown(['claim', *names, 'mean', 'verdict'], rows)}\n\n"
        f"{markdown(['claim', *cold.GROUPS, 'mean', 'verdict'], groups)}\n\n"
        f"Pairs needed for H1's goal, {NEAR:.0%} of the best gain of the three (inf: never); "
        "how many times those of COLD-FD they are; and those for that share of the best of all. "
        "(The first two columns were added once the test split was open.)\n\n"
        f"{markdown(['method', 'pairs', 'times COLD-FD', 'pairs, all five'], needed)}\n"
    )


def times(needed: dict[str, float], method: str) -> float:
    """How many times the pairs of COLD-FD a method needs; 0 where COLD-FD never gets there."""
    return times_fewer([needed["COLD-FD"]], [needed[method]])


def _span(value: float, drawn: Sequence[float]) -> str:
    low, high = np.quantile(drawn, [0.025, 0.975], method="nearest")
    return f"{value:g} [{low:g}, {high:g}]"


def _gap(results: Results, first: str, second: str, n: int) -> list[Estimate]:
    return [
        mean_score(results.scores(a, first, n) - results.scores(a, second, n), draw)
        for draw, a in enumerate(results.options.attributes)
    ]


def _row(name: str, found: Sequence[Estimate]) -> list[str]:
    mean = mean_of(found)
    return [name, *map(str, found), str(mean), f"**{verdict(mean, 0.0, above=True)}**"]


SPREAD_CLAIMS = (
    ("H4a KL of COLD-FD less that of COLD-Kernel > 0", "COLD-FD", "COLD-Kernel", 1.0),
    ("H4b half the unsteered KL less COLD-Kernel's > 0", "unsteered", "COLD-Kernel", 0.5),
    ("H4c half the unsteered KL less COLD-FD's > 0", "unsteered", "COLD-FD", 0.5),
)


def _row_of_groups(results: Results, name: str, first: str, second: str, share: float) -> list[str]:
    n = cold.TUNED_WITH
    found = [
        mean_score(
            share * results.spreads(group, first, n, "KL")
            - results.spreads(group, second, n, "KL"),
            draw,
        )
        for draw, group in enumerate(cold.GROUPS)
    ]
    mean = mean_of(found)
    decided = f"**{verdict(mean, 0.0, above=True)}**"
    return [name, *map(_fine, found), _fine(mean), decided]


def _scores(results: Results) -> str:
    rows = []
    for draw, attribute in enumerate(results.options.attributes):
        for method in ("unsteered", "prompt"):
            both = [results.scores(attribute, method, 0, k) for k in ("attribute", "coherence")]
            rows.append(
                [attribute, method, "", *(str(mean_score(s, draw)) for s in both), *[""] * 4]
            )
        for method in cold.METHODS:
            layer, scope = cold.CONFIGURATIONS[cold.chosen(results.cells, attribute, method)]
            for n in results.options.sizes:
                tests = results.tests(attribute, method, n)
                both = [results.scores(attribute, method, n, k) for k in ("attribute", "coherence")]
                unmet = sum(not one["met"] for one in tests)
                rows.append(
                    [
                        attribute,
                        f"{method}, layer {layer}, {scope}",
                        str(tests[0]["n"]),
                        *(str(mean_score(scores, draw)) for scores in both),
                        ", ".join(f"{np.nanmean(scores):.0f}" for scores in both[0]),
                        ", ".join(f"{one['strength']:.2g}" for one in tests),
                        str(unmet) if unmet else "",
                        f"{np.mean([one['seconds'] for one in tests]):.1f}",
                    ]
                )
    head = [
        "attribute",
        "method",
        "pairs",
        "score",
        "coherence",
        "score by seed",
        "strength",
        "no C80",
        "CPU s a fit",
    ]
    return (
        "\n## Scores at C80\n\nOn test questions. `strength` by seed, on the common scale; "
        "`no C80` counts the seeds in which the search found no strength with that coherence, or "
        f"the fit found no steering at all (strength 0).\n\n{markdown(head, rows)}\n"
    )


def _spreads(results: Results) -> str:
    rows = []
    for draw, group in enumerate(cold.GROUPS):
        for method in ("unsteered", *cold.SPREADING):
            for n in cold.SPREAD_SIZES if method != "unsteered" else (0,):
                both = [results.spreads(group, method, n, kind) for kind in ("KL", "TV")]
                where = (
                    ""
                    if method == "unsteered"
                    else str(cold.layer_of(results.cells, group, method))
                )
                strengths = ", ".join(f"{s:g}" for s in results.strengths(group, method, n))
                row = [group, method, where, str(n or ""), strengths]
                rows.append(row + [_fine(mean_score(one, draw)) for one in both])
    head = ["group", "method", "layer", "prompts", "strength", "KL", "total variation"]
    return (
        f'\n## Spreads over {", ".join(cold.WORDS)}\n\nOf the word after "{cold.OPENING}", on test '
        f"questions, against the model's own spread under the instruction of the group.\n\n"
        f"{markdown(head, rows)}\n"
    )


def _searches(results: Results) -> str:
    """Every validation result that a choice was made by."""
    cells, tried = results.cells, range(results.options.configurations)
    rows = []
    for attribute in results.options.attributes:
        for method in cold.METHODS:
            best = cold.chosen(cells, attribute, method)
            found = [cells.get("search", attribute, method, c) for c in tried]
            shown = [f"{one['attribute']:.1f}" if one["met"] else "no C80" for one in found]
            shown[best] = f"**{shown[best]}**"
            rows.append([attribute, method, *shown])
    layers = []
    for group in cold.GROUPS:
        for method in cold.SPREADING:
            best = cold.layer_of(cells, group, method)
            found = {layer: cells.get("tune", group, method, layer)["KL"] for layer in cold.LAYERS}
            shown = [f"**{KL:.3f}**" if at == best else f"{KL:.3f}" for at, KL in found.items()]
            layers.append([group, method, *shown])
    configurations = [f"{layer}, {scope}" for layer, scope in cold.CONFIGURATIONS][: len(tried)]
    return (
        "\n## What the search saw\n\nOn validation questions; the chosen are bold. Scores at C80 "
        f"by layer and scope, {cold.SEARCHED_WITH} pairs, seed 0:\n\n"
        f"{markdown(['attribute', 'method', *configurations], rows)}\n\n"
        f"The KL divergence by layer, {cold.TUNED_WITH} prompts, seed 0:\n\n"
        f"{markdown(['group', 'method', *map(str, cold.LAYERS)], layers)}\n"
    )


def _fine(one: Estimate) -> str:
    low, high = one.interval
    return f"{one.value:.3f} [{low:.3f}, {high:.3f}]"


def _about(results: Results) -> str:
    known = results.cells.about["fingerprint"][:16]
    return (
        f"\n## How it was made\n\nThe demonstration model, fingerprint `{known}`; seeds 0 to "
        f"{results.options.seeds - 1}, which draw the pairs, the first parameters, the batches and "
        f"the samples. {results.options.n_validation} validation questions, "
        f"{results.options.n_test} test questions, one completion of each a seed, at temperature 1 "
        "and of at most 64 tokens.\n"
    )
