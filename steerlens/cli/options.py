"""The options that several commands take, and those of them that go together."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from steerlens.cli.given import Written
from steerlens.parsing import parse_json

if TYPE_CHECKING:
    from steerlens.calibration import Calibration, Texts
    from steerlens.steering import Steering
    from steerlens.templates import Template
    from steerlens.types import HookedModel

Model = Annotated[
    str,
    typer.Option(
        "--model",
        "-m",
        help="'demo', 'smollm2', a Hugging Face folder, a GGUF file, or a hub name.",
    ),
]
FittedOn = Annotated[
    str | None,
    typer.Option(
        help="The model that the steering files were fitted on, where it is --model in another "
        "precision; how far apart the two are is measured and said."
    ),
]
Backend = Annotated[str, typer.Option(help="auto, hooked or bridge.")]
Device = Annotated[str, typer.Option(help="cpu, cuda or mps.")]
Dtype = Annotated[
    str, typer.Option(help="float32, bfloat16, float16, float64, or auto: that of the file.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for scripts.")]
Out = Annotated[Path, typer.Option("--out", "-o", help="The file to write."), Written()]


def folder_named(text: str | Path) -> Path:
    """The folder of an option; an empty text, as of a variable that is not set, is none."""
    if not str(text).strip():
        raise typer.BadParameter(f"it is the name of a folder, or '.' for this one; found {text!r}")
    return Path(text)


Pairs = Annotated[
    Path,
    typer.Option(
        help='JSON Lines of {"user": ..., "system": ..., "response": ...}, or of several turns: '
        '{"messages": [{"role": ..., "content": ...}, ...], "response": ...}.'
    ),
]
Contrasts = Annotated[Path, typer.Option(help='JSON Lines of {"positive": ..., "negative": ...}.')]
Layers = Annotated[
    str, typer.Option(help='Steered layers: "4", "2,4", "2-5", "-1" (the last) or "all".')
]
Read = Annotated[str, typer.Option(help="Scope whose activations are read (their mean).")]
Steered = Annotated[str, typer.Option(help="Scope that is steered.")]
Baseline = Annotated[
    str,
    typer.Option(
        help="What the prompt is compared with: template (what the chat template puts there by "
        "itself), none (no system turn), neutral (an instruction that asks for nothing), or "
        "the text of an instruction."
    ),
]
Equivalent = Annotated[
    list[str] | None, typer.Option(help="The instruction in other words; repeatable.")
]
Sinks = Annotated[
    float,
    typer.Option(
        help="Tokens whose norm is above so many times the median are left out; inf keeps all."
    ),
]
SINK_TIMES = 4.0  # steerlens.sinks.SINK, which waits for torch; a test holds them together
Seed = Annotated[int, typer.Option(help="Seed of the sampling noise.")]
MaxNewTokens = Annotated[int, typer.Option(help="The most tokens that a completion may have.")]


@dataclass(frozen=True)
class Templating:
    """How conversations are written down, where the model's chat template leaves a choice."""

    default_system: Annotated[
        str | None,
        typer.Option(
            help="System text of a conversation that has none: a text, or none for no system turn "
            "at all; default: what the model's chat template puts there by itself."
        ),
    ] = None
    instruction_in: Annotated[
        str,
        typer.Option(help="system, or user: the user turn, for templates without a system role."),
    ] = "system"
    template_argument: Annotated[
        list[str] | None,
        typer.Option(help="For the chat template: enable_thinking=false; repeatable."),
    ] = None

    def template(self) -> "Template":
        """What these options choose of the model's own template."""
        from steerlens.templates import Own, Template

        given = {"none": None, None: Own.DEFAULT}
        return Template(
            system=given.get(self.default_system, self.default_system),
            instruction=self.instruction_in,  # pyright: ignore[reportArgumentType]  (it is checked)
            arguments=dict(argument(text) for text in self.template_argument or ()),
        )


def argument(text: str, option: str = "--template-argument") -> tuple[str, Any]:
    """NAME=VALUE as a name and a value: JSON where it is that, as false and 3 are, else text."""
    name, equals, value = text.partition("=")
    if not name.isidentifier() or not equals:
        raise ValueError(f"{option} is NAME=VALUE; found {text!r}.")
    written = {"True": "true", "False": "false", "None": "null"}.get(value, value)
    try:
        return name, parse_json(written)
    except ValueError:
        return name, value


AUTO = "auto"
FOUND_ON = 8
"""So many of the pairs a strength is found on, at most."""
QUESTIONS = (
    "What did you do today?",
    "Tell me about yourself.",
    "Describe a place that you like.",
    "What should I eat tonight?",
)
"""What a strength is found on where a method is fitted on no texts to be continued."""


