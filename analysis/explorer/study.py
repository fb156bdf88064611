"""What an explorer knows: the model, the methods, the texts, and every reading that was taken.

Nothing is measured before it is asked for, and nothing twice. A worker thread may fill it while
another one reads what is there.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from steerlens.conversations import Conversation
from steerlens.generation import generate, prompted_pairs
from steerlens.prompts import Prompt, PromptPair
from steerlens.sampling import Sampling
from steerlens.sinks import require_times
from steerlens.steering import Steering
from steerlens.templates import tokenizer_of
from steerlens.types import HookedModel

from ..measures.faithfulness import EQUIVALENT, faithfulness, reworded
from ..measures.plain_side import ANY_INSTRUCTION, instruction_of, require_baseline
from .lens import lens_of
from .methods import PROMPT, UNSTEERED, Method, Place, Steerings, as_methods
from .passes import Pass, run_of
from .readings import Reading, reading_of
from .texts import Text, Units, text_of

Key = tuple[int, str, str, float]
"""Text, method, label of the place, strength."""


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
    texts: dict[int, Text] = field(default_factory=dict)
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
        if not pairs:
            raise ValueError(
                "No pairs were given. steerlens.prompted_pairs(model, questions, instruction) "
                "makes some; with two or more of them the direction of one is from the others."
            )
        units = Units.of(model, pairs, baseline, sinks)
        given = (list(pairs), units, chosen, sampling, baseline, sinks, tuple(equivalents))
        return cls(model, methods, *given)

    def text(self, number: int) -> Text:
        """A text with its two runs; ValueError if there is none of this number."""
        if not 0 <= number < len(self.pairs):
            raise ValueError(f"There are texts 0 to {len(self.pairs) - 1}; asked for {number}.")
        if number not in self.texts:
            given = (self.pairs[number], number, self.units, self.baseline, self.sinks)
            self.texts[number] = text_of(self.model, *given)
        return self.texts[number]

    def ask(self, question: str, instruction: str) -> int:
        """The number of the text of a question; the prompted model answers one that is new."""
        for number, pair in enumerate(self.pairs):
            if _asks(pair, question, instruction):
                return number
        made = prompted_pairs(
            self.model,
            [question],
            instruction,
            max_new_tokens=self.sampling.max_new_tokens,
            temperature=self.sampling.temperature,
            seed=self.sampling.seed,
        )
        self.pairs.append(made[0])
        return len(self.pairs) - 1

    def place(self, method: str, label: str) -> Place:
        """A place of a method by its label."""
        found = next(one for one in self.methods if one.name == method)
        return next(place for place in found.offered(True) if place.label == label)

    def reading(self, text: int, method: str, place: Place, strength: float) -> Reading:
        """The numbers of a method on a text; exactly 0 at strength 0, which runs nothing."""
        key = (text, method, place.label, float(strength))
        if key not in self.readings:
            run = self._run(self.text(text), method, place, strength)
            self.readings[key] = reading_of(self.text(text), run, place, float(strength))
        return self.readings[key]

    def _run(self, text: Text, method: str, place: Place, strength: float) -> Pass:
        if method == PROMPT:
            return text.prompted
        if strength == 0 or place.steering is None:
            return replace(text.plain, added={}, steered=())
        return run_of(self.model, text.row, text.number, place.steering.scaled(strength))

    def with_lens(self, text: int, method: str, place: Place, strength: float) -> Reading:
        """The same with the logit lens of the change, which takes longer than all the rest."""
        reading = self.reading(text, method, place, strength)
        if reading.lens is None:
            lens = tuple(lens_of(self.model, self.text(text).plain.outputs, reading.delta))
            reading = replace(reading, lens=lens)
            self.readings[text, method, place.label, float(strength)] = reading
        return reading

    def with_text(self, text: int, method: str, place: Place, strength: float) -> Reading:
        """The same with what the method writes."""
        reading = self.reading(text, method, place, strength)
        if reading.text is None:
            return self.wrote(text, method, place, strength, self._writes(text, place, strength))
        return reading

    def wrote(
        self, text: int, method: str, place: Place, strength: float, words: str
    ) -> Reading:
        """The reading with the words that the method wrote, which were streamed."""
        reading = replace(self.reading(text, method, place, strength), text=words)
        self.readings[text, method, place.label, float(strength)] = reading
        return reading

    def _writes(self, text: int, place: Place, strength: float) -> str:
        if place.steering is None:
            return self.completion(text, PROMPT)
        if strength == 0:
            return self.completion(text, UNSTEERED)
        return self._generated(self.asked(text), place.steering.scaled(strength))

    def completion(self, text: int, method: str) -> str:
        """What is written without steering: "unsteered" anew, "prompt" as the pair has it."""
        if (text, method) not in self.written:
            pair = self.pairs[text]
            words = (
                self._generated(self.asked(text), None)
                if method == UNSTEERED
                else pair.response
                if isinstance(pair.response, str)
                else tokenizer_of(self.model).decode(list(map(int, pair.response)))
            )
            self.written[text, method] = words
        return self.written[text, method]

    def asked(self, text: int) -> Prompt:
        """What a steered or unsteered model is asked: the plain side, under the baseline."""
        plain, system = self.pairs[text].plain, instruction_of(self.baseline)
        if not isinstance(plain, Conversation) or system is None:
            return plain
        return replace(plain, system=system)

    def _generated(self, prompt: Prompt, steering: Steering | None) -> str:
        return generate(self.model, [prompt], steering, sampling=self.sampling).texts[0]

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


def _asks(pair: PromptPair, question: str, instruction: str) -> bool:
    plain, prompted = pair.plain, pair.prompted
    if not isinstance(plain, Conversation) or not isinstance(prompted, Conversation):
        return False
    return (plain, prompted) == (
        Conversation(question),
        Conversation(question, system=instruction),
    )


def as_strengths(strengths: Sequence[float]) -> tuple[float, ...]:
    """The strengths as finite numbers in order, each once; ValueError for what is none."""
    found = tuple(sorted({float(strength) for strength in strengths}))
    if not found or not all(abs(strength) < float("inf") for strength in found):
        raise ValueError(f"strengths are finite numbers, such as (0.5, 1, 2); found {strengths}.")
    return found
