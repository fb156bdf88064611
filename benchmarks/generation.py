"""Greedy generation: what steering costs, and how fast the unsteered loop is beside others'."""

from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import steerlens
from benchmarks.floor import load_plain
from benchmarks.jobs import Job, compared
from benchmarks.models import source, texts
from benchmarks.timing import Task, versions
from steerlens import CAA, Steering, at, capture, generate, last, response
from steerlens.models import DEMO

NEW_TOKENS = 64
UNSTEERED = "unsteered"
RIVAL_REPEATS = 3  # a factor is asked for here, not a few per cent


def measure(job: Job) -> dict[str, Any]:
    """CPU seconds of 64 new tokens for 8 prompts, by way of steering and by library."""
    torch.set_num_threads(1)
    place, given = source(job.model, Path(job.cache)), texts(Path(job.cache))
    model: Any = steerlens.load(place, backend=job.backend)  # pyright: ignore
    prompts = given["prompts"]

    def ours(steering: Steering | None = None) -> Tensor:
        written = generate(
            model,
            prompts,
            steering,
            max_new_tokens=NEW_TOKENS,
            temperature=0,
            stop_at_end=False,
        )
        return written.tokens[:, -NEW_TOKENS:]

    tasks: dict[str, Task] = {UNSTEERED: ours}
    for name, steering in steerings(model, given["pairs"][:8]).items():
        tasks[name] = partial(ours, steering)
    rivals: dict[str, Task] = {
        "steerlens": ours,
        "transformers": transformers_task(str(DEMO) if place == "demo" else place, prompts),
        "TransformerLens": partial(by_transformer_lens, model, prompts),
    }
    tokens: dict[str, Any] = {name: task() for name, task in (tasks | rivals).items()}
    return {
        "rows": compared(tasks, job.repeats),
        "rivals": compared(rivals, min(job.repeats, RIVAL_REPEATS)),
        "same_tokens": {name: same_rows(tokens[UNSTEERED], tokens[name]) for name in rivals},
        "versions": versions("torch", "transformers", "transformer-lens"),
    }


def steerings(model: Any, pairs: list[list[str]]) -> dict[str, Steering]:
    """CAA at the middle layer and at every layer, and there on the response alone."""
    layers = list(range(model.cfg.n_layers))
    sides = [capture(model, side, layers, scope=last) for side in zip(*pairs, strict=True)]
    each = [
        at(layer, CAA.from_activations(*(side.at(layer) for side in sides))) for layer in layers
    ]
    every = Steering(tuple(placed for steering in each for placed in steering.placed))
    return {
        "one layer": each[len(layers) // 2],
        "all layers": every,
        "all layers, `response` only": every.only(response),
    }


def transformers_task(folder: str, prompts: list[str]) -> Task:
    """The `generate` of transformers on the weights in `folder`."""
    from transformers import GenerationConfig

    model, tokenizer = load_plain(folder)
    # Without an end token nothing stops early, as in the other tasks.
    model.generation_config = GenerationConfig(
        max_new_tokens=NEW_TOKENS, do_sample=False, pad_token_id=tokenizer.pad_token_id
    )
    texts = [tokenizer.bos_token + prompt for prompt in prompts]

    def task() -> Tensor:
        batch = tokenizer(texts, return_tensors="pt", padding=True, add_special_tokens=False)
        return model.generate(**batch)[:, -NEW_TOKENS:]

    return task


def by_transformer_lens(model: Any, prompts: list[str]) -> Tensor:
    """The last tokens of the model's own `generate`; strings are what it pads rightly."""
    written = model.generate(
        prompts,
        max_new_tokens=NEW_TOKENS,
        do_sample=False,
        stop_at_eos=False,
        return_type="tokens",
        verbose=False,
    )
    return written[:, -NEW_TOKENS:]


def same_rows(ours: Tensor, theirs: Tensor) -> list[int]:
    """How many rows agree in every token, and of how many."""
    agreeing = (ours == theirs).all(dim=1)
    return [int(agreeing.sum()), len(agreeing)]
