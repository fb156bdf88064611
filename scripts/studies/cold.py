"""The COLD study: how many examples each method needs, and whether words spread as a group's do.

    python scripts/studies/cold.py                     # the demonstration model, about two hours
    python scripts/studies/cold.py --until validation  # stop before the test split is opened

The work folder keeps every result: run the command again to go on.

pool     pairs of answers to a training question: one that shows the attribute, one that does not
search   every method in six configurations (50 pairs, seed 0), scored on validation questions
test     the best of each with 2 to 400 pairs and three seeds, on test questions: the score at the
         strength where coherence is 80 % of the unsteered, found on validation questions
tune     the same for the spread over option words (20 prompts, three layers)
spread   the best of each with 5, 20 and 100 prompts, on test questions: KL and total variation
page     the hypotheses, the verdicts, and the tables behind them
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import os
import random
import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from time import process_time
from typing import Any

import numpy as np
import torch
from cells import Cells
from material import Material, demo

import steerlens
from analysis.judges import FormatJudge
from analysis.measures.coefficients import strengths
from analysis.measures.tradeoff import Tradeoff, by_question, c80
from steerlens import (
    CAA,
    PSR,
    ColdFD,
    ColdKernel,
    Conversation,
    PromptPair,
    ReFTr1,
    Scope,
    at,
    everywhere,
)
from steerlens.demo import benchmark_set
from steerlens.identity import fingerprint
from steerlens.methods.reft_r1 import AXBENCH
from steerlens.prompts import Encoded, stack
from steerlens.runtime.forward import logits
from steerlens.runtime.hooks import running, watching
from steerlens.scopes import prompt
from steerlens.steering import AnySteering, scaled
from steerlens.training.loop import Schedule
from steerlens.types import HookedModel

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "results" / "cold.md"
VERSION = 1
"""Of the cells: raise it when one of them is computed differently."""

LAYERS = (1, 2, 4)
SCOPES: tuple[Scope, ...] = (prompt, everywhere)
CONFIGURATIONS = [(layer, scope) for layer in LAYERS for scope in SCOPES]
SEARCHED_WITH = 50
STEPS, BATCH = 120, 8
"""Updates of every trained method, whatever the number of its pairs, and pairs a batch."""
PUSH = 0.25
"""Strength 1 of every method: on average a quarter of the activations' length."""
TRIES = 8
"""Answers of the model itself that are drawn to find one without the attribute, and first vectors
of ReFT-r1."""

SEEN = 6
"""The first test questions, which were looked at while the command was written, are left out."""

GROUPS = ("positive", "negative")
"""Whose instruction makes the spread that is asked for."""
WORDS = ("good", "great", "excellent", "wonderful", "bad", "terrible", "boring", "awful")
OPENING = "It was"
TUNED_WITH = 20
SPREAD_SIZES = (5, 20, 100)
GRID = tuple(2.0**k for k in range(-4, 5))


@dataclass(frozen=True)
class Options:
    """What a study is made of; the work folder remembers it."""

    folder: str
    attributes: tuple[str, ...] = ("positive", "fairytale")
    seeds: int = 3
    sizes: tuple[int, ...] = (2, 5, 10, 20, 50, 100, 250, 400)
    n_validation: int = 40
    n_test: int = 114
    configurations: int = 6
    bisections: int = 3


# -- What every process has ------------------------------------------------------------------------

_OPTIONS: list[Options] = []


