"""The cells of the CLAS study: scores, and strengths away from what was fitted on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from time import process_time
from typing import Any

import numpy as np
from clas_fits import FITS, Case, fit_clas
from clas_plan import CLAMP, NO_FILM, OTHER
from study import material, model, options, scores_by_question

import steerlens
from analysis import Scored, Setting, strengths
from analysis.measures.tradeoff import by_question
from steerlens import Conversation, everywhere
from steerlens.steering import Steering


def reference(attribute: str, split: str, seed: int) -> dict[str, Any]:
    """The unsteered and the prompted scores of a split: the floor and the ceiling."""
    setting = _setting(attribute, split, seed)
    instruction = material(attribute).instruction
    return {
        "unsteered": _kept(setting.score()),
        "prompt": _kept(setting.score(instruction=instruction)),
    }


def search(attribute: str, method: str, configuration: int, seed: int) -> dict[str, Any]:
    """The validation scores of a configuration."""
    return _scores(attribute, method, configuration, seed, "validation")


def test(attribute: str, method: str, configuration: int, seed: int) -> dict[str, Any]:
    """The test scores of a configuration."""
    return _scores(attribute, method, configuration, seed, "test")


def beyond(attribute: str, configuration: int, seed: int) -> dict[str, Any]:
    """CLAS (RFM) on its own test questions and on others, as fitted, bounded, and without BOS."""
    case = Case(attribute, seed)
    fit = fit_clas(case, configuration, "rfm")
    skipping = fit_clas(case, configuration, "rfm", scope=everywhere.without_bos)
    steerings = {
        "as fitted": fit.steering,
        "bounded": _bounded(fit, case),
        "without BOS": skipping.steering,
    }
    return {
        where: _where(setting, steerings, fit)
        for where, setting in (
            ("own", _setting(attribute, "test", seed, options().n_beyond)),
            ("beyond", _elsewhere(attribute, seed)),
        )
    }


def stronger(attribute: str, configuration: int, factor: float) -> dict[str, Any]:
    """The validation scores of CLAS (RFM) at so many times the strength that was fitted."""
    fit = fit_clas(Case(attribute, 0), configuration, "rfm")
    setting = _setting(attribute, "validation", 0)
    return {**_kept(setting.score(fit.steering.scaled(factor))), "step": fit.trained.best_epoch}


def _setting(attribute: str, split: str, seed: int, n: int | None = None) -> Setting:
    found = material(attribute).setting(model(), split, 1, seed)
    assert found is not None
    size = n or (options().n_test if split == "test" else options().n_validation)
    return replace(found, questions=list(found.questions)[:size])


def _elsewhere(attribute: str, seed: int) -> Setting:
    """Questions about no film, under the attribute's judge."""
    asked = material(OTHER).questions
    assert asked is not None
    some = [one for one in asked["test"] if any(words in one for words in NO_FILM)]
    own = _setting(attribute, "test", seed)
    return replace(own, questions=some[: options().n_beyond])


def _scores(
    attribute: str, method: str, configuration: int, seed: int, split: str
) -> dict[str, Any]:
    case = Case(attribute, seed)
    _ = case.drawn, case.probes  # judging which responses show the attribute is not fitting
    started = process_time()
    fitted = FITS[method](case, configuration)
    seconds = process_time() - started
    with fitted.model() as adapted:
        scored = replace(_setting(attribute, split, seed), model=adapted).score(fitted.steering)
    return {**_kept(scored), "seconds": seconds, "step": fitted.best_step}


def _kept(scored: Scored) -> dict[str, Any]:
    """Means, and the scores of questions; the harmonic mean is that of each completion."""
    both = harmonic(scored.attribute, scored.coherence)
    return {**scores_by_question(scored), "harmonic": by_question(both).tolist()}


def harmonic(attribute: np.ndarray, coherence: np.ndarray) -> np.ndarray:
    """2 a c / (a + c); 0 where either is 0, and where the attribute could not be judged."""
    a, c = np.nan_to_num(attribute), np.nan_to_num(coherence)
    with np.errstate(invalid="ignore"):
        return np.nan_to_num(2 * a * c / (a + c))


def _bounded(fit: Any, case: Case) -> Steering:
    """Alpha kept within what nearly all training tokens had, at each site."""
    texts = [steerlens.encode_pair(model(), pair)[0] for pair in case.train]
    directions = {site: steer.v[0] for site, steer in fit.steers.items()}
    table = strengths(
        model(), texts, {"CLAS": fit.steering}, directions, span=everywhere.without_bos
    )
    limits = table["along"].abs().groupby(table["layer"]).quantile(CLAMP)
    placed = [
        (site, replace(steer, limit=max(float(limits[site.layer]), 1e-6)))
        for site, steer in fit.steers.items()
    ]
    return Steering(tuple(placed), fit.steering.origin)


def _where(setting: Setting, steerings: Mapping[str, Steering], fit: Any) -> dict[str, Any]:
    """Scores, and how strong `fit` is on BOS and on the tokens of the model's own answers."""
    scores = {"unsteered": _kept(setting.score())}
    scores |= {name: _kept(setting.score(one)) for name, one in steerings.items()}
    asked = [Conversation(question) for question in setting.questions]
    made = steerlens.generate(model(), asked, **vars(setting.sampling))
    rows = [
        steerlens.encode(model(), replace(prompt, response=text))
        for prompt, text in zip(asked, made.texts, strict=True)
    ]
    v = {site: steer.v[0] for site, steer in fit.steers.items()}
    table = strengths(model(), rows, {"CLAS": fit.steering}, v)
    first = table["token_index"] == 0
    return {
        "scores": scores,
        "alpha": {
            name: part.groupby("layer")["along"].apply(lambda a: a.abs().mean()).tolist()
            for name, part in (("BOS", table[first]), ("text", table[~first]))
        },
        "relative": {
            name: part.groupby("layer")["relative_norm"].mean().tolist()
            for name, part in (("BOS", table[first]), ("text", table[~first]))
        },
        "by_text": table[~first]["along"].abs().groupby(table["example"]).mean().tolist(),
    }
