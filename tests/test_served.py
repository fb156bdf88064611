"""Requests of a harness: each answered as `generate` answers it alone, and written in batches."""

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest
from catalogue import CATALOGUE, V
from tiny_models import N_CTX

import steerlens
from steerlens import CAA, Conversation, Sampling, at, generate, response
from steerlens.interchange.served import Asked, Served, conversation_of, sampling_of

QUESTIONS = [
    Conversation("What is it?", "You are kind."),
    Conversation("Do you love the dog and the cat?"),
    Conversation("Who?", history=(("user", "Hello"), ("assistant", "Good day"))),
]
GREEDY = Sampling(6, temperature=0.0)
STEERING = at([1, 2], CAA(V)).only(response)


def answers(served: Served, asked: list[Asked]) -> list[Any]:
    """The answers to requests that came together, each waited for in a thread of its own."""
    futures = [served.put(one) for one in asked]
    with ThreadPoolExecutor(len(futures)) as threads:
        return list(threads.map(served.answer, futures))


@pytest.mark.parametrize("name", ["CAA", "PSR", "ColdKernel", "ColdFD", "ActAdd"])
def test_every_kind_of_steering_answers_as_generate_does(model, name):
    entry = next(one for one in CATALOGUE.values() if one.covers == name)
    steering = entry.build(model)
    asked = [Asked(question, GREEDY, 0) for question in QUESTIONS]
    found = answers(Served(model, steering), asked)
    made = generate(model, QUESTIONS, steering, sampling=GREEDY)
    assert [one.text for one in found] == list(made.texts)
    for row, one in enumerate(found):
        assert one.n_written == len(made.response_ids(row))
        assert one.n_prompt == int(made.window.response[row])


def test_an_answer_with_a_seed_does_not_depend_on_what_else_is_asked(gpt2):
    sampling = Sampling(8, temperature=1.0, top_p=0.9)
    asked = [Asked(question, sampling, 7 + n) for n, question in enumerate(QUESTIONS)]
    found = answers(Served(gpt2, STEERING), asked[::-1])[::-1]
    for one, request in zip(found, asked, strict=True):
        alone = generate(
            gpt2, [request.conversation], STEERING, sampling=sampling, seed=request.seed
        )
        assert one.text == alone.texts[0]


def test_requests_that_wait_are_one_batch_and_no_larger_than_asked(gpt2, monkeypatch):
    sizes, run = [], steerlens.generation.logits

    def counted(model: Any, tokens: Any, *rest: Any) -> Any:
        sizes.append(len(tokens))
        return run(model, tokens, *rest)

    monkeypatch.setattr("steerlens.generation.logits", counted)
    one_token = replace(GREEDY, max_new_tokens=1)
    asked = [Asked(question, one_token, 0) for question in QUESTIONS]
    answers(Served(gpt2), asked)
    assert sizes == [3]
    sizes.clear()
    answers(Served(gpt2, batch_size=2), asked)
    assert sorted(sizes) == [1, 2]
    sizes.clear()
    other = [asked[0], replace(asked[1], sampling=replace(one_token, top_p=0.5)), asked[2]]
    answers(Served(gpt2), other)
    assert sorted(sizes) == [1, 2], "another sampling is another batch"


def test_a_request_that_cannot_be_answered_harms_no_other(gpt2):
    wrong = Asked(replace(QUESTIONS[0], history=(("user", "x"),)), GREEDY, 0)
    served = Served(gpt2)
    good, bad = served.put(Asked(QUESTIONS[1], GREEDY, 0)), served.put(wrong)
    gpt2_template = gpt2.tokenizer.chat_template
    refusing = "{% if messages|length > 2 %}{{ raise_exception('no') }}{% endif %}" + gpt2_template
    try:
        gpt2.tokenizer.chat_template = refusing
        assert served.answer(good).text == generate(gpt2, QUESTIONS[1], sampling=GREEDY).texts[0]
        with pytest.raises(ValueError, match="no"):
            served.answer(bad)
    finally:
        gpt2.tokenizer.chat_template = gpt2_template


