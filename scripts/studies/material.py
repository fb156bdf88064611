"""What a study is made of: pairs and questions in three splits, wordings, and judges if there are.

Demonstration model: its frozen benchmark set. A model without turns: a prefix stands for the
instruction. Any other model: a JSON file says what is asked and how, and the model answers:

    {"formal": {"instruction": "Answer formally.", "definition": "It keeps a formal tone.",
                "held_out": ["Be formal.", ...],
                "questions": {"train": [...], "validation": [...], "test": [...]}}}
"""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from analysis.judges import Coherence, FormatJudge, judge_of
from analysis.judges.protocol import Judge
from analysis.measures.faithfulness import reworded
from analysis.measures.tradeoff import Setting
from steerlens.demo import benchmark_set
from steerlens.generation import Sampling, generate, prompted_pairs
from steerlens.prompts import PLAIN, PromptPair, tokenizer_of
from steerlens.types import HookedModel

SPLITS = ("train", "validation", "test")
DEMO_ATTRIBUTES = ("positive", "negative", "lowercase", "exclamation", "fairytale")
"""Both persona-like ones, two formats, one register."""

NEUTRAL = ("Answer the user.", "Write in English.", "Reply to the request.")
"""Instructions that ask for nothing of any attribute."""

NEUTRAL_PREFIXES = (
    "There was a big box. It was red and blue. It was in a room. ",
    "It was a day in the spring. The sky was blue. A car was on the road. ",
)
PREFIXES = {
    "sad": [
        "Lily was very sad. She cried and cried. It was a bad day. ",
        "It was the worst day. Lily cried and felt very sad. ",
        "Lily felt so bad that she cried all day. She was sad. ",
    ],
    "happy": [
        "Lily was very happy. She smiled and laughed. It was a fun day. ",
        "It was the best day. Lily smiled and felt very happy. ",
        "Lily felt so good that she laughed all day. She was happy. ",
    ],
}
NAMES = ("Tom", "Ben", "Sue", "Mia", "Tim", "Anna", "Sam", "Lucy", "Max", "Ella", "Jack", "Amy")
PLACES = ("to the park", "to the zoo", "to the beach", "into the woods", "to the shop", "home")
COMPANIONS = ("mom", "dad", "dog", "friend", "cat")


@dataclass(frozen=True, eq=False)
class Material:
    """One attribute of one model."""

    attribute: str
    pairs: Mapping[str, Sequence[PromptPair]]
    equivalents: Sequence[str]
    neutral: Sequence[str]
    instruction: str | None = None
    questions: Mapping[str, Sequence[str]] | None = None
    judge: Judge | None = None
    coherence: Judge | None = None

    def training(self, model: HookedModel, size: int, seed: int) -> list[PromptPair]:
        """So many training pairs, drawn by the seed, of the successful ones."""
        pairs = self.successful(model)
        return random.Random(f"training {seed}").sample(pairs, min(size, len(pairs)))

    def successful(self, model: HookedModel) -> list[PromptPair]:
        """The training pairs whose responses show the attribute (the paper, section 3).

        The judges must give them 50 points or more; a format must hold throughout.
        """
        if self.attribute not in _SUCCESSFUL:
            pairs = list(self.pairs["train"])
            if self.judge is not None and self.coherence is not None:
                texts = [_text(model, pair) for pair in pairs]
                exact = isinstance(self.judge, FormatJudge)
                shown = self.judge.holds(texts) if exact else self.judge(texts) >= 50
                good = shown & (self.coherence(texts) >= 50)
                pairs = [pair for pair, one in zip(pairs, good.tolist(), strict=True) if one]
            _SUCCESSFUL[self.attribute] = pairs
        return _SUCCESSFUL[self.attribute]

    def in_other_words(self, split: str, wordings: Sequence[str]) -> list[list[PromptPair]]:
        """The pairs of a split under each wording."""
        if self.instruction is not None:
            return [reworded(self.pairs[split], text) for text in wordings]
        return [
            [PromptPair(p.plain, text + str(p.plain), p.response) for p in self.pairs[split]]
            for text in wordings
        ]

    def setting(self, model: HookedModel, split: str, n: int, seed: int) -> Setting | None:
        """The questions of a split under the judges; None where there are no judges."""
        if self.questions is None or self.judge is None or self.coherence is None:
            return None
        return Setting(
            model,
            self.questions[split],
            self.judge,
            self.coherence,
            Sampling(temperature=1.0, seed=seed),
            n,
            batch_size=128,
        )


