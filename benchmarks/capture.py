"""Capture of the last token of 64 contrast pairs, against plain hooks that waste nothing."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import steerlens
from benchmarks.floor import BATCH, last_token, load_plain
from benchmarks.jobs import Job, compared
from benchmarks.models import source, texts
from benchmarks.timing import versions
from steerlens.models import DEMO

FLOOR, OURS = "plain hooks", "steerlens"
ALIKE = 0.9999


def measure(job: Job) -> dict[str, Any]:
    """CPU seconds at one middle layer and at all layers, after a look that both find the same."""
    torch.set_num_threads(1)
    place, given = source(job.model, Path(job.cache)), texts(Path(job.cache))
    model: Any = steerlens.load(place, backend=job.backend)  # pyright: ignore
    plain, tokenizer = load_plain(str(DEMO) if place == "demo" else place)
    sides = [text for side in zip(*given["pairs"], strict=True) for text in side]
    every = list(range(model.cfg.n_layers))

    def ours(layers: list[int]) -> dict[int, Tensor]:
        found = steerlens.capture(model, sides, layers, scope=steerlens.last, batch_size=BATCH)
        return {layer: found.at(layer) for layer in layers}

    def floor(layers: list[int]) -> dict[int, Tensor]:
        return last_token(plain, tokenizer, sides, layers)

    cosine = require_alike(ours(every), floor(every))
    tables = {
        name: compared({FLOOR: partial(floor, layers), OURS: partial(ours, layers)}, job.repeats)
        for name, layers in {"one layer": [len(every) // 2], "all layers": every}.items()
    }
    return {
        "tables": tables,
        "cosine": cosine,
        "versions": versions("torch", "transformers", "transformer-lens"),
    }


def require_alike(ours: Mapping[int, Tensor], theirs: Mapping[int, Tensor]) -> float:
    """The smallest cosine of two captures of one token; RuntimeError if they differ."""
    worst = min(
        float(torch.cosine_similarity(ours[layer], theirs[layer], dim=1).min()) for layer in theirs
    )
    if worst < ALIKE:
        raise RuntimeError(f"The captures differ, cosine {worst}: there is nothing to compare.")
    return worst
