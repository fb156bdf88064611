"""The cells of a bench as tidy tables, whole or so far."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from ..measures.intervals import interval_of_mean, interval_of_ratio
from ..measures.tradeoff import by_question
from .catalogue import METHODS, layer_of
from .cells import Cell
from .estimates import NONE, SCORES, Estimate, mean_score, ratio
from .fitting import TRAINING
from .found import choice_sentences, null_sentences, sentences, training_sentences
from .kinds import (
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
)
from .plan import AS_FITTED, CHOSEN_WITH, EQUAL_KL, TEST, VALIDATION, Plan, as_scores, both_scores
from .rules import Chosen, Scores, harmonic_scores
from .standings import Pairs, standings
from .tasks import Task
from .warned import Counts, warned_cells, warning_sentences
from .writing import NULLS

HARMONIC, ATTRIBUTE, COHERENCE, WORDS = "harmonic", "attribute", "coherence", "words"
LOG_ODDS = "log odds"
"""Of tasks of multiple choice alone, in nats."""
MEASURES = (HARMONIC, ATTRIBUTE, COHERENCE, WORDS, LOG_ODDS)


@dataclass(frozen=True, eq=False)
class Collected:
    """What a plan's results come to; cells that are not there yet are left out, and counted."""

    plan: Plan
    _known: dict[tuple[str, ...], Any] = field(default_factory=dict, init=False, repr=False)
    """What was asked for before: pages ask for the same again and again."""

    @cached_property
    def missing(self) -> int:
        """How many of the cells that can be named are not done, but for those of the matrix."""
        return len(self.left) - self.blank

    @cached_property
    def blank(self) -> int:
        """How many scores of one attribute by the judge of another are not done."""
        judged = [cell for cell in self.left if cell.kind == "judge"]
        return sum(cell["task"] != cell["of"]["task"] for cell in judged)

    @cached_property
    def left(self) -> list[Cell]:
        """All that are not done, of both kinds."""
        return self.plan.left()

    # -- Scores ------------------------------------------------------------------------------------

    def scores(self, rule: str, measure: str = HARMONIC) -> dict[str, dict[str, np.ndarray]]:
        """By method and attribute, [seed, question], on test questions; NaN for a seed not done.

        Prompting, no steering, other instructions and the null texts are methods here.
        """
        if (rule, measure) not in self._known:
            self._known[rule, measure] = self._scores(rule, measure)
        return self._known[rule, measure]

    def _scores(self, rule: str, measure: str) -> dict[str, dict[str, np.ndarray]]:
        table: dict[str, dict[str, np.ndarray]] = {}
        for task in self.plan.tasks.values():
            for source in (UNSTEERED, PROMPT, *self.plan.references(task), *NULLS):
                self._put(table, source, task, measure, self._baseline(task, source))
            for method in self.plan.spec.methods:
                self._put(table, method, task, measure, self._steered(task, method, rule))
        return table

    def _put(
        self,
        table: dict[str, dict[str, np.ndarray]],
        method: str,
        task: Task,
        measure: str,
        seeds: Sequence[dict[str, Any] | None],
    ) -> None:
        found = [None if one is None else measured(one, measure) for one in seeds]
        unknown = np.full(len(task.questions[TEST]), np.nan)
        rows = [unknown if one is None else by_question(one) for one in found]
        if not np.isnan(rows).all():
            table.setdefault(method, {})[task.name] = np.stack(rows)

    def _baseline(self, task: Task, source: str) -> list[dict[str, Any] | None]:
        return [
            self.plan.cells.read(baseline_cell(self.plan.spec, task, source, seed, TEST))
            for seed in range(self.plan.spec.seeds)
        ]

    def _steered(self, task: Task, method: str, rule: str) -> list[dict[str, Any] | None]:
        chosen = self._chosen(task, method, rule)
        if chosen is None:
            return []
        configuration, strength = chosen.configuration, chosen.strength
        return [
            self.plan.cells.read(
                steered_cell(self.plan.spec, task, method, configuration, seed, TEST, strength)
            )
            for seed in range(self.plan.spec.seeds)
        ]

    def _chosen(self, task: Task, method: str, rule: str) -> Chosen | None:
        """What a rule chooses for a method, read off its curves once."""
        key = ("chosen", task.name, method, rule)
        if key not in self._known:
            self._known[key] = self.plan.chosen(task, method, rule)
        return self._known[key]

    def _read(self, cells: Iterator[Any]) -> list[dict[str, Any]]:
        found = [self.plan.cells.read(cell) for cell in cells]
        return [one for one in found if one is not None]

    def standings(self, rule: str) -> pd.DataFrame:
        """`standings` of the harmonic means; empty where nothing has been tested yet."""
        if (rule,) not in self._known:
            scores = self.scores(rule)
            found = standings(scores, self.pairs(rule)) if scores else pd.DataFrame()
            self._known[rule,] = found
        return self._known[rule,]

    def pairs(self, rule: str) -> Pairs:
        """The paired differences of the harmonic means."""
        if ("pairs", rule) not in self._known:
            self._known["pairs", rule] = Pairs(self.scores(rule))
        return self._known["pairs", rule]

    @cached_property
    def found(self) -> list[str]:
        """What the results say, by the first rule."""
        rule = self.plan.spec.rules[0]
        attribute = self.scores(rule, ATTRIBUTE)
        return [
            *sentences(self.standings(rule), self.scores(rule), rule, self.pairs(rule)),
            *self._untested(rule),
            *null_sentences(attribute),
            *choice_sentences(self.chosen),
            *training_sentences(self.fits),
            *warning_sentences(*self._warned),
        ]

    def _untested(self, rule: str) -> list[str]:
        """The methods that no table has a score of: those that could not be fitted, with why."""
        fits, known = self.fits, self.scores(rule)
        if not len(fits):
            return []
        lost = fits.loc[~fits["method"].isin(list(known)) & fits["reason"].notna()]
        why = lost.groupby("method", sort=False)["reason"].first()
        return [
            f"{method} could not be fitted: {str(told).rstrip('.')}."
            for method, told in why.items()
        ]

    @cached_property
    def points(self) -> pd.DataFrame:
        """A row for each attribute, method, rule and measure: mean, low, high, seeds, questions."""
        rows = []
        for rule in self.plan.spec.rules:
            for measure in MEASURES:
                for method, by_task in self.scores(rule, measure).items():
                    for task, scores in by_task.items():
                        bounds = NONE if measure == LOG_ODDS else SCORES
                        one = mean_score(scores, bounds=bounds)
                        rows.append([task, method, rule, measure, *_numbers(one)])
        columns = "task method rule measure mean low high n_seeds n_questions"
        return pd.DataFrame(rows, columns=pd.Index(columns.split()))

    # -- Tuning ------------------------------------------------------------------------------------

    @cached_property
    def curves(self) -> pd.DataFrame:
        """The validation scores of all strengths and configurations; intervals over questions."""
        rows = []
        for task in self.plan.tasks.values():
            for method in self.plan.spec.methods:
                for number in self.plan.configurations(method):
                    for factor in self.plan.spec.factors:
                        found = self.plan.cells.read(self.plan.tried(task, method, number, factor))
                        if found is not None:
                            own = {"task": task.name, "method": method, "strength": factor}
                            rows.append({**own, "configuration": number, **curve_row(found)})
        return pd.DataFrame(rows)

    @cached_property
    def chosen(self) -> pd.DataFrame:
        """What each rule chose, on validation questions with seed 0.

        Columns: task, method, rule, configuration, strength (in units of the fit), strongest
        (whether that is the strongest tried), met and crossing (of `Chosen`), coherence_kept (mean
        coherence on test questions over that of the unsteered model, all seeds; NaN while a score
        is missing).
        """
        rows, strongest = [], max(self.plan.spec.factors)
        for task, method, rule in self._each():
            one = self._chosen(task, method, rule)
            if one is not None:
                own = [task.name, method, rule, one.configuration, one.strength]
                kept = self._coherence_kept(task.name, method, rule)
                rows.append([*own, one.strength >= strongest, one.met, one.crossing, kept])
        columns = "task method rule configuration strength strongest met crossing coherence_kept"
        return pd.DataFrame(rows, columns=pd.Index(columns.split()))

    def _coherence_kept(self, task: str, method: str, rule: str) -> float:
        """Mean coherence on test questions over the unsteered model's; NaN where one is lacking."""
        scores = self.scores(rule, COHERENCE)
        steered, plain = (scores.get(name, {}).get(task) for name in (method, UNSTEERED))
        if steered is None or plain is None:
            return float("nan")
        return float(np.nanmean(steered) / np.nanmean(plain))

    def _each(self) -> Iterator[tuple[Task, str, str]]:
        spec = self.plan.spec
        for task in self.plan.tasks.values():
            yield from ((task, method, rule) for method in spec.methods for rule in spec.rules)

    # -- Side effects ------------------------------------------------------------------------------

    @cached_property
    def matrix(self) -> pd.DataFrame:
        """Steered for one attribute, measured on every one: completions of seed 0.

        Columns: task (steered for), measured, method, mean, low, high (over questions), words (the
        mean of the second judge, NaN where there is none).
        """
        rows = []
        for task, method, written in self._written():
            for by in self.plan.tasks.values():
                found = self.plan.cells.read(judge_cell(self.plan.spec, written, by))
                if found is not None:
                    one = mean_score(by_question(both_scores(found)[0])[None])
                    words = measured(found, WORDS)
                    second = float("nan") if words is None else float(np.nanmean(words))
                    numbers = one.value, one.low, one.high, second
                    rows.append([task.name, by.name, method, *numbers])
        columns = "task measured method mean low high words"
        return pd.DataFrame(rows, columns=pd.Index(columns.split()))

    @cached_property
    def side_effects(self) -> pd.DataFrame:
        """What methods do besides, at the strength of the first rule, seed 0.

        Columns: task, method, perplexity_ratio with _low and _high (of unrelated text, over the
        unsteered), kl_per_token and kl_per_text (nats, on the same; kl_per_text is the sum over the
        tokens of an excerpt, the mean over excerpts), cloze (share right) with cloze_change, _low,
        _high (from the unsteered on the same items), distinct (bigrams over words of its own
        completions), refused (their share), n_items (excerpts, and items, that are long enough for
        the method). Intervals over texts and items.
        """
        rows, plain = [], dict[str, dict[str, Any]]()
        for task, method, written in self._written():
            found = self.plan.cells.read(side_cell(self.plan.spec, task, written))
            if found is None or (found["nll"] is None and "items" not in found):
                continue
            if method == UNSTEERED:
                plain[task.name] = found
            if task.name in plain:
                row = side_row(found, plain[task.name]) if found["nll"] else {"n_items": 0}
                rows.append({"task": task.name, "method": method, **row})
        return pd.DataFrame(rows)

    def _written(self) -> Iterator[tuple[Task, str, Cell]]:
        """The completions to test questions of seed 0, of the model, the prompt, every method."""
        rule = self.plan.spec.rules[0]
        for task in self.plan.tasks.values():
            for source in (UNSTEERED, PROMPT):
                yield task, source, write_cell(self.plan.spec, task, TEST, CHOSEN_WITH, source)
            for method in self.plan.spec.methods:
                chosen = self._chosen(task, method, rule)
                if chosen is not None:
                    yield task, method, self.plan.written(task, method, chosen, CHOSEN_WITH)

    # -- Costs -------------------------------------------------------------------------------------

    @cached_property
    def fits(self) -> pd.DataFrame:
        """A row for each fit: what it cost, its unit, and why there is none where there is none.

        steps, epochs, best_epoch and the validation losses first_loss, best_loss and last_loss are
        of its training; missing where there was none, and in cells of earlier versions.
        """
        rows = []
        for task in self.plan.tasks.values():
            for method in self.plan.spec.methods:
                for number in self.plan.configurations(method):
                    for seed in range(self.plan.spec.seeds):
                        cell = fit_cell(self.plan.spec, task, method, number, seed)
                        told = self.plan.cells.read(cell)
                        if told is not None:
                            keys = (
                                "seconds megabytes parameters examples unit kl kl_of_prompt reached"
                            )
                            kept = {key: told.get(key) for key in (*keys.split(), "reason")}
                            training = told.get("training") or {}
                            kept |= {key: training.get(key) for key in TRAINING}
                            own = {"task": task.name, "method": method}
                            rows.append({**own, "configuration": number, "seed": seed, **kept})
        return pd.DataFrame(rows)

    @property
    def warned(self) -> pd.DataFrame:
        """What the library warned of in the cells that are done, of every kind.

        Columns: kind (of cell), task, method, seed, warning (its first sentence), cells (how many).
        """
        return self._warned[0]

    @cached_property
    def _warned(self) -> tuple[pd.DataFrame, dict[str, Counts]]:
        return warned_cells(self.plan)

    @cached_property
    def costs(self) -> pd.DataFrame:
        """A row for each method: medians over fits, and the time of steered over unsteered text."""
        if self.fits.empty:
            return pd.DataFrame()
        columns = ["seconds", "megabytes", "parameters", "examples"]
        numbers = self.fits[["method", *columns]].astype(dict.fromkeys(columns, float))
        table = numbers.groupby("method", sort=False).median()
        slower = {method: self._slower(method) for method in table.index}
        refused = self.fits.groupby("method", sort=False)["reason"].count()
        return table.assign(time_ratio=pd.Series(slower), not_fitted=refused).reset_index()

    def _slower(self, method: str) -> float:
        """CPU seconds of steered completions over those of unsteered ones to the same questions.

        NaN where the two were made by other code: then they are of other days, and machines are
        not as busy on one as on another.
        """
        ratios = []
        for task in self.plan.tasks.values():
            plain = self._timed(baseline_cell(self.plan.spec, task, UNSTEERED, 0, VALIDATION))
            for factor in self.plan.spec.factors:
                steered = self._timed(self.plan.tried(task, method, 0, factor))
                if plain and steered and plain[0] and steered[0] and plain[1] == steered[1]:
                    ratios.append(steered[0] / plain[0])
        return float(np.median(ratios)) if ratios else float("nan")

    def _timed(self, judged: Cell) -> tuple[float, str | None] | None:
        """What it took to write the texts of a score, and by what code."""
        written = Cell.of_json(judged["of"])
        found = self.plan.cells.read(written)
        return None if found is None else (found["seconds"], self.plan.cells.code_of(written))

    # -- Faithfulness ------------------------------------------------------------------------------

    @cached_property
    def faithfulness(self) -> pd.DataFrame:
        """RelRMSE of every attribute, method, strength and layer, with intervals."""
        rows = []
        for name, method, label, seeds in self._effects():
            n = len(self.plan.tasks[name].questions[TEST])
            missed, whole = (stacked(seeds, key, n) for key in ("missed", "whole"))
            for layer in range(missed.shape[1]):
                one = ratio(missed[:, layer], whole[:, layer])
                rows.append([name, method, label, layer, *_numbers(one)])
        columns = "task method strength layer relative_rmse low high n_seeds n_questions"
        return pd.DataFrame(rows, columns=pd.Index(columns.split()))

    @cached_property
    def joined(self) -> pd.DataFrame:
        """A row for each method and strength, means over attributes and layers.

        Columns: method, strength, relative_rmse, recovered, n_attributes. A method that lacks an
        attribute is left out.
        """
        if not len(self.faithfulness):
            return pd.DataFrame()
        by = ["method", "strength"]
        near = self.faithfulness.groupby(by, sort=False)["relative_rmse"].mean()
        of = self.recovered.groupby(by, sort=False)
        table = pd.concat([near, of["recovered"].mean(), of["task"].nunique()], axis=1)
        table = table.rename(columns={"task": "n_attributes"}).reset_index()
        return table.loc[table["n_attributes"] == len(self.plan.tasks)]

    def distance(self, task: str, method: str, strength: str, layer: int) -> Estimate | None:
        """The relRMSE at one layer (-1 is the last); a reference has the strength "".

        None where it was not measured. Estimates of the same attribute share their
        resamples, so `gap` compares them.
        """
        n = len(self.plan.tasks[task].questions[TEST])
        for name, other, label, seeds in self._effects():
            if (name, other, label) == (task, method, strength):
                missed, whole = (stacked(seeds, key, n)[:, layer] for key in ("missed", "whole"))
                return ratio(missed, whole)
        return None

    def share(self, task: str, method: str, strength: str) -> Estimate | None:
        """The share of the prompt's effect on the predictions that a method has; None: none."""
        n = len(self.plan.tasks[task].questions[TEST])
        for name, other, label, seeds in self._effects():
            if (name, other, label) == (task, method, strength):
                left, whole = (stacked(seeds, key, n) for key in ("kl_left", "kl_prompt"))
                one = ratio(left, whole, root=False)
                ends = {"low": 1 - one.high, "high": 1 - one.low}
                return replace(one, value=1 - one.value, resampled=1 - one.resampled, **ends)
        return None

    def unevenness(self, task: str, baseline: str, layer: int) -> Estimate | None:
        """The decadic logarithm of the 95th over the 5th percentile of |push| within an answer.

        The mean over answers to test questions, at one layer; None where it was not measured.
        """
        one, n = self.plan.tasks[task], len(self.plan.tasks[task].questions[TEST])
        seeds = self._read(
            spread_cell(self.plan.spec, one, seed, baseline) for seed in range(self.plan.spec.seeds)
        )
        if not seeds:
            return None
        parts = [{**found, "low": found["percentiles"][layer][0]} for found in seeds]
        parts = [{**part, "high": part["percentiles"][layer][2]} for part in parts]
        low, high = (stacked(parts, key, n) for key in ("low", "high"))
        return mean_score(np.log10(high / low), bounds=NONE)

    def layer(self, task: str, method: str, n_layers: int) -> int | None:
        """Where a method of one layer acts; None where it is not chosen yet."""
        chosen = self._chosen(self.plan.tasks[task], method, self.plan.spec.rules[0])
        return None if chosen is None else layer_of(chosen.configuration, n_layers)

    @cached_property
    def n_layers(self) -> int:
        """Of the model, by what was measured; 0 where nothing was."""
        return next((len(seeds[0]["missed"]) for *_, seeds in self._effects()), 0)

    @cached_property
    def recovered(self) -> pd.DataFrame:
        """1 - KL(prompted || run) / KL(prompted || plain) of every attribute, method, strength."""
        rows = []
        for name, method, label, seeds in self._effects():
            n = len(self.plan.tasks[name].questions[TEST])
            left, whole = (stacked(seeds, key, n) for key in ("kl_left", "kl_prompt"))
            one = ratio(left, whole, root=False)
            numbers = 1 - one.value, 1 - one.high, 1 - one.low, one.n_seeds, one.n_questions
            rows.append([name, method, label, *numbers])
        columns = "task method strength recovered low high n_seeds n_questions"
        return pd.DataFrame(rows, columns=pd.Index(columns.split()))

    def _effects(self) -> Iterator[tuple[str, str, str, list[dict[str, Any]]]]:
        yield from self._all_effects

    @cached_property
    def _all_effects(self) -> list[tuple[str, str, str, list[dict[str, Any]]]]:
        """They are asked for some hundred times, and naming their cells takes a second."""
        return list(self._found_effects())

    def _found_effects(self) -> Iterator[tuple[str, str, str, list[dict[str, Any]]]]:
        spec = self.plan.spec
        for task in self.plan.tasks.values():
            for reference in self.plan.references(task):
                seeds = self._read(
                    effects_cell(spec, task, TEST, seed, reference=reference)
                    for seed in range(spec.seeds)
                )
                if seeds:
                    yield task.name, reference, "", seeds
            for method in spec.methods:
                yield from self._of_method(task, method)

    def _of_method(
        self, task: Task, method: str
    ) -> Iterator[tuple[str, str, str, list[dict[str, Any]]]]:
        chosen = self._chosen(task, method, self.plan.spec.rules[0])
        if chosen is None or METHODS[method].prompted:
            return
        for label, strength in ((AS_FITTED, AS_FITTED), ("equal KL", EQUAL_KL)):
            seeds = []
            for seed in range(self.plan.spec.seeds):
                fit = fit_cell(self.plan.spec, task, method, chosen.configuration, seed)
                cell = effects_cell(self.plan.spec, task, TEST, seed, fit=fit, strength=strength)
                found = self.plan.cells.read(cell)
                if found is not None and found["missed"] is not None:
                    seeds.append(found)
            if seeds:
                yield task.name, method, label, seeds


