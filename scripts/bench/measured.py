"""What the benches measured, written into the page of each method and into README.md.

    python scripts/bench/measured.py

It stands between two comments of a page and is made of docs/results/cells alone.
`results.py` calls this after its pages.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from analysis.bench.collect import ATTRIBUTE, COHERENCE, Collected
from analysis.bench.estimates import mean_of, mean_score
from analysis.bench.packed import unpacked
from analysis.reports.markdown import markdown_table
from steerlens.whole import write_whole

DOCS = Path(__file__).parents[2] / "docs"
PAGES = {
    "act_add": ("ActAdd",),
    "angular": ("Angular",),
    "bipo": ("BiPO",),
    "caa": ("CAA", "CAA, 4 examples"),
    "cast": (),
    "clas": ("CLAS",),
    "cold": ("COLD-FD", "COLD-Kernel", "COLD-FD, 4 examples"),
    "directional_ablation": ("DirectionalAblation",),
    "gradient_step": ("gradient step",),
    "icv": ("ICV",),
    "instruction": ("instruction vector",),
    "iti": ("ITI",),
    "las": ("LAS grid",),
    "lora": ("LoRA",),
    "loreft": ("LoReFT",),
    "persona": ("PersonaVector",),
    "psr": ("S-Const_MSE", "S-PSR_MSE", "S-PSR_LL", "A-PSR_MSE", "A-PSR_MSE + prompt"),
    "reft_r1": ("ReFT-r1",),
}
"""The methods of the bench on each page."""
UNMEASURED = "Not in the committed runs yet; `steerlens bench plan --methods` takes it by its name."
NO_METHOD = "No method of the bench: whether it acts depends on the prompt."
REFERENCES = ("equivalent", "neutral")
BESIDE = ("prompt", "unsteered", "random direction")
QUOTED = {"unsteered": "no steering", "prompt": "the prompt itself"}
"""What README calls these. Of the texts that are no answers it has the one that scores highest."""
HEAD = ("model", "", "score", "rank", "attribute", "coherence", "distance", "fit, CPU s")
BETWEEN = r"(<!-- measured: {name} -->\n).*?(<!-- end of measured -->)"


@cache
def tables(collected: Collected) -> tuple[pd.DataFrame, dict[str, Any], pd.DataFrame, pd.Series]:
    """Standings, scores by kind, costs, and distances by method: the same for all pages."""
    near = collected.joined
    near = near.loc[near["strength"] == "equal KL"].set_index("method")["relative_rmse"]
    return (
        collected.standings("harmonic").set_index("method"),
        {kind: collected.scores("harmonic", kind) for kind in (ATTRIBUTE, COHERENCE)},
        collected.costs.set_index("method"),
        near,
    )


def rows(collected: Collected, model: str, methods: Sequence[str]) -> list[list[str]]:
    """A line for each method, and for the prompt, the model and a random direction.

    Where a method lacks an attribute there is no mean: one over fewer does not compare.
    """
    standings, scores, costs, near = tables(collected)
    lines = []
    for method in (*methods, *BESIDE):
        if method not in standings.index:
            fits = collected.fits
            refused = len(fits) and fits.loc[fits["method"] == method, "reason"].notna().any()
            why = "not fitted" if refused else "not run yet"
            lines.append([model, method, why, *[""] * (len(HEAD) - 3)])
            continue
        one = standings.loc[method]
        lines.append(
            [
                model,
                method,
                f"not on {one['missing']}" if one["missing"] else _score(one),
                "" if pd.isna(one["mean"]) else f"{one['rank_low']} to {one['rank_high']}",
                *(
                    "" if one["missing"] else _mean(scores[kind].get(method, {}))
                    for kind in (ATTRIBUTE, COHERENCE)
                ),
                f"{near[method]:.2f}" if method in near.index else "",
                f"{costs.loc[method, 'seconds']:.0f}" if method in costs.index else "",
            ]
        )
    return lines


def _interval(mean: float, low: float, high: float) -> str:
    return "" if np.isnan(mean) else f"{mean:.0f} [{low:.0f}, {high:.0f}]"


def _mean(by_task: Mapping[str, np.ndarray]) -> str:
    if not by_task:
        return ""
    return f"{mean_of([mean_score(one) for one in by_task.values()]).value:.0f}"


def section(found: Mapping[str, Collected], methods: Sequence[str]) -> str:
    """The table of a page and what its columns are; where nothing was measured, that."""
    if not any(set(methods) & set(one.plan.spec.methods) for one in found.values()):
        return f"{UNMEASURED if methods else NO_METHOD}\n"
    told = []
    for model, collected in found.items():
        spec, tasks = collected.plan.spec, collected.plan.tasks
        told.append(f"{model}: {', '.join(tasks)}, {spec.seeds} seeds")
    table = markdown_table(HEAD, [r for m, one in found.items() for r in rows(one, m, methods)])
    pages = " and ".join(f"[{m}](../results/bench_{m}.md)" for m in found)
    return (
        f"{table}\n\nFrom the bench ({pages}), means over attributes ({'; '.join(told)}): the "
        "score is the harmonic mean of attribute and coherence at the strength with the best one "
        "on validation questions, with a 95 % interval; ranks are those that the data leave open, "
        "of all methods, references and null texts; distance is the relative RMSE to the prompt, "
        "mean over layers, at the prompt's own KL (0 is the prompt, 1 no steering). "
        "Made by `python scripts/bench/measured.py`.\n"
    )


def readme_table(found: Mapping[str, Collected]) -> str:
    """Every method's score on every model, the best of the first model first."""
    shown: dict[str, list[str]] = {}
    for number, collected in enumerate(found.values()):
        standing = tables(collected)[0].sort_values("mean", ascending=False)
        nulls = [name for name in standing.index if str(name).startswith("null: ")]
        quoted = {**QUOTED, **({nulls[0]: "the best text that is no answer"} if nulls else {})}
        left_out = {*REFERENCES, *nulls[1:]}
        for method, one in standing.rename(index=quoted).iterrows():
            if method not in left_out:
                cell = f"not on {one['missing']}" if one["missing"] else _score(one)
                shown.setdefault(str(method), [""] * len(found))[number] = cell
    table = markdown_table(("", *found), [[name, *row] for name, row in shown.items()])
    return table.replace(" --- ", "---") + "\n"  # as the other table of the page is written


