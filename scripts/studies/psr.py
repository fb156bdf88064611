"""The PSR study: what a prompt does to tokens, who imitates it, and what that is worth.

    python scripts/studies/psr.py                     # the demonstration model, about two hours
    python scripts/studies/psr.py --until validation  # stop before the test split is opened
    python scripts/studies/psr.py --model ../shared/models/stories260K --prefix --out build/s.md
    python scripts/studies/psr.py --model gpt2 --questions asked.json --out build/gpt2.md

The work folder keeps every result: run the command again to go on. Stages:

fit         every method in three configurations (seed 0): the layer for single-layer methods, the
            learning rate for all-layer ones
validation  attribute against coherence over strength; the configuration with the best TA@C80 is
            kept, and its strengths (C80, Cp, matched) are found, for each further seed too
test        the kept configurations and strengths on test questions and pairs
page        the hypotheses, the verdicts, and the tables behind them

Without judges (`--prefix`, or `--questions` without `--judge`) only H1 to H3 are answered, the
configuration with the smallest relative RMSE at the last layer is kept, and the strength is 1.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from cells import Cells
from material import DEMO_ATTRIBUTES, PREFIXES, Material, demo, from_file, prefixed

import steerlens
from analysis.measures.assumptions import decodability, dispersion, rank_share
from analysis.measures.coefficients import coefficients
from analysis.measures.deltas import align, prompt_deltas, steering_deltas
from analysis.measures.faithfulness import other_wording
from analysis.measures.matching import Aim
from analysis.measures.tradeoff import Scored, Tradeoff, by_question, c80, cp
from steerlens.demo import benchmark_set
from steerlens.identity import fingerprint
from steerlens.methods.psr import PSR, difference_of_means
from steerlens.saving import load_steering
from steerlens.scopes import Scope, generated, response
from steerlens.sites import Site
from steerlens.steering import AnySteering, Steering, scaled
from steerlens.training.loop import Schedule
from steerlens.types import HookedModel

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "results" / "psr.md"
VERSION = 2
"""Of the cells: raise it when one of them is computed differently."""

BUDGET = 3
"""Configurations that every method may try on validation data."""

RATES = (3e-3, 1e-2, 3e-2)
TOLERANCE = 2.0
"""Points of coherence that count as equal to the prompt's."""

MATCHED_SHARE = 0.1
"""A matched strength scores as the prompt does to within this share of the prompt's effect."""


@dataclass(frozen=True)
class Method:
    """A row of the study. `objective` None is a difference of means."""

    objective: str | None
    gated: bool
    all_layers: bool


METHODS = {
    "S-Const_DiM": Method(None, False, False),
    "S-Const_MSE": Method("MSE", False, False),
    "S-PSR_MSE": Method("MSE", True, False),
    "S-PSR_LL": Method("LL", True, False),
    "A-Const_MSE": Method("MSE", False, True),
    "A-PSR_MSE": Method("MSE", True, True),
    "A-PSR_LL": Method("LL", True, True),
}
SINGLE = tuple(name for name, method in METHODS.items() if not method.all_layers)
SAME_LAYER = ("S-Const_MSE", "S-PSR_MSE")
"""Compared with each other at the middle layer, whatever configuration each has kept (H3)."""


@dataclass(frozen=True)
class Options:
    """What the results depend on."""

    model: str
    folder: str
    prefix: bool = False
    questions: str = ""
    judge: tuple[str, str] | None = None
    attributes: tuple[str, ...] = ()
    n_train: int = 120
    n_test: int = 120
    epochs: int = 8
    samples: int = 2
    bisections: int = 4
    seeds: int = 3

    @property
    def judged(self) -> bool:
        """Whether there are judges."""
        return not self.prefix and (not self.questions or self.judge is not None)


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
    return steerlens.load(options().model)


@cache
def material(attribute: str) -> Material:
    if options().prefix:
        return prefixed(model(), attribute, (options().n_train, 20, options().n_test))
    if options().questions:
        return from_file(model(), Path(options().questions), attribute, options().judge)
    return demo(attribute)


def attributes() -> tuple[str, ...]:
    if options().attributes:
        return options().attributes
    if options().prefix:
        return tuple(PREFIXES)
    if options().questions:
        return tuple(json.loads(Path(options().questions).read_text(encoding="utf-8")))
    return DEMO_ATTRIBUTES


def layers_tried(n_layers: int) -> tuple[int, ...]:
    """A third, half and two thirds of the way up: what a single-layer method may choose from."""
    return tuple(
        dict.fromkeys(max(round(n_layers * part) - 1, 0) for part in (1 / 3, 1 / 2, 2 / 3))
    )


