"""The page of the PSR study: hypotheses and rules first, then verdicts, then the tables."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import psr
from cells import Cells

N_BOOTSTRAP = 1000
EVEN, UNEVEN = 2.0, 10.0
MARGIN = 2.0
SUPPORTED, NOT, UNDECIDED = "supported", "not supported", "undecided"

HYPOTHESES = f"""\
Written before the test split was opened. A verdict is **supported** where the 95 % interval lies
wholly on the side claimed, **not supported** where it lies wholly on the other, else
**undecided**. Intervals come from {N_BOOTSTRAP} resamples of seeds and, within them, of test
questions; the overall estimate is the mean over attributes, which are fixed. "Relative RMSE"
(relRMSE) is the error of a method's activations on the prompted response tokens, over that of not
steering.

- **H1** The strengths of prompt steering are uneven over tokens. (a) At every layer the 95th
  percentile of |Delta| is more than {EVEN:g} times the 5th; (b) more than {UNEVEN:g} times, as
  "orders of magnitude" in the paper would have it. The estimate is the smallest ratio of all
  layers.
- **H2** Constant steering overshoots where it acts and is brought back: at the strength whose
  attribute score is the prompt's, (a) relRMSE at its own layer is above 1, and (b) it is lower at
  the last layer. For S-Const_DiM and S-Const_MSE.
- **H3** (a) A-PSR_MSE is below the equivalent-prompt line at every layer from mid-depth on
  (estimate: the largest difference); (b) S-PSR_MSE is below S-Const_MSE at every layer from its own
  on, both at the middle layer (estimate: the largest difference). Strength 1.
- **H4** S-PSR_MSE has a higher attribute score than S-Const_DiM at C80 (TA@C80). The paper finds 8
  to 12 points more on persona attributes.
- **H5** At the coherence of prompting (Cp) A-PSR_MSE has an attribute score at least equal to that
  of prompting, to within {MARGIN:g} points.

