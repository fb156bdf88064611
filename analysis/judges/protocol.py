"""What a judge is: texts in, scores from 0 to 100 out."""

from collections.abc import Sequence
from typing import Protocol, TypeAlias, runtime_checkable

import numpy as np
from jaxtyping import Float

from steerlens.prompts import Conversation

Prompt: TypeAlias = "str | Conversation"
Scores: TypeAlias = Float[np.ndarray, " text"]


@runtime_checkable
class Judge(Protocol):
    """Scores each text from 0 to 100; NaN where it cannot tell (a refusal, a text too short).

    `prompts` are what the texts answer, one each. A judge that does not need them ignores them. A
    judge may say in `domain` what it may be used on (all of steerlens do), and give a
    SteeringWarning where texts are something else.
    """

    @property
    def name(self) -> str:
        """What it scores, as a column of a table: "positive", "coherence"."""
        ...

    def __call__(self, texts: Sequence[str], prompts: Sequence[Prompt] | None = None) -> Scores: ...


def require_texts(texts: Sequence[str], prompts: Sequence[Prompt] | None) -> None:
    """ValueError unless `texts` is a list of texts, and `prompts` None or as long."""
    if isinstance(texts, str):
        raise ValueError("A judge scores a list of texts; found one text. Pass [text].")
    wrong = next((text for text in texts if not isinstance(text, str)), None)
    if wrong is not None:
        raise ValueError(f"A judge scores texts; found a {type(wrong).__name__} among them.")
    if prompts is not None and len(prompts) != len(texts):
        raise ValueError(
            f"{len(texts)} texts and {len(prompts)} prompts. Pass one prompt for each text, in "
            "the same order, or none."
        )
