"""A PEFT adapter that holds a constant steering: with a dial, and an off switch.

It is a LoRA of rank 1 whose matrices are 0, and whose bias (`lora_bias`) is the vector, at the last
linear map of the MLP of each steered block. PEFT's `set_scale` is the strength, `disable_adapter`
the model as it was.
"""

import json
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from steerlens.interchange.families import Family, factor_of, family_of
from steerlens.interchange.folders import drafted_folder, require_folder_place
from steerlens.interchange.plain import (
    device_dtype,
    plain_folder,
    plain_logits,
    plain_model,
    probe,
    require_same,
)
from steerlens.interchange.request import Request
from steerlens.types import Direction

FOLDER = True


def write(request: Request) -> list[Path]:
    """Write the folder; its option `base` names the base model there, if not its own folder."""
    from safetensors.torch import save_file

    request.require_options("base")
    vectors = request.constants()
    request.require_above_embeddings(vectors)
    folder = plain_folder(request)
    require_folder_place(request.path)
    hf_model = plain_model(folder, device_dtype(request.model))
    family = family_of(hf_model.config, request.subject)
    biases = _biases(hf_model, family, vectors)
    _require_same(request, hf_model, biases)
    config = _config(str(request.options.get("base", folder)), hf_model, list(biases))
    with drafted_folder(request.path) as draft:
        text = f"{json.dumps(config, indent=2)}\n"
        (draft / "adapter_config.json").write_text(text, encoding="utf-8")
        # PEFT reads no entry of the configuration that it does not know, so ours are here.
        about = {f"steerlens.{name}": value for name, value in request.provenance().items()}
        tensors = _tensors(hf_model, biases)
        save_file(tensors, draft / "adapter_model.safetensors", {"format": "pt"} | about)
    return sorted(request.path.iterdir())


def _biases(hf_model: Any, family: Family, vectors: dict[int, Direction]) -> dict[str, Direction]:
    """What is added to the output of each map, in float32."""
    factor = factor_of(hf_model.config)
    return {family.name(block): (v / factor).float() for block, v in vectors.items()}


def _require_same(request: Request, hf_model: Any, biases: dict[str, Direction]) -> None:
    """Refused where adding the biases is not what the steering does."""

    def adds(v: Direction) -> Any:
        return lambda module, given, output: output + v.to(output)

    handles = [
        hf_model.get_submodule(name).register_forward_hook(adds(v)) for name, v in biases.items()
    ]
    try:
        ids = probe(request.model)
        require_same(request, plain_logits(hf_model, ids), ids, hf_model.dtype)
    finally:
        for handle in handles:
            handle.remove()


def _config(base: str, hf_model: Any, names: list[str]) -> dict[str, Any]:
    return {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base,
        "inference_mode": True,
        "r": 1,
        "lora_alpha": 1,
        "lora_dropout": 0.0,
        "lora_bias": True,
        "bias": "none",
        "fan_in_fan_out": _is_conv(hf_model.get_submodule(names[0])),
        "target_modules": names,
    }


def _is_conv(module: Any) -> bool:
    """Whether the map is GPT-2's kind, whose matrix is the other way round."""
    return type(module).__name__ == "Conv1D"


def _tensors(hf_model: Any, biases: dict[str, Direction]) -> dict[str, Float[Tensor, "..."]]:
    found = {}
    for name, v in biases.items():
        module = hf_model.get_submodule(name)
        d_in = module.weight.shape[0 if _is_conv(module) else 1]
        prefix = f"base_model.model.{name}"
        found[f"{prefix}.lora_A.weight"] = torch.zeros(1, d_in)
        found[f"{prefix}.lora_B.weight"] = torch.zeros(len(v), 1)
        found[f"{prefix}.lora_B.bias"] = v.contiguous()
    return found
