"""How methods act over layers, strengths and scopes: every cell of a grid, on the same responses.

All runs are teacher-forced on given pairs, whose response the prompted model wrote. In nats a token
of the response, over all tokens:

    mean_kl     KL(steered || unsteered): how far the predictions are moved
    kl_left     KL(prompted || steered): how far they then are from the prompt's
    recovered   1 - KL(prompted || steered) / KL(prompted || unsteered)
    log_p       log-probability of the response that the prompted model gave

and the relative RMSE to the prompted activations (`measures.faithfulness`), at the last layer and
at the steered one. The numbers are those of `logit_shift`, `prompt_effect_recovered` and
`faithfulness` for each cell alone, up to rounding: the KLs of a float32 model to 1e-5 of their size
or 1e-7 nats, the relative RMSE to 1e-4 of its size.

The work is shared. The plain and the prompted pass are run once. A steered pass begins at its
lowest steered layer, with the residual stream that the plain pass had there, and has rows for many
strengths; where a model cannot be entered in the middle (it is tried), it is a whole pass.
"""

import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any, get_args

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from steerlens.checks import require_choice, warn_if_few
from steerlens.kinds import require_kinds
from steerlens.prompts import PromptPair
from steerlens.runtime.hooks import Watch, watching
from steerlens.runtime.progress import progress_bar
from steerlens.scopes import Scope
from steerlens.sinks import SINK, require_times
from steerlens.sites import Site
from steerlens.steering import Steering
from steerlens.types import HookedModel, SteeringWarning

from .entering import Batch, Entrances, Seen, steered_pass, whole_pass
from .plain_side import BY_TEMPLATE, noted, require_baseline
from .responses import Responses
from .row_strengths import at_strengths, runs_alone
from .sweep_cells import Line, Unit, lines_of, require_strengths
from .sweep_numbers import At, Measured, Predicted, Pushed, Totals

NUMBERS = 2**23
"""Numbers that the logits of a pass, or the residual stream in it, may hold: 32 MB in float32."""
MOST_ROWS = 64
NOTHING = 1e-9
"""Nats a token below which the prompt changes no prediction: rounding leaves 1e-15."""
STRENGTHS = (0.25, 0.5, 1.0, 2.0)


def sweep(
    model: HookedModel,
    pairs: Sequence[PromptPair],
    steerings: Mapping[str, Steering],
    *,
    strengths: Iterable[float | int] = STRENGTHS,
    scopes: Sequence[Scope | None] | None = None,
    unit: Unit = "as fitted",
    calibrate_on: Sequence[PromptPair] | None = None,
    baseline: str = BY_TEMPLATE,
    sinks: float = SINK,
    n_bootstrap: int = 1000,
    seed: int = 0,
    progress: bool | None = None,
) -> pd.DataFrame:
    """One row for each steering, strength and scope: what it does, and how near the prompt that is.

    Columns: method, layer (the lowest that is steered), strength, scope, strength_value (the number
    that the steering has), strength_unit, n_sites; mean_kl, kl_left, recovered, relative_rmse,
    relative_rmse_own_layer and log_p, each with _low and _high (95 % bootstrap interval over
    questions); kl_prompt, log_p_unsteered, log_p_prompted, n_examples, n_tokens, n_bootstrap, seed.

    A name such as "CAA, layer 3" (`at_layers` makes such) is the method CAA. A cell is
    `steering.scaled(strength).only(scope)`; the scope None leaves a steering its own. With
    `unit="kl"` a strength of 1 has as much KL(steered || unsteered) as the prompt has, found by
    `calibrate` for each method, layer and scope on the pairs of `calibrate_on` (by default on those
    that are measured). `baseline` is the plain side. Numbers that are not finite come with a
    SteeringWarning: that strength broke the model. `table.attrs["whole_passes"]` says where passes
    could not begin in the middle, and why.
    """
    require_kinds(sweep, locals(), but=("steerings",))
    require_choice("unit", unit, get_args(Unit))
    require_baseline(baseline)
    require_times(sinks)
    numbers, lines = require_strengths(strengths), lines_of(model, steerings, scopes)
    responses = Responses.of(model, pairs, baseline)
    warn_if_few(len({pair.plain for pair in pairs}), "sweep")
    if unit == "kl":
        on = pairs if calibrate_on is None else calibrate_on
        lines = _calibrated(model, lines, on, baseline, progress)
    swept = _Sweep(model, responses, lines, numbers)
    swept.run(progress)
    rows = swept.rows(sinks, n_bootstrap, seed)
    same = {"n_examples": len(pairs), "n_tokens": len(responses.question)}
    same |= {"n_bootstrap": n_bootstrap, "seed": seed}
    table = pd.DataFrame([{**row, "strength_unit": unit} | same for row in rows])
    table.attrs["whole_passes"] = dict(swept.entrances.refused)
    _warn_if_broken(table)
    return noted(table[_ordered(table)], model, baseline, sinks)


