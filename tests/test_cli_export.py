"""`steerlens export`: what it writes, what it prints, and the mistakes that it finds beforehand."""

import json
from typing import Any

import pytest

import steerlens as sl
from steerlens.cli import inputs

TEXTS = '{"user": "How was it?", "response": "Good."}\n{"user": "Tell me."}\n'


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Steering files: everywhere, on the response, and at a block that llama.cpp cannot steer."""
    folder = tmp_path_factory.mktemp("steerings")
    demo = sl.load("demo")
    caa = sl.CAA.fit(demo, (["I loved it"], ["I hated it"]), 3).steering
    caa.save(folder / "caa.safetensors")
    caa.only(sl.response).save(folder / "response.safetensors")
    sl.at(0, caa.placed[0][1]).save(folder / "zero.safetensors", demo)
    (folder / "texts.jsonl").write_text(TEXTS, encoding="utf-8")
    return folder


def test_a_file_is_written_at_its_strength_and_named(run, files, tmp_path):
    from gguf import GGUFReader

    out = tmp_path / "v.gguf"
    code, said, _ = run(
        "export", files / "caa.safetensors", "--to", "gguf", "--out", out, "--strength", 2
    )
    assert code == 0
    assert str(out) in said
    read = sl.load_steering(files / "caa.safetensors", sl.load("demo"))
    v = read.placed[0][1].direction
    (tensor,) = GGUFReader(out).tensors
    assert tensor.name == "direction.3"
    assert tensor.data.tolist() == (2 * v).tolist()


def test_json_lists_the_files_of_a_folder(run, files, tmp_path):
    code, said, _ = run(
        *("export", files / "caa.safetensors", "--to", "peft", "--out", tmp_path / "a", "--json"),
        *("--option", "base=owner/name"),
    )
    assert code == 0
    told = json.loads(said)
    assert told["target"] == "peft"
    assert [name.rpartition("/")[2] for name in told["files"]] == [
        "adapter_config.json",
        "adapter_model.safetensors",
    ]
    assert told["difference"] is None
    config = json.loads((tmp_path / "a" / "adapter_config.json").read_text(encoding="utf-8"))
    assert config["base_model_name_or_path"] == "owner/name"


def test_what_is_no_constant_is_approximated_where_that_is_asked_for(run, files, tmp_path):
    asked = ("export", files / "response.safetensors", "--to", "gguf", "--out", tmp_path / "v.gguf")
    code, _, said = run(*asked)
    assert code == 2
    assert "--scope everywhere" in said
    assert "--approximate" in said
    code, said, _ = run(*asked, "--approximate", "--texts", files / "texts.jsonl", "--json")
    assert code == 0
    difference = json.loads(said)["difference"]
    assert 0 < difference["kl"] < difference["kl_of_nothing"]
    assert difference["tokens"] > 2


@pytest.mark.parametrize(
    ("steering", "options", "says"),
    [
        ("caa", {"--to": "ggml"}, "--to is one of gguf"),
        ("gone", {}, "There is no steering file"),
        ("caa", {"--strength": "inf"}, "--strength must be a finite number"),
        ("caa", {"--approximate": None}, "give both of them"),
        ("caa", {"--texts": "texts.jsonl"}, "give both of them"),
        ("caa", {"--approximate": None, "--texts": "gone.jsonl"}, "There is no file"),
        ("caa", {"--out": "caa.safetensors"}, "is the file of STEERING"),
        ("caa", {"--option": "base"}, "--option is NAME=VALUE"),
        ("caa", {"--out": "."}, "it is a folder"),
        ("caa", {"--to": "peft", "--out": "."}, "not empty"),
        ("caa", {"--to": "checkpoint", "--out": "texts.jsonl"}, "is no folder"),
        ("caa", {"--approximate": None, "--texts": "t", "--out": "t"}, "is the file of --texts"),
    ],
)
def test_mistakes_are_found_before_the_model_is_loaded(
    steering, options, says, run, files, tmp_path, monkeypatch
):
    monkeypatch.setattr(inputs, "load", lambda *_: pytest.fail("the model is loaded"))
    monkeypatch.chdir(files)
    given = {"--to": "gguf", "--out": str(tmp_path / "x"), **options}
    words = [word for pair in given.items() for word in pair if word is not None]
    before = {path: path.read_bytes() for path in files.iterdir()}
    code, _, said = run("export", f"{steering}.safetensors", *words)
    assert code == 2
    assert says in said
    assert not list(tmp_path.iterdir())
    assert {path: path.read_bytes() for path in files.iterdir()} == before


def test_what_the_target_cannot_hold_is_one_line(run, files, tmp_path):
    out = tmp_path / "v.gguf"
    code, _, error = run("export", files / "zero.safetensors", "--to", "gguf", "--out", out)
    assert code == 2
    assert error.count("\n") == 1
    assert "cannot steer the output of block 0" in error
    code, _, _ = run(
        *("export", files / "zero.safetensors", "--to", "checkpoint", "--out", tmp_path / "baked")
    )
    assert code == 0
    assert not out.exists()


def test_the_models_own_files_are_never_written_over(run, files, tmp_path):
    import shutil

    from steerlens.models import DEMO

    shutil.copytree(DEMO, tmp_path / "m")
    before = (tmp_path / "m" / "model.safetensors").read_bytes()
    out = tmp_path / "m" / "model.safetensors"
    code, _, said = run(
        *("export", files / "caa.safetensors", "--to", "gguf", "--model", tmp_path / "m"),
        *("--out", out),
    )
    assert code == 2
    assert "is the file of --model" in said
    assert out.read_bytes() == before


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ('{"prompt": "The film"}', "The film"),
        ('{"user": "Hi"}', sl.Conversation("Hi")),
        ('{"user": "Hi", "response": "Ho"}', sl.Conversation("Hi", response="Ho")),
        ('{"user": "Hi", "system": "S"}', sl.Conversation("Hi", "S")),
        (
            '{"messages": [{"role": "user", "content": "\U0001f642"}]}',
            sl.Conversation("\U0001f642"),
        ),
        ('{"prompt": [{"role": "user", "content": "Hi"}]}', sl.Conversation("Hi")),
    ],
)
def test_a_text_is_written_in_any_of_these_ways(line, expected, tmp_path):
    from steerlens.jsonl import read_prompts

    (tmp_path / "t.jsonl").write_text(f"{line}\n\n", encoding="utf-8")
    assert read_prompts(tmp_path / "t.jsonl") == [expected]


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("", "is empty"),
        ('"Hi"', "a str, not an object"),
        ('{"response": "Ho"}', "'user' is missing"),
        ('{"user": 3}', "must be text"),
        ('{"prompt": "a", "user": "b"}', "unknown field"),
        ("{", "line 1"),
    ],
)
def test_a_line_that_is_no_text_is_named(line, says, tmp_path):
    from steerlens.jsonl import read_prompts

    (tmp_path / "t.jsonl").write_text(line, encoding="utf-8")
    with pytest.raises(ValueError, match=says):
        read_prompts(tmp_path / "t.jsonl")
