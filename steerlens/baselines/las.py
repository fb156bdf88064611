"""Linear activation steering at one strength, which a grid search finds: CLAS's first baseline.

Hsu, Beaglehole, Radhakrishnan & Belkin, "Contextual Linear Activation Steering of Language Models",
arXiv 2604.24693, at the output of every block l, with ||v_l|| = 1:

    h' = h + k v_l

One k for all blocks and tokens: the first of a grid at which a score is largest, on some training
prompts. `search` works for any steering, and takes the score from the caller: a judge of what the
steered model writes, say. The paper has other ways to a strength, and these are in CLAS:

learned, one for all blocks      CLAS.fit(..., kind="single")
learned, one for each block      CLAS.fit(..., kind="layerwise")
learned, for each token          CLAS.fit(...)
directional ablation             at(l, CLAS.ablation(v_l)): nothing is left along v_l
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from steerlens.directions.means import unit
from steerlens.kinds import require_kinds
from steerlens.methods.clas import CLAS
from steerlens.precision import wide
from steerlens.sites import Layer, Site, as_site
from steerlens.steering import Steering
from steerlens.steers import as_vectors
from steerlens.types import VectorLike

GRID = tuple(number / 20 for number in range(20))
"""The paper's strengths for Llama models, 0 to 0.95. For Qwen, whose activations are longer, they
are four times as large: think of k as a share of the activations' length."""


class Searched(NamedTuple):
    """The best strength, and a pandas table of all that were tried: strength, score."""

    strength: float
    table: Any


def fixed(
    directions: Mapping[Site, VectorLike] | Mapping[Layer, VectorLike], strength: float = 1.0
) -> Steering:
    """Each direction at length 1, added at the same strength at its site."""
    require_kinds(fixed, locals())
    if not directions:
        raise ValueError("No directions were given. Pass {Site(layer): vector, ...}.")
    vectors = {as_site(w): wide(as_vectors(v, n_axes=1)) for w, v in directions.items()}
    steers = {site: CLAS.fixed(unit(v), strength) for site, v in vectors.items()}
    return Steering(tuple((site, steers[site]) for site in sorted(steers)))


def search(
    score: Callable[[Steering], float], steering: Steering, grid: Sequence[float]
) -> Searched:
    """The strength of the grid at which `score(steering at that strength)` is largest.

    Of equal scores the strength nearest to 0 is taken.
    """
    if not grid:
        raise ValueError(
            "The grid is empty. Pass some strengths: grid=steerlens.baselines.las.GRID."
        )
    scores: dict[float, float] = {}
    for strength in map(float, grid):
        scores[strength] = float(score(steering.scaled(strength)))
        if not math.isfinite(scores[strength]):
            raise ValueError(
                f"The score at strength {strength:g} is {scores[strength]}. Scores must be finite "
                "numbers: give what cannot be judged the lowest one."
            )
    import pandas as pd

    best = max(scores, key=lambda strength: (scores[strength], -abs(strength)))
    return Searched(best, pd.DataFrame(list(scores.items()), columns=["strength", "score"]))
