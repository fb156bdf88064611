"""Models that nobody here chose: whatever `load` gives computes what transformers does.

Each is a tiny random model of one of transformers' classes. What TransformerLens holds differs from
version to version, so the law is: a model that loads is right, and what is refused says why.
"""

import json
import re
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from architectures.zoo import ZOO, build, write_folder
from tiny_models import BACKENDS, build_tokenizer, greedy, response_rows

import steerlens as sl
from steerlens import fingerprints
from steerlens.fingerprints import of_transformers
from steerlens.generation import end_tokens
from steerlens.identity import context_length, fingerprint, identity_of, is_fingerprint_of, loaded
from steerlens.runtime.forward import logits, logits_from

NAMED = {architecture.name: architecture for architecture in ZOO}
PROMPTS = ["The dog ran", "I love you because you are kind and good to the cat", "What is it?"]
needs_hooked = pytest.mark.skipif("hooked" not in BACKENDS, reason="no HookedTransformer here")


@pytest.fixture(scope="session")
def folder_of(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The folder of an architecture's tiny model, by its name; written once."""
    root = tmp_path_factory.mktemp("architectures")

    @cache
    def written(name: str) -> Path:
        return write_folder(NAMED[name], root / name.replace(" ", "_").replace(",", ""))

    return written


def transformers_model(folder: Path, dtype: torch.dtype = torch.float32) -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder, dtype=dtype).eval()


def loaded_or_refused(folder: Path, **options: Any) -> tuple[Any, str]:
    """The model, or None and the sentence that refuses it."""
    try:
        return sl.load(folder, **options), ""
    except ValueError as error:
        return None, str(error)


@torch.no_grad()
def require_transformers_logits(model: Any, folder: Path) -> None:
    tokens, window = sl.batch(model, PROMPTS[1:2])
    expected = transformers_model(folder)(input_ids=tokens, use_cache=False).logits
    torch.testing.assert_close(logits(model, tokens, window), expected, rtol=1e-3, atol=1e-3)


# -- 1 and 2: the logits are those of transformers, on whichever backend has them ------------------

LEFT_OUT_BY_HOOKED = [
    "llama, linear RoPE",
    "llama, yarn RoPE",
    "llama, MLP biases",
    "llama, attention biases",
    "gpt_neox, linear RoPE",
    "qwen3, sliding window",
    "qwen2, linear RoPE",
    "bloom, post layernorm",
]
NOT_HELD_BY_HOOKED = [
    "llama, wider heads",
    "gpt2, wider MLP",
    "opt, shape of 350m",
    "opt, without biases",
    "gpt_neo, wider MLP",
]
LEFT_OUT_BY_THE_BRIDGE = ["gpt2, unscaled attention"]
WRONG_IN_SOME_VERSION = ["cohere", "cohere2", "deepseek_v3", "deepseek_v2", "hunyuan_v1_dense"]


@pytest.mark.parametrize(
    "name", [*LEFT_OUT_BY_HOOKED, *NOT_HELD_BY_HOOKED, "gpt_neox, wider MLP", "mamba", "mixtral"]
)
def test_auto_computes_what_transformers_does(name, folder_of):
    require_transformers_logits(sl.load(folder_of(name)), folder_of(name))


@pytest.mark.parametrize(
    ("name", "backend"), [(name, b) for name in LEFT_OUT_BY_HOOKED for b in BACKENDS]
)
def test_what_loads_is_right_and_what_is_refused_says_by_how_much(name, backend, folder_of):
    model, refusal = loaded_or_refused(folder_of(name), backend=backend)
    if model is None:
        assert backend == "hooked"
        assert "backend 'hooked': its logits differ from transformers' by" in refusal
        assert "verify=False" in refusal
    else:
        require_transformers_logits(model, folder_of(name))


@needs_hooked
@pytest.mark.parametrize("name", NOT_HELD_BY_HOOKED)
def test_a_backend_that_cannot_hold_a_model_says_so_in_one_sentence(name, folder_of):
    with pytest.raises(ValueError, match=r"cannot be loaded rightly here\. backend 'hooked': "):
        sl.load(folder_of(name), backend="hooked")


