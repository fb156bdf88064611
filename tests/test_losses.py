"""The losses of one example, against their formulas number by number, and what they refuse."""

from typing import Any

import numpy as np
import pytest
import torch
from catalogue import random
from oracles import Array

from steerlens import Conversation
from steerlens.methods.cold.examples import Examples, examples_of
from steerlens.methods.cold.gradients import activation_gradients
from steerlens.methods.cold.losses import DPO, Example, Rows, log_likelihood, loss_named
from steerlens.prompts import Encoded, stack
from steerlens.sites import Site

LONG, SHORT = Encoded((5, 6, 7, 1, 2), 0, 3, False), Encoded((5, 6, 7, 3), 0, 3, False)
D_VOCAB = 9


def example(*rows: Encoded, options: Any = ()) -> tuple[torch.Tensor, Rows]:
    tokens, window = stack(rows, "right")
    return random(*tokens.shape, D_VOCAB, seed=4).double(), Rows(tokens, window, options)


def log_softmax(scores: Array) -> Array:
    return scores - np.log(np.exp(scores).sum())


def mean_log_probability(logits: Array, row: Encoded) -> float:
    """l(y) = mean over the answer's tokens of log p(token | what came before)."""
    terms = [log_softmax(logits[at - 1])[row.ids[at]] for at in range(row.response, len(row.ids))]
    return float(np.mean(terms))


@pytest.mark.parametrize("rows", [(LONG, SHORT), (SHORT, LONG)], ids=["long", "short"])
def test_each_row_counts_its_own_answer_and_no_padding(rows: tuple[Encoded, Encoded]) -> None:
    logits, batch = example(*rows)
    expected = [mean_log_probability(logits[n].numpy(), row) for n, row in enumerate(rows)]
    np.testing.assert_allclose(log_likelihood(logits, batch).numpy(), expected, rtol=1e-12)
    positive, negative = expected
    assert float(loss_named("sft")(logits, batch)) == pytest.approx(-positive)
    assert float(loss_named("negative_sft")(logits, batch)) == pytest.approx(negative)
    for loss, beta in ((loss_named("dpo"), 0.1), (DPO(beta=3.0), 3.0)):
        wanted = np.log1p(np.exp(-beta * (positive - negative)))
        assert float(loss(logits, batch)) == pytest.approx(wanted)


def test_options_are_compared_among_themselves_after_the_last_prompt_token() -> None:
    prompt = Encoded((5, 6, 7), 0, 3, False)
    logits, batch = example(prompt, options=((2, 0.75), (4, 0.25)))
    q = log_softmax(logits[0, 2, [2, 4]].numpy())
    expected = -(0.75 * q[0] + 0.25 * q[1])
    assert float(loss_named("options")(logits, batch)) == pytest.approx(expected)


def test_half_precision_logits_are_summed_in_float32() -> None:
    logits, batch = example(LONG)
    assert log_likelihood(logits.bfloat16(), batch).dtype == torch.float32


def test_a_function_of_ones_own_is_a_loss(gpt2: Any) -> None:
    def last_logit(logits: torch.Tensor, batch: Rows) -> torch.Tensor:
        return logits[0, batch.last[0], 3]

    found = examples_of(gpt2, last_logit, ([Conversation("What is it?", response=" A day.")], ()))
    (read,) = activation_gradients(gpt2, found, last_logit, [Site(3)])
    assert float(read[Site(3)].gradient.norm()) > 0


def gradients_of_one(model: Any, loss: Any) -> Any:
    return list(activation_gradients(model, [Example((LONG,))], loss, [Site(0)]))


@pytest.mark.parametrize("value", [torch.ones(2), 1.0, torch.tensor(1.0)])
def test_a_loss_that_is_no_scalar_of_the_logits_is_refused(gpt2: Any, value: Any) -> None:
    with pytest.raises(ValueError, match="scalar tensor that depends on the logits"):
        gradients_of_one(gpt2, lambda logits, batch: value)


def test_a_loss_that_is_not_finite_is_refused(gpt2: Any) -> None:
    with pytest.raises(ValueError, match="loss of an example is inf"):
        gradients_of_one(gpt2, lambda logits, batch: logits.sum() / 0.0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("likelihood", ([LONG], ())), "Unknown loss 'likelihood'"),
        (("dpo", ([LONG], ())), "'dpo' needs the negative prompts"),
        (("negative_sft", ([LONG], ())), "'negative_sft' needs the negative prompts"),
        (("sft", ([LONG], [SHORT])), "'sft' does not look at the negative prompts"),
        (("dpo", ([LONG, LONG], [SHORT])), "2 positive and 1 negative prompts"),
        (("sft", ([Encoded((5, 6), 0, 2, False)], ())), "Example 0 has 0 answer tokens"),
        (
            ("options", Examples([LONG], probabilities=[{1: 0.5, 2: 0.5}])),
            "Example 0 has 2 answer tokens",
        ),
        (
            ("options", Examples([Encoded((5,), 0, 1, False)])),
            "needs the probabilities of the options",
        ),
        (("sft", Examples([LONG], (), [{1: 0.5, 2: 0.5}])), "asked for 'sft' with probabilities"),
    ],
)
def test_examples_that_do_not_fit_the_loss_are_refused(
    gpt2: Any, arguments: Any, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        examples_of(gpt2, *arguments)


@pytest.mark.parametrize(
    ("wishes", "message"),
    [
        ([{1: 0.5, 2: 0.4}], "sum to 1; found 2 that sum to 0.9"),
        ([{1: 1.0}], "two or more tokens"),
        ([{1: 0.5, 4000: 0.5}], r"options \[4000\], which are not in this model's vocabulary"),
        ([{1: 0.5, 2: 0.5}] * 2, "1 prompts and 2 sets of option probabilities"),
    ],
)
def test_option_probabilities_that_are_none_are_refused(
    gpt2: Any, wishes: Any, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        examples_of(gpt2, "options", Examples([Encoded((5,), 0, 1, False)], (), wishes))


@pytest.mark.parametrize("given", [[LONG], [LONG, SHORT], LONG, (LONG,), (LONG, SHORT, LONG), None])
def test_examples_that_are_no_pair_are_refused_with_the_order(
    gpt2: Any, given: Any, unchecked: Any
) -> None:
    with pytest.raises(TypeError, match=r"a pair \(positive.*fit\(model, examples, sites\)"):
        examples_of(gpt2, "sft", given)


def test_a_pair_of_sides_is_examples_and_tokens_with_their_mask_are_none(
    gpt2: Any, unchecked: Any
) -> None:
    pair = ([LONG, SHORT], [SHORT, LONG])
    assert examples_of(gpt2, "dpo", pair) == examples_of(gpt2, "dpo", Examples(*pair))
    assert examples_of(gpt2, "dpo", (LONG, SHORT)) == [Example((LONG, SHORT))]
    tokens = torch.ones((2, 3), dtype=torch.long)
    with pytest.raises(TypeError, match=r"Examples\(positive, negative, probabilities\)"):
        examples_of(gpt2, "sft", (tokens, tokens))
