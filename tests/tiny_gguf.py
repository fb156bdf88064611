"""Tiny GGUF files: the Llama of `tiny_models`, written as llama.cpp's converter does."""

from pathlib import Path
from typing import Any

import numpy as np
from tiny_models import load_reference
from transformers import AutoTokenizer

_NAMES = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
}


def write_gguf(
    path: Path,
    folder: Path,
    kind: str = "Q8_0",
    *,
    architecture: str = "llama",
    extra: dict[str, np.ndarray] | None = None,
    fields: dict[str, Any] | None = None,
    pre: str | None = "gpt-2",
) -> Path:
    """The Llama in `folder` as a GGUF file whose matrices are of `kind`; `extra` tensors beside.

    `pre` None leaves the vocabulary out.
    """
    from gguf import GGMLQuantizationType, GGUFWriter, LlamaFileType, quants

    model, tokenizer = load_reference(folder), AutoTokenizer.from_pretrained(folder)
    config = model.config
    writer = GGUFWriter(path, architecture)
    writer.add_name("Tiny Llama")
    writer.add_license("mit")
    writer.add_type((fields or {}).get("type", "model"))
    number = {"F32": "ALL_F32"}.get(kind, f"MOSTLY_{kind}")
    writer.add_file_type(LlamaFileType[number])
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_vocab_size(config.vocab_size)
    if "split" in (fields or {}):
        writer.add_uint16("split.count", (fields or {})["split"])
    if pre is None:
        writer.add_tokenizer_model("none")
    else:
        add_tokenizer(writer, tokenizer, pre)
    for name, weight in model.state_dict().items():
        values = weight.numpy().astype(np.float32)
        values = _permuted(values, name, config)
        matrix = values.ndim == 2 and kind != "F32"
        wanted = GGMLQuantizationType[kind if matrix else "F32"]
        writer.add_tensor(_gguf_name(name), quants.quantize(values, wanted), raw_dtype=wanted)
    for name, values in (extra or {}).items():
        writer.add_tensor(name, values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def add_tokenizer(writer: Any, tokenizer: Any, pre: str) -> None:
    """The vocabulary of a tokenizer of the kind of GPT-2's, with the chat template."""
    import json

    from gguf import TokenType

    known = json.loads(tokenizer.backend_tokenizer.to_str())["model"]
    special = set(tokenizer.all_special_tokens) | set(tokenizer.get_added_vocab())
    tokens = sorted(tokenizer.get_vocab().items(), key=lambda item: item[1])
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in known["merges"]]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre)
    writer.add_token_list([token for token, _ in tokens])
    writer.add_token_types(
        [TokenType.CONTROL if token in special else TokenType.NORMAL for token, _ in tokens]
    )
    writer.add_token_merges(merges)
    writer.add_bos_token_id(tokenizer.bos_token_id)
    writer.add_eos_token_id(tokenizer.eos_token_id)
    writer.add_pad_token_id(tokenizer.pad_token_id)
    writer.add_chat_template(tokenizer.chat_template)


def _gguf_name(name: str) -> str:
    outer = {
        "model.embed_tokens.weight": "token_embd.weight",
        "model.norm.weight": "output_norm.weight",
        "lm_head.weight": "output.weight",
    }
    if name in outer:
        return outer[name]
    _, _, layer, inner = name.split(".", 3)
    part, _, kind = inner.rpartition(".")
    return f"blk.{layer}.{_NAMES[part]}.{kind}"


def _permuted(values: np.ndarray, name: str, config: Any) -> np.ndarray:
    """Queries and keys in the order of llama.cpp, which turns pairs of neighbours."""
    if not name.endswith(("q_proj.weight", "k_proj.weight")):
        return values
    heads = config.num_attention_heads if "q_proj" in name else config.num_key_value_heads
    halves = values.reshape(heads, 2, values.shape[0] // heads // 2, values.shape[1])
    return halves.swapaxes(1, 2).reshape(values.shape)
