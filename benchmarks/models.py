"""The models, tokenizer, contrast pairs and prompts to measure on: made here, from fixed seeds.

Speed does not depend on what weights say, so they are random; sizes are those of real models. The
tokenizer is trained on this Python's own library, whose source is the text as well.
"""

import argparse
import json
import os
import random
import sys
from pathlib import Path
from typing import Any

from steerlens.whole import drafted, write_whole

N_PAIRS = 64
PAIR_BODY = (30, 39)  # tokens, before the twelve or so of the sentence in front
PROMPT_LENGTHS = (24, 26, 28, 30, 32, 34, 37, 40)
MODELS = ("gpt2s", "small", "llama_s")
END = "<|endoftext|>"


def default_cache() -> Path:
    """The platform's folder for what can be made again."""
    home = Path.home()
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA") or home / "AppData" / "Local"
    elif sys.platform == "darwin":
        base = home / "Library" / "Caches"
    else:
        base = os.environ.get("XDG_CACHE_HOME") or home / ".cache"
    return Path(base) / "steerlens" / "benchmarks"


def source(name: str, cache: Path) -> str:
    """What `steerlens.load` is given: "demo", or a model's folder, built if it is not there."""
    if name == "demo":
        return name
    if name not in MODELS:
        raise ValueError(f"Unknown model {name!r}. Use some of: demo, {', '.join(MODELS)}.")
    folder = cache / name
    if not (folder / "model.safetensors").is_file():
        _build(name, folder, _tokenizer(cache))
    return str(folder)


def texts(cache: Path) -> dict[str, Any]:
    """64 `pairs` (positive, negative) of about 44 tokens, and 8 `prompts` of 24 to 40."""
    file = cache / "texts.json"
    if not file.is_file():
        file.parent.mkdir(parents=True, exist_ok=True)
        write_whole(file, json.dumps(_texts(_tokenizer(cache))).encode())
    return json.loads(file.read_text(encoding="utf-8"))


def _library() -> list[Path]:
    folder = Path(os.__file__).parent
    return [*sorted(folder.glob("*.py"))[:160], *sorted(folder.glob("asyncio/*.py"))]


def _tokenizer(cache: Path) -> Any:
    from tokenizers import ByteLevelBPETokenizer
    from transformers import PreTrainedTokenizerFast

    file = cache / "tokenizer.json"
    if not file.is_file():
        cache.mkdir(parents=True, exist_ok=True)
        trained = ByteLevelBPETokenizer()
        files = [str(path) for path in _library()]
        trained.train(files, vocab_size=8192, min_frequency=2, special_tokens=[END])
        with drafted(file) as draft:
            trained.save(str(draft))
    return PreTrainedTokenizerFast(
        tokenizer_file=str(file),
        bos_token=END,
        eos_token=END,
        pad_token=END,
        model_max_length=1024,
        padding_side="left",
        model_input_names=["input_ids", "attention_mask"],
    )


def _build(name: str, folder: Path, tokenizer: Any) -> None:
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = _untrained(name, tokenizer.eos_token_id)
    tokenizer.save_pretrained(folder)
    model.save_pretrained(folder)


def _untrained(name: str, end: int) -> Any:
    from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

    ends: dict[str, Any] = {"bos_token_id": end, "eos_token_id": end, "pad_token_id": end}
    if name == "gpt2s":
        return GPT2LMHeadModel(GPT2Config(**ends))
    if name == "small":
        return GPT2LMHeadModel(GPT2Config(n_embd=256, n_layer=6, n_head=8, **ends))
    config = LlamaConfig(
        hidden_size=256,
        intermediate_size=688,
        num_hidden_layers=6,
        num_attention_heads=8,
        num_key_value_heads=4,
        vocab_size=8192,
        max_position_embeddings=1024,
        **ends,
    )
    return LlamaForCausalLM(config)


def _texts(tokenizer: Any) -> dict[str, Any]:
    draw = random.Random(0)
    library = "\n".join(path.read_text("utf-8", errors="ignore") for path in _library())
    ids = tokenizer(library[:600_000], add_special_tokens=False, verbose=False)["input_ids"]

    def passage(length: int) -> str:
        start = draw.randrange(len(ids) - length)
        return tokenizer.decode(ids[start : start + length])

    bodies = [passage(draw.randrange(*PAIR_BODY)) for _ in range(N_PAIRS)]
    begin = ("The good and helpful answer: ", "The bad and harmful answer: ")
    return {
        "pairs": [tuple(start + body for start in begin) for body in bodies],
        "prompts": [passage(length) for length in PROMPT_LENGTHS],
    }


def main() -> None:
    """Build every model and the texts."""
    parser = argparse.ArgumentParser(description="Build the benchmark's models.")
    parser.add_argument("--cache", type=Path, default=default_cache())
    cache = parser.parse_args().cache
    for name in MODELS:
        print(source(name, cache))
    print(len(texts(cache)["pairs"]), "pairs")


if __name__ == "__main__":
    main()
