"""The measures on a real model: sinks, baselines and least squares where a toy shows none."""

from typing import Any

import pytest

from analysis import faithfulness, least_squares_strength
from analysis.measures.plain_side import ANY_INSTRUCTION
from steerlens import CAA, Conversation, PromptPair, capture
from steerlens.methods.psr import difference_of_means

PIRATE = "You are a pirate. Talk like a pirate."
ANSWERS = {
    "Tell me about your job.": "Arrr, I sail the seas and hunt for the treasure of the old king.",
    "How do I bake bread?": "Ahoy! Ye knead the dough and ye bake it in the hold of the ship.",
    "What should I eat for dinner?": "Shiver me timbers, eat the fish that ye caught in the bay.",
    "How do plants grow?": "Arrr, they drink the rain and stretch to the sun like the sails.",
}
PAIRS = [PromptPair.with_system(q, PIRATE, text) for q, text in ANSWERS.items()]
QUIET = pytest.mark.filterwarnings("ignore:The model's chat template puts a system prompt")


@pytest.mark.real
@QUIET
def test_the_first_the_of_a_text_is_a_sink_in_the_lower_layers(smollm2: Any) -> None:
    asked = [Conversation(q, response=text) for q, text in ANSWERS.items()]
    seen = capture(smollm2, asked, [3, 15])
    inner = seen.position > 0
    tokens = [smollm2.tokenizer.decode([t]) for t in seen.tokens[seen.sinks(3) & inner]]
    assert tokens
    assert not bool((seen.sinks(15) & inner).any())
    assert bool(seen.sinks(15)[~inner].all()), "the first token of all is one"


@pytest.mark.real
@QUIET
def test_any_instruction_is_most_of_an_early_push_and_little_of_a_late_one(smollm2: Any) -> None:
    table = faithfulness(smollm2, PAIRS, {}, layers=[3, 23], baseline="none")
    early, late = table.loc[table["method"] == ANY_INSTRUCTION, "relative_rmse"]
    assert early < 0.6 < late < 1
    assert table["n_sinks"].iloc[0] > 0


@pytest.mark.real
@QUIET
def test_a_method_on_all_layers_gets_a_strength_that_helps(smollm2: Any) -> None:
    every = difference_of_means(smollm2, PAIRS[:2], range(30))
    strength = least_squares_strength(smollm2, every, PAIRS[2:])
    assert 0.02 < strength < 0.6
    errors = faithfulness(
        smollm2, PAIRS[2:], {"DiM": every.scaled(strength)}, any_instruction=False
    )
    assert (errors["relative_rmse"] ** 2).mean() < 1


@pytest.mark.real
@QUIET
def test_a_direction_read_at_prompts_ends_has_no_sinks(smollm2: Any) -> None:
    sides = [[Conversation(q, system) for q in ANSWERS] for system in (PIRATE, None)]
    fit = CAA.fit(smollm2, (sides[0], sides[1]), [3, 15])
    assert set(fit.sinks.values()) == {0}
