"""Directions from labelled activations: each kind finds a planted one, and says how well."""

from typing import Any, get_args

import pytest
import torch

from steerlens import Conversation, Site, capture, last
from steerlens.labelled import Kind, contrast_directions, fit_direction

KINDS = get_args(Kind)


def rows(n: int = 200, d: int = 40, size: float = 1.0) -> tuple[Any, Any, Any]:
    """Pairs that differ by a planted direction, in noise."""
    generator = torch.Generator().manual_seed(0)
    v = torch.nn.functional.normalize(torch.randn(d, generator=generator), dim=0)
    y = (torch.arange(n) % 2).float()
    x = torch.randn(n // 2, d, generator=generator).repeat_interleave(2, 0)
    x = x + 0.5 * torch.randn(n, d, generator=generator)
    return x + size * (2 * y[:, None] - 1) * v, y, v


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "random"], ids=str)
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
    ],
    ids=["labels", "one", "nan", "sorted"],
)
def test_bad_rows_are_errors(change: Any, message: str) -> None:
    x, y, _ = rows()
    with pytest.raises(ValueError, match=message):
        fit_direction("means", *change(x, y))


def test_pca_wants_partners_side_by_side() -> None:
    x, y, _ = rows()
    with pytest.raises(ValueError, match="pca needs pairs"):
        fit_direction("pca", x, 1 - y)


def test_directions_of_prompts_tell_the_two_sides_apart(model: Any) -> None:
    users = ["What is it?", "Do you love the dog?", "What do you think?", "Is it the sea?"]
    plain = [Conversation(user) for user in users]
    kind = [Conversation(user, "You are kind.") for user in users]
    found = contrast_directions("means", model, kind, plain, [1, 2], held_out=0.5)
    assert list(found) == [Site(1), Site(2)]
    read = capture(model, [*kind, *plain], 1, scope=last).at(1)
    projected = read @ found[Site(1)].direction
    assert projected[:4].mean() > projected[4:].mean()
    # Half of the pairs are held out, drawn by the seed: another half gives another direction.
    others = [
        contrast_directions("means", model, kind, plain, [1], held_out=0.5, seed=seed)
        for seed in range(6)
    ]
    assert len({float(one[Site(1)].direction[0]) for one in others}) > 1
    same = contrast_directions("means", model, kind, plain, [1], held_out=0.5)
    assert torch.equal(same[Site(1)].direction, found[Site(1)].direction)


def test_prompts_without_partners_are_an_error(gpt2: Any) -> None:
    with pytest.raises(ValueError, match="found 2 positive and 1 negative"):
        contrast_directions("means", gpt2, ["a b", "c"], ["a"], [1])


def test_prompts_that_are_the_same_where_they_are_read_are_an_error(gpt2: Any) -> None:
    sides = [[Conversation("a b", None, text) for text in ("c d e", "d e f")] for _ in range(2)]
    other = [Conversation("a b", None, text) for text in ("x y e", "a b f")]
    with pytest.raises(ValueError, match="the same activations at layer 1"):
        contrast_directions("means", gpt2, *sides, [1])
    with pytest.raises(ValueError, match="the same activations at layer 1"):
        contrast_directions("means", gpt2, sides[0], other, [1], read=last)
    contrast_directions("means", gpt2, sides[0], other, [1], held_out=0.5)  # the response differs
