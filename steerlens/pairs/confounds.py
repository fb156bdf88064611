"""What else than the attribute tells the two sides apart: length, words, openings, marks, scripts.

Each check is a family of tests at the level `significance.ALPHA`.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from math import log

import numpy as np

from steerlens.checks import FEW
from steerlens.pairs.damage import SHOWN, shown
from steerlens.pairs.findings import Finding
from steerlens.pairs.looked_at import LookedAt
from steerlens.pairs.significance import ALPHA, auroc, p_of_numbers, telling
from steerlens.pairs.words import language_of, plain, script_of, words_of
from steerlens.parsing import short

LONGER = 0.65
"""Length alone tells the sides apart from this AUROC on."""
WORDS_ALONE = 0.9
"""From this AUROC on, words alone tell the sides apart."""
ENOUGH = 20
"""Pairs that the AUROC of words needs."""
MOST_WORDS = 5
IN_COMMON = 0.6
"""The least AUROC of the words that two sides of a pair share, over those of two pairs."""
Shares = Mapping[str, tuple[float, float]]


def _shown_shares(found: Shares, most: int = MOST_WORDS) -> str:
    ordered = sorted(found.items(), key=lambda one: -abs(one[1][0] - one[1][1]))
    parts = [f"{name} in {a:.0%} and {b:.0%}" for name, (a, b) in ordered[:most]]
    more = f" and {len(found) - most} more" if len(found) > most else ""
    return ", ".join(parts) + more


def _numbers(found: Shares) -> dict[str, float]:
    return {
        f"{name}, {side}": round(share, 4)
        for name, shares in found.items()
        for side, share in zip(("positive", "negative"), shares, strict=True)
    }


def _there(
    look: LookedAt, things: Callable[[str], set[str]]
) -> dict[str, tuple[list[bool], list[bool]]]:
    """Which texts of each side have each thing."""
    first, second = ([things(text) for text in side] for side in look.texts)
    names = dict.fromkeys(name for one in (*first, *second) for name in sorted(one))
    return {
        name: ([name in one for one in first], [name in one for one in second]) for name in names
    }


def _told(look: LookedAt, things: Callable[[str], set[str]]) -> Mapping[str, tuple[float, float]]:
    if not look.sided or len(look) < 2:
        return {}
    return telling(_there(look, things), look.paired)


def length(look: LookedAt) -> Iterator[Finding]:
    """One side is longer."""
    if not look.sided or len(look) < 2:
        return
    first, second = ([float(len(text)) for text in side] for side in look.texts)
    area, p = auroc(first, second), p_of_numbers(first, second, look.paired)
    if p > ALPHA or max(area, 1 - area) < LONGER:
        return
    longer = "positive" if area > 0.5 else "negative"
    means = [float(np.mean(side)) for side in (first, second)]
    yield Finding(
        "length", "warning",
        f"the {longer} side is longer: {means[0]:.0f} and {means[1]:.0f} characters on average; "
        f"length alone tells the sides apart with AUROC {max(area, 1 - area):.2f}",
        "A direction may be of length. Cut or write both sides to the same length.",
        {"auroc": area, "positive": means[0], "negative": means[1], "p": p},
    )  # fmt: skip


def words(look: LookedAt) -> Iterator[Finding]:
    """Single words that one side has, and how far words alone tell the sides apart."""
    found = _told(look, lambda text: set(words_of(text)))
    if found:
        yield Finding(
            "words", "warning",
            f"{len(found)} word{'s' * (len(found) != 1)} tell the sides apart: "
            f"{_shown_shares(found)} of the positive and negative texts",
            "A direction may be of these words. Say the attribute in more ways, and look at the "
            "lexical control after fitting: lint(pairs, model=model, steering=steering).",
            _numbers(dict(list(found.items())[:50])), _with(look, next(iter(found))),
        )  # fmt: skip
    if not look.sided or not look.paired or len(look) < ENOUGH or look.letters:
        return
    area = words_alone(*look.texts)
    if area >= WORDS_ALONE:
        yield Finding(
            "vocabulary", "note",
            f"words alone tell the sides of pairs that were left out apart: AUROC {area:.2f}",
            "For many attributes that is as it should be. Whether the direction is more than its "
            "words, paraphrases and the lexical control say after fitting.", {"auroc": area},
        )  # fmt: skip


def _with(look: LookedAt, word: str) -> tuple[str, ...]:
    having = [n for n, text in enumerate(look.texts[0]) if word in words_of(text)]
    if having and len(look.places) == len(look.texts[0]):
        return shown(look, having[:1], look.texts[0])
    return ()


def words_alone(positive: Sequence[str], negative: Sequence[str]) -> float:
    """AUROC of naive Bayes on the words of pairs, each pair scored by all others."""
    sides = [[set(words_of(text)) for text in side] for side in (positive, negative)]
    totals = [Counter(word for text in side for word in text) for side in sides]
    scores: tuple[list[float], list[float]] = ([], [])
    for own in zip(*sides, strict=True):
        for place, bag in enumerate(own):
            with_ = [totals[0][w] - (w in own[0]) + 1 for w in bag]
            without = [totals[1][w] - (w in own[1]) + 1 for w in bag]
            scores[place].append(sum(map(log, with_), 0.0) - sum(map(log, without)))
    return auroc(*scores)


def opening(look: LookedAt) -> Iterator[Finding]:
    """One side begins, or ends, with words that the other does not."""
    for where, part in (("begin", slice(0, 2)), ("end", slice(-2, None))):
        found = _told(look, lambda text, part=part: {" ".join(words_of(text)[part])} - {""})
        if found and not look.letters:
            yield Finding(
                f"{where}s", "warning",
                f"one side {where}s with its own words: {_shown_shares(found)} of the positive "
                "and negative texts",
                "A direction may be of this template. Vary it, or put it on both sides.",
                _numbers(found),
            )  # fmt: skip
    texts = [text for side in look.texts for text in side]
    starts = Counter(" ".join(words_of(text)[:3]) for text in texts if len(words_of(text)) > 3)
    if starts and len(texts) >= 2 * FEW and starts.most_common(1)[0][1] >= 0.8 * len(texts):
        start, n = starts.most_common(1)[0]
        yield Finding(
            "template", "note", f"{n} of {len(texts)} texts of both sides begin with {start!r}",
            "What is fitted on one template may not hold without it. Vary the opening.",
            {"share": n / len(texts)},
        )  # fmt: skip


MARKS: Mapping[str, Callable[[str], bool]] = {
    "a space first": lambda text: text[:1].isspace(),
    "a capital first": lambda text: text.lstrip()[:1].isupper(),
    "a full stop last": lambda text: text.rstrip().endswith("."),
    "no mark last": lambda text: text.rstrip()[-1:].isalnum(),
    "!": lambda text: "!" in text,
    "?": lambda text: "?" in text,
    "a line break": lambda text: "\n" in text.strip(),
    "a list or markdown": lambda text: bool(re.search(r"^\s*([-*#]|\d+\.) |\*\*", text, re.M)),
    "digits": lambda text: any(letter.isdigit() for letter in text),
    "quotes": lambda text: any(mark in text for mark in "\"“”«»"),
    "brackets": lambda text: "(" in text,
    "emoji or symbols": lambda text: any(ord(letter) >= 0x2600 for letter in text
                                         if not letter.isalpha()),
    "no small letters": lambda text: text.upper() == text != text.lower(),
    "no capitals": lambda text: text.lower() == text != text.upper(),
}  # fmt: skip
"""What is written otherwise, whatever is said."""


def marks(look: LookedAt) -> Iterator[Finding]:
    """One side is written otherwise: marks, capitals, spaces, lists."""
    found = _told(look, lambda text: {name for name, has in MARKS.items() if has(text)})
    if found:
        yield Finding(
            "marks", "warning",
            f"the sides are written differently: {_shown_shares(found)} of the positive and "
            "negative texts",
            "If that is not the attribute, write both sides alike.", _numbers(found),
        )  # fmt: skip


def scripts(look: LookedAt) -> Iterator[Finding]:
    """The sides are in different scripts or languages."""
    for check, of in (("script", script_of), ("language", language_of)):
        found = _told(look, lambda text, of=of: {one} if (one := of(text)) else set())
        if found:
            yield Finding(
                check, "warning",
                f"the sides differ in {check}: {_shown_shares(found)} of the positive and "
                "negative texts",
                f"If the {check} is not the attribute, translate one side.", _numbers(found),
            )  # fmt: skip
        if found or not look.paired or not look.sided:
            continue
        both = [(of(a), of(b)) for a, b in zip(*look.texts, strict=True)]
        mixed = [n for n, (a, b) in enumerate(both) if a and b and a != b]
        if len(mixed) > 0.1 * len(look):
            yield Finding(
                check, "note", f"{len(mixed)} of {len(look)} pairs have sides of two {check}s",
                "Their difference is the attribute's and the other one's. Translate one side.",
                {"mixed": len(mixed)}, shown(look, mixed, look.texts[0]),
            )  # fmt: skip


def parts(look: LookedAt) -> Iterator[Finding]:
    """Pairs that differ in more than one part, or that have no more in common than two pairs."""
    if not look.sided or not look.paired:
        return
    rows = list(zip(look.positive, look.negative, strict=True))
    answered = [n for n, (a, b) in enumerate(rows) if a.asked and b.asked]
    other = [n for n in answered if plain(rows[n][0].asked) != plain(rows[n][1].asked)]
    both = [
        n for n in answered
        if n not in set(other) and rows[n][0].system != rows[n][1].system
        and rows[n][0].before and rows[n][0].said != rows[n][1].said
    ]  # fmt: skip
    for found, said in (
        (other, "ask two different questions"),
        (both, "differ in the system turn and in the response"),
    ):
        if found:
            yield Finding(
                "more than the attribute", "warning",
                f"{len(found)} of {len(look)} pairs {said}",
                "Then their difference is not of the attribute alone. Change one part of a pair.",
                {"pairs": len(found), "share": len(found) / len(look)},
                shown(look, found[:SHOWN], [a.asked for a, _ in rows]),
            )  # fmt: skip
    if not answered and len(look) >= FEW:
        yield from _unrelated(look)


def _unrelated(look: LookedAt) -> Iterator[Finding]:
    """Raw texts whose partner is no nearer than any other text of that side."""
    positive, negative = ([set(words_of(text)) for text in side] for side in look.texts)
    own = [_shared(a, b) for a, b in zip(positive, negative, strict=True)]
    step = max(len(look) // 2, 1)
    others = [_shared(a, negative[(n + step) % len(look)]) for n, a in enumerate(positive)]
    area = auroc(own, others)
    if area >= IN_COMMON or np.mean(own) > 0.9:
        return
    yield Finding(
        "unrelated", "warning",
        f"the sides of a pair have no more words in common ({np.mean(own):.0%}) than those of "
        f"two pairs ({np.mean(others):.0%}; AUROC {area:.2f})",
        "They differ in more than the attribute, such as the topic. Write both sides about the "
        "same, or order the two lists alike.",
        {"shared": float(np.mean(own)), "by chance": float(np.mean(others)), "auroc": area},
        (f"{short(look.texts[0][0], 60)} / {short(look.texts[1][0], 60)}",),
    )  # fmt: skip


def _shared(first: set[str], second: set[str]) -> float:
    whole = len(first) + len(second)
    return 2 * len(first & second) / whole if whole else 0.0
