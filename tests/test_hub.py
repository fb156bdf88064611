"""`push` and `pull` against a hub on loopback: what is written, what is checked, what is said.

The installed huggingface_hub asks; nothing leaves this machine. Its switches (offline, the address)
are read once, when it is imported, and are set by hand here.
"""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from catalogue import V
from fake_hub import TOKEN, Hub, serving
from tiny_models import load

import steerlens
from steerlens import CAA, PSR, at, load_steering, pull, push, response
from steerlens.interchange.card import measured_of, public_name
from steerlens.interchange.hub import HubError, repo_of
from steerlens.reading import read_steering

# huggingface_hub asks its own client for something by its old name.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")
STEERING = 2.0 * at([1, 2], CAA(V)).only(response)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A hub that is asked as if it were the real one, with a token and a cache of its own."""
    from huggingface_hub import constants

    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    with serving() as held:
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "ENDPOINT", held.address)
        template = held.address + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_PROGRESS_BARS", True)
        yield held


def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)


def facts_of(hub: Hub, repo: str) -> tuple[dict[str, Any], str]:
    """The facts of a card, and its text."""
    card = hub.repos[repo][-1]["README.md"].decode()
    _, facts, text = card.split("---\n", 2)
    return yaml.safe_load(facts), text


@pytest.fixture
def file(gpt2: Any, tmp_path: Path) -> Path:
    return STEERING.save(tmp_path / "caa.safetensors", gpt2)


def test_what_is_pushed_is_pulled_by_its_commit_and_steers(hub, file, gpt2, tmp_path):
    done = push(file, "me/kind", base_model="openai-community/gpt2", licence="mit")
    assert len(hub.repos["me/kind"]) == 1, "one commit"
    assert sorted(hub.repos["me/kind"][0]) == ["README.md", "steering.safetensors"]
    assert done.url == f"{hub.address}/me/kind"
    push(at(3, CAA(V)), "me/kind", model=gpt2)
    first = pull(f"me/kind@{done.revision}", tmp_path / "first.safetensors", model=gpt2)
    newest = pull("me/kind", tmp_path / "newest.safetensors")
    assert (first.revision, newest.revision) == (done.revision, hub.newest("me/kind"))
    assert first.revision != newest.revision
    assert load_steering(first.file, gpt2).sites == STEERING.sites
    assert load_steering(newest.file, gpt2).sites == at(3, CAA(V)).sites
    made = [
        steerlens.generate(gpt2, ["The dog"], one, temperature=0, max_new_tokens=6).texts
        for one in (STEERING, load_steering(first.file, gpt2))
    ]
    assert made[0] == made[1]


def test_the_card_says_what_it_is_and_how_good_it_was(hub, file, gpt2):
    push(
        file,
        "me/kind",
        base_model="openai-community/gpt2",
        licence="apache-2.0",
        faithfulness={"relative RMSE, layer 3": 0.25},
        measured_on="twelve | questions",
        datasets=["me/pairs"],
    )
    facts, text = facts_of(hub, "me/kind")
    results = facts.pop("model-index")
    assert facts == {
        "library_name": "steerlens",
        "base_model": "openai-community/gpt2",
        "base_model_relation": "adapter",
        "license": "apache-2.0",
        "tags": ["steerlens", "activation-steering", "caa"],
        "datasets": ["me/pairs"],
    }
    metric = results[0]["results"][0]["metrics"][0]
    assert (metric["name"], metric["value"]) == ("relative RMSE, layer 3", 0.25)
    assert "| relative RMSE, layer 3 | 0.25 |" in text
    assert "Measured on: twelve \\| questions." in text
    assert f"`{read_steering(file).origin.model.fingerprint}`" in text
    assert "CAA, strength 2, on the tokens of response" in text
    from huggingface_hub import ModelCard

    assert ModelCard(hub.repos["me/kind"][-1]["README.md"].decode()).data.base_model


def test_without_a_licence_the_card_says_so(hub, file):
    push(file, "me/kind")
    facts, text = facts_of(hub, "me/kind")
    assert "license" not in facts
    assert "base_model" not in facts, "a folder has no name on the hub"
    assert "None is given. Ask the owner" in text


def test_no_path_of_this_machine_is_published(hub, file, folders):
    assert str(folders["gpt2"]) in read_steering(file).origin.model.name
    push(file, "me/kind")
    for name, content in hub.repos["me/kind"][-1].items():
        assert str(folders["gpt2"].parent).encode() not in content, name
    assert read_steering(file).origin.model.name == str(folders["gpt2"]), "the file here stays"


def test_no_path_is_published_of_what_a_steering_was_moved_from(hub, file, tmp_path):
    read = read_steering(file)
    made_of = replace(read.origin.model, made_of="/home/ann/llama.gguf")
    moved = replace(read.origin, moved_from="/home/ann/first (abc)", model=made_of)
    push(replace(read, origin=moved), "me/kind")
    assert not any(b"/home" in content for content in hub.repos["me/kind"][-1].values())
    pulled = read_steering(pull("me/kind").file)
    assert pulled.origin.moved_from == "first (abc)"
    assert pulled.origin.model.made_of == "llama.gguf"


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("demo", "demo"),
        ("openai-community/gpt2", "openai-community/gpt2"),
        ("/home/ann/models/llama", "llama"),
        ("./llama", "llama"),
        ("C:\\models\\llama.gguf", "llama.gguf"),
        ("~", "~"),
        ("", ""),
    ],
)
def test_a_public_name_has_no_folders(name, shown):
    assert public_name(name) == shown


def test_a_steering_for_another_model_is_refused_before_it_is_written(hub, file, folders, tmp_path):
    push(file, "me/kind")
    other = load(folders["llama"], "bridge")
    with pytest.raises(ValueError, match="steering for another model"):
        pull("me/kind", tmp_path / "out.safetensors", model=other)
    assert not (tmp_path / "out.safetensors").exists()
    with pytest.raises(ValueError, match="steering for another model"):
        push(file, "me/other", model=other)
    assert "me/other" not in hub.repos


def test_a_damaged_file_is_refused(hub, file, tmp_path):
    push(file, "me/kind")
    content = bytearray(hub.repos["me/kind"][-1]["steering.safetensors"])
    content[-1] ^= 1
    hub.repos["me/kind"].append({"steering.safetensors": bytes(content)})
    with pytest.raises(ValueError, match="was changed after it was saved"):
        pull("me/kind", tmp_path / "out.safetensors")
    assert not (tmp_path / "out.safetensors").exists()


def test_a_steering_of_no_known_model_is_not_pushed(hub):
    with pytest.raises(ValueError, match=r"Nothing says which model.*--model NAME"):
        push(at(1, CAA(V)), "me/kind")
    assert not hub.asked


def test_what_is_not_there_is_said_with_what_to_do(hub, file, tmp_path):
    push(file, "me/kind")
    hub.private.add("me/secret")
    hub.gated.add("me/gated")
    hub.failing["me/broken"] = 400
    hub.repos |= {"me/gated": [{}], "me/broken": [{}]}
    for asked, said in (
        ("me/none", "no repository me/none that you may see"),
        ("me/kind@v9", "me/kind has no revision 'v9'"),
        ("me/gated", "me/gated is gated: ask for access"),
        ("me/broken", "with status 400"),
    ):
        with pytest.raises(HubError, match=said) as caught:
            pull(asked, tmp_path / "out.safetensors")
        assert TOKEN not in str(caught.value)
        assert caught.value.__cause__ is None
    with pytest.raises(HubError, match=r"holds no other\.safetensors"):
        pull("me/kind", tmp_path / "out.safetensors", file="other.safetensors")
    assert list(tmp_path.glob("out*")) == []


def test_without_a_token_a_private_repository_is_not_there_and_nothing_is_pushed(
    hub, file, monkeypatch
):
    from huggingface_hub import constants

    push(file, "me/secret", private=True)
    assert "me/secret" in hub.private
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", "/nowhere")
    with pytest.raises(HubError, match=r"it is private\. Look at its name, or log in"):
        pull("me/secret")
    with pytest.raises(HubError, match=r"refuses to push me/new \(status 401\)"):
        push(file, "me/new")
    assert pull("me/secret", token=TOKEN).file.is_file()


def test_offline_nothing_is_asked_and_what_was_fetched_is_there(hub, file, gpt2, monkeypatch):
    done = push(file, "me/kind")
    online = pull("me/kind")
    offline(monkeypatch)
    hub.asked.clear()
    again = pull(f"me/kind@{done.revision}", model=gpt2)
    assert again == online == pull("me/kind")
    with pytest.raises(HubError, match=r"me/kind@v1 was not fetched .* HF_HUB_OFFLINE=1"):
        pull("me/kind@v1")
    with pytest.raises(HubError, match="Cannot push me/kind: HF_HUB_OFFLINE=1"):
        push(file, "me/kind")
    assert not hub.asked


def test_a_hub_that_is_not_there_is_said_whatever_is_in_the_cache(hub, file, monkeypatch, tmp_path):
    from huggingface_hub import constants

    push(file, "me/kind")
    pull("me/kind")
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(HubError, match="cannot be reached"):
        push(file, "me/kind")
    with pytest.raises(HubError, match="cannot be reached"):
        pull("me/kind", tmp_path / "out.safetensors")


def test_reading_and_loading_ask_nobody(hub, file, gpt2):
    load_steering(file, gpt2)
    with pytest.raises(FileNotFoundError):
        load_steering("me/kind", gpt2)
    assert not hub.asked


@pytest.mark.parametrize(
    "name",
    ["", "kind", "me/kind/more", "me/", "/kind", "me/kind@", "me/../x", "https://x/y", "m e/x"],
)
def test_what_is_no_repository_is_refused(name):
    with pytest.raises(ValueError, match="is owner/name"):
        repo_of(name)


def test_a_repository_may_have_a_revision():
    assert repo_of("me/kind") == ("me/kind", None)
    assert repo_of("me/kind.v1@refs/pr/1") == ("me/kind.v1", "refs/pr/1")
    with pytest.raises(ValueError, match="a revision, and is told none"):
        push(at(1, CAA(V)), "me/kind@main")


def test_what_was_measured_is_of_one_method():
    import pandas as pd

    rows = [
        {"method": "CAA", "strength": "1", "layer": layer, "relative_rmse": 0.5 + layer}
        for layer in (1, 2)
    ]
    wanted = (
        ("relative RMSE, layer 1, strength 1", 1.5),
        ("relative RMSE, layer 2, strength 1", 2.5),
    )
    assert measured_of(rows) == measured_of(pd.DataFrame(rows)) == wanted
    assert measured_of(None) == ()
    with pytest.raises(ValueError, match="holds 2 methods"):
        measured_of([*rows, {**rows[0], "method": "PSR"}])
    with pytest.raises(ValueError, match="relative_rmse; found"):
        measured_of([{"layer": 1}])
    with pytest.raises(ValueError, match="is no number: 'good'"):
        measured_of({"R2": "good"})


def test_the_commands_push_and_pull(hub, run, tmp_path, file, folders):
    report = tmp_path / "faithfulness.json"
    row = {"strength": "1", "layer": 1, "relative_rmse": 0.5}
    rows = [{"method": name, **row} for name in ("CAA", "any instruction")]
    report.write_text(json.dumps({"faithfulness": rows}))
    gguf = tmp_path / "control-vector.gguf"
    gguf.write_bytes(b"GGUF")
    code, out, err = run(
        *("push", file, "--to", "me/kind", "--licence", "mit", "--also", gguf),
        *("--base-model", "openai-community/gpt2", "--faithfulness", report),
    )
    assert code == 0, err
    revision = hub.newest("me/kind")
    assert f"steerlens pull me/kind@{revision} --out steering.safetensors" in out
    assert TOKEN not in out + err
    assert "| relative RMSE, layer 1, strength 1 | 0.5 |" in facts_of(hub, "me/kind")[1]
    assert sorted(hub.repos["me/kind"][-1])[1] == "control-vector.gguf"
    target = tmp_path / "pulled.safetensors"
    code, out, err = run("pull", "me/kind", "--out", target, "--json")
    assert code == 0, err
    told = json.loads(out)
    assert told == {"file": str(target), "repo": "me/kind", "revision": revision}
    code, out, err = run("pull", "me/none", "--out", target)
    assert (code, out) == (2, "")
    assert err.startswith("error: There is no repository me/none")
    code, _, err = run("push", tmp_path / "none.safetensors", "--to", "me/kind")
    assert code == 2
    assert "no steering file" in err
    report.write_text(json.dumps({"faithfulness": rows[1:]}))
    code, _, err = run("push", file, "--to", "me/kind", "--faithfulness", report)
    assert code == 2
    assert "of the method that is published, CAA, none" in err


def test_two_files_of_one_name_are_refused(hub, file, tmp_path):
    other = tmp_path / "README.md"
    other.write_text("mine")
    with pytest.raises(ValueError, match=r"called README\.md"):
        push(file, "me/kind", also=[other])
    with pytest.raises(FileNotFoundError, match="no file"):
        push(file, "me/kind", also=[tmp_path / "none.gguf"])
    assert not hub.asked


def test_methods_are_tags(hub, gpt2):
    both = at(1, CAA(V)) + at(2, PSR.constant(V)) + at(3, CAA(V))
    push(both, "me/both", model=gpt2, licence="mit")
    assert facts_of(hub, "me/both")[0]["tags"] == ["steerlens", "activation-steering", "caa", "psr"]
