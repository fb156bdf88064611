"""The cells of the PSR study: fits, strengths found on validation questions, tests."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from time import process_time
from typing import Any

import numpy as np
import torch
from cells import Cells
from material import Material
from psr_plan import MATCHED_SHARE, METHODS, RATES, TOLERANCE, Options, layers_tried, material
from study import cells_of, model, options, scores_by_question

from analysis import (
    Scored,
    Tradeoff,
    align,
    c80,
    coefficients,
    cp,
    decodability,
    dispersion,
    prompt_deltas,
    rank_share,
    steering_deltas,
)
from analysis.measures.faithfulness import other_wording
from analysis.measures.matching import Aim
from steerlens.methods.psr import PSR, Gates, difference_of_means
from steerlens.reading import load_steering
from steerlens.scopes import Scope, generated, response
from steerlens.sites import Site
from steerlens.steering import Steering
from steerlens.training.objectives import LL, MSE
from steerlens.training.schedule import Schedule

VERSION = 2
"""Of the cells: raise it when one of them is computed differently."""


def steering_file(attribute: str, method: str, configuration: int, seed: int) -> Path:
    name = f"{attribute}_{method}_{configuration}_{seed}.safetensors"
    return Path(options().folder) / "steerings" / name


def steering(attribute: str, method: str, configuration: int, seed: int) -> Steering:
    return load_steering(steering_file(attribute, method, configuration, seed), model())


def fit(attribute: str, name: str, configuration: int, seed: int) -> dict[str, Any]:
    """Fit a method and write its steering; how training went."""
    data, method = material(attribute), METHODS[name]
    pairs = data.training(model(), options().n_train, seed)
    n_layers, started = model().cfg.n_layers, process_time()  # judging the pairs is not fitting
    path = steering_file(attribute, name, configuration, seed)
    path.parent.mkdir(parents=True, exist_ok=True)
    if method.objective is None:
        layer = layers_tried(n_layers)[configuration]
        made: Steering = difference_of_means(model(), pairs, layer)
        made.save(path)
        return {"pool": len(data.successful(model())), "seconds": process_time() - started}
    sites = range(n_layers) if method.all_layers else [layers_tried(n_layers)[configuration]]
    rate = RATES[configuration] if method.all_layers else None
    fitted = PSR.fit(
        model(),
        pairs,
        list(sites),
        objective=MSE() if method.objective == "MSE" else LL(),
        gates=Gates(constant=not method.gated),
        schedule=Schedule(epochs=options().epochs, learning_rate=rate, seed=seed),
    )
    fitted.steering.save(path)
    assert fitted.trained is not None
    kept = fitted.trained.rows[fitted.trained.best_epoch]
    return {
        "pool": len(data.successful(model())),
        "seconds": process_time() - started,
        "validation_loss": kept["validation_loss"],
        "best_epoch": fitted.trained.best_epoch,
        "firing": {site.layer: rates.tolist() for site, rates in fitted.firing.items()},
    }


def reference(attribute: str, split: str, seed: int) -> dict[str, Any]:
    """The unsteered and the prompted scores of a split."""
    data = material(attribute)
    samples = options().samples if split == "validation" else 1
    setting = data.setting(model(), split, samples, seed)
    if setting is None:
        return {}
    return {
        "unsteered": _kept(setting.score()),
        "prompt": _kept(setting.score(instruction=data.instruction)),
    }


def validate(attribute: str, name: str, configuration: int, seed: int) -> dict[str, Any]:
    """Strengths at C80 and Cp; without judges the error at the last layer."""
    data = material(attribute)
    acting = steering(attribute, name, configuration, seed)
    setting = data.setting(model(), "validation", options().samples, seed)
    if setting is None:
        sums = _squares(data, "validation", acting)
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
    data = material(attribute)
    setting = data.setting(model(), "validation", 1, seed)
    if setting is None or data.instruction is None:
        return {"strength": 1.0, "reached": False}
    aim = Aim.of(
        model(),
        setting.questions,
        data.instruction,
        setting.attribute,
        setting.sampling,
    )
    effect = abs(float(np.nanmean(aim.prompted)) - float(np.nanmean(aim.plain)))
    acting = steering(attribute, name, configuration, seed)
    at = aim.match(model(), acting, max(MATCHED_SHARE * effect, 1.0), 4)
    return {"strength": at.strength, "reached": at.reached and at.strength > 0, "score": at.score}


def test(attribute: str, name: str, configuration: int, seed: int) -> dict[str, Any]:
    """Test scores at the strengths found, and squared errors at strength 1 and matched."""
    data = material(attribute)
    acting = steering(attribute, name, configuration, seed)
    result: dict[str, Any] = {"errors": {"1": _squares(data, "test", acting)}}
    setting = data.setting(model(), "test", 1, seed)
    if setting is None:
        return result
    for label in ("C80", "Cp"):
        at = _cells().get("validate", attribute, name, configuration, seed)[label]
        result[label] = _kept(setting.score(acting.scaled(at["strength"])))
    matched = _cells().get("match", attribute, name, configuration, seed)
    if matched["reached"]:
        result["errors"]["matched"] = _squares(data, "test", acting.scaled(matched["strength"]))
    return result


def same_layer(attribute: str, name: str, configuration: int, seed: int) -> dict[str, Any]:
    """Squared errors on test pairs at strength 1."""
    data = material(attribute)
    return _squares(data, "test", steering(attribute, name, configuration, seed))


def with_last_prompt_token(
    attribute: str, name: str, configuration: int, seed: int
) -> dict[str, Any]:
    """Squared errors on test pairs at strength 1, on the span that the methods are trained on."""
    data = material(attribute)
    acting = steering(attribute, name, configuration, seed)
    return _squares(data, "test", acting, response)


def wordings_with_last_prompt_token(attribute: str) -> dict[str, Any]:
    """The same of other wordings."""
    data = material(attribute)
    pairs = list(data.pairs["test"])[: options().n_test]
    return _other_words(data, pairs, data.equivalents, response)


def prompt(attribute: str) -> dict[str, Any]:
    """What the prompt does on test pairs, and what other wordings of it do."""
    data = material(attribute)
    pairs = list(data.pairs["test"])[: options().n_test]
    n_layers = model().cfg.n_layers
    table = coefficients(model(), pairs, range(n_layers), {})
    both = [decodability(model(), pairs, strength=strength) for strength in ("along", "norm")]
    shares = rank_share(model(), pairs)
    by_response = table.groupby(["layer", "example"])["norm"].quantile([0.05, 0.95]).unstack()
    within = (by_response[0.95] / by_response[0.05]).unstack("layer")
    return {
        "within": within.to_numpy().T.tolist(),
        "dispersion": dispersion(table).to_dict("list"),
        "rank_share": shares.to_dict("list"),
        "decodability": [one.to_dict("list") for one in both],
        "equivalents": _other_words(data, pairs, data.equivalents),
        "neutral": _other_words(data, pairs, data.neutral),
    }


def _kept(scored: Scored) -> dict[str, Any]:
    """Means, the share of completions without an attribute score, and the scores of questions."""
    return {
        "unscored": float(np.isnan(scored.attribute).mean()),
        "attribute": scored.mean_attribute,
        "coherence": scored.mean_coherence,
        "by_question": scores_by_question(scored),
    }


def _squares(
    data: Material, split: str, acting: Steering, span: Scope = generated
) -> dict[str, Any]:
    """By layer and example: squared distance to the prompted run, and that of the plain run."""
    pairs = list(data.pairs[split])[: options().n_test]
    sites = [Site(layer) for layer in range(model().cfg.n_layers)]
    aligned = align(model(), pairs, sites, span=span)
    target = prompt_deltas(model(), aligned)
    reached = steering_deltas(model(), aligned, acting)
    return _sums(aligned, target, [reached])


def _other_words(
    data: Material, pairs: list[Any], wordings: Sequence[str], span: Scope = generated
) -> dict[str, Any]:
    sites = [Site(layer) for layer in range(model().cfg.n_layers)]
    aligned = align(model(), pairs, sites, span=span)
    others = [
        other_wording(model(), aligned, reworded[: len(pairs)])
        for reworded in data.in_other_words("test", wordings)
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
    return cells_with(options())


def cells_with(chosen: Options) -> Cells:
    """The results in the work folder of these options."""
    facts = {
        "version": VERSION,
        "methods": {name: asdict(method) for name, method in METHODS.items()},
        "searches": [RATES, TOLERANCE, MATCHED_SHARE],
    }
    return cells_of(chosen, facts, Path(chosen.questions) if chosen.questions else None)
