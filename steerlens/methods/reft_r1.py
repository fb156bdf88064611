"""ReFT-r1: one direction that detects a concept and, added, writes it.

Wu et al., "AxBench: Steering LLMs? Even Simple Baselines Outperform Sparse Autoencoders",
arXiv 2501.17148, section 3, at the output of one block, with ||w|| = 1:

    a_i = relu( h_i w )                              how much of the concept is at token i
    h'  = h + mean(TopK(a, k)) w                     in training: one strength for a whole text
    h'  = h + a_max w                                steering, at every token

a_max is the largest a_i on the training text; the paper's factor is the strength. w is learnt by
the likelihood of responses that show the concept, and of others (`negatives`) that must stay as
likely, plus an L1 penalty, growing with training, on latents that are not among the k largest:

    loss = LL + (step / steps) l1 * sum over texts of mean_i( a_i not in TopK )

After each step w is brought back to length 1, and of the gradient only what is across w counts.

Not this one: the "ReFT" of the CLAS paper, h + (c h + b) v with v learnt, is
`CLAS.fit(learn_directions=True)`; with orthonormal rows it is `LoReFT`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from steerlens.activations import capture_stream
from steerlens.directions.means import unit
from steerlens.forms import Added
from steerlens.kinds import require_kinds
from steerlens.precision import wide
from steerlens.prompts import Encoded, PromptPair
from steerlens.scopes import Scope, Window, everywhere
from steerlens.sites import Site, Sites, as_sites
from steerlens.steers import steer
from steerlens.training.checkpoint import Parameters
from steerlens.training.checks import require_latents, require_opened, require_some
from steerlens.training.closing import require_open, until_open, while_open
from steerlens.training.fit import Fit, token_ids
from steerlens.training.gates import key_of
from steerlens.training.imitation import Imitation
from steerlens.training.loop import train
from steerlens.training.objectives import LL
from steerlens.training.schedule import Schedule
from steerlens.types import Direction, Hook, HookedModel, Residual, Where

AXBENCH = Schedule(epochs=3, batch_size=6, weight_decay=0.01, patience=None, clip=1.0)
"""The authors' schedule; the rate is their 0.01 up to 1,500 steps, and lower the more there are."""
K, L1 = 8, 0.005


@steer
class ReFTr1:
    """Add a_max w to every position."""

    w: Direction
    a_max: float

    def __post_init__(self) -> None:
        require_opened(self.a_max)

    @property
    def form(self) -> Added:
        """For other tools: one vector, added everywhere."""
        return Added(self.a_max * wide(self.w))

    @staticmethod
    def require(model: HookedModel, *, k: int, l1: float) -> None:
        """Raise ValueError for keywords of `fit` that cannot be; asked before any work."""
        require_latents(k, l1)

    @classmethod
    def fit(
        cls,
        model: HookedModel,
        pairs: Sequence[PromptPair],
        sites: Sites,
        *,
        validation: Sequence[PromptPair] = (),
        negatives: Sequence[PromptPair] = (),
        k: int = K,
        l1: float = L1,
        schedule: Schedule = AXBENCH,
        scope: Scope = everywhere.without_bos,
        progress: bool = False,
    ) -> "Fit[ReFTr1]":
        """Fit w at one site, or at several at once, on the plain prompt and response of each pair.

        `k` is how many of a text's largest latents steer it in training. `l1` weighs the penalty on
        the other latents. `negatives` are pairs whose response does not show the concept. Without
        `validation` pairs the last parameters are kept, as the authors do; else the epoch with the
        likeliest validation responses, of which the start, a random direction, is one. `scope` is
        where a_i is taken in training (the authors leave out a chat template's first tokens).

        Where w opens on no token any more, nothing is learnt: the training begins anew, slower,
        with a SteeringWarning. ValueError where a rate was given, or after four such trainings.
        With `validation` only the epoch that is kept must be open.
        """
        require_kinds(ReFTr1.fit, locals())
        cls.require(model, k=k, l1=l1)
        require_some(pairs)
        modules = _Modules(tuple(sorted(as_sites(sites, model))), model.cfg.d_model, k, scope)
        n, every = len(pairs) + len(negatives), [*pairs, *negatives, *validation]
        objective = LL(by_token=True)
        task = Imitation(
            model, every, modules, scope=scope, objective=objective, seed=schedule.seed
        )

        def penalised(parameters: Parameters, examples: Sequence[int], done: float) -> Tensor:
            run = task.run(parameters, examples)
            rest = [split_latents(a[..., 0], run.spans, k)[1].sum() for a in run.gates.values()]
            return task.loss_of(run, examples) + done * l1 * sum(rest)

        def attempt(again: Schedule) -> "Fit[ReFTr1]":
            trained = train(
                task, again, cost=penalised, after_step=modules.make_unit,
                after_epoch=None if validation else while_open(task),
                split=(range(n), range(n, len(every))), progress=progress,
            )  # fmt: skip
            rows, w = task.examples.plain, modules.directions(trained.parameters)
            a_max = largest_latents(model, rows[:n], w, scope)
            require_open({site: a_max[site] > 0 for site in a_max}, "at the end of training")
            steers = {site: cls(w[site], a_max[site]) for site in modules.sites}
            return Fit.of(model, steers, token_ids(rows), seed=schedule.seed, trained=trained)

        return until_open(attempt, schedule, n)

    def latents(self, h: Float[Tensor, "*token d_model"]) -> Float[Tensor, "*token"]:
        """How much of the concept is at each token: the paper's detector."""
        h = wide(h)
        return torch.relu(h @ self.w.to(h))

    def __call__(self, activation: Residual, hook: Hook = None) -> Residual:
        h, a_max = wide(activation), self.a_max
        w = self.w.to(h)
        return (h + a_max * w).to(activation.dtype)


