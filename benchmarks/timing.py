"""CPU seconds of tasks that take turns, so that a drifting machine slows them alike."""

import gc
import os
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

Task = Callable[[], object]
Seconds = dict[str, list[float]]


def cpu_seconds(task: Task) -> float:
    """CPU time of one call, of all threads of this process."""
    start = time.process_time()
    task()
    return time.process_time() - start


def interleaved(tasks: Mapping[str, Task], repeats: int) -> Seconds:
    """`repeats` timings of each task, taking turns: A B C, C B A, A B C, ...

    Each should have run before: a first call also pays for what later ones find ready.
    """
    names = list(tasks)
    taken: Seconds = {name: [] for name in names}
    for repeat in range(repeats):
        for name in names if repeat % 2 == 0 else reversed(names):
            gc.collect()
            taken[name].append(cpu_seconds(tasks[name]))
    return taken


def ratios(taken: Seconds, name: str, baseline: str) -> list[float]:
    """`name` over `baseline`, repeat by repeat."""
    return [mine / theirs for mine, theirs in zip(taken[name], taken[baseline], strict=True)]


def spread(values: Sequence[float]) -> tuple[float, float, float]:
    """Median, smallest and largest."""
    return statistics.median(values), min(values), max(values)


def load_average() -> float | None:
    """How many processes wanted a core in the last minute, this one included."""
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else None


def versions(*packages: str) -> dict[str, Any]:
    """The installed version of each package."""
    from importlib.metadata import version

    return {package: version(package) for package in packages}
