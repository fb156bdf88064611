"""`@steer`: what it gives to a class, and a method written with it in thirty lines."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from catalogue import random
from jaxtyping import Float
from tiny_models import D_MODEL, PROMPTS
from torch import Tensor

import steerlens
from steerlens import (
    CAA,
    CLAS,
    PSR,
    ActAdd,
    InstructionVector,
    LoReFT,
    ReFTr1,
    Scaled,
    Site,
    at,
)
from steerlens.methods.loreft import orthonormal
from steerlens.saving import SAVEABLE
from steerlens.steers import steer
from steerlens.training.fit import Fit, token_ids
from steerlens.types import Direction, Hook, HookedModel, Residual

ROWS, THREE = random(3, D_MODEL, seed=1), torch.ones(3)
UNIT = torch.nn.functional.normalize(random(D_MODEL), dim=0)
STEERS = {
    "CAA(direction=[32])": CAA(UNIT),
    "PSR(W=[3, 32], b=[3], Z=[3, 32], alpha=1, b_m=-0.5)": PSR(ROWS, THREE, ROWS, b_m=-0.5),
    "CLAS(c=[3, 32], b=[3], v=[3, 32], limit=None)": CLAS(ROWS, THREE, ROWS),
    "LoReFT(R=[3, 32], W=[3, 32], b=[3])": LoReFT(orthonormal(ROWS), ROWS, THREE),
    "ReFTr1(w=[32], a_max=2.5)": ReFTr1(UNIT, 2.5),
    "InstructionVector(u=[32], z=0.333333)": InstructionVector(UNIT, 1 / 3),
    "ActAdd(v=[3, 32], c=1, alignment='front', dims=(4, 20))": ActAdd(ROWS, dims=(4, 20)),
}


# -- A method, from its equation to its fit --------------------------------------------------------


@steer
class Reflection:
    """h' = h - 2 (h u) u: the mirror image in the plane at right angles to u."""

    u: Direction
    share: float = 1.0

    @classmethod
    def from_activations(
        cls, positive: Float[Tensor, "row d_model"], negative: Float[Tensor, "other d_model"]
    ) -> "Reflection":
        return cls(steerlens.unit(steerlens.difference_of_means(positive, negative)))

    @classmethod
    def fit(
        cls,
        model: HookedModel,
        prompts: tuple[list[str], list[str]],
        sites: int | Site | Sequence[int | Site],
    ) -> "Fit[Reflection]":
        places = steerlens.sites.as_sites(sites)
        last = [steerlens.capture(model, side, places, scope=steerlens.last) for side in prompts]
        steers = {site: cls.from_activations(*(side.at(site) for side in last)) for site in places}
        rows = [steerlens.encode(model, prompt) for side in prompts for prompt in side]
        return Fit.of(model, steers, token_ids(rows))

    def __call__(self, activation: Residual, hook: Hook = None) -> Residual:
        h, u, s = activation, self.u.to(activation), self.share
        return h - 2 * s * (h @ u)[..., None] * u


def test_a_new_method_fits_steers_and_survives_its_file(model: Any, tmp_path: Any) -> None:
    fit = Reflection.fit(model, (list(PROMPTS[:2]), list(PROMPTS[2:])), [1, Site(2)])
    assert fit.steering.sites == (Site(1), Site(2))
    assert fit.trained is None
    path = fit.steering.save(tmp_path / "reflection.safetensors", model)
    again = steerlens.load_steering(path, model)
    before, after = (
        steerlens.capture(model, list(PROMPTS), 1, steering=steering, moment=moment).at(1)
        for steering, moment in ((again, "before"), (again.only(steerlens.everywhere), "after"))
    )
    u = fit.steers[Site(1)].u
    torch.testing.assert_close(after @ u, -(before @ u), rtol=1e-4, atol=1e-4)
    assert float((before @ u).abs().min()) > 1e-3
    with pytest.raises(ValueError, match=r"Reflection at layer 1 .* has d_model 5"):
        at(1, Reflection(torch.ones(5))).save(tmp_path / "narrow.safetensors", model)


# -- What the decorator gives ----------------------------------------------------------------------


