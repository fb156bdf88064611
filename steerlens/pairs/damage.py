"""Pairs that are broken: empty, twice there, cut off, or saying the opposite of each other."""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence

from steerlens.checks import FEW
from steerlens.pairs.findings import Finding
from steerlens.pairs.looked_at import LookedAt
from steerlens.pairs.significance import ALPHA, p_of_discordant
from steerlens.pairs.words import plain, words_of
from steerlens.parsing import short

SHOWN = 3
"""Examples of a finding at most."""
UNIFORM = 0.5
"""A side of which this share is one and the same text."""
CUT = 20
"""Texts of so many words should end with a mark."""
CUT_OFF = 0.2
NEAR = 0.8
"""Texts that share so much of their runs of three words are near copies."""
_ENDS = re.compile(r"[.!?…。！？\"'”’»)\]}*`:;|>~-]$|[^\w\s,]$")


def shown(look: LookedAt, numbers: Iterable[int], side: Sequence[str]) -> tuple[str, ...]:
    """Some of the texts, with their places."""
    some = list(numbers)[:SHOWN]
    return tuple(f"{look.places[n]}: {short(side[n], 100)}" for n in some)


def empty(look: LookedAt) -> Iterator[Finding]:
    """Sides without any text."""
    for name, side in zip(("positive", "negative"), look.texts, strict=True):
        found = [n for n, text in enumerate(side) if not text.strip()]
        if found:
            known = len(look.places) == len(side)
            places = look.places if known else [f"text {n + 1}" for n in range(len(side))]
            yield Finding(
                "empty", "error", f"{len(found)} of {len(side)} {name} sides are empty",
                "Leave these pairs out, or write the missing side.", {"empty": len(found)},
                tuple(places[n] for n in found[:SHOWN]),
            )  # fmt: skip


def identical(look: LookedAt) -> Iterator[Finding]:
    """Pairs whose sides are the same."""
    if not look.sided or not look.paired:
        return
    both = zip(look.positive, look.negative, strict=True)
    found = [n for n, (a, b) in enumerate(both) if (a.before, a.said) == (b.before, b.said)]
    if found:
        yield Finding(
            "identical", "error", f"{len(found)} of {len(look)} pairs have two equal sides",
            "They say nothing of the attribute: leave them out.", {"identical": len(found)},
            shown(look, found, look.texts[0]),
        )  # fmt: skip


def duplicates(look: LookedAt) -> Iterator[Finding]:
    """Pairs that are there twice, and questions that are."""
    rivals = look.negative if look.paired and look.negative else look.positive
    whole = [
        (plain(a.before), plain(a.said), plain(b.said))
        for a, b in zip(look.positive, rivals, strict=True)
    ]
    again = _again(whole)
    if again:
        yield Finding(
            "duplicates", "warning",
            f"{len(again)} of {len(look)} pairs are copies of earlier ones (but for case, marks "
            "and spacing)",
            "Leave the copies out: they count twice, and may be on both sides of a split.",
            {"copies": len(again), "share": len(again) / len(look)},
            shown(look, again, look.texts[0]),
        )  # fmt: skip
    asked = [plain(text.before) for text in look.positive]
    repeated = [n for n in _again(asked) if asked[n] and n not in set(again)]
    if repeated and look.sided:
        yield Finding(
            "repeated questions", "note",
            f"{len(repeated)} of {len(look)} pairs ask what an earlier pair asks",
            "Keep the pairs of one question on one side of every split.",
            {"repeated": len(repeated)}, shown(look, repeated, [t.before for t in look.positive]),
        )  # fmt: skip


def _again(keys: Sequence[object]) -> list[int]:
    seen: set[object] = set()
    return [n for n, key in enumerate(keys) if key in seen or seen.add(key)]


def uniform(look: LookedAt) -> Iterator[Finding]:
    """A side of which much is one and the same text."""
    if not look.sided or look.letters or len(look) < FEW:
        return
    for name, side in zip(("positive", "negative"), look.texts, strict=True):
        text, n = Counter(map(plain, side)).most_common(1)[0]
        if n / len(side) >= UNIFORM:
            yield Finding(
                "uniform", "warning", f"{n} of {len(side)} {name} sides are the same text",
                "A direction may then be of these very words. Vary how the attribute is shown.",
                {"share": n / len(side)}, (short(text, 100),),
            )  # fmt: skip


