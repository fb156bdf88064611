"""Loading: both backends compute what transformers does, and a model is known by its weights."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_models import (
    ARCHITECTURES,
    BACKENDS,
    D_MODEL,
    D_VOCAB,
    KINDS,
    N_LAYERS,
    PROMPTS,
    load,
    load_reference,
    write_folder,
)

import steerlens
from steerlens import batch, capture
from steerlens.identity import fingerprint, identity_of, loaded
from steerlens.models import has_hooked_transformer, hub_names, local_folder

ROOT = Path(__file__).parent.parent
each_kind = pytest.mark.parametrize(("architecture", "backend"), KINDS)
needs_hooked = pytest.mark.skipif("hooked" not in BACKENDS, reason="no HookedTransformer here")


def tokens_of(model: Any) -> torch.Tensor:
    return batch(model, [PROMPTS[1]])[0]


def require_equal_logits(model: Any, reference: Any) -> None:
    tokens = tokens_of(model)
    with torch.no_grad():
        torch.testing.assert_close(model(tokens), reference(tokens).logits, rtol=1e-4, atol=1e-4)


def test_logits_are_those_of_transformers(model, reference):
    require_equal_logits(model, reference)


@each_kind
def test_a_template_that_is_given_takes_the_place_of_the_models_own(architecture, backend, folders):
    plain = steerlens.load(folders[architecture], backend=backend, template=steerlens.PLAIN)
    own = steerlens.load(folders[architecture], backend=backend)
    assert plain.tokenizer.chat_template == steerlens.PLAIN != own.tokenizer.chat_template
    asked = steerlens.Conversation("What is it?", "Be kind.")
    rows = [steerlens.encode(model, asked) for model in (plain, own)]
    bos = plain.tokenizer.bos_token
    assert plain.tokenizer.decode(list(rows[0].ids)) == f"{bos}Be kind.\n\nWhat is it?\n"
    own.tokenizer.chat_template = steerlens.PLAIN
    assert steerlens.encode(own, asked) == rows[0] != rows[1]
    # The model is the same: what was fitted with one template fits the other.
    assert fingerprint(plain) == fingerprint(own)


def test_activations_are_those_of_transformers(model, reference):
    with torch.no_grad():
        states = reference(tokens_of(model), output_hidden_states=True).hidden_states
    for layer in range(N_LAYERS):
        ours = capture(model, PROMPTS[1], steerlens.Site(layer, "resid_pre"))
        torch.testing.assert_close(
            ours.at(steerlens.Site(layer, "resid_pre")), states[layer][0], rtol=1e-4, atol=1e-4
        )


def test_a_loaded_model_is_in_evaluation_without_gradients_and_knows_where_it_came_from(
    model, kind, folder
):
    assert not model.training
    assert not any(weight.requires_grad for weight in model.parameters())
    assert model(tokens_of(model)).grad_fn is None
    known = loaded(model)
    assert (known.name, known.folder, known.backend) == (str(folder), folder, kind.backend)
    assert known.processing == "none"
    assert steerlens.runtime.forward.is_bridge(model) == (kind.backend == "bridge")
    assert (model.cfg.n_layers, model.cfg.d_model) == (N_LAYERS, D_MODEL)


def test_a_model_is_loaded_in_the_dtype_that_is_asked_for(model, bfloat16_model):
    for one, dtype in ((model, torch.float32), (bfloat16_model, torch.bfloat16)):
        assert capture(one, "The dog", 1).at(1).dtype == dtype


@each_kind
def test_the_words_in_a_path_do_not_choose_the_architecture(architecture, backend, tmp_path):
    # HookedTransformer's converter would read "llama" or "gemma" anywhere in the path.
    other = {"gpt2": "llama-gemma", "llama": "gpt2-gemma"}[architecture]
    folder = write_folder(tmp_path / other / f"my-{other}-mistral", architecture)
    require_equal_logits(steerlens.load(folder, backend=backend), load_reference(folder))


@each_kind
def test_nothing_is_printed_while_loading(architecture, backend, folders, capfd):
    capfd.readouterr()
    steerlens.load(folders[architecture], backend=backend)
    said = capfd.readouterr()
    assert (said.out, said.err) == ("", "")


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_auto_is_the_bridge(architecture, folders):
    model = steerlens.load(str(folders[architecture]))
    assert loaded(model).backend == "bridge"


@needs_hooked
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_folded_weights_predict_the_same_and_have_other_activations(architecture, folders):
    plain = load(folders[architecture], "hooked")
    folded = steerlens.load(folders[architecture], backend="hooked", processing="fold")
    tokens = tokens_of(plain)
    torch.testing.assert_close(
        folded(tokens).log_softmax(dim=-1), plain(tokens).log_softmax(dim=-1), rtol=1e-4, atol=1e-4
    )
    assert loaded(folded).processing == identity_of(folded).processing == "fold"
    changed = {name for name, weight in folded.named_parameters() if name.endswith("W_in")}
    assert all(
        not torch.equal(folded.get_parameter(name), plain.get_parameter(name)) for name in changed
    )
    assert len(changed) == N_LAYERS


def test_folding_needs_a_hooked_transformer(folders):
    with pytest.raises(ValueError, match=r"processing='fold' needs backend='hooked'.*at 'none'"):
        steerlens.load(folders["gpt2"], backend="bridge", processing="fold")


@pytest.mark.skipif("hooked" in BACKENDS, reason="HookedTransformer is installed")
def test_a_hooked_transformer_that_is_not_installed_is_an_error_that_says_so(folders):
    assert not has_hooked_transformer()
    with pytest.raises(ValueError, match=r"needs transformer-lens 3\.x.*backend='bridge'"):
        steerlens.load(folders["gpt2"], backend="hooked")
    with pytest.raises(ValueError, match="needs backend='hooked'"):
        steerlens.load(folders["gpt2"], processing="fold")


@pytest.mark.parametrize(
    ("asked", "near"),
    [("gpt2-smal", "gpt2-small"), ("demmo", "demo"), ("pythia-70", "pythia-70m")],
)
def test_an_unknown_name_is_answered_with_names_close_to_it(asked, near):
    with pytest.raises(ValueError, match=f"Unknown model '{asked}'.*Close to it: .*{near}"):
        steerlens.load(asked)


def test_a_name_is_a_hub_name_only_if_it_looks_like_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert "gpt2" in hub_names()
    assert local_folder("gpt2") is None
    assert local_folder("owner/name") is None
    for path in ("./gpt2", "/no/gpt2", "~/no/gpt2", Path("gpt2"), "a/b/c", "weights.safetensors"):
        with pytest.raises(ValueError, match=r"Unknown model .*folder that exists"):
            local_folder(path)


def test_a_folder_goes_before_a_hub_name(folders, tmp_path, monkeypatch):
    shutil.copytree(folders["llama"], tmp_path / "gpt2")
    monkeypatch.chdir(tmp_path)
    assert local_folder("gpt2") == Path("gpt2")
    assert steerlens.load("gpt2", backend="bridge").cfg.d_vocab == D_VOCAB


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda f: (f / "config.json").unlink(), "has no config.json"),
        (lambda f: (f / "tokenizer.json").unlink(), "has no tokenizer.json"),
        (lambda f: (f / "model.safetensors").unlink(), r"no \.safetensors weights.*save_pretrain"),
        (
            lambda f: (f / "config.json").write_text("{"),
            r"config\.json is not JSON.*Fetch it again",
        ),
        (
            lambda f: (f / "model.safetensors").write_bytes(b"no"),
            r"model\.safetensors is damaged .*Fetch it again",
        ),
        (
            lambda f: (f / "tokenizer.json").write_text("{}"),
            "could not load .*whether its files are complete",
        ),
    ],
    ids=["no config", "no tokenizer", "no weights", "bad config", "bad weights", "bad tokenizer"],
)
def test_a_folder_that_is_not_whole_is_refused_with_what_it_lacks(change, words, folders, tmp_path):
    folder = shutil.copytree(folders["gpt2"], tmp_path / "model")
    change(folder)
    with pytest.raises(ValueError, match=words):
        steerlens.load(folder)


@each_kind
def test_weights_that_lack_a_tensor_are_refused_and_not_made_up(
    architecture, backend, folders, tmp_path
):
    folder = shutil.copytree(folders[architecture], tmp_path / "model")
    weights = load_file(folder / "model.safetensors")
    lost = next(name for name in sorted(weights) if "mlp" in name)
    del weights[lost]
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(ValueError, match=f"lack 1 tensors .*{lost}.*again"):
        steerlens.load(folder, backend=backend)


def run(code: str, *arguments: object, **variables: str) -> str:
    """What a fresh process prints; the hub's variables are those given and no others."""
    kept = {
        name: value for name, value in os.environ.items() if not name.startswith(("HF_", "TRA"))
    }
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code, *map(str, arguments)],
        cwd=ROOT,
        env=kept | variables,
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_local_folder_needs_no_network_even_where_the_hub_is_not_switched_off(folders, tmp_path):
    code = """
import socket, sys
tried = []
def refuse(*args, **options):
    tried.append(args)
    raise OSError("no network in this test")
for name in ("connect", "connect_ex", "sendto"):
    setattr(socket.socket, name, refuse)
socket.create_connection = socket.getaddrinfo = socket.gethostbyname = refuse
import steerlens
for backend in sys.argv[1].split(","):
    for folder in sys.argv[2:]:
        model = steerlens.load(folder, backend=backend)
        steerlens.generate(model, "The dog", max_new_tokens=1)
        assert not tried, tried
        print(backend)
"""
    said = run(code, ",".join(BACKENDS), *folders.values(), HF_HOME=str(tmp_path))
    assert said.split() == [backend for backend in BACKENDS for _ in folders]


