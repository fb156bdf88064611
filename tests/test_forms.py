"""A steer's form is what the steer does; and a steer that adds a constant says so."""

from typing import Any

import pytest
import torch
from catalogue import CATALOGUE, random
from tiny_models import D_MODEL

from steerlens import (
    CAA,
    CLAS,
    ITI,
    PSR,
    Chain,
    LoReFT,
    Only,
    Scaled,
    Site,
    Window,
    at,
    positions,
    response,
)
from steerlens.combinators import bind, needs_run, positional
from steerlens.forms import Added, Clamped, Laid, Sensed, forms_of
from steerlens.interchange.request import Refused

LENGTH, PROMPT = 7, 5
V, U = random(D_MODEL, seed=11), random(D_MODEL, seed=12)


def window() -> Window:
    return Window.of(
        torch.ones(1, LENGTH).bool(),
        question=torch.tensor([1]),
        response=torch.tensor([PROMPT]),
        bos=True,
    )


def by_forms(h: torch.Tensor, forms: Any) -> torch.Tensor:
    """What the forms say, written out once more."""
    for form in forms:
        inside = form.scope.where(window())[..., None]
        if isinstance(form, Added):
            moved = h + form.v
        elif isinstance(form, Clamped):
            moved = h + (form.z - h @ form.u)[..., None] * form.u
        elif isinstance(form, Sensed):
            moved = h + (h @ form.c.T + form.b) @ form.v
        else:
            assert isinstance(form, Laid)
            moved = h.clone()
            moved[:, : len(form.v)] += form.v
        h = torch.where(inside, moved, h)
    return h


@pytest.mark.parametrize("name", CATALOGUE)
def test_a_form_is_what_the_steer_does_and_no_constant_goes_without(name: str, gpt2: Any) -> None:
    for site, steer in CATALOGUE[name].build(gpt2).placed:
        forms = forms_of(steer)
        if forms is not None:
            h = random(1, LENGTH, D_MODEL, seed=5)
            torch.testing.assert_close(bind(steer, window())(h), by_forms(h, forms))
        elif not needs_run(steer) and not positional(steer) and site.stream != "z":
            pushes = [steer(h) - h for h in (random(1, 4, D_MODEL, seed=s) for s in (5, 6))]
            assert not torch.allclose(*pushes, atol=1e-4), f"{name} adds a constant"


@pytest.mark.parametrize(
    "steer",
    [
        Scaled(Chain((CAA(V), Scaled(CAA(U), -2.0))), 0.5),
        Only(Scaled(Only(CAA(V), response), 3.0), positions(2, 6)),
        Chain((Only(CAA(V), response), CLAS.ablation(U))),
        Scaled(CLAS.ablation(U), 1.0),
        CLAS.fixed(V, -1.5),
        PSR(torch.zeros(2, D_MODEL), torch.tensor([2.0, -1.0]), torch.stack([V, U]), 0.5, 0.25),
    ],
    ids=["sum", "scopes", "chain", "clamp", "fixed", "constant gates"],
)
def test_forms_of_what_is_wrapped(steer: Any) -> None:
    forms = forms_of(steer)
    assert forms
    h = random(1, LENGTH, D_MODEL, seed=5)
    expected = bind(steer, window())(h)
    torch.testing.assert_close(expected, by_forms(h, forms), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("strength", [1.0, -2.0])
def test_what_is_sensed_is_a_form_for_who_asks(strength: float) -> None:
    c, b = random(2, D_MODEL, seed=3), random(2, seed=4)
    clas = CLAS(0.1 * c, b, torch.stack([V, U]))
    loreft = LoReFT(torch.eye(D_MODEL)[:2], 0.1 * c, b)
    h = random(1, LENGTH, D_MODEL, seed=5)
    for one in (clas, loreft, Chain((clas, CAA(V))), Only(loreft, response)):
        steer = Scaled(one, strength)
        assert forms_of(steer) is None
        forms = forms_of(steer, sensed=True)
        assert forms
        expected = bind(steer, window())(h)
        torch.testing.assert_close(expected, by_forms(h, forms), rtol=1e-4, atol=1e-4)
    later = Chain((CAA(V), clas))
    assert forms_of(later, sensed=True)
    assert forms_of(Scaled(later, 0.5), sensed=True) is None, "it senses what was added in full"


def test_half_a_clamp_has_no_form() -> None:
    assert forms_of(Scaled(CLAS.ablation(U), 0.5)) is None


def test_strength_0_does_nothing() -> None:
    assert forms_of(Scaled(CAA(V), 0.0)) == ()


def test_a_scope_given_twice_is_one() -> None:
    (form,) = forms_of(Only(Only(CAA(V), response), response)) or ()
    assert form.scope == response


def test_heads_are_refused_for_what_they_are(gpt2: Any, tmp_path: Any) -> None:
    heads, size = gpt2.cfg.n_heads, gpt2.cfg.d_head
    theta = torch.ones(heads, size) / size**0.5
    steering = at(Site(1, "z"), ITI(theta, torch.ones(heads)))
    with pytest.raises(Refused, match=r"acts on attention's heads \(z\)"):
        steering.export(tmp_path / "vectors.gguf", to="gguf", model=gpt2)
