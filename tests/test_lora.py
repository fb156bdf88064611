"""LoRA: the weights it stands for, what it is trained on, and that nothing of it stays behind."""

import copy
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from test_coefficients import PAIRS
from tiny_models import ARCHITECTURES, BACKENDS, D_MODEL, N_LAYERS, load, load_reference

import steerlens
from steerlens import CAA, Conversation, LoRA, at, encode_pair, generate
from steerlens.identity import fingerprint
from steerlens.training.schedule import Schedule


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def fit(model: Any, **options: Any) -> Any:
    timing = {name: options.pop(name) for name in ("steps", "rate", "seed") if name in options}
    given = {"pairs": PAIRS, "validation": PAIRS} | options
    return LoRA.fit(model, schedule=Schedule.full_batch(**timing), **given)


@pytest.fixture(params=ARCHITECTURES)
def architecture(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def bridged(architecture: str, folders: dict[str, Path]) -> Any:
    """A bridge of each architecture, with the package that adapts it."""
    pytest.importorskip("peft")
    return load(folders[architecture], "bridge")


@pytest.fixture
def weights(architecture: str, folders: dict[str, Path]) -> Any:
    """The same model in transformers' own class, to be changed by a test."""
    return copy.deepcopy(load_reference(folders[architecture]))


def written_with(model: Any, layer: int) -> tuple[torch.nn.Parameter, bool]:
    """The matrix that the MLP of a block writes with, and whether it is [d_in, d_out]."""
    if hasattr(model, "transformer"):
        return model.transformer.h[layer].mlp.c_proj.weight, True
    return model.model.layers[layer].mlp.down_proj.weight, False


def width(model: Any) -> int:
    weight, transposed = written_with(model, 0)
    return weight.shape[0] if transposed else weight.shape[1]


def made(d_in: int, rank: int = 2, layers: tuple[int, ...] = (0, 3)) -> LoRA:
    names = [f"{layer}.out" for layer in layers]
    A = {name: 0.3 * random(rank, d_in, seed=i) for i, name in enumerate(names)}
    B = {name: 0.3 * random(D_MODEL, rank, seed=9 + i) for i, name in enumerate(names)}
    return LoRA(A, B, alpha=3.0)


def ids_of(model: Any) -> torch.Tensor:
    return torch.tensor([encode_pair(model, PAIRS[1])[0].ids])


def scores_of(model: Any) -> torch.Tensor:
    with torch.no_grad():
        return model(ids_of(model))


def surprise(weights: Any, model: Any) -> torch.Tensor:
    """The mean of -log p over all response tokens of all pairs, by transformers alone."""
    losses = []
    for pair in PAIRS:
        row, _ = encode_pair(model, pair)
        scores = weights(torch.tensor([row.ids])).logits[0, row.response - 1 : -1]
        wanted = torch.tensor(row.ids[row.response :])
        losses.append(torch.nn.functional.cross_entropy(scores, wanted, reduction="none"))
    return torch.cat(losses).mean()


# -- What it stands for ----------------------------------------------------------------------------


def test_it_is_the_model_with_those_weights(bridged: Any, weights: Any) -> None:
    lora = made(width(weights))
    before = scores_of(bridged)
    with torch.no_grad():
        for name in lora.A:
            weight, transposed = written_with(weights, int(name[0]))
            change = 3.0 / 2 * lora.B[name] @ lora.A[name]
            weight += change.T if transposed else change
        expected = weights(ids_of(bridged)).logits
    with lora.applied(bridged) as adapted:
        assert adapted is bridged
        found = scores_of(bridged)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    assert float((found - before).abs().max()) > 0.1


def everything_of(model: Any) -> tuple[Any, ...]:
    kept = {name: value.clone() for name, value in model.original_model.state_dict().items()}
    modules = [(name, id(module)) for name, module in model.original_model.named_modules()]
    flags = [(name, p.requires_grad) for name, p in model.original_model.named_parameters()]
    return kept, modules, flags, fingerprint(model)


def require_untouched(model: Any, before: tuple[Any, ...]) -> None:
    kept, *rest = everything_of(model)
    assert rest == list(before[1:])
    assert kept.keys() == before[0].keys()
    assert all(torch.equal(value, before[0][name]) for name, value in kept.items())


def test_nothing_stays_behind_whatever_happens_inside(bridged: Any, weights: Any) -> None:
    before, scores, noise = everything_of(bridged), scores_of(bridged), torch.get_rng_state()
    lora = made(width(weights))
    with lora.applied(bridged):
        assert not torch.equal(scores_of(bridged), scores)
    require_untouched(bridged, before)
    with pytest.raises(KeyError, match="inside"), lora.applied(bridged):
        raise KeyError("inside")
    with pytest.raises(ValueError, match=r"held\.0_out_A.*fit it again"), made(7).applied(bridged):
        pass
    absent = made(width(weights), layers=(0, 4))
    with pytest.raises(ValueError, match="There is no layer 4"), absent.applied(bridged):
        pass
    fit(bridged, steps=1)
    require_untouched(bridged, before)
    assert torch.equal(scores_of(bridged), scores)
    assert torch.equal(torch.get_rng_state(), noise)


def test_weights_that_were_trainable_stay_so(bridged: Any, weights: Any) -> None:
    weight = bridged.blocks[0].mlp.out.original_component.weight
    weight.requires_grad_(True)
    try:
        with made(width(weights)).applied(bridged):
            assert not any(
                p.requires_grad for n, p in bridged.original_model.named_parameters() if "lora" in n
            )
        assert weight.requires_grad
    finally:
        weight.requires_grad_(False)


def test_inside_one_generates_and_steers_as_ever(bridged: Any, weights: Any) -> None:
    asked = [Conversation("What is it?"), Conversation("Who sat on the mat by the sea?")]
    steering = at(1, CAA(3 * random(D_MODEL)))
    options = {"max_new_tokens": 5, "temperature": 0.0, "stop_at_end": False}
    bare = generate(bridged, asked, **options).texts
    with made(width(weights)).applied(bridged):
        adapted = generate(bridged, asked, **options).texts
        assert adapted == generate(bridged, asked, cache=False, **options).texts
        both = generate(bridged, asked, steering, **options).texts
    assert len({tuple(texts) for texts in (bare, adapted, both)}) == 3


def test_a_second_one_inside_is_refused(bridged: Any, weights: Any) -> None:
    lora, before = made(width(weights)), everything_of(bridged)
    refused = pytest.raises(ValueError, match=r"no plain matrix 'out'.*leave its `with` block")
    with lora.applied(bridged), refused, lora.applied(bridged):
        pass
    require_untouched(bridged, before)


# -- Training --------------------------------------------------------------------------------------


def test_the_first_step_moves_b_alone_by_its_rate_down_the_gradient(
    bridged: Any, weights: Any
) -> None:
    found = fit(bridged, steps=1)
    assert found.trained.best_epoch == 1
    for parameter in weights.parameters():
        parameter.requires_grad_(True)
    first = surprise(weights, bridged)
    assert found.trained.rows[0]["validation_loss"] == pytest.approx(first.item(), abs=1e-4)
    first.backward()
    assert list(found.lora.A) == [f"{layer}.out" for layer in range(N_LAYERS)]
    for layer in range(N_LAYERS):
        weight, transposed = written_with(weights, layer)
        A, B = found.lora.A[f"{layer}.out"], found.lora.B[f"{layer}.out"]
        assert A.shape[0] == B.shape[1] == 1
        assert 0 < A.abs().max() <= A.shape[1] ** -0.5
        slope = 2 * (weight.grad.T if transposed else weight.grad) @ A.T
        sure = slope.abs() > 1e-3 * slope.abs().max()
        torch.testing.assert_close(B[sure], -3e-3 * slope.sign()[sure], rtol=1e-2, atol=0)


def test_fitting_makes_the_responses_likelier(bridged: Any) -> None:
    found = fit(bridged)
    losses = [row["validation_loss"] for row in found.trained.rows]
    assert len(losses) == 9
    assert min(losses) < losses[0] - 0.01
    assert (found.lora.alpha, found.trained.best_epoch) == (2.0, losses.index(min(losses)))
    wider = fit(bridged, layers=[1], parts=("in", "out"), rank=3, steps=2)
    assert list(wider.lora.A) == ["1.in", "1.out"]
    assert wider.lora.A["1.in"].shape == (3, D_MODEL)
    assert wider.lora.B["1.in"].any()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_adapted_model_has_the_loss_that_was_chosen(
    dtype: torch.dtype, architecture: str, folders: dict[str, Path]
) -> None:
    pytest.importorskip("peft")
    model = load(folders[architecture], "bridge", dtype)
    found = fit(model, steps=4)
    chosen = found.trained.rows[found.trained.best_epoch]["validation_loss"]
    assert found.lora.B["0.out"].dtype == torch.float32
    with found.lora.applied(model), torch.no_grad():
        losses = []
        for pair in PAIRS:
            row, _ = encode_pair(model, pair)
            scores = model(torch.tensor([row.ids]))[0, row.response - 1 : -1].float()
            assert model(torch.tensor([row.ids])).dtype == dtype
            wanted = torch.tensor(row.ids[row.response :])
            losses.append(torch.nn.functional.cross_entropy(scores, wanted, reduction="none"))
    near = 1e-4 if dtype == torch.float32 else 0.05
    assert float(torch.cat(losses).mean()) == pytest.approx(chosen, abs=near)


@pytest.mark.filterwarnings("ignore:No epoch had a lower validation loss")
def test_where_every_step_harms_the_model_itself_is_kept(bridged: Any) -> None:
    asked = Conversation("What is it?")
    own = generate(bridged, [asked], max_new_tokens=8, temperature=0.0).response_ids(0)
    other = [steerlens.PromptPair(asked, asked, own)]
    found = fit(bridged, validation=other, steps=2, rate=3.0)
    assert found.trained.best_epoch == 0
    assert not any(B.any() for B in found.lora.B.values())
    before = scores_of(bridged)
    with found.lora.applied(bridged):
        assert torch.equal(scores_of(bridged), before)


def test_the_seed_alone_decides(bridged: Any) -> None:
    torch.manual_seed(5)
    first = fit(bridged, steps=1).lora
    torch.manual_seed(6)
    second, third = (fit(bridged, steps=1, seed=seed).lora for seed in (0, 1))
    assert torch.equal(first.A["0.out"], second.A["0.out"])
    assert torch.equal(first.B["0.out"], second.B["0.out"])
    assert not torch.equal(first.A["0.out"], third.A["0.out"])


# -- Mistakes --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rank": 0}, "rank is from 1 to d_model = .*; found 0"),
        ({"layers": [4]}, "no layer 4: this model has layers 0 to 3"),
        ({"layers": []}, "Nothing is adapted"),
        ({"parts": ()}, "Nothing is adapted"),
        ({"validation": []}, "No validation pairs"),
        ({"pairs": []}, "No pairs were given"),
        ({"steps": 0}, "steps is a number of updates"),
        ({"rate": 0.0}, "must be finite and above 0"),
    ],
    ids=str,
)
def test_bad_options_are_errors(bridge: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        fit(bridge, **options)


def test_a_part_that_a_model_lacks_is_named_with_those_it_has(folders: dict[str, Path]) -> None:
    model = load(folders["gpt2"], "bridge")
    with pytest.raises(ValueError, match=r"no plain matrix 'gate'.*It has: in, out"):
        fit(model, parts=("gate",))


@pytest.mark.skipif("hooked" not in BACKENDS, reason="this TransformerLens has bridges only")
def test_a_hooked_transformer_is_refused(folders: dict[str, Path]) -> None:
    with pytest.raises(ValueError, match="backend='bridge'"):
        fit(load(folders["gpt2"], "hooked"))


def test_without_peft_the_extra_is_named_and_the_model_left_as_it_was(
    bridge: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = everything_of(bridge)
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(ImportError, match=r"pip install steerlens\[lora\]"):
        fit(bridge)
    require_untouched(bridge, before)


def test_matrices_without_a_partner_are_an_error() -> None:
    with pytest.raises(ValueError, match="an A and a B for each matrix"):
        LoRA({}, {})
    with pytest.raises(ValueError, match=r"found A for \['0\.out'\] and B for \[\]"):
        LoRA({"0.out": random(1, 4)}, {})
    with pytest.raises(ValueError, match=r"LoRA's B of 0\.out"):
        LoRA({"0.out": random(1, 4)}, {"0.out": torch.full((4, 1), torch.nan)})
