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
from dataclasses import dataclass, field, replace

import torch
from jaxtyping import Float
from torch import Tensor

from steerlens.activations import capture_stream
from steerlens.checks import require_finite
from steerlens.directions.means import unit
from steerlens.identity import origin_of
from steerlens.prompts import Encoded, PromptPair
from steerlens.saving import saveable
from steerlens.scopes import Scope, Window, everywhere
from steerlens.sites import Site, as_site
from steerlens.steering import Steering
from steerlens.training.imitation import Imitation
from steerlens.training.loop import Parameters, Schedule, Trained, train
from steerlens.types import Direction, Hook, HookedModel, Residual, Where

AXBENCH = Schedule(epochs=3, batch_size=6, weight_decay=0.01, patience=None, clip=1.0)
"""The authors' schedule; the rate is their 0.01 up to 1,500 steps, and lower the more there are."""
K, L1 = 8, 0.005


@saveable
@dataclass(frozen=True, eq=False)
class ReFTr1:
    """Add a_max w to every position."""

    w: Direction = field(repr=False)
    a_max: float

    def __post_init__(self) -> None:
        require_finite(self.w.detach(), "ReFTr1's w")
        if not 0 < self.a_max < float("inf"):
            raise ValueError(
                f"a_max is the largest latent on the training text and must be above 0; found "
                f"{self.a_max}. If no token of the training text opens the latent, train longer or "
                "from another seed."
            )

    @property
    def d_model(self) -> int:
        """The width of the residual stream that w belongs to."""
        return self.w.shape[0]

    @classmethod
    def fit(
        cls,
        model: HookedModel,
        pairs: Sequence[PromptPair],
        validation: Sequence[PromptPair],
        site: int | Site,
        *,
        negatives: Sequence[PromptPair] = (),
        k: int = K,
        l1: float = L1,
        schedule: Schedule = AXBENCH,
        scope: Scope = everywhere.without_bos,
        template: str | None = None,
        progress: bool = False,
    ) -> "Fit":
        """Fit w at one site, on the plain prompt and the response of each pair.

        `negatives` are pairs whose response does not show the concept. `validation=[]` keeps the
        last parameters, as the authors do; else the epoch with the likeliest validation responses
        is kept, of which the start, a random direction, is one. `scope` is where a_i is taken in
        training (the authors leave out a chat template's first tokens).
        """
        if k < 1 or not l1 >= 0:
            raise ValueError(f"k is at least 1 and l1 at least 0; found k={k} and l1={l1}.")
        place, trained_on = as_site(site), [*pairs, *negatives]
        both = [*trained_on, *validation]
        task = Imitation(
            model,
            both,
            [place],
            build=lambda parameters: {place: InTraining(unit(parameters["w"]), k, scope)},
            begin=lambda generator: {
                "w": unit(torch.randn(model.cfg.d_model, generator=generator))
            },
            scope=scope,
            objective="LL",
            by_token=True,
            template=template,
            seed=schedule.seed,
        )

        def cost(parameters: Parameters, examples: Sequence[int], progress: float) -> Tensor:
            run = task.run(parameters, examples)
            _, rest = split_latents(run.gates[place][..., 0], run.spans, k)
            return task.loss_of(run, examples) + progress * l1 * rest.sum()

        trained = train(
            task,
            schedule,
            cost=cost,
            project=_at_length_1,
            split=(range(len(trained_on)), range(len(trained_on), len(both))),
            progress=progress,
        )
        w, rows = trained.parameters["w"], task.rows[: len(trained_on)]
        steer = cls(w, largest_latent(model, rows, place, w, scope))
        ids = [torch.tensor(row.ids) for row in task.rows]
        origin = origin_of(model, schedule.seed, ids)
        return Fit(Steering(((place, steer),), origin), steer, trained)

    def latents(self, h: Float[Tensor, "*token d_model"]) -> Float[Tensor, "*token"]:
        """How much of the concept is at each token: the paper's detector."""
        return torch.relu(h.float() @ self.w.to(h.device))

    def __call__(self, activation: Residual, hook: Hook = None) -> Residual:
        h, a_max, w = activation.float(), self.a_max, self.w.to(activation.device)
        return (h + a_max * w).to(activation.dtype)


@dataclass(frozen=True, eq=False)
class Fit:
    """A fitted ReFT-r1, and how training went: step 0 is a random direction."""

    steering: Steering
    steer: ReFTr1
    trained: Trained


@dataclass(frozen=True, eq=False)
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
        return (torch.relu(h.float() @ self.w.to(h.device)) * self.where)[..., None]

    def __call__(self, activation: Residual, hook: Hook = None) -> Residual:
        assert self.where is not None
        h, w = activation.float(), self.w.to(activation.device)
        top, _ = split_latents(self.gates(h)[..., 0], self.where, self.k)
        return (h + top[:, None, None] * w).to(activation.dtype)


def _at_length_1(parameters: Parameters) -> None:
    parameters["w"].copy_(unit(parameters["w"]))


def split_latents(
    a: Float[Tensor, "batch pos"], where: Where, k: int
) -> tuple[Float[Tensor, " batch"], Float[Tensor, " batch"]]:
    """Of each row: the mean of its k largest latents, and the sum of the others over its tokens.

    Latents are at least 0, and 0 where `where` is False. A row of k tokens or fewer has no others.
    """
    n = where.sum(dim=1).clamp(min=1)
    top = a.topk(min(k, a.shape[1]), dim=1).values.sum(dim=1)
    return top / n.clamp(max=k), (a.sum(dim=1) - top) / n


def largest_latent(
    model: HookedModel, rows: Sequence[Encoded], site: Site, w: Direction, scope: Scope
) -> float:
    """The largest h w on the tokens of `scope`; above 0 it is the largest latent."""
    pieces = capture_stream(model, rows, site, scope=scope)
    return max(float((piece.at(site).float() @ w).max()) for piece in pieces)
