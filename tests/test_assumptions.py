"""What prompts are assumed to do to tokens: planted changes are found, equal pushes are equal."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from test_coefficients import PAIRS, oracle

from analysis.measures import decodability as reading
from analysis.measures import folds
from analysis.measures import rank_share as sharing
from analysis.measures.aligned import Aligned
from analysis.measures.coefficients import coefficients
from analysis.measures.decodability import decodability
from analysis.measures.dispersion import dispersion, gini
from analysis.measures.intervals import (
    interval_of_mean,
    interval_of_ratio,
    percentile_interval,
    resamples,
)
from analysis.measures.rank_share import rank_share
from steerlens import PromptPair, Site, generated
from steerlens.activations import Activations
from steerlens.prompts import Encoded

WIDTH = 8
Plant = Callable[..., tuple[Any, list[PromptPair], list[int]]]


@pytest.fixture
def plant(monkeypatch: pytest.MonkeyPatch, gpt2: Any) -> Plant:
    """Examples whose tokens change so: the arguments `model, pairs, layers` that measure them.

    `questions` says which question each example answers (one each by default), `h` what the
    activations of the plain run are.
    """

    def call(
        deltas: Sequence[np.ndarray],
        h: Sequence[np.ndarray] | None = None,
        questions: Sequence[int] | None = None,
    ) -> tuple[Any, list[PromptPair], list[int]]:
        row = torch.repeat_interleave(torch.tensor([len(delta) for delta in deltas]))
        site, blank = Site(0), torch.zeros(len(row), dtype=torch.long)
        after, before = (
            torch.from_numpy(np.concatenate(part)) for part in (deltas, deltas if h is None else h)
        )
        plain = Activations({site: before}, row, blank, blank)
        rows = (Encoded((0,), 0, 0, False),) * len(deltas)
        asked = list(range(len(deltas))) if questions is None else list(questions)
        number = {question: i for i, question in enumerate(dict.fromkeys(asked))}
        numbers = tuple(number[question] for question in asked)
        aligned = Aligned(rows, rows, plain, plain, blank, generated, numbers)
        monkeypatch.setattr(folds, "align", lambda *_, **__: aligned)
        for module in (sharing, reading):
            monkeypatch.setattr(module, "prompt_deltas", lambda *_: {site: after})
        pairs = [PromptPair.with_system(f"question {i}", "Be kind.", "yes") for i in asked]
        return gpt2, pairs, [0]

    return call


def pushes(
    rng: np.random.Generator, directions: np.ndarray, examples: int = 6, tokens: int = 15
) -> list[np.ndarray]:
    """Tokens that are pushed by random, mostly positive amounts along each of the directions."""
    rank = len(directions)
    return [
        rng.normal(1, 0.7, size=(tokens + i, rank)) @ directions for i in range(examples)
    ]  # unequal lengths


def shares(table: pd.DataFrame) -> dict[str, float]:
    return dict(zip(table["axes"], table["share"], strict=True))


# -- intervals -------------------------------------------------------------------------------------


def test_the_interval_of_a_mean_covers_it_in_about_19_of_20_samples() -> None:
    rng, covered, widths = np.random.default_rng(0), 0, []
    for trial in range(100):
        values = rng.normal(3, 2, size=40)
        values[rng.integers(40)] = np.nan
        low, high = interval_of_mean(values, 200, seed=trial)
        assert low < np.nanmean(values) < high
        covered += low <= 3 <= high
        widths.append(high - low)
    assert 86 <= covered <= 99
    assert np.mean(widths) == pytest.approx(2 * 1.96 * 2 / 39**0.5, rel=0.08)


def test_the_interval_of_a_mean_is_of_what_is_known_and_unknown_for_one() -> None:
    known = np.array([1.0, 2.0, 5.0, 6.0])
    with_gaps = np.insert(known, 2, [np.nan, np.nan])
    assert interval_of_mean(with_gaps, 50) == interval_of_mean(known, 50)
    assert np.isnan(interval_of_mean(np.array([1.0, np.nan]))).all()
    assert np.isnan(interval_of_ratio(np.ones(1), np.ones(1))).all()


def test_the_interval_of_a_ratio_draws_both_sums_together() -> None:
    below = np.array([1.0, 10.0, 100.0])
    assert interval_of_ratio(3 * below, below) == pytest.approx((3, 3))
    above = np.array([4.0, 1.0, 7.0])
    each = [above[drawn].sum() / below[drawn].sum() for drawn in resamples(3, 60, 5)]
    expected = np.quantile(each, [0.025, 0.975])
    assert interval_of_ratio(above, below, 60, 5) == pytest.approx(tuple(expected))


# -- 3.1: one direction ----------------------------------------------------------------------------


def test_changes_along_one_direction_lie_on_one_axis(plant: Plant) -> None:
    rng = np.random.default_rng(1)
    table = rank_share(*plant(pushes(rng, rng.normal(size=(1, WIDTH)))), ranks=(1, 2))
    assert list(table["axes"]) == ["mean push", "best 1", "best 2"]
    np.testing.assert_allclose(table[["share", "low", "high"]], 1.0)
    assert set(table["n_examples"]) == {6}
    assert set(table["n_tokens"]) == {sum(range(15, 21))}


def test_changes_along_two_directions_need_two_axes(plant: Plant) -> None:
    rng = np.random.default_rng(2)
    plane = np.linalg.qr(rng.normal(size=(WIDTH, 2)))[0].T
    found = shares(rank_share(*plant(pushes(rng, plane)), ranks=(1, 2, 4)))
    assert found["best 2"] == pytest.approx(1)
    assert found["best 4"] == pytest.approx(1)
    assert found["mean push"] < 0.9
    assert found["best 1"] < 0.9


def test_the_best_axis_is_not_the_mean_where_pushes_cancel(plant: Plant) -> None:
    """Half of the tokens are pushed one way and half the other: the mean holds little of it."""
    rng = np.random.default_rng(3)
    strong, weak = np.eye(WIDTH)[:2]
    sign = np.tile([1.0, -1.0], 10)[:, None]
    deltas = [5 * sign * strong + rng.uniform(0.5, 1, size=(20, 1)) * weak for _ in range(6)]
    found = shares(rank_share(*plant(deltas), ranks=(1,)))
    assert found["mean push"] < 0.1
    assert found["best 1"] > 0.9


@pytest.mark.parametrize("seed", range(4))
def test_no_share_exceeds_one_and_more_axes_hold_more(plant: Plant, seed: int) -> None:
    rng = np.random.default_rng(seed)
    table = rank_share(*plant(pushes(rng, rng.normal(size=(WIDTH, WIDTH)), tokens=6)))
    found = shares(table)
    assert found["best 1"] < found["best 2"] < found["best 4"] < found["best 8"]
    assert found["best 8"] == pytest.approx(1)  # all of the eight dimensions
    assert (table["share"] <= 1 + 1e-9).all()
    assert (table["low"] <= table["share"] + 1e-9).all()
    assert (table["share"] <= table["high"] + 1e-9).all()


def test_axes_are_those_of_other_questions_with_all_of_their_responses(plant: Plant) -> None:
    """Every question has a direction of its own, which its two responses share."""
    questions = [0, 1, 2, 3, 0, 1, 2, 3]
    deltas = [np.outer([1.0, 2.0, 3.0], np.eye(WIDTH)[question]) for question in questions]
    table = rank_share(*plant(deltas, questions=questions), ranks=(1, 2), folds=4)
    np.testing.assert_allclose(table[["share", "low", "high"]], 0.0, atol=1e-12)


def test_shares_equal_the_definition_on_a_model(gpt2: Any) -> None:
    table = rank_share(gpt2, PAIRS, ranks=(1, 3), folds=len(PAIRS))
    assert table["layer"].drop_duplicates().tolist() == [0, 1, 2, 3]
    _, by_prompt, _ = oracle(gpt2, [])
    for layer in range(4):
        held = dict.fromkeys(("mean push", "best 1", "best 3"), 0.0)
        total = 0.0
        for example in range(len(PAIRS)):
            others = np.concatenate([d[layer] for i, d in enumerate(by_prompt) if i != example])
            ordered = np.linalg.eigh(others.T @ others)[1][:, ::-1]
            mean = others.mean(axis=0)
            for delta in by_prompt[example][layer]:
                total += delta @ delta
                held["mean push"] += (delta @ mean) ** 2 / (mean @ mean)
                for rank in (1, 3):
                    held[f"best {rank}"] += ((delta @ ordered[:, :rank]) ** 2).sum()
        found = shares(table[table["layer"] == layer])
        assert found == pytest.approx({name: part / total for name, part in held.items()}, rel=1e-4)


def test_intervals_of_shares_come_from_examples_and_not_from_tokens(plant: Plant) -> None:
    """Tokens differ, examples do not: there is nothing to be unsure of."""
    one = np.random.default_rng(4).normal(size=(9, WIDTH))
    table = rank_share(*plant([one] * 5), ranks=(1,))
    np.testing.assert_allclose(table["low"], table["share"])
    np.testing.assert_allclose(table["high"], table["share"])
    assert (table["share"] < 0.9).all()


def test_a_fold_with_few_tokens_has_as_many_axes_as_it_can(plant: Plant) -> None:
    """All lies in one plane, so any two axes of it hold all, however many are asked for."""
    rng = np.random.default_rng(5)
    deltas = [rng.normal(size=(tokens, 2)) @ np.eye(WIDTH)[:2] for tokens in (12, 3)]
    found = shares(rank_share(*plant(deltas), ranks=(2, 4), folds=2))
    assert found["best 2"] == pytest.approx(1)
    assert found.get("best 4", 1.0) == pytest.approx(1)


@pytest.mark.parametrize("measure", [rank_share, decodability])
def test_too_few_questions_or_folds_are_an_error(plant: Plant, measure: Any) -> None:
    rng = np.random.default_rng(6)
    deltas = pushes(rng, rng.normal(size=(1, WIDTH)), examples=4)
    with pytest.raises(ValueError, match="3 folds of 2 questions"):
        measure(*plant(deltas, questions=[0, 0, 1, 1]), folds=3)
    with pytest.raises(ValueError, match="at least two folds"):
        measure(*plant(deltas), folds=1)


# -- 3.2: equally strong ---------------------------------------------------------------------------

sizes = st.lists(st.floats(0.01, 100), min_size=1, max_size=12).map(np.array)


def gini_oracle(values: np.ndarray) -> float:
    """Half the mean absolute difference of two tokens, over the mean."""
    apart = sum(abs(float(a) - float(b)) for a in values for b in values)
    return apart / len(values) ** 2 / 2 / float(np.mean(values))


def ratio_oracle(values: np.ndarray) -> float:
    """The smallest sizes that at least 95 % and 5 % of the tokens do not exceed, one over other."""
    ordered = sorted(values.tolist())
    high, low = (ordered[math.ceil(share * len(ordered)) - 1] for share in (0.95, 0.05))
    return high / low


def strengths(parts: Sequence[np.ndarray], **other: object) -> pd.DataFrame:
    """A coefficient table with these sizes of each example's tokens."""
    rows = [
        {"layer": 0, "method": "prompt", "strength": "", "example": i, "norm": float(size), **other}
        for i, part in enumerate(parts)
        for size in part
    ]
    return pd.DataFrame(rows)


