"""What an explorer knows: the model, the methods, the texts, and every reading that was taken.

Nothing is measured before it is asked for, and nothing twice. A worker thread may fill it while
another one reads what is there.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeVar

from steerlens.conversations import Conversation
from steerlens.generation import end_tokens, stream
from steerlens.prompts import Encoded, PromptPair
from steerlens.sampling import Sampling
from steerlens.sinks import require_times
from steerlens.steering import Steering
from steerlens.templates import tokenizer_of
from steerlens.types import HookedModel

from ..measures.faithfulness import EQUIVALENT, faithfulness, reworded
from ..measures.plain_side import ANY_INSTRUCTION, require_baseline, require_pairs
from .lens import lens_of
from .methods import PROMPT, UNSTEERED, Method, Place, Steerings, as_methods
from .passes import Pass, run_of
from .readings import Change, Lens, Reading, reading_of
from .texts import Line, Text, Units, text_of

Held = TypeVar("Held")
Number = TypeVar("Number")
Key = tuple[int, str, str, float]
"""Text, method, label of the place, strength."""
TEXTS, PASSES = 8, 3
"""So many texts with their two runs, and so many steered runs, are held at a time."""
Said = Callable[[str], None]
"""Hears what a model has written so far."""


def nobody(words: str) -> None:
    """Hears nothing."""


@dataclass(frozen=True, eq=False)
class Study:
    """The readings of some methods on some texts. `pairs` grows by the texts of the user's own."""

    model: HookedModel
    methods: tuple[Method, ...]
    pairs: list[PromptPair]
    units: Units
    strengths: tuple[float, ...]
    sampling: Sampling
    baseline: str
    sinks: float
    equivalents: tuple[str, ...] = ()
    lines: dict[int, Line] = field(default_factory=dict)
    texts: dict[int, Text] = field(default_factory=dict)
    passes: dict[Key, Pass] = field(default_factory=dict)
    readings: dict[Key, Reading] = field(default_factory=dict)
    written: dict[tuple[int, str], str] = field(default_factory=dict)
    curves: dict[int, list[dict[str, object]]] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        model: HookedModel,
        pairs: Sequence[PromptPair],
        steerings: Steerings,
        strengths: Sequence[float],
        sampling: Sampling,
        baseline: str,
        sinks: float,
        equivalents: Sequence[str] = (),
    ) -> "Study":
        """Bad input is an error before any work; then the direction of the pairs is found."""
        require_baseline(baseline)
        require_times(sinks)
        methods = as_methods(steerings, model)
        chosen = as_strengths(strengths)
        require_pairs(pairs)
        if isinstance(equivalents, str):
            raise TypeError(
                f"equivalents is a list of instructions; found one text. Write [{equivalents!r}]."
            )
        if not pairs:
            raise ValueError(
                "No pairs were given. steerlens.prompted_pairs(model, questions, instruction) "
                "makes some; with two or more of them the direction of one is from the others."
            )
        units = Units.of(model, pairs, baseline, sinks)
        given = (list(pairs), units, chosen, sampling, baseline, sinks, tuple(equivalents))
        return cls(model, methods, *given)

    def line(self, number: int) -> Line:
        """A text before anything is run; ValueError if there is none of this number."""
        if not 0 <= number < len(self.pairs):
            raise ValueError(f"There are texts 0 to {len(self.pairs) - 1}; asked for {number}.")
        if number not in self.lines:
            self.lines[number] = Line.of(self.model, self.pairs[number], self.baseline)
        return self.lines[number]

    def text(self, number: int) -> Text:
        """A text with its two runs."""
        line = self.line(number)
        text = self.texts.get(number)
        if text is None:
            text = text_of(self.model, line, number, self.units, self.baseline, self.sinks)
            _remember(self.texts, number, text, TEXTS)
        return text

    def asking(self, question: str, instruction: str) -> int | None:
        """The number of the text of a question under an instruction, if there is one."""
        for number in range(len(self.pairs)):
            line = self.line(number)
            if (line.question, line.instruction) == (question, instruction):
                return number
        return None

    def ask(self, question: str, instruction: str, said: Said = nobody) -> int:
        """The number of the text of a question; the prompted model answers one that is new.

        `said` hears the answer as it grows, and may stop it by an exception.
        """
        known = self.asking(question, instruction)
        if known is not None:
            return known
        if not question.strip() or not instruction.strip():
            raise ValueError("Write a question and an instruction: both are needed to compare.")
        words, ids, ends = "", list[int](), end_tokens(self.model)
        prompt = Conversation(question, system=instruction)
        for piece in stream(self.model, prompt, sampling=self.sampling):
            words += piece.text
            ids += [piece.token] if piece.token not in ends else []
            said(words)
        if not ids:
            raise ValueError(
                "The prompted model ended its turn at once, so there is no response to measure on. "
                "Ask something else, or explore with another seed or temperature."
            )
        self.pairs.append(PromptPair.with_system(question, instruction, tuple(ids)))
        return len(self.pairs) - 1

    def reading(self, text: int, method: str, place: Place, strength: float) -> Reading:
        """The numbers of a method on a text; exactly 0 at strength 0, which runs nothing."""
        key = (text, method, place.label, float(strength))
        if key not in self.readings:
            run = self._run(text, method, place, strength)
            self.readings[key] = reading_of(self.text(text), run, place, float(strength))
        return self.readings[key]

    def _run(self, number: int, method: str, place: Place, strength: float) -> Pass:
        text, key = self.text(number), (number, method, place.label, float(strength))
        if place.steering is None:
            return text.prompted
        if strength == 0:
            return text.plain
        run = self.passes.get(key)
        if run is None:
            run = run_of(self.model, text.line.row, number, place.steering.scaled(strength))
            _remember(self.passes, key, run, PASSES)
        return run

    def with_lens(self, text: int, method: str, place: Place, strength: float) -> Reading:
        """The same with the logit lens of the change, which takes longer than all the rest."""
        reading = self.reading(text, method, place, strength)
        if reading.lens is None:
            lens = tuple(self.lens(text, method, place, strength))
            return self.keep_lens(text, method, place, strength, lens)
        return reading

    def lens(
        self, text: int, method: str, place: Place, strength: float
    ) -> Iterator[tuple[Change, ...]]:
        """The logit lens of the change, layer by layer as it is looked through."""
        moved = self._run(text, method, place, strength).outputs
        return lens_of(self.model, self.text(text).plain.outputs, moved)

    def keep_lens(
        self, text: int, method: str, place: Place, strength: float, lens: Lens
    ) -> Reading:
        """The reading with a logit lens that was looked through layer by layer."""
        key = (text, method, place.label, float(strength))
        self.readings[key] = replace(self.readings[key], lens=lens)
        return self.readings[key]

    def with_text(
        self, text: int, method: str, place: Place, strength: float, said: Said = nobody
    ) -> Reading:
        """The same with what the method writes, which `said` hears as it grows."""
        reading = self.reading(text, method, place, strength)
        if reading.text is None:
            words = self._writes(text, place, strength, said)
            key = (text, method, place.label, float(strength))
            reading = replace(self.readings[key], text=words)
            self.readings[key] = reading
        return reading

    def _writes(self, text: int, place: Place, strength: float, said: Said) -> str:
        if place.steering is None:
            return self.completion(text, PROMPT)
        if strength == 0:
            return self.completion(text, UNSTEERED, said)
        return self._written(self.asked(text), place.steering.scaled(strength), said)

    def completion(self, text: int, method: str, said: Said = nobody) -> str:
        """What is written without steering: "unsteered" anew, "prompt" as the pair has it."""
        if (text, method) not in self.written:
            response = self.pairs[text].response
            if method == UNSTEERED:
                words = self._written(self.asked(text), None, said)
            elif isinstance(response, str):
                words = response
            else:
                words = tokenizer_of(self.model).decode(list(map(int, response)))
            self.written[text, method] = words
        return self.written[text, method]

    def asked(self, text: int) -> Encoded:
        """What a steered or unsteered model is asked: the plain side, as it is measured."""
        row = self.line(text).row
        return replace(row, ids=row.prompt_ids)

    def _written(self, prompt: Encoded, steering: Steering | None, said: Said) -> str:
        words = ""
        for piece in stream(self.model, prompt, steering, sampling=self.sampling):
            words += piece.text
            said(words)
        return words

    def references(self, text: int) -> list[dict[str, object]]:
        """The relative RMSE of other prompts on a text: any instruction, and equivalent ones."""
        if text not in self.curves:
            self.curves[text] = self._references([self.pairs[text]])
        return self.curves[text]

    def _references(self, pair: list[PromptPair]) -> list[dict[str, object]]:
        others: list[list[PromptPair]] = []
        if isinstance(pair[0].prompted, Conversation):
            others = [reworded(pair, words) for words in self.equivalents]
        try:
            table = faithfulness(
                self.model,
                pair,
                {},
                equivalents=others,
                baseline=self.baseline,
                sinks=self.sinks,
                n_bootstrap=1,
            )
        except ValueError:  # nothing can be written in other words on this model
            return []
        return [
            {"name": name, **{c: rows[column].tolist() for c, column in _CURVE.items()}}
            for name in (EQUIVALENT, ANY_INSTRUCTION)
            for rows in [table.loc[table["method"] == name]]
            if len(rows)
        ]


_CURVE = {"rmse": "relative_rmse", "low": "low", "high": "high"}


def as_strengths(strengths: Sequence[float]) -> tuple[float, ...]:
    """The strengths as finite numbers in order, each once; ValueError for what is none."""
    texts = isinstance(strengths, str) or not isinstance(strengths, Iterable)
    try:
        found = () if texts else tuple(sorted({float(strength) for strength in strengths}))
    except (TypeError, ValueError):
        found = ()
    if not found or not all(abs(strength) < float("inf") for strength in found):
        raise ValueError(f"strengths are finite numbers, such as (0.5, 1, 2); found {strengths!r}.")
    return found


def _remember(held: dict[Number, Held], key: Number, value: Held, most: int) -> None:
    """Keep a value, and let go of the oldest beyond so many."""
    held[key] = value
    for old in list(held)[:-most]:
        held.pop(old, None)
