"""The results of a bench as a page in Markdown with pictures, for a folder that is kept."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from steerlens.whole import write_whole

from ..figures import effect_against_faithfulness, estimate_panels, save, tradeoff_curve
from ..reports.markdown import markdown_folded, markdown_picture, markdown_table
from .catalogue import METHODS
from .collect import ATTRIBUTE, COHERENCE, HARMONIC, WORDS, Collected
from .estimates import coverage_note
from .found import listed
from .report import CHOICES, SCORE, WARNED, counted, ends, without_fit
from .warned import by_kind

WIDTH, DPI = 860, 110
MEASURES = {HARMONIC: SCORE, ATTRIBUTE: "Attribute", COHERENCE: "Coherence", WORDS: "Words, in %"}


def write_page(collected: Collected, path: Path, name: str, made_by: str) -> Path:
    """Write the page, and its pictures into the folder `images` beside it."""
    parts = [
        f"# Every method on {name}\n",
        _opening(collected, made_by),
        *(part for part in _parts(collected, path.parent / "images", name)),
    ]
    return write_whole(path, "\n\n".join(parts).encode() + b"\n")


def _opening(collected: Collected, made_by: str) -> str:
    spec, found = collected.plan.spec, "\n".join(f"- {one}" for one in collected.found)
    tasks = collected.plan.tasks.values()
    sizes = [min(len(task.questions[split]) for task in tasks) for split in ("validation", "test")]
    trials = spec.configurations * len(spec.factors)
    one = "one configuration each, so no layer and no learning rate was searched; "
    one = one if spec.configurations == 1 else ""
    missing = collected.missing
    undone = (
        f" Not done, and left out of everything: {counted(missing, 'cell')}." if missing else ""
    )
    if collected.blank:
        undone += (
            " Not done, and lacking in the table of these alone: "
            f"{counted(collected.blank, 'score')} by the judges of other attributes."
        )
    return (
        f"Written by `{made_by}` from the cells of `steerlens bench` in `cells`, beside this page "
        f"([how all are tuned](../bench.md)). {len(spec.methods)} methods on "
        f"{', '.join(collected.plan.tasks)}; {one}{trials} trials each on {sizes[0]} validation "
        f"questions with seed 0, tested on {sizes[1]} others with {spec.seeds} seeds; completions "
        f"of {spec.max_new_tokens} tokens at temperature 1. {_capital(coverage_note(spec.seeds))}."
        f"{undone}\n\n{found}"
    )


def _capital(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}"


def _parts(collected: Collected, folder: Path, name: str) -> Iterator[str]:
    rule = collected.plan.spec.rules[0]
    table = collected.standings(rule)
    whole = table.loc[table["mean"].notna()] if len(table) else table
    if len(whole):
        yield "## Standings"
        title = f"{SCORE}, mean over attributes, on {name}"
        yield picture(
            estimate_panels(whole, title=title),
            folder,
            f"bench_{name}_standings",
            "Marks with intervals, one row for each method and reference: the mean score.",
            f"{SCORE}, strengths chosen by {rule}.{_without(collected, whole)}",
        )
    for other in collected.plan.spec.rules:
        standings = collected.standings(other)
        if len(standings):
            yield folded(f"Standings, strength chosen by {other}", standings)
    yield from _by_attribute(collected, folder, name)
    yield from _trade(collected, folder, name)
    yield from _faithful(collected, folder, name)
    if len(collected.matrix):
        yield "## Steered for one, measured on all"
        yield folded("Mean scores of seed 0, by every judge", collected.matrix)
    if len(collected.side_effects):
        yield "## Side effects"
        yield folded("Unrelated text, cloze items, own variety", collected.side_effects)
    if len(collected.costs):
        yield "## Costs"
        yield folded("CPU seconds, memory, numbers stored, time of steered text", collected.costs)
    unfitted = without_fit(collected)
    if len(unfitted):
        yield folded("Fits that came to nothing", unfitted)
    if len(collected.warned):
        yield folded(f"{WARNED} (numbers: of the first of its kind)", by_kind(collected.warned))


def _without(collected: Collected, drawn: pd.DataFrame) -> str:
    """The methods that a picture lacks, since they are not there on every attribute."""
    there = set(drawn["method"]) if len(drawn) else set()
    lacking = [
        method
        for method in collected.plan.spec.methods
        if method not in there and not METHODS[method].prompted
    ]
    return f" Not there on every attribute, so not drawn: {listed(lacking)}." if lacking else ""


def _by_attribute(collected: Collected, folder: Path, name: str) -> Iterator[str]:
    points, rule = collected.points, collected.plan.spec.rules[0]
    if not len(points):
        return
    yield "## By attribute"
    for measure, title in MEASURES.items():
        rows = points.loc[(points["rule"] == rule) & (points["measure"] == measure)]
        if len(rows) and measure in (HARMONIC, WORDS):
            yield picture(
                estimate_panels(rows, panel="task", title=f"{title}, on {name}"),
                folder,
                f"bench_{name}_{measure}",
                f"Marks with intervals, a panel for each attribute: {title.lower()}.",
                f"{title}, strengths chosen by {rule}.",
            )
        if len(rows):
            yield folded(f"{title}, by attribute", _wide(rows))


def _trade(collected: Collected, folder: Path, name: str) -> Iterator[str]:
    curves = collected.curves
    if not len(curves):
        return
    yield "## What the effect costs in coherence"
    tasks = list(collected.plan.tasks)
    first = curves.loc[curves["configuration"] == 0]
    whole = pd.concat([first, *(end for task in tasks for end in ends(collected, task))])
    drawn = over_attributes(whole, len(tasks))
    yield picture(
        tradeoff_curve(drawn),
        folder,
        f"bench_{name}_tradeoff",
        "Attribute against coherence: a line over strengths for each method.",
        f"Means over {', '.join(tasks)}: validation questions with seed 0. A strength of 1 has the "
        f"prompt's own KL on training answers.{_without(collected, drawn)}",
    )
    columns = ["task", "method", "configuration", "strength", ATTRIBUTE, COHERENCE, HARMONIC, "n"]
    yield folded("Every strength that was tried, by attribute", curves[columns])
    if len(collected.chosen):
        yield folded("Every strength that was chosen", collected.chosen.drop(columns="met"))
        yield CHOICES


def over_attributes(curves: pd.DataFrame, n: int) -> pd.DataFrame:
    """The mean over attributes of each method and strength that all n attributes have.

    Their questions are others, so the half widths of their intervals add up as errors do.
    """
    rows = []
    for (method, strength), part in curves.groupby(
        ["method", "strength"], sort=False, dropna=False
    ):
        if len(part) != n:
            continue
        row: dict[str, object] = {"method": method, "strength": strength, "n": part["n"].sum()}
        for name in (ATTRIBUTE, COHERENCE):
            mean = float(part[name].mean())
            for end in ("low", "high"):
                gaps = part[f"{name}_{end}"] - part[name]
                row[f"{name}_{end}"] = mean + float(
                    np.sign(gaps.sum()) * (gaps**2).sum() ** 0.5 / n
                )
            row[name] = mean
        rows.append(row)
    return pd.DataFrame(rows)


def _faithful(collected: Collected, folder: Path, name: str) -> Iterator[str]:
    joined = collected.joined
    if not len(joined):
        return
    yield "## How near to the prompt"
    for strength, part in joined.groupby("strength", sort=False):
        if strength == "equal KL":
            yield picture(
                effect_against_faithfulness(part.assign(strength="", strength_value=1.0)),
                folder,
                f"bench_{name}_faithfulness",
                "One mark for each method: the share of the prompt's effect against relative RMSE.",
                "Means over attributes and layers, every method at the prompt's own KL."
                f"{_without(collected, part)}",
            )
    yield folded("Share of the prompt's effect on the predictions", _wide_of(collected.recovered))


def picture(figure: object, folder: Path, name: str, shows: str, says: str) -> str:
    """Save a figure beside a page; the lines of the page that show it."""
    folder.mkdir(parents=True, exist_ok=True)
    save(figure, folder / f"{name}.png", width=WIDTH, dpi=DPI)  # pyright: ignore[reportArgumentType]
    return markdown_picture(name, shows, says)


def folded(title: str, table: pd.DataFrame) -> str:
    """A table that opens at a tap."""
    rows = [[_text(cell) for cell in row] for row in table.itertuples(index=False)]
    names: Sequence[str] = [str(column).replace("_", " ") for column in table.columns]
    return markdown_folded(title, markdown_table(names, rows))


def _text(cell: object) -> str:
    if cell is None or cell is pd.NA or (isinstance(cell, float) and cell != cell):
        return ""
    return f"{cell:.4g}" if isinstance(cell, float) else str(cell).replace("|", "\\|")


def _wide(points: pd.DataFrame) -> pd.DataFrame:
    """A row for each method, a column for each attribute: mean [low, high], and lacking seeds."""
    columns = (points[name] for name in ("mean", "low", "high", "n_seeds"))
    most = points["n_seeds"].max()
    told = [
        f"{value:.1f} [{low:.1f}, {high:.1f}]{f' ({n} of {most} seeds)' if n < most else ''}"
        for value, low, high, n in zip(*columns, strict=True)
    ]
    return _pivoted(points.assign(told=told))


def _wide_of(table: pd.DataFrame) -> pd.DataFrame:
    rows = zip(table["recovered"], table["low"], table["high"], strict=True)
    told = [f"{value:.2f} [{low:.2f}, {high:.2f}]" for value, low, high in rows]
    names = [
        f"{m}, {s}" if s else m for m, s in zip(table["method"], table["strength"], strict=True)
    ]
    return _pivoted(table.assign(told=told, method=names))


def _pivoted(told: pd.DataFrame) -> pd.DataFrame:
    order = told["method"].drop_duplicates()
    wide = told.pivot(index="method", columns="task", values="told")
    return wide.reindex(index=order, columns=told["task"].unique()).fillna("").reset_index()
