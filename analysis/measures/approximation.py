"""How near COLD-Steer comes to what it approximates: one gradient step, token by token.

With g the mean gradient of the examples' loss and eta the size of the step, of each token

    exact       Z(x; theta - eta g) - Z(x; theta)      what the step itself does at the site
    ColdFD      -eta d/d eps Z(x; theta + eps g)       its first order, at eps = 0
    ColdKernel  -(eta / N) sum_i kappa dL_i/dZ(x_i)    its kernel in place of products of gradients

    relative error = |found - exact| / |exact|

ColdFD's relative error is of the order of eta, so it goes to 0 with eta as long as rounding does
not take over; ColdKernel's does not. Both act at one site, and at every token here, whatever scope
they are used with. What comes of it is measured on the next-token distributions, in nats:

    kl_step  = KL(step || plain)      what the step does, which all parameters take
    kl_found = KL(found || plain)     what the found change does, made at the site alone
    kl_left  = KL(step || found)      what of the step is missing then

The row "exact change" makes the exact change at the site: its relative error is 0 by definition,
and its kl_left is what no change at that site can do, as the parameters above it stay as they are.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from steerlens.activations import Activations, capture
from steerlens.baselines.gradient_step import GradientStep
from steerlens.divergence import LogProbabilities, divergence
from steerlens.methods.cold import ColdFD, ColdKernel
from steerlens.methods.cold.checks import Kernel, writable_sites
from steerlens.methods.cold.examples import Examples, Prompted
from steerlens.methods.cold.finite_difference import deepest
from steerlens.methods.cold.gradients import BATCH_SIZE, places_of
from steerlens.methods.cold.losses import Loss
from steerlens.prompts import Prompts, batch, show
from steerlens.runtime.hooks import Watch
from steerlens.scopes import Window
from steerlens.sinks import SINK
from steerlens.sites import Site, Sites
from steerlens.steering import Steering
from steerlens.types import Hook, HookedModel, Residual, Steer

from .progress import watched
from .texts import Predicted

ETAS = (0.001, 0.01, 0.1, 1.0)
EXACT, FD, RELEASED, KERNEL = "exact change", "ColdFD", "ColdFD, released", "ColdKernel"
RELEASED_EPS = 1e-6
PASS = 8
"""Texts of a pass, for each of which a distribution a token is held."""
Changes: TypeAlias = dict[str, Float[Tensor, "token d_model"]]


def step_approximation(
    model: HookedModel,
    examples: Examples | Prompted,
    sites: Sites,
    texts: Prompts,
    *,
    loss: str | Loss = "sft",
    etas: Sequence[float] = ETAS,
    kernels: Sequence[Kernel] = ("unit",),
    released: bool = False,
    max_tokens: int | None = None,
    batch_size: int = BATCH_SIZE,
) -> pd.DataFrame:
    """One row per predicted token of the texts, site, eta and method, on any backend.

    Columns: text, position, token (at whose position Z is read), sink (whether its activation is
    one in either run), layer, stream, method, eta, norm (|found|), norm_exact, cosine (NaN where a
    change is 0), relative_error, kl_step, kl_found, kl_left (nats, of the prediction made there).

    The methods are "exact change", "ColdFD", one "ColdKernel, <kernel>" a kernel, and with
    `released` "ColdFD, released", the difference quotient of the authors' code (eps = 1e-6). All
    are of one gradient, at each site by itself. `texts` are as `measures.texts` says, of each the
    first `max_tokens` tokens. A model in float64 shows the limit of small eta.
    """
    _require_etas(etas)
    places, rows = writable_sites(model, sites), Predicted.of(model, texts, max_tokens=max_tokens)
    step = GradientStep.fit(model, examples, loss=loss, batch_size=batch_size)
    kernel_fits = {
        f"{KERNEL}, {kernel}": ColdKernel.fit(
            model, examples, places, loss=loss, kernel=kernel, batch_size=batch_size
        ).steers
        for kernel in kernels
    }
    cold = _cold_of(model, step, places)
    passes, tables = list(rows.batches(PASS)), []
    for chosen in watched(passes, "gradient step", "batch"):
        unsteered = _Unsteered.of(model, rows, chosen, places)
        at_one = _changes_at_one(model, unsteered, cold, kernel_fits, released)
        for eta in etas:
            tables += list(_rows_at(model, unsteered, step.scaled(float(eta)), at_one))
    return pd.concat(tables, ignore_index=True)


# -- The exact change, and those found ------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class _Unsteered:
    """Some of the rows as they run on the model itself: activations of all tokens, predictions."""

    rows: Predicted
    chosen: range
    sites: tuple[Site, ...]
    read: Activations
    log_p: LogProbabilities

    @classmethod
    def of(
        cls, model: HookedModel, rows: Predicted, chosen: range, sites: tuple[Site, ...]
    ) -> "_Unsteered":
        read = _read(model, rows, chosen, sites)
        return cls(rows, chosen, sites, read, rows.log_probabilities(model, chosen, None, Watch()))

    @property
    def predicting(self) -> Bool[Tensor, " token"]:
        """Which of the tokens that were read come before one that is predicted."""
        ends = [len(self.rows.rows[i].ids) for i in self.chosen]
        starts = [self.rows.starts[i] for i in self.chosen]
        start, end = (torch.tensor(side)[self.read.row] for side in (starts, ends))
        return (self.read.position >= start - 1) & (self.read.position < end - 1)

    def steering(self, site: Site, change: Float[Tensor, "token d_model"]) -> Steering:
        """What adds the change of each token at the site."""
        lengths = torch.bincount(self.read.row).tolist()
        return Steering(((site, Placed(tuple(change.split(lengths)), self.chosen.start)),))


def _read(
    model: HookedModel, rows: Predicted, chosen: range, sites: tuple[Site, ...]
) -> Activations:
    return capture(model, [rows.rows[i] for i in chosen], list(sites), side="right")


@dataclass(frozen=True, eq=False)
class Placed:
    """Add to each token of row i of a run the vector that `changes[i - first]` has for it."""

    changes: tuple[Float[Tensor, "_ d_model"], ...] = field(repr=False)
    first: int = 0
    needs_window = True
    may_be_idle = True

    def bind(self, window: Window) -> Steer:
        """The vectors laid out on the tokens of one pass."""
        given = range(len(window.mask)) if window.row is None else window.row.tolist()
        batch, width = window.mask.shape
        laid = self.changes[0].new_zeros((batch, width, self.changes[0].shape[1]))
        for number, row in enumerate(given):
            laid[number, window.mask[number].cpu()] = self.changes[row - self.first]
        return _Laid(laid)

    def __call__(self, activation: Residual, hook: Hook = None) -> Residual:
        raise ValueError("A change of each token must know which tokens a pass holds.")


@dataclass(frozen=True, eq=False)
class _Laid:
    """Add its own vector at every column of one pass."""

    laid: Residual = field(repr=False)

    def __call__(self, activation: Residual, hook: Hook = None) -> Residual:
        return activation + self.laid.to(activation)


def _cold_of(model: HookedModel, step: GradientStep, sites: tuple[Site, ...]) -> ColdFD:
    """COLD-FD along the gradient of the step, of which it needs what acts up to its sites."""
    acting = places_of(model, deepest(sites), unembedding=False)
    names = tuple(name for name in step.gradient if name in acting)
    gradients = tuple(step.gradient[name] for name in names)
    return ColdFD(names, gradients, sites[0], sites, loss=step.loss)


def _changes_at_one(
    model: HookedModel,
    unsteered: _Unsteered,
    cold: ColdFD,
    kernels: dict[str, dict[Site, Any]],
    released: bool,
) -> dict[Site, Changes]:
    """What each method adds to each token at eta = 1, which eta multiplies."""
    tokens, window = batch(model, [unsteered.rows.rows[i] for i in unsteered.chosen], "right")
    variants = {FD: cold}
    if released:
        variants[RELEASED] = ColdFD(
            cold.names, cold.gradients, cold.site, cold.sites,
            mode="fd", eps=RELEASED_EPS, loss=cold.loss,
        )  # fmt: skip
    found: dict[Site, Changes] = {site: {} for site in unsteered.sites}
    for name, variant in variants.items():
        for site, dZ in variant.derivative(model, tokens, window).items():
            found[site][name] = -dZ[window.mask].cpu().double()
    for name, steers in kernels.items():
        for site in unsteered.sites:
            Z = unsteered.read.at(site).double()[None]
            found[site][name] = (steers[site](Z) - Z)[0]
    return found


def _rows_at(
    model: HookedModel, unsteered: _Unsteered, step: GradientStep, at_one: dict[Site, Changes]
) -> Iterator[pd.DataFrame]:
    """The rows of one step: a table for each site and method."""
    with step.applied(model):
        moved = _read(model, unsteered.rows, unsteered.chosen, unsteered.sites)
        log_p = unsteered.rows.log_probabilities(model, unsteered.chosen, None, Watch())
    kl_step = divergence(log_p, unsteered.log_p).numpy()
    for site in unsteered.sites:
        exact = moved.at(site).double() - unsteered.read.at(site).double()
        sinks = unsteered.read.sinks(site, SINK) | moved.sinks(site, SINK)
        tokens = _tokens(model, unsteered, sinks).assign(layer=site.layer, stream=site.stream)
        scaled = {name: step.eta * change for name, change in at_one[site].items()}
        for method, change in {EXACT: exact, **scaled}.items():
            steering = unsteered.steering(site, change)
            found = unsteered.rows.log_probabilities(model, unsteered.chosen, steering, Watch())
            yield tokens.assign(
                method=method,
                eta=step.eta,
                **_errors(change[unsteered.predicting], exact[unsteered.predicting]),
                kl_step=kl_step,
                kl_found=divergence(found, unsteered.log_p).numpy(),
                kl_left=divergence(log_p, found).numpy(),
            )


def _tokens(
    model: HookedModel, unsteered: _Unsteered, sinks: Bool[Tensor, " token"]
) -> pd.DataFrame:
    """The tokens at whose positions something is predicted."""
    here, read = unsteered.predicting, unsteered.read
    texts = [show(model, unsteered.rows.rows[i].ids) for i in unsteered.chosen]
    rows, positions = read.row[here].tolist(), read.position[here].tolist()
    return pd.DataFrame(
        {
            "text": [unsteered.chosen.start + row for row in rows],
            "position": positions,
            "token": [texts[row][place] for row, place in zip(rows, positions, strict=True)],
            "sink": sinks[here].numpy(),
        }
    )


def _errors(
    found: Float[Tensor, "token d_model"], exact: Float[Tensor, "token d_model"]
) -> dict[str, Float[np.ndarray, " token"]]:
    """How far each change is from the exact one; NaN where that is 0."""
    norm, norm_exact = found.norm(dim=-1).numpy(), exact.norm(dim=-1).numpy()
    along, missed = (found * exact).sum(dim=-1).numpy(), (found - exact).norm(dim=-1).numpy()
    return {
        "norm": norm,
        "norm_exact": norm_exact,
        "cosine": _ratio(along, norm * norm_exact),
        "relative_error": _ratio(missed, norm_exact),
    }


def _ratio(
    above: Float[np.ndarray, " token"], below: Float[np.ndarray, " token"]
) -> Float[np.ndarray, " token"]:
    return np.divide(above, below, out=np.full_like(above, np.nan), where=below > 0)


def _require_etas(etas: Sequence[float]) -> None:
    """Raise ValueError unless there is an eta, and each is a step."""
    if not len(etas) or not all(np.isfinite(eta) and eta != 0 for eta in etas):
        raise ValueError(
            f"etas are one or more sizes of a step, finite and not 0; found {list(etas)}."
        )
