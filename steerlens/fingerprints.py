"""Fingerprints of weights: the same for one model on any backend and with any TransformerLens.

Weights enter as sums of their bit patterns in bfloat16: exact in integers, so neither order,
transposition nor the split into heads matters, and float32 and bfloat16 copies agree. The
embedding, learned positions, unembedding and every block's matrices are in it; biases, norms and
the order of numbers within a matrix are not.

`load` takes the fingerprint from the weights in transformers' own class, before a backend is built
of them, so it needs no name that only some architectures have. For a model that somebody else built
it is worked out from what the model holds.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Shaped
from torch import Tensor

# The first number in a parameter's name is that of its block.
_BLOCK = re.compile(r"^(.*?)\.(\d+)\.")
_WRAPPED = "._original_component"


def of_transformers(hf_model: Any) -> str:
    """The fingerprint of a model in transformers' own class."""
    ends = (hf_model.get_input_embeddings(), hf_model.get_output_embeddings())
    outer = [end.weight for end in ends if hasattr(end, "weight")]
    if not is_quantised(hf_model):
        return _of_state(hf_model.config, hf_model.state_dict(), outer)
    # bitsandbytes' `state_dict` spoils weights that it has laid out anew.
    state = dict(hf_model.named_parameters()) | dict(hf_model.named_buffers())
    return _of_state(hf_model.config, state, outer)


def of_bridge(model: Any) -> str:
    """The fingerprint of a bridge, from the weights that its transformers model was loaded with.

    A bridge puts copies beside them, of queries, keys and values that transformers keeps as one.
    An empty model of the same class has the names that count.
    """
    wrapped = model.original_model
    with torch.device("meta"):
        names = set(type(wrapped)(wrapped.config).state_dict())
    state = {name.replace(_WRAPPED, ""): value for name, value in wrapped.state_dict().items()}
    ends = (wrapped.get_input_embeddings(), wrapped.get_output_embeddings())
    outer = [getattr(end, "original_component", end).weight for end in ends if end is not None]
    return _of_state(wrapped.config, {n: v for n, v in state.items() if n in names}, outer)


def of_hooked(model: Any) -> str:
    """The fingerprint of a HookedTransformer."""
    cfg = model.cfg
    sums = [sum(_bit_sum(weight) for weight in _matrices(block)) for block in model.blocks]
    return _digest(_shape_of(cfg, cfg.n_ctx), [*_outer_sums(model), *sums])


def released(model: Any) -> list[str]:
    """The fingerprints that version 0.1.0 may have given `model`, on one backend or the other.

    It took the context from TransformerLens, which says 2048 for many models that hold more. It
    knew dense blocks alone, under HookedTransformer's names; for others it had none.
    """
    try:
        sums = [sum(_bit_sum(w) for w in _released_matrices(block)) for block in model.blocks]
        return [
            _digest(_shape_of(model.cfg, context), [*outer, *sums])
            for outer in (_outer_sums(model), _outer_sums(model, offset=2))
            for context in dict.fromkeys((model.cfg.n_ctx, 2048))
        ]
    except Exception:  # each architecture without these names lacks them in its own way
        return []


def of_everything(model: torch.nn.Module) -> int:
    """A number that changes with any parameter of `model`; it says nothing beyond that.

    Quantised weights, which are whole numbers, are left out: they are laid out anew by a pass.
    """
    return sum(_raw_sum(weight) for weight in model.parameters() if weight.is_floating_point())


def text_config(config: Any) -> Any:
    """The part of a transformers configuration that is about text, or all of it."""
    return config.get_text_config() if hasattr(config, "get_text_config") else config


def is_quantised(hf_model: Any) -> bool:
    """Whether the weights are in a quantiser's own layout, which must not be cast or moved."""
    return getattr(hf_model, "hf_quantizer", None) is not None