def middle(n_layers: int) -> int:
    """The configuration of a single-layer method at the middle layer."""
    return layers_tried(n_layers).index(round(n_layers / 2) - 1)


def configurations(method: str, n_layers: int) -> range:
    tried = RATES if METHODS[method].all_layers else layers_tried(n_layers)
    return range(len(tried))


def described(method: str, configuration: int, n_layers: int) -> str:
    if METHODS[method].all_layers:
        return f"learning rate {RATES[configuration]:g}"
    return f"layer {layers_tried(n_layers)[configuration]}"


def own_layer(method: str, configuration: int, n_layers: int) -> int:
    return 0 if METHODS[method].all_layers else layers_tried(n_layers)[configuration]


def steering_file(attribute: str, method: str, configuration: int, seed: int) -> Path:
    name = f"{attribute}_{method}_{configuration}_{seed}.safetensors"
    return Path(options().folder) / "steerings" / name


def steering(attribute: str, method: str, configuration: int, seed: int) -> AnySteering:
    return load_steering(steering_file(attribute, method, configuration, seed), model())


# -- Cells -----------------------------------------------------------------------------------------


def fit(attribute: str, name: str, configuration: int, seed: int) -> dict[str, Any]:
    """Fit a method and write its steering; how training went."""
    from time import process_time

    found, method = material(attribute), METHODS[name]
    pairs = found.training(model(), options().n_train, seed)
    n_layers, started = model().cfg.n_layers, process_time()  # judging the pairs is not fitting
    path = steering_file(attribute, name, configuration, seed)
    path.parent.mkdir(parents=True, exist_ok=True)
    if method.objective is None:
        layer = layers_tried(n_layers)[configuration]
        made: Steering = difference_of_means(model(), pairs, layer, template=found.template)
        made.save(path)
        return {"pool": len(found.successful(model())), "seconds": process_time() - started}
    sites = range(n_layers) if method.all_layers else [layers_tried(n_layers)[configuration]]
    rate = RATES[configuration] if method.all_layers else None
    fitted = PSR.fit(
        model(),
        pairs,
        list(sites),
        objective=method.objective,  # pyright: ignore[reportArgumentType]
        gated=method.gated,
        schedule=Schedule(epochs=options().epochs, learning_rate=rate, seed=seed),
        template=found.template,
    )
    fitted.steering.save(path)
    kept = fitted.trained.rows[fitted.trained.best_epoch]
    return {
        "pool": len(found.successful(model())),
        "seconds": process_time() - started,
        "validation_loss": kept["validation_loss"],
        "best_epoch": fitted.trained.best_epoch,
        "firing": {site.layer: rates.tolist() for site, rates in fitted.firing.items()},
    }


def reference(attribute: str, split: str, seed: int) -> dict[str, Any]:
    """The unsteered and the prompted scores of a split."""
    found = material(attribute)
    samples = options().samples if split == "validation" else 1
    setting = found.setting(model(), split, samples, seed)
    if setting is None:
        return {}
    return {
        "unsteered": _kept(setting.score()),
        "prompt": _kept(setting.score(instruction=found.instruction)),
    }


def validate(attribute: str, name: str, configuration: int, seed: int) -> dict[str, Any]:
    """Strengths at C80 and Cp; without judges the error at the last layer."""
    found = material(attribute)
    acting = steering(attribute, name, configuration, seed)
    setting = found.setting(model(), "validation", options().samples, seed)
    if setting is None:
        sums = _squares(found, "validation", acting)
        return {"relative_rmse": (sum(sums["above"][-1]) / sum(sums["below"][-1])) ** 0.5}
    known = _cells().get("reference", attribute, "validation", seed)
    curve = Tradeoff(setting, acting)
    own, prompted = (known[which]["coherence"] for which in ("unsteered", "prompt"))
    targets = {"C80": c80(own), "Cp": cp(own, prompted, TOLERANCE)}
    strengths: dict[str, Any] = {}
    for label, target in targets.items():
        at = curve.at_coherence(target, bisections=options().bisections)
        strengths[label] = {
            "strength": at.strength,
            "attribute": at.scored.mean_attribute,
            "coherence": at.scored.mean_coherence,
            "reached": at.reached,
            "bounded": at.bounded,
        }
    return {**strengths, "curve": curve.table().to_dict("list")}


def match(attribute: str, name: str, configuration: int, seed: int) -> dict[str, Any]:
    """The strength whose mean attribute score on validation questions is the prompt's."""
    found = material(attribute)
    setting = found.setting(model(), "validation", 1, seed)
    if setting is None or found.instruction is None:
        return {"strength": 1.0, "reached": False}
    aim = Aim.of(
        model(),
        setting.questions,
        found.instruction,
        setting.attribute,
        setting.sampling,
        found.template,
    )
    effect = abs(float(np.nanmean(aim.prompted)) - float(np.nanmean(aim.plain)))
    acting = steering(attribute, name, configuration, seed)
    at = aim.match(model(), acting, max(MATCHED_SHARE * effect, 1.0), 4)
    return {"strength": at.strength, "reached": at.reached and at.strength > 0, "score": at.score}