@dataclass(frozen=True, eq=False, repr=False)
class InTraining:
    """The edit in training: add w as strongly as the k largest latents of the text, on average."""

    w: Direction
    k: int
    scope: Scope
    where: Where | None = None
    needs_window = True

    def bind(self, window: Window) -> "InTraining":
        """The edit on the tokens of one pass."""
        return replace(self, where=self.scope.where(window))

    def gates(self, h: Residual) -> Float[Tensor, "batch pos one"]:
        """The latent of each token; 0 outside the scope."""
        assert self.where is not None
        h = wide(h)
        return (torch.relu(h @ self.w.to(h)) * self.where)[..., None]

    def __call__(self, activation: Residual, hook: Hook = None) -> Residual:
        assert self.where is not None
        h = wide(activation)
        w = self.w.to(h)
        top, _ = split_latents(self.gates(h)[..., 0], self.where, self.k)
        return (h + top[:, None, None] * w).to(activation.dtype)


@dataclass(frozen=True)
class _Modules:
    """One direction a site, of length 1 before each pass."""

    sites: tuple[Site, ...]
    d_model: int
    k: int
    scope: Scope

    def begin(self, generator: torch.Generator) -> Parameters:
        """A random direction at each site."""
        return {
            key_of(site, "w"): unit(torch.randn(self.d_model, generator=generator))
            for site in self.sites
        }

    def directions(self, parameters: Parameters) -> dict[Site, Direction]:
        """The direction of each site."""
        return {site: parameters[key_of(site, "w")] for site in self.sites}

    def build(self, parameters: Parameters) -> dict[Site, InTraining]:
        """The edits with these parameters."""
        w = self.directions(parameters)
        return {site: InTraining(unit(w[site]), self.k, self.scope) for site in self.sites}

    def make_unit(self, parameters: Parameters) -> None:
        """Bring every direction back to length 1."""
        for w in parameters.values():
            w.copy_(unit(w))


def split_latents(
    a: Float[Tensor, "batch pos"], where: Where, k: int
) -> tuple[Float[Tensor, " batch"], Float[Tensor, " batch"]]:
    """Of each row: the mean of its k largest latents, and the sum of the others over its tokens.

    Latents are at least 0, and 0 where `where` is False. A row of k tokens or fewer has no others.
    """
    n = where.sum(dim=1).clamp(min=1)
    top = a.topk(min(k, a.shape[1]), dim=1).values.sum(dim=1)
    return top / n.clamp(max=k), (a.sum(dim=1) - top) / n


def largest_latents(
    model: HookedModel, rows: Sequence[Encoded], w: dict[Site, Direction], scope: Scope
) -> dict[Site, float]:
    """At each site the largest h w on the tokens of `scope`; above 0 it is the largest latent."""
    pieces = list(capture_stream(model, rows, list(w), scope=scope))
    return {
        site: max(float((wide(piece.at(site)) @ w[site]).max()) for piece in pieces) for site in w
    }
