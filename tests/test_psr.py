"""PSR: its equation, what it is trained on, and that it finds a gate that was planted."""

import gc
import inspect
import math
import warnings
from dataclasses import replace
from typing import Any

import numpy as np
import oracles
import pytest
import torch
from test_coefficients import PAIRS
from tiny_models import D_MODEL, assert_same_tokens, greedy, load, response_rows, write_folder

import steerlens
from steerlens import PSR, PromptPair, Site, SteeringWarning, at, encode_pair, generated, response
from steerlens.methods.psr import Gates, _Modules, difference_of_means, name_of
from steerlens.runtime.forward import logits
from steerlens.training.checks import require_objective
from steerlens.training.gates import revive
from steerlens.training.imitation import Imitation
from steerlens.training.objectives import LL, MSE, Objective, objective_named
from steerlens.training.schedule import Schedule
from steerlens.training.store import Storage, Store

# These fits are too short on purpose; test_training_loop has the warning about it.
pytestmark = pytest.mark.filterwarnings("ignore:.* can move a parameter")
QUICK = Schedule(epochs=2, batch_size=2, validation=0.0)


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def modules_at(layers: Any, **gates: Any) -> _Modules:
    return _Modules(tuple(Site(layer) for layer in layers), Gates(**gates), D_MODEL)


def task_of(model: Any, layers: Any, **options: Any) -> tuple[Imitation, Any]:
    task = Imitation(model, PAIRS, modules_at(layers), **({"scope": response} | options))
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


@pytest.mark.filterwarnings("ignore:.* changed no activation")
@pytest.mark.parametrize("layers", [[2], [0, 1, 2, 3]], ids=str)
def test_at_alpha_zero_the_logits_are_those_of_the_plain_model(
    model: Any, layers: list[int]
) -> None:
    """To the bit, as for strength 0; and at alpha 1 they are not."""
    tokens, window = steerlens.batch(model, ["The dog ran", "What is it?"])
    plain = logits(model, tokens, window)

    def steered(alpha: float, strength: float = 1.0) -> torch.Tensor:
        W, b = random(1, D_MODEL), torch.tensor([1e3])  # open at every token of every model
        steer = PSR(W, b, 1e-3 * random(1, D_MODEL, seed=1), alpha)
        steering = steerlens.Steering(tuple((Site(layer), steer) for layer in layers))
        with steering.only(response).scaled(strength).applied(model, window):
            return logits(model, tokens, window)

    assert torch.equal(steered(0.0), plain)
    assert torch.equal(steered(1.0, 0.0), plain)
    assert not torch.equal(steered(1.0), plain)


def test_cached_generation_is_what_the_teacher_forced_pass_says(model: Any) -> None:
    """On surface R, the last prompt token and all that follow, at every layer."""
    steer = PSR(0.1 * random(1, D_MODEL), torch.ones(1), random(1, D_MODEL, seed=1))
    steering = steerlens.Steering(tuple((Site(layer), steer) for layer in range(4))).only(response)
    asked = ["The dog ran", "What is it?", "They went home, and then"]
    written, scores = greedy(model, asked, steering, max_new_tokens=6)
    plain, _ = greedy(model, asked, max_new_tokens=6)
    assert response_rows(written) != response_rows(plain)
    with steering.applied(model, written.window):
        forced = logits(model, written.tokens, written.window).argmax(dim=-1)
    after = written.window.positions >= written.window.response[:, None] - 1
    expected = [
        tuple(row[where & real][:6].tolist())
        for row, where, real in zip(forced, after, written.window.mask, strict=True)
    ]
    assert_same_tokens(response_rows(written), expected, scores)


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
    task, parameters = task_of(model, layers, storage=Storage(reuse=reuse))
    loss = task.loss(parameters, range(len(PAIRS)))
    loss.backward()
    found = {name: value.grad.clone() for name, value in parameters.items()}
    for value in parameters.values():
        value.grad = None
    total = 0.0
    for pair, row in zip(PAIRS, task.examples.plain, strict=True):
        n = len(row.ids) - row.response + 1
        steers = task.modules.build(parameters)
        total = total + plain_squares(model, pair, hooks_of(steers, n), layers[0], n)
    expected = total / len(PAIRS) / task.scale["MSE"]
    assert loss.item() == pytest.approx(expected.item(), rel=1e-4)
    assert loss.item() == pytest.approx(1, rel=1e-4)  # normalised by its value at the start
    expected.backward()
    for name, value in parameters.items():
        torch.testing.assert_close(found[name], value.grad, rtol=1e-3, atol=1e-6)