def contradictions(look: LookedAt) -> Iterator[Finding]:
    """Texts that are positive in one place and negative in another, after the same question."""
    if not look.sided or look.letters:
        return
    liked = defaultdict(list)
    for n, text in enumerate(look.positive):
        liked[plain(text.before), plain(text.said)].append(n)
    found = [
        (liked[key][0], n)
        for n, text in enumerate(look.negative)
        if (key := (plain(text.before), plain(text.said))) in liked and key[1]
        if not (look.paired and liked[key] == [n])
    ]
    if found:
        yield Finding(
            "contradictions", "error",
            f"{len(found)} negative sides are also positive ones, after the same question",
            "Decide which they are: as it is, they take from the direction what they add to it.",
            {"contradictions": len(found)},
            shown(look, [n for n, _ in found], look.texts[0]),
        )  # fmt: skip


def truncated(look: LookedAt) -> Iterator[Finding]:
    """Long texts that end in the middle of a sentence, where others end with a mark."""
    sides = look.texts if look.sided else look.texts[:1]
    texts = [text for side in sides for text in side if len(words_of(text)) >= CUT]
    if len(texts) < FEW:
        return
    cut = [text for text in texts if not _ENDS.search(text.rstrip())]
    share = len(cut) / len(texts)
    if not cut or share > 1 - CUT_OFF:  # a style without marks, not an end that is missing
        return
    yield Finding(
        "truncated", "warning" if share >= CUT_OFF else "note",
        f"{len(cut)} of {len(texts)} longer texts end in the middle of a sentence",
        "Were they cut off at a number of tokens? Write them longer, or cut all at a sentence.",
        {"truncated": len(cut), "share": share},
        tuple("..." + text.rstrip()[-60:] for text in cut[:SHOWN]),
    )  # fmt: skip


def letters(look: LookedAt) -> Iterator[Finding]:
    """Options whose matching letter is mostly the same one."""
    counts = Counter(look.letters)
    if len(look.letters) < FEW:
        return
    name = "letter" if all(len(letter) == 1 for letter in counts) else "answer"
    (most, n), total = counts.most_common(1)[0], sum(counts.values())
    p = p_of_discordant(n, total - n)
    if p > ALPHA or n / total < UNIFORM + 0.1:
        return
    yield Finding(
        "letters", "warning", f"the matching {name} is {most} in {n} of {total} questions",
        "A direction may then be of the letter. Swap the options of half of the questions.",
        {"share": n / total, "p": p},
    )  # fmt: skip


def few(look: LookedAt) -> Iterator[Finding]:
    """Too few pairs for anything to be told from chance."""
    if 0 < len(look) < FEW:
        yield Finding(
            "few", "note", f"{len(look)} pairs: what tells the sides apart cannot be tested",
            f"Of fewer than {FEW} pairs, anything can be on one side by chance. Give more.",
            {"pairs": len(look)},
        )  # fmt: skip


# -- Train and test --------------------------------------------------------------------------------


def leaks(train: LookedAt, test: LookedAt) -> Iterator[Finding]:
    """Texts of the test data that training data hold too, as they are or nearly so."""
    known = [text for side in (train.positive, train.negative) for text in side]
    for name, part in (("texts", "said"), ("questions", "before")):
        ours = {plain(getattr(t, part)) for t in known} - {""}
        theirs = list(dict.fromkeys(
            plain(getattr(t, part)) for side in (test.positive, test.negative) for t in side
        ))  # fmt: skip
        theirs = [text for text in theirs if text and len(text.split()) > 1]
        same = [text for text in theirs if text in ours]
        if same:
            yield _leak("leak", "error", name, "are in the training data too", same, theirs)
        near = _near(ours, [text for text in theirs if text not in ours])
        if near:
            yield _leak("near leak", "warning", name, "are nearly in the training data",
                        near, theirs)  # fmt: skip


def _leak(
    check: str, severity: str, name: str, said: str, found: list[str], of: list[str]
) -> Finding:
    return Finding(
        check, severity,  # pyright: ignore[reportArgumentType]
        f"{len(found)} of {len(of)} test {name} {said}",
        "Leave them out of one of the two: a score on them says nothing of other texts.",
        {"leaked": len(found), "share": len(found) / len(of)},
        tuple(short(text, 100) for text in found[:SHOWN]),
    )  # fmt: skip


def _runs(text: str) -> set[tuple[str, ...]]:
    words = text.split()
    return {tuple(words[i : i + 3]) for i in range(len(words) - 2)}


def _near(known: Iterable[str], asked: Sequence[str]) -> list[str]:
    """The texts that share most of their runs of three words with one that is known."""
    holders: dict[tuple[str, ...], list[int]] = defaultdict(list)
    sizes = []
    for number, text in enumerate(known):
        runs = _runs(text)
        sizes.append(len(runs))
        for run in runs:
            holders[run].append(number)
    found = []
    for text in asked:
        runs = _runs(text)
        shared = Counter(n for run in runs for n in holders.get(run, ()))
        if any(n / (len(runs) + sizes[i] - n) >= NEAR for i, n in shared.items()):
            found.append(text)
    return found