def test(attribute: str, name: str, configuration: int, seed: int) -> dict[str, Any]:
    """Test scores at the strengths found, and squared errors at strength 1 and matched."""
    found = material(attribute)
    acting = steering(attribute, name, configuration, seed)
    result: dict[str, Any] = {"errors": {"1": _squares(found, "test", acting)}}
    setting = found.setting(model(), "test", 1, seed)
    if setting is None:
        return result
    for label in ("C80", "Cp"):
        at = _cells().get("validate", attribute, name, configuration, seed)[label]
        result[label] = _kept(setting.score(scaled(acting, at["strength"])))
    matched = _cells().get("match", attribute, name, configuration, seed)
    if matched["reached"]:
        result["errors"]["matched"] = _squares(found, "test", scaled(acting, matched["strength"]))
    return result


def same_layer(attribute: str, name: str, configuration: int, seed: int) -> dict[str, Any]:
    """Squared errors on test pairs at strength 1."""
    found = material(attribute)
    return _squares(found, "test", steering(attribute, name, configuration, seed))


def with_last_prompt_token(
    attribute: str, name: str, configuration: int, seed: int
) -> dict[str, Any]:
    """Squared errors on test pairs at strength 1, on the span that the methods are trained on."""
    found = material(attribute)
    acting = steering(attribute, name, configuration, seed)
    return _squares(found, "test", acting, response)


def wordings_with_last_prompt_token(attribute: str) -> dict[str, Any]:
    """The same of other wordings."""
    found = material(attribute)
    pairs = list(found.pairs["test"])[: options().n_test]
    return _other_words(found, pairs, found.equivalents, response)


def prompt(attribute: str) -> dict[str, Any]:
    """What the prompt does on test pairs, and what other wordings of it do."""
    found = material(attribute)
    pairs = list(found.pairs["test"])[: options().n_test]
    n_layers = model().cfg.n_layers
    table = coefficients(model(), pairs, range(n_layers), {}, template=found.template)
    both = [
        decodability(model(), pairs, strength=strength, template=found.template)
        for strength in ("along", "norm")
    ]
    shares = rank_share(model(), pairs, template=found.template)
    by_response = table.groupby(["layer", "example"])["norm"].quantile([0.05, 0.95]).unstack()
    within = (by_response[0.95] / by_response[0.05]).unstack("layer")
    return {
        "within": within.to_numpy().T.tolist(),
        "dispersion": dispersion(table).to_dict("list"),
        "rank_share": shares.to_dict("list"),
        "decodability": [one.to_dict("list") for one in both],
        "equivalents": _other_words(found, pairs, found.equivalents),
        "neutral": _other_words(found, pairs, found.neutral),
    }


# -- Pieces of cells -------------------------------------------------------------------------------


def _kept(scored: Scored) -> dict[str, Any]:
    """Means, the share of completions without an attribute score, and the scores of questions."""
    return {
        "unscored": float(np.isnan(scored.attribute).mean()),
        "attribute": scored.mean_attribute,
        "coherence": scored.mean_coherence,
        "by_question": {
            "attribute": by_question(scored.attribute).tolist(),
            "coherence": by_question(scored.coherence).tolist(),
        },
    }


def _squares(
    found: Material, split: str, acting: AnySteering, span: Scope = generated
) -> dict[str, Any]:
    """By layer and example: squared distance to the prompted run, and that of the plain run."""
    pairs = list(found.pairs[split])[: options().n_test]
    sites = [Site(layer) for layer in range(model().cfg.n_layers)]
    aligned = align(model(), pairs, sites, span=span, template=found.template)
    target = prompt_deltas(model(), aligned)
    reached = steering_deltas(model(), aligned, acting)
    return _sums(aligned, target, [reached])


def _other_words(
    found: Material, pairs: list[Any], wordings: Sequence[str], span: Scope = generated
) -> dict[str, Any]:
    sites = [Site(layer) for layer in range(model().cfg.n_layers)]
    aligned = align(model(), pairs, sites, span=span, template=found.template)
    others = [
        other_wording(model(), aligned, reworded[: len(pairs)], found.template)
        for reworded in found.in_other_words("test", wordings)
    ]
    return _sums(aligned, prompt_deltas(model(), aligned), others)


