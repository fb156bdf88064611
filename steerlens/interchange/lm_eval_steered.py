"""The steering file of lm-evaluation-harness, for `lm_eval --model steered`.

`lm_eval/models/hf_steered.py` of lm-evaluation-harness 0.4.13 reads a `.pt` file of

    {hookpoint: {"steering_vector": v, "steering_coefficient": c, "action": "add" or "clamp",
                 "bias": None, "head_index": None}}

A hookpoint is the name of a module inside transformers' `model.base_model`: "layers.15" is the
output of block 15 of a Llama, "h.6" of a GPT-2. At every token of it

    add    h' = h + c v
    clamp  h' = h + (c - h u) u        u = v / |v|

The harness takes one entry for each hookpoint, so vectors at one place are summed.
"""

import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from steerlens.forms import Added, Clamped, Form, Laid
from steerlens.identity import is_of_transformers, loaded
from steerlens.interchange.request import (
    EMBEDDINGS,
    NEAREST,
    UNSCOPED,
    ExportError,
    Refused,
    Request,
)
from steerlens.precision import wide
from steerlens.scopes import everywhere
from steerlens.types import Direction, HookedModel
from steerlens.whole import write_whole

SUFFIXES = (".pt", ".pth")
WRAPPED = "._original_component"
"""What a bridge puts behind the name of a module that it wraps."""
AS_EMBEDDED = {
    "gpt2",
    "gpt_neo",
    "gpt_neox",
    "gptj",
    "llama",
    "mistral",
    "olmo",
    "opt",
    "phi",
    "phi3",
    "qwen2",
    "qwen3",
    "smollm3",
    "stablelm",
}
"""Kinds of models (`model_type`) whose stream begins with what the embedding's module gives.

Others scale it (Gemma, Granite), normalise it (Bloom), or project it (OPT-350m) after that module.
"""


def write(request: Request) -> list[Path]:
    """Write the file; ExportError for what the harness cannot do.

    ValueError where the file is not called `.pt` or `.pth`, by which the harness knows it.
    """
    request.require_options()
    if request.path.suffix not in SUFFIXES:
        raise ValueError(
            f"lm-evaluation-harness reads files called {' or '.join(SUFFIXES)}; found "
            f"{request.path.name!r}. Call it steering.pt."
        )
    forms = request.forms()
    names = Hookpoints(request.model)
    blocks = dict.fromkeys(sorted(block for block, _ in forms))
    entries = {
        names.of(block): _entry(request, block, [form for place, form in forms if place == block])
        for block in blocks
    }
    buffer = io.BytesIO()
    torch.save(entries, buffer)
    return [write_whole(request.path, buffer.getvalue())]


def _entry(request: Request, block: int, forms: Sequence[Form]) -> dict[str, Any]:
    """What is done at the output of one block, in the harness's terms."""
    for form in forms:
        if isinstance(form, Laid):
            raise ExportError(
                f"{request.subject} does the same at every token; at the output of block {block} "
                f"this steering adds another vector to each position of the prompt. {NEAREST}"
            )
        if form.scope != everywhere:
            raise ExportError(
                f"{request.subject} steers every token; this steering is limited to "
                f"'{form.scope}'. {UNSCOPED} {NEAREST}"
            )
    added = [form for form in forms if isinstance(form, Added)]
    if len(added) == len(forms):
        v = sum((wide(form.v).detach().cpu() for form in added[1:]), wide(added[0].v).cpu())
        return _written(v, 1.0, "add")
    first = forms[0]
    if len(forms) > 1 or not isinstance(first, Clamped):
        raise ExportError(
            f"{request.subject} does one thing at each place: it adds, or it clamps. At the output "
            f"of block {block} this steering does {len(forms)} things, one of them a clamp. Put "
            f"them at different blocks. {NEAREST}"
        )
    request.require_unfolded()
    return _written(wide(first.u).detach().cpu(), first.z, "clamp")


def _written(v: Direction, coefficient: float, action: str) -> dict[str, Any]:
    return {
        "steering_vector": v.float().contiguous(),
        "steering_coefficient": float(coefficient),
        "action": action,
        "bias": None,
        "head_index": None,
    }


class Hookpoints:
    """The names that transformers gives the places where a block of a model ends."""

    def __init__(self, model: HookedModel) -> None:
        self.config, base = _base_of(model)
        self.n_layers: int = model.cfg.n_layers
        modules = [(name.replace(WRAPPED, ""), part) for name, part in base.named_modules()]
        self.blocks = self._blocks(modules)
        embedding = base.get_input_embeddings()
        inner = getattr(embedding, "original_component", embedding)
        same = [name for name, part in modules if part is embedding or part is inner]
        self.embedding = next(iter(same), None)

    def of(self, block: int) -> str:
        """The module whose output is that of `block`; -1 is the embedding."""
        if block != EMBEDDINGS:
            return f"{self.blocks}.{block}"
        kind = getattr(self.config, "model_type", "")
        width = getattr(self.config, "word_embed_proj_dim", self.config.hidden_size)
        if kind not in AS_EMBEDDED or width != self.config.hidden_size or self.embedding is None:
            raise Refused(
                "lm-evaluation-harness could steer what goes into block 0 only at the embedding's "
                f"own module, and for a model of the kind {kind!r} it is not known that the two "
                "are the same. Steer the output of a block (resid_post)."
            )
        return self.embedding

    def _blocks(self, modules: Sequence[tuple[str, Any]]) -> str:
        """The name of the list of blocks; the outermost where several lists are as long."""
        lists = [
            name
            for name, part in modules
            if isinstance(part, torch.nn.ModuleList) and len(part) == self.n_layers
        ]
        found = [name for name in lists if "vision" not in name and "audio" not in name]
        if not found:
            raise Refused(
                f"No list of {self.n_layers} blocks is found in this model of transformers, so "
                "lm-evaluation-harness cannot be told where a block ends."
            )
        return min(found, key=lambda name: name.count("."))


def _base_of(model: HookedModel) -> tuple[Any, Any]:
    """The configuration and `base_model` of the model in transformers' own class.

    A bridge holds it. For others an empty one of the class is built, which has the names.
    """
    if is_of_transformers(model):
        wrapped: Any = model.original_model  # pyright: ignore[reportAttributeAccessIssue]
        return _text_of(wrapped.config), wrapped.base_model
    for config, kind in _described(model):
        with torch.device("meta"):
            return _text_of(config), kind(config).base_model
    raise Refused(
        "It is not known which class of transformers this model is, so lm-evaluation-harness "
        "cannot be told where a block ends. Load it with steerlens.load(..., backend='bridge')."
    )


def _described(model: HookedModel) -> Iterator[tuple[Any, Any]]:
    """The configuration and the class in transformers: of its folder, or by the class's name."""
    import transformers

    known = loaded(model)
    if known is not None and known.folder is not None and (known.folder / "config.json").is_file():
        config = transformers.AutoConfig.from_pretrained(known.folder)
        yield config, transformers.AutoModelForCausalLM.from_config
    kind = getattr(transformers, str(getattr(model.cfg, "original_architecture", "")), None)
    if kind is not None and getattr(kind, "config_class", None) is not None:
        # The names alone are looked at, so its sizes may be any but the number of blocks.
        yield kind.config_class(num_hidden_layers=model.cfg.n_layers), kind


def _text_of(config: Any) -> Any:
    return config.get_text_config() if hasattr(config, "get_text_config") else config
