"""The workers of a bench: each makes the cells that are left until none is."""

import hashlib
import importlib.metadata
import platform
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import steerlens
from steerlens.identity import fingerprint
from steerlens.types import HookedModel
from steerlens.whole import clear_drafts, write_whole

from . import effects, fitting, judging, odds, side, spread, writing
from .cells import Busy, Cell, Cells
from .collect import Collected
from .kinds import UNSTEERED, baseline_cell
from .maker import Maker
from .plan import CHOSEN_WITH, VALIDATION, Plan
from .room import require_room
from .spec import (
    Spec,
    digest_of_tasks,
    read_spec,
    require_folder,
    require_same,
    tasks_text,
    write_spec,
)
from .tasks import Task
from .warned import KEY, Warned

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
    made: set[str] = field(default_factory=set[str], repr=False)
    """Digests of the cells that this worker made."""
    failed: dict[str, str] = field(default_factory=dict[str, str], repr=False)
    """Those that it could not make, with the reason: what they are for need not try them again."""
    warned: Warned = field(default_factory=Warned, repr=False)

    @classmethod
    def of(cls, folder: str | Path) -> "Bench":
        """The bench of a folder; ValueError where there is none."""
        return cls(Path(folder), read_spec(Path(folder)))

    @classmethod
    def planned(cls, folder: str | Path, spec: Spec, tasks: str | None = None) -> "Bench":
        """A new bench, or the same one again; `tasks` as JSON where `spec.data` are no tasks.

        The model is loaded once, to write down which it is, and to see that it can take every
        question. ValueError where it cannot, or where the folder holds another bench.
        """
        folder = Path(folder)  # what is wrong is told before the model is loaded, where it can be
        require_folder(folder)
        require_same(spec, folder, ("model", "data"))
        text = tasks_text(spec, folder, tasks)
        known = spec.tasks(folder, text)
        model = spec.loading.load(spec.model)
        require_room(model, known.values(), spec.max_new_tokens)
        digest = digest_of_tasks(text)
        spec = replace(spec, fingerprint=fingerprint(model), data_digest=digest)
        write_spec(spec, folder, text)
        return cls(folder, spec)

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
        with self.warned.kept():  # shown, but no matter of the cell that needs the model first
            loaded = self.spec.loading.load(self.spec.model)
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
        if cell.digest in self.failed:
            raise Again(self.failed[cell.digest])
        begun = time.monotonic()
        try:
            return self.cells.make(
                cell,
                self._made_now,
                lambda: {**provenance(), "wall_seconds": round(time.monotonic() - begun, 3)},
            )
        except Busy:
            raise
        except Exception as error:  # whatever it is, it would be the same for the next that asks
            self.failed[cell.digest] = reason_of(error)
            raise

    def _require_judged(self, task: str) -> None:
        """Again unless the unsteered model's answers have scores: a fit may take hours."""
        plain = baseline_cell(self.spec, self.tasks[task], UNSTEERED, CHOSEN_WITH, VALIDATION)
        try:
            self.result(plain)
        except Busy:
            raise
        except Exception as error:  # then nothing could be said of the fit
            raise Again(reason_of(error)) from error

    def _made_now(self, cell: Cell) -> dict[str, Any]:
        if cell.kind == "fit":
            self._require_judged(cell["task"])
        with self.warned.kept() as said:
            made = COMPUTE[cell.kind](self, cell)
        self.made.add(cell.digest)
        return made | {KEY: sorted(said)} if said else made


@cache
def code() -> str:
    """A digest of the code of both packages: cells with another were made by other code."""
    digest = hashlib.sha256()
    for package in (Path(steerlens.__file__).parent, Path(__file__).parents[1]):
        for path in sorted(package.rglob("*.py")):
            digest.update(f"{path.relative_to(package)}\n".encode() + path.read_bytes())
    return digest.hexdigest()[:16]


def provenance() -> dict[str, Any]:
    """Where and with what a cell was made."""
    import torch

    return {
        "versions": {name: importlib.metadata.version(name) for name in PACKAGES},
        "code": code(),
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}",
        "threads": torch.get_num_threads(),
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }


class Again(RuntimeError):
    """A cell that this worker could not make before is needed by another one."""


def reason_of(error: Exception) -> str:
    """An exception in a line, or that of the cell that it is about."""
    return str(error) if isinstance(error, Again) else f"{type(error).__name__}: {error}"


@dataclass(eq=False)
class Failures:
    """Cells that could not be made: the others are made first, then this is told."""

    file: Path
    told: dict[Cell, str] = field(default_factory=dict)
    traces: dict[str, str] = field(default_factory=dict)

    def add(self, cell: Cell, error: Exception) -> None:
        """The exception that is being handled."""
        self.told[cell] = reason_of(error)
        self.traces.setdefault(self.told[cell], f"{cell}\n{traceback.format_exc()}")

    def require_none(self) -> None:
        """RuntimeError with every reason, once; the tracebacks are in a file."""
        if not self.told:
            self.file.unlink(missing_ok=True)  # of a run before
            return
        cells = list(self.told)
        of = {why: [cell for cell in cells if self.told[cell] == why] for why in self.traces}
        why = "; ".join(
            f"{reason.rstrip('.')} ({len(these)} of them, the first: {these[0]})"
            for reason, these in of.items()
        )
        write_whole(self.file, "\n".join(self.traces.values()).encode(errors="replace"))
        raise RuntimeError(
            f"{len(cells)} cell{'s' * (len(cells) != 1)} could not be made, all others were. They "
            f"are tried again at the next run. Why: {why}. Where: {self.file}."
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
    bench, made = Bench.of(folder), 0
    require_folder(bench.folder)
    failures = Failures(bench.folder / f"failures-{shard[0]}-of-{shard[1]}.txt")
    clear_drafts(bench.folder / "fits", again=True)  # of workers that were killed
    progress = Progress(bench.plan, shard) if shown else None
    while left := [c for c in bench.plan.left(shard) if c not in failures.told]:
        idle = True
        for cell in left:
            try:
                bench.result(cell)
                idle, made = False, made + (cell.digest in bench.made)  # or another made it
            except Busy:
                continue
            except Exception as error:  # whatever it is, the other cells are worth having
                failures.add(cell, error)
            if progress:
                progress.say(cell)
        if idle:
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
