"""Training by imitation: a steered run without the instruction follows the run that has it.

Both runs hold the same response. What the prompted run does (the *targets*) never changes, and what
the plain run does below the lowest steered site never changes either (the *entry*): both are
computed once. Every later pass enters above the entry and, where only activations count, ends after
the last block. With S the steered and T the prompted residual stream on the tokens of the span:

    MSE = sum over layers of the mean over span and d_model of (S - T)^2
    LL  = mean over response tokens of -log p(token)

The layers are the lowest steered one and all above it; those below would only add a constant. Each
objective is divided by its mean at the start, so that both, and the regulariser, have one scale:

    both = MSE / MSE at the start + ll_weight x LL / LL at the start
"""

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, cast, get_args

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from steerlens.checks import require_choice
from steerlens.combinators import bind
from steerlens.identity import device_of, origin_of
from steerlens.prompts import Encoded, PromptPair, encode_pair, show, stack
from steerlens.runtime.forward import blocks_only, logits, logits_from, logits_where
from steerlens.saving import digest_of
from steerlens.scopes import Scope, Window, everywhere
from steerlens.sites import Site, require_writable
from steerlens.steering import Steering
from steerlens.training.gates import Gated, key_of
from steerlens.training.loop import Parameters
from steerlens.training.store import Store
from steerlens.types import HookedModel, Residual, Tokens, Where

Objective = Literal["MSE", "LL", "both"]
MEMORY = 2 * 2**30
"""Bytes of targets and entries kept in memory; beyond it they are float16 files."""


@dataclass(eq=False)
class _Pass:
    """What one steered pass over a batch left behind."""

    spans: Where
    residuals: dict[int, Residual]
    gates: dict[Site, Float[Tensor, "batch pos rank"]]
    scores: Float[Tensor, "predicted d_vocab"] | None
    tokens: Tokens
    responses: Where

    def opened(self) -> dict[Site, Bool[Tensor, "token rank"]]:
        """Which gates are open, on every token of the spans."""
        return {site: (gate.detach() > 0)[self.spans].cpu() for site, gate in self.gates.items()}


