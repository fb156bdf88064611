"""Texts as rows of tokens of which some are predicted: what teacher-forced measures run on.

raw text           every token after the first, which is the BOS where the model has one
with a response    the tokens of the response, of a `Conversation`, a list of messages or a row
a PromptPair       the tokens of its response, after the plain prompt

The scopes of a steering say where it acts: on the prompt, on the response. Raw text has neither, so
`text_is` says what it counts as: "response", as if the model wrote it (the BOS is its prompt), or
"prompt", as if it were asked.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias, cast, get_args

import torch
from jaxtyping import Float, Int
from torch import Tensor

from steerlens.baselines.weights import Change, changed
from steerlens.borders import ids_of
from steerlens.checks import require_choice
from steerlens.conversations import Conversation, is_messages
from steerlens.divergence import ROWS, LogProbabilities, chunks, log_probabilities
from steerlens.identity import context_length
from steerlens.prompts import (
    Encoded,
    PromptPair,
    Prompts,
    encode_all,
    encode_pair,
    require_fitting,
    tokenizer_of,
)
from steerlens.runtime.hooks import Watch, watching
from steerlens.steering import Steering
from steerlens.types import HookedModel

from .plain_side import require_pairs
from .progress import watched

TextIs = Literal["response", "prompt"]
Texts: TypeAlias = "Prompts | Sequence[PromptPair]"


@dataclass(frozen=True, eq=False)
class Predicted:
    """Rows, and of each the first token that is predicted."""

    rows: tuple[Encoded, ...]
    starts: tuple[int, ...]

    @classmethod
    def of(
        cls,
        model: HookedModel,
        texts: Texts,
        *,
        text_is: TextIs = "response",
        max_tokens: int | None = None,
        skip: int = 0,
    ) -> "Predicted":
        """The texts as rows, of each its first `max_tokens` tokens; ValueError if one is too short.

        ValueError too for a conversation without a response: there is nothing to predict. What is
        predicted from the first `skip` positions of a text is left out: a steering that acts there
        alone, as ActAdd's does, is then measured on what comes after.
        """
        require_choice("text_is", text_is, get_args(TextIs))
        if max_tokens is not None and max_tokens < 2:
            raise ValueError(f"max_tokens is 2 or more, or None; found {max_tokens}.")
        rows = [_cut(row, max_tokens) for row in _encoded(model, texts, max_tokens)]
        for number, row in enumerate(rows):
            _require_predicted(row, number, number in asked_of(texts))
            require_fitting(model, row.ids)
        predicted = [_predicted(row, text_is) for row in rows]
        predicted = [(row, max(start, skip + 1)) for row, start in predicted]
        _require_left(predicted, skip)
        return cls(tuple(row for row, _ in predicted), tuple(start for _, start in predicted))

    @classmethod
    def after(cls, rows: Sequence[Encoded]) -> "Predicted":
        """What comes next after each row, of which the last token alone is asked."""
        # Any token may stand there: nothing before it sees it.
        asked = [replace(row, ids=(*row.ids, row.ids[-1])) for row in rows]
        return cls(tuple(asked), tuple(len(row.ids) for row in rows))

    def __len__(self) -> int:
        return len(self.rows)

    def targets(self, number: int) -> tuple[int, ...]:
        """The ids of the tokens that are predicted of a row."""
        return self.rows[number].ids[self.starts[number] :]

    @property
    def lengths(self) -> Int[Tensor, " row"]:
        """How many tokens are predicted of each row."""
        return torch.tensor([len(self.targets(number)) for number in range(len(self))])

    def batches(self, size: int = ROWS) -> Iterator[range]:
        """The numbers of the rows of each pass."""
        yield from chunks(len(self), size)

    def log_p(
        self, model: HookedModel, change: Change, size: int = ROWS
    ) -> list[Float[Tensor, " _"]]:
        """Log p of every predicted token of each row under a change of the model; nats, float64."""
        found: list[Tensor] = []
        with changed(model, change) as steering, watching() as watch:
            for chosen in watched(list(self.batches(size)), "predictions", "batch"):
                there = self.log_probabilities(model, chosen, steering, watch)
                found += self.of_targets(chosen, there)
        return found

    def log_probabilities(
        self, model: HookedModel, chosen: Sequence[int], steering: Steering | None, watch: Watch
    ) -> LogProbabilities:
        """What is predicted for each of these tokens of the chosen rows, row by row."""
        given = (model, self.rows, chosen, steering, watch)
        return log_probabilities(*given, starts=self.starts)

    def of_targets(
        self, chosen: Sequence[int], log_p: LogProbabilities
    ) -> list[Float[Tensor, " _"]]:
        """The log-probability of the tokens themselves, row by row of the chosen ones."""
        ids = torch.tensor([token for number in chosen for token in self.targets(number)])
        found = log_p.gather(1, ids[:, None])[:, 0]
        return list(found.split([len(self.targets(number)) for number in chosen]))


def _encoded(model: HookedModel, texts: Texts, max_tokens: int | None) -> list[Encoded]:
    """The rows of the texts; a long raw text is shortened before it meets the model's context."""
    listed: Any = [texts] if isinstance(texts, str) else texts
    pairs: Any = listed if isinstance(listed, Sequence) else ()
    if any(isinstance(one, PromptPair) for one in pairs):
        require_pairs(listed)
        return [encode_pair(model, pair)[0] for pair in pairs]
    texts = cast("Prompts", texts)
    if max_tokens is None or not isinstance(listed, Sequence) or not len(listed):
        return encode_all(model, texts)
    most = 24 * max_tokens  # tokens of usual text are far shorter, on average
    return encode_all(
        model, [_fitting(model, one[:most]) if isinstance(one, str) else one for one in listed]
    )


