"""Fitting PSR: the library's loop beside the plain one, which reuses nothing.

The plain loop is what one writes first, and what the authors' code does: one example at a time, a
full pass of the prompted row for its targets, a full pass of the plain row under the steer, and the
gradients of a batch added up before a step. Both take the same steps on the same batches, and begin
gates that opened on no token of an epoch anew in the same way, so their parameters must agree.
"""

import random
import warnings
from typing import Any

import torch
from torch import Tensor

import steerlens
from benchmarks.jobs import Job, compared
from benchmarks.timing import versions
from steerlens import PSR, Site, SteeringWarning, encode_pair
from steerlens.demo import benchmark_set
from steerlens.methods.psr import Gates
from steerlens.prompts import PromptPair
from steerlens.training.gates import revive
from steerlens.training.schedule import Schedule

N_PAIRS, REGULARISE = 24, 0.1
SCHEDULE = Schedule(epochs=15, batch_size=8, validation=0.0, patience=None)


def measure(job: Job) -> dict[str, Any]:
    """CPU seconds of fits of 15 epochs: S-PSR at two thirds of the depth, and A-PSR."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore", SteeringWarning)  # so few steps train little, but time enough
    model: Any = steerlens.load(job.model, backend=job.backend)  # pyright: ignore
    pairs = benchmark_set.read("positive").pairs("train")[:N_PAIRS]
    n_layers = model.cfg.n_layers
    cases = {"S-PSR at 2/3 depth": [2 * n_layers // 3 - 1], "A-PSR": list(range(n_layers))}
    tables, apart = {}, {}
    for name, layers in cases.items():
        tasks = {
            "plain loop": lambda layers=layers: by_plain_loop(model, pairs, layers),
            "PSR.fit": lambda layers=layers: by_library(model, pairs, layers),
        }
        plain, ours = (task() for task in tasks.values())
        apart[name] = max(float((plain[key] - ours[key]).abs().max()) for key in plain)
        tables[name] = compared(tasks, job.repeats)
    return {
        "tables": tables,
        "apart": apart,
        "n_pairs": N_PAIRS,
        "batch": SCHEDULE.batch_size,
        "steps": SCHEDULE.epochs * -(-N_PAIRS // SCHEDULE.batch_size),
        "versions": versions("transformer-lens", "torch"),
    }


def by_library(model: Any, pairs: list[PromptPair], layers: list[int]) -> dict[str, Tensor]:
    """The parameters that `PSR.fit` ends with."""
    fit = PSR.fit(model, pairs, layers, schedule=SCHEDULE, gates=Gates(regularise=REGULARISE))
    assert fit.trained is not None
    return fit.trained.parameters


def by_plain_loop(model: Any, pairs: list[PromptPair], layers: list[int]) -> dict[str, Tensor]:
    """The same steps, one example at a time, nothing reused."""
    rows = [encode_pair(model, pair) for pair in pairs]

    def begin(generator: torch.Generator) -> dict[str, Tensor]:
        return first_parameters(model.cfg.d_model, layers, generator)

    parameters = begin(torch.Generator().manual_seed(SCHEDULE.seed))
    with torch.no_grad():
        scale = sum(float(loss_of(model, row, parameters, layers)[0]) for row in rows) / len(rows)
    optimiser = torch.optim.AdamW(parameters.values(), weight_decay=SCHEDULE.weight_decay)
    training, _ = SCHEDULE.split(len(rows))
    n_batches = -(-len(training) // SCHEDULE.batch_size)
    steps = SCHEDULE.epochs * n_batches
    rate = SCHEDULE.rate(steps)
    for epoch in range(1, SCHEDULE.epochs + 1):
        opened = {Site(layer): torch.zeros(1) for layer in layers}
        order = random.Random(f"epoch {epoch} of {SCHEDULE.seed}").sample(training, len(training))
        for number in range(n_batches):
            done = (epoch - 1) * n_batches + number
            for group in optimiser.param_groups:
                group["lr"] = rate * (1 - done / steps)
            some = order[number * SCHEDULE.batch_size : (number + 1) * SCHEDULE.batch_size]
            optimiser.zero_grad()
            for i in some:
                psi, closed, gates = loss_of(model, rows[i], parameters, layers)
                for layer, open_ in gates.items():
                    opened[Site(layer)] += (open_ > 0).sum()
                ((psi / scale + REGULARISE * closed) / len(some)).backward()
            optimiser.step()
        if epoch < SCHEDULE.epochs:
            with torch.no_grad():
                revive(parameters, begin, opened, epoch, SCHEDULE.seed)
    return {name: value.detach() for name, value in parameters.items()}


def first_parameters(
    d_model: int, layers: list[int], generator: torch.Generator
) -> dict[str, Tensor]:
    """W, b and Z of every layer, uniform in +-1/sqrt(d), in the library's order."""
    bound = d_model**-0.5
    parameters = {}
    for layer in layers:
        for name, shape in (("W", (1, d_model)), ("b", (1,)), ("Z", (1, d_model))):
            value = (2 * torch.rand(shape, generator=generator) - 1) * bound
            parameters[f"{layer}.resid_post.{name}"] = value.requires_grad_()
    return parameters


def loss_of(
    model: Any, row: Any, parameters: dict[str, Tensor], layers: list[int]
) -> tuple[Tensor, Tensor, dict[int, Tensor]]:
    """Squared distance to the prompted residuals of all layers, how closed the gates are, gates."""
    plain, prompted = row
    n = len(plain.ids) - plain.response + 1
    kept: dict[int, Tensor] = {}

    def keeping(layer: int) -> tuple[str, Any]:
        return Site(layer).hook_name, lambda h, hook: kept.__setitem__(layer, h[0, -n:])

    reading = [keeping(layer) for layer in range(model.cfg.n_layers)]
    with torch.no_grad(), model.hooks(fwd_hooks=reading):
        model(torch.tensor([prompted.ids]))
    targets, closed = dict(kept), torch.zeros(())
    opened: dict[int, Tensor] = {}

    def steer(h: Tensor, layer: int) -> Tensor:
        nonlocal closed
        W, b, Z = (parameters[f"{layer}.resid_post.{part}"] for part in ("W", "b", "Z"))
        gates = torch.relu(h[:, -n:] @ W.T + b)
        opened[layer] = gates.detach()
        closed = closed + torch.relu(1 - gates.sum())
        return torch.cat([h[:, :-n], h[:, -n:] + gates @ Z], dim=1)

    steering = [
        (Site(layer).hook_name, lambda h, hook, layer=layer: steer(h, layer)) for layer in layers
    ]
    with model.hooks(fwd_hooks=[*steering, *reading]):
        model(torch.tensor([plain.ids]))
    above = range(min(layers), model.cfg.n_layers)
    squares = [(kept[layer] - targets[layer]).square().mean() for layer in above]
    return torch.stack(squares).sum(), closed, opened
