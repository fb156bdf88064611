"""`steerlens sweep`: methods over layers, strengths and scopes, as a table and a page of maps."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from steerlens.cli import inputs, output
from steerlens.cli.given import Written
from steerlens.cli.grid import Grid
from steerlens.cli.grouped import grouped
from steerlens.cli.options import (
    FOUND_ON,
    SINK_TIMES,
    AsJson,
    Backend,
    Baseline,
    Device,
    Dtype,
    FittedOn,
    MaxNewTokens,
    Model,
    Pairs,
    Seed,
    Sinks,
    Templating,
)
from steerlens.whole import write_together

if TYPE_CHECKING:
    from steerlens.prompts import PromptPair
    from steerlens.types import HookedModel

SUFFIXES = (".csv", ".json", ".html")
Out = Annotated[
    Path,
    typer.Option("--out", "-o", help="The files to write: OUT.csv, OUT.json and OUT.html."),
    Written(SUFFIXES),
]


@dataclass(frozen=True)
class Swept(Templating):
    """The model that is swept, and what the prompt is compared with."""

    model: Model = "demo"
    fitted_on: FittedOn = None
    baseline: Baseline = "template"
    sinks: Sinks = SINK_TIMES
    seed: Seed = 0
    max_new_tokens: MaxNewTokens = 64
    backend: Backend = "auto"
    device: Device = "cpu"
    dtype: Dtype = "float32"
    as_json: AsJson = False

    def loaded(self) -> "HookedModel":
        """The model."""
        return inputs.load(self.model, self.backend, self.device, self.template(), self.dtype)

    def answered(self, model: "HookedModel", lines: Sequence[Any]) -> "list[PromptPair]":
        """Every line as a pair."""
        return inputs.answered(model, lines, self.seed, self.max_new_tokens)


@grouped
def sweep(*, pairs: Pairs, out: Out, grid: Grid, swept: Swept) -> None:
    """What methods do at every layer, strength and scope, beside what the prompt does.

    KL from the unsteered and from the prompted predictions, the share of the prompt's effect that
    is recovered, the distance to the prompted activations, and the log-probability of the response,
    each with a 95 % interval: a table (CSV and JSON) and a page of maps. A line of the pairs file
    without a response is answered by the prompted model first.
    """
    from steerlens import analysis
    from steerlens.analysis.measures.plain_side import require_baseline  # pyright: ignore[reportMissingImports]
    from steerlens.cli.data import read_prompt_pairs

    grid.require()
    require_baseline(swept.baseline)
    measured, for_fitting = grid.lines(pairs)
    table_file, numbers_file, page_file = Written(SUFFIXES).files(out)
    model = swept.loaded()
    of_files = grid.of_files(model, swept.fitted_on)
    for path in filter(None, (pairs, grid.train)):
        inputs.require_room(model, read_prompt_pairs(path), swept.max_new_tokens)
    answered, training = (swept.answered(model, lines) for lines in (measured, for_fitting))
    table = analysis.sweep(
        model,
        answered,
        grid.steerings(model, training, of_files),
        strengths=grid.numbers,
        scopes=grid.places,
        unit="kl" if grid.strength_unit == "kl" else "as fitted",
        calibrate_on=(training or answered)[:FOUND_ON],
        baseline=swept.baseline,
        sinks=swept.sinks,
        seed=swept.seed,
    )
    made = _made(model, table, len(answered), len(training))
    intro = f"{pairs.name}: {len(answered)} pairs on the model {swept.model}."
    page = analysis.sweep_report(table, made, title="Methods by layer and strength", intro=intro)
    content = {"made": made, "cells": output.records(table)}
    told = output.told(content, swept.as_json, _told(table, page_file.with_suffix("")))
    numbers = json.dumps(content, indent=1, default=str, allow_nan=False)
    write_together(
        {
            table_file: table.to_csv(index=False).encode(),
            numbers_file: numbers.encode(),
            page_file: page.html.encode(),
        }
    )
    output.show(told)


def _made(model: "HookedModel", table: Any, measured: int, fitted_on: int) -> dict[str, Any]:
    """How the table came about."""
    from steerlens import analysis
    from steerlens.analysis.reports.sweep import Made  # pyright: ignore[reportMissingImports]

    seed, baseline = int(table["seed"].iloc[0]), table.attrs["baseline"]
    facts = analysis.provenance(model, Made(measured, fitted_on, seed, baseline), "steerlens sweep")
    unit = {"kl": "1 = as much KL as the prompt"}.get(
        table["strength_unit"].iloc[0], "1 = as fitted"
    )
    return {
        **facts,
        "pairs": f"{measured} measured, {fitted_on} others for fitting",
        "strength": unit,
        "whole passes": table.attrs["whole_passes"] or "none",
    }


def _told(table: Any, stem: Path) -> str:
    """The best cell of each method, and where the files are."""
    from steerlens.analysis.reports.sweep import best_cells  # pyright: ignore[reportMissingImports]

    best = [
        f"{row.method}: {row.recovered:.2f} of the prompt's effect at layer {row.layer}, strength "
        f"{row.strength:g}, scope {row.scope}"
        for row in best_cells(table).drop_duplicates("method").itertuples()
    ]
    files = f"{len(table)} cells are in {stem}.csv and .json, maps in {stem}.html"
    return "\n".join([*best, files])
