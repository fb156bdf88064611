"""ITI and the site z: what is read there, where it goes, which heads are chosen, and refusals."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from catalogue import random
from tiny_models import D_MODEL, N_LAYERS, PROMPTS

import steerlens as sl
from steerlens import CAA, ITI, Site
from steerlens.directions.probes import accuracy

Z = Site(1, "z")
ONES = ["I love you", "I love the cat", "I love the sea", "I love a day", "I love the dog",
        "I love it", "I love the house", "I love all", "I love the sun", "I love them"]  # fmt: skip
OTHERS = ["What is it?", "What do you", "What is the", "What is a", "What of the dog", "What of",
          "What the cat", "What is good", "What weather", "What then"]  # fmt: skip
THETA = torch.nn.functional.normalize(random(4, 8, seed=6), dim=1)
SIGMA = torch.tensor([0.5, 0.0, 0.0, 0.3])


def inputs_of_the_output_matrix(reference: Any, ids: Any) -> torch.Tensor:
    """What transformers itself gives to the matrix that joins the heads, [pos, d_model]."""
    seen: list[torch.Tensor] = []
    inner = reference.model.layers if hasattr(reference, "model") else reference.transformer.h
    attention = (
        inner[1].self_attn.o_proj if hasattr(inner[1], "self_attn") else inner[1].attn.c_proj
    )
    handle = attention.register_forward_pre_hook(lambda module, given: seen.append(given[0][0]))
    with torch.no_grad():
        reference(torch.tensor([list(ids)]))
    handle.remove()
    return seen[0]


def test_z_is_what_transformers_gives_to_the_output_matrix(model: Any, reference: Any) -> None:
    text = PROMPTS[1]
    seen = sl.capture(model, [text], Z).at(Z)
    expected = inputs_of_the_output_matrix(reference, sl.encode(model, text).ids)
    torch.testing.assert_close(seen, expected, atol=2e-5, rtol=1e-4)


def test_what_is_added_at_z_reaches_the_output_as_in_transformers(
    model: Any, reference: Any
) -> None:
    text, v = PROMPTS[1], 2 * random(D_MODEL, seed=9)
    ids = sl.encode(model, text).ids
    inner = reference.model.layers if hasattr(reference, "model") else reference.transformer.h
    joined = inner[1].self_attn.o_proj if hasattr(inner[1], "self_attn") else inner[1].attn.c_proj
    handle = joined.register_forward_pre_hook(lambda module, given: (given[0] + v,))
    with torch.no_grad():
        expected = reference(torch.tensor([list(ids)])).logits[0]
    handle.remove()
    tokens, window = sl.batch(model, [text])
    from steerlens.runtime.forward import logits

    with sl.at(Z, CAA(v)).applied(model, window), torch.no_grad():
        found = logits(model, tokens, window)[0]
    expected, found = (x - x.mean(dim=-1, keepdim=True) for x in (expected, found))
    torch.testing.assert_close(found, expected, atol=2e-3, rtol=1e-3)


def test_left_padding_and_a_cache_change_nothing(model: Any) -> None:
    steering = sl.at(Z, ITI(THETA, SIGMA, 20.0)).only(sl.response)
    made = [
        sl.generate(model, list(PROMPTS), steering, temperature=0, max_new_tokens=5, cache=cache)
        for cache in (True, False)
    ]
    alone = [
        sl.generate(model, [one], steering, temperature=0, max_new_tokens=5).texts[0]
        for one in PROMPTS
    ]
    assert list(made[0].texts) == list(made[1].texts) == alone


def test_plain_hooks_work_at_z(model: Any) -> None:
    tokens, window = sl.batch(model, [PROMPTS[0]])
    steering = sl.at(Z, ITI(THETA, SIGMA, 20.0))
    with torch.no_grad():
        plain = model(tokens)
        by_hooks = model.run_with_hooks(tokens, fwd_hooks=steering.hooks())
        with steering.applied(model, window):
            applied = model(tokens)
    torch.testing.assert_close(by_hooks, applied)
    assert not torch.allclose(plain, applied, atol=1e-2)


def test_the_shift_is_the_mass_mean_shift_in_standard_deviations() -> None:
    positive, negative = random(7, 4, 8, seed=3) + 1.0, random(7, 4, 8, seed=4)
    found = ITI.from_activations(positive, negative, [3, 1], 5.0)
    assert found.chosen == [1, 3]
    p, n = positive.double().numpy(), negative.double().numpy()
    for head in (1, 3):
        v = p[:, head].mean(axis=0) - n[:, head].mean(axis=0)
        theta = v / np.linalg.norm(v)
        sigma = np.concatenate([p[:, head] @ theta, n[:, head] @ theta]).std(ddof=1)
        np.testing.assert_allclose(found.theta[head].numpy(), theta, atol=1e-5)
        assert float(found.sigma[head]) == pytest.approx(sigma, rel=1e-5)
    assert not found.theta[0].any()
    assert float(found.sigma[2]) == 0


def test_heads_are_chosen_by_the_accuracy_of_their_probes(
    gpt2: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from steerlens.methods import iti

    calls = iter([0.5, 0.9, 0.6, 0.7, 0.5, 0.8, 0.5, 0.95])

    def judged(fitted: Any, held_out: Any) -> float:
        assert (fitted.shape[1], held_out.shape[1]) == (8, 2)
        return next(calls)

    monkeypatch.setattr(iti, "accuracy", judged)
    fit = ITI.fit(gpt2, (ONES, OTHERS), [1, 2], heads=3)
    assert {site: steer.chosen for site, steer in fit.steers.items()} == {
        Site(1, "z"): [1],
        Site(2, "z"): [1, 3],
    }
    assert "3 heads of probe accuracy 0.80 to 0.95" in fit.name
    assert str(fit.steering.placed[0][1].scope) == "response"  # type: ignore[attr-defined]


def test_the_fit_moves_the_chosen_heads_towards_the_positive_answers(model: Any) -> None:
    fit = ITI.fit(model, (ONES, OTHERS), range(N_LAYERS), heads=6, alpha=10.0)
    assert sum(len(steer.chosen) for steer in fit.steers.values()) == 6
    site, steer = next(iter(fit.steers.items()))
    before, after = (
        sl.capture(model, OTHERS, site, scope=sl.last, steering=fit.steering, moment=moment)
        .at(site)
        .unflatten(1, (4, 8))
        for moment in ("before", "after")
    )
    for head in range(4):
        moved = ((after - before)[:, head] @ steer.theta[head]).mean()
        expected = 10.0 * float(steer.sigma[head]) if head in steer.chosen else 0.0
        assert float(moved) == pytest.approx(expected, abs=1e-3)


def test_a_probe_is_right_about_what_differs_and_half_right_about_what_does_not() -> None:
    apart = torch.stack([random(20, 3, seed=1) + 4, random(20, 3, seed=2) - 4])
    assert accuracy(apart[:, :15], apart[:, 15:]) == 1.0
    same = random(20, 3, seed=1).expand(2, 20, 3)
    assert accuracy(same[:, :15], same[:, 15:]) == 0.5


def test_it_is_saved_and_read(gpt2: Any, tmp_path: Path) -> None:
    steering = sl.at(Z, ITI(THETA, SIGMA, 3.0))
    read: Any = sl.load_steering(steering.save(tmp_path / "i.safetensors", gpt2), gpt2)
    assert read.sites == (Z,)
    assert torch.equal(read.placed[0][1].theta, THETA)


def test_mistakes_are_told(gpt2: Any) -> None:
    with pytest.raises(ValueError, match="have the same activations at layer 1 z"):
        ITI.fit(gpt2, (ONES, ONES), [1], heads=1)
    with pytest.raises(ValueError, match="have 8 heads together"):
        ITI.fit(gpt2, (ONES, OTHERS), [1, 2], heads=9)
    with pytest.raises(ValueError, match="Of 2 pairs"):
        ITI.fit(gpt2, (ONES[:2], OTHERS[:2]), [1, 2], heads=3)
    with pytest.raises(ValueError, match="ITI needs pairs"):
        ITI.fit(gpt2, (ONES, OTHERS[:3]), [1, 2], heads=3)
    with pytest.raises(ValueError, match=r'Place it at Site\(1, "z"\)'):
        sl.generate(gpt2, ["I"], sl.at(1, ITI(THETA, SIGMA)), max_new_tokens=1)
    with pytest.raises(ValueError, match="4 heads of 4 numbers"):
        sl.generate(gpt2, ["I"], sl.at(Z, ITI(THETA[:, :4], SIGMA)), max_new_tokens=1)
    with pytest.raises(ValueError, match="layers"):
        sl.capture(gpt2, ["I"], Site(9, "z"))


@pytest.mark.parametrize(
    ("chosen", "says"),
    [([4], "0 to 3 here; found 4"), ([1, -5], "found -5"), ([], "none was chosen")],
)
def test_heads_that_are_not_there_are_refused(chosen: list[int], says: str) -> None:
    z = random(6, 4, 8, seed=3)
    with pytest.raises(ValueError, match=says):
        ITI.from_activations(z + 1, z, chosen)


@pytest.mark.usefixtures("unchecked")
def test_sides_of_other_heads_or_without_numbers_are_refused() -> None:
    z = random(6, 4, 8, seed=3)
    for other, says in (
        (random(6, 3, 8, seed=3), "4 heads of 8 numbers and the negative ones 3 of 8"),
        (z[:0], "negative activations: empty"),
        (z / 0, "NaN or infinite"),
    ):
        with pytest.raises(ValueError, match=says):
            ITI.from_activations(z, other, [1])
