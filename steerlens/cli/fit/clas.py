"""`steerlens fit clas`."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args

import typer

from steerlens.cli import inputs
from steerlens.cli.fit.directions import stored_directions
from steerlens.cli.fit.outcome import finish, scores_of, validation_losses
from steerlens.cli.grouped import grouped
from steerlens.cli.options import Layers, MaxNewTokens, Out, RunOptions, Steered, Strength

if TYPE_CHECKING:
    from steerlens.prompts import Conversation, PromptPair
    from steerlens.sites import Site
    from steerlens.types import Direction as Vector
    from steerlens.types import HookedModel

    Line = PromptPair | Conversation


@dataclass(frozen=True)
class Files:
    """The pairs that are fitted and validated on, and the file to write."""

    pairs: Annotated[
        Path,
        typer.Option(
            "--pairs",
            help='JSON Lines of {"user": ..., "system": ..., "response": ...}; a line with a '
            'response needs no "system" if --direction is random or a file, or with '
            "--learn-directions.",
        ),
    ]
    out: Out
    validation: Annotated[
        Path | None, typer.Option(help="Pairs that choose the step; default: the last half.")
    ] = None

    def read(self) -> "tuple[Sequence[Line], Sequence[Line]]":
        """The lines to fit on, and those to validate on."""
        from steerlens.cli.data import read_prompt_pairs

        lines = read_prompt_pairs(self.pairs, system_optional=True)
        if self.validation is not None:
            return lines, read_prompt_pairs(self.validation, system_optional=True)
        if len(lines) < 2:
            raise ValueError(
                "One pair cannot be fitted and validated on. Give more, or --validation."
            )
        half = -(-len(lines) // 2)
        return lines[:half], lines[half:]


@dataclass(frozen=True)
class Strengths:
    """Which strengths are learnt, how, and where they act."""

    kind: Annotated[
        str, typer.Option(help="contextual; layerwise or single: the same at all tokens.")
    ] = "contextual"
    learn_directions: Annotated[
        bool, typer.Option(help="Learn the directions too, from random ones.")
    ] = False
    steps: Annotated[int, typer.Option(help="Updates, each on all pairs.")] = 8
    limit: Annotated[float | None, typer.Option(help="The most that |alpha| may be.")] = None
    scope: Steered = "everywhere"
    seed: Annotated[
        int,
        typer.Option(help="Seed of the order of the pairs, random directions and sampling noise."),
    ] = 0

    def options(self) -> dict[str, Any]:
        """These options as `CLAS.fit` takes them."""
        from steerlens.checks import require_choice
        from steerlens.methods.clas import Kind
        from steerlens.scopes import scope_named
        from steerlens.training.checks import require_limit
        from steerlens.training.schedule import Schedule

        require_choice("kind", self.kind, get_args(Kind))
        require_limit(self.limit)
        return {
            "kind": self.kind,
            "learn_directions": self.learn_directions,
            "limit": self.limit,
            "scope": scope_named(self.scope),
            "schedule": Schedule.full_batch(self.steps, seed=self.seed),
        }


@grouped
def fit_clas(
    *,
    files: Files,
    direction: Annotated[
        str,
        typer.Option(
            help="rfm, ridge, logistic, means, pca, random (from the prompts with and without the "
            "instruction), or a file of `fit direction`."
        ),
    ] = "rfm",
    layers: Layers = "all",
    strengths: Strengths,
    max_new_tokens: MaxNewTokens = 64,
    strength: Strength,
    run: RunOptions,
) -> None:
    """CLAS: a strength for each token, read off its activation, from about ten completions.

    A line of the pairs file without a response is answered by the prompted model first; the
    instruction is for that, and for directions, and otherwise not needed.
    """
    from steerlens.methods.clas import CLAS

    options = strengths.options()
    fitted, held_out = files.read()
    if not strengths.learn_directions:
        _require_instructions(files.pairs, fitted, direction)
    model, lines = inputs.load(*run.place), [*fitted, *held_out]
    sites = inputs.layers_of(layers, model.cfg.n_layers)
    inputs.require_room(model, lines, max_new_tokens)
    directions, shown = _directions(model, direction, fitted, sites, strengths)
    answered = inputs.answered(model, lines, strengths.seed, max_new_tokens)
    pairs, validation = answered[: len(fitted)], answered[len(fitted) :]
    options |= {"directions": directions, "validation": validation, "progress": not run.as_json}
    fit = CLAS.fit(model, pairs, **options)
    out = files.out
    made = strength.of_fit(model, fit.steering, pairs, out, strengths.seed)
    (first, best), kept = validation_losses(fit.trained)
    text = (
        f"Wrote {out}{made[2]}: {strengths.kind}, {len(pairs)} pairs, validation loss "
        f"{first:.3g} -> {best:.3g} at step {kept} of {strengths.steps}{shown}"
    )
    content = {"file": str(out), "kind": strengths.kind, **made[1]}
    content |= {"validation_loss": [first, best], "step": kept}
    finish(made[0], out, content, run.as_json, text + NOTHING * (kept == 0))


NOTHING = "\nNo step was better than the model itself, so this steering does nothing."


def _require_instructions(path: Path, lines: "Sequence[Line]", source: str) -> None:
    """Raise ValueError where directions are to come from instructions that are not there."""
    from steerlens.cli.data import numbers_of
    from steerlens.directions.labelled import Kind
    from steerlens.prompts import PromptPair

    if source == "random" or source not in get_args(Kind):
        return
    for number, line in zip(numbers_of(path), lines, strict=False):
        if isinstance(line, PromptPair) and line.plain == line.prompted:
            raise ValueError(
                f'{path}, line {number}: without an instruction ("system") --direction {source} '
                "has no prompts to tell apart. Give each line one, or take --direction random, "
                "--learn-directions, or --direction FILE (of `steerlens fit direction`)."
            )


def _directions(
    model: "HookedModel",
    source: str,
    lines: "Sequence[Line]",
    layers: Sequence[int],
    strengths: Strengths,
) -> "tuple[dict[Site, Vector], str]":
    """The directions of a file or of the lines' own prompts, and what to say about them."""
    from steerlens.directions.labelled import Kind, contrast_directions
    from steerlens.prompts import PromptPair

    learnt = strengths.learn_directions
    if source not in get_args(Kind):
        if learnt:
            raise ValueError(
                f"--learn-directions begins with random ones and would ignore {source}. Leave one "
                "of them out."
            )
        return _single(source, stored_directions(Path(source), model, layers)), ""
    directions = contrast_directions(
        model,
        "random" if learnt else source,  # pyright: ignore[reportArgumentType]  (checked above)
        [line.prompted if isinstance(line, PromptPair) else line for line in lines],
        [line.plain if isinstance(line, PromptPair) else line.without_system() for line in lines],
        layers,
        seed=strengths.seed,
    )
    shown = "" if learnt or source == "random" else scores_of(directions)[1]
    return {site: v.direction for site, v in directions.items()}, shown


def _single(source: str, vectors: "dict[Site, Any]") -> "dict[Site, Vector]":
    """The one vector of each site; ValueError where there are several."""
    several = [f"{len(rows)} at {site}" for site, rows in vectors.items() if len(rows) > 1]
    if several:
        raise ValueError(f"CLAS has one direction a layer; {source} holds {', '.join(several)}.")
    return {site: rows[0] for site, rows in vectors.items()}
