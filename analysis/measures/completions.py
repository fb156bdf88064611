"""What the model writes under each method, to be read side by side."""

from collections.abc import Sequence

import pandas as pd

from steerlens.generation import Sampling, generate
from steerlens.kinds import require_kinds
from steerlens.prompts import Conversation, Prompt
from steerlens.steering import Steering
from steerlens.types import HookedModel

from .entries import Entry
from .plain_side import noted


def side_by_side(
    model: HookedModel,
    questions: Sequence[str],
    instruction: str,
    entries: Sequence[Entry],
    *,
    n: int = 1,
    seed: int = 0,
    max_new_tokens: int = 60,
    temperature: float = 1.0,
    top_p: float = 1.0,
) -> pd.DataFrame:
    """Completions of every question unsteered, prompted, and under every entry, from one seed.

    Columns: prompt, method, strength_value, sample, text.
    """
    require_kinds(side_by_side, locals())
    plain = [Conversation(question) for question in questions]
    instructed = [Conversation(question, instruction) for question in questions]
    sampling = Sampling(max_new_tokens, temperature, top_p, seed=seed)
    no_strength = float("nan")
    runs: list[tuple[str, float, Sequence[Prompt], Steering | None]] = [
        ("unsteered", no_strength, plain, None),
        ("prompt", no_strength, instructed, None),
        *((entry.method, entry.strength_value, plain, entry.steering) for entry in entries),
    ]
    tables = []
    for method, value, prompts, steering in runs:
        written = generate(model, prompts, steering, n=n, **vars(sampling))
        tables.append(
            pd.DataFrame(
                {
                    "prompt": [questions[number] for number in written.prompt],
                    "method": method,
                    "strength_value": value,
                    "sample": written.sample,
                    "text": written.texts,
                }
            )
        )
    return noted(pd.concat(tables, ignore_index=True), model)