@pytest.mark.parametrize("name", LEFT_OUT_BY_THE_BRIDGE)
def test_where_the_bridge_is_wrong_auto_takes_the_other_or_refuses(name, folder_of):
    with pytest.raises(ValueError, match="backend 'bridge': its logits differ"):
        sl.load(folder_of(name), backend="bridge")
    if "hooked" not in BACKENDS:
        return
    model = sl.load(folder_of(name))
    assert loaded(model).backend == "hooked"
    require_transformers_logits(model, folder_of(name))


@pytest.mark.parametrize("name", WRONG_IN_SOME_VERSION)
def test_what_no_backend_computes_rightly_is_refused(name, folder_of):
    model, refusal = loaded_or_refused(folder_of(name))
    if model is None:
        assert "differ from transformers' by" in refusal
    else:
        require_transformers_logits(model, folder_of(name))


@pytest.mark.parametrize("name", ["openai-gpt", "hrm_text", "deepseek_v4"])
def test_a_model_whose_blocks_meet_no_hook_is_refused(name, folder_of):
    model, refusal = loaded_or_refused(folder_of(name), backend="bridge")
    assert model is None
    assert "its passes never meet" in refusal or "has no bridge for" in refusal


@pytest.mark.parametrize("name", ["ctrl", "biogpt", "xglm"])
def test_an_architecture_that_is_not_known_is_named(name, folder_of):
    model, refusal = loaded_or_refused(folder_of(name), backend="bridge")
    if model is None:
        assert f"has no bridge for {type(transformers_model(folder_of(name))).__name__}." in refusal
    else:
        require_transformers_logits(model, folder_of(name))


def test_an_error_without_words_says_where_it_was_raised(folder_of):
    model, refusal = loaded_or_refused(folder_of("gpt_neox, without biases"), backend="bridge")
    if model is None:
        assert re.search(r"AssertionError \(neox\.py, line \d+\): without a message", refusal)


def test_verify_false_loads_the_other_function(folder_of):
    folder = folder_of("gpt2, unscaled attention")
    model = sl.load(folder, backend="bridge", verify=False)
    with pytest.raises(AssertionError):
        require_transformers_logits(model, folder)


def test_weights_that_give_no_numbers_are_refused(folder_of, tmp_path):
    hf_model = transformers_model(folder_of("llama"))
    hf_model.lm_head.weight.data[3, 3] = float("nan")
    hf_model.save_pretrained(tmp_path)
    build_tokenizer("llama").save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="transformers itself gives logits that are not finite"):
        sl.load(tmp_path)
    assert loaded(sl.load(tmp_path, verify=False)).backend == "bridge"


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
@pytest.mark.parametrize("backend", BACKENDS)
def test_rounding_is_no_other_function(backend, dtype, folder_of):
    assert loaded(sl.load(folder_of("gpt_neox"), backend=backend, dtype=dtype)).pads


# -- 3: HookedTransformer reads its weights as they lie --------------------------------------------


@needs_hooked
@pytest.mark.parametrize("name", ["llama", "gpt2", "mixtral", "qwen3"])
def test_weights_lie_as_they_are_read_and_compute_the_same(name, folder_of, monkeypatch):
    model = sl.load(folder_of(name), backend="hooked")
    with monkeypatch.context() as patch:
        patch.setattr("steerlens.models.backends.lay_out_for_reading", lambda model: None)
        plain = sl.load(folder_of(name), backend="hooked")
    tokens, _ = sl.batch(model, PROMPTS[:1])
    # Some processors add up in another order where a matrix lies otherwise.
    torch.testing.assert_close(model(tokens), plain(tokens), rtol=1e-5, atol=1e-5)
    assert fingerprint(model) == fingerprint(plain)
    assert model.unembed.W_U.T.is_contiguous()
    for block in model.blocks:
        query = block.attn.W_Q.transpose(1, 2)
        assert query.is_contiguous()
        assert block.attn.W_O.permute(2, 0, 1).is_contiguous()
        inner = [w for n, w in block.mlp.named_parameters() if n.endswith(("W_in", "W_out"))]
        assert inner or name == "mixtral"  # whose experts are PyTorch's own linear layers
        assert all(weight.T.is_contiguous() for weight in inner)


