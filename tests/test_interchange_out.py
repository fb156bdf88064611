"""What is written for other tools: the files, what they do in them, and what is refused."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_models import BACKENDS, D_MODEL, N_LAYERS, load, load_reference

import steerlens as sl
from steerlens.interchange import gguf_vector, plain
from steerlens.interchange.export import TARGETS, Exported
from steerlens.interchange.families import family_of, model_type_of
from steerlens.interchange.folders import drafted_folder
from steerlens.interchange.request import ExportError, Refused, Request
from steerlens.models.gguf import note_in
from steerlens.whole import CannotWrite

NEAR = 2e-4
STRENGTHS = (-2.0, 1.0, 4.0)
IDS = torch.arange(20, 44)[None]
FOLDERS = ("checkpoint", "peft")


def vectors(*blocks: int, length: float = 0.5) -> sl.Steering:
    """Another constant at the output of each of these blocks."""
    drawn = torch.randn(N_LAYERS, D_MODEL, generator=torch.Generator().manual_seed(0))
    return sum(sl.at(block, sl.CAA(length * drawn[block])) for block in blocks)


@torch.no_grad()
def hooked(model: Any, steering: sl.Steering) -> torch.Tensor:
    with steering.applied(model):
        return model(IDS)[0]


@torch.no_grad()
def plainly(hf_model: Any) -> torch.Tensor:
    return hf_model(IDS).logits[0]


def apart(found: torch.Tensor, expected: torch.Tensor) -> float:
    return float((found - expected).abs().max())


def read(folder: Path) -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


# -- GGUF ------------------------------------------------------------------------------------------


def gguf_of(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    from gguf import GGUFReader

    reader = GGUFReader(path)
    return {name: f.contents() for name, f in reader.fields.items()}, {
        tensor.name: tensor for tensor in reader.tensors
    }


def test_a_control_vector_holds_one_row_a_block_and_says_where_it_is_from(model, kind, tmp_path):
    steering = 2.0 * vectors(1, 3)
    done = steering.export(tmp_path / "v.gguf", to="gguf", model=model)
    assert done == Exported("gguf", (tmp_path / "v.gguf",))
    fields, tensors = gguf_of(tmp_path / "v.gguf")
    assert sorted(tensors) == ["direction.1", "direction.3"]
    for block in (1, 3):
        row = tensors[f"direction.{block}"]
        assert row.tensor_type.name == "F32"
        assert row.shape.tolist() == [D_MODEL]
        expected = 2.0 * dict(vectors(block).placed)[sl.Site(block)].direction
        assert np.array_equal(row.data, expected.numpy())
    assert fields["general.architecture"] == "controlvector"
    assert fields["controlvector.model_hint"] == kind.architecture
    assert fields["controlvector.layer_count"] == 2
    assert fields["steerlens.processing"] == "none"
    assert fields["steerlens.method"] == "CAA"
    assert (
        fields["steerlens.fingerprint"]
        == sl.CAA.fit(model, (["a"], ["b"]), 1).steering.origin.model.fingerprint
    )


def test_what_acts_at_one_place_is_summed(gpt2, tmp_path):
    v, w = torch.ones(D_MODEL), torch.arange(D_MODEL).float()
    steering = sl.at(1, sl.CAA(v)) + 3.0 * sl.at(sl.Site(2, "resid_pre"), sl.CAA(w))
    steering.export(tmp_path / "v.gguf", to="gguf", model=gpt2)
    _, tensors = gguf_of(tmp_path / "v.gguf")
    assert list(tensors) == ["direction.1"]
    assert np.array_equal(tensors["direction.1"].data, (v + 3.0 * w).numpy())


def test_layers_from_the_end_are_those_of_the_model(gpt2, tmp_path):
    sl.at(-1, sl.CAA(torch.ones(D_MODEL))).export(tmp_path / "v.gguf", to="gguf", model=gpt2)
    assert list(gguf_of(tmp_path / "v.gguf")[1]) == [f"direction.{N_LAYERS - 1}"]


@pytest.mark.parametrize(
    ("site", "says"),
    [(sl.Site(0), "output of block 0"), (sl.Site(0, "resid_pre"), "the embeddings")],
)
def test_llama_cpp_cannot_steer_block_0_nor_the_embeddings(site, says, gpt2, tmp_path):
    steering = sl.at(site, sl.CAA(torch.ones(D_MODEL))) + vectors(1)
    with pytest.raises(Refused, match=says):
        steering.export(tmp_path / "v.gguf", to="gguf", model=gpt2, approximate=True)
    assert not list(tmp_path.iterdir())


def test_a_layer_that_the_model_does_not_have_is_refused(gpt2, tmp_path):
    with pytest.raises(ValueError, match="has 4 layers"):
        sl.at(N_LAYERS, sl.CAA(torch.ones(D_MODEL))).export(
            tmp_path / "v.gguf", to="gguf", model=gpt2
        )


def test_a_number_that_float32_cannot_hold_is_refused(gpt2, tmp_path):
    steering = 1e30 * (1e30 * vectors(1))
    with pytest.raises(Refused, match="not finite"):
        steering.export(tmp_path / "v.gguf", to="gguf", model=gpt2)


def test_the_model_hint_is_llama_cpps_name(gpt2, monkeypatch):
    monkeypatch.setattr(gguf_vector, "model_type_of", lambda model: "gpt_neox")
    assert gguf_vector._called(gpt2) == "gptneox"
    monkeypatch.setattr(gguf_vector, "model_type_of", lambda model: "qwen3")
    assert gguf_vector._called(gpt2) == "qwen3"


@pytest.mark.usefixtures("unchecked")
def test_the_type_of_a_model_is_known_wherever_it_came_from(model, kind):
    from types import SimpleNamespace

    assert model_type_of(model) == kind.architecture
    alone = SimpleNamespace(cfg=SimpleNamespace(original_architecture="Qwen2ForCausalLM"))
    assert model_type_of(alone) == "qwen2"
    assert model_type_of(SimpleNamespace(cfg=SimpleNamespace())) == "unknown"


# -- What no target can do -------------------------------------------------------------------------


def clamped() -> sl.Steering:
    u = torch.nn.functional.normalize(torch.ones(D_MODEL), dim=0)
    return sl.at(1, sl.InstructionVector(u, 2.0))


NO_CONSTANT = {
    "scope": lambda: vectors(1).only(sl.response),
    "without bos": lambda: vectors(1).only(sl.everywhere.without_bos),
    "clamp": clamped,
    "function": lambda: sl.at(1, lambda activation, hook=None: activation * 2),
}


@pytest.mark.parametrize("to", ["gguf", "checkpoint", "peft"])
@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("scope", "limited to 'response'"),
        ("without bos", "limited to"),
        ("clamp", "something else \\(clamped\\)"),
        ("function", "it depends on each token's"),
    ],
)
def test_what_is_no_constant_everywhere_is_refused_with_the_way_out(name, says, to, gpt2, tmp_path):
    with pytest.raises(ExportError, match=rf"{says}.*approximate=True"):
        NO_CONSTANT[name]().export(tmp_path / "x", to=to, model=gpt2)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("to", ["gguf", "checkpoint", "peft"])
def test_other_streams_strength_0_and_unknown_options_are_refused(to, gpt2, tmp_path):
    here: dict[str, Any] = {"to": to, "model": gpt2}
    with pytest.raises(Refused, match=r"layer 1 attn_out"):
        sl.at(sl.Site(1, "attn_out"), sl.CAA(torch.ones(D_MODEL))).export(tmp_path / "x", **here)
    with pytest.raises(ExportError, match="strength 0 there is nothing"):
        (0.0 * vectors(1)).export(tmp_path / "x", **here)
    with pytest.raises(ValueError, match="no option 'colour'"):
        vectors(1).export(tmp_path / "x", **here, colour="red")
    with pytest.raises(ValueError, match="d_model 8"):
        sl.at(1, sl.CAA(torch.ones(8))).export(tmp_path / "x", **here)
    assert not list(tmp_path.iterdir())


def test_an_unknown_target_is_named_with_those_that_there_are(gpt2, tmp_path):
    with pytest.raises(ValueError, match=r"no target 'ggml'. There are .*gguf"):
        vectors(1).export(tmp_path / "x", to="ggml", model=gpt2)
    assert {"gguf", "checkpoint", "peft"} <= set(TARGETS)


# -- Checkpoints -----------------------------------------------------------------------------------


@pytest.mark.parametrize("strength", [-2.0, 4.0])
def test_a_checkpoint_computes_what_the_hooks_do(strength, model, folder, tmp_path):
    steering = strength * vectors(0, 2, 3)
    steering.export(tmp_path / "baked", to="checkpoint", model=model)
    expected = hooked(model, steering)
    assert apart(plainly(read(tmp_path / "baked")), expected) < NEAR
    assert apart(plainly(load_reference(folder)), expected) > 0.1
    off = sl.Steering(tuple((sl.Site(site.layer - 1), s) for site, s in steering.placed[1:]))
    assert apart(hooked(model, off), expected) > 0.1


def test_a_checkpoint_is_a_whole_folder_that_loads_and_can_be_steered_again(
    model, kind, folder, tmp_path
):
    vectors(1).export(tmp_path / "baked", to="checkpoint", model=model)
    names = {path.name for path in (tmp_path / "baked").iterdir()}
    assert {"config.json", "model.safetensors", "tokenizer.json", "chat_template.jinja"} <= names
    assert {path.name for path in tmp_path.iterdir()} == {"baked"}, "no draft is left"
    config = json.loads((tmp_path / "baked" / "config.json").read_text(encoding="utf-8"))
    assert config["steerlens"]["method"] == "CAA"
    assert config["architectures"] == [type(load_reference(folder)).__name__]
    again = sl.load(tmp_path / "baked")
    assert apart(hooked(again, vectors(2)), hooked(model, vectors(1, 2))) < NEAR
    text = sl.generate(again, [sl.Conversation("The dog")], temperature=0.0, max_new_tokens=4)
    assert text.texts == (
        sl.generate(
            model, [sl.Conversation("The dog")], vectors(1), temperature=0.0, max_new_tokens=4
        ).texts
    )


def test_a_steered_checkpoint_is_steered_once_more_and_both_biases_are_in_it(bridge, tmp_path):
    model = bridge
    vectors(1).export(tmp_path / "one", to="checkpoint", model=model)
    again = sl.load(tmp_path / "one")
    vectors(1, 2).export(tmp_path / "two", to="checkpoint", model=again)
    expected = hooked(model, 2.0 * vectors(1) + vectors(2))
    assert apart(plainly(read(tmp_path / "two")), expected) < NEAR


@pytest.mark.skipif("hooked" not in BACKENDS, reason="TransformerLens 4 has no HookedTransformer")
def test_a_backend_that_drops_the_biases_of_a_llama_is_refused(folders, tmp_path):
    model = load(folders["llama"], "bridge")
    vectors(1).export(tmp_path / "baked", to="checkpoint", model=model)
    with pytest.raises(ValueError, match="another function"):
        sl.load(tmp_path / "baked", backend="hooked")
    assert type(sl.load(tmp_path / "baked")).__name__ == "TransformerBridge"


@pytest.mark.skipif("hooked" not in BACKENDS, reason="only a HookedTransformer folds weights")
@pytest.mark.parametrize("architecture", ["gpt2", "llama"])
def test_what_was_fitted_on_folded_weights_is_written_into_the_folders_own(
    architecture, folders, tmp_path
):
    folded = sl.load(folders[architecture], backend="hooked", processing="fold")
    vectors(1).export(tmp_path / "baked", to="checkpoint", model=folded)
    expected = hooked(load(folders[architecture], "bridge"), vectors(1))
    assert apart(plainly(read(tmp_path / "baked")), expected) < NEAR


def test_weights_in_half_precision_are_asked_for(gpt2, tmp_path):
    vectors(1).export(tmp_path / "half", to="checkpoint", model=gpt2, dtype="bfloat16")
    config = json.loads((tmp_path / "half" / "config.json").read_text(encoding="utf-8"))
    assert config["dtype"] == "bfloat16"
    size = (tmp_path / "half" / "model.safetensors").stat().st_size
    vectors(1).export(tmp_path / "whole", to="checkpoint", model=gpt2)
    assert size < 0.7 * (tmp_path / "whole" / "model.safetensors").stat().st_size
    with pytest.raises(ValueError, match="Unknown dtype 'float8'"):
        vectors(1).export(tmp_path / "x", to="checkpoint", model=gpt2, dtype="float8")


def test_the_chat_template_in_use_and_the_generation_config_come_along(folders, tmp_path):
    import shutil

    shutil.copytree(folders["gpt2"], tmp_path / "given")
    told = {"eos_token_id": [0, 3], "temperature": 0.5}  # transformers writes no such file itself
    (tmp_path / "given" / "generation_config.json").write_text(json.dumps(told), encoding="utf-8")
    model = sl.load(tmp_path / "given", template=sl.PLAIN)
    vectors(1).export(tmp_path / "baked", to="checkpoint", model=model)
    found = (tmp_path / "baked" / "generation_config.json").read_text(encoding="utf-8")
    assert json.loads(found) == told
    again = sl.load(tmp_path / "baked")
    assert again.tokenizer.chat_template == sl.PLAIN


@pytest.mark.parametrize("to", FOLDERS)
def test_what_computes_something_else_is_withdrawn(to, gpt2, tmp_path, monkeypatch):
    monkeypatch.setattr(
        plain, "hooked_logits", lambda request, ids: torch.randn(len(ids), gpt2.cfg.d_vocab)
    )
    with pytest.raises(Refused, match=r"withdrawn.*differ from those under the hooks by"):
        vectors(1).export(tmp_path / "x", to=to, model=gpt2)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("to", FOLDERS)
def test_the_embeddings_have_no_bias(to, gpt2, tmp_path):
    with pytest.raises(Refused, match="cannot steer the embeddings"):
        sl.at(sl.Site(0, "resid_pre"), sl.CAA(torch.ones(D_MODEL))).export(
            tmp_path / "x", to=to, model=gpt2
        )


@pytest.mark.parametrize("to", FOLDERS)
def test_a_model_without_a_folder_is_refused_with_advice(to, folders, tmp_path):
    tokenizer = load(folders["gpt2"], "bridge").tokenizer
    given = sl.load(hf_model=read(folders["gpt2"]), tokenizer=tokenizer)
    with pytest.raises(Refused, match=r"no folder.*save_pretrained"):
        vectors(1).export(tmp_path / "x", to=to, model=given)


@pytest.mark.parametrize("to", FOLDERS)
def test_a_folder_or_file_that_is_there_stays_as_it_is(to, gpt2, tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("mine", encoding="utf-8")
    (tmp_path / "file").write_text("mine", encoding="utf-8")
    (tmp_path / "link").symlink_to(tmp_path / "full")
    for name, says in [
        ("full", "not empty"),
        ("file", "no folder"),
        ("link", "no folder"),
        ("no/such/place", "neither"),
    ]:
        with pytest.raises(CannotWrite, match=says):
            vectors(1).export(tmp_path / name, to=to, model=gpt2)
    assert (tmp_path / "full" / "mine.txt").read_text(encoding="utf-8") == "mine"
    (tmp_path / "empty").mkdir()
    vectors(1).export(tmp_path / "empty", to=to, model=gpt2)
    vectors(1).export(tmp_path / "new" / "x", to=to, model=gpt2)


def test_a_folder_that_is_broken_off_leaves_nothing(tmp_path):
    def broken_off() -> None:
        with drafted_folder(tmp_path / "new" / "x") as draft:
            (draft / "half").write_text("", encoding="utf-8")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        broken_off()
    assert not list(tmp_path.iterdir())


def test_drafts_of_the_day_before_are_cleared_away(tmp_path):
    import os

    for name, age in [("old", 2e5), ("new", 0.0)]:
        left = tmp_path / f".x.part-{name}"
        left.mkdir()
        os.utime(left, (left.stat().st_mtime - age,) * 2)
    with drafted_folder(tmp_path / "x") as draft:
        (draft / "file").write_text("", encoding="utf-8")
    assert {path.name for path in tmp_path.iterdir()} == {"x", ".x.part-new"}


# -- PEFT ------------------------------------------------------------------------------------------


def with_adapter(folder: Path, adapter: Path) -> Any:
    from peft import PeftModel

    return PeftModel.from_pretrained(read(folder), adapter).eval()


# It cannot be merged into a Llama, which has no bias to merge it into.
@pytest.mark.filterwarnings("ignore:.lora_bias=True. was passed")
def test_an_adapter_has_a_dial_and_an_off_switch(model, folder, tmp_path):
    steering = vectors(0, 2, 3)
    steering.export(tmp_path / "adapter", to="peft", model=model)
    steered = with_adapter(folder, tmp_path / "adapter")
    for strength in STRENGTHS:
        for module in steered.modules():
            if hasattr(module, "set_scale"):
                module.set_scale("default", strength)
        assert apart(plainly(steered), hooked(model, strength * steering)) < NEAR
    with steered.disable_adapter():
        assert torch.equal(plainly(steered), plainly(load_reference(folder)))


def test_an_adapter_is_small_and_says_what_it_is_for(gpt2, folders, tmp_path):
    from safetensors import safe_open

    done = vectors(1, 3).export(tmp_path / "a", to="peft", model=gpt2)
    names = [path.name for path in done.files]
    assert names == ["adapter_config.json", "adapter_model.safetensors"]
    config = json.loads(done.files[0].read_text(encoding="utf-8"))
    assert config["base_model_name_or_path"] == str(folders["gpt2"])
    assert config["target_modules"] == ["transformer.h.1.mlp.c_proj", "transformer.h.3.mlp.c_proj"]
    with safe_open(done.files[1], "pt") as file:
        assert file.metadata()["steerlens.method"] == "CAA"
        assert len(list(file.keys())) == 6
    assert done.files[1].stat().st_size < 5000
    vectors(1).export(tmp_path / "b", to="peft", model=gpt2, base="owner/name")
    config = json.loads((tmp_path / "b" / "adapter_config.json").read_text(encoding="utf-8"))
    assert config["base_model_name_or_path"] == "owner/name"


# -- A GGUF file as the model ----------------------------------------------------------------------


def test_a_gguf_model_is_written_from_what_it_was_unpacked_to(folders, tmp_path, monkeypatch):
    from tiny_gguf import write_gguf

    monkeypatch.setenv("STEERLENS_CACHE", str(tmp_path / "cache"))
    model = sl.load(write_gguf(tmp_path / "m.gguf", folders["llama"]))
    vectors(1).export(tmp_path / "v.gguf", to="gguf", model=model)
    fields, _ = gguf_of(tmp_path / "v.gguf")
    assert fields["controlvector.model_hint"] == "llama"
    assert fields["steerlens.made_of"].startswith("Q8_0 of")
    vectors(1).export(tmp_path / "baked", to="checkpoint", model=model)
    assert apart(plainly(read(tmp_path / "baked")), hooked(model, vectors(1))) < NEAR
    assert note_in(tmp_path / "baked") is None, "it is not what the file was unpacked to"


def test_a_request_says_what_it_is_made_of(gpt2, tmp_path):
    fit = sl.CAA.fit(gpt2, (["a b"], ["c d"]), 1)
    told = Request(3.0 * fit.steering, gpt2, tmp_path / "x", "a file").provenance()
    assert told["method"] == "CAA"
    assert told["data"] == fit.steering.origin.data
    assert all(isinstance(text, str) and text for text in told.values())


def test_a_family_is_that_of_the_configuration():
    from transformers import CONFIG_MAPPING

    gpt2 = family_of(CONFIG_MAPPING["gpt2"](), "A file")
    assert gpt2.name(3) == "transformer.h.3.mlp.c_proj"