def _score(one: pd.Series) -> str:
    return _interval(one["mean"], one["low"], one["high"])


def packed_in(results: Path) -> dict[str, Collected]:
    """The benches that are kept in the folder `cells`, by name."""
    packed = sorted((results / "cells").glob("*.jsonl.gz"))
    return {path.name.split(".")[0]: Collected(unpacked(path)) for path in packed}


def write(found: Mapping[str, Collected], pages: Path) -> list[Path]:
    """Write the section into every page of the folder; those that changed."""
    made = {pages / f"{name}.md": (name, section(found, PAGES[name])) for name in PAGES}
    return [page for page, (name, text) in made.items() if _put(page, name, text)]


def write_readme(found: Mapping[str, Collected], page: Path) -> list[Path]:
    """Write the table of all methods into README.md; the page, if it changed."""
    return [page] if _put(page, "README", readme_table(found)) else []


def _put(page: Path, name: str, made: str) -> bool:
    """Whether the page changed by what is put between its two comments."""
    text = page.read_text(encoding="utf-8")
    pattern = re.compile(BETWEEN.format(name=name), re.DOTALL)
    new, n = pattern.subn(lambda match: f"{match[1]}{made}{match[2]}", text)
    if n != 1:
        raise ValueError(f"{page} has {n} places for what was measured, where one is needed.")
    if new != text:
        write_whole(page, new.encode())
    return new != text


if __name__ == "__main__":
    benches = packed_in(DOCS / "results")
    for written in (
        *write(benches, DOCS / "methods"),
        *write_readme(benches, DOCS.parent / "README.md"),
    ):
        print(f"Wrote {written}")
