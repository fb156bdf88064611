"""How many hostile tests there are, in all and in `make test`: some 15 seconds, nothing is run."""

import re
import sys
from collections import Counter
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import pytest

FOLDER = Path("tests/hostile")
WITHIN = re.compile(r"^(KILLS|N) = (\d+)", re.MULTILINE)


class Counted:
    """What pytest collects: the tests of each file, and those of them that are slow."""

    def __init__(self) -> None:
        self.every, self.fast = Counter[str](), Counter[str]()

    def pytest_collection_modifyitems(self, items: list[Any]) -> None:
        for item in items:
            self.every[item.path.stem] += 1
            self.fast[item.path.stem] += item.get_closest_marker("slow") is None


def main() -> None:
    counted, said = Counted(), StringIO()
    with redirect_stdout(said):
        options = ["-q", "--collect-only", "-p", "no:xdist", "-p", "no:cacheprovider"]
        code = pytest.main([*options, str(FOLDER)], plugins=[counted])
    if code not in (0, 5):
        sys.exit(said.getvalue())
    each = {"KILLS": "kills in each", "N": "damages of each kind of file, and as many a seed"}
    for name, number in sorted(counted.every.items()):
        text = (FOLDER / f"{name}.py").read_text(encoding="utf-8")
        notes = [f"{found[1]} {each[found[0]]}" for found in WITHIN.findall(text)]
        more = "".join(f"; {note}" for note in notes)
        print(f"{name:24} {number:5} tests, {counted.fast[name]} of them in `make test`{more}")
    total, fast = sum(counted.every.values()), sum(counted.fast.values())
    print(f"{'all':24} {total:5} tests, {fast} of them in `make test`")


if __name__ == "__main__":
    main()