class Imitation:
    """The `Task` of fitting gated steers at `sites` so that plain runs imitate prompted ones.

    `build` makes the steers from parameters; `begin` makes the first parameters. `labels` are how
    much of the attribute each response has (0 to 1): the strength at which it is trained on, plus
    `shift`, or plus the parameter `b_m` of a site where there is one. `ll_weight` is that of LL
    beside MSE. With a `teacher` the targets are those of the plain run under that steering. LL asks
    nothing of the prompted run; `by_token` makes it the mean over the tokens of all examples, not
    over examples, and leaves it undivided.
    """

    def __init__(
        self,
        model: HookedModel,
        pairs: Sequence[PromptPair],
        sites: Sequence[Site],
        *,
        build: Callable[[Parameters], Mapping[Site, Gated]],
        begin: Callable[[torch.Generator], Parameters],
        scope: Scope,
        objective: Objective = "MSE",
        ll_weight: float = 1.0,
        labels: Sequence[float] | None = None,
        shift: float = 0.0,
        regularise: float = 0.0,
        template: str | None = None,
        memory: int = MEMORY,
        seed: int = 0,
        reuse: bool = True,
        teacher: Steering | None = None,
        by_token: bool = False,
    ) -> None:
        _require(model, pairs, sites)
        self.model, self.sites, self.objective = model, tuple(sorted(set(sites))), objective
        self.build, self.begin, self.regularise = build, begin, regularise
        self.weights = _weights(objective, ll_weight)
        self.labels, self.shift, self.by_token = _labels(labels, len(pairs)), shift, by_token
        both = [encode_pair(model, pair, template) for pair in pairs]
        self.rows, self.prompted = [plain for plain, _ in both], [other for _, other in both]
        self.layers = tuple(range(self.sites[0].layer, model.cfg.n_layers))
        self.targets: Store | None = None
        if objective == "LL" and teacher is not None:
            raise ValueError(
                "LL imitates the words of the responses, and no teacher. Choose the objective "
                "'MSE' or 'both', or leave the teacher out."
            )
        if objective == "LL":
            self.spans = [_span(row, scope) for row in self.rows]
            if not any(len(span) for span in self.spans):
                raise ValueError(
                    f"No token of these {len(pairs)} pairs lies in the scope `{scope}`, so nothing "
                    "would be steered. Choose another scope: everywhere, response, ..."
                )
        else:
            self.spans = [aligned_span(model, plain, prompted, scope) for plain, prompted in both]
            self.targets = self._targets(both, scope, memory, teacher)
        self.enter, self.entries = self._entries(reuse, memory)
        self.firing: dict[Site, list[Tensor]] = {site: [] for site in self.sites}
        first = begin(torch.Generator().manual_seed(seed))
        self.scale = {"LL": 1.0} if by_token else self._first_values(first)
        told = [ll_weight, regularise, shift, by_token, self.labels.tolist(), sorted(first)]
        told += [origin_of(model).model.fingerprint, [(a.ids, b.ids) for a, b in both]]
        told += [_known(steer) for steer in (teacher, *build(first).values())]
        digest = hashlib.sha256(repr(told).encode()).hexdigest()[:16]
        self._about = f"{self.sites} {scope} {objective} {digest}"

    def _targets(
        self,
        both: Sequence[tuple[Encoded, Encoded]],
        scope: Scope,
        memory: int,
        teacher: Steering | None,
    ) -> Store:
        """What is imitated on each span, at each of the layers."""
        if teacher is None:
            require_instructions(both)
        taught = [prompted if teacher is None else plain for plain, prompted in both]
        sites, counts = [Site(layer) for layer in self.layers], [len(span) for span in self.spans]
        return Store.of(self.model, taught, sites, scope, counts, memory, teacher)

    def _entries(self, reuse: bool, memory: int) -> tuple[int, Store | None]:
        """The first block that has to run anew, and what it is given."""
        lowest = self.sites[0].layer
        # A steer on a block's output acts on the entry itself; any other inside the block above.
        post = all(site.stream == "resid_post" for site in self.sites if site.layer == lowest)
        enter = (lowest + 1 if post else lowest) if reuse else 0
        if enter == 0:
            return 0, None
        counts = [len(row.ids) for row in self.rows]
        return enter, Store.of(self.model, self.rows, [Site(enter - 1)], everywhere, counts, memory)

    @property
    def size(self) -> int:
        """How many pairs there are."""
        return len(self.rows)

    def __repr__(self) -> str:
        return f"Imitation({self._about})"

    def start(self, generator: torch.Generator) -> Parameters:
        """The first parameters."""
        return self.begin(generator)

    def loss(self, parameters: Parameters, examples: Sequence[int]) -> Float[Tensor, ""]:
        """The objective over its first value, and the regulariser; the mean over the examples."""
        run = self.run(parameters, examples)
        if torch.is_grad_enabled():  # gates are watched in training, not in validation
            for site, opened in run.opened().items():
                self.firing[site].append(opened)
        return self.loss_of(run, examples)

    def loss_of(self, run: _Pass, examples: Sequence[int]) -> Float[Tensor, ""]:
        """The loss of a pass over these examples."""
        values = self._objectives(run, examples)
        weights = torch.ones(len(examples), device=run.tokens.device)
        if self.by_token:
            weights = run.responses.sum(dim=1) / run.responses.sum(dim=1).float().mean()
        total = sum(
            self.weights[name] * (weights * value).mean() / self.scale[name]
            for name, value in values.items()
        )
        if self.regularise:
            total = total + self.regularise * self._closed(run).mean()
        return torch.as_tensor(total)

    def run(
        self, parameters: Parameters, examples: Sequence[int], gates_only: bool = False
    ) -> _Pass:
        """One steered pass over these examples; no further than the last gate if these are all."""
        tokens, window, spans = self._batch(examples)
        labels, where = (
            self.labels[list(examples)].to(spans.device)[:, None, None],
            spans[..., None],
        )
        built = self.build(parameters).items()
        steers = {site: cast("Gated", bind(steer, window)) for site, steer in built}
        kept: dict[int, Residual] = {}
        gates: dict[Site, Tensor] = {}

        def steered(site: Site, h: Residual) -> Residual:
            if site in steers:
                gates[site] = steers[site].gates(h)
                strength = (labels + parameters.get(key_of(site, "b_m"), self.shift)) * where
                h = (h + strength * (steers[site](h) - h).float()).to(h.dtype)
            if site.stream == "resid_post":
                kept[site.layer] = h
            return h

        streams = {*self.sites, *(Site(layer) for layer in self.layers)}
        entered: Residual | None = None
        if self.entries is not None:
            entered = self._entry(examples, tokens.shape[1]).to(tokens.device)
            below = Site(self.enter - 1)
            if below in streams:
                entered = steered(below, entered)
                streams.remove(below)
        hooks = [
            (site.hook_name, lambda h, hook=None, site=site: steered(site, h))
            for site in sorted(streams)
        ]

        def forward() -> Float[Tensor, "row wanted d_vocab"]:
            if entered is None:
                return logits(self.model, tokens, window)
            return logits_from(self.model, entered, self.enter, tokens, window)

        scores = None
        responses = window.positions >= window.response[:, None]
        with self.model.hooks(fwd_hooks=hooks):
            last = self.sites[-1].layer if gates_only else self.model.cfg.n_layers - 1
            if self.objective != "MSE" and not gates_only:
                before = torch.nn.functional.pad(responses[:, 1:], (0, 1))
                scores = logits_where(forward, self.model, before)
            elif self.enter <= last:
                blocks_only(forward, self.model, last)
        return _Pass(spans, kept, gates, scores, tokens, responses)

    def fired(self) -> dict[Site, Float[Tensor, " rank"]]:
        """How often each gate was open in training since the last call, as a share of tokens."""
        found, self.firing = self.firing, {site: [] for site in self.sites}
        return _shares(found)

    @torch.no_grad()
    def firing_rates(
        self, parameters: Parameters, size: int = 16
    ) -> dict[Site, Float[Tensor, " rank"]]:
        """How often each gate is open with these parameters, as a share of the span's tokens."""
        found: dict[Site, list[Tensor]] = {site: [] for site in self.sites}
        for start in range(0, self.size, size):
            some = range(start, min(start + size, self.size))
            for site, opened in self.run(parameters, some, gates_only=True).opened().items():
                found[site].append(opened)
        return _shares(found)

    def _objectives(self, run: _Pass, examples: Sequence[int]) -> dict[str, Tensor]:
        values: dict[str, Tensor] = {}
        if self.objective != "LL":
            values["MSE"] = self._squared(run, examples)
        if run.scores is not None:
            values["LL"] = _surprise(run.scores, run.tokens, run.responses)
        return values

    def _squared(self, run: _Pass, examples: Sequence[int]) -> Float[Tensor, " batch"]:
        assert self.targets is not None
        total = torch.zeros(len(examples), device=run.tokens.device)
        for layer in self.layers:
            residual = run.residuals[layer].float()
            target = torch.zeros_like(residual)
            for number, i in enumerate(examples):
                target[number, self.spans[i]] = self.targets.of_row(i, Site(layer)).to(target)
            squares = (residual - target).square().mean(dim=-1) * run.spans
            total = total + squares.sum(dim=1) / run.spans.sum(dim=1)
        return total

    def _closed(self, run: _Pass) -> Float[Tensor, " batch"]:
        """max(0, 1 - sum of the gates) of each row, summed over sites."""
        sums = [(gate.sum(dim=-1) * run.spans).sum(dim=1) for gate in run.gates.values()]
        return torch.stack([torch.relu(1 - one) for one in sums]).sum(dim=0)

    def _batch(self, examples: Sequence[int]) -> tuple[Tokens, Window, Where]:
        """The plain rows, padded on the right, and which of their tokens are steered."""
        tokens, window = stack([self.rows[i] for i in examples], side="right")
        window = window.to(device_of(self.model))
        spans = torch.zeros_like(window.mask)
        for number, i in enumerate(examples):
            spans[number, self.spans[i]] = True
        return tokens.to(spans.device), window, spans

    def _entry(self, examples: Sequence[int], width: int) -> Residual:
        assert self.entries is not None
        below = Site(self.enter - 1)
        entry = torch.zeros((len(examples), width, self.model.cfg.d_model))
        for number, i in enumerate(examples):
            entry[number, : len(self.rows[i].ids)] = self.entries.of_row(i, below)
        return entry.to(self.model.cfg.dtype)

    @torch.no_grad()
    def _first_values(self, parameters: Parameters, size: int = 16) -> dict[str, float]:
        sums: dict[str, float] = {}
        for start in range(0, self.size, size):
            some = range(start, min(start + size, self.size))
            for name, value in self._objectives(self.run(parameters, some), some).items():
                sums[name] = sums.get(name, 0.0) + value.sum().item()
        return {name: value / self.size for name, value in sums.items()}


