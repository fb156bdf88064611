"""COLD-Steer against the numbers of its authors' code (T1 to T9 of our notes on it).

Every comparison but the last keeps a relative distance near 1e-7, which comes from the fixture's
positions: it counts columns, padding included, and its rotary tables are rounded to float32, so
that a row there is a shifted copy of the same row here. Alone and unpadded activations agree to
1e-14, and with positions counted as the fixture does the last test asks for 1e-9.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import golden_cold as golden
import pytest
import torch
from golden_cold import LAYER, LOSSES, TEST, tensor
from tiny_models import BACKENDS

import steerlens
from steerlens import CAA, ColdFD, ColdKernel, Steering, everywhere, prompt
from steerlens.combinators import innermost
from steerlens.directions.means import difference_of_means, principal_direction
from steerlens.methods.cold.gradients import places_of, weights_at
from steerlens.methods.cold.released import LastTokenChange
from steerlens.prompts import Encoded, stack
from steerlens.runtime.forward import Cache, logits
from steerlens.runtime.hooks import Watch, running, watching


@pytest.fixture(scope="module")
def golden_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return golden.write_folder(tmp_path_factory.mktemp("golden"))


@pytest.fixture(scope="module", params=BACKENDS)
def tiny_llama(request: pytest.FixtureRequest, golden_folder: Path) -> Iterator[Any]:
    with golden.fixtures_softmax():
        yield golden.load(golden_folder, request.param)


@pytest.fixture(scope="module", params=BACKENDS)
def float32_llama(request: pytest.FixtureRequest, golden_folder: Path) -> Any:
    return golden.load(golden_folder, request.param, torch.float32)


def sides(loss: str) -> tuple[Sequence[Encoded], Sequence[Encoded]]:
    """The training rows, () for a side that the loss does not look at."""
    positive, negative = golden.train_rows("matching"), golden.train_rows("not_matching")
    return (() if loss == "negative_sft" else positive), (() if loss == "sft" else negative)


def distance(found: torch.Tensor, expected: torch.Tensor) -> float:
    assert found.shape == expected.shape
    return float((found - expected).norm() / expected.norm())


def only_steer(steering: Any) -> Any:
    ((_, steer),) = steering.placed
    steer = innermost(steer)
    return steer.steer if isinstance(steer, LastTokenChange) else steer


def steered_logits(model: Any, steering: Any, number: int) -> torch.Tensor:
    tokens, window = stack([golden.prompt_row(number)])
    with watching() as watch, running(model, steering, watch) as run, torch.no_grad():
        assert run is not None
        run.ready(tokens, window)
        return logits(model, tokens, window)[0, -1]


def cold_of(steering: Steering) -> ColdFD:
    steer = only_steer(steering)
    assert isinstance(steer, ColdFD)
    return steer


def altered(steering: Steering, **changed: Any) -> Steering:
    """The same steering whose COLD-FD has some fields replaced."""
    return steerlens.at(LAYER, replace(cold_of(steering), **changed)).only(prompt)


def real(number: int) -> torch.Tensor:
    mask = golden.numbers()[f"test/{number}/prompt_attention_mask"]
    return torch.from_numpy(mask.astype(bool))


def moves(model: Any, cold: Steering, number: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Our change of the activations of a test prompt, and which of its tokens the file kept."""
    tokens, window = stack([golden.prompt_row(number)])
    changed = -cold_of(cold).eta * cold_of(cold).derivative(model, tokens, window)[LAYER][0]
    return changed if number == 0 else changed[-1:], real(number) if number == 0 else slice(None)


def test_activations_and_their_precision_are_the_fixtures(tiny_llama: Any) -> None:
    found = steerlens.capture(tiny_llama, [golden.prompt_row(1)], LAYER).at(LAYER)[-1]
    expected = tensor("z/1")[0]
    # The one prompt that fills the fixture's width, so that columns are positions.
    assert real(1).all()
    assert distance(found, expected) < 1e-14


@pytest.mark.parametrize("loss", LOSSES)
def test_the_unit_kernel_is_the_true_gradient(tiny_llama: Any, loss: str) -> None:
    steering = ColdKernel.fit(tiny_llama, sides(loss), LAYER, loss=loss).steering
    found = only_steer(steering).direction
    assert distance(found, tensor(f"kernel_unit/{loss}/true_delta")) < 1e-6


@pytest.mark.parametrize("loss", LOSSES)
def test_as_released_the_unit_kernel_is_the_authors(tiny_llama: Any, loss: str) -> None:
    steering = ColdKernel.fit(tiny_llama, sides(loss), LAYER, loss=loss, compat="released").steering
    found = only_steer(steering).direction
    assert distance(found, tensor(f"kernel_unit/{loss}/authors_delta")) < 1e-6


@pytest.mark.parametrize("loss", LOSSES)
def test_as_released_the_dot_kernels_anchors_and_gradients_are_the_authors(
    tiny_llama: Any, loss: str
) -> None:
    options = {"loss": loss, "kernel": "dot", "compat": "released", "scope": everywhere}
    steer = only_steer(ColdKernel.fit(tiny_llama, sides(loss), LAYER, **options).steering)
    assert distance(steer.anchors, tensor(f"kernel_dot/{loss}/kappa")) < 1e-6
    assert distance(steer.gradients, tensor(f"kernel_dot/{loss}/loss_v")) < 1e-6


