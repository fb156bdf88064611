"""The command line's options about chat templates, and conversations of several turns in files."""

import json
import warnings
from pathlib import Path
from typing import Any

import pytest
from real_templates import GEMMA_2, QWEN_2_5, QWEN_3

import steerlens
from steerlens import Conversation, PromptPair, read_contrasts, read_prompt_pairs, read_wishes
from steerlens.cli import inputs
from steerlens.cli.options import RunOptions, Templating
from steerlens.jsonl import read_labelled_pairs

SHORT = ("--max-new-tokens", 3)
TALK = [
    {"role": "user", "content": "Hi"},
    {"role": "assistant", "content": "Ho"},
    {"role": "user", "content": "What is it?"},
]
TOLD = [{"role": "system", "content": "Be kind."}, *TALK]
SAID = {"role": "assistant", "content": "It is."}


@pytest.fixture
def folder_with(tmp_path: Path, folders: dict[str, Path]) -> Any:
    """The tiny Llama's folder with another chat template."""

    def write(template: str) -> Path:
        folder = tmp_path / "model"
        model = steerlens.load(folders["llama"])
        model.tokenizer.chat_template = template
        model.tokenizer.save_pretrained(folder)
        for file in folders["llama"].iterdir():
            if not (folder / file.name).exists():
                (folder / file.name).write_bytes(file.read_bytes())
        return folder

    return write


@pytest.fixture
def lines_of(tmp_path: Path) -> Any:
    """A JSON Lines file of these objects."""

    def write(*rows: object) -> Path:
        path = tmp_path / "lines.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return path

    return write


def test_an_instruction_in_the_user_turn_serves_generate_and_psr(run, folder_with, lines_of):
    model = folder_with(GEMMA_2)
    asked = ("generate", "--model", model, "--prompt", "Hi", "--system", "Be kind.", *SHORT)
    code, _, err = run(*asked)
    assert code == 2
    assert "System role not supported" in err
    assert run(*asked, "--instruction-in", "user")[0] == 0
    lines = lines_of(*({"user": user, "system": "Be kind."} for user in ("What?", "Who?")))
    fit = ("fit", "psr", "--pairs", lines, "--layers", 1, "--model", model, *SHORT)
    out = lines.parent / "psr.safetensors"
    options = ("--surface", "QR", "--epochs", 1, "--instruction-in", "user", "--out", out)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", steerlens.SteeringWarning)  # a single step
        assert run(*fit, *options)[0] == 0
    assert out.is_file()


@pytest.mark.filterwarnings("default::steerlens.SteeringWarning")
def test_the_default_system_prompt_is_told_and_chosen(run, folder_with, lines_of):
    long = "You are Qwen, created by Alibaba Cloud. You are a helpful assistant."
    model = folder_with(QWEN_2_5.replace(long, "You are Qwen."))
    asked = ("generate", "--model", model, "--prompt", "Hi", *SHORT)
    code, _, err = run(*asked)
    assert (code, "You are Qwen" in err) == (0, True)
    for choice in ("none", "", "You are a critic."):
        assert run(*asked, "--default-system", choice)[::2] == (0, "")
    lines = lines_of(*({"user": user, "system": "Be kind.", "response": "So"} for user in "abcd"))
    out = lines.parent / "caa"
    steerlens.CAA.fit(steerlens.load(model), (["a"], ["b"]), 1).steering.save(out)
    compare = ("compare", "--pairs", lines, "--steering", out, "--model", model, "--json")
    for choice, held in (("none", "none"), ("Hm.", "'Hm.', as chosen")):
        page = lines.parent / f"{choice}.html"
        code, told, _ = run(*compare, "--out", page, "--default-system", choice)
        assert (code, json.loads(told)["plain_system"]) == (0, held)
        assert "system text of the plain prompts" in page.read_text(encoding="utf-8")


