"""The right answers: transformers' own model, a hook on one of its blocks, every pass from scratch.

Nothing here knows TransformerLens or steerlens.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, Literal

import torch

Stream = Literal["resid_pre", "resid_post"]
BLOCKS = ("layers", "h", "blocks")


def load(folder: Path) -> Any:
    """The model as transformers reads it, in float32."""
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


def blocks_of(model: Any) -> Any:
    """The list of the decoder's blocks: the longest of the lists called like one."""
    lists = [
        module
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.ModuleList) and name.rpartition(".")[2] in BLOCKS
    ]
    return max(lists, key=len)


@contextmanager
def steered(model: Any, layer: int, stream: Stream, steer: Any) -> Iterator[None]:
    """`steer`, a function of the residual stream, on what a block is given or hands on."""
    block = blocks_of(model)[layer]

    def before(_: Any, given: tuple[Any, ...], named: dict[str, Any]) -> Any:
        if given:
            return (steer(given[0]), *given[1:]), named
        return given, named | {"hidden_states": steer(named["hidden_states"])}

    def after(_: Any, __: Any, made: Any) -> Any:
        if isinstance(made, tuple | list):
            return type(made)([steer(made[0]), *made[1:]])
        return steer(made)

    handle = (
        block.register_forward_pre_hook(before, with_kwargs=True)
        if stream == "resid_pre"
        else block.register_forward_hook(after)
    )
    try:
        yield
    finally:
        handle.remove()


@torch.no_grad()
def logits(model: Any, ids: Sequence[int]) -> torch.Tensor:
    """Next-token logits of one row, [pos, d_vocab]."""
    return model(torch.tensor([list(ids)]), use_cache=False).logits[0].float()


def block_output(model: Any, ids: Sequence[int], layer: int) -> torch.Tensor:
    """What a block hands on for one row, [pos, d_model]."""
    seen: list[torch.Tensor] = []

    def keep(activation: torch.Tensor) -> torch.Tensor:
        seen.append(activation.detach())
        return activation

    with steered(model, layer, "resid_post", keep):
        logits(model, ids)
    return seen[0].reshape(len(ids), -1)


def greedy(
    model: Any, ids: Sequence[int], steps: int, hook: Any = None
) -> tuple[list[int], list[float]]:
    """The likeliest continuation, and by how much the first choice of each step beat the second.

    `hook` makes a context manager around each pass.
    """
    row, margins = list(ids), []
    for _ in range(steps):
        with hook() if hook else nullcontext():
            top = logits(model, row)[-1].topk(2)
        margins.append(float(top.values[0] - top.values[1]))
        row.append(int(top.indices[0]))
    return row[len(ids) :], margins
