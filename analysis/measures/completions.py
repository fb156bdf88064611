"""What the model writes under each method, to be read side by side."""

from collections.abc import Sequence

import pandas as pd

from steerlens.generation import generate
from steerlens.prompts import Conversation, Prompt
from steerlens.steering import AnySteering
from steerlens.types import HookedModel

from .entries import Entry


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
    template: str | None = None,
) -> pd.DataFrame:
    """Completions of every question unsteered, prompted, and under every entry, from one seed.

    Columns: prompt, method, strength_value, sample, text.
    """
    plain = [Conversation(question) for question in questions]
    asked = [Conversation(question, instruction) for question in questions]
    runs: list[tuple[str, float, Sequence[Prompt], AnySteering | None]] = [
        ("unsteered", float("nan"), plain, None),
        ("prompt", float("nan"), asked, None),
    ]
    runs += [(entry.method, entry.strength_value, plain, entry.steering) for entry in entries]
    rows = []
    for method, value, prompts, steering in runs:
        written = generate(
            model,
            prompts,
            steering,
            n=n,
            seed=seed,
            max_new_tokens=max_new_tokens,
            temperature=temperature,
            top_p=top_p,
            template=template,
        )
        rows += [
            {
                "prompt": questions[number],
                "method": method,
                "strength_value": value,
                "sample": sample,
                "text": text,
            }
            for number, sample, text in zip(
                written.prompt, written.sample, written.texts, strict=True
            )
        ]
    return pd.DataFrame(rows)
