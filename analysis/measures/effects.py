"""Did it do anything? How far a steering moves the next-token distribution on given text."""

from collections.abc import Mapping, Sequence

import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from steerlens.divergence import LogProbabilities, divergence
from steerlens.kinds import require_kinds
from steerlens.prompts import PromptPair
from steerlens.steering import Steering
from steerlens.types import HookedModel

from .entries import Entry, as_entries
from .plain_side import BY_TEMPLATE, noted, require_baseline
from .responses import Responses, Run


def logit_shift(
    model: HookedModel,
    pairs: Sequence[PromptPair],
    steerings: Mapping[str, Steering] | Sequence[Entry],
    *,
    baseline: str = BY_TEMPLATE,
) -> pd.DataFrame:
    """How far the prompt and each steering move the predictions of the response tokens.

    Columns: method, strength, strength_value, mean_kl (nats, of the moved from the plain
    distribution, over predicted tokens), recovered (the share of the prompt's effect that the run
    has too, see `prompt_effect_recovered`), max_shift (largest change of a log-probability),
    top_changed (share of tokens whose likeliest next token changed), moved (whether any logit
    did), n_tokens. `baseline` is the plain side (`measures.plain_side`).
    """
    require_kinds(logit_shift, locals())
    require_baseline(baseline)
    responses, entries = Responses.of(model, pairs, baseline), as_entries(steerings)
    prompt = Entry("prompt", None, "", float("nan"))
    runs: list[Run] = [(responses.plain, None), (responses.prompted, None)]
    runs += [(responses.plain, entry.steering) for entry in entries]
    unsteered, *shifts = responses.each(model, runs, _compared)
    of_prompt = float(unsteered[:, LEFT].sum())
    rows = [
        {
            "method": entry.method,
            "strength": entry.strength,
            "strength_value": entry.strength_value,
            **_row(shift, of_prompt),
        }
        for entry, shift in zip((prompt, *entries), shifts, strict=True)
    ]
    return noted(pd.DataFrame(rows), model, baseline)


KL, LEFT, LARGEST, TOP, MOVED = range(5)
"""The columns of what is compared."""


def _compared(
    plain: LogProbabilities, prompted: LogProbabilities, moved: LogProbabilities
) -> Float[Tensor, "token 5"]:
    shift = (moved - plain).abs().max(dim=-1).values
    changed = moved.argmax(-1) != plain.argmax(-1)
    numbers = (divergence(moved, plain), divergence(prompted, moved), shift, changed, shift > 0)
    return torch.stack([number.double() for number in numbers], dim=1)


def _row(shift: Float[Tensor, "token 5"], of_prompt: float) -> dict[str, object]:
    left = float(shift[:, LEFT].sum())
    return {
        "mean_kl": float(shift[:, KL].mean()),
        "recovered": 1 - left / of_prompt if of_prompt > 0 else float("nan"),
        "max_shift": float(shift[:, LARGEST].max()),
        "top_changed": float(shift[:, TOP].mean()),
        "moved": bool(shift[:, MOVED].any()),
        "n_tokens": len(shift),
    }