@pytest.fixture
def unfrozen(model: Any) -> Any:
    """A model whose own weights could learn, as those of one that `load` has not loaded."""
    model.requires_grad_(True)
    yield model
    model.requires_grad_(False)
    model.zero_grad(set_to_none=True)


def test_gradients_below_the_intervention_are_zero(unfrozen: Any) -> None:
    task, parameters = task_of(unfrozen, [2])
    task.loss(parameters, range(3)).backward()
    rows = task.examples.plain
    above = {id(p) for p in unfrozen.blocks[3].parameters()}
    reached = {id(p) for p in unfrozen.parameters() if p.grad is not None}
    assert reached
    assert reached <= above
    assert not task._entered([0, 1, 2], max(map(len, (r.ids for r in rows)))).requires_grad


@pytest.mark.filterwarnings("ignore:.*(validation|training) loss")
@pytest.mark.parametrize("reuse", [True, False])
def test_fitting_leaves_no_gradient_in_the_model(unfrozen: Any, reuse: bool) -> None:
    PSR.fit(unfrozen, PAIRS, 1, schedule=QUICK, storage=Storage(reuse=reuse))
    assert all(p.grad is None for p in unfrozen.parameters())


def test_layers_below_the_intervention_add_nothing_to_the_gradient(model: Any) -> None:
    task, parameters = task_of(model, [2])
    pair, row = PAIRS[0], task.examples.plain[0]
    n, grads = len(row.ids) - row.response + 1, []
    for lowest in (0, 2):
        for value in parameters.values():
            value.grad = None
        hooks = hooks_of(task.modules.build(parameters), n)
        plain_squares(model, pair, hooks, lowest, n).backward()
        grads.append({name: value.grad.clone() for name, value in parameters.items()})
    for name, whole in grads[0].items():
        assert whole.any()
        torch.testing.assert_close(whole, grads[1][name], rtol=1e-6, atol=0)


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
    task, parameters = task_of(model, [1], objective=LL())
    loss = task.loss(parameters, [0])
    plain, _ = encode_pair(model, PAIRS[0])
    n = len(plain.ids) - plain.response
    hooks = hooks_of(task.modules.build(parameters), n + 1)
    with model.hooks(fwd_hooks=hooks):
        scores = model(torch.tensor([plain.ids]))[0]
    expected = torch.nn.functional.cross_entropy(scores[-n - 1 : -1], torch.tensor(plain.ids[-n:]))
    assert loss.item() * task.scale["LL"] == pytest.approx(expected.item(), rel=1e-4)


def test_both_objectives_count_alike_at_the_start(gpt2: Any) -> None:
    task, parameters = task_of(gpt2, [2], objective=MSE() + LL())
    assert task.loss(parameters, range(3)).item() == pytest.approx(2, rel=1e-4)


def test_the_weight_of_ll_beside_mse(gpt2: Any) -> None:
    task, parameters = task_of(gpt2, [2], objective=MSE() + 0.25 * LL())
    assert task.loss(parameters, range(3)).item() == pytest.approx(1.25, rel=1e-4)
    parts = [task_of(gpt2, [2], objective=objective)[0] for objective in (MSE(), LL())]
    with torch.no_grad():
        parameters["2.resid_post.Z"].mul_(3)
    mse, ll = (part.loss(parameters, [0, 1]).item() for part in parts)
    assert task.loss(parameters, [0, 1]).item() == pytest.approx(mse + 0.25 * ll, rel=1e-4)


