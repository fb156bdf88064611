"""The text of one example with its tokens coloured by each method's coefficient."""

from collections.abc import Mapping

import pandas as pd

from steerlens.prompts import PromptPair, encode_pair, show
from steerlens.sites import Site
from steerlens.steering import AnySteering
from steerlens.types import HookedModel

from ..figures.tokens import TokenView, token_views
from ..measures.deltas import acts_on, sites_of
from ..measures.entries import as_fitted


def coloured_text(
    model: HookedModel,
    pair: PromptPair,
    example: int,
    table: pd.DataFrame,
    steerings: Mapping[str, AnySteering],
    layer: int,
    template: str | None = None,
    unit: str = "the mean push of the prompt",
) -> TokenView:
    """The unprompted text of one example, coloured by each method's `along` at `layer`, as fitted.

    Read are the tokens that were measured; steered those whose activation a method changes. `unit`
    says what 1 is where the table was made with other directions than its own.
    """
    row, _ = encode_pair(model, pair, template)
    texts = show(model, row.ids)
    chosen = table.loc[(table["example"] == example) & (table["layer"] == layer)]
    drawn = {}
    for method in ("prompt", *steerings):
        mine = as_fitted(chosen.loc[chosen["method"] == method])
        values = [float("nan")] * row.response + mine.sort_values("token_index")["along"].tolist()
        steered = (
            acts_on(model, row, steerings[method], _sites(steerings[method], model))
            if method in steerings
            else [False] * len(texts)
        )
        drawn[method] = pd.DataFrame(
            {
                "position": range(len(texts)),
                "token": texts,
                "value": values,
                "read": [place >= row.response for place in range(len(texts))],
                "steered": steered,
            }
        )
    return token_views(drawn, f"along (1 = {unit}), layer {layer}")


def _sites(steering: AnySteering, model: HookedModel) -> tuple[Site, ...]:
    return sites_of(steering, model.cfg.n_layers)
