"""`steerlens fit clas`."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, get_args

import typer

from steerlens.cli import inputs, output
from steerlens.cli.fitting import scores_of
from steerlens.cli.options import (
    AsJson,
    Backend,
    CompletedPairs,
    Device,
    Layers,
    MaxNewTokens,
    Model,
    Out,
)

if TYPE_CHECKING:
    from steerlens.prompts import Conversation, PromptPair
    from steerlens.sites import Site
    from steerlens.types import Direction as Vector
    from steerlens.types import HookedModel


def fit_clas(
    pairs: CompletedPairs,
    out: Out,
    validation: Annotated[
        Path | None, typer.Option(help="Pairs that choose the step; default: the last half.")
    ] = None,
    direction: Annotated[
        str,
        typer.Option(
            help="rfm, ridge, logistic, means, pca, random (from the prompts with and without the "
            "instruction), or a file of `fit direction`."
        ),
    ] = "rfm",
    layers: Layers = "all",
    kind: Annotated[
        str, typer.Option(help="contextual; layerwise or single: the same at all tokens.")
    ] = "contextual",
    learn_directions: Annotated[
        bool, typer.Option(help="Learn the directions too, from random ones.")
    ] = False,
    steps: Annotated[int, typer.Option(help="Updates, each on all pairs.")] = 8,
    limit: Annotated[float | None, typer.Option(help="The most that |alpha| may be.")] = None,
    scope: Annotated[str, typer.Option(help="Scope that is steered.")] = "everywhere",
    seed: Annotated[
        int,
        typer.Option(help="Seed of the order of the pairs, random directions and sampling noise."),
    ] = 0,
    max_new_tokens: MaxNewTokens = 64,
    model: Model = "demo",
    backend: Backend = "auto",
    device: Device = "cpu",
    as_json: AsJson = False,
) -> None:
    """CLAS: a strength for each token, read off its activation, from about ten completions.

    A line of the pairs file without a response is answered by the prompted model first; the
    instruction is for that, and for directions, and otherwise not needed.
    """
    from steerlens.checks import require_choice
    from steerlens.jsonl import read_prompt_pairs
    from steerlens.methods.clas import CLAS
    from steerlens.methods.clas import Kind as Strengths
    from steerlens.scopes import scope_named

    require_choice("kind", kind, get_args(Strengths))
    steered = scope_named(scope)
    asked = read_prompt_pairs(pairs, system_optional=True)
    held = [] if validation is None else read_prompt_pairs(validation, system_optional=True)
    if len(asked) + len(held) < 2:
        raise ValueError("One pair cannot be fitted and validated on. Give more, or --validation.")
    fitted = len(asked) if held else -(-len(asked) // 2)
    if not learn_directions:
        _require_instructions(pairs, asked[:fitted], direction)
    loaded = inputs.load(model, backend, device)
    inputs.require_folder_of(out)
    template = inputs.template_of(loaded)
    directions, shown = _directions(
        loaded, direction, asked[:fitted], layers, seed, template, learn_directions
    )
    answered = inputs.answered(loaded, [*asked, *held], seed, max_new_tokens, template)
    fit = CLAS.fit(
        loaded,
        answered[:fitted],
        answered[fitted:],
        directions,
        kind=kind,  # pyright: ignore[reportArgumentType]  (checked above)
        learn_directions=learn_directions,
        steps=steps,
        limit=limit,
        scope=steered,
        template=template,
        seed=seed,
        progress=not as_json,
    )
    fit.steering.save(out)
    kept = fit.trained.best_epoch
    first, best = (fit.trained.rows[step]["validation_loss"] for step in (0, kept))
    found = {"file": str(out), "kind": kind, "validation_loss": [first, best], "step": kept}
    said = (
        f"Wrote {out}: {kind}, {fitted} pairs, validation loss {first:.3g} -> {best:.3g} at step "
        f"{kept} of {steps}{shown}"
    )
    if kept == 0:
        said += "\nNo step was better than the model itself, so this steering does nothing."
    output.say(found, as_json, said)


def _require_instructions(
    path: Path, asked: "Sequence[PromptPair | Conversation]", source: str
) -> None:
    """Raise ValueError where directions are to come from instructions that are not there."""
    from steerlens.directions.labelled import Kind
    from steerlens.jsonl import line_numbers
    from steerlens.prompts import PromptPair

    if source == "random" or source not in get_args(Kind):
        return
    for number, line in zip(line_numbers(path), asked, strict=False):
        if isinstance(line, PromptPair) and line.plain == line.prompted:
            raise ValueError(
                f'{path}, line {number}: without an instruction ("system") --direction {source} '
                "has no prompts to tell apart. Give each line one, or take --direction random, "
                "--learn-directions, or --direction FILE (of `steerlens fit direction`)."
            )


def _directions(
    model: "HookedModel",
    source: str,
    asked: "Sequence[PromptPair | Conversation]",
    layers: str,
    seed: int,
    template: str | None,
    learnt: bool,
) -> "tuple[dict[Site, Vector], str]":
    """The directions of a file or of the lines' own prompts, and what to say about them."""
    from steerlens.cli.psr import directions
    from steerlens.directions.labelled import Kind, contrast_directions
    from steerlens.prompts import Conversation, PromptPair

    places = inputs.layers_of(layers, model.cfg.n_layers)
    if source not in get_args(Kind):
        if learnt:
            raise ValueError(
                f"--learn-directions begins with random ones and would ignore {source}. Leave one "
                "of them out."
            )
        held = directions(Path(source), model, places)
        several = [
            f"{len(vectors)} at {place}" for place, vectors in held.items() if len(vectors) > 1
        ]
        if several:
            raise ValueError(
                f"CLAS has one direction a layer; {source} holds {', '.join(several)}."
            )
        return {place: vectors[0] for place, vectors in held.items()}, ""
    found = contrast_directions(
        "random" if learnt else source,  # pyright: ignore[reportArgumentType]  (checked above)
        model,
        [line.prompted if isinstance(line, PromptPair) else line for line in asked],
        [line.plain if isinstance(line, PromptPair) else Conversation(line.user) for line in asked],
        places,
        template=template,
        seed=seed,
    )
    shown = "" if learnt or source == "random" else scores_of(found)[1]
    return {place: one.direction for place, one in found.items()}, shown
