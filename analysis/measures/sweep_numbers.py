"""What a sweep measures of each response token, and how that becomes the row of a cell.

In float64: what the prompt and the unsteered model predict is worked out once for all cells, and of
each steered pass one exponential and four products with the vocabulary are left.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from steerlens.activations import typical_norms
from steerlens.sinks import is_sink, lengths, require_ordinary
from steerlens.sites import Site

from .entering import Batch, Seen
from .intervals import UNKNOWN, Interval, interval_of_ratio

KL, LEFT, LOG_P, FROM_LAST, FROM_OWN = range(5)
"""The columns of what is measured of a token: nats, nats, nats, squared distances."""
Measured: TypeAlias = Float[Tensor, "token measure"]


@dataclass(frozen=True, eq=False)
class Predicted:
    """What the plain and the prompted run predict for the tokens of a response."""

    ids: Int[Tensor, " token"]
    plain: Float[Tensor, "token d_vocab"]
    p_prompted: Float[Tensor, "token d_vocab"]
    log_p_prompted: Float[Tensor, "token d_vocab"]

    @classmethod
    def of(cls, ids: Int[Tensor, " token"], plain: Tensor, prompted: Tensor) -> "Predicted":
        """From the logits of both."""
        log_p = wide(prompted).log_softmax(dim=-1)
        ids = ids.to(log_p.device)
        return cls(ids, wide(plain).log_softmax(dim=-1), log_p.exp(), log_p)

    def compared(self, logits: Float[Tensor, "token d_vocab"]) -> Float[Tensor, "token 3"]:
        """KL(moved || plain), KL(prompted || moved), and log p of the token, of each token."""
        x = wide(logits)
        top = x.max(dim=-1, keepdim=True).values
        e = (x - top).exp()
        z = e.sum(dim=-1)
        log_z = top[:, 0] + z.log()
        kl = torch.linalg.vecdot(e, x - self.plain) / z - log_z
        left = torch.linalg.vecdot(self.p_prompted, self.log_p_prompted - x) + log_z
        log_p = x.gather(1, self.ids[:, None])[:, 0] - log_z
        # Of two runs that are the same, rounding can make a KL less than 0.
        return torch.stack([kl.clamp(min=0), left.clamp(min=0), log_p], dim=1).cpu()


def wide(values: Tensor) -> Tensor:
    """In float64; on the CPU where the device has none."""
    return (values.cpu() if values.device.type == "mps" else values).double()


@dataclass(frozen=True, eq=False)
class At:
    """Both runs at one site on the response tokens: what a steered run is held against."""

    prompted: Float[Tensor, "token d_model"]
    pushed: Float[Tensor, " token"]
    norms: Float[Tensor, "token 2"]
    typical: Float[Tensor, "token 2"]

    @classmethod
    def of(cls, site: Site, runs: Sequence[tuple[Batch, Seen]]) -> "At":
        """From the plain and the prompted run."""
        inside = [seen.held[site][batch.answered] for batch, seen in runs]
        plain, prompted = map(wide, inside)
        typical = [
            typical_norms(
                lengths(seen.held[site]).cpu(), batch.answered.cpu(), batch.window.mask.cpu()
            )
            for batch, seen in runs
        ]
        return cls(
            prompted,
            (plain - prompted).square().sum(dim=-1).cpu(),
            torch.stack([lengths(h).cpu() for h in inside], dim=1),
            torch.stack(typical, dim=1),
        )

    def apart(self, steered: Float[Tensor, "token d_model"]) -> Float[Tensor, " token"]:
        """The squared distance of each token to the prompted run."""
        return (wide(steered) - self.prompted).square().sum(dim=-1).cpu()


@dataclass(frozen=True, eq=False)
class Pushed:
    """What the prompt does at one site, over all tokens: squared, and without sinks."""

    squares: Float[Tensor, " token"]
    kept: Bool[Tensor, " token"]

    @classmethod
    def of(cls, site: Site, parts: Sequence[At], times: float) -> "Pushed":
        """ValueError where every token is a sink, in the plain run or in the prompted one."""
        norms, typical = (
            torch.cat([getattr(part, name) for part in parts]) for name in ("norms", "typical")
        )
        sinks = [is_sink(norms[:, side : side + 1], typical[:, side], times) for side in (0, 1)]
        kept = ~(sinks[0] | sinks[1])
        require_ordinary(kept, f"tokens at {site}")
        return cls(torch.cat([part.pushed for part in parts]), kept)


@dataclass(frozen=True, eq=False)
class Totals:
    """The tokens of all examples, in the order in which they were measured, and what is known.

    `plain` and `prompted` have the unsteered and the prompted run in the place of a steered one.
    """

    question: Int[np.ndarray, " token"]
    plain: Measured
    prompted: Measured
    pushed: Mapping[Site, Pushed]
    n_bootstrap: int
    seed: int

    def row(self, found: Measured, last: Site, own: Site) -> dict[str, float]:
        """The numbers of a cell, each with its 95 % interval over questions."""
        one = np.ones(len(found))
        kl_prompt = self.plain[:, LEFT].numpy()
        values = {
            "mean_kl": self._ratio(found[:, KL].numpy(), one),
            "kl_left": self._ratio(found[:, LEFT].numpy(), one),
            "recovered": _less(self._ratio(found[:, LEFT].numpy(), kl_prompt)),
            "relative_rmse": self._rmse(found[:, FROM_LAST], last),
            "relative_rmse_own_layer": self._rmse(found[:, FROM_OWN], own),
            "log_p": self._ratio(found[:, LOG_P].numpy(), one),
        }
        numbers: dict[str, float] = {}
        for name, (value, (low, high)) in values.items():
            numbers |= {name: value, f"{name}_low": low, f"{name}_high": high}
        return numbers

    @property
    def known(self) -> dict[str, float]:
        """What all cells have in common."""
        return {
            "kl_prompt": float(self.plain[:, LEFT].mean()),
            "log_p_unsteered": float(self.plain[:, LOG_P].mean()),
            "log_p_prompted": float(self.prompted[:, LOG_P].mean()),
        }

    def _ratio(
        self, above: Float[np.ndarray, " token"], below: Float[np.ndarray, " token"]
    ) -> tuple[float, Interval]:
        above_by, below_by = (np.bincount(self.question, part) for part in (above, below))
        with np.errstate(divide="ignore", invalid="ignore"):
            value = float(above.sum() / below.sum())
        if not np.isfinite(value):  # the steering broke the model
            return value, UNKNOWN
        return value, interval_of_ratio(above_by, below_by, self.n_bootstrap, self.seed)

    def _rmse(self, squares: Float[Tensor, " token"], site: Site) -> tuple[float, Interval]:
        pushed = self.pushed[site]
        above, below = (torch.where(pushed.kept, x, 0).numpy() for x in (squares, pushed.squares))
        value, (low, high) = self._ratio(above, below)
        return value**0.5, (low**0.5, high**0.5)


def _less(ratio: tuple[float, Interval]) -> tuple[float, Interval]:
    """One less a ratio, with its interval."""
    value, (low, high) = ratio
    return 1 - value, (1 - high, 1 - low)
