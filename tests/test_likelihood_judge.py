"""The judge made of the model's own predictions: its scale, its safeguards, what it keeps."""

import sys
from typing import Any

import numpy as np
import pytest
import torch

import steerlens
from analysis.judges import Judge, likelihood
from analysis.judges.likelihood import CLIP, Read, Sides, looped
from steerlens import Conversation, Sampling
from steerlens.divergence import response_log_p
from steerlens.prompts import encode, with_response
from steerlens.runtime.forward import logits

INSTRUCTION, QUESTIONS = "Be positive.", ("Review a film.", "Write a movie review.", "How was it?")
PRAISE = "A wonderful film with excellent acting. I loved it and highly recommend it."
BLAME = "An awful film with terrible acting. It is boring and a waste of time."


@pytest.fixture(scope="module")
def demo() -> Any:
    return steerlens.load("demo")


@pytest.fixture(scope="module")
def judge(demo: Any) -> Any:
    return likelihood(demo, INSTRUCTION, QUESTIONS, n=4, sampling=Sampling(max_new_tokens=40))


def scores(judge: Any, *texts: str) -> list[float]:
    return judge(list(texts), [Conversation(QUESTIONS[0])] * len(texts)).tolist()


def test_it_is_a_judge_whose_scale_is_the_models_own_text(judge: Any, demo: Any) -> None:
    assert isinstance(judge, Judge)
    assert isinstance(judge.coherence, Judge)
    means = []
    for system in (None, INSTRUCTION):
        made = steerlens.generate(
            demo, [Conversation(q, system) for q in QUESTIONS], n=4, max_new_tokens=40, seed=9
        )
        asked = [Conversation(QUESTIONS[i]) for i in made.prompt]
        means.append(judge(list(made.texts), asked).mean())
        assert judge.coherence(list(made.texts), asked).mean() > 60
    assert means[0] < 45 < 65 < means[1]


def test_what_it_should_tell_apart(judge: Any) -> None:
    praise, blame = scores(judge, PRAISE, BLAME)
    assert praise > 70
    assert blame < 30


def test_neither_an_echo_nor_a_word_again_and_again_scores(judge: Any) -> None:
    assert (
        max(scores(judge, INSTRUCTION, " ".join([INSTRUCTION] * 4), f" {INSTRUCTION.upper()}")) < 10
    )
    assert scores(judge, " wonderful" * 32)[0] < 30
    looped_praise, praise = scores(judge, looped(PRAISE), PRAISE)
    assert looped_praise < 0.6 * praise


def test_coherence_sees_loops_and_salad(judge: Any) -> None:
    salad = " ".join(np.random.default_rng(0).permutation(PRAISE.split()))
    asked = [Conversation(QUESTIONS[0])] * 4
    good, loop, mixed, empty = judge.coherence([PRAISE, looped(PRAISE), salad, ""], asked)
    assert good > 70
    assert loop < 20
    assert mixed < good - 20
    assert empty == 0


def test_one_token_tells_no_more_than_the_clip() -> None:
    new = np.array([True, True, False])
    read = Read(np.array([-1.0, -1.0, -1.0]), np.array([-9.0, -1.5, -9.0]), new)
    assert read.evidence(-0.3) == pytest.approx((CLIP + 0.5 - 0.3) / 3)
    assert read.loss == pytest.approx(1.0)


@torch.no_grad()
def test_the_sides_are_log_p_after_the_question_under_either_instruction(demo: Any) -> None:
    sides = Sides(demo, INSTRUCTION, "Be there.")
    read = sides.read([PRAISE, BLAME], [QUESTIONS[0], Conversation(QUESTIONS[1], "Be rude.")])
    for one, text, prompts in (
        (read[0], PRAISE, (INSTRUCTION + QUESTIONS[0], "Be there." + QUESTIONS[0])),
        (
            read[1],
            BLAME,
            (Conversation(QUESTIONS[1], INSTRUCTION), Conversation(QUESTIONS[1], "Be there.")),
        ),
    ):
        for found, prompt in zip((one.instructed, one.neutral), prompts, strict=True):
            row = with_response(demo, encode(demo, prompt), text)
            tokens, window = steerlens.batch(demo, [row])
            log_p = logits(demo, tokens, window)[0].log_softmax(-1)
            at = range(row.response, len(row.ids))
            expected = [float(log_p[i - 1, row.ids[i]]) for i in at]
            np.testing.assert_allclose(found, expected, atol=1e-4)


def test_what_was_read_is_kept(demo: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    sides, rows = Sides(demo, INSTRUCTION), []

    def counted(model: Any, some: Any) -> Any:
        rows.extend(some)
        return response_log_p(model, some)

    # The function of this name hides the module from monkeypatch's dotted names.
    monkeypatch.setattr(sys.modules["analysis.judges.likelihood"], "response_log_p", counted)
    asked = [Conversation(QUESTIONS[0])] * 3
    first = sides.read([PRAISE, BLAME, PRAISE], asked)
    assert len(rows) == 4  # two texts, two sides
    again = sides.read([BLAME, PRAISE], asked[:2])
    assert len(rows) == 4
    assert again[1] is first[0] is first[2]
    sides.read([PRAISE], [Conversation(QUESTIONS[1])])
    assert len(rows) == 6


def test_what_cannot_be_judged_is_an_error_or_no_number(judge: Any, demo: Any) -> None:
    with pytest.raises(ValueError, match="as answers to their questions"):
        judge([PRAISE])
    with pytest.raises(ValueError, match="No questions"):
        likelihood(demo, INSTRUCTION, ())
    assert np.isnan(scores(judge, ""))[0]
    with pytest.raises(ValueError, match="no likelier under"):
        likelihood(demo, INSTRUCTION, QUESTIONS[:1], neutral=INSTRUCTION)


def test_no_scale_of_coherence_from_one_token_says_what_to_ask_for(demo: Any) -> None:
    """Shuffled it is the same text."""
    scale = sys.modules["analysis.judges.likelihood"]._coherence
    with pytest.raises(ValueError, match=r"max_new_tokens=64.*--max-new-tokens 64"):
        scale(Sides(demo, INSTRUCTION), ["a"] * 2, [Conversation(QUESTIONS[0])] * 2)
