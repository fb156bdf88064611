"""Steering files of format 1, as steerlens wrote them at commit 85fdf9a, and what they did there.

    git worktree add ../steerlens-85fdf9a 85fdf9a
    PYTHONPATH=../steerlens-85fdf9a:../steerlens-85fdf9a/tests \
        python scripts/golden/format_1.py tests/golden/format_1

It needs the code of that commit, with TransformerLens 3.9 for both backends, and is kept to show
how the data came to be: later code must read these files, and cannot write them.
"""

import json
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from tiny_models import write_folder

import steerlens
from steerlens import (
    CAA,
    CLAS,
    PSR,
    ActAdd,
    Chain,
    ColdFD,
    ColdKernel,
    Conversation,
    InstructionVector,
    LoReFT,
    Only,
    PromptPair,
    ReFTr1,
    Scaled,
    Site,
    When,
    at,
    capture,
    everywhere,
    only,
    response,
    scaled,
)
from steerlens.methods.loreft import orthonormal
from steerlens.saving import origin_of, save_steering, saveable
from steerlens.steering import Steering, Together

D_MODEL, LAST = 8, 3
PROMPTS = (
    ("The dog ran to the house", " and the cat sat on the mat"),
    ("What is it?", " It was a good day."),
)
READ = [Conversation(user, response=said) for user, said in PROMPTS]
POSITIVE, NEGATIVE = (
    [Conversation("What is it?", response=first), Conversation("I", response=second)]
    for first, second in ((" A good day.", " love"), (" I hate", " not"))
)
PAIRS = [
    PromptPair.with_system(text, "You are kind.", " A good day.")
    for text in ("What is it?", "The dog ran")
]


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).standard_normal(shape)).float()


V, U, ROWS = random(D_MODEL, seed=1), random(D_MODEL, seed=2), random(3, D_MODEL, seed=3)
SCOPES = ("everywhere", "prompt", "response", "question_and_response", "generated", "last")
GATES = torch.tensor([2.0, -4.0, 3.0])


@saveable
@dataclass(frozen=True, eq=False)
class FirstAbove:
    """A condition of a user's own: the first dimension is above a threshold."""

    threshold: float

    def __call__(self, activation: torch.Tensor) -> torch.Tensor:
        return activation[..., 0] > self.threshold


def kernel(name: str, **options: Any) -> Callable[[Any], Any]:
    return lambda model: ColdKernel.fit(model, 1, *sides(options), kernel=name, eta=0.5, **options)


def sides(options: dict[str, Any]) -> list[list[Conversation]]:
    """The examples that the loss looks at."""
    return [POSITIVE] if options.get("loss") == "sft" else [POSITIVE, NEGATIVE]


def direct(where: int | Site, steer: Any) -> Callable[[Any], Any]:
    return lambda model: at(where, steer)


def with_origin(model: Any) -> Steering:
    return Steering(at(1, CAA(V)).placed, origin_of(model, seed=7, data=[torch.arange(3)]))


def each_scope(model: Any) -> Steering:
    scopes = [steerlens.scope_named(name) for name in SCOPES]
    scopes += [steerlens.positions(2, 5), steerlens.positions(None, 4).without_bos]
    steers = tuple(Only(CAA((n + 1) * V.roll(n)), scope) for n, scope in enumerate(scopes))
    return at(1, Chain(steers)) + at(2, CAA(U)).only(response.without_bos)


