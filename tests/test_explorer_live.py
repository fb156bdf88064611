"""The live side of the explorer: what a view is told, in which order, and how it is stopped."""

import threading
import time
from typing import Any

import pytest

import steerlens
from analysis.explorer.explorer import Explorer
from analysis.explorer.live import Live
from analysis.explorer.payload import reading_json
from analysis.explorer.readings import Reading
from steerlens import CAA, PromptPair, at
from steerlens.runtime.turns import refusing_others
from steerlens.types import Hook, Residual

PAIRS = [
    PromptPair.with_system(f"What is {thing}?", "You are kind.", f"{thing} is a very good day")
    for thing in ("it", "love", "the sea")
]


class Line:
    """A view: what it was sent, and a way to wait for it."""

    def __init__(self, explorer: Explorer) -> None:
        self.messages: list[dict[str, Any]] = []
        self.explorer = explorer
        self.live = Live(explorer.study, self.messages.append, explorer.state, {0})

    def ask(self, number: int = 1, **changes: Any) -> list[dict[str, Any]]:
        """The answers to a request for the explorer's state with some changes."""
        self.messages.clear()
        self.live.receive({"type": "ask", "id": number, "state": self.explorer.state | changes})
        self.live.wait()
        return list(self.messages)

    def of(self, kind: str) -> list[dict[str, Any]]:
        return [message for message in self.messages if message["type"] == kind]


def slow(activation: Residual, hook: Hook = None) -> Residual:
    """A steer that takes its time, so that something can come between."""
    time.sleep(0.02)
    return 1.1 * activation


@pytest.fixture
def line(gpt2: Any) -> Line:
    v = steerlens.capture(gpt2, ["I love it because you are kind"], 1).at(1)[-1]
    given = {"CAA": at(1, CAA(v)), "other": at(2, CAA(-v)), "slow": at(1, slow)}
    explorer = steerlens.explore(gpt2, steerings=given, pairs=PAIRS, max_new_tokens=12)
    explorer.study.text(0)
    return Line(explorer)


def test_a_change_of_strength_brings_numbers_then_text_then_the_lens(line: Line) -> None:
    line.ask(strength=0.7)
    kinds = [m["type"] for m in line.messages if m["type"] not in ("progress", "vocabulary")]
    assert kinds[0] == kinds[-1] == kinds[-2] == "reading"
    assert set(kinds[1:-2]) == {"stream"}
    first, last, prompt = line.of("reading")
    assert first["key"] == last["key"] == "0|CAA|0|0.7"
    assert "lens" not in first["reading"]
    assert len(last["reading"]["lens"]) == 4
    assert first["effect"] | {"kl": 0, "recovered": 0, "rmse": 0} == {
        "method": "CAA", "place": 0, "strength": 0.7, "kl": 0, "recovered": 0, "rmse": 0,
    }  # fmt: skip
    study = line.explorer.study
    place = line.explorer.place
    assert last["reading"] == reading_json(study.with_text(0, "CAA", place, 0.7))
    done = line.of("stream")[-1]
    assert done["done"]
    assert done["text"] == last["reading"]["text"]
    assert all(done["text"].startswith(m["text"]) for m in line.of("stream"))
    known = {word for m in line.of("vocabulary") for word in m["words"]}
    named = {str(i) for c in last["reading"]["next"] for i, _ in (*c["up"], *c["down"])}
    assert named <= known
    assert all(message["id"] == 1 for message in line.messages if "id" in message)
    assert prompt["key"] == "0|prompt|0|1"
    assert len(prompt["reading"]["lens"]) == 4


def test_the_prompts_own_lens_comes_once_for_each_text(line: Line) -> None:
    for text, question in enumerate(("What is it?", "What is love?")):
        line.ask(text=text, question=question)
        assert line.of("reading")[-1]["key"] == f"{text}|prompt|0|1"
        line.ask(text=text, question=question, strength=0.4)
        assert {m["key"] for m in line.of("reading")} == {f"{text}|CAA|0|0.4"}


def test_what_was_read_before_is_not_read_again(
    line: Line, monkeypatch: pytest.MonkeyPatch
) -> None:
    line.ask(strength=0.7)
    monkeypatch.delattr("analysis.explorer.study.run_of")
    assert not [m for m in line.ask(strength=0.7) if m["type"] in ("error", "stream")]


def test_the_reading_that_is_subtracted_comes_too(line: Line) -> None:
    line.ask(strength=0.7, minus="other")
    # As the view looks for it: the nearest of the strengths that are offered.
    assert {m["key"] for m in line.of("reading")[:-1]} == {"0|CAA|0|0.7", "0|other|0|0.5"}


def test_a_text_that_the_view_has_no_numbers_of_is_introduced(line: Line) -> None:
    line.ask(text=1, question="What is love?")
    assert [m["index"] for m in line.of("text")] == [1, 1]
    last = line.of("text")[-1]
    assert last["text"]["completions"][0]["text"]
    assert [curve["name"] for curve in last["curves"]] == ["any instruction"]
    assert last["prompt"]["recovered"] == 1
    assert line.of("reading")[0]["key"] == "1|CAA|0|1"
    line.ask(text=1, question="What is love?", strength=2.0)
    assert not line.of("text")


