"""llama.cpp by ctypes: the wheel xllamacpp exports its whole C interface, so no compiler is needed.

Tied to the release that constraints/consumers.txt pins: another one may lay its structures out in
another way, which the defaults tell.
"""

import ctypes as c
import importlib.util
import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

INT, UINT, FLOAT, POINTER, BOOL = c.c_int32, c.c_uint32, c.c_float, c.c_void_p, c.c_bool


class ModelParameters(c.Structure):
    _fields_ = (
        *((name, POINTER) for name in ("devices", "buffers")),
        *((name, INT) for name in ("gpu_layers", "split", "load_mode", "lazy", "main_gpu")),
        *((name, POINTER) for name in ("tensor_split", "progress", "progress_data", "overrides")),
        *((f"flag_{number}", BOOL) for number in range(6)),
    )


class ContextParameters(c.Structure):
    _fields_ = (
        *((name, UINT) for name in ("n_ctx", "n_batch", "n_ubatch", "n_seq_max", "n_rs")),
        *((name, UINT) for name in ("n_outputs", "n_outputs_seq")),
        *((name, INT) for name in ("threads", "threads_batch", "kind", "rope", "pooling")),
        *((name, INT) for name in ("attention", "flash")),
        *((f"rope_{number}", FLOAT) for number in range(6)),
        ("yarn_context", UINT),
        ("defragment", FLOAT),
        *((name, POINTER) for name in ("evaluate", "evaluate_data")),
        *((name, INT) for name in ("type_k", "type_v", "experts")),
        ("padding", c.c_size_t),
        *((name, POINTER) for name in ("abort", "abort_data")),
        *((name, BOOL) for name in ("embeddings", "offload", "no_perf", "op_offload")),
        *((name, BOOL) for name in ("full", "unified")),
        ("samplers", POINTER),
        ("n_samplers", c.c_size_t),
        ("other", POINTER),
    )


class Batch(c.Structure):
    _fields_ = (
        ("n_tokens", INT),
        ("token", c.POINTER(INT)),
        ("embeddings", POINTER),
        ("position", c.POINTER(INT)),
        ("n_sequences", c.POINTER(INT)),
        ("sequence", c.POINTER(c.POINTER(INT))),
        ("logits", c.POINTER(c.c_int8)),
    )


FUNCTIONS: dict[str, tuple[Any, ...]] = {
    "model_default_params": (ModelParameters,),
    "context_default_params": (ContextParameters,),
    "model_load_from_file": (POINTER, c.c_char_p, ModelParameters),
    "init_from_model": (POINTER, POINTER, ContextParameters),
    "batch_init": (Batch, INT, INT, INT),
    "batch_free": (None, Batch),
    "decode": (INT, POINTER, Batch),
    "get_logits_ith": (c.POINTER(FLOAT), POINTER, INT),
    "set_adapter_cvec": (INT, POINTER, POINTER, c.c_size_t, INT, INT, INT),
    "model_n_embd": (INT, POINTER),
    "model_n_layer": (INT, POINTER),
    "model_get_vocab": (POINTER, POINTER),
    "vocab_n_tokens": (INT, POINTER),
    "free": (None, POINTER),
    "model_free": (None, POINTER),
    "log_set": (None, POINTER, POINTER),
}
"""Of each function the type that it returns, and those of its arguments."""


@cache
def library() -> Path:
    """The file that is llama.cpp, or a skipped test that says how to get it."""
    found = importlib.util.find_spec("xllamacpp")
    places = list(found.submodule_search_locations or ()) if found else []
    files = [file for place in places for file in Path(place).glob("*.so")]
    if not files:
        pytest.skip("llama.cpp (xllamacpp, in constraints/consumers.txt) is not installed")
    return files[0]


@cache
def engine() -> Any:
    """llama.cpp with its functions declared, or a skipped test."""
    opened = c.CDLL(str(library()))
    for name, (gives, *takes) in FUNCTIONS.items():
        function = getattr(opened, f"llama_{name}")
        function.restype, function.argtypes = gives, takes
    opened.llama_log_set(c.cast(_SILENT, POINTER), None)
    return opened


_SILENT = c.CFUNCTYPE(None, c.c_int, c.c_char_p, POINTER)(lambda *_: None)


def logits(
    file: Path, ids: list[int], directions: dict[int, np.ndarray] | None = None
) -> np.ndarray:
    """The logits of every token, [pos, d_vocab], with these vectors, by their number in a file."""
    llama = engine()
    options = llama.llama_context_default_params()
    known = (options.n_ctx, options.n_batch, options.type_k, options.type_v, options.flash)
    assert (*known, options.defragment) == (512, 2048, 1, 1, -1, -1.0), "not the pinned release"
    options.threads = options.threads_batch = 1
    options.type_k = options.type_v = options.flash = 0  # all in F32
    model = llama.llama_model_load_from_file(str(file).encode(), llama.llama_model_default_params())
    assert model, f"llama.cpp cannot load {file}"
    context = llama.llama_init_from_model(model, options)
    if directions:
        _put(model, context, directions)
    rows = _decoded(model, context, ids)
    llama.llama_free(context)
    llama.llama_model_free(model)
    return rows


