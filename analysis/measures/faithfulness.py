"""How faithful a steering is: whether it puts every layer where the prompt puts it.

Relative RMSE per layer against the accumulated prompt delta (arXiv 2605.03907), on the same
response tokens, all runs teacher-forced:

    relRMSE_l(M) = sqrt( sum |A_l(M) - A_l(prompted)|^2 / sum |A_l(plain) - A_l(prompted)|^2 )

1 is the error of not steering at all; above 1 is worse than nothing. The sums run over all tokens
of all examples; intervals come from resampling questions, with all responses to each. Early layers
have a tiny denominator, which is therefore in the table. There are two references: "equivalent
prompts", the same instruction in other words, and "neutral prompts", another instruction that asks
for nothing of the kind. How far the neutral ones lie below 1 is what any instruction of that length
does, in a model with learned positions above all by moving the response along.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from steerlens.prompts import Conversation, PromptPair
from steerlens.scopes import Scope, generated
from steerlens.sites import Layer
from steerlens.steering import Steering
from steerlens.types import HookedModel

from .aligned import Aligned, align
from .deltas import Deltas, prompt_deltas, steering_deltas
from .entries import Entry, as_entries
from .intervals import interval_of_ratio
from .plain_side import noted

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
) -> pd.DataFrame:
    """One row per method, strength and layer.

    Columns: method, strength, strength_value, layer, relative_rmse, low, high (95 % bootstrap
    interval over questions), token_median (median over tokens of the same ratio), denominator (root
    mean square norm of the prompt delta), n_examples, n_tokens, n_bootstrap, seed. `equivalents`
    and `neutral` hold the same pairs under other instructions: `reworded(pairs, instruction)`.
    """
    sites = range(model.cfg.n_layers) if layers is None else layers
    aligned = align(model, pairs, sites, span=span)
    target = prompt_deltas(model, aligned)
    tables = []
    for entry in as_entries(steerings):
        assert entry.steering is not None
        reached = steering_deltas(model, aligned, entry.steering)
        tables.append(_table(aligned, target, [reached], entry, n_bootstrap, seed))
    for name, wordings in ((EQUIVALENT, equivalents), (NEUTRAL, neutral)):
        others = [other_wording(model, aligned, other) for other in wordings]
        if others:
            entry = Entry(name, None, "", float("nan"))
            tables.append(_table(aligned, target, others, entry, n_bootstrap, seed))
    if not tables:
        raise ValueError("No steering and no reference prompts were given: nothing to measure.")
    return noted(pd.concat(tables, ignore_index=True), model)


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
) -> Deltas:
    """What other prompts do on the same responses; ValueError if these are others."""
    other = align(model, pairs, aligned.sites, span=aligned.span)
    if not torch.equal(other.plain.tokens, aligned.plain.tokens):
        raise ValueError(
            "Equivalent prompts must come with the same responses in the same order as the pairs. "
            "Make them with reworded(pairs, instruction)."
        )
    return prompt_deltas(model, other)


def _table(
    aligned: Aligned,
    target: Deltas,
    reached: Sequence[Deltas],
    entry: Entry,
    n_bootstrap: int,
    seed: int,
) -> pd.DataFrame:
    return pd.DataFrame(
        [
            {
                "method": entry.method,
                "strength": entry.strength,
                "strength_value": entry.strength_value,
                "layer": site.layer,
                **_measures(aligned, target[site], [r[site] for r in reached], n_bootstrap, seed),
                "n_examples": len(aligned.plain_rows),
                "n_tokens": len(aligned.example),
                "n_bootstrap": n_bootstrap,
                "seed": seed,
            }
            for site in aligned.sites
        ]
    )


def _measures(
    aligned: Aligned,
    target: Float[Tensor, "token d_model"],
    reached: Sequence[Float[Tensor, "token d_model"]],
    n_bootstrap: int,
    seed: int,
) -> dict[str, float]:
    squares = torch.stack([(delta - target).square().sum(dim=-1) for delta in reached])
    numerator, denominator = squares.mean(dim=0), target.square().sum(dim=-1)
    low, high = _interval(aligned, numerator, denominator, n_bootstrap, seed)
    ratios = torch.sqrt(numerator / denominator)
    return {
        "relative_rmse": relative_rmse(numerator, denominator),
        "low": low,
        "high": high,
        "token_median": float(ratios.nanmedian()),
        "denominator": float(denominator.mean().sqrt()),
    }


def _interval(
    aligned: Aligned, numerator: Squares, denominator: Squares, n_bootstrap: int, seed: int
) -> tuple[float, float]:
    """Of the relative RMSE, over resampled questions; NaN with a single one."""
    above, below = aligned.by_question(numerator), aligned.by_question(denominator)
    low, high = interval_of_ratio(above, below, n_bootstrap, seed)
    return low**0.5, high**0.5