@given(sizes)
def test_gini_is_half_the_mean_difference_over_the_mean(values: np.ndarray) -> None:
    assert gini(values) == pytest.approx(gini_oracle(values), abs=1e-9)


@given(sizes, st.floats(0.01, 100))
def test_dispersion_does_not_depend_on_the_unit(values: np.ndarray, unit: float) -> None:
    assert gini(unit * values) == pytest.approx(gini(values), abs=1e-9)
    one, other = (
        dispersion(strengths([x, x]), n_bootstrap=4) for x in (values, -unit * values)
    )  # a size has no sign
    np.testing.assert_allclose(one["ratio"], other["ratio"])
    np.testing.assert_allclose(one["gini"], other["gini"], atol=1e-9)


def test_gini_of_known_cases() -> None:
    assert gini(np.full(7, 3.0)) == pytest.approx(0)
    assert gini(np.array([0.0, 0.0, 0.0, 5.0])) == pytest.approx(3 / 4)
    assert gini(np.array([3.0, 1.0])) == pytest.approx(1 / 4)


def test_equal_strengths_have_gini_0_and_ratio_1() -> None:
    found = dispersion(strengths([np.full(5, 2.0), np.full(9, 2.0)]), n_bootstrap=20).iloc[0]
    for column in ("gini", "gini_low", "gini_high"):
        assert found[column] == pytest.approx(0)
    for column in ("ratio", "ratio_low", "ratio_high"):
        assert found[column] == 1
    assert (found["n_examples"], found["n_tokens"], found["measure"]) == (2, 14, "norm")


