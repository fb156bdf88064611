"""Multiple choice: how likely a model is to choose an option that matches the behaviour.

No text is written. With p(o) the probability of option o behind the question, up to its letter,

    log odds = log sum p(o that match) - log sum p(o that do not)

in nats. What all options of a question begin with, the bracket of "(A", cancels out: the letters'
tokens are compared. `mass` is how much probability the options' letters have together, where a
letter is due; it is small where a model would say something else.
"""

import math
import time
from collections.abc import Sequence
from typing import Any

from steerlens.borders import common_head
from steerlens.conversations import Conversation
from steerlens.pairs.records import up_to_letter
from steerlens.prompts import Encoded, encode
from steerlens.types import HookedModel

from ..measures.texts import Predicted
from .cells import Cell
from .fitting import at_strength
from .maker import Maker
from .tasks import Options

BATCH = 16


def odds(maker: Maker, cell: Cell) -> dict[str, Any]:
    """`log_odds` and `mass` of every question, as [question][1], and the CPU seconds of both."""
    task, split = maker.tasks[cell["task"]], cell["split"]
    begun, acting = time.process_time(), None
    if "fit" in cell.settings:
        acting = at_strength(maker, Cell.of_json(cell["fit"]), cell["strength"])
    asked = [
        options_of(maker.model, Conversation(question, cell["system"]), both)
        for question, both in zip(task.questions[split], task.options[split], strict=True)
    ]
    rows = [row for of, _ in asked for row in of]
    starts = [start for of, start in asked for _ in of]
    log_p = [float(one.sum()) for one in Predicted(tuple(rows), tuple(starts)).log_p(
        maker.model, acting, BATCH
    )]  # fmt: skip
    found, place = [], 0
    for matching, others in task.options[split]:
        n = len(matching) + len(others)
        found.append(_compared(log_p[place : place + n], len(matching)))
        place += n
    return {
        "log_odds": [[round(one, 6)] for one, _ in found],
        "mass": [[round(mass, 6)] for _, mass in found],
        "seconds": time.process_time() - begun,
    }


def options_of(
    model: HookedModel, asked: Conversation, options: Options
) -> tuple[list[Encoded], int]:
    """The question with each option up to its letter, and the first token in which they differ.

    ValueError where two options are the same tokens, so that nothing tells them apart.
    """
    texts = [up_to_letter(option) for side in options for option in side]
    rows = [encode(model, Conversation(asked.user, asked.system, text)) for text in texts]
    start = min(common_head(rows[0].ids, row.ids) for row in rows[1:])
    ends = {row.ids[start:] for row in rows}
    if start < rows[0].response or len(ends) < len(rows) or () in ends:
        raise ValueError(
            f"The options {texts} of {asked.user[:60]!r} cannot be told apart by their tokens. "
            "Write them as letters, (A) and (B)."
        )
    return rows, start


def _compared(log_p: Sequence[float], n_matching: int) -> tuple[float, float]:
    """The log odds of the first ones, and the probability of all together."""
    sides = [log_p[:n_matching], log_p[n_matching:]]
    first, second = (_log_sum(side) for side in sides)
    return first - second, min(math.exp(_log_sum(log_p)), 1.0)


def _log_sum(values: Sequence[float]) -> float:
    most = max(values)
    return most + math.log(sum(math.exp(one - most) for one in values))
