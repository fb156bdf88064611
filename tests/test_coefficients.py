"""The coefficient table: against a slow oracle that runs each example alone with plain hooks."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from analysis.measures.aligned import align
from analysis.measures.coefficients import coefficients
from analysis.measures.deltas import acts_on, prompt_deltas, steering_deltas
from analysis.measures.entries import Entry
from analysis.measures.least_squares import least_squares_strength, with_least_squares
from steerlens import (
    CAA,
    ActAdd,
    PromptPair,
    Site,
    at,
    encode_pair,
    generated,
    positions,
    response,
)

LAYERS = range(4)
QUESTIONS = ("What is it?", "Do you love the dog and the cat?", "What do you think of the sea?")
ANSWERS = ("It was a good day", "I love you", "They went home by the house")
PAIRS = [
    PromptPair.with_system(question, "You are kind.", answer)
    for question, answer in zip(QUESTIONS, ANSWERS, strict=True)
]


def residuals(model: Any, ids: tuple[int, ...], n: int, hooks: list[Any] | None = None) -> Any:
    """resid_post of every layer on the last `n` tokens of one unpadded row: [layer, n, d_model]."""
    kept: dict[int, torch.Tensor] = {}

    def keep(layer: int) -> Any:
        def hook(activation: torch.Tensor, hook: Any = None) -> None:
            kept[layer] = activation[0, -n:].double()

        return hook

    reading = [(f"blocks.{layer}.hook_resid_post", keep(layer)) for layer in LAYERS]
    with torch.no_grad(), model.hooks(fwd_hooks=[*(hooks or []), *reading]):
        model(torch.tensor([ids]))
    return np.stack([kept[layer].numpy() for layer in LAYERS])


def oracle(model: Any, hooks: list[Any]) -> tuple[list[Any], list[Any], list[Any]]:
    """Per example: plain activations, the prompt's delta, the delta of `hooks`."""
    plain, by_prompt, by_hooks = [], [], []
    for pair in PAIRS:
        bare, prompted = encode_pair(model, pair)
        n = len(bare.ids) - bare.response
        plain.append(residuals(model, bare.ids, n))
        by_prompt.append(residuals(model, prompted.ids, n) - plain[-1])
        by_hooks.append(residuals(model, bare.ids, n, hooks) - plain[-1])
    return plain, by_prompt, by_hooks


def rows(table: pd.DataFrame, method: str, example: int, layer: int) -> pd.DataFrame:
    chosen = table[
        (table["method"] == method) & (table["example"] == example) & (table["layer"] == layer)
    ]
    return chosen.sort_values("token_index")


def direction(model: Any) -> torch.Tensor:
    return torch.linspace(-1, 1, model.cfg.d_model)


def test_every_number_equals_the_definition_with_the_direction_of_the_other_examples(
    model: Any,
) -> None:
    caa = CAA(direction(model))
    table = coefficients(model, PAIRS, LAYERS, {"CAA": at(1, caa)})
    plain, by_prompt, by_caa = oracle(model, [("blocks.1.hook_resid_post", caa)])
    for example in range(len(PAIRS)):
        others = [delta for i, delta in enumerate(by_prompt) if i != example]
        axis = np.concatenate(others, axis=1).mean(axis=1)
        for layer in LAYERS:
            v = axis[layer]
            for method, deltas in (("prompt", by_prompt), ("CAA", by_caa)):
                delta = deltas[example][layer]
                along = delta @ v / (v @ v)
                norm = np.linalg.norm(delta, axis=1)
                found = rows(table, method, example, layer)
                expected = {
                    "along": along,
                    "off_axis": np.linalg.norm(delta - along[:, None] * v, axis=1),
                    "norm": norm,
                    "relative_norm": norm / np.linalg.norm(plain[example][layer], axis=1),
                }
                for column, values in expected.items():
                    np.testing.assert_allclose(found[column], values, rtol=2e-4, atol=2e-4)
                share = (delta @ v) ** 2 / (norm**2 * (v @ v)) if norm.any() else np.nan * norm
                np.testing.assert_allclose(found["rank1_share"], share, rtol=2e-3, atol=1e-5)


def test_the_direction_of_an_example_does_not_come_from_that_example(model: Any) -> None:
    changed = [PromptPair.with_system(QUESTIONS[0], "Hate the cat!", ANSWERS[0]), *PAIRS[1:]]
    before = coefficients(model, PAIRS, [2], {"CAA": at(1, CAA(direction(model)))})
    after = coefficients(model, changed, [2], {"CAA": at(1, CAA(direction(model)))})
    first = [rows(table, "CAA", 0, 2)["along"].to_numpy() for table in (before, after)]
    second = [rows(table, "CAA", 1, 2)["along"].to_numpy() for table in (before, after)]
    np.testing.assert_allclose(*first, rtol=1e-5)
    assert not np.allclose(*second, rtol=1e-3)


