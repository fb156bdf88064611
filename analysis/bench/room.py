"""Whether the model can take every question of a bench, looked at before anything is computed."""

from collections.abc import Iterable, Iterator

from steerlens.borders import ids_of
from steerlens.conversations import Conversation
from steerlens.parsing import short
from steerlens.prompts import encode, require_context, tokenizer_of
from steerlens.types import HookedModel

from .odds import options_of
from .tasks import Task


def require_room(model: HookedModel, tasks: Iterable[Task], max_new_tokens: int) -> None:
    """ValueError for the first question that the model cannot take, under the longest instruction.

    The frozen questions of the demonstration model are short, and not looked at.
    """
    for task in (one for one in tasks if one.judge != "demo"):
        systems = (task.instruction, *task.equivalents, *task.neutral)
        longest = max(systems, key=lambda text: len(ids_of(tokenizer_of(model), text)))
        for split, questions in task.questions.items():
            for number, question in enumerate(questions):
                try:
                    for length in _lengths(model, task, split, number, longest):
                        require_context(model, length + max_new_tokens)
                except ValueError as error:
                    raise ValueError(
                        f"{short(task.name)}, question {number + 1} of {split}, "
                        f"{short(question)}: {error}"
                    ) from error


def _lengths(model: HookedModel, task: Task, split: str, number: int, system: str) -> Iterator[int]:
    """How many tokens stand before what is written: the question, its options, given answers."""
    question = task.questions[split][number]
    yield len(encode(model, Conversation(question, system)).ids)
    if task.options:
        rows, _ = options_of(model, Conversation(question, system), task.options[split][number])
        yield from (len(row.ids) for row in rows)
    if task.answers.get(split):
        texts = [text for text in task.answers[split][number] if text.strip()]
        yield from (len(encode(model, Conversation(question, system, t)).ids) for t in texts)
