"""`Pairs`: what a data file holds, in the forms that fits and benches take, record by record.

A file is of one kind:

    pairs       a prompt with and without an instruction, and the response (`Pairs.pairs`)
    contrasts   a positive and a negative side (`Pairs.contrasts`)
    choices     a question with options, some of which match the behaviour (`Pairs.choices`)
    answers     single responses, each with how much of the attribute it has (`Record.label`)
    shares      a prompt, and how often each option should come next (`Pairs.shares`)
    questions   what is asked, and nothing else (`Pairs.questions`)
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, TypeAlias

from steerlens.borders import common_head
from steerlens.conversations import Conversation
from steerlens.kinds import require_kinds
from steerlens.parsing import few, short
from steerlens.prompts import Encoded, PromptPair, encode
from steerlens.types import HookedModel

Kind: TypeAlias = Literal["pairs", "contrasts", "choices", "answers", "shares", "questions"]
Side: TypeAlias = str | Conversation
Sides: TypeAlias = tuple[list[Side], list[Side]]
HALF = 0.5
"""A response with a label from here on has the attribute."""
_LETTER = re.compile(r"(\s*\(?[A-Za-z0-9])\)?[.:]?\s*")


@dataclass(frozen=True)
class Choice:
    """A question, and its options as the file writes them: " (A)" keeps the space before it."""

    question: Side
    matching: tuple[str, ...]
    not_matching: tuple[str, ...]

    def __post_init__(self) -> None:
        both = set(self.matching) & set(self.not_matching)
        if both or not self.matching or not self.not_matching:
            found = f"{few(sorted(both))} is both" if both else "one of the two has none"
            raise ValueError(
                f"A choice has options that match the behaviour and others that do not; {found}."
            )

    @property
    def options(self) -> tuple[str, ...]:
        """All options, those that match first."""
        return (*self.matching, *self.not_matching)


def up_to_letter(option: str) -> str:
    """The option up to its letter, " (A" of " (A)"; an option of words as it is."""
    found = _LETTER.fullmatch(option)
    return option if found is None else found[1]


@dataclass(frozen=True)
class Record:
    """One record of a file: its line, row or number, and as much of the rest as the file has."""

    number: int
    question: Side | None = None
    pair: PromptPair | Conversation | None = None
    positive: Side | None = None
    negative: Side | None = None
    choice: Choice | None = None
    shares: Mapping[str, float] | None = None
    label: float | None = None
    group: str | None = None
    details: Mapping[str, Any] = field(default_factory=dict, repr=False)


@dataclass(frozen=True)
class Pairs:
    """What a data file holds; `len`, slices and `only(group)` give parts of it.

    `format` is what the file was read as, `unit` what its records are counted in (line, row,
    record), `notes` what a reader should know, and `about` what the file says once for all records.
    """

    kind: Kind
    format: str
    path: str
    unit: str
    records: tuple[Record, ...]
    notes: tuple[str, ...] = ()
    about: Mapping[str, Any] = field(default_factory=dict, repr=False)

    def __len__(self) -> int:
        return len(self.records)

    def __iter__(self) -> Iterator[Record]:
        return iter(self.records)

    def __getitem__(self, part: slice) -> "Pairs":
        if not isinstance(part, slice):
            raise TypeError(
                f"A part of Pairs is a slice, pairs[:10], and is Pairs again; found {part!r}. One "
                "record is pairs.records[3]."
            )
        return replace(self, records=self.records[part])

    def __str__(self) -> str:
        groups = f" in {len(self.groups)} groups" if self.groups else ""
        return f"{self.format}: {len(self)} {self.kind}{groups} from {self.path}"

    def where(self, number: int) -> str:
        """Where in the file record `number` (from 0) was: for messages."""
        require_kinds(Pairs.where, locals())
        if not -len(self.records) <= number < len(self.records):
            raise ValueError(
                f"{self.path} holds records 0 to {len(self.records) - 1}; found {short(number)}."
            )
        return f"{self.path}, {self.unit} {self.records[number].number}"

    @property
    def groups(self) -> tuple[str, ...]:
        """The names of the parts that the file has, in its order: concepts, categories, people."""
        return tuple(dict.fromkeys(one.group for one in self.records if one.group is not None))

    def only(self, group: str) -> "Pairs":
        """The records of one group, and those of none; ValueError where there is no such group."""
        require_kinds(Pairs.only, locals())
        if group not in self.groups:
            raise ValueError(
                f"{self.path} has no group {short(group)}. It has {few(self.groups, 12) or 'none'}."
            )
        kept = tuple(one for one in self.records if one.group in (group, None))
        return replace(self, records=kept)

    # -- What fits take ----------------------------------------------------------------------------

    @property
    def pairs(self) -> list[PromptPair | Conversation]:
        """Pairs with an instruction, for PSR and others; a Conversation is still to be answered."""
        found = [one.pair for one in self.records if one.pair is not None]
        if not found:
            raise self._lacks("pairs with an instruction", "pairs.prompted(instruction)")
        return found

    @property
    def labels(self) -> list[float] | None:
        """How much of the attribute each response has, 0 to 1; None without labels."""
        found = [one.label for one in self.records if one.label is not None]
        return found if len(found) == len(self) and found else None

    @property
    def contrasts(self) -> Sides:
        """The positive and the negative sides, in one order. Of an option, all up to its letter."""
        if self.kind == "answers":
            return self._matched()
        both = [sides for one in self.records if (sides := _contrast(one)) is not None]
        if not both:
            raise self._lacks("two sides", "two lists of your own")
        return [positive for positive, _ in both], [negative for _, negative in both]

    def sides(self, model: HookedModel) -> tuple[list[Any], list[Any]]:
        """Both sides as `CAA.fit` and others take them: (positive, negative).

        Options are rows of tokens that end with the letter, of which the letter alone is the
        response, so a fit reads the letter and not the mean of "(", "A", ")". Options of words are
        rows from the first token on in which the two differ.
        """
        require_kinds(Pairs.sides, locals())
        positive, negative = self.contrasts
        if self.kind != "choices":
            return positive, negative
        rows = [self._letters(model, number) for number in range(len(self))]
        return [row for row, _ in rows], [row for _, row in rows]

    def prompted(self, instruction: str) -> list[PromptPair]:
        """Pairs whose system turn is this instruction, and whose response the positive side's.

        ValueError for raw texts: they ask nothing that an instruction could stand before.
        """
        require_kinds(Pairs.prompted, locals())
        return [
            PromptPair.with_system(replace(side, system=None, response=""), instruction, text)
            for side, text in map(self._answered, self.contrasts[0])
        ]

    @property
    def shares(self) -> tuple[list[Side], list[dict[str, float]]]:
        """Prompts, and how often each option should come next: for COLD's loss `options`."""
        both = [(one.question, one.shares) for one in self.records if one.shares is not None]
        if not both:
            raise self._lacks("shares of options", "sl.read_wishes, on a file of them")
        return [_there(asked) for asked, _ in both], [dict(_there(shares)) for _, shares in both]

    @property
    def choices(self) -> list[Choice]:
        """Questions with their options."""
        found = [one.choice for one in self.records if one.choice is not None]
        if not found:
            raise self._lacks("questions with options", "pairs.contrasts")
        return found

    @property
    def questions(self) -> list[Side]:
        """What is asked, each question once, without an instruction and a response."""
        found = (self.question_of(one) for one in self.records)
        return list(dict.fromkeys(asked for asked in found if asked is not None))

    @staticmethod
    def question_of(record: Record) -> Side | None:
        """What a record asks, without an instruction and a response; None for a raw text."""
        return _question_of(record)

    # -- Inside ------------------------------------------------------------------------------------

    def _lacks(self, wanted: str, instead: str) -> ValueError:
        return ValueError(
            f"{self.path} has no {wanted}: it was read as {self.format}, which is {self.kind}. "
            f"Take {instead}, or give another file."
        )

    def _letters(self, model: HookedModel, number: int) -> tuple[Encoded, Encoded]:
        """The rows of a record's two options, of which the letter is the response."""
        choice = _there(self.records[number].choice)
        option, other = choice.matching[0], choice.not_matching[0]
        rows = [encode(model, side) for side in _there(_contrast(self.records[number]))]
        border = common_head(rows[0].ids, rows[1].ids)
        if any(len(row.ids) <= border for row in rows) or border < rows[0].response:
            raise ValueError(
                f"{self.where(number)}: the options {short(option)} and {short(other)} begin with "
                "the same tokens, or none of their own, so no token tells them apart. Write them "
                "as letters, (A) and (B)."
            )
        first, second = (replace(row, response=border, text=None) for row in rows)
        return first, second

    def _answered(self, side: Side) -> tuple[Conversation, Any]:
        if not isinstance(side, Conversation) or not side.response:
            what = "raw text" if isinstance(side, str) else "a question without a response"
            raise ValueError(
                f"{self.path}: {short(side)} is {what}; a pair with an instruction is a question "
                "and its response. Have the model write them: sl.prompted_pairs(model, questions, "
                "instruction)."
            )
        return side, side.response

    def _matched(self) -> Sides:
        """Answers with the attribute beside answers without it, of one question where they can be.

        Where no question has both, the first with goes with the first without, and so on.
        """
        liked = [one for one in self.records if (one.label or 0.0) >= HALF]
        disliked = [one for one in self.records if (one.label or 0.0) < HALF]
        if not liked or not disliked:
            found = f"{len(liked)} with the attribute and {len(disliked)} without it"
            raise ValueError(
                f"{self.path}: a contrast needs answers of both sorts; found {found}. Read a file "
                "that has both, or take the positive of one file and the negative of another."
            )
        left: dict[Any, list[Record]] = {}
        for one in disliked:
            left.setdefault(one.question, []).append(one)
        pairs = [(one, left[one.question].pop(0)) for one in liked if left.get(one.question)]
        pairs = pairs or list(zip(liked, disliked, strict=False))
        return [_there(one.positive) for one, _ in pairs], [
            _there(one.positive) for _, one in pairs
        ]


