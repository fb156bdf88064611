"""The cells of a bench: what each depends on, and on nothing else.

fit       a method on a task: a file beside the cell, its costs, and the strength that is its unit
write     completions of the questions of a split, steered, prompted or neither
odds      of a task of multiple choice: how likely each question's options are
judge     the scores of completions by a task's judges
scale     the scale of a likelihood judge, from training questions
effects   how near a run is to the prompted one, on the prompted answers of a split
spread    how unevenly the instruction pushes the tokens of its answers
side      what a method does to unrelated text, to knowledge, and to its own variety

A cell names the cells that it is made of whole, so its file tells how it came about.
"""

from typing import Any

from .catalogue import METHODS
from .cells import Cell
from .spec import Spec
from .tasks import CHOICE, Task

UNSTEERED, PROMPT, EQUIVALENT, NEUTRAL = "unsteered", "prompt", "equivalent", "neutral"
VERSIONS = {
    "fit": 1,
    "write": 1,
    "judge": 1,
    "scale": 1,
    "effects": 1,
    "side": 1,
    "spread": 1,
    "odds": 1,
}
"""Raise one where what such a cell holds is computed differently: its cells are then made anew."""


def _cell(kind: str, spec: Spec, task: Task, settings: dict[str, Any]) -> Cell:
    own = {"version": VERSIONS[kind], "model": spec.fingerprint, "task": task.name, **settings}
    loaded = spec.loading.as_json()
    if loaded:  # by itself it is left out: the cells of such a bench are named as they were
        own["loading"] = loaded
    return Cell(kind, own)


def write_cell(
    spec: Spec,
    task: Task,
    split: str,
    seed: int,
    source: str = UNSTEERED,
    *,
    fit: Cell | None = None,
    strength: float = 0.0,
) -> Cell:
    """Completions of the questions of a split.

    With a `fit` they are steered, at that many of its units; `source` then says whether the
    instruction is given as well.
    """
    given: dict[str, Any] = {
        "split": split,
        "seed": seed,
        "data": task.data(split),
        "source": source,
        "max_new_tokens": spec.max_new_tokens,
        "samples": spec.samples if split == "validation" else 1,
    }
    if fit is not None:
        given |= {"fit": fit.as_json(), "strength": strength}
    return _cell("write", spec, task, given)


def odds_cell(
    spec: Spec,
    task: Task,
    split: str,
    source: str = UNSTEERED,
    *,
    fit: Cell | None = None,
    strength: float = 0.0,
) -> Cell:
    """The odds of the options of a split. Nothing is sampled, so there is no seed but the fit's."""
    given: dict[str, Any] = {
        "split": split,
        "data": task.data(split),
        "source": source,
        "system": _system_of(task, source),
    }
    if fit is not None:
        given |= {"fit": fit.as_json(), "strength": strength}
    return _cell("odds", spec, task, given)


def _system_of(task: Task, source: str) -> str | None:
    listed = {EQUIVALENT: task.equivalents, NEUTRAL: task.neutral, PROMPT: (task.instruction,)}
    return next(iter(listed.get(source, ())), None)


def answer_cell(
    spec: Spec,
    task: Task,
    split: str,
    seed: int,
    source: str,
    *,
    fit: Cell | None = None,
    strength: float = 0.0,
) -> Cell:
    """What a task is scored by: completions, or the odds of options."""
    if task.judge == CHOICE:
        return odds_cell(spec, task, split, source, fit=fit, strength=strength)
    return write_cell(spec, task, split, seed, source, fit=fit, strength=strength)


def fit_cell(spec: Spec, task: Task, method: str, configuration: int, seed: int) -> Cell:
    """A fit; methods that share one have the same cell."""
    name = METHODS[method].fit_as or method
    given = {
        "method": name,
        "configuration": configuration,
        "seed": seed,
        "data": task.data("train"),
        "contrast": list(task.contrast or ()) if METHODS[name].needs == "contrast" else [],
        "examples": METHODS[name].examples or spec.examples,
        "max_new_tokens": spec.max_new_tokens,
    }
    return _cell("fit", spec, task, given)


def scale_cell(spec: Spec, task: Task) -> Cell:
    """The scale of the likelihood judge of a task."""
    facts = {k: list(v) if isinstance(v, tuple) else v for k, v in task.facts.items()}
    given = {"data": task.data("train"), "facts": facts, "max_new_tokens": spec.max_new_tokens}
    return _cell("scale", spec, task, given)


def judge_cell(spec: Spec, written: Cell, by: Task) -> Cell:
    """The scores that the judges of a task give to completions."""
    scale = scale_cell(spec, by).as_json() if by.judge == "likelihood" else None
    return _cell("judge", spec, by, {"of": written.as_json(), "words": by.words, "scale": scale})


def effects_cell(
    spec: Spec,
    task: Task,
    split: str,
    seed: int,
    *,
    fit: Cell | None = None,
    strength: float | str = 0.0,
    reference: str | None = None,
) -> Cell:
    """How near to the prompted run: a fit at a strength, or a reference (other instructions).

    A strength is in units of the fit; "as fitted" is the steering as it came from its method.
    """
    given: dict[str, Any] = {
        "pairs": write_cell(spec, task, split, seed, PROMPT).as_json(),
        "seed": seed,
        "split": split,
    }
    if fit is not None:
        given |= {"fit": fit.as_json(), "strength": strength}
    else:
        kept = task.equivalents if reference == EQUIVALENT else task.neutral
        given |= {"reference": reference, "instructions": list(kept)}
    return _cell("effects", spec, task, given)


def steered_cell(
    spec: Spec, task: Task, method: str, configuration: int, seed: int, split: str, strength: float
) -> Cell:
    """The scores of a method at a strength."""
    fit, source = _steered_by(spec, task, method, configuration, seed)
    answered = answer_cell(spec, task, split, seed, source, fit=fit, strength=strength)
    return judge_cell(spec, answered, task)


def written_cell(
    spec: Spec, task: Task, method: str, configuration: int, seed: int, split: str, strength: float
) -> Cell:
    """The completions of a method at a strength."""
    fit, source = _steered_by(spec, task, method, configuration, seed)
    return write_cell(spec, task, split, seed, source, fit=fit, strength=strength)


def _steered_by(
    spec: Spec, task: Task, method: str, configuration: int, seed: int
) -> tuple[Cell, str]:
    """The fit of a method, and whether the instruction is given as well."""
    source = PROMPT if METHODS[method].prompted else UNSTEERED
    return fit_cell(spec, task, method, configuration, seed), source


def spread_cell(spec: Spec, task: Task, seed: int, baseline: str) -> Cell:
    """The push of the instruction on its answers to test questions, against a baseline."""
    pairs = write_cell(spec, task, "test", seed, PROMPT).as_json()
    return _cell("spread", spec, task, {"pairs": pairs, "seed": seed, "baseline": baseline})


def side_cell(spec: Spec, task: Task, written: Cell) -> Cell:
    """The side effects of what wrote these completions: a fit at a strength, or nothing."""
    given = {key: written[key] for key in ("fit", "strength") if key in written.settings}
    return _cell("side", spec, task, {"of": written.as_json(), **given})


def baseline_cell(spec: Spec, task: Task, source: str, seed: int, split: str) -> Cell:
    """The scores without a method: unsteered, prompted, in other words, or a null."""
    return judge_cell(spec, answer_cell(spec, task, split, seed, source), task)