# -- 4: identity ----------------------------------------------------------------------------------

WITHOUT_DENSE_BLOCKS = ["mixtral", "olmoe", "gpt_oss", "mamba", "jamba", "deepseek_v3", "rwkv"]


@pytest.mark.parametrize("name", WITHOUT_DENSE_BLOCKS)
@pytest.mark.parametrize("backend", BACKENDS)
def test_what_is_fitted_on_any_blocks_is_saved_and_loaded(name, backend, folder_of, tmp_path):
    model, refusal = loaded_or_refused(folder_of(name), backend=backend)
    if model is None:
        pytest.skip(refusal)
    fitted = sl.CAA.fit(model, (["good", "kind"], ["bad", "not kind"]), 1)
    path = fitted.steering.save(tmp_path / "caa.safetensors", model)
    assert sl.load_steering(path, model).origin.model == identity_of(model)


@needs_hooked
@pytest.mark.parametrize(
    "name", ["qwen3", "opt", "mistral", "mixtral", "llama", "gpt2", "bloom", "gpt_neox", "gptj"]
)
def test_one_folder_is_one_model_on_both_backends(name, folder_of):
    here, there = (sl.load(folder_of(name), backend=backend) for backend in BACKENDS)
    assert identity_of(here) == identity_of(there)


def test_the_fingerprint_is_the_same_with_every_transformer_lens(tmp_path):
    """The number was written down once; both versions' tests compare theirs with it."""
    hf_model = transformers_model(write_folder(NAMED["qwen3"], tmp_path / "random"))
    for number, weight in enumerate(hf_model.parameters()):
        weight.data = torch.linspace(-1, 1 + number, weight.numel()).reshape(weight.shape)
    hf_model.save_pretrained(tmp_path)
    build_tokenizer("llama").save_pretrained(tmp_path)
    for backend in BACKENDS:
        model = sl.load(tmp_path, backend=backend, verify=False)
        assert fingerprint(model) == "829d98126ace3e339406208416b916ec"


@pytest.mark.parametrize("name", ["llama", "gpt2", "mixtral", "mpt"])
def test_a_bridge_that_somebody_made_has_the_same_fingerprint(name, folder_of, monkeypatch):
    model = sl.load(folder_of(name), backend="bridge")
    known = fingerprint(model)
    monkeypatch.setattr("steerlens.identity._LOADED", {})
    assert loaded(model) is None
    assert fingerprint(model) == known == of_transformers(transformers_model(folder_of(name)))


@pytest.mark.parametrize("backend", BACKENDS)
def test_weights_that_were_changed_after_loading_are_another_model(backend, folder_of):
    model = sl.load(folder_of("llama"), backend=backend)
    before = fingerprint(model)
    model.W_E.data[3] += 1.0
    assert fingerprint(model) != before


def test_files_of_the_first_version_are_known_where_its_context_was_another(folder_of):
    """It said 2048 for Qwen3 on HookedTransformer, and left out two rows of OPT's positions."""
    model = sl.load(folder_of("qwen3"), backend="bridge")
    cfg = model.cfg
    sums = [fingerprints._bit_sum(weight) for weight in (model.W_E, model.W_U)]
    for block in model.blocks:
        sums.append(sum(map(fingerprints._bit_sum, fingerprints._released_matrices(block))))
    old = fingerprints._digest([cfg.n_layers, cfg.d_model, cfg.n_heads, cfg.d_vocab, 2048], sums)
    assert old != fingerprint(model)
    assert is_fingerprint_of(model, old)
    assert not is_fingerprint_of(model, "0" * 32)