def test_a_hub_name_without_the_hub_is_our_error_and_says_why(tmp_path):
    code = """
import steerlens
for name in ("gpt2", "nobody/no-such-model"):
    try:
        steerlens.load(name)
    except ValueError as error:
        print(repr(str(error)))
"""
    said = run(code, HF_HUB_OFFLINE="1", HF_HOME=str(tmp_path)).splitlines()
    assert len(said) == 2
    for name, message in zip(("gpt2", "nobody/no-such-model"), said, strict=True):
        assert f"transformers could not load '{name}'" in message.replace("\\'", "'")
        assert "check the connection and HF_HUB_OFFLINE" in message


def test_the_fingerprint_is_the_same_on_every_backend(both_backends):
    here, there = both_backends
    assert fingerprint(here) == fingerprint(there)
    assert identity_of(here) == identity_of(there)


def test_the_fingerprint_is_the_same_in_bfloat16(model, bfloat16_model):
    assert fingerprint(model) == fingerprint(bfloat16_model)


def test_a_model_that_load_did_not_load_has_the_same_fingerprint(model, folder, monkeypatch):
    known = identity_of(model)
    monkeypatch.setattr("steerlens.identity._LOADED", {})
    assert loaded(model) is None
    mine = identity_of(model)
    assert (mine.fingerprint, mine.processing) == (known.fingerprint, "none")
    assert Path(mine.name).name == folder.name


