"""One measurement in a process of its own: what goes in, what comes out."""

import importlib
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks import timing

ROOT = Path(__file__).parent.parent
ANSWER = "ANSWER "
# Nothing may reach for the network or draw progress bars, and one thread does all the work.
QUIET = {
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "HF_HUB_OFFLINE": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "TQDM_DISABLE": "1",
    "CUDA_VISIBLE_DEVICES": "",
    "PYTHONWARNINGS": "ignore",
}


@dataclass(frozen=True)
class Job:
    """What to measure, on which model, how often, and the Python that has the libraries."""

    benchmark: str
    model: str = ""
    backend: str = ""
    repeats: int = 5
    cache: str = ""
    python: str = sys.executable

    @property
    def name(self) -> str:
        """What the job is called in messages and among the results."""
        return " ".join(part for part in (self.benchmark, self.model, self.backend) if part)


@dataclass(frozen=True)
class Row:
    """One timed task: CPU seconds of each repeat, and over which baseline to show them."""

    what: str
    seconds: list[float]
    ratios: list[float]
    baseline: str


def compared(tasks: Mapping[str, timing.Task], repeats: int) -> list[Row]:
    """One row a task, each over the same repeat of the first; all must have run once before."""
    taken, baseline = timing.interleaved(tasks, repeats), next(iter(tasks))
    return [
        Row(name, seconds, timing.ratios(taken, name, baseline), baseline)
        for name, seconds in taken.items()
    ]


def run(job: Job) -> dict[str, Any]:
    """The answer of a fresh process; RuntimeError with its last words if it fails."""
    command = [job.python, "-m", "benchmarks.jobs", json.dumps(asdict(job))]
    done = subprocess.run(
        command, cwd=ROOT, env=os.environ | QUIET, capture_output=True, text=True, check=False
    )
    answers = [line for line in done.stdout.splitlines() if line.startswith(ANSWER)]
    if done.returncode or not answers:
        raise RuntimeError(f"{job.name} failed:\n{done.stderr[-2000:]}")
    return json.loads(answers[-1].removeprefix(ANSWER))


def answer(job: Job) -> dict[str, Any]:
    """The measurement itself, in this process: `measure` of the module the job is named after."""
    if job.backend == "hooked" and not _has_hooked_transformer():
        return {"skipped": "no HookedTransformer here", "load": [None, None]}
    before = timing.load_average()
    found = importlib.import_module(f"benchmarks.{job.benchmark}").measure(job)
    return {**found, "load": [before, timing.load_average()], "repeats": job.repeats}


def _has_hooked_transformer() -> bool:
    from steerlens.models import has_hooked_transformer

    return has_hooked_transformer()


if __name__ == "__main__":
    print(ANSWER + json.dumps(answer(Job(**json.loads(sys.argv[1]))), default=asdict))
