"""steerlens: steer language models by prompt or by activation, and see what it does per token."""

import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

# Names are imported on first use, so that `steerlens --help` does not wait for torch.
_HOME = {
    "activations": ["Activations", "capture", "capture_stream"],
    "combinators": ["Chain", "Only", "Scaled", "When"],
    "directions": ["difference_of_means", "principal_direction", "unit"],
    "generation": ["Generation", "generate", "prompted_pairs", "stream"],
    "labelled": ["contrast_directions", "fit_direction"],
    "lora": ["LoRA"],
    "methods": [
        "CAA",
        "CLAS",
        "PSR",
        "ActAdd",
        "ColdFD",
        "ColdKernel",
        "InstructionVector",
        "LoReFT",
        "ReFTr1",
    ],
    "models": ["load"],
    "positions": [
        "Scope",
        "Window",
        "everywhere",
        "generated",
        "last",
        "positions",
        "prompt",
        "question_and_response",
        "response",
        "scope_named",
    ],
    "prompts": ["PLAIN", "Conversation", "PromptPair", "batch", "encode", "encode_pair"],
    "saving": ["load_steering"],
    "steering": ["Site", "Steering", "TokenSteering", "at", "only", "scaled"],
    "types": ["SteeringWarning"],
}
_MODULE_OF = {name: module for module, names in _HOME.items() for name in names}

__all__ = sorted(_MODULE_OF)  # pyright: ignore[reportUnsupportedDunderAll]

if TYPE_CHECKING:
    from steerlens.activations import Activations, capture, capture_stream
    from steerlens.combinators import Chain, Only, Scaled, When
    from steerlens.directions import difference_of_means, principal_direction, unit
    from steerlens.generation import Generation, generate, prompted_pairs, stream
    from steerlens.labelled import contrast_directions, fit_direction
    from steerlens.lora import LoRA
    from steerlens.methods import (
        CAA,
        CLAS,
        PSR,
        ActAdd,
        ColdFD,
        ColdKernel,
        InstructionVector,
        LoReFT,
        ReFTr1,
    )
    from steerlens.models import load
    from steerlens.positions import (
        Scope,
        Window,
        everywhere,
        generated,
        last,
        positions,
        prompt,
        question_and_response,
        response,
        scope_named,
    )
    from steerlens.prompts import PLAIN, Conversation, PromptPair, batch, encode, encode_pair
    from steerlens.saving import load_steering
    from steerlens.steering import Site, Steering, TokenSteering, at, only, scaled
    from steerlens.types import SteeringWarning


class _Package(ModuleType):
    """Keeps `steerlens.positions` the scope: Python would put the module of that name over it."""

    def __setattr__(self, name: str, value: Any) -> None:
        shadows = name in _MODULE_OF and isinstance(value, ModuleType)
        super().__setattr__(name, getattr(value, name) if shadows else value)


sys.modules[__name__].__class__ = _Package


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'steerlens' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"steerlens.{_MODULE_OF[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_MODULE_OF})
