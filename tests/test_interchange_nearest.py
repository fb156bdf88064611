"""The constant nearest to a steering: what it is, and how far it is said to be."""

from typing import Any

import pytest
import torch
from tiny_models import D_MODEL, PROMPTS

import steerlens as sl
from steerlens.divergence import divergence
from steerlens.interchange.difference import Difference
from steerlens.interchange.nearest import nearest_constant
from steerlens.interchange.request import ExportError

TEXTS = [
    sl.Conversation("The dog ran", response="to the house, and the cat sat."),
    sl.Conversation("What is it?", response="It was a good day."),
]


def constant(length: float = 1.0) -> sl.CAA:
    drawn = torch.randn(D_MODEL, generator=torch.Generator().manual_seed(0))
    return sl.CAA(length * drawn)


def only_steer(steering: sl.Steering) -> torch.Tensor:
    ((_, steer),) = steering.placed
    return steer.direction


def test_of_a_constant_on_the_response_it_is_that_constant(model):
    steering = 0.5 * sl.at(2, constant()).only(sl.response)
    nearest, difference = nearest_constant(model, steering, TEXTS)
    assert torch.allclose(only_steer(nearest), 0.5 * constant().direction, atol=1e-5)
    assert nearest.sites == steering.sites
    assert not nearest.positional
    # It acts on the prompt too, which is all that is different.
    assert 0 < difference.kl < difference.kl_of_nothing
    assert difference.worst >= difference.kl
    rows = [sl.encode(model, text) for text in TEXTS]
    assert difference.tokens == sum(len(row.ids) - row.response for row in rows)


def test_of_a_constant_everywhere_nothing_is_lost(model):
    nearest, difference = nearest_constant(model, sl.at([1, 2], constant()), TEXTS)
    assert len(nearest.placed) == 2
    assert difference.kl == pytest.approx(0.0, abs=1e-6)
    assert difference.kl_of_nothing > 0.01


def test_it_is_the_mean_push_of_the_tokens_that_are_pushed(gpt2):
    def pushes(activation: Any, hook: Any = None) -> Any:
        pushed = activation.clone()
        pushed[:, 2] += 1.0
        pushed[:, 4] += 3.0
        return pushed

    nearest, _ = nearest_constant(gpt2, sl.at(1, pushes), TEXTS)
    assert torch.allclose(only_steer(nearest), torch.full((D_MODEL,), 2.0), atol=1e-5)


def test_the_difference_is_the_kl_of_the_responses_tokens(gpt2):
    steering = sl.at(1, constant()).only(sl.response)
    nearest, difference = nearest_constant(gpt2, steering, TEXTS)
    found = {}
    for name, change in [("steered", steering), ("nearest", nearest), ("plain", None)]:
        rows = []
        for text in TEXTS:
            tokens, window = sl.batch(gpt2, [text])
            row = sl.encode(gpt2, text)
            with torch.no_grad():
                if change is None:
                    scores = gpt2(tokens)
                else:
                    with change.applied(gpt2, window):
                        scores = gpt2(tokens)
            rows.append(scores[0, row.response - 1 : -1].double().log_softmax(dim=-1))
        found[name] = torch.cat(rows)
    kls = divergence(found["steered"], found["nearest"])
    assert difference.kl == pytest.approx(float(kls.mean()), abs=1e-5)
    assert difference.worst == pytest.approx(float(kls.max()), abs=1e-4)
    of_nothing = divergence(found["steered"], found["plain"])
    assert difference.kl_of_nothing == pytest.approx(float(of_nothing.mean()), abs=1e-5)


def made(name: str, model: Any) -> sl.Steering:
    """A steering that is no constant, fitted on a few words."""
    if name == "ActAdd":
        return sl.ActAdd.fit(model, ("I love you", "I hate you"), sl.Site(2, "resid_pre")).steering
    if name == "COLD-FD":
        chosen = [sl.Conversation("What?", response="A good day.")]
        other = [sl.Conversation("What?", response="A bad day.")]
        return sl.ColdFD.fit(model, (chosen, other), [2]).steering
    pairs = sl.prompted_pairs(
        model, ["What is it?", "The dog ran", "The sun"], "Be kind.", max_new_tokens=6
    )
    return (sl.PSR if name == "PSR" else sl.InstructionVector).fit(model, pairs, 2).steering


