"""What each type of model has where a constant can be put in place of a hook.

To add v to the output of a block is to give its MLP's last linear map the bias v, where nothing
comes between that map and the residual stream. A norm there (Gemma 2, OLMo 2) would swallow it; a
factor there (Granite) is divided out.
"""

from dataclasses import dataclass
from typing import Any

from steerlens.identity import is_of_transformers, loaded
from steerlens.interchange.request import Refused
from steerlens.parsing import parse_json, text_of_input
from steerlens.types import HookedModel

LLAMA = "llama"


@dataclass(frozen=True)
class Family:
    """The last linear map of a block's MLP, by name, and how it comes to a bias.

    `switch` is the entry of the configuration that gives it one ("" where it always has one, None
    where nothing does); `as_llama` says that the model is a Llama by another name.
    """

    module: str
    switch: str | None = ""
    as_llama: bool = False

    def name(self, block: int) -> str:
        """The name of the map of this block, in transformers' model."""
        return self.module.format(block)


_DOWN = "model.layers.{}.mlp.down_proj"
FAMILIES = {
    "bloom": Family("transformer.h.{}.mlp.dense_4h_to_h"),
    "gpt2": Family("transformer.h.{}.mlp.c_proj"),
    "gpt_neo": Family("transformer.h.{}.mlp.c_proj"),
    "gpt_neox": Family("gpt_neox.layers.{}.mlp.dense_4h_to_h"),
    "gptj": Family("transformer.h.{}.mlp.fc_out"),
    "granite": Family(_DOWN, "mlp_bias"),
    "llama": Family(_DOWN, "mlp_bias"),
    "mistral": Family(_DOWN, as_llama=True),
    "nemotron": Family(_DOWN, "mlp_bias"),
    "opt": Family("model.decoder.layers.{}.fc2", "enable_bias"),
    "phi": Family("model.layers.{}.mlp.fc2"),
    "qwen2": Family(_DOWN, as_llama=True),
    "smollm3": Family(_DOWN, "mlp_bias"),
    "starcoder2": Family("model.layers.{}.mlp.c_proj", "use_bias"),
    # Those whose MLP has no bias, whatever the configuration says.
    "cohere": Family(_DOWN, None),
    "gemma": Family(_DOWN, None),
    "olmo": Family(_DOWN, None),
    "phi3": Family(_DOWN, None),
    "qwen3": Family(_DOWN, None),
    "stablelm": Family(_DOWN, None),
}
POST_NORM = (
    "gemma2",
    "gemma3",
    "gemma3_text",
    "gemma3n",
    "gemma3n_text",
    "gemma4",
    "gemma4_text",
    "glm4",
    "olmo2",
    "olmo3",
)
"""Types that put a norm between the MLP and the residual stream."""


def model_type_of(model: HookedModel) -> str:
    """Transformers' name for the type of a model, as "gpt2" or "llama"."""
    if is_of_transformers(model):
        return str(model.original_model.config.model_type)  # pyright: ignore[reportAttributeAccessIssue]
    known = loaded(model)
    if known is not None and known.folder is not None:
        config = parse_json(text_of_input(known.folder / "config.json"))
        return str(config.get("model_type", "unknown"))
    return _type_of_class(str(getattr(model.cfg, "original_architecture", "")))


def _type_of_class(name: str) -> str:
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    found = [kind for kind, cls in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.items() if cls == name]
    return found[0] if found else "unknown"


def family_of(config: Any, subject: str) -> Family:
    """The family of a configuration of transformers; Refused, with the reason, without one."""
    kind = str(config.model_type)
    if kind in POST_NORM or (kind == "opt" and not config.do_layer_norm_before):
        raise Refused(
            f"{subject} cannot steer this model ({kind}): a norm stands between its MLP and the "
            'residual stream and would swallow the vector. Export to="gguf", or keep the hooks.'
        )
    if kind not in FAMILIES:
        raise Refused(
            f"{subject} cannot steer a model of type {kind!r}: it is not known to steerlens that "
            f"its MLP ends in one linear map. Known are {', '.join(FAMILIES)}. Export "
            'to="gguf", or keep the hooks.'
        )
    return FAMILIES[kind]


def factor_of(config: Any) -> float:
    """What the output of the MLP is multiplied by before it is added to the residual stream."""
    return float(getattr(config, "residual_multiplier", 1.0))
