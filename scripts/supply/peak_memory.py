"""The most memory that `steerlens faithfulness` and `compare` take: `peak_memory.py 200 1000`.

Each number is one of pairs, with a CAA steering on the demonstration model; every pair comes with a
response of some thirty tokens, so that nothing is answered first.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]
MEASURES = ("faithfulness", "compare")
WORDS = ("the film", "a walk by the sea", "this book", "the dinner", "my new garden", "that song")


def write_pairs(path: Path, number: int) -> None:
    """So many pairs of different questions, as lines of JSON."""
    lines = []
    for i in range(number):
        what = WORDS[i % len(WORDS)]
        said = f" I liked {what} very much, and so did all {i % 90 + 2} of us. It was a fine day."
        asked = {"user": f"What do you think of {what}, number {i}?"}
        lines.append(json.dumps({**asked, "system": "Be positive.", "response": said}))
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def peak(arguments: list[str]) -> tuple[float, float]:
    """MB at the most, and seconds, of a command line; it must succeed."""
    start = time.monotonic()
    command = [sys.executable, "-W", "ignore", "-m", "steerlens.cli", *arguments]
    child = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL)
    _, status, used = os.wait4(child.pid, 0)
    if status:
        sys.exit(f"steerlens {' '.join(arguments)} ended with {os.waitstatus_to_exitcode(status)}")
    unit = 1 if sys.platform == "darwin" else 1024
    return used.ru_maxrss * unit / 2**20, time.monotonic() - start


def main() -> None:
    # Nothing large may be imported here: a new process counts as having had what its parent has.
    with tempfile.TemporaryDirectory() as folder:
        steering, contrasts = Path(folder, "caa.safetensors"), Path(folder, "contrasts.jsonl")
        contrasts.write_text('{"positive": "I loved it.", "negative": "I hated it."}\n')
        peak(["fit", "caa", *map(str, ["--pairs", contrasts, "--layer", 2, "--out", steering])])
        for number in map(int, sys.argv[1:] or ["200"]):
            pairs = Path(folder, f"{number}.jsonl")
            write_pairs(pairs, number)
            for name in MEASURES:
                given = ["--pairs", pairs, "--steering", steering, "--out", f"{folder}/{name}.html"]
                most, took = peak([name, *map(str, given)])
                print(f"{name:14} {number:5} pairs  {most:6.0f} MB  {took:6.0f} s", flush=True)


if __name__ == "__main__":
    main()
