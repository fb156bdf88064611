"""The resumable part of a study: every result is a small JSON file, made once.

A *cell* is a function of this study called with plain arguments, such as
`fit("positive", "S-PSR_MSE", 1, 0)`. Its result is kept under its name and arguments in the work
folder; a second run of the command makes what is missing and reads the rest. The folder remembers
what it was made with, so results of two models or two sets of options cannot mix.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Arguments = tuple[str | int | float, ...]


@dataclass(frozen=True)
class Cells:
    """The results of a study in a work folder; `begin(options)` readies a process for them."""

    folder: Path
    about: Mapping[str, Any]
    begin: Callable[[Any], None]
    options: Any

    def open(self) -> None:
        """Make the folder, or check that it belongs to this study."""
        self.folder.mkdir(parents=True, exist_ok=True)
        path, mine = self.folder / "about.json", json.loads(json.dumps(self.about))
        if not path.exists():
            _write(path, mine)
        found = json.loads(path.read_text(encoding="utf-8"))
        if found != mine:
            changed = sorted(key for key in {*found, *mine} if found.get(key) != mine.get(key))
            raise SystemExit(
                f"{self.folder} holds results with other {', '.join(changed)} "
                f"({[found.get(key) for key in changed]}) than now "
                f"({[mine.get(key) for key in changed]}). Name another --work-dir."
            )

    def path(self, name: str, arguments: Arguments) -> Path:
        """Where a result is kept."""
        return self.folder / name / ("_".join(str(part) for part in arguments) + ".json")

    def get(self, name: str, *arguments: str | int | float) -> Any:
        """A result that has been made."""
        return json.loads(self.path(name, arguments).read_text(encoding="utf-8"))

    def make(
        self, cell: Callable[..., Any], all_arguments: Iterable[Arguments], workers: int
    ) -> None:
        """Make the results that are missing, `workers` at a time; each is kept at once."""
        name = cell.__name__
        missing = [args for args in all_arguments if not self.path(name, args).exists()]
        if not missing:
            return
        started, n = time.monotonic(), len(missing)
        failure: BaseException | None = None
        spawning = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(workers, spawning, self.begin, (self.options,)) as pool:
            waiting = {pool.submit(_timed, cell, args): args for args in missing}
            for done, future in enumerate(as_completed(waiting), start=1):
                if future.exception() is not None:  # the others' results are kept first
                    failure = failure or future.exception()
                    continue
                result, seconds = future.result()
                _write(self.path(name, waiting[future]), result)
                passed = time.monotonic() - started
                print(
                    f"{name} {done}/{n} {' '.join(map(str, waiting[future]))}: {seconds:.0f} s; "
                    f"about {passed / done * (n - done) / 60:.0f} min left",
                    file=sys.stderr,
                    flush=True,
                )
        if failure is not None:
            raise failure


def _timed(cell: Callable[..., Any], arguments: Arguments) -> tuple[Any, float]:
    started = time.monotonic()
    return cell(*arguments), time.monotonic() - started


def _write(path: Path, result: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_suffix(".part")
    draft.write_text(json.dumps(result), encoding="utf-8")
    os.replace(draft, path)
