"""Did it do anything? How far a steering moves the next-token distribution on given text."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from steerlens.identity import device_of
from steerlens.prompts import Encoded, PromptPair, stack
from steerlens.runtime.forward import logits
from steerlens.runtime.hooks import running, watching
from steerlens.scopes import response
from steerlens.steering import Steering
from steerlens.types import HookedModel

from .entries import Entry, as_entries
from .plain_side import BY_TEMPLATE, noted, require_baseline, rows_of


def logit_shift(
    model: HookedModel,
    pairs: Sequence[PromptPair],
    steerings: Mapping[str, Steering] | Sequence[Entry],
    *,
    baseline: str = BY_TEMPLATE,
) -> pd.DataFrame:
    """How far the prompt and each steering move the predictions of the response tokens.

    Columns: method, strength, strength_value, mean_kl (nats, of the moved from the plain
    distribution, over predicted tokens), max_shift (largest change of a log-probability),
    top_changed (share of tokens whose likeliest next token changed), moved (whether any logit
    did), n_tokens. `baseline` is the plain side (`measures.plain_side`).
    """
    require_baseline(baseline)
    rows = [rows_of(model, pair, baseline) for pair in pairs]
    plain_rows, prompted_rows = [row for row, _ in rows], [row for _, row in rows]
    plain = _log_probabilities(model, plain_rows)
    prompted = _log_probabilities(model, prompted_rows)
    shifts = [_shift("prompt", "", float("nan"), prompted, plain)]
    for entry in as_entries(steerings):
        moved = _log_probabilities(model, plain_rows, entry.steering)
        shifts.append(_shift(entry.method, entry.strength, entry.strength_value, moved, plain))
    return noted(pd.DataFrame(shifts), model, baseline)


@torch.no_grad()
def _log_probabilities(
    model: HookedModel, rows: Sequence[Encoded], steering: Steering | None = None
) -> Float[Tensor, "token d_vocab"]:
    """Log-probabilities at every position that predicts a response token, rows in order."""
    by_row = []
    with watching() as watch:
        for number, row in enumerate(rows):
            tokens, window = stack([row])
            window = replace(window, row=torch.tensor([number]))
            tokens, window = tokens.to(device_of(model)), window.to(device_of(model))
            with running(model, steering, watch) as run:
                if run is not None:
                    run.ready(tokens, window)
                scores = logits(model, tokens, window)
            predicts = response.where(window)[0][:-1]
            by_row.append(scores[0, :-1][predicts].double().log_softmax(dim=-1).cpu())
    return torch.cat(by_row)


def _shift(
    method: str,
    strength: str,
    value: float,
    moved: Float[Tensor, "token d_vocab"],
    plain: Float[Tensor, "token d_vocab"],
) -> dict[str, object]:
    kl = (moved.exp() * (moved - plain)).sum(dim=-1)
    return {
        "method": method,
        "strength": strength,
        "strength_value": value,
        "mean_kl": float(kl.mean()),
        "max_shift": float((moved - plain).abs().max()),
        "top_changed": float((moved.argmax(-1) != plain.argmax(-1)).double().mean()),
        "moved": not torch.equal(moved, plain),
        "n_tokens": len(plain),
    }
