"""Formats, by exact rules: what share of a text keeps to the format, and whether all of it does.

A completion may stop in the middle of a sentence because it ran out of tokens; rules about how
sentences end therefore look at finished sentences only.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from analysis.judges.protocol import Prompt, Scores, require_texts

MOST_WORDS_OF_A_SHORT_TEXT = 40
"""A short text is "about 25 words"; in training it has 12 to 35."""

_END = re.compile(r"[.!?]+(?=['\")\]]*(?:\s|$))")
_ABBREVIATION = re.compile(r"(?:\b(?:mr|mrs|ms|dr|st|vs|jr|sr|etc)|\b[a-z])$", re.IGNORECASE)


def sentence_ends(text: str) -> list[str]:
    """The marks that end the sentences of a text, without those of abbreviations and initials."""
    return [m[0] for m in _END.finditer(text) if not _ABBREVIATION.search(text[: m.start()])]


def lowercase(text: str) -> float:
    """Share of words without a capital."""
    words = [word for word in text.split() if any(c.isalpha() for c in word)]
    return _share([word == word.lower() for word in words])


def exclamation(text: str) -> float:
    """Share of finished sentences that end in an exclamation mark."""
    return _share([mark.endswith("!") for mark in sentence_ends(text)])


def no_commas(text: str) -> float:
    """Share of sentences without a comma."""
    return _share(["," not in part for part in _END.split(text) if part.strip("'\")] \n")])


def short(text: str) -> float:
    """1 up to 40 words, 0 from 80 words on, linear between; nan for no words."""
    words = len(text.split())
    most = MOST_WORDS_OF_A_SHORT_TEXT
    return float(np.clip(2 - words / most, 0, 1)) if words else np.nan


def bullets(text: str) -> float:
    """Share of lines that begin with a dash; 0 for a single line of several sentences."""
    lines = [line for line in text.split("\n") if line.strip()]
    crowded = sum(len(sentence_ends(line)) > 2 for line in lines)
    dashed = sum(bool(re.match(r"- \S", line)) for line in lines)
    return max(dashed - crowded, 0) / len(lines) if lines else np.nan


RULES: dict[str, Callable[[str], float]] = {
    "lowercase": lowercase,
    "exclamation": exclamation,
    "no_commas": no_commas,
    "short": short,
    "bullets": bullets,
}


@dataclass(frozen=True)
class FormatJudge:
    """100 times the share of a text that keeps to a format; NaN where there is nothing to check.

    `holds` is the yes or no: whether all of it does.
    """

    name: str

    def __post_init__(self) -> None:
        if self.name not in RULES:
            raise ValueError(f"No format is called {self.name!r}. There are {', '.join(RULES)}.")

    def __call__(self, texts: Sequence[str], prompts: Sequence[Prompt] | None = None) -> Scores:
        require_texts(texts, prompts)
        return 100 * np.array([RULES[self.name](text) for text in texts], dtype=float)

    def holds(self, texts: Sequence[str]) -> np.ndarray:
        """Whether each text keeps to the format throughout; False if nothing can be checked."""
        return self(texts) == 100


def _share(kept: Sequence[bool]) -> float:
    return float(np.mean(kept)) if len(kept) else np.nan
