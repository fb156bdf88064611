"""The results of a bench as CSV files, and as one HTML report that begins with what they say."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from steerlens.whole import write_whole

from ..figures import estimate_panels, line_panels, tradeoff_curve
from ..reports.page import Report
from .bench import Bench, provenance
from .collect import ATTRIBUTE, COHERENCE, HARMONIC, WORDS
from .estimates import coverage_note
from .kinds import PROMPT, UNSTEERED, baseline_cell
from .plan import CHOSEN_WITH, TEST, VALIDATION
from .standings import pairwise
from .warned import by_kind

if TYPE_CHECKING:
    from .collect import Collected

REPORT, TABLES = "report.html", "tables"
WARNED = "What the library warned of"
CHOICES = (
    "Strengths are in units of each fit. Strongest: no stronger one was tried. Crossing: where the "
    "threshold of C80 lies; where it is beyond the strongest strength tried, that one is taken, "
    "and has more than 80 % of the unsteered coherence; where it is before the weakest, that one "
    "is taken, and has less. Coherence kept: on test questions, over that of the unsteered model."
)
WARNINGS = (
    "A row for each kind of cell, method and kind of warning, with the numbers of the first of its "
    "kind; warnings.csv has all."
)
SCORE = "Harmonic mean of attribute and coherence"


def write_report(bench: Bench, folder: str | Path) -> Path:
    """Write `report.html` and a CSV of every table below `tables`; the report's path."""
    folder, collected = Path(folder), bench.collected
    for name, table in tables(collected).items():
        place = folder / TABLES / f"{name}.csv"
        place.parent.mkdir(exist_ok=True)
        write_whole(place, table.to_csv(index=False).encode())
    return report(bench).write(folder / REPORT)


def tables(collected: Collected) -> dict[str, pd.DataFrame]:
    """Every table by name; a table without rows is left out."""
    made = {
        "scores": collected.points,
        "curves": collected.curves,
        "chosen": collected.chosen,
        "fits": collected.fits,
        "warnings": collected.warned,
        "costs": collected.costs,
        "faithfulness": collected.faithfulness,
        "recovered": collected.recovered,
        "matrix": collected.matrix,
        "side_effects": collected.side_effects,
    }
    for rule in collected.plan.spec.rules:
        name = rule.replace(" ", "_")
        scores = collected.scores(rule)
        if scores:
            made[f"standings_{name}"] = collected.standings(rule)
            made[f"pairwise_{name}"] = pairwise(scores, collected.pairs(rule))
    return {name: table for name, table in made.items() if len(table)}


def report(bench: Bench) -> Report:
    """The whole page."""
    spec, collected = bench.spec, bench.collected
    sizes = {split: questions_of(collected, split) for split in (VALIDATION, TEST)}
    intro = (
        f"{counted(len(spec.methods), 'method')} on {', '.join(bench.tasks)}, on the model "
        f"{spec.model}. Every method was tuned on {sizes[VALIDATION]} of validation with the same "
        f"number of trials ({spec.configurations * len(spec.factors)}), and tested on "
        f"{sizes[TEST]} with {counted(spec.seeds, 'seed')}."
    )
    made = {
        "command": f"steerlens bench collect --out {bench.folder}",
        "model": spec.model,
        "model fingerprint": spec.fingerprint,
        "seeds": spec.seeds,
        "cells not done": len(collected.left),
        "versions": ", ".join(f"{k} {v}" for k, v in provenance()["versions"].items()),
    }
    page = Report("Which method steers best, and how sure is that?", intro, made)
    page = page.found(collected.found)
    for part in (_standings, _attributes, _curves, _faithful, _besides, _costs, _warned):
        page = part(page, collected)
    return page


def counted(n: int, name: str) -> str:
    """A number with its noun."""
    return f"{n} {name}{'s' * (n != 1)}"


def questions_of(collected: Collected, split: str) -> str:
    """How many questions the attributes have in a split."""
    sizes = [len(task.questions[split]) for task in collected.plan.tasks.values()]
    few, many = min(sizes), max(sizes)
    other = "other " * (split == TEST)
    return f"{few} to {many} {other}questions" if few < many else counted(few, f"{other}question")