def begin(options: Options) -> None:
    """Ready this process."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    _OPTIONS[:] = [options]


def options() -> Options:
    return _OPTIONS[0]


@cache
def model() -> HookedModel:
    return steerlens.load("demo")


@cache
def material(attribute: str) -> Material:
    return demo(attribute)


@cache
def _pool(attribute: str) -> list[tuple[str, str, str]]:
    path = Path(options().folder) / "pool" / f"{attribute}.json"
    return [tuple(row) for row in json.loads(path.read_text(encoding="utf-8"))]


# -- Methods ---------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Case:
    """The pairs of a fit, and where the steering acts."""

    attribute: str
    n: int
    seed: int
    layer: int
    scope: Scope

    @property
    def drawn(self) -> list[tuple[str, str, str]]:
        """(question, answer with the attribute, answer without); fewer are some of the more."""
        pool = _pool(self.attribute)
        if len(pool) < self.n:
            raise ValueError(f"{self.attribute} has {len(pool)} pairs; asked for {self.n}.")
        return random.Random(f"examples {self.seed}").sample(pool, len(pool))[: self.n]

    @property
    def liked(self) -> list[Conversation]:
        return [Conversation(user, response=text) for user, text, _ in self.drawn]

    @property
    def disliked(self) -> list[Conversation]:
        return [Conversation(user, response=text) for user, _, text in self.drawn]

    @property
    def schedule(self) -> Schedule:
        """So many updates, whatever the number of pairs, and no pair held back."""
        batches = math.ceil(self.n / BATCH)
        epochs = math.ceil(STEPS / batches)
        return Schedule(epochs, BATCH, validation=0.0, patience=None, seed=self.seed)

    def pairs(self, side: int) -> list[PromptPair]:
        """The answers of one side as responses to the plain question."""
        asked = [(Conversation(row[0]), row[side]) for row in self.drawn]
        return [PromptPair(user, user, text) for user, text in asked]


def _cold_fd(case: Case) -> AnySteering:
    return ColdFD.fit(model(), case.layer, case.liked, case.disliked, scope=case.scope)


def _cold_kernel(case: Case) -> AnySteering:
    return ColdKernel.fit(model(), case.layer, case.liked, case.disliked, scope=case.scope)


def _caa(case: Case) -> AnySteering:
    return CAA.from_prompts(model(), case.liked, case.disliked, case.layer).only(case.scope)


def _reft_vector(case: Case) -> AnySteering:
    """A constant vector, learnt by the likelihood of the answers with the attribute."""
    fit = PSR.fit(
        model(), case.pairs(1), case.layer, objective="LL", gated=False, schedule=case.schedule
    )
    (steer,) = fit.steers.values()
    return at(case.layer, CAA(steer.Z[0])).only(case.scope)


def _reft_r1(case: Case) -> AnySteering | None:
    """Its w, at the strength of the common scale: a_max is a factor on that.

    From a w whose latent opens on no training token nothing is learnt: another is drawn.
    """
    epochs = math.ceil(STEPS / math.ceil(2 * case.n / AXBENCH.batch_size))
    for attempt in range(TRIES):
        schedule = replace(AXBENCH, epochs=epochs, seed=case.seed + 100 * attempt)
        try:
            fit = ReFTr1.fit(
                model(), case.pairs(1), [], case.layer, negatives=case.pairs(2), schedule=schedule
            )
        except ValueError as error:
            if "a_max" not in str(error):
                raise
            continue
        return at(case.layer, CAA(fit.steer.w)).only(case.scope)
    return None


METHODS: dict[str, Callable[[Case], AnySteering | None]] = {
    "COLD-FD": _cold_fd,
    "COLD-Kernel": _cold_kernel,
    "CAA": _caa,
    "ReFT-vector": _reft_vector,
    "ReFT-r1": _reft_r1,
}


def on_common_scale(steering: AnySteering, layer: int, rows: Sequence[Any]) -> AnySteering:
    """Strength 1 moves the activations of these rows by `PUSH` of their length, on average."""
    table = strengths(model(), list(rows), {"it": steering})
    moved = table[(table["layer"] == layer) & (table["norm"] > 0)]
    return scaled(steering, PUSH / float(moved["relative_norm"].mean()))


# -- Cells: attribute at C80 -----------------------------------------------------------------------


def pool(attribute: str) -> list[tuple[str, str, str]]:
    """(question, answer with the attribute, answer without), as many as can be found."""
    found = material(attribute)
    assert found.judge is not None
    assert found.coherence is not None
    users, liked = [], []
    for pair in found.successful(model()):
        assert isinstance(pair.plain, Conversation)
        users.append(pair.plain.user)
        text = pair.response
        liked.append(text if isinstance(text, str) else model().tokenizer.decode(list(text)))
    written = steerlens.generate(
        model(), [Conversation(user) for user in users], n=TRIES, max_new_tokens=64, seed=7
    )
    texts, judge = list(written.texts), found.judge
    shown = judge.holds(texts) if isinstance(judge, FormatJudge) else judge(texts) >= 50
    without = ~shown & (found.coherence(texts) >= 50)
    first: dict[int, str] = {}
    for number, text, good in zip(written.prompt, written.texts, without.tolist(), strict=True):
        if good:
            first.setdefault(int(number), text)
    return [(users[i], liked[i], text) for i, text in sorted(first.items())]


def reference(attribute: str, split: str, seed: int) -> dict[str, Any]:
    """The unsteered and the prompted scores of a split."""
    setting = _setting(attribute, split, seed)
    return {
        "unsteered": _kept(setting.score()),
        "prompt": _kept(setting.score(instruction=material(attribute).instruction)),
    }


def search(attribute: str, method: str, configuration: int) -> dict[str, Any]:
    """The validation score at C80 of a configuration, and whether there is such a strength."""
    case = Case(attribute, SEARCHED_WITH, 0, *CONFIGURATIONS[configuration])
    steering = METHODS[method](case)
    if steering is None:
        scored = _setting(attribute, "validation", 0).score()
        return {"attribute": scored.mean_attribute, "strength": 0.0, "met": False}
    found = _at_c80(_scaled(steering, case), attribute, 0)
    about = {"strength": found.strength, "met": found.reached}
    return {"attribute": found.scored.mean_attribute, **about}


def test(attribute: str, method: str, configuration: int, n: int, seed: int) -> dict[str, Any]:
    """The test scores at the strength that has C80 on validation questions.

    Where there is none, or no steering, they are those of the model itself.
    """
    case = Case(attribute, n, seed, *CONFIGURATIONS[configuration])
    _ = case.drawn
    started = process_time()
    steering = METHODS[method](case)
    seconds = process_time() - started
    about: dict[str, Any] = {"seconds": seconds, "n": len(case.drawn)}
    setting = _setting(attribute, "test", seed)
    if steering is not None:
        ready = _scaled(steering, case)
        found = _at_c80(ready, attribute, seed)
        if found.reached:
            scored = Tradeoff(setting, ready).at(found.strength)
            return {**_kept(scored), "strength": found.strength, "met": found.bounded, **about}
    return {**_kept(setting.score()), "strength": 0.0, "met": False, **about}


# -- Cells: the spread over options ----------------------------------------------------------------


def tune(group: str, method: str, layer: int) -> dict[str, Any]:
    """The strength of the grid with the least KL on validation questions."""
    return _tuned(_spreading(group, method, layer, TUNED_WITH, 0), group)


def spread(group: str, method: str, layer: int, n: int, seed: int) -> dict[str, Any]:
    """KL and total variation on test questions, by question, at the strength of validation."""
    steering = _spreading(group, method, layer, n, seed)
    kept = _tuned(steering, group)
    asked = _questions(group, "test")
    wanted = _shares(group, asked, None, instructed=True)
    found = _shares(group, asked, scaled(steering, kept["strength"]))
    return {**_apart(wanted, found), "strength": kept["strength"]}


def unspread(group: str) -> dict[str, Any]:
    """KL and total variation of the unsteered model on test questions."""
    asked = _questions(group, "test")
    return _apart(_shares(group, asked, None, instructed=True), _shares(group, asked, None))


SPREADING = ("COLD-FD", "COLD-Kernel", "CAA")


def _spreading(group: str, method: str, layer: int, n: int, seed: int) -> AnySteering:
    """Fitted so that the plain prompt's next word is spread as the instructed one's."""
    drawn = random.Random(f"prompts {seed}").sample(_questions(group, "train"), n)
    plain = [_opened(user) for user in drawn]
    if method == "CAA":
        told = [_opened(user, material(group).instruction) for user in drawn]
        steering: AnySteering = CAA.from_prompts(
            model(), told, plain, layer, read=steerlens.last
        ).only(prompt)
        return on_common_scale(steering, layer, plain[:10])
    shares = _shares(group, drawn, None, instructed=True)
    wished = [dict(zip(_option_ids(), row, strict=True)) for row in shares.tolist()]
    fit = ColdFD.fit if method == "COLD-FD" else ColdKernel.fit
    found = fit(model(), layer, plain, loss="options", probabilities=wished)
    return on_common_scale(found, layer, plain[:10])


def _tuned(steering: AnySteering, group: str) -> dict[str, Any]:
    asked = _questions(group, "validation")
    wanted = _shares(group, asked, None, instructed=True)
    tried = {
        strength: float(
            np.mean(_apart(wanted, _shares(group, asked, scaled(steering, strength)))["KL"])
        )
        for strength in GRID
    }
    best = min(tried, key=lambda strength: tried[strength])
    return {"strength": best, "KL": tried[best]}


@cache
def _option_ids() -> list[int]:
    ids = [model().tokenizer.encode(f" {word}", add_special_tokens=False) for word in WORDS]
    assert all(len(one) == 1 for one in ids)
    return [one[0] for one in ids]


def _opened(user: str, instruction: str | None = None) -> Encoded:
    """A question whose answer has been begun: the next token is one of the options."""
    row = steerlens.encode(model(), Conversation(user, instruction, OPENING))
    return Encoded(row.ids, row.question, len(row.ids), row.bos)


def _questions(group: str, split: str) -> list[str]:
    found = material(group).questions
    assert found is not None
    sizes = {"validation": options().n_validation, "test": options().n_test}
    return list(found[split])[SEEN if split == "test" else 0 :][: sizes.get(split)]


@torch.no_grad()
def _shares(
    group: str, users: Sequence[str], steering: AnySteering | None, instructed: bool = False
) -> np.ndarray:
    """[question, option]: probabilities over the option words alone."""
    instruction = material(group).instruction if instructed else None
    found = []
    for start in range(0, len(users), 40):
        rows = [_opened(user, instruction) for user in users[start : start + 40]]
        tokens, window = stack(rows, "left")
        with watching() as watch, running(model(), steering, len(rows), watch) as run:
            if run is not None:
                run.ready(tokens, window)
            found.append(logits(model(), tokens, window)[:, -1, _option_ids()].double())
    return torch.softmax(torch.cat(found), dim=-1).numpy()


def _apart(wanted: np.ndarray, found: np.ndarray) -> dict[str, list[float]]:
    """The KL divergence, sum p log(p / q), and half of sum |p - q|, by question."""
    return {
        "KL": (wanted * np.log(wanted / found)).sum(axis=1).tolist(),
        "TV": (np.abs(wanted - found).sum(axis=1) / 2).tolist(),
    }


# -- Pieces of cells -------------------------------------------------------------------------------


def _setting(attribute: str, split: str, seed: int) -> Any:
    found = material(attribute).setting(model(), split, 1 if split == "test" else 2, seed)
    assert found is not None
    return replace(found, questions=_questions(attribute, split))


def _scaled(steering: AnySteering, case: Case) -> AnySteering:
    return on_common_scale(steering, case.layer, case.liked[:10])


def _at_c80(steering: AnySteering, attribute: str, seed: int) -> Any:
    tried = Tradeoff(_setting(attribute, "validation", seed), steering)
    target = c80(tried.at(0.0).mean_coherence)
    return tried.at_coherence(target, bisections=options().bisections)


def _kept(scored: Any) -> dict[str, Any]:
    return {
        "attribute": by_question(scored.attribute).tolist(),
        "coherence": by_question(scored.coherence).tolist(),
    }


# -- Stages ----------------------------------------------------------------------------------------


def chosen(cells: Cells, attribute: str, method: str) -> int:
    """The best validation score among the configurations that have a strength with C80."""
    tried = [cells.get("search", attribute, method, c) for c in range(cells.options.configurations)]
    scores = [one["attribute"] if one["met"] else -1.0 for one in tried]
    return int(np.nanargmax(scores))


def layer_of(cells: Cells, group: str, method: str) -> int:
    """The layer with the least validation KL."""
    return min(LAYERS, key=lambda layer: cells.get("tune", group, method, layer)["KL"])


def run(chosen_options: Options, workers: int, until: str) -> Cells:
    """All stages up to `until`, as far as they are missing."""
    begin(chosen_options)
    cells = Cells(Path(chosen_options.folder), _about(chosen_options), begin, chosen_options)
    cells.open()
    names, seeds = chosen_options.attributes, range(chosen_options.seeds)
    cells.make(pool, [(a,) for a in names], workers)
    tried = range(chosen_options.configurations)
    cells.make(search, [(a, m, c) for a in names for m in METHODS for c in tried], workers)
    cells.make(tune, [(g, m, la) for g in GROUPS for m in SPREADING for la in LAYERS], workers)
    if until == "validation":
        return cells
    best = {(a, m): chosen(cells, a, m) for a in names for m in METHODS}
    cells.make(reference, [(a, "test", s) for a in names for s in seeds], workers)
    sizes = chosen_options.sizes
    cells.make(
        test, [(a, m, c, n, s) for n in sizes for (a, m), c in best.items() for s in seeds], workers
    )
    cells.make(unspread, [(g,) for g in GROUPS], workers)
    some = [(g, m, layer_of(cells, g, m)) for g in GROUPS for m in SPREADING]
    cells.make(spread, [(*one, n, s) for one in some for n in SPREAD_SIZES for s in seeds], workers)
    return cells


def _about(chosen_options: Options) -> dict[str, Any]:
    about = {key: value for key, value in asdict(chosen_options).items() if key != "folder"}
    return {
        **about,
        "version": VERSION,
        "methods": list(METHODS),
        "searches": [LAYERS, [str(s) for s in SCOPES], SEARCHED_WITH, STEPS, BATCH, PUSH, TRIES],
        "seen": SEEN,
        "spread": [GROUPS, WORDS, OPENING, TUNED_WITH, SPREAD_SIZES, GRID],
        "data": hashlib.sha256(benchmark_set.FILE.read_bytes()).hexdigest()[:16],
        "fingerprint": fingerprint(steerlens.load("demo")),
    }


def main() -> None:
    """Run the study and write its page."""
    from cold_page import page

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work-dir", type=Path, default=ROOT / "build" / "studies" / "cold")
    parser.add_argument("--out", type=Path, default=PAGE)
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--until", choices=("hypotheses", "validation", "page"), default="page")
    parser.add_argument("--quick", action="store_true", help="tiny sizes, to see that it runs")
    given = parser.parse_args()
    tiny = {"seeds": 2, "sizes": (2, 5), "n_validation": 4, "n_test": 5, "configurations": 2}
    sizes: dict[str, Any] = {**tiny, "bisections": 1} if given.quick else {}
    options_given = Options(str(given.work_dir), **sizes)
    cells = None
    if given.until != "hypotheses":
        cells = run(options_given, given.workers, given.until)
    given.out.parent.mkdir(parents=True, exist_ok=True)
    given.out.write_text(page(cells, options_given, given.until), encoding="utf-8")
    print(f"Wrote {given.out}")


if __name__ == "__main__":
    main()
