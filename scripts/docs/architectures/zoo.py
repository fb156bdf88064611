"""Tiny models of random weights: one for each architecture of transformers, and for some options.

Three layers (four where kinds of layers take turns), 32 dimensions, the vocabulary of the tests'
tokenizer. Windows of attention are shorter than the prompts, factors of scaled positions are at
work within them, and weights are drawn wide: whatever a backend leaves out changes the logits.
"""

import inspect
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

N_LAYERS, D_MODEL, N_CTX, D_VOCAB = 3, 32, 128, 400

SIZES: dict[str, Any] = {
    **dict.fromkeys(("hidden_size", "d_model", "n_embd", "embedding_dim", "lru_width"), D_MODEL),
    **dict.fromkeys(("attention_hidden_size", "word_embed_proj_dim", "embedding_size"), D_MODEL),
    **dict.fromkeys(("num_hidden_layers", "n_layer", "n_layers", "num_layers"), N_LAYERS),
    **dict.fromkeys(("decoder_layers", "num_blocks"), N_LAYERS),
    **dict.fromkeys(("num_attention_heads", "n_head", "n_heads", "attention_heads"), 4),
    **dict.fromkeys(("decoder_attention_heads", "num_heads"), 4),
    **dict.fromkeys(("num_key_value_heads", "num_kv_heads"), 2),
    **dict.fromkeys(("intermediate_size", "ffn_dim", "dff", "decoder_ffn_dim", "ffn_hidden"), 64),
    **dict.fromkeys(("head_dim", "rotary_dim", "attention_head_dim"), 8),
    **dict.fromkeys(("max_position_embeddings", "n_positions", "max_seq_len"), N_CTX),
    **dict.fromkeys(("model_max_length", "context_length"), N_CTX),
    **dict.fromkeys(("sliding_window", "window_size", "attention_window_size"), 6),
    # Mixtures of experts.
    **dict.fromkeys(("num_experts", "num_local_experts", "n_routed_experts"), 4),
    **dict.fromkeys(("moe_num_experts", "num_experts_per_token_total"), 4),
    **dict.fromkeys(("num_experts_per_tok", "moe_topk", "moe_k", "num_experts_per_token"), 2),
    **dict.fromkeys(("moe_intermediate_size", "shared_expert_intermediate_size"), 32),
    **dict.fromkeys(("intermediate_size_mlp", "shared_intermediate_size"), 32),
    **dict.fromkeys(("n_shared_experts", "num_shared_experts", "moe_num_shared_experts"), 1),
    **dict.fromkeys(("first_k_dense_replace", "num_dense_layers", "n_group", "topk_group"), 1),
    # Compressed attention.
    **dict.fromkeys(("q_lora_rank", "kv_lora_rank", "o_lora_rank"), 16),
    **dict.fromkeys(("qk_rope_head_dim", "qk_nope_head_dim", "v_head_dim"), 8),
    **dict.fromkeys(("index_head_dim", "index_n_heads"), 4),
    "index_topk": 8,
    # State spaces.
    **dict.fromkeys(("state_size", "mamba_d_state", "ssm_state_size"), 8),
    **dict.fromkeys(("mamba_dt_rank", "time_step_rank", "dt_rank"), 4),
    **dict.fromkeys(("mamba_n_heads", "n_mamba_heads", "mamba_num_heads"), 8),
    **dict.fromkeys(("mamba_d_head", "mamba_headdim", "mamba_head_dim"), 8),
    **dict.fromkeys(("mamba_chunk_size", "chunk_size"), 16),
    **dict.fromkeys(("linear_key_head_dim", "linear_value_head_dim"), 8),
    **dict.fromkeys(("linear_num_key_heads", "linear_num_value_heads"), 2),
    # All the rest.
    **dict.fromkeys(("vocab_size", "vocab_size_per_layer_input"), D_VOCAB),
    **dict.fromkeys(("attention_dropout", "hidden_dropout", "dropout", "resid_pdrop"), 0.0),
    **dict.fromkeys(("embd_pdrop", "attn_pdrop", "activation_dropout", "layerdrop"), 0.0),
    **dict.fromkeys(("resid_dropout", "embed_dropout", "attention_probs_dropout_prob"), 0.0),
    **dict.fromkeys(("hidden_dropout_prob", "embedding_dropout", "residual_dropout"), 0.0),
    **dict.fromkeys(("use_mamba_kernels", "use_kernels"), False),
    "tie_word_embeddings": False,
    "is_decoder": True,
}
"""The small size of everything, under the names that configurations have for it."""


