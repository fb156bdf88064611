"""Call what a student wrote, and say in words what went wrong in it."""

import dis
import linecache
import re
import traceback
from collections.abc import Callable
from itertools import pairwise
from types import CodeType, FunctionType
from typing import Any

from torch import Tensor

from checks.arguments import copied, is_as_before, named, put_back
from checks.verdicts import NotYet

DOES_NOTHING = {
    *("RESUME", "NOP", "LOAD_CONST", "RETURN_VALUE", "RETURN_CONST"),
    *("COPY_FREE_VARS", "MAKE_CELL"),
}
"""The steps of a function without a line in it, on Python 3.10 to 3.13."""
THE_RETURN = (
    "A function gives back what stands after `return`. Is that line missing, or indented too far?"
)
GIVES_NONE = "Either no `return` was reached, or what stands after it is None: print it."
A_COPY = (
    "Other code may still hold it. Make a copy first (`.clone()` of a tensor) and write into the copy, "
    "or make something new: `a + b` in place of `a += b`."
)

DO_NOT_FIT = re.compile(
    r"must match the size|broadcast|is out of bounds|Dimension out of range|shapes cannot be mul"
    r"|size mismatch|shape of the mask|Sizes of tensors must match|to be equal size|Incompatible shapes"
)
WRONG_AXIS = (
    "The shapes do not fit together, which is often a wrong axis: print the shapes of both sides, and "
    "think of `keepdim=True`, of `[..., None]`, and of the axis that comes first."
)
TOO_SHORT = "The list is shorter than that. Can it be empty? Counting begins at 0."


def require_answer(name: str, names: dict[str, Any]) -> Any:
    """The student's `name`; `NotYet` where it is missing or as it was handed out."""
    if name not in names:
        raise NotYet(
            f"There is no `{name}`.",
            "Write your answer into the cell above, and run that cell (Shift+Enter) before this one.",
        )
    answer = names[name]
    if answer is ...:
        raise NotYet(f"`{name}` is still `...`.", "Put your answer in place of the dots.")
    if answer is None:
        raise NotYet(f"`{name}` is None.", "Some functions change things and give nothing back.")
    require_touched(f"`{name}`", answer)
    return answer


def require_touched(name: str, answer: Any) -> None:
    """`NotYet` where a function is a stub."""
    if is_untouched(answer):
        raise NotYet(
            f"{name} is still as it was given: there is nothing in it.",
            "Put your lines in place of the dots, and run the cell. Stuck? Open hint 1 below.",
        )


def require_given(name: str, names: dict[str, Any]) -> Any:
    """A name that the notebook itself defines; `NotYet` where its cell was not run."""
    if name not in names:
        raise NotYet(
            f"the notebook's own `{name}` is not there.",
            "Run the cells above first: in the menu, Run > Run All Above Selected Cell.",
        )
    return names[name]


def called(
    function: Any, *given: Any, name: str = "", if_none: str = GIVES_NONE, **options: Any
) -> Any:
    """What the student's function gives back; `NotYet` where it stops, or writes into its arguments.

    `if_none` is the hint where it gives back None by a `return` of its own.
    """
    name = name or f"`{getattr(function, '__name__', 'the answer')}`"
    if not callable(function):
        raise NotYet(f"{name} should be a function; found {described(function)}.")
    before = copied(given)
    try:
        got = function(*given, **options)
    except NotYet:
        raise
    except Exception as error:
        raise NotYet(*_stopped(name, function, error)) from error
    for value, kept in zip(given, before, strict=True):
        if not is_as_before(value, kept):
            put_back(value, kept)
            raise NotYet(f"{name} wrote into {named(value)}.", A_COPY)
    if got is None:
        require_touched(name, function)
        if _returns_something(function):
            raise NotYet(f"{name} returns None.", if_none)
        raise NotYet(f"{name} returns nothing.", THE_RETURN)
    if got is ...:
        raise NotYet(f"{name} still returns `...`.", "Put your answer in place of the dots.")
    return got


def is_untouched(function: Any) -> bool:
    """Whether a function consists of a docstring and dots, as stubs do."""
    if not isinstance(function, FunctionType):
        return False
    return _is_empty(function.__code__)


def described(value: Any) -> str:
    """A value in a few words: tensors by shape, others by kind."""
    if value is None:
        return "None"
    if isinstance(value, Tensor):
        return f"a tensor of shape {list(value.shape)}"
    if hasattr(value, "shape"):
        return f"an array of shape {list(value.shape)}"
    if callable(value) and hasattr(value, "__name__"):
        return f"the {'class' if isinstance(value, type) else 'function'} `{value.__name__}`"
    text = repr(value)
    kind = type(value).__name__
    return f"{kind} {text}" if len(text) < 60 and not callable(value) else with_article(kind)


def with_article(kind: str) -> str:
    """A kind with its article: "a list", "an int"."""
    return f"{'an' if kind[0] in 'aeioAEIOU' else 'a'} {kind}"


def _is_empty(code: CodeType) -> bool:
    steps = list(dis.get_instructions(code))
    return all(step.opname in DOES_NOTHING for step in steps) and all(
        step.argval is None for step in steps if step.opname in ("LOAD_CONST", "RETURN_CONST")
    )


def _code_of(function: Any) -> CodeType | None:
    """What a function, or an object that can be called, runs; None where that is not Python."""
    if not isinstance(function, FunctionType):
        function = type(function).__call__ if callable(function) else None
    return getattr(function, "__code__", None)


def _has_a_hole(function: Any) -> bool:
    """Whether `name = ...` is left in the function."""
    code = _code_of(function)
    if code is None:
        return False
    steps = list(dis.get_instructions(code))
    return any(a.argval is ... and b.opname.startswith("STORE") for a, b in pairwise(steps))


def _returns_something(function: Any) -> bool:
    """Whether there is a `return` with something behind it."""
    code = _code_of(function)
    steps = list(dis.get_instructions(code)) if code else []
    return any(
        b.opname == "RETURN_VALUE" and not (a.opname == "LOAD_CONST" and a.argval is None)
        for a, b in pairwise(steps)
    )


def _stopped(name: str, function: Callable, error: Exception) -> tuple[str, str]:
    """Why a student's function raised, and in which line of theirs."""
    if _has_a_hole(function):
        return f"there is still a `...` in {name}.", "Put your answer in place of the dots."
    if isinstance(error, NotImplementedError) and not str(error):
        return f"{name} still says that it is not implemented.", "Delete that line."
    line = _line_of(function, error)
    at = f" It stopped at: `{line}`" if line else ""
    if isinstance(error, NameError):
        return f"{name} uses a name that does not exist: {error}.", f"Is it misspelt?{at}"
    if isinstance(error, TypeError) and "argument" in str(error) and not line:
        return f"{name} does not take what it should take: {error}.", "Keep the line with `def`."
    hint = WRONG_AXIS if DO_NOT_FIT.search(str(error)) else ""
    hint = TOO_SHORT if "list index out of range" in str(error) else hint
    return f"{name} stopped with {type(error).__name__}: {_short(error)}.", f"{hint}{at}".strip()


def _line_of(function: Callable, error: Exception) -> str:
    """The last line of the student's own code that was running."""
    code = _code_of(function)
    file = code.co_filename if code else ""
    frames = [
        frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename == file
    ]
    return linecache.getline(file, frames[-1].lineno or 0).strip() if frames else ""


def _short(error: Exception, most: int = 200) -> str:
    text = " ".join(str(error).split()).rstrip(".")
    return text if len(text) <= most else f"{text[:most]} …"