@pytest.mark.parametrize("loss", LOSSES)
def test_the_derivative_is_the_exact_one_and_near_the_authors_difference(
    tiny_llama: Any, loss: str
) -> None:
    cold = ColdFD.fit(tiny_llama, sides(loss), LAYER, loss=loss).steering
    for number in range(TEST):
        found, kept = moves(tiny_llama, cold, number)
        assert distance(found, tensor(f"fd/{loss}/{number}/jvp_delta")[kept]) < 1e-6
        assert distance(found, tensor(f"fd/{loss}/{number}/authors_delta")[kept]) < 1e-5
        plain, steered = (
            steerlens.capture(tiny_llama, [golden.prompt_row(number)], LAYER, steering=s).at(LAYER)
            for s in (None, cold)
        )
        moved = (steered - plain) if number == 0 else (steered - plain)[-1:]
        torch.testing.assert_close(moved, found, rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize("loss", LOSSES)
def test_as_released_the_difference_and_the_logits_are_the_authors(
    tiny_llama: Any, loss: str
) -> None:
    cold = ColdFD.fit(tiny_llama, sides(loss), LAYER, loss=loss, compat="released").steering
    for number in range(TEST):
        found, kept = moves(tiny_llama, cold, number)
        assert distance(found, tensor(f"fd/{loss}/{number}/authors_delta")[kept]) < 1e-5
        expected = tensor(f"logits_last/fd-{loss}/{number}")
        assert distance(steered_logits(tiny_llama, cold, number), expected) < 1e-5


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize(("kernel", "authors"), [("unit", "unit"), ("dot", "constant")])
def test_as_released_the_kernels_logits_are_the_authors(
    tiny_llama: Any, kernel: Any, authors: str, loss: str
) -> None:
    options = {"loss": loss, "kernel": kernel, "compat": "released"}
    steering = ColdKernel.fit(tiny_llama, sides(loss), LAYER, **options).steering
    for number in range(TEST):
        expected = tensor(f"logits_last/kernel-{authors}-{loss}/{number}")
        assert distance(steered_logits(tiny_llama, steering, number), expected) < 1e-5


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("share", [1e-5, 1e-4])
def test_in_float32_a_step_in_proportion_is_near_the_derivative(
    float32_llama: Any, loss: str, share: float
) -> None:
    exact = ColdFD.fit(float32_llama, sides(loss), LAYER, loss=loss).steering
    weights = weights_at(places_of(float32_llama, LAYER.layer))
    lengths = [
        sum(float(value.norm()) ** 2 for value in values) ** 0.5
        for values in ([weights[name] for name in cold_of(exact).names], cold_of(exact).gradients)
    ]
    step = share * lengths[0] / lengths[1]
    by_step = altered(exact, mode="fd", eps=step)
    automatic = altered(exact, mode="fd")
    for number in range(TEST):
        expected, _ = moves(float32_llama, exact, number)
        assert distance(moves(float32_llama, by_step, number)[0], expected) < 1e-2
        assert distance(moves(float32_llama, automatic, number)[0], expected) < 1e-2


def test_the_step_of_the_paper_drowns_in_float32(float32_llama: Any) -> None:
    exact = ColdFD.fit(float32_llama, sides("dpo"), LAYER, loss="dpo").steering
    paper = altered(exact, mode="fd", eps=1e-6)
    apart = [
        distance(moves(float32_llama, paper, n)[0], moves(float32_llama, exact, n)[0])
        for n in range(TEST)
    ]
    assert min(apart) > 0.5


@pytest.mark.parametrize("mode", ["jvp", "fd"])
def test_padding_and_new_tokens_keep_their_activations(tiny_llama: Any, mode: Any) -> None:
    cold = ColdFD.fit(tiny_llama, sides("sft"), LAYER, loss="sft", mode=mode).steering
    rows = [golden.prompt_row(number) for number in range(TEST)]
    new = torch.tensor([[3], [5], [7]])
    found: dict[str, list[torch.Tensor]] = {"unsteered": [], "steered": []}
    for name, seen in found.items():
        tokens, window = stack(rows, "left")
        cache = Cache.empty(tiny_llama, TEST)
        steering = cold if name == "steered" else None
        keep = [(LAYER.hook_name, lambda h, hook, seen=seen: seen.append(h.clone()))]
        beside = running(tiny_llama, steering, Watch())
        with beside as run, torch.no_grad():
            for each in (tokens, new):
                if run is not None:
                    run.ready(each, window)
                with tiny_llama.hooks(fwd_hooks=keep):
                    logits(tiny_llama, each, window, "last", cache)
                window = window.next()
    mask = stack(rows, "left")[1].mask
    assert not mask.all()
    prompts, answers = zip(*found.values(), strict=True)
    assert torch.equal((prompts[1] != prompts[0]).any(-1), mask)
    assert torch.equal(answers[1], answers[0])


def test_the_authors_linear_baseline_is_caa(tiny_llama: Any) -> None:
    pairs = (golden.train_rows("matching"), golden.train_rows("not_matching"))
    steering = CAA.from_prompts(tiny_llama, *pairs, LAYER)
    assert isinstance(steering, Steering)
    assert distance(only_steer(steering).direction, tensor("contrastive/linear")) < 1e-6


def test_from_the_fixtures_positions_its_baselines_are_ours_to_the_last_digits(
    tiny_llama: Any,
) -> None:
    read: dict[str, list[torch.Tensor]] = {"matching": [], "not_matching": []}
    for side, found in read.items():
        for number, row in enumerate(golden.train_rows(side)):
            with golden.counted_from(tiny_llama, golden.padding(number)):
                found.append(steerlens.capture(tiny_llama, [row], LAYER).at(LAYER)[-1])
    positive, negative = (torch.stack(found) for found in read.values())
    linear = difference_of_means(positive, negative)
    assert distance(linear, tensor("contrastive/linear")) < 1e-9
    first = principal_direction(positive, negative, "mean")
    # The authors' sign is whatever their decomposition gave.
    sign = torch.sign(first @ tensor("contrastive/pca"))
    assert distance(sign * first, tensor("contrastive/pca")) < 1e-9
