"""The figures of the pages of results: each takes a page and draws what stands in its tables."""

from __future__ import annotations

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from page_tables import Page, estimates, filled, melted, with_estimates

from analysis import estimate_panels, line_panels

MODEL = ("unsteered", "prompt")
UNSTEERED = "unsteered samples, temperature 0.7"
TIMES, REPLACED = "times the fitted strength", "words replaced at random, %"
SEEDS, QUESTIONS = r"(\d+) seeds", r"(\d+) test questions for each"
ASKED = r"each of (\w+)\s+\*other\*"
VALIDATION, SEED = r"(\d+) validation questions", r"seed (\d+)"
MSE = ("equivalent prompts", "S-Const_DiM", "S-Const_MSE", "S-PSR_MSE", "A-Const_MSE", "A-PSR_MSE")


def _over(page: Page) -> str:
    """Of how many, and what the intervals of a study are over."""
    n, seeds = page.said(QUESTIONS), page.said(SEEDS)
    return f"{n} test questions an attribute, {seeds} seeds, both resampled."


def _by_layer(table: pd.DataFrame, keep: list[str]) -> pd.DataFrame:
    layers = {name: int(name.split()[-1]) for name in table.columns if name.startswith("layer ")}
    found = melted(table, keep, layers, "layer")
    return found.assign(strength="")


# -- PSR -------------------------------------------------------------------------------------------


def psr_unevenness(page: Page) -> go.Figure:
    """How uneven the prompt's push is, by layer."""
    table = filled(page.table("What the prompt does"), "attribute")
    rows = with_estimates(table.assign(layer=table["layer"].astype(int)), "95th / 5th")
    return line_panels(
        rows.assign(method="prompt", strength="", measure="95th / 5th percentile of |Δ|"),
        panel="attribute",
        title="How uneven the prompt’s push is over tokens",
        says=f"Prompted responses to {page.said(QUESTIONS)} test questions, which are resampled.",
    )


def psr_shares(page: Page) -> go.Figure:
    """How much of the prompt's push one direction holds, by layer."""
    table = filled(page.table("What the prompt does"), "attribute")
    table = table.assign(layer=table["layer"].astype(int))
    axes = {name: name for name in ("mean push", "best axis", "best 8")}
    rows = melted(table, ["attribute", "layer"], axes, "method")
    return line_panels(
        rows.assign(strength="", measure="share of |Δ|²"),
        panel="attribute",
        title="How much of the prompt’s push one direction holds, or eight",
        says=f"Prompted responses to {page.said(QUESTIONS)} test questions, which are resampled.",
    )


def psr_faithfulness(page: Page) -> go.Figure:
    """The error of what was trained to imitate the prompt, at strength 1."""
    table = filled(page.table("Faithfulness"), "attribute")
    table = table.loc[table["strength"].isin(["", "1"])]
    rows = _by_layer(table, ["attribute", "method"]).rename(columns={"mean": "relative_rmse"})
    return line_panels(
        rows,
        "relative_rmse",
        panel="attribute",
        methods=[name for name in MSE if name in set(rows["method"])],
        title="How far each method is from the prompt, at strength 1",
        says=f"1 is no steering. {_over(page)}",
    )


def psr_scores(page: Page) -> go.Figure:
    """The attribute at 80 % of the coherence, and at the prompt's."""
    table = filled(page.table("Attribute and coherence"), "attribute")
    at = {"TA@C80": "at 80 % of the unsteered coherence", "TA@Cp": "at the prompt’s coherence"}
    rows = melted(table, ["attribute", "method"], at, "at")
    rows.loc[rows["method"].isin(MODEL), "at"] = "no strength"
    return estimate_panels(
        rows.rename(columns={"mean": "score of the attribute"}),
        "score of the attribute",
        mark="at",
        panel="attribute",
        title="How much of the attribute each method writes",
        says=_over(page),
    )


# -- CLAS ------------------------------------------------------------------------------------------


def clas_scores(page: Page) -> go.Figure:
    """The score of every method."""
    rows = with_estimates(filled(page.table("Scores"), "attribute"), "score")
    rows = rows.drop(columns="score").rename(columns={"mean": "score"})
    return estimate_panels(
        rows,
        "score",
        panel="attribute",
        title="The score of every method",
        says=f"Harmonic mean of judge and coherence. {_over(page)}",
    )


def clas_stronger(page: Page) -> go.Figure:
    """What more of the fitted strength does."""
    table = page.table("Times the fitted strength")
    kinds = {name: name for name in ("score", "attribute's judge", "coherence")}
    rows = melted(table, ["attribute", "times"], kinds, "method")
    return line_panels(
        rows.assign(**{TIMES: rows["times"].astype(float)}, strength="", measure="mean, 0 to 100"),
        x=TIMES,
        panel="attribute",
        title="CLAS (RFM) at multiples of the fitted strength",
        says=f"{page.said(VALIDATION)} validation questions, seed 0.",
    )


# -- COLD ------------------------------------------------------------------------------------------


def cold_scores(page: Page) -> go.Figure:
    """The score at C80 against the number of pairs; the model and the prompt take none."""
    table = page.table("Scores at C80")
    sizes = [size for size in table["pairs"].unique() if size]
    constant = [table.loc[table["method"].isin(MODEL)].assign(pairs=size) for size in sizes]
    rows = pd.concat([*constant, table.loc[~table["method"].isin(MODEL)]])
    rows = with_estimates(rows.assign(pairs=rows["pairs"].astype(int), strength=""), "score")
    rows = rows.drop(columns="score").rename(columns={"mean": "score"})
    figure = line_panels(
        rows.assign(method=rows["method"].str.split(",").str[0]),
        "score",
        x="pairs",
        panel="attribute",
        title="The score at 80 % of the unsteered coherence, by pairs",
        says=f"{_over(page)} Prompt and unsteered take no pairs.",
    )
    return figure.update_xaxes(type="log")


def cold_spreads(page: Page) -> go.Figure:
    """The divergence from the wished spread against the number of prompts."""
    table = page.table("Spreads over")
    rows = with_estimates(table.loc[table["prompts"] != ""], "KL").drop(columns=["KL"])
    plain = estimates(table.loc[table["method"] == "unsteered", "KL"])["mean"]
    figure = line_panels(
        rows.assign(prompts=rows["prompts"].astype(int), strength="", measure="KL, nats"),
        x="prompts",
        panel="group",
        title="How far the steered spread is from the wished one",
        says=f"Unsteered: {' and '.join(f'{value:.2f}' for value in plain)}. {_over(page)}",
    )
    return figure.update_xaxes(type="log")


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