def _require(model: HookedModel, pairs: Sequence[PromptPair], sites: Sequence[Site]) -> None:
    if not pairs:
        raise ValueError("No pairs were given. Pass some PromptPairs: prompted_pairs(...).")
    if not sites:
        raise ValueError("No sites were given. Pass at least one layer.")
    for site in sites:
        require_writable(model, site)


def _weights(objective: str, ll_weight: float) -> dict[str, float]:
    """The weight of each objective in the sum."""
    if objective == "DiM":
        raise ValueError(
            "DiM is not trained: steerlens.methods.psr.difference_of_means makes S-Const_DiM."
        )
    require_choice("objective", objective, get_args(Objective))
    if not 0 < ll_weight < math.inf:
        raise ValueError(
            f"ll_weight is the weight of LL beside MSE and must be above 0; found {ll_weight}. For "
            "one of them alone choose the objective 'MSE' or 'LL'."
        )
    if objective != "both" and ll_weight != 1:
        raise ValueError(
            f"ll_weight={ll_weight:g} weighs LL against MSE, and the objective is {objective!r} "
            "alone. Choose the objective 'both', or leave ll_weight out."
        )
    return {"MSE": 1.0, "LL": ll_weight}


def _shares(opened: Mapping[Site, Sequence[Tensor]]) -> dict[Site, Float[Tensor, " rank"]]:
    return {
        site: torch.cat(list(some)).float().mean(dim=0) for site, some in opened.items() if some
    }


