"""Human text that neither the demonstration model nor any judge was trained on, in two halves.

The test reviews, and the articles and tales of held-out titles. Half "scale" fixes the coherence
scale; half "check" is what the report is about.
"""

from __future__ import annotations

import hashlib
import random
import sys
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "demo_model"))
from conversations import (
    DEFAULT_CORPUS as DEFAULT_CORPUS,  # for those who import from here
)
from conversations import (
    clean_article,
    clean_review,
    clean_tale,
    held_out,
    sentences,
)

TOKENS = (24, 256)


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


@dataclass(frozen=True)
class Passage:
    """A text and the document that it is from; passages of a document are not independent."""

    document: str
    text: str


def passages(text: str, characters: int) -> list[str]:
    """The text cut at ends of sentences into parts of at least so many characters."""
    parts: list[list[str]] = [[]]
    for sentence in sentences(text):
        if sum(map(len, parts[-1])) >= characters:
            parts.append([])
        parts[-1].append(sentence)
    return [" ".join(part) for part in parts if sum(map(len, part)) >= characters]


def openings(
    corpus: Path, half: str, count: int, seed: int, characters: int = 600
) -> dict[str, list[Passage]]:
    """At most `count` texts of each register, none overlapping another.

    A review and an article give their beginning. The few tales are cut into passages.
    """
    rng, documents = random.Random(seed), unseen_documents(corpus, half)
    found = {}
    for register, texts in documents.items():
        if register == "fairytale":
            pool = [
                Passage(text[:40], part) for text in texts for part in passages(text, characters)
            ]
        else:
            pool = [Passage(text, text) for text in texts]
        found[register] = rng.sample(pool, min(count, len(pool)))
    return found


def cut(text: str, tokenizer, rng: random.Random, tokens: tuple[int, int] = TOKENS) -> str:
    """The first tokens of a text, as many as a completion might have."""
    ids = tokenizer(text[:4000], add_special_tokens=False, verbose=False).input_ids
    return tokenizer.decode(ids[: rng.randint(*tokens)])
