"""The course: both editions are those of the sources, and every answer gets its verdict.

What a check has to say to a wrong answer stands beside that answer in notebooks/source. All of a
unit runs in this process, in one test, because its cells build upon one another.
"""

import re
import subprocess
import sys
import time
import types
from functools import cache
from pathlib import Path
from typing import Any

import checks
import jupytext
import nbformat
import pytest
import tomllib
import torch
from checks.units import exercises
from editions import call, lecturer, lines_of, setup, student
from make_course import is_current, leave_out_bars, students_file, written
from sources import ROOT, Exercise, Unit, read_unit, sources
from trials import trials

MOST_LINES, WIDEST, LEAST_EXERCISES, LEAST_WRONG, MOST_SECONDS = 25, 100, 6, 3, 180
NUMBERS = ["six", "seven", "eight", "nine", "ten", "eleven", "twelve"]
PARTS = ("## What could go wrong", "## An open experiment", "## References")
PATHS = [pytest.param(path, id=path.stem) for path in sources()]
each_unit = pytest.mark.parametrize("path", PATHS)


@pytest.fixture(autouse=True)
def gradients_as_they_were():
    """A unit may switch them off for its notebook; other tests run in this process too."""
    with torch.random.fork_rng(), torch.set_grad_enabled(torch.is_grad_enabled()):
        yield


@cache
def unit_of(path: Path) -> Unit:
    return read_unit(path)


def code_of(notebook: Any) -> list[str]:
    return [cell.source for cell in notebook.cells if cell.cell_type == "code"]


def text_of(notebook: Any) -> str:
    return "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")


def test_the_units_are_numbered_without_a_gap():
    assert [path.name[:2] for path in sources()] == [f"{n:02}" for n in range(len(sources()))]


@each_unit
def test_the_students_edition_is_the_one_that_the_source_makes(path):
    assert is_current(unit_of(path)), "say `make course`"
    assert written(student(unit_of(path))) == written(student(read_unit(path)))


def test_every_notebook_has_a_source():
    made = {students_file(unit_of(path)) for path in sources()}
    assert set((ROOT / "notebooks").glob("*.ipynb")) == made


@each_unit
def test_a_student_finds_stubs_and_checks_and_nothing_solved(path):
    unit = unit_of(path)
    notebook = student(unit)
    code, text = code_of(notebook), text_of(notebook)
    for exercise in unit.exercises:
        place = code.index(exercise.stub)
        assert code[place + 1] == call(exercise)
        assert exercise.solution not in code
        assert text.count(f"```python\n{exercise.solution}\n```") == 1
        assert not any(wrong.code in code for wrong in exercise.wrong)
    assert text.count("<details>") == text.count("</details>") == 3 * len(unit.exercises)
    assert "<details open" not in text
    assert not any(cell.get("outputs") for cell in notebook.cells)
    for folded in re.findall(r"<details>.*?</details>", text, re.DOTALL):
        text = text.replace(folded, "")
    assert "```python\n" not in text or not any(e.solution in text for e in unit.exercises)


@each_unit
def test_a_lecturer_finds_the_solutions_in_place_and_the_wrong_answers_folded(path):
    unit = unit_of(path)
    notebook = lecturer(unit)
    code, text = code_of(notebook), text_of(notebook)
    for exercise in unit.exercises:
        place = code.index(exercise.solution)
        assert code[place + 1] == call(exercise)
        assert exercise.stub not in code
        assert all(wrong.code in text and wrong.says in text for wrong in exercise.wrong)
    solved = {exercise.stub: exercise.solution for exercise in unit.exercises}
    assert [solved.get(cell, cell) for cell in code_of(student(unit))] == code
    nbformat.validate(notebook)


@each_unit
def test_no_cell_is_longer_than_a_screen(path):
    for edition in (student, lecturer):
        lines = {cell.source[:60]: lines_of(cell.source) for cell in edition(unit_of(path)).cells}
        assert {start: n for start, n in lines.items() if n > MOST_LINES} == {}


@each_unit
def test_no_line_of_code_is_cut_at_the_edge(path):
    for edition in (student, lecturer):
        lines = [line for cell in code_of(edition(unit_of(path))) for line in cell.splitlines()]
        assert [line for line in lines if len(line) > WIDEST] == []


@each_unit
def test_a_unit_says_what_it_is_for_what_it_needs_and_how_long_it_takes(path):
    unit = unit_of(path)
    head = unit.parts[0].text
    assert re.search(r"^\*\*Goals\.\*\* .+\n\n(- .+\n(  .+\n)*){3,}", head, re.MULTILINE)
    assert re.search(r"^\*\*Before\.\*\* .{20,}", head, re.MULTILINE)
    told = re.search(
        r"^\*\*Time\.\*\* (\d+) minutes, (\d+) of them for (\w+) exercises", head, re.M
    )
    assert told, "**Time.** 90 minutes, 45 of them for six exercises."
    minutes = sum(exercise.minutes for exercise in unit.exercises)
    assert (int(told[2]), NUMBERS.index(told[3]) + 6) == (minutes, len(unit.exercises))
    assert int(told[1]) > minutes
    places = [unit.prose.index(f"\n{part}\n") for part in PARTS]
    assert places == sorted(places)
    assert "arxiv.org/abs/" in unit.prose[places[-1] :] or "docs/" in unit.prose[places[-1] :]