def test_targets_on_disk_are_the_same_to_half_precision(gpt2: Any) -> None:
    kept, parameters = task_of(gpt2, [1])
    stored, _ = task_of(gpt2, [1], storage=Storage(memory=0))
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


def test_a_learnt_b_m_is_a_shift_that_the_loss_reaches(gpt2: Any) -> None:
    labels = [0.0, 1.0, 0.4]
    learnt, parameters = task_of(gpt2, [1, 2], labels=labels)
    fixed, _ = task_of(gpt2, [1, 2], labels=labels, shift=-0.3)
    shifts = {f"{layer}.resid_post.b_m": torch.tensor(-0.3) for layer in (1, 2)}
    shifted = parameters | {name: b_m.requires_grad_() for name, b_m in shifts.items()}
    loss = learnt.loss(shifted, range(3)) * learnt.scale["MSE"]
    expected = fixed.loss(parameters, range(3)) * fixed.scale["MSE"]
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    loss.backward()
    found = {name: shifts[name].grad for name in shifts}
    assert all(grad is not None and grad != 0 for grad in found.values())
    assert len(set(found.values())) == 2


def test_the_regulariser_keeps_the_sum_of_gates_above_one(gpt2: Any) -> None:
    bare, parameters = task_of(gpt2, [1, 2])
    held, _ = task_of(gpt2, [1, 2], regularise=0.1)
    with torch.no_grad():
        for site in (1, 2):
            parameters[f"{site}.resid_post.W"].zero_()
            parameters[f"{site}.resid_post.b"].fill_(0.01)
    extra = held.loss(parameters, [0]) - bare.loss(parameters, [0])
    n = len(held.examples.spans[0])
    assert extra.item() == pytest.approx(0.1 * 2 * (1 - 0.01 * n), rel=1e-4)
    with torch.no_grad():
        for site in (1, 2):
            parameters[f"{site}.resid_post.b"].fill_(5.0)
    expected = bare.loss(parameters, [0]).item()
    assert held.loss(parameters, [0]).item() == pytest.approx(expected)


def test_surfaces_say_which_tokens(gpt2: Any) -> None:
    narrow, _ = task_of(gpt2, [1])
    wide, _ = task_of(gpt2, [1], scope=steerlens.question_and_response)
    row = narrow.examples.plain[0]
    assert narrow.examples.spans[0].tolist() == list(range(row.response - 1, len(row.ids)))
    assert wide.examples.spans[0].tolist() == list(range(row.question - 1, len(row.ids)))


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
    schedule = Schedule(epochs=100, batch_size=3, learning_rate=3e-2, validation=0.0)
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
    const = PSR.fit(gpt2, PAIRS, 1, gates=Gates(constant=True), schedule=QUICK)
    steer: Any = const.steering.placed[0][1]
    assert const.name == "S-Const_MSE|R"
    assert not steer.steer.W.any()
    assert (steer.steer.b == 1).all()
    z = random(1, D_MODEL)
    gates = Gates(directions={Site(1): z})
    frozen = PSR.fit(gpt2, PAIRS, 1, gates=gates, schedule=QUICK)
    assert torch.equal(frozen.steer.Z, z)
    assert frozen.steer.W.any()


@pytest.mark.filterwarnings("ignore:.* opened on no token")
def test_rank_gives_that_many_gates(gpt2: Any) -> None:
    fit = PSR.fit(gpt2, PAIRS, [1, 2], gates=Gates(rank=3), schedule=QUICK)
    assert [rates.shape for rates in fit.firing.values()] == [(3,), (3,)]


