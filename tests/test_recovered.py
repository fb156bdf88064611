"""The share of the prompt's effect that a steering has too."""

from typing import Any

import numpy as np
import pytest
import torch
from tiny_models import D_MODEL

from analysis import logit_shift, prompt_effect_by_token, prompt_effect_recovered, reworded
from steerlens import CAA, PromptPair, at, batch
from steerlens.prompts import encode_pair
from steerlens.runtime.forward import logits

QUESTIONS = ("What is it?", "They went home, and then", "I love you because", "The dog ran")
RESPONSES = (" A very good day indeed.", " to the sea", " you are kind.", " home")
# More rows than one pass holds, of unequal length, two of each question.
PAIRS = [
    PromptPair.with_system(q, "You are not kind.", r)
    for q, r in zip(2 * QUESTIONS, (*RESPONSES, *RESPONSES[::-1]), strict=True)
]
STEERING = at(2, CAA(torch.from_numpy(np.random.default_rng(0).standard_normal(D_MODEL)).float()))


@torch.no_grad()
def predicted(model: Any, row: Any, steering: Any = None) -> Any:
    """Log-probabilities of the response tokens' positions, one row alone."""
    tokens, window = batch(model, [row])
    if steering is None:
        scores = logits(model, tokens, window)
    else:
        with steering.applied(model, window):
            scores = logits(model, tokens, window)
    return scores[0, row.response - 1 : -1].double().log_softmax(-1)


def by_definition(model: Any) -> tuple[Any, Any]:
    """KL(prompted || steered) and KL(prompted || plain) of every token."""
    left, below = [], []
    for pair in PAIRS:
        plain, prompted = encode_pair(model, pair)
        p, steered, q = (
            predicted(model, prompted),
            predicted(model, plain, STEERING),
            predicted(model, plain),
        )
        left.append((p.exp() * (p - steered)).sum(-1))
        below.append((p.exp() * (p - q)).sum(-1))
    return torch.cat(left).numpy(), torch.cat(below).numpy()


def test_it_is_one_less_the_ratio_of_the_sums(model: Any) -> None:
    left, below = by_definition(model)
    table = prompt_effect_recovered(model, PAIRS, {"CAA": STEERING}).set_index("method")
    assert table.loc["CAA", "recovered"] == pytest.approx(1 - left.sum() / below.sum(), abs=1e-4)
    assert table.loc["CAA", "kl_left"] == pytest.approx(left.mean(), rel=1e-3)
    assert table.loc["CAA", "kl_prompt"] == pytest.approx(below.mean(), rel=1e-3)
    assert table.loc["CAA", "low"] <= table.loc["CAA", "recovered"] <= table.loc["CAA", "high"]
    assert table.loc["unsteered", "recovered"] == 0


def test_by_token_it_says_where_there_is_little_to_recover(gpt2: Any) -> None:
    left, below = by_definition(gpt2)
    table = prompt_effect_by_token(gpt2, PAIRS, {"CAA": STEERING})
    np.testing.assert_allclose(table["kl_left"], left, rtol=1e-3, atol=1e-6)
    np.testing.assert_allclose(table["recovered"], 1 - left / below, rtol=1e-2, atol=1e-3)
    assert table["tiny"].tolist() == (below < 0.01 * below.mean()).tolist()
    assert table.groupby("example")["token_index"].max().tolist() == [
        len(encode_pair(gpt2, pair)[0].ids) - encode_pair(gpt2, pair)[0].response - 1
        for pair in PAIRS
    ]


def test_the_prompt_itself_recovers_all_and_other_wordings_are_a_reference(gpt2: Any) -> None:
    same, other = reworded(PAIRS, "You are not kind."), reworded(PAIRS, "I love the sea.")
    table = prompt_effect_recovered(gpt2, PAIRS, {}, equivalents=[same], neutral=[other, same])
    found = table.set_index("method")["recovered"]
    assert found["equivalent prompts"] == pytest.approx(1)
    alone = prompt_effect_recovered(gpt2, PAIRS, {}, neutral=[other]).set_index("method")
    # Of several wordings the mean error counts; that of the prompt's own is 0.
    assert found["neutral prompts"] == pytest.approx(
        1 - (1 - alone.loc["neutral prompts", "recovered"]) / 2
    )


def test_the_table_of_shifts_has_the_same_share(gpt2: Any) -> None:
    shift = logit_shift(gpt2, PAIRS, {"CAA": STEERING}).set_index("method")["recovered"]
    whole = prompt_effect_recovered(gpt2, PAIRS, {"CAA": STEERING}).set_index("method")
    assert shift["CAA"] == pytest.approx(whole.loc["CAA", "recovered"])
    assert shift["prompt"] == pytest.approx(1)


def test_what_cannot_be_measured_is_an_error(gpt2: Any) -> None:
    same = [PromptPair(pair.plain, pair.plain, pair.response) for pair in PAIRS]
    with pytest.raises(ValueError, match="changes no prediction"):
        prompt_effect_recovered(gpt2, same, {"CAA": STEERING})
    with pytest.raises(ValueError, match="nothing to measure"):
        prompt_effect_recovered(gpt2, PAIRS, {})
    with pytest.raises(ValueError, match="same responses"):
        prompt_effect_recovered(gpt2, PAIRS, {}, neutral=[PAIRS[1:] + PAIRS[:1]])
