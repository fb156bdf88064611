"""Completions: of the model as it is, prompted, steered, or made to fool a judge."""

import time
from collections.abc import Mapping, Sequence
from typing import Any

from steerlens.baselines.weights import Change, changed
from steerlens.conversations import Conversation
from steerlens.generation import generate
from steerlens.types import HookedModel

from ..judges.linear import words_of
from .cells import Cell
from .fitting import at_strength
from .kinds import EQUIVALENT, NEUTRAL, PROMPT, UNSTEERED, write_cell
from .maker import Maker
from .nulls import keywords_of, null_texts
from .tasks import Task

NULL = "null: "
NULLS = tuple(f"{NULL}{name}" for name in ("stuffed 10", "stuffed 5", "echoed", "looped"))
BATCH = 64
KEYWORDS = 5


def write(maker: Maker, cell: Cell) -> dict[str, Any]:
    """The texts of every question, as [question][sample], and the CPU seconds that they took."""
    task, source = maker.tasks[cell["task"]], cell["source"]
    if source.startswith(NULL):
        return _null(maker, cell, task)
    given = task.answers.get(cell["split"])
    if given and cell["split"] == "train" and "fit" not in cell.settings:
        side = {PROMPT: 0, UNSTEERED: 1}.get(source)
        if side is not None:  # the frozen answers, one a question, whatever the seed
            return {"texts": [[row[side]] for row in given], "seconds": None}
    questions = task.questions[cell["split"]]
    prompts = [Conversation(question, instruction_of(task, source)) for question in questions]
    acting = None
    if "fit" in cell.settings:
        acting = at_strength(maker, Cell.of_json(cell["fit"]), cell["strength"])
    return sampled(maker.model, prompts, acting, cell.settings)


def sampled(
    model: HookedModel,
    prompts: Sequence[Conversation],
    acting: Change,
    settings: Mapping[str, Any],
) -> dict[str, Any]:
    """Sampled at temperature 1, every row with random numbers of its own."""
    begun = time.process_time()
    with changed(model, acting) as steering:
        made = generate(
            model,
            prompts,
            steering,
            n=settings["samples"],
            batch_size=BATCH,
            temperature=1.0,
            seed=settings["seed"],
            max_new_tokens=settings["max_new_tokens"],
        )
    texts: list[list[str]] = [[] for _ in prompts]
    for number, text in sorted(zip(made.prompt, made.texts, strict=True), key=lambda row: row[0]):
        texts[number].append(text)
    return {"texts": texts, "seconds": time.process_time() - begun}


def instruction_of(task: Task, source: str) -> str | None:
    """The system turn that a source is written under."""
    known = {UNSTEERED: None, PROMPT: task.instruction}
    if source in known:
        return known[source]
    listed = {EQUIVALENT: task.equivalents, NEUTRAL: task.neutral}
    if listed.get(source):
        return listed[source][0]
    raise ValueError(f"The task {task.name!r} has no instruction for {source!r}.")


def _null(maker: Maker, cell: Cell, task: Task) -> dict[str, Any]:
    """Unsteered completions, changed so that they show nothing and may score all the same."""
    own = write_cell(maker.spec, task, cell["split"], cell["seed"])
    plain = maker.result(own)["texts"]
    prompted, before = (
        [text for row in maker.result(one)["texts"] for text in row]
        for one in (write_cell(maker.spec, task, "train", 0, s) for s in (PROMPT, UNSTEERED))
    )
    words = _keywords(prompted, before, task.instruction)
    flat = [text for row in plain for text in row]
    name = cell["source"].removeprefix(NULL)
    made = iter(null_texts(flat, task.instruction, words, cell["seed"])[name])
    texts = [[next(made) for _ in row] for row in plain]
    return {"texts": texts, "seconds": None, "keywords": words}


def _keywords(prompted: Sequence[str], plain: Sequence[str], instruction: str) -> list[str]:
    """Words that tell prompted training answers; the instruction's own where none does."""
    try:
        return keywords_of(prompted, plain, KEYWORDS)
    except ValueError:
        return [word for word in words_of(instruction) if len(word) > 3][:KEYWORDS]