@pytest.mark.parametrize("n_bootstrap", [30, 250])
def test_values_and_intervals_are_those_of_the_tokens_of_the_drawn_examples(
    n_bootstrap: int,
) -> None:
    rng = np.random.default_rng(7)
    parts = [rng.lognormal(i / 3, 1, size=4 + i) for i in range(6)]
    table = strengths(parts).sample(frac=1, random_state=1)
    found = dispersion(table, n_bootstrap=n_bootstrap, seed=3).iloc[0]
    whole = np.concatenate(parts)
    drawn = [
        np.concatenate([parts[example] for example in draw])
        for draw in resamples(len(parts), n_bootstrap, 3)
    ]
    for name, measure in (("gini", gini_oracle), ("ratio", ratio_oracle)):
        assert found[name] == pytest.approx(measure(whole))
        interval = percentile_interval(np.array([measure(values) for values in drawn]))
        assert (found[f"{name}_low"], found[f"{name}_high"]) == pytest.approx(interval)
        assert found[f"{name}_low"] < found[name] < found[f"{name}_high"]


def test_the_interval_covers_the_gini_of_the_population() -> None:
    """That of exponential sizes is a half."""
    rng = np.random.default_rng(8)
    table = strengths([rng.exponential(size=10) for _ in range(40)])
    found = dispersion(table, n_bootstrap=200).iloc[0]
    assert found["gini_low"] < 0.5 < found["gini_high"]
    assert found["gini_high"] - found["gini_low"] < 0.15


