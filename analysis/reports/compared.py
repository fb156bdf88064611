"""The tables of one comparison of prompt and steerings."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from ..figures.tokens import TokenView
from ..measures.plain_side import BY_TEMPLATE


@dataclass(frozen=True)
class Comparison:
    """Every table of one comparison. `layer` is shown where a picture shows a single layer.

    `layer_reason` says why it is that one, and `baseline` what the plain side of every pair is;
    `explorer` is the content of the linked views (`reports.linked`).
    """

    coefficients: pd.DataFrame
    faithfulness: pd.DataFrame
    logit_shift: pd.DataFrame
    token_views: tuple[TokenView, ...]
    layer: int
    n_train: int
    n_test: int
    seed: int
    layer_reason: str = ""
    baseline: str = BY_TEMPLATE
    explorer: Mapping[str, Any] | None = None
