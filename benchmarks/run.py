"""Every benchmark, one process each, and the page of tables that they make."""

import argparse
import json
import platform
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict
from datetime import date
from pathlib import Path
from typing import Any

from benchmarks import peers, report
from benchmarks.jobs import ROOT, Job, run
from benchmarks.models import MODELS, default_cache, source, texts
from steerlens.whole import write_whole

PAGE = ROOT / "docs" / "benchmarks.md"
BENCHMARKS = (
    "imports", "capture", "generation", "fitting", "fitting_clas", "sweep", "directions", "cold",
)  # fmt: skip
BACKENDS = ("bridge", "hooked")


def parsed() -> argparse.Namespace:
    """The options of the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.run", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="two repeats on `small`, no page")
    parser.add_argument("--models", nargs="+", choices=["demo", *MODELS], help="gpt2s demo")
    parser.add_argument("--only", nargs="+", choices=BENCHMARKS, default=BENCHMARKS)
    parser.add_argument("--backends", nargs="+", choices=BACKENDS, default=BACKENDS)
    parser.add_argument("--repeats", type=int, help="default: 5, imports 7, HookedTransformer 3")
    parser.add_argument("--cache", type=Path, default=default_cache(), help="folder for the models")
    parser.add_argument("--python", action="append", help="a Python to measure in; repeatable")
    parser.add_argument("--peers", type=Path, help="folder of environments (peers.py)")
    parser.add_argument("--resume", action="store_true", help="keep what was measured before")
    parser.add_argument("--out", type=Path, help=f"the page; default: {PAGE.relative_to(ROOT)}")
    return parser.parse_args()


def jobs(options: argparse.Namespace) -> Iterator[Job]:
    """What the options ask for, in order."""
    models = options.models or (["small"] if options.quick else ["gpt2s", "demo"])
    repeats = options.repeats or (2 if options.quick else 5)
    cache = str(options.cache)
    for python in options.python or [sys.executable]:
        if "imports" in options.only:
            yield Job("imports", repeats=repeats if options.quick else 7, python=python)
        if "directions" in options.only:
            yield Job("directions", repeats=min(repeats, 3), python=python)
        for model in models:
            for benchmark in ("capture", "generation", "cold"):
                for backend in options.backends if benchmark in options.only else ():
                    # HookedTransformer takes twice the time, and has one target to meet, not two.
                    times = repeats if backend == "bridge" else min(repeats, 3)
                    yield Job(benchmark, model, backend, times, cache, python)
        for benchmark in (*report.FITTING, "sweep"):
            for backend in options.backends if benchmark in options.only else ():
                yield Job(benchmark, "demo", backend, min(repeats, 3), cache, python)
    built = [model for model in models if model != "demo"]
    for peer, python in peers.environments(options.peers).items() if options.peers else ():
        for model in built:
            yield Job("peers", model, peer, repeats, cache, python)


def answered(job: Job, kept: dict[str, Any]) -> dict[str, Any]:
    """The job's answer: the one kept from an earlier run, or else a new one."""
    key = json.dumps(asdict(job))
    if key not in kept:
        kept[key] = {"job": asdict(job), "date": str(date.today()), **run(job)}
    return kept[key]


def machine() -> str:
    """The kind of machine, without its name."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    cores, kind = len(named) or "?", named[0] if named else platform.machine()
    return f"{kind}, {cores} cores, {platform.system()}, Python {platform.python_version()}"


def measured(options: argparse.Namespace, say: Callable[[str], None]) -> list[dict[str, Any]]:
    """All answers, kept on disk after each so that `--resume` can go on."""
    for model in {job.model for job in jobs(options)} - {""}:
        source(model, options.cache)
    texts(options.cache)
    store = options.cache / "answers.json"
    kept = json.loads(store.read_text()) if options.resume and store.is_file() else {}
    answers = []
    for job in jobs(options):
        say(f"{job.name} ...")
        answers.append(answered(job, kept))
        write_whole(store, json.dumps(kept).encode())
    return answers


def main() -> None:
    """Measure, then write the page, or print it where only a part was asked for."""
    options = parsed()
    answers = measured(options, lambda line: print(line, file=sys.stderr, flush=True))
    page = report.page([answer for answer in answers if "skipped" not in answer], machine())
    partial = options.quick or options.models or set(options.only) != set(BENCHMARKS)
    out = options.out or (None if partial else PAGE)
    if out is None:
        print(page)
        return
    write_whole(out, page.encode())
    print(f"Wrote {out}", file=sys.stderr)


if __name__ == "__main__":
    main()