def _contrast(record: Record) -> tuple[Side, Side] | None:
    """The two sides of a record, where it has them."""
    if record.positive is not None and record.negative is not None:
        return record.positive, record.negative
    if record.choice is not None:
        asked = record.choice.question
        asked = asked if isinstance(asked, Conversation) else Conversation(asked)
        both = (record.choice.matching[0], record.choice.not_matching[0])
        positive, negative = (replace(asked, response=up_to_letter(text)) for text in both)
        return positive, negative
    if isinstance(record.pair, PromptPair):
        plain, prompted = record.pair.plain, record.pair.prompted
        if isinstance(plain, Conversation) and isinstance(prompted, Conversation):
            said = record.pair.response
            return replace(prompted, response=said), replace(plain, response=said)
        return None
    if isinstance(record.pair, Conversation):
        return record.pair, record.pair.without_system()
    return None


def _question_of(record: Record) -> Side | None:
    asked = record.question
    if asked is None and record.choice is not None:
        asked = record.choice.question
    if asked is None and record.pair is not None:
        asked = record.pair if isinstance(record.pair, Conversation) else record.pair.plain
    if asked is None:
        asked = record.positive
        if not isinstance(asked, Conversation):
            return None  # a raw text is a side, and asks nothing
    if isinstance(asked, str):
        return asked
    whole = asked if isinstance(asked, Conversation) else Conversation.of(asked)
    return replace(whole, system=None, response="")


def _there(value: Any) -> Any:
    assert value is not None
    return value