def _put(model: Any, context: Any, directions: dict[int, np.ndarray]) -> None:
    """Set every row: those left out would keep what an earlier call put there."""
    llama = engine()
    layers, width = llama.llama_model_n_layer(model), llama.llama_model_n_embd(model)
    data = np.zeros((layers - 1, width), np.float32)
    for number, direction in directions.items():
        data[number - 1] = direction
    done = llama.llama_set_adapter_cvec(context, data.ctypes.data, data.size, width, 1, layers)
    assert done == 0


def _decoded(model: Any, context: Any, ids: list[int]) -> np.ndarray:
    llama = engine()
    batch = llama.llama_batch_init(len(ids), 0, 1)
    batch.n_tokens = len(ids)
    for place, token in enumerate(ids):
        batch.token[place], batch.position[place] = token, place
        batch.n_sequences[place], batch.logits[place] = 1, 1
        batch.sequence[place][0] = 0
    assert llama.llama_decode(context, batch) == 0
    size = llama.llama_vocab_n_tokens(llama.llama_model_get_vocab(model))
    rows = [
        np.ctypeslib.as_array(llama.llama_get_logits_ith(context, place), (size,)).copy()
        for place in range(len(ids))
    ]
    llama.llama_batch_free(batch)
    return np.stack(rows)


def directions_of(file: Path) -> dict[int, np.ndarray]:
    """The vectors of a control vector file, by its rules, as llama.cpp's own reader applies them.

    That reader is C++ with no C interface: common_control_vector_load_one in common/common.cpp.
    """
    from gguf import GGMLQuantizationType, GGUFReader

    found: dict[int, np.ndarray] = {}
    for tensor in GGUFReader(file).tensors:
        name, dot, number = tensor.name.partition(".")
        assert (name, dot) == ("direction", "."), f"a foreign tensor: {tensor.name}"
        assert int(number) >= 1, "an invalid (zero) direction tensor layer index"
        assert tensor.tensor_type == GGMLQuantizationType.F32
        assert len(tensor.shape) == 1
        found[int(number)] = np.array(tensor.data)
    assert len({len(row) for row in found.values()}) == 1
    return found


_PARTS = {
    "ln_1": "attn_norm",
    "attn.c_attn": "attn_qkv",
    "attn.c_proj": "attn_output",
    "ln_2": "ffn_norm",
    "mlp.c_fc": "ffn_up",
    "mlp.c_proj": "ffn_down",
}
_OUTER = {
    "wte.weight": "token_embd.weight",
    "wpe.weight": "position_embd.weight",
    "ln_f.weight": "output_norm.weight",
    "ln_f.bias": "output_norm.bias",
}


def write_gpt2(file: Path, folder: Path, pre: str | None = None) -> Path:
    """A GPT-2 in a Hugging Face folder as an F32 GGUF file.

    With its vocabulary if `pre` says how llama.cpp splits words.
    """
    from gguf import GGUFWriter
    from safetensors.numpy import load_file
    from tiny_gguf import add_tokenizer
    from transformers import AutoTokenizer

    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    weights = load_file(folder / "model.safetensors")
    writer = GGUFWriter(file, "gpt2")
    writer.add_block_count(config["n_layer"])
    writer.add_context_length(config["n_positions"])
    writer.add_embedding_length(config["n_embd"])
    writer.add_feed_forward_length(4 * config["n_embd"])
    writer.add_head_count(config["n_head"])
    writer.add_layer_norm_eps(config["layer_norm_epsilon"])
    writer.add_file_type(0)
    writer.add_vocab_size(config["vocab_size"])
    if pre is None:
        writer.add_tokenizer_model("none")
    else:
        add_tokenizer(writer, AutoTokenizer.from_pretrained(folder), pre)
    for key, values in weights.items():
        name = _gguf_name(key.removeprefix("transformer."))
        values = values.astype(np.float32)
        conv = name.startswith("blk.") and values.ndim == 2  # transformers' Conv1D
        writer.add_tensor(name, np.ascontiguousarray(values.T if conv else values))
    head = weights.get("lm_head.weight", weights["transformer.wte.weight"])
    if "lm_head.weight" not in weights:
        writer.add_tensor("output.weight", np.ascontiguousarray(head.astype(np.float32)))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return file


def _gguf_name(key: str) -> str:
    if key == "lm_head.weight":
        return "output.weight"
    if key in _OUTER:
        return _OUTER[key]
    _, block, rest = key.split(".", 2)
    part, kind = rest.rsplit(".", 1)
    return f"blk.{block}.{_PARTS[part]}.{kind}"
