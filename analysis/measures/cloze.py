"""Knowledge items made of any encyclopedia text: what the sentence says next, among four answers.

An item is the beginning of a text up to a *target*, and *distractors*: targets of the same kind of
other texts. The kinds are

    name   one or more capitalised words inside a sentence ("Indian Ocean", "Paris")
    word   a content word of six letters or more that is rare among the texts

The target is not in the text before it, and no distractor is in its text. The word before all
answers to an item is the same in their own texts, and they have as many words and, where they are
of the kind "word", the same last letter: so grammar alone seldom tells which is right. A model
answers with the candidate whose tokens have the highest mean log-probability after the beginning:

    score(c) = (1 / n) sum_t log p(c_t | beginning, c_<t)        correct: target above all others
    margin   = score(target) - max score(distractor)

Chance is 1 / (1 + number of distractors). Items are taken as they come and never chosen by what a
model knows, so they hold what a model may know and what it can guess from the topic.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd

from steerlens.baselines.weights import Change
from steerlens.checks import warn_if_few
from steerlens.digests import require_signed, signed
from steerlens.parsing import parse_json, text_of_input
from steerlens.prompts import Encoded, encode, with_response
from steerlens.types import HookedModel
from steerlens.whole import write_whole

from .changes import UNSTEERED, Changes, named
from .intervals import interval_of_mean
from .texts import Predicted

Kind = Literal["name", "word"]
BATCH = 16
FROZEN = Path(__file__).resolve().parents[1] / "bench" / "data" / "cloze.json"


@dataclass(frozen=True)
class Cloze:
    """The beginning of a text, how it goes on, and how others do. `source` is the text's title."""

    before: str
    target: str
    distractors: tuple[str, ...]
    kind: Kind
    source: str = ""

    @property
    def candidates(self) -> tuple[str, ...]:
        """The answers, the right one first."""
        return (self.target, *self.distractors)

    @property
    def chance(self) -> float:
        """The share that is right by guessing."""
        return 1 / len(self.candidates)


def cloze_scores(model: HookedModel, steering: Changes, items: Sequence[Cloze]) -> pd.DataFrame:
    """One row per method and item.

    Columns: method, item, kind, correct, margin, score_target, score_distractor (the best one's;
    all in nats a token), chance. The beginning is the prompt of a steering's scopes, as raw text,
    and the candidate its response.
    """
    if not items:
        raise ValueError("No items were given. cloze_items(texts, n) makes some.")
    tables = [
        cloze_answers(model, change, items).assign(method=name)
        for name, change in named(steering).items()
    ]
    found = pd.concat(tables, ignore_index=True)
    return found[["method", *(column for column in found.columns if column != "method")]]


def cloze_answers(model: HookedModel, change: Change, items: Sequence[Cloze]) -> pd.DataFrame:
    """The rows of `cloze_scores` of one run, without `method`."""
    rows = [_answered(model, item.before, answer) for item in items for answer in item.candidates]
    predicted = Predicted(tuple(rows), tuple(row.response for row in rows))
    means = np.array([float(log_p.mean()) for log_p in predicted.log_p(model, change, BATCH)])
    return _table(items, means)


def cloze_summary(table: pd.DataFrame, *, n_bootstrap: int = 1000, seed: int = 0) -> pd.DataFrame:
    """Of a `cloze_scores`, one row per method and kind, and one per method of the kind "all".

    Columns: method, kind, accuracy with accuracy_low and _high, chance, margin (nats a token) with
    margin_low and _high, change (in accuracy, from the unsteered model on the same items) with
    change_low and _high, n_items, n_bootstrap, seed. 95 % bootstrap intervals over items.
    """
    warn_if_few(table["item"].nunique(), "cloze_summary", "item")
    plain = table.loc[table["method"] == UNSTEERED].set_index("item")["correct"].astype(float)
    table = table.assign(change=table["correct"] - table["item"].map(plain))
    rows = []
    for method, of_method in table.groupby("method", sort=False):
        for kind in ("all", *of_method["kind"].unique()):
            group = of_method if kind == "all" else of_method.loc[of_method["kind"] == kind]
            row: dict[str, object] = {"method": method, "kind": kind}
            for name, column in (("accuracy", "correct"), ("margin",) * 2, ("change",) * 2):
                values = group[column].to_numpy(dtype=float)
                low, high = interval_of_mean(values, n_bootstrap, seed)
                row |= {name: float(values.mean()), f"{name}_low": low, f"{name}_high": high}
            rows.append({**row, "chance": group["chance"].mean(), "n_items": len(group)})
    return pd.DataFrame(rows).assign(n_bootstrap=n_bootstrap, seed=seed)


def write_cloze(items: Sequence[Cloze], path: str | Path, about: Mapping[str, str]) -> None:
    """Items as a JSON file, with what is to be known `about` them: source, licence, maker."""
    content = {"about": dict(about), "items": [asdict(item) for item in items]}
    whole = signed(json.loads(json.dumps(content)))
    write_whole(path, (json.dumps(whole, indent=1, ensure_ascii=False) + "\n").encode())


def frozen_cloze() -> tuple[Cloze, ...]:
    """The 60 items that this project measures on, made by scripts/bench/cloze_items.py.

    From articles that the demonstration model has not seen, under CC BY-SA 3.0.
    """
    return read_cloze(FROZEN)


def read_cloze(path: str | Path) -> tuple[Cloze, ...]:
    """The items of a JSON file; ValueError if it is damaged, or something else."""
    try:
        content = parse_json(text_of_input(Path(path)))
        listed = require_signed(content, {"about", "items"})["items"]
        return tuple(
            Cloze(**{**item, "distractors": tuple(item["distractors"])}) for item in listed
        )
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise ValueError(
            f"{path} holds no cloze items, or damaged ones ({error}). write_cloze makes a file."
        ) from error


def _answered(model: HookedModel, before: str, answer: str) -> Encoded:
    """The beginning with a candidate after it."""
    return with_response(model, encode(model, before), f" {answer}")


def _table(items: Sequence[Cloze], means: np.ndarray) -> pd.DataFrame:
    """One row per item, of the mean log-probabilities of all candidates one after the other."""
    rows, start = [], 0
    for number, item in enumerate(items):
        own = means[start : start + len(item.candidates)]
        start += len(item.candidates)
        best = float(own[1:].max())
        rows.append(
            {
                "item": number,
                "kind": item.kind,
                "correct": bool(own[0] > best),
                "margin": float(own[0]) - best,
                "score_target": float(own[0]),
                "score_distractor": best,
                "chance": item.chance,
            }
        )
    return pd.DataFrame(rows)
