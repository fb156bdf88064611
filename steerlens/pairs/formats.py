"""The data files that are known: by which fields each is told, and what it holds.

The fields are those that the authors' own code reads and writes. What a file says that has no place
in a `Record` is kept in its `details`.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from steerlens.conversations import Conversation, is_messages
from steerlens.jsonl import labelled_pair, side_of, wish_of
from steerlens.pairs.records import Choice, Kind, Record, Side
from steerlens.pairs.table import Table
from steerlens.parsing import few, short

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
COHERENT = 50.0
"""Answers below are left out, as persona vectors' own code does."""
MATCHING, NOT_MATCHING = "answer_matching_behavior", "answer_not_matching_behavior"
TWO_SIDES = (
    ("positive", "negative"),
    ("pos", "neg"),
    ("chosen", "rejected"),
    ("matching", "not_matching"),
    ("with", "without"),
)
"""Names of the two sides of a contrast, the positive first."""
ASKED = ("question", "prompt", "user", "instruction")
"""Names of what is asked before both."""
TRAIT_EXTRAS = ("prompt", "answer", "coherence", "question", "question_id")
Parsed = tuple[list[Record], tuple[str, ...], dict[str, Any]]
"""Records, notes, and what the file says once for all of them."""


@dataclass(frozen=True)
class Format:
    """One kind of file: `told_by` says in words what `tells` looks for in a table."""

    name: str
    kind: Kind
    told_by: str
    tells: Callable[[Table], bool]
    parse: Callable[[Table], Parsed]


def each(table: Table, parse: Callable[[dict[str, Any], int], Record]) -> Parsed:
    """Every row by `parse`; what is wrong with one is told with its place."""
    records = []
    for place, (row, number) in enumerate(zip(table.rows, table.numbers, strict=True)):
        try:
            records.append(parse(row, number))
        except (ValueError, TypeError, OverflowError) as error:
            raise ValueError(f"{table.where(place)}: {str(error).rstrip('.')}.") from error
    return records, (), {}


def has(*names: str) -> Callable[[Table], bool]:
    """Whether the first record has all of these fields."""
    return lambda table: set(names) <= set(table.fields)


def text_in(row: Mapping[str, Any], name: str) -> str:
    """A field that must be text and not blank."""
    if name not in row:
        raise ValueError(f"the field {name!r} is missing (found: {few(row) or 'none'})")
    if not isinstance(row[name], str) or not row[name].strip():
        raise ValueError(f"the field {name!r} must be text; found {short(row[name])}")
    return row[name]


def options_in(row: Mapping[str, Any], name: str) -> tuple[str, ...]:
    """One option, or a list of them; a space before a letter stays."""
    given = row.get(name)
    listed = given if isinstance(given, list) else [text_in(row, name)]
    return tuple(text_in({name: one}, name) for one in listed)


def number_in(row: Mapping[str, Any], name: str) -> float:
    """A field that must be a finite number, or one as text."""
    value = row.get(name)
    try:
        if isinstance(value, bool) or not isinstance(value, int | float | str):
            raise ValueError
        found = float(value)
    except (ValueError, OverflowError):
        found = math.nan
    if not math.isfinite(found):
        raise ValueError(f"the field {name!r} must be a number; found {short(value)}")
    return found


def rest_of(row: Mapping[str, Any], *used: str) -> dict[str, Any]:
    """The fields that have no place of their own; nulls, as padded tables have them, are none."""
    return {name: value for name, value in row.items() if name not in used and value is not None}


# -- Ours ------------------------------------------------------------------------------------------


def _contrast(table: Table) -> Parsed:
    names = next(two for two in TWO_SIDES if set(two) <= set(table.fields))
    return each(table, lambda row, number: _two_sides(row, number, *names))


def _two_sides(row: dict[str, Any], number: int, positive: str, negative: str) -> Record:
    asked = next((name for name in ASKED if isinstance(row.get(name), str)), None)
    sides = [_side(row, name, asked) for name in (positive, negative)]
    details = rest_of(row, positive, negative, asked or "")
    question = None if asked is None else Conversation(text_in(row, asked))
    return Record(number, question, positive=sides[0], negative=sides[1], details=details)


