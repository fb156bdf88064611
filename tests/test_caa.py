"""CAA against its textbook formula, a planted direction, and every way of batching its prompts."""

from typing import Any

import numpy as np
import pytest
import torch
from catalogue import random
from hypothesis import given
from hypothesis import strategies as st
from oracles import fit_caa
from tiny_models import D_MODEL, PROMPTS

import steerlens
from steerlens import CAA, Site, Steering
from steerlens.methods import caa

POSITIVE = ["I love you", "What a good day, a very good day", "The cat is kind", "It was good"]
NEGATIVE = ["I hate you because you are not kind", "What a day", "The dog is not", "It was not"]


def direction(steering: Steering) -> torch.Tensor:
    ((_, steer),) = steering.placed
    return steer.direction


@given(pairs=st.integers(1, 9), seed=st.integers(0, 1000))
def test_the_direction_is_the_textbook_mean_of_pair_differences(pairs: int, seed: int) -> None:
    positive = random(pairs, 5, seed=seed).double() * 10
    negative = random(pairs, 5, seed=seed + 5000).double() * 10
    found = CAA.from_activations(positive, negative).direction
    expected = fit_caa(positive.numpy(), negative.numpy())
    assert found.dtype == torch.float64
    np.testing.assert_allclose(found.numpy(), expected, rtol=0, atol=1e-12)


def test_a_planted_direction_is_recovered_with_its_length_and_sign() -> None:
    planted = 2 * random(D_MODEL, seed=1)
    base = 5 * random(400, D_MODEL, seed=2)
    positive = base + planted + 0.3 * random(400, D_MODEL, seed=3)
    negative = base + 0.3 * random(400, D_MODEL, seed=4)
    found = CAA.from_activations(positive, negative).direction
    assert float(torch.cosine_similarity(found, planted, dim=0)) > 0.999
    assert abs(float(found.norm() / planted.norm()) - 1) < 0.02


def test_swapping_the_sides_reverses_the_direction() -> None:
    positive, negative = random(4, 6, seed=1), random(4, 6, seed=2)
    there, back = CAA.from_activations(positive, negative), CAA.from_activations(negative, positive)
    torch.testing.assert_close(there.direction, -back.direction)


@pytest.mark.parametrize("where", [0, 1])
def test_activations_that_are_not_finite_are_refused(where: int) -> None:
    sides = [random(3, 4, seed=1), random(3, 4, seed=2)]
    sides[where][1, 2] = float("nan")
    with pytest.raises(ValueError, match="tive activations: 1 of 12 values are NaN or infinite"):
        CAA.from_activations(*sides)


def test_no_pairs_are_refused() -> None:
    with pytest.raises(ValueError, match="empty"):
        CAA.from_activations(torch.zeros(0, 4), torch.zeros(0, 4))


def test_several_sites_are_fitted_from_one_capture_each_by_itself(
    model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    captured: list[Any] = []
    capture = caa.capture

    def recording(*arguments: Any, **options: Any) -> Any:
        captured.append(arguments)
        return capture(*arguments, **options)

    monkeypatch.setattr(caa, "capture", recording)
    sites = [Site(2), 1, Site(0, "resid_pre")]
    fit = CAA.fit(model, (POSITIVE, NEGATIVE), sites)
    assert len(captured) == 2  # one for each side
    assert list(fit.steers) == [Site(2), Site(1), Site(0, "resid_pre")]
    assert fit.steering.sites == tuple(fit.steers)
    for site in sites:
        alone = CAA.fit(model, (POSITIVE, NEGATIVE), site)
        (place,) = alone.steers
        assert torch.equal(alone.steer.direction, fit.steers[place].direction)
        assert alone.steering.origin == fit.steering.origin
    assert fit.trained is None
    with pytest.raises(ValueError, match="a steer at each of 3 sites"):
        _ = fit.steer


def test_from_prompts_is_fit_on_the_last_tokens_at_that_site(model: Any) -> None:
    site = Site(2)
    sides = []
    for texts in (POSITIVE, NEGATIVE):
        rows = [torch.tensor([steerlens.encode(model, text).ids]) for text in texts]
        with torch.no_grad():
            caches = [model.run_with_cache(row)[1] for row in rows]
        sides.append(np.stack([cache[site.hook_name][0, -1].double().numpy() for cache in caches]))
    steering = CAA.from_prompts(model, POSITIVE, NEGATIVE, 2)
    assert steering.sites == (site,)
    np.testing.assert_allclose(direction(steering).numpy(), fit_caa(*sides), atol=1e-5)


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("batch_size", [1, 3])
def test_batch_size_and_padding_side_do_not_change_from_prompts(
    side: str, batch_size: int, model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = direction(CAA.from_prompts(model, POSITIVE, NEGATIVE, 2))
    size = float(steerlens.capture(model, POSITIVE, 2).at(2).norm(dim=1).mean())
    capture = caa.capture

    def otherwise(*arguments: Any, **options: Any) -> Any:
        return capture(*arguments, **options, side=side, batch_size=batch_size)

    monkeypatch.setattr(caa, "capture", otherwise)
    found = direction(CAA.from_prompts(model, POSITIVE, NEGATIVE, 2))
    assert float((found - expected).abs().max()) < 1e-6 * size


def test_a_scope_of_several_tokens_is_read_as_their_mean(model: Any) -> None:
    read = steerlens.everywhere.without_bos
    steering = CAA.from_prompts(model, POSITIVE, NEGATIVE, 2, read=read)
    sides = [
        torch.stack(
            [steerlens.capture(model, [text], 2).at(2)[1:].double().mean(dim=0) for text in texts]
        )
        for texts in (POSITIVE, NEGATIVE)
    ]
    expected = fit_caa(*(side.numpy() for side in sides))
    np.testing.assert_allclose(direction(steering).numpy(), expected, atol=1e-5)
    last = direction(CAA.from_prompts(model, POSITIVE, NEGATIVE, 2))
    assert float((direction(steering) - last).norm()) > 0.1


def test_unequal_numbers_of_prompts_are_refused(model: Any) -> None:
    with pytest.raises(ValueError, match="4 positive and 3 negative prompts"):
        CAA.from_prompts(model, POSITIVE, NEGATIVE[:3], 2)


def test_steering_with_it_moves_the_residual_by_the_direction_and_no_other_layer(
    model: Any,
) -> None:
    steering = CAA.from_prompts(model, POSITIVE, NEGATIVE, 2)
    plain = steerlens.capture(model, list(PROMPTS), [1, 2])
    steered = steerlens.capture(model, list(PROMPTS), [1, 2], steering=steering.scaled(-1.5))
    assert torch.equal(plain.at(1), steered.at(1))
    moved = steered.at(2) - plain.at(2)
    torch.testing.assert_close(
        moved, (-1.5 * direction(steering)).expand_as(moved), rtol=0, atol=1e-4
    )
