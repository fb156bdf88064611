"""Train the byte-level BPE tokenizer of the demonstration model.

    python scripts/demo_model/train_tokenizer.py --to build/demo_model/tokenizer

It writes tokenizer.json and tokenizer_config.json (with the chat template). Calling the tokenizer
on a text adds no special tokens: the chat template writes ``<|bos|>`` itself, and code that wants
it in front of a plain text adds it itself, so that it can never be there twice.

The tokenizer in steerlens/demo/model is frozen. To train another model for it, copy its
tokenizer.json and tokenizer_config.json to build/demo_model/tokenizer instead of running this.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path

from conversations import DEFAULT_CORPUS, ConversationSource, Corpora
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

from steerlens.whole import write_whole

VOCABULARY_SIZE = 4096
CONTEXT = 512
SPECIAL_TOKENS = ("<|pad|>", "<|bos|>", "<|system|>", "<|user|>", "<|assistant|>", "<|end|>")

CHAT_TEMPLATE = (
    "{{- bos_token -}}"
    "{%- for message in messages -%}"
    "{%- if message['role'] not in ['system', 'user', 'assistant'] -%}"
    "{{- raise_exception('The roles are system, user and assistant.') -}}"
    "{%- endif -%}"
    "{{- '<|' + message['role'] + '|>' + message['content'] + eos_token -}}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- '<|assistant|>' -}}{%- endif -%}"
)


def sample_texts(source: ConversationSource, count: int) -> Iterator[str]:
    """The contents of the turns of the first ``count`` samples."""
    for index in range(count):
        sample = source.sample(index)
        if isinstance(sample, str):
            yield sample
        else:
            yield from (turn["content"] for turn in sample)


def train_tokenizer(texts: Iterator[str]) -> Tokenizer:
    """A byte-level BPE tokenizer whose first tokens are the special ones."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY_SIZE,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def tokenizer_config() -> dict:
    """The content of tokenizer_config.json, in a form that transformers 4 and 5 both read."""
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": "<|bos|>",
        "eos_token": "<|end|>",
        "pad_token": "<|pad|>",
        "additional_special_tokens": ["<|system|>", "<|user|>", "<|assistant|>"],
        "model_max_length": CONTEXT,
        "padding_side": "left",
        "clean_up_tokenization_spaces": False,
        "chat_template": CHAT_TEMPLATE,
    }


def save(tokenizer: Tokenizer, folder: Path) -> None:
    """Write tokenizer.json and tokenizer_config.json."""
    folder.mkdir(parents=True, exist_ok=True)
    config = json.dumps(tokenizer_config(), indent=2) + "\n"
    write_whole(folder / "tokenizer.json", tokenizer.to_str(pretty=True).encode())
    write_whole(folder / "tokenizer_config.json", config.encode())


def main() -> None:
    """Train the tokenizer on samples of the training data and save it."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--corpus", type=Path, default=DEFAULT_CORPUS)
    parser.add_argument("--to", type=Path, required=True, help="folder of the tokenizer files")
    parser.add_argument("--samples", type=int, default=30_000)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    source = ConversationSource(Corpora.read(arguments.corpus), arguments.seed)
    save(train_tokenizer(sample_texts(source, arguments.samples)), arguments.to)


if __name__ == "__main__":
    main()
