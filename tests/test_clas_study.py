"""The pieces of the CLAS study that can be checked by hand."""

from typing import Any

import clas_plan as plan
import numpy as np
import pytest
from clas_cells import harmonic
from clas_fits import FITS
from clas_page import page
from clas_results import MARGIN, not_below, on_most
from estimates import NOT, SUPPORTED, UNDECIDED, Estimate


def around(value: float, spread: float = 0.1) -> Estimate:
    return Estimate(value, np.linspace(value - spread, value + spread, 101))


def test_the_harmonic_mean_is_0_where_either_is_or_is_unknown() -> None:
    found = harmonic(np.array([[50.0, 0.0, np.nan]]), np.array([[100.0, 80.0, 80.0]]))
    assert found.tolist() == [[pytest.approx(200 / 3), 0.0, 0.0]]
    assert harmonic(np.zeros((1, 1)), np.zeros((1, 1))).tolist() == [[0.0]]


def test_a_claim_on_most_attributes_needs_four_of_five() -> None:
    up, down, open_ = around(1), around(-1), around(0)
    assert on_most([up, up, up, up, down]) == SUPPORTED
    assert on_most([up, up, up, open_, open_]) == UNDECIDED
    assert on_most([up, up, up, down, open_]) == UNDECIDED
    assert on_most([up, up, up, down, down]) == NOT


def test_as_good_as_a_rival_is_a_claim_that_a_wide_interval_does_not_support() -> None:
    assert not_below(around(0)) == SUPPORTED
    assert not_below(around(1)) == SUPPORTED
    assert not_below(around(-1)) == NOT
    assert not_below(Estimate(-1.0, np.array([-1 - MARGIN, 2.0]))) == UNDECIDED


def test_every_method_may_try_as_many_configurations() -> None:
    assert len(plan.MULTIPLES) == len(plan.SHARES) == plan.Options("x").configurations
    words = {m: {plan.described(m, c) for c in range(6)} for m in plan.METHODS}
    assert all(len(found) == 6 for found in words.values())
    assert tuple(FITS) == plan.METHODS


def test_the_best_validation_score_is_chosen() -> None:
    class Kept:
        options = plan.Options("x", configurations=3)

        def get(self, *cell: Any) -> Any:
            return {"harmonic": [[10.0, 20.0], [40.0, 30.0], [20.0, 20.0]][cell[3]]}

    cells: Any = Kept()
    assert plan.chosen(cells, "positive", "LoRA") == 1


def test_hypotheses_are_written_without_any_result() -> None:
    text = page(None, plan.Options("x"), "hypotheses")
    assert all(f"**H{number}**" in text for number in range(1, 5))
    assert "has not been opened yet" in text
