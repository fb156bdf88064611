"""The strength that has the effect asked for: for every method, in every unit."""

from typing import Any

import pytest
import torch
from catalogue import CATALOGUE

import steerlens as sl
from steerlens import Conversation, PromptPair, calibrate
from steerlens.calibration import TOLERANCE, share_at_one
from steerlens.prompts import encode
from steerlens.runtime.forward import logits

QUESTIONS = ("What is it?", "They went home, and then", "I love you because")
ANSWERED = [Conversation(question, response=" A very good day indeed.") for question in QUESTIONS]
PAIRS = [PromptPair.with_system(q, "You are not kind.", " A very good day.") for q in QUESTIONS]


def mean_kl(model: Any, rows: Any, steering: Any, plain_rows: Any = None) -> float:
    """KL(moved || plain) by the definition, one row at a time, with hooks of our own."""
    total, n = 0.0, 0
    for row, plain in zip(rows, plain_rows or rows, strict=True):
        sides = []
        for one, steers in ((row, steering), (plain, None)):
            tokens, window = sl.batch(model, [one])
            if steers is None:
                scores = logits(model, tokens, window)
            else:
                with steers.applied(model, window):
                    scores = logits(model, tokens, window)
            start = len(one.ids) - (len(row.ids) - row.response)
            sides.append(scores[0, start - 1 : -1].double().log_softmax(-1))
        moved, still = sides
        total += float((moved.exp() * (moved - still)).sum())
        n += len(moved)
    return total / n


@torch.no_grad()
@pytest.mark.parametrize("name", CATALOGUE)
def test_every_method_is_calibrated_to_a_kl_and_to_a_share(name: str, gpt2: Any) -> None:
    steering = CATALOGUE[name].build(gpt2)
    target = 0.02
    found = calibrate(gpt2, steering, ANSWERED, target_kl=target)
    assert found.reached
    assert found.unit == "target_kl"
    rows = [encode(gpt2, text) for text in ANSWERED]
    assert found.effect == pytest.approx(mean_kl(gpt2, rows, found.steering), rel=1e-3)
    assert found.effect >= (1 - TOLERANCE) * target
    shared = calibrate(gpt2, steering, ANSWERED, share=0.3)
    assert share_at_one(gpt2, shared.steering, rows) == pytest.approx(0.3, rel=1e-3)
