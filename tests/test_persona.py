"""Persona vectors: the rollouts, which pairs are kept, the vector, and the layer that is chosen."""

from typing import Any

import numpy as np
import pytest
import torch
from catalogue import random
from tiny_models import D_MODEL

import steerlens as sl
from steerlens import Conversation, PersonaVector, Site
from steerlens.methods.persona import filtered

TEXTS = (["I love you", "A good day", "The cat"], ["I hate you", "What a day", "The dog is not"])
SIDES = tuple([Conversation("What is it?", response=text) for text in side] for side in TEXTS)
V = random(D_MODEL, seed=1)
NAN = float("nan")


@pytest.mark.parametrize(
    ("scores", "coherence", "kept"),
    [
        (None, None, [0, 1, 2]),
        (([50.0, 49.9, 90.0], [0.0, 0.0, 50.0]), None, [0]),
        (([90.0, 90.0, 90.0], [10.0, 10.0, 10.0]), ([50.0, 49.0, 90.0], [50.0, 90.0, 10.0]), [0]),
        (([90.0, NAN, 90.0], [10.0, 10.0, NAN]), None, [0]),
    ],
)
def test_a_pair_is_kept_where_each_side_did_what_it_was_told(
    scores: Any, coherence: Any, kept: list[int]
) -> None:
    assert filtered(3, scores, coherence) == kept


def test_the_vector_is_the_mean_difference_of_the_answers_that_are_kept(gpt2: Any) -> None:
    scores = ([90.0, 20.0, 90.0], [10.0, 10.0, 10.0])
    fit = PersonaVector.fit(gpt2, (SIDES[0], SIDES[1]), [1, 2], scores=scores)
    for site in (Site(1), Site(2)):
        means = [
            sl.capture(gpt2, side, site, scope=sl.generated).row_means(site)[[0, 2]].mean(dim=0)
            for side in SIDES
        ]
        torch.testing.assert_close(fit.steers[site].direction, means[0] - means[1])
    assert "2 of 3 pairs kept" in fit.name


def test_rollouts_pair_the_answers_under_both_instructions(bridge: Any) -> None:
    pairs = [("Be kind.", "Be unkind."), ("Be good.", "Be bad.")]
    positive, negative = PersonaVector.rollouts(
        bridge, pairs, ["What is it?", "Who?"], n=2, max_new_tokens=4
    )
    assert len(positive) == len(negative) <= 8
    assert {one.system for one in positive} == {"Be kind.", "Be good."}
    for one, other in zip(positive, negative, strict=True):
        assert one.user == other.user
        assert (one.system, other.system) in pairs
        assert 0 < len(one.response) <= 4
    assert len({one.response for one in positive}) > 2


def test_the_best_layer_is_the_one_with_the_highest_score(gpt2: Any) -> None:
    fit = PersonaVector.fit(gpt2, (SIDES[0], SIDES[1]), [1, 2, 3])
    texts: list[str] = []

    def judge(found: Any, prompts: Any) -> Any:
        texts.extend(found)
        assert [prompt.user for prompt in prompts] == ["Who?", "What?"]
        score = {1: NAN, 2: 70.0, 3: 30.0}[len(texts) // 2]
        return np.array([score, NAN])

    site, scores = PersonaVector.best_layer(
        gpt2, fit, ["Who?", "What?"], judge, strength=20.0, max_new_tokens=6
    )
    assert site == Site(2)
    assert np.isnan(scores[Site(1)])
    assert [scores[Site(2)], scores[Site(3)]] == [70.0, 30.0]
    asked = [Conversation("Who?"), Conversation("What?")]
    for number, layer in enumerate((1, 2, 3)):
        steering = 20.0 * sl.at(layer, fit.steers[Site(layer)]).only(sl.response)
        alone = sl.generate(gpt2, asked, steering, max_new_tokens=6, seed=0).texts
        assert list(alone) == texts[2 * number : 2 * number + 2]


def test_the_projection_is_along_the_unit_vector() -> None:
    h = random(2, 3, D_MODEL, seed=5)
    torch.testing.assert_close(PersonaVector(7 * V).projection(h), h @ (V / V.norm()))


def test_from_activations_takes_unequal_sides() -> None:
    positive, negative = random(6, D_MODEL, seed=4), random(5, D_MODEL, seed=5)
    found = PersonaVector.from_activations(positive, negative).direction
    torch.testing.assert_close(found, positive.mean(dim=0) - negative.mean(dim=0))


def test_mistakes_are_told(gpt2: Any) -> None:
    sides = (SIDES[0], SIDES[1])
    with pytest.raises(ValueError, match="None of 3 has the trait"):
        PersonaVector.fit(gpt2, sides, 1, scores=([0.0] * 3, [0.0] * 3))
    with pytest.raises(ValueError, match="a score for each of the 3 pairs"):
        PersonaVector.fit(gpt2, sides, 1, scores=([60.0] * 2, [0.0] * 3))
    with pytest.raises(ValueError, match="from 0 to 100"):
        PersonaVector.fit(gpt2, sides, 1, coherence=([60.0] * 3, [101.0] * 3))
    with pytest.raises(ValueError, match="PersonaVector needs pairs"):
        PersonaVector.fit(gpt2, (SIDES[0], SIDES[1][:2]), 1)
