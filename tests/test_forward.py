"""Passes that enter above the embedding: the same as the upper part of a full pass."""

import inspect
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_models import ARCHITECTURES, PROMPTS, greedy, load, response_rows

import steerlens
from steerlens.runtime import forward
from steerlens.runtime.forward import logits, logits_from, logits_where


def stream(model: Any, name: str, run: Any) -> torch.Tensor:
    seen: list[torch.Tensor] = []
    with model.hooks(fwd_hooks=[(name, lambda activation, hook: seen.append(activation))]):
        run()
    return seen[0]


@pytest.mark.parametrize("layer", [1, 2, 4])
@pytest.mark.parametrize("side", ["left", "right"])
def test_it_is_the_upper_part_of_a_full_pass(model: Any, layer: int, side: str) -> None:
    tokens, window = steerlens.batch(model, PROMPTS, side=side)
    below = f"blocks.{layer - 1}.hook_resid_post"
    residual = stream(model, below, lambda: logits(model, tokens, window)).clone()
    full = logits(model, tokens, window)
    entered = logits_from(model, residual, layer, tokens, window)
    torch.testing.assert_close(entered[window.mask], full[window.mask], atol=1e-5, rtol=1e-5)
    if layer < model.cfg.n_layers:
        last = f"blocks.{model.cfg.n_layers - 1}.hook_resid_post"
        expected = stream(model, last, lambda: logits(model, tokens, window))
        found = stream(model, last, lambda: logits_from(model, residual, layer, tokens, window))
        torch.testing.assert_close(found[window.mask], expected[window.mask], atol=1e-5, rtol=1e-5)


def test_nothing_below_runs_and_gradients_reach_the_residual(model: Any) -> None:
    tokens, window = steerlens.batch(model, PROMPTS[:2])
    residual = stream(model, "blocks.1.hook_resid_post", lambda: logits(model, tokens, window))
    residual = residual.clone().requires_grad_()
    ran: list[str] = []
    hooks = [
        (f"blocks.{layer}.attn.hook_z", lambda activation, hook: ran.append(hook.name))
        for layer in range(4)
    ]
    with model.hooks(fwd_hooks=hooks):
        logits_from(model, residual, 2, tokens, window).sum().backward()
    assert len(ran) == 2
    assert residual.grad is not None
    assert float(residual.grad[window.mask].abs().sum()) > 0


def test_the_model_is_whole_again_even_after_an_error(model: Any) -> None:
    tokens, window = steerlens.batch(model, PROMPTS)
    before = logits(model, tokens, window)
    residual = stream(model, "blocks.1.hook_resid_post", lambda: logits(model, tokens, window))

    def fail(activation: Any, hook: Any) -> None:
        raise RuntimeError("stop")

    with (
        pytest.raises(RuntimeError, match="stop"),
        model.hooks(fwd_hooks=[("blocks.3.hook_resid_post", fail)]),
    ):
        logits_from(model, residual, 2, tokens, window)
    torch.testing.assert_close(logits(model, tokens, window), before)


@pytest.mark.parametrize("layer", [0, 5, -1])
def test_a_layer_that_is_none_is_an_error(gpt2: Any, layer: int) -> None:
    tokens, window = steerlens.batch(gpt2, PROMPTS[:1])
    residual = torch.zeros((1, tokens.shape[1], gpt2.cfg.d_model))
    with pytest.raises(ValueError, match="layers 1 to 4"):
        logits_from(gpt2, residual, layer, tokens, window)


def test_logits_of_chosen_tokens_are_those_of_a_full_pass_and_no_others_are_made(
    model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokens, window = steerlens.batch(model, PROMPTS, side="right")
    full = logits(model, tokens, window)
    where = window.mask & (window.positions % 2 == 1)
    made: list[int] = []

    def run() -> torch.Tensor:
        scores = logits(model, tokens, window)
        made.append(scores.shape[0] * scores.shape[1])
        return scores

    torch.testing.assert_close(logits_where(model, run, where), full[where])
    assert made == [int(where.sum())]
    again = logits(model, tokens, window)
    torch.testing.assert_close(again[window.mask], full[window.mask])
    # A model without such a hook point makes all, of which these are taken.
    monkeypatch.setattr(forward, "UNEMBEDDED", dict.fromkeys([True, False], "none"))
    torch.testing.assert_close(logits_where(model, run, where), full[where])


def test_gradients_reach_what_the_chosen_logits_come_from(gpt2: Any) -> None:
    tokens, window = steerlens.batch(gpt2, PROMPTS[:2])
    where = window.mask & (window.positions == 2)
    residual = torch.randn((*tokens.shape, gpt2.cfg.d_model), requires_grad=True)
    logits_where(
        gpt2, lambda: logits_from(gpt2, residual, 2, tokens, window), where
    ).square().sum().backward()
    assert residual.grad is not None
    later = window.mask & (window.positions > 2)
    assert float(residual.grad[where].abs().sum()) > 0
    assert float(residual.grad[later].abs().sum()) == 0


def _renamed(forward: Callable[..., Any]) -> Callable[..., Any]:
    def newer(*given: Any, cache: Any = None, **options: Any) -> Any:
        return forward(*given, past_key_values=cache, **options)

    return newer


@pytest.fixture(params=ARCHITECTURES)
def newer(
    request: pytest.FixtureRequest, folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Any]:
    """A bridge on transformers 5.24 as far as names go: what is `past_key_values` is `cache`."""
    model = load(folders[request.param], "bridge")
    attentions = [block.attn for block in model.blocks]
    originals = [model.original_model, *(attention.original_component for attention in attentions)]
    if "cache" in inspect.signature(originals[0].forward).parameters:
        pytest.skip("this transformers says `cache` by itself: every generation is a test of it")
    for kind in {type(original) for original in originals}:
        monkeypatch.setattr(kind, "forward", _renamed(kind.forward))
    handles = [one.register_forward_pre_hook(_new, with_kwargs=True) for one in attentions]
    forward._cache_name.cache_clear()
    forward._misses_cache.cache_clear()
    yield model
    for handle in handles:
        handle.remove()
    forward._cache_name.cache_clear()
    forward._misses_cache.cache_clear()


def _new(attention: Any, given: Any, options: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    return given, {"cache": options.pop("past_key_values"), **options}


def test_a_cache_under_its_new_name_is_filled(newer: Any) -> None:
    hooks = [len(block.attn._forward_pre_hooks) for block in newer.blocks]
    cached, _ = greedy(newer, PROMPTS)
    full, _ = greedy(newer, PROMPTS, cache=False)
    assert response_rows(cached) == response_rows(full)
    assert [len(block.attn._forward_pre_hooks) for block in newer.blocks] == hooks
