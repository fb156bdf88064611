"""The PSR study runs from end to end, on a model without turns or judges, and goes on."""

import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
STORIES = ROOT.parent / "shared" / "models" / "stories260K"


def study(*options: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "scripts/studies/psr.py", *map(str, options)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=900)


def test_hypotheses_are_written_without_any_result(tmp_path: Path) -> None:
    done = study("--until", "hypotheses", "--out", tmp_path / "page.md")
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "page.md").read_text(encoding="utf-8")
    assert all(f"**H{number}**" in page for number in range(1, 6))
    assert "has not been opened yet" in page


@pytest.mark.slow
@pytest.mark.skipif(not STORIES.is_dir(), reason="shared/models/stories260K is absent")
def test_the_study_runs_on_a_model_without_turns_and_goes_on(tmp_path: Path) -> None:
    options = ["--model", STORIES, "--prefix", "--attributes", "sad", "--quick", "--workers", 1]
    options += ["--work-dir", tmp_path / "work", "--out", tmp_path / "page.md"]
    assert study(*options, "--until", "validation").returncode == 0
    assert not (tmp_path / "work" / "test").exists()
    done = study(*options)
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "page.md").read_text(encoding="utf-8")
    verdicts = re.findall(r"^\| (H\S+).*\*\*(supported|not supported|undecided)\*\*", page, re.M)
    assert [name for name, _ in verdicts] == [
        "H1a",
        "H1b",
        "H2a",
        "H2b",
        "H2a",
        "H2b",
        "H3a",
        "H3b",
    ]
    assert "S-Const_DiM" in page
    kept = {path: path.stat().st_mtime_ns for path in (tmp_path / "work").rglob("*.json")}
    started = time.monotonic()
    study(*options)
    assert time.monotonic() - started < 60
    assert kept == {path: path.stat().st_mtime_ns for path in (tmp_path / "work").rglob("*.json")}
    other = study(*options, "--attributes", "happy")
    assert other.returncode != 0
    assert "Name another --work-dir" in other.stderr
