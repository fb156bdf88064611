"""Instruction vectors: u and z against plain passes, and the projection they set."""

from typing import Any

import numpy as np
import pytest
import torch
from test_coefficients import PAIRS
from tiny_models import D_MODEL

import steerlens
from steerlens import InstructionVector, PromptPair, Site, encode_pair


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def last_prompt_tokens(model: Any, side: int, layer: int) -> np.ndarray:
    """resid_post at the last prompt token of each pair's row, one plain pass each: [pair, d]."""
    found = []
    for pair in PAIRS:
        row = encode_pair(model, pair)[side]
        kept: list[Any] = []

        def keep(h: torch.Tensor, hook: Any = None, kept: Any = kept) -> None:
            kept.append(h[0, -1].double().numpy())

        with torch.no_grad(), model.hooks(fwd_hooks=[(Site(layer).hook_name, keep)]):
            model(torch.tensor([row.ids[: row.response]]))
        found.append(kept[0])
    return np.stack(found)


def test_u_and_z_are_those_of_plain_passes(model: Any) -> None:
    plain, prompted = (last_prompt_tokens(model, side, 2) for side in (0, 1))
    difference = (prompted - plain).mean(axis=0)
    u = difference / np.linalg.norm(difference)
    found = InstructionVector.fit(model, PAIRS, 2)
    np.testing.assert_allclose(found.steer.u, u, atol=1e-4)
    assert found.steer.z == pytest.approx(np.mean(prompted @ u), abs=1e-3)
    assert found.steering.sites == InstructionVector.adding(found).sites == (Site(2),)


def test_adjusting_sets_the_projection_to_z_and_leaves_the_rest() -> None:
    u, z = torch.nn.functional.normalize(random(D_MODEL), dim=0), 3.25
    h = random(2, 5, D_MODEL, seed=1)
    steered = InstructionVector(u, z)(h)
    torch.testing.assert_close(steered @ u, torch.full((2, 5), z), rtol=0, atol=1e-5)
    across = torch.eye(D_MODEL) - torch.outer(u, u)
    torch.testing.assert_close(steered @ across, h @ across, rtol=1e-5, atol=1e-5)


def test_adjusting_at_half_strength_goes_half_the_way(gpt2: Any) -> None:
    found = InstructionVector.fit(gpt2, PAIRS, 1)
    u, z = found.steer.u, found.steer.z
    before = steerlens.capture(gpt2, "the cat", 1).at(1) @ u
    after = steerlens.capture(gpt2, "the cat", 1, steering=found.steering.scaled(0.5)).at(1) @ u
    torch.testing.assert_close(after[1:], (before[1:] + z) / 2, rtol=1e-4, atol=1e-4)
    assert after[0] == before[0]


def test_adding_has_w_as_its_strength(gpt2: Any) -> None:
    found = InstructionVector.fit(gpt2, PAIRS, 1)
    before = steerlens.capture(gpt2, "the cat", 1).at(1)
    after = steerlens.capture(
        gpt2, "the cat", 1, steering=InstructionVector.adding(found).scaled(-7.0)
    ).at(1)
    expected = (-7 * found.steer.u).expand_as(before)
    torch.testing.assert_close(after - before, expected, rtol=1e-4, atol=1e-4)


def test_responses_are_not_read(gpt2: Any) -> None:
    others = [PromptPair(pair.plain, pair.prompted, "the sea") for pair in PAIRS]
    one, two = (InstructionVector.fit(gpt2, pairs, 2) for pairs in (PAIRS, others))
    assert torch.equal(one.steer.u, two.steer.u)
    assert one.steer.z == two.steer.z
    assert one.steering.origin == InstructionVector.adding(two).origin


def test_several_sites_are_fitted_each_by_itself(gpt2: Any) -> None:
    both = InstructionVector.fit(gpt2, PAIRS, [2, 1])
    assert both.steering.sites == InstructionVector.adding(both).sites == (Site(2), Site(1))
    for site, vector in both.steers.items():
        alone = InstructionVector.fit(gpt2, PAIRS, site).steer
        assert torch.equal(alone.u, vector.u)
        assert alone.z == vector.z


def test_both_ways_survive_their_files(gpt2: Any, tmp_path: Any) -> None:
    found = InstructionVector.fit(gpt2, PAIRS, 2)
    for name, steering in (("adjust", found.steering), ("add", InstructionVector.adding(found))):
        path = steering.save(tmp_path / f"{name}.safetensors")
        again = steerlens.load_steering(path, gpt2)
        steered = [steerlens.capture(gpt2, "a b", 2, steering=s).at(2) for s in (steering, again)]
        torch.testing.assert_close(*steered)
        assert again.origin is not None


def test_without_an_instruction_there_is_no_direction(gpt2: Any) -> None:
    same = [PromptPair(pair.plain, pair.plain, pair.response) for pair in PAIRS]
    with pytest.raises(ValueError, match="layer 1 resid_post, so there is no direction"):
        InstructionVector.fit(gpt2, same, 1)
    with pytest.raises(ValueError, match="No pairs were given"):
        InstructionVector.fit(gpt2, [], 1)
    with pytest.raises(ValueError, match="layers, 0 to 3"):
        InstructionVector.fit(gpt2, PAIRS, 9)


def test_a_vector_that_is_no_unit_vector_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"length 1; found 2.*steerlens.unit"):
        InstructionVector(torch.tensor([2.0, 0.0]), 1.0)
    with pytest.raises(ValueError, match="u: 1 of 2 values are NaN"):
        InstructionVector(torch.tensor([1.0, torch.nan]), 1.0)
    with pytest.raises(ValueError, match="InstructionVector's z"):
        InstructionVector(torch.tensor([1.0, 0.0]), float("nan"))
