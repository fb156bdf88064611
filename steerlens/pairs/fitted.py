"""What a fitted direction reads: the attribute, or the words that tell the two sides apart.

A text's score is the projection of its activation on the direction, where a fit reads by default
(the mean over the response, or the last token). AUROC is how often the positive of two texts scores
higher: 0.5 is chance.

    pairs            what was fitted on, so this one flatters
    test             other pairs
    paraphrases      the attribute said in other words: what a direction of the attribute keeps
    words alone      the telling words of each side in random order, and nothing else
    without words    the pairs with these words taken out
"""

import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from steerlens.activations import capture, default_read
from steerlens.combinators import innermost
from steerlens.conversations import Conversation
from steerlens.pairs.findings import Finding
from steerlens.pairs.looked_at import LookedAt, Text
from steerlens.pairs.significance import auroc, auroc_interval
from steerlens.pairs.words import words_of
from steerlens.precision import wide, wide_dtype
from steerlens.prompts import encode_all
from steerlens.sites import Layer, Site, by_site
from steerlens.steering import Steering
from steerlens.types import HookedModel, VectorLike

TELLING_WORDS = 20
"""Words of each side that the lexical control is made of, at most."""
ALONE = 3
"""So many of them stand for a text that has none."""
READS_WORDS = 0.1
"""Words alone that come so near to the pairs' own AUROC do what the pairs do."""
LOST = 0.7
"""An AUROC below is hardly the attribute's."""
Scores = Float[np.ndarray, " text"]


@dataclass(frozen=True, eq=False)
class Fitted:
    """A model, and the directions that its activations are projected on."""

    model: HookedModel
    directions: Mapping[Site, Float[Tensor, "d_model"]]

    @classmethod
    def of(
        cls,
        model: HookedModel,
        steering: Steering | Mapping[Site, VectorLike] | Mapping[Layer, VectorLike],
    ) -> "Fitted":
        """The direction of each site; ValueError where a steering has none, or several."""
        dtype = wide_dtype(model)
        if not isinstance(steering, Steering):
            given: Any = by_site(steering, model)
            return cls(model, {site: torch.as_tensor(v).to(dtype) for site, v in given.items()})
        found: dict[Site, Tensor] = {}
        for site, steer in steering.placed:
            one: Any = innermost(steer)
            vector = next((v for name in ("direction", "v", "u", "Z")
                           if isinstance(v := getattr(one, name, None), Tensor)), None)  # fmt: skip
            vector = vector[0] if vector is not None and vector.shape[:-1] == (1,) else vector
            if vector is None or vector.ndim != 1:
                raise ValueError(
                    f"{type(one).__name__} at {site} has no single direction to look at. Give one: "
                    "lint(..., steering={layer: vector})."
                )
            found[site] = vector.detach().to(dtype)
        return cls(model, found)

    def of_sides(self, look: LookedAt) -> tuple[dict[Site, Scores], dict[Site, Scores]]:
        """The scores of both sides; of options, those of the letter."""
        if look.choices is not None:
            positive, negative = look.choices.sides(self.model)
            return self.scores(positive), self.scores(negative)
        return self.scores(_prompts(look.positive)), self.scores(_prompts(look.negative))

    def scores(self, prompts: Sequence[Any]) -> dict[Site, Scores]:
        """The projection of each prompt's activation on the direction of each site."""
        rows = encode_all(self.model, list(prompts))
        sites = list(self.directions)
        seen = capture(self.model, rows, sites, scope=default_read(rows))
        found = {}
        for site, v in self.directions.items():
            means = wide(seen.row_means(site, len(rows)))
            found[site] = (means @ (v / v.norm()).to(means.device)).cpu().numpy()
        return found


def _prompts(texts: Sequence[Text]) -> list[str | Conversation]:
    return [_prompt(text) for text in texts]


def _prompt(text: Text) -> str | Conversation:
    if not text.before:
        return Conversation(text.asked, text.system or None) if text.asked else text.said
    return Conversation(text.asked or text.before, text.system or None, text.said)


def controls(
    fitted: Fitted, look: LookedAt, test: LookedAt | None, paraphrases: LookedAt | None
) -> tuple[dict[str, float], list[Finding]]:
    """AUROC of every control, at the site that tells the pairs apart best; and what follows."""
    if not look.sided:
        raise ValueError(f"{look.about}: there are no two sides that a direction could tell apart.")
    others = {"pairs": look, "test": test, "paraphrases": paraphrases}
    scored = {name: fitted.of_sides(one) for name, one in others.items() if one is not None}
    for name, both in lexical(look).items():
        positive, negative = (fitted.scores(_prompts(side)) for side in both)
        scored[name] = positive, negative
    own = {site: auroc(scored["pairs"][0][site], scored["pairs"][1][site])
           for site in fitted.directions}  # fmt: skip
    site = max(own, key=lambda one: own[one])
    numbers: dict[str, float] = {"layer": float(site.layer)}
    for name, (positive, negative) in scored.items():
        low, high = auroc_interval(positive[site], negative[site])
        area = auroc(positive[site], negative[site])
        named = f"AUROC, {name}"
        numbers |= {named: area, f"{named}, low": low, f"{named}, high": high}
    return numbers, list(_concluded(numbers))


