"""Chat templates are programs that strangers wrote: what they may cost is bounded.

transformers runs them in jinja2's sandbox, which keeps them from files and from Python, and lets a
`range` have 100,000 numbers; but loops in loops multiply, and "a" * 10 ** 10 is one step.
"""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from types import FrameType
from typing import Any

MOST_STEPS = 300_000
"""Lines of a compiled template that one conversation may take; usual ones take some hundreds."""
LARGEST_NUMBER = 100_000
"""A whole number in a template is not larger, and there is one product of two at most."""
_kept_within: set[object] = set()
COMPILED = "<template>"


class TooLong(RuntimeError):
    """A template took more steps than any that writes a conversation."""


@contextmanager
def bounded(template: str, shape: object) -> Iterator[None]:
    """Run a template within its bounds; ValueError for one that could fill the machine.

    Steps are counted the first time that a template meets conversations of such a shape, as
    counting takes time. TooLong beyond `MOST_STEPS`.
    """
    require_small(template)
    known = (template, shape)
    if known in _kept_within:
        yield
        return
    before = sys.gettrace()
    sys.settrace(_counting(before))
    try:
        yield
    finally:
        sys.settrace(before)
    _kept_within.add(known)


def _counting(before: Any) -> Callable[..., Any]:
    left = MOST_STEPS

    def step(frame: FrameType, event: str, argument: Any) -> Any:
        nonlocal left
        left -= 1
        if left < 0:
            raise TooLong(f"it takes more than {MOST_STEPS} steps")
        return step

    def called(frame: FrameType, event: str, argument: Any) -> Any:
        if frame.f_code.co_filename == COMPILED:
            return step
        return before(frame, event, argument) if before is not None else None

    return called


@cache
def require_small(template: str) -> None:
    """Raise ValueError where a template computes numbers or texts without bound."""
    from jinja2 import TemplateSyntaxError, nodes
    from jinja2.ext import loopcontrols
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    try:
        tree = ImmutableSandboxedEnvironment(extensions=[loopcontrols]).parse(template)
    except (TemplateSyntaxError, RecursionError):
        return  # told, or understood, by transformers, which knows more tags
    numbers = [each.value for each in tree.find_all(nodes.Const) if type(each.value) is int]
    powers, products = list(tree.find_all(nodes.Pow)), list(tree.find_all(nodes.Mul))
    if powers or len(products) > 1 or any(abs(each) > LARGEST_NUMBER for each in numbers):
        raise ValueError(
            "The chat template computes with large numbers, which no conversation needs, and could "
            "fill the machine with them. Take another: steerlens.load(..., template=...)."
        )
