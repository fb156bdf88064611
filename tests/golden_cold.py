"""The tiny Llama and the numbers of COLD's authors' code, run unmodified on it in float64.

`golden/cold.npz` holds the weights, the token ids, and what the code made of them at its layer 2
(`Site(1)` here): kernel vectors, activations' changes by its finite difference beside an exact
derivative, logits. All arrays are those of one run of github.com/Ksartik/cold-steer at df627dd;
to keep it small, changes of the second and third prompt are kept at their last token.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

import steerlens
from steerlens.prompts import Encoded
from steerlens.sites import Site

LAYER = Site(1)
"""The output of the second block, which the authors' code calls layer 2."""
TRAIN, TEST = 8, 3
LOSSES = ("sft", "negative_sft", "dpo")


@cache
def numbers() -> dict[str, np.ndarray]:
    with np.load(Path(__file__).parent / "golden" / "cold.npz", allow_pickle=False) as file:
        return {name: file[name] for name in file.files}


def tensor(name: str) -> torch.Tensor:
    return torch.from_numpy(numbers()[name])


def train_rows(side: str) -> list[Encoded]:
    """The training rows of a side, "matching" or "not_matching", up to the answer's letter."""
    rows = []
    for number in range(TRAIN):
        ids = numbers()[f"train/{number}/{side}_input_ids"]
        mask = numbers()[f"train/{number}/{side}_attention_mask"].astype(bool)
        labels = numbers()[f"train/{number}/{side}_labels"]
        (answer,) = np.flatnonzero(labels != -100)
        kept = mask[: answer + 1]
        read = tuple(ids[: answer + 1][kept].tolist())
        rows.append(Encoded(read, question=0, response=len(read) - 1, bos=False))
    return rows


def padding(number: int) -> int:
    """How many columns of padding are before a training row, on either side."""
    columns = {
        int(np.flatnonzero(numbers()[f"train/{number}/{side}_attention_mask"])[0])
        for side in ("matching", "not_matching")
    }
    (shared,) = columns
    return shared


def prompt_row(number: int) -> Encoded:
    mask = numbers()[f"test/{number}/prompt_attention_mask"].astype(bool)
    ids = tuple(numbers()[f"test/{number}/prompt_input_ids"][mask].tolist())
    return Encoded(ids, question=0, response=len(ids), bos=False)


def _config() -> Any:
    from transformers import LlamaConfig

    return LlamaConfig(
        vocab_size=99,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=128,
        rms_norm_eps=1e-5,
        tie_word_embeddings=False,
        bos_token_id=None,
        eos_token_id=None,
    )


def write_folder(folder: Path) -> Path:
    """The golden model with a tokenizer that names its 99 tokens by their numbers."""
    from tokenizers import Tokenizer, models
    from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

    weights = {name[2:]: tensor(name) for name in numbers() if name.startswith("w/")}
    model = LlamaForCausalLM(_config())
    model.load_state_dict(weights)
    model.save_pretrained(folder)
    words = models.WordLevel({f"<{number}>": number for number in range(99)}, unk_token="<0>")
    PreTrainedTokenizerFast(tokenizer_object=Tokenizer(words)).save_pretrained(folder)
    return folder


def load(folder: Path, backend: str, dtype: torch.dtype = torch.float64) -> Any:
    """The golden model, with the fixture's precision where a backend has another.

    The fixture normalises in float64, where transformers goes through float32; its rotary tables
    are rounded to float32, where HookedTransformer keeps them in float64.
    """
    from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

    model: Any = steerlens.load(folder, backend=backend, dtype=dtype)
    if backend == "hooked":
        positions = torch.arange(model.cfg.n_ctx)[None]
        tables = LlamaRotaryEmbedding(_config())(torch.empty(0, dtype=dtype), positions)
        for block in model.blocks:
            block.attn.rotary_cos, block.attn.rotary_sin = (table[0] for table in tables)
        return model
    for module in torch.nn.Module.modules(model):
        if type(module).__name__ == "LlamaRMSNorm":
            vars(module)["forward"] = _Norm(module)
    return model


@contextmanager
def counted_from(model: Any, start: int) -> Iterator[None]:
    """Positions that begin at `start` inside, as the fixture's do after so much padding."""
    modules = list(torch.nn.Module.modules(model))
    kept = [module for module in modules if hasattr(module, "rotary_cos")]
    asked = [module for module in modules if type(module).__name__ == "LlamaRotaryEmbedding"]
    assert bool(kept) != bool(asked)
    before = [(module, module.rotary_cos, module.rotary_sin) for module in kept]
    for module, cosines, sines in before:
        module.rotary_cos, module.rotary_sin = cosines[start:], sines[start:]
    for module in asked:
        vars(module)["forward"] = _Later(module, start)
    try:
        yield
    finally:
        for module, cosines, sines in before:
            module.rotary_cos, module.rotary_sin = cosines, sines
        for module in asked:
            del vars(module)["forward"]


class _Later:
    """LlamaRotaryEmbedding with every position raised by `start`."""

    def __init__(self, module: Any, start: int) -> None:
        self.forward, self.start = module.forward, start

    def __call__(self, h: torch.Tensor, position_ids: torch.Tensor) -> Any:
        return self.forward(h, position_ids + self.start)


class _Norm:
    """LlamaRMSNorm without its round trip through float32."""

    def __init__(self, module: Any) -> None:
        self.module = module

    def __call__(self, h: torch.Tensor) -> torch.Tensor:
        size = torch.rsqrt(h.pow(2).mean(-1, keepdim=True) + self.module.variance_epsilon)
        return self.module.weight * (h * size)


@contextmanager
def fixtures_softmax() -> Iterator[None]:
    """Softmax in float64 inside, as in the fixture; a bridge asks for float32 even then."""
    softmax = torch.nn.functional.softmax

    def exact(scores: torch.Tensor, *rest: Any, dtype: Any = None, **options: Any) -> torch.Tensor:
        return softmax(scores, *rest, dtype=None if dtype == torch.float32 else dtype, **options)

    torch.nn.functional.softmax = exact
    try:
        yield
    finally:
        torch.nn.functional.softmax = softmax
