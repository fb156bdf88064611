"""Steers of a float64 model compute, and are fitted, in float64: no step goes through float32."""

from pathlib import Path
from typing import Any, cast

import numpy as np
import oracles
import pytest
import torch
from test_coefficients import PAIRS
from test_laws import act, padded, rows
from tiny_models import BACKENDS, D_MODEL, load

import steerlens as sl
from analysis.bench.catalogue import Case, fit_of
from analysis.bench.effects import predicted
from analysis.bench.tasks import Task
from analysis.explorer.lens import lens_of
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
from steerlens.calibration import calibrate
from steerlens.cli.fit.directions import stored_directions
from steerlens.divergence import log_probabilities, response_log_p
from steerlens.interchange.nearest import nearest_constant
from steerlens.methods.loreft import orthonormal
from steerlens.methods.psr import Gates, _Modules
from steerlens.pairs.fitted import Fitted
from steerlens.runtime.forward import logits
from steerlens.runtime.hooks import Watch
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


@pytest.mark.parametrize("label", [None, 0.3])
def test_the_loss_of_an_imitation_is_that_of_float64(label: float | None, exact: Any) -> None:
    """At the last layer, so that the steered stream there is the equation on the plain one."""
    last = sl.Site(exact.cfg.n_layers - 1)
    modules = _Modules((last,), Gates(rank=2), D_MODEL)
    labels = None if label is None else [label] * len(PAIRS)
    task = Imitation(exact, PAIRS, modules, scope=sl.response, labels=labels, seed=3)
    begun = modules.begin(torch.Generator().manual_seed(3))
    W, b, Z = (begun[f"{last.layer}.resid_post.{name}"].double().numpy() for name in "WbZ")
    squares = []
    for plain, prompted in (encode_pair(exact, pair) for pair in PAIRS):
        n = len(plain.ids) - plain.response + 1
        h, target = (
            sl.capture(exact, [row], last).at(last)[-n:].numpy() for row in (plain, prompted)
        )
        steered = h + (1.0 if label is None else label) * np.maximum(h @ W.T + b, 0) @ Z
        squares.append(((steered - target) ** 2).mean())
    near = EXACT if BACKENDS[0] == "hooked" else 1e-6
    assert task.scale["MSE"] == pytest.approx(float(np.mean(squares)), rel=near)


def exact_bridge(folders: dict[str, Path]) -> Any:
    pytest.importorskip("peft")
    return load(folders["gpt2"], "bridge", torch.float64)


def lora_of(model: Any) -> Any:
    schedule = Schedule.full_batch(steps=1)
    return sl.LoRA.fit(model, PAIRS, validation=PAIRS, layers=[3], schedule=schedule)


def test_a_lora_is_fitted_in_the_precision_of_its_model(folders: dict[str, Path]) -> None:
    model = exact_bridge(folders)
    wide, narrow = lora_of(model), lora_of(load(folders["gpt2"], "bridge"))
    A, B = (side["3.out"] for side in (wide.lora.A, wide.lora.B))
    assert {A.dtype, B.dtype} == {torch.float64}
    assert not torch.equal(B, B.float().double())
    losses = np.concatenate([surprise(model, pair) for pair in PAIRS])
    begun = wide.trained.rows[0]["validation_loss"]
    assert begun == pytest.approx(losses.mean(), rel=EXACT)
    # B is zero at the start, so A has no gradient in the first step: it is as it was drawn.
    assert torch.equal(narrow.lora.A["3.out"], A.float())
    assert narrow.lora.B["3.out"].dtype == torch.float32


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_a_lora_in_a_float64_model_changes_its_weights(
    dtype: torch.dtype, folders: dict[str, Path]
) -> None:
    model = exact_bridge(folders)
    A, B = random(2, 4 * D_MODEL, seed=8).to(dtype), random(D_MODEL, 2, seed=9).to(dtype)
    tokens = torch.tensor([encode_pair(model, PAIRS[1])[0].ids])
    with torch.no_grad():
        with sl.LoRA({"3.out": A}, {"3.out": B}, alpha=0.3).applied(model):
            found = model(tokens)
        weight = model.original_model.transformer.h[3].mlp.c_proj.weight
        weight += 0.15 * (B.double() @ A.double()).T
        expected = model(tokens)
    assert float((found - expected).abs().max()) < EXACT


# -- Reading and writing ---------------------------------------------------------------------------


def test_the_likelihood_of_a_response_is_that_of_float64(exact: Any, gpt2: Any) -> None:
    near = EXACT if BACKENDS[0] == "hooked" else 1e-6
    rows = [encode_pair(exact, pair)[0] for pair in PAIRS]
    for pair, log_p in zip(PAIRS, response_log_p(exact, rows), strict=True):
        np.testing.assert_allclose(-log_p.numpy(), surprise(exact, pair), rtol=near)
    assert response_log_p(gpt2, rows)[0].dtype == torch.float32


def test_predictions_are_kept_in_the_precision_of_the_model(exact: Any, gpt2: Any) -> None:
    rows = [encode_pair(exact, pair)[0] for pair in PAIRS]
    kept = torch.cat(predicted(exact, rows, None))
    whole = [log_probabilities(exact, [row], [0], None, Watch()) for row in rows]
    assert float((kept - torch.cat(whole)).abs().max()) < (
        EXACT if BACKENDS[0] == "hooked" else 1e-5
    )
    assert kept.dtype == torch.float64
    assert {one.dtype for one in predicted(gpt2, rows, None)} == {torch.float32}


