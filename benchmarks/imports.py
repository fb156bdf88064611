"""What an import costs and what it loads, each in a fresh process."""

import json
import os
import subprocess
import sys
import time
from typing import Any

from benchmarks.jobs import ROOT, Job, Row
from benchmarks.timing import versions

BASE = "import transformer_lens"
LIGHT = "import steerlens"
WORK = "import steerlens.generation, steerlens.methods"
BOTH = "import transformer_lens, steerlens.generation, steerlens.methods"
ALL = "from steerlens import *"
STATEMENTS = (BASE, LIGHT, WORK, BOTH, ALL)
HELP = "from steerlens.cli import main; main(['--help'])"
UNWANTED = ("pandas", "plotly", "sklearn")
AT_EXIT = (
    "import atexit, json, sys, time\n"
    "atexit.register(lambda: print('\\n' + json.dumps([time.process_time(), "
    f"[name for name in {UNWANTED!r} if name in sys.modules]])))\n"
)


def measure(job: Job) -> dict[str, Any]:
    """CPU seconds of processes that import and end; seven of each by default."""
    cpu: dict[str, list[float]] = {name: [] for name in (*STATEMENTS, HELP)}
    wall: dict[str, list[float]] = {name: [] for name in cpu}
    loaded = {name: fresh(name)[2] for name in cpu}  # also writes bytecode, and warms the disk
    for repeat in range(job.repeats):
        for name in cpu if repeat % 2 == 0 else reversed(list(cpu)):
            spent, waited, _ = fresh(name)
            cpu[name].append(spent)
            wall[name].append(waited)
    return {
        "rows": [Row(name, cpu[name], above(cpu, name), BASE) for name in STATEMENTS],
        "help": {"cpu": cpu[HELP], "wall": wall[HELP]},
        "loaded": loaded,
        "own": sorted({name for s in (WORK, BOTH, ALL) for name in loaded[s]} - set(loaded[BASE])),
        "versions": versions("torch", "transformers", "transformer-lens"),
    }


def above(cpu: dict[str, list[float]], name: str) -> list[float]:
    """Seconds more than the baseline, repeat by repeat."""
    return [mine - base for mine, base in zip(cpu[name], cpu[BASE], strict=True)]


def fresh(statement: str) -> tuple[float, float, list[str]]:
    """CPU and wall seconds of a new Python that runs `statement`, and which unwanted it loaded."""
    # Installed packages come with bytecode, so ours may write its own.
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    start = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", AT_EXIT + statement],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    waited = time.perf_counter() - start
    spent, unwanted = json.loads(done.stdout.splitlines()[-1])
    return spent, waited, unwanted