# -- 5: context -----------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", ["qwen3", "mistral", "llama"])
@pytest.mark.parametrize("positions", [64, 4096])
def test_the_models_own_configuration_says_how_many_tokens_it_holds(
    name, backend, positions, folder_of, tmp_path
):
    options = {"sliding_window": None} if name == "mistral" else {}
    folder = resized(folder_of(name), tmp_path, {"max_position_embeddings": positions, **options})
    model = sl.load(folder, backend=backend)
    sl.generate(model, [" dog" * (positions - 40)], max_new_tokens=2)
    with pytest.raises(ValueError, match=f"this model's context holds {positions}"):
        sl.encode(model, " dog" * (positions + 36))


def resized(folder: Path, to: Path, options: dict[str, Any]) -> Path:
    """The same weights with other options in config.json."""
    config = json.loads((folder / "config.json").read_text())
    transformers_model(folder).save_pretrained(to)
    build_tokenizer("llama").save_pretrained(to)
    (to / "config.json").write_text(json.dumps(config | options))
    return to


@pytest.mark.parametrize(("name", "holds"), [("mpt", 128), ("mamba", None), ("bloom", None)])
def test_what_says_its_length_in_another_word_or_not_at_all(name, holds, folder_of):
    model = sl.load(folder_of(name), backend="bridge")
    assert context_length(model) == holds
    if holds is None:
        assert sl.encode(model, " dog" * 3000).response >= 3000


# -- 6: blocks that return more than the residual -------------------------------------------------


@pytest.mark.parametrize(
    "name", ["gptj", "gpt_neo", "codegen", "mpt", "bloom", "falcon", "jamba", "rwkv", "llama"]
)
def test_a_pass_can_enter_at_every_layer(name, folder_of):
    model = sl.load(folder_of(name), backend="bridge")
    tokens, window = sl.batch(model, PROMPTS[:2], side="right")
    whole: dict[int, torch.Tensor] = {}
    names = [f"blocks.{layer}.hook_resid_post" for layer in range(model.cfg.n_layers)]

    def keep(activation: torch.Tensor, hook: Any = None, layer: int = 0) -> None:
        whole[layer] = activation

    with (
        torch.no_grad(),
        model.hooks(
            fwd_hooks=[(n, lambda a, hook=None, i=i: keep(a, hook, i)) for i, n in enumerate(names)]
        ),
    ):
        expected = logits(model, tokens, window)
    for layer in range(1, model.cfg.n_layers + 1):
        with torch.no_grad():
            entered = logits_from(model, whole[layer - 1], layer, tokens, window)
        real = window.mask
        torch.testing.assert_close(entered[real], expected[real], rtol=1e-4, atol=1e-4)


@pytest.mark.filterwarnings("ignore::steerlens.SteeringWarning")
@pytest.mark.parametrize("name", ["gptj", "gpt_neo", "codegen", "mpt", "falcon"])
def test_methods_above_the_embedding_are_fitted_there(name, folder_of):
    model = sl.load(folder_of(name), backend="bridge")
    pairs = [sl.PromptPair("The dog ran", "Be kind. The dog ran", " to the house, and")] * 2
    schedule = sl.Schedule(epochs=2, batch_size=1, learning_rate=0.01)
    assert sl.PSR.fit(model, pairs, [1], schedule=schedule).steering.sites == (sl.Site(1),)
    assert sl.LoReFT.fit(
        model, pairs, [1], rank=2, validation=pairs, schedule=schedule
    ).steering.sites == (sl.Site(1),)


# -- 7: no key-value cache, no mask ---------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["mamba", "falcon_mamba", "rwkv", "recurrent_gemma", "jamba", "mpt"]
)
def test_models_without_a_key_value_cache_write_what_transformers_writes(name, folder_of):
    model = sl.load(folder_of(name), backend="bridge")
    together, _ = greedy(model, PROMPTS)
    plain = transformers_model(folder_of(name))
    for prompt, row in zip(PROMPTS, response_rows(together), strict=True):
        ids = torch.tensor([sl.encode(model, prompt).ids])
        for token in row:
            with torch.no_grad():
                scores = plain(input_ids=ids, use_cache=False).logits[0, -1]
            top = scores.topk(2).values
            if top[0] - top[1] > 1e-4:
                assert token == int(scores.argmax())
            ids = torch.cat([ids, torch.tensor([[token]])], dim=1)