Every method may try {psr.BUDGET} configurations on validation questions with seed 0 (the layer for
S methods, the learning rate for A methods); the one with the best TA@C80 there is kept. Strengths
are found on validation questions and used unchanged on test questions. C80 is 80 % of the unsteered
mean coherence on the same questions; Cp is the prompt's coherence less {psr.TOLERANCE:g} points,
because prompting costs this model no coherence and a bound at its very value would be decided by
noise. Samples at temperature 1, at most 64 tokens.
"""
SEEN = """
Not quite blind: while the code was written, H1's numbers (ratios near 3) and a first PSR were seen
on pairs of *positive*, from earlier weights of the model.
"""
UNJUDGED = """
No judge was at hand: H2 is asked at strength 1, as trained, the configuration kept is the one with
the smallest relRMSE at the last layer on validation pairs, and H4 and H5 are not asked.
"""


@dataclass(frozen=True, eq=False)
class Estimate:
    """A number and what it was in each resample."""

    value: float
    resampled: np.ndarray

    @property
    def interval(self) -> tuple[float, float]:
        low, high = np.nanquantile(self.resampled, [0.025, 0.975])
        return float(low), float(high)

    def __str__(self) -> str:
        low, high = self.interval
        return f"{self.value:.2f} [{low:.2f}, {high:.2f}]"


def mean_of(estimates: Sequence[Estimate]) -> Estimate:
    """The mean over attributes, each resampled by itself."""
    return Estimate(
        float(np.mean([one.value for one in estimates])),
        np.mean([one.resampled for one in estimates], axis=0),
    )


def estimate(
    statistic: Callable[[np.ndarray, np.ndarray], float], n_seeds: int, n: int, draw: int
) -> Estimate:
    """`statistic(seeds, questions)` of all, and of resampled seeds and questions."""
    rng = np.random.default_rng(draw)
    found = [
        statistic(rng.integers(0, n_seeds, n_seeds), rng.integers(0, n, n))
        for _ in range(N_BOOTSTRAP)
    ]
    return Estimate(statistic(np.arange(n_seeds), np.arange(n)), np.array(found))


def verdict(one: Estimate, bound: float, above: bool) -> str:
    """Whether the claim "above (or below) the bound" is supported."""
    low, high = one.interval
    if low > bound:
        return SUPPORTED if above else NOT
    if high < bound:
        return NOT if above else SUPPORTED
    return UNDECIDED


# -- Reading the cells -----------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Results:
    """The cells of one study, by attribute and method."""

    cells: Cells
    options: psr.Options

    @property
    def n_layers(self) -> int:
        return psr.model().cfg.n_layers

    @property
    def attributes(self) -> tuple[str, ...]:
        return psr.attributes()

    @property
    def judged(self) -> bool:
        return bool(self.cells.get("reference", self.attributes[0], "validation", 0))

    def configuration(self, attribute: str, method: str) -> int:
        return psr.chosen(self.cells, attribute, method, self.n_layers)

    def of(self, cell: str, attribute: str, method: str) -> list[Any]:
        """The results of every seed."""
        one = self.configuration(attribute, method)
        return [
            self.cells.get(cell, attribute, method, one, seed) for seed in range(self.options.seeds)
        ]

    def scores(self, attribute: str, method: str, at: str, kind: str) -> np.ndarray:
        """[seed, question] at the strength found for C80 or Cp; "prompt" and "unsteered" too."""
        if method in ("prompt", "unsteered"):
            found = [
                self.cells.get("reference", attribute, "test", seed)[method]
                for seed in range(self.options.seeds)
            ]
        else:
            found = [one[at] for one in self.of("test", attribute, method)]
        return np.array([one["by_question"][kind] for one in found], dtype=float)

    def errors(self, attribute: str, method: str, strength: str) -> "Errors | None":
        """Squared errors at a strength, of the seeds that have it."""
        found = [one["errors"].get(strength) for one in self.of("test", attribute, method)]
        return Errors.of([one for one in found if one is not None])

    def at_middle(self, attribute: str, method: str) -> "Errors":
        level = psr.middle(self.n_layers)
        found = Errors.of(
            [
                self.cells.get("same_layer", attribute, method, level, seed)
                for seed in range(self.options.seeds)
            ]
        )
        assert found is not None
        return found

    def equivalents(self, attribute: str) -> "Errors":
        found = Errors.of([self.cells.get("prompt", attribute)["equivalents"]])
        assert found is not None
        return found


@dataclass(frozen=True, eq=False)
class Errors:
    """Squared errors [seed, layer, example], and those of not steering."""

    above: np.ndarray
    below: np.ndarray

    @classmethod
    def of(cls, found: Sequence[Mapping[str, Any]]) -> "Errors | None":
        if not found:
            return None
        return cls(*(np.array([one[part] for one in found]) for part in ("above", "below")))

    def relative(self, seeds: np.ndarray, examples: np.ndarray) -> np.ndarray:
        """RelRMSE of each layer, pooled over these seeds and examples."""
        some = np.ix_(seeds % len(self.above), range(self.above.shape[1]), examples)
        return np.sqrt(self.above[some].sum(axis=(0, 2)) / self.below[some].sum(axis=(0, 2)))

    @property
    def n(self) -> int:
        return self.above.shape[2]

    @property
    def seeds(self) -> int:
        return len(self.above)

    def statistic(self, of: Callable[[np.ndarray], float], draw: int) -> Estimate:
        """A number made of the layers' relRMSE."""
        return estimate(lambda s, e: of(self.relative(s, e)), self.seeds, self.n, draw)


# -- Hypotheses ------------------------------------------------------------------------------------

Found = dict[str, Estimate | None]


def h1(results: Results) -> dict[str, tuple[float, float, float]]:
    """The smallest ratio of all layers, with the interval of that layer."""
    found = {}
    for attribute in results.attributes:
        table = results.cells.get("prompt", attribute)["dispersion"]
        least = int(np.argmin(table["ratio"]))
        found[attribute] = tuple(table[c][least] for c in ("ratio", "ratio_low", "ratio_high"))
    return found


