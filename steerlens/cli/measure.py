"""`steerlens compare` and `faithfulness`."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from steerlens.cli import inputs, output
from steerlens.cli.grouped import grouped
from steerlens.cli.options import (
    FOUND_ON,
    AsJson,
    Backend,
    Device,
    MaxNewTokens,
    Model,
    Out,
    Pairs,
    Seed,
    Strength,
    Templating,
)

if TYPE_CHECKING:
    from steerlens.prompts import PromptPair
    from steerlens.steering import Steering
    from steerlens.types import HookedModel


@dataclass(frozen=True)
class Measured(Templating, Strength):
    """The model that is measured, how it is steered, and what other instructions it is given."""

    model: Model = "demo"
    equivalent: Annotated[
        list[str] | None, typer.Option(help="The instruction in other words; repeatable.")
    ] = None
    neutral: Annotated[
        list[str] | None, typer.Option(help="An instruction that asks for nothing; repeatable.")
    ] = None
    seed: Seed = 0
    max_new_tokens: MaxNewTokens = 64
    backend: Backend = "auto"
    device: Device = "cpu"
    as_json: AsJson = False

    def inputs(
        self, pairs: Path, steering: Sequence[Path], out: Path
    ) -> "tuple[HookedModel, list[PromptPair], dict[str, Steering]]":
        """The model, every pair answered, the steerings; bad files are errors before any work."""
        from steerlens.jsonl import read_prompt_pairs

        lines = read_prompt_pairs(pairs)
        model = inputs.load(self.model, self.backend, self.device, self.template())
        inputs.require_folder_of(out)
        steerings = inputs.steerings_of(steering, model)
        answered = inputs.answered(model, lines, self.seed, self.max_new_tokens)
        return model, answered, self._at_strength(model, answered, steerings)

    def _at_strength(
        self,
        model: "HookedModel",
        pairs: "list[PromptPair]",
        steerings: "dict[str, Steering]",
    ) -> "dict[str, Steering]":
        """The steerings at the strength asked for, which is then part of their names.

        One that has to be found is found on the pairs that are not measured, if there are some.
        """
        from steerlens.analysis import split_by_question

        if not self.by_effect and self.number == 1:
            return steerings
        spare, _ = split_by_question(pairs)
        found = {
            name: self.found(model, steering, list(spare or pairs)[:FOUND_ON])
            for name, steering in steerings.items()
        }
        strengths = {n: self.number if one is None else one.strength for n, one in found.items()}
        return {
            f"{name} at {strengths[name]:.3g}": steering.scaled(strengths[name])
            for name, steering in steerings.items()
        }

    @property
    def options(self) -> dict[str, Any]:
        """What both measurements take besides the inputs."""
        return {
            "equivalents": self.equivalent or (),
            "neutral": self.neutral or (),
            "seed": self.seed,
        }


@grouped
def compare(
    pairs: Pairs,
    steering: Annotated[list[Path], typer.Option(help="A steering file; repeatable.")],
    out: Out,
    measured: Measured,
) -> None:
    """Prompt steering against steering files, per token and per layer, as an HTML report.

    A line of the pairs file without a response is answered by the prompted model first.
    """
    from steerlens import analysis

    model, answered, steerings = measured.inputs(pairs, steering, out)
    compared = analysis.compare(model, answered, steerings, **measured.options)
    page = analysis.comparison_report(
        compared,
        analysis.provenance(model, compared, "steerlens compare"),
        title="Prompt steering and activation steering, compared",
        intro=f"{pairs.name}: {len(answered)} pairs on the model {measured.model}.",
    )
    page.write(out)
    shift = compared.logit_shift
    still = shift.loc[~shift["moved"], "method"].tolist()
    if still:
        warnings.warn(f"These moved no logit: {', '.join(still)}.", stacklevel=1)
    content = {
        "report": str(out),
        "plain_system": shift.attrs["plain_system"],
        "faithfulness": output.records(compared.faithfulness),
        "logit_shift": output.records(shift),
    }
    output.say(content, measured.as_json, f"The report is at {out}")


@grouped
def faithfulness(
    *,
    pairs: Pairs,
    out: Out,
    steering: Annotated[
        list[Path] | None, typer.Option(help="A steering file; repeatable.")
    ] = None,
    measured: Measured,
) -> None:
    """How unevenly the prompt pushes the tokens, and which steering files are faithful to it.

    A line of the pairs file without a response is answered by the prompted model first.
    """
    from steerlens import analysis

    model, answered, steerings = measured.inputs(pairs, steering or [], out)
    studied = analysis.faithfulness_study(model, answered, steerings, **measured.options)
    page = analysis.faithfulness_report(
        studied,
        analysis.provenance(model, studied, "steerlens faithfulness"),
        "What the prompt does, and who does the same",
        f"{pairs.name}: {len(answered)} pairs on the model {measured.model}.",
    )
    page.write(out)
    tables = {
        "dispersion": studied.dispersion,
        "rank_share": studied.rank_share,
        "decodability": studied.decodability,
        "faithfulness": studied.faithfulness,
    }
    records = {name: output.records(table) for name, table in tables.items() if table is not None}
    output.say({"report": str(out), **records}, measured.as_json, f"The report is at {out}")