@dataclass(frozen=True)
class Architecture:
    """A tiny model: transformers' name of its type, and the options that are not its defaults."""

    name: str
    model_type: str
    options: Mapping[str, Any] = field(default_factory=dict)
    note: str = ""


def config_of(architecture: Architecture, tokenizer: Any) -> Any:
    """The configuration of a tiny model."""
    from transformers import CONFIG_MAPPING

    kind = CONFIG_MAPPING[architecture.model_type]
    known = set(kind().to_dict()) | set(inspect.signature(kind.__init__).parameters)
    sizes = {name: size for name, size in SIZES.items() if name in known}
    ids = {f"{name}_token_id": getattr(tokenizer, f"{name}_token_id") for name in IDS}
    return kind(**(sizes | ids | dict(architecture.options)))


IDS = ("bos", "eos", "pad")


def build(architecture: Architecture, tokenizer: Any, seed: int = 0) -> Any:
    """The model in transformers' own class, in float32, the same for the same seed."""
    from transformers import AutoModelForCausalLM

    config = config_of(architecture, tokenizer)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(config).float().eval()
        spread(model)
    return model


def write_folder(architecture: Architecture, folder: Path) -> Path:
    """A Hugging Face folder with the model and its tokenizer."""
    from tiny_models import build_tokenizer

    tokenizer = build_tokenizer("llama")
    build(architecture, tokenizer).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def spread(model: Any) -> None:
    """Matrices drawn so wide that every token matters; biases and gains that are not 0 and 1."""
    for module in model.modules():
        for name, weight in module.named_parameters(recurse=False):
            weight.data = _drawn(module, name, weight.data)


def _drawn(module: Any, name: str, weight: torch.Tensor) -> torch.Tensor:
    if weight.ndim == 1:
        return weight + 0.1 * torch.randn_like(weight)
    if isinstance(module, torch.nn.Embedding):
        return 0.5 * torch.randn_like(weight)
    # Convolutions, states' decays and the like are as their class begins them.
    if name not in MATRICES or weight.ndim > 3 or isinstance(module, torch.nn.Conv1d):
        return weight
    return 0.25 * torch.randn_like(weight)


MATRICES = ("weight", "gate_up_proj", "down_proj", "gate_proj", "up_proj", "input_linear")


def _variants(model_type: str, **named: Mapping[str, Any]) -> list[Architecture]:
    """The plain model first, then one for each set of options, named after what is special."""
    others = [
        Architecture(f"{model_type}, {name.replace('_', ' ')}", model_type, options)
        for name, options in named.items()
    ]
    return [Architecture(model_type, model_type), *others]


def _rope(kind: str, **options: Any) -> dict[str, Any]:
    return {"rope_parameters": {"rope_type": kind, "rope_theta": 10000.0, **options}}


