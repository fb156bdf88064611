"""One gradient step: the weights after it, by transformers alone, and that they all come back."""

import copy
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from test_coefficients import PAIRS
from tiny_models import ARCHITECTURES, BACKENDS, D_MODEL, load, load_reference

import steerlens as sl
from steerlens import CAA, Conversation, GradientStep, at, encode_pair, generate
from steerlens.divergence import response_log_p
from steerlens.identity import fingerprint

OTHERS = ("It was a good day.", "No.", "Once upon a time there was a cat.")


POSITIVE: list[Any] = [replace(pair.plain, response=pair.response) for pair in PAIRS]  # pyright: ignore
"""The plain side of each pair with its response."""
NEGATIVE = [replace(one, response=text) for one, text in zip(POSITIVE, OTHERS * 3, strict=False)]
assert len(NEGATIVE) == len(POSITIVE)


@pytest.fixture(params=[(name, "sft") for name in ARCHITECTURES] + [("gpt2", "dpo")], ids=str)
def setting(request: pytest.FixtureRequest) -> tuple[str, str]:
    return request.param


def examples(loss: str) -> Any:
    return (POSITIVE, NEGATIVE if loss == "dpo" else ())


def likelihood(reference: Any, model: Any, prompt: Any) -> torch.Tensor:
    """The mean log-probability of the response tokens, by transformers alone."""
    row = sl.encode(model, prompt)
    scores = reference(torch.tensor([row.ids])).logits[0, row.response - 1 : -1]
    wanted = torch.tensor(row.ids[row.response :])
    return -torch.nn.functional.cross_entropy(scores, wanted)


def loss_by_hand(reference: Any, model: Any, loss: str) -> torch.Tensor:
    good = torch.stack([likelihood(reference, model, one) for one in POSITIVE])
    if loss == "sft":
        return -good.mean()
    bad = torch.stack([likelihood(reference, model, one) for one in NEGATIVE])
    return -torch.nn.functional.logsigmoid(0.1 * (good - bad)).mean()


def scores_of(model: Any) -> torch.Tensor:
    with torch.no_grad():
        return model(torch.tensor([encode_pair(model, PAIRS[1])[0].ids]))


@pytest.mark.parametrize("backend", BACKENDS)
def test_it_is_the_model_after_a_step_of_sgd(
    setting: tuple[str, str], backend: str, folders: dict[str, Path]
) -> None:
    architecture, loss = setting
    model = load(folders[architecture], backend)
    reference = copy.deepcopy(load_reference(folders[architecture]))
    for parameter in reference.parameters():
        parameter.requires_grad_(True)
    loss_by_hand(reference, model, loss).backward()
    torch.optim.SGD(reference.parameters(), lr=0.3).step()
    with torch.no_grad():
        expected = reference(torch.tensor([encode_pair(model, PAIRS[1])[0].ids])).logits
    step = GradientStep.fit(model, examples(loss), loss=loss, eta=0.3)
    plain = scores_of(model)
    with step.applied(model) as stepped:
        assert stepped is model
        found = scores_of(model)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=2e-4)
    assert float((found - plain).abs().max()) > 100 * 2e-4 * (1 if loss == "sft" else 0.1)


def held(model: Any) -> list[tuple[str, int, torch.Tensor, bool]]:
    """Every parameter where it is: its path, which object it is, its numbers, its flag."""
    return [
        (f"{path}.{name}", id(value), value.detach().clone(), value.requires_grad)
        for path, module in torch.nn.Module.named_modules(model)
        for name, value in module._parameters.items()
        if value is not None
    ]


def require_untouched(model: Any, before: Any, print_before: str) -> None:
    after = held(model)
    assert [one[:2] + one[3:] for one in after] == [one[:2] + one[3:] for one in before]
    assert all(torch.equal(a[2], b[2]) for a, b in zip(after, before, strict=True))
    assert fingerprint(model) == print_before


@pytest.mark.parametrize("backend", BACKENDS)
def test_nothing_stays_behind_whatever_happens_inside(
    backend: str, folders: dict[str, Path]
) -> None:
    model = load(folders["llama"], backend)
    before, mark, scores = held(model), fingerprint(model), scores_of(model)
    step = GradientStep.fit(model, examples("sft"), loss="sft", eta=0.3)
    require_untouched(model, before, mark)
    with step.applied(model):
        assert not torch.equal(scores_of(model), scores)
    require_untouched(model, before, mark)
    with pytest.raises(KeyError, match="inside"), step.applied(model):
        raise KeyError("inside")
    require_untouched(model, before, mark)
    assert torch.equal(scores_of(model), scores)
    assert not any(value.requires_grad for value in step.gradient.values())


def test_a_tied_embedding_changes_in_both_places() -> None:
    """SmolLM2 and the demo model are tied; the demo model is at hand everywhere."""
    asked = [Conversation("Review a film.", response="A fine film, a joy to see.")]
    found = {}
    for backend in BACKENDS:
        model = sl.load("demo", backend=backend)
        step = GradientStep.fit(model, (asked, ()), loss="sft", eta=0.1)
        below = GradientStep.fit(model, (asked, ()), loss="sft", eta=0.1, up_to=1)
        assert len(below.gradient) < len(step.gradient)
        tokens, _ = sl.batch(model, asked)
        with torch.no_grad():
            plain = model(tokens)
            with step.applied(model):
                found[backend] = model(tokens) - plain
    moved = list(found.values())
    assert float(moved[0].abs().max()) > 0.1
    torch.testing.assert_close(moved[0], moved[-1], rtol=1e-2, atol=1e-3)