def test_dispersion_has_a_row_for_each_layer_method_and_strength() -> None:
    ways = [(1, "prompt", ""), (0, "prompt", ""), (0, "CAA", "as fitted"), (0, "CAA", "matched")]
    tables = [
        strengths([np.array([1.0, 1.0 + i]), np.array([1.0])], layer=layer, method=m, strength=s)
        for i, (layer, m, s) in enumerate(ways)
    ]
    found = dispersion(pd.concat(tables), n_bootstrap=5)
    assert list(found[["layer", "method", "strength"]].itertuples(index=False, name=None)) == ways
    assert found["ratio"].tolist() == [1, 2, 3, 4]
    assert found["n_tokens"].tolist() == [3] * 4


def test_dispersion_reads_the_column_asked_for() -> None:
    table = strengths([np.ones(3), np.ones(2)]).assign(along=[-1.0, 2.0, -1.0, 4.0, 1.0])
    assert dispersion(table, "along", n_bootstrap=5)["ratio"].item() == 4
    assert dispersion(table, "along", n_bootstrap=5)["measure"].item() == "along"
    assert dispersion(table, n_bootstrap=5)["ratio"].item() == 1


def test_dispersion_of_one_example_has_no_interval() -> None:
    found = dispersion(strengths([np.array([1.0, 2.0])])).iloc[0]
    assert (found["gini"], found["ratio"]) == (pytest.approx(1 / 6), 2)
    assert found[["gini_low", "gini_high", "ratio_low", "ratio_high"]].isna().all()