def measured(found: Mapping[str, Any], measure: str) -> Scores | None:
    """One measure of a judge cell, [question, sample]; None where its task has no such judge."""
    attribute, coherence = both_scores(found)
    if measure == HARMONIC:
        return harmonic_scores(attribute, coherence)
    if measure == LOG_ODDS:
        return None if "log_odds" not in found else as_scores(found["log_odds"])
    if measure == WORDS:
        return None if found["words"] is None else as_scores(found["words"])
    return attribute if measure == ATTRIBUTE else coherence


def side_row(found: Mapping[str, Any], plain: Mapping[str, Any]) -> dict[str, float]:
    """The side effects of one method on one attribute, against the unsteered model."""
    same = found.get("items", slice(None))  # those that the method took; older cells: all
    nll, n, before = np.array(found["nll"]), np.array(found["tokens"]), np.array(plain["nll"])[same]
    low, high = interval_of_ratio(nll - before, n.astype(float))
    right = np.array(found["correct"], dtype=float)
    was = np.array(plain["correct"], dtype=float)[same]
    cloze = interval_of_mean(right - was)
    return {
        "perplexity_ratio": float(np.exp((nll - before).sum() / n.sum())),
        "perplexity_ratio_low": float(np.exp(low)),
        "perplexity_ratio_high": float(np.exp(high)),
        "kl_per_token": float(np.sum(found["kl"]) / n.sum()),
        "kl_per_text": float(np.mean(found["kl"])),
        "cloze": float(right.mean()),
        "cloze_change": float((right - was).mean()),
        "cloze_change_low": cloze[0],
        "cloze_change_high": cloze[1],
        "distinct": float(np.nanmean(np.array(found["distinct"], dtype=float))),
        "refused": float(np.mean(found["refused"])),
        "n_items": len(nll),
    }


def stacked(seeds: list[dict[str, Any]], key: str, n: int) -> np.ndarray:
    """[seed, ..., question]; NaN for a question whose answer is empty (the model ended at once)."""
    parts = []
    for one in seeds:
        values = np.array(one[key], dtype=float)
        whole = np.full((*values.shape[:-1], n), np.nan)
        whole[..., one["question"]] = values
        parts.append(whole)
    return np.stack(parts)


def _numbers(one: Estimate) -> tuple[float, float, float, int, int]:
    return one.value, one.low, one.high, one.n_seeds, one.n_questions


def curve_row(found: Mapping[str, Any]) -> dict[str, float]:
    """Means with their intervals over questions, and counts."""
    attribute, coherence = both_scores(found)
    row: dict[str, float] = {}
    for name, scores in ((ATTRIBUTE, attribute), (COHERENCE, coherence)):
        one = mean_score(by_question(scores)[None])
        row |= {name: one.value, f"{name}_low": one.low, f"{name}_high": one.high}
    whole = float(harmonic_scores(attribute, coherence).mean())
    scored = int((~np.isnan(attribute)).sum())
    return row | {HARMONIC: whole, "n": attribute.size, "scored": scored}