def _standings(page: Report, collected: Collected) -> Report:
    spec = collected.plan.spec
    note = coverage_note(spec.seeds)
    for rule in spec.rules:
        table = collected.standings(rule)
        if not len(table):
            continue
        page = page.heading(f"Standings, strength chosen by {rule}")
        whole = table.loc[table["mean"].notna()]
        if len(whole):
            figure = estimate_panels(whole, title=f"{SCORE}, mean over attributes")
            page = page.figure(
                figure,
                "Two methods whose intervals overlap may still differ: the table of pairs "
                "(pairwise_*.csv) compares them on the same questions.",
            )
        page = page.table(table, f"Ranks that the data leave open; {note}.")
    return page


def _attributes(page: Report, collected: Collected) -> Report:
    rule = collected.plan.spec.rules[0]
    points = collected.points
    if not len(points):
        return page
    page = page.heading("By attribute")
    for measure, says in (
        (HARMONIC, SCORE),
        (ATTRIBUTE, "Attribute"),
        (COHERENCE, "Coherence"),
        (WORDS, "Completions with one of the attribute's words, in %: a second judge"),
    ):
        rows = points.loc[(points["rule"] == rule) & (points["measure"] == measure)]
        if len(rows):
            figure = estimate_panels(rows, panel="task", title=says)
            page = page.figure(figure, f"{says}. Strength chosen by {rule}.")
    rows = points.loc[points["rule"] == rule]
    return page.table(rows, "The numbers.") if len(rows) else page


def _curves(page: Report, collected: Collected) -> Report:
    curves = collected.curves
    if not len(curves):
        return page
    page = page.heading("What the effect costs in coherence")
    if len(collected.chosen):
        page = page.table(
            collected.chosen,
            f"What each rule chose, on validation questions with seed 0. {CHOICES}",
        )
    for task, part in curves.groupby("task", sort=False):
        first = part.loc[part["configuration"] == 0]
        both = pd.concat([first, *ends(collected, str(task))], ignore_index=True)
        page = page.heading(str(task), 3)
        page = page.figure(
            tradeoff_curve(both),
            "Validation questions, seed 0. A strength of 1 changes the predictions on training "
            "answers as much as the prompt does.",
        )
    return page


def ends(collected: Collected, task: str) -> Iterator[pd.DataFrame]:
    """The unsteered and the prompted point of a trade-off figure."""
    from .collect import curve_row

    plan = collected.plan
    for source in (UNSTEERED, PROMPT):
        cell = baseline_cell(plan.spec, plan.tasks[task], source, CHOSEN_WITH, VALIDATION)
        found = plan.cells.read(cell)
        if found is not None:
            own = {"task": task, "method": source, "strength": float("nan")}
            yield pd.DataFrame([{**own, **curve_row(found)}])


def _faithful(page: Report, collected: Collected) -> Report:
    table = collected.faithfulness
    if not len(table):
        return page
    page = page.heading("How near to the prompt")
    for task, part in table.groupby("task", sort=False):
        rows = part.loc[part["strength"].isin(["", "equal KL"])]
        figure = line_panels(rows, x="layer", y="relative_rmse", panel="task")
        page = page.figure(
            figure,
            f"Relative RMSE to the prompted activations, {task}, every method at the prompt's own "
            "KL; 1 is not steering.",
        )
    return page.table(collected.recovered, "The share of the prompt's effect on the predictions.")


def _besides(page: Report, collected: Collected) -> Report:
    matrix, side = collected.matrix, collected.side_effects
    if len(matrix):
        page = page.heading("Steered for one, measured on all")
        page = page.table(matrix, "Mean scores of seed 0; the words are the second judge.")
    if len(side):
        page = page.heading("Side effects").table(
            side,
            "On excerpts of encyclopedia articles and as many cloze items that no method has seen "
            "(n_items: those that are long enough for the method), and on the method's own "
            "completions; seed 0.",
        )
    return page


def _costs(page: Report, collected: Collected) -> Report:
    if not len(collected.costs):
        return page
    page = page.heading("Costs").table(
        collected.costs,
        "Medians over fits: CPU seconds and memory (MB above what was held before) of a fit, "
        "numbers stored, training pairs; the CPU time of steered over unsteered text; and fits "
        "that came to nothing.",
    )
    unfitted = without_fit(collected)
    return page.table(unfitted, "Fits that came to nothing, and why.") if len(unfitted) else page


def _warned(page: Report, collected: Collected) -> Report:
    if not len(collected.warned):
        return page
    return page.heading(WARNED).table(by_kind(collected.warned), WARNINGS)


def without_fit(collected: Collected) -> pd.DataFrame:
    """The fits that came to nothing, each with its reason."""
    fits = collected.fits
    if not len(fits):
        return fits
    return fits.loc[fits["reason"].notna(), ["task", "method", "configuration", "seed", "reason"]]
