"""Every Python block of the README runs, and its commands exist.

Those of docs/methods run in test_method_pages.py.
"""

import json
import random
import re
import shutil
from pathlib import Path
from typing import Any

import methods_table
import plotly.graph_objects as go
import pytest
import typer
from typer.main import get_command

from analysis.judges import judge_of
from steerlens import methods
from steerlens.cli import app
from steerlens.demo import benchmark_set
from steerlens.jsonl import read_prompt_pairs

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = [README, *(p.read_text(encoding="utf-8") for p in (ROOT / "docs" / "methods").glob("*.md"))]
BLOCKS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
REAL = [b for page in PAGES for b in re.findall(r"```python real\n(.*?)```", page, re.DOTALL)]
ANSWERS = [
    answer.removesuffix(" ...")
    for said in re.findall(
        r"^The unsteered model answers .*?\n\n", README, re.DOTALL | re.MULTILINE
    )
    for answer in re.findall(r'"([^"]+)"', " ".join(said.split()))
]
"""What README quotes of the real model: of its first block's two answers."""
SHELL = "".join(re.findall(r"```bash\n(.*?)```", README, re.DOTALL))
COMMANDS = re.findall(r"^steerlens (.+)$", SHELL, re.MULTILINE)


def test_the_readme_has_python_and_commands() -> None:
    assert len(BLOCKS) >= 2
    assert len(COMMANDS) >= 7
    assert all(command in README for command in ("make demo", "make test"))


@pytest.mark.parametrize("number", range(len(BLOCKS)))
def test_a_python_block_runs(
    number: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: Any
) -> None:
    shown: list[go.Figure] = []
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(go.Figure, "show", lambda figure: shown.append(figure))
    exec(compile(BLOCKS[number], f"README block {number}", "exec"), {})
    assert len(shown) == BLOCKS[number].count(".show()")
    assert capsys.readouterr().out


@pytest.mark.real
@pytest.mark.filterwarnings("ignore:The model's chat template puts a system prompt")
@pytest.mark.parametrize("number", range(len(REAL)))
def test_a_python_block_on_the_real_model_runs(
    number: int, smollm2: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    exec(compile(REAL[number], f"README block {number}, real", "exec"), {})
    out = capsys.readouterr().out
    assert len(ANSWERS) == 2
    if number == 0:
        assert [answer for answer in ANSWERS if answer not in " ".join(out.split())] == []
    assert (tmp_path / "out" / "heatmap.html").is_file()


@pytest.mark.slow
def test_the_lines_of_the_explorers_page_run_one_after_another(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: Any
) -> None:
    page = (ROOT / "docs" / "explorer.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    assert len(blocks) >= 2
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    for block in blocks:
        exec(compile(block, "docs/explorer.md", "exec"), names)
    assert "sl.explore(" in capsys.readouterr().out


@pytest.mark.parametrize("line", COMMANDS)
def test_a_command_and_its_options_exist(line: str) -> None:
    words = line.split()
    command: Any = get_command(app)
    while hasattr(command, "commands"):
        _, command, words = command.resolve_command(typer.Context(command), words)
    known = {option for parameter in command.params for option in parameter.opts}
    used = {word for word in words if word.startswith("--")}
    assert used <= known


def test_commands_measure_on_questions_that_none_of_them_fits_on() -> None:
    """Each named file is there; fitted and measured pairs share no question."""
    questions: dict[str, set[str]] = {"fit": set(), "measure": set()}
    for line in COMMANDS:
        found = re.search(r"--pairs (\S+)", line)
        if found is None:
            continue
        rows = map(json.loads, (ROOT / found[1]).read_text(encoding="utf-8").splitlines())
        use = "fit" if line.startswith("fit ") else "measure"
        for row in rows:
            sides = [row] if "user" in row else row.values()
            questions[use] |= {side["user"] for side in sides}
    assert questions["fit"]
    assert questions["measure"]
    assert questions["fit"].isdisjoint(questions["measure"])


def test_the_completions_for_clas_are_drawn_as_the_readme_says() -> None:
    pairs = benchmark_set.read("lowercase").pairs("train")
    scores = judge_of("lowercase")([str(pair.response) for pair in pairs])
    shown = [pair for pair, score in zip(pairs, scores, strict=True) if score == 100]
    drawn = random.Random(0).sample(shown, 20)
    assert read_prompt_pairs(ROOT / "examples" / "clas.jsonl") == drawn


def test_no_row_of_a_table_is_cut_off_from_its_head() -> None:
    lines = README.splitlines()
    for before, line, after in zip(["", *lines], lines, [*lines[1:], ""], strict=False):
        if line.startswith("|") and not before.startswith("|"):
            assert after.startswith("|---"), f"a table begins without a head: {line}"


def test_the_table_of_methods_is_what_their_docstrings_say() -> None:
    assert methods_table.updated(README) == README, "run `make docs`"
    for name in methods.__all__:
        assert f"[`{name}`](steerlens/methods/" in README


def test_a_method_without_a_paper_or_a_page_without_its_markers_is_an_error() -> None:
    with pytest.raises(ValueError, match="some names no paper"):
        methods_table.paper("A method.\n\nSomebody, somewhere.", "some")
    with pytest.raises(ValueError, match="lacks the markers"):
        methods_table.updated("# A page")
