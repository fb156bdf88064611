"""The workers of a bench: each makes the cells that are left until none is."""

import importlib.metadata
import platform
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import steerlens
from steerlens.identity import fingerprint
from steerlens.types import HookedModel
from steerlens.whole import clear_drafts

from . import effects, fitting, judging, odds, side, spread, writing
from .cells import Busy, Cell, Cells
from .collect import Collected
from .maker import Maker
from .plan import Plan
from .spec import Spec, read_spec, write_spec
from .tasks import Task

COMPUTE: dict[str, Callable[[Maker, Cell], dict[str, Any]]] = {
    "fit": fitting.fit,
    "write": writing.write,
    "odds": odds.odds,
    "judge": judging.judge,
    "scale": judging.scale,
    "effects": effects.effects,
    "side": side.side,
    "spread": spread.spread,
}
PACKAGES = ("steerlens", "torch", "transformer-lens", "transformers", "numpy", "scikit-learn")
PAUSE = 0.5
"""Seconds to wait where all that is left is being made by others."""
SAID_EVERY = 30.0


@dataclass(eq=False)
class Bench(Maker):
    """One worker's view of a folder: it loads the model at the first cell that needs it."""

    folder: Path
    spec: Spec
    memory: dict[str, Any] = field(default_factory=dict, repr=False)

    @classmethod
    def of(cls, folder: str | Path) -> "Bench":
        """The bench of a folder; ValueError where there is none."""
        return cls(Path(folder), read_spec(Path(folder)))

    @classmethod
    def planned(cls, folder: str | Path, spec: Spec) -> "Bench":
        """A new bench, or the same one again.

        The model is loaded once, to write down which it is. ValueError where the folder holds
        another bench.
        """
        spec.tasks(Path(folder))  # what is wrong with them is told before the model is loaded
        model = steerlens.load(spec.model)
        spec = replace(spec, fingerprint=fingerprint(model))
        write_spec(spec, Path(folder))
        return cls(Path(folder), spec)

    @property
    def collected(self) -> Collected:
        """The results that are there, as tables."""
        return Collected(self.plan)

    @property
    def tasks(self) -> dict[str, Task]:
        return self._tasks

    @property
    def model(self) -> HookedModel:
        return self._model

    @cached_property
    def _tasks(self) -> dict[str, Task]:
        return self.spec.tasks(self.folder)

    @cached_property
    def cells(self) -> Cells:
        return Cells(self.folder)

    @cached_property
    def plan(self) -> Plan:
        return Plan(self.spec, self.tasks, self.cells)

    @cached_property
    def _model(self) -> HookedModel:
        """The model, checked to be the one that the bench was planned for."""
        loaded = steerlens.load(self.spec.model)
        found = fingerprint(loaded)
        if found != self.spec.fingerprint:
            raise ValueError(
                f"{self.spec.model} has other weights (fingerprint {found}) than when this bench "
                f"was planned ({self.spec.fingerprint}). Plan another one in another folder."
            )
        return loaded

    def file(self, cell: Cell) -> Path:
        return self.folder / "fits" / f"{cell.digest}.safetensors"

    def result(self, cell: Cell) -> dict[str, Any]:
        begun = time.monotonic()
        return self.cells.make(
            cell,
            lambda one: COMPUTE[one.kind](self, one),
            lambda: {**provenance(), "wall_seconds": round(time.monotonic() - begun, 3)},
        )


def provenance() -> dict[str, Any]:
    """Where and with what a cell was made."""
    import torch

    return {
        "versions": {name: importlib.metadata.version(name) for name in PACKAGES},
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}",
        "threads": torch.get_num_threads(),
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }


@dataclass(eq=False)
class Failures:
    """Cells that could not be made: the others are made first, then this is told."""

    told: dict[Cell, str] = field(default_factory=dict)

    def add(self, cell: Cell) -> None:
        """The exception that is being handled."""
        self.told[cell] = traceback.format_exc()

    def require_none(self) -> None:
        if self.told:
            first = next(iter(self.told))
            raise RuntimeError(
                f"{len(self.told)} cells could not be made, all others were. They are tried again "
                f"at the next run. The first, {first}:\n{self.told[first]}"
            )


def work(
    folder: str | Path,
    shard: tuple[int, int] = (0, 1),
    *,
    shown: bool = False,
    threads: int | None = None,
) -> int:
    """Make what is left of a bench, or of one shard; how many cells this worker made.

    Any number of workers may do this at once in one folder.
    """
    import torch

    if threads is not None:
        torch.set_num_threads(threads)
    bench, made, failures = Bench.of(folder), 0, Failures()
    clear_drafts(bench.folder / "fits", again=True)  # of workers that were killed
    progress = Progress(bench.plan, shard) if shown else None
    while left := [c for c in bench.plan.left(shard) if c not in failures.told]:
        before = made
        for cell in left:
            try:
                bench.result(cell)
                made += 1
            except Busy:
                continue
            except Exception:  # whatever it is, the other cells are worth having
                failures.add(cell)
            if progress:
                progress.say(cell)
        if made == before:
            time.sleep(PAUSE)
    failures.require_none()
    return made


@dataclass(eq=False)
class Progress:
    """How many cells are done, by all workers together, and how long the rest will take."""

    plan: Plan
    shard: tuple[int, int]
    begun: float = field(default_factory=time.monotonic)
    said: float = 0.0
    first: int | None = None

    def say(self, cell: Cell) -> None:
        """A line, at most every half minute."""
        now = time.monotonic()
        if now - self.said < SAID_EVERY and self.said:
            return
        self.said = now
        total, left = self.plan.total(self.shard), len(self.plan.left(self.shard))
        named = len(self.plan.named(self.shard))
        done = named - left
        self.first = done - 1 if self.first is None else self.first
        each = (now - self.begun) / max(done - self.first, 1)
        print(
            f"bench: {done} of about {total} cells; about {each * (total - done) / 60:.0f} min "
            f"left; last {cell}",
            file=sys.stderr,
            flush=True,
        )
