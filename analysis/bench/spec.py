"""What a bench is made of: the model, the attributes, the methods, and how all are tuned.

It is written to `bench.json` when the folder is made; every worker reads it there.
"""

import json
from collections.abc import Collection, Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from steerlens.checks import require_count
from steerlens.digests import require_signed, signed
from steerlens.kinds import require_fields
from steerlens.parsing import few, parse_json
from steerlens.whole import require_place, write_whole

from .catalogue import LAYERS, STANDARD, require_methods
from .cells import FORMAT, digest_of
from .loading import Loading
from .tasks import (
    DEMO_ATTRIBUTES,
    SMOLLM2,
    SPLITS,
    Task,
    demo_tasks,
    read_tasks,
    text_of_tasks,
)

RULES = ("harmonic", "C80", "equal KL")
FACTORS = (0.5, 0.71, 1.0, 1.41, 2.0, 2.83)
"""Strengths that are tried: 1 is the strength with the prompt's own KL on training answers."""
FILE, TASKS = "bench.json", "tasks.json"
FIXED = ("model", "fingerprint", "data")
"""What all cells of a folder have in common, with how the model is loaded; the rest may be asked
for otherwise, and later."""
BUILT_IN = ("demo", "smollm2")
LIMITS = {
    "seeds": 1000,
    "configurations": len(LAYERS),
    "samples": 10_000,
    "examples": 1_000_000,
    "max_new_tokens": 100_000,
}
"""The most of what is counted: beyond it a plan alone would take hours, and no run would end."""
MOST_QUESTIONS = 1_000_000
FACTOR_RANGE = (1e-4, 1e4)
"""In float32 there is nothing to see of weaker steering, and nothing but overflow of stronger."""
MAY_LACK = ("loading", "data_digest")
"""What is left out of the file where it is as it is by itself."""


@dataclass(frozen=True)
class Spec:
    """All that results depend on, except what is fitted and computed how (`cells.FORMAT`).

    `most` is the number of questions of each split that are used, and `examples` that of training
    questions that a seed draws (None: all). `seeds` are drawn for fits and for samples; strengths
    and configurations are chosen with seed 0 on validation questions, and used for all seeds.
    `data_digest` is that of the tasks that the folder holds; "" where they come along.
    """

    model: str = "demo"
    fingerprint: str = ""
    data: str = "demo"
    attributes: tuple[str, ...] = ()
    methods: tuple[str, ...] = STANDARD
    seeds: int = 3
    configurations: int = 1
    factors: tuple[float, ...] = FACTORS
    rules: tuple[str, ...] = RULES
    most: tuple[int | None, int | None, int | None] = (None, None, None)
    samples: int = 1
    examples: int | None = None
    max_new_tokens: int = 48
    loading: Loading = field(default_factory=Loading)
    data_digest: str = ""

    def __post_init__(self) -> None:
        require_fields(self)
        for name in ("attributes", "methods", "factors", "rules"):  # asked for twice is once
            object.__setattr__(self, name, tuple(dict.fromkeys(getattr(self, name))))
        require_methods(self.methods)
        counts: dict[str, int | None] = {name: getattr(self, name) for name in LIMITS}
        counts |= {f"{split} questions": n for split, n in zip(SPLITS, self.most, strict=True)}
        for name, found in counts.items():
            if found is not None:
                require_count(name, found, LIMITS.get(name, MOST_QUESTIONS))
        low, high = FACTOR_RANGE
        if not self.factors or not all(low <= factor <= high for factor in self.factors):
            raise ValueError(
                f"The factors must be numbers from {low} to {high}; found {few(self.factors)}."
            )
        unknown = sorted(set(self.rules) - set(RULES))
        if unknown or not self.rules:
            raise ValueError(
                f"A strength is chosen by {', '.join(RULES)}; asked for "
                f"{', '.join(unknown) or 'none of them'}."
            )

    def tasks(self, folder: Path | None = None, text: str | None = None) -> dict[str, Task]:
        """The attributes by name, with as many questions as are used.

        Data of its own are those that the folder holds; before there is one, `text` or the file.
        """
        limits: dict[str, int | None] = dict(zip(SPLITS, self.most, strict=True))
        if folder is not None and text is None:
            self._require_unchanged(folder / TASKS)
        if self.data == "demo":
            known = demo_tasks(self.attributes or DEMO_ATTRIBUTES)
        else:
            known = read_tasks(self.file(folder) if text is None else self.data, text)
        by_name = {task.name: _limited(task, limits) for task in known}
        unknown = [name for name in self.attributes if name not in by_name]
        if unknown:
            raise ValueError(
                f"No attribute is called {', '.join(map(repr, unknown))}. There are "
                f"{', '.join(map(repr, by_name))}."
            )
        return {name: by_name[name] for name in self.attributes or by_name}

    def _require_unchanged(self, path: Path) -> None:
        """ValueError where a folder's tasks are others than when it was planned."""
        if not self.data_digest:
            return
        try:
            same = digest_of(parse_json(text_of_tasks(path))) == self.data_digest
        except ValueError:
            same = False
        if not same:
            raise ValueError(
                f"{path} was changed after the bench was planned, or is damaged: what is done is "
                f"about other questions. Put it back (`steerlens bench plan` with the same --data "
                "does so, if you delete it), or plan another bench in another folder."
            )

    def as_json(self) -> dict[str, Any]:
        """Plain JSON, with lists for tuples; of how the model is loaded, what is out of the way."""
        content = json.loads(json.dumps({**asdict(self), "loading": self.loading.as_json()}))
        return {k: v for k, v in content.items() if v or k not in MAY_LACK}

    def file(self, folder: Path | None) -> Path:
        """Where the tasks are read: in the folder of the bench, once there is one."""
        copied = None if folder is None else folder / TASKS
        if copied is not None and copied.exists():
            return copied
        return SMOLLM2 if self.data == "smollm2" else Path(self.data)