SCALED = {
    "linear_RoPE": _rope("linear", factor=4.0),
    # The plain model up to its last position. Beyond it transformers' own logits depend on the
    # longest text that the model has seen so far, so there is nothing to compare with.
    "dynamic_RoPE": _rope("dynamic", factor=4.0),
    "yarn_RoPE": _rope("yarn", factor=4.0, original_max_position_embeddings=32),
    "llama3_RoPE": _rope(
        "llama3",
        factor=8.0,
        low_freq_factor=1.0,
        high_freq_factor=4.0,
        original_max_position_embeddings=32,
    ),
}
LONGROPE = _rope(
    "longrope",
    short_factor=[1.0, 1.5, 2.0, 2.5],
    long_factor=[2.0, 4.0, 6.0, 8.0],
    original_max_position_embeddings=64,
    partial_rotary_factor=1.0,
)
LOCAL_AND_LINEAR = {
    "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0},
    "full_attention": {"rope_type": "linear", "rope_theta": 1e6, "factor": 8.0},
}
"""As Gemma 3 has it from 4 B parameters on."""

FULL_HEADS = {"num_key_value_heads": 4}
LATENT = FULL_HEADS | {"head_dim": 8}
LATENT_YARN = _rope(
    "yarn", factor=4.0, mscale=1.0, mscale_all_dim=1.0, original_max_position_embeddings=32
)


def _one(model_type: str, **options: Any) -> list[Architecture]:
    return [Architecture(model_type, model_type, options)]


def _plain(names: str) -> list[Architecture]:
    return [each for name in names.split() for each in _one(name)]


