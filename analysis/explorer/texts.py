"""The texts of an explorer: one question under one instruction, run plain and prompted."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from steerlens.conversations import Conversation
from steerlens.prompts import Encoded, PromptPair, show
from steerlens.sinks import require_ordinary
from steerlens.sites import Site
from steerlens.types import HookedModel

from ..figures.tokens import visible
from ..measures.aligned import Aligned, align
from ..measures.coefficients import leave_one_out
from ..measures.deltas import Deltas, prompt_deltas
from ..measures.plain_side import rows_of
from ..measures.template_tokens import of_template
from .passes import Pass, run_of

Vectors = dict[Site, Float[Tensor, "d_model"]]
Kept = dict[Site, Bool[Tensor, "token"]]


@dataclass(frozen=True, eq=False)
class Units:
    """What 1 is in `along`, for every given pair and for a text of the user's own.

    `of_pair` has for each pair the mean prompt push on the tokens of all others; `mean` is that on
    the tokens of all. Where there is a single pair both are None, and each text has its own.
    """

    of_pair: tuple[Vectors, ...] | None
    mean: Vectors | None
    kept: tuple[Kept, ...]

    @classmethod
    def of(
        cls, model: HookedModel, pairs: Sequence[PromptPair], baseline: str, sinks: float
    ) -> "Units":
        """The directions of these pairs; sinks have no part in them."""
        aligned = align(model, pairs, range(model.cfg.n_layers), baseline=baseline)
        starts = [int((aligned.example == number).nonzero()[0]) for number in range(len(pairs))]
        kept = {site: ~aligned.sinks(site, sinks) for site in aligned.sites}
        of_pairs = tuple(
            {site: kept[site][aligned.example == number] for site in aligned.sites}
            for number in range(len(pairs))
        )
        if len(pairs) == 1:
            return cls(None, None, of_pairs)
        deltas = prompt_deltas(model, aligned)
        axes = leave_one_out(aligned, deltas, sinks)
        each = tuple({site: axis[start] for site, axis in axes.items()} for start in starts)
        return cls(each, {site: deltas[site][kept[site]].mean(dim=0) for site in kept}, of_pairs)

    @property
    def unit(self) -> str:
        """In words, what 1 is."""
        if self.mean is None:
            return "this text's own mean prompt push = 1"
        return "mean prompt push = 1"


@dataclass(frozen=True, eq=False)
class Text:
    """One pair, both of its runs, and what everything is measured by.

    `target` is the prompt's accumulated change, `local` what each layer adds because of it; `kept`
    are the tokens that are no sinks.
    """

    number: int
    pair: PromptPair
    row: Encoded
    plain: Pass
    prompted: Pass
    target: Deltas
    local: Deltas
    axes: Vectors
    kept: Kept
    template: tuple[bool, ...]
    tokens: tuple[str, ...]

    @property
    def response(self) -> tuple[str, ...]:
        """The tokens that are measured."""
        return self.tokens[self.row.response :]

    @property
    def question(self) -> str:
        """What is asked, as one reads it."""
        plain = self.pair.plain
        return plain.user if isinstance(plain, Conversation) else str(plain)

    @property
    def instruction(self) -> str:
        """The instruction, or the whole prompted text where it is no turn of its own."""
        prompted = self.pair.prompted
        return (prompted.system or "") if isinstance(prompted, Conversation) else str(prompted)


def text_of(
    model: HookedModel,
    pair: PromptPair,
    number: int,
    units: Units,
    baseline: str,
    sinks: float,
) -> Text:
    """A text with both runs; `number` beyond the given pairs is one of the user's own."""
    aligned = align(model, [pair], range(model.cfg.n_layers), baseline=baseline)
    row, prompted = rows_of(model, pair, baseline)
    runs = run_of(model, row, number), run_of(model, prompted, number)
    target = {
        site: runs[1].outputs[site].double() - runs[0].outputs[site].double()
        for site in aligned.sites
    }
    given = number < len(units.kept)
    kept = units.kept[number] if given else _kept(aligned, sinks)
    axes = units.mean if units.of_pair is None or not given else units.of_pair[number]
    return Text(
        number=number,
        pair=pair,
        row=row,
        plain=runs[0],
        prompted=runs[1],
        target=target,
        local=prompt_deltas(model, aligned, "local"),
        axes=_own(target, kept) if axes is None else axes,
        kept=kept,
        template=tuple(of_template(model, row, pair)),
        tokens=tuple(show(model, row.ids)),
    )


def _kept(aligned: Aligned, sinks: float) -> Kept:
    return {site: ~aligned.sinks(site, sinks) for site in aligned.sites}


def _own(target: Deltas, kept: Kept) -> Vectors:
    for site, keep in kept.items():
        require_ordinary(keep, f"tokens at {site}")
    return {site: target[site][keep].mean(dim=0) for site, keep in kept.items()}


def tokens_of(text: Text) -> list[dict[str, object]]:
    """The whole plain row as the payload has it."""
    first = text.row.response
    listed: list[dict[str, object]] = []
    for place, (token, template) in enumerate(zip(text.tokens, text.template, strict=True)):
        entry: dict[str, object] = {
            "text": visible(token),
            "index": place - first if place >= first else None,
            "template": template,
            "position": place,
        }
        if entry["text"] != token:
            entry["raw"] = token.encode("utf-8", "backslashreplace").decode("utf-8")
        listed.append(entry)
    return listed
