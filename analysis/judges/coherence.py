"""Coherence from 0 to 100: predictable English, not repetitive, made of words.

A text is first brought into a *canonical form*: lower case, no commas, no list dashes, full stops
for exclamation marks, no emoji (up to one for every five words). Little is left of what a format
changes, so a format costs little. Then

    b = max(l, m, -1/9) + max(r, 0)
    score = clip(90 (1 - (b - b_human) / (b_shuffled - b_human)), 0, 100)

l  loss: mean over tokens of (loss of the unsteered demonstration model - what human text of that
   register costs at that place), conditioned on a request for the register that the text looks
   like and on "write in lowercase, no commas"; 1 is human text with its tokens shuffled
r  repetition: share of repeated word pairs and of repeated word quadruples, averaged, in windows
   of 64 words, or that of repeated runs of 16 words in the whole text if it is more; in units that
   make human text whose first 8 words are said again and again as bad as shuffled text
m  malformed: share of characters that belong to no known word; 1 is human text whose words have
   their letters shuffled

l, r and m are 0 for the median human text of the register. Every constant comes from human text
alone (`scripts/judges/calibrate_coherence.py` writes `coherence.json`; no sample of any model is
looked at): median human text gets 90, median text with its *tokens* shuffled 0. The judge has
weights of its own, so steering the model that wrote a text does not touch it.

Weaknesses. It sees no further than its small model: contradictions, wrong facts, and stories that
lead nowhere cost nothing as long as each sentence is likely; English unlike film reviews,
encyclopedia articles and fairy tales costs something. Shuffling whole words, which leaves them
words, costs only about half of the scale. What the demonstration model samples below temperature 1
is more predictable than what people write, and l is the mean over a text: every tenth word can be
replaced by a random one before such text scores less (docs/demo_model.md has the table), so compare
strengths on samples at temperature 1, or on the unclipped parts (`measure`). A loop that changes a
word every time round is seen only if it is shorter than 64 words. A text of under ten words is
scored on little evidence, and l reads only the first 448 tokens of a long one. Other scripts than
Latin are no words to it: it warns of them.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from functools import cache
from typing import Any

import numpy as np
import torch
from jaxtyping import Float

from steerlens.digests import read_tensors, require_signed
from steerlens.identity import device_of, fingerprint
from steerlens.models import load
from steerlens.parsing import parse_json, text_of_input
from steerlens.prompts import Conversation, Encoded, encode, stack, with_response
from steerlens.runtime.forward import logits
from steerlens.types import HookedModel

from .domain import FOREIGN, warn_outside
from .linear import HERE, WORDS, as_texts, register_classifier, words_of
from .protocol import Prompt, Scores, require_texts

INSTRUCTION = "Write in lowercase. Do not use commas."
REQUESTS = {
    "review": "Review a movie you watched.",
    "encyclopedia": "Write an encyclopedia article.",
    "fairytale": "Tell me a fairy tale.",
}
PLACES = (4, 8, 16, 32, 64, 128)
"""Borders between the places in a text for which human loss is tabulated, in tokens."""

MOST_TOKENS = 448
WINDOW = 64
LONG_RUN = 16
"""Words in a row that people hardly say twice."""
WORDS_OF_AN_EMOJI = 5
"""Words to each emoji that costs nothing."""
EMOJI = re.compile(
    "[\U0001f1e6-\U0001f1ff]{2}|[\U0001f300-\U0001faff\u2600-\u27bf\u2b05-\u2b55\u231a-\u23ff]"
    "[\ufe0f\u20e3\U0001f3fb-\U0001f3ff]*(?:\u200d[\U0001f300-\U0001faff\u2600-\u27bf]\ufe0f?)*"
)
"""A picture, with what colours it or joins others to it."""
DOMAIN = (
    "English prose like film reviews, encyclopedia articles and fairy tales; on other prose it "
    "compares texts of one kind"
)
BATCH = 32
LOWEST = -1 / 9
"""Where the scale reaches 100."""


def canonical(text: str) -> str:
    """The text in lower case, without commas, list dashes, exclamation marks and a few emoji."""
    text = EMOJI.sub(" ", text, count=max(1, len(words_of(text)) // WORDS_OF_AN_EMOJI))
    text = re.sub(r"^- +", "", text.lower(), flags=re.MULTILINE)
    text = re.sub(r"!+", ".", text.replace(",", " "))
    return re.sub(r"\s+", " ", text).strip()


def repetition(text: str) -> float:
    """How much a text repeats nearby, or the share of runs of 16 words that were there before.

    The larger of the two. The runs are counted in the whole text, for loops longer than a window.
    """
    return max(repetition_nearby(text), _again(words_of(text), LONG_RUN))


def repetition_nearby(text: str) -> float:
    """Share of repeated pairs and of repeated quadruples of words, averaged; scales are made of it.

    Counted in windows of 64 words, half overlapping: a long text repeats more without being worse.
    """
    words = words_of(text)
    starts = range(0, max(len(words) - WINDOW // 2, 1), WINDOW // 2)
    windows = [words[start : start + WINDOW] for start in starts]
    return sum(_again(one, 2) + _again(one, 4) for one in windows) / (2 * len(windows))


def _again(words: list[str], length: int) -> float:
    """Share of runs of words that were there before."""
    runs = [tuple(words[i : i + length]) for i in range(len(words) - length + 1)]
    return 1 - len(set(runs)) / len(runs) if runs else 0.0


@cache
def known_words() -> frozenset[str]:
    """Words that occur several times in the training texts."""
    path = HERE / "words.safetensors"
    try:
        return frozenset(as_texts(read_tensors(path, WORDS)["words"].numpy()))
    except (KeyError, ValueError) as error:
        raise ValueError(f"{path} is missing or damaged ({error}). Reinstall steerlens.") from error


def malformed(text: str) -> float:
    """Share of a text's characters, blanks apart, that belong to no known word."""
    known = known_words()
    inside = sum(len(word) for word in words_of(text) if _is_known(word, known))
    return 1 - inside / max(len("".join(text.split())), 1)


