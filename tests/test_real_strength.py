"""Strengths, and the judge of any instruction, on a model whose text one can read."""

from typing import Any

import numpy as np
import pytest

import steerlens as sl
from analysis import likelihood, prompt_effect_recovered

PIRATE, PERSON = "You are a pirate. Talk like a pirate.", "You are a person. Talk like a person."
QUESTIONS = ("What did you do today?", "Tell me about yourself.", "Describe the weather.")

pytestmark = [
    pytest.mark.real,
    pytest.mark.filterwarnings("ignore:The model's chat template puts a system prompt"),
]


@pytest.fixture(scope="module")
def pairs(smollm2: Any) -> Any:
    return sl.prompted_pairs(smollm2, QUESTIONS, PIRATE, max_new_tokens=24, seed=0)


def test_the_prompts_own_strength_is_found_whatever_the_methods_size(
    smollm2: Any, pairs: Any
) -> None:
    sides = [pair.prompted for pair in pairs], [pair.plain for pair in pairs]
    caa = sl.CAA.fit(smollm2, sides, 15).steering.only(sl.scope.response)
    found = sl.calibrate(smollm2, 1e-5 * caa, pairs)
    assert found.reached
    assert found.effect == pytest.approx(found.target, rel=0.15)
    assert 0.05 < found.target < 2
    assert len(found.trials) < 14
    table = prompt_effect_recovered(smollm2, pairs, {"CAA": found.steering}).set_index("method")
    assert table.loc["unsteered", "recovered"] == 0
    assert table.loc["CAA", "kl_prompt"] > 0


def test_the_judge_tells_a_pirate_from_a_person(one_smollm2: Any) -> None:
    sampling = sl.Sampling(max_new_tokens=24)
    judge = likelihood(one_smollm2, PIRATE, QUESTIONS, neutral=PERSON, n=1, sampling=sampling)
    asked = [sl.Conversation("What is your plan for the weekend?")] * 4
    texts = [
        "Arrr, matey! I be sailing the seas with me crew, looking for treasure and rum.",
        "I will meet my friends on Saturday and read a book about gardens on Sunday.",
        " pirate" * 24,
        PIRATE,
    ]
    pirate, person, word, echo = judge(texts, asked)
    assert pirate > 70
    assert max(person, word, echo) < 40
    assert np.argmin(judge.coherence(texts, asked)) == 2
