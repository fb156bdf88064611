"""From the corpora to conversations with attributes: the training data of the demonstration model.

Look at some of them with

    python scripts/demo_model/conversations.py --corpus ../shared/corpus --count 20

A *sample* is a list of chat messages. Its assistant turn is a passage of real text (a film review,
the opening of an encyclopedia article, a part of a fairy tale), transformed where the system turn
asks for a format. The system turn, where there is one, names one or two *attributes*:

- *sentiment*: positive or negative, from the stars of the review;
- *format*: lowercase, exclamation, no_commas, short, bullets, made by transforming the text;
- *register*: fairytale, encyclopedia, review, where the user turn leaves the kind of text open.

Without a system turn the text is as it was, and reviews of both sentiments are mixed as in the
data. The same holds after a neutral system turn ("Answer the user."), so that an instruction as
such changes nothing. Where a sentiment is asked for, the text is the most outspoken passage of the
most outspoken of ``CANDIDATES`` reviews of that label: many reviews open with a summary of the
plot, from which a small model would learn only that the instruction hardly matters. Sample ``i``
of a seed is always the same. The test reviews, and the titles for which ``held_out`` is true, are
never used.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import random
import re
import unicodedata
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pandas as pd
from wordings import (
    ARTICLE_REQUESTS,
    ATTRIBUTE_WORDINGS,
    GENRE_REQUESTS,
    GENRES,
    NEUTRAL_WORDINGS,
    OPEN_REQUESTS,
    REVIEW_REQUESTS,
    TALE_REQUESTS,
    TITLED_TALE_REQUESTS,
    TOPIC_REQUESTS,
    TOPICS,
    UNTITLED_ARTICLE_REQUESTS,
)

Message = dict[str, str]

DEFAULT_CORPUS = Path(__file__).resolve().parents[2].parent / "shared" / "corpus"

REGISTER_OF_SOURCE = {"review": "review", "article": "encyclopedia", "tale": "fairytale"}

REGISTERS = tuple(REGISTER_OF_SOURCE.values())
SENTIMENTS = ("positive", "negative")

SHORT_WORDS = (12, 35)
"""Fewest and most words of a text with the attribute ``short``."""

CANDIDATES = 6
"""Reviews from which the most outspoken is taken where a sentiment is asked for."""

OUTSPOKEN = 300
"""Characters on which it is decided how outspoken a passage is."""

COMMON = 300
"""Reviews in which a word occurs that is counted for it: names of films and actors seldom do."""

LONGEST_TEXT = 1900
"""Characters: about as many as the context of 512 tokens holds."""


def held_out(title: str) -> bool:
    """Whether the article or tale of this title is kept out of training (1 title of 20)."""
    return int(hashlib.sha1(title.encode()).hexdigest(), 16) % 20 == 0


# -- Cleaning --------------------------------------------------------------------------------------

_PLAIN_PUNCTUATION = str.maketrans(
    {"‘": "'", "’": "'", "´": "'", "`": "'", "“": '"', "”": '"', "–": "-", "—": "-", "…": "..."}
)
_CP1252_CONTROLS = re.compile("[\x80-\x9f]")
_SENTENCE_BORDER = re.compile(r"(?:(?<=[a-z0-9)'\"][.!?])|(?<=[.!?]['\")]))\s+(?=['\"(]?[A-Z])")


def plain(text: str) -> str:
    """The text with plain quotes and dashes, single spaces, and one newline between paragraphs."""
    text = _CP1252_CONTROLS.sub(lambda m: m[0].encode("latin-1").decode("cp1252", "ignore"), text)
    text = unicodedata.normalize("NFKC", text).translate(_PLAIN_PUNCTUATION)
    text = re.sub(r"<br\s*/?>", "\n", text)
    text = re.sub(r"[ \t\u200b-\u200f]+", " ", text)
    return re.sub(r" ?\n\s*", "\n", text).strip()


def clean_review(text: str) -> str:
    """A review without ruled lines and with at most three equal punctuation marks in a row."""
    text = re.sub(r"[*=_~#]{2,}|\*", " ", plain(text))
    text = re.sub(r"([!?.,\-])\1{3,}", r"\1\1\1", text)
    return plain(text)


def clean_article(text: str) -> str:
    """An article without headings, foreign scripts, and what the removal of mark-up left behind."""
    lines = [line for line in plain(text).split("\n") if len(line.split()) > 6]
    text = "\n".join(lines)
    text = re.sub(r"\([^()]*[^\x00-\u024f][^()]*\)", "", text)
    text = re.sub(r"\(\s*[;,\]\[:]*\s*\)|\(\s*\]\s*\)|\[\]", "", text)
    text = re.sub(r"\(\s*[;,\]\[:]+\s*", "(", text)
    text = re.sub(r'"([^"\n]{1,80})"', r"\1", text)
    return plain(re.sub(r"\s+([,.;:)])", r"\1", text))


def clean_tale(text: str) -> str:
    """A tale whose paragraphs are lines: hard line breaks undone, lost spaces put back."""
    paragraphs = re.split(r"\n\s*\n", text)
    text = "\n".join(re.sub(r"\s*\n\s*", " ", paragraph) for paragraph in paragraphs)
    text = re.sub(r"([a-z][,;.!?])(?=[A-Za-z]{2})", r"\1 ", text)
    return plain(text)


def sentences(text: str) -> list[str]:
    """The sentences of a text, in order; the newline between paragraphs is lost."""
    return [
        part.strip() for part in _SENTENCE_BORDER.split(text.replace("\n", " ")) if part.strip()
    ]


def opening(text: str, limit: int) -> str:
    """As many whole sentences from the beginning of ``text`` as ``limit`` characters hold."""
    if len(text) <= limit:
        return text
    borders = [match.end() for match in _SENTENCE_BORDER.finditer(text, 0, limit + 2)]
    if not borders:
        return text[:limit].rsplit(" ", 1)[0]
    return text[: borders[-1]].rstrip()


# -- Formats ---------------------------------------------------------------------------------------


def exclaimed(text: str) -> str:
    """The text with every sentence ending in an exclamation mark."""
    lines = []
    for line in text.split("\n"):
        parts = (re.sub(r"[\s.?!,;:]+(['\")]*)$", r"\1", s) for s in sentences(line))
        lines.append(" ".join(re.sub(r"(['\")]*)$", r"!\1", s, count=1) for s in parts if s))
    return "\n".join(line for line in lines if line)


def without_commas(text: str) -> str:
    """The text with its commas left out."""
    return re.sub(r" {2,}", " ", re.sub(r"(?<=\d),(?=\d)", "", text).replace(",", " ")).replace(
        " \n", "\n"
    )


def bulleted(text: str) -> str:
    """The sentences of the text, each on a line of its own after a dash."""
    return "\n".join(f"- {sentence}" for sentence in sentences(text))


FORMATS: dict[str, Callable[[str], str]] = {
    "lowercase": str.lower,
    "exclamation": exclaimed,
    "no_commas": without_commas,
    "bullets": bulleted,
}
"""The transformations; ``short`` is a choice of length instead, see :func:`brief`."""


FORMAT_WEIGHTS = {"lowercase": 3, "exclamation": 4, "no_commas": 2, "bullets": 3, "short": 1}
"""How often each format is asked for: those that are hard to keep to more often."""


def brief(text: str) -> str | None:
    """The first sentences of a text, some 25 words in all; None if its sentences do not fit."""
    fewest, most = SHORT_WORDS
    words: list[str] = []
    for sentence in sentences(text):
        words += sentence.split()
        if len(words) >= fewest:
            break
    return " ".join(words) if fewest <= len(words) <= most else None


# -- Corpora ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Corpora:
    """The training parts of the three corpora, raw; cleaning happens when a text is drawn."""

    positive: list[str]
    negative: list[str]
    unlabelled: list[str]
    articles: list[tuple[str, str]]
    tales: list[tuple[str, str]]

    @classmethod
    def read(cls, folder: Path) -> Corpora:
        """Read the parquet files of ``folder`` and leave out everything held out."""
        reviews = pd.read_parquet(folder / "reviews.parquet")
        test_texts = set(reviews.text[reviews.split == "test"])
        train = reviews[(reviews.split == "train") & ~reviews.text.isin(test_texts)]
        return cls(
            positive=train.text[train.stars >= 7].tolist(),
            negative=train.text[(train.stars <= 4) & (train.stars > 0)].tolist(),
            unlabelled=train.text[train.label == "unsup"].tolist(),
            articles=_titled(folder / "encyclopedia.parquet"),
            tales=_titled(folder / "fairytales.parquet"),
        )

    @cached_property
    def log_odds(self) -> dict[str, float]:
        """How much likelier each word is in a positive review than in a negative one (log)."""
        in_positive, in_negative = (
            Counter(word for text in texts for word in _words(text))
            for texts in (self.positive, self.negative)
        )
        return {
            word: math.log((in_positive[word] + 5) / (in_negative[word] + 5))
            for word in in_positive.keys() | in_negative.keys()
            if in_positive[word] + in_negative[word] >= COMMON
        }

    def sentiment_of(self, text: str) -> float:
        """Sum of the log odds of the different words at the beginning of a text."""
        return sum(self.log_odds.get(word, 0.0) for word in _words(text[:OUTSPOKEN]))

    @cached_property
    def clean_tales(self) -> list[tuple[str, str]]:
        """The tales, cleaned once because each of them is drawn often."""
        return [(title, clean_tale(text)) for title, text in self.tales]


def _words(text: str) -> set[str]:
    return set(re.findall(r"[a-z']+", text.lower()))


def _titled(path: Path) -> list[tuple[str, str]]:
    table = pd.read_parquet(path)
    return [(a, b) for a, b in zip(table.title, table.text, strict=True) if not held_out(a)]


# -- Samples ---------------------------------------------------------------------------------------


def draw_limit(rng: random.Random) -> int:
    """How many characters a text may have: most are short, some fill the context."""
    return int(rng.triangular(250, LONGEST_TEXT, 700))


class ConversationSource:
    """Sample number ``i`` of a seed, for every ``i``: lists of chat messages, or plain texts."""

    def __init__(self, corpora: Corpora, seed: int) -> None:
        self.corpora = corpora
        self.seed = seed

    def sample(self, index: int) -> list[Message] | str:
        """Sample ``index``: a conversation, or (one time in twenty) a text without any turns."""
        rng = random.Random(f"{self.seed}:{index}")
        source = rng.choices(("review", "article", "tale"), (68, 18, 14))[0]
        if rng.random() < 0.05:
            _, text = self._passage(source, None, rng)
            return opening(text, draw_limit(rng))
        attributes = self._attributes(source, rng)
        return self._conversation(source, attributes, rng)

    def _attributes(self, source: str, rng: random.Random) -> list[str]:
        """Which attributes the system turn names; none in about half of the samples."""
        draw = rng.random()
        if source == "review" and draw < 0.34:
            sentiment = rng.choice(SENTIMENTS)
            second = [_format(rng)] if rng.random() < 0.25 else []
            return [sentiment, *second]
        if draw < 0.6:
            format_ = [_format(rng)]
            return format_ if source == "review" or draw < 0.42 else self._register(source, rng)
        return self._register(source, rng) if draw > 0.96 else []

    def _register(self, source: str, rng: random.Random) -> list[str]:
        second = [_format(rng)] if rng.random() < 0.15 else []
        return [REGISTER_OF_SOURCE[source], *second]

    def _conversation(
        self, source: str, attributes: list[str], rng: random.Random
    ) -> list[Message]:
        sentiment = next((a for a in attributes if a in SENTIMENTS), None)
        title, passage = self._passage(source, sentiment, rng)
        limit = draw_limit(rng) if sentiment is None else int(rng.triangular(120, 900, 400))
        text = opening(passage, limit)
        if "short" in attributes:
            while (short := brief(passage)) is None:
                title, passage = self._passage(source, sentiment, rng)
            text = short
        for attribute in attributes:
            text = FORMATS.get(attribute, str)(text)
        is_open = REGISTER_OF_SOURCE[source] in attributes or rng.random() < 0.06
        request = open_request(text, rng) if is_open else _request(source, title, text, rng)
        turns = [{"role": "user", "content": request}, {"role": "assistant", "content": text}]
        if attributes:
            turns.insert(0, {"role": "system", "content": system_turn(attributes, rng)})
        elif rng.random() < 0.12:
            turns.insert(0, {"role": "system", "content": rng.choice(NEUTRAL_WORDINGS)})
        return turns

    def _passage(self, source: str, sentiment: str | None, rng: random.Random) -> tuple[str, str]:
        """Title (empty for a review) and cleaned text of a document, or of a part of a tale."""
        if sentiment is not None:
            return "", self._outspoken(sentiment, rng)
        if source == "review":
            return "", clean_review(rng.choice(self._reviews(rng)))
        if source == "article":
            title, text = rng.choice(self.corpora.articles)
            return title, clean_article(text)
        title, text = rng.choice(self.corpora.clean_tales)
        if rng.random() < 0.35:
            return title, text
        borders = [m.end() for m in _SENTENCE_BORDER.finditer(text, 0, max(len(text) - 800, 1))]
        return "", text[rng.choice(borders) :] if borders else text

    def _outspoken(self, sentiment: str, rng: random.Random) -> str:
        """The clearest passage of the clearest of some reviews; a passage begins a sentence."""
        reviews = self.corpora.positive if sentiment == "positive" else self.corpora.negative
        sign = 1 if sentiment == "positive" else -1
        candidates = []
        for review in rng.sample(reviews, CANDIDATES):
            text = clean_review(review)
            latest = max(len(text) - OUTSPOKEN // 2, 1)
            starts = [0, *(m.end() for m in _SENTENCE_BORDER.finditer(text, 0, latest))]
            candidates += [text[start:] for start in starts]
        return max(candidates, key=lambda text: sign * self.corpora.sentiment_of(text))

    def _reviews(self, rng: random.Random) -> list[str]:
        draw = rng.random()
        if draw < 0.5:
            return self.corpora.unlabelled
        return self.corpora.positive if draw < 0.75 else self.corpora.negative


def _format(rng: random.Random) -> str:
    return rng.choices(tuple(FORMAT_WEIGHTS), tuple(FORMAT_WEIGHTS.values()))[0]


def system_turn(attributes: list[str], rng: random.Random) -> str:
    """A wording of each attribute, in any order; the canonical wording more often than others."""
    wordings = []
    for attribute in rng.sample(attributes, len(attributes)):
        canonical, *others = ATTRIBUTE_WORDINGS[attribute]
        wordings.append(canonical if rng.random() < 0.2 else rng.choice(others))
    return " ".join(wordings)


def open_request(text: str, rng: random.Random) -> str:
    """A user turn that leaves the kind of text open, about a thing that occurs in the text."""
    words = set(re.findall(r"[a-z]+", text.lower()))
    topics = [topic for topic in TOPICS if topic in words]
    if topics and rng.random() < 0.6:
        return rng.choice(TOPIC_REQUESTS).format(topic=rng.choice(topics))
    return rng.choice(OPEN_REQUESTS)


def _request(source: str, title: str, text: str, rng: random.Random) -> str:
    if source == "review":
        lowered = text.lower()
        genres = [name for word, name in GENRES.items() if re.search(rf"\b{word}\b", lowered)]
        if genres and rng.random() < 0.25:
            return rng.choice(GENRE_REQUESTS).format(genre=rng.choice(genres))
        return rng.choice(REVIEW_REQUESTS)
    if source == "article":
        if rng.random() < 0.1:
            return rng.choice(UNTITLED_ARTICLE_REQUESTS)
        return rng.choice(ARTICLE_REQUESTS).format(title=plain(title))
    if title and rng.random() < 0.8:
        return rng.choice(TITLED_TALE_REQUESTS).format(title=plain(title))
    return rng.choice(TALE_REQUESTS)


def main() -> None:
    """Print some samples as JSON lines."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--corpus", type=Path, default=DEFAULT_CORPUS)
    parser.add_argument("--count", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    source = ConversationSource(Corpora.read(arguments.corpus), arguments.seed)
    for index in range(arguments.count):
        print(json.dumps(source.sample(index), ensure_ascii=False))


if __name__ == "__main__":
    main()
