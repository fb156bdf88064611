"""The two backends side by side: seconds to load, with and without the check, and to generate.

    python -m benchmarks.backends demo PATH_OF_A_MODEL ...

prints one Markdown table: CPU time on one thread in float32, the median of the rounds with the
least and the most, the backends taking turns. "As TransformerLens has it" is each without what
steerlens does to it: a HookedTransformer's weights as they are loaded, a bridge with all of its
inner hook points.
"""

import argparse
import math
import statistics
import time
from collections.abc import Callable
from typing import Any, Literal

import torch

import steerlens
from steerlens import generate
from steerlens.models import has_hooked_transformer
from steerlens.runtime.bare import keep_bare

NEW_TOKENS = 24
PROMPT = "Once upon a time there was"
Backend = Literal["bridge", "hooked"]
BACKENDS: tuple[Backend, ...] = ("bridge", "hooked") if has_hooked_transformer() else ("bridge",)
AS_IS = ", as TransformerLens has it"
COLUMNS = ("load, s", "load unchecked, s", "a token, ms", "a token of 8 rows, ms")


def cpu(work: Callable[[], Any]) -> float:
    """CPU seconds that `work` takes."""
    start = time.process_time()
    work()
    return time.process_time() - start


def one_round(place: str, backend: Backend) -> tuple[float, ...]:
    """The four numbers of a row, once."""
    unchecked = cpu(lambda: steerlens.load(place, backend=backend, verify=False))
    checked = cpu(lambda: steerlens.load(place, backend=backend))
    model = steerlens.load(place, backend=backend)
    return checked, unchecked, *tokens(model)


def as_it_is(place: str, backend: Backend) -> tuple[float, ...]:
    """The same of a model as TransformerLens has it, which loads no otherwise."""
    model: Any = steerlens.load(place, backend=backend)
    keep_bare(model, None)
    if backend == "hooked":
        for weight in model.parameters():
            weight.data = weight.data.contiguous()
    return float("nan"), float("nan"), *tokens(model)


def tokens(model: Any) -> list[float]:
    """CPU milliseconds of a token, of one row and of eight."""

    def write(rows: int) -> None:
        prompts = [PROMPT] * rows
        generate(model, prompts, max_new_tokens=NEW_TOKENS, temperature=0, stop_at_end=False)

    write(1)
    return [1000 * cpu(lambda rows=rows: write(rows)) / NEW_TOKENS for rows in (1, 8)]


def spread(numbers: list[float]) -> str:
    """The median, and from where to where."""
    middle, least, most = statistics.median(numbers), min(numbers), max(numbers)
    if math.isnan(middle):
        return ""
    return f"{middle:.3g} ({least:.3g} to {most:.3g})"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.backends", description=__doc__)
    parser.add_argument("models", nargs="*", default=["demo"])
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(1)
    print("| model | backend |", " | ".join(COLUMNS), "|")
    print("|---|---|" + "---|" * len(COLUMNS))
    for place in options.models:
        rounds: dict[str, list[tuple[float, ...]]] = {}
        for _ in range(options.rounds):
            for backend in BACKENDS:
                rounds.setdefault(backend, []).append(one_round(place, backend))
                rounds.setdefault(backend + AS_IS, []).append(as_it_is(place, backend))
        for backend, rows in rounds.items():
            cells = [spread(list(column)) for column in zip(*rows, strict=True)]
            print(f"| {place} | {backend} |", " | ".join(cells), "|")


if __name__ == "__main__":
    main()
