"""What a review found broken once, and must stay mended."""

from pathlib import Path
from typing import Any

import pytest
import torch
from test_coefficients import PAIRS, direction

import steerlens
from analysis import compare
from analysis.measures.coefficients import coefficients
from analysis.measures.least_squares import split_by_question
from steerlens import CAA, Conversation, PromptPair, at
from steerlens.jsonl import line_numbers, read_contrasts, read_prompt_pairs
from steerlens.models import hub_names, local_folder
from steerlens.scopes import Window


class AsksTheModel:
    """A steer that runs the model itself when it is bound, as COLD's second pass does."""

    needs_window = True
    needs_run = True

    def __init__(self, v: torch.Tensor) -> None:
        self.v = v

    def bind(self, window: Window) -> CAA:
        assert window.context is not None
        with torch.no_grad():
            window.context.model(window.context.tokens)
        return CAA(self.v)

    def __call__(self, activation: torch.Tensor, hook: Any = None) -> torch.Tensor:
        raise ValueError("AsksTheModel must see the model.")


def n_hooks(model: Any) -> int:
    return sum(len(point.fwd_hooks) for point in model.hook_dict.values())


@pytest.mark.parametrize("view", ["accumulated", "local"])
def test_a_steering_that_runs_the_model_in_its_step_is_measured_in_both_views(
    model: Any, view: Any
) -> None:
    v = direction(model)
    table = coefficients(model, PAIRS, [1], {"asks": at(1, AsksTheModel(v))}, view=view)
    fixed = coefficients(model, PAIRS, [1], {"asks": at(1, CAA(v))}, view=view)
    torch.testing.assert_close(
        torch.tensor(table["norm"].to_numpy()), torch.tensor(fixed["norm"].to_numpy())
    )


def test_a_steering_that_must_see_the_model_is_reported_where_it_acts(model: Any) -> None:
    """It was shown at layer 0, and its strength was sought there."""
    asks = at(2, AsksTheModel(direction(model)))
    compared = compare(model, PAIRS, {"asks": asks}, train_pairs=PAIRS[:2], n_shown=1)
    assert compared.layer == 2
    table = compared.coefficients.query("method == 'asks'")
    assert not table.loc[table["layer"] < 2, "norm"].any()
    assert table.loc[table["layer"] == 2, "norm"].all()
    assert "layer 2" in compared.token_views[0].html


def test_between_two_streamed_pieces_nothing_is_on_the_model(model: Any) -> None:
    steering = at(1, CAA(5 * direction(model)))
    plain = steerlens.generate(model, ["They went"], max_new_tokens=4, temperature=0.0)
    pieces = steerlens.stream(model, "The dog ran", steering, max_new_tokens=6, temperature=0.0)
    tokens = []
    for piece in pieces:
        assert n_hooks(model) == 0
        again = steerlens.generate(model, ["They went"], max_new_tokens=4, temperature=0.0)
        assert torch.equal(again.tokens, plain.tokens)
        tokens.append(piece.token)
    whole = steerlens.generate(model, ["The dog ran"], steering, max_new_tokens=6, temperature=0.0)
    assert tuple(tokens) == whole.response_ids(0)


def test_every_hub_name_that_is_listed_is_a_hub_name() -> None:
    assert [name for name in hub_names() if local_folder(name) is not None] == []
    for name in ("Qwen/Qwen2.5-0.5B", "somebody/a-model.v1.5"):
        assert local_folder(name) is None
    for name in ("models/weights.safetensors", "./here", "nosuch", "a/", "/b"):
        with pytest.raises(ValueError, match="Unknown model"):
            local_folder(name)


def test_an_alias_is_looked_up_under_its_hub_name(monkeypatch: pytest.MonkeyPatch) -> None:

    asked: list[str] = []

    def record(source: str, *others: Any) -> Any:
        asked.append(source)
        raise ValueError("stop here")

    monkeypatch.setattr("steerlens.models.weights._read", record)
    with pytest.raises(ValueError, match="stop here"):
        steerlens.load("gpt2-small")
    assert asked == [hub_names()["gpt2-small"]] == ["gpt2"]