def _side(row: dict[str, Any], name: str, asked: str | None) -> Side:
    """A side by itself, or as the response to what is asked."""
    side = side_of(row, name)
    if not isinstance(side, str) or asked is None:
        return side
    return Conversation(text_in(row, asked), response=text_in(row, name))


def _pair(row: dict[str, Any], number: int) -> Record:
    pair, label = labelled_pair({k: v for k, v in row.items() if v is not None})
    return Record(number, pair=pair, label=label)


def _wish(row: dict[str, Any], number: int) -> Record:
    prompt, shares = wish_of(row)
    return Record(number, prompt, shares={k: number_in(shares, k) for k in shares})


# -- Choices ---------------------------------------------------------------------------------------


def _caa(row: dict[str, Any], number: int) -> Record:
    asked = text_in(row, "question")
    choice = Choice(asked, options_in(row, MATCHING), options_in(row, NOT_MATCHING))
    return Record(
        number, asked, choice=choice, details=rest_of(row, "question", MATCHING, NOT_MATCHING)
    )


def _correct(row: dict[str, Any], number: int) -> Record:
    asked = text_in(row, "prompt")
    choice = Choice(asked, options_in(row, "correct"), options_in(row, "incorrect"))
    details, group = rest_of(row, "prompt", "correct", "incorrect", "category"), row.get("category")
    named = group if isinstance(group, str) else None
    return Record(number, asked, choice=choice, group=named, details=details)


def _bipo_letters(row: dict[str, Any], number: int) -> Record:
    asked = text_in(row, "question")
    if "(A)" not in asked:
        options = f"(A) {text_in(row, 'A')}\n (B) {text_in(row, 'B')}"
        asked = f"{asked.rstrip()}\n\nChoices:\n {options}"
    both = [_as_letter(row, name) for name in ("matching", "not_matching")]
    choice = Choice(asked, (both[0],), (both[1],))
    return Record(number, asked, choice=choice, details=rest_of(row, "matching", "not_matching"))


def _as_letter(row: dict[str, Any], name: str) -> str:
    letter = text_in(row, name).strip().strip("()")
    if letter not in ("A", "B"):
        raise ValueError(f"the field {name!r} must be A or B; found {short(row[name])}")
    return f"({letter})"


# -- Answers with labels ---------------------------------------------------------------------------


def _trait_of(table: Table) -> str | None:
    """The column of a persona-vectors response file that is the trait's score."""
    fields = set(table.fields)
    if not {"answer", "coherence"} <= fields or not fields & {"prompt", "question"}:
        return None
    scored = [name for name in table.fields if name not in TRAIT_EXTRAS]
    return scored[0] if len(scored) == 1 else None


def _responses(table: Table) -> Parsed:
    trait = _trait_of(table)
    assert trait is not None
    records, _, _ = each(table, lambda row, number: _response(row, number, trait))
    kept = [one for one in records if one.details["coherence"] >= COHERENT]
    if not kept:
        raise ValueError(
            f"{table.path}: none of {len(records)} answers has a coherence of {COHERENT:g} or more."
        )
    left_out = len(records) - len(kept)
    note = f"{left_out} of {len(records)} answers left out: coherence below {COHERENT:g}"
    return kept, (note,) if left_out else (), {"trait": trait}


def _response(row: dict[str, Any], number: int, trait: str) -> Record:
    score, coherence = number_in(row, trait), number_in(row, "coherence")
    if not 0 <= score <= 100:
        raise ValueError(f"the field {trait!r} is a score from 0 to 100; found {score:g}")
    asked = Conversation(text_in(row, "question" if "question" in row else "prompt"))
    details = rest_of(row, "answer", trait) | {"coherence": coherence}
    said = Conversation(asked.user, response=text_in(row, "answer"))
    return Record(number, asked, positive=said, label=score / 100, details=details)


