"""What rounding does to COLD-FD, how long COLD's push is, how near COLD comes to the step itself.

It prints numbers of docs/methods/cold.md and docs/methods/gradient_step.md:

    python scripts/bench/cold_precision.py                  the demonstration model, a minute
    python scripts/bench/cold_precision.py --model smollm2  some ten minutes, 4 GB of memory

*error* is |found - exact| / |exact| of the derivative dZ over all tokens of the texts, where
*exact* is the derivative in float64, along a gradient that was computed in float64. *relative norm*
is the length of what COLD adds, as a share of the activation's, its median over the tokens.
The last table is a summary of `analysis.measures.approximation.step_approximation`: *of the effect*
is 1 - KL(step || found) / KL(step || plain), at the best what the row "exact change" has.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

import steerlens as sl
from analysis.measures.approximation import step_approximation
from analysis.measures.approximation_summary import approximation_summary
from analysis.reports.markdown import markdown_table
from steerlens.demo.benchmark_set import read
from steerlens.types import HookedModel

N = 8
RELEASED_EPS = 1e-6
ETAS = (0.001, 0.01, 0.1, 0.3, 1.0)
KEPT_IN = {"float32": 4, "bfloat16": 2}
WAYS: dict[str, tuple[str, dict[str, Any]]] = {
    "derivative, float32": ("float32", {"stored": "float32"}),
    "derivative, float32, its gradient kept in bfloat16": ("float32", {"stored": "bfloat16"}),
    "difference, float32, eps = 1e-6 (released)": ("float32", {"mode": "fd", "eps": RELEASED_EPS}),
    "difference, float32, automatic eps": ("float32", {"mode": "fd"}),
    "difference to both sides, float32, automatic eps": (
        "float32",
        {"mode": "fd", "central": True},
    ),
    "derivative, bfloat16": ("bfloat16", {"stored": "float32"}),
}
"""Each way to have the derivative: the dtype of the model, and the options of the fit."""
Pairs = tuple[list[sl.Conversation], list[sl.Conversation]]


def pairs() -> Pairs:
    """Answers that praise, and the answers to the same questions without the instruction."""
    rows = read("positive").split("train")[:N]
    praised = [sl.Conversation(row.user, response=row.prompted) for row in rows]
    return praised, [sl.Conversation(row.user, response=row.plain) for row in rows]


def looked_at(loss: str) -> tuple[Any, Any]:
    """The sides that the loss looks at."""
    praised, plain = pairs()
    return (praised, plain) if loss == "dpo" else (praised, ())


def derivative(
    model: HookedModel, loss: str, site: sl.Site, options: dict[str, Any]
) -> Float[Tensor, "token d_model"]:
    """DZ at every token of the texts, in float64."""
    fit = sl.ColdFD.fit(model, looked_at(loss), site, loss=loss, **options)
    texts = [sl.Conversation(question) for question in read("positive").questions("validation")[:N]]
    tokens, window = sl.batch(model, texts)
    return fit.steers[site].derivative(model, tokens, window)[site][window.mask].double()


def precision(name: str, layer: int) -> list[list[str]]:
    """A row for each way, with the error of each loss."""
    site, losses = sl.Site(layer), ("sft", "dpo")
    exact, errors = dict[str, Tensor](), {way: list[str]() for way in WAYS}
    model = sl.load(name, dtype="float64")
    for loss in losses:
        exact[loss] = derivative(model, loss, site, {"stored": "float32"})
    for dtype in ("float32", "bfloat16"):
        model = sl.load(name, dtype=dtype)
        for way, (needed, options) in WAYS.items():
            for loss in losses if needed == dtype else ():
                missed = derivative(model, loss, site, options) - exact[loss]
                errors[way].append(percent(missed.norm() / exact[loss].norm()))
    return [[way, *found] for way, found in errors.items()]


def percent(share: Float[Tensor, ""]) -> str:
    """Two digits of it, as "390 %"."""
    return f"{float(f'{100 * float(share):.2g}'):g} %"


def pushes(name: str, layer: int) -> list[list[str]]:
    """A row for each method and eta: how long its push is."""
    model, rows = sl.load(name), list[list[str]]()
    fits = {
        "COLD-Kernel": (sl.ColdKernel, (2.0, 2e4)),
        "COLD-FD": (sl.ColdFD, (2.0,)),
    }
    for title, (method, etas) in fits.items():
        began = time.perf_counter()
        fit = method.fit(model, pairs(), layer)
        seconds = time.perf_counter() - began
        for eta in etas:
            share = relative_norm(model, layer, eta * fit.steering)
            rows.append([title, f"{eta:g}", f"{share:.2g}", f"{seconds:.1f}"])
    return rows


def size_of_gradient(name: str, layer: int) -> str:
    """How many numbers COLD-FD keeps, and the space that they take."""
    steer = sl.ColdFD.fit(sl.load(name), pairs(), layer).steers[sl.Site(layer)]
    numbers = sum(part.numel() for part in steer.gradients)
    sizes = [f"{numbers * width / 2**20:.0f} MiB in {dtype}" for dtype, width in KEPT_IN.items()]
    return f"The gradient up to layer {layer}: {numbers} numbers, {', '.join(sizes)}."


def nearness(name: str, layer: int) -> list[list[str]]:
    """A row for each eta and method: how near it is to what the gradient step itself does."""
    rows = read("positive").split("validation")[:N]
    texts = [sl.Conversation(row.user, response=row.plain) for row in rows]
    table = step_approximation(sl.load(name), looked_at("sft"), layer, texts, etas=ETAS)
    columns = ["relative_error", "error_at_best_scale", "cosine", "recovered"]
    summary = approximation_summary(table)
    return [
        [row["method"], f"{row['eta']:g}", *(f"{row[column]:.2f}" for column in columns)]
        for _, row in summary.iterrows()
    ]


def relative_norm(model: HookedModel, layer: int, steering: sl.Steering) -> float:
    """|what is added| / |activation|, its median over the tokens of some questions."""
    texts = [sl.Conversation(question) for question in read("positive").questions("validation")[:N]]
    plain = sl.capture(model, texts, layer).at(layer)
    steered = sl.capture(model, texts, layer, steering=steering).at(layer)
    return float(((steered - plain).norm(dim=-1) / plain.norm(dim=-1)).median())


def main(arguments: Sequence[str] | None = None) -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="demo", help="as steerlens.load takes it")
    parser.add_argument("--layer", type=int, help="by default the middle one")
    chosen = parser.parse_args(arguments)
    layers = sl.load(chosen.model).cfg.n_layers
    layer = math.ceil(layers / 2) if chosen.layer is None else chosen.layer
    print(f"{chosen.model}, layer {layer} of {layers}, {N} pairs, torch {torch.__version__}\n")
    head = ["way to have the derivative", "error, sft", "error, dpo"]
    print(markdown_table(head, precision(chosen.model, layer)))
    print()
    head = ["method, loss dpo", "eta", "relative norm", "seconds to fit"]
    print(markdown_table(head, pushes(chosen.model, layer)))
    print(f"\n{size_of_gradient(chosen.model, layer)}\n")
    head = ["method, loss sft", "eta", "error", "at the best scale", "cosine", "of the effect"]
    print(markdown_table(head, nearness(chosen.model, layer)))


if __name__ == "__main__":
    main()
