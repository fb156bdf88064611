"""steerlens: steer language models by prompt or by activation, and see what it does per token."""

import importlib
from typing import TYPE_CHECKING, Any

from steerlens.exports import exported

__version__ = "0.1.0"

# Names are imported on first use, so that `steerlens --help` does not wait for torch.
_HOME = {
    "activations": ["Activations", "capture", "capture_stream"],
    "baselines.gradient_step": ["GradientStep"],
    "baselines.lora": ["LoRA"],
    "calibration": ["Calibration", "calibrate"],
    "combinators": ["Chain", "Only", "Scaled", "When"],
    "directions.labelled": ["contrast_directions", "fit_direction"],
    "directions.means": ["difference_of_means", "principal_direction", "unit"],
    "explaining": ["Act", "Explanation"],
    "generation": ["Generation", "generate", "prompted_pairs", "stream"],
    "interchange.export": ["Exported"],
    "interchange.hub": ["HubError", "pull", "push"],
    "interchange.request": ["ExportError"],
    "interchange.sae": ["SAEFeature", "SAEGate", "sae_feature"],
    "jsonl": ["read_contrasts", "read_prompt_pairs", "read_prompts", "read_wishes"],
    "lenses": ["lens", "lens_of_change"],
    "methods": list(exported("methods")),
    "methods.cold.examples": ["Examples"],
    "models": ["load"],
    "conversations": ["Conversation"],
    "pairs.findings": ["Finding", "Findings"],
    "pairs.lint": ["lint"],
    "pairs.reading": ["read_pairs"],
    "pairs.records": ["Choice", "Pairs"],
    "prompts": ["PromptPair", "batch", "encode", "encode_pair"],
    "reading": ["load_steering"],
    "sampling": ["Sampling"],
    "scopes": [
        "Context",
        "Scope",
        "Window",
        "after_first",
        "everywhere",
        "generated",
        "last",
        "last_k",
        "marked",
        "positions",
        "prompt",
        "question_and_response",
        "response",
        "scope_named",
    ],
    "sites": ["Site"],
    "steering": ["Steering", "at", "only", "scaled"],
    "steers": ["steer"],
    "templates": ["PLAIN", "Template", "use_template"],
    "training.fit": ["Fit"],
    "training.loop": ["Trained"],
    "training.objectives": ["LL", "MSE"],
    "training.schedule": ["Schedule"],
    "types": ["SteeringWarning"],
}
# Whole modules under a shorter name: `sl.scope.response`, `sl.benchmark_set.read("positive")`.
_MODULES = {"analysis": "analysis", "benchmark_set": "demo.benchmark_set", "scope": "scopes"}
# Names of `analysis`, which needs steerlens and is loaded when they are asked for.
_OF_ANALYSIS = ("explore",)
_MODULE_OF = {name: module for module, names in _HOME.items() for name in names}

__all__ = sorted(_MODULE_OF)  # pyright: ignore[reportUnsupportedDunderAll]

if TYPE_CHECKING:
    from steerlens.activations import Activations, capture, capture_stream
    from steerlens.baselines.gradient_step import GradientStep
    from steerlens.baselines.lora import LoRA
    from steerlens.calibration import Calibration, calibrate
    from steerlens.combinators import Chain, Only, Scaled, When
    from steerlens.conversations import Conversation
    from steerlens.directions.labelled import contrast_directions, fit_direction
    from steerlens.directions.means import (
        difference_of_means,
        principal_direction,
        unit,
    )
    from steerlens.explaining import Act, Explanation
    from steerlens.generation import Generation, generate, prompted_pairs, stream
    from steerlens.interchange.export import Exported
    from steerlens.interchange.hub import HubError, pull, push
    from steerlens.interchange.request import ExportError
    from steerlens.interchange.sae import SAEFeature, SAEGate, sae_feature
    from steerlens.jsonl import read_contrasts, read_prompt_pairs, read_prompts, read_wishes
    from steerlens.lenses import lens, lens_of_change
    from steerlens.methods import *  # noqa: F403  each method has one line there
    from steerlens.methods.cold.examples import Examples
    from steerlens.models import load
    from steerlens.pairs.findings import Finding, Findings
    from steerlens.pairs.lint import lint
    from steerlens.pairs.reading import read_pairs
    from steerlens.pairs.records import Choice, Pairs
    from steerlens.prompts import PromptPair, batch, encode, encode_pair
    from steerlens.reading import load_steering
    from steerlens.sampling import Sampling
    from steerlens.scopes import (
        Context,
        Scope,
        Window,
        after_first,
        everywhere,
        generated,
        last,
        last_k,
        marked,
        positions,
        prompt,
        question_and_response,
        response,
        scope_named,
    )
    from steerlens.sites import Site
    from steerlens.steering import Steering, at, only, scaled
    from steerlens.steers import steer
    from steerlens.templates import PLAIN, Template, use_template
    from steerlens.training.fit import Fit
    from steerlens.training.loop import Trained
    from steerlens.training.objectives import LL, MSE
    from steerlens.training.schedule import Schedule
    from steerlens.types import SteeringWarning


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return importlib.import_module(f"steerlens.{_MODULES[name]}")
    if name in _OF_ANALYSIS:
        return getattr(importlib.import_module(f"steerlens.{_MODULES['analysis']}"), name)
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'steerlens' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"steerlens.{_MODULE_OF[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_MODULE_OF, *_OF_ANALYSIS})
