"""A sweep on one page: the best cell of each method, maps of every measure, all numbers."""

from collections.abc import Mapping
from dataclasses import dataclass

import pandas as pd

from steerlens.kinds import require_kinds

from ..figures.curves import line_panels
from ..figures.sweep import sweep_heatmap
from .measured import against_said
from .page import Report

READ = {
    "recovered": "1 is the prompted model's own predictions, 0 those without steering; below 0 the "
    "steering leads further away from the prompt than nothing does.",
    "mean_kl": "How far the predictions are moved, in whatever direction. White cells move them "
    "as much as the prompt does.",
    "relative_rmse": "How far the last layer's activations then are from where the prompt puts "
    "them: 0 is there, 1 the error of not steering.",
    "relative_rmse_own_layer": "The same at the output of the lowest steered layer. A method can "
    "be far off there and end near the prompt, or the other way round.",
    "log_p": "What the steered model gives the responses that the prompted model wrote; white is "
    "what the unsteered model gives them.",
}
"""What is to be seen in each map."""
HELD = -1.0
"""Strengths that recover less than this are not drawn as lines: they would set the scale."""


@dataclass(frozen=True)
class Made:
    """What a sweep was measured on, for `provenance`."""

    n_test: int
    n_train: int
    seed: int
    baseline: str


def best_cells(table: pd.DataFrame) -> pd.DataFrame:
    """Of each method and scope the row that recovers most of the prompt's effect."""
    usable = table.loc[table["recovered"].notna()]
    best = usable.loc[usable.groupby(["method", "scope"], sort=False)["recovered"].idxmax()]
    return best.sort_values("recovered", ascending=False, kind="stable")


def sweep_report(
    table: pd.DataFrame, made_by: Mapping[str, object], *, title: str, intro: str
) -> Report:
    """The table of `sweep` as a page; `made_by` says how it came about."""
    require_kinds(sweep_report, locals())
    page = Report(title, intro, made_by).found(_found(table))
    page = page.paragraph(against_said(table)).paragraph(_passes_said(table))
    page = page.heading("By layer and strength")
    for column, says in READ.items():
        page = page.figure(sweep_heatmap(table, column), says)
    curves = _curves(table)
    if curves is not None:
        page = page.heading("By strength, at the best layer").figure(
            line_panels(
                curves,
                "recovered",
                x="strength_value",
                panel="scope" if curves["scope"].nunique() > 1 else None,
                title="Share of the prompt’s effect recovered, at the layer where it is most",
            ),
            "One line for each method, at its best layer, which was chosen on these same examples: "
            "read the height of its top as optimistic.",
        )
    return page.heading("All numbers").table(
        table.drop(columns=["n_bootstrap", "seed"]),
        "Every cell with its 95 % bootstrap intervals over questions.",
    )


def _found(table: pd.DataFrame) -> list[str]:
    """The best cell of each method, in a sentence."""
    cells = best_cells(table)
    said = [
        f"{row.method} recovers at most {row.recovered:.0%} of the prompt's effect on the "
        f"predictions [{row.recovered_low:.0%}, {row.recovered_high:.0%}]: at layer {row.layer}, "
        f"strength {row.strength:g}, scope {row.scope}, where it moves them by "
        f"{row.mean_kl:.2g} nats a token (the prompt: {row.kl_prompt:.2g})."
        for row in cells.drop_duplicates("method").itertuples()
    ]
    n = int(table["n_examples"].iloc[0])
    note = (
        f"Of {len(table)} cells the best was chosen on the {n} examples that it is measured on, so "
        "its number is too high, and its interval, made for one cell, is too narrow. Measure the "
        "chosen cell on other examples."
    )
    return [*said, note] if said else ["No cell gave finite numbers: lower the strengths."]


def _passes_said(table: pd.DataFrame) -> str:
    refused = table.attrs.get("whole_passes") or {}
    if not refused:
        return (
            "Every steered pass began at the lowest steered layer, with the residual stream of the "
            "unsteered pass, which was tried on this model to be the same as a whole pass."
        )
    reasons = "; ".join(f"{site}: {why}" for site, why in refused.items())
    return f"Steered passes were whole ones where they could not begin in the middle ({reasons})."


def _curves(table: pd.DataFrame) -> pd.DataFrame | None:
    """The cells at the best layer of each method and scope, as lines over strengths."""
    best = best_cells(table)[["method", "scope", "layer"]]
    rows = table.merge(best, on=["method", "scope", "layer"])
    rows = rows.loc[rows["recovered"] >= HELD]
    if rows["strength"].nunique() < 2:
        return None
    curves = rows.drop(columns="strength_value").rename(columns={"strength": "strength_value"})
    curves = curves.assign(
        strength="layer " + curves["layer"].astype(str),
        low=curves["recovered_low"],
        high=curves["recovered_high"],
    )
    curves.attrs.update(table.attrs)
    return curves
