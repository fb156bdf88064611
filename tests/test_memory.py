"""Measurements hold no more activations than they were told to, and say the same in parts."""

import warnings
from functools import partial
from typing import Any

import pandas as pd
import pytest
import torch
from tiny_models import D_MODEL

from steerlens import (
    CAA,
    PromptPair,
    Site,
    analysis,
    at,
    everywhere,
    generated,
    positions,
    response,
)
from steerlens.analysis.measures import parts
from steerlens.analysis.measures.aligned import align
from steerlens.analysis.measures.deltas import prompt_deltas, steering_deltas
from steerlens.analysis.measures.least_squares import Distance
from steerlens.analysis.measures.parts import Parts, bytes_a_token, holding

QUESTIONS = ("What?", "How is it?", "Who?", "What do you think of it?", "Why?")
STEERING = at(1, CAA(torch.linspace(-1, 1, D_MODEL)))
pytestmark = pytest.mark.filterwarnings("ignore::steerlens.SteeringWarning")


@pytest.fixture(scope="module")
def pairs() -> list[PromptPair]:
    return [
        PromptPair.with_system(question, "Be kind.", f" It is{' very' * number} kind.")
        for number, question in enumerate(QUESTIONS)
    ]


def _same(found: pd.DataFrame, wanted: pd.DataFrame) -> None:
    """The same rows in the same order; numbers but for the rounding of other batches."""
    assert found.attrs == wanted.attrs
    pd.testing.assert_frame_equal(found, wanted, rtol=1e-4, atol=1e-5)


def _measured(model: Any, pairs: list[PromptPair]) -> list[pd.DataFrame]:
    told, given = {"CAA": STEERING}, (model, pairs, [1, 2])
    others = {"equivalents": [analysis.reworded(pairs, "Kindly!")], "n_bootstrap": 50}
    readable = partial(analysis.decodability, readouts=("linear",))
    return [
        analysis.faithfulness(model, pairs, told, **others),
        *(analysis.coefficients(*given, told, view=v) for v in ("accumulated", "local")),
        analysis.coefficients(model, pairs, 1, told, {1: torch.ones(D_MODEL)}),
        *(measure(*given, folds=2) for measure in (analysis.rank_share, readable)),
    ]


def test_parts_say_what_the_whole_says(gpt2: Any, pairs: list[PromptPair]) -> None:
    whole = _measured(gpt2, pairs)
    for memory in (1, 40_000):
        with holding(memory):
            for found, wanted in zip(_measured(gpt2, pairs), whole, strict=True):
                _same(found, wanted)


@pytest.mark.parametrize("layers", ["steered", "last", "site"])
@pytest.mark.parametrize("steering", [STEERING, 3.0 * STEERING.only(response)])
def test_parts_find_the_strength_that_the_whole_finds(
    gpt2: Any, pairs: list[PromptPair], steering: Any, layers: Any
) -> None:
    whole = analysis.least_squares_strength(gpt2, steering, pairs, layers=layers)
    for memory in (1, 40_000):
        with holding(memory):
            found = analysis.least_squares_strength(gpt2, steering, pairs, layers=layers)
        assert found == pytest.approx(whole, rel=1e-3)
    assert whole not in (0.0, 1.0)


def test_the_way_between_two_strengths_is_that_of_its_definition(
    gpt2: Any, pairs: list[PromptPair]
) -> None:
    """The line through two trials, neither of them 0, follows from these sums."""
    aligned, steered = align(gpt2, pairs, [1, 3]), [STEERING.scaled(s) for s in (1.5, 0.5)]
    target = prompt_deltas(gpt2, aligned)
    last, other = (steering_deltas(gpt2, aligned, steering) for steering in steered)
    with holding(1):
        made = Parts.of(gpt2, pairs, [1, 3], span=generated)
        found = Distance(gpt2, STEERING, made, float("inf"))(1.5, 0.5)
    assert found.push == len(target) == 2
    wanted = torch.zeros(3, dtype=torch.float64)
    for site in target:
        missed, change = last[site] - target[site], last[site] - other[site]
        sums = [part.sum() for part in (missed.square(), change.square(), change * missed)]
        wanted += torch.stack(sums) / target[site].square().sum()
    numbers = [found.missed, found.change, found.along]
    assert numbers == pytest.approx(wanted.tolist(), rel=1e-4)
    only = Distance(gpt2, STEERING, made, float("inf")).from_first_changed().only
    assert only == Site(1)