def test_a_new_question_is_answered_and_measured(line: Line) -> None:
    line.ask(question="What is a house?", instruction="Be kind.")
    assert "The prompted model answers" in line.of("progress")[0]["text"]
    text = line.of("text")[-1]
    assert text["index"] == 3
    assert (text["text"]["question"], text["text"]["instruction"]) == (
        "What is a house?", "Be kind.",
    )  # fmt: skip
    assert line.of("reading")[-2]["key"] == "3|CAA|0|1"
    line.live.receive({"type": "keep", "state": {}})
    kept = line.messages[-1]
    assert "explorer.ask('What is a house?', 'Be kind.')" in kept["python"]
    assert '"text": 3' in kept["json"]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"method": "CAB"}, "There is no method 'CAB'"),
        ({"question": "", "instruction": "x"}, "Write a question and an instruction"),
        ({"question": "why " * 200, "instruction": "x"}, "context"),
        ({"strength": "much"}, "finite number"),
    ],
)
def test_an_error_is_told_as_a_text_and_the_next_request_is_served(
    line: Line, changes: dict[str, Any], said: str
) -> None:
    line.ask(**changes)
    assert said in line.of("error")[0]["text"]
    assert line.of("error")[0]["id"] == 1
    line.ask(2, strength=0.3)
    assert line.of("reading")


def test_the_newest_request_wins(line: Line) -> None:
    line.live.receive({"type": "ask", "id": 1, "state": {"method": "slow", "strength": 0.9}})
    while not line.of("stream"):
        time.sleep(0.005)
    line.live.receive({"type": "ask", "id": 2, "state": {"method": "slow", "strength": 0.8}})
    line.live.receive({"type": "ask", "id": 3, "state": {"method": "CAA", "strength": 0.7}})
    line.live.wait()
    assert "0|slow|0|0.8" not in {m["key"] for m in line.of("reading")}
    assert not [m for m in line.of("stream") if m["id"] == 1 and m["done"]]
    assert line.of("reading")[-1]["id"] == 3
    assert not line.of("stopped")


def test_a_text_whose_introduction_was_cut_short_is_introduced_to_the_end(line: Line) -> None:
    receive = line.live.send
    asked = line.explorer.state | {"question": "What is a house?", "instruction": "Be kind."}

    def send(message: dict[str, Any]) -> None:
        receive(message)
        if message["type"] == "text" and message["id"] == 1:
            # As the view does: it goes to the new text, and asks for what it lacks there.
            line.live.receive({"type": "ask", "id": 2, "state": asked | {"text": 3}})

    line.live.send = send
    line.live.receive({"type": "ask", "id": 1, "state": asked})
    line.live.wait()
    assert [m["id"] for m in line.of("text")] == [1, 2]
    assert line.of("text")[-1]["text"]["completions"][0]["text"]
    assert line.of("text")[-1]["curves"]
    assert line.of("reading")[-2]["key"] == "3|CAA|0|1"


def test_stop_ends_the_work_and_says_so(line: Line) -> None:
    line.live.receive({"type": "ask", "id": 1, "state": {"method": "slow", "strength": 0.9}})
    while not line.of("stream"):
        time.sleep(0.005)
    line.live.receive({"type": "stop"})
    line.live.wait()
    assert line.messages[-1] == {"type": "stopped", "id": 1}
    assert not [m for m in line.of("stream") if m["done"]]
    line.ask(2, method="CAA", strength=0.3)
    assert line.of("reading")[-1]["id"] == 2


def test_the_thread_ends_when_there_is_nothing_to_do(line: Line) -> None:
    line.ask(strength=0.3)
    names = [thread.name for thread in threading.enumerate()]
    assert "steerlens explorer" not in names
    assert line.live.worker is None


def test_a_model_that_is_in_use_is_told_of_in_a_sentence(line: Line) -> None:
    with refusing_others(line.explorer.study.model):
        line.ask(strength=0.3)
    assert "This model is in use" in line.of("error")[0]["text"]
    line.ask(strength=0.3)
    assert line.of("reading")


def test_an_unknown_message_is_answered(line: Line) -> None:
    line.live.receive({"type": "dance"})
    assert "unknown message, 'dance'" in line.messages[-1]["text"]
    line.live.receive({"type": "keep", "state": {"method": "CAB"}})
    assert "There is no method 'CAB'" in line.messages[-1]["text"]


def test_a_change_of_strength_is_seen_after_one_pass_on_the_demonstration_model() -> None:
    """What is waited for is the completion once through every block, and nothing else."""
    model = steerlens.load("demo")
    pairs = steerlens.prompted_pairs(
        model, ["Review a movie.", "Review a film."], "Be positive.", max_new_tokens=60
    )
    caa = CAA.from_prompts(model, ["I loved it"], ["I hated it"], 3)
    explorer = steerlens.explore(model, steerings={"CAA": caa}, pairs=pairs)
    line, run, seen = Line(explorer), list[int](), list[list[int]]()
    line.ask(strength=0.9)
    for number, block in enumerate(model.blocks):
        block.register_forward_hook(lambda *_, number=number: run.append(number))

    def send(message: Any) -> None:
        if message["type"] == "reading":
            seen.append(list(run))

    line.live.send = send
    for strength in (0.6, 0.7, 0.8):
        run.clear()
        line.ask(strength=strength)
        assert seen.pop(0) == list(range(model.cfg.n_layers))
        seen.clear()
    key = (0, "CAA", "layer 3", 0.8)
    assert isinstance(explorer.study.readings[key], Reading)
