"""Recursive feature machines: against autograd, against the dense form, on a planted concept."""

from typing import Any

import numpy as np
import pytest
import torch

from steerlens.directions.rfm import (
    NEURAL_CONTROLLERS,
    RFM,
    auroc,
    best_direction,
    correlation,
    machines,
)


def planted(
    seed: int = 0, d: int = 256, n: int = 300, strong: float = 8.0
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Rows in which a concept is small beside eight strong directions of no interest."""
    generator = torch.Generator().manual_seed(seed)
    v = torch.nn.functional.normalize(torch.randn(d, generator=generator), dim=0)
    nuisance = torch.linalg.qr(torch.randn(d, 8, generator=generator))[0]
    y = (torch.arange(n) % 2).float()
    rows = 0.3 * torch.randn(n, d, generator=generator) + (2 * y[:, None] - 1) * v
    return rows + strong * torch.randn(n, 8, generator=generator) @ nuisance.T, y, v


def dense(
    rows: np.ndarray, y: np.ndarray, bandwidth: float, ridge: float, steps: int, centred: bool
) -> list[np.ndarray]:
    """The metrics M_1, M_2, ... with d x d matrices, as the papers write them."""
    n, d = rows.shape
    M, found = np.eye(d), []
    for _ in range(steps):
        apart = rows[:, None] - rows[None]
        D = np.sqrt(np.maximum(np.einsum("ijd,de,ije->ij", apart, M, apart), 0))
        K = np.exp(-D / bandwidth)
        alpha = np.linalg.solve(K + ridge * np.eye(n), y)
        with np.errstate(divide="ignore", invalid="ignore"):
            W = np.where(D > 0, K / D, 0)
        G = np.stack([(alpha * W[:, j]) @ (apart[:, j] @ M) for j in range(n)])
        G = G - G.mean(axis=0) if centred else G
        M = G.T @ G / (n * bandwidth**2)
        M = M / M.max()
        found.append(M)
    return found


def small(n: int = 20, d: int = 6, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randn(n, d, generator=generator, dtype=torch.float64)
    return rows, (rows[:, 0] * rows[:, 1] > 0).double()


@pytest.mark.parametrize("centred", [True, False])
def test_the_low_rank_form_is_the_dense_one(centred: bool) -> None:
    rows, y = small()
    steps = list(machines(rows, y, 2.0, 1e-3, 4, centred))
    for M, machine in zip(
        dense(rows.numpy(), y.numpy(), 2.0, 1e-3, 3, centred), steps[1:], strict=True
    ):
        assert machine.factor is not None
        np.testing.assert_allclose((machine.factor.T @ machine.factor).numpy(), M, atol=1e-9)
        top = np.linalg.eigh(M)[1][:, -1]
        assert abs(machine.direction().numpy() @ top) == pytest.approx(1, abs=1e-9)


@pytest.mark.parametrize("step", [0, 1, 2])
def test_gradients_are_those_of_autograd(step: int) -> None:
    rows, y = small(seed=1)
    machine = list(machines(rows, y, 1.5, 1e-3, 3, centred=True))[step]
    found = machine.gradients()
    for j in range(len(rows)):
        # At distance 0 the kernel has no gradient; the formula leaves the row's own term out.
        others = torch.arange(len(rows)) != j
        x = rows[j].clone().requires_grad_()
        apart = x - rows[others]
        M = torch.eye(6, dtype=torch.float64)
        if machine.factor is not None:
            M = machine.factor.T @ machine.factor
        D = torch.einsum("id,de,ie->i", apart, M, apart).sqrt()
        (torch.exp(-D / 1.5) @ machine.alpha[others]).backward()
        np.testing.assert_allclose(found[j].numpy(), 1.5 * x.grad.numpy(), atol=1e-10)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_planted_concept_is_found_where_the_mean_difference_is_not(seed: int) -> None:
    rows, y, v = planted(seed)
    found = best_direction(rows[:240], y[:240], rows[240:], y[240:])
    means = rows[y == 1].mean(dim=0) - rows[y == 0].mean(dim=0)
    assert abs(float(means @ v / means.norm())) < 0.75
    assert abs(float(found.direction.float() @ v)) > 0.9
    assert float(found.direction.norm()) == pytest.approx(1)
    shown = (rows[240:].double() - rows[:240].double().mean(0)) @ found.direction
    assert found.score == pytest.approx(abs(correlation(shown, y[240:].double())), abs=1e-6)


def test_the_settings_of_neural_controllers_find_it_too() -> None:
    rows, y, v = planted(0)
    found = best_direction(rows[:240], y[:240], rows[240:], y[240:], NEURAL_CONTROLLERS)
    assert abs(float(found.direction.float() @ v)) > 0.8
    assert 0.5 < found.score <= 1


def test_the_scale_of_the_labels_does_not_matter() -> None:
    rows, y = small(60)
    args = (rows[:40], y[:40], rows[40:], y[40:])
    one = best_direction(*args)
    two = best_direction(rows[:40], 3 * y[:40], rows[40:], 3 * y[40:])
    assert abs(float(one.direction @ two.direction)) == pytest.approx(1, abs=1e-6)


def test_auroc_and_correlation() -> None:
    y = torch.tensor([0.0, 0.0, 1.0, 1.0]).double()
    assert auroc(torch.tensor([1.0, 2, 3, 4]).double(), y) == 1
    assert auroc(torch.tensor([1.0, 3, 3, 4]).double(), y) == 0.875
    assert correlation(2 * y + 1, y) == pytest.approx(1)
    assert correlation(torch.ones(4).double(), y) == 0
    with pytest.raises(ValueError, match="both labels"):
        auroc(y, torch.ones(4).double())


def test_rows_that_are_all_the_same_are_an_error() -> None:
    rows, y = torch.ones(10, 4), (torch.arange(10) % 2).float()
    with pytest.raises(ValueError, match="No kernel machine"):
        best_direction(rows[:8], y[:8], rows[8:], y[8:])
    with pytest.raises(ValueError, match="at least 2"):
        RFM(iterations=1)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"bandwidths": ()}, "nothing to try"),
        ({"normalised": ()}, "nothing to try"),
        ({"centred": ()}, "nothing to try"),
        ({"bandwidths": (1.0, -1.0)}, "above 0"),
        ({"bandwidths": (float("nan"),)}, "above 0"),
        ({"bandwidths": (float("inf"),)}, "finite"),
        ({"ridge": -1.0}, "not below 0; found -1"),
        ({"ridge": float("nan")}, "not below 0"),
        ({"ridge": float("inf")}, "ridge is finite"),
        ({"score": "directon"}, "Unknown score 'directon'. Use one of: direction, predictor"),
    ],
    ids=str,
)
def test_bad_settings_are_errors(unchecked: None, settings: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        RFM(**settings)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x, y, a, b: (x, y[:-1], a, b), "fitted rows: 40, with labels of shape"),
        (lambda x, y, a, b: (x, y, a, torch.cat([b, b])), "held-out rows: 20, with labels"),
        (lambda x, y, a, b: (x[0], y, a, b), "fitted rows: a matrix is needed"),
        (lambda x, y, a, b: (x, y, a[None], b), "held-out rows: a matrix is needed"),
        (lambda x, y, a, b: (x, y * float("nan"), a, b), "labels of the fitted rows: 40 of 40"),
        (lambda x, y, a, b: (x, y, a[:, :3], b), "width 6 and the held-out rows 3"),
    ],
    ids=["short", "long", "1-D", "3-D", "NaN", "width"],
)
def test_rows_without_their_labels_are_errors(unchecked: None, change: Any, message: str) -> None:
    rows, y = small(60)
    with pytest.raises(ValueError, match=message):
        best_direction(*change(rows[:40], y[:40], rows[40:], y[40:]))
