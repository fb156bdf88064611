"""`steerlens explore`: prompt and steering files side by side, as one page to click through."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from steerlens.cli import inputs, output
from steerlens.cli.grouped import grouped
from steerlens.cli.options import (
    SINK_TIMES,
    AsJson,
    Backend,
    Baseline,
    Device,
    Dtype,
    Equivalent,
    FittedOn,
    MaxNewTokens,
    Model,
    Out,
    Pairs,
    Seed,
    Sinks,
    Templating,
)


@dataclass(frozen=True)
class Explored(Templating):
    """The model, the grid of strengths and texts, and what the prompt is compared with."""

    model: Model = "demo"
    fitted_on: FittedOn = None
    strengths: Annotated[
        str, typer.Option(help="The strengths to choose from, 1 as fitted: 0,0.5,1,2,4.")
    ] = "0,0.5,1,2,4"
    texts: Annotated[
        int,
        typer.Option(
            help="How many of the pairs are shown, the first ones; 0 for all. The others still "
            "take part in the direction."
        ),
    ] = 2
    equivalent: Equivalent = None
    baseline: Baseline = "template"
    completions: Annotated[
        bool, typer.Option(help="Whether every method writes at every strength, which takes long.")
    ] = True
    lens: Annotated[
        bool, typer.Option(help="Whether the logit lens of every change is in the page.")
    ] = True
    sinks: Sinks = SINK_TIMES
    seed: Seed = 0
    temperature: Annotated[float, typer.Option(help="0 takes the likeliest token.")] = 0.8
    max_new_tokens: MaxNewTokens = 60
    backend: Backend = "auto"
    device: Device = "cpu"
    dtype: Dtype = "float32"
    as_json: AsJson = False

    def __post_init__(self) -> None:
        if self.texts < 0:
            raise ValueError(
                f"--texts is how many of the pairs are shown, 0 for all; found {self.texts}."
            )

    @property
    def numbers(self) -> tuple[float, ...]:
        """The strengths as numbers."""
        try:
            found = tuple(float(part) for part in self.strengths.split(","))
        except ValueError:
            found = (math.nan,)
        if not all(map(math.isfinite, found)):
            raise ValueError(
                f"--strengths is numbers with commas between them, 0,0.5,1,2,4; found "
                f"{self.strengths!r}."
            )
        return found

    def explorer(self, pairs: Path, steering: Sequence[Path]) -> Any:
        """The explorer of these files; bad input is an error before any work."""
        from steerlens.analysis import explore  # pyright: ignore[reportAttributeAccessIssue]
        from steerlens.analysis.explorer.methods import families  # pyright: ignore[reportMissingImports]
        from steerlens.analysis.measures.plain_side import require_baseline  # pyright: ignore[reportMissingImports]
        from steerlens.cli.data import read_prompt_pairs
        from steerlens.sampling import Sampling

        lines, strengths = read_prompt_pairs(pairs), self.numbers
        Sampling(self.max_new_tokens, self.temperature, seed=self.seed)  # its checks
        require_baseline(self.baseline)
        inputs.require_steering_files(steering)
        model = inputs.load(self.model, self.backend, self.device, self.template(), self.dtype)
        steerings = families(inputs.steerings_of(steering, model, self.fitted_on))
        inputs.require_room(model, lines, self.max_new_tokens, self.equivalent or ())
        return explore(
            model,
            steerings=steerings,
            pairs=inputs.answered(model, lines, self.seed, self.max_new_tokens),
            strengths=strengths,
            max_new_tokens=self.max_new_tokens,
            temperature=self.temperature,
            seed=self.seed,
            baseline=self.baseline,
            sinks=self.sinks,
            equivalents=self.equivalent or (),
        )


@grouped
def explore(
    pairs: Pairs,
    steering: Annotated[
        list[Path],
        typer.Option(
            help="A steering file; repeatable. Files of one method at several layers, whose names "
            "are alike but for the number, are one method whose layer can be chosen."
        ),
    ],
    out: Out,
    explored: Explored,
) -> None:
    """Prompt and steering files on the same tokens, as one HTML page to click through.

    Method, layer, strength and text can be chosen, and a token leads to its place in every panel.
    The page needs no Python and no network. A line of the pairs file without a response is answered
    by the prompted model first.
    """
    explorer = explored.explorer(pairs, steering)
    number = len(explorer.study.pairs)
    shown = range(min(explored.texts or number, number))
    methods = [method.name for method in explorer.study.methods[1:]]
    content = {"page": str(out), "texts": len(shown), "methods": methods}
    told = output.told(content, explored.as_json, f"The page is at {out}")
    explorer.save(out, shown, completions=explored.completions, lens=explored.lens)
    output.show(told)
