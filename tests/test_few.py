"""Statistics of fewer than eight examples come with a warning, and others without."""

import warnings
from collections.abc import Callable
from typing import Any

import pytest

import steerlens as sl
from analysis import (
    coefficients,
    decodability,
    dispersion,
    faithfulness,
    prompt_effect_recovered,
    rank_share,
)
from steerlens.checks import FEW
from steerlens.prompts import PromptPair

QUESTIONS = [f"Review a movie{'.' * n}" for n in range(1, FEW + 1)]


@pytest.fixture(scope="module")
def model() -> Any:
    return sl.load("demo")


@pytest.fixture(scope="module")
def pairs(model: Any) -> list[PromptPair]:
    return sl.prompted_pairs(model, QUESTIONS, "Be positive.", max_new_tokens=4)


MEASURES: dict[str, Callable[[Any, Any], object]] = {
    "faithfulness": lambda model, pairs: faithfulness(model, pairs, {}, layers=[3]),
    "rank_share": lambda model, pairs: rank_share(model, pairs, [3], folds=2),
    "decodability": lambda model, pairs: decodability(model, pairs, [3], folds=2),
    "prompt_effect_recovered": lambda model, pairs: prompt_effect_recovered(
        model, pairs, {"CAA": sl.at(3, sl.CAA(model.W_U[:, 0].detach()))}
    ),
    "dispersion": lambda model, pairs: dispersion(coefficients(model, pairs, [3], {})),
    "held-out AUROC": lambda model, pairs: sl.contrast_directions(
        model,
        "means",
        [pair.prompted for pair in pairs],
        [pair.plain for pair in pairs],
        3,
        held_out=0.5 if len(pairs) < FEW else 0.9,
    ),
}


@pytest.mark.parametrize("name", MEASURES)
def test_few_examples_are_warned_of(name: str, model: Any, pairs: list[PromptPair]) -> None:
    with pytest.warns(sl.SteeringWarning, match=rf"{name}.*: over \d .*chance.*too narrow"):
        MEASURES[name](model, pairs[:4])


@pytest.mark.parametrize("name", [name for name in MEASURES if name != "held-out AUROC"])
def test_enough_are_not(name: str, model: Any, pairs: list[PromptPair]) -> None:
    assert len(pairs) == FEW
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        MEASURES[name](model, pairs)
    assert not [w for w in caught if "by chance" in str(w.message)]
