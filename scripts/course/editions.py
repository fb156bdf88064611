"""The two editions of a unit: the student's, with stubs to fill, and the lecturer's, solved."""

import re
from collections.abc import Iterator

import nbformat
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook
from sources import Cell, Exercise, Unit

REPOSITORY = "steerlens/steerlens"
"""Where Colab finds the notebooks; nothing else asks for it."""
BADGE = "[![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)]({})"
SETUP = """\
# Makes the checks ready. On Colab it first installs steerlens; elsewhere it installs nothing.
import sys
from pathlib import Path

if "google.colab" in sys.modules and not Path("course").exists():
    import subprocess

    address = "https://github.com/{repository}"
    subprocess.run(["git", "clone", "-q", "--depth", "1", address, "course"], check=True)
    subprocess.run([sys.executable, "-m", "pip", "install", "-q", "./course"], check=True)
sys.path += ["course/notebooks", "../../notebooks"]

import checks

check = checks.Unit("{number}", globals())"""
END = """\
## Your points

Run the cell below. It lists the exercises of this unit, and which of your answers were right since
you started the kernel."""

Text = tuple[str, str]
"""("markdown" or "code", what stands in the cell)."""


def student(unit: Unit) -> nbformat.NotebookNode:
    """What a student opens: stubs, checks, and hints and solutions folded away. Not executed."""
    return _notebook(unit, _students_cells)


def lecturer(unit: Unit) -> nbformat.NotebookNode:
    """The same with the solutions in place, and what the checks say to wrong answers."""
    return _notebook(unit, _lecturers_cells)


def setup(unit: Unit) -> str:
    """The first cell of code of either edition."""
    return SETUP.format(repository=REPOSITORY, number=unit.number)


def call(exercise: Exercise) -> str:
    """The cell that checks an answer."""
    return f"check.{exercise.name}()"


def _students_cells(exercise: Exercise) -> Iterator[Text]:
    yield "markdown", _task(exercise)
    yield "code", exercise.stub
    yield "code", call(exercise)
    yield "markdown", _hints(exercise)
    yield "markdown", _folded("Solution", _python(exercise.solution))


def _lecturers_cells(exercise: Exercise) -> Iterator[Text]:
    yield "markdown", _task(exercise)
    yield "code", exercise.solution
    yield "code", call(exercise)
    yield "markdown", _hints(exercise)
    for number, wrong in enumerate(exercise.wrong, 1):
        told = f"{_python(wrong.code)}\n\nThe check says: “… {wrong.says} …”"
        yield "markdown", _folded(f"Wrong answer {number}", told)


def _task(exercise: Exercise) -> str:
    dots = {
        "Difficulty": "●" * exercise.difficulty + "○" * (3 - exercise.difficulty),
        "importance": "●" * exercise.importance + "○" * (3 - exercise.importance),
    }
    marks = " · ".join(f"{name} {shown}" for name, shown in dots.items())
    points = "1 point" if exercise.difficulty == 1 else f"{exercise.difficulty} points"
    head = f"### Exercise {exercise.number} · {exercise.title}"
    return f"{head}\n\n{marks} · {exercise.minutes} minutes · {points}\n\n{exercise.task}"


def _hints(exercise: Exercise) -> str:
    first, second = exercise.hints
    return f"{_folded('Hint 1', first)}\n\n{_folded('Hint 2', second)}"


def _folded(title: str, text: str) -> str:
    return f"<details>\n<summary>{title}</summary>\n\n{text}\n\n</details>"


def _python(code: str) -> str:
    return f"```python\n{code}\n```"


def _head(unit: Unit, first: str) -> str:
    address = f"https://colab.research.google.com/github/{REPOSITORY}/blob/main/notebooks"
    badge = BADGE.format(f"{address}/{unit.name}.ipynb")
    return f"# Unit {int(unit.number)} · {unit.title}\n\n{badge}\n\n{first}"


def _texts(unit: Unit, cells_of) -> Iterator[Text]:
    first, *rest = unit.parts
    yield "markdown", _head(unit, first.text)
    yield "code", setup(unit)
    for part in rest:
        if isinstance(part, Cell):
            yield part.kind, part.text
        else:
            yield from cells_of(part)
    yield "markdown", END
    each = "".join(f"\n    {one.name}={one.difficulty}," for one in unit.exercises)
    yield "code", f"check.points({each}\n)"


def _notebook(unit: Unit, cells_of) -> nbformat.NotebookNode:
    """The same source makes the same bytes: ids are counted, and nothing else is written down."""
    make = {"markdown": new_markdown_cell, "code": new_code_cell}
    cells = [
        make[kind](text, id=f"unit-{unit.number}-cell-{number}")
        for number, (kind, text) in enumerate(_texts(unit, cells_of), 1)
    ]
    kernel = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}
    metadata = {"kernelspec": kernel, "language_info": {"name": "python"}}
    return new_notebook(cells=cells, metadata=metadata)


def lines_of(text: str) -> int:
    """The lines of a cell that a reader sees: those that fold it away do not count."""
    unfolded = re.sub(r"</?details>|<summary>.*</summary>", "", text)
    return len(unfolded.strip().splitlines())
