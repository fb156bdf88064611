"""Training by imitation: a steered run without the instruction follows the run that has it.

Both runs hold the same response. What the prompted run does (the *targets*) never changes, and what
the plain run does below the lowest steered site never changes either (the *entry*): both are
computed once. Every later pass enters above the entry and, where only activations count, ends after
the last block. What is minimised is in `objectives.py`.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import torch
from jaxtyping import Float
from torch import Tensor

from steerlens.checks import require_seed
from steerlens.combinators import bind
from steerlens.identity import device_of, origin_of
from steerlens.precision import wide, wide_dtype
from steerlens.prompts import PromptPair
from steerlens.runtime.forward import blocks_only, logits, logits_from, logits_where
from steerlens.runtime.turns import hooked
from steerlens.saving import digest_of
from steerlens.scopes import Scope
from steerlens.sites import Site
from steerlens.steering import Steering
from steerlens.training.checkpoint import Parameters
from steerlens.training.checks import (
    as_labels,
    require_data,
    require_instructions,
    require_objective,
)
from steerlens.training.examples import Examples
from steerlens.training.gates import Gated, Modules, key_of
from steerlens.training.objectives import MSE, Objective
from steerlens.training.steered_pass import Pass
from steerlens.training.store import Entry, Storage, Store
from steerlens.types import HookedModel, Residual

BATCH = 16
"""Examples of a pass in which nothing is trained."""


class Imitation:
    """The `Task` of fitting gated steers so that plain runs imitate prompted ones.

    `labels` are how much of the attribute each response has (0 to 1): the strength at which it is
    trained on, plus `shift`, or plus the parameter `b_m` of a site where there is one. `regularise`
    weighs max(0, 1 - sum of the gates). With a `teacher` the targets are those of the plain run
    under that steering. LL asks nothing of the prompted run.
    """

    def __init__(
        self,
        model: HookedModel,
        pairs: Sequence[PromptPair],
        modules: Modules,
        *,
        scope: Scope,
        objective: Objective = MSE(),  # noqa: B008  a frozen value
        labels: Sequence[float] | None = None,
        shift: float = 0.0,
        regularise: float = 0.0,
        teacher: Steering | None = None,
        storage: Storage = Storage(),  # noqa: B008  a frozen value
        seed: int = 0,
    ) -> None:
        require_seed(seed)
        self.model, self.modules, self.objective = model, modules, objective
        self.sites, self.shift, self.regularise = modules.sites, shift, regularise
        require_data(model, pairs, self.sites)
        self.labels = as_labels(labels, len(pairs), wide_dtype(model))
        require_objective(objective, teacher)
        self.layers = tuple(range(min(self.sites).layer, model.cfg.n_layers))
        self.examples = Examples.of(model, pairs, scope, aligned=objective.mse > 0)
        self.targets = self._targets(scope, teacher, storage) if objective.mse else None
        self.entry = Entry.of(model, self.examples.plain, self.sites, storage)
        self._firing: dict[Site, list[Tensor]] = {site: [] for site in self.sites}
        start = self.start(torch.Generator().manual_seed(seed))
        self.scale = {"LL": 1.0} if objective.by_token else self._values_at(start)
        self._about = f"{self.sites} {scope} {objective} {self._digest(start, teacher)}"

    def _targets(self, scope: Scope, teacher: Steering | None, storage: Storage) -> Store:
        """What is imitated on each span, at each of the layers."""
        if teacher is None:
            require_instructions(self.examples.both)
        rows = self.examples.prompted if teacher is None else self.examples.plain
        counts = [len(span) for span in self.examples.spans]
        sites = [Site(layer) for layer in self.layers]
        return Store.of(self.model, rows, sites, scope, counts, storage.memory, teacher)

    def _digest(self, start: Parameters, teacher: Steering | None) -> str:
        """What tells this task from another: a checkpoint belongs to one alone."""
        about: list[Any] = [self.regularise, self.shift, self.labels.tolist(), sorted(start)]
        about += [origin_of(self.model).model.fingerprint]
        about += [[(plain.ids, prompted.ids) for plain, prompted in self.examples.both]]
        about += [_digest_of(part) for part in (teacher, *self.modules.build(start).values())]
        return hashlib.sha256(repr(about).encode()).hexdigest()[:16]

    @property
    def size(self) -> int:
        """How many pairs there are."""
        return len(self.examples.plain)

    def __repr__(self) -> str:
        return f"Imitation({self._about})"

    def start(self, generator: torch.Generator) -> Parameters:
        """The first parameters: of a seed the same numbers, whatever the precision."""
        dtype, begun = wide_dtype(self.model), self.modules.begin(generator)
        return {name: value.to(dtype) for name, value in begun.items()}

    def loss(self, parameters: Parameters, examples: Sequence[int]) -> Float[Tensor, ""]:
        """The objective over its first value, and the regulariser; the mean over the examples."""
        return self.loss_of(self.run(parameters, examples), examples)

    def loss_of(self, run: Pass, examples: Sequence[int]) -> Float[Tensor, ""]:
        """The loss of a pass over these examples."""
        weights = torch.ones(len(examples), device=run.tokens.device)
        if self.objective.by_token:
            counts = run.responses.sum(dim=1).to(wide_dtype(self.model))
            weights = counts / counts.mean()
        total = sum(
            self.objective.weights[name] * (weights * value).mean() / self.scale[name]
            for name, value in self._values(run, examples).items()
        )
        if self.regularise:
            total = total + self.regularise * run.closed().mean()
        return torch.as_tensor(total)

    def run(
        self, parameters: Parameters, examples: Sequence[int], gates_only: bool = False
    ) -> Pass:
        """One steered pass over these examples; no further than the last gate if these are all."""
        run = self._begun(parameters, examples)
        forward, acted_on = self._forward(run, examples)
        last = max(self.sites).layer if gates_only else self.model.cfg.n_layers - 1
        with hooked(self.model, run.hooks(acted_on)):
            if self.objective.ll and not gates_only:
                predicting = torch.nn.functional.pad(run.responses[:, 1:], (0, 1))
                run.scores = logits_where(self.model, forward, predicting)
            elif self.entry is None or self.entry.block <= last:
                blocks_only(self.model, forward, last)
        if torch.is_grad_enabled():  # gates are watched in training, not in validation
            for site, opened in run.opened().items():
                self._firing[site].append(opened)
        return run

    def _begun(self, parameters: Parameters, examples: Sequence[int]) -> Pass:
        """The pass before its first block: the steers of its window, each at its strength."""
        tokens, window, spans = self.examples.batch(examples, device_of(self.model))
        built = self.modules.build(parameters).items()
        steers = {site: cast("Gated", bind(steer, window)) for site, steer in built}
        labels = self.labels[list(examples)].to(spans.device)[:, None, None]
        strengths = {
            site: (labels + parameters.get(key_of(site, "b_m"), self.shift)) * spans[..., None]
            for site in steers
        }
        return Pass(tokens, window, spans, steers, strengths)

    def _forward(
        self, run: Pass, examples: Sequence[int]
    ) -> tuple[Callable[[], Tensor], list[Site]]:
        """What runs the model from the entry on, and the sites that need a hook."""
        sites = {*self.sites, *(Site(layer) for layer in self.layers)}
        if self.entry is None:
            return lambda: logits(self.model, run.tokens, run.window), sorted(sites)
        entered = self._entered(examples, run.tokens.shape[1])
        if self.entry.site in sites:  # no hook fires there: that block does not run
            entered = run.steered(self.entry.site, entered)
        above, arguments = sites - {self.entry.site}, (self.entry.block, run.tokens, run.window)
        return lambda: logits_from(self.model, entered, *arguments), sorted(above)

    def _entered(self, examples: Sequence[int], width: int) -> Residual:
        assert self.entry is not None
        entry = self.entry.at(examples, width).to(self.model.cfg.dtype)
        return entry.to(device_of(self.model))

    def fired(self) -> dict[Site, Float[Tensor, " rank"]]:
        """How often each gate was open in training since the last call, as a share of tokens."""
        opened, self._firing = self._firing, {site: [] for site in self.sites}
        return _shares(opened)

    @torch.no_grad()
    def firing_rates(self, parameters: Parameters) -> dict[Site, Float[Tensor, " rank"]]:
        """How often each gate is open with these parameters, as a share of the span's tokens."""
        opened: dict[Site, list[Tensor]] = {site: [] for site in self.sites}
        for examples in self._batches():
            run = self.run(parameters, examples, gates_only=True)
            for site, gates in run.opened().items():
                opened[site].append(gates)
        return _shares(opened)

    @torch.no_grad()
    def _values_at(self, parameters: Parameters) -> dict[str, float]:
        """The mean of every term of the objective over all examples."""
        sums: dict[str, float] = {}
        for examples in self._batches():
            for name, value in self._values(self.run(parameters, examples), examples).items():
                sums[name] = sums.get(name, 0.0) + value.sum().item()
        return {name: value / self.size for name, value in sums.items()}

    def _values(self, run: Pass, examples: Sequence[int]) -> dict[str, Float[Tensor, " batch"]]:
        """Every term of the objective, by example."""
        values = {"MSE": self._squared(run, examples)} if self.objective.mse else {}
        return values | ({"LL": run.surprise()} if self.objective.ll else {})

    def _squared(self, run: Pass, examples: Sequence[int]) -> Float[Tensor, " batch"]:
        assert self.targets is not None
        dtype = wide_dtype(self.model)
        total = torch.zeros(len(examples), device=run.tokens.device, dtype=dtype)
        for layer in self.layers:
            residual = wide(run.residuals[layer])
            target = torch.zeros_like(residual)
            for number, i in enumerate(examples):
                span, kept = self.examples.spans[i], self.targets.of_row(i, Site(layer))
                target[number, span] = kept.to(target)
            squares = (residual - target).square().mean(dim=-1) * run.spans
            total = total + squares.sum(dim=1) / run.spans.sum(dim=1)
        return total

    def _batches(self) -> list[range]:
        return [range(start, min(start + BATCH, self.size)) for start in range(0, self.size, BATCH)]


def _shares(opened: Mapping[Site, Sequence[Tensor]]) -> dict[Site, Float[Tensor, " rank"]]:
    return {
        site: torch.cat(list(gates)).float().mean(dim=0) for site, gates in opened.items() if gates
    }


def _digest_of(steer: object) -> str:
    """What tells a steer from another in a checkpoint; a plain function has only its class."""
    try:
        return digest_of(steer)
    except ValueError:
        return type(steer).__name__
