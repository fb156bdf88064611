"""Benchmarks: the page tells what is met, and the plain loops take the steps of the library."""

import json
import warnings
from argparse import Namespace
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch

import steerlens
from benchmarks import directions, fitting, fitting_clas, report, run, sweep
from benchmarks.jobs import Job
from steerlens.demo import benchmark_set
from steerlens.training.schedule import Schedule


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


@pytest.mark.parametrize("layers", [[3], [0, 1, 2, 3, 4, 5]], ids=["S", "A"])
def test_the_plain_loop_that_psr_is_compared_with_takes_the_same_steps(
    monkeypatch: pytest.MonkeyPatch, layers: list[int]
) -> None:
    schedule = Schedule(epochs=4, batch_size=2, validation=0.0, patience=None)
    monkeypatch.setattr(fitting, "SCHEDULE", schedule)
    model: Any = steerlens.load("demo")
    pairs = benchmark_set.read("positive").pairs("train")[:4]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", steerlens.SteeringWarning)  # so few steps train little
        ours, plain = (
            fit(model, pairs, layers) for fit in (fitting.by_library, fitting.by_plain_loop)
        )
    assert ours.keys() == plain.keys()
    for name, value in plain.items():
        torch.testing.assert_close(ours[name], value, rtol=0, atol=report.APART)


def test_the_plain_loop_that_clas_is_compared_with_takes_the_same_steps() -> None:
    model: Any = steerlens.load("demo")
    pairs = benchmark_set.read("positive").pairs("train")[:4]
    v = {layer: torch.eye(192)[layer] for layer in (2, 5)}
    ours = fitting_clas.by_library(model, pairs[:2], pairs[2:], v)
    plain = fitting_clas.by_plain_loop(model, pairs[:2], pairs[2:], v)
    assert ours.keys() == plain.keys()
    assert any(value.abs().max() > 0 for value in plain.values())
    for name, value in plain.items():
        torch.testing.assert_close(ours[name], value, rtol=0, atol=report.APART)


@pytest.mark.filterwarnings("ignore:.*questions?. Of fewer than")
def test_a_sweep_is_compared_with_its_cells_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sweep, "STRENGTHS", (0.5, 1.0))
    monkeypatch.setattr(sweep, "N_PAIRS", 2)
    asked = Namespace(
        models=None, repeats=1, quick=False, cache=Path(), python=None, peers=None,
        backends=("bridge",), only=("sweep",),
    )  # fmt: skip
    (job,) = run.jobs(asked)
    assert job == Job("sweep", "demo", "bridge", 1, job.cache, job.python)
    found = json.loads(json.dumps(sweep.measure(job), default=asdict))
    assert found["cells"] == 12
    assert found["apart"] < report.SWEPT_APART
    answer = {**found, "job": asdict(job), "date": "today", "load": [1, 1], "repeats": 1}
    page = report.page([answer], "a machine")
    assert "| sweep of 12 cells, TransformerBridge" in page
    assert "at most 0.35 ×" in page
    assert all(f"| {way} |" in page for way in ("cell by cell", "steered passes alone", "sweep"))
    found["tables"][report.ONE_BY_ONE][-1]["ratios"] = [0.5]
    assert "**missed**" in report.page([answer | found], "a machine")


def test_parameters_that_are_apart_are_a_target_missed() -> None:
    job = asdict(Job("fitting", "demo", "bridge"))
    answer = {"job": job, "tables": {}, "versions": {"transformer-lens": "3.9.0"}}
    for value, said in ((1e-6, "met"), (0.2, "**missed**")):
        (target,) = report._targets_of({**answer, "apart": {"A-PSR": value}})
        assert target.cells()[1:] == [
            "at most 0.0001",
            *[f"{value:.1e} ({value:.1e} to {value:.1e})"],
            said,
        ]
