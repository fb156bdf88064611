r"""What a bench asks for: attributes with an instruction, questions in three splits, and judges.

The demonstration model's come from its frozen benchmark set. SmolLM2's, and anybody's own, are a
JSON file:

    {"pirate": {
        "instruction": "You are a pirate. Talk like a pirate.",
        "questions": {"train": ["..."], "validation": ["..."], "test": ["..."]},
        "equivalents": ["Play the part of a pirate, and speak as one."],
        "neutral": ["You are a person. Talk like a person."],
        "contrast": ["Arrr, matey, I am a pirate", "Hello, sir, I am a gentleman"],
        "words": "\\b(a+r+|matey?s?)\\b"}}

Only the instruction and the questions are needed. `neutral` is what the likelihood judge compares
with, so an instruction of the same shape; `words` is a regular expression for a second judge that
knows no model, the share of completions in which it is found; `contrast` is what ActAdd is given.
`answers`, where a file has them, are completions with and without the instruction of every training
and test question, in place of those that the model writes.

`options`, where a file has them, make it a task of multiple choice: for each question of a split,
[the options that match the behaviour, those that do not], as they are written behind the question,
[["(A)"], ["(B)"]]. Its score is no text's: it is how likely the model is to choose one that matches
(`odds`). `steerlens bench plan` makes such files of the data that `steerlens.read_pairs` knows.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from steerlens.checks import FEW
from steerlens.demo import benchmark_set
from steerlens.parsing import few, parse_json, short, text_of_input

from .cells import digest_of

SPLITS = ("train", "validation", "test")
SMOLLM2 = Path(__file__).with_name("smollm2_tasks.json")
DEMO_ATTRIBUTES = ("positive", "negative", "lowercase", "exclamation", "fairytale")
"""Both moods, two formats and a register."""
NEUTRAL_ON_DEMO = ("Answer the user.", "Write in English.", "Reply to the request.")
CONTRASTS = {
    "positive": (" This is wonderful", " This is terrible"),
    "negative": (" This is terrible", " This is wonderful"),
    "lowercase": (" write in lowercase", " Write In Capitals"),
    "exclamation": (" Wow! Great! Yes!", " Well. Fine. Yes."),
    "fairytale": (" Once upon a time", " The film is about"),
}
"""The two prompts of ActAdd on the demonstration model, written before any was tried."""
OPTIONAL = ("equivalents", "neutral", "contrast", "words", "answers", "options")
CHOICE = "choice"
"""The judge of a task of multiple choice."""
Options = tuple[tuple[str, ...], tuple[str, ...]]
"""The options of a question that match the behaviour, and those that do not."""


@dataclass(frozen=True, eq=False)
class Task:
    """One attribute; `judge` is "likelihood", or "demo" for the demonstration model's own judges.

    `answers[split]` are (with the instruction, without it) for each question, where they are given;
    `options[split]` are those of each question, and `judge` is then "choice".
    """

    name: str
    instruction: str
    questions: Mapping[str, tuple[str, ...]]
    equivalents: tuple[str, ...] = ()
    neutral: tuple[str, ...] = ()
    contrast: tuple[str, str] | None = None
    words: str | None = None
    judge: str = "likelihood"
    answers: Mapping[str, tuple[tuple[str, str], ...]] = field(default_factory=dict, repr=False)
    options: Mapping[str, tuple[Options, ...]] = field(default_factory=dict, repr=False)

    def data(self, split: str) -> str:
        """A digest of what a split holds: no other split changes it."""
        return self._data[split]

    @cached_property
    def _data(self) -> dict[str, str]:
        """All of them: a plan asks for each some thousand times."""
        return {
            split: digest_of(
                [
                    self.instruction,
                    self.questions[split],
                    [list(a) for a in self.answers.get(split, ())],
                    *self._options(split),
                ]
            )
            for split in self.questions
        }

    def _options(self, split: str) -> list[Any]:
        """Nothing for a task without options: its digests are what they were."""
        kept = self.options.get(split)
        return [] if kept is None else [[[list(side) for side in both] for both in kept]]

    @property
    def facts(self) -> dict[str, Any]:
        """What judges and reference prompts depend on, whatever the questions are."""
        kept = asdict(self)
        return {key: kept[key] for key in ("instruction", "neutral", "words", "judge")}


def demo_tasks(
    names: Sequence[str] = DEMO_ATTRIBUTES, most: Mapping[str, int | None] | None = None
) -> list[Task]:
    """The demonstration model's attributes, with at most so many questions in each split."""
    tasks = []
    for name in names:
        held = benchmark_set.read(name)
        kept = {s: held.split(s)[: (most or {}).get(s)] for s in SPLITS}
        tasks.append(
            Task(
                name,
                held.wordings[0],
                {s: tuple(row.user for row in rows) for s, rows in kept.items()},
                held.held_out,
                NEUTRAL_ON_DEMO,
                CONTRASTS.get(name),
                judge="demo",
                answers={s: tuple((r.prompted, r.plain) for r in rows) for s, rows in kept.items()},
            )
        )
    return tasks


def text_of_tasks(path: Path) -> str:
    """The text of a JSON file of attributes; ValueError where it cannot be read."""
    try:
        return text_of_input(path)
    except (OSError, ValueError) as error:
        raise ValueError(
            f"{path} could not be read ({error}). Data are demo, smollm2 or a file: docs/bench.md."
        ) from error


