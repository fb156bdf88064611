"""The texts that a look at pairs compares: two sides, and what is asked before them."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeAlias

from steerlens.conversations import Conversation, is_messages
from steerlens.pairs.reading import read_pairs
from steerlens.pairs.records import HALF, Pairs, Record
from steerlens.prompts import PromptPair

Given: TypeAlias = "Pairs | str | Path | tuple[Sequence[Any], Sequence[Any]] | Sequence[PromptPair]"
"""A file, what was read of it, (positive, negative) lists, or pairs with an instruction."""
_OPTION = re.compile(r"\(([A-Z])\)\s*(.*?)(?=\n?\s*\([A-Z]\)|\Z)", re.DOTALL)


@dataclass(frozen=True)
class Text:
    """One side of a pair: what stands before it (system and user turns), and the text itself."""

    before: str
    said: str
    system: str = ""
    asked: str = ""


@dataclass(frozen=True, eq=False)
class LookedAt:
    """Both sides of all pairs. `sided`: the sides differ by an attribute, and can be compared.

    `letters` are the letters of the matching options, where there are options.
    """

    about: str
    positive: tuple[Text, ...]
    negative: tuple[Text, ...]
    places: tuple[str, ...]
    sided: bool = True
    paired: bool = True
    letters: tuple[str, ...] = ()
    choices: Pairs | None = None

    @cached_property
    def texts(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """The texts that are compared."""
        return tuple(t.said for t in self.positive), tuple(t.said for t in self.negative)

    def __len__(self) -> int:
        return len(self.positive)


def look_at(given: Any) -> LookedAt:
    """The texts of whatever `lint` takes; TypeError or ValueError for anything else."""
    if isinstance(given, str | Path):
        given = read_pairs(given)
    if isinstance(given, tuple) and len(given) == 2 and not is_messages(given[0]):
        return _of_lists(*given)
    if not isinstance(given, Pairs):
        listed = list(given) if isinstance(given, Sequence) else []
        if not listed or not all(isinstance(one, PromptPair | Conversation) for one in listed):
            raise TypeError(
                "lint looks at what read_pairs gives, a file, (positive, negative) lists, or a "
                f"list of PromptPair; found {type(given).__name__}."
            )
        records = tuple(Record(n, pair=pair) for n, pair in enumerate(listed, start=1))
        given = Pairs("pairs", "pairs", "the pairs", "pair", records)
    return _of_pairs(given)


def _of_lists(positive: Sequence[Any], negative: Sequence[Any]) -> LookedAt:
    sides = [[positive] if isinstance(positive, str) else positive,
             [negative] if isinstance(negative, str) else negative]  # fmt: skip
    if len(sides[0]) != len(sides[1]) or not len(sides[0]):
        raise ValueError(
            f"Pairs are looked at; found {len(sides[0])} positive and {len(sides[1])} negative "
            "texts. Give as many of each, in the same order."
        )
    first, second = (tuple(text_of(one) for one in side) for side in sides)
    return LookedAt("the pairs", first, second, tuple(f"pair {n + 1}" for n in range(len(first))))


def _of_pairs(given: Pairs) -> LookedAt:
    places = tuple(f"{given.unit} {one.number}" for one in given)
    about = str(given)
    if given.kind == "choices":
        return _of_choices(given, about, places)
    if given.kind == "pairs" and given.labels is not None:
        return _of_labels(given, about)
    if given.kind == "pairs":
        rows = [one.pair for one in given if one.pair is not None]
        prompted, plain = zip(*map(_with_and_without, rows), strict=True)
        return LookedAt(about, prompted, plain, places, sided=False)
    if given.kind in ("shares", "questions"):
        asked = tuple(Text("", text_of(one).before or text_of(one).said) for one in given.questions)
        places = places if len(places) == len(asked) else tuple(map(str, range(1, len(asked) + 1)))
        return LookedAt(about, asked, (), places, sided=False)
    sides = [tuple(text_of(one) for one in side) for side in given.contrasts]
    if len(sides[0]) != len(places):
        places = tuple(f"pair {n + 1}" for n in range(len(sides[0])))
    return LookedAt(about, sides[0], sides[1], places)


def _of_labels(given: Pairs, about: str) -> LookedAt:
    """Responses with the attribute, and responses without it, which are no pairs."""
    rows = [(one.label or 0.0, _with_and_without(one.pair)[0]) for one in given if one.pair]
    liked = tuple(text for label, text in rows if label >= HALF)
    disliked = tuple(text for label, text in rows if label < HALF)
    places = tuple(f"{given.unit} {one.number}" for one in given if (one.label or 0.0) >= HALF)
    both = bool(liked and disliked)
    return LookedAt(about, liked, disliked, places, sided=both, paired=False)


def _of_choices(given: Pairs, about: str, places: tuple[str, ...]) -> LookedAt:
    """The words of the options, where the question has them; else the options themselves."""
    positive, negative, letters = [], [], []
    for choice in given.choices:
        asked = text_of(choice.question)
        before = asked.before or asked.said
        written = {letter: text.strip() for letter, text in _OPTION.findall(before)}
        both = []
        for option in (choice.matching[0], choice.not_matching[0]):
            letter = option.strip().strip("().:").upper()
            both.append(Text(before, written.get(letter) or option, asked=before))
        positive.append(both[0])
        negative.append(both[1])
        letters.append(choice.matching[0].strip().strip("().:"))
    return LookedAt(
        about, tuple(positive), tuple(negative), places, letters=tuple(letters), choices=given
    )


def _with_and_without(pair: Any) -> tuple[Text, Text]:
    """A pair with an instruction: the response, after the prompted and after the plain prompt."""
    if isinstance(pair, Conversation):
        return text_of(pair), text_of(pair.without_system())
    said = pair.response if isinstance(pair.response, str) else f"token ids {list(pair.response)}"
    prompted, plain = (text_of(side) for side in (pair.prompted, pair.plain))
    return tuple(  # pyright: ignore[reportReturnType]
        Text(one.before or one.said, said, one.system, one.asked) for one in (prompted, plain)
    )


def text_of(prompt: Any) -> Text:
    """A prompt as text; what is compared is its response, or, without one, all of it."""
    if is_messages(prompt):
        prompt = Conversation.of(prompt)
    if isinstance(prompt, str):
        return Text("", prompt)
    if not isinstance(prompt, Conversation):
        raise TypeError(
            f"lint compares texts; found {type(prompt).__name__}. Give strings or Conversations."
        )
    earlier = [said for _, said in prompt.history]
    before = "\n".join([*([prompt.system] if prompt.system else []), *earlier, prompt.user])
    system, said = prompt.system or "", prompt.response
    said = said if isinstance(said, str) else f"token ids {list(said)}"
    return Text(before if said else "", said or before, system, "\n".join([*earlier, prompt.user]))
