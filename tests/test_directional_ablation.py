"""Directional ablation: nothing is left along the direction anywhere, and how it is fitted."""

from pathlib import Path
from typing import Any

import pytest
import torch
from catalogue import random
from tiny_models import D_MODEL, N_LAYERS, PROMPTS

import steerlens as sl
from steerlens import CAA, DirectionalAblation, Site

POSITIVE = ["I love you", "What a good day, a very good day", "The cat is kind"]
NEGATIVE = ["I hate you because you are not kind", "What a day", "The dog is not"]
V = random(D_MODEL, seed=1)
ENDS = [Site(layer, stream) for layer in range(N_LAYERS) for stream in ("resid_pre", "resid_post")]


def test_nothing_of_the_stream_lies_along_the_direction_at_any_layer(model: Any) -> None:
    ablated = DirectionalAblation.everywhere(model, 5.0 * V, scope=sl.everywhere)
    seen = sl.capture(model, list(PROMPTS), ENDS, steering=ablated)
    plain = sl.capture(model, list(PROMPTS), ENDS)
    u = sl.unit(V)
    for site in ENDS:
        assert float((plain.at(site) @ u).abs().max()) > 0.1
        assert float((seen.at(site) @ u).abs().max()) < 1e-4 * float(
            seen.at(site).norm(dim=1).max()
        )
        assert not torch.allclose(seen.at(site), plain.at(site), atol=1e-3)


@pytest.mark.parametrize("left_out", ["resid_pre", "attn_out", "mlp_out"])
def test_each_kind_of_site_is_needed(model: Any, left_out: str) -> None:
    """Without it something of the stream lies along the direction, inside a block or at its end."""
    whole = DirectionalAblation.everywhere(model, V, scope=sl.everywhere)
    placed = tuple((site, steer) for site, steer in whole.placed if site.stream != left_out)
    inner = [Site(0, stream) for stream in ("resid_pre", "attn_out", "mlp_out")]
    seen = sl.capture(model, list(PROMPTS), inner, steering=sl.Steering(placed))
    along = {site.stream: float((seen.at(site) @ sl.unit(V)).abs().max()) for site in inner}
    assert along[left_out] > 1e-3
    assert max(value for stream, value in along.items() if stream != left_out) < 1e-4


def test_the_fit_is_the_mean_difference_at_length_1_everywhere(gpt2: Any) -> None:
    fit = DirectionalAblation.fit(gpt2, (POSITIVE, NEGATIVE), 2)
    v = CAA.fit(gpt2, (POSITIVE, NEGATIVE), 2).steer.direction
    assert len(fit.steers) == 3 * N_LAYERS + 1
    for steer in fit.steers.values():
        torch.testing.assert_close(steer.u, v / v.norm())
    assert fit.steering.origin is not None


def test_written_where_read_has_each_direction_at_its_own_site(gpt2: Any) -> None:
    fit = DirectionalAblation.fit(gpt2, (POSITIVE, NEGATIVE), [1, -1], written="where read")
    assert list(fit.steers) == [Site(1), Site(N_LAYERS - 1)]
    assert not torch.allclose(fit.steers[Site(1)].u, fit.steers[Site(N_LAYERS - 1)].u, atol=1e-2)


def test_it_is_saved_and_read(gpt2: Any, tmp_path: Path) -> None:
    steering = DirectionalAblation.fit(gpt2, (POSITIVE, NEGATIVE), 2).steering
    read: Any = sl.load_steering(steering.save(tmp_path / "a.safetensors"), gpt2)
    assert read.sites == steering.sites
    before: Any = steering.placed[3][1]
    assert read.placed[3][1].scope == before.scope == sl.after_first
    assert torch.equal(read.placed[3][1].steer.u, before.steer.u)


def test_from_activations_is_the_unit_difference_of_means() -> None:
    positive, negative = random(6, D_MODEL, seed=4), random(5, D_MODEL, seed=5)
    v = positive.mean(dim=0) - negative.mean(dim=0)
    found = DirectionalAblation.from_activations(positive, negative).u
    torch.testing.assert_close(found, v / v.norm())


def test_mistakes_are_told(gpt2: Any) -> None:
    with pytest.raises(ValueError, match="asked for at each of 2 sites"):
        DirectionalAblation.fit(gpt2, (POSITIVE, NEGATIVE), [1, 2])
    with pytest.raises(ValueError, match="length 1"):
        DirectionalAblation(2 * sl.unit(V))
    with pytest.raises(ValueError, match="length 0"):
        DirectionalAblation.everywhere(gpt2, torch.zeros(D_MODEL))
