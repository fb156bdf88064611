"""The statistics of the bench: intervals that cover, paired comparisons, verdicts, standings."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from jaxtyping import Float

from analysis.bench.estimates import (
    COVERAGE,
    NONE,
    Estimate,
    coverage_note,
    difference,
    mean_of,
    mean_score,
    ratio,
)
from analysis.bench.found import nulls_by_attribute
from analysis.bench.maxima import largest_of, simultaneous
from analysis.bench.standings import Pairs, pairwise, standings
from analysis.bench.variance import error_of_mean, mean_squares, resampled_means, resampled_sums
from analysis.bench.verdicts import verdict

Values = Float[np.ndarray, "seed question"]


def drawn(
    rng: np.random.Generator, n_seeds: int = 3, n_questions: int = 24, spread: float = 5.0
) -> Values:
    """Scores whose mean is 50 for all seeds and questions."""
    of_seeds, of_questions = rng.normal(0, spread, (n_seeds, 1)), rng.normal(0, 6, n_questions)
    return 50 + of_seeds + of_questions + rng.normal(0, 6, (n_seeds, n_questions))


def estimate(low: float, high: float) -> Estimate:
    half = (high - low) / 2
    draws = np.linspace(low, high, 1000)
    return Estimate((low + high) / 2, low, high, draws, 3, 24, half / 2, 10.0)


# -- Means -----------------------------------------------------------------------------------------


def test_the_error_is_that_of_crossed_random_effects_by_hand() -> None:
    values = np.array([[1.0, 2.0, 6.0], [3.0, 6.0, 6.0]])
    # means: seeds 3, 5; questions 2, 4, 6; all 4. Residuals 0, -1, 1 and 0, 1, -1.
    a, b, e = 3 * 2 / 1, 2 * 8 / 2, 4 / 2
    error, degrees = error_of_mean(values)
    assert error == pytest.approx(((a + b - e) / 6) ** 0.5)
    assert degrees == pytest.approx((a + b - e) ** 2 / (a**2 / 1 + b**2 / 2 + e**2 / 2))


def test_noise_larger_than_the_parts_makes_no_interval_narrower_than_one_part() -> None:
    values = np.array([[0.0, 8.0], [8.0, 1.0]])  # A = B = 0.25, E = 56.25
    assert error_of_mean(values)[0] == pytest.approx((0.25 / 4) ** 0.5)


def test_intervals_cover_where_the_plain_bootstrap_does_not() -> None:
    """Simulation with a fixed seed: percentiles of resampled seeds hold the mean in 7 of 10."""
    rng, held = np.random.default_rng(0), np.zeros(2)
    for _ in range(600):
        values = drawn(rng, 3, 60, 8.0)
        one = mean_score(values, bounds=NONE)
        low, high = np.quantile(resampled_means(values, 0), [0.025, 0.975])
        held += [one.low <= 50 <= one.high, low <= 50 <= high]
    ours, plain = held / 600
    assert 0.91 <= ours <= 0.99
    assert plain < 0.85


def test_resamples_are_as_wide_as_the_interval_and_repeat() -> None:
    values = drawn(np.random.default_rng(1))
    one, again = mean_score(values), mean_score(values)
    low, high = np.quantile(one.resampled, [0.025, 0.975])
    assert high - low == pytest.approx(one.high - one.low)
    assert one.value - one.low == pytest.approx(one.high - one.value)
    np.testing.assert_array_equal(one.resampled, again.resampled)
    assert not np.array_equal(one.resampled, mean_score(values, draw=1).resampled)


def test_an_interval_is_clipped_to_the_scale_and_scores_must_be_on_it() -> None:
    values = np.array([[100.0, 100.0, 60.0], [20.0, 30.0, 10.0]])
    one = mean_score(values)
    assert (one.low, one.high) == (0.0, 100.0)
    assert mean_score(values, bounds=NONE).high > 100
    with pytest.raises(ValueError, match=r"from 0 to 100; found 0\.5 to 120.*bounds="):
        mean_score(np.array([[0.5, 120.0]]))


def test_one_seed_is_an_interval_of_questions_and_says_so() -> None:
    values = drawn(np.random.default_rng(2))[:1]
    one = mean_score(values)
    assert one.standard_error == pytest.approx(values.std(ddof=1) / 24**0.5)
    assert "one seed" in str(one)
    assert "one seed" not in str(mean_score(drawn(np.random.default_rng(2))))


def test_scores_that_are_not_there_are_left_out() -> None:
    values = drawn(np.random.default_rng(3), 3, 8)
    wider = np.full((4, 9), np.nan)
    wider[:3, :8] = values
    same, whole = mean_score(wider), mean_score(values)
    assert (same.value, same.low, same.n_seeds, same.n_questions) == (
        whole.value, whole.low, 3, 8,
    )  # fmt: skip
    holed = values.copy()
    holed[0, 0] = holed[1, 3] = np.nan
    one = mean_score(holed)
    assert one.value == pytest.approx(np.nanmean(holed))
    assert one.standard_error == pytest.approx(whole.standard_error, rel=0.3)


def test_a_hole_leaves_exact_parts_exact() -> None:
    """Without noise a hole tells nothing new: its value follows from its seed and question."""
    values = np.array([[0.0], [3.0], [9.0]]) + np.array([[10.0, 20.0, 60.0, 30.0]])
    values[1, 2] = np.nan
    of_seeds, of_questions, noise = mean_squares(values, (2, 3, 5))
    assert noise < 1e-9
    assert of_seeds > 10
    assert of_questions > 100


def test_what_tells_nothing_of_a_spread_has_no_interval() -> None:
    assert np.isnan(mean_score(np.array([[50.0]])).low)
    empty = mean_score(np.full((3, 4), np.nan))
    assert np.isnan([empty.value, empty.low, empty.high]).all()


# -- Comparisons -----------------------------------------------------------------------------------


def test_a_difference_is_paired() -> None:
    rng = np.random.default_rng(4)
    a = drawn(rng)
    b = a - 2 + rng.normal(0, 0.1, a.shape)
    one = difference(a, b)
    assert 1.9 < one.low < one.high < 2.1
    single = difference(a, b[:1])
    np.testing.assert_allclose(single.value, (a - b[:1]).mean())
    with pytest.raises(ValueError, match=r"\(3, 24\) and \(2, 24\)"):
        difference(a, b[:2])


def test_a_ratio_is_of_sums_and_its_interval_covers() -> None:
    rng, held = np.random.default_rng(5), 0
    for _ in range(300):
        size = np.exp(rng.normal(0, 0.5, (1, 24)))
        above, below = (size * rng.gamma(2, 0.5, (3, 24)) for _ in range(2))
        one = ratio(above, below)
        assert one.value == pytest.approx((above.sum() / below.sum()) ** 0.5)
        held += one.low <= 1 <= one.high
    assert 0.92 <= held / 300 <= 0.99
    squared = ratio(above, below, root=False)
    assert squared.value == pytest.approx(one.value**2)
    assert squared.low == pytest.approx(one.low**2)


def test_a_ratio_leaves_out_what_one_side_has_not() -> None:
    above, below = np.array([[1.0, 4.0, np.nan]]), np.array([[1.0, np.nan, 5.0]])
    assert ratio(above, below).value == 1
    assert ratio(0 * above, below).high == 0
    with pytest.raises(ValueError, match="sums up to 0"):
        ratio(above, 0 * below)
    with pytest.raises(ValueError, match="negative"):
        ratio(-above, below)


def test_the_mean_over_attributes_knows_the_questions_they_share() -> None:
    rng = np.random.default_rng(6)
    hard = rng.normal(0, 10, (1, 24))
    alike = [mean_score(50 + hard + rng.normal(0, 2, (3, 24)), draw=i) for i in range(4)]
    apart = [
        mean_score(50 + rng.normal(0, 10, (1, 24)) + rng.normal(0, 2, (3, 24)), draw=i)
        for i in range(4)
    ]
    one = float(np.mean([each.standard_error for each in alike]))
    assert mean_of(alike).standard_error > 0.9 * one
    other = float(np.mean([each.standard_error for each in apart]))
    assert mean_of(apart).standard_error < 0.75 * other
    assert mean_of(apart).value == pytest.approx(np.mean([each.value for each in apart]))
    with pytest.raises(ValueError, match="found none"):
        mean_of([])


def test_a_mean_over_attributes_has_the_seeds_of_all_of_them() -> None:
    rng = np.random.default_rng(0)
    values = drawn(rng, spread=20.0)
    ones = [
        mean_score(values[rng.permutation(3)][:, rng.permutation(24)], bounds=NONE, draw=i)
        for i in range(5)
    ]
    assert 3 * ones[0].degrees_of_freedom < mean_of(ones).degrees_of_freedom
    assert mean_of(ones, bounds=(49.0, 51.0)).high == 51


# -- Maxima ----------------------------------------------------------------------------------------


def test_the_largest_of_equal_layers_is_covered_and_percentiles_of_maxima_do_not() -> None:
    rng, held = np.random.default_rng(7), np.zeros(2)
    for _ in range(300):
        layers = [drawn(rng) for _ in range(6)]
        one = largest_of([mean_score(values, bounds=NONE) for values in layers])
        draws = np.max([resampled_means(values, 0) for values in layers], axis=0)
        low, high = np.quantile(draws, [0.025, 0.975])
        held += [one.low <= 50 <= one.high, low <= 50 <= high]
    ours, plain = held / 300
    assert ours >= 0.95
    assert plain < 0.4


def test_the_largest_is_below_a_bound_when_each_is() -> None:
    ones = [estimate(-3.0, -1.0), estimate(-9.0, -0.5), estimate(-2.0, -1.5)]
    one = largest_of(ones)
    assert one.high == -0.5
    assert one.value == -1.75
    assert one.low < -1.75
    assert verdict({"a": one}, 0.0, above=False).n_for == 1


def test_simultaneous_intervals_widen_with_how_little_layers_share() -> None:
    rng = np.random.default_rng(8)
    values = drawn(rng)
    same = [mean_score(values + i, bounds=NONE) for i in range(6)]
    for one, (low, high) in zip(same, simultaneous(same), strict=True):
        assert (low, high) == pytest.approx((one.low, one.high), rel=0.02)
    apart = [mean_score(drawn(rng), bounds=NONE) for _ in range(6)]
    for one, (low, high) in zip(apart, simultaneous(apart), strict=True):
        assert low < one.low < one.high < high


# -- Verdicts --------------------------------------------------------------------------------------

UP, DOWN, OPEN = estimate(1.0, 2.0), estimate(-2.0, -1.0), estimate(-1.0, 1.0)


@pytest.mark.parametrize(
    ("ones", "text"),
    [
        ([UP, UP, OPEN], "supported (2 of 3 for, 1 undecided)"),
        ([UP, UP, DOWN], "undecided (2 of 3 for, 1 against)"),
        ([UP, UP, None, OPEN], "undecided (2 of 4 for, 1 undecided, 1 dropped)"),
        ([UP, UP, UP, None, None], "supported (3 of 5 for, 2 dropped)"),
        ([DOWN, DOWN, OPEN], "not supported (0 of 3 for, 2 against, 1 undecided)"),
        ([DOWN, DOWN, UP], "undecided (1 of 3 for, 2 against)"),
        ([OPEN, None], "undecided (0 of 2 for, 1 undecided, 1 dropped)"),
        ([None, None], "not measured"),
    ],
)
def test_a_verdict_counts_attributes(ones: list[Estimate | None], text: str) -> None:
    by_attribute = {str(i): one for i, one in enumerate(ones)}
    found = verdict(by_attribute, 0.0, above=True)
    assert str(found) == text
    assert found.n_attributes == len(ones)


def test_an_attribute_that_fools_its_judge_is_on_neither_side() -> None:
    ones = {"a": UP, "b": UP, "c": UP, "d": None}
    assert str(verdict(ones, 0.0, above=True)) == "supported (3 of 4 for, 1 dropped)"
    found = verdict(ones, 0.0, above=True, fooled={"a", "d"})
    assert str(found) == "undecided (2 of 4 for, 1 fooled, 1 dropped)"
    assert verdict({"a": DOWN}, 0.0, above=True, fooled={"a"}).word == "undecided"


def test_nulls_are_high_from_half_of_what_the_prompt_adds() -> None:
    scores = {
        "prompt": {"a": np.full((2, 3), 80.0)},
        "unsteered": {"a": np.full((2, 3), 20.0)},
        "null: echoed": {"a": np.full((2, 3), 50.0)},
        "null: looped": {"a": np.full((2, 3), 51.0)},
        "CAA": {"a": np.full((2, 3), 90.0)},
    }
    assert nulls_by_attribute(scores)["a"].high == {"looped": 51.0}
    assert nulls_by_attribute({"prompt": scores["prompt"]}) == {}


def test_a_mean_alone_decides_nothing_and_below_turns_it_round() -> None:
    far = estimate(50.0, 60.0)
    found = verdict({"a": far, "b": OPEN, "c": OPEN}, 0.0, above=True)
    assert found.mean is not None
    assert found.mean.low > 0
    assert found.word == "undecided"
    assert verdict({"a": DOWN}, 0.0, above=False).word == "supported"
    alone = replace(DOWN, n_seeds=1)
    found = verdict({"a": alone, "b": alone}, 0.0, above=False)
    assert (found.word, found.n_undecided) == ("undecided", 2)
    with pytest.raises(ValueError, match="found none"):
        verdict({}, 0.0, above=True)


# -- Standings -------------------------------------------------------------------------------------


def table() -> dict[str, dict[str, Values]]:
    """Two methods that are alike, one far below, one that lacks an attribute."""
    rng = np.random.default_rng(9)
    scores: dict[str, dict[str, Values]] = {"low": {}, "twin": {}, "good": {}, "part": {}}
    for attribute in ("x", "y"):
        base = drawn(rng, spread=1.0)
        scores["good"][attribute] = base + rng.normal(0, 1, base.shape)
        scores["twin"][attribute] = base + rng.normal(0, 1, base.shape)
        scores["low"][attribute] = base[:1] - 20
        scores["part"][attribute] = base + 5
    scores["part"]["y"] = np.full((3, 24), np.nan)
    return scores


def test_standings_leave_open_what_the_intervals_do() -> None:
    found = standings(table()).set_index("method")
    assert list(found.index[2:]) == ["low", "part"]
    top = found.loc[["good", "twin"]]
    assert (top["rank_low"] == 1).all()
    assert (top["rank_high"] == 2).all()
    assert top["tied_with_best"].all()
    assert top["first"].sum() == pytest.approx(1)
    low = found.loc["low"]
    assert (low["rank"], low["rank_low"], low["rank_high"]) == (3, 3, 3)
    assert not low["tied_with_best"]
    assert low["first"] == 0
    assert low["win_rate"] < 0.2


def test_a_method_without_an_attribute_is_not_averaged_over_fewer() -> None:
    part = standings(table()).set_index("method").loc["part"]
    assert part["missing"] == "y"
    assert np.isnan(part["mean"])
    assert part["win_rate"] > 0.9
    pairs = pairwise(table()).set_index(["method", "other"])
    assert pairs.loc[("part", "good"), "n_missing"] == 1
    assert pairs.loc[("good", "twin"), "n_missing"] == 0


def test_pairs_mirror_each_other_and_count_attributes() -> None:
    pairs = pairwise(table()).set_index(["method", "other"])
    one, other = pairs.loc[("good", "low")], pairs.loc[("low", "good")]
    assert one["difference"] == pytest.approx(-other["difference"])
    assert one["low"] == pytest.approx(-other["high"])
    assert one["win_rate"] == pytest.approx(1 - other["win_rate"])
    assert (one["n_for"], one["n_against"], other["n_against"]) == (2, 0, 2)
    assert 15 < one["low"] < one["high"] < 25


def test_a_pair_is_compared_once_and_is_the_same_the_other_way_round(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    scores, compared = table(), list[int]()
    pairs = Pairs(scores)

    def counted(a: Values, b: Values, *, draw: int = 0) -> Estimate:
        compared.append(draw)
        return difference(a, b, draw=draw)

    monkeypatch.setattr("analysis.bench.standings.difference", counted)
    standings(scores, pairs)
    pairwise(scores, pairs)
    assert len(compared) == 6 + 3  # of four methods on x, of the three that have it on y
    forth, back = pairs.by_attribute("low", "part"), pairs.by_attribute("part", "low")
    assert forth["y"] is back["y"] is None
    own = difference(scores["part"]["x"], scores["low"]["x"], draw=0)
    mirrored = back["x"]
    assert mirrored is not None
    for name in ("value", "low", "high", "resampled", "standard_error", "degrees_of_freedom"):
        np.testing.assert_allclose(getattr(mirrored, name), getattr(own, name), rtol=1e-9)
    shared = standings(scores, pairs).drop(columns="rank")
    pd.testing.assert_frame_equal(shared, standings(scores).drop(columns="rank"))
    pd.testing.assert_frame_equal(pairwise(scores, pairs), pairwise(scores))
    with pytest.raises(ValueError, match="of other scores"):
        standings(table(), pairs)
    assert str((-mean_score(np.zeros((3, 8)))).value) == "0.0"


def test_tied_with_the_best_is_what_the_bests_own_comparisons_leave_open() -> None:
    """Those of the other have another family: fewer or noisier comparisons that hold together."""
    scores = table()
    found = standings(scores).set_index("method")
    best = str(found.index[0])
    gaps = Pairs(scores).gaps(best, [str(name) for name in found.index[1:3]])
    assert {name: bool(found.loc[name, "tied_with_best"]) for name in gaps} == {
        name: not low > 0 for name, (low, _) in gaps.items()
    }


def test_means_of_resamples_are_the_same_where_nothing_is_missing_and_where_little_is() -> None:
    whole = drawn(np.random.default_rng(4))
    holed = whole.copy()
    holed[0, 0] = np.nan
    for values in (whole, holed):
        there = (~np.isnan(values)).astype(float)
        expected = resampled_sums(values, 1) / resampled_sums(there, 1)
        np.testing.assert_allclose(resampled_means(values, 1), expected, rtol=1e-12)


def test_alike_methods_share_wins_and_first_places() -> None:
    values = drawn(np.random.default_rng(10))
    found = standings({"a": {"x": values}, "b": {"x": values.copy()}})
    assert found["win_rate"].tolist() == [0.5, 0.5]
    assert found["first"].tolist() == [0.5, 0.5]
    with pytest.raises(ValueError, match="found no attribute"):
        standings({})


# -- What a table's head says ----------------------------------------------------------------------


def test_the_head_of_a_table_quotes_the_simulation() -> None:
    three = json.loads(COVERAGE.read_text(encoding="utf-8"))["seeds"]["3"]
    note = coverage_note(3)
    assert f"{three['low']:.2f} to {three['high']:.2f}" in note
    assert "3 seeds" in note
    assert f"{three['failing']:.2f} where" in note
    assert coverage_note(4) == note
    assert "say nothing" in coverage_note(1)
    assert three["low"] >= 0.9


def test_degrees_of_freedom_are_never_fewer_than_the_fewest_of_a_part():
    """Noise that is many times what seeds and questions have once made them 0.07, and t 1e11."""
    scores = np.array([[40.0, 60.0, 50.0], [60.0, 40.0, 50.001]])
    one = mean_score(scores, bounds=(-np.inf, np.inf))
    assert one.degrees_of_freedom >= 1
    assert one.high - one.low < 200