@dataclass(frozen=True)
class Strength:
    """How strong a steering is: as a number, or by the effect that it is to have."""

    strength: Annotated[
        str | None,
        typer.Option(
            help="0 off, 1 as fitted (the default); auto: as strong as the instruction of the "
            "pairs, and where there is none, 0.3 nats a token."
        ),
    ] = None
    target_kl: Annotated[
        float | None,
        typer.Option(help="As strong as moves the predictions by so many nats a token (KL)."),
    ] = None
    share: Annotated[
        float | None,
        typer.Option(help="As strong as pushes by this share of the residual norm."),
    ] = None

    def __post_init__(self) -> None:
        units = {"--target-kl": self.target_kl, "--share": self.share}
        given = [name for name, value in units.items() if value is not None]
        if self.strength not in (None, AUTO):
            given.insert(0, "--strength")
        if len(given) > 1:
            raise ValueError(f"{' and '.join(given)} each choose the strength. Leave one in.")
        for name, value in units.items():
            if value is not None and not 0 < value < math.inf:
                raise ValueError(f"{name} must be a number above 0; found {value}.")
        if not self.by_effect and not math.isfinite(self.number):
            raise ValueError(f"--strength is a finite number, or auto; found {self.strength}.")

    @property
    def by_effect(self) -> bool:
        """Whether the strength has to be found."""
        return self.strength == AUTO or self.target_kl is not None or self.share is not None

    @property
    def number(self) -> float:
        """The strength that was given as a number."""
        try:
            return 1.0 if self.strength is None else float(self.strength)
        except ValueError as error:
            raise ValueError(
                f"--strength is a number, or auto; found {self.strength!r}."
            ) from error

    def found(
        self,
        model: "HookedModel",
        steering: "Steering",
        texts: "Texts",
        seed: int = 0,
        bare: bool = False,
    ) -> "Calibration[Steering] | None":
        """The strength with the effect asked for, on these texts; None where it is a number."""
        from steerlens.calibration import AUTO_KL, calibrate

        if not self.by_effect:
            return None
        options = {"share": self.share, "target_kl": self.target_kl, "seed": seed}
        if not options["share"] and not options["target_kl"] and not _instructed(texts):
            options["target_kl"] = AUTO_KL
        return calibrate(model, steering, texts, bare=bare, **options)

    def of_fit(
        self,
        model: "HookedModel",
        steering: "Steering",
        texts: "Sequence[Any]",
        out: Path,
        seed: int = 0,
    ) -> "tuple[Steering, dict[str, Any], str]":
        """The fitted steering at its strength, that strength for `--json`, and in words.

        A search that finds no strength loses no fit: then `out` has it as fitted, and the error
        says so, unless what was fitted has no finite effect at all.
        """
        some = list(texts)[:FOUND_ON]
        try:
            found = self.found(model, steering, some, seed)
        except ValueError as error:
            if not _acts(model, steering, some):
                raise
            steering.save(out)
            raise ValueError(
                f"{error} What was fitted is in {out} all the same, at strength 1."
            ) from error
        if found is not None:
            content = {"strength": found_content(found)}
            return found.steering, content, f", at {found}"
        if self.number == 1:
            return steering, {}, ""
        scaled = steering.scaled(self.number)
        return scaled, {"strength": {"strength": self.number}}, f", at strength {self.number:g}"


def _acts(model: "HookedModel", steering: "Steering", texts: "Sequence[Any]") -> bool:
    """Whether the model still computes numbers under the steering."""
    from steerlens.generation import generate
    from steerlens.prompts import PromptPair

    asked = [text.plain if isinstance(text, PromptPair) else text for text in texts[:1]]
    try:
        generate(model, asked, steering, max_new_tokens=1)
    except ValueError:
        return False
    return True


def _instructed(texts: "Texts") -> bool:
    """Whether some of the texts are pairs with an instruction, whose effect can be matched."""
    listed = texts if isinstance(texts, list) else []
    return any(getattr(one, "plain", 0) != getattr(one, "prompted", 0) for one in listed)


def found_content(found: "Calibration[Any]") -> dict[str, Any]:
    """A strength that was found, for `--json`."""
    names = ("strength", "unit", "target", "effect", "reached")
    return {name: getattr(found, name) for name in names}


@dataclass(frozen=True)
class RunOptions(Templating):
    """The model that a fit is for, where it is run, and how the outcome is printed."""

    model: Model = "demo"
    backend: Backend = "auto"
    device: Device = "cpu"
    dtype: Dtype = "float32"
    as_json: AsJson = False

    @property
    def place(self) -> "tuple[str, str, str, Template, str]":
        """What `inputs.load` needs."""
        return self.model, self.backend, self.device, self.template(), self.dtype
