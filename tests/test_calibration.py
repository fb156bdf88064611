"""The strength that has the effect asked for: for every method, in every unit."""

from typing import Any

import numpy as np
import pytest
import torch
from catalogue import CATALOGUE, LAYER, U, V

import steerlens as sl
from steerlens import CAA, Conversation, PromptPair, SteeringWarning, at, calibrate
from steerlens.calibration import AUTO_KL, MOST_SHARE, TOLERANCE, _Search, share_at_one
from steerlens.prompts import encode, encode_pair
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


# -- What a KL is, and whose -----------------------------------------------------------------------


def test_the_prompts_own_effect_is_matched_on_the_same_responses(model: Any) -> None:
    steering = at(LAYER, CAA(V)).only(sl.scope.response)
    found = calibrate(model, steering, PAIRS, like="prompt")
    both = [encode_pair(model, pair) for pair in PAIRS]
    plain, prompted = [one for one, _ in both], [other for _, other in both]
    assert found.unit == "prompt"
    assert found.target == pytest.approx(mean_kl(model, prompted, None, plain), rel=1e-3)
    assert found.effect == pytest.approx(mean_kl(model, plain, found.steering), rel=1e-3)
    assert found.effect == pytest.approx(found.target, rel=2 * TOLERANCE)


def test_more_rows_than_a_pass_holds_are_all_counted(gpt2: Any) -> None:
    responses = (" A very good day.", " home", " to the sea and the sun")
    pairs = [PromptPair.with_system(q, "Be kind.", r) for q in QUESTIONS for r in responses]
    found = calibrate(gpt2, at(LAYER, CAA(V)), pairs)
    plain, prompted = zip(*[encode_pair(gpt2, pair) for pair in pairs], strict=True)
    assert found.target == pytest.approx(mean_kl(gpt2, prompted, None, plain), rel=1e-3)
    assert found.effect == pytest.approx(mean_kl(gpt2, plain, found.steering), rel=1e-3)


def test_without_a_unit_it_is_the_prompts_where_there_is_one(gpt2: Any) -> None:
    steering = at(LAYER, CAA(V))
    assert calibrate(gpt2, steering, PAIRS).unit == "prompt"
    found = calibrate(gpt2, steering, ANSWERED)
    assert (found.unit, found.target) == ("target_kl", AUTO_KL)


def test_prompts_without_a_response_are_answered_by_the_unsteered_model(gpt2: Any) -> None:
    options: dict[str, Any] = {"max_new_tokens": 6, "seed": 3}
    found = calibrate(gpt2, at(LAYER, CAA(V)), list(QUESTIONS), target_kl=0.1, **options)
    written = sl.generate(gpt2, list(QUESTIONS), **options)
    rows = []
    for number, question in enumerate(QUESTIONS):
        row = encode(gpt2, question)
        ids = (*row.ids, *written.response_ids(number))
        rows.append(type(row)(ids, row.question, row.response, row.bos))
    assert found.effect == pytest.approx(mean_kl(gpt2, rows, found.steering), rel=1e-3)


@pytest.mark.parametrize("size", [1e-6, 1.0, 1e6])
def test_the_methods_own_size_does_not_matter(gpt2: Any, size: float) -> None:
    # What COLD does at eta = 1 differs a million times from model to model.
    plain = calibrate(gpt2, at(LAYER, CAA(V)), ANSWERED, target_kl=0.1)
    found = calibrate(gpt2, at(LAYER, CAA(size * V)), ANSWERED, target_kl=0.1)
    assert found.strength * size == pytest.approx(plain.strength, rel=0.05)
    assert len(found.trials) < 12


def test_steerings_added_up_are_one(gpt2: Any) -> None:
    both = at(LAYER, CAA(V)) + at(LAYER, CAA(-V)) + at(2, CAA(U)).only(sl.scope.prompt)
    found = calibrate(gpt2, both, ANSWERED, target_kl=0.05)
    assert found.steering.sites == both.sites
    shared = calibrate(gpt2, both, ANSWERED, share=0.2)
    alone = calibrate(gpt2, at(2, CAA(U)).only(sl.scope.prompt), ANSWERED, share=0.2)
    # The two at one site cancel, so only the third pushes.
    assert shared.strength == pytest.approx(alone.strength, rel=1e-5)


def test_a_negative_steering_is_turned_round_and_calibrated(gpt2: Any) -> None:
    found = calibrate(gpt2, -at(LAYER, CAA(V)), ANSWERED, target_kl=0.05)
    assert found.strength > 0


