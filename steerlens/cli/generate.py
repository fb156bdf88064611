"""`steerlens demo` and `generate`."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from steerlens.cli import inputs, output
from steerlens.cli.grouped import grouped
from steerlens.cli.options import (
    AsJson,
    Backend,
    Device,
    Dtype,
    FittedOn,
    MaxNewTokens,
    Model,
    Seed,
    Strength,
    Templating,
    folder_named,
    found_content,
)

if TYPE_CHECKING:
    from steerlens.calibration import Calibration, Texts
    from steerlens.steering import Steering
    from steerlens.types import HookedModel


def demo(
    out: Annotated[
        Path,
        typer.Option(
            "--out", "-o", help="Folder for the report.", parser=folder_named, metavar="<path>"
        ),
    ] = Path("demo-report"),
    model: Annotated[
        str,
        typer.Option(
            "--model",
            "-m",
            help="smollm2: a pirate on a real model; demo: film reviews on the embedded one; "
            "auto: the first, where it is on this machine.",
        ),
    ] = "auto",
    seed: Seed = 0,
    backend: Backend = "auto",
) -> None:
    """Steer a model by prompt and by activation methods; write an HTML report. Offline."""
    from steerlens.analysis import run_demo

    output.show(f"The report is at {run_demo(out, model=model, seed=seed, backend=backend)}")


@dataclass(frozen=True)
class Steered:
    """What is written about, and what steers it."""

    prompt: Annotated[str, typer.Option("--prompt", "-p", help="The user turn, or raw text.")]
    model: Model = "demo"
    system: Annotated[str | None, typer.Option(help="Instruction in the system turn.")] = None
    steering: Annotated[list[Path] | None, typer.Option(help="A steering file; repeatable.")] = None
    fitted_on: FittedOn = None


@dataclass(frozen=True)
class HowStrong(Strength):
    """The strength, which may be that of an instruction."""

    like: Annotated[
        str | None, typer.Option(help="As strong as this instruction is on this prompt.")
    ] = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.like is not None and (self.target_kl is not None or self.share is not None):
            raise ValueError("--like chooses the strength. Leave out --target-kl and --share.")
        if self.like is not None and self.strength not in (None, "auto"):
            raise ValueError(f"--like chooses the strength. Leave out --strength {self.strength}.")

    @property
    def by_effect(self) -> bool:
        """Whether the strength has to be found."""
        return self.like is not None or super().by_effect

    def texts(self, model: "HookedModel", prompt: Any, seed: int) -> "Texts":
        """What the strength is found on: a few answers to the prompt."""
        from steerlens.generation import prompted_pairs

        if self.like is None:
            return [prompt] * ANSWERS
        return prompted_pairs(
            model, [prompt], self.like, n=ANSWERS, max_new_tokens=LONGEST, seed=seed
        )


MOST_COMPLETIONS = 100_000
ANSWERS, LONGEST = 4, 48
"""How many answers to the prompt a strength is found on, and the tokens of each."""


@dataclass(frozen=True)
class Sampling:
    """How many completions are drawn, and how."""

    n: Annotated[int, typer.Option("--n", help="Completions to write.")] = 1
    seed: Seed = 0
    max_new_tokens: MaxNewTokens = 64
    temperature: Annotated[float, typer.Option(help="0 is greedy.")] = 1.0
    top_p: Annotated[
        float, typer.Option(help="Keep the smallest set with more than this probability.")
    ] = 1.0
    top_k: Annotated[int, typer.Option(help="Keep the k likeliest tokens; 0 keeps all.")] = 0
    min_p: Annotated[
        float, typer.Option(help="Keep tokens at least so many times as likely as the likeliest.")
    ] = 0.0
    repetition_penalty: Annotated[
        float, typer.Option(help="Above 1: tokens that were there before are less likely.")
    ] = 1.0
    frequency_penalty: Annotated[
        float, typer.Option(help="Taken off a token's logit for each time it was there before.")
    ] = 0.0
    stop: Annotated[
        list[str] | None, typer.Option(help="A text that ends a completion; repeatable.")
    ] = None

    def require(self) -> None:
        """Raise an error for numbers that cannot be, before the model is loaded."""
        from dataclasses import asdict

        from steerlens import sampling

        options = asdict(self)
        if not 1 <= options.pop("n") <= MOST_COMPLETIONS:
            raise ValueError(f"--n is from 1 to {MOST_COMPLETIONS}; found {self.n}.")
        sampling.Sampling(**options)


@grouped
def generate(
    *,
    steered: Steered,
    strength: HowStrong,
    templating: Templating,
    sampling: Sampling,
    raw: Annotated[
        bool, typer.Option(help="Continue the prompt as raw text, no template.")
    ] = False,
    backend: Backend = "auto",
    device: Device = "cpu",
    dtype: Dtype = "float32",
    as_json: AsJson = False,
) -> None:
    """Write completions: unsteered, or prompted by --system; and, given a file, steered by it."""
    from dataclasses import asdict

    from steerlens import generation
    from steerlens.prompts import Conversation

    sampling.require()
    inputs.require_steering_paths(steered.steering or ())
    if raw:
        _require_no_turns(steered, strength, templating)
    if strength != HowStrong() and not steered.steering:
        raise ValueError("A strength was given, and no steering: add --steering FILE.")
    model = inputs.load(steered.model, backend, device, templating.template(), dtype)
    prompt = steered.prompt if raw else Conversation(steered.prompt, steered.system)
    unsteered = "unsteered" if steered.system is None else "prompted"
    runs: dict[str, Steering | None] = {unsteered: None}
    found: Calibration[Any] | None = None
    if steered.steering:
        runs["steered"], found = _steering(steered, strength, model, prompt, sampling.seed)
    texts = {
        name: generation.generate(model, [prompt], steering, **asdict(sampling)).texts
        for name, steering in runs.items()
    }
    asked = {"model": steered.model, "prompt": steered.prompt, "seed": sampling.seed}
    about = {"strength": strength.number} if found is None else found_content(found)
    output.say({**asked, **about, **texts}, as_json, _shown(texts, found))


def _shown(texts: "dict[str, tuple[str, ...]]", found: "Calibration[Any] | None") -> str:
    """The completions, each under a line that says what steered it."""
    prompted = "prompted and " * ("prompted" in texts)
    strength = f", at {found}" if found else ""
    heads = {"steered": f"{prompted}steered{strength}"}
    return "\n".join(
        f"── {heads.get(name, name)} {number}\n{text}"
        for name, written in texts.items()
        for number, text in enumerate(written, start=1)
    )


def _require_no_turns(steered: Steered, strength: HowStrong, templating: Templating) -> None:
    """Raise ValueError where raw text is asked for, and something that only turns have."""
    if steered.system is not None:
        raise ValueError("--raw has no turns, so --system has no place. Leave one of them out.")
    if strength.like is not None:
        raise ValueError("--raw has no turns, so --like has no place. Give --target-kl instead.")
    if templating != Templating():
        raise ValueError("--raw has no template: leave out the options that are about templates.")


def _steering(
    steered: Steered, strength: HowStrong, model: "HookedModel", prompt: Any, seed: int
) -> "tuple[Steering, Calibration[Any] | None]":
    """The files' steerings together, and how their strength was found, unless it is a number."""
    files = steered.steering or ()
    if not strength.by_effect:
        return inputs.together(files, model, strength.number, steered.fitted_on), None
    together = inputs.together(files, model, 1.0, steered.fitted_on)
    found = strength.found(model, together, strength.texts(model, prompt, seed), seed)
    assert found is not None
    return found.steering, found
