"""What is said: where a file is wrong, in words that no terminal obeys, and what was kept."""

import io
import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from steerlens import jsonl
from steerlens.analysis.bench.tasks import read_tasks  # pyright: ignore[reportMissingImports]
from steerlens.conversations import Conversation
from steerlens.parsing import few, harmless, short
from steerlens.whole import CannotWrite, write_whole

PAIR = {"user": "Review a film.", "system": "Be positive.", "response": "Superb!"}
CONTRASTS = [{"positive": f"I loved it {i}", "negative": f"I hated it {i}"} for i in range(3)]
READERS = {
    "pairs": (jsonl.read_prompt_pairs, PAIR),
    "labelled": (jsonl.read_labelled_pairs, {**PAIR, "label": 0.5}),
    "contrasts": (jsonl.read_contrasts, CONTRASTS[0]),
    "wishes": (jsonl.read_wishes, {"prompt": "a", "options": {" b": 1.0}}),
}
ESCAPES = "\x1b]0;title\x07\x1b[2J\x9b31m\rover\x08\x7f\u202eback\u2066"

pytestmark = pytest.mark.usefixtures("unchecked")


def lines(*rows: Any) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


# -- Files that are no text ------------------------------------------------------------------------


@pytest.mark.parametrize("name", READERS)
@pytest.mark.parametrize(
    ("encoding", "says"),
    [("utf-16", "line 1: .*UTF-16"), ("latin-1", "line 3: .*byte 0xe9"), ("cp1252", "line 3: ")],
)
def test_undecodable_bytes_are_told_by_file_and_line(
    name: str, encoding: str, says: str, tmp_path: Path
) -> None:
    read, row = READERS[name]
    path = tmp_path / "rows.jsonl"
    text = lines(row, row) + json.dumps({**row, "x": "é"}, ensure_ascii=False) + "\n"
    path.write_bytes(text.encode(encoding))
    with pytest.raises(ValueError, match=f"rows.jsonl, {says}.*Save it as UTF-8"):
        read(path)


@pytest.mark.parametrize("name", READERS)
@pytest.mark.parametrize("half", ["\\ud800", "\\uDFFF", "\\ude00\\ud83d"])
def test_half_a_character_is_told_by_file_and_line(name: str, half: str, tmp_path: Path) -> None:
    read, row = READERS[name]
    path = tmp_path / "rows.jsonl"
    broken = json.dumps(row).replace(": ", f': "{half}", "{half}": ', 1)
    first = next(value for value in row.values() if isinstance(value, str))
    for text in (json.dumps(row).replace(f'"{first}"', f'"{first} {half}"'), broken):
        path.write_text(lines(row) + text)
        with pytest.raises(ValueError, match=r"rows.jsonl, line 2: "):
            read(path)
    path.write_text(json.dumps(row).replace(f'"{first}"', f'"{first} \\ud83d\\ude00"'))
    read(path)  # both halves are a character


def test_a_bench_file_in_another_encoding_is_told_by_line(tmp_path: Path) -> None:
    path = tmp_path / "tasks.json"
    path.write_bytes('{\n"é": 1}'.encode("latin-1"))
    with pytest.raises(ValueError, match=r"tasks.json, line 2: this is no UTF-8 text"):
        read_tasks(path)


def test_an_argument_that_is_no_text_is_named(run: Any) -> None:
    for words, name in (
        (("generate", "--prompt", "a\udcff"), "--prompt"),
        (("pull", "a\udcff", "--out", "x"), "REPOSITORY"),
    ):
        code, _, err = run(*words)
        assert (code, err.count("\n")) == (2, 1)
        assert f" {name} is no UTF-8 text" in err


# -- Many or long names ----------------------------------------------------------------------------


def test_unknown_fields_are_counted(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(lines({**PAIR, **{f"f{i}": 0 for i in range(100_000)}}))
    with pytest.raises(ValueError, match=r"100000 unknown fields: .* and 99995 more") as caught:
        jsonl.read_prompt_pairs(path)
    assert len(str(caught.value)) < 400


BIG = "x" * 100_000


@pytest.mark.parametrize(
    "row",
    [
        {BIG: 1},
        {**PAIR, BIG: 1},
        {"messages": BIG, "response": "a"},
        {"messages": [{"role": BIG, "content": "a"}]},
        {"messages": [{f"r{i}": 1 for i in range(9999)}]},
        {**PAIR, "label": BIG},
        {f"f{i}": 1 for i in range(9999)},
    ],
)
def test_no_message_is_as_long_as_what_it_is_about(row: Any, tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(lines(row))
    for read in (jsonl.read_prompt_pairs, jsonl.read_labelled_pairs):
        with pytest.raises(ValueError, match=r"line 1: ") as caught:
            read(path)
        assert len(str(caught.value)) < 700


def test_a_field_that_is_there_twice_among_many_is_found_quickly(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    fields = ", ".join(f'"f{i}": 0' for i in range(100_000))
    path.write_text(f'{{{fields}, "f7": 1}}')
    with pytest.raises(ValueError, match="'f7' is there twice"):
        jsonl.read_prompt_pairs(path)


def test_names_are_cut() -> None:
    assert few({"b", "a"}) == "a, b"
    assert few(range(7), 2) == "0, 1 and 5 more"
    assert len(few([BIG])) < 60
    assert short(BIG).endswith("(100002 characters)")


# -- Escapes ---------------------------------------------------------------------------------------


def obeyed(text: str) -> list[str]:
    return [
        c for c in text if (c < " " and c not in "\n\t") or "\x7f" <= c < "\xa0" or c in "\u202e"
    ]


def test_escapes_are_written_out_and_letters_stay() -> None:
    assert not obeyed(harmless(ESCAPES))
    assert harmless("\x1b[2J") == "\\x1b[2J"
    for text in ("é 漢字 😀 👩\u200d💻 עברית \n\t", "נִ", "می\u200cخواهم"):
        assert harmless(text) == text


@pytest.mark.parametrize("what", ["file", "field", "steering", "out", "value"])
def test_a_name_from_a_file_commands_no_terminal(what: str, run: Any, tmp_path: Path) -> None:
    name = ESCAPES.replace("/", "")
    pairs, out = tmp_path / "pairs.jsonl", tmp_path / "out"
    words = ["fit", "caa", "--layer", "2", "--out", str(out), "--pairs", str(pairs)]
    if what == "file":
        words[-1] = str(tmp_path / name)
    elif what == "field":
        pairs.write_text(lines({name: 1}))
    elif what == "value":
        pairs.write_text(lines({"positive": [{"role": name, "content": ""}], "negative": "a"}))
    elif what == "out":
        words[5] = str(tmp_path / name / name / "x")
    else:
        words = ["generate", "--prompt", "a", "--steering", str(tmp_path / name)]
    code, out_, err = run(*words)
    assert (code, err.count("\n")) == (2, 1)
    assert not obeyed(out_ + err)


def test_what_is_printed_commands_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    from steerlens.cli.output import show

    show(f"The report is at {ESCAPES}")
    assert not obeyed(capsys.readouterr().out)


# -- Standard input --------------------------------------------------------------------------------


@pytest.fixture
def given(monkeypatch: pytest.MonkeyPatch) -> Any:
    def give(text: bytes) -> None:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text)))

    return give