def test_a_share_is_the_median_push_over_the_median_length(gpt2: Any) -> None:
    steering = at(2, CAA(V)).only(sl.scope.generated)
    rows = [encode(gpt2, text) for text in ANSWERED]
    h = sl.capture(gpt2, rows, 2, scope=sl.scope.generated).at(2)
    expected = float(V.norm() / h.norm(dim=-1).double().median())
    assert share_at_one(gpt2, steering, rows) == pytest.approx(expected, rel=1e-4)


# -- The search ------------------------------------------------------------------------------------


def test_no_smaller_strength_that_was_tried_reaches_the_target(gpt2: Any) -> None:
    found = calibrate(gpt2, at(LAYER, CAA(V)), ANSWERED, target_kl=0.3)
    table = found.table()
    below = table[table["strength"] < found.strength]
    assert (below["kl"] < (1 - TOLERANCE) * 0.3).all()
    assert table["strength"].is_monotonic_increasing
    np.testing.assert_allclose(
        table["share"] / table["strength"], table["share"].iloc[0] / table["strength"].iloc[0]
    )
    assert found.strength in table["strength"].tolist()


def test_of_an_effect_that_falls_again_the_first_rise_is_taken() -> None:
    tried = []

    def kl_at(strength: float) -> float:
        tried.append(strength)
        return 1.2 * strength**2 if strength < 1 else max(1.2 / strength, 0.5)

    search = _Search(kl_at, share_at_one=1.0, target=0.6)
    search.run()
    assert search.best == pytest.approx(0.5**0.5, rel=0.05)
    assert len(tried) == len(set(tried))


@pytest.mark.parametrize("scale", [1e-4, 0.03, 1.0, 30.0])
def test_no_strength_is_tried_twice_or_beside_one_that_was(scale: float) -> None:
    tried: list[float] = []

    def kl_at(strength: float) -> float:
        tried.append(strength)
        return (strength / scale) ** 2

    search = _Search(kl_at, share_at_one=1.0, target=0.3)
    search.run()
    assert search.best == pytest.approx(scale * 0.3**0.5, rel=0.05) or max(tried) < scale / 4
    steps = np.diff(np.log(sorted(tried)))
    assert (steps > 0.001).all()


def test_what_no_strength_reaches_is_said_with_the_largest_effect(gpt2: Any) -> None:
    with pytest.warns(SteeringWarning, match=r"No strength .* reaches 1e\+03 .* largest effect"):
        found = calibrate(gpt2, at(LAYER, CAA(V)), ANSWERED, target_kl=1000.0)
    assert not found.reached
    table = found.table()
    assert found.effect >= (1 - TOLERANCE) * table["kl"].max()
    assert table["share"].max() >= MOST_SHARE
    assert "short of" in str(found)


def test_predictions_that_are_no_numbers_are_too_much(gpt2: Any) -> None:
    def explode(activation: torch.Tensor, hook: Any = None) -> torch.Tensor:
        return activation + 1e-3 * V + torch.where(activation.abs() > 1e30, torch.nan, 0.0)

    found = calibrate(gpt2, at(LAYER, explode), ANSWERED, target_kl=0.05)
    assert found.reached


# -- What cannot be calibrated ---------------------------------------------------------------------


@pytest.mark.parametrize(
    "steering",
    [
        at(LAYER, CAA(V)).scaled(0.0),
        at(LAYER, CAA(torch.zeros_like(V))),
        at(LAYER, CAA(V)).only(sl.scope.positions(500, 600)),
        at(LAYER, CAA(V)) + at(LAYER, CAA(-V)),
        at(LAYER, sl.When(CAA(V), lambda h: h[..., 0] > 1e9)),
        at(LAYER, sl.PSR(torch.zeros(1, len(V)), torch.tensor([-1.0]), V[None])),
    ],
    ids=["off", "zero", "no_token", "cancels", "never", "closed"],
)
@pytest.mark.parametrize("asked", [{"share": 0.1}, {"target_kl": 0.1}, {"like": "prompt"}])
def test_a_steering_that_does_nothing_is_an_error(gpt2: Any, steering: Any, asked: Any) -> None:
    with pytest.raises(ValueError, match="changes no activation of these texts"):
        calibrate(gpt2, steering, PAIRS, **asked)


