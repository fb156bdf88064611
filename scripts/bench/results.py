"""All of docs/results that the repository alone can make, from nothing or from the cells kept.

python scripts/bench/results.py             runs everything (overnight; it goes on if stopped)
python scripts/bench/results.py --quick     tiny sizes, into build/bench-quick: does all of it run?
python scripts/bench/results.py --pages     only the pages, from docs/results/cells, in seconds
python scripts/bench/results.py --restore   puts the cells kept into build/bench first, to go on
python scripts/bench/results.py --keep      keeps what is done in build/bench, and writes the pages

Everything is both benches with their pages, the gradient step of claim 5 (`cold_step.py`), the
kinds of tokens of claim 1 (`token_kinds.py`), the page of claims, and the two pages that no bench
is behind: `likelihood_judge.md` (`scripts/judges/likelihood.py`) and `smollm2_samples.md`
(`scripts/pirate/samples.py`). The kinds of tokens and these two pages have one size and are left
out of `--quick`. Claim 6 is made of texts that are not part of the repository:
`scripts/bench/act_add.py --corpus CORPUS` makes `cells/act_add_MODEL.json`, and without it the page
has what is kept there.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import claims_page
import cold_step
import measured
from claims_alone import Alone

from analysis.bench.bench import Bench
from analysis.bench.packed import pack, restore
from analysis.bench.page import write_page
from analysis.bench.parallel import run
from analysis.bench.spec import Spec
from steerlens.whole import write_whole

ROOT = Path(__file__).parents[2]
RESULTS, WORK = ROOT / "docs" / "results", ROOT / "build" / "bench"
QUICK = ROOT / "build" / "bench-quick"
SPECS = {
    "demo": Spec("demo", seeds=3, examples=32, most=(None, 24, 60)),
    "smollm2": Spec("smollm2", data="smollm2", seeds=3),
}
"""One configuration each, so that strength is all that is chosen, by the same rule, everywhere."""
CHEAP = ("CAA", "ActAdd", "instruction vector", "random direction")
TINY = {
    "demo": replace(
        SPECS["demo"],
        attributes=("positive", "lowercase"),
        seeds=2,
        configurations=1,
        factors=(0.71, 1.41),
        examples=12,
        most=(12, 4, 6),
        max_new_tokens=16,
    ),
    "smollm2": replace(
        SPECS["smollm2"],
        attributes=("pirate",),
        methods=CHEAP,
        seeds=2,
        factors=(1.0, 2.0),
        most=(8, 3, 3),
        max_new_tokens=16,
    ),
}
SMALL = ROOT / "scripts" / "docs" / "small_pictures.py"
WITHOUT_BENCH = (
    (ROOT / "scripts" / "judges" / "likelihood.py", "--model", "smollm2"),
    (ROOT / "scripts" / "pirate" / "samples.py",),
    (Path(__file__).with_name("token_kinds.py"),),
)
"""What makes the pages that no bench is behind, with their pictures, and the kinds of tokens."""
COMMAND = "python scripts/bench/results.py --pages"


def made(
    specs: Mapping[str, Spec], work: Path, cells: Path, workers: int, *, restored: bool = False
) -> None:
    """Run the benches and pack their cells."""
    for name, spec in specs.items():
        bench, packed = Bench.planned(work / name, spec), cells / f"{name}.jsonl.gz"
        if restored and packed.exists():
            print(f"Put {restore(packed, work / name)} cells into {work / name}", flush=True)
        run(work / name, workers=workers)
        kept(bench, packed)


def kept(bench: Bench, path: Path) -> None:
    """Pack what is done of a bench."""
    path.parent.mkdir(parents=True, exist_ok=True)
    print(f"Wrote {pack(bench, path)}", flush=True)


def stepped(specs: Mapping[str, Spec], work: Path, cells: Path) -> None:
    """Measure the gradient step of claim 5 in each bench that has COLD-FD."""
    for name, spec in specs.items():
        if "COLD-FD" in spec.methods:
            print(f"Wrote {cold_step.write(name, Bench.of(work / name), cells)}", flush=True)


def without_bench() -> None:
    """Make the pages that no bench is behind."""
    for script, *options in WITHOUT_BENCH:
        subprocess.run([sys.executable, script, *options], check=True)


def pages(results: Path) -> None:
    """Write the pages from the packed cells."""
    found, published = measured.packed_in(results), results == RESULTS
    command = COMMAND if published else f"{COMMAND} --quick"
    for name, collected in found.items():
        print(f"Wrote {write_page(collected, results / f'bench_{name}.md', name, command)}")
    if published:
        docs = results.parent
        changed = measured.write(found, docs / "methods")
        for path in (*changed, *measured.write_readme(found, docs.parent / "README.md")):
            print(f"Wrote {path}")
    beside = f"`{command}` from the cells in `cells`, beside this page"
    made = claims_page.FROM_CELLS if published else beside
    text = claims_page.page(found, Alone.read(results / "cells"), results / "images", made)
    write_whole(results / "claims.md", text.encode())
    print(f"Wrote {results / 'claims.md'}", flush=True)
    subprocess.run([sys.executable, SMALL, results / "images"], check=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--pages", action="store_true")
    parser.add_argument("--restore", action="store_true")
    parser.add_argument("--keep", action="store_true")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    given = parser.parse_args()
    results = QUICK / "results" if given.quick else RESULTS
    cells = results / "cells"
    specs, work = (TINY, QUICK / "work") if given.quick else (SPECS, WORK)
    if given.keep:
        for name in specs:
            if (work / name).exists():
                kept(Bench.of(work / name), cells / f"{name}.jsonl.gz")
    elif not given.pages:
        made(specs, work, cells, given.workers, restored=given.restore)
        stepped(specs, work, cells)
        if not given.quick:
            without_bench()
    pages(results)


if __name__ == "__main__":
    main()