def test_a_calibrated_effect_is_the_kl_in_float64(folders: dict[str, Path]) -> None:
    """At the last layer, so that a bridge's attention, in float32, is the same in both runs."""
    model = load(folders["gpt2"], BACKENDS[0], torch.float64)
    found = calibrate(model, at(3, CAA(V)), PAIRS, target_kl=0.001)
    rows = [encode_pair(model, pair)[0] for pair in PAIRS]
    plain, moved = (
        torch.cat([log_probabilities(model, rows, range(3), steering, Watch())])
        for steering in (None, found.steering)
    )
    kl = float((moved.exp() * (moved - plain)).sum(dim=-1).mean())
    assert found.effect == pytest.approx(kl, rel=1e-10)


@pytest.mark.parametrize("steering", [None, at(1, CAA(0.1 * V))], ids=["plain", "steered"])
def test_tokens_that_differ_in_float64_alone_are_told_apart(
    steering: Any, exact: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first token of the vocabulary is made a rival, just below the likeliest."""
    written = sl.generate(exact, ["It was"], steering, max_new_tokens=1, temperature=0)
    (best,) = written.response_ids(0)
    assert best > 0

    def with_rival(*given: Any) -> torch.Tensor:
        scores = logits(*given)
        scores[..., 0] = scores[..., best] - 1e-10
        return scores

    monkeypatch.setattr("steerlens.generation.logits", with_rival)
    again = sl.generate(exact, ["It was"], steering, max_new_tokens=1, temperature=0)
    assert again.response_ids(0) == (best,)


def test_what_float64_holds_is_not_said_to_be_infinite(
    exact: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def huge(*given: Any) -> torch.Tensor:
        return 1e39 * logits(*given)

    monkeypatch.setattr("steerlens.generation.logits", huge)
    monkeypatch.setattr("steerlens.runtime.finite.logits", huge)
    sl.generate(exact, ["It was"], max_new_tokens=1)
    with pytest.raises(ValueError, match="The steering leaves a row no finite logit"):
        sl.generate(exact, ["It was"], at([1, 2], CAA(1.7e308 * V.sign())), max_new_tokens=1)


@pytest.mark.parametrize("given", [{1: V}, at(1, CAA(V))], ids=["vectors", "steering"])
def test_the_scores_of_a_direction_are_projections_in_float64(given: Any, exact: Any) -> None:
    texts = ["It was a good film.", "The dog ran to the house"]
    (scores,) = Fitted.of(exact, given).scores(texts).values()
    last = [sl.capture(exact, [text], 1).at(1)[-1].numpy() for text in texts]
    near = EXACT if BACKENDS[0] == "hooked" else 1e-6
    np.testing.assert_allclose(scores, np.stack(last) @ N["u"], rtol=near)


def test_directions_of_a_file_are_in_the_precision_of_the_model(
    exact: Any, gpt2: Any, tmp_path: Path
) -> None:
    path = tmp_path / "steering.safetensors"
    at(1, CAA(V)).save(path)
    (found,) = stored_directions(path, exact, [1]).values()
    (single,) = stored_directions(path, gpt2, [1]).values()
    assert torch.equal(found[0], V)
    assert torch.equal(single[0], V.float())


def test_the_nearest_constant_of_a_float64_model_is_in_float64(exact: Any) -> None:
    steering = at(1, PSR(MATRIX, GATES, OTHER, alpha=0.8, b_m=-0.1)).only(sl.response)
    nearest, _ = nearest_constant(exact, steering, [pair.prompted for pair in PAIRS])
    ((_, steer),) = nearest.placed
    v = cast("CAA", steer).direction
    assert v.dtype == torch.float64
    assert not torch.equal(v, v.float().double())


def test_a_random_direction_is_as_long_as_the_activations(exact: Any, gpt2: Any) -> None:
    questions, answers = ("What is it?", "Who ran?"), ("It is good.", "The dog ran to the sea.")
    task = Task("kind", "Be kind.", {"train": questions})
    drawn = []
    for model in (exact, gpt2):
        case = Case(model, task, 0, questions, answers, answers)
        ((_, steer),) = cast("sl.Steering", fit_of("random direction")(case)).placed
        direction = cast("Any", steer).steer.direction
        rows = [encode_pair(model, pair)[0] for pair in case.pairs]
        seen = sl.capture(model, rows, case.layer, scope=sl.generated).at(case.layer)
        lengths = np.sort(np.linalg.norm(seen.numpy(), axis=1))
        near = 4 * torch.finfo(direction.dtype).eps
        assert float(direction.norm()) == pytest.approx(lengths[(len(seen) - 1) // 2], rel=near)
        drawn.append(direction)
    assert [one.dtype for one in drawn] == [torch.float64, torch.float32]
    torch.testing.assert_close(drawn[0].float(), drawn[1])


def test_the_words_of_a_change_are_read_in_float64(exact: Any) -> None:
    plain, site = H[0], sl.Site(3)
    ((change, *_),) = lens_of(exact, {site: plain}, {site: plain + 1e-6 * V})
    with torch.no_grad():
        before, after = (
            exact.unembed(exact.ln_final(h[None]))[0, 0] for h in (plain, plain + 1e-6 * V)
        )
    moved = after - before
    expected = (moved - moved.mean()).sort(descending=True)
    top = [number for _, number in change.up]
    np.testing.assert_allclose(top, expected.values[: len(top)].numpy(), rtol=1e-6)


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
