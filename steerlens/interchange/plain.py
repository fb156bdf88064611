"""The model without hooks, in transformers' own class, and whether it computes what hooks do."""

from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from steerlens.identity import context_length, device_of, loaded
from steerlens.interchange.request import Refused, Request
from steerlens.models.agreement import ROUNDING
from steerlens.models.distance import TEXT
from steerlens.models.weights import quietly
from steerlens.prompts import tokenizer_of
from steerlens.runtime.forward import logits
from steerlens.scopes import Window
from steerlens.types import HookedModel

TOLERANCE = 2e-4
"""The largest difference of a logit that is rounding in float32, where logits are spread by 1."""
N_TOKENS = 24

Logits = Float[Tensor, "pos d_vocab"]
Ids = Int[Tensor, "pos"]


def plain_folder(request: Request) -> Path:
    """The folder with the model's weights as they were loaded; Refused where there is none."""
    known = loaded(request.model)
    if known is not None and known.folder is not None:
        return known.folder
    said = "was not loaded by steerlens.load" if known is None else f"is {known.name!r}, no folder"
    raise Refused(
        f"{request.subject} is made of the weights as they lie in a folder or a GGUF file, and "
        f"this model {said}. Fetch it into a folder (hf download NAME --local-dir FOLDER) or write "
        "it there (save_pretrained, its tokenizer too), and load that: steerlens.load(FOLDER)."
    )


def plain_model(folder: Path, dtype: torch.dtype | str) -> Any:
    """The model of a folder in transformers' own class, on the CPU."""
    from transformers import AutoModelForCausalLM

    with quietly():
        return AutoModelForCausalLM.from_pretrained(
            folder, dtype=dtype, trust_remote_code=False, use_safetensors=True
        ).eval()


def probe(model: HookedModel) -> Ids:
    """The tokens on which two models are compared: the beginning of a plain text."""
    ids = tokenizer_of(model)(TEXT, add_special_tokens=False)["input_ids"]
    return torch.tensor(ids[: min(N_TOKENS, context_length(model) or N_TOKENS)])


@torch.no_grad()
def hooked_logits(request: Request, ids: Ids) -> Logits:
    """What the model computes under the hooks of the steering; on the CPU."""
    model: Any = request.model
    window = Window.of(torch.ones_like(ids[None], dtype=torch.bool)).to(device_of(model))
    steering: Any = request.steering
    with steering.applied(model, window):
        return logits(model, ids[None].to(device_of(model)), window)[0].float().cpu()


@torch.no_grad()
def plain_logits(hf_model: Any, ids: Ids) -> Logits:
    """What a model of transformers computes."""
    return hf_model(input_ids=ids[None], use_cache=False).logits[0].float()


def require_same(request: Request, found: Logits, ids: Ids, dtype: torch.dtype) -> None:
    """Refused where the logits of what is written are not those under the hooks.

    A constant for all words of a position changes no probability, and is left out.
    """
    expected = hooked_logits(request, ids)
    coarse = min(dtype, device_dtype(request.model), key=lambda one: one.itemsize)
    found, expected = (x - x.mean(dim=-1, keepdim=True) for x in (found, expected))
    spread = float(expected.std())
    if coarse.itemsize >= 4:
        apart, limit = float((found - expected).abs().max()), TOLERANCE * max(1.0, spread)
    else:
        squares = (found - expected).pow(2).mean(dim=-1)
        apart, limit = float(squares.sqrt().median()), ROUNDING[coarse] * spread
    if not apart <= limit:
        raise Refused(
            f"{request.subject} was written and withdrawn: on {len(ids)} tokens its logits differ "
            f"from those under the hooks by {apart:.2g} ({limit:.2g} would be rounding), so "
            'it is another steering. Export to="gguf", or keep the hooks, and please report it.'
        )


def device_dtype(model: HookedModel) -> torch.dtype:
    """The dtype in which the model computes."""
    return next(model.parameters()).dtype  # pyright: ignore[reportAttributeAccessIssue]


def save_tokenizer(request: Request, folder: Path, to: Path) -> None:
    """Write the tokenizer of the folder, with the chat template that the model has now."""
    from transformers import AutoTokenizer

    own = tokenizer_of(request.model)
    saved = own
    with suppress(OSError, ValueError):  # it was given apart from the folder
        saved = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    if isinstance(own.chat_template, str):
        saved.chat_template = own.chat_template
    saved.save_pretrained(to)
