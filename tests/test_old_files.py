"""Steering files that an earlier steerlens wrote still load, and do what they did there.

tests/golden/format_1/README.md says how the files came to be. With each is recorded what it did to
the activations at the last block: both prompts in one padded pass, on each backend.
"""

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from tiny_models import BACKENDS, load

from steerlens import Conversation, Site, Steering, capture, load_steering
from steerlens.saving import saveable

FOLDER = Path(__file__).parent / "golden" / "format_1"
ACTIVATIONS = FOLDER / "activations.safetensors"
LAST = Site(3)
FILES = sorted(path.stem for path in FOLDER.glob("*.safetensors") if path != ACTIVATIONS)
METHODS = {"CAA", "CLAS", "PSR", "ActAdd", "ColdFD", "ColdKernel", "InstructionVector"}
METHODS |= {"AskedAtLast", "LoReFT", "ReFTr1"}
COMBINATORS = {"Scaled", "Only", "Chain", "When", "Together", "Mapped", "Rescale", "Limit"}
PARTS = {"Scope", "Site", "Steering", "FirstAbove"}


@saveable
@dataclass(frozen=True, eq=False)
class FirstAbove:
    """A condition of a user's own: the first dimension is above a threshold."""

    threshold: float

    def __call__(self, activation: torch.Tensor) -> torch.Tensor:
        return activation[..., 0] > self.threshold


def backends_of(name: str) -> tuple[str, ...]:
    """COLD-FD's gradients bear the names of one backend's parameters, and so does their file."""
    own = Path(name).suffix.lstrip(".")
    return (own,) if own else ("bridge", "hooked")


CASES = [(name, backend) for name in FILES for backend in backends_of(name)]
HERE = [(name, backend) for name, backend in CASES if backend in BACKENDS]


@cache
def recorded() -> tuple[dict[str, torch.Tensor], list[Conversation]]:
    with safe_open(ACTIVATIONS, "pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        prompts = json.loads(file.metadata()["prompts"])
    return tensors, [Conversation(user, response=response) for user, response in prompts]


def activations(model: Any, steering: Steering | None) -> torch.Tensor:
    return capture(model, recorded()[1], LAST, steering=steering).at(LAST)


def header(name: str) -> dict[str, Any]:
    with safe_open(FOLDER / f"{name}.safetensors", "pt") as file:
        return json.loads(file.metadata()["steerlens"])


def classes_in(tree: Any) -> set[str]:
    if isinstance(tree, dict):
        named = {tree["class"]} if "class" in tree else set()
        return named.union(*(classes_in(value) for value in tree.values()))
    return set().union(*map(classes_in, tree)) if isinstance(tree, list) else set()


@pytest.mark.parametrize(("name", "backend"), HERE)
def test_a_file_of_format_1_steers_as_it_did_when_it_was_saved(name, backend):
    model = load(FOLDER / "model", backend)
    steering = load_steering(FOLDER / f"{name}.safetensors", model)
    after = activations(model, steering)
    torch.testing.assert_close(after, recorded()[0][f"{name}/{backend}"], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("name", "backend"), HERE)
def test_a_file_of_format_1_keeps_its_origin_when_it_is_saved_again(name, backend, tmp_path):
    model = load(FOLDER / "model", backend)
    steering = load_steering(FOLDER / f"{name}.safetensors", model)
    again = load_steering(steering.save(tmp_path / "again.safetensors"), model)
    with safe_open(tmp_path / "again.safetensors", "pt") as file:
        origin = json.loads(file.metadata()["steerlens"])["origin"]
    assert (origin and origin["model"]) == ((was := header(name)["origin"]) and was["model"])
    assert (origin and origin["data"]) == (was and was["data"])
    torch.testing.assert_close(
        activations(model, again), activations(model, steering), rtol=0, atol=0
    )


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_model_in_the_folder_is_the_one_that_was_steered(backend):
    model = load(FOLDER / "model", backend)
    plain = recorded()[0][f"none/{backend}"]
    torch.testing.assert_close(activations(model, None), plain, rtol=1e-5, atol=1e-5)


@pytest.mark.skipif(len(BACKENDS) < 2, reason="needs both backends")
def test_a_cold_fd_of_format_1_is_still_refused_on_the_other_backend():
    model = load(FOLDER / "model", "bridge")
    steering = load_steering(FOLDER / "cold_fd.hooked.safetensors", model)
    with pytest.raises(ValueError, match="fitted on the other backend"):
        activations(model, steering)


def test_the_files_have_every_class_that_format_1_could_hold():
    classes = set().union(*(classes_in(header(name)["steering"]) for name in FILES))
    assert classes == METHODS | COMBINATORS | PARTS
    assert {header(name)["format"] for name in FILES} == {1}
    assert {header(name)["origin"] is None for name in FILES} == {True, False}


@pytest.mark.parametrize("case", CASES)
def test_every_file_moves_what_it_is_to_move(case):
    # Or else a steering that does nothing could stand for it.
    name, backend = case
    plain, steered = recorded()[0][f"none/{backend}"], recorded()[0][f"{name}/{backend}"]
    assert float((steered - plain).abs().max()) > 1e-3
