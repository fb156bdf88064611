"""Work for half an hour, and see that neither memory nor open files grow: `make soak`.

Each round fits, saves, loads, generates, streams and measures on the demonstration model. The first
quarter is warming up; then the most memory of the last quarter is held against that of the
second, and the open files against those at its end. Needs Linux, where both stand in /proc.
"""

import gc
import os
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import steerlens as sl
from steerlens import analysis

MAY_GROW = 24.0
"""MB by which memory may be larger at the end: that of the largest round, which comes and goes."""


def megabytes() -> float:
    """What this process has in memory now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def handles() -> int:
    """How many files and sockets this process has open."""
    return len(os.listdir("/proc/self/fd"))


def one_round(model: Any, folder: Path, number: int) -> None:
    """A little of everything that a server, or a night of fits, does."""
    sides = [f"I loved it {number}", "Superb."], [f"I hated it {number}", "Awful."]
    path = folder / f"{number % 4}.safetensors"
    sl.CAA.fit(model, sides, 2).steering.save(path, model)
    steering = sl.load_steering(path, model)
    sl.generate(model, [f"Hello {number}"], steering, n=4, max_new_tokens=12, seed=number)
    for _ in sl.stream(model, "Hello", steering, max_new_tokens=8, seed=number):
        pass
    asked = [f"Review film {number + i}." for i in range(3)]
    pairs = [sl.PromptPair.with_system(one, "Be positive.", " Superb!") for one in asked]
    analysis.faithfulness(model, pairs, {"CAA": steering}, n_bootstrap=50)
    analysis.coefficients(model, pairs, [2, 3], {"CAA": steering})
    analysis.least_squares_strength(model, steering, pairs)
    once = sl.Schedule(epochs=1)
    checkpoint = folder / "checkpoint"
    sl.PSR.fit(model, pairs, 2, schedule=once, checkpoint=checkpoint)
    checkpoint.unlink(missing_ok=True)


def main() -> None:
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 1800.0
    warnings.simplefilter("ignore", sl.SteeringWarning)
    model, start, seen = sl.load("demo"), time.monotonic(), list[tuple[float, float, int]]()
    with tempfile.TemporaryDirectory() as folder:
        number, told = 0, 0.0
        while (passed := time.monotonic() - start) < seconds:
            one_round(model, Path(folder), number)
            number += 1
            gc.collect()
            seen.append((passed / seconds, megabytes(), handles()))
            if passed >= told:
                print(f"{passed:7.0f} s  {seen[-1][1]:7.0f} MB  {handles()} open files", flush=True)
                told += seconds / 12
        left = [file.name for file in Path(folder).iterdir() if file.name.startswith(".")]
    second = [row for row in seen if 0.25 <= row[0] < 0.5] or seen[:1]
    last = [row for row in seen if row[0] >= 0.75] or seen[-1:]
    grown = max(row[1] for row in last) - max(row[1] for row in second)
    opened = max(row[2] for row in last) - second[-1][2]
    hooks = sum(len(point.fwd_hooks) for point in model.hook_dict.values())
    print(
        f"{number} rounds: {grown:+.1f} MB, {opened:+d} open files, {hooks} hooks, drafts: {left}"
    )
    if grown > MAY_GROW or opened > 0 or hooks or left:
        sys.exit("Something is not given back.")


if __name__ == "__main__":
    main()
