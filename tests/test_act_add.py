"""ActAdd against the authors' tensor tests and the properties they and we could execute (A12)."""

from typing import Any

import numpy as np
import pytest
import torch
from tiny_models import D_MODEL, PROMPTS, greedy, response_rows

import steerlens
from steerlens import ActAdd, Site, Steering, Window, at
from steerlens.methods import act_add
from steerlens.methods.act_add import space_token
from steerlens.runtime.forward import logits

LAYER = 2
LONG = "I love you because you are kind"


def window_of(n: int) -> Window:
    return Window.of(torch.ones((1, n), dtype=torch.bool))


def steered_ones(n: int, rows: int, alignment: str) -> str:
    steer = ActAdd(torch.full((rows, 1), 2.0), alignment=alignment)
    after = steer.bind(window_of(n))(torch.ones(1, n, 1))
    return "".join(str(int(value)) for value in after[0, :, 0])


def matrix(steering: Steering) -> torch.Tensor:
    ((_, steer),) = steering.placed
    return steer.v


def clean(model: Any, ids: list[int], layer: int) -> torch.Tensor:
    """The input of a block on these very ids, all attended, by the backend's own cache."""
    name = f"blocks.{layer}.hook_resid_pre"
    with torch.no_grad():
        _, cache = model.run_with_cache(torch.tensor([ids]), names_filter=[name])
    return cache[name][0]


def ids_of(model: Any, text: str) -> list[int]:
    return list(steerlens.encode(model, text).ids) if text else [model.tokenizer.bos_token_id]


def prompt_logits(model: Any, prompts: Any, steering: Steering | None = None) -> torch.Tensor:
    """The logits at every real token."""
    tokens, window = steerlens.batch(model, prompts)
    with torch.no_grad():
        if steering is None:
            return logits(model, tokens, window)[window.mask]
        with steering.applied(model, window):
            return logits(model, tokens, window)[window.mask]


# Tier 0: the authors' tensor tests ------------------------------------------------------------


@pytest.mark.parametrize(
    ("n", "rows", "alignment", "expected"),
    [
        (10, 4, "front", "3333111111"),
        (10, 4, "back", "1111113333"),
        (10, 4, "mid", "1113333111"),
        (9, 4, "mid", "113333111"),
        (10, 3, "mid", "1111333111"),
        (9, 3, "mid", "111333111"),
    ],
)
def test_rows_land_where_the_authors_tests_put_them(
    n: int, rows: int, alignment: str, expected: str
) -> None:
    assert steered_ones(n, rows, alignment) == expected


def test_dims_limit_the_addition_to_a_range_of_residual_dimensions() -> None:
    steer = ActAdd(torch.full((2, 4), 2.0), dims=(1, 3))
    after = steer.bind(window_of(2))(torch.zeros(1, 2, 4))
    assert after.tolist() == [[[0, 2, 2, 0], [0, 2, 2, 0]]]


@pytest.mark.parametrize("dims", [(2, 2), (3, 1), (-1, 2), (0, 5)])
def test_dims_that_are_no_range_of_dimensions_are_refused(dims: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="no range of residual dimensions: v has 4"):
        ActAdd(torch.ones(2, 4), dims=dims)


# Fitting --------------------------------------------------------------------------------------


def test_v_is_the_difference_of_the_clean_block_inputs_row_by_row(model: Any) -> None:
    space = space_token(model)
    positive, negative = ids_of(model, LONG), ids_of(model, "I hate you")
    padded = negative + [space] * (len(positive) - len(negative))
    expected = clean(model, positive, LAYER) - clean(model, padded, LAYER)
    v = matrix(ActAdd.fit(model, (LONG, "I hate you"), LAYER).steering)
    assert v.shape == (len(positive), D_MODEL)
    torch.testing.assert_close(v, expected, rtol=1e-4, atol=1e-5)
    assert float(v[3:].norm(dim=1).min()) > 0.1