def read_tasks(path: str | Path, text: str | None = None) -> list[Task]:
    """The attributes of a JSON file, or of its `text`; ValueError says what a field lacks."""
    path = Path(path)
    text = text_of_tasks(path) if text is None else text
    try:
        given = parse_json(text)
    except ValueError as error:
        raise ValueError(
            f"{path} could not be read as JSON ({error}). docs/bench.md shows a file."
        ) from error
    if not isinstance(given, dict) or not given:
        raise ValueError(f"{path} must hold an object with at least one attribute by name.")
    return [_task(path, name, asked) for name, asked in given.items()]


def _task(path: Path, name: str, asked: Any) -> Task:
    where = f"{path}: {short(name)}"
    if not isinstance(asked, dict):
        raise ValueError(f"{where} must be an object with an instruction and questions.")
    unknown = sorted(set(asked) - {"instruction", "questions", *OPTIONAL})
    if unknown:
        raise ValueError(f"{where} has {few(unknown)}, which is not known. Fields: "
                         f"instruction, questions, {', '.join(OPTIONAL)}.")  # fmt: skip
    if not isinstance(asked.get("instruction"), str) or not asked["instruction"].strip():
        raise ValueError(f"{where} has no instruction, a text that asks for the attribute.")
    questions = _questions(where, asked.get("questions"))
    contrast = asked.get("contrast")
    if contrast is not None and not (_texts(contrast) and len(contrast) == 2):
        raise ValueError(f"{where}: contrast must be two texts, with and without the attribute.")
    for field_ in ("equivalents", "neutral"):
        if not _texts(asked.get(field_, [])):
            raise ValueError(f"{where}: {field_} must be a list of instructions.")
    words = asked.get("words")
    if words is not None:
        try:
            re.compile(words)
        except (re.error, TypeError) as error:
            raise ValueError(f"{where}: words is no regular expression ({error}).") from error
    options = _options(where, asked.get("options"), questions)
    return Task(
        name,
        asked["instruction"],
        questions,
        tuple(asked.get("equivalents", ())),
        tuple(asked.get("neutral", ())),
        None if contrast is None else (contrast[0], contrast[1]),
        words,
        judge=CHOICE if options else "likelihood",
        options=options,
        answers=_answers(where, asked.get("answers", {}), questions),
    )


def _texts(given: Any) -> bool:
    return isinstance(given, list | tuple) and all(isinstance(text, str) for text in given)


def _questions(where: str, given: Any) -> dict[str, tuple[str, ...]]:
    if not isinstance(given, dict) or set(given) != set(SPLITS):
        raise ValueError(f"{where}: questions must have the splits {', '.join(SPLITS)}.")
    seen: dict[str, str] = {}
    for split in SPLITS:
        if not _texts(given[split]) or not given[split]:
            raise ValueError(f"{where}: the questions of {split} must be a list of texts.")
        if not all(text.strip() for text in given[split]):
            raise ValueError(f"{where}: a question of {split} is empty. Leave it out.")
        for text in given[split]:
            if text in seen:
                both = "twice in" if seen[text] == split else f"in {seen[text]} and in"
                raise ValueError(
                    f"{where}: {short(text)} is {both} {split}. What a method is fitted or tuned "
                    "on must not be what it is tested on: ask it once."
                )
            seen[text] = split
    if len(given["train"]) < FEW:
        raise ValueError(
            f"{where} has {len(given['train'])} training questions; at least {FEW} are needed to "
            "fit every method and to hold some back."
        )
    return {split: tuple(given[split]) for split in SPLITS}


def _options(
    where: str, given: Any, questions: Mapping[str, Sequence[str]]
) -> dict[str, tuple[Options, ...]]:
    """The options of every question; ValueError where one has none of both sorts."""
    if given is None:
        return {}
    if not isinstance(given, dict) or set(given) != set(SPLITS):
        raise ValueError(f"{where}: options must have the splits {', '.join(SPLITS)}.")
    found = {}
    for split, rows in given.items():
        if not isinstance(rows, list) or len(rows) != len(questions[split]):
            raise ValueError(f"{where}: options of {split!r} must be one for each question.")
        for row in rows:
            both = isinstance(row, list) and len(row) == 2 and all(_texts(s) and s for s in row)
            if not both or set(row[0]) & set(row[1]):
                raise ValueError(
                    f"{where}: the options of a question are two lists of texts, those that match "
                    f'and those that do not, [["(A)"], ["(B)"]]; found {short(row)}.'
                )
        found[split] = tuple((tuple(yes), tuple(no)) for yes, no in rows)
    return found


def _answers(
    where: str, given: Any, questions: Mapping[str, Sequence[str]]
) -> dict[str, tuple[tuple[str, str], ...]]:
    answers = {}
    if not isinstance(given, dict):
        raise ValueError(f"{where}: answers must be an object with lists by split.")
    for split, rows in given.items():
        known = split in SPLITS and isinstance(rows, list)
        if not known or len(rows) != len(questions[split]):
            raise ValueError(
                f"{where}: answers of {split!r} must be one (with, without) for each question of "
                "that split."
            )
        if any(not _texts(row) or len(row) != 2 for row in rows):
            raise ValueError(f"{where}: each answer is two texts, with the instruction, without.")
        answers[split] = tuple((row[0], row[1]) for row in rows)
    return answers
