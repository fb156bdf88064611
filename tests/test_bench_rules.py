import numpy as np
import pytest

from analysis.bench.rules import (
    BEFORE,
    BEYOND,
    INSIDE,
    Chosen,
    Curve,
    at_coherence,
    choose,
    harmonic,
)


def curve(attribute, coherence):
    """Every completion of a strength has the same score."""
    strengths = [0.5, 1.0, 2.0, 4.0][: len(attribute)]

    def rows(values):
        return {s: np.full((3, 2), float(v)) for s, v in zip(strengths, values, strict=True)}

    return Curve(rows(attribute), rows(coherence))


UNSTEERED = np.full((3, 2), 90.0)


def test_the_harmonic_mean_is_of_completions_and_counts_no_score_as_nothing():
    attribute = np.array([[100.0, 0.0], [50.0, np.nan]])
    coherence = np.array([[100.0, 100.0], [50.0, 80.0]])
    assert harmonic(attribute, coherence) == pytest.approx((100 + 0 + 50 + 0) / 4)


def test_both_scores_0_is_0_and_no_warning():
    assert harmonic(np.zeros((1, 1)), np.zeros((1, 1))) == 0


def test_harmonic_takes_the_best_strength_and_the_weaker_of_equals():
    assert choose("harmonic", {0: curve([10, 60, 80, 90], [90, 80, 70, 10])}, UNSTEERED) == Chosen(
        0, 2.0
    )
    assert choose("harmonic", {0: curve([50, 50], [80, 80])}, UNSTEERED).strength == 0.5


def test_one_configuration_is_kept_for_all_rules():
    curves = {0: curve([20, 40], [90, 60]), 1: curve([60, 80], [90, 60])}
    for rule in ("harmonic", "C80", "equal KL"):
        assert choose(rule, curves, UNSTEERED).configuration == 1
    assert choose("equal KL", curves, UNSTEERED).strength == 1.0


def test_of_equal_configurations_the_first_is_kept():
    curves = {0: curve([60], [90]), 1: curve([60], [90])}
    assert choose("harmonic", curves, UNSTEERED).configuration == 0


def test_c80_reads_the_crossing_off_the_curve():
    # 72 lies a third of the way from 80 (strength 1) to 56 (strength 2), on a log scale.
    one = curve([10, 20, 30, 40], [90, 80, 56, 20])
    strength, crossing = at_coherence(one, 0.8 * 90)
    assert crossing == INSIDE
    assert strength == pytest.approx(2 ** (1 / 3), rel=5e-3)


def test_c80_takes_the_last_strength_that_holds_even_after_a_dip():
    strength, crossing = at_coherence(curve([1, 1, 1, 1], [90, 60, 80, 20]), 72.0)
    assert crossing == INSIDE
    assert 2.0 < strength < 4.0


def test_c80_at_the_ends():
    assert at_coherence(curve([1, 1], [90, 85]), 72.0) == (1.0, BEYOND)
    assert at_coherence(curve([1, 1], [60, 30]), 72.0) == (0.5, BEFORE)


def test_a_choice_says_whether_the_threshold_was_crossed():
    beyond, inside, before = (
        choose("C80", {0: curve([1, 1], coherence)}, UNSTEERED)
        for coherence in ([90, 85], [90, 54], [60, 30])
    )
    assert beyond == Chosen(0, 1.0, BEYOND)
    assert (inside.crossing, before.crossing) == (INSIDE, BEFORE)
    assert [one.met for one in (beyond, inside, before)] == [True, True, False]
    for rule in ("harmonic", "equal KL"):
        assert choose(rule, {0: curve([1, 1], [60, 30])}, UNSTEERED).crossing == ""


def test_an_unknown_rule():
    with pytest.raises(ValueError, match="No rule"):
        choose("best on test", {0: curve([1], [1])}, UNSTEERED)
