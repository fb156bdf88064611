"""PSR: its equation, what it is trained on, and that it finds a gate that was planted."""

import gc
import warnings
from typing import Any

import numpy as np
import oracles
import pytest
import torch
from test_coefficients import PAIRS
from tiny_models import D_MODEL

import steerlens
from steerlens import PSR, PromptPair, Site, SteeringWarning, at, encode_pair, generated, response
from steerlens.forward import logits
from steerlens.imitation import Imitation
from steerlens.methods.psr import _Modules, difference_of_means, name_of
from steerlens.training import Schedule

QUICK = Schedule(epochs=2, batch_size=2, validation=0.0)


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def task_of(model: Any, layers: Any, **options: Any) -> tuple[Imitation, Any]:
    modules = _Modules(
        tuple(Site(layer) for layer in layers), options.pop("rank", 1), D_MODEL, True, None
    )
    task = Imitation(
        model,
        PAIRS,
        modules.sites,
        build=modules.build,
        begin=modules.begin,
        scope=options.pop("scope", response),
        **options,
    )
    parameters = task.start(torch.Generator().manual_seed(0))
    return task, {name: value.requires_grad_() for name, value in parameters.items()}


# -- The equation ----------------------------------------------------------------------------------


@pytest.mark.parametrize("rank", [1, 3])
def test_the_equation_token_by_token(rank: int) -> None:
    W, b, Z = random(rank, D_MODEL), random(rank, seed=1), random(rank, D_MODEL, seed=2)
    h = random(1, 7, D_MODEL, seed=3)
    found = PSR(W, b, Z, alpha=1.5, b_m=-0.5)(h)[0]
    expected = oracles.psr(h[0].double().numpy(), W.numpy(), b.numpy(), Z.numpy(), 1.5, -0.5)
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-5, atol=1e-5)


def test_a_constant_steers_every_token_alike() -> None:
    h, z = random(2, 5, D_MODEL), random(D_MODEL, seed=1)
    const = PSR.constant(z)
    torch.testing.assert_close(const(h), h + z)
    assert (const.gates(h) == 1).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_at_alpha_zero_nothing_changes_a_bit(dtype: torch.dtype) -> None:
    h = random(2, 5, D_MODEL).to(dtype)
    steer = PSR(random(1, D_MODEL), random(1), random(1, D_MODEL), alpha=0.0)
    assert torch.equal(steer(h), h)
    assert torch.equal(at(1, steer).scaled(0.0).placed[0][1](h), h)


# -- What it is trained on -------------------------------------------------------------------------


def plain_squares(model: Any, pair: PromptPair, hooks: Any, lowest: int, n: int) -> Any:
    """The paper's psi for one example: full passes, batch of one."""
    plain, prompted = encode_pair(model, pair)
    total = 0.0
    streams: list[dict[int, torch.Tensor]] = [{}, {}]
    for kept, ids, steer in ((streams[0], plain.ids, hooks), (streams[1], prompted.ids, [])):
        reading = [
            (
                f"blocks.{layer}.hook_resid_post",
                lambda h, hook, kept=kept, layer=layer: kept.__setitem__(layer, h[0, -n:]),
            )
            for layer in range(lowest, 4)
        ]
        with model.hooks(fwd_hooks=[*steer, *reading]):
            model(torch.tensor([ids]))
    for layer in range(lowest, 4):
        total = total + (streams[0][layer] - streams[1][layer].detach()).square().mean()
    return total


def hooks_of(steers: Any, n: int) -> Any:
    """The steers on the last n tokens, as plain hooks."""

    def hook_of(steer: Any) -> Any:
        def hook(h: torch.Tensor, hook: Any = None) -> torch.Tensor:
            return torch.cat([h[:, :-n], steer(h[:, -n:])], dim=1)

        return hook

    return [(site.hook_name, hook_of(steer)) for site, steer in steers.items()]


