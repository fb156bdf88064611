"""The pieces of the COLD study that can be checked by hand."""

import math
from typing import Any

import cold_fits
import cold_plan as plan
import numpy as np
import pytest
from cold_fits import FITS, Case
from cold_page import page
from cold_results import FEWER, far_fewer, fewest, rising, times_fewer
from cold_spreads import _apart
from estimates import NOT, SUPPORTED, UNDECIDED


def test_the_fewest_pairs_with_nearly_the_best_gain_are_found() -> None:
    gains = np.array([10.0, 19.1, 18.0, 20.0])
    assert fewest(gains, (2, 5, 10, 20), 20.0) == 5
    assert fewest(gains, (2, 5, 10, 20), 30.0) == math.inf


def test_a_curve_that_falls_by_noise_is_levelled() -> None:
    assert rising(np.array([10.0, 20.0, 18.0, 25.0])).tolist() == [10, 19, 19, 25]


def test_a_case_never_has_fewer_pairs_than_it_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cold_fits, "pool_of", lambda attribute: [("q", "a", "b")] * 3)
    where = plan.CONFIGURATIONS[0]
    assert len(Case("positive", 3, 0, *where).drawn) == 3
    with pytest.raises(ValueError, match="has 3 pairs; asked for 4"):
        _ = Case("positive", 4, 0, *where).drawn


def test_only_configurations_with_a_strength_at_c80_are_chosen() -> None:
    class Kept:
        options = plan.Options("x", configurations=3)

        def get(self, *cell: Any) -> Any:
            return {"attribute": [60.0, 90.0, 70.0][cell[3]], "met": cell[3] != 1}

    cells: Any = Kept()
    assert plan.chosen(cells, "positive", "CAA") == 2


def test_the_ratio_is_of_the_better_of_either_side_and_0_where_ours_never_get_there() -> None:
    assert times_fewer([5, math.inf], [math.inf, 250]) == 50
    assert times_fewer([5, 2], [math.inf, math.inf]) == math.inf
    assert times_fewer([math.inf, math.inf], [5, 2]) == 0


def test_far_fewer_is_a_claim_on_the_whole_interval() -> None:
    assert far_fewer(np.full(1000, math.inf)) == SUPPORTED
    assert far_fewer(np.full(1000, float(FEWER))) == SUPPORTED
    assert far_fewer(np.full(1000, 10.0)) == NOT
    assert far_fewer(np.array([0.0] * 500 + [math.inf] * 500)) == UNDECIDED


def test_every_method_has_six_configurations_and_as_many_updates_with_any_number_of_pairs() -> None:
    assert len(plan.CONFIGURATIONS) == plan.Options("x").configurations
    assert tuple(FITS) == plan.METHODS
    for n in plan.Options("x").sizes:
        schedule = Case("positive", n, 0, *plan.CONFIGURATIONS[0]).schedule
        updates = schedule.epochs * math.ceil(n / schedule.batch_size)
        assert plan.STEPS <= updates < plan.STEPS + math.ceil(n / schedule.batch_size)


def test_divergences_of_a_spread_by_hand() -> None:
    found = _apart(np.array([[0.5, 0.5]]), np.array([[0.25, 0.75]]))
    assert found["KL"] == [pytest.approx(0.5 * math.log(2) + 0.5 * math.log(2 / 3))]
    assert found["TV"] == [pytest.approx(0.25)]


def test_hypotheses_are_written_without_any_result() -> None:
    text = page(None, plan.Options("x"), "hypotheses")
    assert all(f"**H{number}**" in text for number in range(1, 5))
    assert "has not been opened yet" in text