def test_dead_gates_are_warned_about_and_begin_anew(gpt2: Any) -> None:
    modules = modules_at([1], rank=2)
    parameters = modules.begin(torch.Generator().manual_seed(0))
    parameters["1.resid_post.b"][0] = -50.0
    kept = parameters["1.resid_post.W"][1].clone()
    with pytest.warns(SteeringWarning, match="1 of 2 gates at layer 1"):
        revive(parameters, modules.begin, {Site(1): torch.tensor([0.0, 0.4])}, 3, 0)
    assert parameters["1.resid_post.b"][0] > -1
    assert torch.equal(parameters["1.resid_post.W"][1], kept)


@pytest.mark.filterwarnings("ignore:.* opened on no token")
def test_a_gate_begins_anew_by_the_seed_and_the_epoch() -> None:
    modules = modules_at([1])

    def revived(epoch: int, seed: int) -> torch.Tensor:
        parameters = modules.begin(torch.Generator().manual_seed(0))
        revive(parameters, modules.begin, {Site(1): torch.tensor([0.0])}, epoch, seed)
        return parameters["1.resid_post.W"]

    assert torch.equal(revived(3, 1), revived(3, 1))
    assert not torch.equal(revived(3, 1), revived(3, 2))
    assert not torch.equal(revived(3, 1), revived(4, 1))