@pytest.mark.parametrize("layers", [[2], [0, 1, 2, 3], [3], [0]], ids=str)
@pytest.mark.parametrize("reuse", [True, False])
def test_the_loss_and_its_gradient_are_those_of_plain_full_passes(
    model: Any, layers: list[int], reuse: bool
) -> None:
    task, parameters = task_of(model, layers, reuse=reuse)
    loss = task.loss(parameters, range(len(PAIRS)))
    loss.backward()
    found = {name: value.grad.clone() for name, value in parameters.items()}
    for value in parameters.values():
        value.grad = None
    total = 0.0
    for pair, row in zip(PAIRS, task.rows, strict=True):
        n = len(row.ids) - row.response + 1
        steers = task.build(parameters)
        total = total + plain_squares(model, pair, hooks_of(steers, n), layers[0], n)
    expected = total / len(PAIRS) / task.scale["MSE"]
    assert loss.item() == pytest.approx(expected.item(), rel=1e-4)
    assert loss.item() == pytest.approx(1, rel=1e-4)  # normalised by its value at the start
    expected.backward()
    for name, value in parameters.items():
        torch.testing.assert_close(found[name], value.grad, rtol=1e-3, atol=1e-6)


def test_a_batch_has_the_mean_of_its_examples_gradients(model: Any) -> None:
    task, parameters = task_of(model, [1, 2])
    task.loss(parameters, range(3)).backward()
    together = {name: value.grad.clone() for name, value in parameters.items()}
    for value in parameters.values():
        value.grad = None
    for i in range(3):
        (task.loss(parameters, [i]) / 3).backward()
    for name, value in parameters.items():
        torch.testing.assert_close(together[name], value.grad, rtol=1e-4, atol=1e-7)


def test_likelihood_is_that_of_the_response_tokens(model: Any) -> None:
    task, parameters = task_of(model, [1], objective="LL")
    loss = task.loss(parameters, [0])
    plain, _ = encode_pair(model, PAIRS[0])
    n = len(plain.ids) - plain.response
    hooks = hooks_of(task.build(parameters), n + 1)
    with model.hooks(fwd_hooks=hooks):
        scores = model(torch.tensor([plain.ids]))[0]
    expected = torch.nn.functional.cross_entropy(scores[-n - 1 : -1], torch.tensor(plain.ids[-n:]))
    assert loss.item() * task.scale["LL"] == pytest.approx(expected.item(), rel=1e-4)


def test_both_objectives_count_alike_at_the_start(gpt2: Any) -> None:
    task, parameters = task_of(gpt2, [2], objective="both")
    assert task.loss(parameters, range(3)).item() == pytest.approx(2, rel=1e-4)


def test_targets_on_disk_are_the_same_to_half_precision(gpt2: Any) -> None:
    kept, parameters = task_of(gpt2, [1])
    stored, _ = task_of(gpt2, [1], memory=0)
    assert stored.targets is not None
    assert stored.targets.folder is not None
    expected = kept.loss(parameters, range(3)).item()
    assert stored.loss(parameters, range(3)).item() == pytest.approx(expected, rel=1e-2)
    folder = stored.targets.folder
    assert len(list(folder.iterdir())) == 3
    del stored
    gc.collect()
    assert not folder.exists()


def test_labels_and_the_shift_are_the_strength_in_training(gpt2: Any) -> None:
    whole, parameters = task_of(gpt2, [1])
    none, _ = task_of(gpt2, [1], labels=[0.0, 0.0, 0.0])
    undone, _ = task_of(gpt2, [1], labels=[0.5, 0.5, 0.5], shift=-0.5)
    values = [
        (task.loss(parameters, range(3)) * task.scale["MSE"]).item()
        for task in (none, undone, whole)
    ]
    assert values[1] == pytest.approx(values[0])
    assert values[2] != pytest.approx(values[0])


