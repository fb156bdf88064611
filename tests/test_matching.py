"""Matched strengths: the strength whose completions score as the prompt's do."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from tiny_models import D_MODEL

import steerlens
from analysis.judges import sentiment
from analysis.measures import matching
from analysis.measures.entries import AS_FITTED, MATCHED
from analysis.measures.matching import match, with_matched
from steerlens import CAA, Conversation, SteeringWarning, at
from steerlens.generation import Sampling

QUESTIONS = ["Review a movie.", "How was the film?"]
CAA_AT_1 = at(1, CAA(torch.ones(D_MODEL)))


class Reads:
    """A judge that reads its score off the text."""

    name = "number"

    def __call__(self, texts: Any, prompts: Any = None) -> np.ndarray:
        return np.array([float(text) for text in texts])


@pytest.fixture
def effect(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Replaces the model: a steering of strength s scores `curve(s)`, the prompt scores 70."""
    box = SimpleNamespace(curve=lambda s: 20 + 10 * s, prompt=70.0, calls=[])

    def generate(model: Any, prompts: Any, steering: Any, **options: Any) -> Any:
        prompted = prompts[0].system is not None
        box.calls.append((steering, options["seed"]))
        strength = 0.0 if steering is None else steering.placed[0][1].strength
        score = box.prompt if prompted else box.curve(strength)
        return SimpleNamespace(texts=[str(score)] * len(prompts), prompt=range(len(prompts)))

    monkeypatch.setattr(matching, "generate", generate)
    return box


def test_the_strength_with_the_prompts_score_is_found(gpt2: Any, effect: Any) -> None:
    found = match(gpt2, CAA_AT_1, QUESTIONS, "Be positive.", Reads(), tolerance=0.5)
    assert found.reached
    assert found.strength == pytest.approx(5, abs=0.05)
    assert (found.prompt_score, found.plain_score) == (70, 20)
    assert found.score == pytest.approx(70, abs=0.5)


def test_it_works_downwards_too(gpt2: Any, effect: Any) -> None:
    effect.prompt, effect.curve = 5.0, lambda s: 50 - 9 * s
    found = match(gpt2, CAA_AT_1, QUESTIONS, "Be negative.", Reads(), tolerance=0.5)
    assert found.reached
    assert found.strength == pytest.approx(5, abs=0.06)


def test_a_prompt_without_effect_needs_no_strength(gpt2: Any, effect: Any) -> None:
    effect.prompt = 20.0
    found = match(gpt2, CAA_AT_1, QUESTIONS, "Be there.", Reads())
    assert (found.strength, found.reached) == (0, True)


def test_a_steering_that_never_gets_there_gives_its_best(gpt2: Any, effect: Any) -> None:
    effect.curve = lambda s: 20 + 30 * s / 1.4 * np.exp(1 - s / 1.4)  # at most 50, at 1.4
    found = match(gpt2, CAA_AT_1, QUESTIONS, "Be positive.", Reads())
    assert not found.reached
    assert found.strength == pytest.approx(1.4, abs=0.15)
    assert found.score == max(trial.score for trial in found.trials)
    assert len(effect.calls) < 20
    table = found.table()
    assert table["strength"].is_monotonic_increasing


@pytest.mark.parametrize(("peak", "width"), [(1.4, 0.6), (3, 0.5), (0.75, 0.4), (0.1, 0.5)])
def test_a_peak_between_the_steps_is_found(
    gpt2: Any, effect: Any, peak: float, width: float
) -> None:
    """80 at the peak, 20 far from it; found wherever it lies."""
    effect.curve = lambda s: 20 + 60 * np.exp(-((np.log(max(s, 1e-9) / peak) / width) ** 2))
    found = match(gpt2, CAA_AT_1, QUESTIONS, "Be positive.", Reads(), steps=8)
    assert found.reached
    assert found.score == pytest.approx(70, abs=2)
    assert found.strength < 1.3 * peak


def test_an_effect_below_the_first_step_is_found(gpt2: Any, effect: Any) -> None:
    effect.curve = lambda s: 20 + 300 * s if s < 0.25 else 30.0
    found = match(gpt2, CAA_AT_1, QUESTIONS, "Be positive.", Reads(), steps=8)
    assert found.reached
    assert found.strength == pytest.approx(1 / 6, abs=0.01)


