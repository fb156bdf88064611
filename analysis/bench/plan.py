"""Which cells a bench has, in the order to make them in: validation, the choice, then test.

What is tested depends on what was chosen, so the cells of the test splits can be named only once
the validation scores of their method are there: `named` says all that can be named by now. The
choice is given validation scores and no other (`curves`), so it cannot see the test questions.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from ..measures.plain_side import BY_TEMPLATE, NEUTRALLY
from .catalogue import METHODS
from .cells import Cell, Cells, digest_of
from .kinds import (
    EQUIVALENT,
    NEUTRAL,
    PROMPT,
    UNSTEERED,
    baseline_cell,
    effects_cell,
    fit_cell,
    judge_cell,
    side_cell,
    spread_cell,
    steered_cell,
    write_cell,
    written_cell,
)
from .rules import Chosen, Curve, Scores, choose
from .spec import Spec
from .tasks import CHOICE, Task
from .writing import NULLS

CHOSEN_WITH = 0
"""The seed of the validation scores that everything is chosen with."""
VALIDATION, TEST = "validation", "test"
AS_FITTED, EQUAL_KL = "as fitted", 1.0


@dataclass(frozen=True, eq=False)
class Plan:
    """A bench, and the results that are there."""

    spec: Spec
    tasks: Mapping[str, Task]
    cells: Cells

    def named(self, shard: tuple[int, int] = (0, 1)) -> list[Cell]:
        """All cells of a shard that can be named by now, each once, in order."""
        parts = [
            (task, method)
            for task in self.tasks.values()
            for method in (None, *self.spec.methods)
            if of_shard(task.name, method, shard)
        ]
        listed = [cell for part in parts for cell in self._validation(*part)]
        listed += [cell for part in parts for cell in self._test(*part)]
        return list(dict.fromkeys(listed))

    def asked(self) -> dict[str, Cell]:
        """By digest: all cells that can be named by now, and those that they are made of."""
        return {one.digest: one for cell in self.named() for one in (cell, *cell.inner)}

    def left(self, shard: tuple[int, int] = (0, 1)) -> list[Cell]:
        """Those that are not done."""
        return [cell for cell in self.named(shard) if not self.cells.there(cell)]

    def total(self, shard: tuple[int, int] = (0, 1)) -> int:
        """How many there will be at most, with those that cannot be named yet."""
        spec, n = self.spec, len(self.named(shard))
        waiting = [
            method
            for task in self.tasks.values()
            for method in spec.methods
            if of_shard(task.name, method, shard) and self.curves(task, method) is None
        ]
        return n + len(waiting) * (spec.seeds * (1 + len(spec.rules) + 2) + len(self.tasks))

    def _validation(self, task: Task, method: str | None) -> Iterator[Cell]:
        spec = self.spec
        yield baseline_cell(spec, task, UNSTEERED, CHOSEN_WITH, VALIDATION)
        if method is None:
            yield baseline_cell(spec, task, PROMPT, CHOSEN_WITH, VALIDATION)
            return
        for configuration in self.configurations(method):
            yield fit_cell(spec, task, method, configuration, CHOSEN_WITH)
            if self.reason(task, method, configuration) is None:
                for factor in spec.factors:
                    yield self.tried(task, method, configuration, factor)

    def _test(self, task: Task, method: str | None) -> Iterator[Cell]:
        if method is None:
            yield from self._baselines(task)
            return
        choices = [self.chosen(task, method, rule) for rule in self.spec.rules]
        known = [one for one in choices if one is not None]
        for seed in range(self.spec.seeds) if known else ():
            yield from self._tested(task, method, known, seed)

    def _tested(self, task: Task, method: str, known: list[Chosen], seed: int) -> Iterator[Cell]:
        spec, configuration = self.spec, known[0].configuration
        fit = fit_cell(spec, task, method, configuration, seed)
        yield fit
        if self.reason(task, method, configuration, seed) is not None:
            return
        for strength in dict.fromkeys(one.strength for one in known):
            yield steered_cell(spec, task, method, configuration, seed, TEST, strength)
        if not METHODS[method].prompted:
            for strength in (AS_FITTED, EQUAL_KL):
                yield effects_cell(spec, task, TEST, seed, fit=fit, strength=strength)
        if seed == CHOSEN_WITH:
            yield from self.besides(task, self.written(task, method, known[0], seed))

    def besides(self, task: Task, written: Cell) -> Iterator[Cell]:
        """Side effects, and the judges of all other attributes: with one seed, as they are dear."""
        yield side_cell(self.spec, task, written)
        for other in self.tasks.values():
            if other.name != task.name and other.judge != CHOICE:
                yield judge_cell(self.spec, written, other)

    def written(self, task: Task, method: str, chosen: Chosen, seed: int) -> Cell:
        """The completions of a method on test questions, at what was chosen."""
        number, strength = chosen.configuration, chosen.strength
        return written_cell(self.spec, task, method, number, seed, TEST, strength)

    def _baselines(self, task: Task) -> Iterator[Cell]:
        spec = self.spec
        nulls = () if task.judge == CHOICE else NULLS  # there is no text that could fool a judge
        sources = [UNSTEERED, PROMPT, *self.references(task), *nulls]
        for seed in range(spec.seeds):
            for source in sources:
                yield baseline_cell(spec, task, source, seed, TEST)
            for reference in self.references(task):
                yield effects_cell(spec, task, TEST, seed, reference=reference)
            for baseline in (BY_TEMPLATE, NEUTRALLY):
                yield spread_cell(spec, task, seed, baseline)
        for source in (UNSTEERED, PROMPT):
            written = write_cell(spec, task, TEST, CHOSEN_WITH, source)
            cells = self.besides(task, written)
            # A prompt does nothing to text that it does not stand before: it has no side effects.
            yield from (cell for cell in cells if source == UNSTEERED or cell.kind != "side")

    @staticmethod
    def references(task: Task) -> list[str]:
        """Other instructions that a task has."""
        there = {EQUIVALENT: task.equivalents, NEUTRAL: task.neutral}
        return [name for name, texts in there.items() if texts]

    def configurations(self, method: str) -> range:
        """By number; every method has as many."""
        return range(METHODS[method].configurations or self.spec.configurations)

    def tried(self, task: Task, method: str, configuration: int, factor: float) -> Cell:
        """The validation scores of a configuration at a strength."""
        return steered_cell(self.spec, task, method, configuration, CHOSEN_WITH, VALIDATION, factor)

    def reason(
        self, task: Task, method: str, configuration: int, seed: int = CHOSEN_WITH
    ) -> str | None:
        """Why a method could not be fitted; None where it could, or where that is not known yet."""
        told = self.cells.read(fit_cell(self.spec, task, method, configuration, seed))
        return None if told is None else told["reason"]

    def curves(self, task: Task, method: str) -> dict[int, Curve] | None:
        """The validation curves of a method; None while one of their scores is missing.

        A configuration that could not be fitted has none: there may be no curve at all.
        """
        curves = {}
        for configuration in self.configurations(method):
            if self.reason(task, method, configuration) is not None:
                continue
            attribute, coherence = {}, {}
            for factor in self.spec.factors:
                found = self.cells.read(self.tried(task, method, configuration, factor))
                if found is None:
                    return None
                attribute[factor], coherence[factor] = both_scores(found)
            curves[configuration] = Curve(attribute, coherence)
        return curves

    def chosen(self, task: Task, method: str, rule: str) -> Chosen | None:
        """What a rule chooses; None while a score is missing, or where nothing could be fitted."""
        cell = baseline_cell(self.spec, task, UNSTEERED, CHOSEN_WITH, VALIDATION)
        curves, unsteered = self.curves(task, method), self.cells.read(cell)
        if not curves or unsteered is None:
            return None
        return choose(rule, curves, both_scores(unsteered)[1])


def of_shard(task: str, method: str | None, shard: tuple[int, int]) -> bool:
    """Whether a task and method belong to shard i of n; a method's cells stay together."""
    number, n = shard
    return int(digest_of([task, method]), 16) % n == number


def both_scores(found: Mapping[str, list[list[float | None]]]) -> tuple[Scores, Scores]:
    """Attribute and coherence of a judge cell, NaN where there is no score."""
    return as_scores(found["attribute"]), as_scores(found["coherence"])


def as_scores(rows: list[list[float | None]]) -> Scores:
    """[question, sample], NaN for None."""
    return np.array([[np.nan if one is None else one for one in row] for row in rows], dtype=float)