def test_strengths_of_which_all_are_0_are_neither_equal_nor_unequal() -> None:
    found = dispersion(strengths([np.zeros(4), np.zeros(3)]), n_bootstrap=5)
    assert found[["gini", "gini_low", "ratio", "ratio_high"]].isna().all(axis=None)


def test_the_ratio_of_strengths_that_are_often_0_is_infinite_and_so_is_its_interval() -> None:
    """A gate that is closed on a fifth of the tokens."""
    found = dispersion(strengths([np.array([0.0, 1.0, 2.0, 2.0, 3.0])] * 4), n_bootstrap=20)
    assert np.isinf(found[["ratio", "ratio_low", "ratio_high"]].to_numpy(dtype=float)).all()


def test_a_column_that_is_not_there_and_a_table_without_rows_are_errors() -> None:
    table = strengths([np.ones(2)])
    with pytest.raises(ValueError, match="reads the column 'push'"):
        dispersion(table, "push")
    with pytest.raises(ValueError, match="the table has 0 rows"):
        dispersion(table.iloc[:0])


def test_dispersion_reads_what_coefficients_writes(gpt2: Any) -> None:
    table = coefficients(gpt2, PAIRS, range(4), {})
    found = dispersion(table, n_bootstrap=20)
    assert found["layer"].tolist() == [0, 1, 2, 3]
    for layer, part in table.groupby("layer"):
        row = found[found["layer"] == layer].iloc[0]
        assert row["gini"] == pytest.approx(gini_oracle(part["norm"].to_numpy()))
        assert row["n_tokens"] == len(part)


# -- 3.2a: readable from the activation ------------------------------------------------------------

QUESTIONS = 8
TOKENS = 60


def seen(rng: np.random.Generator) -> list[np.ndarray]:
    """Plain activations, each question around a point of its own."""
    return [
        rng.normal(0.5 * rng.normal(size=WIDTH), [1, 1, 1, 2, 2, 1, 1, 10], size=(TOKENS, WIDTH))
        for _ in range(QUESTIONS)
    ]


