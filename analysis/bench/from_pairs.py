"""Tasks of a bench from the data that `steerlens.read_pairs` knows.

choices     multiple choice, scored by the log odds of the letter; fitted on the options themselves
contrasts   open questions, fitted on the two answers of the file
the rest    open questions; the model answers them, with and without the instruction

Open answers are judged as all others are. The questions are put into splits at random, always the
same ones: a half for training, a quarter each for validation and test.
"""

import json
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from steerlens.conversations import Conversation
from steerlens.pairs.reading import read_pairs
from steerlens.pairs.records import Pairs, Record, up_to_letter
from steerlens.parsing import few, parse_json, short, text_of_input

from .spec import BUILT_IN
from .tasks import SPLITS

LEAST = {"train": 8, "validation": 1, "test": 1}


def tasks_made_of(data: str, instruction: str | None = None) -> str | None:
    """The tasks of a data file, as JSON; None where `data` are tasks already.

    ValueError where an instruction is missing or too many.
    """
    if data in BUILT_IN or _is_tasks(Path(data)):
        if instruction is not None:
            raise ValueError(
                f"--instruction is for data that have none; the tasks of {data} have their own."
            )
        return None
    made = tasks_of(read_pairs(data), instruction, Path(data).stem)
    return json.dumps(made, ensure_ascii=False, indent=1)


def _is_tasks(path: Path) -> bool:
    """Whether a file is one of tasks, or none that can be read: then `read_tasks` says what."""
    if not path.exists():
        return True
    if path.is_dir() or path.suffix.lower() != ".json":
        return False
    try:
        given = parse_json(text_of_input(path))
    except ValueError:
        return True
    if not isinstance(given, dict):
        return False
    inside = [one for one in given.values() if isinstance(one, dict)]
    return not {"instruction", "questions"} <= set(given) and not any(
        "question_text" in one for one in inside
    )


def tasks_of(found: Pairs, instruction: str | None = None, name: str = "task") -> dict[str, Any]:
    """One task, as `read_tasks` reads it; ValueError for data that are none.

    The instruction is that of the file, where it has one.
    """
    task: dict[str, Any] = _worded(found, instruction)
    rows = _rows(found)
    splits = _splits(rows, found)
    task["questions"] = {split: [asked for asked, _ in of] for split, of in splits.items()}
    by_asked: Mapping[str, Record] = dict(rows)
    if found.kind == "choices":
        task["options"] = {
            split: [_options(by_asked[asked]) for asked in task["questions"][split]]
            for split in SPLITS
        }
        task["answers"] = {"train": [[up_to_letter(yes[0]), up_to_letter(no[0])]
                                     for yes, no in task["options"]["train"]]}  # fmt: skip
    elif all(_answers(one) for one in by_asked.values()):
        task["answers"] = {"train": [_answers(by_asked[a]) for a in task["questions"]["train"]]}
    return {name: task}


def _worded(found: Pairs, instruction: str | None) -> dict[str, Any]:
    """The instruction, with others that ask for the same and for the contrary."""
    told: Sequence[tuple[str, str]] = found.about.get("instructions", ())
    own = list(dict.fromkeys(yes for yes, _ in told)) or _systems(found)
    if instruction is None and len(own) != 1 and not told:
        has = f"has {len(own)}: {few(map(short, own), 3)}" if own else "has none"
        raise ValueError(
            f"A bench compares with an instruction that asks for the attribute, and {found.path} "
            f"{has}. Give one: --instruction 'Answer as someone who ...'."
        )
    if instruction is not None and not instruction.strip():
        raise ValueError("--instruction is empty. Say in words what the attribute is.")
    chosen = own[0] if instruction is None else instruction
    others = [text for text in own if text != chosen] if told else []
    neutral = list(dict.fromkeys(no for _, no in told))
    return {"instruction": chosen, "equivalents": others, "neutral": neutral}


def _systems(found: Pairs) -> list[str]:
    systems = []
    for one in found:
        asked = one.pair if isinstance(one.pair, Conversation) else getattr(one.pair, "prompted", 0)
        if isinstance(asked, Conversation) and asked.system:
            systems.append(asked.system)
    return list(dict.fromkeys(systems))


def _rows(found: Pairs) -> list[tuple[str, Record]]:
    """Every question as text, once, with its record; ValueError where nothing is asked."""
    rows: dict[str, Record] = {}
    for one in found:
        asked = found.question_of(one)
        if found.kind == "shares" or asked is None or getattr(asked, "history", ()):
            raise ValueError(
                f"{found.path}: a bench asks questions of one turn; this is {found.format}, whose "
                f"{found.unit} {one.number} asks none."
            )
        rows.setdefault(asked if isinstance(asked, str) else asked.user, one)
    return list(rows.items())


def _splits(rows: list[tuple[str, Record]], found: Pairs) -> dict[str, list[tuple[str, Record]]]:
    least = sum(LEAST.values())
    if len(rows) < least:
        raise ValueError(
            f"{found.path} has {len(rows)} different questions; a bench needs {least}: "
            f"{LEAST['train']} for training, and others for validation and test."
        )
    mixed = random.Random("splits").sample(rows, len(rows))
    train = max(len(rows) // 2, LEAST["train"])
    middle = train + (len(rows) - train) // 2
    return {"train": mixed[:train], "validation": mixed[train:middle], "test": mixed[middle:]}


def _options(record: Record) -> list[list[str]]:
    assert record.choice is not None
    return [list(record.choice.matching), list(record.choice.not_matching)]


def _answers(record: Record) -> list[str] | None:
    """The two answers of a record, where it has two that are text."""
    both = [record.positive, record.negative]
    said = [one.response if isinstance(one, Conversation) else "" for one in both]
    return [str(text) for text in said] if all(isinstance(t, str) and t for t in said) else None
