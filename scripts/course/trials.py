"""Try every answer of a unit in this process: nothing, the stub, each wrong answer, the solution.

    python scripts/course/trials.py 02

runs the unit from top to bottom, solved, and prints what each check says to each answer: this is
how an author looks at hints. tests/test_course.py does the same and compares.
"""

import ast
import linecache
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from types import CodeType
from typing import Any

from editions import setup
from sources import ROOT, Exercise, Unit, read_unit, sources

Names = dict[str, Any]


@dataclass(frozen=True)
class Trial:
    """One answer to an exercise: what the check should say of it, and what it says."""

    exercise: str
    answer: str
    right: bool
    says: str
    was_right: bool
    said: str

    @property
    def passed(self) -> bool:
        return self.right == self.was_right and self.says in self.said

    def __str__(self) -> str:
        asked = "right" if self.right else f"not yet, with the words {self.says!r}"
        return f"{self.exercise}, {self.answer}: {asked}; the check said: {self.said}"


def trials(unit: Unit) -> Iterator[Trial]:
    """Run a unit as a solver would, and try all answers on the way."""
    names: Names = {"__name__": "__main__"}
    run(setup(unit), names, "setup")
    for part in unit.parts:
        if isinstance(part, Exercise):
            yield from _answers(part, names)
        elif part.kind == "code":
            run(part.text, names, unit.name)


def _answers(exercise: Exercise, names: Names) -> Iterator[Trial]:
    def tried(answer: str, code: str, says: str, names: Names, right: bool = False) -> Trial:
        run(code, names, f"{exercise.name}, {answer}")
        was_right, said = names["check"].verdict(exercise.name, names)
        label = f"{exercise.number} {exercise.name}"
        return Trial(label, answer, right, says, was_right, said)

    yield tried("no answer", "", "There is no `", dict(names))
    yield tried("stub", exercise.stub, "still", dict(names))
    for number, wrong in enumerate(exercise.wrong, 1):
        yield tried(f"wrong answer {number}", wrong.code, wrong.says, dict(names))
    yield tried("solution", exercise.solution, "", names, right=True)


def run(code: str, names: Names, label: str) -> None:
    """Execute a cell, and show its last value as a notebook would, to nobody.

    As in a notebook, its lines can be found again, so that a check can name the one that failed.
    """
    tree = ast.parse(code)
    linecache.cache[f"<{label}>"] = len(code), None, code.splitlines(keepends=True), f"<{label}>"
    last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
    exec(_compiled(tree, label), names)
    if last is not None:
        value = eval(_compiled(ast.Expression(last.value), label), names)
        for method in ("_repr_mimebundle_", "_repr_html_", "__repr__"):
            if hasattr(value, method) and not isinstance(value, type):
                getattr(value, method)()


def _compiled(tree: ast.Module | ast.Expression, label: str) -> CodeType:
    mode = "eval" if isinstance(tree, ast.Expression) else "exec"
    return compile(tree, f"<{label}>", mode)


def main() -> None:
    sys.path.insert(0, str(ROOT / "notebooks"))
    started, failed = time.perf_counter(), 0
    for unit in [read_unit(path) for path in sources() if path.name[:2] in sys.argv[1:]]:
        for trial in trials(unit):
            failed += not trial.passed
            print(f"{'ok  ' if trial.passed else 'FAIL'} {trial}", flush=True)
    print(f"{failed} failed, {time.perf_counter() - started:.0f} s")
    sys.exit(failed > 0)


if __name__ == "__main__":
    main()
