"""Capture by plain hooks on the transformers model: nothing computed that is not needed.

No unembedding, the pass stopped after the deepest layer wanted, batches of 16 sorted by length,
left-padded, the last token kept. A library on top of the same model can hardly be faster. Needs
torch and transformers alone, so that it also runs where another library is installed.
"""

from collections.abc import Sequence
from typing import Any

import torch

BATCH = 16


class _Enough(Exception):
    """Raised by the hook on the deepest layer."""


def load_plain(folder: str) -> tuple[Any, Any]:
    """The transformers model in a folder and its tokenizer, set to pad on the left."""
    from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

    # By this class, since transformers 4 does not know the one that 5 writes into the folder.
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder, padding_side="left")
    tokenizer.model_input_names = ["input_ids", "attention_mask"]
    return AutoModelForCausalLM.from_pretrained(folder).eval(), tokenizer


def encoded(tokenizer: Any, texts: Sequence[str]) -> dict[str, Any]:
    """A batch with the positions that its padding implies, which GPT-2 is wrong without."""
    batch = tokenizer(list(texts), return_tensors="pt", padding=True, add_special_tokens=False)
    positions = (batch["attention_mask"].cumsum(dim=1) - 1).clamp(min=0)
    return {**batch, "position_ids": positions}


@torch.no_grad()
def last_token(
    model: Any, tokenizer: Any, texts: Sequence[str], layers: Sequence[int]
) -> dict[int, torch.Tensor]:
    """The output of each block in `layers` at the last token of each text, BOS in front of it."""
    body = model.base_model
    blocks = body.h if hasattr(body, "h") else body.layers
    texts = [tokenizer.bos_token + text for text in texts]
    lengths = [len(ids) for ids in tokenizer(texts, add_special_tokens=False)["input_ids"]]
    order = sorted(range(len(texts)), key=lambda number: lengths[number])
    kept: dict[int, list[torch.Tensor]] = {layer: [] for layer in layers}
    handles = [
        blocks[layer].register_forward_hook(_keeper(kept[layer], layer == max(layers)))
        for layer in layers
    ]
    try:
        for start in range(0, len(order), BATCH):
            chosen = [texts[number] for number in order[start : start + BATCH]]
            _until_enough(body, encoded(tokenizer, chosen))
    finally:
        for handle in handles:
            handle.remove()
    back = torch.argsort(torch.tensor(order))
    return {layer: torch.cat(pieces)[back] for layer, pieces in kept.items()}


def _keeper(kept: list[torch.Tensor], deepest: bool) -> Any:
    def hook(module: Any, given: Any, output: Any) -> None:
        activation = output[0] if isinstance(output, tuple) else output
        kept.append(activation[:, -1].clone())
        if deepest:
            raise _Enough

    return hook


def _until_enough(body: Any, batch: dict[str, Any]) -> None:
    try:
        body(**batch, use_cache=False)
    except _Enough:
        return
