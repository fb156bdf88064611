"""COLD-Steer: what steering costs a token, and gradients in batches beside one by one.

All tokens are steered, those of the prompt and new ones alike, at a site in the middle and at the
last block; f is the share of the blocks up to the site. What a new token takes is the difference of
a longer and a shorter generation, so that what is done once a text is not in it.
"""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

import steerlens
from benchmarks.jobs import Job, Row, compared
from benchmarks.models import source, texts
from benchmarks.timing import Seconds, Task, interleaved, ratios, versions
from steerlens import ColdFD, ColdKernel, Site, everywhere, generate
from steerlens.methods.cold.examples import examples_of
from steerlens.methods.cold.gradients import activation_gradients, mean_gradient
from steerlens.methods.cold.losses import Example, loss_named
from steerlens.prompts import Encoded
from steerlens.steering import Steering

NEW_TOKENS, N_EXAMPLES, BATCH = 16, 8, 8
UNSTEERED, KERNEL = "unsteered", "COLD-Kernel"
DIFFERENCE, DERIVATIVE = "COLD-FD, difference", "COLD-FD, derivative"


def measure(job: Job) -> dict[str, Any]:
    """CPU seconds of a prompt pass and of a new token for 8 prompts, and of 8 pairs' gradients."""
    torch.set_num_threads(1)
    place, given = source(job.model, Path(job.cache)), texts(Path(job.cache))
    model: Any = steerlens.load(place, backend=job.backend)  # pyright: ignore
    positive, negative = zip(*given["pairs"][:N_EXAMPLES], strict=True)
    sides = tuple([answered(model, text) for text in side] for side in (positive, negative))

    def writing(steering: Steering | None, n: int) -> Task:
        return lambda: generate(
            model, given["prompts"], steering, max_new_tokens=n, temperature=0, stop_at_end=False
        )

    writing(None, NEW_TOKENS)()
    blocks, tables, memory = model.cfg.n_layers, {}, {}
    for site in (blocks // 2 - 1, blocks - 1):
        common: dict[str, Any] = {"loss": "dpo", "eta": 1e-3, "scope": everywhere}
        peaks = [peak()]
        derivative = ColdFD.fit(model, sides, site, **common)
        peaks.append(peak())
        writing(derivative.steering, NEW_TOKENS)()
        peaks.append(peak())
        ways: dict[str, Steering | None] = {
            UNSTEERED: None,
            KERNEL: ColdKernel.fit(model, sides, site, **common).steering,
            DIFFERENCE: ColdFD.fit(model, sides, site, mode="fd", **common).steering,
            DERIVATIVE: derivative.steering,
        }
        f = (site + 1) / blocks
        memory.setdefault("touched", size_of(derivative.steer))
        memory.setdefault("fit", peaks[1] - peaks[0])
        memory.setdefault("steer", peaks[2] - peaks[1])
        for what, rows in by_part(ways, writing, job.repeats).items():
            tables[f"f = {f:g}, {what}"] = {"f": f, "rows": rows}
    return {
        "tables": tables,
        "memory": memory,
        "gradients": gradients(model, sides, Site(blocks // 2 - 1), job.repeats),
        "n_examples": N_EXAMPLES,
        "batch": BATCH,
        "versions": versions("transformer-lens", "torch"),
    }


def answered(model: Any, text: str) -> Encoded:
    """A text as a prompt, up to its colon, with the rest as the answer."""
    start, _, rest = text.partition(":")
    bos = model.tokenizer.bos_token_id
    prompt, answer = (model.tokenizer.encode(part) for part in (start + ":", rest))
    return Encoded((bos, *prompt, *answer), 1, 1 + len(prompt), bos=True)


def by_part(ways: Mapping[str, Steering | None], writing: Any, repeats: int) -> dict[str, Any]:
    """CPU seconds of a pass over the prompts, and of each further token."""
    lengths = (1, 1 + NEW_TOKENS)
    tasks = {(way, n): writing(steering, n) for way, steering in ways.items() for n in lengths}
    for task in tasks.values():
        task()
    named = {f"{way} {n}": task for (way, n), task in tasks.items()}
    taken = interleaved(named, repeats)
    prompt: Seconds = {way: taken[f"{way} {lengths[0]}"] for way in ways}
    token: Seconds = {
        way: [
            (long - short) / NEW_TOKENS
            for long, short in zip(taken[f"{way} {lengths[1]}"], prompt[way], strict=True)
        ]
        for way in ways
    }
    return {
        what: [Row(way, part[way], ratios(part, way, UNSTEERED), UNSTEERED) for way in ways]
        for what, part in (("prompt", prompt), ("each new token", token))
    }


def gradients(
    model: Any, sides: tuple[list[Encoded], ...], site: Site, repeats: int
) -> dict[str, list[Row]]:
    """Gradients of DPO for activations and for parameters, one example a pass and `BATCH`."""
    examples: list[Example] = examples_of(model, "dpo", sides)
    loss, tables = loss_named("dpo"), {}
    for what in ("activations", "parameters"):

        def task(size: int, what: str = what) -> Any:
            if what == "parameters":
                return mean_gradient(model, examples, loss, site.layer, size)
            return list(activation_gradients(model, examples, loss, [site], size))

        tasks: dict[str, Task] = {
            "one by one": lambda task=task: task(1),
            f"{BATCH} a pass": lambda task=task: task(BATCH),
        }
        for each in tasks.values():
            each()
        tables[what] = compared(tasks, repeats)
    return tables


def size_of(cold: ColdFD) -> float:
    """MiB of the parameters that the gradient is for."""
    return sum(g.numel() * g.element_size() for g in cold.gradients) / 2**20


def peak() -> float:
    """MiB that this process has held at most so far; nan where nobody counts."""
    if sys.platform == "win32":
        return float("nan")
    import resource

    unit = 2**20 if sys.platform == "darwin" else 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit
