"""Whether a backend computes what transformers computes: one short pass of each, at load.

A backend may leave out an option of the configuration without a word, and is then another function
with the same weights.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from steerlens.fingerprints import context_of
from steerlens.runtime.forward import logits
from steerlens.runtime.turns import hooked
from steerlens.scopes import Window
from steerlens.sites import RESIDUAL, Site
from steerlens.types import HookedModel

N_TOKENS = 16
PADDING = 4
# The difference of a position's logits that rounding explains, as a share of the logits' spread.
# SmolLM2-135M has 3e-6 in float32, and at the middle position 0.003 in float16, 0.03 in bfloat16.
# The other functions in docs/architectures.md differ by 0.097 to 1.7.
ROUNDING = {torch.float64: 1e-3, torch.float32: 1e-3, torch.float16: 0.03, torch.bfloat16: 0.15}


class OtherFunction(ValueError):
    """A backend whose logits are not those of transformers."""


@dataclass(frozen=True, eq=False)
class Expected:
    """Some tokens and the logits that transformers gives for them, on the CPU in float32."""

    ids: Int[Tensor, "pos"]
    logits: Float[Tensor, "pos d_vocab"]


@torch.no_grad()
def expected_of(hf_model: Any) -> Expected:
    """What transformers computes with these weights, for tokens from all over the vocabulary."""
    rows = hf_model.get_input_embeddings().weight.shape[0]
    length = min(N_TOKENS, context_of(hf_model.config) or N_TOKENS)
    ids = torch.linspace(0, rows - 1, length).long()
    scores = hf_model(input_ids=ids[None].to(hf_model.device), use_cache=False).logits[0]
    if not bool(torch.isfinite(scores).all()):
        raise ValueError(
            f"transformers itself gives logits that are not finite with these weights in "
            f"{scores.dtype}. Load them in float32 or bfloat16 (float16 overflows), and fetch them "
            "again if that gives the same. verify=False loads them as they are."
        )
    return Expected(ids, scores.float().cpu())


def require_agreement(model: HookedModel, expected: Expected, dtype: torch.dtype) -> None:
    """Raise OtherFunction if the model's logits differ from transformers' beyond rounding.

    Or if the pass meets no hook where methods steer: what is put there would do nothing.
    """
    names = [Site(layer).hook_name for layer in range(model.cfg.n_layers)]
    met: set[str] = set()

    def meet(activation: Any, hook: Any, name: str) -> None:
        met.add(name)

    there = model.hook_dict
    hooks = [(name, partial(meet, name=name)) for name in names if name in there]
    with hooked(model, hooks):
        scores = _logits(model, expected.ids, 0)
    missed = [name for name in names if name not in met]
    if missed:
        raise OtherFunction(
            f"its passes never meet {len(missed)} of the {len(names)} hook points of the residual "
            f"stream, {missed[0]!r} first, so steering there would do nothing"
        )
    worst = _difference(scores, expected.logits, dtype)
    if not worst <= ROUNDING[dtype]:
        raise OtherFunction(
            f"its logits differ from transformers' by {worst:.2g} times their spread "
            f"({ROUNDING[dtype]:g} would be rounding), so it computes another function"
        )


def activations_of(
    model: HookedModel, expected: Expected
) -> dict[str, Float[Tensor, "pos d_model"]]:
    """What each hook point of a site meets in a pass over the expected tokens, by its name."""
    found: dict[str, Tensor] = {}

    def keep(activation: Tensor, hook: Any, name: str) -> None:
        found[name] = activation[0].float().cpu()

    there = model.hook_dict
    layers, streams = range(model.cfg.n_layers), RESIDUAL
    names = [Site(layer, stream).hook_name for layer in layers for stream in streams]
    with hooked(model, [(name, partial(keep, name=name)) for name in names if name in there]):
        _logits(model, expected.ids, 0)
    return found


def require_same_activations(
    found: dict[str, Float[Tensor, "pos d_model"]],
    expected: dict[str, Float[Tensor, "pos d_model"]],
    dtype: torch.dtype,
) -> None:
    """Raise OtherFunction unless the same hook points were met with the same activations."""
    for name, own in expected.items():
        if name not in found or not _difference(found[name], own, dtype) <= ROUNDING[dtype]:
            raise OtherFunction(f"the activation at {name!r} is another one")


def pads_rightly(model: HookedModel, expected: Expected, dtype: torch.dtype) -> bool:
    """Whether a row comes out the same with padding on its left."""
    some = len(expected.ids) // 2
    try:
        scores = _logits(model, expected.ids[:some], PADDING)
    except Exception:  # a model that takes no mask says so in its own way
        return False
    return _difference(scores[PADDING:], expected.logits[:some], dtype) <= ROUNDING[dtype]


@torch.no_grad()
def _logits(
    model: HookedModel, ids: Int[Tensor, "token"], padding: int
) -> Float[Tensor, "pos d_vocab"]:
    tokens = torch.cat([torch.zeros(padding, dtype=torch.long), ids])[None]
    mask = torch.arange(len(tokens[0]))[None] >= padding
    device = next(model.parameters()).device  # pyright: ignore[reportAttributeAccessIssue]
    scores = logits(model, tokens.to(device), Window.of(mask).to(device))
    return scores[0].float().cpu()


def _difference(
    scores: Float[Tensor, "pos d_vocab"], expected: Float[Tensor, "pos d_vocab"], dtype: torch.dtype
) -> float:
    """The root mean square difference at the worst position, as a share of what is expected.

    A constant for all words of a position changes no probability: folding weights takes it away.
    In half precision it is that of the middle position: rounding may send a single token to another
    expert.
    """
    ours, theirs = (x - x.mean(dim=-1, keepdim=True) for x in (scores, expected))
    apart = (ours - theirs).pow(2).mean(dim=-1).sqrt() / theirs.std().clamp(min=1e-6)
    return float(apart.max() if dtype.itemsize >= 4 else apart.median())