@pytest.mark.parametrize("backend", BACKENDS)
def test_up_to_a_site_only_what_acts_below_it_changes(
    backend: str, folders: dict[str, Path]
) -> None:
    model = load(folders["gpt2"], backend)
    whole = GradientStep.fit(model, examples("sft"), loss="sft")
    below = GradientStep.fit(model, examples("sft"), loss="sft", up_to=1)
    assert {name for name in whole.gradient if name.startswith(("blocks.2", "blocks.3"))}
    kept = {
        name
        for name in whole.gradient
        if not name.startswith(("blocks.2", "blocks.3", "ln_final", "unembed"))
    }
    assert set(below.gradient) == kept
    for name in kept:
        torch.testing.assert_close(below.gradient[name], whole.gradient[name])
    cold = sl.ColdFD.fit(model, examples("sft"), 1, loss="sft").steers[sl.Site(1)]
    assert set(cold.names) == kept


def test_inside_one_generates_steers_fits_and_captures_as_ever(bridge: Any) -> None:
    step = GradientStep.fit(bridge, examples("sft"), loss="sft", eta=0.3)
    asked, steering = [Conversation("What is it?")], at(1, CAA(3 * torch.ones(D_MODEL)))
    options = {"max_new_tokens": 5, "temperature": 0.0, "stop_at_end": False}
    bare = generate(bridge, asked, **options).texts
    read = sl.capture(bridge, asked, 2).at(2)
    with step.applied(bridge):
        moved = generate(bridge, asked, **options).texts
        assert moved == generate(bridge, asked, cache=False, **options).texts
        assert not torch.equal(sl.capture(bridge, asked, 2).at(2), read)
        assert generate(bridge, asked, steering, **options).texts != moved
        CAA.fit(bridge, (["I love you"], ["I hate you"]), 1)
    assert bare != moved
    assert torch.equal(sl.capture(bridge, asked, 2).at(2), read)


def test_the_step_makes_the_responses_likelier_and_scales(bridge: Any) -> None:
    step = GradientStep.fit(bridge, examples("sft"), loss="sft", eta=0.05)
    twice = step.scaled(2.0)
    assert (twice.eta, twice.loss) == (pytest.approx(0.1), "sft")
    assert twice.length == pytest.approx(2 * step.length)
    squares = sum(float(value.square().sum()) for value in step.gradient.values())
    assert step.length == pytest.approx(0.05 * math.sqrt(squares), rel=1e-5)
    rows = [sl.encode(bridge, one) for one in POSITIVE]

    def surprise() -> float:
        return -float(torch.cat(response_log_p(bridge, rows)).mean())

    before = surprise()
    with step.applied(bridge):
        after = surprise()
    with step.scaled(-1.0).applied(bridge):
        up = surprise()
    assert after < before < up


def test_it_is_calibrated_by_its_eta(bridge: Any) -> None:
    step = GradientStep.fit(bridge, examples("sft"), loss="sft", eta=0.5)
    found = sl.calibrate(bridge, step, PAIRS, target_kl=0.05)
    assert found.reached
    assert found.effect == pytest.approx(0.05, rel=0.06)
    assert found.steering.eta == pytest.approx(found.strength * 0.5)
    with pytest.raises(ValueError, match="no share of a residual norm"):
        sl.calibrate(bridge, step, PAIRS, share=0.1)


def test_a_step_lost_in_rounding_is_warned_of(folders: dict[str, Path]) -> None:
    model = load(folders["llama"], "bridge", torch.bfloat16)
    step = GradientStep.fit(model, examples("sft"), loss="sft", eta=1e-5)
    warned = pytest.warns(sl.SteeringWarning, match=r"gradient step at eta = 1e-05 is lost")
    with warned, step.applied(model):
        pass
    with step.scaled(0.0).applied(model):  # asked for
        pass


# -- Mistakes --------------------------------------------------------------------------------------


def test_mistakes_are_said(bridge: Any, folders: dict[str, Path]) -> None:
    step = GradientStep.fit(bridge, examples("sft"), loss="sft")
    other = pytest.raises(ValueError, match="fitted on the other backend or on another model")
    with other, step.applied(load(folders["gpt2"], "bridge")):
        pass
    with pytest.raises(ValueError, match="at least one parameter"):
        GradientStep({})
    with pytest.raises(ValueError, match="eta is the size of the step"):
        step.scaled(math.inf)
    with pytest.raises(ValueError, match="gradient of W"):
        GradientStep({"W": torch.full((2,), torch.nan)})
    with pytest.raises(ValueError, match="needs the negative prompts"):
        GradientStep.fit(bridge, (POSITIVE, ()), loss="dpo")


@pytest.mark.skipif("hooked" not in BACKENDS, reason="this TransformerLens has bridges only")
def test_folded_weights_are_refused(folders: dict[str, Path]) -> None:
    folded = sl.load(folders["gpt2"], backend="hooked", processing="fold")
    with pytest.raises(ValueError, match="weights are folded"):
        GradientStep.fit(folded, examples("sft"), loss="sft")
