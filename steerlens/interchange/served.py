"""A steered model that is asked by a harness: requests come one by one, and are answered together.

Whoever waits for an answer first takes every request that waits with the same options, and has the
model write all of them in one batch. Each is what `generate` writes for it alone, but for the
rounding of a padded batch.
"""

import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from steerlens.conversations import Conversation
from steerlens.generation import written_alone
from steerlens.identity import context_length
from steerlens.parsing import few
from steerlens.prompts import Encoded, TooManyTokens, encode
from steerlens.runtime.turns import in_turn
from steerlens.sampling import Sampling
from steerlens.steering import Steering
from steerlens.types import HookedModel
from steerlens.written import Written

Ended = Literal["stop", "max_tokens", "model_length"]
LONGEST = 512
"""The most tokens of an answer where nobody says how many."""
OPTIONS = {
    "temperature": "temperature",
    "top_p": "top_p",
    "top_k": "top_k",
    "frequency_penalty": "frequency_penalty",
    "max_tokens": "max_new_tokens",
    "stop_seqs": "stop",
}
"""Options of a harness, and what `Sampling` calls them."""
REFUSED = {
    "best_of",
    "extra_body",
    "logit_bias",
    "logprobs",
    "modalities",
    "num_choices",
    "presence_penalty",
    "prompt_logprobs",
    "response_schema",
    "top_logprobs",
}
"""Options that change what is written or returned, and are not there."""


@dataclass(frozen=True)
class Asked:
    """One request: the conversation, how the answer is sampled, and the seed of its noise."""

    conversation: Conversation
    sampling: Sampling
    seed: int


@dataclass(frozen=True)
class Answer:
    """The text, how many tokens the prompt and the answer have, why it ended, and the time."""

    text: str
    n_prompt: int
    n_written: int
    ended: Ended
    seconds: float


@dataclass(eq=False)
class Served:
    """A model, what steers it, and the requests that wait."""

    model: HookedModel
    steering: Steering | None = None
    batch_size: int = 32
    waiting: list[tuple[Asked, "Future[Answer]"]] = field(default_factory=list)
    changing: Any = field(default_factory=threading.Lock, repr=False)
    writing: Any = field(default_factory=threading.Lock, repr=False)

    def put(self, asked: Asked) -> "Future[Answer]":
        """Let a request wait; `answer` of what is returned gives the answer."""
        future: Future[Answer] = Future()
        with self.changing:
            self.waiting.append((asked, future))
        return future

    def answer(self, future: "Future[Answer]") -> Answer:
        """The answer to a request that was put, written now if nobody has. Takes its time."""
        with self.writing:
            while not future.done():
                self._write(self._taken(future))
        return future.result()

    def _taken(self, future: "Future[Answer]") -> "list[tuple[Asked, Future[Answer]]]":
        """The request, and those that can be written with it, no longer waiting."""
        with self.changing:
            (own,) = [one for one in self.waiting if one[1] is future]
            like = [one for one in self.waiting if one[0].sampling == own[0].sampling]
            like.remove(own)
            taken = [own, *like][: self.batch_size]
            self.waiting = [one for one in self.waiting if one not in taken]
        return taken

    def _write(self, taken: "list[tuple[Asked, Future[Answer]]]") -> None:
        begun, by_room = time.monotonic(), dict[int, list[tuple[Encoded, Asked, Future[Answer]]]]()
        for asked, future in taken:
            try:
                with in_turn(self.model):  # a tokenizer serves one thread at a time
                    row = encode(self.model, asked.conversation)
            except TooManyTokens:
                future.set_result(Answer("", 0, 0, "model_length", 0.0))
            except Exception as error:  # it is this request's own, and not that of the batch
                future.set_exception(error)
            else:
                by_room.setdefault(self._room(row, asked), []).append((row, asked, future))
        for room, some in by_room.items():
            self._write_together(room, some, begun)

    def _room(self, row: Encoded, asked: Asked) -> int:
        """How many tokens the answer may have, by what is asked and what the context holds."""
        most, wanted = context_length(self.model), asked.sampling.max_new_tokens
        return wanted if most is None else min(wanted, most - len(row.ids))

    def _write_together(
        self, room: int, some: "list[tuple[Encoded, Asked, Future[Answer]]]", begun: float
    ) -> None:
        if room < 1:
            for row, _, future in some:
                future.set_result(Answer("", len(row.ids), 0, "model_length", 0.0))
            return
        try:
            written = written_alone(
                self.model,
                [row for row, _, _ in some],
                [asked.seed for _, asked, _ in some],
                self.steering,
                sampling=replace(some[0][1].sampling, max_new_tokens=room),
                batch_size=self.batch_size,
            )
        except Exception as error:
            for _, _, future in some:
                future.set_exception(error)
            return
        seconds = time.monotonic() - begun
        for (row, asked, future), one in zip(some, written, strict=True):
            ended = _ended(one, room < asked.sampling.max_new_tokens)
            future.set_result(Answer(one.cut_text, len(row.ids), len(one.ids), ended, seconds))


def _ended(written: Written, by_context: bool) -> Ended:
    last = written.ids[-1] if written.ids else None
    if last in written.stops.tokens or written.stops.cut(written.text) is not None:
        return "stop"
    return "model_length" if by_context else "max_tokens"


def sampling_of(options: Mapping[str, Any]) -> Sampling:
    """The sampling that a harness's options ask for; ValueError for one that is not there.

    Options that no text depends on (retries, time limits, connections) are the harness's own.
    """
    refused = [name for name in REFUSED if options.get(name) and not _is_one(name, options[name])]
    if refused:
        raise ValueError(
            f"A model of steerlens has no {few(sorted(refused))}. Leave it out: there are "
            f"{', '.join(OPTIONS)} and seed."
        )
    given = {ours: options[name] for name, ours in OPTIONS.items() if options.get(name) is not None}
    given.setdefault("max_new_tokens", LONGEST)
    return Sampling(**{**given, "stop": tuple(given.get("stop", ()))})


def _is_one(name: str, value: Any) -> bool:
    return name in ("best_of", "num_choices") and value == 1


def conversation_of(messages: Sequence[tuple[str, str]]) -> Conversation:
    """The conversation of (role, text) messages; several system texts at its start become one.

    An assistant's message at the end is the start of the answer. ValueError for the results of
    tools, and for an order that no chat has.
    """
    tools = [role for role, _ in messages if role not in ("system", "user", "assistant")]
    if tools:
        raise ValueError(
            f"A model of steerlens has no tools; found a message of the role {few(tools)}."
        )
    begins = next((n for n, (role, _) in enumerate(messages) if role != "system"), len(messages))
    system = "\n\n".join(text for _, text in messages[:begins])
    turns = [("system", system)] * (begins > 0) + list(messages[begins:])
    return Conversation.of([{"role": role, "content": text} for role, text in turns])
