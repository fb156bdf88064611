"""PSR on the demonstration model: a gate planted in it is found from a fresh start."""

from typing import Any

import pytest
import torch

import steerlens
from steerlens import PSR, Site, at, encode_pair, response
from steerlens.demo import benchmark_set
from steerlens.training.schedule import Schedule

LAYER = 3


def planted_in(model: Any, rows: Any) -> PSR:
    """Open on 30 % of the rows' response tokens; it moves them by about their own length."""
    generator = torch.Generator().manual_seed(0)
    seen = steerlens.capture(model, rows, LAYER, scope=response).at(LAYER)
    W, Z = (torch.randn((1, model.cfg.d_model), generator=generator) for _ in range(2))
    along, middle = (seen - seen.mean(dim=0)) @ W[0], seen.mean(dim=0) @ W[0]
    b, spread = -(middle + along.quantile(0.7)), along.std()
    planted = PSR(W / spread, b[None] / spread, Z / Z.norm() * seen.norm(dim=-1).median())
    assert (planted.gates(seen) > 0).float().mean() == pytest.approx(0.3, abs=0.01)
    return planted


@pytest.mark.slow
def test_a_gate_planted_in_the_demonstration_model_is_found() -> None:
    model, asked = steerlens.load("demo"), benchmark_set.read("positive")
    pairs, held = asked.pairs("train")[:200], asked.pairs("test")[:40]
    planted = planted_in(model, [encode_pair(model, pair)[0] for pair in pairs])
    teacher = at(LAYER, planted).only(response)
    schedule = Schedule(epochs=20, batch_size=4, validation=0.1, patience=None)
    fit = PSR.fit(model, pairs, LAYER, teacher=teacher, schedule=schedule)
    rows = [encode_pair(model, pair)[0] for pair in held]
    taught, found, plain = (
        steerlens.capture(model, rows, LAYER, scope=response, steering=steering).at(LAYER)
        for steering in (teacher, fit.steering, None)
    )
    error = (found - taught).square().sum() / (plain - taught).square().sum()
    assert error.sqrt() <= 0.15
    assert torch.cosine_similarity(fit.steers[Site(LAYER)].Z[0], planted.Z[0], dim=0) >= 0.98
