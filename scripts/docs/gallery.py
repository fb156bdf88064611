"""A picture of every figure function, measured on the demonstration model, in docs/gallery.md.

    python scripts/docs/gallery.py              measures (minutes) and draws all
    python scripts/docs/gallery.py heatmap      draws one of them again

The pictures go to docs/images/gallery; they need `pip install "steerlens[export,docs]"`.
"""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gallery_data import INSTRUCTION, Measured
from small_pictures import shrink

from steerlens import analysis
from steerlens.whole import write_whole

ROOT = Path(__file__).parents[2]
PAGE, PICTURES = ROOT / "docs" / "gallery.md", ROOT / "docs" / "images" / "gallery"
WIDTH, DPI = 760, 105
HEAD = f"""# Gallery

Made by `python scripts/docs/gallery.py` on the embedded demonstration model: 20 questions, the
instruction "{INSTRUCTION}", ActAdd and CAA at the middle layer. Each function takes a tidy table
and returns a plotly figure; [figures.md](figures.md) says how one gets into a paper. The figures of
the pages of results are drawn from their tables by `python scripts/docs/result_figures.py`.
"""


@dataclass(frozen=True)
class Entry:
    """One picture: its file, the function, the call as one types it, and what one sees."""

    name: str
    function: str
    call: str
    says: str
    draw: Callable[[Measured], Any]
    style: str | None = None


ENTRIES = (
    Entry(
        "heatmap",
        "coefficient_heatmap",
        "coefficient_heatmap(coefficients(model, pairs, layers, steerings), example=0)",
        "The push on each token at each layer, a panel for each method, on one scale.",
        lambda m: analysis.coefficient_heatmap(m.coefficients, example=0),
    ),
    Entry(
        "transposed",
        "coefficient_heatmap",
        'coefficient_heatmap(table, example=0, transposed=True, methods=["prompt", "CAA"])',
        "The same with the text from left to right, for long texts in strips.",
        lambda m: analysis.coefficient_heatmap(
            m.coefficients, example=0, transposed=True, methods=["prompt", "CAA"]
        ),
    ),
    Entry(
        "difference",
        "difference_heatmap",
        'difference_heatmap(table, "CAA", "prompt", example=0)',
        "One method less another: where CAA pushes a token more than the prompt, and where less.",
        lambda m: analysis.difference_heatmap(m.coefficients, "CAA", "prompt", example=0),
    ),
    Entry(
        "tokens",
        "token_views",
        "token_figure(coloured_text(model, pair, 1, table, steerings, layer))",
        "A text coloured by each method: HTML in notebooks, and a figure for papers.",
        lambda m: analysis.token_figure(m.view, width=WIDTH),
    ),
    Entry(
        "faithfulness",
        "relative_rmse_curve",
        "relative_rmse_curve(faithfulness(model, pairs, entries, equivalents=others))",
        "How far each method leaves every layer from where the prompt puts it; 1 is doing nothing.",
        lambda m: analysis.relative_rmse_curve(m.errors),
    ),
    Entry(
        "instructions",
        "line_panels",
        "line_panels(pd.concat([one.assign(asked=...), other.assign(asked=...)]), "
        '"relative_rmse", panel="asked")',
        "Small multiples: the same lines for several models, attributes or, here, instructions.",
        lambda m: analysis.line_panels(m.by_instruction, "relative_rmse", panel="asked"),
    ),
    Entry(
        "estimates",
        "estimate_panels",
        'estimate_panels(errors.query("layer == 5"), "relative_rmse", mark="strength", '
        'panel="asked")',
        "Estimates with their intervals, row under row: scores or errors of many methods.",
        lambda m: analysis.estimate_panels(
            m.by_instruction.query(f"layer == {m.model.cfg.n_layers - 1} and strength != ''"),
            "relative_rmse",
            mark="strength",
            panel="asked",
            title="How far each method is from the prompt at the last layer",
        ),
    ),
    Entry(
        "seeds",
        "line_panels",
        'line_panels(over_seeds([run_0, run_1, run_2], "relative_rmse"))',
        "The mean over runs with other seeds, and its interval.",
        lambda m: analysis.line_panels(m.seeds),
    ),
    Entry(
        "positions",
        "line_panels",
        'line_panels(by_position(table, layer), x="token_index")',
        "The push by position in the response, with its interval over examples.",
        lambda m: analysis.line_panels(
            analysis.by_position(m.coefficients, m.layer), x="token_index"
        ),
    ),
    Entry(
        "kinds",
        "kind_profile",
        "kind_profile(by_kind(table, layer))",
        "Which kinds of tokens are pushed. The kinds are simple rules, or a column of your own.",
        lambda m: analysis.kind_profile(analysis.by_kind(m.coefficients, m.layer)),
    ),
    Entry(
        "strengths",
        "sorted_strengths",
        "sorted_strengths(table, layer)",
        "How unevenly a push is spread over tokens.",
        lambda m: analysis.sorted_strengths(m.coefficients, m.layer),
    ),
    Entry(
        "effects",
        "effect_against_faithfulness",
        "effect_against_faithfulness(effect_and_faithfulness(logit_shift(...), faithfulness(...)))",
        "What a method does to the predictions, and whether it gets there as the prompt does.",
        lambda m: analysis.effect_against_faithfulness(m.effects),
    ),
    Entry(
        "tradeoff",
        "tradeoff_curve",
        "tradeoff_curve(tradeoff(setting, steerings, [1, 2, 4, 8], instruction))",
        "What the effect costs in coherence, over strengths.",
        lambda m: analysis.tradeoff_curve(m.scores),
    ),
    Entry(
        "sweep",
        "sweep_heatmap",
        'sweep_heatmap(sweep(model, test, at_layers(model, train, "CAA", range(6)), '
        "strengths=strengths))",
        "A measure by layer and strength, a panel for each method and scope; framed is the best.",
        lambda m: analysis.sweep_heatmap(m.swept),
    ),
    Entry(
        "assumptions",
        "assumption_curves",
        "assumption_curves(shares, dispersion(table), decodability(model, pairs))",
        "Whether one vector could do what the prompt does.",
        lambda m: analysis.assumption_curves(*m.assumptions),
    ),
    Entry(
        "paper",
        "styled",
        'styled(relative_rmse_curve(errors), "paper", font="serif")',
        "Any of them in the style of a paper: one column, 8 pt, the title left to the caption.",
        lambda m: analysis.styled(analysis.relative_rmse_curve(m.errors), "paper", font="serif"),
        "as it is",
    ),
    Entry(
        "slides",
        "styled",
        'styled(relative_rmse_curve(errors), "slides", dark=True)',
        "And on dark slides.",
        lambda m: analysis.styled(analysis.relative_rmse_curve(m.errors), "slides", dark=True),
        "as it is",
    ),
)


