"""Make the frozen benchmark set, steerlens/benchmark_set.json.gz.

    python scripts/demo_model/benchmark_set.py --corpus ../shared/corpus

User turns are put together so that no two splits of an attribute share one. Reviews are asked for
by genre and topic, articles by held-out titles, tales and open texts by topic.
"""

from __future__ import annotations

import argparse
import gzip
import itertools
import json
import random
from pathlib import Path

import pandas as pd
from conversations import DEFAULT_CORPUS, held_out, plain
from tqdm import tqdm
from wordings import ATTRIBUTE_WORDINGS, GENRES, HELD_OUT_WORDINGS, TOPIC_REQUESTS, TOPICS

import steerlens
from steerlens.benchmark_set import FILE
from steerlens.models import fingerprint
from steerlens.types import HookedModel

SIZES = {"train": 240, "validation": 40, "test": 120}
MANY = {"positive": 500, "negative": 500, "lowercase": 500, "fairytale": 500}
"""Training rows of the attributes for studies of sample efficiency."""

MAX_NEW_TOKENS = 64
TEMPERATURE = 0.7
"""At 1 a model of this size strays from the language every few words."""

REVIEW_FORMS = (
    "Write a review of a {genre} about a {topic}.",
    "Review a {genre} about a {topic}.",
    "What did you think of the {genre} about a {topic}?",
    "Tell me about a {genre} about a {topic} that you saw.",
)
ARTICLE_FORMS = ("Write an encyclopedia article about {title}.", "What do you know about {title}?")
TALE_FORMS = ("Tell a fairy tale about a {topic}.", "Tell me a story about a {topic}.")
REGISTERS = ("fairytale", "encyclopedia", "review")
SENTIMENTS = ("positive", "negative")


def titles(corpus: Path) -> list[str]:
    """Held-out titles of articles, the plain ones."""
    table = pd.read_parquet(corpus / "encyclopedia.parquet")
    return [
        plain(title)
        for title in table.title
        if held_out(title) and len(title) < 30 and title.isascii()
    ]


def questions(attribute: str, count: int, corpus: Path, rng: random.Random) -> list[str]:
    """Different user turns that leave room for the attribute."""
    reviews = [
        form.format(genre=genre, topic=topic)
        for form, genre, topic in itertools.product(REVIEW_FORMS, GENRES.values(), TOPICS)
    ]
    articles = [form.format(title=t) for form in ARTICLE_FORMS for t in titles(corpus)]
    tales = [form.format(topic=topic) for form in TALE_FORMS for topic in TOPICS]
    topics = [form.format(topic=topic) for form in (*TOPIC_REQUESTS, *MORE) for topic in TOPICS]
    for pool in (reviews, articles, tales, topics):
        rng.shuffle(pool)
    if attribute in SENTIMENTS:
        chosen = reviews[:count]
    elif attribute in REGISTERS:
        chosen = topics[:count]
    else:
        few = min(len(tales), count // 4)
        chosen = tales[:few] + articles[: count // 3]
        chosen += reviews[: count - len(chosen)]
        rng.shuffle(chosen)
    assert len(set(chosen)) == count, (attribute, len(chosen), count)
    return chosen


MORE = (
    "Please write about a {topic}.",
    "Write a few sentences about a {topic}.",
    "I want to read about a {topic}.",
    "A {topic}, please.",
)


def completions(
    model: HookedModel, prompts: list, seed: int, temperature: float = TEMPERATURE
) -> list[str]:
    """One sample for each prompt, without the end token; none is empty."""
    texts = steerlens.generate(
        model,
        prompts,
        max_new_tokens=MAX_NEW_TOKENS,
        temperature=temperature,
        seed=seed,
        batch_size=64,
    ).texts
    assert all(text.strip() for text in texts), "an empty completion"
    return [text.strip() for text in texts]


def attribute_of(
    model: HookedModel, name: str, sizes: dict[str, int], corpus: Path, seed: int
) -> dict:
    """Everything about one attribute."""
    rng = random.Random(f"{seed}:{name}")
    splits = [split for split, size in sizes.items() for _ in range(size)]
    users = questions(name, len(splits), corpus, rng)
    wordings = ATTRIBUTE_WORDINGS[name]
    given = [rng.choice(wordings) for _ in users]
    prompted = completions(
        model,
        [steerlens.Conversation(u, w) for u, w in zip(users, given, strict=True)],
        seed,
    )
    bare = completions(model, [steerlens.Conversation(user) for user in users], seed)
    return {
        "wordings": wordings,
        "held_out": HELD_OUT_WORDINGS[name],
        "rows": list(zip(splits, users, given, prompted, bare, strict=True)),
    }


def main() -> None:
    """Write the file."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--corpus", type=Path, default=DEFAULT_CORPUS)
    parser.add_argument("--to", type=Path, default=FILE)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--share", type=float, default=1.0, help="of the rows, to try things out")
    arguments = parser.parse_args()
    model = steerlens.load("demo")
    found = {}
    for name in tqdm(ATTRIBUTE_WORDINGS):
        sizes = {**SIZES, "train": MANY.get(name, SIZES["train"])}
        sizes = {split: max(int(size * arguments.share), 2) for split, size in sizes.items()}
        found[name] = attribute_of(model, name, sizes, arguments.corpus, arguments.seed)
    content = {"fingerprint": fingerprint(model), "attributes": found}
    text = json.dumps(content, ensure_ascii=False, separators=(",", ":"))
    arguments.to.write_bytes(gzip.compress(text.encode(), mtime=0))


if __name__ == "__main__":
    main()