def _span(row: Encoded, scope: Scope) -> Int[Tensor, " span"]:
    """The row's positions in the scope."""
    _, window = stack([row])
    return torch.nonzero(scope.where(window)[0])[:, 0]


def require_instructions(both: Sequence[tuple[Encoded, Encoded]]) -> None:
    """Raise ValueError if no (plain, prompted) pair differs."""
    if all(plain.ids == prompted.ids for plain, prompted in both):
        raise ValueError(
            "The prompted and the plain prompts are the same, so there is nothing to imitate. "
            "Give pairs with an instruction: PromptPair.with_system(user, system, response)."
        )


def aligned_span(
    model: HookedModel, plain: Encoded, prompted: Encoded, scope: Scope
) -> Int[Tensor, " span"]:
    """The plain row's positions in the scope, checked to hold the tokens that the prompted has."""
    found = [_span(row, scope) for row in (plain, prompted)]
    left = [plain.ids[int(i)] for i in found[0]]
    right = [prompted.ids[int(i)] for i in found[1]]
    # The first token of the span may be the instruction's own last one: no token is the same there.
    if len(left) == len(right) and left[1:] == right[1:] and len(left) > 0:
        return found[0]
    raise ValueError(
        f"On `{scope}` the plain run holds {show(model, left)} and the prompted run "
        f"{show(model, right)}: they must be the same tokens. Where the instruction stands in the "
        "user turn use the surface R."
    )


def _labels(labels: Sequence[float] | None, size: int) -> Float[Tensor, " example"]:
    found = torch.ones(size) if labels is None else torch.tensor(list(labels), dtype=torch.float32)
    if len(found) != size or not bool(((found >= 0) & (found <= 1)).all()):
        raise ValueError(
            f"labels are one number from 0 to 1 for each of the {size} pairs (a judge's score "
            f"over 100); found {len(found)} from {found.min():.3g} to {found.max():.3g}."
        )
    return found


def _surprise(
    scores: Float[Tensor, "predicted d_vocab"], tokens: Tokens, responses: Where
) -> Float[Tensor, " batch"]:
    """Mean over response tokens of -log p(token), a row."""
    wanted = responses[:, 1:]
    losses = torch.nn.functional.cross_entropy(
        scores.float(), tokens[:, 1:][wanted], reduction="none"
    )
    counts = wanted.sum(dim=1)
    row = torch.repeat_interleave(torch.arange(len(counts), device=counts.device), counts)
    return torch.zeros_like(counts, dtype=losses.dtype).index_add(0, row, losses) / counts


def _known(steer: object) -> str:
    """What tells a steer from another in a checkpoint; a plain function has only its class."""
    try:
        return digest_of(steer)
    except ValueError:
        return type(steer).__name__
