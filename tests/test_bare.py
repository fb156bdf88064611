"""The model inside a bridge, run without the bridge's inner hook points: when, and as what."""

import gc
import weakref
from typing import Any

import pytest
import torch
from tiny_models import write_folder

import steerlens
from steerlens import CAA, Site, at, capture, generate
from steerlens.models.agreement import Expected, activations_of
from steerlens.runtime import bare
from steerlens.runtime.bare import ALL_STREAMS, Bare, bare_of, keep_bare
from steerlens.runtime.forward import logits, logits_from

PROMPTS = ["The film was", "It", "A long time ago there lived a king"]


@pytest.fixture(params=["gpt2", "llama"])
def model(request: Any, tmp_path: Any) -> Any:
    return steerlens.load(write_folder(tmp_path, request.param), backend="bridge")


def direction(model: Any) -> torch.Tensor:
    return torch.linspace(-3, 3, model.cfg.d_model)


def in_use(model: Any) -> bool:
    with torch.no_grad():
        return bare_of(model) is not None


@torch.no_grad()
def scores(model: Any) -> torch.Tensor:
    tokens, window = steerlens.batch(model, PROMPTS)
    return logits(model, tokens, window)[window.mask]


def as_the_bridge(model: Any, what: Any) -> Any:
    """What a function gives with the bridge itself; the bare model is back afterwards."""
    kept = bare._BARE.pop(model)
    try:
        return what()
    finally:
        keep_bare(model, kept)


def test_it_computes_what_the_bridge_does(model: Any) -> None:
    assert in_use(model)
    torch.testing.assert_close(
        scores(model), as_the_bridge(model, lambda: scores(model)), rtol=1e-4, atol=1e-4
    )