@pytest.mark.parametrize("device", ["foo", "cuda:99x", "xpu"])
def test_an_absent_device_is_an_error_that_lists_those_here(device: str) -> None:
    with pytest.raises(ValueError, match=r"device .* Here are: cpu"):
        steerlens.load("demo", device=device)


@pytest.mark.parametrize("name", ["prompt", "unsteered", "equivalent prompts", "neutral prompts"])
def test_a_reserved_name_is_refused_however_steerings_are_given(name: str, gpt2: Any) -> None:
    with pytest.raises(ValueError, match="are taken"):
        coefficients(gpt2, PAIRS, [1], {name: at(1, CAA(direction(gpt2)))})


def test_caa_reads_the_response_where_there_is_one(model: Any) -> None:
    asked = "What is it?"
    positive = [Conversation(asked, response=text) for text in ("I love you", "a good day")]
    negative = [Conversation(asked, response=text) for text in ("I hate you", "not a day")]
    by_default = CAA.from_prompts(model, positive, negative, 1).placed[0][1]
    said = CAA.from_prompts(model, positive, negative, 1, read=steerlens.generated).placed[0][1]
    assert isinstance(by_default, CAA)
    assert isinstance(said, CAA)
    assert torch.equal(by_default.direction, said.direction)
    with pytest.raises(ValueError, match="the same activations"):
        CAA.from_prompts(model, positive, negative, 1, read=steerlens.last)
    with pytest.raises(ValueError, match="not clear which tokens"):
        CAA.from_prompts(model, positive, [Conversation("No?")] * 2, 1)


def test_a_hook_that_writes_in_place_is_refused(model: Any) -> None:
    def writes(activation: Any, hook: Any = None) -> Any:
        activation += 1.0
        return activation

    with pytest.raises(ValueError, match=r"write h \+ v"):
        steerlens.generate(model, ["They went"], at(1, writes), max_new_tokens=1)
    assert n_hooks(model) == 0


def test_a_block_without_a_pass_says_that_nothing_was_steered(gpt2: Any) -> None:
    with (
        pytest.warns(steerlens.SteeringWarning, match="No forward pass reached layer 1"),
        at(1, CAA(direction(gpt2))).applied(gpt2),
    ):
        pass


def test_lines_end_at_line_breaks_alone_and_a_byte_order_mark_is_no_text(tmp_path: Path) -> None:
    path = tmp_path / "pairs.jsonl"
    path.write_text('\ufeff{"user": "a\u2028b", "system": "c\x85"}\n\n', encoding="utf-8")
    assert read_prompt_pairs(path) == [Conversation("a\u2028b", "c\x85")]
    path.write_text('{"user": "a", "system": "c", "respons": "d"}\n')
    with pytest.raises(ValueError, match="line 1: the line has 1 unknown field: respons"):
        read_prompt_pairs(path)
    path.write_text('\n{"user": "a", "response": "d"}\n')
    with pytest.raises(ValueError, match="line 2: the field 'system' is missing"):
        read_prompt_pairs(path)
    assert line_numbers(path) == [2]
    (pair,) = read_prompt_pairs(path, system_optional=True)
    assert pair == PromptPair(Conversation("a"), Conversation("a"), "d")
    path.write_text('{"user": "a", "response": ""}\n')
    with pytest.raises(ValueError, match="line 1: neither 'system' nor 'response' is there"):
        read_prompt_pairs(path, system_optional=True)
    path.write_text('{"positive": {"user": "a", "system": 5}, "negative": "b"}\n')
    with pytest.raises(ValueError, match="line 1: the field 'system' must be text"):
        read_contrasts(path)


def test_training_and_test_pairs_share_no_question() -> None:
    pairs = [
        PromptPair.with_system(question, "s", answer)
        for question in "abcdef"
        for answer in ("x", "y")
    ]
    train, test = split_by_question(pairs)
    assert {pair.plain for pair in train}.isdisjoint(pair.plain for pair in test)
    assert len(train) == len(test) == 6