def test_tokens_are_those_of_the_response_in_order(model: Any) -> None:
    table = coefficients(model, PAIRS, [0], {})
    for example, pair in enumerate(PAIRS):
        assert "".join(rows(table, "prompt", example, 0)["token"]) == pair.response
        assert rows(table, "prompt", example, 0)["token_index"].tolist() == list(
            range(len(rows(table, "prompt", example, 0)))
        )


def test_the_response_span_begins_one_token_earlier(model: Any) -> None:
    short = coefficients(model, PAIRS, [1], {}, span=generated)
    long = coefficients(model, PAIRS, [1], {}, span=response)
    assert len(long) == len(short) + len(PAIRS)
    assert rows(long, "prompt", 0, 1)["token"].iloc[0] == "<|assistant|>"


def test_in_the_local_view_a_steering_adds_at_its_own_site_alone_what_it_adds(model: Any) -> None:
    d = direction(model)
    steerings = {"CAA": at(1, CAA(d)) + at(2, CAA(2 * d))}
    table = coefficients(model, PAIRS, LAYERS, steerings, view="local")
    size = float(d.norm())
    for layer, expected in enumerate((0, size, 2 * size, 0)):
        mine = table[(table["method"] == "CAA") & (table["layer"] == layer)]
        np.testing.assert_allclose(mine["norm"], expected, rtol=1e-4, atol=1e-6)
    assert (table["view"] == "local").all()


def test_the_local_prompt_delta_is_what_the_layer_adds_because_of_the_prompt(model: Any) -> None:
    """The definition, with the layer's input replaced by hand in a run of one row."""
    aligned = align(model, PAIRS[:1], [Site(layer) for layer in LAYERS])
    local = prompt_deltas(model, aligned, "local")
    bare, prompted = encode_pair(model, PAIRS[0])
    n = len(bare.ids) - bare.response
    target = residuals(model, prompted.ids, n)
    for layer in LAYERS[1:]:
        received = torch.from_numpy(target[layer - 1])

        def replace(
            activation: torch.Tensor, hook: Any = None, new: torch.Tensor = received
        ) -> torch.Tensor:
            copy = activation.clone()
            copy[0, -n:] = new.to(activation)
            return copy

        alone = residuals(model, bare.ids, n, [(f"blocks.{layer}.hook_resid_pre", replace)])
        expected = target[layer] - alone[layer]
        np.testing.assert_allclose(local[Site(layer)], expected, rtol=1e-3, atol=2e-4)


def test_a_given_direction_is_used_and_a_missing_one_is_an_error(model: Any) -> None:
    v = direction(model)
    table = coefficients(model, PAIRS, [1], {"CAA": at(1, CAA(3 * v))}, direction={Site(1): v})
    mine = table[table["method"] == "CAA"]
    np.testing.assert_allclose(mine["along"], 3, rtol=1e-4)
    np.testing.assert_allclose(mine["off_axis"], 0, atol=1e-3)
    with pytest.raises(ValueError, match="No direction was given for layer 2"):
        coefficients(model, PAIRS, [1, 2], {}, direction={Site(1): v})


def test_one_pair_has_no_other_examples_to_take_the_direction_from(gpt2: Any) -> None:
    with pytest.raises(ValueError, match="at least two pairs"):
        coefficients(gpt2, PAIRS[:1], [1], {})


def test_a_token_steering_is_measured_too(model: Any) -> None:
    from catalogue import ByToken

    steering = at(1, ByToken(direction(model)))
    table = coefficients(model, PAIRS, LAYERS, {"toy": steering})
    toy = table[table["method"] == "toy"]
    assert toy["norm"].max() > 0
    doubled = coefficients(model, PAIRS, LAYERS, {"toy": steering.scaled(2.0)}, view="local")
    single = coefficients(model, PAIRS, LAYERS, {"toy": steering}, view="local")
    both = [table[table["method"] == "toy"]["norm"].to_numpy() for table in (doubled, single)]
    np.testing.assert_allclose(both[0], 2 * both[1], rtol=1e-4, atol=1e-5)


def test_least_squares_is_the_projection_where_the_effect_is_linear(model: Any) -> None:
    v = direction(model)
    steering = at(1, CAA(v)).only(response)
    strength = least_squares_strength(model, steering, PAIRS, layers="site")
    _, by_prompt, _ = oracle(model, [])
    deltas = np.concatenate([delta[1] for delta in by_prompt])
    expected = (deltas @ v.double().numpy()).mean() / float(v.double() @ v.double())
    assert strength == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("which", ["steered", "last", "site"])