def known_share(text: str) -> float:
    """Share of a text's words that are known; 0 for a text without words."""
    known, words = known_words(), words_of(text)
    return sum(_is_known(word, known) for word in words) / max(len(words), 1)


def _is_known(word: str, known: frozenset[str]) -> bool:
    return word in known or word.removesuffix("'s") in known or word.isdigit()


@dataclass(frozen=True, eq=False)
class Scale:
    """What human text looks like to this judge; all numbers are medians unless said otherwise.

    `loss[register]` is the mean loss in nats at each place; the others are by register as well.
    """

    fingerprint: str
    loss: dict[str, list[float]]
    loss_base: dict[str, float]
    loss_unit: float
    repetition_base: dict[str, float]
    repetition_unit: float
    malformed_base: dict[str, float]
    malformed_unit: float
    human: float
    shuffled: float

    @classmethod
    def shipped(cls) -> "Scale":
        """The scale in this package."""
        path = HERE / "coherence.json"
        try:
            content = parse_json(text_of_input(path))
            return cls(**require_signed(content, {item.name for item in fields(cls)}))
        except (OSError, ValueError, TypeError) as error:
            raise ValueError(
                f"{path} is missing or damaged ({error}). Reinstall steerlens."
            ) from error


@dataclass(frozen=True, eq=False)
class Measured:
    """The three ingredients of one text, before any scale."""

    register: str
    losses: Float[np.ndarray, " token"]
    repetition: float
    malformed: float

    def excess(self, human: Sequence[float]) -> float:
        """Mean over tokens of the loss above that of human text at the same place."""
        places = np.searchsorted(PLACES, np.arange(len(self.losses)), side="right")
        return float((self.losses - np.asarray(human)[places]).mean())


@torch.inference_mode()
def measure(texts: Sequence[str], model: HookedModel) -> list[Measured | None]:
    """The ingredients of each text; None for a text without words. `model` is the judge's own."""
    plain = [canonical(text) for text in texts]
    p = register_classifier().probabilities(plain)
    names = register_classifier().classes
    registers = [names[int(np.argmax(row))] if row[0] == row[0] else "review" for row in p]
    rows = {i: _row(model, text, registers[i]) for i, text in enumerate(plain) if words_of(text)}
    order = sorted(rows, key=lambda i: len(rows[i].ids))
    losses: dict[int, np.ndarray] = {}
    for start in range(0, len(order), BATCH):
        chunk = order[start : start + BATCH]
        losses.update(zip(chunk, _losses(model, [rows[i] for i in chunk]), strict=True))
    return [
        Measured(registers[i], losses[i], repetition(text), malformed(text)) if i in rows else None
        for i, text in enumerate(plain)
    ]


@cache
def _prompt(model: HookedModel, register: str) -> Encoded:
    return encode(model, Conversation(REQUESTS[register], INSTRUCTION))


def _row(model: HookedModel, text: str, register: str) -> Encoded:
    row = with_response(model, _prompt(model, register), text)
    return Encoded(row.ids[: row.response + MOST_TOKENS], row.question, row.response, row.bos)


def _losses(model: HookedModel, rows: Sequence[Encoded]) -> list[np.ndarray]:
    tokens, window = stack(rows, side="right")
    log_p = logits(model, tokens.to(device_of(model)), window.to(device_of(model))).log_softmax(-1)
    found = -log_p[:, :-1].gather(-1, tokens[:, 1:, None].to(log_p.device))[..., 0]
    return [
        found[i, row.response - 1 : len(row.ids) - 1].float().cpu().numpy()
        for i, row in enumerate(rows)
    ]


def badness(one: Measured, scale: Scale) -> float:
    """The module's b."""
    at = one.register
    l = (one.excess(scale.loss[at]) - scale.loss_base[at]) / scale.loss_unit
    r = (one.repetition - scale.repetition_base[at]) / scale.repetition_unit
    m = (one.malformed - scale.malformed_base[at]) / scale.malformed_unit
    return max(l, m, LOWEST) + max(r, 0.0)


@cache
def _own_model() -> HookedModel:
    return load("demo")


@dataclass(frozen=True)
class Coherence:
    """The coherence judge; 0 for a text without words. It needs no prompts.

    `domain` says what it may be used on; it warns of texts that are not in Latin letters.
    It loads a copy of the demonstration model for itself at the first call.
    """

    scale: Scale = field(default_factory=Scale.shipped, repr=False)
    name: str = "coherence"
    domain: str = field(default=DOMAIN, repr=False)

    def __call__(self, texts: Sequence[str], prompts: Sequence[Prompt] | None = None) -> Scores:
        require_texts(texts, prompts)
        warn_outside(self.name, self.domain, texts, (FOREIGN,))
        model = _own_model()
        if _fingerprint(model) != self.scale.fingerprint:
            raise ValueError(
                "The coherence scale was made with other weights of the demonstration model than "
                "those installed. Reinstall steerlens, or run "
                "scripts/judges/calibrate_coherence.py."
            )
        human, shuffled = self.scale.human, self.scale.shuffled
        b = np.array(
            [math.inf if one is None else badness(one, self.scale) for one in measure(texts, model)]
        )
        return np.clip(90 * (1 - (b - human) / (shuffled - human)), 0, 100)


@cache
def _fingerprint(model: Any) -> str:
    return fingerprint(model)
