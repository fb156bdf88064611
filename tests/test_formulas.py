"""The core formulas on a few numbers that are worked out by hand; see `make mutants`."""

import math
import warnings
from typing import Any

import numpy as np
import pytest
import torch

from analysis import faithfulness
from analysis.measures import intervals, least_squares, mean_push, parts
from analysis.measures.aligned import Aligned, align
from analysis.measures.deltas import prompt_deltas
from analysis.measures.errors import Errors
from analysis.measures.least_squares import Sums
from analysis.measures.parts import Parts, bytes_a_token, holding, layer_groups, tokens_of
from steerlens import (
    CAA,
    Angular,
    Only,
    PromptPair,
    Scaled,
    Site,
    SteeringWarning,
    at,
    encode_pair,
    everywhere,
    generated,
    last,
    principal_direction,
    response,
)
from steerlens.combinators import parts as steer_parts
from steerlens.directions.means import difference_of_means, unit
from steerlens.divergence import chunks, divergence, log_probabilities, response_log_p
from steerlens.runtime.hooks import Watch
from steerlens.sinks import (
    SINK,
    is_sink,
    lengths,
    ordinary,
    require_ordinary,
    require_times,
    warn_of_rows,
)

ROWS = torch.tensor([[3.0, 4.0, 0.0], [0.0, 5.0, 0.0], [0.0, 0.0, 5.0]])
LONG = torch.tensor([[0.0, 21.0, 0.0]])

# -- Sinks -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_a_sink_is_longer_than_four_medians_on_every_scale(scale: float) -> None:
    rows = scale * torch.cat([ROWS, LONG])
    torch.testing.assert_close(lengths(rows), scale * torch.tensor([5.0, 5.0, 5.0, 21.0]))
    assert is_sink(rows, lengths(rows)).tolist() == [False, False, False, True]
    assert is_sink(rows, lengths(rows), 4.3).tolist() == [False] * 4
    assert ordinary([rows[:2], rows[2:]])[1].tolist() == [True, False]


def test_exactly_so_many_medians_are_no_sink() -> None:
    rows = torch.cat([ROWS, LONG * 20 / 21])
    assert is_sink(rows, lengths(rows)).tolist() == [False] * 4
    assert [side.tolist() for side in ordinary([ROWS, LONG * 20 / 21])] == [[True] * 3, [True]]


def test_three_rows_have_a_median_and_two_have_none() -> None:
    """Nor have rows of which most are nothing."""
    assert [side.tolist() for side in ordinary([ROWS[:2], LONG])] == [[True, True], [False]]
    assert [side.tolist() for side in ordinary([ROWS[:1], LONG])] == [[True], [True]]
    nothing = torch.zeros(4, 3)
    assert [side.tolist() for side in ordinary([nothing, LONG])] == [[True] * 4, [True]]
    assert is_sink(LONG, torch.zeros(1)).tolist() == [False]
    assert is_sink(LONG, torch.tensor([5.0])).tolist() == [True]
    assert is_sink(LONG[:0], torch.zeros(0)).shape == (0,)


@pytest.mark.parametrize("times", [1.0, 0.5, math.nan])
def test_times_are_above_one(times: float) -> None:
    require_times(1.001)
    with pytest.raises(ValueError, match="above 1"):
        require_times(times)


def test_only_rows_that_are_all_sinks_are_an_error() -> None:
    require_ordinary(torch.zeros(0, dtype=torch.bool), "rows")
    require_ordinary(torch.tensor([False, True]), "rows")
    for number in (1, 2):
        with pytest.raises(ValueError, match=f"All {number} rows are sinks"):
            require_ordinary(torch.zeros(number, dtype=torch.bool), "rows")


def test_the_warning_of_rows_has_their_number() -> None:
    with pytest.warns(SteeringWarning, match=r"^2 of 3 prompts are left out"):
        warn_of_rows(torch.tensor([True, False, False]), "prompts")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_of_rows(torch.tensor([True]), "prompts")


# -- Directions ------------------------------------------------------------------------------------


