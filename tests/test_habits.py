"""The version has one place; the files of the project's habits name what is there."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

import steerlens

ROOT = Path(__file__).parents[1]
PAGES = sorted((ROOT / "docs" / "methods").glob("[!R]*.md"))
SECTIONS = ("What it needs", "When to use it", "When not", "Measured", "Citing it")


def text_of(file: str) -> str:
    return (ROOT / file).read_text(encoding="utf-8")


def test_the_version_has_one_place_and_the_citation_follows() -> None:
    assert 'dynamic = ["version"]' in text_of("pyproject.toml")
    assert 'path = "steerlens/__init__.py"' in text_of("pyproject.toml")
    citation: Any = yaml.safe_load(text_of("CITATION.cff"))
    assert citation["version"] == steerlens.__version__
    assert "## [Unreleased]" in text_of("CHANGELOG.md")


def test_hosted_ci_runs_the_same_as_everywhere_and_files_that_are_there() -> None:
    workflow: Any = yaml.safe_load(text_of(".github/workflows/ci.yml"))
    everything, part = workflow["jobs"]["all"], workflow["jobs"]["part"]
    assert {"run": ".ci/run"} in everything["steps"]
    systems = {one["os"] for one in part["strategy"]["matrix"]["include"]}
    assert {"windows-latest", "macos-latest"} <= systems
    for file in re.findall(r"tests/\w+\.py", text_of(".github/workflows/ci.yml")):
        assert (ROOT / file).is_file()


def test_the_hooks_before_a_commit_use_the_environment_that_make_builds() -> None:
    (local,) = yaml.safe_load(text_of(".pre-commit-config.yaml"))["repos"]
    assert local["repo"] == "local"
    assert all(hook["entry"].startswith(".venv/bin/") for hook in local["hooks"])
    named = re.findall(r"(?:scripts|tests)/\S+\.py", " ".join(h["entry"] for h in local["hooks"]))
    assert named
    assert all((ROOT / file).is_file() for file in named)


@pytest.mark.parametrize("file", ["bug", "idea"])
def test_the_forms_of_issues_can_be_read(file: str) -> None:
    form: Any = yaml.safe_load(text_of(f".github/ISSUE_TEMPLATE/{file}.yml"))
    assert {"name", "description", "body"} <= set(form)


def test_ci_runs_the_blocks_of_code_that_are_slow() -> None:
    assert "-m slow tests/test_docs_code.py" in text_of(".ci/run")


def test_the_lowest_versions_have_a_target_and_are_told_of() -> None:
    assert "test-lowest:" in text_of("Makefile")
    assert "make test-lowest" in text_of("CONTRIBUTING.md")
    assert "make test-lowest" in text_of(".ci/run")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_method_page_says_what_it_needs_when_and_how_to_cite_it(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    headings = re.findall(r"^## (.+)$", text, re.MULTILINE)
    assert [name for name in SECTIONS if name in headings] == list(SECTIONS)
    assert f"<!-- measured: {page.stem} -->" in text
    number = re.search(r"eprint = \{(\d{4}\.\d{5})\}", text)
    assert number is not None
    assert f"[{number[1]}](https://arxiv.org/abs/{number[1]})" in text
