"""The card of a published steering: what it is, what it is for, how good it was found to be."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PureWindowsPath
from typing import Any, TypeAlias

from steerlens.combinators import Only, Scaled, innermost
from steerlens.identity import ModelIdentity, Origin
from steerlens.parsing import few, harmless, short
from steerlens.steering import Steering

FILE = "steering.safetensors"
TAGS = ("steerlens", "activation-steering")
COLUMNS = ("layer", "relative_rmse")
"""Columns of a table of `analysis.faithfulness`."""
Measured: TypeAlias = Any
"""Numbers by name, a table of `analysis.faithfulness`, or its rows as dictionaries."""


@dataclass(frozen=True)
class Published:
    """What a card says beyond what is in the file. `base_model` is a name on the hub."""

    repo: str
    base_model: str | None = None
    licence: str | None = None
    faithfulness: tuple[tuple[str, float], ...] = ()
    measured_on: str = ""
    datasets: tuple[str, ...] = ()
    files: tuple[str, ...] = ()


def card_of(steering: Steering, origin: Origin, about: Published) -> str:
    """The card as Markdown, its facts in front of it as YAML."""
    methods = methods_of(steering)
    parts = [
        f"---\n{_yaml(_facts(methods, about))}---",
        f"# {about.repo.partition('/')[2]}",
        f"A steering of the activations of {_model(origin.model, about)}: {' + '.join(methods)}. "
        "It changes no weight: the package steerlens makes the change while the model runs.",
        "```python\nimport steerlens as sl\n\n"
        f"model = sl.load({json.dumps(about.base_model or 'the base model')})\n"
        f"steering = sl.load_steering(sl.pull({json.dumps(about.repo)}).file, model)\n"
        'print(sl.generate(model, ["Hello"], steering))\n```',
        "Name the revision to get this very file later: "
        f"`sl.pull({json.dumps(about.repo + '@COMMIT')})`.",
        "## What it is",
        _table(("fact", "value"), _rows(steering, origin, about)),
    ]
    if about.faithfulness:
        rows = [(name, f"{value:.4g}") for name, value in about.faithfulness]
        on = f" Measured on: {_plain(about.measured_on)}." if about.measured_on else ""
        parts += ["## Faithfulness", f"As whoever published it measured it.{on}"]
        parts += [_table(("measure", "value"), rows)]
    if about.licence is None:
        parts += [
            "## Licence",
            "None is given. Ask the owner before you use it for more than a look.",
        ]
    return "\n\n".join(parts) + "\n"


def methods_of(steering: Steering) -> list[str]:
    """The names of the methods' classes, each once."""
    names = [type(innermost(steer)).__name__ for _, steer in steering.placed]
    return list(dict.fromkeys(names))


def measured_of(given: Measured) -> tuple[tuple[str, float], ...]:
    """What was measured as (name, number); ValueError for what is none, or of several methods."""
    if given is None:
        return ()
    if hasattr(given, "to_dict"):  # a table
        given = given.to_dict("records")
    if isinstance(given, Mapping):
        return tuple((str(name), _number(name, value)) for name, value in given.items())
    rows = list(given) if isinstance(given, Iterable) and not isinstance(given, type) else []
    if not rows or not all(isinstance(row, Mapping) and set(COLUMNS) <= set(row) for row in rows):
        raise ValueError(
            "faithfulness= is {name: number}, or a table of analysis.faithfulness with the columns "
            f"{', '.join(COLUMNS)}; found {short(given)}."
        )
    methods = list(dict.fromkeys(str(row.get("method", "")) for row in rows))
    if len(methods) > 1:
        raise ValueError(
            f"The table of faithfulness holds {len(methods)} methods ({few(methods)}). Choose the "
            "rows of the one that is published."
        )
    return tuple((_named(row), _number(_named(row), row["relative_rmse"])) for row in rows)


def _named(row: Mapping[str, Any]) -> str:
    strength = f", strength {row['strength']}" if row.get("strength") not in (None, "") else ""
    return f"relative RMSE, layer {row['layer']}{strength}"


def _number(name: Any, value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError) as error:
        raise ValueError(f"What was measured as {name!r} is no number: {short(value)}.") from error


def public_name(name: str) -> str:
    """A model's name without the folders of this machine, which say who works on it."""
    if not name:
        return ""
    path = Path(name).expanduser()
    local = path.is_absolute() or name.startswith((".", "~")) or "\\" in name or path.exists()
    return PureWindowsPath(name).name or "a local model" if local else name


def _facts(methods: Sequence[str], about: Published) -> dict[str, Any]:
    facts: dict[str, Any] = {"library_name": "steerlens"}
    if about.base_model is not None:
        facts |= {"base_model": about.base_model, "base_model_relation": "adapter"}
    if about.licence is not None:
        facts["license"] = about.licence
    facts["tags"] = [*TAGS, *(name.lower() for name in methods)]
    if about.datasets:
        facts["datasets"] = list(about.datasets)
    if about.faithfulness:
        metrics = [
            {"type": "faithfulness", "name": name, "value": value}
            for name, value in about.faithfulness
        ]
        dataset = {"type": "text", "name": about.measured_on or "the publisher's own texts"}
        task = {"type": "text-generation"}
        results = [{"task": task, "dataset": dataset, "metrics": metrics}]
        facts["model-index"] = [{"name": about.repo.partition("/")[2], "results": results}]
    return facts


def _yaml(facts: Mapping[str, Any]) -> str:
    """The facts as YAML, of which JSON is a part: no text of a name becomes a command of YAML."""
    return "".join(
        f"{name}: {json.dumps(value, allow_nan=False)}\n" for name, value in facts.items()
    )


def _rows(steering: Steering, origin: Origin, about: Published) -> list[tuple[str, str]]:
    model = origin.model
    named = public_name(model.name) or "not recorded"
    rows = [
        *((f"placed at {site}", _steer(steer)) for site, steer in steering.placed),
        ("fitted on", f"{named}, {model.n_layers} layers of width {model.d_model}"),
        ("fingerprint of its weights", f"`{model.fingerprint}`"),
        ("processing of its weights", model.processing),
        ("seed, digest of the data", f"{origin.seed}, {origin.data or 'not recorded'}"),
    ]
    if model.made_of:
        rows.append(("its weights were unpacked from", public_name(model.made_of)))
    return [*rows, *(("also here", f"`{name}`") for name in about.files)]


def _steer(steer: Any) -> str:
    """A steer in words: its class, its strength, its scope."""
    strength, scopes = 1.0, list[str]()
    while isinstance(steer, Scaled | Only):
        strength *= steer.strength if isinstance(steer, Scaled) else 1.0
        scopes += [str(steer.scope)] if isinstance(steer, Only) else []
        steer = steer.steer
    where = f", on the tokens of {' and '.join(scopes)}" if scopes else ", on every token"
    return f"{type(steer).__name__}, strength {strength:.6g}{where}"


def _model(model: ModelIdentity, about: Published) -> str:
    return _plain(about.base_model or public_name(model.name) or "a model without a name")


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(map(_plain, line))} |" for line in lines)


def _plain(text: str) -> str:
    """A text that fits into one cell of a table and is no markup of its own."""
    return " ".join(harmless(text).split()).replace("|", "\\|").replace("<", "&lt;")