def test_the_regulariser_keeps_the_sum_of_gates_above_one(gpt2: Any) -> None:
    bare, parameters = task_of(gpt2, [1, 2])
    held, _ = task_of(gpt2, [1, 2], regularise=0.1)
    with torch.no_grad():
        for site in (1, 2):
            parameters[f"{site}.resid_post.W"].zero_()
            parameters[f"{site}.resid_post.b"].fill_(0.01)
    extra = held.loss(parameters, [0]) - bare.loss(parameters, [0])
    n = len(held.spans[0])
    assert extra.item() == pytest.approx(0.1 * 2 * (1 - 0.01 * n), rel=1e-4)
    with torch.no_grad():
        for site in (1, 2):
            parameters[f"{site}.resid_post.b"].fill_(5.0)
    expected = bare.loss(parameters, [0]).item()
    assert held.loss(parameters, [0]).item() == pytest.approx(expected)


def test_surfaces_say_which_tokens(gpt2: Any) -> None:
    narrow, _ = task_of(gpt2, [1])
    wide, _ = task_of(gpt2, [1], scope=steerlens.question_and_response)
    row = narrow.rows[0]
    assert narrow.spans[0].tolist() == list(range(row.response - 1, len(row.ids)))
    assert wide.spans[0].tolist() == list(range(row.question - 1, len(row.ids)))


def test_an_instruction_in_the_user_turn_cannot_have_the_wide_surface(gpt2: Any) -> None:
    pair = PromptPair("What is it?", "You are kind. What is it?", "It was a good day")
    with pytest.raises(ValueError, match="use the surface R"):
        PSR.fit(gpt2, [pair], 1, surface="QR", schedule=QUICK)
    assert PSR.fit(gpt2, [pair], 1, schedule=QUICK).steering.sites == (Site(1),)


# -- Fitting ---------------------------------------------------------------------------------------


def test_a_planted_gate_is_found(gpt2: Any) -> None:
    """The teacher is the same model under a PSR that fires on some 30 % of the tokens."""
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(5, 390, (80, 24), generator=generator).tolist()
    rows = [steerlens.prompts.Encoded((1, *row), 1, 3, True) for row in ids]
    seen = steerlens.capture(gpt2, rows, 2, scope=response).at(2)
    W = torch.randn((1, D_MODEL), generator=generator)
    along = (seen - seen.mean(dim=0)) @ W[0]
    b = -(seen.mean(dim=0) @ W[0] + along.quantile(0.7))
    planted = PSR(W / along.std(), b[None] / along.std(), random(1, D_MODEL, seed=4))
    assert (planted.gates(seen) > 0).float().mean() == pytest.approx(0.3, abs=0.02)
    teacher = at(2, planted).only(response)
    pairs = [PromptPair("x y z", "z x y z", tuple(row.ids[3:])) for row in rows[:60]]
    schedule = Schedule(epochs=120, batch_size=8, validation=0.1, patience=None)
    found: Any = PSR.fit(gpt2, pairs, 2, teacher=teacher, schedule=schedule).steering
    z, known = found.placed[0][1].steer.Z[0], planted.Z[0]
    assert torch.cosine_similarity(z, known, dim=0) >= 0.98
    held = rows[60:]
    with_teacher, with_found, plain = (
        steerlens.capture(gpt2, held, 2, scope=response, steering=s).at(2)
        for s in (teacher, found, None)
    )
    error = (with_found - with_teacher).square().sum() / (plain - with_teacher).square().sum()
    assert error.sqrt() <= 0.15


def test_fitting_brings_the_plain_run_nearer_to_the_prompted_one(model: Any) -> None:
    schedule = Schedule(epochs=250, batch_size=3, learning_rate=1e-2, validation=0.0)
    fit = PSR.fit(model, PAIRS, range(4), schedule=schedule)
    assert fit.name == "A-PSR_MSE|R"
    assert fit.trained.rows[-1]["loss"] < 0.5 * fit.trained.rows[1]["loss"]
    assert fit.steering.sites == tuple(Site(layer) for layer in range(4))
    assert all(0 <= float(rates[0]) <= 1 for rates in fit.firing.values())


