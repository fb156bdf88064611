"""What the tests say to small changes of the core formulas: `make mutants`, or `mutants.py N`.

A mutant is one of the files below with one change: another operator, comparison, number or order.
Of the tests that stand for the file those run that meet the changed line, the fastest first, in a
copy of the repository and in a child of a process that has torch and TransformerLens imported
already. A mutant that they pass has survived: either a test is missing, or nothing changes, and
then survivors.txt says why. A mutant has a line there, and the next line is the reason.

build/mutants.jsonl records what was found, and a run that was stopped goes on; a mutant is tried
anew when it or its tests have changed. Whoever changes what tests share removes the record.
"""

import ast
import copy
import json
import random
import shutil
import sys
import tempfile
from argparse import ArgumentParser
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from math import inf
from pathlib import Path
from typing import Any

from mutant_tests import WHOLE, OneTest, chosen, digest, limit, tried, watched

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
    "analysis/measures/least_squares.py": ("test_memory.py", "test_coefficients.py"),
}
TESTED = {file: ("test_formulas.py", *tests) for file, tests in TESTED.items()}
"""The files, and the tests that stand for each."""
OTHER: dict[type, type] = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult,
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq, ast.NotEq: ast.Eq, ast.And: ast.Or, ast.Or: ast.And,
    ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd, ast.Is: ast.IsNot, ast.IsNot: ast.Is,
}  # fmt: skip


@dataclass(frozen=True)
class Mutant:
    """A file with one change, in words, and its whole text; where it is, and its function."""

    file: str
    said: str
    text: str
    line: range
    around: range


def mutants(file: str) -> Iterator[Mutant]:
    """Every mutant of a file."""
    source = (ROOT / file).read_text(encoding="utf-8")
    tree, seen = ast.parse(source), Counter[str]()
    for number, node in enumerate(ast.walk(tree)):
        for what in changes(node):
            changed = copy.deepcopy(tree)
            other = next(one for i, one in enumerate(ast.walk(changed)) if i == number)
            change(other, what)
            name, around = function_of(tree, node)
            before, after = ast.unparse(node), ast.unparse(other)
            text = ast.unparse(ast.fix_missing_locations(changed))
            said = f"{file} {name}: {before} -> {after}"
            seen[said] += 1
            said += f" ({seen[said]})" if seen[said] > 1 else ""
            yield Mutant(file, said, text, lines_of(node), around)


def lines_of(node: ast.AST) -> range:
    """The lines of a node; `changes` names only such as have some."""
    first, last = getattr(node, "lineno", 0), getattr(node, "end_lineno", 0)
    return range(first, last + 1)


def function_of(tree: ast.AST, node: ast.AST) -> tuple[str, range]:
    """The innermost function that a node is in, and its lines; the whole file where in none."""
    within = [
        one
        for one in ast.walk(tree)
        if isinstance(one, ast.FunctionDef) and any(part is node for part in ast.walk(one))
    ]
    innermost = min(within, key=lambda one: len(lines_of(one)), default=None)
    return (innermost.name, lines_of(innermost)) if innermost else ("", range(sys.maxsize))


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


def copy_of(folder: Path) -> Path:
    """What the tests need of the repository, without what earlier runs compiled."""
    skipped = shutil.ignore_patterns("__pycache__", ".git", ".venv*", "build", "dist")
    shutil.copytree(ROOT, folder / "copy", ignore=skipped)
    return folder / "copy"


class Record:
    """What earlier runs found, a line of JSON each, so that a run that was stopped goes on."""

    def __init__(self, path: Path) -> None:
        self.path, self.known = path, dict[str, Any]()
        for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
            with suppress(ValueError):  # the last line of a run that was killed
                self.known.update(json.loads(line))

    def add(self, key: str, value: Any) -> None:
        """Keep one more, at once."""
        self.known[key] = value
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({key: value}) + "\n")