@pytest.mark.parametrize("name", ["rwkv", "recurrent_gemma"])
def test_rows_of_models_that_read_padding_are_run_as_they_are_alone(name, folder_of):
    model = sl.load(folder_of(name), backend="bridge")
    assert not loaded(model).pads
    together = sl.capture(model, PROMPTS, 1)
    alone = torch.cat([sl.capture(model, [prompt], 1).at(1) for prompt in PROMPTS])
    torch.testing.assert_close(together.at(1), alone, rtol=1e-4, atol=1e-4)
    tokens, window = sl.batch(model, PROMPTS)
    with pytest.raises(ValueError, match=r"This model reads padding: .* side='right'"):
        logits(model, tokens, window)
    tokens, window = sl.batch(model, PROMPTS, side="right")
    assert bool(torch.isfinite(logits(model, tokens, window)[window.mask]).all())


@pytest.mark.parametrize("name", ["mamba", "llama", "lfm2"])
def test_models_that_leave_padding_out_are_padded(name, folder_of):
    assert loaded(sl.load(folder_of(name), backend="bridge")).pads


# -- 8: models of one's own -----------------------------------------------------------------------


def with_ends(folder: Path, to: Path, ends: list[int]) -> Path:
    hf_model = transformers_model(folder)
    hf_model.generation_config.eos_token_id = ends
    hf_model.save_pretrained(to)
    build_tokenizer("llama").save_pretrained(to)
    return to


def test_every_end_token_of_a_bridge_that_somebody_made_ends_its_text(folder_of, tmp_path):
    first = int(greedy(sl.load(folder_of("llama")), PROMPTS[:1])[0].response_ids(0)[0])
    folder = with_ends(folder_of("llama"), tmp_path, [2, first])
    model = own_bridge(folder)
    assert end_tokens(model) == {2, first, model.tokenizer.eos_token_id}
    written = sl.generate(model, PROMPTS[:1], temperature=0.0, max_new_tokens=12)
    assert written.response_ids(0) == (first,)


def own_bridge(folder: Path) -> Any:
    from transformer_lens.model_bridge import TransformerBridge
    from transformers import AutoTokenizer

    return TransformerBridge.boot_transformers(
        str(folder),
        hf_model=transformers_model(folder),
        tokenizer=AutoTokenizer.from_pretrained(folder),
    )


@needs_hooked
def test_every_end_token_of_a_hooked_transformer_that_somebody_made(folder_of, tmp_path):
    folder = with_ends(folder_of("llama"), tmp_path, [2, 7])
    model = sl.load(folder, backend="hooked")
    own = type(model)(model.cfg, tokenizer=model.tokenizer)
    assert loaded(own) is None
    assert {2, 7} <= end_tokens(own)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_model_that_is_in_memory_is_loaded(backend, folder_of):
    from transformers import AutoTokenizer

    folder = folder_of("gpt_neox")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    hf_model = transformers_model(folder, torch.bfloat16)
    model = sl.load(hf_model=hf_model, tokenizer=tokenizer, backend=backend)
    assert loaded(model).backend == backend
    assert next(model.parameters()).dtype == torch.bfloat16
    assert fingerprint(model) == fingerprint(sl.load(folder, dtype="bfloat16"))
    assert len(sl.generate(model, PROMPTS, max_new_tokens=3).texts) == 3


