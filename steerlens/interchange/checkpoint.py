"""A model in which a constant steering is a bias: any engine that runs the model runs it steered.

To add v to the output of block L is to give the last linear map of its MLP the bias v. Where the
model has such biases, v is added to them; a Llama gets them by `mlp_bias`, the other new biases
being 0; Qwen2 and Mistral are Llamas by another name, and are written as such. The folder is put in
its place only after transformers has read it, and has computed what the hooks do.
"""

import shutil
from pathlib import Path
from typing import Any

import torch

from steerlens.interchange.families import Family, factor_of, family_of
from steerlens.interchange.folders import drafted_folder, require_folder_place
from steerlens.interchange.plain import (
    plain_folder,
    plain_logits,
    plain_model,
    probe,
    require_same,
    save_tokenizer,
)
from steerlens.interchange.request import Refused, Request
from steerlens.models.weights import dtype_named, quietly
from steerlens.types import Direction

FOLDER = True
GENERATION = "generation_config.json"


def write(request: Request) -> list[Path]:
    """Write the folder; its option `dtype` is that of the weights (float32, or "auto")."""
    request.require_options("dtype")
    vectors = request.constants()
    request.require_above_embeddings(vectors)
    dtype = dtype_named(request.options.get("dtype"))
    folder = plain_folder(request)
    family = _family(request, folder)
    require_folder_place(request.path)
    with quietly():
        baked = _baked(plain_model(folder, dtype), family, vectors)
        baked.config.steerlens = request.provenance()
        with drafted_folder(request.path) as draft:
            _save(request, baked, folder, draft)
            ids = probe(request.model)
            again = plain_model(draft, dtype)
            require_same(request, plain_logits(again, ids).float(), ids, again.dtype)
    return sorted(request.path.iterdir())


def _family(request: Request, folder: Path) -> Family:
    """The model's family, which has or can have a bias; Refused with the reason if it cannot."""
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    family = family_of(config, request.subject)
    kind = config.model_type
    if getattr(config, "quantization_config", None):
        raise Refused(
            f"The weights in {folder} are quantised, and {request.target} is made of plain ones. "
            "Load the model that they were made of, and export from there."
        )
    if family.switch is None:
        raise Refused(
            f"A model of type {kind!r} has no bias in its MLP, whatever its configuration says, so "
            f'{request.target} has no place for the vector. Export to="peft", or to="gguf".'
        )
    if family.as_llama and _slides(config):
        raise Refused(
            f"A model of type {kind!r} has no bias in its MLP. It could be written as a Llama, but "
            'for its sliding window of attention, which a Llama has not. Export to="peft".'
        )
    return family


def _slides(config: Any) -> bool:
    """Whether a layer attends to the last tokens alone."""
    layers = getattr(config, "layer_types", None)
    if layers is not None:
        return "sliding_attention" in layers
    return bool(getattr(config, "sliding_window", None)) and getattr(
        config, "use_sliding_window", True
    )


@torch.no_grad()
def _baked(hf_model: Any, family: Family, vectors: dict[int, Direction]) -> Any:
    """The model with the vectors in its biases."""
    hf_model = _with_biases(hf_model, family)
    factor = factor_of(hf_model.config)
    for block, v in vectors.items():
        bias = hf_model.get_submodule(family.name(block)).bias
        # Summed before it is rounded to the dtype of the weights.
        bias.copy_((bias.double() + v.double() / factor).to(bias.dtype))
    return hf_model


def _with_biases(hf_model: Any, family: Family) -> Any:
    """The same function with biases, those that were not there being 0."""
    from transformers import AutoModelForCausalLM, GenerationConfig

    config = _llama_config(hf_model.config) if family.as_llama else hf_model.config
    has = not family.switch or getattr(config, family.switch)
    if not has or family.as_llama:
        if family.switch:
            setattr(config, family.switch, True)
        renewed = AutoModelForCausalLM.from_config(config, dtype=hf_model.dtype)
        missing, beyond = renewed.load_state_dict(hf_model.state_dict(), strict=False)
        assert not beyond, beyond
        for name in missing:
            assert name.endswith(".bias"), name
            renewed.get_parameter(name).zero_()
        hf_model = renewed.eval()
    # The folder's own file is copied: transformers refuses to write some that it has read.
    hf_model.generation_config = GenerationConfig.from_model_config(config)
    return hf_model


def _llama_config(config: Any) -> Any:
    """The configuration of a Llama that computes what this model does."""
    from transformers import LlamaConfig

    own = {"model_type", "architectures", "transformers_version", "layer_types", "head_dim"}
    given = config.to_dict()
    shared = {name: given[name] for name in LlamaConfig().to_dict() if name in given}
    kept = {name: value for name, value in shared.items() if name not in own}
    if given.get("head_dim"):
        kept["head_dim"] = given["head_dim"]
    kept |= {"mlp_bias": True, "attention_bias": config.model_type == "qwen2"}
    return LlamaConfig(**kept)


def _save(request: Request, baked: Any, folder: Path, draft: Path) -> None:
    baked.save_pretrained(draft)
    save_tokenizer(request, folder, draft)
    if (folder / GENERATION).is_file():
        shutil.copyfile(folder / GENERATION, draft / GENERATION)
