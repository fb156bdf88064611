"""A sweep of one method over 10 strengths and all layers, beside the same cells one by one.

What it is compared with, from the plain to the strict:

    cell by cell             `logit_shift` and `faithfulness`, called for each cell
    all cells in one call    the same two, called once with every cell: their plain and prompted
                             passes are shared, and each runs every steered pass
    steered passes alone     one whole pass a cell over batches of texts, from which everything is
                             read; the plain and the prompted ones are run once and kept

All give the same numbers, which is looked at first.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

import steerlens
from analysis.measures.effects import logit_shift
from analysis.measures.entering import Batch, whole_pass
from analysis.measures.entries import Entry
from analysis.measures.faithfulness import faithfulness
from analysis.measures.intervals import interval_of_ratio
from analysis.measures.sweep import sweep
from benchmarks.jobs import Job, Row
from benchmarks.report import ALONE, ONE_BY_ONE
from benchmarks.timing import Task, interleaved, ratios, versions
from steerlens import CAA, Site, Steering
from steerlens.demo import benchmark_set
from steerlens.divergence import divergence
from steerlens.prompts import PromptPair, encode_pair
from steerlens.scopes import response

N_PAIRS, ROWS = 12, 8
STRENGTHS = (0.1, 0.2, 0.3, 0.5, 0.7, 1.0, 1.4, 2.0, 3.0, 4.0)
ONE_CALL, SWEEP = "all cells in one call", "sweep"
Cells = dict[tuple[int, float], tuple[float, ...]]
"""mean KL, share recovered, relative RMSE at the last and at the steered layer, by cell."""


def measure(job: Job) -> dict[str, Any]:
    """CPU seconds of each way, and how far their numbers are apart."""
    torch.set_num_threads(1)
    model: Any = steerlens.load(job.model, backend=job.backend)  # pyright: ignore
    train = benchmark_set.read("positive").pairs("train")
    pairs, layers = train[:N_PAIRS], range(model.cfg.n_layers)
    sides = [[pair.prompted for pair in train[-4:]], [pair.plain for pair in train[-4:]]]
    fitted = CAA.fit(model, (sides[0], sides[1]), layers)
    steerings = {n: steerlens.at(n, fitted.steers[Site(n)]) for n in layers}
    tasks: dict[str, Task] = {
        ONE_BY_ONE: lambda: one_by_one(model, pairs, steerings),
        ONE_CALL: lambda: one_call(model, pairs, steerings),
        ALONE: lambda: alone(model, pairs, steerings),
        SWEEP: lambda: swept(model, pairs, steerings),
    }
    found: dict[str, Any] = {name: task() for name, task in tasks.items()}
    taken = interleaved(tasks, job.repeats)

    shown = {ONE_BY_ONE: (ONE_BY_ONE, ONE_CALL, SWEEP), ALONE: (ALONE, SWEEP)}
    return {
        "tables": {
            base: [Row(name, taken[name], ratios(taken, name, base), base) for name in names]
            for base, names in shown.items()
        },
        "apart": max(apart(found[ONE_BY_ONE], found[name]) for name in (ONE_CALL, ALONE, SWEEP)),
        "n_pairs": N_PAIRS,
        "cells": len(found[SWEEP]),
        "strengths": len(STRENGTHS),
        "versions": versions("transformer-lens", "torch"),
    }


def apart(first: Cells, second: Cells) -> float:
    """The largest difference of two numbers, as a share of them, or of 1e-3 where that is more."""
    return max(
        abs(one - other) / max(abs(one), 1e-3)
        for cell, numbers in first.items()
        for one, other in zip(numbers, second[cell], strict=True)
    )


def cells_of(steerings: Mapping[int, Steering]) -> Iterator[tuple[int, float, Steering]]:
    """Layer, strength and steering of each cell."""
    for layer, steering in steerings.items():
        for strength in STRENGTHS:
            yield layer, strength, steering.scaled(strength).only(response)


def one_by_one(model: Any, pairs: list[PromptPair], steerings: Mapping[int, Steering]) -> Cells:
    """The functions that there are, called for each cell."""
    found: Cells = {}
    for layer, strength, steering in cells_of(steerings):
        entry = [Entry("CAA", steering, strength_value=strength)]
        found[layer, strength] = of_functions(model, pairs, entry, [layer])[0]
    return found


def one_call(model: Any, pairs: list[PromptPair], steerings: Mapping[int, Steering]) -> Cells:
    """The same functions, called once with all cells."""
    cells = list(cells_of(steerings))
    entries = [Entry(f"{layer} {s}", steering, strength_value=s) for layer, s, steering in cells]
    numbers = of_functions(model, pairs, entries, [layer for layer, _, _ in cells])
    return {(layer, s): row for (layer, s, _), row in zip(cells, numbers, strict=True)}


def of_functions(
    model: Any, pairs: list[PromptPair], entries: list[Entry], own: list[int]
) -> list[tuple[float, ...]]:
    """What `logit_shift` and `faithfulness` say of each entry."""
    top = model.cfg.n_layers - 1
    shift = logit_shift(model, pairs, entries).iloc[1:]
    layers = sorted({*own, top})
    errors = faithfulness(model, pairs, entries, layers=layers, any_instruction=False)
    by_layer = errors.set_index(["method", "layer"])["relative_rmse"]
    return [
        (row.mean_kl, row.recovered, by_layer[row.method, top], by_layer[row.method, layer])
        for row, layer in zip(shift.itertuples(), own, strict=True)
    ]


def swept(model: Any, pairs: list[PromptPair], steerings: Mapping[int, Steering]) -> Cells:
    """The sweep."""
    named = {f"CAA, layer {layer}": steering for layer, steering in steerings.items()}
    table = sweep(model, pairs, named, strengths=STRENGTHS, scopes=[response])
    numbers = ["mean_kl", "recovered", "relative_rmse", "relative_rmse_own_layer"]
    return {
        (int(row["layer"]), float(row["strength"])): tuple(float(row[name]) for name in numbers)
        for row in table.to_dict("records")
    }


@dataclass
class _Kept:
    """The plain and the prompted run of some texts, and the tokens of each."""

    batch: Batch
    plain: Tensor
    prompted: Tensor
    at: dict[Site, tuple[Tensor, Tensor]] = field(default_factory=dict)


@torch.no_grad()
def alone(model: Any, pairs: list[PromptPair], steerings: Mapping[int, Steering]) -> Cells:
    """One whole steered pass a cell and batch; all else is kept."""
    rows = [encode_pair(model, pair) for pair in pairs]
    order = sorted(range(len(rows)), key=lambda i: len(rows[i][0].ids))
    chosen = [order[start : start + ROWS] for start in range(0, len(order), ROWS)]
    top = Site(model.cfg.n_layers - 1)
    kept = [_kept(model, rows, some, [Site(layer) for layer in steerings]) for some in chosen]
    answers = [len(plain.ids) - plain.response for plain, _ in rows]
    text = np.repeat(order, [answers[i] for i in order])
    below = torch.cat([divergence(one.prompted, one.plain) for one in kept])
    pushed = {
        site: torch.cat([(p - q).square().sum(-1) for p, q in (one.at[site] for one in kept)])
        for site in (Site(layer) for layer in steerings)
    }
    found: Cells = {}
    for layer, strength, steering in cells_of(steerings):
        own = Site(layer)
        parts = [_cell(model, one, steering, (top, own)) for one in kept]
        kl, left, log_p, last, here = torch.cat(parts, dim=1)
        tokens = torch.ones_like(kl)
        above = ((kl, tokens), (log_p, tokens), (left, below), (last, pushed[top]))
        for one, other in (*above, (left, tokens), (here, pushed[own])):  # as many as a sweep has
            interval_of_ratio(np.bincount(text, one.numpy()), np.bincount(text, other.numpy()))
        found[layer, strength] = (
            float(kl.mean()),
            float(1 - left.sum() / below.sum()),
            float((last.sum() / pushed[top].sum()).sqrt()),
            float((here.sum() / pushed[own].sum()).sqrt()),
        )
    return found


def _kept(model: Any, rows: list[Any], chosen: list[int], sites: list[Site]) -> _Kept:
    sides = [Batch.of(model, [row[side] for row in rows], chosen) for side in (0, 1)]
    seen = [whole_pass(model, batch, sites) for batch in sides]
    log_p = [one.logits.double().log_softmax(dim=-1) for one in seen]
    held = {
        site: tuple(
            one.held[site][batch.answered].double() for one, batch in zip(seen, sides, strict=True)
        )
        for site in sites
    }
    return _Kept(sides[0], log_p[0], log_p[1], held)  # pyright: ignore[reportArgumentType]


def _cell(model: Any, kept: _Kept, steering: Steering, sites: tuple[Site, Site]) -> Tensor:
    """What a sweep measures of each token."""
    with steering.applied(model, kept.batch.window):
        seen = whole_pass(model, kept.batch, sites)
    moved = seen.logits.double().log_softmax(dim=-1)
    apart = [
        (seen.held[s][kept.batch.answered].double() - kept.at[s][1]).square().sum(-1) for s in sites
    ]
    log_p = moved.gather(1, kept.batch.ids[:, None])[:, 0]
    return torch.stack(
        [divergence(moved, kept.plain), divergence(kept.prompted, moved), log_p, *apart]
    )
