"""Features of sparse autoencoders: one row, its site, and its activation as SAELens computes it.

Each family's folder is written here in its layout. What an autoencoder does is computed a second
time, whole and step by step, as its authors' code does, and compared.
"""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from tiny_models import D_MODEL

import steerlens as sl
from steerlens.interchange.sae import SAEGate
from steerlens.interchange.sae_files import sae_folder

D, S, I = D_MODEL, 48, 5
H = 2 * torch.randn(2, 9, D, generator=torch.Generator().manual_seed(3))


@dataclass
class SAE:
    """Weights, and the whole forward pass: activations [..., S] and the reconstruction."""

    seed: int = 0
    weights: dict[str, torch.Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        g = torch.Generator().manual_seed(self.seed)
        shapes = {"W_enc": (D, S), "W_dec": (S, D), "b_enc": (S,), "b_dec": (D,)}
        self.weights = {name: torch.randn(*n, generator=g) for name, n in shapes.items()}

    def encoded(self, x: torch.Tensor, centred: bool = False) -> torch.Tensor:
        w = self.weights
        return (x - centred * w["b_dec"]) @ w["W_enc"] + w["b_enc"]


def jump(before: torch.Tensor, threshold: Any) -> torch.Tensor:
    return torch.where(before > threshold, before.relu(), 0.0)


def saelens(
    folder: Path, sae: SAE, *, extra: dict[str, torch.Tensor] | None = None, **cfg: Any
) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    save_file({**sae.weights, **(extra or {})}, folder / "sae_weights.safetensors")
    about = {"d_in": D, "d_sae": S, "hook_name": "blocks.2.hook_resid_post", **cfg}
    (folder / "cfg.json").write_text(json.dumps(about), encoding="utf-8")
    return folder


def gemma_scope(folder: Path, sae: SAE, **extra: torch.Tensor) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    arrays = {name: value.numpy() for name, value in {**sae.weights, **extra}.items()}
    np.savez(folder / "params.npz", **arrays)
    return folder


def gemma_scope_2(folder: Path, sae: SAE, threshold: torch.Tensor, **config: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    weights = {name.lower(): value for name, value in sae.weights.items()}
    save_file({**weights, "threshold": threshold}, folder / "params.safetensors")
    if config:
        (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return folder


def llama_scope(folder: Path, sae: SAE, **about: Any) -> Path:
    (folder / "checkpoints").mkdir(parents=True, exist_ok=True)
    w = sae.weights
    names = {"encoder.weight": w["W_enc"].T, "decoder.weight": w["W_dec"].T}
    names |= {"encoder.bias": w["b_enc"], "decoder.bias": w["b_dec"]}
    contiguous = {name: value.contiguous() for name, value in names.items()}
    save_file(contiguous, folder / "checkpoints" / "final.safetensors")
    hook = "blocks.2.hook_resid_post"
    given = {"d_model": D, "d_sae": S, "hook_point_in": hook, "hook_point_out": hook}
    given |= {"act_fn": "jumprelu", "jump_relu_threshold": 0.25, "norm_activation": "dataset-wise"}
    given |= {"dataset_average_activation_norm": {"in": 4.0, "out": 4.0}, **about}
    (folder / "hyperparams.json").write_text(json.dumps(given), encoding="utf-8")
    return folder


THRESHOLD = 0.5 + torch.rand(S, generator=torch.Generator().manual_seed(8))


def expected(name: str, sae: SAE) -> tuple[torch.Tensor, torch.Tensor]:
    """The feature's activations on H, and what one unit of it adds."""
    w, row = sae.weights, sae.weights["W_dec"][I]
    if name == "standard":
        return sae.encoded(H, centred=True).relu()[..., I], row
    if name == "not centred, v6":
        return sae.encoded(H).relu()[..., I], row
    if name in ("jumprelu", "log_threshold"):
        return jump(sae.encoded(H, centred=True), THRESHOLD)[..., I], row
    if name == "gated":
        pre = (H - w["b_dec"]) @ w["W_enc"]
        size = (pre * GATED["r_mag"].exp() + GATED["b_mag"]).relu()
        return (size * (pre + GATED["b_gate"] > 0))[..., I], row
    if name == "scaled":
        scale = D**0.5 / 7.0
        return sae.encoded(scale * H, centred=True).relu()[..., I], row / scale
    if name == "finetuned":
        return sae.encoded(H, centred=True).relu()[..., I], row * FINETUNED[I]
    if name == "layer_norm":
        x = H - H.mean(dim=-1, keepdim=True)
        return sae.encoded(x / (x.std(dim=-1, keepdim=True) + 1e-5), True).relu()[..., I], row
    if name == "constant norm":
        x = H * D**0.5 / H.norm(dim=-1, keepdim=True)
        return sae.encoded(x, True).relu()[..., I], row
    if name in ("gemma scope", "gemma scope 2"):
        return jump(sae.encoded(H), THRESHOLD)[..., I], row
    if name == "gemma scope's embedding":
        return jump(sae.encoded(H / D**0.5), THRESHOLD)[..., I], row * D**0.5
    scale = D**0.5 / 4.0  # Llama Scope, as sae-lens folds it
    before = sae.encoded(scale * H)
    if name == "llama scope by norm":
        limit = 0.25 * scale / w["W_dec"].norm(dim=1)
        return jump(before, limit)[..., I], row / scale
    return jump(before, 0.25 * scale)[..., I], row / scale


GATED = {
    name: torch.randn(S, generator=torch.Generator().manual_seed(n))
    for n, name in enumerate(("b_gate", "r_mag", "b_mag"))
}
FINETUNED = 0.5 + torch.rand(S, generator=torch.Generator().manual_seed(9))
V6 = {"metadata": {"hook_name": "blocks.2.hook_resid_post", "model_name": "m"}, "hook_name": None}
SITE = sl.Site(2)
EACH: dict[str, Any] = {
    "standard": (lambda f, s: saelens(f / "sae", s), {}),
    "not centred, v6": (
        lambda f, s: saelens(
            f / "sae", s, apply_b_dec_to_input=False, architecture="standard", **V6
        ),
        {},
    ),
    "jumprelu": (
        lambda f, s: saelens(f / "sae", s, architecture="jumprelu", extra={"threshold": THRESHOLD}),
        {},
    ),
    "log_threshold": (
        lambda f, s: saelens(
            f / "sae", s, architecture="jumprelu", extra={"log_threshold": THRESHOLD.log()}
        ),
        {},
    ),
    "gated": (lambda f, s: saelens(f / "sae", s, architecture="gated", extra=GATED), {}),
    "scaled": (
        lambda f, s: saelens(f / "sae", s, normalize_activations="expected_average_only_in"),
        {"mean_norm": 7.0},
    ),
    "finetuned": (lambda f, s: saelens(f / "sae", s, extra={"scaling_factor": FINETUNED}), {}),
    "layer_norm": (lambda f, s: saelens(f / "sae", s, normalize_activations="layer_norm"), {}),
    "constant norm": (
        lambda f, s: saelens(f / "sae", s, normalize_activations="constant_norm_rescale"),
        {},
    ),
    "gemma scope": (
        lambda f, s: gemma_scope(
            f / "layer_2" / "width_16k" / "average_l0_71", s, threshold=THRESHOLD
        ),
        {"site": SITE},
    ),
    "gemma scope's embedding": (
        lambda f, s: gemma_scope(
            f / "embedding" / "width_4k" / "average_l0_6", s, threshold=THRESHOLD
        ),
        {},
    ),
    "gemma scope 2": (
        lambda f, s: gemma_scope_2(
            f / "layer_2_width_16k_l0_medium",
            s,
            THRESHOLD,
            hf_hook_point_in="model.layers.2.output",
        ),
        {},
    ),
    "llama scope": (lambda f, s: llama_scope(f / "L2R-8x", s), {}),
    "llama scope by norm": (
        lambda f, s: llama_scope(f / "L2R-8x", s, sparsity_include_decoder_norm=True),
        {},
    ),
}


@pytest.mark.parametrize("name", EACH)
def test_direction_site_and_activation_are_those_of_the_whole_autoencoder(name, gpt2, tmp_path):
    sae = SAE()
    make, given = EACH[name]
    feature = sl.sae_feature(make(tmp_path, sae), I, model=gpt2, **given)
    activations, row = expected(name, sae)
    assert torch.allclose(feature.direction, row, atol=1e-6)
    at = sl.Site(0, "resid_pre") if "embedding" in name else SITE
    assert feature.site == at == feature.steering.sites[0]
    assert torch.allclose(feature.gate.activation(H), activations, atol=1e-4)
    fires = feature.gate(H)
    assert torch.equal(fires, activations > 0)
    assert 0.1 < float(fires.float().mean()) < 0.9
    (imported,) = feature.steering.origin.imported
    assert imported.index.startswith(f"feature {I}; layer ")


def test_a_feature_steers_gates_and_is_read_again(gpt2, tmp_path):
    feature = sl.sae_feature(saelens(tmp_path / "sae", SAE()), I, model=gpt2)
    shift = sl.at(feature.site, sl.CAA(torch.ones(D)))
    gated = sl.at(feature.site, sl.When(shift.placed[0][1], feature.gate))
    for steering in (feature.steering, feature.ablation, feature.clamped(4.0), gated):
        again = sl.load_steering(steering.save(tmp_path / "s.safetensors", gpt2), gpt2)
        for (_, before), (_, after) in zip(steering.placed, again.placed, strict=True):
            assert torch.allclose(_everywhere(before)(H), _everywhere(after)(H), atol=1e-6)
    assert torch.allclose(feature.steering.placed[0][1](H), H + feature.direction)
    for steering in (feature.ablation, feature.clamped(4.0)):
        assert [steer.scope for _, steer in steering.placed] == [sl.after_first]
    ablated = _everywhere(feature.ablation.placed[0][1])(H)
    assert torch.allclose(ablated @ sl.unit(feature.direction), torch.zeros(2, 9), atol=1e-5)
    a = feature.gate.activation(H)
    clamped = H + ((4.0 - a) * (a > 0))[..., None] * feature.direction
    assert torch.allclose(_everywhere(feature.clamped(4.0).placed[0][1])(H), clamped, atol=1e-4)


def test_a_feature_is_set_on_other_tokens_where_they_are_named(gpt2, tmp_path):
    feature = sl.sae_feature(saelens(tmp_path / "s", SAE()), I, model=gpt2)
    ((_, steer),) = feature.clamped(4.0, scope=sl.everywhere).placed
    assert not isinstance(steer, sl.Only)
    ((_, steer),) = feature.clamped(4.0, scope=sl.response).placed
    assert steer.scope == sl.response


def _everywhere(steer: Any) -> Any:
    """What a steer does where its scope holds."""
    return steer.steer if isinstance(steer, sl.Only) else steer


AT_Z = sl.Site(2, "z")
BY_HAND = {
    "steer": lambda z, a, d, v: z + 3.0 * d,
    "ablate": lambda z, a, d, v: z - (z @ sl.unit(d))[..., None] * sl.unit(d),
    "clamp": lambda z, a, d, v: z + ((9.0 - a) * (a > 0))[..., None] * d,
    "gate": lambda z, a, d, v: z + (a > 0)[..., None] * v,
}


def of_heads(feature: sl.SAEFeature, what: str, v: torch.Tensor) -> sl.Steering:
    if what == "gate":
        return sl.at(feature.site, sl.When(sl.CAA(v), feature.gate))
    steerings = {"steer": lambda: 3.0 * feature.steering, "ablate": lambda: feature.ablation}
    return steerings.get(what, lambda: feature.clamped(9.0))()


@pytest.mark.parametrize("what", BY_HAND)
def test_a_feature_of_the_heads_acts_before_their_output_matrix(what, model, reference, tmp_path):
    """Compared with a hook by hand on transformers' own matrix, after a way through a file."""
    sae, v = SAE(), torch.randn(D, generator=torch.Generator().manual_seed(4))
    z = sl.capture(model, ["The dog ran to the house, and then"], AT_Z).at(AT_Z)
    sae.weights["b_enc"] -= sae.encoded(z, centred=True).median(dim=0).values
    folder = saelens(tmp_path / "s", sae, hook_name="blocks.2.attn.hook_z")
    feature = sl.sae_feature(folder, I, model=model)
    assert feature.site == AT_Z
    saved = of_heads(feature, what, v).save(tmp_path / "f.safetensors", model)
    steering, row = sl.load_steering(saved, model), sae.weights["W_dec"][I]
    blocks = getattr(reference, "model", None) or reference.transformer
    block = blocks.layers[2] if hasattr(blocks, "layers") else blocks.h[2]
    joined = block.self_attn.o_proj if hasattr(block, "self_attn") else block.attn.c_proj
    seen: list[torch.Tensor] = []

    def acting(module: Any, given: Any) -> tuple[torch.Tensor]:
        seen.append(sae.encoded(given[0], centred=True)[..., I].relu())
        done = BY_HAND[what](given[0], seen[0], row, v)
        if what in ("ablate", "clamp"):
            done[:, 0] = given[0][:, 0]  # a sink of most models, which stays
        return (done,)

    tokens = torch.arange(40, 64)[None]
    handle = joined.register_forward_pre_hook(acting)
    window = sl.Window.of(torch.ones_like(tokens, dtype=torch.bool))
    with torch.no_grad():
        expected, plain = reference(tokens).logits, model(tokens)
        handle.remove()
        with steering.applied(model, window):
            found = model(tokens)
    assert 0 < int((seen[0] > 0).sum()) < tokens.shape[1]
    centred = [x - x.mean(dim=-1, keepdim=True) for x in (found, expected, plain)]
    assert (centred[0] - centred[1]).abs().max() < 2e-3
    assert (centred[0] - centred[2]).abs().max() > 0.1


def test_a_feature_of_the_heads_is_as_wide_as_they_are_together(tmp_path):
    from tiny_models import build_tokenizer
    from transformers import LlamaConfig, LlamaForCausalLM

    sizes = {"hidden_size": D, "intermediate_size": 64, "num_attention_heads": 4, "head_dim": 12}
    config = LlamaConfig(vocab_size=400, num_hidden_layers=3, num_key_value_heads=2, **sizes)
    LlamaForCausalLM(config).eval().save_pretrained(tmp_path / "m")
    build_tokenizer("llama").save_pretrained(tmp_path / "m")
    model = sl.load(tmp_path / "m", backend="bridge")
    sae = SAE()
    shapes = {"W_enc": (48, S), "W_dec": (S, 48), "b_dec": (48,)}
    sae.weights |= {name: torch.randn(n) for name, n in shapes.items()}
    folder = saelens(tmp_path / "s", sae, hook_name="blocks.2.attn.hook_z", d_in=48)
    feature = sl.sae_feature(folder, I, model=model)
    z = sl.capture(model, ["The dog ran"], AT_Z).at(AT_Z)
    before = sae.encoded(z, centred=True)[:, I].relu()
    assert torch.allclose(feature.gate.activation(z), before, atol=1e-4)
    with pytest.raises(ValueError, match=r"this model has n_heads \* d_head = 48"):
        sl.sae_feature(saelens(tmp_path / "t", SAE(), hook_name=AT_Z.hook_name), I, model=model)
    named = {"blocks.2.attn.hook_z": torch.ones(48), "blocks.1.hook_out": torch.ones(D)}
    assert sl.load_steering(named, model).sites == (sl.Site(1), AT_Z)
    assert sl.load_steering(torch.ones(48), model, sites=AT_Z).sites == (AT_Z,)
    for wrong, sites in ((torch.ones(D), AT_Z), (torch.ones(48), 1)):
        with pytest.raises(ValueError, match=r"of another model, or of another stream"):
            sl.load_steering(wrong, model, sites=sites)
    with pytest.raises(ValueError, match=r"length 32, and this model has n_heads \* d_head 48"):
        sl.load_steering({"blocks.2.attn.hook_z": torch.ones(D)}, model)


def test_attention_of_gemma_scope_is_placed_at_the_heads(gpt2, tmp_path):
    folder = gemma_scope(tmp_path / "layer_2" / "w" / "l0", SAE(), threshold=THRESHOLD)
    assert sl.sae_feature(folder, I, model=gpt2, site=AT_Z).steering.sites == (AT_Z,)


def test_a_threshold_that_is_chosen_is_the_gates(tmp_path):
    gate = sl.sae_feature(saelens(tmp_path / "sae", SAE()), I).gate
    a = gate.activation(H)
    limit = float(a[a > 0].median())
    assert torch.equal(gate.above(limit)(H), a > limit)
    assert not SAEGate(torch.ones(D), 0.0, threshold=-5.0)(-torch.ones(1, 1, D)).any()


def test_half_precision_is_read_and_bfloat16_activations_are_taken(tmp_path):
    sae = SAE()
    sae.weights = {name: value.bfloat16() for name, value in sae.weights.items()}
    feature = sl.sae_feature(saelens(tmp_path / "sae", sae), I)
    assert feature.direction.dtype == torch.float32
    assert torch.equal(feature.direction, sae.weights["W_dec"][I].float())
    assert feature.gate(H.bfloat16()).dtype == torch.bool


def test_of_the_k_largest_only_a_chosen_threshold_makes_a_gate(tmp_path):
    sae, folder = SAE(), tmp_path / "sae"
    saelens(folder, sae, architecture="topk", k=4, rescale_acts_by_decoder_norm=True)
    feature = sl.sae_feature(folder, I)
    length = sae.weights["W_dec"][I].norm()
    assert torch.allclose(feature.direction, sae.weights["W_dec"][I] / length)
    before = sae.encoded(H, centred=True)[..., I] * length
    assert torch.allclose(feature.encoder.activation(H), before.relu(), atol=1e-3)
    with pytest.raises(ValueError, match=r"k largest.*feature\.encoder\.above"):
        _ = feature.gate
    assert feature.encoder.above(3.0)(H).any()
    old = saelens(folder, sae, activation_fn_str="topk", activation_fn_kwargs={"k": 4})
    assert sl.sae_feature(old, I).reason


@pytest.mark.parametrize("kind", ["abstopk", "batchtopk", "matryoshka_batchtopk"])
def test_what_keeps_the_largest_by_the_length_of_its_rows_adds_rows_of_length_1(kind, tmp_path):
    sae = SAE()
    saelens(tmp_path / "s", sae, architecture=kind, k=4, rescale_acts_by_decoder_norm=True)
    row = sae.weights["W_dec"][I]
    assert torch.allclose(sl.sae_feature(tmp_path / "s", I).direction, row / row.norm())
    plain = saelens(tmp_path / "t", sae, architecture=kind, k=4)
    assert torch.equal(sl.sae_feature(plain, I).direction, row)


def test_another_function_of_the_encoder_is_not_taken_for_relu(tmp_path):
    feature = sl.sae_feature(saelens(tmp_path / "s", SAE(), activation_fn_str="tanh-relu"), I)
    assert torch.isfinite(feature.direction).all()
    with pytest.raises(ValueError, match="the architecture 'tanh-relu' is not known"):
        _ = feature.gate
    plain = saelens(tmp_path / "t", SAE(), architecture="gated", activation_fn="relu")
    assert sae_folder(plain).architecture == "gated"


def test_a_transcoder_steers_where_it_writes_and_cannot_gate(tmp_path):
    folder = llama_scope(
        tmp_path / "L2TC",
        SAE(),
        hook_point_in="blocks.2.ln2.hook_normalized",
        hook_point_out="blocks.2.hook_mlp_out",
        dataset_average_activation_norm={"in": D**0.5, "out": 2.0},
    )
    feature = sl.sae_feature(folder, I)
    assert feature.site == sl.Site(2, "mlp_out")
    assert torch.allclose(feature.direction, SAE().weights["W_dec"][I] * 2.0 / D**0.5)
    with pytest.raises(ValueError, match="transcoder"):
        _ = feature.gate


def test_families_are_told_by_their_files_in_this_order(tmp_path):
    sae, folder = SAE(), tmp_path / "all"
    gemma_scope_2(folder, sae, THRESHOLD)
    assert sae_folder(folder).family == "Gemma Scope 2"
    gemma_scope(folder, sae, threshold=THRESHOLD)
    assert sae_folder(folder).family == "Gemma Scope"
    saelens(folder, sae)
    assert sae_folder(folder).family == "SAELens"
    llama_scope(folder, sae)
    assert sae_folder(folder).family == "Llama Scope"
    assert sae_folder(folder / "checkpoints" / "final.safetensors").family == "Llama Scope"
    assert sae_folder(folder / "params.npz").family == "Llama Scope"


def test_modules_of_gemma_are_the_streams_that_they_write(tmp_path):
    for module, stream in (
        ("model.layers.3.output", "resid_post"),
        ("model.language_model.layers.3.post_feedforward_layernorm.output", "mlp_out"),
        ("model.layers.3.post_attention_layernorm.output", "attn_out"),
        ("model.layers.3.self_attn.o_proj.input", "z"),
    ):
        folder = gemma_scope_2(tmp_path / "x", SAE(), THRESHOLD, hf_hook_point_in=module)
        assert sl.sae_feature(folder, I).site == sl.Site(3, stream)
    folder = gemma_scope_2(
        tmp_path / "x", SAE(), THRESHOLD, hf_hook_point_in="model.layers.3.self_attn.q_proj.output"
    )
    with pytest.raises(ValueError, match="no stream that is steered"):
        sl.sae_feature(folder, I)


def test_only_the_row_is_read(tmp_path, monkeypatch):
    from steerlens.interchange.arrays import Arrays
    from steerlens.interchange.sae_files import Slices

    whole: list[str] = []
    for kind in (Arrays, Slices):
        read = kind.whole
        monkeypatch.setattr(kind, "whole", lambda s, n, read=read: whole.append(n) or read(s, n))
    sl.sae_feature(saelens(tmp_path / "sae", SAE()), I)
    folder = gemma_scope(tmp_path / "layer_2" / "w" / "l0", SAE(), threshold=THRESHOLD)
    sl.sae_feature(folder, I, site=2)
    assert whole
    assert not {"W_dec", "W_enc", "w_dec", "w_enc"} & set(whole)


REFUSED: dict[str, Any] = {
    "no site": (
        lambda f: gemma_scope(f / "layer_12" / "width_16k" / "l0", SAE(), threshold=THRESHOLD),
        {},
        r"residual stream.*Site\(12\).*-att is Site\(12, \"z\"\).*--layers 12",
    ),
    "another layer": (
        lambda f: gemma_scope(f / "layer_12" / "width_16k" / "l0", SAE(), threshold=THRESHOLD),
        {"site": 3},
        "is of layer 12 by its name",
    ),
    "another site": (lambda f: saelens(f / "s", SAE()), {"site": 3}, "by its own files"),
    "queries": (
        lambda f: saelens(f / "s", SAE(), hook_name="blocks.2.attn.hook_q"),
        {},
        r"writes at 'blocks\.2\.attn\.hook_q'.*mlp_out and z of a block",
    ),
    "one head": (lambda f: saelens(f / "s", SAE(), hook_head_index=3), {}, "one attention head"),
    "no scale": (
        lambda f: saelens(f / "s", SAE(), normalize_activations="expected_average_only_in"),
        {},
        "mean_norm=capture",
    ),
    "an unknown scale": (
        lambda f: saelens(f / "s", SAE(), normalize_activations="twice"),
        {},
        "normalises activations by 'twice', which is not known",
    ),
    "a scale too many": (
        lambda f: saelens(f / "s", SAE()),
        {"mean_norm": 2.0},
        "leave mean_norm= out",
    ),
    "beyond": (lambda f: saelens(f / "s", SAE()), {"index": S}, "features 0 to 47; found index 48"),
    "below": (lambda f: saelens(f / "s", SAE()), {"index": -1}, "found index -1"),
    "an empty folder": (lambda f: (f / "e").mkdir() or f / "e", {}, "holds nothing, and none of"),
    "other widths": (lambda f: saelens(f / "s", SAE(), d_in=7), {}, "d_in is 7"),
    "no weights": (
        lambda f: (saelens(f / "s", SAE()) / "sae_weights.safetensors").unlink() or f / "s",
        {},
        "weights are missing",
    ),
    "no threshold": (
        lambda f: saelens(f / "s", SAE(), architecture="jumprelu"),
        {},
        "has no tensor 'threshold'",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_open_or_contradicts_is_refused_with_advice(name, tmp_path):
    make, given, said = REFUSED[name]
    folder = make(tmp_path)
    with pytest.raises((ValueError, FileNotFoundError), match=said):
        sl.sae_feature(folder, **{"index": I, **given})


OF_SEVERAL: dict[str, Any] = {
    "the description": lambda f: saelens(f / "s", SAE(), d_sae=S + 1),
    "Llama Scope's description": lambda f: llama_scope(f / "s", SAE(), d_sae=2 * S),
    "the encoder": lambda f: saelens(f / "s", SAE(), extra={"W_enc": torch.ones(D, S - 1)}),
    "the bias": lambda f: saelens(f / "s", SAE(), extra={"b_enc": torch.ones(S + 3)}),
    "the threshold": lambda f: gemma_scope(f / "s", SAE(), threshold=torch.ones(2 * S)),
    "the gate": lambda f: saelens(
        f / "s", SAE(), architecture="gated", extra=GATED | {"r_mag": torch.ones(S + 1)}
    ),
}


@pytest.mark.parametrize("name", OF_SEVERAL)
def test_parts_of_several_autoencoders_are_refused(name: str, tmp_path: Path) -> None:
    given = {"site": 2} if "threshold" in name else {}
    with pytest.raises(ValueError, match=r"other numbers of features \((W_dec|decoder.weight) "):
        sl.sae_feature(OF_SEVERAL[name](tmp_path), I, **given)


@pytest.mark.parametrize("size", ["many", True, -1, 1e12])
def test_a_number_of_features_that_is_none_is_refused(size: Any, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="for d_sae"):
        sl.sae_feature(saelens(tmp_path / "s", SAE(), d_sae=size), I)
    assert sl.sae_feature(saelens(tmp_path / "s", SAE(), d_sae=None), I).index == I


def test_another_models_feature_is_refused(gpt2, tmp_path):
    sae = SAE()
    sae.weights = {name: value[..., :16] for name, value in sae.weights.items()}
    sae.weights = {name: value.clone() for name, value in sae.weights.items()}
    sae.weights["W_enc"], sae.weights["b_enc"] = torch.ones(16, S), torch.ones(S)
    folder = saelens(tmp_path / "s", sae, d_in=16)
    assert sl.sae_feature(folder, I).direction.shape == (16,)
    with pytest.raises(ValueError, match="has d_model 16, this model has d_model 32"):
        sl.sae_feature(folder, I, model=gpt2)


@pytest.mark.parametrize(
    "text",
    ["{", "[1]", "x" * 10, '{"d_in": true}', '{"d_in": 1e400}', "[" * 20000, '{"d_in": "32"}'],
)
def test_a_damaged_description_is_one_error(text, tmp_path):
    folder = saelens(tmp_path / "s", SAE())
    (folder / "cfg.json").write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=r"cfg\.json"):
        sl.sae_feature(folder, I)


@pytest.mark.parametrize("family", ["saelens", "gemma scope"])
def test_damaged_weights_are_an_error_or_a_feature(family, tmp_path):
    import random

    sae = SAE()
    if family == "saelens":
        folder, given = saelens(tmp_path / "s", sae), {}
        file = folder / "sae_weights.safetensors"
    else:
        folder, given = gemma_scope(tmp_path / "s", sae, threshold=THRESHOLD), {"site": 2}
        file = folder / "params.npz"
    content, refused = file.read_bytes(), 0
    drawn = random.Random(1)
    for number in range(60):
        changed = bytearray(content)
        place = drawn.randrange(300) if number % 2 else drawn.randrange(len(content))
        if number % 3 == 0:
            del changed[place:]
        else:
            changed[place] ^= 1 << drawn.randrange(8)
        file.write_bytes(bytes(changed))
        try:
            sl.sae_feature(folder, I, **given)
        except ValueError:
            refused += 1
    assert refused > 20


def test_the_command_writes_a_feature_as_a_steering(run, gpt2, folders, tmp_path):
    folder, out = saelens(tmp_path / "s", SAE()), tmp_path / "f.safetensors"
    code, text, said = run(
        "import", folder, "--model", folders["gpt2"], "--out", out, "--feature", I
    )
    assert code == 0, said
    assert "SAE feature of SAELens (standard)" in text
    ((site, steer),) = sl.load_steering(out, gpt2).placed
    assert site == SITE
    assert torch.equal(steer.direction, SAE().weights["W_dec"][I])
    gemma = gemma_scope(tmp_path / "layer_2" / "w" / "l0", SAE(), threshold=THRESHOLD)
    place = ("--layers", 2, "--stream", "z", "--feature", I)
    code, text, said = run("import", gemma, "--model", folders["gpt2"], "--out", out, *place)
    assert (code, "layer 2 z" in text) == (0, True), said
    code, text, _ = run("info", folder)
    assert (code, "sparse autoencoder of SAELens" in text, "48" in text) == (0, True, True)
    code, _, said = run("import", folder, "--model", folders["gpt2"], "--out", out)
    assert (code, "--feature N" in said) == (2, True)
