"""Low-rank adapters, the baseline that changes weights: no steering, and no method here is one.

Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models", arXiv 2106.09685, section 4.1:

    W' = W + (alpha / rank) B A

at the matrix that each MLP writes with (`down_proj`, `c_proj`), rank 1 and alpha 2, as CLAS
(arXiv 2604.24693) is compared with it: learnt by the likelihood of the responses, in eight steps,
A random and B zero at the start, so that step 0 is the model itself.

A steering is hooks on a model that stays as it is; this is another model. So it has no
scope, no sites and no sum with a steering: it is there inside `with fit.lora.applied(model):`,
where everything else works as ever, and afterwards the model's own modules are back, their weights
never touched. `peft` does the adapting, which needs a model made of transformers' modules: a
TransformerBridge. A steering that is fitted inside is recorded as fitted on the bare model.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from steerlens.checks import require_finite
from steerlens.identity import device_of, is_bridge
from steerlens.kinds import require_kinds
from steerlens.precision import wide, wide_dtype
from steerlens.prompts import PromptPair, encode_pair, stack
from steerlens.runtime.forward import logits
from steerlens.runtime.turns import refusing_others
from steerlens.scopes import Window
from steerlens.sites import Layer, as_site
from steerlens.training.checkpoint import Parameters
from steerlens.training.checks import require_both, require_rank
from steerlens.training.loop import Trained, train
from steerlens.training.schedule import Schedule
from steerlens.types import HookedModel, Tokens

Part = Literal["out", "in", "gate"]


@dataclass(frozen=True, eq=False)
class LoRA:
    """A and B of every adapted matrix, by block and part of its MLP, such as "3.out"."""

    A: dict[str, Float[Tensor, "rank d_in"]] = field(repr=False)
    B: dict[str, Float[Tensor, "d_out rank"]] = field(repr=False)
    alpha: float = 2.0

    def __post_init__(self) -> None:
        if not self.A or self.A.keys() != self.B.keys():
            raise ValueError(
                f"A LoRA has an A and a B for each matrix, and at least one; found A for "
                f"{list(self.A)} and B for {list(self.B)}."
            )
        for side, matrices in (("A", self.A), ("B", self.B)):
            for name, matrix in matrices.items():
                require_finite(matrix, f"LoRA's {side} of {name}")

    @classmethod
    def fit(
        cls,
        model: HookedModel,
        pairs: Sequence[PromptPair],
        *,
        validation: Sequence[PromptPair],
        layers: Sequence[Layer] | None = None,
        parts: Sequence[Part] = ("out",),
        rank: int = 1,
        alpha: float = 2.0,
        schedule: Schedule = Schedule.full_batch(),  # noqa: B008  a frozen value
        progress: bool = False,
    ) -> "LoRAFit":
        """Fit all matrices at once, the best step by validation loss kept.

        Only the plain prompt and the response of each pair are used. `layers=None` is every block.
        """
        require_kinds(LoRA.fit, locals())
        require_both(pairs, validation)
        require_rank(rank, model.cfg.d_model)
        blocks = range(model.cfg.n_layers) if layers is None else _counted(layers, model)
        names = [f"{layer}.{part}" for layer in blocks for part in parts]
        if not names:
            raise ValueError("Nothing is adapted: give at least one of layers and one of parts.")
        both = [*pairs, *validation]
        with _adapted(model, names, rank, alpha) as adapter:
            trained = train(
                _Likelihood(model, both, adapter),
                schedule,
                split=(range(len(pairs)), range(len(pairs), len(both))),
                progress=progress,
            )
        A, B = ({n: trained.parameters[_key(n, side)].cpu() for n in names} for side in "AB")
        return LoRAFit(cls(A, B, alpha), trained)

    def scaled(self, strength: float) -> "LoRA":
        """The same change of the weights, so many times as large: alpha times the strength."""
        require_kinds(LoRA.scaled, locals())
        return replace(self, alpha=strength * self.alpha)

    @contextmanager
    def applied(self, model: HookedModel) -> Iterator[HookedModel]:
        """The adapted model inside the `with` block, the model as it was after it."""
        own = {_key(n, side): m[n] for side, m in (("A", self.A), ("B", self.B)) for n in m}
        rank = len(next(iter(self.A.values())))
        with _adapted(model, list(self.A), rank, self.alpha) as adapter:
            for name, weight in adapter.named_parameters():
                if own[name].shape != weight.shape:
                    raise ValueError(
                        f"{name} of this LoRA is {tuple(own[name].shape)}, this model needs "
                        f"{tuple(weight.shape)}. It was made for another model: fit it again."
                    )
                weight.requires_grad_(False)
                # In float32 even where the model is in less, in float64 where it is in that.
                dtype = torch.promote_types(own[name].dtype, wide_dtype(model))
                weight.data = own[name].to(weight.device, dtype)
            yield model


@dataclass(frozen=True, eq=False)
class LoRAFit:
    """A fitted LoRA, and how training went: step 0 is the model itself."""

    lora: LoRA
    trained: Trained


class _Adapter(torch.nn.Module):
    """The A and B that a model holds for now; called, it runs the model."""

    def __init__(self, model: HookedModel, layers: dict[str, Any]) -> None:
        super().__init__()
        sides = [(side, f"lora_{side}") for side in "AB"]
        self.held = torch.nn.ModuleDict(
            {_plain(n, side): getattr(layers[n], a)["default"] for n in layers for side, a in sides}
        )
        self.run = partial(logits, model)

    def forward(self, tokens: Tokens, window: Window) -> Float[Tensor, "batch pos d_vocab"]:
        return self.run(tokens, window)


def _counted(layers: Sequence[Layer], model: HookedModel) -> list[int]:
    """The layers as they count from 0."""
    return [as_site(layer, model).layer for layer in layers]


def _plain(name: str, side: str) -> str:
    return f"{name.replace('.', '_')}_{side}"


def _key(name: str, side: str) -> str:
    """What the matrix is called in a training."""
    return f"held.{_plain(name, side)}.weight"


class _Likelihood:
    """The `Task`: the mean of -log p over the response tokens, with A and B put in."""

    def __init__(self, model: HookedModel, pairs: Sequence[PromptPair], adapter: _Adapter) -> None:
        self.rows = [encode_pair(model, pair)[0] for pair in pairs]
        self.adapter, self.device, self.dtype = adapter, device_of(model), wide_dtype(model)

    @property
    def size(self) -> int:
        """How many pairs there are."""
        return len(self.rows)

    def start(self, generator: torch.Generator) -> Parameters:
        """A of U(-1/sqrt d_in, 1/sqrt d_in), as peft begins; B zero."""
        parameters: Parameters = {}
        for name, weight in self.adapter.named_parameters():
            bound = weight.shape[1] ** -0.5 if name.endswith("_A.weight") else 0.0
            drawn = (2 * torch.rand(weight.shape, generator=generator) - 1) * bound
            parameters[name] = drawn.to(self.device, self.dtype)
        return parameters

    def loss(self, parameters: Parameters, examples: Sequence[int]) -> Float[Tensor, ""]:
        """The mean over all response tokens of the examples."""
        tokens, window = stack([self.rows[i] for i in examples], side="right")
        tokens, window = tokens.to(self.device), window.to(self.device)
        scores = torch.func.functional_call(self.adapter, parameters, (tokens, window))
        predicted = (window.positions >= window.response[:, None])[:, 1:]
        return torch.nn.functional.cross_entropy(
            wide(scores[:, :-1][predicted]), tokens[:, 1:][predicted]
        )


@contextmanager
def _adapted(
    model: HookedModel, names: Sequence[str], rank: int, alpha: float
) -> Iterator[_Adapter]:
    """The named matrices' modules replaced by peft's, until the block is left."""
    places = {name: _place(model, name) for name in names}
    own = {name: place.original_component for name, place in places.items()}
    flags = [(p, p.requires_grad) for module in own.values() for p in module.parameters()]
    with refusing_others(model):
        try:
            _inject({_plain(name, "W"): place for name, place in places.items()}, rank, alpha)
            yield _Adapter(model, {n: place.original_component for n, place in places.items()})
        finally:
            for name, place in places.items():
                place.add_module("_original_component", own[name])
            for parameter, flag in flags:
                parameter.requires_grad_(flag)


def _inject(places: dict[str, Any], rank: int, alpha: float) -> None:
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError as error:
        raise ImportError(
            "LoRA needs the package peft, which is not installed: pip install steerlens[lora]."
        ) from error
    first = next(iter(places.values())).original_component
    config = LoraConfig(
        r=rank,
        lora_alpha=alpha,  # pyright: ignore[reportArgumentType]  annotated int, divided by rank
        lora_dropout=0.0,
        target_modules=["_original_component"],
        fan_in_fan_out=not isinstance(first, torch.nn.Linear),  # GPT-2's Conv1D is transposed
    )
    with torch.random.fork_rng(devices=[]):  # peft draws first numbers of its own
        inject_adapter_in_model(config, torch.nn.ModuleDict(places))


def _place(model: Any, name: str) -> Any:
    """The bridge's component around the named matrix."""
    if not is_bridge(model):
        raise ValueError(
            "A LoRA goes into transformers' modules, which a HookedTransformer has none of. Load "
            "the model as a bridge: steerlens.load(name, backend='bridge')."
        )
    layer, _, part = name.partition(".")
    if not 0 <= int(layer) < model.cfg.n_layers:
        raise ValueError(
            f"There is no layer {layer}: this model has layers 0 to {model.cfg.n_layers - 1}."
        )
    parts = {n: c for n, c in model.blocks[int(layer)].mlp.named_children() if n[0] != "_"}
    component = parts.get(part)
    module = getattr(component, "original_component", None)
    if getattr(getattr(module, "weight", None), "ndim", 0) != 2 or hasattr(module, "base_layer"):
        there = ", ".join(n for n, c in parts.items() if hasattr(c, "original_component"))
        raise ValueError(
            f"The MLP of block {layer} has no plain matrix {part!r} to adapt. It has: "
            f"{there or 'none'}. If another LoRA is applied now, leave its `with` block first."
        )
    return component