ZOO: list[Architecture] = [
    *_variants(
        "llama",
        **SCALED,
        MLP_biases={"mlp_bias": True},
        attention_biases={"attention_bias": True},
        wider_heads={"head_dim": 16},
        tied={"tie_word_embeddings": True},
        GELU={"hidden_act": "gelu"},
    ),
    *_variants(
        "gpt2",
        unscaled_attention={"scale_attn_weights": False},
        wider_MLP={"n_inner": 96},
        scaled_by_layer={"scale_attn_by_inverse_layer_idx": True},
        reordered_attention={"reorder_and_upcast_attn": True},
        tied={"tie_word_embeddings": True},
        ReLU={"activation_function": "relu"},
    ),
    *_variants(
        "gpt_neox",
        linear_RoPE=_rope("linear", factor=4.0, partial_rotary_factor=0.5),
        sequential={"use_parallel_residual": False},
        without_biases={"attention_bias": False},
        wider_MLP={"intermediate_size": 96},
    ),
    *_variants(
        "qwen2", sliding_window={"use_sliding_window": True, "max_window_layers": 1}, **SCALED
    ),
    *_variants(
        "qwen3",
        sliding_window={"use_sliding_window": True, "max_window_layers": 1},
        **SCALED,
        attention_biases={"attention_bias": True},
    ),
    *_variants("mistral", whole_attention={"sliding_window": None}),
    *_variants("mixtral", sliding_window={"sliding_window": 6}),
    *_variants("gemma", tied={"tie_word_embeddings": True}),
    *_variants(
        "gemma2",
        tied={"tie_word_embeddings": True},
        without_soft_caps={"attn_logit_softcapping": None, "final_logit_softcapping": None},
        other_scale={"query_pre_attn_scalar": 16},
    ),
    *_variants(
        "gemma3_text",
        tied={"tie_word_embeddings": True},
        linear_RoPE={"rope_parameters": LOCAL_AND_LINEAR},
        other_scale={"query_pre_attn_scalar": 16},
    ),
    *_variants(
        "phi",
        linear_RoPE=_rope("linear", factor=4.0, partial_rotary_factor=0.5),
        normed_heads={"qk_layernorm": True},
    ),
    *_variants("phi3", longrope=LONGROPE, whole_attention={"sliding_window": None}),
    *_variants(
        "falcon",
        ALiBi={"alibi": True},
        new_decoder={"new_decoder_architecture": True},
        sequential={"parallel_attn": False, "bias": True},
        one_head_of_keys={"multi_query": True},
    ),
    *_variants("bloom", post_layernorm={"apply_residual_connection_post_layernorm": True}),
    *_variants(
        "mpt",
        clipped={"attn_config": {"clip_qkv": 0.5}},
        unscaled_attention={"attn_config": {"softmax_scale": 1.0}},
    ),
    *_variants(
        "opt",
        shape_of_350m={"word_embed_proj_dim": 16, "do_layer_norm_before": False},
        without_biases={"enable_bias": False},
        GELU={"activation_function": "gelu"},
        tied={"tie_word_embeddings": True},
        plain_norms={"layer_norm_elementwise_affine": False},
    ),
    *_one("gptj", rotary_dim=4),
    *_one("gpt_neo", attention_types=[[["global", "local", "global"], 1]]),
    Architecture(
        "gpt_neo, wider MLP",
        "gpt_neo",
        {"attention_types": [[["global"], 3]], "intermediate_size": 96},
    ),
    *_one("codegen", rotary_dim=4, n_head=4),
    *_variants("gpt_bigcode", several_keys={"multi_query": False}),
    *_variants(
        "starcoder2", without_biases={"use_bias": False}, whole_attention={"sliding_window": None}
    ),
    *_variants(
        "stablelm",
        parallel={"use_parallel_residual": True},
        normed_heads={"qk_layernorm": True, "use_qkv_bias": True},
    ),
    *_variants("olmo", clipped={"clip_qkv": 0.5}),
    *_plain("olmo2 olmo3 olmoe flex_olmo"),
    *_one("olmo_hybrid", num_hidden_layers=4),
    *_one("cohere", logit_scale=1.0),
    Architecture("cohere, normed heads", "cohere", {"logit_scale": 1.0, "use_qk_norm": True}),
    *_one("cohere2", logit_scale=1.0, num_hidden_layers=4),
    *_one("cohere2_moe", logit_scale=1.0),
    *_one("deepseek_v2", **LATENT),
    *_one("deepseek_v3", **LATENT),
    Architecture("deepseek_v3, yarn RoPE", "deepseek_v3", LATENT | LATENT_YARN),
    Architecture("deepseek_v2, whole queries", "deepseek_v2", LATENT | {"q_lora_rank": None}),
    Architecture("deepseek_v3, dense", "deepseek_v3", LATENT | {"first_k_dense_replace": 3}),
    *_one("deepseek_v32", **LATENT, index_head_dim=16, index_n_heads=4),
    *_plain("deepseek_v4"),
    *_variants(
        "granite",
        multipliers={
            "embedding_multiplier": 3.0,
            "residual_multiplier": 0.5,
            "attention_multiplier": 0.2,
            "logits_scaling": 2.0,
        },
    ),
    *_plain("granitemoe granitemoeshared granite_swa granitemoe_swa"),
    *_one("granitemoehybrid", layer_types=["mamba", "attention", "mamba"]),
    *_plain("mamba falcon_mamba"),
    *_one("mamba2", num_heads=8, head_dim=8, n_groups=2),
    *_one("jamba", num_hidden_layers=4, attn_layer_period=2, attn_layer_offset=1),
    *_one("bamba", attn_layer_indices=[1]),
    *_one(
        "zamba",
        num_hidden_layers=4,
        attn_layer_period=2,
        attn_layer_offset=1,
        attention_hidden_size=64,
        attention_head_dim=16,
        num_key_value_heads=4,
        mamba_dt_rank=4,
        n_mamba_heads=2,
    ),
    *_one(
        "zamba2",
        num_hidden_layers=4,
        num_key_value_heads=4,
        attention_head_dim=16,
        attention_hidden_size=64,
        layers_block_type=["mamba", "hybrid", "mamba", "hybrid"],
    ),
    *_one("falcon_h1", mamba_d_ssm=64, mamba_n_heads=8, mamba_d_head=8),
    *_one("nemotron_h", num_hidden_layers=4),
    *_plain("rwkv recurrent_gemma"),
    *_variants("qwen2_moe", dense_in_turn={"decoder_sparse_step": 2}),
    *_variants("qwen3_moe", normed_choice={"norm_topk_prob": True}),
    *_one("qwen3_next", num_hidden_layers=4),
    *_one("qwen3_5_text", num_hidden_layers=4),
    *_one("qwen3_5_moe_text", num_hidden_layers=4),
    *_one("smollm3", num_hidden_layers=4),
    *_plain("ernie4_5 ernie4_5_moe glm glm4 glm4_moe"),
    *_one("glm4_moe_lite", **LATENT),
    *_one("glm_moe_dsa", **LATENT, index_head_dim=16, index_n_heads=4),
    *_one("exaone4", num_hidden_layers=4),
    *_plain("exaone_moe nemotron helium persimmon biogpt xglm gpt_oss"),
    *_plain("minimax minimax_m2 diffllama seed_oss hunyuan_v1_dense hunyuan_v1_moe dots1 bitnet"),
    *_plain("arcee apertus afmoe lfm2"),
    *_one("lfm2_moe", layer_types=["conv", "full_attention", "conv"]),
    *_plain("llama4_text ministral ministral3 nanochat phimoe vaultgemma"),
    *_one("youtu", **LATENT),
    *_one("minicpm3", **LATENT),
    *_plain("modernbert-decoder jetmoe jais2 laguna hrm_text openai-gpt ctrl cwm doge"),
    *_plain("gpt_neox_japanese internlm3 gemma4_text aria_text solar_open hyperclovax"),
    *_plain("beam flint hy_v3 iquestcoder lfm3 mellum mimo_v2_flash minimax_m3_vl_text kolibri1"),
    *_plain("gemma4_unified_text"),
    *_one("gemma3n_text", num_kv_shared_layers=0, hidden_size_per_layer_input=8, laurel_rank=8),
    *_one("axk1", **LATENT),
    *_one("axk2", **LATENT, index_head_dim=16, index_n_heads=4),
    *_one("hy_v4", **LATENT, index_head_dim=16, index_n_heads=4),
    *_one(
        "longcat_flash", **LATENT, ffn_hidden_size=64, zero_expert_num=2, expert_ffn_hidden_size=32
    ),
    *_one("bailing_hybrid", num_hidden_layers=4, layer_group_size=2, num_key_value_heads=4),
    *_one(
        "kimi_linear",
        **LATENT,
        linear_head_dim=8,
        linear_num_heads=2,
        layer_types=["linear_attention", "full_attention", "linear_attention"],
    ),
    *_one(
        "dbrx",
        attn_config={"kv_n_heads": 2, "clip_qkv": 0.5, "rope_theta": 10000.0},
        ffn_config={"ffn_hidden_size": 32, "moe_num_experts": 4, "moe_top_k": 2},
    ),
    *_one("inkling2_text", swa_num_attention_heads=4, swa_num_key_value_heads=2, swa_head_dim=8),
    *_one("zaya", num_experts_per_tok=1),
]
"""Every architecture that is tried, families together."""

LEFT_OUT = {
    "masked language models and encoders": (
        "bert bert-generation big_bird camembert data2vec-text electra ernie megatron-bert rembert "
        "roberta roberta-prelayernorm roc_bert roformer xlm-roberta xlm-roberta-xl xmod"
    ),
    "decoders of models that translate or transcribe": (
        "bart bigbird_pegasus blenderbot blenderbot-small marian mbart moss_transcribe_diarize mvp "
        "pegasus plbart prophetnet trocr whisper"
    ),
    "images or sound beside text": (
        "dots3_note emu3 fuyu gemma3 gemma3n gemma4 gemma4_assistant gemma4_unified "
        "gemma4_unified_assistant git got_ocr2 llama4 mllama moshi musicgen musicgen_melody "
        "phi4_multimodal qwen3_5 qwen3_5_moe qwen4_exp"
    ),
    "GPT-2 under another name": "gpt-sw3",
    "no next token, or no tokens": "blt cohere_compass_text cpmant reformer xlm xlnet",
    "not built at this size": "dots3_note_text inkling_text qwen4_exp_text xlstm",
}
"""What `AutoModelForCausalLM` knows and is not tried, by reason."""
