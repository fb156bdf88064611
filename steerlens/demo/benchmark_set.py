"""The frozen benchmark set of the demonstration model: prompts, instructions, completions, splits.

    from steerlens import benchmark_set
    positive = benchmark_set.read("positive")
    positive.pairs("train")     # [PromptPair(...), ...]: prompted completions
    positive.questions("test")  # ["Write a review of a horror movie about a train.", ...]
    positive.held_out           # wordings of the instruction that the model was not trained on

Every row is a user turn, an instruction as it was given, what the model then wrote, and what it
wrote without. Completions were sampled from the demonstration model at temperature 0.7 with at
most 64 tokens, and not selected. No topic and no title is in two splits. The instruction of
a row is one of the attribute's training wordings; `held_out` has five more, for equivalent prompts.
`scripts/demo_model/benchmark_set.py` made the file and can make it again.
"""

import gzip
import zlib
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from steerlens.digests import require_signed
from steerlens.parsing import parse_json
from steerlens.prompts import PromptPair

FILE = Path(__file__).with_name("benchmark_set.json.gz")
SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class Row:
    """One question with two answers."""

    split: str
    user: str
    instruction: str
    prompted: str
    plain: str


@dataclass(frozen=True)
class Attribute:
    """What the set holds about one attribute; `wordings[0]` is the canonical instruction."""

    name: str
    wordings: tuple[str, ...]
    held_out: tuple[str, ...]
    rows: tuple[Row, ...]

    def split(self, split: str) -> tuple[Row, ...]:
        """The rows of "train", "validation" or "test"."""
        if split not in SPLITS:
            raise ValueError(f"No split is called {split!r}. There are {', '.join(SPLITS)}.")
        return tuple(row for row in self.rows if row.split == split)

    def questions(self, split: str) -> list[str]:
        """The user turns of a split."""
        return [row.user for row in self.split(split)]

    def pairs(self, split: str, instruction: str | None = None) -> list[PromptPair]:
        """The prompted completions as pairs; `instruction` replaces what was given to the model."""
        return [
            PromptPair.with_system(
                row.user, row.instruction if instruction is None else instruction, row.prompted
            )
            for row in self.split(split)
        ]


def attributes() -> tuple[str, ...]:
    """The names of the attributes."""
    return tuple(_content()["attributes"])


def model_fingerprint() -> str:
    """The fingerprint of the demonstration model that wrote the completions."""
    return _content()["fingerprint"]


def read(attribute: str) -> Attribute:
    """What the set holds about one attribute."""
    known = _content()["attributes"]
    if attribute not in known:
        raise ValueError(f"The benchmark set has no attribute {attribute!r}: {', '.join(known)}.")
    found = known[attribute]
    rows = tuple(Row(*values) for values in found["rows"])
    return Attribute(attribute, tuple(found["wordings"]), tuple(found["held_out"]), rows)


@cache
def _content() -> dict[str, Any]:
    try:
        content = parse_json(gzip.decompress(FILE.read_bytes()))
        return require_signed(content, {"fingerprint", "attributes"})
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise ValueError(f"{FILE} is missing or damaged ({error}). Reinstall steerlens.") from error
