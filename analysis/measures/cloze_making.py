"""Cloze items (`measures.cloze`) made of any encyclopedia text, by rules and a seed alone."""

import random
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from .cloze import Cloze, Kind

DISTRACTORS = 3
RARE = 0.01
"""The largest share of the texts that a rare word may be in."""
BEFORE = (5, 30)
"""Fewest and most words before the target."""
_SENTENCE = re.compile(r"(?<=[a-z0-9)'\"][.!?])\s+(?=['\"(]?[A-Z])")
_NAME = re.compile(r"(?<=[a-z,] )[A-Z][a-z]{2,}(?: (?:of |the )?[A-Z][a-z]{2,})*(?=[ ,.;])")
_RARE_WORD = re.compile(r"(?<=[a-z,] )[a-z]{6,}(?=[ ,.;])")
_DATES = re.compile(
    r"\b(?:January|February|March|April|May|June|July|August|September|October|November|December"
    r"|Monday|Tuesday|Wednesday|Thursday|Friday|Saturday|Sunday)\b"
)
_PLAIN = re.compile(r"[A-Za-z0-9 ,.;:'\"()-]+")


@dataclass(frozen=True)
class _Gap:
    """A target in a text, before distractors are found."""

    text: int
    before: str
    target: str
    kind: Kind


def cloze_items(
    texts: Sequence[str] | Mapping[str, str],
    n: int,
    seed: int = 0,
    *,
    kinds: Sequence[Kind] = ("name", "word"),
    distractors: int = DISTRACTORS,
) -> tuple[Cloze, ...]:
    """`n` items from as many texts, as many of each kind as can be, from the first two sentences.

    `texts` are texts, or texts by title. The same texts and seed make the same items. ValueError
    where they make fewer than `n`.
    """
    titles = list(texts) if isinstance(texts, Mapping) else [""] * len(texts)
    listed = list(texts.values()) if isinstance(texts, Mapping) else list(texts)
    drawn = random.Random(f"cloze {seed}")
    gaps = _pools(listed, kinds, drawn)
    pools = {kind: list(pool) for kind, pool in gaps.items()}
    items: list[Cloze] = []
    used: set[int] = set()
    while len(items) < n and any(pools.values()):
        for kind in kinds:
            gap = _next(pools[kind], used)
            if gap is None or len(items) == n:
                continue
            others = _distractors(gap, gaps[kind], listed, distractors, drawn)
            if others is not None:
                used.add(gap.text)
                title = titles[gap.text]
                items.append(Cloze(gap.before, gap.target, others, kind, title))
    if len(items) < n:
        raise ValueError(
            f"{len(listed)} texts make {len(items)} items, and {n} were asked for. Give more texts."
        )
    return tuple(items)


def _pools(
    texts: Sequence[str], kinds: Sequence[Kind], drawn: random.Random
) -> dict[Kind, list[_Gap]]:
    """The gaps of each kind, in an order that is drawn."""
    openings = [" ".join(_SENTENCE.split(" ".join(text.split()))[:2]) for text in texts]
    seen = Counter(word for text in openings for word in set(re.findall(r"[a-z]+", text)))
    most = max(1, int(RARE * len(texts)))
    gaps = [gap for i, opening in enumerate(openings) for gap in _gaps(i, opening)]
    gaps = [gap for gap in gaps if gap.kind == "name" or seen[gap.target] <= most]
    drawn.shuffle(gaps)
    return {kind: [gap for gap in gaps if gap.kind == kind] for kind in kinds}


def _gaps(number: int, opening: str) -> Iterator[_Gap]:
    """The targets of an opening that is plain English text."""
    patterns: tuple[tuple[Kind, re.Pattern[str]], ...] = (("name", _NAME), ("word", _RARE_WORD))
    for kind, pattern in patterns:
        for match in pattern.finditer(opening):
            before, target = opening[: match.start()].rstrip(), match[0]
            if not _DATES.search(target) and _stands(before, target):
                yield _Gap(number, before, target, kind)


def _stands(before: str, target: str) -> bool:
    """Whether a beginning is plain, of a fair length, and does not hold the target's words."""
    short = BEFORE[0] <= len(before.split()) <= BEFORE[1]
    said = any(word.lower() in before.lower() for word in target.split())
    return short and not said and _PLAIN.fullmatch(before) is not None


def _next(pool: list[_Gap], used: set[int]) -> _Gap | None:
    """The next gap of a text that has none yet, taken out of the pool."""
    while pool:
        gap = pool.pop()
        if gap.text not in used:
            return gap
    return None


def _distractors(
    gap: _Gap, pool: Sequence[_Gap], texts: Sequence[str], n: int, drawn: random.Random
) -> tuple[str, ...] | None:
    """Targets of other texts that could stand there and are not in this text; None if too few."""
    own, form = texts[gap.text].lower(), _form(gap)
    alike = {one.target for one in pool if _form(one) == form and one.target.lower() not in own}
    return tuple(drawn.sample(sorted(alike), n)) if len(alike) >= n else None


def _form(gap: _Gap) -> tuple[str, int, str]:
    """What answers to one item have in common: the word before, the number of words, the ending."""
    ending = gap.target[-1] if gap.kind == "word" else ""
    return gap.before.split()[-1].lower(), len(gap.target.split()), ending
