"""Constraints with hashes, as pip wants them: `python scripts/supply/hashed.py KIND FILE`.

pins     without hashes, for `pip install -c`, which would else want one of every package
torch    with hashes, what torch needs besides itself and CUDA
run      with hashes, what steerlens runs on: those that constraints/run.txt names
all      with hashes, everything but torch
clean    FILE as uv wrote it, without torch's hashes and what torch itself pins for CUDA

Torch has no hash: its builds for CPU and CUDA have one version and come from different places.
"""

import re
import sys
from pathlib import Path

RUN = Path("constraints/run.txt")
TORCH = frozenset(
    {"filelock", "fsspec", "jinja2", "markupsafe", "mpmath", "networkx", "setuptools", "sympy"}
    | {"numpy", "typing-extensions"}
)
CUDA = re.compile(r"(cuda|nvidia)-|triton==")


def blocks(text: str) -> list[str]:
    """Each requirement with its hashes; comments are left out."""
    found = re.findall(r"^[^\s#].*(?:\n[ \t]+.*)*", text, re.MULTILINE)
    return [block for block in found if not CUDA.match(block)]


def name(block: str) -> str:
    """Of the package that a requirement is of."""
    return re.split(r"[=<>;\s\\]", block, maxsplit=1)[0]


def bare(block: str) -> str:
    """A requirement without hashes."""
    return re.sub(r"\s*\\\n.*", "", block, flags=re.DOTALL)


def listed(kind: str, file: Path) -> list[str]:
    """The requirements of a kind."""
    every = blocks(file.read_text(encoding="utf-8"))
    if kind == "pins":
        return [bare(block) for block in every]
    if kind == "clean":
        return [bare(block) if name(block) == "torch" else block for block in every]
    with_hash = [block for block in every if name(block) != "torch"]
    if kind == "all":
        return with_hash
    wanted = TORCH if kind == "torch" else set(RUN.read_text(encoding="utf-8").split())
    return [block for block in with_hash if name(block) in wanted]


def main() -> None:
    if len(sys.argv) != 3 or sys.argv[1] not in ("pins", "torch", "run", "all", "clean"):
        sys.exit(__doc__)
    print("\n".join(listed(sys.argv[1], Path(sys.argv[2]))))


if __name__ == "__main__":
    main()
