"""What several runs predict for the same responses, compared a few rows at a time.

A distribution over a vocabulary of 50,000 is 400 kB a token, so they are never all held at once.
"""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from steerlens.divergence import LogProbabilities, chunks, log_probabilities
from steerlens.prompts import Encoded, PromptPair
from steerlens.runtime.hooks import watching
from steerlens.steering import Steering
from steerlens.types import HookedModel

from .plain_side import BY_TEMPLATE, rows_of
from .progress import watched

Run: TypeAlias = "tuple[list[Encoded], Steering | None]"
"""Rows, and what steers them."""
Compared: TypeAlias = Callable[[LogProbabilities, LogProbabilities, LogProbabilities], Tensor]
"""Numbers of each token, of what is predicted plain, prompted, and by another run."""


@dataclass(frozen=True, eq=False)
class Responses:
    """Pairs as rows, plain and prompted, and the question that each response token belongs to."""

    plain: list[Encoded]
    prompted: list[Encoded]
    question: Int[np.ndarray, " token"]

    @classmethod
    def of(
        cls, model: HookedModel, pairs: Sequence[PromptPair], baseline: str = BY_TEMPLATE
    ) -> "Responses":
        """The rows; responses to the same plain prompt are of one question."""
        if not pairs:
            raise ValueError(
                "No pairs were given. steerlens.prompted_pairs(model, ...) makes some."
            )
        both = [rows_of(model, pair, baseline) for pair in pairs]
        plain, prompted = ([pair[side] for pair in both] for side in (0, 1))
        number = {asked: i for i, asked in enumerate(dict.fromkeys(pair.plain for pair in pairs))}
        lengths = [len(row.ids) - row.response for row in plain]
        return cls(plain, prompted, np.repeat([number[pair.plain] for pair in pairs], lengths))

    def worded(self, model: HookedModel, pairs: Sequence[PromptPair]) -> list[Encoded]:
        """The prompted rows of other wordings; ValueError unless the responses are the same."""
        other = Responses.of(model, pairs)
        if [row.ids[row.response :] for row in other.plain] != [
            row.ids[row.response :] for row in self.plain
        ]:
            raise ValueError(
                "Other wordings must come with the same responses in the same order as the pairs. "
                "Make them with reworded(pairs, instruction)."
            )
        return other.prompted

    def each(
        self, model: HookedModel, runs: Sequence[Run], compared: Compared
    ) -> list[Float[Tensor, "token *number"]]:
        """Of each run what `compared` says of its tokens; a steer that did nothing is warned of."""
        parts: list[list[Tensor]] = [[] for _ in runs]
        with ExitStack() as stack:
            watches = [stack.enter_context(watching()) for _ in runs]
            for chosen in watched(list(chunks(len(self.plain))), "predictions", "batch"):
                plain, prompted = (
                    log_probabilities(model, rows, chosen, None, watches[0])
                    for rows in (self.plain, self.prompted)
                )
                known = {id(self.plain): plain, id(self.prompted): prompted}
                for part, watch, (rows, steering) in zip(parts, watches, runs, strict=True):
                    moved = known.get(id(rows)) if steering is None else None
                    if moved is None:
                        moved = log_probabilities(model, rows, chosen, steering, watch)
                    part.append(compared(plain, prompted, moved))
        return [torch.cat(part) for part in parts]
