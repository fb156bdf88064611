"""The figures of the pages of results: each takes a page and draws what stands in its tables."""

from __future__ import annotations

import re

import numpy as np
import plotly.graph_objects as go
from page_tables import Page, melted, with_estimates

from analysis import estimate_panels, line_panels

UNSTEERED = "unsteered samples, temperature 0.7"
REPLACED = "words replaced at random, %"
ASKED = r"each of (\w+)\s+\*other\*"
SEED = r"seed (\d+)"


# -- The likelihood judge --------------------------------------------------------------------------


def judge_auroc(page: Page) -> go.Figure:
    """How often prompted text scores above each other kind."""
    table = page.table("The likelihood judge")
    cells = table["AUROC of prompted"] + " [" + table["95 %"].str.replace(" to ", ", ") + "]"
    rows = table.assign(AUROC=cells.where(table["95 %"] != "", ""))
    rows = with_estimates(rows, "AUROC").drop(columns="AUROC").rename(columns={"mean": "AUROC"})
    return estimate_panels(
        rows.assign(method="likelihood judge"),
        "AUROC",
        row="texts",
        title="How often prompted text scores above text of another kind",
        says=f"1 always, 0.5 chance. {rows['n'].iloc[0]} texts a kind, to "
        f"{page.said(ASKED)} questions, which are resampled; seed {page.said(SEED)}.",
    )


# -- The demonstration model -----------------------------------------------------------------------


def demo_formats(page: Page) -> go.Figure:
    """How often the model keeps to a format with the instruction and without."""
    table = page.table("Formats")
    kinds = {"with the instruction": "with the instruction", "without": "without"}
    rows = melted(table, ["format"], kinds, "asked").rename(
        columns={"mean": "texts that keep to it, %"}
    )
    n = table["with the instruction"].str.extract(r"n (\d+)")[0].astype(int)
    return estimate_panels(
        rows,
        "texts that keep to it, %",
        row="format",
        mark="asked",
        title="How often the model keeps to a format",
        says=f"{n.min()} to {n.max()} texts each, one seed; Wilson’s intervals.",
    )


def demo_replaced(page: Page) -> go.Figure:
    """Coherence where words are replaced."""
    counted = page.table("Coherence tells degraded").set_index("text")["n"]
    table = page.table("Coherence tells degraded", 1)
    shares = {name: float(name.rstrip("%")) for name in table.columns[1:]}
    rows = melted(table, ["words replaced"], shares, REPLACED)
    return line_panels(
        rows.assign(method=rows["words replaced"], strength="", measure="mean coherence"),
        x=REPLACED,
        title="Coherence falls with the words that are replaced",
        says=f"{counted['human text']} human texts, {counted[UNSTEERED]} samples; one seed.",
    )


# -- Costs -----------------------------------------------------------------------------------------


def real_costs(page: Page) -> go.Figure:
    """CPU seconds of every task."""
    rows = with_estimates(page.table("Real models"), "CPU seconds")[["task", "mean"]]
    figure = estimate_panels(
        rows.rename(columns={"mean": "CPU seconds"}).assign(method="SmolLM2-135M"),
        "CPU seconds",
        row="task",
        title="What tasks take on SmolLM2-135M-Instruct",
        says="One run of each, one thread; no interval.",
    )
    ends = np.log10(rows["mean"])
    figure.update_xaxes(type="log", range=[ends.min() - 0.2, ends.max() + 0.2])
    return figure.update_xaxes(tickvals=[0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100, 300, 1000])


def speed_targets(page: Page) -> go.Figure:
    """Every ratio of times that has a limit, as a share of that limit."""
    table = page.table("Targets")
    table = table.loc[table["limit"].str.endswith("×")].reset_index(drop=True)
    where = table["target"].str.extract(r"^(?P<task>.*), (?P<backend>\w+) [\d.]+$")
    limit = table["limit"].str.extract(r"at most ([\d.]+)")[0].astype(float)
    measured = table["measured"].str.replace(r"\((.*) to (.*)\)", r"[\1, \2]", regex=True)
    found = with_estimates(where.assign(measured=measured), "measured")
    found[["mean", "low", "high"]] = found[["mean", "low", "high"]].div(limit, axis=0)
    versions = ", ".join(sorted(set(table["target"].str.extract(r" ([\d.]+)$")[0])))
    repeats = sorted({int(number) for number in re.findall(r"(\d+) repeats", page.text)})
    figure = estimate_panels(
        found.rename(columns={"mean": "share of the limit"}),
        "share of the limit",
        row="task",
        mark="backend",
        title="Times as a share of their limits",
        says=f"Left of 1 the limit is kept. Marks: medians of {repeats[0]} to {repeats[-1]} "
        f"repeats, no interval; transformer-lens {versions}.",
        bands="smallest to largest",
    )
    return figure.add_vline(x=1, line_width=1, line_dash="dot")
