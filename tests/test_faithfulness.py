"""Relative RMSE: exact values where they are known, and its reference lines."""

from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from test_coefficients import PAIRS, direction, oracle

from analysis.measures.aligned import align
from analysis.measures.deltas import Substitute
from analysis.measures.effects import logit_shift
from analysis.measures.errors import relative_rmse
from analysis.measures.faithfulness import EQUIVALENT, NEUTRAL, faithfulness, reworded
from steerlens import CAA, PromptPair, Site, at, generated, response


def test_it_is_the_pooled_ratio_of_the_definition(model: Any) -> None:
    caa = CAA(direction(model))
    table = faithfulness(model, PAIRS, {"CAA": at(1, caa)})
    _, by_prompt, by_caa = oracle(model, [("blocks.1.hook_resid_post", caa)])
    for layer in range(4):
        target = np.concatenate([delta[layer] for delta in by_prompt])
        reached = np.concatenate([delta[layer] for delta in by_caa])
        above, below = ((reached - target) ** 2).sum(axis=1), (target**2).sum(axis=1)
        found = table[table["layer"] == layer].iloc[0]
        assert found["relative_rmse"] == pytest.approx(np.sqrt(above.sum() / below.sum()), rel=1e-4)
        assert found["denominator"] == pytest.approx(np.sqrt(below.mean()), rel=1e-4)
        # torch's median of an even count is the lower of the two in the middle.
        middle = np.sort(np.sqrt(above / below))[(len(above) - 1) // 2]
        assert found["token_median"] == pytest.approx(middle, rel=1e-3)
        assert found["n_examples"] == len(PAIRS)
        assert found["n_tokens"] == len(above)


def test_below_its_site_a_steering_has_exactly_the_error_of_no_steering(model: Any) -> None:
    steerings = {"CAA": at(2, CAA(direction(model)))}
    table = faithfulness(model, PAIRS, steerings, any_instruction=False)
    below = table[table["layer"] < 2]
    np.testing.assert_allclose(below[["relative_rmse", "low", "high", "token_median"]], 1.0)


def test_a_steering_that_puts_in_the_prompted_activations_is_faithful_from_there_on(
    model: Any,
) -> None:
    """Everything on the span replaced at the last layer: nothing is left of the error there."""
    aligned = align(model, PAIRS[:1], [Site(3)])
    steering = at(3, Substitute(aligned.prompted.at(3), generated))
    table = faithfulness(model, PAIRS[:1], {"copy": steering}, any_instruction=False)
    at_last = table[table["layer"] == 3]["relative_rmse"].iloc[0]
    assert at_last == pytest.approx(0, abs=1e-6)
    assert (table[table["layer"] < 3]["relative_rmse"] == 1).all()


def test_the_same_wording_is_a_perfect_equivalent_and_another_is_not(model: Any) -> None:
    measure = partial(faithfulness, model, PAIRS, {}, any_instruction=False)
    same = measure(equivalents=[PAIRS])
    assert (same["relative_rmse"] < 1e-6).all()
    assert (same["method"] == EQUIVALENT).all()
    other = measure(equivalents=[reworded(PAIRS, "Hate the cat!")])
    assert (other["relative_rmse"] > 0.05).all()
    both = measure(equivalents=[PAIRS, reworded(PAIRS, "Hate the cat!")])
    np.testing.assert_allclose(
        both["relative_rmse"] ** 2, other["relative_rmse"] ** 2 / 2, rtol=1e-5, atol=1e-9
    )


def test_neutral_prompts_are_a_reference_of_their_own(model: Any) -> None:
    neutral = [reworded(PAIRS, "Hate the cat!")]
    measure = partial(faithfulness, model, PAIRS, {}, any_instruction=False)
    table = measure(equivalents=[PAIRS], neutral=neutral)
    assert table["method"].unique().tolist() == [EQUIVALENT, NEUTRAL]
    alone = measure(equivalents=neutral)
    mine = table[table["method"] == NEUTRAL]
    np.testing.assert_allclose(mine["relative_rmse"], alone["relative_rmse"])


def test_equivalents_with_other_responses_are_an_error(gpt2: Any) -> None:
    others = [PromptPair.with_system("What is it?", "Hate!", "not that") for _ in PAIRS]
    with pytest.raises(ValueError, match="same responses in the same order"):
        faithfulness(gpt2, PAIRS, {}, equivalents=[others])


def test_intervals_come_from_resampling_examples_and_depend_on_the_seed_alone(gpt2: Any) -> None:
    steerings = {"CAA": at(1, CAA(direction(gpt2)))}
    few = [faithfulness(gpt2, PAIRS, steerings, seed=k, n_bootstrap=5) for k in (1, 1, 2)]
    assert few[0].equals(few[1])
    assert not np.allclose(few[0]["low"], few[2]["low"])
    first = faithfulness(gpt2, PAIRS, steerings)
    assert (first["low"] <= first["relative_rmse"]).all()
    assert (first["relative_rmse"] <= first["high"]).all()
    assert first[first["layer"] >= 1]["high"].gt(first[first["layer"] >= 1]["low"]).all()


def test_one_example_has_no_interval(gpt2: Any) -> None:
    table = faithfulness(gpt2, PAIRS[:1], {"CAA": at(1, CAA(direction(gpt2)))})
    assert table[["low", "high"]].isna().all(axis=None)


def test_relative_rmse_of_twice_the_error_is_twice_as_large() -> None:
    below = torch.tensor([1.0, 3.0], dtype=torch.float64)
    assert relative_rmse(4 * below, below) == pytest.approx(2)


def test_logits_move_under_a_steering_and_not_under_one_that_is_off(model: Any) -> None:
    steering = at(1, CAA(direction(model))).only(response)
    table = logit_shift(model, PAIRS, {"on": steering, "off": steering.scaled(0.0)})
    moved = dict(zip(table["method"], table["moved"], strict=True))
    assert moved == {"prompt": True, "on": True, "off": False}
    on, off = (table[table["method"] == name].iloc[0] for name in ("on", "off"))
    assert on["mean_kl"] > 0
    assert on["max_shift"] > 0
    assert (off["mean_kl"], off["max_shift"], off["top_changed"]) == (0, 0, 0)


def test_mean_kl_is_that_of_the_moved_from_the_plain_distribution(gpt2: Any) -> None:
    from steerlens import encode_pair

    steering = at(1, CAA(direction(gpt2)))
    found = logit_shift(gpt2, PAIRS, {"CAA": steering}).set_index("method").loc["CAA", "mean_kl"]
    each = []
    for pair in PAIRS:
        row, _ = encode_pair(gpt2, pair)
        tokens = torch.tensor([row.ids])
        with torch.no_grad():
            plain = gpt2(tokens)[0].double().log_softmax(-1)
            with steering.applied(gpt2):
                moved = gpt2(tokens)[0].double().log_softmax(-1)
        kl = (moved.exp() * (moved - plain)).sum(-1)
        each += kl[row.response - 1 : -1].tolist()
    assert found == pytest.approx(np.mean(each), rel=1e-4)


def test_responses_to_one_question_are_no_independent_examples(gpt2: Any) -> None:
    steerings = {"CAA": at(1, CAA(direction(gpt2)))}
    once = faithfulness(gpt2, PAIRS, steerings)
    twice = faithfulness(gpt2, [*PAIRS, *PAIRS], steerings)
    for column in ("relative_rmse", "low", "high"):
        np.testing.assert_allclose(twice[column], once[column], rtol=1e-6)
    one = faithfulness(gpt2, [PAIRS[0], PAIRS[0]], steerings)
    assert one[["low", "high"]].isna().all(axis=None)