PLAIN: dict[str, Callable[[Any], Any]] = {
    "caa": direct(1, CAA(V)),
    "caa_bfloat16": direct(1, CAA(V.bfloat16())),
    "caa_fitted": lambda model: CAA.from_prompts(model, POSITIVE, NEGATIVE, 1),
    "caa_with_origin": with_origin,
    "act_add": direct(Site(1, "resid_pre"), ActAdd(ROWS, c=1.5)),
    "act_add_middle": direct(Site(1, "resid_pre"), ActAdd(ROWS, alignment="mid", dims=(2, 6))),
    "act_add_back": direct(Site(1, "resid_pre"), ActAdd(ROWS, c=-2.0, alignment="back")),
    "act_add_fitted": lambda model: ActAdd.fit(model, "love", "hate", 2, c=2.0),
    "psr": direct(1, PSR(0.05 * ROWS, GATES, 0.3 * ROWS.flip(0), alpha=0.8)),
    "psr_constant": direct(1, replace(PSR.constant(V), alpha=0.9, b_m=-0.5)),
    "clas": direct(1, CLAS(0.05 * ROWS, 0.1 * GATES, 0.3 * ROWS.flip(0))),
    "clas_limited": direct(1, CLAS(0.05 * ROWS, 0.1 * GATES, 0.3 * ROWS.flip(0), limit=0.4)),
    "loreft": direct(1, LoReFT(orthonormal(ROWS), 0.1 * ROWS, 0.5 * GATES)),
    "reft_r1": direct(1, ReFTr1(V / V.norm(), 3.5)),
    "instruction_vector": direct(1, InstructionVector(V / V.norm(), 4.5)),
    "instruction_vector_fitted": lambda model: InstructionVector.fit(model, PAIRS, 2).adjust,
    "cold_kernel_unit": kernel("unit"),
    "cold_kernel_dot": kernel("dot", scope=everywhere),
    "cold_kernel_cosine": kernel("cosine"),
    "cold_kernel_rbf": kernel("rbf", loss="sft"),
    "cold_kernel_released": kernel("cosine", compat="released"),
    "scaled": direct(1, Scaled(CAA(V), -0.7)),
    "only": direct(1, Only(CAA(V), response.without_bos)),
    "chain": direct(1, Chain((CAA(V), Scaled(ReFTr1(U / U.norm(), 2.0), 0.5)))),
    "when": direct(1, When(CAA(V), FirstAbove(1 / 3))),
    "each_scope": each_scope,
    "several_sites": lambda model: (
        at(0, CAA(V)).scaled(0.5)
        + at(Site(2, "resid_pre"), PSR(0.05 * ROWS, GATES, ROWS)).only(response)
        + at(Site(1, "attn_out"), CAA(U))
        + at(Site(2, "mlp_out"), CAA(V - U))
        + at(0, CAA(U))
    ),
}


def cold_files(model: Any) -> dict[str, Any]:
    """COLD-FD's gradients bear the names of one backend's parameters.

    To keep files small, all but one hold those of attention alone.
    """
    whole = fitted(model, 1, scope=everywhere)
    single = of_attention(fitted(model, 1, loss="sft"))
    several = of_attention(fitted(model, [Site(0), Site(2, "resid_pre")], scope=everywhere))
    caa = CAA.from_prompts(model, POSITIVE, NEGATIVE, 1)
    bare = replace(single, origin=None)
    return {
        "cold_fd": whole,
        "cold_fd_on_prompt": single,
        "cold_fd_several_sites": several,
        "cold_fd_difference": replace(single, mode="fd", eps=0.05),
        "cold_fd_central": replace(several, mode="fd", eps=0.05, central=True),
        "cold_fd_without_origin": bare,
        "together": Together((replace(single, scope=everywhere), caa)),
        "together_other_way_round": caa.only(response) + single,
        "together_of_three": at(1, CAA(V)) + bare + several,
        "scaled_cold": scaled(single, -0.6),
        "only_cold": only(replace(single, scope=everywhere), response),
        "scaled_only_cold": scaled(only(several, steerlens.positions(1, 6)), 0.5),
        "only_scaled_cold": only(scaled(bare, 2.0), steerlens.last),
        "scaled_together": scaled(single + caa, 0.7),
        "only_together": only(caa + several, steerlens.generated),
        "together_of_scaled": scaled(several, 0.5) + caa,
    }


def fitted(model: Any, where: Any, **options: Any) -> ColdFD:
    return ColdFD.fit(model, where, *sides(options), eta=0.03, **options)


def of_attention(cold: ColdFD) -> ColdFD:
    kept = [n for n, name in enumerate(cold.names) if "attn" in name]
    names, gradients = cold.names, cold.gradients
    return replace(
        cold,
        names=tuple(names[n] for n in kept),
        gradients=tuple(gradients[n] for n in kept),
    )


def main(folder: Path) -> None:
    write_folder(folder / "model", "gpt2", seed=0, d_model=D_MODEL)
    os.chdir(folder)  # the files name the model as it was loaded: by no path
    models = {backend: steerlens.load("model", backend=backend) for backend in ("bridge", "hooked")}
    recorded: dict[str, torch.Tensor] = {}
    for backend, model in models.items():
        recorded[f"none/{backend}"] = read(model, None)
    for name, build in PLAIN.items():
        steering = build(models["bridge"])
        owner = None if name == "caa" else models["bridge"]
        save_steering(steering, f"{name}.safetensors", owner)
        for backend, model in models.items():
            recorded[f"{name}/{backend}"] = read(model, steering)
    for backend, model in models.items():
        for name, steering in cold_files(model).items():
            bare = name == "cold_fd_without_origin"
            save_steering(steering, f"{name}.{backend}.safetensors", None if bare else model)
            recorded[f"{name}.{backend}/{backend}"] = read(model, steering)
    save_file(recorded, "activations.safetensors", {"prompts": json.dumps(PROMPTS)})


def read(model: Any, steering: Any) -> torch.Tensor:
    """The activations at the last block, both prompts in one padded pass, by row and position."""
    return capture(model, READ, LAST, steering=steering).at(LAST).contiguous()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
