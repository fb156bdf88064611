"""Measure what steering does, and draw it: tables first (measures), then figures, then reports.

The public functions are here, imported on first use: `from analysis import coefficients`. A project
with a folder `analysis` of its own finds the same under `steerlens.analysis`; as the package has
two names, its modules import each other by relative paths.
"""

import importlib
from typing import TYPE_CHECKING, Any

_HOME = {
    "explorer.explorer": ["Explorer", "explore"],
    "figures": [
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
    ],
    "judges": ["Coherence", "Judge", "Likelihood", "judge_of", "likelihood"],
    "measures.by_layer": ["at_layers"],
    "measures.coefficients": ["coefficients", "strengths"],
    "measures.completions": ["side_by_side"],
    "measures.aligned": ["align"],
    "measures.decodability": ["decodability"],
    "measures.deltas": ["prompt_deltas", "steering_deltas"],
    "measures.dispersion": ["dispersion", "gini"],
    "measures.effects": ["logit_shift"],
    "measures.entries": ["AS_FITTED", "LEAST_SQUARES", "MATCHED", "Entry"],
    "measures.faithfulness": ["faithfulness", "reworded"],
    "measures.joined": ["effect_and_faithfulness"],
    "measures.least_squares": [
        "least_squares_strength",
        "split_by_question",
        "with_least_squares",
    ],
    "measures.matching": ["Aim", "match", "with_matched"],
    "measures.plain_side": ["NEUTRAL"],
    "measures.profiles": ["by_kind", "by_position", "over_seeds"],
    "measures.rank_share": ["rank_share"],
    "measures.recovered": ["prompt_effect_by_token", "prompt_effect_recovered"],
    "measures.search": ["Match"],
    "measures.sweep": ["sweep"],
    "measures.tradeoff": ["Scored", "Setting", "Tradeoff", "c80", "cp", "tradeoff"],
    "reports.coloured_text": ["coloured_text"],
    "reports.compared": ["Comparison"],
    "reports.comparison": ["compare", "comparison_report"],
    "reports.faithfulness": ["FaithfulnessStudy", "faithfulness_report", "faithfulness_study"],
    "reports.demo": ["run_demo"],
    "reports.page": ["Report"],
    "reports.provenance": ["provenance"],
    "reports.sweep": ["sweep_report"],
}
_MODULE_OF = {name: module for module, names in _HOME.items() for name in names}

__all__ = sorted(_MODULE_OF)  # pyright: ignore[reportUnsupportedDunderAll]

if TYPE_CHECKING:
    from .explorer.explorer import Explorer, explore
    from .figures import (
        CannotDraw,
        TokenView,
        assumption_curves,
        caption,
        coefficient_heatmap,
        difference_heatmap,
        effect_against_faithfulness,
        estimate_panels,
        kind_profile,
        latex_table,
        line_panels,
        markdown_table,
        method_colours,
        method_looks,
        relative_rmse_curve,
        save,
        sorted_strengths,
        styled,
        sweep_heatmap,
        token_figure,
        token_view,
        token_views,
        tradeoff_curve,
    )
    from .judges import Coherence, Judge, Likelihood, judge_of, likelihood
    from .measures.aligned import align
    from .measures.by_layer import at_layers
    from .measures.coefficients import coefficients, strengths
    from .measures.completions import side_by_side
    from .measures.decodability import decodability
    from .measures.deltas import prompt_deltas, steering_deltas
    from .measures.dispersion import dispersion, gini
    from .measures.effects import logit_shift
    from .measures.entries import AS_FITTED, LEAST_SQUARES, MATCHED, Entry
    from .measures.faithfulness import faithfulness, reworded
    from .measures.joined import effect_and_faithfulness
    from .measures.least_squares import (
        least_squares_strength,
        split_by_question,
        with_least_squares,
    )
    from .measures.matching import Aim, match, with_matched
    from .measures.plain_side import NEUTRAL
    from .measures.profiles import by_kind, by_position, over_seeds
    from .measures.rank_share import rank_share
    from .measures.recovered import prompt_effect_by_token, prompt_effect_recovered
    from .measures.search import Match
    from .measures.sweep import sweep
    from .measures.tradeoff import Scored, Setting, Tradeoff, c80, cp, tradeoff
    from .reports.coloured_text import coloured_text
    from .reports.compared import Comparison
    from .reports.comparison import compare, comparison_report
    from .reports.demo import run_demo
    from .reports.faithfulness import FaithfulnessStudy, faithfulness_report, faithfulness_study
    from .reports.page import Report
    from .reports.provenance import provenance
    from .reports.sweep import sweep_report


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_MODULE_OF[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_MODULE_OF})