def test_a_push_that_reaches_no_prediction_is_an_error(gpt2: Any) -> None:
    # The last token of a row predicts nothing that is there.
    row = encode(gpt2, ANSWERED[0])
    scope = sl.scope.positions([len(row.ids) - 1])
    with pytest.raises(ValueError, match="no prediction of the response tokens"):
        calibrate(gpt2, at(LAYER, CAA(V)).only(scope), ANSWERED[:1], target_kl=0.1)


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"share": 0.1, "target_kl": 0.1}, "share and target_kl were given"),
        ({"target_kl": 0.1, "like": "prompt"}, "target_kl and like were given"),
        ({"share": 0.0}, "share must be a number above 0"),
        ({"target_kl": float("nan")}, "target_kl must be a number above 0"),
        ({"target_kl": float("inf")}, "target_kl must be a number above 0"),
        ({"like": "prompt"}, "needs pairs"),
    ],
)
def test_what_makes_no_sense_is_an_error_before_the_model_runs(
    asked: dict[str, Any], message: str, gpt2: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("steerlens.calibration.log_probabilities", None)
    with pytest.raises(ValueError, match=message):
        calibrate(gpt2, at(LAYER, CAA(V)), ANSWERED, **asked)


def test_pairs_and_prompts_do_not_mix_and_an_instruction_must_do_something(gpt2: Any) -> None:
    with pytest.raises(ValueError, match="Some of the texts are PromptPairs"):
        calibrate(gpt2, at(LAYER, CAA(V)), [*PAIRS, *ANSWERED])
    same = [PromptPair(pair.plain, pair.plain, pair.response) for pair in PAIRS]
    with pytest.raises(ValueError, match="changes no prediction"):
        calibrate(gpt2, at(LAYER, CAA(V)), same)


def test_a_lora_is_calibrated_by_its_alpha(bridge: Any) -> None:
    lora = sl.LoRA.fit(bridge, PAIRS[:2], validation=PAIRS[2:]).lora
    lora = sl.LoRA(lora.A, {name: B + 0.01 for name, B in lora.B.items()})
    found = calibrate(bridge, lora, PAIRS, target_kl=0.05)
    assert found.reached
    assert found.steering.alpha == pytest.approx(found.strength * lora.alpha)
    assert found.table()["share"].isna().all()
    rows = [encode_pair(bridge, pair)[0] for pair in PAIRS]
    still = [predicted(bridge, row) for row in rows]
    with found.steering.applied(bridge):
        moved = [predicted(bridge, row) for row in rows]
    kl = torch.cat([(p.exp() * (p - q)).sum(-1) for p, q in zip(moved, still, strict=True)]).mean()
    assert found.effect == pytest.approx(float(kl), rel=1e-3)
    with pytest.raises(ValueError, match="no share of a residual norm"):
        calibrate(bridge, lora, PAIRS, share=0.1)


@torch.no_grad()
def predicted(model: Any, row: Any) -> torch.Tensor:
    tokens, window = sl.batch(model, [row])
    scores = logits(model, tokens, window)
    return scores[0, row.response - 1 : -1].double().log_softmax(-1)


def test_in_half_precision_it_reaches_the_same_share(bfloat16_model: Any) -> None:
    found = calibrate(bfloat16_model, at(LAYER, CAA(V)), ANSWERED, share=0.3)
    rows = [encode(bfloat16_model, text) for text in ANSWERED]
    assert share_at_one(bfloat16_model, found.steering, rows) == pytest.approx(0.3, rel=0.05)
    assert calibrate(bfloat16_model, at(LAYER, CAA(V)), ANSWERED, target_kl=0.1).reached


# -- Effects that jump, or are no numbers ---------------------------------------------------------


def _searched(kl_at: Any) -> Any:
    search = _Search(kl_at, share_at_one=0.1, target=0.3)
    search.run()
    return search


def _result(search: Any) -> Any:
    return search.result(at(0, CAA(torch.ones(4))), "target_kl")


def test_an_infinite_effect_is_none_that_was_asked_for() -> None:
    search = _searched(lambda strength: 0.01 * strength if strength < 2 else float("inf"))
    with pytest.warns(SteeringWarning, match="No strength of this steering reaches"):
        found = _result(search)
    assert not found.reached
    assert found.effect < 0.1


def test_an_effect_far_above_the_target_is_warned_of() -> None:
    search = _searched(lambda strength: 0.01 if strength < 2 else 5.0)
    with pytest.warns(SteeringWarning, match=r"jumps.* has 5, and nothing between"):
        assert _result(search).effect == 5.0
