"""HookedTransformer or TransformerBridge, built of a model in transformers' own class."""

import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from steerlens.fingerprints import context_of, text_config
from steerlens.models.names import has_hooked_transformer
from steerlens.models.weights import Source, quietly
from steerlens.runtime.forward import limit_masks


def require_backend(backend: str, processing: str, device_map: Any = None) -> None:
    """Raise ValueError if the backend is not here, or cannot do what is asked of it."""
    if device_map is not None and (backend == "hooked" or processing == "fold"):
        raise ValueError(
            "device_map needs a bridge: a HookedTransformer is on one device. Use backend='bridge' "
            "or 'auto' with processing='none', or leave device_map out."
        )
    if backend == "hooked" and not has_hooked_transformer():
        raise ValueError(
            "backend='hooked' needs transformer-lens 3.x (4.0 removed HookedTransformer). Use "
            "backend='bridge' or 'auto'."
        )
    if processing == "fold" and (backend == "bridge" or not has_hooked_transformer()):
        raise ValueError(
            "processing='fold' needs backend='hooked' (transformer-lens 3.x): a bridge keeps the "
            "weights as they are. Leave processing at 'none'."
        )


def backends_to_try(backend: str, source: Source) -> tuple[str, ...]:
    """The backends in the order to be tried: first the bridge, which loads faster."""
    if backend != "auto":
        return (backend,)
    if source.fold:
        return ("hooked",)
    both = has_hooked_transformer() and not source.spread
    return ("bridge", "hooked") if both else ("bridge",)


def hooked(source: Source) -> Any:
    """A HookedTransformer with the weights of `source`."""
    if source.spread:
        raise ValueError(
            "A HookedTransformer holds plain weights on one device, not quantised ones nor those "
            "of a device_map."
        )
    model = _by_name(source) if source.known else _by_config(source)
    model.cfg.n_ctx = hooked_context(model.cfg, source.hf_model.config)
    model = model.to(source.device, print_details=False)
    lay_out_for_reading(model)
    return model


LAYOUTS = {
    "W_Q": (0, 2, 1),
    "W_K": (0, 2, 1),
    "W_V": (0, 2, 1),
    "_W_K": (0, 2, 1),
    "_W_V": (0, 2, 1),
    "W_O": (2, 0, 1),
    "W_in": (1, 0),
    "W_gate": (1, 0),
    "W_out": (1, 0),
    "W_U": (1, 0),
}
"""The order of a weight's axes in which HookedTransformer reads it, at every pass."""


def lay_out_for_reading(model: Any) -> None:
    """Store each weight as it is read, in the same shape: numbers and results stay as they are.

    HookedTransformer transposes its weights at every pass, and copies them where they lie
    otherwise, which takes most of the time of a token.
    """
    for name, weight in model.named_parameters():
        order = LAYOUTS.get(name.rpartition(".")[2])
        if order is not None and len(order) == weight.dim():
            back = tuple(order.index(axis) for axis in range(len(order)))
            weight.data = weight.data.permute(order).contiguous().permute(back)


def _by_name(source: Source) -> Any:
    from transformer_lens import HookedTransformer

    return HookedTransformer.from_pretrained(
        source.name,
        hf_model=source.hf_model,
        tokenizer=source.tokenizer,
        device=str(source.device),
        dtype=source.dtype,  # pyright: ignore[reportArgumentType]  annotated str, means a dtype
        **source.processing,
    )


def _by_config(source: Source) -> Any:
    from transformer_lens import HookedTransformer
    from transformer_lens import loading_from_pretrained as loading
    from transformer_lens.config.hooked_transformer_config import HookedTransformerConfig

    dtype = source.dtype
    fields = _hooked_config(source.hf_model)
    fields |= {"model_name": Path(source.name).name, "device": str(source.device), "dtype": dtype}
    cfg = HookedTransformerConfig.from_dict(fields | {"default_prepend_bos": True})
    if source.fold:
        cfg.normalization_type = f"{cfg.normalization_type}Pre"
    # The first argument is where to look for weights that are not given: any folder will do.
    state = loading.get_pretrained_state_dict(
        str(Path(__file__).parent), cfg, hf_model=source.hf_model, dtype=dtype
    )
    with quietly():
        model = HookedTransformer(cfg, tokenizer=source.tokenizer, move_to_device=False)
    model.load_and_process_state_dict(state, **source.processing)
    return model


def _hooked_config(hf_model: Any) -> dict[str, Any]:
    """HookedTransformerConfig fields of a model of transformers.

    The converter guesses the architecture from the whole path ("llama" in it means Llama), so it
    is shown config.json in a folder whose name says nothing. It also reads GPT-2's `n_ctx`, which
    transformers 5 no longer writes.
    """
    from transformer_lens import loading_from_pretrained as loading

    config = hf_model.config.to_dict()
    config["architectures"] = config.get("architectures") or [type(hf_model).__name__]
    config.pop("auto_map", None)  # code of the folder's own, which nobody runs
    if "n_positions" in config:
        config.setdefault("n_ctx", config["n_positions"])
    with tempfile.TemporaryDirectory(prefix="steer_") as neutral:
        text = json.dumps(config, default=str)
        (Path(neutral) / "config.json").write_text(text, encoding="utf-8")
        fields = loading.convert_hf_model_config(neutral)
    return fields


def hooked_context(cfg: Any, hf_config: Any) -> int:
    """How many tokens a HookedTransformer computes rightly.

    TransformerLens says 2048 for many models that hold more; only learned positions need a limit
    of its own. But a sliding window that it does not know of is right up to the window's length,
    and so are rotary frequencies that change once a text is longer than those in training.
    """
    if cfg.positional_embedding_type == "standard":
        return cfg.n_ctx
    text = text_config(hf_config)
    limits = [context_of(hf_config) or cfg.n_ctx]
    if getattr(text, "sliding_window", None) and not cfg.use_local_attn and _slides(text):
        limits.append(text.sliding_window)
    rope = getattr(text, "rope_parameters", None) or {}
    if rope.get("rope_type") in ("longrope", "dynamic"):
        limits.append(rope.get("original_max_position_embeddings", text.max_position_embeddings))
    return min(limits)


def _slides(config: Any) -> bool:
    layers = getattr(config, "layer_types", None)
    return layers is None or "sliding_attention" in layers


def bridge(source: Source) -> Any:
    """A TransformerBridge around the model of `source`, which becomes a part of it."""
    from transformer_lens.model_bridge import TransformerBridge

    placed: dict[str, Any] = {} if source.spread else {"device": str(source.device)}
    with quietly():
        model = TransformerBridge.boot_transformers(
            source.name,
            hf_model=source.hf_model,
            tokenizer=source.tokenizer,
            dtype=source.dtype,
            **placed,
        )
    if source.dtype == torch.float64:
        limit_masks(model)  # for good, since a caller may run the model as well
    return model


BUILD: dict[str, Callable[[Source], Any]] = {"hooked": hooked, "bridge": bridge}
