"""The same capture by other libraries, each in its own environment beside the same floor.

An environment is a folder `peer_NAME` with `bin/python`, the library and a transformers that it
works with. Nothing of steerlens is needed there.
"""

import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch

from benchmarks.floor import BATCH, last_token, load_plain
from benchmarks.jobs import Job, compared
from benchmarks.models import texts
from benchmarks.timing import Task, versions

FLOOR = "plain hooks"
PEERS = {"sv": "steering-vectors", "repeng": "repeng", "nnsight": "nnsight"}


def environments(folder: Path) -> dict[str, str]:
    """The Python of each peer that has an environment in `folder`, by distribution name."""
    found = {PEERS[short]: folder / f"peer_{short}" / "bin" / "python" for short in PEERS}
    return {name: str(python) for name, python in found.items() if python.is_file()}


def measure(job: Job) -> dict[str, Any]:
    """CPU seconds of one peer (the job's `backend`) at one middle layer and at all layers."""
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    cache = Path(job.cache)
    given = texts(cache)["pairs"]
    model, tokenizer = load_plain(str(cache / job.model))
    # The floor puts BOS in front itself; here it is part of the text.
    pairs = [tuple(tokenizer.bos_token + text for text in pair) for pair in given]
    fit = FITS[job.backend](model, tokenizer, pairs)
    sides = [text for side in zip(*given, strict=True) for text in side]
    every = list(range(model.config.num_hidden_layers))

    def tasks(layers: list[int]) -> dict[str, Task]:
        return {
            FLOOR: partial(last_token, model, tokenizer, sides, layers),
            job.backend: partial(fit, layers),
        }

    for task in tasks(every).values():
        task()
    tables = {
        name: compared(tasks(layers), job.repeats)
        for name, layers in {"one layer": [len(every) // 2], "all layers": every}.items()
    }
    return {"tables": tables, "versions": versions("torch", "transformers", job.backend)}


Fit = Callable[[list[int]], object]


def _steering_vectors(model: Any, tokenizer: Any, pairs: list[tuple[str, ...]]) -> Fit:
    from steering_vectors import train_steering_vector

    return lambda layers: train_steering_vector(
        model, tokenizer, pairs, layers=layers, batch_size=BATCH
    )


def _repeng(model: Any, tokenizer: Any, pairs: list[tuple[str, ...]]) -> Fit:
    from repeng import ControlVector, DatasetEntry

    entries = [DatasetEntry(positive=positive, negative=negative) for positive, negative in pairs]
    return lambda layers: ControlVector.train(
        model, tokenizer, entries, batch_size=BATCH, hidden_layers=layers
    )


def _nnsight(model: Any, tokenizer: Any, pairs: list[tuple[str, ...]]) -> Fit:
    from nnsight import LanguageModel

    traced: Any = LanguageModel(model, tokenizer=tokenizer)
    sides = [text for side in zip(*pairs, strict=True) for text in side]

    @torch.no_grad()
    def fit(layers: list[int]) -> object:
        kept = []
        for start in range(0, len(sides), BATCH):
            with traced.trace(sides[start : start + BATCH]) as tracer:
                saved = list().save()  # noqa: C408  nnsight saves the call, not the literal
                for layer in layers:
                    output = traced.transformer.h[layer].output
                    saved.append((output[0] if isinstance(output, tuple) else output)[:, -1])
                if len(layers) == 1:
                    tracer.stop()
            kept.append(saved)
        return kept

    return fit


FITS = {"steering-vectors": _steering_vectors, "repeng": _repeng, "nnsight": _nnsight}