def test_directions_of_two_pairs_are_those_of_hand() -> None:
    positive, negative = (
        torch.tensor([[5.0, 1.0], [7.0, 3.0]]),
        torch.tensor([[3.0, 1.0], [3.0, 1.0]]),
    )
    torch.testing.assert_close(difference_of_means(positive, negative), torch.tensor([3.0, 1.0]))
    torch.testing.assert_close(
        CAA.from_activations(positive, negative).direction, torch.tensor([3.0, 1.0])
    )
    torch.testing.assert_close(unit(torch.tensor([3.0, 4.0])), torch.tensor([0.6, 0.8]))
    # Differences (2, 0) and (4, 2): less their mean, (-1, -1) and (1, 1).
    diagonal = principal_direction(positive, negative, "mean")
    torch.testing.assert_close(diagonal, torch.tensor([0.5, 0.5]).sqrt())
    # Their squares sum to ((20, 8), (8, 4)), whose larger eigenvalue is 12 + sqrt(128).
    first = torch.tensor([8.0, 12 + math.sqrt(128) - 20])
    for centring in ("pair", "none"):
        found = principal_direction(positive, negative, centring)
        torch.testing.assert_close(found, first / first.norm())
        turned = principal_direction(negative, positive, centring)
        torch.testing.assert_close(turned, -first / first.norm())


def test_caa_is_added_and_angular_turns_by_its_angle() -> None:
    h, v = torch.tensor([[[3.0, 4.0]]]), torch.tensor([1.0, 2.0])
    torch.testing.assert_close(CAA(v)(h), torch.tensor([[[4.0, 6.0]]]))
    across = torch.tensor([[[-4.0, 3.0]]])  # v is on this side of h: 2 * 3 > 1 * 4
    torch.testing.assert_close(Angular(v, 90.0)(h), across)
    torch.testing.assert_close(Angular(v, 180.0)(h), -h)
    third = math.cos(math.radians(30)) * h + math.sin(math.radians(30)) * across
    torch.testing.assert_close(Angular(v, 30.0)(h), third)
    torch.testing.assert_close(Angular(v, 30.0)(10 * h), 10 * third)


@pytest.mark.parametrize(("sine", "moves"), [(2e-3, True), (5e-4, False), (0.0, False)])
def test_what_is_nearly_parallel_is_not_turned(sine: float, moves: bool) -> None:
    h = torch.tensor([[[1.0, sine]]])
    turned = Angular(torch.tensor([2.0, 0.0]), 20.0)(h)
    assert bool((turned != h).any()) == moves
    assert torch.equal(Angular(torch.tensor([2.0, 0.0]), 20.0)(0 * h), 0 * h)


# -- Divergence and intervals ----------------------------------------------------------------------


def test_the_divergence_of_two_distributions_by_hand() -> None:
    moved, plain = torch.tensor([[0.5, 0.5], [1.0, 0.0]]), torch.tensor([[0.25, 0.75], [0.5, 0.5]])
    found = divergence(moved.clamp(min=1e-30).double().log(), plain.double().log())
    wanted = [0.5 * math.log(2) + 0.5 * math.log(2 / 3), math.log(2)]
    torch.testing.assert_close(found, torch.tensor(wanted, dtype=torch.float64))


def test_what_a_model_says_of_each_response_token(gpt2: Any) -> None:
    """In the order of the rows, whatever they are sorted by and however many go at a time."""
    rows = [encode_pair(gpt2, pair)[0] for pair in (PAIRS[1], PAIRS[0], PAIRS[1])]
    every = log_probabilities(gpt2, rows, range(3), None, Watch())
    ids = [row.ids[row.response :] for row in rows]
    wanted = every.gather(1, torch.tensor([*ids[0], *ids[1], *ids[2]])[:, None])[:, 0].float()
    assert len(ids[0]) != len(ids[1])
    for size in (1, 2, 8):
        found = response_log_p(gpt2, rows, size)
        assert [len(one) for one in found] == [len(one) for one in ids]
        torch.testing.assert_close(torch.cat(found), wanted, rtol=1e-4, atol=1e-4)


def test_rows_go_four_at_a_time() -> None:
    assert list(chunks(9)) == [range(4), range(4, 8), range(8, 9)]
    assert list(chunks(4, 2)) == [range(2), range(2, 4)]
    assert list(chunks(0)) == []