def test_arguments_reach_the_template(run, folder_with):
    asked = ("generate", "--model", folder_with(QWEN_3), "--prompt", "Hi", *SHORT)
    assert run(*asked, "--template-argument", "enable_thinking=false")[0] == 0
    for given, said in (("enable=1", "does not ask for 'enable'"), ("x", "NAME=VALUE")):
        code, _, err = run(*asked, "--template-argument", given)
        assert code == 2
        assert said in err
    code, _, err = run(*asked, "--raw", "--default-system", "none")
    assert (code, "--raw has no template" in err) == (2, True)
    code, _, err = run(*asked, "--instruction-in", "nowhere")
    assert (code, "nowhere" in err) == (2, True)


def test_the_value_of_an_argument_is_json_or_text():
    given = ["a=false", "b=True", "c=3", "d=1 May 2020", 'e={"f": 1}', "g=x=y"]
    made = Templating(template_argument=given).template().arguments
    assert made == {"a": False, "b": True, "c": 3, "d": "1 May 2020", "e": {"f": 1}, "g": "x=y"}
    assert RunOptions().place[3] == steerlens.Template()


def test_lines_of_messages_are_pairs(lines_of):
    asked = Conversation("What is it?", "Be kind.", history=(("user", "Hi"), ("assistant", "Ho")))
    pair = PromptPair.with_system(asked.without_system(), "Be kind.", "It is.")
    lines = lines_of(
        {"messages": [*TOLD, SAID]},
        {"messages": TOLD, "response": "It is."},
        {"plain": TALK, "prompted": TOLD, "response": "It is."},
        {"messages": TOLD},
    )
    assert read_prompt_pairs(lines) == [pair, pair, pair, asked]
    alone = PromptPair(asked.without_system(), asked.without_system(), "It is.")
    assert read_prompt_pairs(lines_of({"messages": [*TALK, SAID]}), system_optional=True) == [alone]
    labelled = lines_of({"messages": [*TOLD, SAID], "label": 0.5})
    assert read_labelled_pairs(labelled) == ([pair], [0.5])


def test_a_line_without_a_response_is_answered_after_all_its_turns(gpt2):
    asked = Conversation.of(TOLD)
    (pair,) = inputs.answered(gpt2, [asked], seed=0, max_new_tokens=3)
    assert (pair.prompted, pair.plain) == (asked, asked.without_system())


def test_contrasts_and_wishes_may_be_messages(lines_of):
    sides = read_contrasts(lines_of({"positive": [*TOLD, SAID], "negative": "no"}))
    assert sides == ([Conversation.of([*TOLD, SAID])], ["no"])
    prompts, wishes = read_wishes(lines_of({"prompt": TALK, "options": {" a": 1.0}}))
    assert (prompts, wishes) == ([Conversation.of(TALK)], [{" a": 1.0}])


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"messages": TALK}, "line 1: the first message is not the system's"),
        ({"messages": []}, "line 1: A conversation ends with a user turn"),
        ({"messages": "Hi"}, "line 1: the field 'messages' must be a list of messages"),
        ({"messages": [{"role": "tool", "content": ""}]}, "line 1: Message 0 has the unknown role"),
        ({"messages": [*TOLD, SAID], "response": "So."}, "there is a 'response' too"),
        ({"messages": TOLD, "user": "Hi"}, "with 'messages' has 1 unknown field: user"),
        ({"plain": TALK, "prompted": 7, "response": "So."}, "'prompted' must be a list"),
    ],
)
def test_lines_that_make_no_pair_are_named(lines_of, row, said):
    with pytest.raises(ValueError, match=said):
        read_prompt_pairs(lines_of(row))


@pytest.mark.filterwarnings("ignore:No epoch had a lower validation loss")
def test_clas_takes_lines_of_messages(run, lines_of):
    talks = [[*TOLD[:-1], {"role": "user", "content": word}] for word in "abcdefgh"]
    lines = lines_of(*({"messages": talk} for talk in talks))
    fit = ("fit", "clas", "--pairs", lines, "--direction", "means", "--layers", 2, "--steps", 1)
    code, out, err = run(*fit, *SHORT, "--out", lines.parent / "clas", "--json")
    assert code == 0, err
    assert json.loads(out)["kind"] == "contextual"
