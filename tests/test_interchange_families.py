"""A constant in place of hooks, in a tiny model of every type that there is a place for it in."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from architectures.zoo import ZOO, Architecture, write_folder
from tiny_models import BACKENDS

import steerlens as sl
from steerlens.interchange import families
from steerlens.interchange.families import FAMILIES, POST_NORM, Family, family_of
from steerlens.interchange.request import Refused

NEAR = 2e-4
D_MODEL = 32
IDS = torch.arange(50, 66)[None]
NAMED = {architecture.name: architecture for architecture in ZOO}
OPTIONS: dict[str, dict[str, Any]] = {
    "mistral": {"sliding_window": None},
    "granite": {"residual_multiplier": 0.5},
}
BIASES = [kind for kind, family in FAMILIES.items() if family.switch is not None]
NO_BIASES = [kind for kind in FAMILIES if kind not in BIASES and kind != "cohere"]
"""TransformerLens cannot load Cohere rightly (docs/architectures.md)."""
QUICK = ("gpt_neox", "granite", "mistral", "opt", "qwen2", "starcoder2")


def steering() -> sl.Steering:
    drawn = torch.randn(3, D_MODEL, generator=torch.Generator().manual_seed(0))
    return sum(sl.at(block, sl.CAA(0.5 * drawn[block])) for block in (0, 2))


def folder_of(kind: str, place: Path, **options: Any) -> Path:
    given = {**OPTIONS.get(kind, {}), **options}
    known = NAMED.get(kind, Architecture(kind, kind))
    return write_folder(Architecture(kind, kind, {**known.options, **given}), place / kind)


def loaded_on(folder: Path) -> list[Any]:
    """The model on every backend that can hold it."""
    found = []
    for backend in BACKENDS:
        try:
            found.append(sl.load(folder, backend=backend))
        except ValueError:
            assert backend == "hooked", "the bridge can hold all of them"
    return found


def read(folder: Path, adapter: Path | None = None) -> Any:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    return model if adapter is None else PeftModel.from_pretrained(model, adapter).eval()


@torch.no_grad()
def hooked(model: Any) -> torch.Tensor:
    with steering().applied(model):
        return model(IDS)[0]


@torch.no_grad()
def plainly(hf_model: Any) -> torch.Tensor:
    return hf_model(IDS).logits[0]


def require_the_same(kind: str, place: Path) -> None:
    """The checkpoint and the adapter of each backend are what the hooks do on it."""
    folder = folder_of(kind, place)
    for number, model in enumerate(loaded_on(folder)):
        expected = hooked(model)
        with torch.no_grad():
            assert float((model(IDS)[0] - expected).abs().max()) > 0.2
        if kind in BIASES:
            baked, adapter = place / f"baked-{number}", place / f"adapter-{number}"
            steering().export(baked, to="checkpoint", model=model)
            assert float((plainly(read(baked)) - expected).abs().max()) < NEAR
        adapter = place / f"adapter-{number}"
        steering().export(adapter, to="peft", model=model)
        assert float((plainly(read(folder, adapter)) - expected).abs().max()) < NEAR


@pytest.mark.filterwarnings("ignore:.lora_bias=True. was passed")
@pytest.mark.parametrize(
    "kind",
    [
        pytest.param(kind, marks=[] if kind in QUICK else [pytest.mark.slow])
        for kind in (*BIASES, *NO_BIASES)
    ],
)
def test_biases_and_adapters_are_what_the_hooks_do(kind, tmp_path):
    require_the_same(kind, tmp_path)


@pytest.mark.parametrize("kind", ["qwen2", "mistral"])
def test_a_llama_by_another_name_is_written_as_a_llama(kind, tmp_path):
    model = sl.load(folder_of(kind, tmp_path))
    steering().export(tmp_path / "baked", to="checkpoint", model=model)
    baked = read(tmp_path / "baked")
    assert type(baked).__name__ == "LlamaForCausalLM"
    assert baked.config.attention_bias == (kind == "qwen2")
    assert baked.config.rope_parameters == model.original_model.config.rope_parameters
    assert baked.config.eos_token_id == model.original_model.config.eos_token_id


def test_rotations_that_are_not_the_default_come_along(tmp_path):
    options = {"rope_parameters": {"rope_type": "linear", "factor": 4.0, "rope_theta": 5e4}}
    model = sl.load(folder_of("qwen2", tmp_path, **options))
    steering().export(tmp_path / "baked", to="checkpoint", model=model)
    assert float((plainly(read(tmp_path / "baked")) - hooked(model)).abs().max()) < NEAR


def test_a_sliding_window_is_refused_and_an_adapter_has_it(tmp_path):
    model = sl.load(folder_of("mistral", tmp_path, sliding_window=6))
    with pytest.raises(Refused, match=r"sliding window.*to=\"peft\""):
        steering().export(tmp_path / "baked", to="checkpoint", model=model)
    steering().export(tmp_path / "adapter", to="peft", model=model)


def test_a_model_whose_mlp_has_no_bias_is_refused(tmp_path):
    model = sl.load(folder_of("qwen3", tmp_path))
    with pytest.raises(Refused, match=r"'qwen3' has no bias in its MLP.*to=\"peft\""):
        steering().export(tmp_path / "baked", to="checkpoint", model=model)


@pytest.mark.parametrize("to", ["checkpoint", "peft"])
def test_a_norm_after_the_mlp_would_swallow_the_vector(to, tmp_path, monkeypatch):
    model = sl.load(folder_of("olmo2", tmp_path))
    with pytest.raises(Refused, match=r"\(olmo2\): a norm stands between"):
        steering().export(tmp_path / "x", to=to, model=model)
    # And if nobody knew: what is written is compared with the hooks.
    monkeypatch.setattr(families, "POST_NORM", ())
    monkeypatch.setitem(FAMILIES, "olmo2", Family("model.layers.{}.mlp.down_proj", None))
    with pytest.raises(Refused, match="no bias" if to == "checkpoint" else "withdrawn"):
        steering().export(tmp_path / "x", to=to, model=model)
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize("kind", POST_NORM)
def test_every_model_with_a_norm_after_the_mlp_is_known_by_its_type(kind):
    with pytest.raises(Refused, match="would swallow the vector"):
        family_of(SimpleNamespace(model_type=kind), "A file")


def test_other_models_are_refused_with_those_that_are_known():
    opt = SimpleNamespace(model_type="opt", do_layer_norm_before=False)
    with pytest.raises(Refused, match="a norm stands"):
        family_of(opt, "A file")
    with pytest.raises(Refused, match=r"^A file cannot .*type 'mixtral'.*Known are bloom, gpt2"):
        family_of(SimpleNamespace(model_type="mixtral"), "A file")
