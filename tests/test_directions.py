"""Directions: what each finds, what it misses, and that PCA's centring trap is where we say."""

import pytest
import torch
from catalogue import random
from hypothesis import given
from hypothesis import strategies as st

from steerlens import CAA, difference_of_means, principal_direction, unit

N, D = 300, 16


def trap(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """B2's construction: the mean difference lies along e0, what varies between pairs along e1."""
    base = random(N, D, seed=seed)
    difference = 0.05 * random(N, D, seed=seed + 1)
    difference[:, 0] += 4.0
    difference[:, 1] += 2.0 * random(N, seed=seed + 2)
    return base + difference / 2, base - difference / 2


@pytest.mark.parametrize("centring", ["pair", "none"])
def test_pca_of_pair_centred_or_raw_differences_finds_the_mean_difference(centring: str) -> None:
    positive, negative = trap()
    first = principal_direction(positive, negative, centring)
    assert float(first[0]) > 0.999
    swapped = principal_direction(negative, positive, centring)
    assert float(swapped[0]) < -0.999


def test_pca_of_mean_centred_differences_takes_out_what_one_looks_for() -> None:
    positive, negative = trap()
    first = principal_direction(positive, negative, "mean")
    assert abs(float(first[0])) < 0.05
    assert abs(float(first[1])) > 0.99


def test_pair_centring_is_the_default() -> None:
    positive, negative = trap()
    torch.testing.assert_close(
        principal_direction(positive, negative), principal_direction(positive, negative, "pair")
    )
    assert float(principal_direction(positive, negative)[0]) > 0.999


@pytest.mark.parametrize("centring", ["pair", "none", "mean"])
@given(seed=st.integers(0, 500), pairs=st.integers(3, 12))
def test_positives_project_higher_on_average(centring: str, seed: int, pairs: int) -> None:
    positive, negative = random(pairs, 6, seed=seed), random(pairs, 6, seed=seed + 9000)
    first = principal_direction(positive, negative, centring)
    assert float(first.norm()) == pytest.approx(1, abs=1e-5)
    assert float((positive - negative).mean(dim=0) @ first) >= -1e-6


@pytest.mark.parametrize("centring", ["pair", "none", "mean"])
@given(seed=st.integers(0, 500))
def test_the_principal_direction_is_the_top_eigenvector_of_its_scatter(
    centring: str, seed: int
) -> None:
    positive, negative = random(8, 5, seed=seed), random(8, 5, seed=seed + 9000)
    d = (positive - negative).double()
    rows = d - d.mean(dim=0) if centring == "mean" else d
    sizes, axes = torch.linalg.eigh(rows.T @ rows)
    if sizes[-1] < 1.05 * sizes[-2]:
        return
    first = principal_direction(positive, negative, centring).double()
    assert abs(float(first @ axes[:, -1])) > 0.9999


def test_one_dtype_in_the_same_out() -> None:
    positive, negative = (side.bfloat16() for side in trap())
    assert principal_direction(positive, negative).dtype == torch.bfloat16
    assert difference_of_means(positive, negative).dtype == torch.bfloat16


@pytest.mark.parametrize("centring", ["pair", "none", "mean"])
def test_pairs_that_do_not_differ_have_no_principal_direction(centring: str) -> None:
    same = random(4, 5)
    with pytest.raises(ValueError, match="nothing varies between these 4 pairs"):
        principal_direction(same, same.clone(), centring)


def test_the_difference_of_means_takes_unequal_numbers_and_is_caas_where_they_are_equal() -> None:
    positive, negative = random(7, 5, seed=1), random(7, 5, seed=2)
    torch.testing.assert_close(
        difference_of_means(positive, negative), CAA.from_activations(positive, negative).direction
    )
    fewer = difference_of_means(positive, negative[:3])
    torch.testing.assert_close(fewer, positive.sum(dim=0) / 7 - negative[:3].sum(dim=0) / 3)


@pytest.mark.parametrize("make", [difference_of_means, principal_direction])
def test_activations_that_are_not_finite_or_absent_are_refused(make) -> None:
    good, bad = random(4, 5), random(4, 5)
    bad[2, 1] = float("inf")
    with pytest.raises(ValueError, match="positive activations: 1 of 20 values are NaN"):
        make(bad, good)
    with pytest.raises(ValueError, match="negative activations: 1 of 20 values are NaN"):
        make(good, bad)
    with pytest.raises(ValueError, match="empty"):
        make(good[:0], good[:0])


@given(seed=st.integers(0, 500), size=st.floats(1e-3, 1e3))
def test_unit_keeps_the_direction_at_length_1(seed: int, size: float) -> None:
    direction = size * random(5, seed=seed)
    one = unit(direction)
    assert float(one.norm()) == pytest.approx(1, abs=1e-5)
    assert float(torch.cosine_similarity(one, direction, dim=0)) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("entry", [0.0, float("nan"), float("inf")])
def test_a_direction_without_a_length_cannot_be_normalised(entry: float) -> None:
    with pytest.raises(ValueError, match="cannot be normalised"):
        unit(torch.full((4,), entry))
