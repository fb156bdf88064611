"""CPU seconds of tasks that take turns, so that a drifting machine slows them alike."""

import gc
import os
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

Task = Callable[[], object]
Seconds = dict[str, list[float]]

STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def cpu_seconds(task: Task) -> float:
    """CPU time of one call, of all threads of this process."""
    start = time.process_time()
    task()
    return time.process_time() - start


def interleaved(tasks: Mapping[str, Task], repeats: int) -> Seconds:
    """`repeats` timings of each task: A B C, C B A, A B C, ... after one round to warm up."""
    names = list(tasks)
    for name in names:
        tasks[name]()
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


def peak_growth(task: Task) -> float | None:
    """MiB by which one call raises the peak of resident memory; None where Linux does not tell."""
    gc.collect()
    try:
        CLEAR.write_text("5")
        before = _status("VmRSS")
        task()
        return _status("VmHWM") - before
    except OSError:
        return None


def _status(key: str) -> float:
    lines = STATUS.read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(key + ":"))


def load_average() -> float | None:
    """How many processes wanted a core in the last minute, this one included."""
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else None


def versions(*packages: str) -> dict[str, Any]:
    """The installed version of each package."""
    from importlib.metadata import version

    return {package: version(package) for package in packages}