def _axbench(row: dict[str, Any], number: int) -> Record:
    category = text_in(row, "category")
    if category not in ("positive", "negative", "hard negative"):
        raise ValueError(f"the field 'category' is positive or negative; found {short(category)}")
    liked = category == "positive"
    asked = Conversation(text_in(row, "input"))
    said = Conversation(asked.user, response=text_in(row, "output"))
    group = text_in(row, "output_concept") if liked else None
    details = rest_of(row, "input", "output", "output_concept", "category")
    return Record(
        number, asked, positive=said, label=1.0 if liked else 0.0, group=group, details=details
    )


# -- One object for the whole file -----------------------------------------------------------------


def _is_trait(table: Table) -> bool:
    return table.whole is not None and {"instruction", "questions"} <= set(table.whole)


def _trait(table: Table) -> Parsed:
    """Every question under every positive and negative instruction."""
    whole: Any = table.whole
    instructions, questions = whole["instruction"], whole["questions"]
    both = isinstance(instructions, list) and isinstance(questions, list)
    if not both or not instructions or not questions:
        raise ValueError(f"{table.path}: 'instruction' and 'questions' must be lists with items.")
    records, number = [], 0
    for i, pair in enumerate(instructions):
        if not isinstance(pair, dict) or not {"pos", "neg"} <= set(pair):
            raise ValueError(f'{table.path}, instruction {i + 1}: it must be {{"pos", "neg"}}.')
        for question in questions:
            number += 1
            try:
                asked = text_in({"questions": question}, "questions")
                sides = [Conversation(asked, text_in(pair, side)) for side in ("pos", "neg")]
            except ValueError as error:
                raise ValueError(f"{table.path}, record {number}: {error}.") from error
            records.append(
                Record(number, Conversation(asked), sides[0], positive=sides[0], negative=sides[1])
            )
    told = [(pair["pos"], pair["neg"]) for pair in instructions]
    return records, (), {**rest_of(whole, "instruction", "questions"), "instructions": told}


def _is_opinions(table: Table) -> bool:
    if not table.whole:
        return False
    asked = next(iter(table.whole.values()))
    return isinstance(asked, dict) and {"question_text", "MC_options"} <= set(asked)


def _opinions(table: Table) -> Parsed:
    whole: Any = table.whole
    return [one for qid, asked in whole.items() for one in _opinion(table, qid, asked)], (), {}


def _opinion(table: Table, qid: str, asked: Any) -> Iterator[Record]:
    """A question of a survey, once for each group of people that was asked."""
    where = f"{table.path}, question {short(qid)}"
    try:
        if not isinstance(asked, dict):
            raise ValueError(f"an object is needed; found {short(asked)}")
        options = options_in(asked, "MC_options")
        people = {name: of for name, of in asked.items() if isinstance(of, dict)}
        if not people or len(options) > len(LETTERS):
            raise ValueError(f"{len(people)} groups with counts, and {len(options)} options")
        lines = [f"{letter}. {one}" for letter, one in zip(LETTERS, options, strict=False)]
        prompt = "\n".join([text_in(asked, "question_text"), *lines, "Answer:"])
        for name, counts in people.items():
            shares = _shares(counts, options)
            yield Record(0, prompt, shares=shares, group=name, details={"qid": qid})
    except (ValueError, TypeError) as error:
        raise ValueError(f"{where}: {error}.") from error


def _shares(counts: Mapping[str, Any], options: Sequence[str]) -> dict[str, float]:
    """How often each option was chosen, by its letter with the space that comes before it."""
    unknown = sorted(set(counts) - set(options))
    if unknown:
        raise ValueError(f"counts of {few(unknown)}, which is no option")
    found = [number_in(counts, one) if one in counts else 0.0 for one in options]
    whole = sum(found)
    if min(found) < 0 or not 0 < whole < math.inf:
        raise ValueError(f"counts must be 0 or more, and not all 0; their sum is {whole:g}")
    return {f" {letter}": n / whole for letter, n in zip(LETTERS, found, strict=False)}


# -- Questions -------------------------------------------------------------------------------------


def _ifeval(row: dict[str, Any], number: int) -> Record:
    given = row.get("kwargs")
    listed = given if isinstance(given, list) else []
    kwargs = [rest_of(one) if isinstance(one, dict) else {} for one in listed]
    details = {**rest_of(row, "prompt"), "kwargs": kwargs}
    return Record(number, Conversation(text_in(row, "prompt")), details=details)


