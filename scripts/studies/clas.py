"""The CLAS study: strengths read off each token, against fixed ones, and against other fine-tuning.

    python scripts/studies/clas.py                     # the demonstration model, about an hour
    python scripts/studies/clas.py --until validation  # stop before the test split is opened

The work folder keeps every result: run the command again to go on. Ten pairs "plain prompt ->
completion that shows the attribute" train, ten choose among the steps, both drawn by the seed.

search   every method in six configurations (seed 0), scored on validation questions
test     the best configuration of each, fitted with three seeds, on test questions
beyond   CLAS fitted on film reviews, on questions about something else: strengths and coherence,
         and what a bound on the strength, or leaving BOS alone, changes
stronger what CLAS has fitted, times 1 to 3, on validation questions (added after the results)
page     the hypotheses, the verdicts, and the tables behind them
"""

from __future__ import annotations

import clas_plan as plan
from cells import Cells
from clas_cells import beyond, reference, search, stronger, test
from clas_page import page
from clas_plan import BEYOND, FACTORS, METHODS, Options, chosen
from material import DEMO_ATTRIBUTES
from study import RESULTS, begin, cells_of, parser, publish

VERSION = 1
"""Of the cells: raise it when one of them is computed differently."""


def run(chosen_options: Options, workers: int, until: str) -> Cells:
    """All stages up to `until`, as far as they are missing."""
    begin(chosen_options)
    cells = _cells(chosen_options)
    cells.open()
    names, seeds = chosen_options.attributes, range(chosen_options.seeds)
    tried = range(chosen_options.configurations)
    cells.make(reference, [(a, "validation", 0) for a in names], workers)
    cells.make(search, [(a, m, c, 0) for a in names for m in METHODS for c in tried], workers)
    if until == "validation":
        return cells
    kept = {(a, m): chosen(cells, a, m) for a in names for m in METHODS}
    cells.make(reference, [(a, "test", s) for a in names for s in seeds], workers)
    cells.make(test, [(a, m, c, s) for (a, m), c in kept.items() for s in seeds], workers)
    films = [a for a in names if a in BEYOND]
    cells.make(beyond, [(a, kept[a, "CLAS, RFM"], s) for a in films for s in seeds], workers)
    cells.make(stronger, [(a, kept[a, "CLAS, RFM"], f) for a in names for f in FACTORS], workers)
    return cells


def _cells(chosen_options: Options) -> Cells:
    facts = {
        "version": VERSION,
        "methods": list(METHODS),
        "searches": [
            plan.MULTIPLES,
            plan.SHARES,
            plan.CLAMP,
            plan.N_TRAIN,
            plan.N_VALIDATION,
            plan.N_PROBE,
        ],
    }
    return cells_of(chosen_options, facts)


def main() -> None:
    """Run the study and write its page."""
    commands = parser(__doc__, RESULTS / "clas.md")
    commands.add_argument("--attributes", nargs="+", default=DEMO_ATTRIBUTES, help="only these")
    given = commands.parse_args()
    tiny = {"seeds": 2, "n_validation": 4, "n_test": 6, "n_beyond": 4, "configurations": 2}
    sizes = tiny if given.quick else {}
    publish(given, Options(str(given.work_dir), tuple(given.attributes), **sizes), run, page)


if __name__ == "__main__":
    main()