def test_text_that_cannot_be_scored_is_broken_and_no_success(gpt2: Any, effect: Any) -> None:
    effect.curve = lambda s: 20 + 10 * np.log1p(s) if s < 8 else np.nan
    found = match(gpt2, CAA_AT_1, QUESTIONS, "Be positive.", Reads())
    assert not found.reached
    assert found.strength < 8
    assert any(trial.broken for trial in found.trials)


def test_a_few_scored_completions_of_a_broken_text_are_no_success(gpt2: Any, effect: Any) -> None:
    class Picky(Reads):
        """Scores only the first completion once the text says 70."""

        def __call__(self, texts: Any, prompts: Any = None) -> np.ndarray:
            scores = super().__call__(texts)
            steered = prompts[0].system is None and scores[0] >= 65
            return np.where(np.arange(len(scores)) > 0, np.nan, scores) if steered else scores

    found = match(gpt2, CAA_AT_1, QUESTIONS, "Be positive.", Picky())
    assert not found.reached
    assert found.score < 65


def test_the_error_is_that_of_the_paired_difference(
    gpt2: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    aim = matching.Aim(
        ("a", "b", "c"), Reads(), Sampling(),
        prompted=np.array([70.0, 80.0, 90.0]), plain=np.array([71.0, 78.0, 92.0]),
    )  # fmt: skip
    found = aim.match(gpt2, CAA_AT_1, tolerance=2.0, steps=0)
    assert (found.strength, found.reached) == (0, True)
    differences = np.array([1.0, -2.0, 2.0])
    assert found.standard_error == pytest.approx(differences.std(ddof=1) / 3**0.5)


def test_every_trial_has_the_same_seeds(gpt2: Any, effect: Any) -> None:
    match(gpt2, CAA_AT_1, QUESTIONS, "Be positive.", Reads(), sampling=Sampling(seed=5))
    assert {seed for _, seed in effect.calls} == {5}


def test_entries_are_labelled_and_the_unmatched_left_out_with_a_warning(
    gpt2: Any, effect: Any
) -> None:
    entries = with_matched(gpt2, {"CAA": CAA_AT_1}, QUESTIONS, "Be positive.", Reads())
    assert [entry.strength for entry in entries] == [AS_FITTED, MATCHED]
    assert entries[1].strength_value == pytest.approx(5, abs=0.3)
    effect.curve = lambda s: 20.0
    with pytest.warns(SteeringWarning, match=r"CAA has no matched .* 20 .* the prompt 70"):
        entries = with_matched(gpt2, {"CAA": CAA_AT_1}, QUESTIONS, "Be kind.", Reads())
    assert [entry.strength for entry in entries] == [AS_FITTED]
    effect.prompt = 21.0
    with pytest.warns(SteeringWarning, match=r"instruction itself .* \(20 to 21\)"):
        entries = with_matched(gpt2, {"CAA": CAA_AT_1}, QUESTIONS, "Be there.", Reads())
    assert [entry.strength for entry in entries] == [AS_FITTED]


def test_no_questions_and_no_scores_are_errors(gpt2: Any, effect: Any) -> None:
    with pytest.raises(ValueError, match="validation prompts"):
        match(gpt2, CAA_AT_1, [], "Be positive.", Reads())
    effect.prompt = float("nan")
    with pytest.raises(ValueError, match="could score none of 2"):
        match(gpt2, CAA_AT_1, QUESTIONS, "Be positive.", Reads())


def test_on_a_model_the_trials_are_what_generation_gives() -> None:
    model = steerlens.load("demo")
    torch.manual_seed(0)
    caa = at(3, CAA(torch.randn(model.cfg.d_model)))
    sampling = Sampling(max_new_tokens=12, seed=3)
    judge = sentiment()
    found = match(
        model, caa, QUESTIONS, "Be positive.", judge, sampling=sampling, steps=1, tolerance=0.01
    )
    prompts = [Conversation(question, "Be positive.") for question in QUESTIONS]
    texts = steerlens.generate(model, prompts, max_new_tokens=12, seed=3).texts
    assert found.prompt_score == pytest.approx(np.nanmean(judge(texts)))
    for trial in found.trials[:2]:
        plain = [Conversation(question) for question in QUESTIONS]
        steering = caa.scaled(trial.strength) if trial.strength else None
        texts = steerlens.generate(model, plain, steering, max_new_tokens=12, seed=3).texts
        assert trial.score == pytest.approx(np.nanmean(judge(texts)))
