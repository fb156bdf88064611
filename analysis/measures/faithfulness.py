"""How faithful a steering is: whether it puts every layer where the prompt puts it.

Relative RMSE per layer against the accumulated prompt delta (arXiv 2605.03907), on the same
response tokens, all runs teacher-forced:

    relRMSE_l(M) = sqrt( sum |A_l(M) - A_l(prompted)|^2 / sum |A_l(plain) - A_l(prompted)|^2 )

1 is the error of not steering at all; above 1 is worse than nothing. The sums run over all tokens
of all examples; intervals come from resampling questions, with all responses to each. Early layers
have a tiny denominator, which is therefore in the table. There are two references: "equivalent
prompts", the same instruction in other words, and "neutral prompts", another instruction that asks
for nothing of the kind. How far the neutral ones lie below 1 is what any instruction of that length
does, in a model with learned positions above all by moving the response along. By default there is
a third, "any instruction": the instruction `NEUTRAL`, measured as if it were a method, which says
how much of an early push is that of another system prompt, whatever it asks for.

Tokens that are sinks in either run (`steerlens.sinks`) are left out of the sums, since a few of
them would be most of it; `relative_rmse_with_sinks` is over all.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import pandas as pd
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from steerlens.checks import warn_if_few
from steerlens.prompts import Conversation, PromptPair
from steerlens.scopes import Scope, generated
from steerlens.sinks import SINK, require_ordinary, require_times
from steerlens.sites import Layer, Site, Sites
from steerlens.steering import Steering
from steerlens.types import HookedModel

from .aligned import Aligned, align
from .deltas import Deltas, prompt_deltas, steering_deltas
from .entries import Entry, as_entries
from .intervals import interval_of_ratio
from .plain_side import ANY_INSTRUCTION, BY_TEMPLATE, NEUTRALLY, noted, rows_of
from .plain_side import NEUTRAL as NEUTRAL_TEXT

EQUIVALENT, NEUTRAL = "equivalent prompts", "neutral prompts"
Squares = Float[Tensor, "token"]


def faithfulness(
    model: HookedModel,
    pairs: Sequence[PromptPair],
    steerings: Mapping[str, Steering] | Sequence[Entry],
    *,
    layers: Sequence[Layer] | None = None,
    equivalents: Sequence[Sequence[PromptPair]] = (),
    neutral: Sequence[Sequence[PromptPair]] = (),
    span: Scope = generated,
    n_bootstrap: int = 1000,
    seed: int = 0,
    baseline: str = BY_TEMPLATE,
    sinks: float = SINK,
    any_instruction: bool = True,
) -> pd.DataFrame:
    """One row per method, strength and layer.

    Columns: method, strength, strength_value, layer, relative_rmse, low, high (95 % bootstrap
    interval over questions), token_median (median over tokens of the same ratio), denominator (root
    mean square norm of the prompt delta), relative_rmse_with_sinks, n_sinks (left out), n_examples,
    n_tokens, n_bootstrap, seed. `equivalents` and `neutral` hold the same pairs under other
    instructions: `reworded(pairs, instruction)`. `baseline` is the plain side ("template", "none",
    "neutral", or an instruction), `sinks` how many medians long a token is left out.
    `any_instruction` adds one; `table.attrs["any_instruction"]` has its text, or why it is absent.
    """
    require_times(sinks)
    layers = range(model.cfg.n_layers) if layers is None else layers
    measured = Pushes.of(model, pairs, layers, span, baseline, sinks)
    random = {"n_bootstrap": n_bootstrap, "seed": seed}
    tables: list[pd.DataFrame] = []
    for entry in as_entries(steerings):
        assert entry.steering is not None
        reached = steering_deltas(model, measured.aligned, entry.steering)
        tables.append(measured.table([reached], entry, **random))
    extra, said = measured.neutrally(model, pairs) if any_instruction else ([], "not asked for")
    references = {
        EQUIVALENT: [measured.other(model, other) for other in equivalents],
        NEUTRAL: [measured.other(model, other) for other in neutral],
        ANY_INSTRUCTION: extra,
    }
    without = partial(Entry, steering=None, strength="", strength_value=float("nan"))
    tables += [measured.table(o, without(name), **random) for name, o in references.items() if o]
    if not tables:
        raise NothingToMeasure(
            "No steering and no reference prompts were given: nothing to measure. The neutral "
            f"instruction is not measured either: {said}."
        )
    table = noted(pd.concat(tables, ignore_index=True), model, baseline, sinks)
    table.attrs["any_instruction"] = said
    return table


class NothingToMeasure(ValueError):
    """There is neither a method nor another prompt to hold against the prompt."""


def reworded(pairs: Sequence[PromptPair], instruction: str) -> list[PromptPair]:
    """The same pairs and responses, prompted in other words (a system turn)."""
    others = []
    for pair in pairs:
        if not isinstance(pair.prompted, Conversation):
            raise ValueError(
                "reworded() replaces the system turn of a Conversation; this pair is prompted by a "
                "plain string. Build the reworded PromptPair yourself."
            )
        others.append(replace(pair, prompted=replace(pair.prompted, system=instruction)))
    return others


def relative_rmse(numerator: Squares, denominator: Squares) -> float:
    """sqrt(sum numerator / sum denominator), of squared norms per token."""
    return float(torch.sqrt(numerator.sum() / denominator.sum()))


def other_wording(
    model: HookedModel,
    aligned: Aligned,
    pairs: Sequence[PromptPair],
    baseline: str = BY_TEMPLATE,
) -> Deltas:
    """What other prompts do on the same responses; ValueError if these are others."""
    other = align(model, pairs, aligned.sites, span=aligned.span, baseline=baseline)
    if not torch.equal(other.plain.tokens, aligned.plain.tokens):
        raise ValueError(
            "Equivalent prompts must come with the same responses in the same order as the pairs. "
            "Make them with reworded(pairs, instruction)."
        )
    return prompt_deltas(model, other)


@dataclass(frozen=True, eq=False)
class Pushes:
    """What the prompt does on the span's tokens: what everything else is measured by.

    `kept` says at each site which tokens are no sinks.
    """

    aligned: Aligned
    target: Deltas
    kept: dict[Site, Bool[Tensor, "token"]]
    baseline: str

    @classmethod
    def of(
        cls,
        model: HookedModel,
        pairs: Sequence[PromptPair],
        sites: Sites,
        span: Scope,
        baseline: str,
        sinks: float,
    ) -> "Pushes":
        """Both runs of every pair; ValueError where every token at a layer is a sink."""
        questions = len({pair.plain for pair in pairs})
        if questions > 1:  # a single one has no interval that could mislead
            warn_if_few(questions, "faithfulness")
        aligned = align(model, pairs, sites, span=span, baseline=baseline)
        kept = {site: ~aligned.sinks(site, sinks) for site in aligned.sites}
        for site, keep in kept.items():
            require_ordinary(keep, f"tokens at {site}")
        return cls(aligned, prompt_deltas(model, aligned), kept, baseline)

    def other(self, model: HookedModel, pairs: Sequence[PromptPair]) -> Deltas:
        """What other prompts do on the same responses; ValueError if these are others."""
        return other_wording(model, self.aligned, pairs, self.baseline)

    def neutrally(
        self, model: HookedModel, pairs: Sequence[PromptPair]
    ) -> tuple[list[Deltas], str]:
        """What the neutral instruction does, and its text; or nothing, and the reason."""
        if self.baseline in (NEUTRALLY, NEUTRAL_TEXT):
            return [], "the plain side has the neutral instruction already"
        if any(not isinstance(pair.prompted, Conversation) for pair in pairs):
            return [], "the pairs are raw text, which has no system turn to put another into"
        others = reworded(pairs, NEUTRAL_TEXT)
        try:
            for pair in others:
                rows_of(model, pair, self.baseline)
        except ValueError as error:  # a template without a system role, or a context too short
            return [], f"the neutral instruction cannot be written on this model ({error})"
        return [self.other(model, others)], NEUTRAL_TEXT

    def table(
        self, reached: Sequence[Deltas], entry: Entry, n_bootstrap: int, seed: int
    ) -> pd.DataFrame:
        """The rows of one entry; where it has several deltas, their squared errors are averaged."""
        return pd.DataFrame(
            [
                {
                    "method": entry.method,
                    "strength": entry.strength,
                    "strength_value": entry.strength_value,
                    "layer": site.layer,
                    **self._at(site, [deltas[site] for deltas in reached], n_bootstrap, seed),
                    "n_examples": len(self.aligned.plain_rows),
                    "n_tokens": int(self.kept[site].sum()),
                    "n_bootstrap": n_bootstrap,
                    "seed": seed,
                }
                for site in self.aligned.sites
            ]
        )

    def _at(
        self,
        site: Site,
        reached: Sequence[Float[Tensor, "token d_model"]],
        n_bootstrap: int,
        seed: int,
    ) -> dict[str, float]:
        target, keep = self.target[site], self.kept[site]
        squares = torch.stack([(delta - target).square().sum(dim=-1) for delta in reached])
        every = squares.mean(dim=0), target.square().sum(dim=-1)
        numerator, denominator = (torch.where(keep, part, 0) for part in every)
        low, high = _interval(self.aligned, numerator, denominator, n_bootstrap, seed)
        ratios = torch.sqrt(every[0] / every[1])[keep]
        return {
            "relative_rmse": relative_rmse(numerator, denominator),
            "low": low,
            "high": high,
            "token_median": float(ratios.nanmedian()),
            "denominator": float(every[1][keep].mean().sqrt()),
            "relative_rmse_with_sinks": relative_rmse(*every),
            "n_sinks": int((~keep).sum()),
        }


def _interval(
    aligned: Aligned, numerator: Squares, denominator: Squares, n_bootstrap: int, seed: int
) -> tuple[float, float]:
    """Of the relative RMSE, over resampled questions; NaN with a single one."""
    above, below = aligned.by_question(numerator), aligned.by_question(denominator)
    low, high = interval_of_ratio(above, below, n_bootstrap, seed)
    return low**0.5, high**0.5
