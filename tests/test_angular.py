"""Angular steering: the angle it turns by, where it has no plane to turn in, and its fit."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from catalogue import random
from hypothesis import given
from hypothesis import strategies as st
from tiny_models import D_MODEL

import steerlens as sl
from steerlens import CAA, Angular, Conversation, Site

POSITIVE = ["I love you", "What a good day, a very good day", "The cat is kind"]
NEGATIVE = ["I hate you because you are not kind", "What a day", "The dog is not"]
V = random(D_MODEL, seed=1)


def degrees_between(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    cosine = torch.cosine_similarity(a.double(), b.double(), dim=-1)
    return torch.rad2deg(torch.arccos(cosine.clamp(-1, 1)))


@given(angle=st.floats(-180, 180, width=16), seed=st.integers(0, 1000))
def test_it_turns_by_the_angle_and_keeps_the_length(angle: float, seed: int) -> None:
    h = 20 * random(2, 3, D_MODEL, seed=seed + 2)
    steered = Angular(V, angle)(h)
    torch.testing.assert_close(steered.norm(dim=-1), h.norm(dim=-1), rtol=1e-5, atol=0)
    expected = torch.full((2, 3), abs(float(angle)), dtype=torch.float64)
    torch.testing.assert_close(degrees_between(h, steered), expected, rtol=0, atol=0.05)


def test_a_positive_angle_turns_towards_the_direction_and_a_negative_one_away() -> None:
    h = random(1, 50, D_MODEL, seed=3)
    before = degrees_between(h, V)
    for angle in (10.0, -10.0):
        after = degrees_between(Angular(V, angle)(h), V)
        torch.testing.assert_close(after, before - angle, rtol=0, atol=0.01)


def test_an_angle_wider_than_that_to_the_direction_turns_past_it() -> None:
    h = (V + 0.1 * random(D_MODEL, seed=4))[None, None]
    near = float(degrees_between(h, V))
    assert 0 < near < 10
    steered = Angular(V, 50.0)(h)
    assert float(degrees_between(steered, V)) == pytest.approx(50 - near, abs=0.01)


def test_the_length_of_the_direction_does_not_count() -> None:
    h = random(1, 4, D_MODEL, seed=5)
    torch.testing.assert_close(Angular(1e-3 * V, 30.0)(h), Angular(1e3 * V, 30.0)(h))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("factor", [0.0, 1.0, -1.0, 7.0, 1e-3])
def test_without_a_plane_the_activation_stays_as_it_is(factor: float, dtype: torch.dtype) -> None:
    v = V.to(dtype)
    h = (factor * v.double()).to(dtype)[None, None]
    steered = Angular(v, 60.0)(h)
    assert steered.dtype == dtype
    assert torch.isfinite(steered).all()
    sine = math.sin(math.radians(float(degrees_between(h, v)))) if factor else 0.0
    if sine < 1e-4:  # as far as the dtype can tell they are parallel
        assert torch.equal(steered, h)
    else:
        torch.testing.assert_close(steered.norm(), h.norm(), rtol=0.01, atol=0)


def test_a_direction_of_length_zero_or_an_angle_that_is_no_number_is_refused() -> None:
    with pytest.raises(ValueError, match="length 0"):
        Angular(torch.zeros(4), 30.0)
    with pytest.raises(ValueError, match="Angular's angle"):
        Angular(V, math.nan)


def test_it_is_fitted_at_every_site_with_the_direction_of_caa(gpt2: Any) -> None:
    assert Angular.fit(gpt2, (POSITIVE, NEGATIVE), 2).steer.angle == 30.0
    fit = Angular.fit(gpt2, (POSITIVE, NEGATIVE), [2, Site(1)], angle=15.0)
    assert fit.steering.sites == (Site(2), Site(1))
    assert fit.trained is None
    for site, steer in fit.steers.items():
        ((_, caa),) = CAA.from_prompts(gpt2, POSITIVE, NEGATIVE, site).placed
        assert torch.equal(steer.direction, caa.direction)
        assert steer.angle == 15.0
    read = sl.everywhere.without_bos
    other = Angular.fit(gpt2, (POSITIVE, NEGATIVE), 2, read=read).steers[Site(2)]
    assert not torch.equal(other.direction, fit.steers[Site(2)].direction)


def test_from_activations_is_the_difference_of_means() -> None:
    positive, negative = random(3, 5, seed=1), random(4, 5, seed=2)
    steer = Angular.from_activations(positive, negative, 20.0)
    torch.testing.assert_close(steer.direction, positive.mean(dim=0) - negative.mean(dim=0))


def test_a_file_gives_back_the_same_tokens(gpt2: Any, tmp_path: Path) -> None:
    fit = Angular.fit(gpt2, (POSITIVE, NEGATIVE), [0, 2], angle=70.0)
    path = fit.steering.only(sl.response).save(tmp_path / "angular.safetensors")
    loaded = sl.load_steering(path, gpt2)
    asked = [Conversation("What is it?")]
    texts = [
        sl.generate(gpt2, asked, steering, max_new_tokens=6, seed=1).texts
        for steering in (fit.steering.only(sl.response), loaded, None)
    ]
    assert texts[0] == texts[1] != texts[2]
