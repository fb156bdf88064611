"""The COLD study: how many examples each method needs, and whether words spread as a group's do.

    python scripts/studies/cold.py                     # the demonstration model, about two hours
    python scripts/studies/cold.py --until validation  # stop before the test split is opened

The work folder keeps every result: run the command again to go on.

pool     pairs of answers to a training question: one that shows the attribute, one that does not
search   every method in six configurations (50 pairs, seed 0), scored on validation questions
test     the best of each with 2 to 400 pairs and three seeds, on test questions: the score at the
         strength where coherence is 80 % of the unsteered, found on validation questions
tune     the same for the spread over option words (20 prompts, three layers)
spread   the best of each with 5, 20 and 100 prompts, on test questions: KL and total variation
page     the hypotheses, the verdicts, and the tables behind them
"""

from __future__ import annotations

from typing import Any

import cold_plan as plan
from cells import Cells
from cold_cells import pool, reference, search, test
from cold_page import page
from cold_plan import GROUPS, LAYERS, METHODS, SPREAD_SIZES, SPREADING, Options, chosen, layer_of
from cold_spreads import spread, tune, unspread
from study import RESULTS, begin, cells_of, parser, publish

VERSION = 1
"""Of the cells: raise it when one of them is computed differently."""


def run(chosen_options: Options, workers: int, until: str) -> Cells:
    """All stages up to `until`, as far as they are missing."""
    begin(chosen_options)
    cells = _cells(chosen_options)
    cells.open()
    names, seeds = chosen_options.attributes, range(chosen_options.seeds)
    cells.make(pool, [(a,) for a in names], workers)
    tried = range(chosen_options.configurations)
    cells.make(search, [(a, m, c) for a in names for m in METHODS for c in tried], workers)
    cells.make(tune, [(g, m, la) for g in GROUPS for m in SPREADING for la in LAYERS], workers)
    if until == "validation":
        return cells
    best = {(a, m): chosen(cells, a, m) for a in names for m in METHODS}
    cells.make(reference, [(a, "test", s) for a in names for s in seeds], workers)
    sizes = chosen_options.sizes
    cells.make(
        test, [(a, m, c, n, s) for n in sizes for (a, m), c in best.items() for s in seeds], workers
    )
    cells.make(unspread, [(g,) for g in GROUPS], workers)
    some = [(g, m, layer_of(cells, g, m)) for g in GROUPS for m in SPREADING]
    cells.make(spread, [(*one, n, s) for one in some for n in SPREAD_SIZES for s in seeds], workers)
    return cells


def _cells(chosen_options: Options) -> Cells:
    facts = {
        "version": VERSION,
        "methods": list(METHODS),
        "searches": [
            plan.LAYERS,
            [str(scope) for scope in plan.SCOPES],
            plan.SEARCHED_WITH,
            plan.STEPS,
            plan.BATCH,
            plan.PUSH,
            plan.TRIES,
        ],
        "seen": plan.SEEN,
        "spread": [GROUPS, plan.WORDS, plan.OPENING, plan.TUNED_WITH, SPREAD_SIZES, plan.GRID],
    }
    return cells_of(chosen_options, facts)


def main() -> None:
    """Run the study and write its page."""
    given = parser(__doc__, RESULTS / "cold.md").parse_args()
    tiny = {"seeds": 2, "sizes": (2, 5), "n_validation": 4, "n_test": 5, "configurations": 2}
    sizes: dict[str, Any] = {**tiny, "bisections": 1} if given.quick else {}
    publish(given, Options(str(given.work_dir), **sizes), run, page)


if __name__ == "__main__":
    main()