def test_what_else_is_given_beside_a_model_in_memory(folder_of):
    folder = folder_of("llama")
    hf_model, tokenizer = transformers_model(folder), build_tokenizer("llama")
    with pytest.raises(ValueError, match="hf_model needs its tokenizer"):
        sl.load(hf_model=hf_model)
    with pytest.raises(ValueError, match=r"in torch\.float32, and torch\.bfloat16 was asked for"):
        sl.load(hf_model=hf_model, tokenizer=tokenizer, dtype="bfloat16")
    with pytest.raises(ValueError, match="device_map comes too late"):
        sl.load(hf_model=hf_model, tokenizer=tokenizer, device_map="auto")
    with pytest.raises(ValueError, match="Give hf_model or a name, not both"):
        sl.load(folder, hf_model=hf_model, tokenizer=tokenizer)
    with pytest.raises(ValueError, match="hf_model is a LlamaModel"):
        sl.load(hf_model=hf_model.model, tokenizer=tokenizer)
    with pytest.raises(TypeError, match="tokenizer is a tokenizer of transformers"):
        sl.load(hf_model=hf_model, tokenizer=str(folder))
    with pytest.raises(TypeError, match="tokenizer is a tokenizer of transformers"):
        sl.load(folder, tokenizer=str(folder))
    with pytest.raises(TypeError, match="hf_model is a model of transformers"):
        sl.load(hf_model=str(folder), tokenizer=tokenizer)
    bridge = sl.load(hf_model=hf_model, tokenizer=tokenizer, backend="bridge")
    with pytest.raises(ValueError, match="inside a TransformerBridge already"):
        sl.load(hf_model=bridge.original_model, tokenizer=tokenizer)


@needs_hooked
@pytest.mark.parametrize("name", ["llama", "gpt2", "qwen3"])
def test_a_model_in_memory_that_was_never_in_a_folder_becomes_a_hooked_transformer(name):
    tokenizer = build_tokenizer("llama")
    hf_model = build(NAMED[name], tokenizer)
    model = sl.load(hf_model=hf_model, tokenizer=tokenizer, backend="hooked")
    tokens, window = sl.batch(model, PROMPTS[:1])
    with torch.no_grad():
        expected = hf_model(input_ids=tokens).logits
        torch.testing.assert_close(logits(model, tokens, window), expected, rtol=1e-3, atol=1e-3)


@needs_hooked
def test_a_model_in_memory_goes_to_the_other_backend_where_the_bridge_is_wrong(folder_of):
    folder = folder_of("gpt2, unscaled attention")
    model = sl.load(hf_model=transformers_model(folder), tokenizer=build_tokenizer("llama"))
    assert loaded(model).backend == "hooked"
    require_transformers_logits(model, folder)


@pytest.mark.parametrize(
    ("dtype", "meant"),
    [
        ("bfloat16", torch.bfloat16),
        ("torch.float16", torch.float16),
        ("auto", torch.float32),
        (torch.float64, torch.float64),
        (None, torch.float32),
    ],
)
def test_a_dtype_can_be_named(dtype, meant, folder_of):
    assert next(sl.load(folder_of("llama"), dtype=dtype).parameters()).dtype == meant


@pytest.mark.parametrize("dtype", ["float8_e4m3fn", "int64", "bf16", torch.int32])
def test_a_dtype_that_is_none_is_refused_before_anything_is_read(dtype, folder_of, monkeypatch):
    monkeypatch.setattr("steerlens.models.weights._read", None)
    with pytest.raises(ValueError, match=r"Unknown dtype .* Use 'float32'"):
        sl.load(folder_of("llama"), dtype=dtype)


def test_a_device_map_is_for_bridges(folder_of):
    folder = folder_of("llama")
    model = sl.load(folder, device_map="cpu")
    assert loaded(model).backend == "bridge"
    require_transformers_logits(model, folder)
    with pytest.raises(ValueError, match="device or device_map, not both"):
        sl.load(folder, device_map="cpu", device="cpu")
    with pytest.raises(ValueError, match="device_map needs a bridge"):
        sl.load(folder, device_map="cpu", backend="hooked")