def test_parts_are_as_large_as_fits(gpt2: Any, pairs: list[PromptPair]) -> None:
    """And every pair is in one of them, in order."""
    tokens = parts.tokens_of(gpt2, pairs, everywhere, "template")
    memory = bytes_a_token(gpt2, 2) * (tokens[0] + tokens[1])
    with holding(memory):
        made = Parts.of(gpt2, pairs, [1, 2], span=everywhere)
    assert [pair for part in made.parts for pair in part] == pairs
    assert made.parts[0] == pairs[:2]
    for part in made.parts:
        size = sum(tokens[pairs.index(pair)] for pair in part)
        assert size * bytes_a_token(gpt2, 2) <= memory or len(part) == 1


def test_no_more_pairs_are_held_at_once_than_fit(
    gpt2: Any, pairs: list[PromptPair], monkeypatch: pytest.MonkeyPatch
) -> None:
    held: list[int] = []
    inner = parts.align

    def counted(model: Any, some: Any, sites: Any, **options: Any) -> Any:
        held.append(len(some) * len(sites))
        return inner(model, some, sites, **options)

    for module in ("parts", "folds"):
        monkeypatch.setattr(f"steerlens.analysis.measures.{module}.align", counted)
    with holding(1):
        analysis.faithfulness(gpt2, pairs, {"CAA": STEERING})
        analysis.coefficients(gpt2, pairs, [1, 2], {"CAA": STEERING})
    assert max(held) == gpt2.cfg.n_layers  # one pair
    held.clear()
    with holding(1):
        analysis.least_squares_strength(gpt2, STEERING, pairs, layers="last")
    assert set(held) == {1}  # one pair at one layer
    assert len(held) >= 2 * len(pairs)
    held.clear()
    with holding(1):
        analysis.rank_share(gpt2, pairs, [1, 2], folds=2)
        analysis.decodability(gpt2, pairs, [1, 2], folds=2, readouts=("linear",))
    assert max(held) == len(pairs)  # one layer


def test_a_single_part_is_run_once(
    gpt2: Any, pairs: list[PromptPair], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = Parts.of(gpt2, pairs, 1)
    monkeypatch.setattr("steerlens.analysis.measures.parts.align", lambda *_, **__: pairs)
    assert list(made) == list(made) == [pairs]
    monkeypatch.setattr("steerlens.analysis.measures.parts.align", lambda *_, **__: None)
    assert list(made) == [pairs]


def test_a_steer_is_idle_only_if_it_changes_no_pair_of_any_part(
    gpt2: Any, pairs: list[PromptPair]
) -> None:
    """A scope that meets the tokens of some pairs alone."""
    longest = max(parts.tokens_of(gpt2, pairs, everywhere, "template"))
    late = STEERING.only(positions(longest - 3))
    with warnings.catch_warnings(record=True) as said, holding(1):
        warnings.simplefilter("always")
        analysis.coefficients(gpt2, pairs, 2, {"late": late})
        analysis.faithfulness(gpt2, pairs, {"late": late}, layers=[2])
    told = {str(one.message).partition(":")[0] for one in said}
    assert told == {"faithfulness"}  # that five questions are few


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("memory", [0, -1, 1.5, True])
def test_memory_is_a_number_of_bytes(memory: Any) -> None:
    with pytest.raises(ValueError, match="memory is a number of bytes"), holding(memory):
        pass


def test_other_wordings_are_as_many_as_the_pairs(gpt2: Any, pairs: list[PromptPair]) -> None:
    """The rest would be measured nowhere."""
    others = analysis.reworded([*pairs, pairs[0]], "Kindly!")
    with pytest.raises(ValueError, match="in the same order as the pairs"):
        analysis.faithfulness(gpt2, pairs, {}, equivalents=[others])
