"""The public functions of steerlens and analysis, found by themselves, and values to give them."""

import inspect
import types
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from tiny_models import D_MODEL

import steerlens as sl
from steerlens import analysis
from steerlens.analysis.measures.aligned import Aligned  # pyright: ignore[reportMissingImports]
from steerlens.kinds import _kinds_of
from steerlens.methods.cast import PromptCondition
from steerlens.training.store import Storage

V = torch.ones(D_MODEL)
SAID_ELSEWHERE = ("encode", "scaled")
"""They have messages of their own that say more."""
BETTER = [("sweep", "steerings")]
"""And these parameters."""
NO_INPUT = ("exported", "steer", "LL", "MSE")
MAKERS = ("fit", "from_", "rollouts", "best_layer", "conditional", "everywhere", "only", "adding")
MAKERS += ("constant", "fixed", "ablation", "full_batch", "prompted", "clamped", "above", "save")
PICTURES = "analysis.figures"
"""Pictures are drawn without the library, which test_boundaries.py asks of them."""


def public() -> Iterator[Callable[..., Any]]:
    """The public functions, and the methods of public classes that make something."""
    for name in sl.__all__:
        value = getattr(sl, name)
        if isinstance(value, types.FunctionType) and name not in NO_INPUT:
            yield value
        for own in vars(value) if inspect.isclass(value) else ():
            if own.startswith(MAKERS) and callable(getattr(value, own)):
                yield getattr(value, own)
    for name in analysis.__all__:
        value = getattr(analysis, name)
        if isinstance(value, types.FunctionType) and not value.__module__.startswith(PICTURES):
            yield value


def plain(function: Callable[..., Any]) -> Any:
    """The function as it is written."""
    return inspect.unwrap(getattr(function, "__func__", function))


PUBLIC = {plain(one).__qualname__: one for one in public()}
ASKING = [name for name in PUBLIC if name not in SAID_ELSEWHERE and _kinds_of(plain(PUBLIC[name]))]


def kinds_asked(name: str) -> dict[str, Any]:
    """The parameters of a public function that are asked for in its first line."""
    return {n: kind for n, kind in _kinds_of(plain(PUBLIC[name])) if (name, n) not in BETTER}


def of_each_kind(model: Any) -> list[Any]:
    """Values of which one is of whatever kind is asked for."""
    fit = sl.CAA.fit(model, (["I love you"], ["I hate you"]), 2)
    pair = sl.PromptPair("a", "b", "c")
    pairs = [sl.PromptPair.with_system(f"What is {n}?", "Be good.", "It is.") for n in "abcde"]
    condition = PromptCondition(V, 0.0, sl.Site(1))
    tensors = [torch.ones(2), torch.ones(2, 3), torch.ones(2, 3, 4), torch.ones(2, 3) > 0]
    made = [sl.Schedule(), Storage(), sl.everywhere, fit, condition, sl.MSE(), sl.Sampling()]
    listed = [pairs, ["a"], [1], [{"role": "user", "content": "a"}], {"a": fit.steering}, {}, []]
    measured = (analysis.Comparison, analysis.FaithfulnessStudy, analysis.Setting, Aligned)
    made += [*map(object.__new__, measured), analysis.judge_of("positive"), pd.DataFrame()]
    measured_with = types.SimpleNamespace(n_train=1, n_test=1, seed=0)
    made += [("a", "b"), Path("a"), measured_with]
    return [1, "a", True, model, len, fit.steering, pair, *tensors, *made, *listed]


def needed(name: str, values: Sequence[Any]) -> dict[str, Any]:
    """What a public function must be given: values of the kinds that it asks for."""
    function = plain(PUBLIC[name])
    kinds, given = dict(_kinds_of(function)), dict[str, Any]()
    for one, parameter in inspect.signature(PUBLIC[name]).parameters.items():
        if parameter.default is parameter.empty and parameter.kind is not parameter.VAR_KEYWORD:
            fitting = (value for value in values if one in kinds and kinds[one].holds(value))
            given[one] = next(fitting, None)
    return given


def called(name: str, given: dict[str, Any]) -> None:
    """Call it; what comes bit by bit asks with the first."""
    next(PUBLIC[name](**given))
