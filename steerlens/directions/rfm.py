"""Recursive feature machines: the direction that a kernel machine's predictions depend on most.

Radhakrishnan, Beaglehole, Pandit & Belkin, "Mechanism for feature learning in neural networks and
backpropagation-free machine learning models", Science 2024; as a source of steering directions in
Beaglehole et al., arXiv 2502.03708, and, with other settings, in CLAS (Hsu et al., arXiv
2604.24693). For rows a_i with labels y, a metric M that begins as the identity:

    D_ij  = sqrt((a_i - a_j)^T M (a_i - a_j))
    K     = exp( -D / L )
    alpha = (K + ridge I)^-1 y
    g_j   = sum_i alpha_i (K_ij / D_ij) M (a_i - a_j)          L times the gradient of f at a_j
    M     = G^T G / max entry                                  the average gradient outer product

again and again. The direction is the top eigenvector of M. Since M = F^T F with F = G over the
largest norm of a column of G, of n rows, nothing of size d x d is ever made: distances are those of
the rows F a, and the eigenvector is F^T w with w the top eigenvector of F F^T. This is exact.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from typing import Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from steerlens.checks import require_choice
from steerlens.directions.checks import Labels, Rows, require_labelled, require_same_width
from steerlens.kinds import require_fields
from steerlens.types import Direction

OtherRows = Float[Tensor, "other d_model"]
OtherLabels = Float[Tensor, " other"]
Factor = Float[Tensor, "rank d_model"]
Score = Literal["direction", "predictor"]


@dataclass(frozen=True)
class RFM:
    """Settings: every combination of bandwidth, row normalisation and gradient centring is tried.

    A candidate direction, or the machine that it comes from (`score="predictor"`), is scored on
    rows that were not fitted on: |correlation| with the labels, or AUROC.
    """

    bandwidths: tuple[float, ...] = (1.0, 1.1, 1.25, 1.5, 10.0, 100.0)
    normalised: tuple[bool, ...] = (True, False)
    centred: tuple[bool, ...] = (True,)
    ridge: float = 1e-3
    iterations: int = 10
    score: Score = "direction"

    def __post_init__(self) -> None:
        require_fields(self)
        for name in ("bandwidths", "normalised", "centred"):
            if len(getattr(self, name)) == 0:
                raise ValueError(f"RFM({name}=()) leaves nothing to try. Give at least one.")
        if not all(0 < bandwidth < math.inf for bandwidth in self.bandwidths):
            raise ValueError(f"Bandwidths are finite and above 0; found {self.bandwidths}.")
        if not (math.isfinite(self.ridge) and self.ridge >= 0):
            raise ValueError(f"ridge is finite and not below 0; found {self.ridge}.")
        require_choice("score", self.score, get_args(Score))
        if self.iterations < 2:
            raise ValueError(
                f"iterations must be at least 2, found {self.iterations}: the first only learns "
                "the metric from which the second takes a direction."
            )


CLAS_RFM = RFM()
NEURAL_CONTROLLERS = RFM((1.0, 10.0, 100.0), (False,), (True, False), 1e-3, 9, "predictor")
"""The settings of arXiv 2502.03708."""


@dataclass(frozen=True, eq=False)
class Candidate:
    """A direction (unit length, sign open), its score, and the settings that it came from."""

    direction: Direction
    score: float
    bandwidth: float
    normalised: bool
    centred: bool
    iteration: int


def best_direction(
    fitted: Rows,
    labels: Labels,
    held_out: OtherRows,
    held_out_labels: OtherLabels,
    settings: RFM = CLAS_RFM,
) -> Candidate:
    """The candidate with the best score on the held-out rows; in a tie the later one."""
    require_labelled(fitted, labels, "fitted rows")
    require_labelled(held_out, held_out_labels, "held-out rows")
    require_same_width(fitted, held_out)
    best: Candidate | None = None
    y, y_out = labels.double(), held_out_labels.double()
    tried = product(settings.bandwidths, settings.normalised, settings.centred)
    for bandwidth, normalised, centred in tried:
        a, b = _prepared(fitted.double(), held_out.double(), normalised)
        steps = machines(a, y, bandwidth, settings.ridge, settings.iterations, centred)
        for iteration, machine in enumerate(steps):
            if machine.factor is None:
                continue  # the identity has no direction to prefer
            u = machine.direction()
            if settings.score == "direction":
                score = abs(correlation(b @ u, y_out))
            else:
                score = auroc(machine.predict(b), y_out)
            if best is None or score >= best.score:
                best = Candidate(u, score, bandwidth, normalised, centred, iteration)
    if best is None:
        raise ValueError(
            "No kernel machine could be solved for these activations at any bandwidth. Are many "
            "rows the same? Leave out duplicates, or raise RFM(ridge=...)."
        )
    return best


@dataclass(frozen=True, eq=False)
class Machine:
    """A fitted kernel machine; its metric is factor^T factor, the identity if there is none."""

    rows: Rows
    factor: Factor | None
    bandwidth: float
    alpha: Labels

    def direction(self) -> Direction:
        """The top eigenvector of the metric, at length 1."""
        assert self.factor is not None
        F = self.factor
        w = torch.linalg.eigh(F @ F.T)[1][:, -1]
        u = F.T @ w
        return u / u.norm()

    def predict(self, rows: OtherRows) -> OtherLabels:
        """The machine's value at other rows."""
        D = _distances(_seen(rows, self.factor), _seen(self.rows, self.factor))
        return torch.exp(-D / self.bandwidth) @ self.alpha

    def gradients(self) -> Rows:
        """L times the gradient of the machine at its own rows."""
        Z = _seen(self.rows, self.factor)
        D = _distances(Z, Z).fill_diagonal_(0)
        weights = torch.where(D > 0, torch.exp(-D / self.bandwidth) / D, 0)
        pull = weights * self.alpha
        H = pull @ Z - pull.sum(dim=1, keepdim=True) * Z
        return H if self.factor is None else H @ self.factor


