"""Steers of a float64 model compute, and are fitted, in float64: no step goes through float32."""

from pathlib import Path
from typing import Any

import numpy as np
import oracles
import pytest
import torch
from test_coefficients import PAIRS
from test_laws import act, padded, rows
from tiny_models import BACKENDS, D_MODEL, load

import steerlens as sl
from steerlens import (
    CAA,
    CLAS,
    PSR,
    ActAdd,
    Angular,
    ColdKernel,
    InstructionVector,
    LoReFT,
    ReFTr1,
    at,
    encode_pair,
)
from steerlens.baselines import las
from steerlens.methods.loreft import orthonormal
from steerlens.methods.psr import Gates, _Modules
from steerlens.training.imitation import Imitation
from steerlens.training.schedule import Schedule

EXACT = 1e-12


def random(*shape: int, seed: int) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).standard_normal(shape))


H = random(3, 9, D_MODEL, seed=0)
V, MATRIX, OTHER, GATES = random(D_MODEL, seed=1), *random(2, 3, D_MODEL, seed=2), random(3, seed=3)
UNIT, R = V / V.norm(), orthonormal(MATRIX)
THETA = torch.nn.functional.normalize(random(4, D_MODEL // 4, seed=6), dim=1)
SIGMA = torch.tensor([0.5, 0.0, 0.0, 0.3], dtype=torch.float64)
N = {
    name: value.numpy()
    for name, value in {"v": V, "m": MATRIX, "o": OTHER, "g": GATES, "u": UNIT, "r": R}.items()
}
STEERS: dict[str, tuple[Any, Any]] = {
    "CAA": (CAA(V), lambda h, row: oracles.caa(h, N["v"])),
    "ActAdd": (ActAdd(MATRIX, c=0.3), lambda h, row: oracles.act_add(h, row, N["m"], 0.3)),
    "PSR": (
        PSR(MATRIX, GATES, OTHER, alpha=0.8, b_m=-0.1),
        lambda h, row: oracles.psr(h, N["m"], N["g"], N["o"], 0.8, -0.1),
    ),
    "CLAS": (
        CLAS(MATRIX, GATES, OTHER, limit=0.7),
        lambda h, row: oracles.clas(h, N["m"], N["g"], N["o"], 0.7),
    ),
    "LoReFT": (LoReFT(R, OTHER, GATES), lambda h, row: oracles.loreft(h, N["r"], N["o"], N["g"])),
    "ReFTr1": (ReFTr1(UNIT, 3.3), lambda h, row: oracles.reft_r1(h, N["u"], 3.3)),
    "InstructionVector": (
        InstructionVector(UNIT, 4.1),
        lambda h, row: oracles.instruction(h, N["u"], 4.1),
    ),
    "Angular": (Angular(V, 40.0), lambda h, row: oracles.angular(h, N["v"], 40.0)),
    "BiPO": (sl.BiPO(V), lambda h, row: oracles.caa(h, N["v"])),
    "PersonaVector": (sl.PersonaVector(V), lambda h, row: oracles.caa(h, N["v"])),
    "DirectionalAblation": (
        sl.DirectionalAblation(UNIT),
        lambda h, row: oracles.ablation(h, N["u"]),
    ),
    "ICV": (sl.ICV(UNIT, 0.7), lambda h, row: oracles.icv(h, N["u"], 0.7)),
    "ITI": (
        sl.ITI(THETA, SIGMA, alpha=3.0),
        lambda h, row: oracles.iti(h, THETA.numpy(), SIGMA.numpy(), 3.0),
    ),
    "ColdKernel": (
        ColdKernel(0.1 * MATRIX, OTHER, "dot", eta=0.7),
        lambda h, row: oracles.cold_kernel(h, 0.1 * N["m"], N["o"], "dot", 0.7, 0.0),
    ),
}


def test_every_method_whose_equation_needs_no_pass_is_here() -> None:
    assert {*STEERS, "ColdFD", "CAST"} == set(sl.methods.__all__)


@pytest.mark.parametrize("name", STEERS)
def test_a_steer_of_a_float64_model_is_its_equation_in_float64(name: str, gpt2: Any) -> None:
    steer, oracle = STEERS[name]
    tokens, window = padded(rows(), "right")
    steered = act(at(1, steer), gpt2, tokens, window, H)
    assert steered.dtype == torch.float64
    moved = 0.0
    for number, row in enumerate(rows()):
        h = H[number][window.mask[number]].numpy()
        expected = oracle(h, row)
        found = steered[number][window.mask[number]].numpy()
        assert np.abs(found - expected).max() < EXACT
        moved = max(moved, np.abs(expected - h).max())
    assert moved > 0.1


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("name", STEERS)
def test_a_steer_held_in_float64_steers_any_model(name: str, dtype: torch.dtype, gpt2: Any) -> None:
    steer, oracle = STEERS[name]
    tokens, window = padded(rows(), "right")
    h = H.to(dtype)
    steered = act(at(1, steer), gpt2, tokens, window, h)
    assert steered.dtype == dtype
    row, real = rows()[1], window.mask[1]
    expected = oracle(h[1][real].double().numpy(), row)
    near = 40 * torch.finfo(dtype).eps
    np.testing.assert_allclose(steered[1][real].double().numpy(), expected, rtol=near, atol=near)


# -- Fits ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def exact(folders: dict[str, Path]) -> Any:
    """A float64 model; on a bridge attention takes its softmax in float32 all the same."""
    return load(folders["gpt2"], BACKENDS[0], torch.float64)


def surprise(model: Any, pair: Any) -> np.ndarray:
    """-log p of each response token of the plain row, in float64 NumPy."""
    row, _ = encode_pair(model, pair)
    with torch.no_grad():
        scores = model(torch.tensor([row.ids]))[0, row.response - 1 : -1].numpy()
    assert scores.dtype == np.float64
    top = scores.max(axis=1, keepdims=True)
    log_p = scores - top - np.log(np.exp(scores - top).sum(axis=1, keepdims=True))
    return -log_p[np.arange(len(log_p)), row.ids[row.response :]]


def fits(model: Any) -> dict[str, Any]:
    schedule = Schedule.full_batch(steps=1)
    trained = {"validation": PAIRS, "schedule": schedule}
    return {
        "CLAS": CLAS.fit(model, PAIRS, directions={1: V, 2: V.float()}, **trained),
        "LoReFT": LoReFT.fit(model, PAIRS, [1, 2], rank=2, **trained),
        "ReFTr1": ReFTr1.fit(model, PAIRS, 1, validation=PAIRS, schedule=Schedule(epochs=1)),
        "PSR": PSR.fit(model, PAIRS, [1, 2], schedule=Schedule(epochs=1)),
        "InstructionVector": InstructionVector.fit(model, PAIRS, 1),
    }


@pytest.mark.filterwarnings("ignore::steerlens.SteeringWarning")
def test_what_is_fitted_on_a_float64_model_is_in_float64(exact: Any) -> None:
    for name, fit in fits(exact).items():
        for steer in fit.steers.values():
            held = [value for value in vars(steer).values() if isinstance(value, torch.Tensor)]
            assert held, name
            assert {value.dtype for value in held} == {torch.float64}, name
            assert any(not torch.equal(value, value.float().double()) for value in held), name


@pytest.mark.filterwarnings("ignore::steerlens.SteeringWarning")
def test_what_is_fitted_on_a_float32_model_is_in_float32(gpt2: Any) -> None:
    for name, fit in fits(gpt2).items():
        for steer in fit.steers.values():
            held = [value for value in vars(steer).values() if isinstance(value, torch.Tensor)]
            assert {value.dtype for value in held} == {torch.float32}, name


@pytest.mark.filterwarnings("ignore::steerlens.SteeringWarning")
def test_the_loss_of_a_likelihood_is_that_of_float64(exact: Any) -> None:
    losses = np.concatenate([surprise(exact, pair) for pair in PAIRS])
    near = EXACT if BACKENDS[0] == "hooked" else 1e-6
    trained = {"validation": PAIRS, "schedule": Schedule.full_batch(steps=1)}
    for fit in (
        CLAS.fit(exact, PAIRS, directions={1: V}, **trained),
        LoReFT.fit(exact, PAIRS, [2], **trained),
    ):
        assert fit.trained is not None
        begun = fit.trained.rows[0]["validation_loss"]
        assert begun == pytest.approx(losses.mean(), rel=near)


def test_the_loss_of_an_imitation_is_that_of_float64(exact: Any) -> None:
    """At the last layer, so that the steered stream there is the equation on the plain one."""
    last = sl.Site(exact.cfg.n_layers - 1)
    modules = _Modules((last,), Gates(rank=2), D_MODEL)
    task = Imitation(exact, PAIRS, modules, scope=sl.response, seed=3)
    begun = modules.begin(torch.Generator().manual_seed(3))
    W, b, Z = (begun[f"{last.layer}.resid_post.{name}"].double().numpy() for name in "WbZ")
    squares = []
    for plain, prompted in (encode_pair(exact, pair) for pair in PAIRS):
        n = len(plain.ids) - plain.response + 1
        h, target = (
            sl.capture(exact, [row], last).at(last)[-n:].numpy() for row in (plain, prompted)
        )
        steered = h + np.maximum(h @ W.T + b, 0) @ Z
        squares.append(((steered - target) ** 2).mean())
    near = EXACT if BACKENDS[0] == "hooked" else 1e-6
    assert task.scale["MSE"] == pytest.approx(float(np.mean(squares)), rel=near)


def test_a_grid_of_float64_directions_stays_in_float64(gpt2: Any) -> None:
    steering = las.fixed({1: V}, 0.3)
    tokens, window = padded(rows(), "right")
    steered = act(steering, gpt2, tokens, window, H)
    expected = H + 0.3 * UNIT
    assert float((steered - expected)[window.mask].abs().max()) < EXACT


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_model_is_loaded_in_float64_by_name(backend: Any) -> None:
    model = sl.load("demo", backend=backend, dtype="float64")
    assert model.cfg.dtype == torch.float64
    tokens, _ = sl.batch(model, ["It was a good film."])
    with torch.no_grad():
        scores = model(tokens)
        single = sl.load("demo", backend=backend)(tokens)
    assert scores.dtype == torch.float64
    assert 0 < float((scores - single).abs().max()) < 1e-3
    read = sl.capture(model, ["It was a good film."], 1)
    assert read.at(1).dtype == torch.float64