@dataclass
class Trial:
    """Mutants on their tests, in a copy of the repository; `used` counts seconds of work."""

    copied: Path
    record: Record
    used: float = 0.0
    tests: dict[str, list[OneTest]] = field(default_factory=dict)

    def ready(self, file: str) -> None:
        """Find out which tests of a file pass, and what they meet."""
        texts = [(ROOT / "tests" / name).read_text(encoding="utf-8") for name in TESTED[file]]
        key = digest("\n".join([file, (ROOT / file).read_text(encoding="utf-8"), *texts]))
        if key not in self.record.known:
            ended = watched(self.copied, file, TESTED[file])
            self.used += ended.seconds
            if ended.code != 0 or not ended.told[0]:
                sys.exit(f"The tests of {file} do not pass in {WHOLE} s of work, without a mutant.")
            self.record.add(key, ended.told)
        passed, left_out = self.record.known[key]
        for name in left_out:
            print(f"     left out: {name}, which does not pass without a mutant", flush=True)
        tests = self.tests[file] = [OneTest(*one) for one in passed]
        seconds = sum(test.seconds for test in tests)
        print(f"     {file}: {len(tests)} tests, {seconds:.0f} s without a mutant", flush=True)

    def ends(self, mutant: Mutant) -> tuple[str | None, str]:
        """What ends a mutant, None where nothing does; and what is to be said of the tests."""
        tests = chosen(self.tests[mutant.file], mutant.line, mutant.around)
        if not tests:
            return None, "no test meets it"
        key = digest(mutant.file + mutant.text)
        texts = {test.name: test.text for test in tests}
        ended, with_texts = self.record.known.get(key, ("", {}))
        changed = any(texts.get(name) != text for name, text in with_texts.items())
        added = ended is None and set(texts) - set(with_texts)  # which may notice it
        if ended == "" or changed or added:
            ended, with_texts = self._ends(mutant, tests)
            self.record.add(key, [ended, with_texts])
        return ended, f"{len(tests)} tests"

    def _ends(self, mutant: Mutant, tests: list[OneTest]) -> tuple[str | None, dict[str, str]]:
        place = self.copied / mutant.file
        whole = place.read_bytes()
        place.write_text(mutant.text, encoding="utf-8")
        try:
            ended = tried(self.copied, tests)
        finally:
            place.write_bytes(whole)
        self.used += ended.seconds
        texts = {test.name: test.text for test in tests}
        if ended.code < 0:
            return f"takes more than {limit(tests):.0f} s", texts
        if ended.code == 0:
            return None, texts
        name = ended.told[0]
        return name or "cannot be imported", {name: texts[name]} if name in texts else texts


def reasons() -> dict[str, str]:
    """Why some mutants survive, by what is said of them."""
    lines = (Path(__file__).parent / "survivors.txt").read_text(encoding="utf-8").splitlines()
    pairs = zip(lines[::2], lines[1::2], strict=True)
    return {said.strip(): reason.strip() for said, reason in pairs}


def told(results: dict[str, str | None], every: int, seed: int, minutes: float) -> int:
    """Print the score; returns how many survive without a reason."""
    known = reasons()
    survived = [said for said, ended in results.items() if ended is None]
    unknown = [said for said in survived if said not in known]
    for said in unknown:
        print(f"SURVIVED without a reason: {said}")
    stopped = sum((ended or "").startswith("takes more") for ended in results.values())
    n = len(results)
    print(
        f"{n - len(survived)} of {n} mutants killed ({stopped} by their time); of the others "
        f"{len(survived) - len(unknown)} have a reason in survivors.txt. There are {every}; order "
        f"drawn with seed {seed}; {minutes:.0f} minutes of work."
    )
    return len(unknown)


def main() -> None:
    given = ArgumentParser(description="Change the core formulas, and see which tests notice.")
    given.add_argument("most", type=int, nargs="?", help="so many mutants, drawn with --seed")
    given.add_argument("--seed", type=int, default=0)
    given.add_argument("--minutes", type=float, default=inf, help="of work, not of the clock")
    options = given.parse_args()
    every = [mutant for file in TESTED for mutant in mutants(file)]
    random.Random(options.seed).shuffle(every)
    sys.dont_write_bytecode = True  # a mutant may have the size and the second of another
    import plotly  # noqa: F401
    import sklearn.linear_model  # noqa: F401
    import transformer_lens  # noqa: F401
    import transformers  # noqa: F401

    results: dict[str, str | None] = {}
    with tempfile.TemporaryDirectory() as folder:
        trial = Trial(copy_of(Path(folder)), Record(ROOT / "build" / "mutants.jsonl"))
        for mutant in every[: options.most]:
            if trial.used > 60 * options.minutes:
                break
            if mutant.file not in trial.tests:
                trial.ready(mutant.file)
            ended, tests = trial.ends(mutant)
            results[mutant.said] = ended
            how = f"SURVIVED {tests}" if ended is None else f"killed by {ended}"
            print(
                f"{len(results):4} line {mutant.line.start} of {mutant.said}\n     {how}",
                flush=True,
            )
    sys.exit(min(1, told(results, len(every), options.seed, trial.used / 60)))


if __name__ == "__main__":
    main()
