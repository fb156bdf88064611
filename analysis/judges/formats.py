"""Formats, by exact rules: what share of a text keeps to the format, and whether all of it does.

A completion may stop in the middle of a sentence because it ran out of tokens; rules about how
sentences end therefore look at finished sentences only.

The rules are about the marks and capitals of Latin, Greek or Cyrillic text. Scripts without
capitals have other marks ("。" ends no sentence here, "，" is no comma) and some no blanks between
words, so a text most of whose letters have no capital gets no score, and a warning. What remains
wrong: `bullets` knows the dash alone, not "*", "•" or "1."; `short` takes any end mark for the
end; code, tables and addresses are taken for prose.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from .domain import CASELESS, has_case, is_caseless, warn_outside
from .protocol import Prompt, Scores, require_texts

MOST_WORDS_OF_A_SHORT_TEXT = 40
"""A short text is "about 25 words"; in training it has 12 to 35."""

# Marks before a blank or the end; three dots within a sentence, as in "well... no", are no end.
_END = re.compile(r"(?!\.{2,}['\")\]]*\s+[a-z])[.!?]+(?=['\")\]]*(?:\s|$))")
_NO_END = re.compile(r"(?i:\b(?:mr|mrs|ms|dr|st|vs|jr|sr|etc))$|(?<![\w'])(?!I\b)[A-Z]$")


def _ends(text: str) -> list[re.Match[str]]:
    """The ends of sentences; abbreviations and initials have none."""
    return [
        end
        for end in _END.finditer(text)
        if text[end.start() - 1 : end.start()] not in (".", "!", "?")
        and not _NO_END.search(text[: end.start()])
    ]


def sentence_ends(text: str) -> list[str]:
    """The marks that end the sentences of a text."""
    return [end[0] for end in _ends(text)]


def sentences(text: str) -> list[str]:
    """The sentences of a text, the last perhaps unfinished, without their end marks."""
    borders = [0, *(end.end() for end in _ends(text)), len(text)]
    parts = [text[a:b].strip("'\")] \n") for a, b in pairwise(borders)]
    return [part for part in parts if part]


def lowercase(text: str) -> float:
    """Share of words without a capital, of those that could have one."""
    words = [word for word in text.split() if any(map(has_case, word))]
    return _share([word == word.lower() for word in words])


def exclamation(text: str) -> float:
    """Share of finished sentences that end in an exclamation mark."""
    return _share([mark.endswith("!") for mark in sentence_ends(text)])


def no_commas(text: str) -> float:
    """Share of sentences without a comma."""
    return _share(["," not in sentence for sentence in sentences(text)])


def short(text: str) -> float:
    """1 up to 40 words, 0 from 80 words on, linear between; 0 for a text that was cut off."""
    words = len(text.split())
    if not words:
        return np.nan
    finished = bool(re.search(r"[.!?]['\")\]]*$", text.rstrip()))
    return float(np.clip(2 - words / MOST_WORDS_OF_A_SHORT_TEXT, 0, 1)) if finished else 0.0


def bullets(text: str) -> float:
    """Share of lines that are one item: a dash, a blank, and at most two sentences."""
    lines = [line for line in text.split("\n") if line.strip()]
    items = [bool(re.match(r"- \S", line)) and len(_ends(line)) <= 2 for line in lines]
    return _share(items)


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

    So it is for texts in a script without capitals, of which it warns. `holds` is the yes or no:
    whether all of it does.
    """

    name: str

    def __post_init__(self) -> None:
        if self.name not in RULES:
            raise ValueError(f"No format is called {self.name!r}. There are {', '.join(RULES)}.")

    def __call__(self, texts: Sequence[str], prompts: Sequence[Prompt] | None = None) -> Scores:
        require_texts(texts, prompts)
        warn_outside(self.name, self.domain, texts, (CASELESS,))
        rule = RULES[self.name]
        shares = [np.nan if is_caseless(text) else rule(text) for text in texts]
        return 100 * np.array(shares, dtype=float)

    @property
    def domain(self) -> str:
        """What it may be used on."""
        return "prose in a script with capitals, such as Latin"

    def holds(self, texts: Sequence[str]) -> np.ndarray:
        """Whether each text keeps to the format throughout; False if nothing can be checked."""
        return self(texts) == 100


def _share(kept: Sequence[bool]) -> float:
    return float(np.mean(kept)) if len(kept) else np.nan
