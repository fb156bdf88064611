"""Judges of any instruction on any model, made of the model's own predictions.

How much a text looks like what this model writes under an instruction, with x the question:

    d_t   = log p(t | instruction, x, text before t) - log p(t | neutral, x, text before t)
    e     = mean over the text of  clip(d_t, -2, 2)   where t is new, e_plain where it is not
    score = clip(100 (e - e_plain) / (e_prompted - e_plain), 0, 100)

e_plain is the mean over tokens of plain completions, e_prompted over prompted ones, so 0 is the plain model and
100 the prompted one. A token is new unless it belongs to three words in a row that the instruction
holds too (an echo), or ends three that the text has had before (a loop): both are likely under the
instruction and show nothing. The clip keeps a single word (" Arrr") from deciding alone.

Likelihood does not see loops and salad, so there is a judge of coherence beside it:

    l = -mean over the text of log p(t | ...), the smaller of the two sides
    r = the share of repeated pairs and quadruples of words (or of runs of 16 words, if more)
    coherence = clip(100 (1 - max(0, (l - l_0) / (l_1 - l_0)) - max(0, (r - r_0) / (r_1 - r_0))), 0, 100)

with l_0, r_0 those of prompted and plain completions, l_1 of the same with their tokens shuffled,
and r_1 of their first eight words said again and again.

Both measure likeness to the text of *this* model, not whether an instruction is followed: where the
prompted model does not follow it, no more does a text with 100. What a claim rests on needs a second
judge that is made of something else (words, a rule, another model). `docs/results/
likelihood_judge.md` has how often it errs.
"""  # noqa: E501

import random
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TypeAlias

import numpy as np
import torch
from jaxtyping import Bool, Float

from steerlens.borders import ids_of
from steerlens.divergence import response_log_p
from steerlens.generation import generate
from steerlens.kinds import require_kinds
from steerlens.prompts import Conversation, Encoded, encode, show, tokenizer_of, with_response
from steerlens.sampling import Sampling
from steerlens.types import HookedModel

from .coherence import repetition, repetition_nearby
from .domain import FOREIGN, Sign, is_foreign, warn_outside
from .protocol import Prompt, Scores, require_texts

OWN_TEXT = (
    "answers to questions like those of the scale, in the script of the completions that made the "
    "scale, and about as long as they are"
)
"""The domain of both judges here."""
LONGER = 2
"""Times the scale's longest completion from which on a text is said to be too long. All is a mean
over tokens, and how much a token tells changes along an answer: of a text beyond this, more than
half of the mean is of places where the scale has seen nothing."""
CLIP = 2.0
"""The most that one token may tell, in nats."""
RUN = 3
"""Words in a row that make an echo or a loop."""
LOOP = 8
"""Words of the loop that counts as no text at all."""
KEPT = 4096
"""Texts whose log-probabilities are kept."""

Evidence: TypeAlias = Float[np.ndarray, " token"]


@dataclass(frozen=True, eq=False)
class Read:
    """One text under both sides: log p of its tokens in nats, and which of them are new."""

    instructed: Evidence
    neutral: Evidence
    new: Bool[np.ndarray, " token"]

    @property
    def clipped(self) -> Evidence:
        """The module's d of every token, clipped; nats."""
        return np.clip(self.instructed - self.neutral, -CLIP, CLIP)

    def evidence(self, plain: float) -> float:
        """The module's e, given e_plain; NaN for a text without tokens."""
        told = np.where(self.new, self.clipped, plain)
        return float(told.mean()) if len(told) else float("nan")

    @property
    def loss(self) -> float:
        """The module's l."""
        sides = self.instructed, self.neutral
        return min(-float(side.mean()) for side in sides) if len(self.new) else float("inf")


