"""How often `sl.lint` warns where nothing tells the sides apart.

    python scripts/docs/false_alarms.py        the numbers of docs/interchange.md: half a minute

Sentences of one kind split at random into two sides, and pairs with sides swapped at random.
"""

import random
from collections.abc import Iterator
from typing import Any

from steerlens import lint

NOUNS = ["film", "book", "dog", "horse", "girl", "war", "witch", "car", "king", "ship", "house"]
VERBS = ["saw", "took", "made", "left", "found", "kept", "sold", "knew", "held", "drew"]
WHERE = ["near the town", "by the sea", "in the hills", "at home", "on a farm", "over there"]


def texts(n: int, seed: int = 0) -> list[str]:
    """Sentences that differ in words and length, and in nothing that one side has."""
    drawn = random.Random(seed)
    made = []
    for _ in range(n):
        parts = [
            f"The {drawn.choice(NOUNS)} {drawn.choice(VERBS)} a {drawn.choice(NOUNS)} "
            f"{drawn.choice(WHERE)}"
            for _ in range(drawn.randint(1, 3))
        ]
        made.append(". ".join(parts) + drawn.choice(["!", ".", "."]))
    return made


def pairs(n: int = 24, seed: int = 0) -> tuple[list[str], list[str]]:
    """Clean pairs: the same sentence with one of two adverbs of many, at a random place."""
    drawn, made = random.Random(seed), texts(n, seed)
    glad = ["gladly", "well", "happily", "warmly", "kindly", "fondly", "sweetly", "merrily"]
    sad = ["badly", "ill", "sadly", "coldly", "rudely", "grimly", "sourly", "gravely"]
    return tuple(  # pyright: ignore[reportReturnType]
        [text.replace(" a ", f" {drawn.choice(words)} a ", 1) for text in made]
        for words in (glad, sad)
    )


def checks(*given: Any, **options: Any) -> set[str]:
    return {one.check for one in lint(*given, **options) if one.severity != "note"}


def splits(n: int, trials: int, seed: int = 11) -> Iterator[bool]:
    """Whether a random split into two sides of n warns. That they are no pairs is told rightly."""
    pool, drawn = texts(400, 7), random.Random(seed)
    for _ in range(trials):
        rows = drawn.sample(pool, 2 * n)
        yield bool(checks((rows[:n], rows[n:])) - {"unrelated", "duplicates"})


def swaps(n: int, trials: int, seed: int = 12) -> Iterator[bool]:
    """Whether n pairs warn whose sides were swapped at random."""
    drawn = random.Random(seed)
    for number in range(trials):
        both = zip(*pairs(n, 5000 + number), strict=True)
        rows = [(a, b) if drawn.random() < 0.5 else (b, a) for a, b in both]
        positive, negative = zip(*rows, strict=True)
        yield bool(checks((list(positive), list(negative))) - {"duplicates"})


if __name__ == "__main__":
    for n in (8, 24):
        print(f"split into two sides of {n}: {sum(splits(n, 400))} of 400 warn")
    print(f"16 pairs, swapped: {sum(swaps(16, 400))} of 400 warn")
