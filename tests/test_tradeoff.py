"""Attribute against coherence: the search on known curves, sampling and judging on a tiny model."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from tiny_models import D_MODEL

import steerlens
from analysis.measures import tradeoff as module
from analysis.measures.intervals import interval_of_mean
from analysis.measures.tradeoff import Scored, Setting, Tradeoff, by_question, c80, cp, tradeoff
from steerlens import CAA, Conversation, at
from steerlens.generation import Sampling

QUESTIONS = ("What is it?", "Do you love the dog and the cat?", "What do you think of the sea?")
CAA_AT_1 = at(1, CAA(torch.linspace(-1, 1, D_MODEL)))
SHORT = Sampling(max_new_tokens=6, seed=5)


class Reads:
    """A judge that scores by a number read off the text, and keeps what it was shown."""

    def __init__(self, score: Callable[[str], float], name: str = "number") -> None:
        self.score, self.name = score, name
        self.texts: list[str] = []
        self.prompts: list[Any] = []

    def __call__(self, texts: Sequence[str], prompts: Any = None) -> np.ndarray:
        self.texts += texts
        self.prompts += prompts
        return np.array([self.score(text) for text in texts], dtype=np.float64)


def length() -> Reads:
    return Reads(lambda text: float(len(text)), "length")


def vowels() -> Reads:
    return Reads(lambda text: float(sum(text.count(letter) for letter in "aeiou")), "vowels")


def settled(model: Any, **other: Any) -> Setting:
    return Setting(model, QUESTIONS, vowels(), length(), **{"sampling": SHORT, **other})


@dataclass(frozen=True, eq=False)
class Known(Setting):
    """A setting without sampling: the coherence is a known function of the strength."""

    curve: Callable[[float], float] = lambda strength: 100 - 10 * strength
    strengths: list[float | None] = field(default_factory=list)

    def score(self, steering: Any = None, instruction: str | None = None) -> Scored:
        strength = None if steering is None else steering.placed[0][1].strength
        self.strengths.append(strength)
        value = self.curve(strength or 0.0)
        return Scored(np.full((3, 1), 7.0 * (strength or 0.0)), np.full((3, 1), float(value)))


def known(model: Any, curve: Callable[[float], float]) -> Tradeoff:
    return Tradeoff(Known(model, QUESTIONS, vowels(), length(), curve=curve), CAA_AT_1)


# -- The search ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("target", "largest"),
    [(50, 5.0), (79, 2.1), (90, 1.0), (80, 2.0), (91, 0.9), (99, 0.1), (99.7, 0.03)],
)
def test_the_largest_strength_that_is_coherent_enough_is_found(
    gpt2: Any, target: float, largest: float
) -> None:
    curve = known(gpt2, lambda strength: 100 - 10 * strength)
    found = curve.at_coherence(float(target))
    assert (found.reached, found.bounded) == (True, True)
    assert found.strength <= largest * (1 + 1e-9)
    assert found.strength == pytest.approx(largest, rel=2 * 2.0**-7)
    assert found.scored.mean_coherence >= target
    assert found.scored is curve.at(found.strength)


def test_more_bisections_come_nearer(gpt2: Any) -> None:
    errors = []
    for bisections in (0, 2, 12):
        curve = known(gpt2, lambda strength: 100 - 10 * strength)
        errors.append(5.8 - curve.at_coherence(42.0, bisections=bisections).strength)
    assert errors[0] == pytest.approx(1.8)
    assert errors[0] > errors[1] > errors[2] > 0
    assert errors[2] < 4 / 2**12


def test_a_target_out_of_reach_gives_the_most_coherent_strength(gpt2: Any) -> None:
    curve = known(gpt2, lambda strength: 60 - 10 * abs(strength - 0.25))
    found = curve.at_coherence(80.0)
    assert (found.reached, found.bounded, found.strength) == (False, True, 0.25)
    assert found.scored.mean_coherence == 60


def test_a_strength_without_a_score_is_not_the_most_coherent(gpt2: Any) -> None:
    curve = known(gpt2, lambda strength: np.nan if strength >= 1 else 60 - 10 * strength)
    found = curve.at_coherence(80.0)
    assert not found.reached
    assert found.strength == 1 / 64


def test_text_that_cannot_be_scored_is_not_coherent(gpt2: Any) -> None:
    found = known(gpt2, lambda s: 100 - 10 * s if s < 3 else np.nan).at_coherence(20.0)
    assert (found.reached, found.bounded) == (True, True)
    assert found.strength == pytest.approx(3, abs=0.03)


def test_a_coherence_that_never_falls_is_not_bounded(gpt2: Any) -> None:
    found = known(gpt2, lambda strength: 90.0).at_coherence(80.0)
    assert (found.reached, found.bounded, found.strength) == (True, False, 64)


def test_the_search_goes_as_far_as_64_and_a_64th(gpt2: Any) -> None:
    at_limits = known(gpt2, lambda s: 100 if s <= 1 / 64 else 0 if s < 1.5 else 50)
    assert at_limits.at_coherence(99.0, bisections=0).strength == 1 / 64
    high = known(gpt2, lambda strength: 100.0 if strength < 50 else 0.0)
    found = high.at_coherence(50.0)
    assert found.bounded
    assert found.strength == pytest.approx(50, abs=0.3)
    assert max(high.tried) == 64


def test_every_strength_is_scored_once_whatever_is_asked(gpt2: Any) -> None:
    curve = known(gpt2, lambda strength: 100 - 10 * strength)
    curve.at(1.0)
    for target in (50.0, 80.0, 95.0, 50.0):
        curve.at_coherence(target)
    scored = curve.setting.strengths  # pyright: ignore[reportAttributeAccessIssue]
    assert len(scored) == len(set(scored)) == len(curve.tried)


def test_a_larger_strength_tried_before_counts_too(gpt2: Any) -> None:
    curve = known(gpt2, lambda s: 90.0 if 10 < s < 20 else 100 - 20 * s)
    assert curve.at_coherence(70.0).strength == pytest.approx(1.5)
    curve.at(15.0)
    assert curve.at_coherence(70.0).strength == 15


def test_strength_0_is_unsteered(gpt2: Any) -> None:
    curve = known(gpt2, lambda strength: 100 - 10 * strength)
    assert curve.at(0.0).mean_coherence == 100
    assert curve.at(2.0).mean_coherence == 80
    assert curve.setting.strengths == [None, 2.0]  # pyright: ignore[reportAttributeAccessIssue]


def test_the_table_has_a_row_for_every_strength_tried(gpt2: Any) -> None:
    curve = known(gpt2, lambda strength: 100 - 10 * strength)
    for strength in (2.0, 0.5, 1.0):
        curve.at(strength)
    table = curve.table()
    assert table["strength"].tolist() == [0.5, 1, 2]
    assert table["coherence"].tolist() == [95, 90, 80]
    assert table["attribute"].tolist() == [3.5, 7, 14]
    assert table["n"].tolist() == [3] * 3


# -- Scores ----------------------------------------------------------------------------------------

GAPS = np.array([[1.0, np.nan, 4.0], [np.nan] * 3, [6.0, 8.0, 10.0]])


def test_a_question_scores_the_mean_of_its_known_samples() -> None:
    np.testing.assert_array_equal(by_question(GAPS), [2.5, np.nan, 8.0])


def test_a_row_tells_means_intervals_over_questions_and_counts() -> None:
    coherence = np.array([[90.0] * 3, [80.0] * 3, [40.0] * 3])
    row = Scored(GAPS, coherence).row(seed=3)
    assert (row["attribute"], row["coherence"]) == (pytest.approx(29 / 5), pytest.approx(70))
    assert (row["n"], row["scored"]) == (9, 5)
    for name, scores in (("attribute", [2.5, 8.0]), ("coherence", [90.0, 80.0, 40.0])):
        interval = interval_of_mean(np.array(scores), seed=3)
        assert (row[f"{name}_low"], row[f"{name}_high"]) == interval


def test_without_any_score_the_mean_is_unknown() -> None:
    none = Scored(np.full((2, 2), np.nan), np.ones((2, 2)))
    assert np.isnan(
        [none.mean_attribute, none.row()["attribute"], none.row()["attribute_low"]]
    ).all()
    assert (none.mean_coherence, none.row()["scored"]) == (1, 0)


# -- Sampling and judging --------------------------------------------------------------------------


def test_scores_are_those_of_the_completions_by_question_and_sample(gpt2: Any) -> None:
    setting = settled(gpt2, n=3)
    found = setting.score(CAA_AT_1)
    asked = [Conversation(question) for question in QUESTIONS]
    made = steerlens.generate(gpt2, asked, CAA_AT_1, n=3, max_new_tokens=6, seed=5)
    assert found.attribute.shape == found.coherence.shape == (3, 3)
    for text, prompt, sample in zip(made.texts, made.prompt, made.sample, strict=True):
        assert found.coherence[prompt, sample] == len(text)
        assert found.attribute[prompt, sample] == vowels()([text], [None])[0]
    assert len(np.unique(found.coherence)) > 3
    again = settled(gpt2, n=3, batch_size=2).score(CAA_AT_1)
    np.testing.assert_array_equal(again.coherence, found.coherence)


def test_the_order_in_which_completions_come_does_not_matter(
    gpt2: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    prompt, sample = (2, 0, 1, 0, 2, 1), (1, 1, 0, 0, 0, 1)
    texts = tuple("x" * (10 * p + s) for p, s in zip(prompt, sample, strict=True))
    made = SimpleNamespace(texts=texts, prompt=prompt, sample=sample)
    monkeypatch.setattr(module, "generate", lambda *_, **__: made)
    setting = settled(gpt2, n=2)
    assert setting.score().coherence.tolist() == [[0, 1], [10, 11], [20, 21]]
    asked = [turn.user for turn in setting.coherence.prompts]  # pyright: ignore[reportAttributeAccessIssue]
    assert asked == [QUESTIONS[number] for number in prompt]


def test_every_strength_and_the_prompt_have_the_same_random_numbers(
    gpt2: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[dict[str, Any]] = []

    def spied(*given: Any, **options: Any) -> Any:
        calls.append(options)
        return steerlens.generate(*given, **options)

    monkeypatch.setattr(module, "generate", spied)
    setting = settled(gpt2, n=2, batch_size=4)
    tradeoff(setting, {"CAA": CAA_AT_1}, [0.5, 2.0], "Be kind.")
    assert len(calls) == 4
    assert all(call == calls[0] for call in calls)
    assert calls[0] == {"n": 2, "batch_size": 4, **vars(SHORT)}
    hardly = at(1, CAA(torch.full((D_MODEL,), 1e-6)))
    scores = [Tradeoff(setting, hardly).at(strength).coherence for strength in (0.0, 1.0, 3.0)]
    np.testing.assert_array_equal(scores[0], scores[1])
    np.testing.assert_array_equal(scores[0], scores[2])
    assert not np.array_equal(
        scores[0], replace(setting, sampling=Sampling(6, seed=6)).score().coherence
    )


def test_judges_see_the_question_and_never_the_instruction(gpt2: Any) -> None:
    setting = settled(gpt2, n=2)
    plain, instructed = setting.score(), setting.score(instruction="Be kind.")
    assert not np.array_equal(plain.coherence, instructed.coherence)
    asked = [Conversation(question) for question in QUESTIONS for _ in range(2)]
    for judge in (setting.attribute, setting.coherence):
        assert judge.prompts == asked * 2  # pyright: ignore[reportAttributeAccessIssue]
    turns = [Conversation(question, "Be kind.") for question in QUESTIONS]
    made = steerlens.generate(gpt2, turns, n=2, max_new_tokens=6, seed=5)
    assert instructed.coherence.ravel().tolist() == [len(text) for text in made.texts]


def test_steered_and_instructed_at_once_is_both(gpt2: Any) -> None:
    turns = [Conversation(question, "Be kind.") for question in QUESTIONS]
    made = steerlens.generate(gpt2, turns, CAA_AT_1, max_new_tokens=6, seed=5)
    found = settled(gpt2).score(CAA_AT_1, "Be kind.")
    assert found.coherence.ravel().tolist() == [len(text) for text in made.texts]


def test_raw_questions_have_the_instruction_in_front(gpt2: Any) -> None:
    setting = settled(gpt2, raw=True)
    found = setting.score(instruction="I love you. ")
    prompts = ["I love you. " + question for question in QUESTIONS]
    made = steerlens.generate(gpt2, prompts, max_new_tokens=6, seed=5)
    assert found.coherence.ravel().tolist() == [len(text) for text in made.texts]
    assert setting.coherence.prompts == list(QUESTIONS)  # pyright: ignore[reportAttributeAccessIssue]
    plain = steerlens.generate(gpt2, list(QUESTIONS), max_new_tokens=6, seed=5)
    assert setting.score().coherence.ravel().tolist() == [len(text) for text in plain.texts]


def test_a_setting_needs_questions_and_completions(gpt2: Any) -> None:
    with pytest.raises(ValueError, match="No questions"):
        Setting(gpt2, (), vowels(), length())
    with pytest.raises(ValueError, match="at least 1: 0"):
        Setting(gpt2, QUESTIONS, vowels(), length(), n=0)


# -- The table -------------------------------------------------------------------------------------


def test_the_table_has_the_points_and_every_strength_of_every_method(gpt2: Any) -> None:
    setting = settled(gpt2, n=2)
    other = at(2, CAA(torch.ones(D_MODEL)))
    table = tradeoff(setting, {"one": CAA_AT_1, "two": other}, [0.5, 2.0], "Be kind.")
    assert list(table.columns) == [
        "method", "strength", "attribute", "attribute_low", "attribute_high",
        "coherence", "coherence_low", "coherence_high", "n", "scored",
    ]  # fmt: skip
    assert table["method"].tolist() == ["unsteered", "prompt", "one", "one", "two", "two"]
    assert table["strength"].tolist()[2:] == [0.5, 2, 0.5, 2]
    assert table["strength"].isna().tolist() == [True, True, *[False] * 4]
    expected = [
        setting.score(),
        setting.score(instruction="Be kind."),
        *(setting.score(s.scaled(x)) for s in (CAA_AT_1, other) for x in (0.5, 2.0)),
    ]
    assert table["coherence"].tolist() == [scored.mean_coherence for scored in expected]
    assert set(table["n"]) == {6}
    assert tradeoff(setting, {}, [1.0])["method"].tolist() == ["unsteered"]


@pytest.mark.parametrize("name", ["unsteered", "prompt"])
def test_a_name_that_is_taken_is_an_error(gpt2: Any, name: str) -> None:
    with pytest.raises(ValueError, match=f"{name}: this name is taken"):
        tradeoff(settled(gpt2), {name: CAA_AT_1}, [1.0])


def test_the_bounds_of_coherence() -> None:
    assert c80(70.0) == pytest.approx(56)
    assert c80(70.0, absolute=True) == 80
    assert cp(unsteered=80.0, prompted=75.0, tolerance=2.0) == 73
    assert cp(unsteered=80.0, prompted=86.0) == 80  # no strength need beat the model's own text