def test_the_same_seed_gives_the_same_steering_and_another_does_not(gpt2: Any) -> None:
    def fit(seed: int) -> torch.Tensor:
        schedule = Schedule(epochs=2, batch_size=2, validation=0.0, seed=seed)
        return PSR.fit(gpt2, PAIRS, 1, schedule=schedule).steering.placed[0][1].steer.Z

    assert torch.equal(fit(0), fit(0))
    assert not torch.equal(fit(0), fit(1))


def test_const_has_no_gate_and_a_frozen_direction_stays(gpt2: Any) -> None:
    const = PSR.fit(gpt2, PAIRS, 1, gated=False, schedule=QUICK)
    steer: Any = const.steering.placed[0][1]
    assert const.name == "S-Const_MSE|R"
    assert not steer.steer.W.any()
    assert (steer.steer.b == 1).all()
    z = random(1, D_MODEL)
    frozen: Any = PSR.fit(gpt2, PAIRS, 1, directions={Site(1): z}, schedule=QUICK).steering.placed[
        0
    ][1]
    assert torch.equal(frozen.steer.Z, z)
    assert frozen.steer.W.any()


@pytest.mark.filterwarnings("ignore:.* opened on no token")
def test_rank_gives_that_many_gates(gpt2: Any) -> None:
    fit = PSR.fit(gpt2, PAIRS, [1, 2], rank=3, schedule=QUICK)
    assert [rates.shape for rates in fit.firing.values()] == [(3,), (3,)]


def test_dead_gates_are_warned_about_and_begin_anew(gpt2: Any) -> None:
    modules = _Modules((Site(1),), 2, D_MODEL, True, None)
    parameters = modules.begin(torch.Generator().manual_seed(0))
    parameters["1.resid_post.b"][0] = -50.0
    kept = parameters["1.resid_post.W"][1].clone()
    with pytest.warns(SteeringWarning, match="1 of 2 gates at layer 1"):
        modules.revive(parameters, 3, {Site(1): torch.tensor([0.0, 0.4])})
    assert parameters["1.resid_post.b"][0] > -1
    assert torch.equal(parameters["1.resid_post.W"][1], kept)


def test_firing_is_the_share_of_the_spans_tokens(gpt2: Any) -> None:
    task, parameters = task_of(gpt2, [1])
    with torch.no_grad():
        parameters["1.resid_post.W"].zero_()
        for bias, rate in ((1.0, 1.0), (-1.0, 0.0)):
            parameters["1.resid_post.b"].fill_(bias)
            task.run(parameters, range(3))
            assert task.fired()[Site(1)].item() == rate


def test_firing_does_not_depend_on_how_examples_are_batched(gpt2: Any) -> None:
    task, parameters = task_of(gpt2, [1])
    with torch.no_grad():
        parameters["1.resid_post.W"].copy_(random(1, D_MODEL))
        task.run(parameters, range(3))
        together = task.fired()[Site(1)].item()
        task.run(parameters, [0])
        task.run(parameters, [1, 2])
        assert task.fired()[Site(1)].item() == pytest.approx(together)
    assert 0 < together < 1
    assert task.firing_rates(parameters)[Site(1)].item() == pytest.approx(together)


def test_difference_of_means_is_the_mean_delta(model: Any) -> None:
    steering: Any = difference_of_means(model, PAIRS, 2)
    deltas = []
    for pair in PAIRS:
        plain, prompted = encode_pair(model, pair)
        n = len(plain.ids) - plain.response + 1
        sides = [steerlens.capture(model, row, 2).at(2)[-n:] for row in (plain, prompted)]
        deltas.append(sides[1] - sides[0])
    z = steering.placed[0][1].steer.Z[0]
    torch.testing.assert_close(z, torch.cat(deltas).mean(dim=0), rtol=1e-4, atol=1e-5)


