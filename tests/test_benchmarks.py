"""The benchmark of directions: it is asked for, measures, and its page says whether it is met."""

import json
from argparse import Namespace
from dataclasses import asdict
from pathlib import Path

import pytest

from benchmarks import directions, report, run
from benchmarks.jobs import Job


def test_the_benchmark_of_directions_is_run_and_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, small in {"FITTED": 40, "HELD": 20, "WIDTH": 16}.items():
        monkeypatch.setattr(directions, name, small)
    asked = Namespace(
        models=None, repeats=2, quick=True, cache=Path(), python=None, peers=None, backends=()
    )
    (job,) = run.jobs(Namespace(**vars(asked), only=("directions",)))
    assert job == Job("directions", repeats=2, python=job.python)
    assert job in list(run.jobs(Namespace(**vars(asked), only=run.BENCHMARKS)))
    found = json.loads(json.dumps(directions.measure(job), default=asdict))
    answer = {**found, "job": asdict(job), "date": "today", "load": [1, 1], "repeats": 2}
    assert all(len(row["seconds"]) == 2 for row in found["rows"])
    page = report.page([answer], "a machine")
    assert "RFM, 40 rows of width 16, 12 configurations" in page
    assert "at most 10 s" in page
    assert page.index("## Targets") < page.index("## Directions")
    assert all(f"| {kind} |" in page for kind in ("rfm", "ridge", "logistic", "means"))
    found["rows"][0]["seconds"] = [11.0, 12.0]
    assert "**missed**" in report.page([answer | found], "a machine")
