"""The checks of one unit, as a notebook calls them."""

import importlib
import inspect
from collections.abc import Callable
from types import ModuleType
from typing import Any

from checks.answers import require_answer, require_given
from checks.verdicts import NotYet

Names = dict[str, Any]


class Unit:
    """`check = Unit("02", globals())`, then `check.difference()` for the exercise of that name.

    A check is a function of `checks/unit_02.py` named like the exercise. Its parameters are looked
    up in the notebook: before the `*` the student's answers, after it what the notebook gives.
    """

    def __init__(self, number: str, names: Names) -> None:
        self._number, self._names = number, names
        self._module = importlib.import_module(f"checks.unit_{number}")
        self._right: set[str] = set()

    def __dir__(self) -> list[str]:
        return [*exercises(self._module), "points"]

    def __getattr__(self, name: str) -> Callable[[], None]:
        if name not in exercises(self._module):
            raise AttributeError(f"Unit {self._number} has no exercise {name!r}.")
        return lambda: self._said(name)

    def points(self, **each: int) -> None:
        """Print which of these exercises are right since the kernel was started, and the points."""
        for name, points in each.items():
            print(f"{'right' if name in self._right else 'not yet':<8} {name:<28} {points}")
        got = sum(points for name, points in each.items() if name in self._right)
        print(f"{got} of {sum(each.values())} points")

    def verdict(self, name: str, names: Names | None = None) -> tuple[bool, str]:
        """Whether the answer in these names is right, and what is said of it."""
        try:
            return True, f"Right. {self._checked(name, names or self._names)}".strip()
        except NotYet as reason:
            return False, str(reason)

    def _said(self, name: str) -> None:
        self._right.discard(name)
        said = self._checked(name, self._names)
        self._right.add(name)
        print(f"Right. {said}".strip())

    def _checked(self, name: str, names: Names) -> str:
        """What the check says of a right answer; `NotYet` for any other, whatever goes wrong."""
        check = getattr(self._module, name)
        answers, given = {}, {}
        for parameter in inspect.signature(check).parameters.values():
            if parameter.kind is parameter.KEYWORD_ONLY:
                given[parameter.name] = require_given(parameter.name, names)
            else:
                answers[parameter.name] = require_answer(parameter.name, names)
        try:
            return check(**answers, **given) or ""
        except NotYet:
            raise
        except Exception as error:
            raise NotYet(
                f"the check could make nothing of it ({type(error).__name__}: {error}).",
                "Is it of the kind that the task asks for? Compare with the docstring of the stub.",
            ) from error


def exercises(module: ModuleType) -> list[str]:
    """The names of a unit's checks: the public functions that its file defines."""
    defined = vars(module).items()
    ours = [name for name, it in defined if getattr(it, "__module__", "") == module.__name__]
    return [name for name in ours if inspect.isfunction(vars(module)[name]) and name[0] != "_"]