def test_resamples_are_a_thousand_of_every_example() -> None:
    drawn = intervals.resamples(3)
    assert drawn.shape == (1000, 3)
    assert sorted(set(drawn.ravel().tolist())) == [0, 1, 2]
    np.testing.assert_array_equal(drawn, np.random.default_rng(0).integers(0, 3, size=(1000, 3)))
    assert intervals.resamples(3, 7, 1).shape == (7, 3)
    for wrong in (0, True):
        with pytest.raises(ValueError, match=r"n_bootstrap.*a whole number, 1 or more"):
            intervals.resamples(3, wrong)


def test_intervals_are_the_middle_95_percent_of_resamples() -> None:
    values, below = np.array([1.0, 2.0, 4.0, np.nan]), np.array([2.0, 1.0, 1.0])
    drawn = np.random.default_rng(0).integers(0, 3, size=(1000, 3))
    means = np.quantile(values[drawn].mean(axis=1), [0.025, 0.975])
    assert intervals.interval_of_mean(values) == pytest.approx(tuple(means))
    ratios = np.quantile(values[drawn].sum(axis=1) / below[drawn].sum(axis=1), [0.025, 0.975])
    assert intervals.interval_of_ratio(values[:3], below) == pytest.approx(tuple(ratios))
    two = intervals.interval_of_mean(values[:2]), intervals.interval_of_ratio(values[:2], below[:2])
    assert np.isfinite(two).all()
    one = intervals.interval_of_mean(values[2:]), intervals.interval_of_ratio(values[:1], below[:1])
    assert np.isnan(one).all()


def test_intervals_are_drawn_with_seed_0_unless_told_otherwise() -> None:
    values = np.random.default_rng(5).normal(size=40)  # so many that another seed is seen
    ratio = intervals.interval_of_ratio(values, values**2 + 1)
    assert intervals.interval_of_mean(values) == intervals.interval_of_mean(values, 1000, 0)
    assert intervals.interval_of_mean(values) != intervals.interval_of_mean(values, 1000, 1)
    assert ratio == intervals.interval_of_ratio(values, values**2 + 1, 1000, 0)
    assert ratio != intervals.interval_of_ratio(values, values**2 + 1, 1000, 1)


# -- Pairs in parts --------------------------------------------------------------------------------

PAIRS = [
    PromptPair.with_system(question, "Be kind.", answer)
    for question, answer in (("What?", " It is kind."), ("How?", " Very kind, all of it."))
]


def test_a_token_takes_four_runs_and_a_site_in_float64(gpt2: Any) -> None:
    width = gpt2.cfg.d_model
    assert parts.MEMORY == 256 * 2**20
    assert bytes_a_token(gpt2, 3) == width * (4 * 4 * 3 + 4 * 8)


def test_the_tokens_of_a_pair_are_those_that_are_measured_or_all(gpt2: Any) -> None:
    rows = [encode_pair(gpt2, pair)[0] for pair in PAIRS]
    answers = [len(row.ids) - row.response for row in rows]
    for span in (generated, response):
        assert tokens_of(gpt2, PAIRS, span, "template") == [number + 1 for number in answers]
    assert tokens_of(gpt2, PAIRS, everywhere, "template") == [len(row.ids) for row in rows]


def test_a_part_is_full_when_the_next_pair_does_not_fit() -> None:
    a, b = PAIRS
    assert parts._within([a, b, a, b], [1, 2, 3, 1], 3) == [[a, b], [a], [b]]
    assert parts._within([a, b, a, b], [9, 9, 1, 1], 3) == [[a], [b], [a, b]]
    assert parts._within([a, b, a, b], [1, 1, 1, 1], 4) == [[a, b, a, b]]
    assert parts._within([a, b, a], [3, 1, 2], 3) == [[a], [b, a]]  # the second part is full


def test_a_sink_adds_nothing_to_an_error() -> None:
    site, few = Site(1), torch.tensor([1e-4, 4e-4])
    whole, missed = torch.cat([few, torch.tensor([9.0])]), torch.cat([few / 4, torch.tensor([8.0])])
    errors = Errors(torch.tensor([0, 1]), [torch.tensor([0, 1, 1])])
    errors.whole[site], errors.kept[site] = [whole], [torch.tensor([True, True, False])]
    found = errors._at(site, missed, 10, 0)
    assert found["relative_rmse"] == pytest.approx(0.5)
    assert found["low"] == pytest.approx(0.5)
    assert found["n_sinks"] == 1
    assert found["relative_rmse_with_sinks"] == pytest.approx((8.000125 / 9.0005) ** 0.5)