def _concluded(numbers: Mapping[str, float]) -> list[Finding]:
    own, found = numbers["AUROC, pairs"], []
    said = numbers.get("AUROC, paraphrases")
    if said is not None and said < max(LOST, own - 0.2):
        found.append(Finding(
            "paraphrases", "warning",
            f"the direction tells the pairs apart with AUROC {own:.2f}, and paraphrases with "
            f"{said:.2f} [{numbers['AUROC, paraphrases, low']:.2f}, "
            f"{numbers['AUROC, paraphrases, high']:.2f}]",
            "It is of how the pairs say the attribute. Fit on more ways of saying it.",
            {"pairs": own, "paraphrases": said},
        ))  # fmt: skip
    words, rest = numbers.get("AUROC, words alone"), numbers.get("AUROC, without words")
    if words is not None and words >= max(LOST, own - READS_WORDS):
        lost = rest is not None and rest < LOST
        found.append(Finding(
            "lexical control", "warning" if lost else "note",
            f"the telling words alone, in random order, give AUROC {words:.2f} (the pairs "
            f"{own:.2f}{'' if rest is None else f', the pairs without these words {rest:.2f}'})",
            "Of words it knows as much as of the texts. Vary the words, or claim no more than them."
            if lost else
            "The direction sees these words; without them it still tells the sides apart.",
            {"words alone": words, "pairs": own, "without words": rest or 0.0},
        ))  # fmt: skip
    return found


# -- The lexical control ---------------------------------------------------------------------------


def telling_words(look: LookedAt) -> tuple[list[str], list[str]]:
    """The words of each side that the other has least: those in more pairs first."""
    sides = [[set(words_of(text)) for text in side] for side in look.texts]
    counts = [Counter(word for text in side for word in text) for side in sides]
    first, second = (
        {word: n / len(side) for word, n in count.items()}
        for side, count in zip(sides, counts, strict=True)
    )
    return _more(first, second, len(look)), _more(second, first, len(look))


def _more(own: Mapping[str, float], other: Mapping[str, float], n: int) -> list[str]:
    """The words with the larger share on their own side, by more than one text."""
    more = {word: share - other.get(word, 0.0) for word, share in own.items()}
    ordered = sorted(more, key=lambda word: (-more[word], word))
    return [word for word in ordered if more[word] > 1 / n][:TELLING_WORDS]


def lexical(look: LookedAt) -> dict[str, tuple[tuple[Text, ...], tuple[Text, ...]]]:
    """Both controls: (positive, negative) of the telling words alone, and of the texts without.

    None of them for options, and where no words tell the sides apart.
    """
    both = telling_words(look)
    if look.choices is not None or not all(both):
        return {}
    drawn = random.Random(0)
    alone = tuple(
        tuple(_alone(text, words, drawn) for text in side)
        for side, words in zip((look.positive, look.negative), both, strict=True)
    )
    taken = {*both[0], *both[1]}
    rows = [
        (_without(a, taken), _without(b, taken))
        for a, b in zip(look.positive, look.negative, strict=False)
    ]
    left = [(a, b) for a, b in rows if a.said.strip() and b.said.strip()]
    found = {"words alone": (alone[0], alone[1])}
    if left:
        found["without words"] = tuple(a for a, _ in left), tuple(b for _, b in left)
    return found


def _alone(text: Text, telling: Sequence[str], drawn: random.Random) -> Text:
    """The telling words of a text in random order, or some of the side's where it has none."""
    own = [word for word in telling if word in set(words_of(text.said))]
    some = own or drawn.sample(list(telling), min(ALONE, len(telling)))
    return _saying(text, " ".join(drawn.sample(some, len(some))))


def _without(text: Text, taken: set[str]) -> Text:
    kept = [part for part in text.said.split() if not set(words_of(part)) & taken]
    return _saying(text, " ".join(kept))


def _saying(text: Text, said: str) -> Text:
    """The same with another text; a question is asked in these words."""
    if text.before:
        return Text(text.before, said, text.system, text.asked)
    return Text("", said, asked=said if text.asked else "")
