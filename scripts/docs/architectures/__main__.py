"""The table of architectures.

    python scripts/docs/architectures try FILE          tries all of them here, results into FILE
    python scripts/docs/architectures page FILE FILE    docs/architectures.md from such files

`make architectures` does both, on TransformerLens 3.x and 4.x. Each model is tried in a process of
its own, so that a crash or a hang ends one row of the table and not the run; FILE is written after
every row, and a run that was broken off goes on where it was. Needs a system that can fork.
"""

import argparse
import os
import sys
from pathlib import Path

ROOT = Path(__file__).parents[3]
os.environ.update(HF_HUB_OFFLINE="1", TOKENIZERS_PARALLELISM="false")
sys.path[:0] = [str(ROOT / "scripts" / "docs"), str(ROOT / "tests"), str(ROOT)]


def main() -> None:
    parser = argparse.ArgumentParser(description="The table of architectures.")
    commands = parser.add_subparsers(dest="command", required=True)
    tried = commands.add_parser("try", help="try all architectures with this Python")
    tried.add_argument("results", type=Path)
    tried.add_argument("--only", action="append", default=[], help="an architecture's name")
    tried.add_argument("--seconds", type=float, default=120.0, help="how long one may take")
    page = commands.add_parser("page", help="write docs/architectures.md")
    page.add_argument("results", type=Path, nargs="+")
    given = parser.parse_args()
    if given.command == "try":
        from architectures.run import run

        run(given.results, given.only, given.seconds)
        return
    from architectures.page import write

    write(given.results, ROOT / "docs" / "architectures.md")


if __name__ == "__main__":
    main()
