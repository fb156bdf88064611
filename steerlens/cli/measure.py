"""`steerlens compare` and `faithfulness`."""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from steerlens.cli import inputs, output
from steerlens.cli.grouped import grouped
from steerlens.cli.options import (
    FOUND_ON,
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
    fitted_on: FittedOn = None
    equivalent: Equivalent = None
    neutral: Annotated[
        list[str] | None, typer.Option(help="An instruction that asks for nothing; repeatable.")
    ] = None
    baseline: Baseline = "template"
    sinks: Sinks = SINK_TIMES
    seed: Seed = 0
    max_new_tokens: MaxNewTokens = 64
    backend: Backend = "auto"
    device: Device = "cpu"
    dtype: Dtype = "float32"
    as_json: AsJson = False

    def inputs(
        self,
        pairs: Path,
        steering: Sequence[Path],
        require: "Callable[[Sequence[object]], None]",
    ) -> "tuple[HookedModel, list[PromptPair], dict[str, Steering]]":
        """The model, every pair answered, the steerings; bad input is an error before any work.

        `require` raises ValueError for too few questions.
        """
        from steerlens.analysis.measures.plain_side import require_baseline  # pyright: ignore[reportMissingImports]
        from steerlens.cli.data import read_prompt_pairs

        lines = read_prompt_pairs(pairs)
        require([inputs.question_of(line) for line in lines])
        require_baseline(self.baseline)
        self._require_other_instructions()
        inputs.require_steering_files(steering)
        model = inputs.load(self.model, self.backend, self.device, self.template(), self.dtype)
        steerings = inputs.steerings_of(steering, model, self.fitted_on)
        others = (*(self.equivalent or ()), *(self.neutral or ()))
        inputs.require_room(model, lines, self.max_new_tokens, others)
        answered = inputs.answered(model, lines, self.seed, self.max_new_tokens)
        return model, answered, self._at_strength(model, answered, steerings)

    def _require_other_instructions(self) -> None:
        """Raise ValueError if what the prompt is compared with is asked for as a reference too."""
        from steerlens.analysis.measures.plain_side import instruction_of  # pyright: ignore[reportMissingImports]

        same = instruction_of(self.baseline)
        if same is not None and same in (*(self.neutral or ()), *(self.equivalent or ())):
            raise ValueError(
                f"--baseline is {same!r} already, so it cannot be --neutral or --equivalent too. "
                "Leave it out there."
            )

    def _at_strength(
        self,
        model: "HookedModel",
        pairs: "list[PromptPair]",
        steerings: "dict[str, Steering]",
    ) -> "dict[str, Steering]":
        """The steerings at the strength asked for, which is then part of their names.

        One that has to be found is found on the pairs that are not measured, if there are some,
        against the plain side of `--baseline`.
        """
        from steerlens.analysis import split_by_question
        from steerlens.analysis.measures.plain_side import NO_SYSTEM, against  # pyright: ignore[reportMissingImports]

        if not self.by_effect and self.number == 1:
            return steerings
        spare, _ = split_by_question(pairs)
        some = against(list(spare or pairs)[:FOUND_ON], self.baseline)
        found = {
            name: self.found(model, steering, some, self.seed, self.baseline == NO_SYSTEM)
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
            "baseline": self.baseline,
            "sinks": self.sinks,
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
    from steerlens.analysis.measures.coefficients import require_others  # pyright: ignore[reportMissingImports]

    def enough(questions: Sequence[object]) -> None:
        require_others(len(questions))

    model, answered, steerings = measured.inputs(pairs, steering, enough)
    compared = analysis.compare(model, answered, steerings, **measured.options)
    page = analysis.comparison_report(
        compared,
        analysis.provenance(model, compared, "steerlens compare"),
        title="Prompt steering and activation steering, compared",
        intro=f"{pairs.name}: {len(answered)} pairs on the model {measured.model}.",
    )
    shift = compared.logit_shift
    still = shift.loc[~shift["moved"], "method"].tolist()
    if still:
        warnings.warn(f"These moved no logit: {', '.join(still)}.", stacklevel=1)
    content = {
        "report": str(out),
        "plain_system": shift.attrs["plain_system"],
        "baseline": compared.baseline,
        "layer": compared.layer,
        "measured": compared.n_test,
        "for_strengths": compared.n_train,
        "faithfulness": output.records(compared.faithfulness),
        "logit_shift": output.records(shift),
    }
    said = halves(compared.n_test, compared.n_train)
    _finish(page, out, content, measured.as_json, f"The report is at {out}{said}")


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

    A line of the pairs file without a response is answered by the prompted model first. With
    steering files and at least four questions, every second question sets the least-squares
    strengths and is not measured.
    """
    from steerlens import analysis
    from steerlens.analysis.reports.faithfulness import require_questions  # pyright: ignore[reportMissingImports]

    def enough(questions: Sequence[object]) -> None:
        require_questions(len(set(questions)))

    model, answered, steerings = measured.inputs(pairs, steering or [], enough)
    studied = analysis.faithfulness_study(model, answered, steerings, **measured.options)
    page = analysis.faithfulness_report(
        studied,
        analysis.provenance(model, studied, "steerlens faithfulness"),
        "What the prompt does, and who does the same",
        f"{pairs.name}: {len(answered)} pairs on the model {measured.model}.",
    )
    tables = {
        "dispersion": studied.dispersion,
        "rank_share": studied.rank_share,
        "decodability": studied.decodability,
        "faithfulness": studied.faithfulness,
    }
    records = {name: output.records(table) for name, table in tables.items() if table is not None}
    said = halves(studied.n_test, studied.n_train)
    content = {
        "report": str(out),
        "plain_system": studied.coefficients.attrs["plain_system"],
        "baseline": studied.baseline,
        "measured": studied.n_test,
        "for_strengths": studied.n_train,
    }
    _finish(page, out, {**content, **records}, measured.as_json, f"The report is at {out}{said}")


def _finish(page: Any, out: Path, content: dict[str, Any], as_json: bool, text: str) -> None:
    """Write the report and tell of it; what cannot be told is an error without a file."""
    told = output.told(content, as_json, text)
    page.write(out)
    output.show(told)


def halves(measured: int, for_strengths: int) -> str:
    """That some pairs set the strengths and were not measured, where it is so."""
    if not for_strengths:
        return ""
    return (
        f" ({measured} pairs measured; the other {for_strengths} set the least-squares strengths)"
    )
