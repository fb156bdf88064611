"""Directions from labelled activations: each kind finds a planted one, and says how well."""

from math import isnan
from typing import Any, get_args

import pytest
import torch

from steerlens import Conversation, Site, SteeringWarning, capture, last
from steerlens.directions.labelled import Kind, contrast_directions, fit_direction

KINDS = get_args(Kind)
FITTED = [kind for kind in KINDS if kind != "random"]


def rows(n: int = 200, d: int = 40, size: float = 1.0) -> tuple[Any, Any, Any]:
    """Pairs that differ by a planted direction, in noise."""
    generator = torch.Generator().manual_seed(0)
    v = torch.nn.functional.normalize(torch.randn(d, generator=generator), dim=0)
    y = (torch.arange(n) % 2).float()
    x = torch.randn(n // 2, d, generator=generator).repeat_interleave(2, 0)
    x = x + 0.5 * torch.randn(n, d, generator=generator)
    return x + size * (2 * y[:, None] - 1) * v, y, v


@pytest.mark.parametrize("kind", FITTED)
def test_a_planted_direction_is_found_and_points_to_label_1(kind: Kind) -> None:
    x, y, v = rows(size=1.5)
    found = fit_direction(kind, x, y)
    assert float(found.direction.norm()) == pytest.approx(1, abs=1e-5)
    assert float(found.direction @ v) > 0.8
    assert found.auroc > 0.85
    assert found.correlation > 0.5
    assert found.direction.dtype == x.dtype


def test_a_random_direction_is_the_bar_to_clear() -> None:
    x, y, v = rows(size=1.5)
    found, same, other = (fit_direction("random", x, y, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(found.direction, same.direction)
    assert not torch.allclose(found.direction, other.direction)
    assert abs(float(found.direction @ v)) < 0.6


@pytest.mark.parametrize("kind", ["means", "ridge", "rfm"])
def test_scores_come_from_rows_that_were_not_fitted_on(kind: Kind) -> None:
    x, y, _ = rows()
    swapped = torch.cat([y[:160], 1 - y[160:]])
    one, two = (fit_direction(kind, x, labels) for labels in (y, swapped))
    assert one.auroc > 0.5 > two.auroc
    if kind == "means":
        assert torch.allclose(one.direction, two.direction, atol=1e-5)


def test_the_sign_does_not_depend_on_the_fit() -> None:
    x, y, _ = rows(size=1.5)
    for kind in ("ridge", "pca", "rfm"):
        direction = fit_direction(kind, x, y).direction
        assert float((x @ direction)[y == 1].mean()) > float((x @ direction)[y == 0].mean())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x, y: (x, y + 1), "0 and 1"),
        (lambda x, y: (x, torch.ones_like(y)), "both must occur"),
        (lambda x, y: (x * float("nan"), y), "NaN"),
        (lambda x, y: (x[y.argsort()], y.sort().values), "one label only"),
        (lambda x, y: (x, y / y), "labels of the activations: 100 of 200 values are NaN"),
        (lambda x, y: (x, y[:-1]), "activations: 200, with labels of shape .199,."),
        (lambda x, y: (x, torch.cat([y, y])), "activations: 200, with labels of shape .400,."),
        (lambda x, y: (x, y[:, None]), r"a tensor \[row\] .* for labels; found .* \[200, 1\]"),
        (lambda x, y: (x[:, 0], y), r"\[row, d_model\] .* for activations; found .* \[200\]"),
        (lambda x, y: (x[None], y), r"\[row, d_model\] .* for activations; .* \[1, 200, 40\]"),
    ],
    ids=["labels", "one", "nan", "sorted", "0/0", "short", "long", "column", "1-D", "3-D"],
)
@pytest.mark.parametrize("kind", ["means", "rfm"])
def test_bad_rows_are_errors(unchecked: None, kind: Kind, change: Any, message: str) -> None:
    x, y, _ = rows()
    with pytest.raises((ValueError, TypeError), match=message):
        fit_direction(kind, *change(x, y))


@pytest.mark.parametrize("share", [float("nan"), -1.0, 0.0, 1.0, 2.0])
def test_the_held_out_share_lies_between_0_and_1(gpt2: Any, share: float) -> None:
    x, y, _ = rows()
    with pytest.raises(ValueError, match=f"held_out={share}: it is the share"):
        fit_direction("means", x, y, held_out=share)
    with pytest.raises(ValueError, match=f"held_out={share}: it is the share"):
        contrast_directions(gpt2, "means", [], [], [1], held_out=share)


@pytest.mark.parametrize("kind", FITTED)
def test_rows_that_are_all_the_same_are_an_error(kind: Kind) -> None:
    _, y, _ = rows()
    with pytest.raises(ValueError, match="160 rows to fit on are all the same"):
        fit_direction(kind, torch.full((200, 40), 3.0), y)