def test_least_squares_adds_relative_errors_from_the_lowest_steered_layer_up(
    model: Any, which: Any
) -> None:
    """Against the definition: no strength of a fine grid around it is nearer to the prompt."""
    v = direction(model)
    steering = sum((at(n, CAA(v * (n + 1))) for n in (1, 2, 3)), start=0)
    layers = {"steered": [1, 2, 3], "last": [3], "site": [1]}[which]
    aligned = align(model, PAIRS, [Site(layer) for layer in layers])
    target = prompt_deltas(model, aligned)

    def error(s: float) -> float:
        moved = steering_deltas(model, aligned, steering.scaled(s))
        missed = ((moved[n] - target[n]).square().sum() / target[n].square().sum() for n in target)
        return float(sum(missed))

    found = least_squares_strength(model, steering, PAIRS, layers=which)
    # The trials end at 2 % of the strength, and the error is flat there.
    around = [found * (1 + step) for step in (-0.2, -0.1, 0.1, 0.2)]
    assert error(found) <= min(error(s) for s in (0.0, 1.0, *around)) * (1 + 1e-6)


def test_least_squares_of_act_add_is_no_worse_than_off_or_as_fitted(model: Any) -> None:
    """It does not act on the response itself, and not in proportion."""
    steering = ActAdd.fit(model, (" love", " hate"), 1, c=1.0).steering
    layers = [1, 2, 3]
    aligned = align(model, PAIRS, layers)
    target = prompt_deltas(model, aligned)

    def error(s: float) -> float:
        moved = steering_deltas(model, aligned, steering.scaled(s))
        missed = ((moved[n] - target[n]).square().sum() / target[n].square().sum() for n in target)
        return float(sum(missed))

    strength = least_squares_strength(model, steering, PAIRS)
    assert error(strength) <= min(error(0.0), error(1.0)) * (1 + 1e-6)
    least_squares_strength(model, steering, PAIRS, layers="site")  # the first layer that it reaches


def test_least_squares_of_what_never_meets_the_response_is_an_error(gpt2: Any) -> None:
    steering = at(3, CAA(direction(gpt2))).only(positions(0, 1))
    with pytest.raises(ValueError, match="changes no activation of the response tokens"):
        least_squares_strength(gpt2, steering, PAIRS)


def test_sinks_have_no_part_in_the_least_squares_strength(model: Any) -> None:
    """With one token of three left out, the strength is that of the others."""
    steering = at(1, CAA(direction(model))).only(response)
    aligned = align(model, PAIRS, [Site(1)])
    long = float((aligned.plain.at(1).norm(dim=1) / aligned.plain.typical[Site(1)].median()).max())
    every, fewer = (
        least_squares_strength(model, steering, PAIRS, layers="site", sinks=times)
        for times in (float("inf"), max(1.0001, long * 0.999))
    )
    keep = ~aligned.sinks(Site(1), max(1.0001, long * 0.999))
    assert 0 < int(keep.sum()) < len(keep)
    target, v = prompt_deltas(model, aligned)[Site(1)], direction(model).double()
    assert every == pytest.approx(float((target @ v).mean() / (v @ v)), rel=1e-4)
    assert fewer == pytest.approx(float((target[keep] @ v).mean() / (v @ v)), rel=1e-4)


def test_two_entries_of_one_name_are_an_error(gpt2: Any) -> None:
    steering = at(1, CAA(direction(gpt2)))
    with pytest.raises(ValueError, match="Two methods are called CAA"):
        coefficients(gpt2, PAIRS, [1], [Entry("CAA", steering), Entry("CAA", steering)])


def test_strengths_are_labelled(model: Any) -> None:
    entries = with_least_squares(model, {"CAA": at(1, CAA(direction(model)))}, PAIRS)
    assert [entry.strength for entry in entries] == ["as fitted", "least squares"]
    table = coefficients(model, PAIRS, [1], entries)
    value = entries[1].strength_value
    both = [table[table["strength"] == entry.strength]["along"].to_numpy() for entry in entries]
    np.testing.assert_allclose(both[1], value * both[0], rtol=1e-3, atol=1e-5)


def test_acts_on_names_the_tokens_whose_activation_changes(model: Any) -> None:
    row, _ = encode_pair(model, PAIRS[0])
    steering = at(1, CAA(direction(model))).only(response)
    found = acts_on(model, row, steering, steering.sites)
    assert found == [place >= row.response - 1 for place in range(len(row.ids))]
