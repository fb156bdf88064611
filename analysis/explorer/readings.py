"""What one run did to one text: every number that the explorer shows, in full precision."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from steerlens.divergence import divergence
from steerlens.sites import Site

from ..measures.coefficients import cells
from ..measures.deltas import Deltas, View
from ..measures.errors import relative_rmse
from .methods import Place
from .passes import Pass
from .texts import Text

MEASURES = ("along", "relative_norm", "norm", "off_axis", "rank1_share")
VIEWS: tuple[View, ...] = ("accumulated", "local")
SHOWN, SHOWN_BY_LENS = 6, 3
Map = Float[np.ndarray, "layer token"]
Ranked = list[tuple[int, float]]


@dataclass(frozen=True)
class Change:
    """Next tokens that became likelier and less likely, as (id, how much) from the most on."""

    up: Ranked
    down: Ranked


Lens = tuple[tuple[Change, ...], ...]
"""Of each layer and token."""


@dataclass(frozen=True, eq=False)
class Reading:
    """All numbers of one method at one place and strength on one text.

    `rmse` is relative to the prompt, per layer, without sinks; `kl` and `recovered` are means over
    the response as in `logit_shift`. `changes` has for each token what changed in the prediction
    after it, `lens` the same by layer, or None where it was not asked for. `text` is what the
    method writes, once it has been asked to.
    """

    place: Place
    strength: float
    cells: dict[View, dict[str, Map]]
    sinks: Bool[np.ndarray, "layer token"]
    steered: tuple[int, ...]
    rmse: Float[np.ndarray, " layer"]
    kl: float
    recovered: float
    kl_by_token: Float[np.ndarray, " token"]
    changes: tuple[Change, ...]
    lens: Lens | None = None
    text: str | None = None

    @property
    def rmse_above(self) -> float:
        """The mean relative RMSE over the layers that the place reaches."""
        reached = self.rmse[self.place.lowest :]
        finite = reached[np.isfinite(reached)]
        return float(finite.mean()) if finite.size else float("nan")


def reading_of(text: Text, run: Pass, place: Place, strength: float) -> Reading:
    """The numbers of a run; the pass of the prompt itself is `text.prompted`."""
    is_prompt = run is text.prompted
    delta = {
        site: h.double() - text.plain.outputs[site].double() for site, h in run.outputs.items()
    }
    nothing = {site: torch.zeros_like(change) for site, change in delta.items()}
    added: Deltas = {site: run.added.get(site, nothing[site]).double() for site in delta}
    views: dict[View, Deltas] = {
        "accumulated": delta,
        "local": text.local if is_prompt else added,
    }
    plain, prompted, moved = (one.log_p() for one in (text.plain, text.prompted, run))
    shift, left, all_of_it = (
        part[:-1].double()
        for part in (
            divergence(moved, plain),
            divergence(prompted, moved),
            divergence(prompted, plain),
        )
    )
    of_prompt = float(all_of_it.sum())
    return Reading(
        place=place,
        strength=strength,
        cells={view: _cells(text, deltas) for view, deltas in views.items()},
        sinks=np.stack([~keep.numpy() for keep in text.kept.values()]),
        steered=run.steered,
        rmse=np.array([_rmse(text, delta, site) for site in delta]),
        kl=float(shift.mean()),
        recovered=1 - float(left.sum()) / of_prompt if of_prompt > 0 else float("nan"),
        kl_by_token=shift.numpy(),
        changes=tuple(map(_change, plain[1:], moved[1:])),
    )


def _cells(text: Text, deltas: Deltas) -> dict[str, Map]:
    measured = [
        cells(delta, text.axes[site].expand(len(delta), -1), text.plain.outputs[site])
        for site, delta in deltas.items()
    ]
    return {name: np.stack([one[name].numpy() for one in measured]) for name in MEASURES}


def _rmse(text: Text, delta: Deltas, site: Site) -> float:
    keep, target = text.kept[site], text.target[site]
    squares = ((delta[site] - target).square().sum(dim=-1), target.square().sum(dim=-1))
    return relative_rmse(*(torch.where(keep, part, 0) for part in squares))


def _change(plain: Float[Tensor, "d_vocab"], moved: Float[Tensor, "d_vocab"]) -> Change:
    """The tokens that hold most of the change, by p times the change of log p.

    By the change of log p alone they would be words that neither run would ever write.
    """
    change = moved - plain
    up, down = moved.exp() * change, -plain.exp() * change
    return Change(*(_ranked(weight, change, SHOWN) for weight in (up, down)))


def _ranked(weight: Float[Tensor, "d_vocab"], value: Float[Tensor, "d_vocab"], most: int) -> Ranked:
    """The ids of the largest weights above 0, with their values."""
    best = weight.topk(min(most, len(weight)))
    ids = [id_ for w, id_ in zip(best.values.tolist(), best.indices.tolist(), strict=True) if w > 0]
    return [(id_, float(value[id_])) for id_ in ids]
