"""What a bench is made of: the model, the attributes, the methods, and how all are tuned.

It is written to `bench.json` when the folder is made; every worker reads it there.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from steerlens.digests import require_signed, signed
from steerlens.parsing import parse_json
from steerlens.whole import write_whole

from .catalogue import LAYERS, STANDARD, require_methods
from .cells import FORMAT
from .tasks import DEMO_ATTRIBUTES, SMOLLM2, SPLITS, Task, demo_tasks, read_tasks

RULES = ("harmonic", "C80", "equal KL")
FACTORS = (0.5, 0.71, 1.0, 1.41, 2.0, 2.83)
"""Strengths that are tried: 1 is the strength with the prompt's own KL on training answers."""
FILE, TASKS = "bench.json", "tasks.json"
FIXED = ("model", "fingerprint", "data")
"""What all cells of a folder have in common; the rest may be asked for otherwise, and later."""


@dataclass(frozen=True)
class Spec:
    """All that results depend on, except what is fitted and computed how (`cells.FORMAT`).

    `most` is the number of questions of each split that are used, and `examples` that of training
    questions that a seed draws (None: all). `seeds` are drawn for fits and for samples; strengths
    and configurations are chosen with seed 0 on validation questions, and used for all seeds.
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

    def __post_init__(self) -> None:
        require_methods(self.methods)
        for name, least in (("seeds", 1), ("configurations", 1), ("samples", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be at least {least}; found {getattr(self, name)}.")
        if self.configurations > len(LAYERS):
            raise ValueError(
                f"A method has at most {len(LAYERS)} configurations; asked for "
                f"{self.configurations}."
            )
        if not self.factors or not all(0 < factor < math.inf for factor in self.factors):
            raise ValueError(f"The factors must be numbers above 0; found {list(self.factors)}.")
        unknown = sorted(set(self.rules) - set(RULES))
        if unknown or not self.rules:
            raise ValueError(
                f"A strength is chosen by {', '.join(RULES)}; asked for "
                f"{', '.join(unknown) or 'none of them'}."
            )

    def tasks(self, folder: Path | None = None) -> dict[str, Task]:
        """The attributes by name, with as many questions as are used."""
        limits: dict[str, int | None] = dict(zip(SPLITS, self.most, strict=True))
        if self.data == "demo":
            known = demo_tasks(self.attributes or DEMO_ATTRIBUTES)
        else:
            known = read_tasks(self._file(folder))
        by_name = {task.name: _limited(task, limits) for task in known}
        unknown = [name for name in self.attributes if name not in by_name]
        if unknown:
            raise ValueError(
                f"No attribute is called {', '.join(unknown)}. There are {', '.join(by_name)}."
            )
        return {name: by_name[name] for name in self.attributes or by_name}

    def as_json(self) -> dict[str, Any]:
        """Plain JSON, with lists for tuples."""
        return json.loads(json.dumps(asdict(self)))

    def _file(self, folder: Path | None) -> Path:
        copied = None if folder is None else folder / TASKS
        if copied is not None and copied.exists():
            return copied
        return SMOLLM2 if self.data == "smollm2" else Path(self.data)


def _limited(task: Task, most: Mapping[str, int | None]) -> Task:
    return replace(
        task,
        questions={split: given[: most[split]] for split, given in task.questions.items()},
        answers={split: given[: most[split]] for split, given in task.answers.items()},
    )


def write_spec(spec: Spec, folder: Path) -> tuple[str, ...]:
    """Make the folder of a bench, or change what one asks for; the settings that changed.

    Cells that are there and still asked for are not made again. ValueError where the folder is
    about another model or other data.
    """
    path, changed = folder / FILE, ()
    if path.exists():
        found = read_spec(folder)
        changed = tuple(
            f.name for f in fields(Spec) if getattr(found, f.name) != getattr(spec, f.name)
        )
        fixed = [name for name in FIXED if name in changed]
        if fixed:
            said = "; ".join(
                f"{name} is {getattr(found, name)!r} there and {getattr(spec, name)!r} now"
                for name in fixed
            )
            raise ValueError(f"{folder} holds another bench: {said}. Name another folder.")
    folder.mkdir(parents=True, exist_ok=True)
    if spec.data != "demo" and not (folder / TASKS).exists():
        write_whole(folder / TASKS, spec._file(None).read_bytes())
    text = json.dumps(signed({"format": FORMAT, **spec.as_json()}), indent=1)
    write_whole(path, text.encode())
    return changed


def read_spec(folder: Path) -> Spec:
    """The bench of a folder; ValueError where there is none."""
    path = folder / FILE
    try:
        fields_ = {"format", *(item.name for item in fields(Spec))}
        content = parse_json(path.read_text(encoding="utf-8"))
        given = require_signed(content, fields_, unsigned=True)
        found = given.pop("format")
    except FileNotFoundError as error:
        raise ValueError(
            f"{folder} holds no bench: {FILE} is not there. `steerlens bench plan --out {folder}` "
            "makes one."
        ) from error
    except (OSError, ValueError, KeyError) as error:
        raise ValueError(
            f"{path} is damaged, or was changed ({error}). Delete it and plan again: the cells "
            "that are done stay."
        ) from error
    if found != FORMAT:
        raise ValueError(f"{path} has format {found}; this version reads {FORMAT}.")
    try:
        return spec_from(given)
    except TypeError as error:
        raise ValueError(f"{path} holds what no bench is made of ({error}).") from error


def spec_from(given: Mapping[str, Any]) -> Spec:
    """The settings that `Spec.as_json` wrote."""
    listed: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in given.items()}
    return Spec(**listed)
