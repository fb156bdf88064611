"""The page of the COLD study: hypotheses and rules first, then verdicts, then the tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import cold_plan as plan
import numpy as np
from cells import Cells
from cold_results import (
    FEW,
    FEWER,
    NEAR,
    OURS,
    TUNED,
    Curves,
    Results,
    far_fewer,
    gap,
    times,
    times_fewer,
)
from estimates import N_BOOTSTRAP, Estimate, mean_of, mean_score, verdict

from analysis.reports.markdown import markdown_picture, markdown_table

REASONS = Path(__file__).with_name("cold_reasons.md")
"""What we make of the results, written by hand once they are there."""

# Drawn from the tables of the page: scripts/docs/result_figures.py.
SCORED = markdown_picture(
    "cold_scores",
    "Line charts, one for each attribute: the score at C80 of five methods by the number of pairs, "
    "with those of the prompt and of the unsteered model.",
    "The score at C80 by the number of pairs.",
)
SPREAD = markdown_picture(
    "cold_spreads",
    "Line charts, one for each group: the KL divergence of three methods by the number of prompts.",
    "The KL divergence by the number of prompts; that of the unsteered model is in the subtitle.",
)

HYPOTHESES = f"""\
Written before the command opened the test split. A score is the mean of the attribute's judge (0
to 100) over completions at C80: at the largest strength whose mean coherence is still 80 % of the
unsteered, found on validation questions. Where there is none, or the fit found no steering, the
score is that of the model itself. A gain is a score less the unsteered one. Intervals are
nominally of 95 %, from {N_BOOTSTRAP} resamples of seeds and of test questions, both at once (of
each attribute by itself, though a few questions are in both); but for H1 they are widened by
sqrt(n / (n - 1)) for n seeds, and with three seeds they hold less often where seeds matter much
(`python scripts/studies/coverage.py`). Attributes are fixed. A claim is **supported** where the
interval lies wholly on the side claimed, **not supported** where it lies wholly on the other,
else **undecided**.

- **H1** The paper: as good with {FEWER} times fewer examples. The best of CAA, ReFT-vector and
  ReFT-r1, at any number of pairs, sets the goal: {NEAR:.0%} of its gain. N is the fewest pairs at
  which a method has as much, by the nearest curve that does not fall as pairs grow. The better of
  the three needs at least {FEWER} times the N of the better COLD method. (Where neither COLD
  method gets there the ratio is 0.)
- **H2** With {FEW} pairs COLD-FD scores above CAA, ReFT-vector and ReFT-r1. One claim each, on
  the mean over attributes.
