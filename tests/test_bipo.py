"""BiPO: its loss by transformers' own numbers, both signs of the vector, and what is refused."""

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from catalogue import random
from tiny_models import D_MODEL

import steerlens as sl
from steerlens import BiPO, Conversation, Schedule, Site
from steerlens.prompts import encode_all
from steerlens.training.preferences import Preferences

ASKED = ["What is it?", "What do you think of the sea?", "Who?", "What of the cat"]
POSITIVE = [Conversation(q, response=" I love you because you are kind.") for q in ASKED]
NEGATIVE = [Conversation(q, response=" It was not good") for q in ASKED]
SHORT = Schedule(epochs=6, batch_size=2, learning_rate=0.3, validation=0.25)
V = random(D_MODEL, seed=1)


def log_likelihoods(model: Any, prompts: Any, steering: Any) -> torch.Tensor:
    """The log-likelihood of each response, one text at a time, in float64."""
    found = []
    for prompt in prompts:
        tokens, window = sl.batch(model, [prompt])
        from steerlens.runtime.forward import logits

        with torch.no_grad():
            if steering is None:
                scores = logits(model, tokens, window)
            else:
                with steering.applied(model, window):
                    scores = logits(model, tokens, window)
        chances = scores[0].double().log_softmax(dim=-1)
        start = int(window.response[0])
        ids = tokens[0, start:]
        found.append(chances[start - 1 : -1].gather(1, ids[:, None]).sum())
    return torch.stack(found)


def test_the_loss_is_the_papers_for_both_signs(model: Any) -> None:
    sides = encode_all(model, POSITIVE), encode_all(model, NEGATIVE)
    task = Preferences(model, *sides, (Site(1), Site(2)), sl.response, 0.1)
    parameters = {"1.resid_post.v": V.clone(), "2.resid_post.v": -2 * V}
    found = float(task.loss(parameters, [0, 1, 3]))
    steering = (sl.at(1, sl.CAA(V)) + sl.at(2, sl.CAA(-2 * V))).only(sl.response)
    losses = []
    for d in (1.0, -1.0):
        gained = [
            log_likelihoods(model, side, d * steering) - log_likelihoods(model, side, None)
            for side in (POSITIVE, NEGATIVE)
        ]
        margin = (gained[0] - gained[1])[[0, 1, 3]]
        losses.append(-torch.log(torch.sigmoid(0.1 * d * margin)))
    assert found == pytest.approx(float(torch.cat(losses).mean()), rel=1e-4)


def test_it_begins_at_0_where_nothing_is_preferred(gpt2: Any) -> None:
    sides = encode_all(gpt2, POSITIVE), encode_all(gpt2, NEGATIVE)
    task = Preferences(gpt2, *sides, (Site(1),), sl.everywhere, 0.1)
    start = task.start(torch.Generator())
    assert float(task.loss(start, range(4))) == pytest.approx(math.log(2), abs=1e-6)


def test_the_vector_and_its_reverse_prefer_opposite_answers(model: Any) -> None:
    fit = BiPO.fit(model, (POSITIVE, NEGATIVE), 2, schedule=SHORT)
    assert fit.trained is not None
    assert fit.trained.rows[-1]["loss"] < 0.6
    margins = []
    for steering in (fit.steering, None, -fit.steering):
        one, other = (log_likelihoods(model, side, steering) for side in (POSITIVE, NEGATIVE))
        margins.append(float((one - other).mean()))
    assert margins[0] > margins[1] + 3
    assert margins[1] > margins[2] + 3


@pytest.mark.filterwarnings("ignore:.*can move a parameter")
def test_the_weights_get_no_gradient_and_the_same_seed_gives_the_same_vector(gpt2: Any) -> None:
    short = replace(SHORT, epochs=2)
    one, other = (BiPO.fit(gpt2, (POSITIVE, NEGATIVE), 2, schedule=short) for _ in range(2))
    assert torch.equal(one.steer.direction, other.steer.direction)
    assert all(weight.grad is None for weight in gpt2.parameters())


@pytest.mark.filterwarnings("ignore:.*can move a parameter")
def test_it_acts_where_it_was_trained_to(gpt2: Any) -> None:
    short = replace(SHORT, epochs=1)
    fit = BiPO.fit(gpt2, (POSITIVE, NEGATIVE), [1, 2], schedule=short, scope=sl.response)
    assert {str(steer.scope) for _, steer in fit.steering.placed} == {"response"}  # type: ignore[attr-defined]
    assert list(fit.steers) == [Site(1), Site(2)]


@pytest.mark.filterwarnings("ignore:.*can move a parameter", "ignore:.*loss")
def test_the_command_trains_on_contrasts(run: Callable[..., Any], tmp_path: Path) -> None:
    file, out = tmp_path / "pairs.jsonl", tmp_path / "bipo.safetensors"
    row = {
        "positive": {"user": "Review a film.", "response": "I loved it."},
        "negative": {"user": "Review a film.", "response": "I hated it."},
    }
    file.write_text((json.dumps(row) + "\n") * 4)
    command = ("fit", "bipo", "--pairs", file, "--layers", 3, "--out", out)
    code, said, err = run(*command, "--epochs", 1, "--json")
    assert code == 0, err
    told = json.loads(said)
    assert (told["method"], told["pairs"]) == ("BiPO", 4)
    assert len(sl.load_steering(out, sl.load("demo")).placed) == 1


def test_mistakes_are_told(gpt2: Any) -> None:
    with pytest.raises(ValueError, match="In all 4 pairs the preferred and the rejected"):
        BiPO.fit(gpt2, (POSITIVE, POSITIVE), [1])
    with pytest.raises(ValueError, match="has no response"):
        BiPO.fit(gpt2, (POSITIVE, [Conversation(q) for q in ASKED]), 2)
    with pytest.raises(ValueError, match="beta must be finite and above 0"):
        BiPO.fit(gpt2, (POSITIVE, NEGATIVE), 2, beta=0.0)
    with pytest.raises(ValueError, match="BiPO needs pairs"):
        BiPO.fit(gpt2, (POSITIVE, NEGATIVE[:2]), 2)
    with pytest.raises(ValueError, match="layers"):
        BiPO.fit(gpt2, (POSITIVE, NEGATIVE), 9)
