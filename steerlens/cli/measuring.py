"""`steerlens compare` and `faithfulness`."""

import warnings
from pathlib import Path
from typing import Annotated

import typer

from steerlens.cli import inputs, output
from steerlens.cli.options import (
    AsJson,
    Backend,
    Device,
    Equivalent,
    MaxNewTokens,
    Model,
    Neutral,
    Out,
    Pairs,
    Seed,
)


def compare(
    pairs: Pairs,
    steering: Annotated[list[Path], typer.Option(help="A steering file; repeatable.")],
    out: Out,
    model: Model = "demo",
    equivalent: Equivalent = None,
    neutral: Neutral = None,
    seed: Seed = 0,
    max_new_tokens: MaxNewTokens = 64,
    backend: Backend = "auto",
    device: Device = "cpu",
    as_json: AsJson = False,
) -> None:
    """Prompt steering against steering files, per token and per layer, as an HTML report.

    A line of the pairs file without a response is answered by the prompted model first.
    """
    from steerlens.analysis import compare as run
    from steerlens.analysis import comparison_report as report
    from steerlens.analysis import provenance as made

    loaded, answered, steerings = inputs.measurable(
        pairs, steering, out, (model, backend, device), seed, max_new_tokens
    )
    comparison = run(
        loaded,
        answered,
        steerings,
        equivalents=equivalent or (),
        neutral=neutral or (),
        seed=seed,
        template=inputs.template_of(loaded),
    )
    page = report(
        comparison,
        made(loaded, comparison, "steerlens compare"),
        title="Prompt steering and activation steering, compared",
        intro=f"{pairs.name}: {len(answered)} pairs on the model {model}.",
    )
    page.write(out)
    faith, shift = comparison.faithfulness, comparison.logit_shift
    still = shift.loc[~shift["moved"], "method"].tolist()
    if still:
        warnings.warn(f"These moved no logit: {', '.join(still)}.", stacklevel=1)
    found = {
        "report": str(out),
        "faithfulness": output.records(faith),
        "logit_shift": output.records(shift),
    }
    output.say(found, as_json, f"The report is at {out}")


def faithfulness(
    pairs: Pairs,
    out: Out,
    steering: Annotated[
        list[Path] | None, typer.Option(help="A steering file; repeatable.")
    ] = None,
    model: Model = "demo",
    equivalent: Equivalent = None,
    neutral: Neutral = None,
    seed: Seed = 0,
    max_new_tokens: MaxNewTokens = 64,
    backend: Backend = "auto",
    device: Device = "cpu",
    as_json: AsJson = False,
) -> None:
    """How unevenly the prompt pushes the tokens, and which steering files are faithful to it.

    A line of the pairs file without a response is answered by the prompted model first.
    """
    from steerlens.analysis import faithfulness_report as report
    from steerlens.analysis import faithfulness_study as study
    from steerlens.analysis import provenance as made

    loaded, answered, steerings = inputs.measurable(
        pairs, steering or [], out, (model, backend, device), seed, max_new_tokens
    )
    found = study(
        loaded,
        answered,
        steerings,
        equivalents=equivalent or (),
        neutral=neutral or (),
        seed=seed,
        template=inputs.template_of(loaded),
    )
    page = report(
        found,
        made(loaded, found, "steerlens faithfulness"),
        "What the prompt does, and who does the same",
        f"{pairs.name}: {len(answered)} pairs on the model {model}.",
    )
    page.write(out)
    tables = {
        "dispersion": found.dispersion,
        "rank_share": found.rank_share,
        "decodability": found.decodability,
        "faithfulness": found.faithfulness,
    }
    records = {name: output.records(table) for name, table in tables.items() if table is not None}
    output.say({"report": str(out), **records}, as_json, f"The report is at {out}")