def _limited(task: Task, most: Mapping[str, int | None]) -> Task:
    return replace(
        task,
        questions={split: given[: most[split]] for split, given in task.questions.items()},
        answers={split: given[: most[split]] for split, given in task.answers.items()},
        options={split: given[: most[split]] for split, given in task.options.items()},
    )


def digest_of_tasks(text: str | None) -> str:
    """Of tasks as JSON; "" for none."""
    return "" if text is None else digest_of(parse_json(text))


def tasks_text(spec: Spec, folder: Path, text: str | None = None) -> str | None:
    """The tasks of a bench as JSON, before its folder holds them; None for those that come along.

    `text` is what was made of other data. ValueError where the folder holds a bench of other tasks.
    """
    copied, own = folder / TASKS, Path(spec.data)
    if spec.data in BUILT_IN:
        return None
    if text is None:
        text = text_of_tasks(own if own.exists() or not copied.exists() else copied)
    there = text_of_tasks(copied) if copied.exists() and _holds_bench(folder) else text
    if there != text and parse_json(there) != parse_json(text):
        raise ValueError(
            f"{folder} holds a bench of other tasks than those of {spec.data}, which was "
            "changed since, or is another file. Name another folder; what is there goes on "
            "without a plan, by `steerlens bench run`."
        )
    return text


def _holds_bench(folder: Path) -> bool:
    """Whether a bench was planned here; tasks alone are what a plan that failed left behind."""
    return (folder / FILE).exists() or (folder / "cells").exists()


def write_spec(spec: Spec, folder: Path, tasks: str | None = None) -> tuple[str, ...]:
    """Make the folder of a bench, or change what one asks for; the settings that changed.

    Cells that are there and still asked for are not made again. ValueError where the folder is
    about another model or other data. `tasks` are those of `tasks_text`.
    """
    changed = require_same(spec, folder, FIXED)
    require_folder(folder)
    folder.mkdir(parents=True, exist_ok=True)
    if spec.data != "demo" and (tasks is not None or not (folder / TASKS).exists()):
        written = spec.file(None).read_bytes() if tasks is None else tasks.encode()
        write_whole(folder / TASKS, written)
    text = json.dumps(signed({"format": FORMAT, **spec.as_json()}), indent=1)
    write_whole(folder / FILE, text.encode())
    return changed


def require_folder(folder: Path) -> None:
    """ValueError where this is no folder, or none that can be written to."""
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"--out names the folder of a bench, and {folder} is a file.")
    above = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    require_place(above / FILE)


def require_same(spec: Spec, folder: Path, names: Collection[str]) -> tuple[str, ...]:
    """The settings in which a folder's bench, if it has one, is another; ValueError for these."""
    if not (folder / FILE).exists():
        return ()
    found = read_spec(folder)
    there, now = (dict(_flat(one)) for one in (found, spec))
    said = [
        f"{name} is {there[name]!r} there and {now[name]!r} now"
        for name in now
        if there[name] != now[name] and (name in names or name not in Spec.__dataclass_fields__)
    ]
    if said:
        raise ValueError(f"{folder} holds another bench: {'; '.join(said)}. Name another folder.")
    return tuple(
        f.name
        for f in fields(Spec)
        if f.name != "data_digest" and getattr(found, f.name) != getattr(spec, f.name)
    )


def _flat(spec: Spec) -> Iterator[tuple[str, Any]]:
    """The settings by name, with how the model is loaded among them."""
    yield from ((f.name, getattr(spec, f.name)) for f in fields(Spec) if f.name != "loading")
    yield from ((f.name, getattr(spec.loading, f.name)) for f in fields(Loading))


def read_spec(folder: Path) -> Spec:
    """The bench of a folder; ValueError where there is none."""
    path = folder / FILE
    try:
        content = parse_json(path.read_text(encoding="utf-8"))
        fields_ = {"format", *(item.name for item in fields(Spec))}
        if isinstance(content, dict):
            fields_ -= {name for name in MAY_LACK if name not in content}
        given = require_signed(content, fields_, unsigned=True)
        found = given.pop("format")
    except FileNotFoundError as error:
        raise ValueError(
            f"{folder} holds no bench: {FILE} is not there. `steerlens bench plan --out {folder}` "
            "makes one."
        ) from error
    except NotADirectoryError as error:
        raise ValueError(f"--out names the folder of a bench, and {folder} is a file.") from error
    except (OSError, ValueError, KeyError) as error:
        raise ValueError(
            f"{path} is damaged, or was changed ({error}). Delete it and plan again: the cells "
            "that are done stay."
        ) from error
    if found != FORMAT:
        raise ValueError(f"{path} has format {found}; this version reads {FORMAT}.")
    try:
        return spec_from(given)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path} holds what no bench is made of ({error}).") from error


def spec_from(given: Mapping[str, Any]) -> Spec:
    """The settings that `Spec.as_json` wrote; TypeError or ValueError for others."""
    listed: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in given.items()}
    return Spec(**{**listed, "loading": Loading(**given.get("loading", {}))})
