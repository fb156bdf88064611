"""Read the source of a unit: prose, exercises with their answers, hints and wrong answers.

The layout is described in CONTRIBUTING.md, "The course". A source that breaks it is a ValueError
that says which cell, and what to do.
"""

import re
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import jupytext

ROOT = Path(__file__).resolve().parents[2]
SOURCES = ROOT / "notebooks" / "source"
ROLES = ("exercise", "hint", "stub", "wrong", "solution")
"""What a cell of an exercise can be; its title says so, as in `# %% stub`."""
MARKS = ("difficulty", "importance", "minutes")


@dataclass(frozen=True)
class Cell:
    """A cell of the source: "markdown" or "code", its text, and what its first line says of it."""

    kind: str
    text: str
    role: str = ""
    said: tuple[tuple[str, Any], ...] = ()

    def __getitem__(self, key: str) -> Any:
        found = dict(self.said)
        if key not in found:
            raise ValueError(f"This cell lacks {key}=...: # %% {self.role} ...\n{self.text}")
        return found[key]


@dataclass(frozen=True)
class Wrong:
    """A wrong answer, and words of the hint that the check must give for it."""

    code: str
    says: str


@dataclass(frozen=True)
class Exercise:
    """One exercise; `name` is that of its check, `number` is as in "2.3"."""

    number: str
    name: str
    title: str
    task: str
    hints: tuple[str, ...]
    stub: str
    wrong: tuple[Wrong, ...]
    solution: str
    difficulty: int
    importance: int
    minutes: int


@dataclass(frozen=True)
class Unit:
    """A unit: its number as in "02", the name of its file, its title and its parts in order."""

    number: str
    name: str
    title: str
    parts: tuple[Cell | Exercise, ...]

    @property
    def exercises(self) -> tuple[Exercise, ...]:
        return tuple(part for part in self.parts if isinstance(part, Exercise))

    @property
    def prose(self) -> str:
        """All of the text, without that of the exercises."""
        cells = [part for part in self.parts if isinstance(part, Cell)]
        return "\n\n".join(cell.text for cell in cells if cell.kind == "markdown")


def sources() -> list[Path]:
    """The source of every unit, in order."""
    return sorted(SOURCES.glob("[0-9][0-9]_*.py"))


def read_unit(path: Path) -> Unit:
    """The unit in a file; ValueError where it breaks the layout."""
    number, cells = path.name[:2], [_cell(cell) for cell in jupytext.read(path).cells]
    first = re.fullmatch(r"# (.+?)\n(.+)", cells[0].text if cells else "", re.DOTALL)
    if first is None:
        raise ValueError(
            f"{path.name} must begin with a cell of prose: a line '# Title', then more."
        )
    parts: list[Cell | Exercise] = [Cell("markdown", first[2].strip())]
    count = 0
    for in_exercise, group in groupby(cells[1:], key=lambda cell: bool(cell.role)):
        if not in_exercise:
            parts += group
            continue
        for one in _each_exercise(list(group)):
            count += 1
            parts.append(_exercise(f"{int(number)}.{count}", one))
    return Unit(number, path.stem, first[1], tuple(parts))


def _cell(cell: Any) -> Cell:
    said = dict(cell.metadata)
    role = said.pop("title", "")
    if role not in ("", *ROLES):
        raise ValueError(f"A cell is called {role!r}; it can be one of {', '.join(ROLES)}.")
    return Cell(cell.cell_type, cell.source, role, tuple(sorted(said.items())))


def _each_exercise(cells: list[Cell]) -> list[list[Cell]]:
    """The cells of several exercises that follow one another, exercise by exercise."""
    starts = [place for place, cell in enumerate(cells) if cell.role == "exercise"]
    if starts[:1] != [0]:
        raise ValueError(f"A {cells[0].role} stands before its exercise:\n{cells[0].text}")
    return [cells[a:b] for a, b in zip(starts, [*starts[1:], len(cells)], strict=True)]


def _exercise(number: str, cells: list[Cell]) -> Exercise:
    task, *rest = cells
    roles = [cell.role for cell in rest]
    wanted = ["hint", "hint", "stub", *["wrong"] * roles.count("wrong"), "solution"]
    if roles != wanted:
        raise ValueError(
            f"Exercise {task['name']} must have two hints, a stub, its wrong answers and the "
            f"solution, in this order; found {', '.join(roles)}."
        )
    title, _, text = task.text.partition("\n")
    return Exercise(
        number=number,
        name=task["name"],
        title=title.lstrip("# "),
        task=text.strip(),
        hints=(rest[0].text, rest[1].text),
        stub=rest[2].text,
        wrong=tuple(Wrong(cell.text, cell["says"]) for cell in rest if cell.role == "wrong"),
        solution=rest[-1].text,
        **{mark: int(task[mark]) for mark in MARKS},
    )