def machines(
    rows: Rows, labels: Labels, bandwidth: float, ridge: float, iterations: int, centred: bool
) -> Iterator[Machine]:
    """The machines of one configuration, each with the metric that the one before it learnt.

    Ends early where the kernel cannot be solved or nothing is left to learn.
    """
    factor: Factor | None = None
    for _ in range(iterations):
        Z = _seen(rows, factor)
        D = _distances(Z, Z).fill_diagonal_(0)
        K = torch.exp(-D / bandwidth) + ridge * torch.eye(len(rows), dtype=rows.dtype)
        alpha, failed = torch.linalg.solve_ex(K, labels)
        if int(failed) or not bool(torch.isfinite(alpha).all()):
            return
        machine = Machine(rows, factor, bandwidth, alpha)
        yield machine
        G = machine.gradients()
        if centred:
            G = G - G.mean(dim=0)
        largest = G.square().sum(dim=0).max()
        if not bool(torch.isfinite(largest)) or largest == 0:
            return
        factor = G / largest.sqrt()


def correlation(x: Labels, y: Labels) -> float:
    """Pearson's; 0 where either does not vary."""
    x, y = x - x.mean(), y - y.mean()
    lengths = x.norm() * y.norm()
    return float(x @ y / lengths) if lengths > 0 else 0.0


def auroc(x: Labels, y: Labels) -> float:
    """The chance that a row of label above 1/2 has the larger x than one below; ties count half."""
    positive, negative = x[y > 0.5], x[y <= 0.5]
    if len(positive) == 0 or len(negative) == 0:
        raise ValueError("AUROC needs rows of both labels.")
    above = (positive[:, None] > negative).double() + (positive[:, None] == negative).double() / 2
    return float(above.mean())


def _prepared(fitted: Rows, others: OtherRows, normalised: bool) -> tuple[Rows, OtherRows]:
    """Both less the mean of the fitted rows; at length 1 if asked for."""
    mean = fitted.mean(dim=0)
    a, b = fitted - mean, others - mean
    if not normalised:
        return a, b
    return torch.nn.functional.normalize(a, dim=1), torch.nn.functional.normalize(b, dim=1)


def _seen(rows: Rows, factor: Factor | None) -> Float[Tensor, "row _"]:
    """The rows as the metric sees them."""
    return rows if factor is None else rows @ factor.T


def _distances(a: Float[Tensor, "row axis"], b: Float[Tensor, "other axis"]) -> Tensor:
    squares = a.square().sum(dim=1)[:, None] + b.square().sum(dim=1) - 2 * a @ b.T
    return squares.clamp(min=0).sqrt()
