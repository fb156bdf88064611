"""`steering.explain`: the numbers of a push, and each thing that may be wrong."""

from typing import Any

import pytest
import torch
from catalogue import CATALOGUE, cold_fd, random
from tiny_models import D_MODEL, PROMPTS

import steerlens as sl
from steerlens import CAA, CAST, Conversation, Site, at, explaining
from steerlens.methods.cast import PromptCondition

V = 0.05 * random(D_MODEL, seed=1)
ASKED = Conversation("What is it?", response=" A good day.")


@pytest.mark.parametrize("name", CATALOGUE)
def test_every_steering_is_explained_on_every_kind_of_token(name: str, gpt2: Any) -> None:
    steering = CATALOGUE[name].build(gpt2)
    found = steering.explain(gpt2, [ASKED, PROMPTS[1]])
    assert len(found.acts) == 2 * len(steering.placed)
    assert len(found.table) == sum(len(found.tokens[act.text]) for act in found.acts)
    assert str(found)
    assert all(kl >= 0 for kl in found.kl)


def test_the_push_is_a_share_of_the_activation_before_it(model: Any) -> None:
    steering = (2.0 * at(1, CAA(V)) + at(1, CAA(V))).only(sl.generated)
    found = steering.explain(model, [ASKED])
    seen = sl.capture(model, [ASKED], 1).at(1)
    inside = found.acts[0].inside
    assert int(inside.sum()) == len(seen) - sl.encode(model, ASKED).response
    first, second = found.acts
    expected = 2 * V.norm() / seen[inside].norm(dim=1)
    torch.testing.assert_close(first.shares[inside], expected, rtol=1e-3, atol=1e-5)
    assert not first.shares[~inside].any()
    after = seen[inside] + 2 * V
    torch.testing.assert_close(
        second.shares[inside], V.norm() / after.norm(dim=1), rtol=1e-3, atol=1e-5
    )
    assert (first.name, second.name) == ("2 x CAA", "CAA")
    table = found.table
    assert table["token"].tolist()[: len(seen)] == list(found.tokens[0])
    assert table.loc[table["inside"], "changed"].all()


def test_the_distance_is_that_of_what_is_predicted_next(model: Any) -> None:
    from steerlens.runtime.forward import logits

    steering = at(1, CAA(20 * V)).only(sl.last)
    found = steering.explain(model, [PROMPTS[1]])
    tokens, window = sl.batch(model, [PROMPTS[1]])
    with torch.no_grad():
        plain = logits(model, tokens, window)[0, -1].double().log_softmax(-1)
        with steering.applied(model, window):
            steered = logits(model, tokens, window)[0, -1].double().log_softmax(-1)
    expected = float((steered.exp() * (steered - plain)).sum())
    assert found.kl[0] == pytest.approx(expected, rel=1e-3)


def test_a_good_steering_has_no_problem(model: Any) -> None:
    assert at(1, CAA(V)).only(sl.response).explain(model, [ASKED, PROMPTS[0]]).problems == ()


def problems(steering: Any, model: Any, prompts: Any, **options: Any) -> str:
    return "\n".join(steering.explain(model, prompts, **options).problems)


def test_a_scope_that_is_empty_here_is_told_and_one_that_will_not_be_is_not(gpt2: Any) -> None:
    assert "holds no token" in problems(at(1, CAA(V)).only(sl.positions(90, 95)), gpt2, "I")
    later = at(1, CAA(V)).only(sl.generated).explain(gpt2, "I love you")
    assert later.problems == ()
    assert "those to be written" in str(later)
    assert "those to be written" not in str(at(1, CAA(V)).only(sl.prompt).explain(gpt2, "I love"))