def test_layers_go_in_groups_that_just_fit(gpt2: Any) -> None:
    sites = [Site(layer, stream) for layer in (0, 1) for stream in ("resid_pre", "resid_post")]
    tokens = sum(tokens_of(gpt2, PAIRS, generated, "template"))
    just = tokens * bytes_a_token(gpt2, 2)
    wanted = {just: [2, 2], just - 1: [1] * 4, 1: [1] * 4, tokens * bytes_a_token(gpt2, 3): [3, 1]}
    for memory, sizes in (wanted | {2**40: [4]}).items():
        with holding(memory):
            found = layer_groups(gpt2, PAIRS, sites, span=generated, baseline="template")
        assert [len(group) for group in found] == sizes
        assert [site for group in found for site in group] == sites


def test_parts_are_numbered_by_their_first_pair(gpt2: Any) -> None:
    with holding(1):
        made = Parts.of(gpt2, [*PAIRS, *PAIRS], 1)
    assert [first for _, first in made.numbered()] == [0, 1, 2, 3]
    assert made.kept is None


# -- Pushes and errors -----------------------------------------------------------------------------


def test_an_example_needs_others_with_tokens_that_are_no_sinks(
    gpt2: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    aligned, site = align(gpt2, PAIRS, [Site(1)]), Site(1)
    delta = prompt_deltas(gpt2, aligned)[site]
    monkeypatch.setattr(Aligned, "sinks", lambda *_: aligned.example < 0)
    found = mean_push.push_of_others(aligned, site, delta, SINK)
    means = [delta[aligned.example == other].mean(dim=0) for other in (1, 0)]
    torch.testing.assert_close(found, torch.stack(means))
    monkeypatch.setattr(Aligned, "sinks", lambda *_: aligned.example == 1)
    with pytest.raises(ValueError, match="are sinks"):
        mean_push.push_of_others(aligned, site, delta, SINK)


def test_the_questions_of_tokens_are_numbered_over_all_parts(
    gpt2: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two answers to one question are resampled together: part by part, and in one part."""
    again = PromptPair.with_system("What?", "Be kind.", " Yes.")
    pairs, seen, begin = [PAIRS[0], again, PAIRS[1]], list[Any](), Errors.begin
    monkeypatch.setattr(Errors, "begin", lambda self, part: seen.append(self) or begin(self, part))
    rows = [encode_pair(gpt2, pair)[0] for pair in pairs]
    counts = [len(row.ids) - row.response for row in rows]
    for memory in (1, 2**40):
        with holding(memory):
            faithfulness(gpt2, pairs, {"CAA": at(1, CAA(torch.ones(gpt2.cfg.d_model)))})
        numbers = torch.cat(seen[-1].question)
        wanted = torch.tensor([0, 0, 1]).repeat_interleave(torch.tensor(counts))
        assert torch.equal(numbers, wanted)


def test_the_parts_of_a_steer_are_steers_scopes_and_conditions() -> None:
    one = CAA(torch.ones(3))
    half = Scaled(one, 0.5)
    found = list(steer_parts(Only(half, last)))
    assert [type(part) for part in found] == [Only, Scaled, CAA, type(last)]
    assert found[1:] == [half, one, last]


# -- The strength that is nearest ------------------------------------------------------------------


def test_the_lowest_point_of_a_parabola() -> None:
    """Of (s - 3)^2 + 1, whatever the places; of a cap or two points there is none."""
    for places in ((0.0, 1.0, 7.0), (1.0, 4.0, 2.0), (-2.0, 3.5, 5.0)):
        errors = {s: (s - 3) ** 2 + 1 for s in places}
        assert least_squares._vertex(errors) == pytest.approx(3)
        assert least_squares._vertex({s: -error for s, error in errors.items()}) is None
    assert least_squares._vertex({0.0: 1.0, 1.0: 0.0}) is None
    assert least_squares._vertex({0.0: 1.0, 1.0: 2.0, 2.0: 3.0}) is None  # a line
    far = {0.0: 9.0, 1.0: 4.0, 2.0: 1.0, 50.0: 0.5}  # of four, the three about the best
    assert least_squares._vertex(far | {4.0: 0.25}) == pytest.approx(_through(2.0, 4.0, 1.0, far))


def _through(a: float, b: float, c: float, errors: dict[float, float]) -> float:
    """The lowest point of the parabola through three, 4 being at 0.25, by least squares."""
    known = errors | {4.0: 0.25}
    bend, slope, _ = np.polyfit([a, b, c], [known[s] for s in (a, b, c)], 2)
    return -slope / (2 * bend)


def test_where_a_line_misses_least() -> None:
    """From 2 to 5 the change is (6, 3), and at 5 (9, 0) is left."""
    sums = Sums(change=45.0, along=54.0)
    assert least_squares._where_straight(5.0, 2.0, sums) == pytest.approx(5 - 3 * 54 / 45)
    assert least_squares._where_straight(5.0, 2.0, Sums(along=1.0)) == 5.0


def _line(nearest: float, tried: list[float]) -> Any:
    """A steering whose effect is its strength, and a prompt that is at `nearest`."""

    def distance(strength: float, other: float) -> Sums:
        tried.append(strength)
        missed, change = strength - nearest, strength - other
        return Sums(nearest**2, missed**2, change**2, change * missed)

    return distance


@pytest.mark.parametrize("nearest", [-40.0, -0.5, 0.3, 1.0, 2.0, 900.0])
def test_a_straight_effect_is_found_at_once(nearest: float) -> None:
    tried: list[float] = []
    assert least_squares._least(_line(nearest, tried)) == pytest.approx(nearest)
    assert len(tried) <= 2


def test_what_is_bent_is_found_in_a_few_trials() -> None:
    """The effect s + s^3 / 16 has its prompt at 3, so its strength is 2.2695."""
    tried: list[float] = []

    def distance(strength: float, other: float) -> Sums:
        tried.append(strength)
        effect, before = strength + strength**3 / 16, other + other**3 / 16
        missed, change = effect - 3, effect - before
        return Sums(9.0, missed**2, change**2, change * missed)

    assert least_squares._least(distance) == pytest.approx(2.2695, rel=0.02)
    assert 3 <= len(tried) <= 7


def test_a_steering_that_turns_away_stays_off() -> None:
    """Its effect is s^2 away from the prompt: no strength is nearer than 0."""

    def distance(strength: float, other: float) -> Sums:
        missed, change = 1 + strength**2, strength**2 - other**2
        return Sums(1.0, missed**2, change**2, change * missed)

    assert least_squares._least(distance) == 0.0


def test_no_strength_above_the_largest_is_tried() -> None:
    tried: list[float] = []
    assert least_squares._least(_line(1e6, tried)) == 1.0
    assert tried == [1.0]


def test_what_changes_nothing_has_no_strength() -> None:
    with pytest.raises(ValueError, match="changes no activation"):
        least_squares._least(lambda *_: Sums(push=1.0, missed=1.0))


def test_every_second_question_is_spared_where_there_are_four() -> None:
    pairs = [PromptPair.with_system(f"Question {i // 2}?", "Be.", " Yes.") for i in range(10)]
    train, rest = least_squares.split_by_question(pairs)
    assert (train, rest) == ([*pairs[2:4], *pairs[6:8]], [*pairs[:2], *pairs[4:6], *pairs[8:]])
    assert [len(half) for half in least_squares.split_by_question(pairs[:8])] == [4, 4]
    assert least_squares.split_by_question(pairs[:6]) == ((), pairs[:6])


def test_least_squares_stands_beside_as_fitted_where_there_are_pairs_for_it(gpt2: Any) -> None:
    steerings = {"CAA": at(1, CAA(torch.linspace(-1, 1, gpt2.cfg.d_model)))}
    alone = least_squares.entries_for(gpt2, steerings, [])
    both = least_squares.entries_for(gpt2, steerings, PAIRS)
    assert [entry.strength for entry in alone] == ["as fitted"]
    assert [entry.strength for entry in both] == ["as fitted", "least squares"]
    found = least_squares.least_squares_strength(gpt2, steerings["CAA"], PAIRS)
    assert both[1].strength_value == found
