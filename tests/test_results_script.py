"""What each way to call scripts/bench/results.py makes."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import cold_step
import pytest
import results

from analysis.bench.bench import Bench

JUDGE, SAMPLES, KINDS = (str(script) for script, *_ in results.WITHOUT_BENCH)


@pytest.fixture
def called(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was made, in order; nothing is."""
    names: list[str] = []

    def step(name: str, bench: Any, cells: Path) -> Path:
        names.append(f"step {name}")
        return cells

    def run(command: list[Any], check: bool) -> None:
        assert check
        names.append(str(command[1]))

    monkeypatch.setattr(results, "made", lambda *_, **__: names.append("benches"))
    monkeypatch.setattr(results, "pages", lambda _: names.append("pages"))
    monkeypatch.setattr(cold_step, "write", step)
    monkeypatch.setattr(Bench, "of", lambda _: None)
    monkeypatch.setattr(subprocess, "run", run)
    return names


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ([], ["benches", "step demo", "step smollm2", JUDGE, SAMPLES, KINDS, "pages"]),
        (["--restore"], ["benches", "step demo", "step smollm2", JUDGE, SAMPLES, KINDS, "pages"]),
        (["--quick"], ["benches", "step demo", "pages"]),
        (["--pages"], ["pages"]),
    ],
)
def test_a_run_makes_all_that_the_repository_can(
    options: list[str], expected: list[str], called: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["results.py", *options])
    results.main()
    assert called == expected


def test_every_file_of_the_results_has_a_script_that_is_run_or_named() -> None:
    """A page, cells or a script that writes them, which the module tells of."""
    told = results.__doc__ or ""
    for page in results.RESULTS.glob("*.md"):
        of_bench = page.stem in {"claims", *(f"bench_{name}" for name in results.SPECS)}
        assert of_bench or page.name in told, page.name
    for path in (results.RESULTS / "cells").iterdir():
        stem = path.name.split(".")[0]
        kind, _, model = stem.rpartition("_")
        assert stem in results.SPECS or (
            kind in {"act_add", "cold_step", "token_kinds"} and kind in told
        ), stem
        assert stem in results.SPECS or model in results.SPECS, stem
