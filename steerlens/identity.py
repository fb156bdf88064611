"""Which model, whatever its name: how it was loaded, and a fingerprint of its weights."""

import hashlib
import json
import weakref
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Shaped
from torch import Tensor

from steerlens.types import HookedModel


def is_bridge(model: HookedModel) -> bool:
    """Whether `model` is a TransformerBridge (else it is a HookedTransformer)."""
    return hasattr(type(model), "boot_transformers")


def device_of(model: HookedModel) -> torch.device:
    """The device of the model's parameters."""
    return next(model.parameters()).device  # pyright: ignore[reportAttributeAccessIssue]


@dataclass(frozen=True)
class Loaded:
    """How a model came in: the name asked for, its folder if local, its weights' processing."""

    name: str
    folder: Path | None
    backend: str
    processing: str
    ends: frozenset[int] = frozenset()


_LOADED: "weakref.WeakKeyDictionary[Any, Loaded]" = weakref.WeakKeyDictionary()


def loaded(model: HookedModel) -> Loaded | None:
    """How `model` was loaded, if `load` loaded it."""
    return _LOADED.get(model)


@dataclass(frozen=True)
class ModelIdentity:
    """Which model, whatever its name: a fingerprint of its shape and weights."""

    fingerprint: str
    n_layers: int
    d_model: int
    processing: str
    name: str = ""


@dataclass(frozen=True)
class Origin:
    """What a steering was fitted on: the model, the seed, and a digest of the token ids."""

    model: ModelIdentity
    seed: int | None = None
    data: str = ""


def identity_of(model: HookedModel) -> ModelIdentity:
    """The identity that a steering file records: shape, processing, and a fingerprint of both."""
    known = loaded(model)
    processing = known.processing if known else _guessed_processing(model)
    return ModelIdentity(
        fingerprint=fingerprint(model),
        n_layers=model.cfg.n_layers,
        d_model=model.cfg.d_model,
        processing=processing,
        name=known.name if known else str(getattr(model.cfg, "model_name", "")),
    )


def _guessed_processing(model: HookedModel) -> str:
    return "fold" if str(model.cfg.normalization_type).endswith("Pre") else "none"


def fingerprint(model: HookedModel) -> str:
    """A digest of configuration and weights, the same on both backends and in any layout.

    Weights enter as sums of their bit patterns in bfloat16: exact in integers, so neither order,
    transposition nor the split into heads matters, and float32 and bfloat16 copies agree. The
    embedding, learned positions, unembedding and every block's matrices are in it; biases, norms
    and the order of numbers within a matrix are not.
    """
    cfg = model.cfg
    shape = [cfg.n_layers, cfg.d_model, cfg.n_heads, cfg.d_vocab, cfg.n_ctx]
    outer: list[Tensor | None] = [getattr(model, name, None) for name in ("W_E", "W_U")]
    outer.append(getattr(getattr(model, "pos_embed", None), "W_pos", None))
    sums = [_bit_sum(weight) for weight in outer if weight is not None]
    for block in model.blocks:  # pyright: ignore[reportAttributeAccessIssue]
        sums.append(sum(_bit_sum(weight) for weight in _block_weights(block)))
    return hashlib.sha256(json.dumps([shape, sums]).encode()).hexdigest()[:32]


def _block_weights(block: Any) -> list[Tensor]:
    """The matrices of a block that it has under both backends' names.

    Those that read are among them: folding a layer norm, or a LoRA on queries and values, changes
    nothing else.
    """
    attn, mlp = block.attn, block.mlp
    # HookedTransformer repeats shared keys and values under the bare name.
    names = [f"_{name}" if hasattr(attn, f"_{name}") else name for name in ("W_K", "W_V")]
    held = [
        *(getattr(attn, name, None) for name in ("W_Q", *names, "W_O")),
        *(getattr(mlp, name, None) for name in ("W_in", "W_gate", "W_out")),
    ]
    return [weight for weight in held if weight is not None]


def _bit_sum(weight: Tensor) -> int:
    bits = weight.detach().to(torch.bfloat16).contiguous().view(torch.int16)
    return int(bits.sum(dtype=torch.int64))


def origin_of(
    model: HookedModel, seed: int | None = None, data: Sequence[Shaped[Tensor, "..."]] = ()
) -> Origin:
    """The origin of what is being fitted on `model` from the tensors `data`."""
    digest = hashlib.sha256()
    for tensor in data:
        digest.update(str(tuple(tensor.shape)).encode() + bytes_of(tensor))
    return Origin(identity_of(model), seed, digest.hexdigest()[:16] if data else "")


def joint_origin(first: Origin | None, second: Origin | None) -> Origin | None:
    """The origin of two steerings put together; ValueError if they are for different models."""
    if first is None or second is None:
        return first or second
    if first.model.fingerprint != second.model.fingerprint:
        raise ValueError(
            "These steerings were fitted on different models "
            f"({differences(first.model, second.model)}) and cannot act together. Fit both on the "
            "same model."
        )
    return first if first == second else Origin(first.model)


def differences(first: ModelIdentity, second: ModelIdentity) -> str:
    """What tells two models apart, in words."""
    found = [
        f"{name} {before!r} against {after!r}"
        for name, before in asdict(first).items()
        if (after := getattr(second, name)) != before and name != "name"
    ]
    return "; ".join(found)


def bytes_of(tensor: Shaped[Tensor, "..."]) -> bytes:
    """The numbers of a tensor in row-major order, for a digest."""
    # `contiguous` keeps the strides of a dimension of one element, whatever they are.
    flat = tensor.detach().cpu().clone(memory_format=torch.contiguous_format).flatten()
    return flat.view(torch.uint8).numpy().tobytes()