@pytest.mark.parametrize(
    ("pairs", "share", "needed"), [(1, 0.2, 3), (2, 0.2, 3), (1, 0.5, 2), (4, 0.1, 5)]
)
def test_too_few_pairs_are_counted(pairs: int, share: float, needed: int) -> None:
    x, y, _ = rows()
    message = f"At least {needed} pairs are needed .* found {pairs} .held_out={share}"
    with pytest.raises(ValueError, match=message):
        fit_direction("means", x[: 2 * pairs], y[: 2 * pairs], held_out=share)
    found = fit_direction("means", x[: 2 * needed], y[: 2 * needed], held_out=share)
    assert found.n_held_out == 2


def test_a_random_direction_wants_no_labels_and_no_pairs() -> None:
    x, y, _ = rows()
    all_labels = fit_direction("random", x, y, seed=1)
    assert all_labels.n_held_out == 40
    assert 0 < all_labels.auroc < 1
    for n, labels in ((1, y), (2, y), (4, y), (200, torch.zeros(200))):
        found = fit_direction("random", x[:n], labels[:n], seed=1)
        assert abs(float(found.direction @ all_labels.direction)) == pytest.approx(1, abs=1e-5)
        assert isnan(found.auroc)
        assert isnan(found.correlation)
    with pytest.raises(ValueError, match="0 and 1"):
        fit_direction("random", x, y + 1)


def test_its_sign_is_that_of_the_labels_where_there_are_some() -> None:
    x, y, _ = rows(size=1.5)
    for seed in range(6):
        v = fit_direction("random", x, y, seed=seed).direction
        swapped = fit_direction("random", x, 1 - y, seed=seed).direction
        assert float((x @ v)[y == 1].mean()) > float((x @ v)[y == 0].mean())
        assert torch.allclose(v, -swapped)
    same = x[0::2].repeat_interleave(2, 0) * (
        1 + 1e-7 * torch.randn(200, 1, generator=torch.Generator().manual_seed(0))
    )
    for seed in range(6):  # rounding is no label
        v = fit_direction("random", same, y, seed=seed).direction
        assert torch.equal(v, fit_direction("random", same, 1 - y, seed=seed).direction)


def test_random_directions_of_prompts_need_neither_pairs_nor_an_instruction(gpt2: Any) -> None:
    users = ["What is it?", "Do you love the dog?", "Is it the sea?"]
    plain = [Conversation(user) for user in users]
    kind = [Conversation(user, "You are kind.") for user in users]
    wanted = contrast_directions(gpt2, "random", kind, plain, [1, 2])
    assert wanted[Site(1)].n_held_out == 2
    for sides in ((kind[:1], plain[:1]), (kind[:2], plain[:2]), (plain, plain), (plain, kind)):
        found = contrast_directions(gpt2, "random", *sides, [1, 2])
        for site, one in found.items():
            assert float(one.direction.norm()) == pytest.approx(1, abs=1e-5)
            cosine = float(one.direction @ wanted[site].direction)
            assert abs(cosine) == pytest.approx(1, abs=1e-5)
    with pytest.raises(ValueError, match=r"At least 3 pairs are needed .* found 2"):
        contrast_directions(gpt2, "means", kind[:2], plain[:2], [1])


def test_held_out_rows_that_were_fitted_too_are_counted_in_a_warning() -> None:
    x, y, _ = rows()
    x[160:163] = x[0:3]  # two of label 0, one of label 1
    with pytest.warns(SteeringWarning, match="3 of 40 held-out rows are also among the fitted"):
        fit_direction("means", x, y)
    x[160:163] = x[1:4]  # each with the other label: nothing is flattered
    fit_direction("means", x, y)
    x[160:163] = x[0:3]
    fit_direction("random", x, y)


def test_a_prompt_that_occurs_twice_is_warned_of_once(gpt2: Any) -> None:
    users = ["What is it?", "Do you love the dog?", "Is it the sea?"]
    plain = [Conversation(user) for user in users]
    kind = [Conversation(user, "You are kind.") for user in users]
    contrast_directions(gpt2, "means", kind, plain, [1, 2])
    with pytest.warns(SteeringWarning, match="2 of 2 held-out rows") as warned:
        contrast_directions(gpt2, "means", 2 * kind, 2 * plain, [1, 2])
    assert len([one for one in warned if "held-out rows" in str(one.message)]) == 1


def test_pca_wants_partners_side_by_side() -> None:
    x, y, _ = rows()
    with pytest.raises(ValueError, match="pca needs pairs"):
        fit_direction("pca", x, 1 - y)


