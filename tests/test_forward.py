"""Passes that enter above the embedding: the same as the upper part of a full pass."""

from typing import Any

import pytest
import torch
from tiny_models import PROMPTS

import steerlens
from steerlens.forward import logits, logits_from


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