def test_a_dash_reads_standard_input(given: Any, run: Any, tmp_path: Path) -> None:
    content = lines(*CONTRASTS)
    (tmp_path / "pairs.jsonl").write_text(content)
    given(content.encode())
    for pairs, name in (("-", "a"), (tmp_path / "pairs.jsonl", "b")):
        words = ("fit", "caa", "--layer", "2", "--pairs", pairs, "--out", tmp_path / name)
        assert run(*words)[0] == 0
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_standard_input_may_be_read_again_and_is_named(given: Any) -> None:
    given(lines(PAIR).encode())
    assert jsonl.read_prompt_pairs("-") == jsonl.read_prompt_pairs("-")
    for text, says in ((b"", "standard input is empty"), (b"\n\xff", "standard input, line 2")):
        given(text)
        with pytest.raises(ValueError, match=says):
            jsonl.read_prompt_pairs("-")
    given(b"{}")
    with pytest.raises(ValueError, match="standard input, line 1"):
        jsonl.read_prompt_pairs("-")


def test_standard_input_is_one_file(given: Any, run: Any, tmp_path: Path) -> None:
    given(b"")
    words = ("fit", "loreft", "--layers", "2", "--pairs", "-", "--validation", "-")
    code, _, err = run(*words, "--out", tmp_path / "x")
    assert code == 2
    assert "--pairs and --validation are several" in err


# -- What was kept ---------------------------------------------------------------------------------


def test_nothing_was_left_behind_where_it_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("steerlens.whole._put", full)
    with pytest.raises(CannotWrite, match="Nothing was left behind"):
        write_whole(tmp_path / "new folder" / "x", b"new")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "x").write_text("earlier")
    with pytest.raises(CannotWrite, match="The earlier file is as it was"):
        write_whole(tmp_path / "x", b"new")
    monkeypatch.setattr(Path, "unlink", lambda *_, **__: full())
    with pytest.raises(CannotWrite, match=r"\.draft was left behind, delete it"):
        write_whole(tmp_path / "y", b"new")


def test_a_folder_that_was_there_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    (tmp_path / "empty").mkdir()
    monkeypatch.setattr("steerlens.whole._put", full)
    with pytest.raises(CannotWrite):
        write_whole(tmp_path / "empty" / "x", b"new")
    assert (tmp_path / "empty").is_dir()


@pytest.mark.parametrize("earlier", [False, True])
@pytest.mark.parametrize("checkpoint", [False, True])
def test_ctrl_c_says_what_was_kept(
    earlier: bool, checkpoint: bool, run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pairs, out, half = tmp_path / "pairs.jsonl", tmp_path / "out.st", tmp_path / "half.st"
    pairs.write_text(lines(*[{**PAIR, "user": f"Film {i}"} for i in range(3)]))
    if earlier:
        out.write_text("earlier")

    def stop(*_: Any, **__: Any) -> None:
        if checkpoint:
            half.write_text("half")
        raise KeyboardInterrupt

    monkeypatch.setattr("steerlens.methods.psr.PSR.fit", stop)
    words = ["fit", "psr", "--layers", "2", "--pairs", pairs, "--out", out, "--checkpoint", half]
    code, _, err = run(*(words if checkpoint else words[:-2]))
    said = err.strip().splitlines()[-1]
    assert (code, "Traceback" in err) == (130, False)
    assert said.startswith("stopped. ")
    assert (f"{out} is as it was" in said) == earlier
    assert ("half.st holds the training so far: the same command goes on" in said) == checkpoint
    assert ("No file was written" in said) == (not earlier and not checkpoint)


def test_ctrl_c_in_a_bench_names_its_folder(
    run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("steerlens.analysis.bench.parallel.run", stop)
    code, _, err = run("bench", "run", "--out", tmp_path)
    assert code == 130
    assert f"What was finished is in {tmp_path}" in err


def test_a_pipe_is_no_file_of_lines(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for read in (*(read for read, _ in READERS.values()), read_tasks):
        with pytest.raises(ValueError, match=r"is a pipe or a device, no regular file"):
            read(tmp_path / "pipe")


def test_a_conversation_in_any_language_is_one() -> None:
    assert Conversation("می\u200cخواهم").user == "می\u200cخواهم"
