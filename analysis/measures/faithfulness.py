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
from contextlib import ExitStack
from dataclasses import dataclass, replace
from math import nan

import pandas as pd
import torch
from jaxtyping import Bool
from torch import Tensor

from steerlens.checks import warn_if_few
from steerlens.kinds import require_kinds
from steerlens.prompts import Conversation, PromptPair
from steerlens.runtime.hooks import Watch, watching
from steerlens.scopes import Scope, generated
from steerlens.sinks import SINK, require_ordinary, require_times
from steerlens.sites import Site, Sites
from steerlens.steering import Steering
from steerlens.types import HookedModel

from .aligned import Aligned, align
from .deltas import Deltas, prompt_deltas, steering_deltas
from .entries import Entry, as_entries
from .errors import Errors
from .parts import Parts
from .plain_side import ANY_INSTRUCTION, BY_TEMPLATE, NEUTRALLY, noted, rows_of
from .plain_side import NEUTRAL as NEUTRAL_TEXT

EQUIVALENT, NEUTRAL = "equivalent prompts", "neutral prompts"
NOTHING = (
    "No steering and no reference prompts were given: nothing to measure. The neutral instruction "
    "is not measured either:"
)
OTHER_RESPONSES = (
    "Equivalent prompts must come with the same responses in the same order as the pairs. "
    "Make them with reworded(pairs, instruction)."
)


def faithfulness(
    model: HookedModel,
    pairs: Sequence[PromptPair],
    steerings: Mapping[str, Steering] | Sequence[Entry],
    *,
    layers: Sites | None = None,
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
    Activations beyond the limit of `parts.holding` are never held at once.
    """
    require_kinds(faithfulness, locals())
    require_times(sinks)
    layers = range(model.cfg.n_layers) if layers is None else layers
    entries = as_entries(steerings)
    parts = Parts.of(model, pairs, layers, span=span, baseline=baseline)
    warn_if_few_questions(pairs)
    extra, said = neutrally(model, pairs, baseline) if any_instruction else ([], "not asked for")
    others = {EQUIVALENT: equivalents, NEUTRAL: neutral, ANY_INSTRUCTION: extra}
    require_same_number(pairs, [other for several in others.values() for other in several])
    if not entries and not any(others.values()):
        raise NothingToMeasure(f"{NOTHING} {said}.")
    errors = Errors.of(pairs)
    with ExitStack() as stack:
        watches = [stack.enter_context(watching()) for _ in entries]
        for aligned in parts:
            part = errors.begin(Pushes.of_aligned(model, aligned, baseline, sinks))
            _add_methods(model, part, errors, entries, watches)
            for name, several in others.items():
                errors.missed(name, (part.other(model, errors.now(other)) for other in several))
    named = {entry.key: entry for entry in entries}
    named |= {name: Entry(name, None, "", nan) for name, several in others.items() if several}
    tables = [errors.table(key, entry, n_bootstrap, seed) for key, entry in named.items()]
    table = noted(pd.concat(tables, ignore_index=True), model, baseline, sinks)
    table.attrs["any_instruction"] = said
    return table


def _add_methods(
    model: HookedModel,
    part: "Pushes",
    errors: Errors,
    entries: Sequence[Entry],
    watches: Sequence[Watch],
) -> None:
    for entry, watch in zip(entries, watches, strict=True):
        assert entry.steering is not None
        reached = steering_deltas(model, part.aligned, entry.steering, watch=watch)
        errors.missed(entry.key, [reached])


class NothingToMeasure(ValueError):
    """There is neither a method nor another prompt to hold against the prompt."""


def reworded(pairs: Sequence[PromptPair], instruction: str) -> list[PromptPair]:
    """The same pairs and responses, prompted in other words (a system turn)."""
    require_kinds(reworded, locals())
    others = []
    for pair in pairs:
        if not isinstance(pair.prompted, Conversation):
            raise ValueError(
                "reworded() replaces the system turn of a Conversation; this pair is prompted by a "
                "plain string. Build the reworded PromptPair yourself."
            )
        others.append(replace(pair, prompted=replace(pair.prompted, system=instruction)))
    return others


def other_wording(
    model: HookedModel,
    aligned: Aligned,
    pairs: Sequence[PromptPair],
    baseline: str = BY_TEMPLATE,
) -> Deltas:
    """What other prompts do on the same responses; ValueError if these are others."""
    other = align(model, pairs, aligned.sites, span=aligned.span, baseline=baseline)
    if not torch.equal(other.plain.tokens, aligned.plain.tokens):
        raise ValueError(OTHER_RESPONSES)
    return prompt_deltas(model, other)


def require_same_number(
    pairs: Sequence[PromptPair], others: Sequence[Sequence[PromptPair]]
) -> None:
    """Raise ValueError unless there are as many other prompts as pairs."""
    if any(len(other) != len(pairs) for other in others):
        raise ValueError(OTHER_RESPONSES)


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
        warn_if_few_questions(pairs)
        aligned = align(model, pairs, sites, span=span, baseline=baseline)
        pushes = cls.of_aligned(model, aligned, baseline, sinks)
        for site, keep in pushes.kept.items():
            require_ordinary(keep, f"tokens at {site}")
        return pushes

    @classmethod
    def of_aligned(
        cls, model: HookedModel, aligned: Aligned, baseline: str, sinks: float
    ) -> "Pushes":
        """Of pairs that were run."""
        kept = {site: ~aligned.sinks(site, sinks) for site in aligned.sites}
        return cls(aligned, prompt_deltas(model, aligned), kept, baseline)

    def other(self, model: HookedModel, pairs: Sequence[PromptPair]) -> Deltas:
        """What other prompts do on the same responses; ValueError if these are others."""
        return other_wording(model, self.aligned, pairs, self.baseline)


def warn_if_few_questions(pairs: Sequence[PromptPair]) -> None:
    """Warn where an interval over questions would be too narrow."""
    questions = len({pair.plain for pair in pairs})
    if questions > 1:  # a single one has no interval that could mislead
        warn_if_few(questions, "faithfulness")


def neutrally(
    model: HookedModel, pairs: Sequence[PromptPair], baseline: str
) -> tuple[list[list[PromptPair]], str]:
    """The pairs under the neutral instruction, and its text; or nothing, and the reason."""
    if baseline in (NEUTRALLY, NEUTRAL_TEXT):
        return [], "the plain side has the neutral instruction already"
    if any(not isinstance(pair.prompted, Conversation) for pair in pairs):
        return [], "the pairs are raw text, which has no system turn to put another into"
    others = reworded(pairs, NEUTRAL_TEXT)
    try:
        for pair in others:
            rows_of(model, pair, baseline)
    except ValueError as error:  # a template without a system role, or a context too short
        return [], f"the neutral instruction cannot be written on this model ({error})"
    return [others], NEUTRAL_TEXT