FIRST = ("method", "layer", "strength", "scope", "strength_value", "strength_unit", "n_sites")


def _ordered(table: pd.DataFrame) -> list[str]:
    return [*FIRST, *(name for name in table.columns if name not in FIRST)]


def _calibrated(
    model: HookedModel,
    lines: Sequence[Line],
    pairs: Sequence[PromptPair],
    baseline: str,
    progress: bool | None,
) -> list[Line]:
    found: list[Line] = []
    with progress_bar(len(lines), "calibrate", "steering", progress) as bar:
        for line in lines:
            found.append(line.calibrated(model, pairs, baseline))
            bar.update()
    return found


def _warn_if_broken(table: pd.DataFrame) -> None:
    broken = table.loc[~np.isfinite(table[["mean_kl", "kl_left", "relative_rmse"]]).all(axis=1)]
    if broken.empty:
        return
    one = broken.iloc[0]
    warnings.warn(
        f"{len(broken)} of {len(table)} cells have numbers that are not finite, the first one "
        f"{one['method']} at layer {one['layer']}, strength {one['strength']:g}, scope "
        f"{one['scope']}: the steering breaks the model there. Sweep over lower strengths.",
        SteeringWarning,
        stacklevel=3,
    )


@dataclass(eq=False)
class _Sweep:
    """All passes, a few texts at a time, and what they measured of each token of each cell."""

    model: HookedModel
    responses: Responses
    lines: list[Line]
    strengths: tuple[float, ...]
    found: dict[tuple[int, float], list[Measured]] = field(default_factory=dict)
    plain: list[Measured] = field(default_factory=list)
    prompted: list[Measured] = field(default_factory=list)
    pushed: dict[Site, list[At]] = field(default_factory=dict)
    order: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.last = Site(self.model.cfg.n_layers - 1)
        self.entrances = Entrances.of(self.model, self.responses.plain)
        entries = dict.fromkeys(line.entry for line in self.lines)
        self.entries = {entry for entry in entries if self.entrances.open(entry)}
        self.sites = tuple(dict.fromkeys([self.last, *(line.own for line in self.lines)]))

    def run(self, progress: bool | None) -> None:
        """Every pass; a steer that did nothing is warned of."""
        total = len(self.responses.plain) * len(self.lines) * len(self.strengths)
        with ExitStack() as stack:
            bar = stack.enter_context(progress_bar(total, "sweep", "text", progress))
            watches = [stack.enter_context(watching()) for _ in self.lines]
            for chosen in self._chunks():
                self._chunk(chosen, watches, bar)

    @property
    def most_rows(self) -> int:
        """Rows that a pass may have, by the longest of them."""
        cfg, rows = self.model.cfg, self.responses.plain
        longest = max(len(row.ids) for row in rows) * cfg.d_model
        widest = max(len(row.ids) - row.response for row in rows) * cfg.d_vocab
        return max(1, min(MOST_ROWS, NUMBERS // max(longest, widest)))

    def _chunks(self) -> Iterator[list[int]]:
        """The texts that are run together, of nearly one length."""
        rows = self.responses.plain
        order = sorted(range(len(rows)), key=lambda i: len(rows[i].ids))
        size = max(1, self.most_rows // len(self.strengths))
        for start in range(0, len(order), size):
            yield order[start : start + size]

    def _chunk(self, chosen: list[int], watches: Sequence[Watch], bar: Any) -> None:
        model = self.model
        batch, prompted = (
            Batch.of(model, rows, chosen)
            for rows in (self.responses.plain, self.responses.prompted)
        )
        below = whole_pass(model, batch, {*self.sites, *(entry.site for entry in self.entries)})
        above = whole_pass(model, prompted, self.sites)
        predicted = Predicted.of(batch.ids, below.logits, above.logits)
        at = {site: At.of(site, [(batch, below), (prompted, above)]) for site in self.sites}
        for side, seen in ((self.plain, below), (self.prompted, above)):
            side.append(predicted.compared(seen.logits))
        for site, one in at.items():
            self.pushed.setdefault(site, []).append(one)
        self.order += chosen
        for number, (line, watch) in enumerate(zip(self.lines, watches, strict=True)):
            for some in self._parts(len(chosen), line):
                seen = self._steered(line, some, batch, below, watch)
                measured = _measured(seen, len(some), predicted, at, (self.last, line.own))
                for strength, one in zip(some, measured, strict=True):
                    self.found.setdefault((number, strength), []).append(one)
                bar.update(len(some) * len(chosen))

    def _parts(self, texts: int, line: Line) -> Iterator[tuple[float, ...]]:
        """The strengths that are run together."""
        size = 1 if runs_alone(line.steering) else max(1, self.most_rows // texts)
        for start in range(0, len(self.strengths), size):
            yield self.strengths[start : start + size]

    def _steered(
        self, line: Line, some: tuple[float, ...], batch: Batch, below: Seen, watch: Watch
    ) -> Seen:
        """A pass of the texts, once for each of these strengths."""
        steering = at_strengths(line.steering, tuple(line.factor * s for s in some), line.scope)
        entry, sites = line.entry, [*dict.fromkeys([self.last, line.own])]
        begun = (entry, below.held[entry.site]) if entry in self.entries else None
        return steered_pass(self.model, batch.times(len(some)), steering, begun, sites, watch)

    def rows(self, sinks: float, n_bootstrap: int, seed: int) -> list[dict[str, object]]:
        """A row for each cell; ValueError where the prompt changes nothing."""
        totals = self._totals(sinks, n_bootstrap, seed)
        return [
            {
                **line.names,
                "strength": strength,
                "strength_value": line.factor * strength,
                "n_sites": len(line.steering.sites),
                **totals.row(torch.cat(self.found[number, strength]), self.last, line.own),
                **totals.known,
            }
            for number, line in enumerate(self.lines)
            for strength in self.strengths
        ]

    def _totals(self, sinks: float, n_bootstrap: int, seed: int) -> Totals:
        rows = self.responses.plain
        lengths = [len(row.ids) - row.response for row in rows]
        starts = np.cumsum([0, *lengths])
        places = [np.arange(starts[i], starts[i] + lengths[i]) for i in self.order]
        totals = Totals(
            self.responses.question[np.concatenate(places)],
            torch.cat(self.plain),
            torch.cat(self.prompted),
            {site: Pushed.of(site, parts, sinks) for site, parts in self.pushed.items()},
            n_bootstrap,
            seed,
        )
        if totals.known["kl_prompt"] < NOTHING:
            raise ValueError(
                "The instruction of these pairs changes no prediction, so there is no effect to "
                "recover. Is it there? PromptPair.with_system(question, instruction, response)."
            )
        return totals


def _measured(
    seen: Seen, parts: int, predicted: Predicted, at: Mapping[Site, At], sites: tuple[Site, Site]
) -> list[Float[Tensor, "token 5"]]:
    """The numbers of each token of one pass, by strength."""
    held = {site: seen.held[site].chunk(parts) for site in set(sites)}
    found: list[Tensor] = []
    for number, logits in enumerate(seen.logits.chunk(parts)):
        apart = {site: at[site].apart(held[site][number]) for site in held}
        columns = [predicted.compared(logits), *(apart[site][:, None] for site in sites)]
        found.append(torch.cat(columns, dim=1))
    return found
