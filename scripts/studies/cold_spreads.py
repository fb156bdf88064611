"""The cells of the COLD study on spreads: how the next word divides over a group's options."""

from __future__ import annotations

import random
from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
import torch
from cold_cells import questions_of
from cold_fits import on_common_scale
from cold_plan import GRID, OPENING, TUNED_WITH, WORDS
from study import material, model

import steerlens
from steerlens import CAA, ColdFD, ColdKernel, Conversation
from steerlens.methods.cold.examples import Examples
from steerlens.prompts import Encoded, stack
from steerlens.runtime.forward import logits
from steerlens.runtime.hooks import running, watching
from steerlens.scopes import prompt
from steerlens.steering import Steering


def tune(group: str, method: str, layer: int) -> dict[str, Any]:
    """The strength of the grid with the least KL on validation questions."""
    return _tuned(_spreading(group, method, layer, TUNED_WITH, 0), group)


def spread(group: str, method: str, layer: int, n: int, seed: int) -> dict[str, Any]:
    """KL and total variation on test questions, by question, at the strength of validation."""
    steering = _spreading(group, method, layer, n, seed)
    kept = _tuned(steering, group)
    asked = questions_of(group, "test")
    wanted = _shares(group, asked, None, instructed=True)
    found = _shares(group, asked, steering.scaled(kept["strength"]))
    return {**_apart(wanted, found), "strength": kept["strength"]}


def unspread(group: str) -> dict[str, Any]:
    """KL and total variation of the unsteered model on test questions."""
    asked = questions_of(group, "test")
    return _apart(_shares(group, asked, None, instructed=True), _shares(group, asked, None))


def _spreading(group: str, method: str, layer: int, n: int, seed: int) -> Steering:
    """Fitted so that the plain prompt's next word is spread as the instructed one's."""
    drawn = random.Random(f"prompts {seed}").sample(questions_of(group, "train"), n)
    plain = [_opened(user) for user in drawn]
    if method == "CAA":
        told = [_opened(user, material(group).instruction) for user in drawn]
        steering: Steering = CAA.from_prompts(
            model(), told, plain, layer, read=steerlens.last
        ).only(prompt)
        return on_common_scale(steering, layer, plain[:10])
    shares = _shares(group, drawn, None, instructed=True)
    wished = [dict(zip(_option_ids(), row, strict=True)) for row in shares.tolist()]
    method_of = ColdFD if method == "COLD-FD" else ColdKernel
    fit = method_of.fit(model(), Examples(plain, probabilities=wished), layer, loss="options")
    return on_common_scale(fit.steering, layer, plain[:10])


def _tuned(steering: Steering, group: str) -> dict[str, Any]:
    asked = questions_of(group, "validation")
    wanted = _shares(group, asked, None, instructed=True)
    tried = {
        strength: float(
            np.mean(_apart(wanted, _shares(group, asked, steering.scaled(strength)))["KL"])
        )
        for strength in GRID
    }
    best = min(tried, key=lambda strength: tried[strength])
    return {"strength": best, "KL": tried[best]}


@cache
def _option_ids() -> list[int]:
    ids = [model().tokenizer.encode(f" {word}", add_special_tokens=False) for word in WORDS]
    assert all(len(one) == 1 for one in ids)
    return [one[0] for one in ids]


def _opened(user: str, instruction: str | None = None) -> Encoded:
    """A question whose answer has been begun: the next token is one of the options."""
    row = steerlens.encode(model(), Conversation(user, instruction, OPENING))
    return Encoded(row.ids, row.question, len(row.ids), row.bos)


@torch.no_grad()
def _shares(
    group: str, users: Sequence[str], steering: Steering | None, instructed: bool = False
) -> np.ndarray:
    """[question, option]: probabilities over the option words alone."""
    instruction = material(group).instruction if instructed else None
    found = []
    for start in range(0, len(users), 40):
        rows = [_opened(user, instruction) for user in users[start : start + 40]]
        tokens, window = stack(rows, "left")
        with watching() as watch, running(model(), steering, watch) as run:
            if run is not None:
                run.ready(tokens, window)
            found.append(logits(model(), tokens, window)[:, -1, _option_ids()].double())
    return torch.softmax(torch.cat(found), dim=-1).numpy()


def _apart(wanted: np.ndarray, found: np.ndarray) -> dict[str, list[float]]:
    """The KL divergence, sum p log(p / q), and half of sum |p - q|, by question."""
    return {
        "KL": (wanted * np.log(wanted / found)).sum(axis=1).tolist(),
        "TV": (np.abs(wanted - found).sum(axis=1) / 2).tolist(),
    }
