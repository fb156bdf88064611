"""Training by imitation: a steered run without the instruction follows the run that has it.

Both runs hold the same response. What the prompted run does (the *targets*) never changes, and what
the plain run does below the lowest steered site never changes either (the *entry*): both are
computed once. Every later pass enters above the entry and, where only activations count, ends after
the last block. With S the steered and T the prompted residual stream on the tokens of the span:

    MSE = sum over layers of the mean over span and d_model of (S - T)^2
    LL  = mean over response tokens of -log p(token)

The layers are the lowest steered one and all above it; those below would only add a constant. Each
objective is divided by its mean at the start, so that both, and the regulariser, have one scale.
"""

import hashlib
import shutil
import tempfile
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol, cast, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from steerlens.activations import capture_stream
from steerlens.combinators import bind
from steerlens.forward import blocks_only, device_of, logits, logits_from, logits_where
from steerlens.positions import Scope, everywhere
from steerlens.prompts import Encoded, PromptPair, encode_pair, show, stack
from steerlens.steering import AnySteering, Site, require_site
from steerlens.training import Parameters
from steerlens.types import Hook, HookedModel, Residual, Tokens, Where

Objective = Literal["MSE", "LL", "both"]
MEMORY = 2 * 2**30
"""Bytes of targets and entries kept in memory; beyond it they are float16 files."""


@runtime_checkable
class Gated(Protocol):
    """A steer with gates: what is trained here."""

    def gates(self, h: Float[Tensor, "*token d_model"]) -> Float[Tensor, "*token rank"]: ...

    def __call__(self, activation: Residual, hook: Hook = None) -> Residual: ...


def key_of(site: Site, name: str) -> str:
    """What a parameter of the module at a site is called in a training."""
    return f"{site.layer}.{site.stream}.{name}"


@dataclass(eq=False)
class Store:
    """Activations of many rows of text: one [token, d_model] array for each site."""

    offsets: Int[np.ndarray, " rows_and_end"]
    arrays: dict[Site, np.ndarray]
    folder: Path | None = None

    def __post_init__(self) -> None:
        if self.folder is not None:
            weakref.finalize(self, shutil.rmtree, self.folder, ignore_errors=True)

    @classmethod
    def of(
        cls,
        model: HookedModel,
        rows: Sequence[Encoded],
        sites: Sequence[Site],
        scope: Scope,
        counts: Sequence[int],
        limit: int,
        steering: AnySteering | None = None,
    ) -> "Store":
        """Capture `rows` on the tokens of `scope`, of which row i has `counts[i]`."""
        offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        shape = (int(offsets[-1]), model.cfg.d_model)
        too_large = 4 * shape[0] * shape[1] * len(sites) > limit
        folder = Path(tempfile.mkdtemp(prefix="steerlens-")) if too_large else None

        def empty(number: int) -> np.ndarray:
            if folder is None:
                return np.empty(shape, dtype=np.float32)
            file = folder / f"{number}.npy"
            return np.lib.format.open_memmap(file, mode="w+", dtype=np.float16, shape=shape)

        arrays = {site: empty(number) for number, site in enumerate(sites)}
        for piece in capture_stream(model, rows, sites, scope=scope, steering=steering):
            for row in piece.row.unique().tolist():
                place = slice(offsets[row], offsets[row + 1])
                for site in sites:
                    arrays[site][place] = piece.of(row, site).float().numpy()
        return cls(offsets, arrays, folder)

    def of_row(self, row: int, site: Site) -> Float[Tensor, "token d_model"]:
        """One row's activations at a site, float32."""
        part = self.arrays[site][self.offsets[row] : self.offsets[row + 1]]
        return torch.from_numpy(np.array(part, dtype=np.float32))


@dataclass(eq=False)
class _Pass:
    """What one steered pass over a batch left behind."""

    spans: Where
    residuals: dict[int, Residual]
    gates: dict[Site, Float[Tensor, "batch pos rank"]]
    scores: Float[Tensor, "predicted d_vocab"] | None
    tokens: Tokens
    responses: Where