def _sums(aligned: Any, target: Any, reached: list[Any]) -> dict[str, Any]:
    n, above, below = len(aligned.plain_rows), [], []
    for site in aligned.sites:
        missed = torch.stack([(one[site] - target[site]).square().sum(dim=-1) for one in reached])
        whole = target[site].square().sum(dim=-1)
        above.append(torch.bincount(aligned.example, missed.mean(dim=0), minlength=n).tolist())
        below.append(torch.bincount(aligned.example, whole, minlength=n).tolist())
    return {"above": above, "below": below}


def _cells() -> Cells:
    return Cells(Path(options().folder), _about(options()), begin, options())


def _about(chosen: Options) -> dict[str, Any]:
    from steerlens.models import load

    about = {key: value for key, value in asdict(chosen).items() if key != "folder"}
    data = benchmark_set.FILE.read_bytes()
    if chosen.questions:
        data = Path(chosen.questions).read_bytes()
    return {
        **about,
        "version": VERSION,
        "methods": {name: asdict(method) for name, method in METHODS.items()},
        "searches": [RATES, TOLERANCE, MATCHED_SHARE],
        "data": hashlib.sha256(data).hexdigest()[:16],
        "fingerprint": fingerprint(load(chosen.model)),
    }


# -- Stages ----------------------------------------------------------------------------------------


def chosen(cells: Cells, attribute: str, name: str, n_layers: int) -> int:
    """The configuration with the best validation result at seed 0."""
    found = {
        configuration: cells.get("validate", attribute, name, configuration, 0)
        for configuration in configurations(name, n_layers)
    }
    if "relative_rmse" in found[0]:
        return min(found, key=lambda one: found[one]["relative_rmse"])

    def rank(one: int) -> tuple[bool, float]:
        at = found[one]["C80"]
        return at["reached"], float(np.nan_to_num(at["attribute"], nan=-1.0))

    return max(found, key=rank)


def run(chosen_options: Options, workers: int, until: str) -> Cells:
    """All stages up to `until`, as far as they are missing."""
    begin(chosen_options)
    cells, n_layers = _cells(), model().cfg.n_layers
    cells.open()
    seeds, names = range(chosen_options.seeds), attributes()
    grid = [(a, m, c, 0) for a in names for m in METHODS for c in configurations(m, n_layers)]
    cells.make(reference, [(a, "validation", s) for a in names for s in seeds], workers)
    cells.make(fit, grid, workers)
    cells.make(validate, grid, workers)
    kept = {(a, m): chosen(cells, a, m, n_layers) for a in names for m in METHODS}
    final = [(a, m, c, s) for (a, m), c in kept.items() for s in seeds]
    level = middle(n_layers)
    pairs = [(a, m, level, s) for a in names for m in SAME_LAYER for s in seeds]
    cells.make(fit, [*final, *pairs], workers)
    cells.make(validate, final, workers)
    cells.make(match, final, workers)
    if until == "validation":
        return cells
    cells.make(reference, [(a, "test", s) for a in names for s in seeds], workers)
    cells.make(prompt, [(a,) for a in names], workers)
    cells.make(test, final, workers)
    cells.make(same_layer, pairs, workers)
    cells.make(with_last_prompt_token, sorted({*final, *pairs}), workers)
    cells.make(wordings_with_last_prompt_token, [(a,) for a in names], workers)
    return cells


def main() -> None:
    """Run the study and write its page."""
    from psr_page import page

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="demo", help="'demo', a folder, or a hub name")
    parser.add_argument("--prefix", action="store_true", help="a prefix is the prompt (no turns)")
    parser.add_argument("--questions", default="", help="JSON file of attributes (material.py)")
    parser.add_argument("--judge", nargs=2, metavar=("URL", "MODEL"), help="an LLM judge")
    parser.add_argument("--attributes", nargs="+", default=[], help="only these")
    parser.add_argument("--work-dir", type=Path, default=ROOT / "build" / "studies" / "psr")
    parser.add_argument("--out", type=Path, default=PAGE)
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--until", choices=("hypotheses", "validation", "page"), default="page")
    parser.add_argument("--quick", action="store_true", help="tiny sizes, to see that it runs")
    given = parser.parse_args()
    sizes = {"n_train": 16, "n_test": 10, "epochs": 2, "samples": 1, "bisections": 1, "seeds": 2}
    options_given = Options(
        given.model,
        str(given.work_dir),
        given.prefix,
        given.questions,
        None if given.judge is None else tuple(given.judge),
        tuple(given.attributes),
        **(sizes if given.quick else {}),
    )
    cells = None
    if given.until != "hypotheses":
        cells = run(options_given, given.workers, given.until)
    given.out.parent.mkdir(parents=True, exist_ok=True)
    given.out.write_text(page(cells, options_given, given.until), encoding="utf-8")
    print(f"Wrote {given.out}")


if __name__ == "__main__":
    main()
