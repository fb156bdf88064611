"""`steerlens fit act-add` and `caa`: vectors that are differences of prompts."""

from typing import Annotated

import typer

from steerlens.cli import inputs
from steerlens.cli.fit.outcome import finish
from steerlens.cli.grouped import grouped
from steerlens.cli.options import (
    QUESTIONS,
    SINK_TIMES,
    Contrasts,
    Out,
    Read,
    RunOptions,
    Sinks,
    Steered,
    Strength,
)


@grouped
def fit_act_add(
    *,
    positive: Annotated[str, typer.Option(help="The prompt to steer towards.")],
    out: Out,
    layer: Annotated[int, typer.Option(help="The block whose input is read and written.")],
    negative: Annotated[str, typer.Option(help="The prompt to steer away from.")] = "",
    coefficient: Annotated[float, typer.Option(help="The paper's c.")] = 1.0,
    strength: Strength,
    run: RunOptions,
) -> None:
    """ActAdd: two prompts make a vector for each position."""
    from steerlens.conversations import Conversation
    from steerlens.methods.act_add import ActAdd

    model = inputs.load(*run.place)
    fit = ActAdd.fit(model, (positive, negative), layer, c=coefficient)
    questions = [Conversation(question) for question in QUESTIONS]
    steering, found, text = strength.of_fit(model, fit.steering, questions, out)
    content = {"file": str(out), "method": "ActAdd", "layer": layer, **found}
    finish(steering, out, content, run.as_json, f"Wrote {out}{text}")


@grouped
def fit_caa(
    *,
    pairs: Contrasts,
    out: Out,
    layer: Annotated[int, typer.Option(help="The block whose output is read and written.")],
    read: Read = "",
    scope: Steered = "response",
    sinks: Sinks = SINK_TIMES,
    strength: Strength,
    run: RunOptions,
) -> None:
    """CAA: the mean difference over contrast pairs, added at every position of the scope."""
    from steerlens.cli.data import read_contrasts
    from steerlens.methods.caa import CAA
    from steerlens.scopes import scope_named

    contrasts = read_contrasts(pairs)
    reading = scope_named(read) if read else None
    steered = scope_named(scope)
    model = inputs.load(*run.place)
    positive, negative = contrasts.sides(model)
    fit = CAA.fit(model, (positive, negative), layer, read=reading, sinks=sinks)
    steering, found, text = strength.of_fit(model, fit.steering.only(steered), negative, out)
    left_out = sum(fit.sinks.values())
    content = {"file": str(out), "method": "CAA", "layer": layer, "pairs": len(positive), **found}
    content["sinks"] = left_out
    some = f"; {left_out} tokens left out as sinks" if left_out else ""
    text = f"Wrote {out} (from {len(positive)} pairs{some}){text}"
    finish(steering, out, content, run.as_json, text)
