"""How much of what a prompt does to the predictions a steering does too, without any judge.

On every position that predicts a response token, and in all:

    recovered = 1 - KL(prompted || steered) / KL(prompted || plain)

1 is the prompted model's own predictions, 0 what is reached without steering, and below 0 the
steering leads further away from the prompt. In all it is the ratio of the sums, so tokens that the
prompt hardly changes hardly count; of a single token the denominator may be next to nothing, which
`tiny` says. All runs are teacher-forced on the same responses.

Two references say what the number is worth: "neutral prompts", instructions that ask for nothing of
the kind, and "equivalent prompts", the same instruction in other words.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float

from steerlens.checks import warn_if_few
from steerlens.divergence import divergence
from steerlens.kinds import require_kinds
from steerlens.prompts import PromptPair, show
from steerlens.steering import Steering
from steerlens.types import HookedModel

from .entries import Entry, as_entries
from .faithfulness import EQUIVALENT, NEUTRAL
from .intervals import interval_of_ratio
from .plain_side import BY_TEMPLATE, noted, require_baseline
from .responses import Responses, Run

PerToken: TypeAlias = Float[np.ndarray, " token"]
Steerings: TypeAlias = "Mapping[str, Steering] | Sequence[Entry]"
TINY = 0.01
"""A token's KL(prompted || plain) is tiny below this share of the mean over all tokens."""
UNSTEERED = "unsteered"


def prompt_effect_recovered(
    model: HookedModel,
    pairs: Sequence[PromptPair],
    steerings: Steerings,
    *,
    equivalents: Sequence[Sequence[PromptPair]] = (),
    neutral: Sequence[Sequence[PromptPair]] = (),
    baseline: str = BY_TEMPLATE,
    n_bootstrap: int = 1000,
    seed: int = 0,
) -> pd.DataFrame:
    """One row per method and strength: the share of the prompt's effect, over all tokens.

    Columns: method, strength, strength_value, recovered, low, high (95 % bootstrap interval over
    questions), token_median (of tokens whose denominator is not tiny), kl_left and kl_prompt (means
    of KL(prompted || method) and KL(prompted || plain), nats a token), tiny (share of tokens),
    n_examples, n_tokens, n_bootstrap, seed. "unsteered" is 0 by definition. `equivalents` and
    `neutral` hold the same pairs under other instructions, `reworded(pairs, instruction)`; of
    several the mean counts. `baseline` is the plain side (`measures.plain_side`).
    """
    require_kinds(prompt_effect_recovered, locals())
    wordings = {EQUIVALENT: equivalents, NEUTRAL: neutral}
    warn_if_few(len({pair.plain for pair in pairs}), "prompt_effect_recovered")
    found = _Left.of(model, pairs, steerings, wordings, baseline)
    rows = [
        {
            "method": entry.method,
            "strength": entry.strength,
            "strength_value": entry.strength_value,
            **found.row(kl, n_bootstrap, seed),
            "tiny": found.tiny.mean(),
            "n_examples": len(pairs),
            "n_tokens": len(kl),
            "n_bootstrap": n_bootstrap,
            "seed": seed,
        }
        for entry, kl in found.left
    ]
    return noted(pd.DataFrame(rows), model, baseline)


def prompt_effect_by_token(
    model: HookedModel,
    pairs: Sequence[PromptPair],
    steerings: Steerings,
    *,
    baseline: str = BY_TEMPLATE,
) -> pd.DataFrame:
    """One row per method, strength and response token.

    Columns: example, token_index, token, method, strength, strength_value, kl_prompt, kl_left,
    recovered, tiny (whether kl_prompt is below 1 % of its mean, so that the share says little).
    """
    require_kinds(prompt_effect_by_token, locals())
    found = _Left.of(model, pairs, steerings, {}, baseline)
    ids = [row.ids[row.response :] for row in found.responses.plain]
    places = pd.DataFrame(
        {
            "example": np.repeat(np.arange(len(ids)), [len(row) for row in ids]),
            "token_index": np.concatenate([np.arange(len(row)) for row in ids]),
            "token": [text for row in ids for text in show(model, row)],
        }
    )
    tables = [
        places.assign(
            method=entry.method,
            strength=entry.strength,
            strength_value=entry.strength_value,
            kl_prompt=found.prompt,
            kl_left=kl,
            recovered=1 - kl / found.prompt,
            tiny=found.tiny,
        )
        for entry, kl in found.left[1:]
    ]
    return noted(pd.concat(tables, ignore_index=True), model, baseline)


@dataclass(frozen=True, eq=False)
class _Left:
    """KL(prompted || run) of every response token and run; the first run is the unsteered one."""

    responses: Responses
    left: list[tuple[Entry, PerToken]]

    @classmethod
    def of(
        cls,
        model: HookedModel,
        pairs: Sequence[PromptPair],
        steerings: Steerings,
        wordings: Mapping[str, Sequence[Sequence[PromptPair]]],
        baseline: str,
    ) -> "_Left":
        """All runs; ValueError where there are none, or the prompt changes no prediction."""
        require_baseline(baseline)
        responses, entries = Responses.of(model, pairs, baseline), as_entries(steerings)
        others = {name: [responses.worded(model, w) for w in ws] for name, ws in wordings.items()}
        if not entries and not any(others.values()):
            raise ValueError("No steering and no reference prompts were given: nothing to measure.")
        runs: list[Run] = [(responses.plain, None)]
        runs += [(responses.plain, entry.steering) for entry in entries]
        runs += [(rows, None) for listed in others.values() for rows in listed]
        kls = responses.each(model, runs, lambda _, prompted, moved: divergence(prompted, moved))
        arrays = iter([kl.numpy() for kl in kls])
        left = [(entry, next(arrays)) for entry in (_reference(UNSTEERED), *entries)]
        for name, listed in others.items():
            if listed:
                left.append((_reference(name), np.mean([next(arrays) for _ in listed], axis=0)))
        if not left[0][1].sum() > 0:
            raise ValueError(
                "The instruction of these pairs changes no prediction, so there is no effect to "
                "recover. Is it there? PromptPair.with_system(question, instruction, response)."
            )
        return cls(responses, left)

    @property
    def prompt(self) -> PerToken:
        """KL(prompted || plain) of every token: what there is to recover."""
        return self.left[0][1]

    @property
    def tiny(self) -> Bool[np.ndarray, " token"]:
        """Where there is next to nothing to recover."""
        return self.prompt < TINY * self.prompt.mean()

    def row(self, kl: PerToken, n_bootstrap: int, seed: int) -> dict[str, float]:
        """The share in all with its interval, the middle of the tokens', and the mean KLs."""
        above, below = (np.bincount(self.responses.question, part) for part in (kl, self.prompt))
        low, high = interval_of_ratio(above, below, n_bootstrap, seed)
        shares = 1 - kl[~self.tiny] / self.prompt[~self.tiny]
        return {
            "recovered": 1 - float(kl.sum() / self.prompt.sum()),
            "low": 1 - high,
            "high": 1 - low,
            "token_median": float(np.median(shares)),
            "kl_left": float(kl.mean()),
            "kl_prompt": float(self.prompt.mean()),
        }


def _reference(name: str) -> Entry:
    return Entry(name, None, "", float("nan"))
