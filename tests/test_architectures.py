"""Tiny models of many architectures: whatever is not refused is what transformers computes.

The trials are those of docs/architectures.md, which has all architectures (`make architectures`).
"""

from pathlib import Path
from typing import Any

import pytest
import torch
from architectures import measure, page
from architectures.zoo import LEFT_OUT, ZOO, Architecture, build, config_of, write_folder
from tiny_models import BACKENDS, build_tokenizer

NAMED = {architecture.name: architecture for architecture in ZOO}

QUICK = ("llama, linear RoPE", "mixtral", "gptj")
THOROUGH = (
    "llama, MLP biases",  # HookedTransformer 3.9 puts zeros there
    "gpt2, unscaled attention",  # the bridge is wrong there
    "gpt_neox, linear RoPE",
    "qwen3, sliding window",
    "gemma2",  # norms on both sides, soft caps
    "bloom, post layernorm",
    "opt, shape of 350m",
    "phi",
    "cohere",  # the bridge of TransformerLens 3.9 is wrong there
    "deepseek_v3",  # and there
    "falcon, ALiBi",  # and every bridge there
    "olmoe",
    "gpt_neo",  # blocks that return tuples
    "mpt",
    "mamba",  # no key-value cache
    "jamba",
    "rwkv",  # no mask either
    "recurrent_gemma",
)
ROPES = ("linear RoPE", "yarn RoPE", "llama3 RoPE")


@pytest.mark.parametrize("name", QUICK)
def test_what_is_not_refused_is_right(name: str, tmp_path: Path) -> None:
    require_right(name, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name", THOROUGH)
def test_what_is_not_refused_is_right_on_every_kind_of_architecture(
    name: str, tmp_path: Path
) -> None:
    require_right(name, tmp_path)


def require_right(name: str, folder: Path) -> None:
    """No cell is wrong or a raw error, and `auto` takes what some backend takes."""
    write_folder(NAMED[name], folder)
    tried = {backend: measure.measured(folder, backend) for backend in (*BACKENDS, "auto")}
    bad = [
        f"{backend}, {trial}: {cell['state']}: {cell['said']} {cell['where']}"
        for backend, cells in tried.items()
        for trial, cell in cells.items()
        if cell["state"] not in ("works", "none", "refused")
    ]
    assert not bad, "\n".join(bad)
    assert len({cells["identity"]["said"] for cells in tried.values() if "identity" in cells}) <= 1
    loaded = [cells["load"]["state"] == "works" for cells in tried.values()]
    assert loaded[-1] == any(loaded)


@pytest.mark.parametrize("name", [f"llama, {rope}" for rope in ROPES])
def test_an_option_of_the_zoo_changes_the_logits(name: str) -> None:
    """Or a backend that leaves it out would pass for right."""
    tokenizer = build_tokenizer("llama")
    ids = torch.tensor([tokenizer(measure.PROMPTS[0])["input_ids"]])
    plain, other = build(NAMED["llama"], tokenizer), build(NAMED[name], tokenizer)
    other.load_state_dict(plain.state_dict())
    with torch.no_grad():
        apart = (plain(ids).logits - other(ids).logits).abs().max()
    assert apart > 100 * measure.TOLERANCE


def test_no_two_architectures_have_one_name() -> None:
    assert len(NAMED) == len(ZOO)


def test_every_model_of_the_library_is_tried_or_left_out_with_a_reason() -> None:
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    tried = {architecture.model_type for architecture in ZOO}
    left_out = {name for names in LEFT_OUT.values() for name in names.split()}
    assert not tried & left_out
    assert set(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES) <= tried | left_out


@pytest.mark.slow
def test_every_architecture_can_be_built_and_none_is_large() -> None:
    from transformers import AutoModelForCausalLM

    tokenizer = build_tokenizer("llama")
    for architecture in ZOO:
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(config_of(architecture, tokenizer))
        assert sum(weight.numel() for weight in model.parameters()) < 1e6, architecture.name


# -- What the trials find --------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trial(tmp_path_factory: pytest.TempPathFactory) -> measure.Trial:
    folder = write_folder(NAMED["llama"], tmp_path_factory.mktemp("llama"))
    return measure.Trial(folder, "bridge")


@pytest.mark.parametrize("trial_name", ["logits", "resid_post", "padded", "cached", "PSR", "CLAS"])
def test_a_reference_with_other_weights_is_found_wrong(
    trial: measure.Trial, trial_name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = build(Architecture("other", "llama"), build_tokenizer("llama"), seed=1)
    fresh = measure.Trial(trial.folder, trial.backend)
    monkeypatch.setitem(fresh.__dict__, "model", trial.model)
    monkeypatch.setitem(fresh.__dict__, "plain", other)
    cell = measure.attempt(measure.TRIALS[trial_name], fresh)
    assert cell.state == "WRONG", cell


def test_a_sentence_of_ours_is_a_refusal_and_any_other_error_is_not(trial: measure.Trial) -> None:
    def ours(_: measure.Trial) -> str:
        return str(measure.steerlens.encode(trial.model, ""))

    def theirs(_: measure.Trial) -> str:
        return str(trial.model.cfg.no_such_thing)

    refused = measure.attempt(ours, trial)
    assert (refused.state, refused.said[:20]) == ("refused", "The prompt is empty.")
    assert measure.attempt(theirs, trial).state == "error"


# -- The page --------------------------------------------------------------------------------------


def environment(version: str, rows: dict[str, Any]) -> dict[str, Any]:
    versions = {"transformer-lens": version, "transformers": "5", "torch": "2"}
    return {"versions": versions, "python": "3.11", "date": "2026-01-01", "rows": rows}


def cell(state: str = "works", said: str = "") -> dict[str, str]:
    return {"state": state, "said": said, "where": ""}


def test_the_page_has_a_row_an_architecture_and_a_footnote_a_sentence() -> None:
    good = {"load": cell(said="bridge"), "logits": cell(), "identity": cell(said="one")}
    rows = {
        "fine": {"bridge": good, "auto": good},
        "half": {"bridge": good | {"PSR": cell("error", "Oh"), "CLAS": cell("error", "Oh")}},
        "none": {"bridge": {"load": cell("refused", "No, because.")}},
    }
    elsewhere = {"fine": {"bridge": good | {"identity": cell(said="another")}}}
    text = page.text([environment("4.3.0", elsewhere), environment("3.9.0", rows)])
    assert "| architecture | bridge 3.9 | bridge 4.3 | *auto* 3.9 |" in text
    assert "| fine | ✓ | ≠ identity[^1] | bridge |" in text
    assert "| half | ✗ PSR, CLAS[^2] |" in text
    assert "| none | –[^3] |" in text
    assert "[^3]: No, because." in text
    assert "| bridge 3.9 | 1 | 0 | 1 | 0 | 1 | 0 |" in text


def test_the_page_in_the_docs_has_every_architecture() -> None:
    """`make architectures` writes it; a new architecture stands there with its results."""
    text = (Path(__file__).parent.parent / "docs" / "architectures.md").read_text(encoding="utf-8")
    missing = [name for name in NAMED if f"\n| {name} |" not in text]
    assert not missing, missing