def h2(results: Results, method: str, last: bool) -> Found:
    """RelRMSE at the own layer; or that at the last layer less that at the own."""
    found: Found = {}
    for draw, attribute in enumerate(results.attributes):
        strength = "matched" if results.judged else "1"
        errors = results.errors(attribute, method, strength)
        own = psr.own_layer(method, results.configuration(attribute, method), results.n_layers)
        found[attribute] = errors and errors.statistic(
            lambda r, own=own: float(r[-1] - r[own] if last else r[own]), draw
        )
    return found


def h3a(results: Results) -> Found:
    """The largest difference between A-PSR_MSE and equivalent prompts from mid-depth on."""
    found: Found = {}
    for draw, attribute in enumerate(results.attributes):
        mine, other = results.errors(attribute, "A-PSR_MSE", "1"), results.equivalents(attribute)
        assert mine is not None
        found[attribute] = _largest(mine, other, results.n_layers // 2, draw)
    return found


def h3b(results: Results) -> Found:
    """The largest difference between S-PSR_MSE and S-Const_MSE from the middle layer on."""
    own = psr.layers_tried(results.n_layers)[psr.middle(results.n_layers)]
    return {
        attribute: _largest(
            results.at_middle(attribute, "S-PSR_MSE"),
            results.at_middle(attribute, "S-Const_MSE"),
            own,
            draw,
        )
        for draw, attribute in enumerate(results.attributes)
    }


def _largest(mine: Errors, other: Errors, first: int, draw: int) -> Estimate:
    def statistic(seeds: np.ndarray, examples: np.ndarray) -> float:
        difference = mine.relative(seeds, examples) - other.relative(seeds, examples)
        return float(difference[first:].max())

    return estimate(statistic, mine.seeds, mine.n, draw)


def difference(results: Results, first: tuple[str, str], second: tuple[str, str]) -> Found:
    """Attribute score of (method, strength) less that of another, question by question."""
    found: Found = {}
    for draw, attribute in enumerate(results.attributes):
        one, two = (results.scores(attribute, *which, "attribute") for which in (first, second))
        apart = one - two
        found[attribute] = estimate(
            lambda s, q, apart=apart: float(np.nanmean(apart[np.ix_(s, q)])), *apart.shape, draw
        )
    return found


# -- The page --------------------------------------------------------------------------------------


def page(cells: Cells | None, options: psr.Options, until: str) -> str:
    """The page as Markdown; without results the hypotheses alone."""
    head = (
        "# Prompt steering as activation steering\n\n"
        "Written by `python scripts/studies/psr.py"
        f"{'' if options.model == 'demo' else f' --model {options.model}'}`. The question is that "
        "of Heyman & Vandeputte, "
        '"Steer Like the LLM" (arXiv 2605.03907): how does an instruction act on the tokens of a '
        "response, and which activation methods do the same?\n\n## Hypotheses\n\n" + HYPOTHESES
    )
    judged = not options.prefix and (not options.questions or options.judge is not None)
    head += (SEEN if options.model == "demo" else "") + ("" if judged else UNJUDGED)
    if cells is None or until == "validation":
        return head + "\nThe test split has not been opened yet.\n"
    psr.begin(options)  # run as a script, the study itself is another module: __main__
    results = Results(cells, options)
    parts = [head, _verdicts(results), _prompt(results), _faithfulness(results)]
    if results.judged:
        parts.append(_scores(results))
    return "\n".join([*parts, _configurations(results), _about(results)])


def _verdicts(results: Results) -> str:
    rows = []
    for name, bound in (("H1a", EVEN), ("H1b", UNEVEN)):
        found = h1(results)
        sides = [
            SUPPORTED if low > bound else NOT if high < bound else UNDECIDED
            for _, low, high in found.values()
        ]
        whole = sides[0] if len(set(sides)) == 1 else UNDECIDED
        each = [f"{v:.2f} [{low:.2f}, {high:.2f}]" for v, low, high in found.values()]
        rows.append([f"{name} ratio > {bound:g}", *each, "", f"**{whole}**"])
    claims: list[tuple[str, Found, float, bool]] = []
    for method in ("S-Const_DiM", "S-Const_MSE"):
        claims.append((f"H2a {method}, own layer > 1", h2(results, method, False), 1, True))
        claims.append((f"H2b {method}, last less own < 0", h2(results, method, True), 0, False))
    claims.append(("H3a A-PSR less equivalent < 0", h3a(results), 0, False))
    claims.append(("H3b S-PSR less S-Const < 0", h3b(results), 0, False))
    if results.judged:
        four = difference(results, ("S-PSR_MSE", "C80"), ("S-Const_DiM", "C80"))
        five = difference(results, ("A-PSR_MSE", "Cp"), ("prompt", "Cp"))
        claims.append(("H4 S-PSR less S-Const_DiM, TA@C80 > 0", four, 0, True))
        claims.append((f"H5 A-PSR less prompt, TA@Cp > -{MARGIN:g}", five, -MARGIN, True))
    for name, found, bound, above in claims:
        known = [one for one in found.values() if one is not None]
        each = ["no match" if one is None else str(one) for one in found.values()]
        if known:
            whole = mean_of(known)
            rows.append([name, *each, str(whole), f"**{verdict(whole, bound, above)}**"])
        else:
            rows.append([name, *each, "", f"**{UNDECIDED}**"])
    table = markdown(["claim", *results.attributes, "mean", "verdict"], rows)
    return (
        f"\n## Verdicts\n\nEstimates with 95 % intervals, {results.options.seeds} seeds, "
        f"{results.equivalents(results.attributes[0]).n} test questions for each attribute. "
        '"No match": at no strength does the method score as the prompt does, in any seed.\n\n'
        f"{table}\n"
    )


def _prompt(results: Results) -> str:
    rows = []
    for attribute in results.attributes:
        found = results.cells.get("prompt", attribute)
        spread, shares = found["dispersion"], found["rank_share"]
        for i, layer in enumerate(spread["layer"]):
            row = [attribute if i == 0 else "", str(layer)]
            row.append(_with_interval(spread, "ratio", i))
            row.append(_with_interval(spread, "gini", i))
            for axes in ("mean push", "best 1", "best 8"):
                row.append(_of(shares, {"layer": layer, "axes": axes}, "share"))
            for one in found["decodability"]:
                row.append(_of(one, {"layer": layer, "readout": "linear"}, "r2"))
                row.append(_of(one, {"layer": layer, "readout": "relu"}, "r2"))
            rows.append(row)
    head = ["attribute", "layer", "95th / 5th", "Gini", "mean push", "best axis", "best 8"]
    head += ["R² along, linear", "R² along, relu", "R² norm, linear", "R² norm, relu"]
    return (
        "\n## What the prompt does\n\nOn the prompted responses of the test split. Dispersion is "
        "of |Delta| over tokens (assumption 3.2); then the share of |Delta|² along the mean push, "
        "the best axis and the best eight axes of other questions (3.1); then the R², on other "
        "questions, of a token's strength read off its plain activation (3.2a).\n\n"
        f"{markdown(head, rows)}\n"
    )


def _faithfulness(results: Results) -> str:
    layers = [f"layer {layer}" for layer in range(results.n_layers)]
    rows = []
    for draw, attribute in enumerate(results.attributes):
        named = [("equivalent prompts", "", results.equivalents(attribute))]
        for method in psr.METHODS:
            for strength in ("1", "matched"):
                errors = results.errors(attribute, method, strength)
                if errors is not None:
                    named.append((method, strength, errors))
        for i, (name, strength, errors) in enumerate(named):
            cells = [
                str(errors.statistic(lambda r, layer=layer: float(r[layer]), draw))
                for layer in range(results.n_layers)
            ]
            rows.append([attribute if i == 0 else "", name, strength, *cells])
    return (
        "\n## Faithfulness\n\nrelRMSE to the prompted activations on the test responses; 1 is the "
        "error of not steering. A strength is 1 (as trained) or matched (the prompt's attribute "
        "score on validation questions; left out where there is none).\n\n"
        f"{markdown(['attribute', 'method', 'strength', *layers], rows)}\n"
    )


def _scores(results: Results) -> str:
    rows = []
    for draw, attribute in enumerate(results.attributes):
        for i, method in enumerate(("unsteered", "prompt", *psr.METHODS)):
            row = [attribute if i == 0 else "", method]
            for at in ("C80", "Cp") if method in psr.METHODS else ("C80",):
                for kind in ("attribute", "coherence"):
                    scores = results.scores(attribute, method, at, kind)
                    row.append(
                        str(
                            estimate(
                                lambda s, q, x=scores: float(np.nanmean(x[np.ix_(s, q)])),
                                *scores.shape,
                                draw,
                            )
                        )
                    )
                if method in psr.METHODS:
                    found = [one[at] for one in results.of("validate", attribute, method)]
                    strengths = ", ".join(f"{one['strength']:.3g}" for one in found)
                    row.append(strengths + _missed(found))
            rows.append(row + [""] * (8 - len(row)))
    head = ["attribute", "method", "TA@C80", "coherence", "strengths"]
    head += ["TA@Cp", "coherence", "strengths"]
    # Rows without strengths hold their scores in the first columns.
    for row in rows:
        if row[1] in ("unsteered", "prompt"):
            row[4] = ""
    return (
        "\n## Attribute and coherence\n\nMean scores on test questions, with the strength that "
        "each seed was given by the validation questions. `unsteered` and `prompt` have no "
        "strength: their scores stand in the first columns. \\* not reached: the most coherent "
        "strength instead; + no bound: still that coherent at the largest strength tried.\n\n"
        f"{markdown(head, rows)}\n"
    )


def _missed(found: Sequence[Mapping[str, Any]]) -> str:
    stars = "".join(["\\*" if not all(one["reached"] for one in found) else ""])
    return stars + ("+" if not all(one["bounded"] for one in found) else "")


def _configurations(results: Results) -> str:
    rows = []
    for attribute in results.attributes:
        for i, method in enumerate(psr.METHODS):
            one = results.configuration(attribute, method)
            fits = results.of("fit", attribute, method)
            seconds = np.mean([fit["seconds"] for fit in fits])
            firing = [
                f"{np.mean(rates):.2f}"
                for rates in fits[0].get("firing", {}).values()
                if psr.METHODS[method].gated
            ]
            chosen = psr.described(method, one, results.n_layers)
            row = [attribute if i == 0 else "", method, chosen, f"{seconds:.0f}", " ".join(firing)]
            rows.append(row)
    head = ["attribute", "method", "chosen", "CPU s a fit", "gates open (seed 0, by layer)"]
    return f"\n## What was chosen on validation questions\n\n{markdown(head, rows)}\n"


def _about(results: Results) -> str:
    kept, about = results.options, results.cells.about
    chosen = (
        " (prompted responses that both judges give 50 points or more)" if results.judged else ""
    )
    return (
        f"\n## How it was made\n\nModel {kept.model}, fingerprint `{about['fingerprint'][:16]}`; "
        f"seeds 0 to {kept.seeds - 1}, which draw the {kept.n_train} training pairs{chosen}, the "
        f"first parameters, and the samples; {kept.epochs} epochs in batches of 8; {kept.samples} "
        "completions of each validation question, one of each test question.\n"
    )


def _with_interval(table: Mapping[str, Any], name: str, i: int) -> str:
    low, high = table[f"{name}_low"][i], table[f"{name}_high"][i]
    return f"{table[name][i]:.2f} [{low:.2f}, {high:.2f}]"


def _of(table: Mapping[str, Any], where: Mapping[str, Any], name: str) -> str:
    for i in range(len(table[name])):
        if all(table[key][i] == value for key, value in where.items()):
            return f"{table[name][i]:.2f} [{table['low'][i]:.2f}, {table['high'][i]:.2f}]"
    return "–"


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
