"""The text of one example with its tokens coloured by each method's coefficient."""

from collections.abc import Mapping

import pandas as pd

from steerlens.kinds import require_kinds
from steerlens.prompts import Encoded, PromptPair, show
from steerlens.steering import Steering
from steerlens.types import HookedModel

from ..figures.tokens import TokenView, token_views
from ..figures.units import unit_of
from ..measures.deltas import acts_on
from ..measures.entries import as_fitted
from ..measures.plain_side import BY_TEMPLATE, rows_of
from ..measures.template_tokens import of_template


def coloured_text(
    model: HookedModel,
    pair: PromptPair,
    example: int,
    table: pd.DataFrame,
    steerings: Mapping[str, Steering],
    layer: int,
    unit: str = "",
    baseline: str | None = None,
) -> TokenView:
    """The unprompted text of one example, coloured by each method's `along` at `layer`, as fitted.

    Read are the tokens that were measured; steered those whose activation a method changes; what
    the chat template writes around the user's words is folded up. `unit` says what 1 is where the
    table was made with other directions than its own. `baseline` is the table's unless given.
    """
    require_kinds(coloured_text, locals())
    against = table.attrs.get("baseline", BY_TEMPLATE) if baseline is None else baseline
    row, _ = rows_of(model, pair, against)
    texts, folded = show(model, row.ids), of_template(model, row, pair)
    of_layer = table.loc[(table["example"] == example) & (table["layer"] == layer)]
    drawn = {}
    for method in ("prompt", *steerings):
        rows = as_fitted(of_layer.loc[of_layer["method"] == method])
        rows = rows.sort_values("token_index")
        values = rows["along"].tolist()
        drawn[method] = pd.DataFrame(
            {
                "position": range(len(texts)),
                "token": texts,
                "value": [float("nan")] * row.response + values,
                "read": [place >= row.response for place in range(len(texts))],
                "steered": _where(model, row, steerings.get(method)),
                "sink": [False] * row.response + _sinks(rows),
                "template": folded,
            }
        )
    said = f" ({unit} = 1)" if unit else unit_of(of_layer)
    return token_views(drawn, f"along{said}, layer {layer}")


def _sinks(rows: pd.DataFrame) -> list[bool]:
    """What the table marks as sinks; a table made by hand may mark none."""
    return rows["sink"].tolist() if "sink" in rows else [False] * len(rows)


def _where(model: HookedModel, row: Encoded, steering: Steering | None) -> list[bool] | bool:
    """The tokens whose activation is steered; none by a prompt."""
    return False if steering is None else acts_on(model, row, steering, steering.sites)