def test_a_fitted_steering_survives_its_file(gpt2: Any, tmp_path: Any) -> None:
    fitted = PSR.fit(gpt2, PAIRS, [1, 2], gated=False, schedule=QUICK).steering
    fitted.save(tmp_path / "psr.safetensors")
    loaded = steerlens.load_steering(tmp_path / "psr.safetensors", gpt2)
    tokens, window = steerlens.batch(gpt2, ["The dog ran"])
    with fitted.applied(gpt2, window):
        expected = logits(gpt2, tokens, window)
    with loaded.applied(gpt2, window):
        assert torch.equal(logits(gpt2, tokens, window), expected)


def test_a_cut_off_fit_goes_on_from_its_checkpoint(gpt2: Any, tmp_path: Any) -> None:
    path = tmp_path / "fit.safetensors"
    first = PSR.fit(gpt2, PAIRS, 1, schedule=QUICK, checkpoint=path)
    again = PSR.fit(gpt2, PAIRS, 1, schedule=QUICK, checkpoint=path)
    for name, value in first.trained.parameters.items():
        assert torch.equal(again.trained.parameters[name], value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rank": 0}, "rank must be at least 1"),
        ({"labels": [1.0]}, "3 pairs"),
        ({"labels": [1.0, 2.0, 0.0]}, "from 0 to 1"),
        ({"directions": {}}, r"one \[rank, d_model\]"),
        ({"directions": {Site(1): torch.ones(1, 8)}}, r"found \(1, 8\)"),
        ({"directions": {Site(1): torch.ones(1, D_MODEL)}, "gated": False}, "nothing to train"),
    ],
    ids=str,
)
def test_bad_options_are_errors(gpt2: Any, options: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PSR.fit(gpt2, PAIRS, 1, schedule=QUICK, **options)


def test_bad_data_are_errors(gpt2: Any) -> None:
    with pytest.raises(ValueError, match="No pairs"):
        PSR.fit(gpt2, [], 1)
    with pytest.raises(ValueError, match="No sites"):
        PSR.fit(gpt2, PAIRS, [])
    with pytest.raises(ValueError, match=r"layer=9"):
        PSR.fit(gpt2, PAIRS, 9)
    same = [PromptPair("What is it?", "What is it?", "a day")]
    with pytest.raises(ValueError, match="nothing to imitate"):
        PSR.fit(gpt2, same, 3, gated=False, directions=None, schedule=QUICK)


def test_names_follow_the_papers_scheme() -> None:
    assert name_of(1, True, "MSE", "R") == "S-PSR_MSE|R"
    assert name_of(6, False, "LL", "QR") == "A-Const_LL|QR"
    assert generated != response


def test_a_closed_gate_is_no_warning_where_another_is_open(gpt2: Any) -> None:
    never = PSR(torch.zeros(1, D_MODEL), -torch.ones(1), random(1, D_MODEL))
    often = PSR(random(1, D_MODEL), torch.zeros(1), random(1, D_MODEL))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        steerlens.generate(gpt2, ["a b c"], at(1, never) + at(2, often), max_new_tokens=2)
    nothing = PSR.constant(torch.zeros(D_MODEL))
    with pytest.warns(SteeringWarning, match="a zero direction"):
        steerlens.generate(gpt2, ["a b c"], at(1, nothing) + at(2, often), max_new_tokens=2)
    missed = at(1, never).only(steerlens.positions(99))
    with pytest.warns(SteeringWarning, match="met no token"):
        steerlens.generate(gpt2, ["a b c"], missed + at(2, often), max_new_tokens=2)
    with pytest.warns(SteeringWarning, match="its gates opened on no token"):
        steerlens.generate(gpt2, ["a b c"], at(1, never), max_new_tokens=2)