@pytest.mark.filterwarnings("ignore::steerlens.types.SteeringWarning")
@pytest.mark.parametrize("name", ["ActAdd", "PSR", "InstructionVector", "COLD-FD"])
def test_every_kind_of_steering_has_a_nearest_constant(name, gpt2, tmp_path):
    steering = made(name, gpt2)
    for to in ("gguf", "checkpoint", "peft"):
        with pytest.raises(ExportError, match="approximate=True"):
            steering.export(tmp_path / "x", to=to, model=gpt2)
    done = steering.export(
        tmp_path / "v.gguf", to="gguf", model=gpt2, approximate=True, texts=TEXTS
    )
    assert done.difference is not None
    assert 0 < done.difference.kl < 10
    assert done.difference.worst >= done.difference.kl
    assert done.files[0].is_file()
    assert "nearest constant: KL" in str(done)


def test_what_can_be_written_as_it_is_is_not_approximated(gpt2, tmp_path):
    done = sl.at(1, constant()).export(
        tmp_path / "v.gguf", to="gguf", model=gpt2, approximate=True, texts=TEXTS
    )
    assert done.difference is None


def test_the_steered_model_answers_texts_without_a_response(gpt2):
    steering = sl.at(2, constant()).only(sl.response)
    both = [*PROMPTS[:2], sl.Conversation("What is it?", response="A day.")]
    _, difference = nearest_constant(gpt2, steering, both)
    assert (
        difference.tokens > len(sl.encode(gpt2, both[-1]).ids) - sl.encode(gpt2, both[-1]).response
    )
    assert nearest_constant(gpt2, steering, "The dog ran")[1].tokens > 0


def test_one_text_of_one_token_is_enough(gpt2):
    _, difference = nearest_constant(
        gpt2, sl.at(2, constant()).only(sl.response), [sl.Conversation("A", response="b")]
    )
    assert difference.tokens == 1


def test_a_steering_that_pushes_nothing_has_none(gpt2):
    still = sl.at(1, lambda activation, hook=None: activation.clone())
    with pytest.raises(ExportError, match="pushes no token of these texts"):
        nearest_constant(gpt2, still, TEXTS)


def test_a_steer_that_pushes_nothing_is_left_out_beside_one_that_does(gpt2):
    still = sl.at(1, lambda activation, hook=None: activation.clone())
    nearest, _ = nearest_constant(gpt2, still + sl.at(2, constant()).only(sl.response), TEXTS)
    assert nearest.sites == (sl.Site(2),)


def test_texts_are_needed_and_must_not_be_empty(gpt2, tmp_path):
    steering = sl.at(1, constant()).only(sl.response)
    here: dict[str, Any] = {"to": "gguf", "model": gpt2, "approximate": True}
    with pytest.raises(ValueError, match=r"give texts="):
        steering.export(tmp_path / "v.gguf", **here)
    with pytest.raises(ValueError, match="No prompts were given"):
        steering.export(tmp_path / "v.gguf", texts=[], **here)
    assert not list(tmp_path.iterdir())


def test_a_model_that_answers_nothing_is_an_error(gpt2, monkeypatch):
    from types import SimpleNamespace

    from steerlens.interchange import nearest

    monkeypatch.setattr(nearest, "generate", lambda *_, **__: SimpleNamespace(texts=(" ", "")))
    with pytest.raises(ExportError, match="writes nothing to these texts"):
        nearest_constant(gpt2, sl.at(1, constant()).only(sl.response), PROMPTS[:2])


def test_a_difference_is_told_with_its_unit():
    said = str(Difference(0.012345, 0.5, 0.25, 7))
    assert said == (
        "KL 0.0123 nats a token from the steering (at worst 0.5); without any steering it would "
        "be 0.25 (7 tokens)"
    )
