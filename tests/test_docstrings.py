"""The examples in the docstrings of public functions and classes run, and give what they say."""

import doctest
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

import steerlens as sl
from steerlens import analysis

OF_STEERLENS = (
    "Conversation",
    "Sampling",
    "Site",
    "Steering",
    "at",
    "calibrate",
    "capture",
    "encode",
    "generate",
    "last_k",
    "lens",
    "load",
    "load_steering",
    "positions",
    "prompted_pairs",
    "unit",
)
OF_ANALYSIS = ("gini", "judge_of", "markdown_table", "split_by_question")
NAMES = {"sl": sl, "analysis": analysis, "np": np, "pd": pd, "torch": torch}
FLAGS = doctest.NORMALIZE_WHITESPACE


def examples_of(value: Any, name: str) -> doctest.DocTest:
    parser = doctest.DocTestParser()
    return parser.get_doctest(value.__doc__ or "", dict(NAMES), name, None, None)


def run(test: doctest.DocTest) -> str:
    """What went wrong, or nothing."""
    said: list[str] = []
    doctest.DocTestRunner(optionflags=FLAGS).run(test, out=said.append)
    return "".join(said)


@pytest.mark.parametrize(
    ("home", "name"),
    [(sl, name) for name in OF_STEERLENS] + [(analysis, name) for name in OF_ANALYSIS],
)
def test_the_examples_of_a_docstring_run(
    home: Any, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    test = examples_of(getattr(home, name), name)
    assert test.examples, f"{name} has no example"
    assert not run(test)


def test_every_example_of_a_public_docstring_is_run() -> None:
    for home, listed in ((sl, OF_STEERLENS), (analysis, OF_ANALYSIS)):
        with_one = [n for n in home.__all__ if ">>>" in (getattr(home, n).__doc__ or "")]
        assert sorted(with_one) == sorted(listed)


def test_a_wrong_example_is_seen() -> None:
    class Wrong:
        """>>> 1 + 1
        3
        """

    assert "Expected" in run(examples_of(Wrong, "Wrong"))
