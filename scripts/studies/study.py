"""What every study has: a process that is readied for its cells, and a command that writes a page.

A study is four kinds of files: `x.py` is the command and its stages, `x_plan.py` what is tried (all
others need it, and it needs none of them), `x_fits.py` and `x_cells.py` make the results, and
`x_results.py` and `x_page.py` read them.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import subprocess
import sys
import warnings
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from cells import Cells
from material import Material, demo

import steerlens
from analysis import Scored
from analysis.measures.tradeoff import by_question
from steerlens.demo import benchmark_set
from steerlens.identity import fingerprint
from steerlens.types import HookedModel

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "docs" / "results"
FIGURES = ROOT / "scripts" / "docs" / "result_figures.py"


@dataclass(frozen=True)
class StudyOptions:
    """What a study is made of; the work folder remembers everything but its own place."""

    folder: str

    @property
    def loaded(self) -> str:
        """The name of the model, as `steerlens.load` takes it."""
        return "demo"


# -- What every process has ------------------------------------------------------------------------

_OPTIONS: list[Any] = []


def begin(chosen: StudyOptions) -> None:
    """Ready this process."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    _OPTIONS[:] = [chosen]


def options() -> Any:
    """The options that this process was readied with, of the study's own class."""
    return _OPTIONS[0]


@cache
def model(backend: str = "auto") -> HookedModel:
    """The model of the study, loaded once a process."""
    return steerlens.load(options().loaded, backend=backend)  # pyright: ignore[reportArgumentType]


@cache
def material(attribute: str) -> Material:
    """An attribute of the demonstration model."""
    return demo(attribute)


# -- Results ---------------------------------------------------------------------------------------


def scores_by_question(scored: Scored) -> dict[str, Any]:
    """The mean scores of every question."""
    return {
        "attribute": by_question(scored.attribute).tolist(),
        "coherence": by_question(scored.coherence).tolist(),
    }


def cells_of(chosen: StudyOptions, facts: Mapping[str, Any], data: Path | None = None) -> Cells:
    """The results in the work folder of a study; see `about_of`."""
    return Cells(Path(chosen.folder), about_of(chosen, facts, data), begin, chosen)


def about_of(
    chosen: StudyOptions, facts: Mapping[str, Any], data: Path | None = None
) -> dict[str, Any]:
    """What the results depend on: options, facts of the study, the model, and the file of data."""
    kept = {key: value for key, value in asdict(chosen).items() if key != "folder"}
    return {
        **kept,
        **facts,
        "data": hashlib.sha256((data or benchmark_set.FILE).read_bytes()).hexdigest()[:16],
        "fingerprint": fingerprint(steerlens.load(chosen.loaded)),
    }


# -- The command -----------------------------------------------------------------------------------


def parser(documentation: str | None, page: Path) -> argparse.ArgumentParser:
    """The command line that every study has; `page` is where its results are published."""
    made = argparse.ArgumentParser(description=(documentation or "").split("\n")[0])
    made.add_argument("--work-dir", type=Path, default=ROOT / "build" / "studies" / page.stem)
    made.add_argument("--out", type=Path, default=page)
    made.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    made.add_argument("--until", choices=("hypotheses", "validation", "page"), default="page")
    made.add_argument("--quick", action="store_true", help="tiny sizes, to see that it runs")
    return made


def publish(
    given: argparse.Namespace,
    chosen: StudyOptions,
    run: Callable[[Any, int, str], Cells],
    page: Callable[[Cells | None, Any, str], str],
) -> None:
    """Run the study as far as the command line says, write its page, and draw its pictures."""
    cells = None if given.until == "hypotheses" else run(chosen, given.workers, given.until)
    given.out.parent.mkdir(parents=True, exist_ok=True)
    given.out.write_text(page(cells, chosen, given.until), encoding="utf-8")
    print(f"Wrote {given.out}", flush=True)
    drawn = subprocess.run([sys.executable, FIGURES, given.out], check=False)
    if drawn.returncode:
        print(f"The page is whole, its pictures are not: python {FIGURES} {given.out}")
