"""Pairs as token rows that share a response, with the activations of both runs on it."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from steerlens.activations import Activations, capture
from steerlens.kinds import require_kinds
from steerlens.prompts import Encoded, PromptPair, Prompts
from steerlens.scopes import Scope, everywhere, generated
from steerlens.sinks import SINK
from steerlens.sites import Site, Sites, as_sites
from steerlens.types import HookedModel

from .plain_side import BY_TEMPLATE, alone_rows, require_baseline, rows_of


@dataclass(frozen=True, eq=False)
class Aligned:
    """Pairs as aligned token rows, with the activations of both runs on the span.

    `example`, `token_index` and `tokens` say for each measured token which pair it belongs to, its
    place in the span (0 first), and its id. `questions` numbers the plain prompts: responses to the
    same one are no independent examples.
    """

    plain_rows: tuple[Encoded, ...]
    prompted_rows: tuple[Encoded, ...]
    plain: Activations
    prompted: Activations
    token_index: Int[Tensor, "token"]
    span: Scope
    questions: tuple[int, ...]

    def sinks(self, site: Site, times: float = SINK) -> Bool[Tensor, "token"]:
        """The tokens that are sinks at a site, in the plain run or in the prompted one."""
        return self.plain.sinks(site, times) | self.prompted.sinks(site, times)

    @property
    def example(self) -> Int[Tensor, "token"]:
        """The pair that each token belongs to."""
        return self.plain.row

    @property
    def question(self) -> Int[Tensor, "token"]:
        """The question that each token belongs to."""
        return torch.tensor(self.questions)[self.example]

    def by_question(self, values: Float[Tensor, "token"]) -> Float[np.ndarray, " question"]:
        """The sum over the tokens of each question."""
        return torch.bincount(self.question, values).numpy()

    @property
    def sites(self) -> tuple[Site, ...]:
        """The sites that were read."""
        return tuple(self.plain.values)


def align(
    model: HookedModel,
    pairs: Sequence[PromptPair],
    sites: Sites,
    *,
    span: Scope = generated,
    baseline: str = BY_TEMPLATE,
) -> Aligned:
    """Run every pair plain and prompted, and read both on the tokens of `span`.

    `generated` is the response tokens; `response` adds the last prompt token before them.
    `baseline` is the plain side: "template", "none", "neutral", or an instruction
    (`measures.plain_side`).
    """
    require_kinds(align, locals())
    require_baseline(baseline)
    if not pairs:
        raise ValueError("No pairs were given. steerlens.prompted_pairs(model, ...) makes some.")
    rows = [rows_of(model, pair, baseline) for pair in pairs]
    plain_rows, prompted_rows = zip(*rows, strict=True)
    places = as_sites(sites, model)
    plain = capture(model, plain_rows, places, scope=span)
    prompted = capture(model, prompted_rows, places, scope=span)
    if not torch.equal(plain.tokens, prompted.tokens):
        raise ValueError(
            f"The scope `{span}` holds other tokens in the prompted run than in the plain one, so "
            "they cannot be compared. Use `generated` or `response`."
        )
    number_of = {plain: i for i, plain in enumerate(dict.fromkeys(pair.plain for pair in pairs))}
    questions = tuple(number_of[pair.plain] for pair in pairs)
    return Aligned(plain_rows, prompted_rows, plain, prompted, _index(plain), span, questions)


def alone(
    model: HookedModel,
    texts: Prompts,
    sites: Sites,
    *,
    span: Scope = everywhere,
    baseline: str = BY_TEMPLATE,
) -> Aligned:
    """Texts without a prompted run, to measure steerings on: the prompt's deltas are zero."""
    require_baseline(baseline)
    rows = tuple(alone_rows(model, texts, baseline))
    plain = capture(model, rows, as_sites(sites, model), scope=span)
    return Aligned(rows, rows, plain, plain, _index(plain), span, tuple(range(len(rows))))


def _index(plain: Activations) -> Int[Tensor, "token"]:
    """The place of every captured token among those of its row."""
    starts = torch.cat([torch.zeros(1, dtype=torch.long), torch.bincount(plain.row).cumsum(0)])
    return torch.arange(len(plain.row)) - starts[plain.row]
