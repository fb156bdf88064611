"""The answers of the benchmarks as a page of tables, each target with whether it is met."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from analysis.reports.markdown import markdown_table
from benchmarks import imports
from benchmarks.timing import spread

TARGET_MODEL = "gpt2s"
TARGET_BACKEND = "bridge"
CLASSES = {"bridge": "TransformerBridge", "hooked": "HookedTransformer"}
SIZES = {
    "gpt2s": "GPT-2 small's size (124 M parameters, 12 layers, random weights)",
    "small": "a small GPT-2 (6 layers, width 256, random weights)",
    "llama_s": "a small Llama (6 layers, width 256, random weights)",
    "demo": "the embedded demonstration model",
}
STEERED, CAPTURED, IMPORTED, HELPED = 1.05, 1.10, 0.3, 0.5
FOUND = 10.0
FITTING = ("fitting", "fitting_clas")
SWEPT, SWEPT_APART = 0.35, 1e-4
ONE_BY_ONE, ALONE = "cell by cell", "steered passes alone"
"""What a sweep is compared with: the functions that there are, and no more than its own passes."""
APART = 1e-4
FITTED = {
    "S-PSR at 2/3 depth": 1 / 5,
    "A-PSR": 1 / 3,
    "CLAS at all blocks": 1 / 2,
    "CLAS at the upper third": 1 / 3,
}

PICTURE = (
    "![Marks with ranges, a row for each task: its time as a share of its limit.]"
    "(images/speed_targets.png)\n\n"
    "*Every ratio of times as a share of its limit, drawn from the table by "
    "`python scripts/docs/result_figures.py`.*"
)

Answer = dict[str, Any]


@dataclass(frozen=True)
class Target:
    """A limit and what was measured against it."""

    what: str
    limit: float
    found: Sequence[float]
    unit: str
    form: str = ".2f"

    @property
    def met(self) -> bool:
        """Whether the median keeps the limit."""
        return median(self.found) <= self.limit

    def cells(self) -> list[str]:
        """A table row."""
        verdict = "met" if self.met else "**missed**"
        limit = f"at most {self.limit:.3g} {self.unit}".strip()
        return [self.what, limit, between(self.found, self.form), verdict]


def page(answers: Sequence[Answer], machine: str) -> str:
    """The whole page in Markdown."""
    parts = [
        _head(answers, machine),
        _targets(answers),
        *(_generation(answer) for answer in _of(answers, "generation")),
        *(_capture(answer) for answer in _of(answers, "capture")),
        *(_fitting(answer) for name in FITTING for answer in _of(answers, name)),
        *(_sweep(answer) for answer in _of(answers, "sweep")),
        *(_directions(answer) for answer in _of(answers, "directions")),
        *(_cold(answer) for answer in _of(answers, "cold")),
        *(_imports(answer) for answer in _of(answers, "imports")),
        _peers(_of(answers, "peers")),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _of(answers: Iterable[Answer], benchmark: str) -> list[Answer]:
    return [answer for answer in answers if answer["job"]["benchmark"] == benchmark]


def _head(answers: Sequence[Answer], machine: str) -> str:
    days = sorted({answer["date"] for answer in answers})
    loads = [load for answer in answers for load in answer["load"] if load is not None]
    busy = f"{min(loads):.0f} to {max(loads):.0f}" if loads else "unknown"
    return (
        "# Benchmarks\n\n"
        "Written by `make bench`; `benchmarks/README.md` says how it is measured.\n\n"
        f"- {' to '.join(dict.fromkeys((days[0], days[-1])))}; {machine}; one thread.\n"
        f"- Load average while measuring: {busy}. Other work ran on the machine, so times are CPU\n"
        "  seconds, tasks take turns, and a ratio is that of the same repeat: median (smallest to\n"
        "  largest). Look at the ratios, not at the seconds.\n"
        f"- {'; '.join(sorted({_versions(answer) for answer in answers}))}."
    )


def _versions(answer: Answer) -> str:
    return ", ".join(f"{name} {number}" for name, number in sorted(answer["versions"].items()))


def _targets(answers: Sequence[Answer]) -> str:
    found = [target for answer in answers for target in _targets_of(answer)]
    if not found:
        return ""
    kept, missed = [t for t in found if t.met], [t for t in found if not t.met]
    told = f"{len(kept)} of {len(found)} limits are kept."
    if missed:
        told += f" Missed: {'; '.join(target.what for target in missed)}."
    table = markdown_table(
        ["target", "limit", "measured", ""], [target.cells() for target in found]
    )
    folded = f"<details><summary>Every limit</summary>\n\n{table}\n\n</details>"
    return f"## Targets\n\n{told}\n\n{PICTURE}\n\n{folded}"


def _targets_of(answer: Answer) -> list[Target]:
    job = answer["job"]
    if job["benchmark"] == "imports":
        return _import_targets(answer)
    if job["benchmark"] == "directions":
        rfm = answer["rows"][0]
        what = f"RFM, {_rows_of(answer)}, {answer['configurations']} configurations, CPU"
        return [Target(f"{what}, torch {answer['versions']['torch']}", FOUND, rfm["seconds"], "s")]
    if job["benchmark"] in FITTING:
        return [
            Target(f"fitting {name}, {_where(answer)}", FITTED[name], rows[1]["ratios"], "×")
            for name, rows in answer["tables"].items()
        ] + [
            Target(f"parameters of {name} apart, {_where(answer)}", APART, [value], "", ".1e")
            for name, value in answer["apart"].items()
        ]
    if job["benchmark"] == "sweep":
        return _sweep_targets(answer)
    if job["model"] != TARGET_MODEL:
        return []
    if job["benchmark"] == "cold":
        return [
            Target(f"{row['what']}, {name}, {_where(answer)}", limit, row["ratios"], "×")
            for name, table in answer["tables"].items()
            for row in table["rows"]
            if (limit := _cold_limit(row["what"], table["f"]))
        ]
    if job["benchmark"] == "generation":
        return [
            Target(f"generation, {row['what']}, {_where(answer)}", STEERED, row["ratios"], "×")
            for row in answer["rows"][1:]
        ]
    if job["benchmark"] == "capture" and job["backend"] == TARGET_BACKEND:
        return [
            Target(f"capture, {name}, {_where(answer)}", CAPTURED, rows[1]["ratios"], "×")
            for name, rows in answer["tables"].items()
        ]
    return []


def _sweep_targets(answer: Answer) -> list[Target]:
    rows = answer["tables"][ONE_BY_ONE]
    what = f"sweep of {answer['cells']} cells, {_where(answer)}"
    return [
        Target(what, SWEPT, rows[-1]["ratios"], "×"),
        Target(f"numbers of the {what}, apart", SWEPT_APART, [answer["apart"]], "", ".1e"),
    ]


def _import_targets(answer: Answer) -> list[Target]:
    where = f"transformer-lens {answer['versions']['transformer-lens']}"
    targets = [
        Target(f"`{row['what']}`, {where}", IMPORTED, row["ratios"], "s more")
        for row in answer["rows"]
        if row["what"] in (imports.LIGHT, imports.WORK, imports.BOTH)
    ]
    return [
        *targets,
        Target(f"`steerlens --help`, CPU, {where}", HELPED, answer["help"]["cpu"], "s"),
    ]


def _sweep_targets(answer: Answer) -> list[Target]:
    what = f"sweep of {answer['cells']} cells, {_where(answer)}"
    return [
        Target(what, SWEPT, answer["tables"][ONE_BY_ONE][-1]["ratios"], "×"),
        Target(f"numbers of the {what}, apart", SWEPT_APART, [answer["apart"]], "", ".1e"),
    ]


def _where(answer: Answer) -> str:
    version = answer["versions"]["transformer-lens"]
    return f"{CLASSES[answer['job']['backend']]} {version}"


def _generation(answer: Answer) -> str:
    title = f"## Generation: {_where(answer)}, {answer['job']['model']}"
    same = ", ".join(
        f"{name} {agreeing} of {rows}"
        for name, (agreeing, rows) in answer["same_tokens"].items()
        if name != "steerlens"
    )
    return "\n\n".join(
        [
            title,
            f"8 prompts, 64 new tokens, greedy, on {SIZES[answer['job']['model']]}; "
            f"{answer['repeats']} repeats.",
            seconds_table(answer["rows"], "times the unsteered"),
            "Unsteered, beside what others need for the same prompts "
            f"(rows with the same tokens: {same}):",
            seconds_table(answer["rivals"], "times steerlens"),
        ]
    )


def _capture(answer: Answer) -> str:
    parts = [
        f"## Capture: {_where(answer)}, {answer['job']['model']}",
        "The last token of 64 pairs of about 44 tokens, in batches of 16, on "
        f"{SIZES[answer['job']['model']]}; {answer['repeats']} repeats. Smallest cosine to the "
        f"plain hooks' result: {answer['cosine']:.6f}.",
    ]
    for name, rows in answer["tables"].items():
        parts += [f"{name.capitalize()}:", seconds_table(rows, "times plain hooks")]
    return "\n\n".join(parts)


def _fitting(answer: Answer) -> str:
    apart = ", ".join(f"{name} {value:.1e}" for name, value in answer["apart"].items())
    parts = [
        f"## Fitting: {_where(answer)}, {answer['job']['model']}",
        f"{answer['steps']} steps on {answer['n_pairs']} pairs in batches of {answer['batch']}, "
        "everything included, beside a plain loop (full passes, one example at a time, nothing "
        f"kept) that takes the same steps; {answer['repeats']} repeats. Largest difference between "
        f"the parameters at the end: {apart}.",
    ]
    for name, rows in answer["tables"].items():
        parts += [f"{name}:", seconds_table(rows, "times the plain loop")]
    return "\n\n".join(parts)


def _sweep(answer: Answer) -> str:
    layers = answer["cells"] // answer["strengths"]
    parts = [
        f"## Sweep: {_where(answer)}, {answer['job']['model']}",
        f"CAA at {layers} layers and {answer['strengths']} strengths on {answer['n_pairs']} pairs, "
        f"{answer['cells']} cells, on {SIZES[answer['job']['model']]}; {answer['repeats']} "
        "repeats. One by one, each cell is a call of `logit_shift` and one of `faithfulness`; in "
        "one call they get all cells. The largest difference between the numbers of any two ways "
        f"is {answer['apart']:.1e} of their size.",
        seconds_table(answer["tables"][ONE_BY_ONE], "times cell by cell"),
        "The strict comparison: plain and prompted passes are kept, and one whole steered pass for "
        "each cell and batch of texts is all that is run:",
        seconds_table(answer["tables"][ALONE], "times these passes"),
    ]
    return "\n\n".join(parts)


def _rows_of(answer: Answer) -> str:
    return f"{answer['fitted']} rows of width {answer['width']}"


def _directions(answer: Answer) -> str:
    near = answer["cosines"]
    cells = [
        [
            row["what"],
            between([1000 * each for each in row["seconds"]], ".0f"),
            f"{near[row['what']]:.2f}",
        ]
        for row in answer["rows"]
    ]
    return "\n\n".join(
        [
            f"## Directions: torch {answer['versions']['torch']}",
            f"From {_rows_of(answer)}, chosen by {answer['held']} others; the RFM tries "
            f"{answer['configurations']} configurations; {answer['repeats']} repeats.",
            markdown_table(["", "CPU milliseconds", "cosine to the planted direction"], cells),
        ]
    )


def _cold_limit(what: str, f: float) -> float | None:
    """A derivative takes two more products with each matrix up to f; a kernel takes none."""
    limits = {
        "COLD-Kernel": STEERED,
        "COLD-FD, difference": 2.3,
        "COLD-FD, derivative": 1.15 * (1 + 2 * f),
    }
    return limits.get(what)


def _cold(answer: Answer) -> str:
    memory = answer["memory"]
    parts = [
        f"## COLD-Steer: {_where(answer)}, {answer['job']['model']}",
        f"8 prompts, all tokens steered, on {SIZES[answer['job']['model']]}; f is the share of the "
        f"blocks up to the site; {answer['repeats']} repeats.",
    ]
    for name, found in answer["tables"].items():
        parts += [f"With {name}:", seconds_table(found["rows"], "times the unsteered")]
    for what, rows in answer["gradients"].items():
        parts += [
            f"Gradients of {answer['n_examples']} pairs for the {what} up to the middle:",
            seconds_table(rows, "times one by one"),
        ]
    parts.append(
        f"Memory of COLD-FD in the middle: the parameters touched take {memory['touched']:.0f} "
        "MiB, as does the gradient that is kept. Beyond what loading the model and writing "
        f"unsteered had taken, fitting took {memory['fit']:.0f} MiB at its peak, and steering "
        f"{memory['steer']:.0f} MiB more than that."
    )
    return "\n\n".join(parts)


def _imports(answer: Answer) -> str:
    waited, loaded = answer["help"]["wall"], answer["loaded"]
    rows = [
        [
            f"`{row['what']}`",
            between(row["seconds"]),
            between(row["ratios"], "+.2f"),
            ", ".join(loaded[row["what"]]) or "none",
        ]
        for row in answer["rows"]
    ]
    head = ["statement", "CPU seconds", f"more than `{imports.BASE}`"]
    head.append(f"of {', '.join(imports.UNWANTED)}")
    own = ", ".join(answer["own"]) or "none of them"
    return "\n\n".join(
        [
            f"## Import: transformer-lens {answer['versions']['transformer-lens']}",
            f"Fresh processes, {answer['repeats']} of each, interpreter start included.",
            markdown_table(head, rows),
            f"Loaded by steerlens beyond what TransformerLens loads itself: {own}.",
            f"`steerlens --help`: {between(answer['help']['cpu'])} CPU seconds, "
            f"{between(waited)} seconds of waiting under this load.",
        ]
    )


def _peers(answers: Sequence[Answer]) -> str:
    if not answers:
        return (
            "## Other libraries\n\nNot measured here: `--peers DIR` times those whose environments "
            "are in DIR."
        )
    parts = ["## Other libraries: capture", "Each in its own process, beside the same plain hooks."]
    for answer in answers:
        parts.append(f"{_versions(answer)}, on {SIZES[answer['job']['model']]}:")
        for name, rows in answer["tables"].items():
            parts += [f"{name.capitalize()}:", seconds_table(rows, "times plain hooks")]
    return "\n\n".join(parts)


def seconds_table(rows: Sequence[dict[str, Any]], ratio: str) -> str:
    """CPU seconds, and ratios to the baseline."""
    return markdown_table(["", "CPU seconds", ratio], [_cells(row) for row in rows])


def _cells(row: dict[str, Any]) -> list[str]:
    ratio = "1" if row["what"] == row["baseline"] else between(row["ratios"])
    return [row["what"], between(row["seconds"]), ratio]


def between(values: Sequence[float], form: str = ".2f") -> str:
    """Median (smallest to largest)."""
    middle, low, high = (format(value, form) for value in spread(values))
    return f"{middle} ({low} to {high})"
