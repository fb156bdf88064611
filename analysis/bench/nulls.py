"""Texts that show nothing and may fool a judge.

    keywords = keywords_of(prompted, plain)
    null_texts(plain, instruction, keywords, seed=0)
    # {"stuffed 10": [...], "stuffed 5": [...], "echoed": [...], "looped": [...], "shuffled": [...]}

Each is made from unsteered completions without any steering, so a method that scores no more than
the best null at the same coherence has not been shown to do more than put words in. On the frozen
set's validation questions the judges of *positive*, *negative* and *review* give 86, 93 and 94 to
plain text with every fifth word replaced (60, 36 and 13 without).
"""

import math
import random
from collections import Counter
from collections.abc import Sequence

from ..judges.likelihood import looped as looped_text
from ..judges.linear import words_of

EVERY = (10, 5)
"""How rarely a word is replaced in the stuffed texts of `null_texts`."""
PRIOR = 500.0
"""How many words of all the text together the prior is worth."""
LEAST = 3
"""In how many of the prompted texts a keyword has to be."""


def stuffed(
    texts: Sequence[str], keywords: Sequence[str], every: int, *, seed: int = 0
) -> list[str]:
    """Every text with one word in `every` replaced by a keyword; the marks after it stay.

    A text with fewer words has its last one replaced. ValueError for no keywords or `every` < 1.
    """
    if not keywords or every < 1:
        raise ValueError(
            f"Stuffing needs keywords and every >= 1; found {len(keywords)} keywords and "
            f"every={every}. `keywords_of` finds keywords in prompted texts."
        )
    rng = random.Random(seed)
    return [_stuffed(text, keywords, every, rng) for text in texts]


def _stuffed(text: str, keywords: Sequence[str], every: int, rng: random.Random) -> str:
    words = text.split(" ")
    said = [i for i, word in enumerate(words) if word.strip()]
    start = rng.randrange(len(keywords))
    for turn, at in enumerate(said[every - 1 :: every] or said[-1:], start):
        kept = words[at].rstrip(".,;:!?\"')\n")
        words[at] = keywords[turn % len(keywords)] + words[at][len(kept) :]
    return " ".join(words)


def echoed(texts: Sequence[str], instruction: str) -> list[str]:
    """The instruction in front of every text."""
    return [f"{instruction.strip()} {text}".rstrip() for text in texts]


def looped(texts: Sequence[str]) -> list[str]:
    """The first eight words of every text again and again; a text without words stays."""
    return [looped_text(text) if text.split() else text for text in texts]


def shuffled(texts: Sequence[str], *, seed: int = 0) -> list[str]:
    """The words of every text in any order."""
    rng = random.Random(seed)
    return [" ".join(rng.sample(words, len(words))) for words in map(str.split, texts)]


def null_texts(
    texts: Sequence[str], instruction: str, keywords: Sequence[str], seed: int = 0
) -> dict[str, list[str]]:
    """All nulls of unsteered texts by name; always the same for the same seed."""
    found = {f"stuffed {n}": stuffed(texts, keywords, n, seed=seed) for n in EVERY}
    return {
        **found,
        "echoed": echoed(texts, instruction),
        "looped": looped(texts),
        "shuffled": shuffled(texts, seed=seed),
    }


def keywords_of(
    prompted_texts: Sequence[str], plain_texts: Sequence[str], k: int = 10
) -> list[str]:
    """The k words most over-represented in prompted texts, the most telling first.

    By the z-score of the log-odds with an informative Dirichlet prior (Monroe, Colaresi and Quinn
    2008, "Fightin' words"), the prior being all the text. A word counts once in a text, and has to
    be in three prompted texts. ValueError where no word is.
    """
    prompted, plain = (_texts_with(texts) for texts in (prompted_texts, plain_texts))
    both = prompted + plain
    scale = PRIOR / max(sum(both.values()), 1)
    sizes = sum(prompted.values()), sum(plain.values())

    def z(word: str) -> float:
        prior, odds, variance = both[word] * scale, [], 0.0
        for counts, size in zip((prompted, plain), sizes, strict=True):
            of = counts[word] + prior
            odds.append(math.log(of / (size + PRIOR - of)))
            variance += 1 / of
        return (odds[0] - odds[1]) / math.sqrt(variance)

    found = {word: z(word) for word, n in prompted.items() if n >= LEAST}
    telling = sorted((w for w in found if found[w] > 0), key=lambda word: (-found[word], word))
    if not telling:
        raise ValueError(
            f"No word is commoner in the {len(prompted_texts)} prompted than in the "
            f"{len(plain_texts)} plain texts, and in {LEAST} of them. Pass more texts, or keywords "
            "of your own."
        )
    return telling[:k]


def _texts_with(texts: Sequence[str]) -> Counter[str]:
    """In how many texts each word is."""
    return Counter(word for text in texts for word in set(words_of(text)))