_SUCCESSFUL: dict[str, list[PromptPair]] = {}
"""Judged once a process."""


def _text(model: HookedModel, pair: PromptPair) -> str:
    if isinstance(pair.response, str):
        return pair.response
    return tokenizer_of(model).decode(list(pair.response), skip_special_tokens=True)


def demo(attribute: str) -> Material:
    """An attribute of the demonstration model."""
    held = benchmark_set.read(attribute)
    return Material(
        attribute,
        {split: held.pairs(split) for split in SPLITS},
        held.held_out,
        NEUTRAL,
        held.wordings[0],
        {split: held.questions(split) for split in SPLITS},
        judge_of(attribute),
        Coherence(),
    )


def prefixed(model: HookedModel, attribute: str, sizes: Sequence[int]) -> Material:
    """Stories that begin with a sad or a happy paragraph, against the same without it.

    `sizes` are the numbers of pairs in each split; no opening is in two splits.
    """
    prefix, *others = PREFIXES[attribute]
    openings = [
        f"One day, {name} went {place} with the {companion}."
        for name in NAMES
        for place in PLACES
        for companion in COMPANIONS
    ]
    random.Random(0).shuffle(openings)
    pairs: dict[str, list[PromptPair]] = {}
    for split, size in zip(SPLITS, sizes, strict=True):
        some, openings = openings[:size], openings[size:]
        n = 2 if split == "train" else 1  # more than a seed draws, so that seeds differ
        made = generate(model, [prefix + one for one in some], max_new_tokens=48, n=n, seed=0)
        pairs[split] = [
            PromptPair(some[number], prefix + some[number], made.response_ids(row))
            for row, number in enumerate(made.prompt)
        ]
    return Material(attribute, pairs, others, NEUTRAL_PREFIXES)


def from_file(
    model: HookedModel, path: Path, attribute: str, judges: tuple[str, str] | None = None
) -> Material:
    """An attribute of a JSON file; `judges` is (URL, model) of an OpenAI-compatible server."""
    tokenizer = tokenizer_of(model)
    if not tokenizer.chat_template:
        tokenizer.chat_template = PLAIN  # from here on the model has turns, for every cell
    asked = _asked(path, attribute)
    judge, coherence = _judges(attribute, asked["definition"], judges)
    pairs = {
        split: prompted_pairs(model, asked["questions"][split], asked["instruction"])
        for split in SPLITS
    }
    return Material(
        attribute,
        pairs,
        asked["held_out"],
        NEUTRAL,
        asked["instruction"],
        asked["questions"],
        judge,
        coherence,
    )


def _asked(path: Path, attribute: str) -> dict[str, Any]:
    """What a JSON file says of an attribute, with every field that is needed."""
    known = json.loads(path.read_text(encoding="utf-8"))
    if attribute not in known:
        raise ValueError(f"{path} has no attribute {attribute!r}; it has {', '.join(known)}.")
    asked = known[attribute]
    missing = {"instruction", "definition", "held_out", "questions"} - set(asked)
    missing |= {
        f"questions.{split}" for split in SPLITS if not asked.get("questions", {}).get(split)
    }
    if missing:
        raise ValueError(
            f"{path}: {attribute!r} lacks {', '.join(sorted(missing))}. The head of material.py "
            "shows a whole one."
        )
    return asked


def _judges(
    attribute: str, definition: str, judges: tuple[str, str] | None
) -> tuple[Judge | None, Judge | None]:
    if judges is None:
        return None, None
    from analysis.judges.llm import Endpoint, TraitJudge, coherence

    endpoint = Endpoint(*judges)
    return TraitJudge(endpoint, attribute, definition), coherence(endpoint)
