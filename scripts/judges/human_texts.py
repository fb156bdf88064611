"""Human text that neither the demonstration model nor any judge was trained on, in two halves.

The test reviews, and the articles and tales of held-out titles. Half "scale" fixes the coherence
scale; half "check" is what the report is about.
"""

from __future__ import annotations

import hashlib
import random
import sys
from pathlib import Path

import pandas as pd

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "demo_model"))
from conversations import (
    clean_article,
    clean_review,
    clean_tale,
    held_out,
    sentences,
)

TOKENS = (24, 100)


def half_of(key: str) -> str:
    """The half that a document belongs to."""
    return "scale" if hashlib.sha1(f"half of {key}".encode()).digest()[0] % 2 else "check"


def unseen_documents(corpus: Path, half: str) -> dict[str, list[str]]:
    """Whole cleaned documents of a half, by register."""
    reviews = pd.read_parquet(corpus / "reviews.parquet")
    texts = sorted(set(reviews.text[reviews.split == "test"]))
    found = {"review": [clean_review(text) for text in texts if half_of(text) == half]}
    for register, file, clean in (
        ("encyclopedia", "encyclopedia.parquet", clean_article),
        ("fairytale", "fairytales.parquet", clean_tale),
    ):
        table = pd.read_parquet(corpus / file)
        found[register] = [
            clean(text)
            for title, text in zip(table.title, table.text, strict=True)
            if held_out(title) and half_of(title) == half
        ]
    return found


def from_a_sentence(text: str, rng: random.Random) -> str:
    """The text from one of its sentences on, with a good part of it left."""
    parts = sentences(text)
    return " ".join(parts[rng.randrange(max(len(parts) * 3 // 4, 1)) :])


def openings(corpus: Path, half: str, count: int, seed: int) -> dict[str, list[str]]:
    """`count` texts of each register, from a beginning; of tales from any sentence on."""
    rng, documents = random.Random(seed), unseen_documents(corpus, half)
    found = {}
    for register, texts in documents.items():
        if register == "fairytale":
            found[register] = [from_a_sentence(rng.choice(texts), rng) for _ in range(count)]
        else:
            found[register] = rng.sample(texts, min(count, len(texts)))
    return found


def cut(text: str, tokenizer, rng: random.Random, tokens: tuple[int, int] = TOKENS) -> str:
    """The first tokens of a text, as many as a completion might have."""
    ids = tokenizer(text[:2000], add_special_tokens=False, verbose=False).input_ids
    return tokenizer.decode(ids[: rng.randint(*tokens)])
