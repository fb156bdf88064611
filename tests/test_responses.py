"""Responses that pairs lack, written in batches; what commands say of threads and dtypes."""

from typing import Any

import pytest
import torch
from tiny_models import write_folder

import steerlens
from steerlens import Conversation, PromptPair, generate
from steerlens.cli import inputs
from steerlens.cli.options import RunOptions
from steerlens.generation import end_tokens, responses

ASKED = [
    Conversation("What is it?", "Be kind."),
    Conversation("A long time ago there lived a king. Who was he?", "Be brief."),
    Conversation("Who?", "Be rude."),
]


@pytest.fixture(scope="module")
def model(tmp_path_factory: Any) -> Any:
    made = steerlens.load(write_folder(tmp_path_factory.mktemp("responses"), "gpt2"))
    made.tokenizer.chat_template = steerlens.PLAIN
    return made


@pytest.mark.parametrize("batch_size", [1, 2, 32])
def test_each_response_is_what_generate_writes_for_it_alone(model: Any, batch_size: int) -> None:
    written = responses(model, ASKED, [5, 6, 7], max_new_tokens=6, batch_size=batch_size)
    ends = end_tokens(model)
    for asked, seed, ids in zip(ASKED, (5, 6, 7), written, strict=True):
        alone = generate(model, [asked], seed=seed, max_new_tokens=6).response_ids(0)
        assert ids == tuple(token for token in alone if token not in ends)


def test_lines_are_answered_together_and_keep_their_order_and_seed(model: Any) -> None:
    whole = PromptPair.with_system("Hi", "Be kind.", "Ho")
    lines = [ASKED[0], whole, ASKED[1]]
    pairs = inputs.answered(model, lines, seed=3, max_new_tokens=4)
    first, last = responses(model, [ASKED[0], ASKED[1]], [3, 5], max_new_tokens=4)
    assert [pair.response for pair in pairs] == [first, "Ho", last]
    assert pairs[2] == PromptPair.with_system(ASKED[1].without_system(), "Be brief.", last)


def test_several_lines_take_one_batch(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes, run = [], steerlens.generation.logits

    def counted(model: Any, tokens: Any, *rest: Any) -> Any:
        sizes.append(len(tokens))
        return run(model, tokens, *rest)

    monkeypatch.setattr("steerlens.generation.logits", counted)
    responses(model, ASKED, [0, 1, 2], max_new_tokens=2)
    assert sizes == [3, 3]


def test_an_empty_response_is_an_error_with_its_number(
    model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("steerlens.generation.responses", lambda *_, **__: [(1,), ()])
    with pytest.raises(ValueError, match=r"line 2 of the pairs was empty"):
        inputs.answered(model, ASKED[:2], seed=0, max_new_tokens=4)


def test_threads_are_chosen_by_size_and_said(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen: list[int] = []
    monkeypatch.setattr(torch, "set_num_threads", chosen.append)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    for name in inputs.THREADS:
        monkeypatch.delenv(name, raising=False)
    inputs.choose_threads(inputs.TINY)
    assert chosen == [1]
    assert "OMP_NUM_THREADS" in capsys.readouterr().err
    inputs.choose_threads(inputs.TINY + 1)
    for name in inputs.THREADS:
        with monkeypatch.context() as patch:
            patch.setenv(name, "2")
            inputs.choose_threads(16)
    assert chosen == [1]
    assert capsys.readouterr().err == ""


def test_the_dtype_reaches_the_model(tmp_path: Any) -> None:
    folder = write_folder(tmp_path, "gpt2")
    place = RunOptions(model=str(folder), dtype="bfloat16").place
    found = inputs.load(*place)
    assert next(iter(found.parameters())).dtype == torch.bfloat16
    with pytest.raises(ValueError, match="Unknown dtype 'half'"):
        inputs.load(*RunOptions(model=str(folder), dtype="half").place)
