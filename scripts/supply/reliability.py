"""How much the hostile tests try, as the table of docs/reliability.md: nothing is run.

The counts are those of the tests' own tables: a command line or damaged file that is there twice
counts once. The number of tests follows, file by file.
"""

import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "tests" / "hostile"
HEAD = "| tried | in `make test-all` | of them in `make test` | at least |\n|---|---|---|---|\n"


class Count(NamedTuple):
    """How many there are in all, in `make test`, and how many there must be."""

    every: int
    fast: int
    promised: int


def counts() -> dict[str, Count]:
    """What is tried, from the tables of the tests."""
    import test_commands
    import test_kills

    lines = set(test_commands.ROWS)
    fast = {test_commands.ROWS[number] for number in test_commands.FAST}
    damages = damaged_files()
    kills = len(test_kills.WRITERS) * test_kills.KILLS
    return {
        "bad command lines": Count(len(lines), len(fast), 150),
        "damaged files": Count(len(damages[0] | damages[1]), len(damages[0]), 300),
        "kills of a running command": Count(kills, 0, 60),
    }


def damaged_files() -> tuple[set[bytes], set[bytes]]:
    """Digests of the damaged files of `make test`, and of those that are for `make test-all`."""
    import test_damage

    import steerlens

    model, each = steerlens.load("demo"), (set[bytes](), set[bytes]())
    rounds = [(each[0], test_damage.N, 0)]
    rounds += [(each[1], test_damage.MORE, seed) for seed in test_damage.SEEDS]
    for name, kind in test_damage.KINDS.items():
        with tempfile.TemporaryDirectory() as folder:
            content = kind.make(Path(folder), model).read_bytes()
        for found, n, seed in rounds:
            for _, damaged in kind.damages(content, n, seed):
                if damaged != content:
                    found.add(sha256(name.encode() + damaged).digest())
    return each


def table(found: Mapping[str, Count]) -> str:
    """The counts in Markdown."""
    rows = [f"| {name} | {' | '.join(map(str, count))} |\n" for name, count in found.items()]
    return HEAD + "".join(rows)


def collected(options: Sequence[str]) -> Counter[str]:
    """How many tests each file has."""
    command = ["-m", "pytest", "--collect-only", "-q", "-p", "no:xdist", "-p", "no:cacheprovider"]
    done = subprocess.run(
        [sys.executable, *command, *options, str(FOLDER)],
        cwd=ROOT, check=False, capture_output=True, text=True,
    )  # fmt: skip
    if done.returncode:
        sys.exit(done.stdout + done.stderr)
    names = (line.partition("::") for line in done.stdout.splitlines() if "::" in line)
    return Counter(Path(file).name for file, _, _ in names)


def main() -> None:
    sys.path[:0] = [str(ROOT), *(str(FOLDER.parent / name) for name in ("", "hostile"))]
    found = counts()
    print(table(found))
    every, fast = collected([]), collected(["-m", "not slow"])
    for name, number in sorted(every.items()):
        print(f"{name:24} {number:5} tests, {fast[name]} of them in `make test`")
    print(f"{'all':24} {every.total():5} tests, {fast.total()} of them in `make test`")
    few = [name for name, count in found.items() if count.every < count.promised]
    if few:
        sys.exit(f"Fewer than promised: {', '.join(few)}.")


if __name__ == "__main__":
    main()