def test_a_folder_with_vocab_and_merges_has_a_tokenizer(folder_of, tmp_path):
    folder = resized(folder_of("gpt2"), tmp_path / "model", {})
    words = json.loads((folder / "tokenizer.json").read_text())["model"]
    merges = [" ".join(m) if isinstance(m, list) else m for m in words["merges"]]
    vocabulary = words["vocab"] | {"<|endoftext|>": len(words["vocab"])}
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(merges) + "\n")
    (folder / "tokenizer.json").unlink()
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "GPT2Tokenizer", "eos_token": "<|endoftext|>"})
    )
    assert sl.encode(sl.load(folder), "The dog").ids
    (folder / "merges.txt").unlink()
    with pytest.raises(ValueError, match=r"nor vocab\.json and merges\.txt"):
        sl.load(folder)
    assert sl.load(folder, tokenizer=build_tokenizer("llama")).tokenizer is not None


@pytest.mark.parametrize(
    ("file", "text", "said"),
    [
        ("adapter_config.json", "{}", "holds an adapter"),
        ("model.Q4_1.gguf", "GGUF", "damaged or cut off"),
        ("notes.txt", "", "no Hugging Face model folder"),
    ],
)
def test_other_kinds_of_folders_are_named(file, text, said, tmp_path):
    (tmp_path / file).write_text(text)
    with pytest.raises(ValueError, match=said):
        sl.load(tmp_path)


def test_an_encoder_and_decoder_is_refused(folder_of, tmp_path):
    options = {"is_encoder_decoder": True, "model_type": "t5"}
    with pytest.raises(ValueError, match=r"an encoder and a decoder \(t5\)"):
        sl.load(resized(folder_of("llama"), tmp_path, options))


@pytest.mark.parametrize("name", ["pytorch_model.bin", "weights.pt", "consolidated.00.pth"])
def test_pickled_weights_come_with_the_line_that_converts_them(name, folder_of, tmp_path):
    folder = resized(folder_of("llama"), tmp_path, {})
    (folder / "model.safetensors").rename(folder / name)
    with pytest.raises(ValueError, match=rf"as pickle \({name}\).*save_pretrained"):
        sl.load(folder)


@pytest.mark.parametrize(
    ("quantised", "package"),
    [
        ({"quant_method": "gptq", "bits": 4}, "gptqmodel"),
        ({"quant_method": "awq", "bits": 4}, "gptqmodel"),
        ({"load_in_4bit": True}, "bitsandbytes"),
        ({"quant_method": "bitsandbytes", "load_in_8bit": True}, "bitsandbytes"),
    ],
)
def test_quantised_weights_without_their_package_are_refused_with_its_name(
    quantised, package, folder_of, tmp_path, monkeypatch
):
    from safetensors.torch import load_file, save_file

    folder = resized(folder_of("llama"), tmp_path, {"quantization_config": quantised})
    weights = load_file(folder / "model.safetensors")
    packed = {name: value.to(torch.uint8) for name, value in weights.items() if value.ndim == 2}
    save_file(weights | packed, folder / "model.safetensors", {"format": "pt"})
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ValueError, match=f"are quantised .*pip install {package}"):
        sl.load(folder)


# -- 19: float64 and padding ----------------------------------------------------------------------


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", ["llama", "qwen3", "gpt2", "mistral"])
def test_padded_rows_in_float64_are_those_of_single_rows(name, backend, folder_of):
    model = sl.load(folder_of(name), backend=backend, dtype="float64")
    tokens, window = sl.batch(model, PROMPTS)
    with torch.no_grad():
        together = logits(model, tokens, window)
        for row, prompt in enumerate(PROMPTS):
            own, of_it = sl.batch(model, [prompt])
            alone = logits(model, own, of_it)[0]
            torch.testing.assert_close(together[row, window.mask[row]], alone, rtol=1e-5, atol=1e-5)
        own = model(tokens, attention_mask=window.mask.long())[window.mask]
    assert bool(torch.isfinite(own).all())
    written, _ = greedy(model, PROMPTS)
    single = [response_rows(greedy(model, [prompt])[0])[0] for prompt in PROMPTS]
    assert response_rows(written) == single
