"""The live side: what the view asks for is measured in a thread, and answered in messages.

Messages are handled at once; they leave a request, or a wish to stop. One thread works on the
newest request and ends when there is none. Before every pass and after every word it looks whether
it should go on.
"""

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

from steerlens.types import whole_number

from .methods import PROMPT, UNSTEERED, Place, by_name
from .payload import (
    NAMES,
    State,
    curves_json,
    effect_json,
    key_of,
    reading_json,
    text_json,
    words_of,
)
from .readings import Change, Reading
from .states import checked, lines_of, state_json, subtracted
from .study import Study

Message = dict[str, Any]
Send = Callable[[Message], None]
OFTEN = 0.1
"""Seconds between two pieces of a text, so that a fast model does not flood the line."""


class _Over(Exception):
    """The work is not wanted any more: a newer request came, or a wish to stop."""


@dataclass(eq=False)
class Live:
    """Answers a view.

    `state` is what it showed last; `known` are the texts that it has all of, `begun` those of which
    it has the tokens and what the prompt did: a newer request may come before the rest. `looked`
    are those whose logit lens of the prompt it has.
    """

    study: Study
    send: Send
    state: State
    known: set[int]
    begun: set[int] = field(default_factory=set)
    looked: set[int] = field(default_factory=set)
    request: Message | None = None
    stopping: bool = False
    worker: threading.Thread | None = None
    # Not threading.Lock, which is a function before Python 3.13 and no type.
    lock: AbstractContextManager[Any] = field(default_factory=threading.Lock)

    def receive(self, message: Mapping[str, Any]) -> None:
        """A message of the view; returns at once."""
        kind = message.get("type")
        if kind == "stop":
            self.stopping = True
        elif kind == "keep":
            self._keep(message)
        elif kind == "ask":
            with self.lock:
                self.request, self.stopping = dict(message), False
                if self.worker is None:
                    self.worker = threading.Thread(
                        target=self._work, name="steerlens explorer", daemon=True
                    )
                    self.worker.start()
        else:
            self.send({"type": "error", "text": f"The view sent an unknown message, {kind!r}."})

    def wait(self, seconds: float = 60.0) -> None:
        """Wait until every request is answered."""
        worker = self.worker
        if worker is not None:
            worker.join(seconds)

    def _keep(self, message: Mapping[str, Any]) -> None:
        try:
            before = _without_words(self.state)
            self.state = checked(self.study, {**before, **message.get("state", {})})
        except (ValueError, TypeError) as error:
            self.send({"type": "error", "text": str(error)})
            return
        lines = lines_of(self.study, self.state)
        self.send({"type": "kept", "python": lines, "json": state_json(self.state)})

    # -- In the thread -----------------------------------------------------------------------------

    def _work(self) -> None:
        while True:
            with self.lock:
                request, self.request = self.request, None
                if request is None:
                    self.worker = None
                    return
            self._answer(request)

    def _answer(self, request: Message) -> None:
        number = request.get("id")
        try:
            _Answer(self, number).give(request.get("state", {}))
        except _Over:
            if self.stopping and self.request is None:
                self.send({"type": "stopped", "id": number})
        except Exception as error:  # of a steer, of the model: the view says it, the thread lives
            words = str(error) or type(error).__name__
            self.send({"type": "error", "id": number, "text": words})