@dataclass(eq=False)
class Sides:
    """The two sides under which texts are read by the unsteered model; what was read is kept.

    `neutral` is None for the plain side: what the chat template puts there by itself.
    """

    model: HookedModel
    instruction: str
    neutral: str | None = None
    known: dict[tuple[Prompt, str], Read] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        self.echo = _runs(_words(self.model, self.ids(self.instruction)))

    def read(self, texts: Sequence[str], prompts: Sequence[Prompt]) -> list[Read]:
        """Every text after its question, in batches."""
        asked = [_question(prompt) for prompt in prompts]
        keys = list(zip(asked, texts, strict=True))
        missing = [key for key in dict.fromkeys(keys) if key not in self.known]
        sides = [
            self._log_p([(_under(question, system), text) for question, text in missing])
            for system in (self.instruction, self.neutral)
        ]
        if len(self.known) + len(missing) > KEPT:
            self.known = {key: self.known[key] for key in keys if key in self.known}
        for key, (rows, instructed), (_, neutral) in zip(missing, *sides, strict=True):
            new = self._new(rows.ids[rows.response :])
            self.known[key] = Read(instructed, neutral, new)
        return [self.known[key] for key in keys]

    def _log_p(self, asked: Sequence[tuple[Prompt, str]]) -> list[tuple[Encoded, Evidence]]:
        rows = [with_response(self.model, encode(self.model, p), text) for p, text in asked]
        answered = [row for row in rows if len(row.ids) > row.response]
        found = iter(response_log_p(self.model, answered))
        nothing = torch.zeros(0)
        log_p = [next(found) if len(row.ids) > row.response else nothing for row in rows]
        return [(row, one.double().numpy()) for row, one in zip(rows, log_p, strict=True)]

    def ids(self, text: str) -> list[int]:
        """The tokens of a text by itself."""
        return ids_of(tokenizer_of(self.model), text)

    def _new(self, ids: Sequence[int]) -> Bool[np.ndarray, " token"]:
        """Which tokens neither echo the instruction nor say again what the text has said."""
        words, new = _words(self.model, ids), np.ones(len(ids), dtype=bool)
        seen: set[tuple[str, ...]] = set()
        for end in range(RUN, len(words) + 1):
            run = tuple(words[end - RUN : end])
            if run in self.echo:
                new[end - RUN : end] = False
            elif run in seen:
                new[end - 1] = False
            seen.add(run)
        return new


@dataclass(frozen=True)
class MadeOf:
    """Of the completions that made a scale: the longest, in tokens, and whether all are Latin."""

    longest: int
    latin: bool

    def signs(self, sides: Sides) -> tuple[Sign, ...]:
        """What shows that a text is not like them."""
        long = Sign(
            f"longer than {LONGER} times the longest completion of the scale ({self.longest} "
            "tokens)",
            lambda text: len(sides.ids(text)) > LONGER * self.longest,
        )
        return (long, FOREIGN) if self.latin else (long,)


@dataclass(frozen=True, eq=False)
class Likelihood:
    """How much like this model's own prompted text each text is: 0 is its plain text, 100 that.

    It may be used on answers to questions like those that made the scale, on this model (`domain`).
    It warns of texts that are much longer than the completions that made the scale, or in another
    script; where `made_of` is None these are not known, and it warns of nothing. NaN for an empty
    text. It must be told the prompts, since all is compared after the question.
    """

    sides: Sides
    plain: float
    prompted: float
    coherence: "LikelihoodCoherence"
    name: str
    domain: str = field(default=OWN_TEXT, repr=False)
    made_of: MadeOf | None = None

    def __call__(self, texts: Sequence[str], prompts: Sequence[Prompt] | None = None) -> Scores:
        read = self.sides.read(texts, _required(texts, prompts))
        if self.made_of is not None:
            warn_outside(self.name, self.domain, texts, self.made_of.signs(self.sides))
        e = np.array([one.evidence(self.plain) for one in read])
        return np.clip(100 * (e - self.plain) / (self.prompted - self.plain), 0, 100)


@dataclass(frozen=True, eq=False)
class LikelihoodCoherence:
    """How likely each text is to the model, prompted or not, less what it repeats; 0 if empty.

    It may be used on answers to questions like those that made the scale, on this model (`domain`),
    and warns as `Likelihood` does.
    """

    sides: Sides
    losses: tuple[float, float]
    repetitions: tuple[float, float]
    name: str = "coherence"
    domain: str = field(default=OWN_TEXT, repr=False)
    made_of: MadeOf | None = None

    def __call__(self, texts: Sequence[str], prompts: Sequence[Prompt] | None = None) -> Scores:
        asked = _required(texts, prompts)
        if self.made_of is not None:
            warn_outside(self.name, self.domain, texts, self.made_of.signs(self.sides))
        l = np.array([read.loss for read in self.sides.read(texts, asked)])
        r = np.array([repetition(text) for text in texts])
        bad = [
            np.maximum(0, (found - low) / (high - low))
            for found, (low, high) in ((l, self.losses), (r, self.repetitions))
        ]
        return np.clip(100 * (1 - bad[0] - bad[1]), 0, 100)