def test_what_fails_while_it_is_written_fails_for_all_that_were_in_it(gpt2):
    wide = at(1, CAA(V.repeat(2)))
    served = Served(gpt2, wide)
    futures = [served.put(Asked(question, GREEDY, 0)) for question in QUESTIONS[:2]]
    for future in futures:
        with pytest.raises(ValueError, match="d_model"):
            served.answer(future)


def test_why_an_answer_ended_is_said(gpt2):
    def ended(question: str, sampling: Sampling) -> tuple[str, int]:
        (one,) = answers(Served(gpt2), [Asked(Conversation(question), sampling, 0)])
        return one.ended, one.n_written

    assert ended("What is it?", GREEDY) == ("max_tokens", 6)
    text = generate(gpt2, Conversation("What is it?"), sampling=GREEDY).texts[0]
    stopped = replace(GREEDY, stop=(text[2:4],))
    assert ended("What is it?", stopped)[0] == "stop"
    n = len(steerlens.encode(gpt2, Conversation("dog " * 20)).ids)
    nearly = "dog " * (20 + (N_CTX - 3 - n))
    assert ended(nearly, GREEDY)[0] == "model_length"
    assert 1 <= ended(nearly, GREEDY)[1] < 6
    assert ended("dog " * 500, GREEDY) == ("model_length", 0)


def test_only_the_thread_that_writes_writes(gpt2, monkeypatch):
    """Others wait for their answers, and find them written."""
    threads = []
    plain = Served._write

    def noted(self: Served, taken: Any) -> None:
        threads.append(threading.get_ident())
        plain(self, taken)

    monkeypatch.setattr(Served, "_write", noted)
    answers(Served(gpt2), [Asked(question, GREEDY, 0) for question in QUESTIONS])
    assert len(threads) == 1


# -- What a harness says ---------------------------------------------------------------------------


def test_options_are_honoured_or_refused():
    given = {
        "temperature": 0.5,
        "top_p": 0.9,
        "top_k": 7,
        "frequency_penalty": 0.1,
        "max_tokens": 5,
        "stop_seqs": ["a", "b"],
        "max_retries": 3,
        "timeout": 20,
        "num_choices": 1,
        "logprobs": False,
    }
    assert sampling_of(given) == Sampling(
        5, 0.5, 0.9, frequency_penalty=0.1, top_k=7, stop=("a", "b")
    )
    assert sampling_of({}) == Sampling(512)
    for name, value in (
        ("num_choices", 2),
        ("best_of", 3),
        ("presence_penalty", 0.5),
        ("logit_bias", {1: 2.0}),
        ("logprobs", True),
        ("response_schema", {"name": "x"}),
        ("extra_body", {"a": 1}),
    ):
        with pytest.raises(ValueError, match=f"has no {name}. Leave it out"):
            sampling_of({name: value})
    with pytest.raises(ValueError, match="temperature must be"):
        sampling_of({"temperature": -1.0})


def test_messages_become_a_conversation():
    said = [("system", "Be brief."), ("system", "Be kind."), ("user", "Hi"), ("assistant", "Ho")]
    assert conversation_of(said) == Conversation("Hi", "Be brief.\n\nBe kind.", "Ho")
    several = [("user", "Hi"), ("assistant", "Ho"), ("user", "How?")]
    assert conversation_of(several).history == (("user", "Hi"), ("assistant", "Ho"))
    assert conversation_of(several).system is None
    with pytest.raises(ValueError, match=r"no tools.*role tool"):
        conversation_of([("user", "Hi"), ("tool", "1")])
    with pytest.raises(ValueError, match="one system turn"):
        conversation_of([("user", "Hi"), ("system", "Be brief."), ("user", "Hi")])
    with pytest.raises(ValueError, match="ends with a user turn"):
        conversation_of([])
