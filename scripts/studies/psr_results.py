"""The results of the PSR study, read from its cells, and what the hypotheses ask of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import psr_plan as plan
from cells import Cells
from estimates import Estimate, estimate
from study import model

EVEN, UNEVEN = 2.0, 10.0
MARGIN = 2.0


@dataclass(frozen=True, eq=False)
class Results:
    """The cells of one study, by attribute and method."""

    cells: Cells
    options: plan.Options

    @property
    def n_layers(self) -> int:
        return model().cfg.n_layers

    @property
    def attributes(self) -> tuple[str, ...]:
        return plan.attributes()

    def configuration(self, attribute: str, method: str) -> int:
        return plan.chosen(self.cells, attribute, method, self.n_layers)

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
        level = plan.middle(self.n_layers)
        found = Errors.of(
            [
                self.cells.get("same_layer", attribute, method, level, seed)
                for seed in range(self.options.seeds)
            ]
        )
        assert found is not None
        return found

    def on_own_span(self, attribute: str, method: str, configuration: int) -> "Errors":
        """Errors that count the last prompt token too, as the training does."""
        name, seeds = "with_last_prompt_token", range(self.options.seeds)
        found = Errors.of(
            [self.cells.get(name, attribute, method, configuration, seed) for seed in seeds]
        )
        assert found is not None
        return found

    def in_other_words(self, attribute: str, which: str) -> "Errors":
        """Of "equivalents" or "neutral" prompts."""
        found = Errors.of([self.cells.get("prompt", attribute)[which]])
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


Found = dict[str, Estimate | None]


def h1(results: Results) -> Found:
    """The smallest over layers of the median ratio within a response."""
    found: Found = {}
    for draw, attribute in enumerate(results.attributes):
        ratios = np.array(results.cells.get("prompt", attribute)["within"], dtype=float)
        found[attribute] = estimate(
            lambda _, e, r=ratios: float(np.median(r[:, e], axis=1).min()), 1, ratios.shape[1], draw
        )
    return found


def h2(results: Results, method: str, last: bool) -> Found:
    """RelRMSE at the own layer; or that at the last layer less that at the own."""
    found: Found = {}
    for draw, attribute in enumerate(results.attributes):
        strength = "matched" if results.options.judged else "1"
        errors = results.errors(attribute, method, strength)
        own = plan.own_layer(method, results.configuration(attribute, method), results.n_layers)
        found[attribute] = errors and errors.statistic(
            lambda r, own=own: float(r[-1] - r[own] if last else r[own]), draw
        )
    return found


def h3a(results: Results) -> Found:
    """The largest difference between A-PSR_MSE and equivalent prompts from mid-depth on."""
    found: Found = {}
    for draw, attribute in enumerate(results.attributes):
        mine, other = (
            results.errors(attribute, "A-PSR_MSE", "1"),
            results.in_other_words(attribute, "equivalents"),
        )
        assert mine is not None
        found[attribute] = _largest(mine, other, results.n_layers // 2, draw)
    return found


def h3b(results: Results) -> Found:
    """The largest difference between S-PSR_MSE and S-Const_MSE from the middle layer on."""
    own = plan.layers_tried(results.n_layers)[plan.middle(results.n_layers)]
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


def difference(
    results: Results, first: tuple[str, str], second: tuple[str, str], kind: str = "attribute"
) -> Found:
    """Score of (method, strength) less that of another, question by question."""
    found: Found = {}
    for draw, attribute in enumerate(results.attributes):
        one, two = (results.scores(attribute, *which, kind) for which in (first, second))
        apart = one - two
        found[attribute] = estimate(
            lambda s, q, apart=apart: float(np.nanmean(apart[np.ix_(s, q)])), *apart.shape, draw
        )
    return found


@dataclass(frozen=True, eq=False)
class Claim:
    """A row of the table: a quantity by attribute, and the side of the bound that is claimed."""

    name: str
    found: Found
    bound: float
    above: bool
    coherence: Found | None = None


def claims(results: Results) -> list[Claim]:
    """Every claim, in order."""
    ratios = h1(results)
    made = [
        Claim(f"H1a ratio > {EVEN:g}", ratios, EVEN, True),
        Claim(f"H1b ratio > {UNEVEN:g}", ratios, UNEVEN, True),
    ]
    for method in ("S-Const_DiM", "S-Const_MSE"):
        own, last = (h2(results, method, which) for which in (False, True))
        made.append(Claim(f"H2a {method}, own layer > 1", own, 1, True))
        made.append(Claim(f"H2b {method}, last less own < 0", last, 0, False))
    made.append(Claim("H3a A-PSR less equivalent < 0", h3a(results), 0, False))
    made.append(Claim("H3b S-PSR less S-Const < 0", h3b(results), 0, False))
    if not results.options.judged:
        return made
    for name, mine, other, bound in (
        ("H4 S-PSR less S-Const_DiM, TA@C80 > 0", ("S-PSR_MSE", "C80"), ("S-Const_DiM", "C80"), 0),
        (
            f"H5 A-PSR less prompt, TA@Cp > -{MARGIN:g}",
            ("A-PSR_MSE", "Cp"),
            ("prompt", "Cp"),
            -MARGIN,
        ),
    ):
        both = (difference(results, mine, other, kind) for kind in ("attribute", "coherence"))
        made.append(Claim(name, next(both), bound, True, next(both)))
    return made