def likelihood(
    model: HookedModel,
    instruction: str,
    questions: Sequence[str],
    *,
    neutral: str | None = None,
    n: int = 2,
    sampling: Sampling | None = None,
    name: str = "likelihood",
) -> Likelihood:
    """The judge of `instruction` on this model, its scale from `n` completions of each question.

    `neutral` is an instruction of the same shape that asks for nothing of the kind ("You are a
    person. Talk like a person."): without one, much of what any instruction does counts as this
    one's. The judge's `coherence` is the judge of coherence on the same model. ValueError where
    prompted completions are no likelier under the instruction than plain ones.
    """
    require_kinds(likelihood, locals())
    if not questions:
        raise ValueError("No questions were given. Pass some user turns like those to be judged.")
    sides, sampling = Sides(model, instruction, neutral), sampling or Sampling(max_new_tokens=48)
    (asked, plain), (_, prompted) = (
        _completions(model, questions, system, n, sampling) for system in (None, instruction)
    )
    new = [one.clipped[one.new] for one in sides.read(plain, asked)]
    if not sum(map(len, new)):
        raise ValueError(
            "No plain completion has a token that is not said before, so there is nothing to set "
            "the scale by. Take other questions, or longer completions."
        )
    e_plain = float(np.concatenate(new).mean())
    found = [one.evidence(e_plain) for one in sides.read(prompted, asked)]
    e_prompted = float(np.nanmean(found))
    if not e_prompted > e_plain:
        raise ValueError(
            f"Prompted completions are no likelier under {instruction!r} than plain ones "
            f"({e_prompted:.3g} and {e_plain:.3g} nats a token, {len(asked)} of each), so this "
            "model shows no effect to judge by. Does it follow the instruction? Take more "
            "questions, or another judge."
        )
    every = [*plain, *prompted]
    latin = not any(map(is_foreign, every))
    made_of = MadeOf(max(len(sides.ids(text)) for text in every), latin)
    coherence = replace(_coherence(sides, every, [*asked, *asked]), made_of=made_of)
    return Likelihood(sides, e_plain, e_prompted, coherence, name, made_of=made_of)


def _completions(
    model: HookedModel,
    questions: Sequence[str],
    system: str | None,
    n: int,
    sampling: Sampling,
) -> tuple[list[Conversation], list[str]]:
    """The question of every completion, without the system turn that it was written under."""
    prompts = [Conversation(question, system) for question in questions]
    made = generate(model, prompts, n=n, **vars(sampling))
    return [Conversation(questions[i]) for i in made.prompt], list(made.texts)


def _coherence(
    sides: Sides, texts: Sequence[str], asked: Sequence[Conversation]
) -> LikelihoodCoherence:
    """The scale: these texts are coherent, and not when shuffled or looped."""
    chosen = [i for i, text in enumerate(texts) if text.strip()]
    texts, asked = [texts[i] for i in chosen], [asked[i] for i in chosen]
    rng, tokenizer = random.Random(0), tokenizer_of(sides.model)
    salad = [shuffled_tokens(text, tokenizer, rng) for text in texts]
    losses = [_median_loss(sides, some, asked) for some in (texts, salad)]
    repeated = [
        float(np.median([repetition_nearby(text) for text in some]))
        for some in (texts, [looped(text) for text in texts])
    ]
    if not losses[0] < losses[1] or not repeated[0] < repeated[1]:
        raise ValueError(
            f"To this model its own completions are no likelier ({losses[0]:.3g} nats a token) "
            f"than with their tokens shuffled ({losses[1]:.3g}), or they repeat themselves as much "
            "as a loop does, so it cannot judge coherence. Ask for longer completions, "
            "sampling=Sampling(max_new_tokens=64), or --max-new-tokens 64, or take another model."
        )
    return LikelihoodCoherence(sides, (losses[0], losses[1]), (repeated[0], repeated[1]))


def _median_loss(sides: Sides, texts: Sequence[str], asked: Sequence[Prompt]) -> float:
    return float(np.median([read.loss for read in sides.read(texts, asked)]))


def shuffled_tokens(text: str, tokenizer, rng: random.Random) -> str:
    """The text with its tokens in any order."""
    ids = tokenizer(text, add_special_tokens=False, verbose=False).input_ids
    return tokenizer.decode(rng.sample(ids, len(ids)))


def looped(text: str) -> str:
    """The first eight words again and again, as many words as the text has and 32 at least."""
    words = text.split()
    return " ".join(words[:LOOP] * (max(len(words), 4 * LOOP) // min(len(words), LOOP) + 1))


def _words(model: HookedModel, ids: Sequence[int]) -> list[str]:
    """Each token as a word that is the same in upper case and after a space."""
    return [text.strip().lower() for text in show(model, ids)]


def _runs(words: Sequence[str]) -> set[tuple[str, ...]]:
    return {tuple(words[start : start + RUN]) for start in range(len(words) - RUN + 1)}


def _question(prompt: Prompt) -> Prompt:
    """What was asked, without what it was told."""
    return prompt.without_system() if isinstance(prompt, Conversation) else prompt


def _under(question: Prompt, system: str | None) -> Prompt:
    """The question under an instruction: a system turn, or in front of raw text."""
    if isinstance(question, Conversation):
        return replace(question, system=system)
    return (system or "") + question


def _required(texts: Sequence[str], prompts: Sequence[Prompt] | None) -> Sequence[Prompt]:
    require_texts(texts, prompts)
    if prompts is None:
        raise ValueError(
            "The likelihood judge compares texts as answers to their questions, and none were "
            "given. Pass them: judge(texts, [Conversation(question) for question in ...])."
        )
    return prompts