def test_a_large_push_is_told(gpt2: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(explaining, "FAR", 0.5)
    steering = at(1, CAA(1000 * V)).only(sl.response)
    said = problems(steering, gpt2, "I love you")
    assert "of the activations' length" in said
    assert "another text altogether" in said
    small = at(1, CAA(V)).only(sl.response)
    assert problems(small, gpt2, "I love you") == ""
    assert "of the activations' length" in problems(small, gpt2, "I love you", large=1e-4)


@pytest.mark.parametrize("layers", [(1, 1), (1, 2)])
def test_two_steers_that_undo_each_other_are_told(gpt2: Any, layers: tuple[int, int]) -> None:
    first, second = (at(layer, CAA(V)) for layer in layers)
    assert "undo each other" in problems(first - 0.9 * second, gpt2, "I love you")
    assert "undo" not in problems(first + second, gpt2, "I love you")
    assert "undo" not in problems(first - 0.2 * second, gpt2, "I love you")
    apart = first.only(sl.last) - second.only(~sl.last)
    assert "undo" not in problems(apart, gpt2, "I love you")


def test_directional_ablation_does_not_undo_itself(gpt2: Any) -> None:
    steering = sl.DirectionalAblation.everywhere(gpt2, V)
    assert "undo" not in problems(steering, gpt2, "I love you because you are kind")


def test_a_steer_below_cold_is_told(gpt2: Any) -> None:
    cold = cold_fd(gpt2)
    for both in (at(0, CAA(V)) + cold, cold + at(0, CAA(V))):
        assert "reckons with the activations of the unsteered" in problems(both, gpt2, "I love you")
    above = cold + at(3, CAA(V))
    assert "reckons" not in problems(above, gpt2, "I love you")


def test_a_condition_that_is_not_met_and_a_strength_of_0_are_told(gpt2: Any) -> None:
    never = PromptCondition(V, 2.0, Site(0))
    said = problems(CAST.conditional(at(1, CAA(V)), never), gpt2, "I love you")
    assert "CAST at layer 1 resid_post changes nothing" in said
    assert "condition is not met" in said
    assert "PromptCondition at" not in said  # it only reads
    assert "strength or its direction is 0" in problems(0.0 * at(1, CAA(V)), gpt2, "I love you")


def test_a_sink_that_is_moved_is_told(gpt2: Any) -> None:
    """Here the BOS is made a sink first; the second steer then takes half of it away."""

    def long_first(activation: Any, hook: Any = None) -> Any:
        factors = torch.ones(activation.shape[:2])
        factors[:, 0] = 50.0
        return activation * factors[..., None]

    def halved(activation: Any, hook: Any = None) -> Any:
        return activation / 2

    steering = at(1, long_first) + at(1, halved)
    found = steering.explain(gpt2, "I love you because you are kind")
    assert found.acts[1].sinks.tolist() == [True] + [False] * (len(found.tokens[0]) - 1)
    assert any("moves a sink" in problem for problem in found.problems)
    assert ".only(steerlens.after_first), or" in "".join(found.problems)
    small = at(1, long_first) + at(1, CAA(V))
    assert "moves a sink" not in "\n".join(
        one
        for one in small.explain(gpt2, "I love you because you are kind").problems
        if "CAA" in one
    )


def test_the_advice_on_a_sink_leaves_that_sink_out(gpt2: Any) -> None:
    text = "I love you because you are kind"

    def long_third(activation: Any, hook: Any = None) -> Any:
        factors = torch.ones(activation.shape[:2])
        factors[:, 2] = 50.0
        return activation * factors[..., None]

    halved = at(1, lambda activation, hook=None: activation / 2)
    for steering in (halved, halved.only(sl.after_first)):
        told = "".join((at(1, long_third) + steering).explain(gpt2, text).problems)
        assert "moves a sink" in told
        assert ".only(~steerlens.positions([2]))" in told
        assert "after_first)" not in told
    better = at(1, long_third) + halved.only(~sl.positions([2]))
    assert "moves a sink" not in "".join(better.explain(gpt2, text).problems)


def test_odd_texts(gpt2: Any) -> None:
    found = at(1, CAA(V)).explain(gpt2, ["🙂 naïve", " "])
    assert len(found.tokens) == 2
    with pytest.raises(ValueError, match="prompt is empty"):
        at(1, CAA(V)).explain(gpt2, "")
    with pytest.raises(ValueError, match="No prompts"):
        at(1, CAA(V)).explain(gpt2, [])
    with pytest.raises(ValueError, match="d_model 3"):
        at(1, CAA(V[:3])).explain(gpt2, ["I"])


def test_what_is_not_finite_is_told(gpt2: Any) -> None:
    found = at(1, lambda h, hook=None: h * torch.nan).explain(gpt2, "I")
    assert any("makes NaN or infinity of" in problem for problem in found.problems)
    assert not any("changes nothing" in problem for problem in found.problems)
    for large in (0.0, -1.0, float("nan")):
        with pytest.raises(ValueError, match="large is a share"):
            at(1, CAA(V)).explain(gpt2, "I", large=large)