- **H3** With {plan.SEARCHED_WITH} pairs COLD-FD scores above COLD-Kernel.
- **H4** Spreads (the paper's pluralistic task): with {plan.TUNED_WITH} prompts (a) COLD-Kernel
  has a smaller KL divergence from the wished spread than COLD-FD; (b) COLD-Kernel, and (c)
  COLD-FD, has at most half of the unsteered model's.

Every method tries the same six configurations on validation questions, two completions of each,
with {plan.SEARCHED_WITH} pairs and seed 0: three layers, and the prompt or all tokens as the
scope; then that one is fitted with every number of pairs and every seed. A pair is a training
question with a prompted answer that shows the attribute, and an answer of the model itself that
does not (the judges say so; {plan.TRIES} tries a question, which leaves too few for 500). Fewer
pairs are some of the more. COLD takes the DPO loss and CAA the mean difference over the answers,
of both sides. ReFT-vector is a constant learnt by the likelihood of the answers with the
attribute alone (its authors': DPO on both), ReFT-r1 learns from both by its authors' loss; each
takes {plan.STEPS} updates at the library's rates for so many. ReFT-r1 draws another first vector,
up to {plan.TRIES}, where its latent opens on no token. All are brought to a common scale before
the strength is searched. For the spreads a method tries three layers; the option words follow
"{plan.OPENING}" at the start of the answer, and the wished spread is the model's own under the
instruction.

Not quite blind: the command was tried with the first {plan.SEEN} test questions, two seeds and 2
and 5 pairs, to see that it runs, and its tables were looked at. These questions are left out.
"""


def page(cells: Cells | None, options: plan.Options, until: str) -> str:
    """The page as Markdown; without results the hypotheses alone."""
    head = (
        "# How many examples a steering needs\n\nWritten by `python scripts/studies/cold.py`. The "
        'question is that of Sharma & Trivedi, "COLD-Steer", arXiv 2603.06495: does the effect of '
        "one gradient step, taken by the activations alone, need fewer examples than methods that "
        f"are tuned?\n\n## Hypotheses\n\n{HYPOTHESES}"
    )
    if cells is None or until == "validation":
        return head + "\nThe test split has not been opened yet.\n"
    results = Results(cells, options)
    tables = [_scores(results), _spreads(results), _searches(results), _about(results)]
    parts = [head, _verdicts(results), *tables]
    if REASONS.exists():
        parts.insert(2, "\n" + REASONS.read_text(encoding="utf-8"))
    return "\n".join(parts)


def _verdicts(results: Results) -> str:
    names = results.options.attributes
    whole, drawn = Curves(results).resampled(TUNED)
    ratio = times_fewer([whole[m] for m in OURS], [whole[m] for m in TUNED])
    ratios = np.array(
        [times_fewer([d[m] for m in OURS], [d[m] for m in TUNED]) for d in drawn], dtype=float
    )
    low, high = np.quantile(ratios, [0.025, 0.975], method="nearest")
    claim = f"H1 times fewer pairs >= {FEWER}"
    decided = f"**{far_fewer(ratios)}**"
    rows = [[claim, *[""] * len(names), f"{ratio:g} [{low:g}, {high:g}]", decided]]
    few = FEW if FEW in results.options.sizes else results.options.sizes[0]
    for rival in TUNED:
        found = gap(results, "COLD-FD", rival, few)
        rows.append(_row(f"H2 COLD-FD less {rival}, {few} pairs > 0", found))
    many = plan.SEARCHED_WITH
    many = many if many in results.options.sizes else results.options.sizes[-1]
    found = gap(results, "COLD-FD", "COLD-Kernel", many)
    rows.append(_row(f"H3 COLD-FD less COLD-Kernel, {many} pairs > 0", found))
    needed = _pairs_needed(results, whole, drawn)
    groups = [_row_of_groups(results, *claim) for claim in SPREAD_CLAIMS]
    return (
        f"\n## Verdicts\n\nEstimates with their intervals; {results.options.seeds} seeds, "
        f"{results.options.n_test} test questions for each attribute or group.\n\n"
        f"{markdown_table(['claim', *names, 'mean', 'verdict'], rows)}\n\n"
        f"{markdown_table(['claim', *plan.GROUPS, 'mean', 'verdict'], groups)}\n\n"
        f"Pairs needed for H1's goal, {NEAR:.0%} of the best gain of the three (inf: never); "
        "how many times those of COLD-FD they are; and those for that share of the best of all. "
        "(The first two columns were added once the test split was open.)\n\n"
        f"{markdown_table(['method', 'pairs', 'times COLD-FD', 'pairs, all five'], needed)}\n"
    )


def _pairs_needed(
    results: Results, whole: Mapping[str, float], drawn: Sequence[Mapping[str, float]]
) -> list[list[str]]:
    """The pairs of each method for H1's goal, among the tuned ones and among all five."""
    of_all, drawn_of_all = Curves(results).resampled(tuple(plan.METHODS))
    return [
        [
            m,
            _span(whole[m], [d[m] for d in drawn]),
            _span(times(whole, m), [times(d, m) for d in drawn]),
            _span(of_all[m], [d[m] for d in drawn_of_all]),
        ]
        for m in plan.METHODS
    ]


def _span(value: float, drawn: Sequence[float]) -> str:
    low, high = np.quantile(drawn, [0.025, 0.975], method="nearest")
    return f"{value:g} [{low:g}, {high:g}]"


def _row(name: str, found: Sequence[Estimate]) -> list[str]:
    mean = mean_of(found)
    return [name, *map(str, found), str(mean), f"**{verdict(mean, 0.0, above=True)}**"]


SPREAD_CLAIMS = (
    ("H4a KL of COLD-FD less that of COLD-Kernel > 0", "COLD-FD", "COLD-Kernel", 1.0),
    ("H4b half the unsteered KL less COLD-Kernel's > 0", "unsteered", "COLD-Kernel", 0.5),
    ("H4c half the unsteered KL less COLD-FD's > 0", "unsteered", "COLD-FD", 0.5),
)


def _row_of_groups(results: Results, name: str, first: str, second: str, share: float) -> list[str]:
    n = plan.TUNED_WITH
    found = [
        mean_score(
            share * results.spreads(group, first, n, "KL")
            - results.spreads(group, second, n, "KL"),
            draw,
        )
        for draw, group in enumerate(plan.GROUPS)
    ]
    mean = mean_of(found)
    decided = f"**{verdict(mean, 0.0, above=True)}**"
    return [name, *map(_fine, found), _fine(mean), decided]


def _scores(results: Results) -> str:
    rows = []
    for draw, attribute in enumerate(results.options.attributes):
        for method in ("unsteered", "prompt"):
            both = [results.scores(attribute, method, 0, k) for k in ("attribute", "coherence")]
            rows.append(
                [attribute, method, "", *(str(mean_score(s, draw)) for s in both), *[""] * 4]
            )
        for method in plan.METHODS:
            layer, scope = plan.CONFIGURATIONS[plan.chosen(results.cells, attribute, method)]
            for n in results.options.sizes:
                tests = results.tests(attribute, method, n)
                both = [results.scores(attribute, method, n, k) for k in ("attribute", "coherence")]
                unmet = sum(not one["met"] for one in tests)
                rows.append(
                    [
                        attribute,
                        f"{method}, layer {layer}, {scope}",
                        str(tests[0]["n"]),
                        *(str(mean_score(scores, draw)) for scores in both),
                        ", ".join(f"{np.nanmean(scores):.0f}" for scores in both[0]),
                        ", ".join(f"{one['strength']:.2g}" for one in tests),
                        str(unmet) if unmet else "",
                        f"{np.mean([one['seconds'] for one in tests]):.1f}",
                    ]
                )
    names = "attribute, method, pairs, score, coherence, score by seed, strength, no C80"
    table = markdown_table([*names.split(", "), "CPU s a fit"], rows)
    return (
        "\n## Scores at C80\n\nOn test questions. `strength` by seed, on the common scale; "
        "`no C80` counts the seeds in which the search found no strength with that coherence, or "
        f"the fit found no steering at all (strength 0).\n\n{SCORED}\n\n{table}\n"
    )


def _spreads(results: Results) -> str:
    rows = []
    for draw, group in enumerate(plan.GROUPS):
        for method in ("unsteered", *plan.SPREADING):
            for n in plan.SPREAD_SIZES if method != "unsteered" else (0,):
                both = [results.spreads(group, method, n, kind) for kind in ("KL", "TV")]
                where = (
                    ""
                    if method == "unsteered"
                    else str(plan.layer_of(results.cells, group, method))
                )
                strengths = ", ".join(f"{s:g}" for s in results.strengths(group, method, n))
                row = [group, method, where, str(n or ""), strengths]
                rows.append(row + [_fine(mean_score(one, draw)) for one in both])
    head = ["group", "method", "layer", "prompts", "strength", "KL", "total variation"]
    return (
        f'\n## Spreads over {", ".join(plan.WORDS)}\n\nOf the word after "{plan.OPENING}", on test '
        f"questions, against the model's own spread under the instruction of the group.\n\n"
        f"{SPREAD}\n\n{markdown_table(head, rows)}\n"
    )


def _searches(results: Results) -> str:
    """Every validation result that a choice was made by."""
    cells, tried = results.cells, range(results.options.configurations)
    rows = []
    for attribute in results.options.attributes:
        for method in plan.METHODS:
            best = plan.chosen(cells, attribute, method)
            found = [cells.get("search", attribute, method, c) for c in tried]
            shown = [f"{one['attribute']:.1f}" if one["met"] else "no C80" for one in found]
            shown[best] = f"**{shown[best]}**"
            rows.append([attribute, method, *shown])
    layers = []
    for group in plan.GROUPS:
        for method in plan.SPREADING:
            best = plan.layer_of(cells, group, method)
            found = {layer: cells.get("tune", group, method, layer)["KL"] for layer in plan.LAYERS}
            shown = [f"**{KL:.3f}**" if at == best else f"{KL:.3f}" for at, KL in found.items()]
            layers.append([group, method, *shown])
    configurations = [f"{layer}, {scope}" for layer, scope in plan.CONFIGURATIONS][: len(tried)]
    return (
        "\n## What the search saw\n\nOn validation questions; the chosen are bold. Scores at C80 "
        f"by layer and scope, {plan.SEARCHED_WITH} pairs, seed 0:\n\n"
        f"{markdown_table(['attribute', 'method', *configurations], rows)}\n\n"
        f"The KL divergence by layer, {plan.TUNED_WITH} prompts, seed 0:\n\n"
        f"{markdown_table(['group', 'method', *map(str, plan.LAYERS)], layers)}\n"
    )


def _fine(one: Estimate) -> str:
    low, high = one.interval
    return f"{one.value:.3f} [{low:.3f}, {high:.3f}]"


def _about(results: Results) -> str:
    known = results.cells.about["fingerprint"][:16]
    return (
        f"\n## How it was made\n\nThe demonstration model, fingerprint `{known}`; seeds 0 to "
        f"{results.options.seeds - 1}, which draw the pairs, the first parameters, the batches and "
        f"the samples. {results.options.n_validation} validation questions, "
        f"{results.options.n_test} test questions, one completion of each a seed, at temperature 1 "
        "and of at most 64 tokens.\n"
    )
