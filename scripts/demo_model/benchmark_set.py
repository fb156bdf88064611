"""Make the frozen benchmark set, steerlens/benchmark_set.json.gz.

    python scripts/demo_model/benchmark_set.py --corpus ../shared/corpus

Each topic and each title belongs to one split, so that no two splits share one. Reviews are asked
for by genre and topic, articles by held-out titles, tales and open texts by topic.
"""

from __future__ import annotations

import argparse
import gzip
import itertools
import json
import random
from pathlib import Path

import pandas as pd
from conversations import DEFAULT_CORPUS, REGISTERS, SENTIMENTS, held_out, plain
from tqdm import tqdm
from wordings import ATTRIBUTE_WORDINGS, GENRES, HELD_OUT_WORDINGS, TOPIC_REQUESTS, TOPICS

import steerlens
from steerlens.demo.benchmark_set import FILE
from steerlens.digests import signed
from steerlens.identity import fingerprint
from steerlens.types import HookedModel
from steerlens.whole import write_whole

SIZES = {"train": 240, "validation": 40, "test": 120}
MANY = {"positive": 500, "negative": 500, "lowercase": 500, "fairytale": 500}
"""Training rows of the attributes for studies of sample efficiency."""

TOPICS_OF = {"train": slice(0, 48), "validation": slice(48, 52), "test": slice(52, 64)}
TITLES_OF = {"train": (0.0, 0.7), "validation": (0.7, 0.78), "test": (0.78, 1.0)}
MAX_NEW_TOKENS = 64
ATTEMPTS = 20
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
OPEN_FORMS = (
    *TOPIC_REQUESTS,
    "Please write about a {topic}.",
    "Write a few sentences about a {topic}.",
    "I want to read about a {topic}.",
    "A {topic}, please.",
    "Write down something about a {topic}.",
)


def titles(corpus: Path) -> list[str]:
    """Held-out titles of articles, the plain ones."""
    table = pd.read_parquet(corpus / "encyclopedia.parquet")
    return [
        plain(title)
        for title in table.title
        if held_out(title) and len(title) < 30 and title.isascii()
    ]


def questions(
    attribute: str, split: str, count: int, known_titles: list[str], seed: int = 0
) -> list[str]:
    """Different user turns of a split that leave room for the attribute."""
    shared = random.Random(f"splits {seed}")  # the same split of topics for every attribute
    topics = shared.sample(TOPICS, len(TOPICS))[TOPICS_OF[split]]
    low, high = (int(bound * len(known_titles)) for bound in TITLES_OF[split])
    some_titles = shared.sample(known_titles, len(known_titles))[low:high]
    rng = random.Random(f"{seed}:{attribute}:{split}")
    reviews = [
        form.format(genre=genre, topic=topic)
        for form, genre, topic in itertools.product(REVIEW_FORMS, GENRES.values(), topics)
    ]
    articles = [form.format(title=title) for form in ARTICLE_FORMS for title in some_titles]
    tales = [form.format(topic=topic) for form in TALE_FORMS for topic in topics]
    opens = [form.format(topic=topic) for form in OPEN_FORMS for topic in topics]
    for pool in (reviews, articles, tales, opens):
        rng.shuffle(pool)
    if attribute in SENTIMENTS:
        chosen = reviews[:count]
    elif attribute in REGISTERS:
        chosen = opens[:count]
    else:
        chosen = tales[: count // 5] + articles[: count // 3]
        chosen += reviews[: count - len(chosen)]
        rng.shuffle(chosen)
    if len(set(chosen)) < count:
        raise ValueError(
            f"{attribute}, {split}: {count} different questions are wanted and {len(set(chosen))} "
            "can be made. Add forms or topics, or ask for fewer."
        )
    return chosen


def completions(
    model: HookedModel,
    prompts: list[steerlens.Conversation],
    seed: int,
    temperature: float = TEMPERATURE,
) -> list[str]:
    """One sample for each prompt, without the end token; an empty one is sampled again."""
    texts = [""] * len(prompts)
    for attempt in range(ATTEMPTS):
        missing = [i for i, text in enumerate(texts) if not text]
        if not missing:
            break
        made = steerlens.generate(
            model,
            [prompts[i] for i in missing],
            max_new_tokens=MAX_NEW_TOKENS,
            temperature=temperature,
            seed=seed + 1000 * attempt,
            batch_size=64,
        )
        for i, text in zip(missing, made.texts, strict=True):
            texts[i] = text.strip()
    if not all(texts):
        raise ValueError(f"{texts.count('')} completions are still empty after {ATTEMPTS} samples.")
    return texts


def attribute_of(
    model: HookedModel, name: str, users: dict[str, list[str]], seed: int
) -> dict[str, object]:
    """Everything about one attribute."""
    rng = random.Random(f"{seed}:{name}")
    splits = [split for split, some in users.items() for _ in some]
    asked = [user for some in users.values() for user in some]
    given = [rng.choice(ATTRIBUTE_WORDINGS[name]) for _ in asked]
    prompts = [steerlens.Conversation(u, w) for u, w in zip(asked, given, strict=True)]
    prompted = completions(model, prompts, seed)
    bare = completions(model, [steerlens.Conversation(user) for user in asked], seed + 1)
    return {
        "wordings": ATTRIBUTE_WORDINGS[name],
        "held_out": HELD_OUT_WORDINGS[name],
        "rows": list(zip(splits, asked, given, prompted, bare, strict=True)),
    }


def every_question(corpus: Path, share: float, seed: int) -> dict[str, dict[str, list[str]]]:
    """The user turns of every attribute and split."""
    known_titles, found = titles(corpus), {}
    for name in ATTRIBUTE_WORDINGS:
        sizes = {**SIZES, "train": MANY.get(name, SIZES["train"])}
        found[name] = {
            split: questions(name, split, max(int(size * share), 2), known_titles, seed)
            for split, size in sizes.items()
        }
    return found


def main() -> None:
    """Write the file."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--corpus", type=Path, default=DEFAULT_CORPUS)
    parser.add_argument("--to", type=Path, default=FILE)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--share", type=float, default=1.0, help="of the rows, to try things out")
    arguments = parser.parse_args()
    asked = every_question(arguments.corpus, arguments.share, arguments.seed)
    model = steerlens.load("demo")
    found = {
        name: attribute_of(model, name, users, arguments.seed)
        for name, users in tqdm(asked.items())
    }
    content = signed({"fingerprint": fingerprint(model), "attributes": found})
    text = json.dumps(content, ensure_ascii=False, separators=(",", ":"))
    write_whole(arguments.to, gzip.compress(text.encode(), mtime=0))


if __name__ == "__main__":
    main()