def test_the_pair_is_padded_to_equal_length_with_bos_first(
    model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    captured: list[Any] = []
    capture = act_add.capture

    def recording(model: Any, rows: Any, site: Any) -> Any:
        captured.extend(rows)
        return capture(model, rows, site)

    monkeypatch.setattr(act_add, "capture", recording)
    ActAdd.fit(model, ("I hate you", LONG), LAYER)
    shorter, longer = (list(row.ids) for row in captured)
    bos, space = model.tokenizer.bos_token_id, space_token(model)
    assert model.tokenizer.decode([space]) == " "
    assert longer == ids_of(model, LONG)
    assert len(shorter) == len(longer)
    assert shorter[0] == longer[0] == bos
    n = len(ids_of(model, "I hate you"))
    assert shorter[:n] == ids_of(model, "I hate you")
    assert shorter[n:] == [space] * (len(longer) - n)


def test_the_empty_prompt_is_bos_and_padding_alone(model: Any) -> None:
    positive = ids_of(model, LONG)
    neutral = ids_of(model, "") + [space_token(model)] * (len(positive) - 1)
    expected = clean(model, positive, LAYER) - clean(model, neutral, LAYER)
    v = matrix(ActAdd.fit(model, (LONG, ""), LAYER).steering)
    torch.testing.assert_close(v, expected, rtol=1e-4, atol=1e-5)


def test_the_bos_row_is_zero_for_a_pair_and_not_for_a_single_addition(model: Any) -> None:
    pair = matrix(ActAdd.fit(model, (LONG, "I hate you"), LAYER).steering)
    single = matrix(ActAdd.fit(model, (LONG, None), LAYER).steering)
    assert float(pair[0].abs().max()) <= 1e-5 * float(single[0].norm())
    torch.testing.assert_close(
        single, clean(model, ids_of(model, LONG), LAYER), rtol=1e-4, atol=1e-5
    )
    assert float(single[0].norm()) > 0.1


def test_without_padding_the_longer_prompts_tail_stands_alone(model: Any) -> None:
    positive, negative = ids_of(model, "I hate you"), ids_of(model, LONG)
    v = matrix(ActAdd.fit(model, ("I hate you", LONG), LAYER, padding=None).steering)
    long, short = clean(model, negative, LAYER), clean(model, positive, LAYER)
    expected = -long
    expected[: len(positive)] += short
    torch.testing.assert_close(v, expected, rtol=1e-4, atol=1e-5)


def test_the_padding_token_matters(model: Any) -> None:
    spaces = matrix(ActAdd.fit(model, (LONG, ""), LAYER).steering)
    end = model.tokenizer.pad_token_id
    ends = matrix(ActAdd.fit(model, (LONG, ""), LAYER, padding=end).steering)
    assert spaces.shape == ends.shape
    assert float((spaces - ends)[1:].norm(dim=1).min()) > 0.1


def test_the_same_prompt_twice_cancels_and_is_no_steering(model: Any) -> None:
    h = steerlens.capture(model, [LONG], LAYER).at(LAYER)
    assert not ActAdd.from_activations(h, h).v.any()
    with pytest.raises(ValueError, match="Both prompts are the same tokens"):
        ActAdd.fit(model, (LONG, LONG), LAYER)


def test_swapping_the_prompts_and_negating_c_is_the_same_steering(model: Any) -> None:
    there = ActAdd.fit(model, (LONG, "I hate you"), LAYER, c=3.0).steering
    back = ActAdd.fit(model, ("I hate you", LONG), LAYER, c=-3.0).steering
    torch.testing.assert_close(matrix(there), -matrix(back), rtol=0, atol=1e-6)
    one, other = (prompt_logits(model, [PROMPTS[1]], s) for s in (there, back))
    torch.testing.assert_close(one, other, rtol=0, atol=1e-5)


def test_opposite_additions_leave_nothing(model: Any) -> None:
    there = ActAdd.fit(model, (LONG, "I hate you"), LAYER, c=3.0).steering
    back = ActAdd.fit(model, ("I hate you", LONG), LAYER, c=3.0).steering
    assert float((matrix(there) + matrix(back)).norm()) < 1e-5
    both, plain = (prompt_logits(model, [PROMPTS[1]], s) for s in (there + back, None))
    torch.testing.assert_close(both, plain, rtol=0, atol=1e-4)
    assert float((prompt_logits(model, [PROMPTS[1]], there) - plain).abs().max()) > 0.1


def test_a_prompt_is_as_long_as_its_own_vector(model: Any) -> None:
    """The relative magnitude of a single addition to the prompt it was made of is 1 everywhere."""
    site = Site(LAYER, "resid_pre")
    single = ActAdd.fit(model, (LONG, None), LAYER).steering
    plain = steerlens.capture(model, [LONG], site).at(site)
    after = steerlens.capture(model, [LONG], site, steering=single).at(site)
    ratio = (after - plain).norm(dim=1) / plain.norm(dim=1)
    torch.testing.assert_close(ratio, torch.ones_like(ratio), rtol=0, atol=1e-5)


def test_the_vectors_of_two_layers_both_come_from_clean_passes(model: Any) -> None:
    low = ActAdd.fit(model, (LONG, "I hate you"), 1, c=4.0).steering
    alone = ActAdd.fit(model, (LONG, "I hate you"), 3, c=4.0).steering
    both = low + alone
    for site, steer in both.placed:
        positive = ids_of(model, LONG)
        negative = ids_of(model, "I hate you")
        negative += [space_token(model)] * (len(positive) - len(negative))
        expected = clean(model, positive, site.layer) - clean(model, negative, site.layer)
        torch.testing.assert_close(steer.v, expected, rtol=1e-4, atol=1e-5)


# Steering a model -----------------------------------------------------------------------------


def test_c_of_zero_changes_no_logit(model: Any) -> None:
    off = ActAdd.fit(model, (LONG, "I hate you"), LAYER, c=0.0).steering
    with pytest.warns(steerlens.SteeringWarning, match="changed no activation"):
        steered = prompt_logits(model, [PROMPTS[1]], off)
    assert torch.equal(steered, prompt_logits(model, [PROMPTS[1]]))


def test_c_the_layer_and_the_alignment_all_matter(model: Any) -> None:
    fits = [
        ActAdd.fit(model, ("I love", "I hate"), layer, c=c, alignment=alignment).steering
        for layer, c, alignment in [
            (1, 1.0, "front"),
            (2, 1.0, "front"),
            (2, 5.0, "front"),
            (2, 1.0, "mid"),
            (2, 1.0, "back"),
        ]
    ]
    last = [prompt_logits(model, [PROMPTS[1]], fit)[-1] for fit in (None, *fits)]
    for number, one in enumerate(last):
        for other in last[number + 1 :]:
            assert float((one - other).abs().max()) > 0.01


def test_c_multiplies_what_is_added(model: Any) -> None:
    site = Site(LAYER, "resid_pre")
    fit = ActAdd.fit(model, ("I love", "I hate"), LAYER, c=-2.5).steering
    plain, steered = (
        steerlens.capture(model, [PROMPTS[1]], site, steering=s).at(site) for s in (None, fit)
    )
    expected = torch.zeros_like(plain)
    expected[: len(matrix(fit))] = -2.5 * matrix(fit)
    torch.testing.assert_close(steered - plain, expected, rtol=0, atol=1e-4)


def test_layer_0_with_c_of_1_is_swapping_the_tokens(model: Any) -> None:
    """A prompt that begins with p-'s tokens becomes the prompt that begins with p+'s."""
    positive, negative = ids_of(model, "I love you"), ids_of(model, "I hate you")
    assert len(positive) == len(negative)
    assert positive != negative
    rest = ids_of(model, " because you are kind")[1:]
    ones = [torch.ones(1, len(negative) + len(rest), dtype=torch.bool)]
    before = (torch.tensor([negative + rest]), *ones)
    after = (torch.tensor([positive + rest]), *ones)
    fit = ActAdd.fit(model, ("I love you", "I hate you"), 0).steering
    steered, swapped = prompt_logits(model, before, fit), prompt_logits(model, after)
    assert float((swapped - prompt_logits(model, before)).abs().max()) > 0.1
    torch.testing.assert_close(steered, swapped, rtol=0, atol=1e-5)


def test_a_left_padded_batch_is_steered_at_each_rows_own_positions(model: Any) -> None:
    site = Site(LAYER, "resid_pre")
    for alignment in ("front", "mid", "back"):
        fit = ActAdd.fit(model, ("I love", "I hate"), LAYER, c=3.0, alignment=alignment).steering
        together = steerlens.capture(model, PROMPTS, site, steering=fit)
        for number, prompt in enumerate(PROMPTS):
            alone = steerlens.capture(model, [prompt], site, steering=fit).at(site)
            torch.testing.assert_close(together.of(number, site), alone, rtol=0, atol=1e-4)


@pytest.mark.parametrize("alignment", ["front", "mid", "back"])
def test_generation_with_the_cache_equals_recomputation(model: Any, alignment: str) -> None:
    fit = ActAdd.fit(model, ("I love", "I hate"), LAYER, c=4.0, alignment=alignment).steering
    cached, scores = greedy(model, list(PROMPTS[:3]), fit)
    recomputed, again = greedy(model, list(PROMPTS[:3]), fit, cache=False)
    assert response_rows(cached) == response_rows(recomputed)
    for one, other in zip(scores, again, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-4)


def test_the_seed_matters_and_the_random_state_is_left_alone(model: Any) -> None:
    fit = ActAdd.fit(model, ("I love", "I hate"), LAYER, c=2.0).steering
    before, numpy_before = torch.get_rng_state(), np.random.get_state()[1].copy()
    texts = [
        steerlens.generate(model, [PROMPTS[0]], fit, max_new_tokens=8, seed=seed).texts
        for seed in (0, 0, 1)
    ]
    assert torch.equal(torch.get_rng_state(), before)
    assert np.array_equal(np.random.get_state()[1], numpy_before)
    assert texts[0] == texts[1] != texts[2]


def test_a_prompt_shorter_than_v_is_refused(model: Any) -> None:
    fit = ActAdd.fit(model, (PROMPTS[1], ""), LAYER).steering
    with pytest.raises(ValueError, match="covers 13 positions, but a prompt has only 4 tokens"):
        steerlens.generate(model, list(PROMPTS), fit, max_new_tokens=2)


def test_the_hook_without_a_window_is_refused(model: Any) -> None:
    fit = ActAdd.fit(model, ("I love", "I hate"), LAYER).steering
    with pytest.raises(ValueError, match="depends on positions"), fit.applied(model):
        pass
    ((_, steer),) = fit.placed
    with pytest.raises(ValueError, match="a hook cannot see positions"):
        steer(torch.zeros(1, 4, D_MODEL))


def test_several_blocks_are_fitted_from_one_clean_pass_of_the_pair(model: Any) -> None:
    both = ActAdd.fit(model, (LONG, "I hate you"), [3, Site(1, "resid_post")])
    assert both.steering.sites == (Site(3, "resid_pre"), Site(1, "resid_post"))
    for site, steer in both.steers.items():
        alone = ActAdd.fit(model, (LONG, "I hate you"), site)
        assert torch.equal(alone.steer.v, steer.v)


def test_from_activations_is_the_difference_row_by_row() -> None:
    positive, negative = torch.ones(3, 4), 2 * torch.ones(2, 4)
    steer = ActAdd.from_activations(positive, negative, c=2.0)
    assert steer.v[:, 0].tolist() == [-1.0, -1.0, 1.0]
    assert torch.equal(ActAdd.from_activations(positive).v, positive)


def test_the_steering_is_placed_at_the_blocks_input_and_knows_its_origin(model: Any) -> None:
    fit = ActAdd.fit(model, ("I love", "I hate"), LAYER).steering
    assert fit.sites == (Site(LAYER, "resid_pre"),)
    assert fit.origin is not None
    assert fit.origin.data
    assert fit.origin != ActAdd.fit(model, ("I love", "It"), LAYER).steering.origin


def test_a_constant_vector_is_invisible_through_layer_norm_and_not_through_rms_norm(
    model: Any, kind: Any
) -> None:
    fit = at(Site(1, "resid_pre"), ActAdd(torch.ones(1, D_MODEL)))
    plain, steered = (prompt_logits(model, [PROMPTS[0]], s) for s in (None, fit))
    moved = float((plain - steered).abs().max())
    assert (moved < 1e-5) if kind.architecture == "gpt2" else (moved > 0.01)


def test_a_single_addition_steers_the_bos(model: Any) -> None:
    fit = ActAdd.fit(model, ("I love", None), LAYER, c=3.0).steering
    plain, steered = (prompt_logits(model, [PROMPTS[0]], s) for s in (None, fit))
    assert float((plain[0] - steered[0]).abs().max()) > 0.01
