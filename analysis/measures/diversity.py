"""How varied texts are: distinct-n, which falls when a steering makes a model repeat itself.

Li et al., "A Diversity-Promoting Objective Function for Neural Conversation Models", NAACL 2016:

    distinct-n = number of different n-grams / number of words

The words are counted below the line, as in the paper, and not the n-grams. Longer texts, and more
of them, repeat more by nature: compare texts of one length, and corpora of one size.
"""

import re
from collections.abc import Sequence

import numpy as np
import pandas as pd

from .intervals import interval_of_mean

_WORD = re.compile(r"\w+(?:['’-]\w+)*|[^\w\s]")


def words_of(text: str) -> list[str]:
    """The words and punctuation marks of a text, in lower case."""
    return _WORD.findall(text.lower())


def distinct_n(texts: Sequence[str], n: int = 2) -> pd.DataFrame:
    """One row per text: text, n, n_words, n_distinct, distinct_n (NaN where there is no word)."""
    _require_texts(texts, n)
    rows = []
    for number, text in enumerate(texts):
        words = words_of(text)
        found = len(_grams(words, n))
        share = found / len(words) if words else float("nan")
        rows.append((number, n, len(words), found, share))
    return pd.DataFrame(rows, columns=["text", "n", "n_words", "n_distinct", "distinct_n"])


def distinct_n_summary(
    texts: Sequence[str], n: int = 2, *, n_bootstrap: int = 1000, seed: int = 0
) -> dict[str, int | float]:
    """Over all texts: corpus (distinct n-grams of all over all words), and the mean over texts.

    Keys: n, corpus, mean, low, high (95 % bootstrap interval of the mean over texts), n_texts,
    n_words. The corpus's number has no interval: a resample holds texts twice, and so repeats more.
    """
    table = distinct_n(texts, n)
    different = set[tuple[str, ...]]().union(*(_grams(words_of(text), n) for text in texts))
    total, shares = int(table["n_words"].sum()), table["distinct_n"].to_numpy()
    low, high = interval_of_mean(shares, n_bootstrap, seed)
    return {
        "n": n,
        "corpus": len(different) / total if total else float("nan"),
        "mean": float(np.nanmean(shares)) if total else float("nan"),
        "low": low,
        "high": high,
        "n_texts": len(texts),
        "n_words": total,
    }


def _grams(words: Sequence[str], n: int) -> set[tuple[str, ...]]:
    return {tuple(words[start : start + n]) for start in range(len(words) - n + 1)}


def _require_texts(texts: Sequence[str], n: int) -> None:
    """Raise an error unless there are texts, and n-grams can be counted."""
    if isinstance(texts, str):
        raise TypeError("texts is a list of texts; found a single one. Pass [text].")
    if not len(texts):
        raise ValueError("No texts were given. Pass at least one.")
    if n < 1:
        raise ValueError(f"n is the length of the n-grams, 1 or more; found {n}.")
