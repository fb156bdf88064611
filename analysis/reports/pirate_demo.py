"""`steerlens demo` on a real model: a pirate, by a prompt and by five activation methods."""

from collections.abc import Mapping
from pathlib import Path

from steerlens.demo import pirate
from steerlens.generation import prompted_pairs
from steerlens.models import load
from steerlens.reading import load_steering
from steerlens.steering import Steering
from steerlens.types import HookedModel

from ..measures.completions import side_by_side
from ..measures.entries import as_entries
from .comparison import compare, comparison_report
from .provenance import provenance
from .stages import stages

SHOWN = 3
LONGEST = 40
"""How many questions are answered side by side, and the tokens of a response."""


def pirate_steerings(model: HookedModel) -> dict[str, Steering]:
    """The steerings that were fitted beforehand, by method, each at the strength to use."""
    files = sorted(pirate.FITTED.glob("*.safetensors"), key=_order)
    return {file.stem: load_steering(file, model) for file in files}


def run_pirate(out: Path, *, seed: int = 0, backend: str = "auto") -> Path:
    """Write `out/report.html`; returns its path. The steerings come with the package."""
    sampled = {"max_new_tokens": LONGEST, "temperature": 0.8, "seed": seed}
    answers = ("The prompted model answers", "Measuring", "Each method answers", "Writing")
    with stages("Loading SmolLM2", *answers) as next_stage:
        model = load(pirate.MODEL, backend=backend)  # pyright: ignore[reportArgumentType]  load checks it
        steerings, told = pirate_steerings(model), pirate.INSTRUCTION
        next_stage()
        pairs = prompted_pairs(model, pirate.TEST, told, **sampled)
        next_stage()
        others = (pirate.EQUIVALENT,)
        comparison = compare(
            model, pairs, steerings, train_pairs=(), equivalents=others, n_shown=1, seed=seed
        )
        next_stage()
        questions, entries = pirate.TEST[:SHOWN], as_entries(steerings)
        generations = side_by_side(model, questions, told, entries, **sampled)
        next_stage()
    page = comparison_report(
        comparison,
        provenance(model, comparison, f"steerlens demo --seed {seed}"),
        title=f"What “{told}” does to a language model, and what steering does",
        intro=_intro(model, steerings),
        generations=generations,
    )
    return page.write(out / "report.html")


def _order(file: Path) -> int:
    return pirate.METHODS.index(file.stem)


def _intro(model: HookedModel, steerings: Mapping[str, Steering]) -> str:
    where = "; ".join(f"{name} at {_sites(steering)}" for name, steering in steerings.items())
    return (
        f"SmolLM2-135M-Instruct ({model.cfg.n_layers} layers, d_model {model.cfg.d_model}) is "
        f"asked {len(pirate.TEST)} questions that no steering was fitted on. It is told "
        f"“{pirate.INSTRUCTION}”, or is steered instead, without being told: {where}. All were "
        f"fitted on {len(pirate.TRAIN)} other questions and the prompted model's own answers "
        "(ActAdd on two openings, a pirate's and an assistant's), and each is as strong as changes "
        "the predictions on those questions as much as the prompt does "
        "(`python scripts/pirate/fit.py`).\n\n"
        "The model is small and its weights have 4 bits: read its answers for their manner, not "
        "for what they say."
    )


def _sites(steering: Steering) -> str:
    layers = sorted({site.layer for site in steering.sites})
    return f"layer {layers[0]}" if len(layers) == 1 else f"layers {layers[0]} to {layers[-1]}"
