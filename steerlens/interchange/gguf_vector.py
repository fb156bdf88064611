"""A GGUF control vector, as llama.cpp, repeng, saklas and EasySteer read it.

llama.cpp adds the tensor `direction.N` to the output of block N, counted from 0, of every token;
`direction.0` does not exist, and its reader drops a file that has one, or a tensor that is not F32
with one axis, or any tensor of another name. It reads no metadata; repeng and saklas need
`controlvector.model_hint`. What is ours there are texts under `steerlens.`.

Read in common/common.cpp and src/llama-adapter.cpp of llama.cpp.
"""

import importlib.util
from pathlib import Path
from typing import Any

import torch

from steerlens.identity import loaded
from steerlens.interchange.families import model_type_of
from steerlens.interchange.request import Refused, Request
from steerlens.models.gguf import INSTALL, note_in
from steerlens.types import Direction, HookedModel
from steerlens.whole import drafted

ARCHITECTURE = "controlvector"
CALLED = {
    "cohere": "command-r",
    "deepseek_v2": "deepseek2",
    "deepseek_v3": "deepseek2",
    "gemma3_text": "gemma3",
    "gpt_bigcode": "starcoder",
    "gpt_neox": "gptneox",
    "ministral": "llama",
    "mistral": "llama",
    "mixtral": "llama",
    "phi": "phi2",
    "qwen2_moe": "qwen2moe",
    "qwen3_moe": "qwen3moe",
}
"""What llama.cpp calls the architectures that transformers calls otherwise."""


def write(request: Request) -> list[Path]:
    """Write the vectors at their strength, one tensor for each block."""
    request.require_options()
    vectors = {block: _vector(request, block, v) for block, v in request.constants().items()}
    if importlib.util.find_spec("gguf") is None:
        raise ValueError(f"Writing a GGUF file needs the package gguf: {INSTALL}.")
    with drafted(request.path) as draft:
        _write(draft, request, vectors)
    return [request.path]


def _vector(request: Request, block: int, v: Direction) -> Direction:
    """The vector of a block in float32; Refused where llama.cpp cannot add it there."""
    if block < 1:
        place = "the output of block 0" if block == 0 else "the embeddings"
        raise Refused(
            f"llama.cpp cannot steer {place}: the first tensor of {request.target} is that of "
            "block 1, and its reader drops a file with an earlier one. Leave that layer out, or "
            'export to="checkpoint", which can steer block 0.'
        )
    single = v.float()
    if not bool(torch.isfinite(single).all()):
        raise Refused(
            f"The vector at the output of block {block} is not finite in float32, which is what "
            f"{request.target} holds. Take a lower strength."
        )
    return single


def _write(draft: Path, request: Request, vectors: dict[int, Direction]) -> None:
    from gguf import GGUFWriter

    writer = GGUFWriter(draft, ARCHITECTURE)
    writer.add_string(f"{ARCHITECTURE}.model_hint", _called(request.model))
    writer.add_uint32(f"{ARCHITECTURE}.layer_count", len(vectors))
    for name, text in request.provenance().items():
        writer.add_string(f"steerlens.{name}", text)
    for block, v in vectors.items():
        writer.add_tensor(f"direction.{block}", v.contiguous().numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _called(model: HookedModel) -> str:
    """What llama.cpp calls the model's architecture; transformers' name where it has none."""
    known = loaded(model)
    note: Any = note_in(known.folder) if known else None
    if note is not None:
        return note.architecture
    kind = model_type_of(model)
    return CALLED.get(kind, kind)