def context_of(config: Any) -> int | None:
    """How many tokens a transformers model holds, by its configuration; None where nothing says."""
    text = text_config(config)
    for name in ("max_position_embeddings", "n_positions", "max_seq_len", "n_ctx", "seq_length"):
        length = getattr(text, name, None)
        if isinstance(length, int) and length > 0:
            return length
    return None


def _of_state(config: Any, state: Mapping[str, Tensor], outer: list[Tensor]) -> str:
    """A digest of the shape, the outer matrices in order, and each block's matrices together."""
    known = {weight.data_ptr() for weight in outer}
    blocks: dict[tuple[str, int], int] = {}
    beside: list[int] = []
    for name, weight in state.items():
        if not _is_matrix(name, weight) or weight.data_ptr() in known:
            continue
        place = _BLOCK.match(name)
        if place is None:
            beside.append(_bit_sum(weight))  # learned positions, projections around the blocks
            continue
        block = (place[1], int(place[2]))
        blocks[block] = blocks.get(block, 0) + _bit_sum(weight)
    sums = [_bit_sum(weight) for weight in outer] + beside
    shape = _shape_of_config(config)
    return _digest(shape, [*sums, *(blocks[block] for block in sorted(blocks))])


def _shape_of_config(config: Any) -> list[int | None]:
    text = text_config(config)
    names = ("num_hidden_layers", "hidden_size", "num_attention_heads", "vocab_size")
    return [*(getattr(text, name, None) for name in names), context_of(config)]


def _shape_of(cfg: Any, context: int) -> list[int | None]:
    return [cfg.n_layers, cfg.d_model, cfg.n_heads, cfg.d_vocab, context]


def _digest(shape: list[int | None], sums: list[int]) -> str:
    return hashlib.sha256(json.dumps([shape, sums]).encode()).hexdigest()[:32]


def _is_matrix(name: str, weight: Tensor) -> bool:
    leaf = name.rpartition(".")[2]
    # HookedTransformer has biases with a row a head, mixtures of experts with one an expert.
    return weight.dim() > 1 and not leaf.startswith(("b_", "_b_")) and not leaf.endswith("bias")


def _outer_sums(model: Any, offset: int = 0) -> list[int]:
    """Sums of embedding, unembedding and learned positions (without the first `offset` of these).

    OPT's positions start at the third row, and HookedTransformer leaves out the two before it.
    """
    weights: list[Tensor | None] = [getattr(model, name, None) for name in ("W_E", "W_U")]
    positions = getattr(getattr(model, "pos_embed", None), "W_pos", None)
    weights.append(None if positions is None else positions[offset:])
    return [_bit_sum(weight) for weight in weights if weight is not None]


def _matrices(block: torch.nn.Module) -> list[Tensor]:
    return [weight for name, weight in block.named_parameters() if _is_matrix(name, weight)]


def _released_matrices(block: Any) -> list[Tensor]:
    """The matrices of a dense block that it has under both backends' names."""
    attn, mlp = block.attn, block.mlp
    # HookedTransformer repeats shared keys and values under the bare name.
    names = [f"_{name}" if hasattr(attn, f"_{name}") else name for name in ("W_K", "W_V")]
    held = [
        *(getattr(attn, name, None) for name in ("W_Q", *names, "W_O")),
        *(getattr(mlp, name, None) for name in ("W_in", "W_gate", "W_out")),
    ]
    return [weight for weight in held if weight is not None]


def _bit_sum(weight: Shaped[Tensor, "..."]) -> int:
    if not weight.is_floating_point():  # quantised weights are whole numbers as they are
        return int(weight.detach().sum(dtype=torch.int64))
    bits = weight.detach().to(torch.bfloat16).contiguous().view(torch.int16)
    return int(bits.sum(dtype=torch.int64))


def _raw_sum(weight: Shaped[Tensor, "..."]) -> int:
    """The sum of a tensor's bytes, eight at a time where they go into eights."""
    flat = weight.detach().contiguous().flatten().view(torch.uint8)
    whole = flat.numel() - flat.numel() % 8
    return int(flat[:whole].view(torch.int64).sum()) + int(flat[whole:].sum())
