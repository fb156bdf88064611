"""In-context vectors: the fit over all layers at once, the length that is kept, what is refused."""

from typing import Any

import numpy as np
import pytest
import torch
from catalogue import random
from hypothesis import given
from hypothesis import strategies as st
from tiny_models import D_MODEL

import steerlens as sl
from steerlens import ICV, Conversation, Site

POSITIVE = ["I love you", "What a good day, a very good day", "The cat is kind"]
NEGATIVE = ["I hate you because you are not kind", "What a day", "The dog is not"]
V = sl.unit(random(D_MODEL, seed=1))


@given(lam=st.floats(-3, 3, width=16), seed=st.integers(0, 500))
def test_it_keeps_the_length_and_0_is_nothing(lam: float, seed: int) -> None:
    h = 20 * random(2, 3, D_MODEL, seed=seed + 2)
    steered = ICV(V, float(lam))(h)
    torch.testing.assert_close(steered.norm(dim=-1), h.norm(dim=-1), rtol=1e-5, atol=0)
    torch.testing.assert_close(ICV(V, 0.0)(h), h)
    along = (steered @ V - h @ V) * float(np.sign(lam))
    assert bool((along >= -1e-4).all())


def test_twice_as_long_an_activation_is_moved_twice_as_far() -> None:
    h = random(1, 4, D_MODEL, seed=3)
    one, two = ICV(V, 0.5)(h) - h, ICV(V, 0.5)(2 * h) - 2 * h
    torch.testing.assert_close(two, 2 * one)


def test_the_fit_is_one_principal_direction_of_all_layers(gpt2: Any) -> None:
    sites = [Site(1), Site(2)]
    fit = ICV.fit(gpt2, (POSITIVE, NEGATIVE), sites, lam=0.3)
    seen = [sl.capture(gpt2, side, sites, scope=sl.last) for side in (POSITIVE, NEGATIVE)]
    rows = [np.hstack([side.at(site).double().numpy() for site in sites]) for side in seen]
    differences = rows[0] - rows[1]
    v = np.linalg.svd(differences)[2][0]
    v = v if differences.mean(axis=0) @ v > 0 else -v
    for part, site in zip((v[:D_MODEL], v[D_MODEL:]), sites, strict=True):
        expected = part / np.linalg.norm(part)
        np.testing.assert_allclose(fit.steers[site].v.double().numpy(), expected, atol=1e-4)
        assert fit.steers[site].lam == 0.3
    alone = ICV.fit(gpt2, (POSITIVE, NEGATIVE), 2).steer.v
    assert not torch.allclose(alone, fit.steers[Site(2)].v, atol=1e-3)


def test_answers_are_read_where_all_prompts_have_one(gpt2: Any) -> None:
    sides = tuple(
        [Conversation("What?", response=text) for text in side] for side in (POSITIVE, NEGATIVE)
    )
    fit = ICV.fit(gpt2, (sides[0], sides[1]), 2)
    seen = [
        sl.capture(gpt2, side, 2, scope=sl.generated).row_means(2).double().numpy()
        for side in sides
    ]
    v = np.linalg.svd(seen[0] - seen[1])[2][0]
    cosine = abs(float(fit.steer.v.double().numpy() @ v))
    assert cosine == pytest.approx(1.0, abs=1e-4)


def test_from_activations_is_that_of_one_layer() -> None:
    positive, negative = random(6, D_MODEL, seed=4) + 3 * V, random(6, D_MODEL, seed=5)
    found = ICV.from_activations(positive, negative, 0.2)
    assert torch.equal(found.v, sl.principal_direction(positive, negative, "none"))
    assert found.lam == 0.2
    assert float(found.v @ V) > 0.5


def test_mistakes_are_told(gpt2: Any) -> None:
    with pytest.raises(ValueError, match="ICV needs pairs: 3 positive and 2 negative"):
        ICV.fit(gpt2, (POSITIVE, NEGATIVE[:2]), 2)
    with pytest.raises(ValueError, match="no difference to add"):
        ICV.fit(gpt2, (POSITIVE, POSITIVE), 2)
    with pytest.raises(ValueError, match="length 1"):
        ICV(2 * V)
    with pytest.raises(ValueError, match="ICV's lam"):
        ICV(V, float("nan"))
