"""What the exported demonstration model can do: bits per byte, following of sentiment, samples.

    python scripts/demo_model/measure.py --model steerlens/demo/model --corpus ../shared/corpus

prints the measurements as JSON. The texts are 200 reviews of the test split (100 positive, 100
negative) and articles and tales of held-out titles; none of them is used in training.
"""

from __future__ import annotations

import argparse
import json
import math
import random
from pathlib import Path

import pandas as pd
import torch
from conversations import (
    DEFAULT_CORPUS,
    LONGEST_TEXT,
    REGISTERS,
    Message,
    clean_article,
    clean_review,
    clean_tale,
    held_out,
    opening,
)
from torch import Tensor
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from wordings import ATTRIBUTE_WORDINGS, HELD_OUT_WORDINGS

REQUEST = "Review a movie you watched."
OPEN_REQUEST = "Write something about a king."
REVIEWS_OF_A_LABEL = 100
SAMPLES = 2


def turns(system: str | None, request: str) -> list[Message]:
    """The messages of a prompt."""
    user = [{"role": "user", "content": request}]
    return user if system is None else [{"role": "system", "content": system}, *user]


def unseen_reviews(corpus: Path) -> list[tuple[str, str]]:
    """(label, text) of some test reviews, equally many of both labels."""
    reviews = pd.read_parquet(corpus / "reviews.parquet")
    chosen = []
    for name, label in (("positive", "pos"), ("negative", "neg")):
        texts = sorted(set(reviews.text[(reviews.split == "test") & (reviews.label == label)]))
        sample = random.Random(0).sample(texts, REVIEWS_OF_A_LABEL)
        chosen += [(name, opening(clean_review(text), LONGEST_TEXT)) for text in sample]
    return chosen


def held_out_texts(corpus: Path, count: int = 100) -> dict[str, list[tuple[str, str]]]:
    """(request, text) for the first articles, and for all tales, whose titles are held out."""
    articles = pd.read_parquet(corpus / "encyclopedia.parquet")
    tales = pd.read_parquet(corpus / "fairytales.parquet")
    return {
        "articles": [
            (f"Write an encyclopedia article about {title}.", opening(clean_article(text), 1200))
            for title, text in zip(articles.title, articles.text, strict=True)
            if held_out(title)
        ][:count],
        "tales": [
            ("Tell a fairy tale.", opening(clean_tale(text), 1200))
            for title, text in zip(tales.title, tales.text, strict=True)
            if held_out(title)
        ],
    }


@torch.inference_mode()
def answer_bits(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompt: list[Message],
    answer: str,
) -> tuple[float, int]:
    """Bits that the model needs for the answer (as much as the context holds), and its bytes."""
    ids: Tensor = tokenizer.apply_chat_template(
        prompt, add_generation_prompt=True, return_tensors="pt", return_dict=True
    )["input_ids"]
    start = ids.shape[1]
    answer_ids = tokenizer(answer, return_tensors="pt", verbose=False).input_ids
    ids = torch.cat([ids, answer_ids], dim=1)[:, : model.config.n_positions]
    losses = torch.nn.functional.cross_entropy(
        model(ids[:, :-1]).logits[0, start - 1 :].float(), ids[0, start:], reduction="sum"
    )
    return losses.item() / math.log(2), len(tokenizer.decode(ids[0, start:]).encode())


def bits_per_byte(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, pairs: list[tuple[str, str]]
) -> float:
    """Bits per byte of answers after (request, answer) prompts without a system turn."""
    totals = [answer_bits(model, tokenizer, turns(None, r), text) for r, text in pairs]
    return sum(bits for bits, _ in totals) / sum(size for _, size in totals)


def sentiment_agreement(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    reviews: list[tuple[str, str]],
    wordings: tuple[str, str],
) -> float:
    """Share of reviews that are more probable after the system turn of their own sentiment."""
    agreed = 0
    for label, text in reviews:
        positive, negative = (
            answer_bits(model, tokenizer, turns(wording, REQUEST), text)[0] for wording in wordings
        )
        agreed += (positive < negative) == (label == "positive")
    return agreed / len(reviews)


def sample_prompts() -> dict[str, tuple[str | None, str]]:
    """For each attribute, and for none: the system turn and the user turn of the samples."""
    prompts: dict[str, tuple[str | None, str]] = {"none": (None, REQUEST)}
    for name, (canonical, *_) in ATTRIBUTE_WORDINGS.items():
        prompts[name] = canonical, OPEN_REQUEST if name in REGISTERS else REQUEST
    return prompts


@torch.inference_mode()
def sampled(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    system: str | None,
    request: str,
    count: int = SAMPLES,
) -> list[str]:
    """Completions sampled at temperature 0.7."""
    torch.manual_seed(0)
    inputs = tokenizer.apply_chat_template(
        [turns(system, request)] * count,
        add_generation_prompt=True,
        return_tensors="pt",
        return_dict=True,
    )
    ids = model.generate(
        **inputs, do_sample=True, temperature=0.7, top_k=0, top_p=1.0, max_new_tokens=100
    )
    prompt_length = inputs["input_ids"].shape[1]
    return tokenizer.batch_decode(ids[:, prompt_length:], skip_special_tokens=True)


def measurements(folder: Path, corpus: Path) -> dict:
    """All measurements of the model in ``folder``."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    reviews = unseen_reviews(corpus)
    others = held_out_texts(corpus)
    seen = ATTRIBUTE_WORDINGS["positive"][0], ATTRIBUTE_WORDINGS["negative"][0]
    unseen = HELD_OUT_WORDINGS["positive"][0], HELD_OUT_WORDINGS["negative"][0]
    return {
        "parameters": model.num_parameters(),
        "review_bits": bits_per_byte(model, tokenizer, [(REQUEST, text) for _, text in reviews]),
        "article_bits": bits_per_byte(model, tokenizer, others["articles"]),
        "tale_bits": bits_per_byte(model, tokenizer, others["tales"]),
        "agreement": sentiment_agreement(model, tokenizer, reviews, seen),
        "held_out_agreement": sentiment_agreement(model, tokenizer, reviews, unseen),
        "samples": {
            name: sampled(model, tokenizer, *prompt) for name, prompt in sample_prompts().items()
        },
    }


def main() -> None:
    """Print the measurements of a model folder."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--model", type=Path, default=Path("steerlens/demo/model"))
    parser.add_argument("--corpus", type=Path, default=DEFAULT_CORPUS)
    arguments = parser.parse_args()
    print(json.dumps(measurements(arguments.model, arguments.corpus), indent=1))


if __name__ == "__main__":
    main()