def _fitting(model: HookedModel, text: str) -> str:
    """The beginning of a text that fits the model's context, and fills most of it if it is long."""
    most = context_length(model)
    while most is not None and (n := len(ids_of(tokenizer_of(model), text)) + 1) > most:
        text = text[: min(len(text) * most // n, len(text) - 1)]  # the 1 above is a BOS
    return text


def _cut(row: Encoded, max_tokens: int | None) -> Encoded:
    if max_tokens is None or len(row.ids) <= max_tokens:
        return row
    response = len(row.ids) if row.response == len(row.ids) else row.response
    ids = row.ids[:max_tokens]
    return replace(row, ids=ids, response=min(response, len(ids)), text=None)


def asked_of(texts: Texts) -> set[int]:
    """The numbers of the texts that are conversations, and not raw text or token ids."""
    single = isinstance(texts, str | Conversation | Encoded) or is_messages(texts)
    listed: Any = [texts] if single else texts
    return {i for i, one in enumerate(listed) if isinstance(one, Conversation) or is_messages(one)}


def _require_predicted(row: Encoded, number: int, asked: bool) -> None:
    """Raise ValueError unless a row has a token to predict."""
    if asked and row.response == len(row.ids):
        raise ValueError(
            f"Text {number} is a conversation without a response among its tokens, so nothing of "
            "it is predicted. Give a response, Conversation(user, response=...), or raw text."
        )
    if len(row.ids) < 2:
        raise ValueError(f"Text {number} is a single token, and none comes after it. Leave it out.")


def _require_left(predicted: Sequence[tuple[Encoded, int]], skip: int) -> None:
    """Raise ValueError where `skip` leaves nothing of a text."""
    for number, (row, start) in enumerate(predicted):
        if start >= len(row.ids):
            raise ValueError(
                f"skip={skip} leaves nothing of text {number}, which has {len(row.ids)} tokens. "
                "Skip fewer, or leave the text out."
            )


def _predicted(row: Encoded, text_is: TextIs) -> tuple[Encoded, int]:
    """The row as a steering's scopes are to see it, and the first token that is predicted."""
    if 0 < row.response < len(row.ids):
        return row, row.response
    return (replace(row, response=1) if text_is == "response" else row), 1