def picture_of(entry: Entry) -> Path:
    """Where the picture of an entry is."""
    return PICTURES / f"{entry.name}.png"


def page() -> str:
    """The page, with each picture under its call."""
    parts = [HEAD]
    for entry in ENTRIES:
        file = picture_of(entry).relative_to(PAGE.parent)
        parts.append(
            f"## {entry.name.capitalize()}: `{entry.function}`\n\n{entry.says}\n\n"
            f"```python\n{entry.call}\n```\n\n![{entry.says}]({file})\n"
        )
    return "\n".join(parts)


def draw(entry: Entry, measured: Measured) -> Path:
    """Write the picture of an entry."""
    figure = entry.draw(measured)
    fixed = entry.style is not None or entry.name == "tokens"
    drawn = analysis.save(figure, picture_of(entry), width=None if fixed else WIDTH, dpi=DPI)
    return shrink(drawn)


def main(asked: list[str]) -> None:
    unknown = sorted(set(asked) - {entry.name for entry in ENTRIES})
    if unknown:
        raise SystemExit(f"no picture {unknown}; there are {[entry.name for entry in ENTRIES]}.")
    PICTURES.mkdir(parents=True, exist_ok=True)
    measured = Measured()
    for entry in ENTRIES:
        if not asked or entry.name in asked:
            print(draw(entry, measured).relative_to(ROOT), flush=True)
    write_whole(PAGE, page().encode())


if __name__ == "__main__":
    main(sys.argv[1:])
