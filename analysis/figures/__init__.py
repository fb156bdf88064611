"""Pictures of measured steering: each function takes a tidy table and returns a plotly figure.

Nothing here runs a model or computes a measure, so neither torch nor steerlens is imported. Colours
and dashes are the same in every figure (`style`); a bad table is a ValueError (`rows`).
"""

from .assumptions import assumption_curves
from .curves import line_panels
from .differences import difference_heatmap
from .effects import effect_against_faithfulness
from .estimates import estimate_panels
from .export import CannotDraw, save
from .faithfulness import relative_rmse_curve
from .heatmaps import coefficient_heatmap
from .kinds import kind_profile
from .strengths import sorted_strengths
from .style import method_colours, method_looks
from .styling import caption, styled
from .sweep import sweep_heatmap
from .text_tables import latex_table, markdown_table
from .token_figure import token_figure
from .tokens import TokenView, token_view, token_views
from .tradeoff import tradeoff_curve

__all__ = [
    "CannotDraw",
    "TokenView",
    "assumption_curves",
    "caption",
    "coefficient_heatmap",
    "difference_heatmap",
    "effect_against_faithfulness",
    "estimate_panels",
    "kind_profile",
    "latex_table",
    "line_panels",
    "markdown_table",
    "method_colours",
    "method_looks",
    "relative_rmse_curve",
    "save",
    "sorted_strengths",
    "styled",
    "sweep_heatmap",
    "token_figure",
    "token_view",
    "token_views",
    "tradeoff_curve",
]
