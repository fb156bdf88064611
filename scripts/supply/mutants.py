"""What the tests say to small changes of the core formulas: `make mutants`, or `mutants.py N SEED`.

A mutant is one of the files below with one change: another operator, comparison, number or order.
Its tests run in a copy of the repository, in a process that has torch and TransformerLens imported
already. A mutant that they pass has survived: either a test is missing, or nothing changes. With N,
so many are drawn with SEED.
"""

import ast
import copy
import os
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
TESTED = {
    "steerlens/methods/caa.py": ("test_caa.py",),
    "steerlens/methods/angular.py": ("test_angular.py",),
    "steerlens/combinators.py": ("test_steers.py", "test_steering.py"),
    "steerlens/sinks.py": ("test_sinks.py",),
    "steerlens/directions/means.py": ("test_caa.py", "test_sinks.py", "test_directions.py"),
    "steerlens/divergence.py": ("test_calibration.py", "test_recovered.py"),
    "analysis/measures/errors.py": ("test_faithfulness.py",),
    "analysis/measures/mean_push.py": ("test_coefficients.py", "test_sinks.py", "test_memory.py"),
    "analysis/measures/intervals.py": ("test_assumptions.py", "test_faithfulness.py"),
    "analysis/measures/parts.py": ("test_memory.py",),
}
"""The files, and the tests that stand for each."""
LONGEST = 300
"""Seconds after which a mutant counts as killed: it loops, or waits for ever."""
OTHER: dict[type, type] = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult,
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq, ast.NotEq: ast.Eq, ast.And: ast.Or, ast.Or: ast.And,
    ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd, ast.Is: ast.IsNot, ast.IsNot: ast.Is,
}  # fmt: skip


@dataclass(frozen=True)
class Mutant:
    """A file with one change, in words, and its whole text."""

    file: str
    said: str
    text: str


def mutants(file: str) -> Iterator[Mutant]:
    """Every mutant of a file."""
    source = (ROOT / file).read_text(encoding="utf-8")
    tree = ast.parse(source)
    for number, node in enumerate(ast.walk(tree)):
        for what in changes(node):
            changed = copy.deepcopy(tree)
            other = next(one for i, one in enumerate(ast.walk(changed)) if i == number)
            change(other, what)
            line = getattr(node, "lineno", 0)
            before, after = ast.unparse(node), ast.unparse(other)
            text = ast.unparse(ast.fix_missing_locations(changed))
            yield Mutant(file, f"{file}:{line}  {before:.60}  ->  {after:.60}", text)


def changes(node: ast.AST) -> list[str]:
    """What can be changed at a node."""
    if isinstance(node, ast.BinOp | ast.AugAssign) and type(node.op) in OTHER:
        # `A | B` of types, and texts that are added, are no formulas.
        text = isinstance(node.op, ast.BitOr) or any(map(_is_text, ast.walk(node)))
        return [] if text else ["operator"]
    if isinstance(node, ast.Compare) and len(node.ops) == 1 and type(node.ops[0]) in OTHER:
        return ["comparison"]
    if isinstance(node, ast.BoolOp):
        return ["word"]
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub | ast.Not | ast.Invert):
        return ["sign"]
    if isinstance(node, ast.Constant) and type(node.value) in (int, float):
        return ["number"]
    if isinstance(node, ast.IfExp):
        return ["branches"]
    return []


def _is_text(node: ast.AST) -> bool:
    return isinstance(node, ast.JoinedStr) or (
        isinstance(node, ast.Constant) and isinstance(node.value, str)
    )


def change(node: ast.AST, what: str) -> None:
    """Make the change."""
    if what == "operator":
        assert isinstance(node, ast.BinOp | ast.AugAssign)
        node.op = OTHER[type(node.op)]()
    elif what == "comparison":
        assert isinstance(node, ast.Compare)
        node.ops = [OTHER[type(node.ops[0])]()]
    elif what == "word":
        assert isinstance(node, ast.BoolOp)
        node.op = OTHER[type(node.op)]()
    elif what == "sign":
        assert isinstance(node, ast.UnaryOp)
        node.op = ast.UAdd() if isinstance(node.op, ast.USub) else node.op
        if isinstance(node.op, ast.Not | ast.Invert):
            node.operand = ast.UnaryOp(node.op, node.operand)
    elif what == "number":
        assert isinstance(node, ast.Constant)
        node.value = node.value + 1  # pyright: ignore
    else:
        assert isinstance(node, ast.IfExp)
        node.body, node.orelse = node.orelse, node.body


def passes(copied: Path, tests: tuple[str, ...]) -> bool:
    """Whether the tests pass in the copy; each time in a child of this process."""
    child = os.fork()
    if child == 0:
        os.chdir(copied)
        sys.path.insert(0, str(copied))
        silent = os.open(os.devnull, os.O_WRONLY)
        os.dup2(silent, 1)
        os.dup2(silent, 2)
        import pytest

        options = ["-x", "-q", "-p", "no:xdist", "-p", "no:cacheprovider", "-m", "not slow"]
        code = pytest.main([*options, *(f"tests/{name}" for name in tests)])
        os._exit(0 if code == 0 else 1)
    end = time.monotonic() + LONGEST
    while time.monotonic() < end:
        found, status = os.waitpid(child, os.WNOHANG)
        if found:
            return status == 0
        time.sleep(0.05)
    os.kill(child, 9)
    os.waitpid(child, 0)
    return False


def copy_of(folder: Path) -> Path:
    """What the tests need of the repository, without what earlier runs compiled."""
    skipped = shutil.ignore_patterns("__pycache__", ".git", ".venv*", "build", "dist")
    shutil.copytree(ROOT, folder / "copy", ignore=skipped)
    return folder / "copy"


def main() -> None:
    every = [mutant for file in TESTED for mutant in mutants(file)]
    n = int(sys.argv[1]) if len(sys.argv) > 1 else len(every)
    seed = int(sys.argv[2]) if len(sys.argv) > 2 else 0
    chosen = random.Random(seed).sample(every, min(n, len(every)))
    sys.dont_write_bytecode = True  # a mutant may have the size and the second of another
    import plotly  # noqa: F401
    import sklearn.linear_model  # noqa: F401
    import transformer_lens  # noqa: F401
    import transformers  # noqa: F401

    survived = []
    with tempfile.TemporaryDirectory() as folder:
        copied = copy_of(Path(folder))
        for file in dict.fromkeys(mutant.file for mutant in chosen):
            if not passes(copied, TESTED[file]):
                sys.exit(f"The tests of {file} fail, or take {LONGEST} s, without a mutant.")
        for number, mutant in enumerate(chosen, start=1):
            place = copied / mutant.file
            whole = place.read_bytes()
            place.write_text(mutant.text, encoding="utf-8")
            lives = passes(copied, TESTED[mutant.file])
            place.write_bytes(whole)
            survived += [mutant] * lives
            said = "SURVIVED" if lives else "killed"
            print(f"{number:4} {said:8} {mutant.said}", flush=True)
    killed = len(chosen) - len(survived)
    print(f"{killed} of {len(chosen)} killed; there are {len(every)} mutants, seed {seed}")


if __name__ == "__main__":
    main()
