"""The picture of each method's page: what the prompt and the method did to each token.

    python scripts/docs/method_pictures.py            all (some minutes)
    python scripts/docs/method_pictures.py psr caa    these

On the demonstration model, "Be positive.", at layer 3, or at all layers where a method is made for
that; each method at the strength with the prompt's own KL on what it was fitted on. The
pictures go to docs/images/methods; they need `pip install "steerlens[export,docs]"`.
"""

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from small_pictures import shrink

import steerlens as sl
from steerlens import analysis
from steerlens.baselines import las

ROOT = Path(__file__).parents[2]
PICTURES = ROOT / "docs" / "images" / "methods"
WIDTH, DPI, LAYER = 760, 105, 3


@dataclass
class Bench:
    """The model, the pairs that are fitted on, and others that are shown."""

    @cached_property
    def model(self) -> Any:
        return sl.load("demo")

    @cached_property
    def train(self) -> list[sl.PromptPair]:
        return sl.benchmark_set.read("positive").pairs("train")[:32]

    @cached_property
    def shown(self) -> list[sl.PromptPair]:
        return sl.benchmark_set.read("positive").pairs("test")[:8]

    @cached_property
    def layers(self) -> range:
        return range(self.model.cfg.n_layers)

    @cached_property
    def sides(self) -> tuple[list[sl.Conversation], list[sl.Conversation]]:
        return answered(self.train)

    @cached_property
    def directions(self) -> dict[sl.Site, Any]:
        found = sl.contrast_directions(self.model, "means", *self.sides, self.layers)
        return {site: at_site.direction for site, at_site in found.items()}


def answered(
    pairs: Sequence[sl.PromptPair],
) -> tuple[list[sl.Conversation], list[sl.Conversation]]:
    """Both sides of each pair with its response."""
    return (
        [replace(pair.prompted, response=pair.response) for pair in pairs],
        [replace(pair.plain, response=pair.response) for pair in pairs],
    )


METHODS: dict[str, Callable[[Bench], sl.Steering]] = {
    "act_add": lambda b: sl.ActAdd.fit(b.model, (" wonderful", " terrible"), LAYER, c=4.0).steering,
    "angular": lambda b: sl.Angular.fit(b.model, b.sides, LAYER, angle=20.0).steering,
    "caa": lambda b: sl.CAA.fit(b.model, b.sides, LAYER).steering.only(sl.response),
    "clas": lambda b: (
        sl.CLAS.fit(
            b.model, b.train[:16], directions=b.directions, validation=b.train[16:]
        ).steering
    ),
    "cold": lambda b: sl.ColdKernel.fit(b.model, b.sides, LAYER, loss="dpo").steering,
    "instruction": lambda b: sl.InstructionVector.fit(b.model, b.train, LAYER).steering,
    "las": lambda b: las.fixed(b.directions),
    "loreft": lambda b: (
        sl.LoReFT.fit(b.model, b.train[:16], LAYER, validation=b.train[16:]).steering
    ),
    "psr": lambda b: sl.PSR.fit(b.model, b.train, b.layers).steering,
    "reft_r1": lambda b: sl.ReFTr1.fit(b.model, b.train, LAYER).steering,
}
"""How each is fitted; LoRA and the gradient step are no steerings and have no picture."""
NAMES = {
    "act_add": "ActAdd",
    "angular": "Angular",
    "clas": "CLAS",
    "cold": "COLD-Kernel",
    "instruction": "InstructionVector",
    "loreft": "LoReFT",
    "reft_r1": "ReFT-r1",
}
"""What a method is called in its picture, where that is not its page in capitals."""


def draw(name: str, bench: Bench) -> Path:
    """Fit a method, give it the prompt's KL, and write what it did to one answer."""
    fitted = METHODS[name](bench)
    found = sl.calibrate(bench.model, fitted, bench.train[:12])
    called = {NAMES.get(name, name.upper()): found.steering}
    table = analysis.coefficients(bench.model, bench.shown, bench.layers, called)
    figure = analysis.coefficient_heatmap(table, example=0, tokens=(0, 40), transposed=True)
    return shrink(analysis.save(figure, PICTURES / f"{name}.png", width=WIDTH, dpi=DPI))


def main(asked: list[str]) -> None:
    unknown = sorted(set(asked) - set(METHODS))
    if unknown:
        raise SystemExit(f"no picture of {unknown}; there are {', '.join(METHODS)}.")
    PICTURES.mkdir(parents=True, exist_ok=True)
    bench = Bench()
    for name in asked or METHODS:
        print(draw(name, bench).relative_to(ROOT), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
