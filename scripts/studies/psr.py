"""The PSR study: what a prompt does to tokens, who imitates it, and what that is worth.

    python scripts/studies/psr.py                     # the demonstration model, about two hours
    python scripts/studies/psr.py --until validation  # stop before the test split is opened
    python scripts/studies/psr.py --model ../shared/models/stories260K --prefix --out build/s.md
    python scripts/studies/psr.py --model gpt2 --questions asked.json --out build/gpt2.md

The work folder keeps every result: run the command again to go on. Stages:

fit         every method in three configurations (seed 0): the layer for single-layer methods, the
            learning rate for all-layer ones
validation  attribute against coherence over strength; the configuration with the best TA@C80 is
            kept, and its strengths (C80, Cp, matched) are found, for each further seed too
test        the kept configurations and strengths on test questions and pairs
page        the hypotheses, the verdicts, and the tables behind them

Without judges (`--prefix`, or `--questions` without `--judge`) only H1 to H3 are answered, the
configuration with the smallest relative RMSE at the last layer is kept, and the strength is 1.
"""

from __future__ import annotations

from cells import Cells
from psr_cells import (
    cells_with,
    fit,
    match,
    prompt,
    reference,
    same_layer,
    test,
    validate,
    with_last_prompt_token,
    wordings_with_last_prompt_token,
)
from psr_page import page
from psr_plan import METHODS, SAME_LAYER, Options, attributes, chosen, configurations, middle
from study import RESULTS, begin, model, parser, publish


def run(chosen_options: Options, workers: int, until: str) -> Cells:
    """All stages up to `until`, as far as they are missing."""
    begin(chosen_options)
    cells, n_layers = cells_with(chosen_options), model().cfg.n_layers
    cells.open()
    seeds, names = range(chosen_options.seeds), attributes()
    grid = [(a, m, c, 0) for a in names for m in METHODS for c in configurations(m, n_layers)]
    cells.make(reference, [(a, "validation", s) for a in names for s in seeds], workers)
    cells.make(fit, grid, workers)
    cells.make(validate, grid, workers)
    kept = {(a, m): chosen(cells, a, m, n_layers) for a in names for m in METHODS}
    final = [(a, m, c, s) for (a, m), c in kept.items() for s in seeds]
    level = middle(n_layers)
    pairs = [(a, m, level, s) for a in names for m in SAME_LAYER for s in seeds]
    cells.make(fit, [*final, *pairs], workers)
    cells.make(validate, final, workers)
    cells.make(match, final, workers)
    if until == "validation":
        return cells
    cells.make(reference, [(a, "test", s) for a in names for s in seeds], workers)
    cells.make(prompt, [(a,) for a in names], workers)
    cells.make(test, final, workers)
    cells.make(same_layer, pairs, workers)
    cells.make(with_last_prompt_token, sorted({*final, *pairs}), workers)
    cells.make(wordings_with_last_prompt_token, [(a,) for a in names], workers)
    return cells


def main() -> None:
    """Run the study and write its page."""
    commands = parser(__doc__, RESULTS / "psr.md")
    commands.add_argument("--model", default="demo", help="'demo', a folder, or a hub name")
    commands.add_argument("--prefix", action="store_true", help="a prefix is the prompt (no turns)")
    commands.add_argument("--questions", default="", help="JSON file of attributes (material.py)")
    commands.add_argument("--judge", nargs=2, metavar=("URL", "MODEL"), help="an LLM judge")
    commands.add_argument("--attributes", nargs="+", default=[], help="only these")
    given = commands.parse_args()
    tiny = {"n_train": 16, "n_test": 10, "epochs": 2, "samples": 1, "bisections": 1, "seeds": 2}
    chosen_options = Options(
        str(given.work_dir),
        given.model,
        given.prefix,
        given.questions,
        None if given.judge is None else tuple(given.judge),
        tuple(given.attributes),
        **(tiny if given.quick else {}),
    )
    publish(given, chosen_options, run, page)


if __name__ == "__main__":
    main()
