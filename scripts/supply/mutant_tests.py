"""The tests that a mutant has to pass: which of them meet its line, and running them in a child.

Limits count seconds of the processor, not of the clock: a busy machine makes nothing fail.
"""

import inspect
import json
import os
import resource
import signal
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import astuple, dataclass
from hashlib import sha256
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

SLOW, MOST = 4.0, 12.0
"""Seconds of a test that is left out where faster ones meet the line, and of all of a mutant's."""
AT_LEAST, TIMES = 20, 4
"""A mutant is stopped after `TIMES` the seconds that its tests take without it, and these more."""
WHOLE = 900
"""Seconds for all tests of a file without a mutant, each of them watched."""
OPTIONS = (
    *("-q", "-p", "no:xdist", "-p", "no:cacheprovider", "-m", "not slow"),
    # What checks shapes at every call takes most of the time, and is no test of a formula.
    *("-o", "addopts="),
    # Plugins of what this process has imported already; warnings are errors in these tests.
    *("-W", "ignore::pytest.PytestAssertRewriteWarning"),
)


@dataclass(frozen=True)
class OneTest:
    """A test as it is without a mutant: its seconds, the lines that it meets, a digest of it."""

    name: str
    seconds: float
    lines: tuple[int, ...]
    text: str

    def meets(self, lines: range) -> bool:
        """Whether it runs one of them."""
        return any(line in lines for line in self.lines)


@dataclass(frozen=True)
class Ended:
    """How a child ended: its exit code, negative for a signal; its seconds; what it told."""

    code: int
    seconds: float
    told: list[Any]


class Watching:
    """For each test: the lines of one file that it meets, and its seconds; and which fail.

    Of tests that run on several models, those on the first: a formula is the same on all.
    """

    def __init__(self, place: Path) -> None:
        self.place, self.met = str(place), set[int]()
        self.found, self.failed = list[OneTest](), set[str]()

    def step(self, frame: FrameType, event: str, _: Any) -> Any:
        self.met.add(frame.f_lineno)
        return self.step

    def called(self, frame: FrameType, event: str, _: Any) -> Any:
        return self.step(frame, event, _) if frame.f_code.co_filename == self.place else None

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: Any) -> Any:
        self.met.clear()
        start = time.process_time()
        sys.settrace(self.called)
        try:
            return (yield)
        finally:
            sys.settrace(None)
            took, lines = time.process_time() - start, tuple(sorted(self.met))
            self.found.append(
                OneTest(item.nodeid, took, lines, digest(inspect.getsource(item.obj)))
            )

    def pytest_collection_modifyitems(self, items: list[Any]) -> None:
        models, kept = dict[str, str](), list[Any]()
        for item in items:
            model = str(getattr(item, "callspec", None) and item.callspec.params.get("kind"))
            if models.setdefault(item.nodeid.partition("[")[0], model) == model:
                kept.append(item)
        items[:] = kept

    def pytest_runtest_logreport(self, report: Any) -> None:
        if report.outcome != "passed":
            self.failed.add(report.nodeid)

    def told(self) -> list[Any]:
        """The tests that passed, and the names of the others, as JSON allows."""
        passed = [astuple(test) for test in self.found if test.name not in self.failed]
        return [passed, sorted(self.failed)]


class First:
    """The first test that fails."""

    name: str | None = None

    def pytest_runtest_logreport(self, report: Any) -> None:
        if report.failed and self.name is None:
            self.name = report.nodeid


def digest(text: str) -> str:
    """What changes with a text."""
    return sha256(text.encode()).hexdigest()[:16]


def in_child(folder: Path, seconds: float, work: Callable[[], tuple[int, list[Any]]]) -> Ended:
    """Do `work` in a child of this process, in a folder; it returns an exit code and what to tell.

    The child ends by a signal after so many seconds of work, or sixty times as many by the clock.
    """
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        os.chdir(folder)
        sys.path.insert(0, str(folder))
        silent = os.open(os.devnull, os.O_WRONLY)
        os.dup2(silent, 1)
        os.dup2(silent, 2)
        resource.setrlimit(resource.RLIMIT_CPU, (int(seconds) + 1, resource.RLIM_INFINITY))
        signal.alarm(60 * (int(seconds) + 1))
        try:
            code, told = work()
        except BaseException as error:
            code, told = 3, [f"{type(error).__name__}: {error}"]
        with os.fdopen(writing, "w") as pipe:
            json.dump(told, pipe)
        os._exit(code)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        text = pipe.read()
    _, status, used = os.wait4(child, 0)
    code = os.waitstatus_to_exitcode(status)
    if code == 3:
        raise RuntimeError(f"The tests could not be run: {json.loads(text)[0]}")
    return Ended(code, used.ru_utime + used.ru_stime, json.loads(text) if code >= 0 else [])


def watched(copied: Path, file: str, tests: Sequence[str]) -> Ended:
    """All tests of a file without a mutant; `told` is that of `Watching`."""

    def work() -> tuple[int, list[Any]]:
        watching = Watching(copied / file)
        pytest.main([*OPTIONS, *(f"tests/{name}" for name in tests)], plugins=[watching])
        return 0, watching.told()

    return in_child(copied, WHOLE, work)


def chosen(tests: Sequence[OneTest], line: range, around: range) -> list[OneTest]:
    """Those that meet a line or, where none does, its function: the fastest first, to a limit."""
    meeting = [test for test in tests if test.meets(line)]
    meeting = meeting or [test for test in tests if test.meets(around)]
    ordered = sorted(meeting, key=lambda test: test.seconds)
    kept, total = list[OneTest](), 0.0
    for test in [test for test in ordered if test.seconds <= SLOW] or ordered[:1]:
        total += test.seconds
        if kept and total > MOST:
            break
        kept.append(test)
    return kept


def limit(tests: Sequence[OneTest]) -> float:
    """The seconds that a mutant may take for its tests."""
    return AT_LEAST + TIMES * sum(test.seconds for test in tests)


def tried(copied: Path, tests: Sequence[OneTest]) -> Ended:
    """Run them until one fails: code 1, and its name is told; 0 where all pass."""

    def work() -> tuple[int, list[Any]]:
        first = First()
        code = pytest.main([*OPTIONS, "-x", *(test.name for test in tests)], plugins=[first])
        return int(code != 0), [first.name]

    return in_child(copied, limit(tests), work)
