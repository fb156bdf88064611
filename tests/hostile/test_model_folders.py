"""Model folders of strangers: none runs code, opens a pickle, or is loaded with layers cut off."""

import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import steerlens

CODE = """
from pathlib import Path
Path(__file__).with_name("it-ran").write_text("")
raise SystemExit("it ran")
"""


@pytest.fixture
def folder(folders: dict[str, Path], tmp_path: Path) -> Path:
    """A tiny model of a stranger's, with code of its own beside it."""
    copied = Path(shutil.copytree(folders["gpt2"], tmp_path / "model"))
    for name in ("ours.py", "modeling_ours.py", "configuration_ours.py", "tokenization_ours.py"):
        (copied / name).write_text(CODE)
    return copied


@pytest.fixture(autouse=True)
def yes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever asks on the terminal is told yes, as by `yes |`."""
    monkeypatch.setattr("builtins.input", lambda *_: "y")


def changed(path: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


AUTO_MAP = {
    "AutoConfig": "configuration_ours.Config",
    "AutoModelForCausalLM": "modeling_ours.Model",
    "AutoTokenizer": ["tokenization_ours.Slow", "tokenization_ours.Fast"],
}


@pytest.mark.parametrize("kind", ["ours", None, 7, ["gpt2"]])
def test_a_type_that_needs_code_is_refused_and_nothing_is_run(kind: Any, folder: Path) -> None:
    changed(folder / "config.json", lambda c: c.update(model_type=kind, auto_map=AUTO_MAP))
    with pytest.raises(ValueError, match=r"needs Python code from the folder itself \(auto_map\)"):
        steerlens.load(folder)
    assert not (folder / "it-ran").exists()


def test_a_type_without_a_name_is_refused_too(folder: Path) -> None:
    def nameless(content: dict[str, Any]) -> None:
        del content["model_type"]
        content["auto_map"] = AUTO_MAP

    changed(folder / "config.json", nameless)
    with pytest.raises(ValueError, match="needs Python code"):
        steerlens.load(folder)


@pytest.mark.parametrize("name", ["config.json", "tokenizer_config.json"])
def test_a_known_type_is_read_by_transformers_own_code(name: str, folder: Path) -> None:
    changed(folder / name, lambda content: content.update(auto_map=AUTO_MAP))
    model: Any = steerlens.load(folder)
    assert model.cfg.n_layers
    assert not (folder / "it-ran").exists()


def test_a_tokenizer_of_its_own_class_runs_no_code(folder: Path) -> None:
    def own(content: dict[str, Any]) -> None:
        content.update(auto_map=AUTO_MAP, tokenizer_class="OursTokenizer")

    changed(folder / "tokenizer_config.json", own)
    try:
        steerlens.load(folder)
    except ValueError as error:
        assert "transformers could not load" in str(error)  # noqa: PT017  either will do
    assert not (folder / "it-ran").exists()


class Bomb:
    """Runs code where it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


def test_a_decoy_of_safetensors_does_not_have_the_pickle_opened(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "model.safetensors").rename(folder / "decoy.safetensors")
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Bomb(folder / "it-ran")))

    def opened(*_: Any, **__: Any) -> None:
        pytest.fail("a pickle was opened")

    monkeypatch.setattr("torch.load", opened)
    with pytest.raises(ValueError, match="transformers could not load"):
        steerlens.load(folder)
    assert not (folder / "it-ran").exists()


def test_weights_with_more_layers_than_the_configuration_are_refused(folder: Path) -> None:
    changed(folder / "config.json", lambda content: content.update(n_layer=1))
    with pytest.raises(ValueError, match=r"\d+ tensors that its configuration has no place for"):
        steerlens.load(folder)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[]", "holds a list"),
        ("null", "holds a NoneType"),
        ("{", "is not JSON"),
        ("[" * 50_000, "nested too deeply"),
        ('{"model_type": "gpt2", "n_layer": "many"}', "could not load"),
    ],
)
def test_a_configuration_that_is_none_is_a_sentence(text: str, says: str, folder: Path) -> None:
    (folder / "config.json").write_text(text)
    with pytest.raises(ValueError, match=says):
        steerlens.load(folder)
