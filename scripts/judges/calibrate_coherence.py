"""Fix the scale of the coherence judge on human text alone: analysis/judges/coherence.json.

    python scripts/judges/calibrate_coherence.py --corpus ../shared/corpus

Run it again whenever the weights of the demonstration model change.
"""

from __future__ import annotations

import argparse
import json
import math
import random
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
from human_texts import DEFAULT_CORPUS, cut, openings

import steerlens
from analysis.judges.coherence import (
    PLACES,
    Measured,
    Scale,
    badness,
    canonical,
    malformed,
    measure,
    repetition_nearby,
)
from analysis.judges.linear import HERE
from steerlens.digests import signed
from steerlens.identity import fingerprint
from steerlens.types import HookedModel
from steerlens.whole import write_whole


def shuffled_tokens(text: str, tokenizer, rng: random.Random) -> str:
    """The text with its tokens in any order."""
    ids = tokenizer(text, add_special_tokens=False, verbose=False).input_ids
    return tokenizer.decode(rng.sample(ids, len(ids)))


def looped(text: str) -> str:
    """The first eight words again and again, as many words as the text has."""
    words = text.split()
    return " ".join((words[:8] * (len(words) // 8 + 1))[: len(words)])


def shuffled_letters(text: str, rng: random.Random) -> str:
    """The text with the letters of each word in any order."""
    return " ".join("".join(rng.sample(word, len(word))) for word in text.split())


def human_loss(texts: list[Measured]) -> list[float]:
    """Mean loss at each place."""
    sums, counts = np.zeros(len(PLACES) + 1), np.zeros(len(PLACES) + 1)
    for one in texts:
        places = np.searchsorted(PLACES, np.arange(len(one.losses)), side="right")
        np.add.at(sums, places, one.losses)
        np.add.at(counts, places, 1)
    means = sums / np.maximum(counts, 1)
    means[counts == 0] = means[counts > 0][-1]
    return means.tolist()


def by_register(texts: list[Measured], value: Callable[[Measured], float]) -> dict[str, float]:
    """Median of a value over the texts of each register."""
    names = sorted({one.register for one in texts})
    return {
        name: float(np.median([value(one) for one in texts if one.register == name]))
        for name in names
    }


def scale_of(corpus: Path, count: int, seed: int) -> Scale:
    """The scale, from at most `count` texts of each register."""
    model, rng = steerlens.load("demo"), random.Random(seed)
    tokenizer = model.tokenizer
    groups = openings(corpus, "scale", count, seed).values()
    texts = [cut(one.text, tokenizer, rng) for group in groups for one in group]

    human = _measured(texts, model)
    jumbled = _measured([shuffled_tokens(text, tokenizer, rng) for text in texts], model)
    registers = [one.register for one in human]
    loss = {
        name: human_loss([one for one in human if one.register == name])
        for name in sorted(set(registers))
    }

    def excess(one: Measured) -> float:
        return one.excess(loss[one.register])

    bases = {
        "loss_base": by_register(human, excess),
        "repetition_base": by_register(human, lambda one: one.repetition),
        "malformed_base": by_register(human, lambda one: one.malformed),
    }
    spelt = [malformed(canonical(shuffled_letters(text, rng))) for text in texts]
    repeated = [repetition_nearby(canonical(looped(text))) for text in texts]
    jumbled_registers = [one.register for one in jumbled]
    raw = Scale(
        fingerprint=fingerprint(model),
        loss=loss,
        **bases,
        loss_unit=unit([excess(one) for one in jumbled], jumbled_registers, bases["loss_base"]),
        repetition_unit=math.inf,
        malformed_unit=unit(spelt, registers, bases["malformed_base"]),
        human=0.0,
        shuffled=1.0,
    )

    span = median_badness(jumbled, raw) - median_badness(human, raw)
    whole = unit(repeated, registers, bases["repetition_base"])
    scale = replace(raw, repetition_unit=whole / span)
    anchors = median_badness(human, scale), median_badness(jumbled, scale)
    return replace(scale, human=anchors[0], shuffled=anchors[1])


def unit(values: list[float], registers: list[str], base: dict[str, float]) -> float:
    """The median of the values over their register's base."""
    return float(np.median([v - base[r] for v, r in zip(values, registers, strict=True)]))


def median_badness(group: list[Measured], scale: Scale) -> float:
    """The median badness of a group on a scale."""
    return float(np.median([badness(one, scale) for one in group]))


def _measured(texts: list[str], model: HookedModel) -> list[Measured]:
    found = measure(texts, model)
    assert None not in found, "a human text without words"
    return [one for one in found if one is not None]


def main() -> None:
    """Write the scale."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--corpus", type=Path, default=DEFAULT_CORPUS)
    parser.add_argument("--count", type=int, default=300, help="texts of each register")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    scale = scale_of(arguments.corpus, arguments.count, arguments.seed)
    text = json.dumps(signed(asdict(scale)), indent=1)
    write_whole(HERE / "coherence.json", f"{text}\n".encode())


if __name__ == "__main__":
    main()