@pytest.mark.parametrize("expected", STEERS)
def test_the_repr_shows_shapes_and_numbers_and_prints_no_tensor(
    expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.Tensor, "__repr__", lambda *_, **__: pytest.fail("printed"))
    assert repr(STEERS[expected]) == expected
    assert expected in repr(at(1, Scaled(STEERS[expected], 2.0)))


@pytest.mark.parametrize("value", STEERS.values(), ids=lambda value: type(value).__name__)
def test_every_method_is_frozen_saveable_and_as_wide_as_its_tensors(value: Any) -> None:
    assert value.d_model == D_MODEL
    assert SAVEABLE[type(value).__name__] is type(value)
    first = dataclasses.fields(value)[0].name
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(value, first, None)
    assert value != dataclasses.replace(value)  # by identity: tensors have no one truth value
    assert value in {value}


def test_every_tensor_and_number_must_be_finite(unchecked: None) -> None:
    bad = UNIT.clone()
    bad[3:6] = torch.tensor([torch.nan, torch.inf, -torch.inf])
    with pytest.raises(ValueError, match="CAA's direction: 3 of 32 values are NaN or infinite"):
        CAA(bad)
    with pytest.raises(ValueError, match="CAA's direction: empty"):
        CAA(bad[:0])
    with pytest.raises(ValueError, match="PSR's alpha: nan is NaN or infinite"):
        PSR(ROWS, THREE, ROWS, alpha=float("nan"))
    with pytest.raises(ValueError, match="Reflection's share: inf is NaN or infinite"):
        Reflection(UNIT, float("inf"))


def test_what_is_learnt_is_checked_without_its_gradient() -> None:
    u = UNIT.clone().requires_grad_()
    Reflection(u)(random(1, 2, D_MODEL)).sum().backward()
    assert u.grad is not None
    assert bool(u.grad.any())
    with pytest.raises(ValueError, match="Reflection's u: 32 of 32"):
        Reflection(u / 0)


@pytest.mark.parametrize(
    "shapes", [((1, 8), (1,), (2, 8)), ((2, 9), (2,), (2, 8)), ((8,), (1,), (1, 8))]
)
def test_axes_of_one_name_have_one_length(unchecked: None, shapes: Any) -> None:
    message = r"PSR needs .* W \[rank, d_model\], b \[rank\], Z \[rank, d_model\], .* found W \["
    with pytest.raises(ValueError, match=message):
        PSR(*(torch.ones(shape) for shape in shapes))


@steer
class Loose:
    """A steer with a tensor that may be absent, one of any shape, and a check of its own."""

    anchors: Float[Tensor, "row d_model"] | None = None
    any_shape: Float[Tensor, "..."] | None = None
    names: tuple[str, ...] = ()
    hidden: int = dataclasses.field(default=0, repr=False)

    def __post_init__(self) -> None:
        if self.hidden < 0:
            raise ValueError("its own check")

    def __call__(self, activation: Residual, hook: Hook = None) -> Residual:
        return activation


def test_fields_may_be_absent_and_a_class_may_have_a_check_of_its_own() -> None:
    long = Loose(None, torch.ones(2, 2, 2), ("a",) * 9, hidden=3)
    assert repr(long) == "Loose(anchors=None, any_shape=[2, 2, 2], names=(9 values))"
    assert Loose(torch.ones(2, 7)).d_model == 7
    with pytest.raises(ValueError, match="its own check"):
        Loose(hidden=-1)
    with pytest.raises(ValueError, match="Loose's any_shape: 1 of 1"):
        Loose(any_shape=torch.tensor([torch.nan]))


def test_another_class_of_the_same_name_is_refused_and_unreadable_fields_too() -> None:
    with pytest.raises(ValueError, match="Another class called CAA"):
        steer(type("CAA", (), {"__call__": lambda self, activation, hook=None: activation}))
    fields = {"__annotations__": {"v": "Nowhere"}, "__module__": __name__}
    with pytest.raises(TypeError, match=r"cannot read the fields of Lost \(name 'Nowhere'"):
        steer(type("Lost", (), fields))
    assert "Lost" not in SAVEABLE
