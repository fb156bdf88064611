"""Numbers that are no longer finite: whether the steering or the model itself made them so."""

from typing import NoReturn

import torch
from torch import nn

from steerlens.identity import device_of, is_bridge
from steerlens.precision import wide
from steerlens.runtime.forward import logits
from steerlens.runtime.hooks import Run
from steerlens.sampling import are_usable
from steerlens.scopes import Window
from steerlens.types import HookedModel, Tokens


@torch.no_grad()
def require_usable(model: HookedModel, tokens: Tokens, window: Window, run: Run | None) -> NoReturn:
    """Raise ValueError that says what made a logit of the next token NaN or infinite.

    `tokens` are all so far. It runs the model again, without the steering and under it.
    """
    if run is None:
        raise ValueError(f"Nothing is steered, and {without_steering(model)}")
    run.detach()
    if not bool(are_usable(wide(logits(model, tokens, window, "last")[:, -1])).all()):
        raise ValueError(
            "The logits of a row are NaN or infinite, and not for the steering: without it they "
            f"are so too, and {without_steering(model)}"
        )
    where = run.first_overflow(tokens, window)
    raise ValueError(
        "The steering leaves a row no finite logit, or a NaN; without it all are finite. "
        f"{where} Lower the strength (0.5 * steering, say){_or_wider(model)}."
    )


def without_steering(model: HookedModel) -> str:
    """What to do where the model's own numbers are not finite."""
    other = "hooked" if is_bridge(model) else "bridge"
    dtype = str(_dtype(model)).removeprefix("torch.")
    return (
        f"the model itself gives no finite logit, or a NaN, in {dtype} on {device_of(model)}. Load "
        "it in float32 or bfloat16 (float16 overflows beyond 65504), or on the other backend: "
        f"load(..., backend={other!r})."
    )


def _or_wider(model: HookedModel) -> str:
    """Advice to count in a wider dtype, where there is one."""
    return ", or load the model in float32" if _dtype(model) == torch.float16 else ""


def _dtype(model: HookedModel) -> torch.dtype:
    return next(nn.Module.parameters(model)).dtype  # pyright: ignore[reportArgumentType]
