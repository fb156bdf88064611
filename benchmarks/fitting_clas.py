"""Fitting CLAS: the library beside the plain loop, which batches nothing and reuses nothing.

The plain loop is what the authors' code does: ten examples, one at a time, a full pass each, whose
gradients add up to one update; then the validation examples in the same way. Both take the same
steps, so their parameters must agree.
"""

from typing import Any

import torch
from torch import Tensor

import steerlens
from benchmarks.jobs import Job, compared
from benchmarks.timing import versions
from steerlens import CLAS, Site, encode_pair
from steerlens.demo import benchmark_set
from steerlens.prompts import Encoded, PromptPair
from steerlens.training.schedule import RATE, STEPS, Schedule

N_PAIRS, BIAS_RATE, CLIP = 10, 0.1, 1.0


def measure(job: Job) -> dict[str, Any]:
    """CPU seconds of fits at all blocks, and at the upper third of them."""
    torch.set_num_threads(1)
    model: Any = steerlens.load(job.model, backend=job.backend)  # pyright: ignore
    drawn = benchmark_set.read("positive").pairs("train")[: 2 * N_PAIRS]
    train, held = drawn[:N_PAIRS], drawn[N_PAIRS:]
    n_layers = model.cfg.n_layers
    cases = {
        "CLAS at all blocks": range(n_layers),
        "CLAS at the upper third": range(n_layers - n_layers // 3, n_layers),
    }
    tables, apart = {}, {}
    for name, layers in cases.items():
        generator = torch.Generator().manual_seed(0)
        v = {layer: steerlens.unit(_normal(model, generator)) for layer in layers}
        tasks = {
            "plain loop": lambda v=v: by_plain_loop(model, train, held, v),
            "CLAS.fit": lambda v=v: by_library(model, train, held, v),
        }
        plain, ours = (task() for task in tasks.values())
        apart[name] = max(float((plain[key] - ours[key]).abs().max()) for key in plain)
        tables[name] = compared(tasks, job.repeats)
    return {
        "tables": tables,
        "apart": apart,
        "n_pairs": N_PAIRS,
        "batch": N_PAIRS,
        "steps": STEPS,
        "versions": versions("transformer-lens", "torch"),
    }


def _normal(model: Any, generator: torch.Generator) -> Tensor:
    return torch.randn(model.cfg.d_model, generator=generator)


def by_library(
    model: Any, train: list[PromptPair], held: list[PromptPair], v: dict[int, Tensor]
) -> dict[str, Tensor]:
    """The parameters of the best step of `CLAS.fit`."""
    directions = {Site(layer): direction for layer, direction in v.items()}
    schedule = Schedule.full_batch(rates={"b": BIAS_RATE})
    fit = CLAS.fit(model, train, directions=directions, validation=held, schedule=schedule)
    assert fit.trained is not None
    return fit.trained.parameters


def by_plain_loop(
    model: Any, train: list[PromptPair], held: list[PromptPair], v: dict[int, Tensor]
) -> dict[str, Tensor]:
    """The same steps, one example at a time, nothing reused."""
    rows, others = ([encode_pair(model, pair)[0] for pair in pairs] for pairs in (train, held))
    c = {layer: torch.zeros(1, model.cfg.d_model, requires_grad=True) for layer in v}
    b = {layer: torch.zeros(1, requires_grad=True) for layer in v}
    optimiser = torch.optim.AdamW(
        [{"params": list(c.values()), "lr": RATE}, {"params": list(b.values()), "lr": BIAS_RATE}],
        weight_decay=0.0,
    )

    def parameters() -> dict[str, Tensor]:
        named = {f"{layer}.resid_post.c": c[layer].detach().clone() for layer in v}
        return {**named, **{f"{layer}.resid_post.b": b[layer].detach().clone() for layer in v}}

    def loss(some: list[Encoded], learning: bool) -> float:
        n, total = sum(len(row.ids) - row.response for row in some), 0.0
        for row in some:
            one = surprise(model, row, c, b, v) / n
            if learning:
                one.backward()
            total += one.item()
        return total

    with torch.no_grad():
        best, kept = loss(others, learning=False), parameters()
    for _ in range(STEPS):
        optimiser.zero_grad()
        loss(rows, learning=True)
        torch.nn.utils.clip_grad_norm_([*c.values(), *b.values()], CLIP)
        optimiser.step()
        with torch.no_grad():
            found = loss(others, learning=False)
        if found < best:
            best, kept = found, parameters()
    return kept


def surprise(
    model: Any, row: Encoded, c: dict[int, Tensor], b: dict[int, Tensor], v: dict[int, Tensor]
) -> Tensor:
    """Minus the log-probability of a row's response under the steer."""

    def steer(h: Tensor, layer: int) -> Tensor:
        return h + (h @ c[layer].T + b[layer]) * v[layer]

    hooks = [(Site(layer).hook_name, lambda h, hook, layer=layer: steer(h, layer)) for layer in v]
    ids = torch.tensor([row.ids])
    with model.hooks(fwd_hooks=hooks):
        scores = model(ids)[0]
    return torch.nn.functional.cross_entropy(
        scores[row.response - 1 : -1], ids[0, row.response :], reduction="sum"
    )