def test_directions_of_prompts_tell_the_two_sides_apart(model: Any) -> None:
    users = ["What is it?", "Do you love the dog?", "What do you think?", "Is it the sea?"]
    plain = [Conversation(user) for user in users]
    kind = [Conversation(user, "You are kind.") for user in users]
    found = contrast_directions(model, "means", kind, plain, [1, 2], held_out=0.5)
    assert list(found) == [Site(1), Site(2)]
    read = capture(model, [*kind, *plain], 1, scope=last).at(1)
    projected = read @ found[Site(1)].direction
    assert projected[:4].mean() > projected[4:].mean()
    # Half of the pairs are held out, drawn by the seed: another half gives another direction.
    others = [
        contrast_directions(model, "means", kind, plain, [1], held_out=0.5, seed=seed)
        for seed in range(6)
    ]
    assert len({float(one[Site(1)].direction[0]) for one in others}) > 1
    same = contrast_directions(model, "means", kind, plain, [1], held_out=0.5)
    assert torch.equal(same[Site(1)].direction, found[Site(1)].direction)


def test_the_kind_in_the_models_place_is_an_error(gpt2: Any, unchecked: None) -> None:
    swapped: Any = ("means", gpt2, ["a b"], ["c"], [1])
    with pytest.raises(TypeError, match=r"takes a model for model, as .*; found str 'means'"):
        contrast_directions(*swapped)


def test_prompts_without_partners_are_an_error(gpt2: Any) -> None:
    with pytest.raises(ValueError, match="found 2 positive and 1 negative"):
        contrast_directions(gpt2, "means", ["a b", "c"], ["a"], [1])


def test_prompts_that_are_the_same_where_they_are_read_are_an_error(gpt2: Any) -> None:
    sides = [[Conversation("a b", None, text) for text in ("c d e", "d e f")] for _ in range(2)]
    other = [Conversation("a b", None, text) for text in ("x y e", "a b f")]
    with pytest.raises(ValueError, match="the same activations at layer 1"):
        contrast_directions(gpt2, "means", *sides, [1])
    with pytest.raises(ValueError, match="the same activations at layer 1"):
        contrast_directions(gpt2, "means", sides[0], other, [1], read=last)
    contrast_directions(gpt2, "means", sides[0], other, [1], held_out=0.5)  # the response differs


# -- The sign, and what is held out ------------------------------------------------------------


def test_the_sign_is_that_of_all_rows_and_not_of_the_fitted_ones() -> None:
    """Where the fitted rows say the opposite of all: a random direction fits neither."""
    x, y = torch.zeros(20, 1), (torch.arange(20) % 2).float()
    x[:16, 0] = -(2 * y[:16] - 1)  # fitted on: label 1 is lower
    x[16:, 0] = 100 * (2 * y[16:] - 1)  # held out: label 1 is higher, by much
    for seed in range(4):
        found = fit_direction("random", x, y, seed=seed, sinks=torch.inf)
        assert found.direction.tolist() == [1.0]
        assert (found.correlation, found.auroc) == pytest.approx((1.0, 1.0))


@pytest.mark.parametrize("seed", range(6))
def test_rounding_does_not_turn_a_random_direction_round(seed: int) -> None:
    """The same rows with both labels: a correlation is rounding, of whatever sign."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(30, 4, generator=generator).repeat_interleave(2, 0)
    x = x + 1e-7 * torch.randn(x.shape, generator=generator)
    y = (torch.arange(60) % 2).float()
    drawn = torch.randn(4, generator=torch.Generator().manual_seed(seed))
    found = fit_direction("random", x, y, seed=seed)
    torch.testing.assert_close(found.direction, drawn / drawn.norm())


def test_a_direction_that_points_the_other_way_is_turned_round() -> None:
    """Both signs are drawn, and label 1 is higher in either case."""
    x, y, _ = rows(size=1.5)
    turned = []
    for seed in range(8):
        generator = torch.Generator().manual_seed(seed)
        drawn = torch.randn(x.shape[1], generator=generator)
        found = fit_direction("random", x, y, seed=seed, sinks=torch.inf)
        along = float(found.direction @ (drawn / drawn.norm()))
        assert abs(along) == pytest.approx(1, abs=1e-5)
        projected = x @ found.direction
        assert float(projected[y == 1].mean()) > float(projected[y == 0].mean())
        turned.append(along < 0)
    assert set(turned) == {True, False}


@pytest.mark.parametrize("kind", FITTED)
def test_scores_are_those_of_the_direction_on_the_held_out_rows(kind: Kind) -> None:
    from steerlens.directions.rfm import auroc, correlation

    x, y, _ = rows(size=1.0)
    found = fit_direction(kind, x, y, held_out=0.25)
    n = 3 * len(y) // 4
    along = x[n:].double() @ found.direction.double()
    assert found.n_held_out == len(y) - n
    assert found.auroc == pytest.approx(auroc(along, y[n:].double()), abs=1e-6)
    assert found.correlation == pytest.approx(correlation(along, y[n:].double()), abs=1e-5)