class Imitation:
    """The `Task` of fitting gated steers at `sites` so that plain runs imitate prompted ones.

    `build` makes the steers from parameters; `begin` makes the first parameters. `labels` are how
    much of the attribute each response has (0 to 1): the strength at which it is trained on, plus
    `shift`. With a `teacher` the targets are those of the plain run under that steering. LL asks
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
        labels: Sequence[float] | None = None,
        shift: float = 0.0,
        regularise: float = 0.0,
        template: str | None = None,
        memory: int = MEMORY,
        seed: int = 0,
        reuse: bool = True,
        teacher: AnySteering | None = None,
        by_token: bool = False,
    ) -> None:
        if not pairs:
            raise ValueError("No pairs were given. Pass some PromptPairs: prompted_pairs(...).")
        if not sites:
            raise ValueError("No sites were given. Pass at least one layer.")
        for site in sites:
            require_site(model, site)
        self.model, self.sites, self.objective = model, tuple(sorted(set(sites))), objective
        self.build, self.begin, self.regularise = build, begin, regularise
        self.strengths = _labels(labels, len(pairs)) + shift
        both = [encode_pair(model, pair, template) for pair in pairs]
        likely = objective == "LL"
        if (
            not likely
            and teacher is None
            and all(plain.ids == prompted.ids for plain, prompted in both)
        ):
            raise ValueError(
                "The prompted and the plain prompts are the same, so there is nothing to imitate. "
                "Give pairs with an instruction: PromptPair.with_system(user, system, response)."
            )
        self.rows = [plain for plain, _ in both]
        self.spans = [
            _span(plain, scope) if likely else _aligned(model, plain, prompted, scope)
            for plain, prompted in both
        ]
        self.by_token = by_token
        self._description = f"{self.sites} {scope} {objective} {regularise} {_ids(both)}"
        lowest = self.sites[0].layer
        self.layers = tuple(range(lowest, model.cfg.n_layers))
        self.targets = self.entries = None
        if objective != "LL":
            sites_of_targets = [Site(layer) for layer in self.layers]
            taught = [prompted if teacher is None else plain for plain, prompted in both]
            counts = [len(span) for span in self.spans]
            self.targets = Store.of(model, taught, sites_of_targets, scope, counts, memory, teacher)
        # A steer on a block's output acts on the entry itself; any other inside the block above.
        post = all(site.stream == "resid_post" for site in self.sites if site.layer == lowest)
        self.enter = (lowest + 1 if post else lowest) if reuse else 0
        if self.enter > 0:
            below, counts = Site(self.enter - 1), [len(row.ids) for row in self.rows]
            self.entries = Store.of(model, self.rows, [below], everywhere, counts, memory)
        self.firing: dict[Site, list[Tensor]] = {site: [] for site in self.sites}
        self.scale = {"LL": 1.0}
        if not by_token:
            self.scale = self._first_values(begin(torch.Generator().manual_seed(seed)))

    @property
    def size(self) -> int:
        """How many pairs there are."""
        return len(self.rows)

    def __repr__(self) -> str:
        return f"Imitation({self._description})"

    def start(self, generator: torch.Generator) -> Parameters:
        """The first parameters."""
        return self.begin(generator)

    def loss(self, parameters: Parameters, examples: Sequence[int]) -> Float[Tensor, ""]:
        """The objective over its first value, and the regulariser; the mean over the examples."""
        return self.loss_of(self.run(parameters, examples), examples)

    def loss_of(self, run: _Pass, examples: Sequence[int]) -> Float[Tensor, ""]:
        """The loss of a pass over these examples."""
        values = self._objectives(run, examples)
        weights = torch.ones(len(examples), device=run.tokens.device)
        if self.by_token:
            weights = run.responses.sum(dim=1) / run.responses.sum(dim=1).float().mean()
        total = sum((weights * values[name]).mean() / self.scale[name] for name in values)
        if self.regularise:
            total = total + self.regularise * self._closed(run).mean()
        return torch.as_tensor(total)

    def run(
        self, parameters: Parameters, examples: Sequence[int], gates_only: bool = False
    ) -> _Pass:
        """One steered pass over these examples; no further than the last gate if these are all."""
        device = device_of(self.model)
        tokens, window = stack([self.rows[i] for i in examples], side="right")
        tokens, window = tokens.to(device), window.to(device)
        spans = torch.zeros_like(window.mask)
        for number, i in enumerate(examples):
            spans[number, self.spans[i]] = True
        strength = self.strengths[list(examples)].to(device)[:, None, None] * spans[..., None]
        built = self.build(parameters).items()
        steers = {site: cast("Gated", bind(steer, window)) for site, steer in built}
        kept: dict[int, Residual] = {}
        gates: dict[Site, Tensor] = {}

        def steered(site: Site, h: Residual) -> Residual:
            if site in steers:
                gates[site] = steers[site].gates(h)
                h = (h + strength * (steers[site](h) - h).float()).to(h.dtype)
            if site.stream == "resid_post":
                kept[site.layer] = h
            return h

        def hook_of(site: Site) -> Callable[..., Residual]:
            return lambda activation, hook=None: steered(site, activation)

        streams = {*self.sites, *(Site(layer) for layer in self.layers)}
        entered: Residual | None = None
        if self.entries is not None:
            entered = self._entry(examples, tokens.shape[1]).to(device)
            below = Site(self.enter - 1)
            if below in streams:
                entered = steered(below, entered)
                streams.remove(below)
        hooks = [(site.hook_name, hook_of(site)) for site in sorted(streams)]

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
        for site, value in gates.items():
            self.firing[site].append((value.detach() > 0)[spans].cpu())
        return _Pass(spans, kept, gates, scores, tokens, responses)

    def fired(self) -> dict[Site, Float[Tensor, " rank"]]:
        """How often each gate was open since the last call, as a share of the span's tokens."""
        found = {
            site: torch.cat(values).float().mean(dim=0)
            for site, values in self.firing.items()
            if values
        }
        self.firing = {site: [] for site in self.sites}
        return found

    @torch.no_grad()
    def firing_rates(
        self, parameters: Parameters, size: int = 16
    ) -> dict[Site, Float[Tensor, " rank"]]:
        """How often each gate is open with these parameters, as a share of the span's tokens."""
        self.fired()
        for start in range(0, self.size, size):
            self.run(parameters, range(start, min(start + size, self.size)), gates_only=True)
        return self.fired()

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
        self.fired()
        return {name: value / self.size for name, value in sums.items()}


def _span(row: Encoded, scope: Scope) -> Int[Tensor, " span"]:
    """The row's positions in the scope."""
    _, window = stack([row])
    return torch.nonzero(scope.where(window)[0])[:, 0]


def _aligned(
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


def _ids(both: Sequence[tuple[Encoded, Encoded]]) -> str:
    return hashlib.sha256(repr([(a.ids, b.ids) for a, b in both]).encode()).hexdigest()[:16]