@each_unit
def test_exercises_are_many_marked_and_tried_with_wrong_answers(path):
    unit = unit_of(path)
    assert len(unit.exercises) >= LEAST_EXERCISES
    for exercise in unit.exercises:
        assert 1 <= exercise.difficulty <= 3
        assert 1 <= exercise.importance <= 3
        assert exercise.minutes > 0
        assert len({wrong.code for wrong in exercise.wrong}) >= LEAST_WRONG
        assert len(set(exercise.hints)) == 2
    module = sys.modules.get(f"checks.unit_{unit.number}") or __import__(
        f"checks.unit_{unit.number}", fromlist=["_"]
    )
    assert set(exercises(module)) == {exercise.name for exercise in unit.exercises}


@each_unit
def test_exercises_stand_inside_the_build_up(path):
    """Code of the unit follows the exercises, and several sections hold one."""
    unit = unit_of(path)
    shown = "".join("E" if isinstance(part, Exercise) else part.kind[0] for part in unit.parts)
    assert len(re.findall("E+", shown)) >= 4
    assert shown.rindex("c") > shown.index("E")


def run_unit(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))
    started = time.process_time()
    found = list(trials(unit_of(path)))
    assert not [str(trial) for trial in found if not trial.passed]
    answers = [len(exercise.wrong) + 3 for exercise in unit_of(path).exercises]
    assert len(found) == sum(answers)
    assert time.process_time() - started < MOST_SECONDS


@pytest.mark.filterwarnings("error:.*a score can be perfect by chance")
@each_unit
def test_every_answer_gets_its_verdict(path, unchecked, monkeypatch, capsys):
    run_unit(path, monkeypatch)
    assert not capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.real
@pytest.mark.filterwarnings("ignore:The model's chat template puts a system prompt")
@each_unit
def test_the_same_on_a_real_model(path, one_smollm2, unchecked, monkeypatch):
    monkeypatch.setenv("STEERLENS_MODEL", "smollm2")
    monkeypatch.setattr(sys.modules[__name__], "MOST_SECONDS", 1200)
    run_unit(path, monkeypatch)


def test_saving_in_jupyterlab_writes_no_other_file(tmp_path):
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert "formats" not in settings["tool"].get("jupytext", {})
    (tmp_path / "pyproject.toml").write_text("", encoding="utf-8")
    files = sorted((ROOT / "notebooks").glob("*.ipynb"))
    for file in files:
        (tmp_path / file.name).write_bytes(file.read_bytes())
    saving = jupytext.TextFileContentsManager(root_dir=str(tmp_path))
    for file in files:
        saving.save(saving.get(file.name), file.name)
        assert (tmp_path / file.name).read_bytes() == file.read_bytes()
    assert {file.suffix for file in tmp_path.iterdir() if file.is_file()} == {".ipynb", ".toml"}


def test_the_solved_edition_stores_no_progress_bar_and_keeps_every_other_output():
    bar = {"application/vnd.jupyter.widget-view+json": {"model_id": "1"}, "text/plain": "67%|##"}
    kept = [{"text/plain": "1"}, {**bar, "text/html": "<p>the explorer</p>"}]
    printed = nbformat.v4.new_output("stream", text="Right.")
    shown = [nbformat.v4.new_output("display_data", data) for data in (bar, *kept)]
    cell = nbformat.v4.new_code_cell("", outputs=[printed, *shown])
    leave_out_bars(nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell("#"), cell]))
    assert cell.outputs == [printed, *shown[1:]]


def test_only_colab_installs(tmp_path, monkeypatch):
    unit, ran = unit_of(sources()[0]), []
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(subprocess, "run", lambda command, check: ran.append(command))
    names: dict[str, Any] = {}
    exec(setup(unit), names)
    assert not ran
    assert isinstance(names["check"], checks.Unit)
    monkeypatch.setitem(sys.modules, "google.colab", types.ModuleType("google.colab"))
    exec(setup(unit), names)
    assert [command[0] for command in ran] == ["git", sys.executable]
    assert ran[0][-1] == "course"
    assert ran[1][1:] == ["-m", "pip", "install", "-q", "./course"]
    assert "course/notebooks" in sys.path


SOURCE = """\
# %% [markdown]
# # Title
#
# Goals.

# %% exercise [markdown] name="one" difficulty=1 importance=1 minutes=5
# ### A task
#
# Do it.

# %% hint [markdown]
# First.

# %% hint [markdown]
# Second.

# %% stub
one = ...

# %% wrong says="sign"
one = -1

# %% solution
one = 1
"""


def test_a_source_is_read(tmp_path):
    (tmp_path / "07_made.py").write_text(SOURCE, encoding="utf-8")
    unit = read_unit(tmp_path / "07_made.py")
    (exercise,) = unit.exercises
    assert (unit.number, unit.name, unit.title) == ("07", "07_made", "Title")
    assert (exercise.number, exercise.name, exercise.title) == ("7.1", "one", "A task")
    assert exercise.hints == ("First.", "Second.")
    assert (exercise.wrong[0].says, exercise.wrong[0].code) == ("sign", "one = -1")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("# # Title\n#\n", "", "must begin with a cell of prose"),
        ("# %% hint [markdown]\n# First.\n", "", "must have two hints"),
        (' says="sign"', "", "lacks says="),
        (" minutes=5", "", "lacks minutes="),
        ("# %% stub", "# %% stubb", "called 'stubb'"),
        ("# %% exercise [markdown]", "# %% hint [markdown]", "stands before its exercise"),
    ],
)
def test_a_source_that_breaks_the_layout_is_refused(old, new, message, tmp_path):
    assert old in SOURCE
    (tmp_path / "07_made.py").write_text(SOURCE.replace(old, new, 1), encoding="utf-8")
    with pytest.raises(ValueError, match=message):
        read_unit(tmp_path / "07_made.py")