@pytest.mark.filterwarnings("ignore:.* opened on no token")
def test_a_resumed_fit_revives_the_same_gates_alike(
    gpt2: Any, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All gates are closed at the start, so what they begin anew with decides the whole fit."""
    schedule = Schedule(epochs=5, batch_size=2, validation=0.4, patience=None, seed=3)
    path, calls = tmp_path / "fit.safetensors", []
    begin = _Modules.begin

    def closed(modules: _Modules, generator: torch.Generator) -> Any:
        """Open on no token at first, as `begin` says afterwards."""
        start = begin(modules, generator)
        if generator.initial_seed() == schedule.seed:
            start["1.resid_post.b"].fill_(-50.0)
        return start

    def cut(*_: Any) -> None:
        calls.append(1)
        if len(calls) == 2:
            raise InterruptedError
        revive(*_)

    monkeypatch.setattr(_Modules, "begin", closed)
    whole = PSR.fit(gpt2, PAIRS, 1, schedule=schedule)
    monkeypatch.setattr("steerlens.methods.psr.revive", cut)
    with pytest.raises(InterruptedError):
        PSR.fit(gpt2, PAIRS, 1, schedule=schedule, checkpoint=path)
    monkeypatch.setattr("steerlens.methods.psr.revive", revive)
    resumed = PSR.fit(gpt2, PAIRS, 1, schedule=schedule, checkpoint=path)
    assert whole.steers[Site(1)].b[0] > -1, "it began anew"
    for name, value in whole.trained.parameters.items():
        assert torch.equal(resumed.trained.parameters[name], value)


def test_validation_does_not_count_as_an_open_gate(gpt2: Any) -> None:
    task, parameters = task_of(gpt2, [1])
    with torch.no_grad():
        task.loss(parameters, range(3))
    assert task.fired() == {}
    task.loss(parameters, range(3))
    assert list(task.fired()) == [Site(1)]


def test_firing_is_the_share_of_the_spans_tokens(gpt2: Any) -> None:
    task, parameters = task_of(gpt2, [1])
    with torch.no_grad():
        parameters["1.resid_post.W"].zero_()
        for bias, rate in ((1.0, 1.0), (-1.0, 0.0)):
            parameters["1.resid_post.b"].fill_(bias)
            assert task.firing_rates(parameters)[Site(1)].item() == rate


def test_firing_does_not_depend_on_how_examples_are_batched(gpt2: Any) -> None:
    task, parameters = task_of(gpt2, [1])
    with torch.no_grad():
        parameters["1.resid_post.W"].copy_(random(1, D_MODEL))
    task.loss(parameters, range(3))
    together = task.fired()[Site(1)].item()
    task.loss(parameters, [0])
    task.loss(parameters, [1, 2])
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


def test_difference_of_means_at_several_sites_is_each_by_itself(gpt2: Any) -> None:
    both: Any = difference_of_means(gpt2, PAIRS, [2, 1], surface="QR")
    assert both.sites == (Site(2), Site(1))
    for site, steer in both.placed:
        alone: Any = difference_of_means(gpt2, PAIRS, site, surface="QR")
        assert torch.equal(alone.placed[0][1].steer.Z, steer.steer.Z)


def test_a_fitted_steering_survives_its_file(gpt2: Any, tmp_path: Any) -> None:
    fitted = PSR.fit(gpt2, PAIRS, [1, 2], gates=Gates(constant=True), schedule=QUICK).steering
    fitted.save(tmp_path / "psr.safetensors")
    loaded = steerlens.load_steering(tmp_path / "psr.safetensors", gpt2)
    tokens, window = steerlens.batch(gpt2, ["The dog ran"])
    with fitted.applied(gpt2, window):
        expected = logits(gpt2, tokens, window)
    with loaded.applied(gpt2, window):
        assert torch.equal(logits(gpt2, tokens, window), expected)


def test_b_m_is_learnt_where_labels_say_nothing_and_survives_its_file(
    gpt2: Any, tmp_path: Any
) -> None:
    """The teacher steers every response alike, so the best alpha + b_m is hardly of two signs."""
    teacher, labels = at(2, PSR.constant(random(D_MODEL))).only(response), [0.0, 1.0, 1.0]
    schedule = Schedule(epochs=150, batch_size=3, learning_rate=3e-2, validation=0.0)
    fixed, learnt = (
        PSR.fit(
            gpt2, PAIRS, 2, gates=Gates(constant=True, b_m=-0.5, learn_b_m=learn),
            teacher=teacher, labels=labels, schedule=schedule,
        )
        for learn in (False, True)
    )  # fmt: skip
    assert fixed.steers[Site(2)].b_m == -0.5
    b_m = learnt.steers[Site(2)].b_m
    assert b_m > 0
    assert learnt.trained.rows[-1]["loss"] < 0.5 * fixed.trained.rows[-1]["loss"]
    learnt.steering.save(tmp_path / "psr.safetensors")
    loaded: Any = steerlens.load_steering(tmp_path / "psr.safetensors", gpt2)
    steer = loaded.placed[0][1].steer
    assert steer.b_m == b_m
    h = random(1, 3, D_MODEL, seed=5)
    torch.testing.assert_close(steer(h) - h, ((1 + b_m) * steer.Z[0]).expand(1, 3, -1))


def test_a_cut_off_fit_goes_on_from_its_checkpoint(gpt2: Any, tmp_path: Any) -> None:
    path = tmp_path / "fit.safetensors"
    first = PSR.fit(gpt2, PAIRS, 1, schedule=QUICK, checkpoint=path)
    again = PSR.fit(gpt2, PAIRS, 1, schedule=QUICK, checkpoint=path)
    for name, value in first.trained.parameters.items():
        assert torch.equal(again.trained.parameters[name], value)


@pytest.mark.parametrize(
    "options",
    [
        {"objective": MSE() + 0.5 * LL()},
        {"labels": [1.0, 0.5, 1.0]},
        {"gates": Gates(b_m=-0.5)},
        {"labels": [1.0, 0.5, 1.0], "gates": Gates(learn_b_m=True)},
        {"gates": Gates(regularise=0.2)},
        {"gates": Gates(rank=2)},
        {"gates": Gates(constant=True, regularise=0.1)},
        {"gates": Gates(directions={Site(1): torch.ones(1, D_MODEL)})},
        {"teacher": at(2, PSR.constant(torch.ones(D_MODEL)))},
        {"schedule": replace(QUICK, rates={"b": 1e-2})},
    ],
    ids=[
        "ll_weight", "labels", "b_m", "labels-learn_b_m", "regularise", "rank", "constant",
        "directions", "teacher", "rates",
    ],
)  # fmt: skip
@pytest.mark.filterwarnings("ignore:.* opened on no token")
def test_a_checkpoint_of_other_options_is_refused(gpt2: Any, tmp_path: Any, options: Any) -> None:
    path, usual = tmp_path / "fit.safetensors", {"objective": MSE() + LL(), "schedule": QUICK}
    PSR.fit(gpt2, PAIRS, 1, checkpoint=path, **usual)
    with pytest.raises(ValueError, match="other options"):
        PSR.fit(gpt2, PAIRS, 1, checkpoint=path, **(usual | options))


def test_a_checkpoint_tells_directions_and_teachers_and_models_apart(
    folders: Any, gpt2: Any, tmp_path: Any
) -> None:
    def fit(model: Any, known: float, taught: float, file: str) -> None:
        directions = {Site(1): torch.full((1, D_MODEL), known)}
        teacher = at(2, PSR.constant(torch.full((D_MODEL,), taught)))
        PSR.fit(
            model, PAIRS, 1, gates=Gates(directions=directions), teacher=teacher, schedule=QUICK,
            checkpoint=tmp_path / file,
        )  # fmt: skip

    other = load(write_folder(tmp_path / "other", "gpt2", seed=1), "bridge")
    fit(gpt2, 1.0, 1.0, "one")
    fit(gpt2, 1.0, 1.0, "one")
    for model, known, taught in ((gpt2, 2.0, 1.0), (gpt2, 1.0, 2.0), (other, 1.0, 1.0)):
        with pytest.raises(ValueError, match="other options"):
            fit(model, known, taught, "one")


def fit_with(model: Any, gates: Any = None, **options: Any) -> Any:
    return PSR.fit(model, PAIRS, 1, schedule=QUICK, gates=Gates(**(gates or {})), **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"gates": {"rank": 0}}, "rank must be at least 1"),
        ({"gates": {"b_m": math.inf}}, "b_m must be a finite number"),
        ({"gates": {"learn_b_m": True}}, "labels are the same"),
        ({"gates": {"learn_b_m": True}, "labels": [0.5, 0.5, 0.5]}, "labels are the same"),
        ({"labels": [1.0]}, "3 pairs"),
        ({"labels": [1.0, 2.0, 0.0]}, "from 0 to 1"),
        ({"gates": {"directions": {}}}, r"one \[rank, d_model\]"),
        ({"gates": {"directions": {Site(1): torch.ones(1, 8)}}}, r"found \(1, 8\)"),
        (
            {"gates": {"directions": {Site(1): torch.ones(1, D_MODEL)}, "constant": True}},
            "nothing to train",
        ),
    ],
    ids=str,
)
def test_bad_options_are_errors(gpt2: Any, options: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        fit_with(gpt2, **options)


@pytest.mark.parametrize(
    ("name", "ll_weight", "message"),
    [
        ("MSE", 0.5, r"ll_weight=0\.5 .* objective is 'MSE' alone"),
        ("LL", 0.5, r"objective is 'LL' alone"),
        ("both", 0.0, "must be above 0; found 0"),
        ("both", math.nan, "must be above 0; found nan"),
        ("mse", 1.0, "Unknown objective 'mse'"),
        ("DiM", 1.0, "difference_of_means"),
    ],
)
def test_bad_names_of_objectives_are_errors(name: str, ll_weight: float, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        objective_named(name, ll_weight)


def test_objectives_are_values() -> None:
    assert MSE() + 0.5 * LL() == objective_named("both", 0.5) == Objective(1.0, 0.5)
    assert [(MSE() + LL()).name, MSE().name, (2.0 * LL()).name] == ["both", "MSE", "LL"]
    assert (LL() * 3.0).weights == {"LL": 3.0}
    for weight in (0.0, -1.0, math.inf, math.nan):
        with pytest.raises(ValueError, match=f"must be above 0; found {weight}"):
            weight * LL()
    with pytest.raises(ValueError, match="another scale than MSE"):
        MSE() + LL(by_token=True)
    with pytest.raises(TypeError):
        MSE() + 1  # pyright: ignore


def test_bad_data_are_errors(gpt2: Any) -> None:
    with pytest.raises(ValueError, match="No pairs"):
        PSR.fit(gpt2, [], 1)
    with pytest.raises(ValueError, match="No sites"):
        PSR.fit(gpt2, PAIRS, [])
    with pytest.raises(ValueError, match=r"layer=9"):
        PSR.fit(gpt2, PAIRS, 9)
    same = [PromptPair("What is it?", "What is it?", "a day")]
    with pytest.raises(ValueError, match="nothing to imitate"):
        PSR.fit(gpt2, same, 3, gates=Gates(constant=True), schedule=QUICK)


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
    off = replace(often, alpha=0.0)
    with pytest.warns(SteeringWarning, match="a strength of 0"):
        steerlens.generate(gpt2, ["a b c"], at(1, off), max_new_tokens=2)
    missed = at(1, never).only(steerlens.positions(99))
    with pytest.warns(SteeringWarning, match="met no token"):
        steerlens.generate(gpt2, ["a b c"], missed + at(2, often), max_new_tokens=2)
    with pytest.warns(SteeringWarning, match="its gates opened on no token"):
        steerlens.generate(gpt2, ["a b c"], at(1, never), max_new_tokens=2)


def test_an_objective_is_no_name(gpt2: Any) -> None:
    unchecked = inspect.unwrap(PSR.fit.__func__)  # beartype would say it in its own words
    imitation = inspect.unwrap(require_objective)
    with pytest.raises(TypeError):
        unchecked(PSR, gpt2, PAIRS, 1, objective="both", schedule=QUICK)
    with pytest.raises(TypeError, match=r"MSE\(\) \+ 0\.5 \* LL\(\); found 'both'"):
        imitation("both", None)


def test_likelihood_has_no_teacher(gpt2: Any) -> None:
    teacher = at(2, PSR.constant(torch.ones(D_MODEL)))
    with pytest.raises(ValueError, match="no teacher"):
        PSR.fit(gpt2, PAIRS, 1, objective=LL(), teacher=teacher, schedule=QUICK)


def test_difference_of_means_needs_pairs_that_can_be_compared(gpt2: Any) -> None:
    same = [steerlens.PromptPair(pair.plain, pair.plain, pair.response) for pair in PAIRS]
    with pytest.raises(ValueError, match="nothing to imitate"):
        difference_of_means(gpt2, same, 1)
    inside = [steerlens.PromptPair("a b", "x y a b", "c d e")]
    with pytest.raises(ValueError, match="must be the same tokens"):
        difference_of_means(gpt2, inside, 1, surface="QR")


def test_instructions_are_part_of_the_origin(gpt2: Any) -> None:
    other = [
        steerlens.PromptPair.with_system(pair.plain.user, "Be bad.", pair.response)
        for pair in PAIRS
        if isinstance(pair.plain, steerlens.Conversation)
    ]
    origins = [difference_of_means(gpt2, pairs, 1).origin for pairs in (PAIRS, other, PAIRS)]
    assert origins[0] == origins[2]
    assert origins[0] != origins[1]


def test_activations_beyond_float16_are_not_kept_in_it(gpt2: Any) -> None:
    huge = at(1, lambda activation, hook=None: activation * 1e6)
    rows = [steerlens.encode(gpt2, "a b c")]
    told: Any = {"scope": steerlens.everywhere, "counts": [len(rows[0].ids)], "steering": huge}
    Store.of(gpt2, rows, [Site(1)], limit=10**9, **told)
    with pytest.raises(ValueError, match="beyond float16"):
        Store.of(gpt2, rows, [Site(1)], limit=0, **told)
