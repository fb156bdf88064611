"""Which model, whatever its name: how it was loaded, and a fingerprint of its weights."""

import hashlib
import weakref
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Shaped
from torch import Tensor

from steerlens.fingerprints import context_of, of_bridge, of_everything, of_hooked, released
from steerlens.types import HookedModel


def is_bridge(model: HookedModel) -> bool:
    """Whether `model` is a TransformerBridge (else it is a HookedTransformer)."""
    return hasattr(type(model), "boot_transformers")


def device_of(model: HookedModel) -> torch.device:
    """The device of the model's parameters."""
    return next(model.parameters()).device  # pyright: ignore[reportAttributeAccessIssue]


@dataclass(frozen=True)
class Loaded:
    """How a model came in: the name asked for, its folder if local, its weights' processing.

    `weights` changes with any weight of the loaded model, so it says whether `fingerprint` still
    holds. `context` is how many tokens it takes (None: any number); `pads` whether rows with
    padding on their left come out as they do alone; `made_of` what quantised weights were unpacked
    ("Q4_1 of ..."), if any were.
    """

    name: str
    folder: Path | None
    backend: str
    processing: str
    fingerprint: str
    ends: frozenset[int] = frozenset()
    weights: int = 0
    context: int | None = None
    pads: bool = True
    made_of: str = ""


_LOADED: "weakref.WeakKeyDictionary[Any, Loaded]" = weakref.WeakKeyDictionary()


def loaded(model: HookedModel) -> Loaded | None:
    """How `model` was loaded, if `load` loaded it."""
    try:
        return _LOADED.get(model)
    except TypeError:  # a stand-in for a model that cannot be hashed, so `load` did not make it
        return None


@dataclass(frozen=True)
class ModelIdentity:
    """Which model, whatever its name: a fingerprint of its shape and weights.

    `made_of` says what its weights were unpacked from, if they were quantised: "Q4_1 of ...".
    """

    fingerprint: str
    n_layers: int
    d_model: int
    processing: str
    name: str = ""
    made_of: str = ""


@dataclass(frozen=True)
class Imported:
    """What another tool's file or object was read as, in words, and how its numbers were taken.

    `index` says what a number of the file means ("k is the output of block k"), `norm` whether the
    vectors have length 1 ("unit") or which lengths ("raw, 0.8 to 12.4"), `measured` where they were
    measured as far as that is known, `note` what else the file says.
    """

    format: str
    source: str
    index: str
    norm: str
    measured: str = "not recorded"
    note: str = ""


@dataclass(frozen=True)
class Origin:
    """What a steering was fitted on: the model, the seed, and a digest of the token ids.

    `moved_from` names the model it was fitted on, where that is not `model` but the same one in
    another precision. `imported` says which parts of it are another tool's: then `model` is the
    model that the reader of the file gave, which the file itself does not name.
    """

    model: ModelIdentity
    seed: int | None = None
    data: str = ""
    moved_from: str = ""
    imported: tuple[Imported, ...] = ()


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
        made_of=known.made_of if known else "",
    )


def _guessed_processing(model: HookedModel) -> str:
    return "fold" if str(model.cfg.normalization_type).endswith("Pre") else "none"


def fingerprint(model: HookedModel) -> str:
    """A digest of configuration and weights, the same on both backends (see `fingerprints`)."""
    known = loaded(model)
    if known is not None and known.weights == of_everything(model):  # pyright: ignore
        return known.fingerprint
    if not is_bridge(model):
        return of_hooked(model)
    plain = is_of_transformers(model) and not getattr(model, "compatibility_mode", False)
    return of_bridge(model) if plain else (released(model) or [of_hooked(model)])[0]


def context_length(model: HookedModel) -> int | None:
    """How many tokens the model takes, by its own configuration; None where any number will do."""
    known = loaded(model)
    if known is not None:
        return known.context
    if is_of_transformers(model):
        return context_of(model.original_model.config)  # pyright: ignore
    return model.cfg.n_ctx


def is_of_transformers(model: HookedModel) -> bool:
    """Whether `model` is a bridge around a model of transformers (not of `boot_native`)."""
    from transformers import PreTrainedModel

    return is_bridge(model) and isinstance(getattr(model, "original_model", None), PreTrainedModel)


def is_fingerprint_of(model: HookedModel, saved: str) -> bool:
    """Whether `saved` is a fingerprint of `model`, by this version or by 0.1.0."""
    return saved == fingerprint(model) or saved in released(model)


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
    moved = dict.fromkeys(one.moved_from for one in (first, second) if one.moved_from)
    if first == second:
        return first
    imported = tuple(dict.fromkeys(first.imported + second.imported))
    return Origin(first.model, moved_from="; ".join(moved), imported=imported)


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
