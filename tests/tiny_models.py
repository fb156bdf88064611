"""Tiny random-weight models in Hugging Face folders: one GPT-2, one Llama, each on every backend.

The weights are drawn wide: logits are well apart, and every token matters to the later ones.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch

import steerlens
from steerlens import generation
from steerlens.models import has_hooked_transformer

ARCHITECTURES = ("gpt2", "llama")
BACKENDS = ("hooked", "bridge") if has_hooked_transformer() else ("bridge",)
KINDS = [(architecture, backend) for architecture in ARCHITECTURES for backend in BACKENDS]

N_LAYERS, D_MODEL, N_CTX, D_VOCAB = 4, 32, 128, 400

SYSTEM, USER, ASSISTANT, END = "<|system|>", "<|user|>", "<|assistant|>", "<|end|>"
CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}<|{{ message['role'] }}|>{{ message['content'] }}"
    "<|end|>{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
)

CORPUS = (
    "Once upon a time there was a little girl who loved the sea and the sun.",
    "The dog ran to the house, and the cat sat on the mat by the door.",
    "I love you because you are kind. I hate you because you are not kind.",
    "They talked about weddings and about the weather, and then went home.",
    "What do you think of it? It was a good day, a very good day indeed.",
)

PROMPTS = (
    "The dog ran",
    "I love you because you are kind and good to the cat",
    "Once upon a time there was a house by the sea",
    "What is it?",
    "They went home, and then",
)
"""Texts of unequal length, all of at least three tokens after the BOS."""


@dataclass(frozen=True)
class Kind:
    """One tiny model on one backend."""

    architecture: str
    backend: str

    def __str__(self) -> str:
        return f"{self.architecture}-{self.backend}"


def write_folder(folder: Path, architecture: str, seed: int = 0, d_model: int = D_MODEL) -> Path:
    """Save a random model of `architecture` with its tokenizer; the same seed, the same bytes."""
    tokenizer = build_tokenizer(architecture)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = _MODELS[architecture](tokenizer, d_model).float().eval()
        _spread(model)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def build_tokenizer(architecture: str) -> Any:
    """A byte-level BPE tokenizer, trained here; GPT-2's BOS is its EOS, Llama's is its own."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    bos, eos = ("<|endoftext|>",) * 2 if architecture == "gpt2" else ("<s>", "</s>")
    special = list(dict.fromkeys([bos, eos, "<pad>", SYSTEM, USER, ASSISTANT, END]))
    bare = Tokenizer(models.BPE())
    bare.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bare.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=D_VOCAB,
        special_tokens=special,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    bare.train_from_iterator(CORPUS, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=bare,
        bos_token=bos,
        eos_token=eos,
        pad_token="<pad>",
        chat_template=CHAT_TEMPLATE,
        clean_up_tokenization_spaces=False,
    )


def _gpt2(tokenizer: Any, d_model: int) -> Any:
    from transformers import GPT2Config, GPT2LMHeadModel

    return GPT2LMHeadModel(
        GPT2Config(
            vocab_size=D_VOCAB,
            n_positions=N_CTX,
            n_embd=d_model,
            n_layer=N_LAYERS,
            n_head=4,
            initializer_range=0.25,
            resid_pdrop=0.0,
            embd_pdrop=0.0,
            attn_pdrop=0.0,
            tie_word_embeddings=False,  # tied random weights only repeat the last token
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


def _llama(tokenizer: Any, d_model: int) -> Any:
    from transformers import LlamaConfig, LlamaForCausalLM

    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=D_VOCAB,
            max_position_embeddings=N_CTX,
            hidden_size=d_model,
            intermediate_size=2 * d_model,
            num_hidden_layers=N_LAYERS,
            num_attention_heads=4,
            num_key_value_heads=2,
            initializer_range=0.25,
            tie_word_embeddings=False,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


_MODELS = {"gpt2": _gpt2, "llama": _llama}


def _spread(model: Any) -> None:
    """Biases and norm gains that are not 0 and 1, so that a forgotten one shows."""
    for name, weight in model.named_parameters():
        if weight.ndim == 1:
            weight.data = (0.0 if name.endswith("bias") else 1.0) + 0.1 * torch.randn_like(weight)


@cache
def load(folder: Path | str, backend: str, dtype: torch.dtype = torch.float32) -> Any:
    """`steerlens.load`, once a session for each argument."""
    return steerlens.load(folder, backend=backend, dtype=dtype)


@cache
def load_reference(folder: Path, dtype: torch.dtype = torch.float32) -> Any:
    """The same weights in transformers' own class: an oracle that knows no TransformerLens."""
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder, dtype=dtype).eval()


@contextmanager
def recorded_scores() -> Iterator[list[torch.Tensor]]:
    """The next-token logits, [row, d_vocab], of every step that `generate` takes inside."""
    seen: list[torch.Tensor] = []
    choose = generation.choose

    def recording(scores: torch.Tensor, *rest: Any) -> torch.Tensor:
        seen.append(scores.clone())
        return choose(scores, *rest)

    generation.choose = recording
    try:
        yield seen
    finally:
        generation.choose = choose


def greedy(model: Any, prompts: Any, steering: Any = None, **options: Any) -> Any:
    """Greedy completions that end at the length asked for, and the logits each step saw."""
    options = {"max_new_tokens": 8, "stop_at_end": False, **options}
    with recorded_scores() as scores:
        written = steerlens.generate(model, prompts, steering, temperature=0.0, **options)
    return written, scores


def response_rows(written: steerlens.Generation) -> list[tuple[int, ...]]:
    """The sampled ids of every row."""
    return [written.response_ids(row) for row in range(len(written.texts))]


def assert_same_tokens(
    found: list[tuple[int, ...]], expected: list[tuple[int, ...]], scores: list[torch.Tensor]
) -> None:
    """Token for token, up to a step at which the top two logits (of `found`) are within 1e-4."""
    assert len(found) == len(expected)
    for row, (left, right) in enumerate(zip(found, expected, strict=True)):
        assert len(left) == len(right)
        for step, (a, b) in enumerate(zip(left, right, strict=True)):
            if a == b:
                continue
            top = scores[step][row].topk(2).values
            assert float(top[0] - top[1]) <= 1e-4, f"row {row}, step {step}: {left} != {right}"
            break
