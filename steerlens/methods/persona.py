"""Persona vectors: the mean difference of answers that show a trait and answers that do not.

Chen et al., "Persona Vectors: Monitoring and Controlling Character Traits in Language Models",
arXiv 2507.21509, section 2, read over the tokens of each answer, written at the output of a block:

    v  = mean_i h(answer_i with the trait) - mean_i h(answer_i without)
    h' = h + c v

The answers are rollouts of the model itself: questions, each under an instruction for the trait and
under one against it, each several times (`rollouts`). A pair of them counts only where a judge says
that each did what it was told: trait at least 50 and below 50, coherence at least 50 on both sides.
The layer is that at which steering raises the trait most (`best_layer`). The coefficient c is the
strength, and the answer's tokens are `persona.only(response)`.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np
from jaxtyping import Float
from torch import Tensor

from steerlens.checks import require_two_sides
from steerlens.conversations import Conversation
from steerlens.directions.checks import require_pairs_of_prompts, require_scores, require_some_kept
from steerlens.directions.means import difference_of_means, unit
from steerlens.forms import Added
from steerlens.generation import end_tokens, generate
from steerlens.kinds import require_kinds
from steerlens.methods.caa import CAA
from steerlens.precision import wide
from steerlens.prompts import Prompts, encode_all
from steerlens.scopes import Scope, generated, response
from steerlens.sinks import SINK
from steerlens.sites import Site, Sites
from steerlens.steers import steer
from steerlens.training.fit import Fit
from steerlens.types import Direction, Hook, HookedModel, Residual

LEAST = 50.0
"""The score, of 100, from which on an answer has the trait, or is coherent."""
Judging = Callable[[Sequence[str], Sequence[Conversation]], Float[np.ndarray, " text"]]
"""Scores from 0 to 100 of texts that answer these prompts; what every judge of `analysis` is."""
Sides = tuple[Sequence[float], Sequence[float]]


@steer
class PersonaVector:
    """Add `direction` to every position."""

    direction: Direction

    @property
    def form(self) -> Added:
        """For other tools: one vector, added everywhere."""
        return Added(self.direction)

    @classmethod
    def from_activations(
        cls,
        positive: Float[Tensor, "positive d_model"],
        negative: Float[Tensor, "negative d_model"],
        *,
        sinks: float = SINK,
    ) -> "PersonaVector":
        """From the mean activation of each answer on either side, as `difference_of_means` does."""
        require_kinds(PersonaVector.from_activations, locals())
        return cls(difference_of_means(positive, negative, sinks=sinks))

    @classmethod
    def fit(
        cls,
        model: HookedModel,
        prompts: tuple[Prompts, Prompts],
        sites: Sites,
        *,
        scores: Sides | None = None,
        coherence: Sides | None = None,
        least: float = LEAST,
        read: Scope = generated,
        sinks: float = SINK,
    ) -> "Fit[PersonaVector]":
        """Fit each site by itself from answers with the trait and answers without, in one order.

        `scores` are the trait's, from 0 to 100, of both sides, and `coherence` the same for
        coherence; without them all pairs are kept. `least` is the score from which on an answer has
        the trait, or is coherent. `read` is the scope whose mean is read. Tokens whose norm is
        above `sinks` times the median are left out. ValueError where no pair is left.
        """
        require_kinds(PersonaVector.fit, locals())
        require_two_sides(prompts, "PersonaVector")
        positive, negative = (encode_all(model, side) for side in prompts)
        require_pairs_of_prompts(positive, negative, "PersonaVector")
        kept = filtered(len(positive), scores, coherence, least)
        sides = [positive[i] for i in kept], [negative[i] for i in kept]
        fit = CAA.fit(model, sides, sites, read=read, sinks=sinks)
        found: Fit[PersonaVector] = fit.mapped(lambda caa: cls(caa.direction))
        return replace(found, name=f"PersonaVector ({len(kept)} of {len(positive)} pairs kept)")

    @staticmethod
    def rollouts(
        model: HookedModel,
        instructions: Sequence[tuple[str, str]],
        questions: Sequence[str],
        *,
        n: int = 10,
        max_new_tokens: int = 64,
        seed: int = 0,
    ) -> tuple[list[Conversation], list[Conversation]]:
        """`n` answers to each question under each (for, against) instruction: both sides, paired.

        A pair of which one answer is empty is left out. ValueError where none is left.
        """
        require_kinds(PersonaVector.rollouts, locals())
        asked = [
            [Conversation(q, pair[side]) for pair in instructions for q in questions]
            for side in (0, 1)
        ]
        sides = [_answered(model, rows, n, max_new_tokens, seed) for rows in asked]
        pairs = [pair for pair in zip(*sides, strict=True) if pair[0].response and pair[1].response]
        require_some_kept(len(pairs), len(sides[0]), "has an answer on both sides")
        return [one for one, _ in pairs], [other for _, other in pairs]

    @staticmethod
    def best_layer(
        model: HookedModel,
        fit: "Fit[PersonaVector]",
        questions: Sequence[str],
        judge: Judging,
        *,
        strength: float = 1.0,
        max_new_tokens: int = 64,
        seed: int = 0,
    ) -> tuple[Site, Mapping[Site, float]]:
        """The site whose vector raises the trait most on other questions, and each one's score.

        Each is tried alone, at `strength`, on the answer's tokens; the mean of the judge's scores.
        Give a judge that looks at coherence too where a vector may break the text.
        """
        require_kinds(PersonaVector.best_layer, locals())
        asked, found = [Conversation(question) for question in questions], dict[Site, float]()
        for site, steering in zip(fit.steers, _alone(fit), strict=True):
            steering = strength * steering.only(response)
            made = generate(model, asked, steering, max_new_tokens=max_new_tokens, seed=seed)
            scores = np.asarray(judge(made.texts, asked), dtype=float)
            found[site] = float(np.nanmean(scores)) if np.isfinite(scores).any() else float("nan")
        require_some_kept(sum(map(math.isfinite, found.values())), len(found), "has a score")
        return max(found, key=lambda site: np.nan_to_num(found[site], nan=-np.inf)), found

    def projection(self, h: Float[Tensor, "*token d_model"]) -> Float[Tensor, "*token"]:
        """How far each activation lies along the vector: what the paper monitors."""
        h = wide(h)
        return h @ unit(self.direction.to(h))

    def __call__(self, activation: Residual, hook: Hook = None) -> Residual:
        h, v = activation, self.direction.to(activation)
        return h + v


def filtered(
    n: int, scores: Sides | None, coherence: Sides | None, least: float = LEAST
) -> list[int]:
    """The numbers of the pairs of which each side did what it was told; ValueError for none.

    A score that is NaN, where the judge could not tell, does not count as either.
    """
    keep = np.ones(n, dtype=bool)
    if scores is not None:
        positive, negative = require_scores(scores, n, "scores")
        keep &= (positive >= least) & (negative < least)
    if coherence is not None:
        positive, negative = require_scores(coherence, n, "coherence")
        keep &= (positive >= least) & (negative >= least)
    require_some_kept(
        int(keep.sum()), n, f"has the trait at {least:g} or more, its partner below, both coherent"
    )
    return np.flatnonzero(keep).tolist()


def _answered(
    model: HookedModel, rows: Sequence[Conversation], n: int, max_new_tokens: int, seed: int
) -> list[Conversation]:
    """Each row `n` times, with what the model answered; the end of the turn is left out."""
    made = generate(model, rows, n=n, max_new_tokens=max_new_tokens, seed=seed)
    ends = end_tokens(model)
    answers = [
        tuple(t for t in made.response_ids(i) if t not in ends) for i in range(len(made.prompt))
    ]
    return [replace(rows[i], response=ids) for i, ids in zip(made.prompt, answers, strict=True)]


def _alone(fit: "Fit[PersonaVector]") -> list:
    """A steering for each site."""
    return [replace(fit.steering, placed=((site, one),)) for site, one in fit.steers.items()]
