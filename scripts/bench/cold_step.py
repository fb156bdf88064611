"""Claim 5, how well COLD approximates the gradient step that it stands for, token by token.

    python scripts/bench/cold_step.py demo=build/bench/demo smollm2=build/bench/smollm2

The examples are the training answers of the first attribute of a bench, with seed 0; the texts are
the model's plain answers to its first validation questions. The sizes of the step are shares of
`eta`, the size at which COLD-FD changes the predictions on training answers as much as the prompt
does: its unit in the bench. Written to docs/results/cells/cold_step_MODEL.csv.gz, a row a token.
"""

from __future__ import annotations

import argparse
import gzip
from pathlib import Path

import pandas as pd

from analysis.bench.bench import Bench
from analysis.bench.fitting import case_of
from analysis.bench.kinds import UNSTEERED, fit_cell, write_cell
from analysis.measures.approximation import step_approximation
from steerlens.conversations import Conversation
from steerlens.whole import write_whole

CELLS = Path(__file__).parents[2] / "docs" / "results" / "cells"
SHARES = (0.001, 0.01, 0.1, 1.0)
TEXTS = 8
KEPT = ("text", "position", "token", "sink", "layer", "method", "eta", "norm", "norm_exact",
        "cosine", "relative_error", "kl_step", "kl_found", "kl_left")  # fmt: skip


def measured(bench: Bench) -> pd.DataFrame:
    """A row for each token, layer, method and size; `share` is the size over the unit."""
    task = next(iter(bench.tasks.values()))
    cell = fit_cell(bench.spec, task, "COLD-FD", 0, 0)
    unit, case = float(bench.result(cell)["unit"]), case_of(bench, cell)
    written = bench.result(write_cell(bench.spec, task, "validation", 0, UNSTEERED))["texts"]
    texts = [
        Conversation(question, response=answers[0])
        for question, answers in zip(task.questions["validation"], written, strict=True)
        if answers[0].strip()
    ]
    table = step_approximation(
        bench.model,
        (case.liked, case.disliked),
        [case.layer, case.n_layers - 1],
        texts[:TEXTS],
        loss="dpo",
        etas=[unit * share for share in SHARES],
    )
    share = {unit * share: share for share in SHARES}
    return table[list(KEPT)].assign(share=table["eta"].map(share), attribute=task.name)


def write(name: str, bench: Bench, cells: Path = CELLS) -> Path:
    """Measure on the answers of a bench that is done, and write the table below `cells`."""
    path = cells / f"cold_step_{name}.csv.gz"
    path.parent.mkdir(parents=True, exist_ok=True)
    table = measured(bench).to_csv(index=False, float_format="%.5g")
    write_whole(path, gzip.compress(table.encode(), mtime=0))
    return path


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("benches", nargs="+", help="name=folder")
    given = parser.parse_args()
    for name, folder in (one.split("=", 1) for one in given.benches):
        print(f"Wrote {write(name, Bench.of(folder))}", flush=True)


if __name__ == "__main__":
    main()