@needs_hooked
def test_a_folded_model_that_load_did_not_load_is_seen_to_be_folded(folders, monkeypatch):
    folded = steerlens.load(folders["gpt2"], backend="hooked", processing="fold")
    monkeypatch.setattr("steerlens.identity._LOADED", {})
    assert identity_of(folded).processing == "fold"


def changed(folder: Path, to: Path, change: Any) -> Path:
    """A copy of `folder` whose weights `change` was let loose on."""
    shutil.copytree(folder, to)
    weights = load_file(to / "model.safetensors")
    change(weights)
    save_file(weights, to / "model.safetensors", {"format": "pt"})
    return to


MATRICES = {
    "gpt2": ["wte", "h.3.attn.c_attn", "h.1.attn.c_proj", "h.2.mlp.c_fc", "h.3.mlp.c_proj"],
    "llama": [
        "embed_tokens",
        "0.self_attn.q_proj",
        "2.self_attn.k_proj",
        "3.self_attn.v_proj",
        "1.self_attn.o_proj",
        "2.mlp.gate_proj",
        "0.mlp.up_proj",
        "3.mlp.down_proj",
    ],
}


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("architecture", "part"), [(a, p) for a in MATRICES for p in MATRICES[a]])
def test_one_changed_weight_is_another_model(architecture, part, backend, folders, tmp_path):
    def bump(weights: dict[str, torch.Tensor]) -> None:
        (name,) = [name for name in weights if name.endswith(f"{part}.weight")]
        weights[name][1, 2] += 0.25

    folder = changed(folders[architecture], tmp_path / "model", bump)
    plain = load(folders[architecture], backend)
    assert fingerprint(steerlens.load(folder, backend=backend)) != fingerprint(plain)


def test_other_random_weights_and_another_shape_are_another_model(folders, tmp_path):
    plain = fingerprint(load(folders["gpt2"], "bridge"))
    folder = shutil.copytree(folders["gpt2"], tmp_path / "heads")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"n_head": 2}))
    reseeded = write_folder(tmp_path / "reseeded", "gpt2", seed=1)
    found = {fingerprint(steerlens.load(f, backend="bridge")) for f in (folder, reseeded)}
    assert len(found | {plain}) == 3


def test_what_the_fingerprint_does_not_see(folders, tmp_path):
    """The price of one digest for two layouts: known, written down, and not relied upon.

    It adds up bit patterns in bfloat16, so the order of weights within a matrix and changes below
    bfloat16's rounding do not enter; biases and norms are not read.
    """

    def blind(weights: dict[str, torch.Tensor]) -> None:
        swapped = weights["transformer.h.1.mlp.c_fc.weight"]
        swapped[[0, 1]] = swapped[[1, 0]].clone()
        weights["transformer.h.0.attn.c_proj.bias"] += 1
        weights["transformer.h.0.ln_1.weight"] += 1
        exact = weights["transformer.h.2.mlp.c_proj.weight"]
        exact[0, 0] = exact[0, 0].bfloat16().float() * (1 + 2**-12)

    folder = changed(folders["gpt2"], tmp_path / "model", blind)
    plain, other = (steerlens.load(f, backend="bridge") for f in (folders["gpt2"], folder))
    assert fingerprint(plain) == fingerprint(other)
    assert not torch.allclose(plain(tokens_of(plain)), other(tokens_of(plain)), atol=0.1)


@pytest.mark.parametrize("name", ["transformer.wpe.weight", "lm_head.weight"])
def test_the_fingerprint_sees_positions_and_the_unembedding(name, folders, tmp_path):
    def shift(weights: dict[str, torch.Tensor]) -> None:
        weights[name] += 1

    folder = changed(folders["gpt2"], tmp_path / "model", shift)
    for backend in BACKENDS:
        plain, other = (steerlens.load(f, backend=backend) for f in (folders["gpt2"], folder))
        assert fingerprint(plain) != fingerprint(other)