def along(rng: np.random.Generator, values: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Changes of these strengths along one direction."""
    direction = rng.normal(size=WIDTH)
    return [np.outer(one, direction) for one in values]


def r2(table: pd.DataFrame) -> dict[str, float]:
    return dict(zip(table["readout"], table["r2"], strict=True))


W = np.array([1.0, -2.0, 0.5, 0.0, 1.0, 0.3, 0.0, 0.0])


def test_a_strength_linear_in_the_activation_is_read_off_linearly(plant: Plant) -> None:
    rng = np.random.default_rng(9)
    h = seen(rng)
    table = decodability(*plant(along(rng, [one @ W + 20 for one in h]), h))
    assert table["readout"].tolist() == ["linear", "relu"]
    assert (table["r2"] > 0.99).all()
    assert (table["high"] <= 1).all()
    assert set(table["n_tokens"] + table["n_sinks"]) == {QUESTIONS * TOKENS}


def test_a_gate_is_read_off_by_a_gate_and_only_in_part_linearly(plant: Plant) -> None:
    rng = np.random.default_rng(10)
    h = seen(rng)
    bias = -np.quantile(np.concatenate(h) @ W, 0.7)
    table = decodability(*plant(along(rng, [np.maximum(one @ W + bias, 0) for one in h]), h))
    found, linear = r2(table), table[table["readout"] == "linear"].iloc[0]
    assert found["relu"] > 0.95
    assert 0.3 < found["linear"] < 0.8
    assert linear["low"] < linear["r2"] < linear["high"]


def test_r2_is_the_share_of_the_variance_that_can_be_known(plant: Plant) -> None:
    """Half of the variance is a function of the activation, half is noise."""
    rng = np.random.default_rng(11)
    h = seen(rng)
    signal = [one @ W for one in h]
    size = np.concatenate(signal).std()
    noisy = [one + rng.normal(0, size, len(one)) + 10 * size for one in signal]
    found = decodability(*plant(along(rng, noisy), h)).set_index("readout").loc["linear"]
    assert found["r2"] == pytest.approx(0.5, abs=0.08)
    assert found["low"] < 0.5 < found["high"]
    assert found["high"] - found["low"] < 0.3


def test_r2_equals_the_definition(plant: Plant, monkeypatch: pytest.MonkeyPatch) -> None:
    """The mean push is that of the other questions; questions are pooled in units of its strengths.

    Each question is pushed its own way, and the last so unevenly that the mean push is uncertain.
    """
    monkeypatch.setattr(reading, "PENALTIES", (1e-9, 2e-9))  # ridge is then least squares
    rng = np.random.default_rng(16)
    h = seen(rng)
    size = np.concatenate([one @ W for one in h]).std()
    deltas = [
        np.outer(
            one @ W + rng.normal(0, size / 2, TOKENS) * noise + 0.3 * size,
            np.ones(WIDTH) + rng.normal(0, 0.7, WIDTH),
        )
        for noise, one in zip((0, 0, 0, 0, 0, 0, 0, 4), h, strict=True)
    ]
    missed = np.zeros(2)
    for test in range(QUESTIONS):
        train = [i for i in range(QUESTIONS) if i != test]
        push = np.concatenate([deltas[i] for i in train]).mean(axis=0)
        known, wanted = (
            np.concatenate([deltas[i] for i in some]) @ push / (push @ push)
            for some in (train, [test])
        )
        fitted, asked = (
            np.column_stack([np.concatenate([h[i] for i in some]), np.ones(len(some) * TOKENS)])
            for some in (train, [test])
        )
        guess = asked @ np.linalg.lstsq(fitted, known, rcond=None)[0]
        for i, one in enumerate((guess, known.mean())):
            missed[i] += np.square((wanted - one) / known.std()).sum()
    found = r2(decodability(*plant(deltas, h), folds=QUESTIONS))["linear"]
    assert found == pytest.approx(1 - missed[0] / missed[1], abs=1e-3)


def test_a_strength_that_has_nothing_to_do_with_the_activation_is_not_read_off(
    plant: Plant,
) -> None:
    rng = np.random.default_rng(12)
    deltas = along(rng, [rng.uniform(1, 3, TOKENS) for _ in range(QUESTIONS)])
    found = r2(decodability(*plant(deltas, seen(rng))))
    assert -0.15 < found["linear"] <= 0.01
    assert -0.15 < found["relu"] <= 0.01


def test_what_depends_only_on_the_question_is_not_read_off_on_others(plant: Plant) -> None:
    """Two responses each: one tells the strength of the other, so neither may be fitted on."""
    rng = np.random.default_rng(13)
    questions = [*range(24), *range(24)]
    centres, pushed = 20 * rng.normal(size=(24, 40)), rng.uniform(1, 9, 24)
    h = [centres[q] + rng.normal(size=(10, 40)) for q in questions]
    deltas = along(rng, [np.full(10, pushed[q]) for q in questions])
    found = r2(decodability(*plant(deltas, h, questions)))
    assert found["linear"] < 0.1
    assert found["relu"] < 0.1
    assert r2(decodability(*plant(deltas, h)))["linear"] > 0.2, "as if they were 48 questions"


def test_the_norm_counts_what_lies_across_the_mean_push_too(plant: Plant) -> None:
    rng = np.random.default_rng(14)
    h = seen(rng)
    deltas = []
    for one in h:
        ways = rng.normal(size=one.shape)
        ways /= np.linalg.norm(ways, axis=1, keepdims=True)
        deltas.append((one @ W + 30)[:, None] * ways)
    tables = {s: decodability(*plant(deltas, h), strength=s) for s in ("norm", "along")}
    assert r2(tables["norm"])["linear"] > 0.99
    assert r2(tables["along"])["linear"] < 0.1
    assert [table["strength"].unique().tolist() for table in tables.values()] == [
        ["norm"],
        ["along"],
    ]


def test_the_unit_of_the_changes_does_not_matter(plant: Plant) -> None:
    rng = np.random.default_rng(15)
    h = seen(rng)
    deltas = along(rng, [np.abs(one @ W) for one in h])
    small, large = (
        decodability(*plant([unit * delta for delta in deltas], h), strength="norm")
        for unit in (0.01, 100.0)
    )
    np.testing.assert_allclose(
        small[["r2", "low", "high"]], large[["r2", "low", "high"]], atol=0.02
    )


def test_decodability_on_a_model_has_every_layer_and_read_out(gpt2: Any) -> None:
    table = decodability(gpt2, PAIRS, folds=3)
    assert table[["layer", "readout"]].values.tolist() == [
        [layer, readout] for layer in range(4) for readout in ("linear", "relu")
    ]
    assert (table["low"] <= table["r2"]).all()
    assert (table["r2"] <= table["high"]).all()
    assert (table["high"] <= 1).all()


def test_an_unknown_strength_is_an_error(gpt2: Any) -> None:
    from jaxtyping import TypeCheckError

    with pytest.raises((ValueError, TypeCheckError)):
        decodability(gpt2, PAIRS, strength="size")  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("strength", ["along", "norm"])
def test_no_row_that_is_tested_on_has_a_part_in_what_is_fitted(plant: Plant, strength: Any) -> None:
    """Change one tested token: what the others of its fold are predicted by stays as it was.

    Not even by its share in the mean and the spread that activations are brought to.
    """
    rng = np.random.default_rng(3)
    h = [rng.normal(size=(12, WIDTH)) for _ in range(8)]
    deltas = [one @ rng.normal(size=(WIDTH, WIDTH)) for one in h]
    plant(deltas, h)
    aligned = folds.align()
    flat, pushed = np.concatenate(h), np.concatenate(deltas)
    plain = reading._missed(pushed, flat, aligned, strength, 4, 0)
    for _, test in folds.folds_of(aligned, 4, 0):
        changed = (flat.copy(), pushed.copy())
        for rows in changed:
            rows[test[0]] *= 1e3
        missed = reading._missed(changed[1], changed[0], aligned, strength, 4, 0)
        for name in ("mean", "linear", "relu"):
            assert missed[name][test[1:]] == pytest.approx(plain[name][test[1:]], rel=1e-6)


def test_activations_are_brought_to_mean_0_and_spread_1_before_the_penalty(plant: Plant) -> None:
    """So a feature's unit does not matter, nor one that never changes."""
    rng = np.random.default_rng(4)
    h = [rng.normal(size=(12, WIDTH)) for _ in range(8)]
    deltas = [one @ rng.normal(size=(WIDTH, WIDTH)) for one in h]
    units = np.array([1e3, 1.0, 1e-3, 1.0, 7.0, 1.0, 1.0, 50.0])
    found = r2(decodability(*plant(deltas, h)))
    moved = [np.c_[one * units + 1e2 * units, np.full(12, 3.0)] for one in h]
    assert r2(decodability(*plant(deltas, moved))) == pytest.approx(found, rel=1e-4)
