"""Commands that are killed at random moments: files whole or absent, inputs as they were.

After the kills the same command is run to its end, and must come to what it comes to undisturbed.
"""

import json
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from safetensors import safe_open

import steerlens
from analysis.bench.cells import read_whole
from steerlens import load_steering
from steerlens.saving import digest_of
from steerlens.training import checkpoint

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(os.name != "posix", reason="processes are forked"),
]
HERE = Path(__file__).parent
EXAMPLES = HERE.parents[1] / "examples"
KILLS = 16
"""Of each command; there are four."""


class Forking:
    """The process that forks, kills and tells."""

    def __init__(self) -> None:
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
        self.process = subprocess.Popen(
            [sys.executable, "-W", "ignore", HERE / "forking.py"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=environment,
            cwd=HERE.parents[1],
        )
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == "ready\n"

    def run(self, arguments: list[str], after: float | None = None) -> dict[str, Any]:
        """A command; killed after so many seconds."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps({"arguments": arguments, "after": after}) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())


@pytest.fixture(scope="module")
def forking() -> Iterator[Forking]:
    """It is started once for all commands."""
    one = Forking()
    yield one
    one.process.communicate()


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Pairs that need no answers, and a steering."""
    root = tmp_path_factory.mktemp("inputs")
    pairs = [
        {"user": f"Review film {i}.", "system": "Be positive.", "response": f"Superb, all {i}!"}
        for i in range(6)
    ]
    path = root / "pairs.jsonl"
    path.write_text("".join(json.dumps(pair) + "\n" for pair in pairs))
    model = steerlens.load("demo")
    fit = steerlens.CAA.fit(model, (["I loved it"], ["I hated it"]), 2)
    return {"pairs": path, "caa": fit.steering.save(root / "caa.safetensors")}


@dataclass(frozen=True)
class Writer:
    """A command, how its files are looked at, and what they come to."""

    arguments: Callable[[Path, dict[str, Path]], list[str]]
    require_whole: Callable[[Path], None]
    outcome: Callable[[Path], Any]
    moments: tuple[float, float] = (0.3, 1.0)
    """Between these shares of its time it is killed: most write at their end, a bench all along."""


def _psr(folder: Path, inputs: dict[str, Path]) -> list[str]:
    return [
        *("fit", "psr", "--pairs", str(inputs["pairs"]), "--layers", "2,3", "--epochs", "6"),
        *("--checkpoint", str(folder / "c"), "--out", str(folder / "psr.safetensors")),
    ]


def _psr_whole(folder: Path) -> None:
    if (folder / "c").exists():
        checkpoint.require_checkpoint(folder / "c")
    if (folder / "psr.safetensors").exists():
        load_steering(folder / "psr.safetensors", steerlens.load("demo"))


def _html_whole(folder: Path) -> None:
    for path in folder.glob("*.html"):
        text = path.read_text(encoding="utf-8")
        assert text.startswith("<!DOCTYPE html>")
        assert text.endswith("</html>\n")


def _compare(folder: Path, inputs: dict[str, Path]) -> list[str]:
    pairs, caa = str(inputs["pairs"]), str(inputs["caa"])
    return ["compare", "--pairs", pairs, "--steering", caa, "--out", str(folder / "r.html")]


def _sweep(folder: Path, inputs: dict[str, Path]) -> list[str]:
    usual = ["--strengths", "1", "--layers", "2", "--method", "CAA"]
    return ["sweep", "--pairs", str(inputs["pairs"]), *usual, "--out", str(folder / "s")]


def _sweep_whole(folder: Path) -> None:
    _html_whole(folder)
    for path in folder.glob("*.json"):
        assert json.loads(path.read_text())["cells"]
    for path in folder.glob("*.csv"):
        lines = path.read_text().splitlines()
        assert len({line.count(",") for line in lines}) <= 2
        assert path.read_text().endswith("\n")


def _bench(folder: Path, inputs: dict[str, Path]) -> list[str]:
    if not (folder / "bench.json").exists():
        from analysis.bench.spec import Spec, write_spec
        from steerlens.identity import fingerprint

        write_spec(
            Spec(
                fingerprint=fingerprint(steerlens.load("demo")),
                attributes=("positive",),
                methods=("instruction vector", "CAA"),
                seeds=1,
                factors=(0.5, 1.0),
                most=(8, 4, 4),
                max_new_tokens=8,
            ),
            folder,
        )
    return ["bench", "run", "--out", str(folder)]


def _bench_whole(folder: Path) -> None:
    for path in (folder / "cells").glob("*.json"):
        read_whole(path)
    for path in (folder / "fits").glob("*.safetensors"):
        with safe_open(path, "pt") as file:
            assert file.metadata()


def _results(folder: Path) -> Any:
    times = ("seconds", "megabytes", "cpu_seconds")
    found = {}
    for path in sorted((folder / "cells").glob("*.json")):
        result = read_whole(path)["result"]
        found[path.stem] = {k: v for k, v in result.items() if k not in times}
    return found


def _steering(folder: Path) -> Any:
    return digest_of(load_steering(folder / "psr.safetensors", steerlens.load("demo")))


def _csv(folder: Path) -> Any:
    return (folder / "s.csv").read_text()


def _length(folder: Path) -> Any:
    return len((folder / "r.html").read_text())


WRITERS = {
    "fit psr": Writer(_psr, _psr_whole, _steering),
    "compare": Writer(_compare, _html_whole, _length),
    "sweep": Writer(_sweep, _sweep_whole, _csv),
    "bench run": Writer(_bench, _bench_whole, _results, (0.05, 0.35)),
}


@pytest.mark.parametrize("name", WRITERS)
def test_a_command_that_is_killed_leaves_whole_files_and_comes_to_the_same(
    name: str, forking: Forking, inputs: dict[str, Path], tmp_path: Path
) -> None:
    writer, drawn = WRITERS[name], random.Random(f"kills {name}")
    alone, killed = tmp_path / "alone", tmp_path / "killed"
    alone.mkdir()
    killed.mkdir()
    before = {path: path.read_bytes() for path in inputs.values()}
    whole = forking.run(writer.arguments(alone, inputs))
    assert whole["code"] == 0
    kills, seconds = 0, whole["seconds"]
    while kills < KILLS:
        after = seconds * drawn.uniform(*writer.moments)
        anew = not list(killed.iterdir())
        done = forking.run(writer.arguments(killed, inputs), after)
        code = done["code"]
        writer.require_whole(killed)
        assert {path: path.read_bytes() for path in inputs.values()} == before
        kills += code == -9
        if code == 0:  # it went on where the one before was killed, and is done: begin anew
            assert writer.outcome(killed) == writer.outcome(alone)
            shutil.rmtree(killed)
            killed.mkdir()
            if anew:  # the machine has become faster since it was measured
                seconds = min(seconds, done["seconds"])
        else:
            assert code == -9
    assert forking.run(writer.arguments(killed, inputs))["code"] == 0
    writer.require_whole(killed)
    assert writer.outcome(killed) == writer.outcome(alone)
    assert not [path for path in killed.rglob("*.draft") if path.name.startswith(".")]


def test_two_runs_at_one_checkpoint_lose_no_fit(
    forking: Forking, inputs: dict[str, Path], tmp_path: Path
) -> None:
    command = _psr(tmp_path, inputs)
    running = [
        subprocess.Popen(
            [sys.executable, "-W", "ignore", "-m", "steerlens.cli", *command],
            stderr=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            cwd=HERE.parents[1],
        )
        for _ in range(2)
    ]
    said = [one.communicate()[1].decode() for one in running]
    assert [one.returncode for one in running] == [0, 0], said
    _psr_whole(tmp_path)
    assert (tmp_path / "psr.safetensors").exists()
