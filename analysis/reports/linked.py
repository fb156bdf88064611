"""The explorer's linked views of one example, for a report: text, map, layers, words, strengths."""

from collections.abc import Mapping, Sequence
from typing import Any

from steerlens.prompts import PromptPair
from steerlens.steering import Steering
from steerlens.types import HookedModel

from ..explorer.explorer import explore, made_by
from ..explorer.grid import Grid, payload_of
from .measured import Against

STRENGTHS = (0.5, 1.0, 2.0)
MOST_CELLS = 40_000
"""Tokens times layers times methods times strengths, from which on there is one strength."""
LONGEST = 40
"""The tokens of what each method writes."""
SAYS = (
    "Point at a token or click on it, or use the arrow keys: all views follow. The controls choose "
    "the method, its strength, the layer and the measure. The words are the logit lens of the "
    "change, and what the change does to the prediction after the token."
)


def linked_views(
    model: HookedModel,
    pairs: Sequence[PromptPair],
    steerings: Mapping[str, Steering],
    layer: int,
    seed: int,
    against: Against,
    equivalents: Sequence[str] = (),
    begin: str | None = None,
) -> dict[str, Any] | None:
    """What the explorer shows of the first pair, at a few strengths; None without steerings.

    At strength 1 there is what each method writes, and the logit lens of its change.
    `begin` is the method that is shown first, by default the first one.
    """
    if not steerings:
        return None
    shown = explore(
        model,
        steerings=steerings,
        pairs=pairs,
        max_new_tokens=LONGEST,
        seed=seed,
        equivalents=equivalents,
        **against,
    ).set(layer=layer, method=begin)
    study = shown.study
    cells = len(study.line(0).response) * model.cfg.n_layers * (1 + len(steerings))
    strengths = STRENGTHS if cells * len(STRENGTHS) <= MOST_CELLS else (1.0,)
    grid = Grid((0,), strengths, completions=(1.0,), lens=(1.0,))
    return payload_of(study, grid, shown.state, shown.title, made_by(study))
