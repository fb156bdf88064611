"""Strengths over a text: measured from activations, they are what the method's gate says."""

from collections.abc import Callable
from typing import Any

import pandas as pd
import pytest
import torch
from catalogue import ByToken, first_positive, random
from tiny_models import D_MODEL

from analysis.measures.coefficients import strengths
from analysis.measures.entries import Entry
from steerlens import (
    CAA,
    CLAS,
    PSR,
    Conversation,
    ReFTr1,
    Site,
    When,
    at,
    capture,
    everywhere,
    response,
)

TEXTS = [Conversation("What is it?", None, "It was a good day"), Conversation("Do you love me?")]
V = random(D_MODEL, seed=5)
C, B = 0.05 * random(1, D_MODEL, seed=6), torch.tensor([0.3])
Gate = Callable[[torch.Tensor], torch.Tensor]

STEERS: dict[str, tuple[Any, Gate]] = {
    "CLAS": (CLAS(C, B, V[None]), lambda h: h @ C[0] + B[0]),
    "PSR": (PSR(C, B, V[None]), lambda h: torch.relu(h @ C[0] + B[0])),
    "When": (When(CAA(V), first_positive), lambda h: (h[:, 0] > 0).float()),
}


def of_layer(table: pd.DataFrame, layer: int, column: str = "along") -> list[float]:
    return table.loc[table["layer"] == layer, column].tolist()


@pytest.mark.parametrize("name", STEERS)
def test_along_its_own_direction_the_strength_is_the_gate_of_each_token(
    model: Any, name: str
) -> None:
    steer, gate = STEERS[name]
    steering = at(1, steer) + at(2, steer)
    before = capture(model, TEXTS, [1, 2], steering=steering, moment="before")
    table = strengths(model, TEXTS, {name: steering}, {Site(1): V, Site(2): V})
    for layer in (1, 2):
        wanted = gate(before.at(Site(layer)).float())
        assert len(set(wanted.tolist())) > 1
        assert of_layer(table, layer) == pytest.approx(wanted.tolist(), abs=1e-5)
        assert of_layer(table, layer, "off_axis") == pytest.approx([0] * len(wanted), abs=1e-4)
    assert set(table["view"]) == {"local"}
    assert set(table["method"]) == {name}


def test_reft_r1_steers_every_token_alike(model: Any) -> None:
    w = V / V.norm()
    table = strengths(model, TEXTS, {"ReFT-r1": at(1, ReFTr1(w, 3.5))}, {Site(1): w})
    assert table["along"].tolist() == pytest.approx([3.5] * len(table), abs=1e-4)


@pytest.mark.parametrize("v", [torch.zeros(D_MODEL), V * float("nan"), torch.ones(D_MODEL + 1)])
def test_a_direction_that_measures_nothing_is_an_error(gpt2: Any, v: torch.Tensor) -> None:
    with pytest.raises(ValueError, match="layer 1 resid_post must be 32 finite numbers"):
        strengths(gpt2, TEXTS, {"CLAS": at(1, CLAS(C, B, V[None]))}, {Site(1): v})


def test_no_steering_is_an_error(gpt2: Any) -> None:
    with pytest.raises(ValueError, match="No steerings were given"):
        strengths(gpt2, TEXTS, {})


def test_without_a_direction_it_is_the_one_that_the_steering_pushes_along(model: Any) -> None:
    steering = at(1, CLAS(C, B, V[None]))
    given = strengths(model, TEXTS, {"CLAS": steering}, {Site(1): V})
    found = strengths(model, TEXTS, {"CLAS": steering})
    scale = float(V.norm()) * (1 if given["along"].sum() > 0 else -1)
    assert found["along"].tolist() == pytest.approx((given["along"] * scale).tolist(), abs=1e-4)
    assert found["along"].sum() > 0
    assert found["off_axis"].max() < 1e-4


def test_all_tokens_of_the_text_are_measured_and_zero_where_it_does_not_act(model: Any) -> None:
    steering = at(1, CAA(V)).only(response)
    table = strengths(model, TEXTS, {"CAA": steering}, {Site(1): V})
    rows = capture(model, TEXTS, 1, scope=everywhere)
    inside = capture(model, TEXTS, 1, scope=response)
    assert len(table) == len(rows.position)
    assert table["along"].round(4).tolist().count(1) == len(inside.position)
    assert table["along"].round(4).tolist().count(0) == len(table) - len(inside.position)
    assert table["token_index"].tolist() == rows.position.tolist()


def test_a_steering_that_sees_the_tokens_is_measured_at_its_own_layer(model: Any) -> None:
    table = strengths(model, TEXTS, {"by token": at(1, ByToken(V))})
    assert (table["along"] > 0).any()
    assert set(table["layer"]) == {1}


def test_a_missing_direction_and_an_entry_without_steering_are_errors(gpt2: Any) -> None:
    with pytest.raises(ValueError, match=r"No direction was given for .*, where CAA acts"):
        strengths(gpt2, TEXTS, {"CAA": at(1, CAA(V))}, {Site(2): V})
    with pytest.raises(ValueError, match="none has no steering"):
        strengths(gpt2, TEXTS, [Entry("none", None)])