@pytest.mark.parametrize("stream", ALL_STREAMS)
def test_every_site_is_met_and_steered_as_on_the_bridge(
    model: Any, stream: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = Site(1, stream)
    steering = at(site, CAA(direction(model))) if stream != "resid_mid" else None

    def found() -> Any:
        values = capture(model, PROMPTS, [site, Site(1)], steering=steering)
        return torch.stack([values.at(site), values.at(1)])

    run = Bare.logits
    calls: list[int] = []
    monkeypatch.setattr(Bare, "logits", lambda *a, **k: calls.append(1) or run(*a, **k))
    here = found()
    assert calls
    torch.testing.assert_close(here, as_the_bridge(model, found), rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_a_pass_that_enters_in_the_middle_is_its_own_too(
    model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokens, window = steerlens.batch(model, PROMPTS, side="right")
    below = capture(model, PROMPTS, 1, side="right").at(1)
    residual = torch.zeros((*tokens.shape, model.cfg.d_model))
    residual[window.mask] = below

    def entered() -> torch.Tensor:
        return logits_from(model, residual, 2, tokens, window)[window.mask]

    ran, whole = list[int](), Bare.logits
    monkeypatch.setattr(Bare, "logits", lambda *a, **o: ran.append(1) or whole(*a, **o))
    torch.testing.assert_close(entered(), scores(model), rtol=1e-4, atol=1e-4)
    assert len(ran) == 2
    torch.testing.assert_close(entered(), as_the_bridge(model, entered), rtol=1e-4, atol=1e-4)
    assert in_use(model)


def test_a_hook_inside_is_met(model: Any) -> None:
    before = scores(model)
    point = model.hook_dict["blocks.1.mlp.hook_in"]
    point.add_hook(lambda h, hook: h * 0)
    assert not in_use(model)
    assert not torch.allclose(scores(model), before)
    point.remove_hooks()
    assert in_use(model)


def test_a_hook_put_on_between_two_tokens_is_met(model: Any) -> None:
    plain = list(steerlens.stream(model, PROMPTS[0], max_new_tokens=6, temperature=0))
    point, seen = model.hook_dict["blocks.1.mlp.hook_in"], []
    pieces = steerlens.stream(model, PROMPTS[0], max_new_tokens=6, temperature=0)
    first = next(pieces)
    point.add_hook(lambda h, hook: seen.append(h.shape[1]))
    assert [first, *pieces] == plain
    assert seen == [1] * (len(plain) - 1)


def hook_on_an_original(model: Any) -> Any:
    block = model.original_model.get_input_embeddings()
    return block.register_forward_hook(lambda module, given, out: out * 0)


def hook_on_the_whole(model: Any) -> Any:
    return torch.nn.Module.register_forward_pre_hook(model, lambda module, given: (given[0] * 0,))


@pytest.mark.parametrize("put_on", [hook_on_an_original, hook_on_the_whole])
def test_hooks_of_torch_are_met(model: Any, put_on: Any) -> None:
    before = scores(model)
    handle = put_on(model)
    after = scores(model)
    assert not torch.allclose(after, before)
    torch.testing.assert_close(
        after, as_the_bridge(model, lambda: scores(model)), rtol=1e-4, atol=1e-4
    )
    handle.remove()
    torch.testing.assert_close(scores(model), before)


def test_dropout_a_replaced_module_and_a_replaced_forward_are_seen(model: Any) -> None:
    block = model.blocks[1]
    model.train()
    assert not in_use(model)
    model.eval()
    assert in_use(model)
    original = block.mlp.original_component
    block.mlp.add_module("_original_component", torch.nn.Identity())
    assert not in_use(model)
    block.mlp.add_module("_original_component", original)
    assert in_use(model)
    vars(block)["forward"] = block.forward
    assert not in_use(model)
    del vars(block)["forward"]
    assert in_use(model)


@pytest.mark.parametrize("part", ["q", "v"])
def test_weights_that_are_written_to_are_seen(model: Any, part: str) -> None:
    before = scores(model)
    weight = getattr(model.blocks[0].attn, part).original_component.weight
    weight.data += 1.0  # no counter of torch's sees this
    after = scores(model)
    assert not torch.allclose(after, before)
    torch.testing.assert_close(
        after, as_the_bridge(model, lambda: scores(model)), rtol=1e-3, atol=1e-3
    )


def test_a_part_that_is_replaced_is_seen(model: Any) -> None:
    held = model.blocks[0].attn.v.original_component
    held.weight = torch.nn.Parameter(held.weight.detach() + 1.0, requires_grad=False)
    torch.testing.assert_close(
        scores(model), as_the_bridge(model, lambda: scores(model)), rtol=1e-3, atol=1e-3
    )


def test_passes_with_gradients_are_those_of_the_bridge(model: Any) -> None:
    assert bare_of(model) is None
    assert in_use(model)


def test_text_and_activations_below_a_site_are_the_same_under_every_steer(model: Any) -> None:
    # Whatever steers, the unsteered part is the same to the last bit, so that "no change" is 0.
    steering = at(Site(1, "attn_out"), CAA(direction(model)))
    plain, steered = (capture(model, PROMPTS, 0, steering=s).at(0) for s in (None, steering))
    assert torch.equal(plain, steered)
    off = generate(model, PROMPTS, 0.0 * steering, max_new_tokens=5)
    assert torch.equal(off.tokens, generate(model, PROMPTS, max_new_tokens=5).tokens)


def test_verify_false_leaves_it_out(tmp_path: Any) -> None:
    folder = write_folder(tmp_path, "gpt2")
    assert not in_use(steerlens.load(folder, backend="bridge", verify=False))


def test_every_site_was_compared_at_load(model: Any) -> None:
    expected = Expected(torch.arange(5), torch.zeros(5, 1))
    assert len(activations_of(model, expected)) == len(ALL_STREAMS) * model.cfg.n_layers


def test_a_model_that_nobody_holds_is_freed(tmp_path: Any) -> None:
    gone = steerlens.load(write_folder(tmp_path, "gpt2"), backend="bridge")
    generate(gone, PROMPTS, max_new_tokens=2)
    known = weakref.ref(gone)
    del gone
    gc.collect()
    assert known() is None


def test_dropout_that_alone_is_in_training_is_seen(tmp_path: Any) -> None:
    model: Any = steerlens.load(write_folder(tmp_path, "gpt2"), backend="bridge")
    dropouts = [one for one in model.original_model.modules() if type(one) is torch.nn.Dropout]
    assert dropouts
    assert in_use(model)
    dropouts[0].train()
    assert not in_use(model)