def _truthful(row: dict[str, Any], number: int) -> Record:
    asked = Conversation(text_in(row, "Question"))
    wrong = row.get("Best Incorrect Answer") or _listed(row, "Incorrect Answers")[0]
    best = text_in(row, "Best Answer")
    sides = [Conversation(asked.user, response=text.strip()) for text in (best, wrong)]
    group = row.get("Category") or None
    details = rest_of(row, "Question", "Category") | {
        name: _listed(row, name) for name in ("Correct Answers", "Incorrect Answers")
    }
    return Record(number, asked, positive=sides[0], negative=sides[1], group=group, details=details)


def _listed(row: Mapping[str, Any], name: str) -> list[str]:
    """The answers of a cell, which has semicolons between them."""
    found = [part.strip() for part in text_in(row, name).split(";")]
    return [part for part in found if part]


def _question(row: dict[str, Any], number: int) -> Record:
    name = next((name for name in ASKED if name in row), ASKED[0])
    return Record(number, Conversation(text_in(row, name)), details=rest_of(row, name))


def _asks_alone(table: Table) -> bool:
    asked = [name for name in ASKED if name in table.fields]
    others = set(table.fields) - set(asked) - {"id", "question_id", "category", "key"}
    return len(asked) == 1 and not others


def _has_two_sides(table: Table) -> bool:
    there = [two for two in TWO_SIDES if set(two) <= set(table.fields)]
    first = table.rows[0] if table.rows else {}
    return len(there) == 1 and all(
        isinstance(first[name], str | dict) or is_messages(first[name]) for name in there[0]
    )


def _is_pair(table: Table) -> bool:
    fields = set(table.fields)
    asked = {"user", "system"} <= fields or {"plain", "prompted", "response"} <= fields
    return asked or "messages" in fields


def _rows(parse: Callable[[dict[str, Any], int], Record]) -> Callable[[Table], Parsed]:
    return lambda table: each(table, parse)


FORMATS = (
    Format("persona-vectors trait", "contrasts", "one object with instruction [{pos, neg}] and "
           "questions", _is_trait, _trait),
    Format("OpinionsQA", "shares", "one object of {question id: {question_text, MC_options, "
           "<group>: counts}}", _is_opinions, _opinions),
    Format("multiple choice (CAA, model-written evals)", "choices",
           f"question, {MATCHING}, {NOT_MATCHING}", has("question", MATCHING, NOT_MATCHING),
           _rows(_caa)),
    Format("CAA's MMLU or TruthfulQA", "choices", "prompt, correct, incorrect",
           has("prompt", "correct", "incorrect"), _rows(_correct)),
    Format("BiPO letters", "choices", "question, A, B, matching, not_matching",
           has("question", "A", "B", "matching", "not_matching"), _rows(_bipo_letters)),
    Format("BiPO", "contrasts", "question, matching, not_matching",
           has("question", "matching", "not_matching"), _contrast),
    Format("AxBench", "answers", "input, output, output_concept, category",
           has("input", "output", "output_concept", "category"), _rows(_axbench)),
    Format("persona-vectors responses", "answers", "prompt or question, answer, <trait>, coherence",
           lambda table: _trait_of(table) is not None, _responses),
    Format("IFEval", "questions", "prompt, instruction_id_list, kwargs",
           has("prompt", "instruction_id_list"), _rows(_ifeval)),
    Format("TruthfulQA", "contrasts", "Question, Best Answer, Incorrect Answers",
           has("Question", "Best Answer", "Incorrect Answers"), _rows(_truthful)),
    Format("shares of options", "shares", "prompt, options", has("prompt", "options"),
           _rows(_wish)),
    Format("pairs with an instruction", "pairs", "user and system (and response), messages, or "
           "plain, prompted and response", _is_pair, _rows(_pair)),
    Format("contrasts", "contrasts", " or ".join(" and ".join(two) for two in TWO_SIDES)
           + ", with or without a question", _has_two_sides, _contrast),
    Format("questions", "questions", "question, prompt or user alone", _asks_alone,
           _rows(_question)),
)  # fmt: skip
"""In the order in which they are tried: those with more fields come first."""
