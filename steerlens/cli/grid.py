"""What `steerlens sweep` goes over: methods and files, layers, strengths and scopes."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from steerlens.cli import inputs

if TYPE_CHECKING:
    from steerlens.prompts import PromptPair
    from steerlens.scopes import Scope
    from steerlens.steering import Steering
    from steerlens.types import HookedModel

FITTED = "fitted"
"""The name of a scope: whichever a steering has of its own."""
ENOUGH_TO_SPLIT = 4
"""Questions from which on every second one can be spared for fitting."""


@dataclass(frozen=True)
class Grid:
    """What is swept over, and what the methods that are named are fitted on."""

    method: Annotated[
        list[str] | None,
        typer.Option(
            help="A method that is fitted at every layer of --layers: CAA, InstructionVector, "
            "Angular, DiM (difference of means), PSR, ...; repeatable."
        ),
    ] = None
    layers: Annotated[
        str, typer.Option(help='Layers of --method: "4", "2,4", "2-5", "-1" (the last) or "all".')
    ] = "all"
    steering: Annotated[list[Path] | None, typer.Option(help="A steering file; repeatable.")] = None
    strengths: Annotated[str, typer.Option(help="Numbers with commas between.")] = "0.25,0.5,1,2"
    scopes: Annotated[
        str,
        typer.Option(
            help="The tokens that are steered, with commas between: response,everywhere. fitted "
            "leaves each steering the scope that it has."
        ),
    ] = "response"
    strength_unit: Annotated[
        str,
        typer.Option(
            help="What a strength of 1 is: fitted (as the steering was fitted), or kl (as much KL "
            "as the instruction of the pairs, found for each method, layer and scope)."
        ),
    ] = FITTED
    train: Annotated[
        Path | None,
        typer.Option(
            help="Other pairs, as those of --pairs, that --method is fitted on. Without it every "
            "second question of --pairs is for fitting and is not measured."
        ),
    ] = None
    contrasts: Annotated[
        Path | None,
        typer.Option(
            help='JSON Lines of {"positive": ..., "negative": ...} for the methods that take two '
            "sides; by default the prompted and the plain side of the pairs."
        ),
    ] = None

    def __post_init__(self) -> None:
        if not self.method and not self.steering:
            raise ValueError(
                "Nothing was given to sweep over: --method CAA (fitted at each layer), or "
                "--steering FILE; both are repeatable."
            )
        if self.strength_unit not in (FITTED, "kl"):
            raise ValueError(f"--strength-unit is fitted or kl; found {self.strength_unit!r}.")

    @property
    def numbers(self) -> tuple[float, ...]:
        """The strengths as numbers; ValueError where they are none."""
        from steerlens.analysis.measures.sweep_cells import require_strengths  # pyright: ignore[reportMissingImports]

        try:
            return require_strengths([float(part) for part in self.strengths.split(",")])
        except ValueError as error:
            raise ValueError(
                "--strengths is finite numbers with commas between them, each once: "
                f"0.25,0.5,1,2; found {self.strengths!r}."
            ) from error

    @property
    def places(self) -> "list[Scope | None]":
        """The scopes; ValueError for a name that is none, or one that is there twice."""
        from steerlens.scopes import scope_named

        names = [name.strip() for name in _split(self.scopes)]
        if len(set(names)) < len(names):
            raise ValueError(f"--scopes has one twice: {self.scopes}. Leave one out.")
        return [None if name == FITTED else scope_named(name) for name in names]

    def require(self) -> None:
        """Raise an error where an option is wrong; nothing is loaded."""
        from steerlens.analysis.measures.by_layer import require_method  # pyright: ignore[reportMissingImports]

        _ = self.numbers, self.places
        for method in self.method or ():
            require_method(method)
        inputs.require_steering_files(self.steering or ())

    def lines(self, pairs: Path) -> tuple[list[Any], list[Any]]:
        """The lines that are measured, and those that methods are fitted on."""
        from steerlens.cli.data import read_contrasts, read_prompt_pairs

        lines = list(read_prompt_pairs(pairs))
        if self.contrasts is not None:
            read_contrasts(self.contrasts)
        if self.train is not None:
            return lines, list(read_prompt_pairs(self.train))
        if not self.fits_on_pairs:
            return lines, []
        questions = list(dict.fromkeys(inputs.question_of(line) for line in lines))
        if len(questions) < ENOUGH_TO_SPLIT:
            raise ValueError(
                f"{pairs} has {len(questions)} question{'s' * (len(questions) != 1)}, and without "
                f"--train every second one is for fitting --method: that takes {ENOUGH_TO_SPLIT}. "
                "Give more, or --train FILE with other pairs."
            )
        spare = set(questions[1::2])
        fitting = [line for line in lines if inputs.question_of(line) in spare]
        return [line for line in lines if inputs.question_of(line) not in spare], fitting

    @property
    def fits_on_pairs(self) -> bool:
        """Whether a method is fitted on the pairs, and not on --contrasts."""
        from steerlens.analysis.measures.by_layer import takes_sides  # pyright: ignore[reportMissingImports]

        apart = self.contrasts is not None
        return any(not (apart and takes_sides(method)) for method in self.method or ())

    def of_files(self, model: "HookedModel", fitted_on: str | None) -> "dict[str, Steering]":
        """The steerings of the files; ValueError too for a layer that the model does not have."""
        inputs.layers_of(self.layers, model.cfg.n_layers)
        return inputs.steerings_of(self.steering or (), model, fitted_on)

    def steerings(
        self,
        model: "HookedModel",
        training: "Sequence[PromptPair]",
        of_files: "dict[str, Steering]",
    ) -> "dict[str, Steering]":
        """Those of the files, and those that are fitted here, one for each layer."""
        from steerlens import analysis
        from steerlens.analysis.measures.by_layer import takes_sides  # pyright: ignore[reportMissingImports]
        from steerlens.cli.data import read_contrasts

        found = dict(of_files)
        layers = inputs.layers_of(self.layers, model.cfg.n_layers)
        sides = None if self.contrasts is None else read_contrasts(self.contrasts).sides(model)
        for method in self.method or ():
            data = sides if sides is not None and takes_sides(method) else training
            fitted = analysis.at_layers(model, data, method, layers)
            twice = [name for name in fitted if name in found]
            if twice:
                raise ValueError(f"{twice[0]} is there twice. Leave one --method or file out.")
            found |= fitted
        return found


def _split(text: str) -> list[str]:
    """At commas that are not inside brackets: positions(2, 5) is one."""
    parts, depth = [""], 0
    for letter in text:
        depth += (letter in "([") - (letter in ")]")
        if letter == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += letter
    return parts