@dataclass(eq=False)
class _Answer:
    """The answer to one request, in the order in which one wants to see it."""

    live: Live
    id: Any
    last: float = 0.0
    told: float = 0.0

    def give(self, asked: Mapping[str, Any]) -> None:
        """Numbers first, then the text as it is written, then the lens, which takes longest."""
        self._go_on()
        study, number = self.live.study, self._text(asked)
        wanted = {name: asked[name] for name in NAMES if name in asked} | {"text": number}
        state = checked(study, {**_without_words(self.live.state), **wanted})
        self.live.state = state
        self._introduce(number)
        for method, index, strength in self._shown(state):
            self._numbers(number, method, index, strength)
        method, index = state["method"], state["place"]
        self._write(number, method, index, state["strength"])
        for method, index, strength in self._shown(state):
            self._lens(number, method, index, strength)
        if number not in self.live.looked:
            self._lens(number, PROMPT, 0, 1.0)
            self.live.looked.add(number)

    def _text(self, asked: Mapping[str, Any]) -> int:
        """The number of the text, whose response is written first where the question is new."""
        words = [asked.get(name) for name in ("question", "instruction")]
        if None in words:
            return int(asked.get("text", self.live.state["text"]))
        given = whole_number(asked.get("text"))
        if given is not None and given in range(len(self.live.study.pairs)):
            line = self.live.study.line(given)
            if [line.question, line.instruction] == words:
                return given
        self._progress("The prompted model answers", 0.0)

        def said(so_far: str) -> None:
            self._go_on()
            self._progress(f"The prompted model answers: {so_far[-60:]}", None, passing=True)

        return self.live.study.ask(str(words[0]), str(words[1]), said)

    def _introduce(self, number: int) -> None:
        """A text that the view has no numbers of yet: its tokens, and what the prompt did."""
        study, live = self.live.study, self.live
        if number in live.known:
            return
        self._progress("Reading the text with and without the instruction", 0.1)
        prompt = study.with_text(number, PROMPT, study.methods[0].places[0], 1.0)
        if number not in live.begun:
            self._vocabulary(prompt)
            self._introduced(number, prompt, [])
            live.begun.add(number)
        self._go_on()
        self._progress("Reading the text under other instructions", 0.3)
        curves = curves_json(study.references(number))
        self._progress("The unsteered model answers", 0.5)
        study.completion(number, UNSTEERED, self._heard)
        self._introduced(number, prompt, curves)
        live.known.add(number)

    def _introduced(self, number: int, prompt: Reading, curves: list[dict[str, Any]]) -> None:
        study = self.live.study
        self._say(
            {
                "type": "text",
                "id": self.id,
                "index": number,
                "text": text_json(study, number, completions=False),
                "curves": curves,
                "prompt": reading_json(prompt),
            }
        )

    def _shown(self, state: State) -> Iterator[tuple[str, int, float]]:
        """The readings that the view needs: the method's, and of the one that is subtracted."""
        yield state["method"], state["place"], state["strength"]
        if state["minus"] not in (None, PROMPT):
            yield subtracted(self.live.study, state)

    def _numbers(self, number: int, method: str, index: int, strength: float) -> None:
        self._go_on()
        self._progress(f"Reading {method} at strength {strength:.3g}", 0.2)
        reading = self.live.study.reading(number, method, self._place(method, index), strength)
        self._send(number, method, index, reading)

    def _write(self, number: int, method: str, index: int, strength: float) -> None:
        study, place = self.live.study, self._place(method, index)
        if study.reading(number, method, place, strength).text is not None:
            return
        key = key_of(number, method, index, strength)

        def said(so_far: str) -> None:
            self._go_on()
            if time.monotonic() - self.last > OFTEN:
                self.last = time.monotonic()
                self._say(
                    {"type": "stream", "id": self.id, "key": key, "text": so_far, "done": False}
                )

        self._progress(f"{method} writes", 0.5)
        words = study.with_text(number, method, place, strength, said).text
        self._say({"type": "stream", "id": self.id, "key": key, "text": words, "done": True})

    def _lens(self, number: int, method: str, index: int, strength: float) -> None:
        study, place = self.live.study, self._place(method, index)
        reading = study.reading(number, method, place, strength)
        if reading.lens is None:
            layers: list[tuple[Change, ...]] = []
            n_layers = len(reading.rmse)
            for layer in study.lens(number, method, place, strength):
                self._go_on()
                layers.append(layer)
                said = f"Looking at layer {len(layers)} of {n_layers} through the logit lens"
                self._progress(said, len(layers) / n_layers, passing=True)
            study.keep_lens(number, method, place, strength, tuple(layers))
        self._send(number, method, index, study.reading(number, method, place, strength))

    def _send(self, number: int, method: str, index: int, reading: Reading) -> None:
        self._vocabulary(reading)
        self._say(
            {
                "type": "reading",
                "id": self.id,
                "key": key_of(number, method, index, reading.strength),
                "reading": reading_json(reading),
                "effect": effect_json(method, index, reading),
            }
        )

    def _vocabulary(self, reading: Reading) -> None:
        self._say({"type": "vocabulary", "words": words_of(self.live.study, [reading])})

    def _place(self, method: str, index: int) -> Place:
        return by_name(self.live.study.methods, method).offered(True)[index]

    def _heard(self, words: str) -> None:
        self._go_on()

    def _go_on(self) -> None:
        """Raise _Over where the work is not wanted any more."""
        if self.live.stopping or self.live.request is not None:
            raise _Over

    def _progress(self, text: str, share: float | None, passing: bool = False) -> None:
        """Say what is being done; of what passes by, no more than one can read."""
        if passing and time.monotonic() - self.told < OFTEN:
            return
        self.told = time.monotonic()
        self._say({"type": "progress", "id": self.id, "text": text, "share": share})

    def _say(self, message: Message) -> None:
        self.live.send(message)


def _without_words(state: State) -> State:
    """The state without its question, so that the number of the text alone says which it is."""
    return {name: state[name] for name in NAMES}
