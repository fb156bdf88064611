"""Claim 1, which tokens of an answer the prompt pushes: by kind, and with the sinks.

    python scripts/bench/token_kinds.py demo smollm2

The answers are those that a model writes under the instruction to the test questions of each
attribute of its bench, with seed 0 and as long as there. The push of a token is the length of what
the instruction changes at the middle layer, over the mean of its answer: 1 is the answer's mean.
Written to docs/results/cells/token_kinds_MODEL.csv, a row for each attribute and kind, and one,
`WITH_SINKS`, that has the measure of claim 1 (the decadic logarithm of the 95th over the 5th
percentile) with the sinks counted.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator

import numpy as np
import pandas as pd
from cold_step import CELLS
from results import SPECS

import steerlens as sl
from analysis import by_kind, coefficients
from analysis.bench.catalogue import layer_of
from analysis.bench.spread import LEAST_TOKENS
from analysis.bench.tasks import Task
from steerlens.types import HookedModel
from steerlens.whole import write_whole

WITH_SINKS, PUSH = "(all tokens, sinks too: log10 of p95 / p5)", "push"
QUESTIONS = 24
"""At most: the demonstration model has 60."""


def measured(name: str) -> pd.DataFrame:
    """A row for each attribute and kind of token; mean, low, high, n_tokens and n_examples."""
    spec, model = SPECS[name], sl.load(name)
    tables = [
        table.assign(model=name, attribute=task.name)
        for task in spec.tasks().values()
        for table in of_task(model, task, spec.max_new_tokens)
    ]
    columns = ["model", "attribute", "kind", "mean", "low", "high", "n_tokens", "n_examples"]
    return pd.concat(tables)[columns]


def of_task(model: HookedModel, task: Task, max_new_tokens: int) -> Iterator[pd.DataFrame]:
    """The kinds of tokens of an attribute, and all of them with sinks."""
    layer = layer_of(0, model.cfg.n_layers)
    questions = task.questions["test"][:QUESTIONS]
    pairs = sl.prompted_pairs(
        model, questions, task.instruction, n=1, seed=0, temperature=1.0,
        max_new_tokens=max_new_tokens,
    )  # fmt: skip
    table = coefficients(model, pairs, layer, {})
    clear = table.loc[~table["sink"]]
    means = clear.groupby("example")["norm"].mean()
    yield by_kind(table.assign(**{PUSH: table["norm"] / table["example"].map(means)}), layer, PUSH)
    ratios = [
        float(np.log10(np.quantile(rows, 0.95) / np.quantile(rows, 0.05)))
        for _, rows in table.groupby("example")["norm"]
        if len(rows) >= LEAST_TOKENS
    ]
    error = float(np.std(ratios, ddof=1) / len(ratios) ** 0.5)
    mean, n = float(np.mean(ratios)), len(table)
    ends = {"mean": mean, "low": mean - 1.96 * error, "high": mean + 1.96 * error}
    yield pd.DataFrame([{"kind": WITH_SINKS, **ends, "n_tokens": n, "n_examples": len(ratios)}])


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("models", nargs="*", default=list(SPECS), help="demo and smollm2")
    for name in parser.parse_args().models:
        path = CELLS / f"token_kinds_{name}.csv"
        text = measured(name).to_csv(index=False, float_format="%.4g")
        print(f"Wrote {write_whole(path, text.encode())}", flush=True)


if __name__ == "__main__":
    main()
