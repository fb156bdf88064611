"""What a steering costs in time: premium = steered time / unsteered time - 1.

Turner et al., arXiv 2308.10248, "inference premium" (E6): full passes over random tokens. Steered
and unsteered passes take turns, so that what slows the machine slows both; hooks are put on anew
for each pass. Of each pair of neighbours the ratio counts, and of the ratios the median.
"""

import time
from collections.abc import Callable

import numpy as np
import pandas as pd
import torch

from steerlens.baselines.weights import Change, changed
from steerlens.checks import warn_if_few
from steerlens.identity import device_of
from steerlens.prompts import Encoded, stack
from steerlens.runtime.forward import logits
from steerlens.runtime.hooks import Watch, running
from steerlens.scopes import Window
from steerlens.steering import Steering
from steerlens.types import HookedModel, Tokens

from .changes import UNSTEERED, Changes, named
from .intervals import percentile_interval, resamples

SHAPE = (32, 64)


def overhead(
    model: HookedModel,
    steering: Changes,
    *,
    shape: tuple[int, int] = SHAPE,
    repeats: int = 20,
    response: int | None = None,
    n_bootstrap: int = 1000,
    seed: int = 0,
) -> pd.DataFrame:
    """One row per method, "unsteered" left out: passes over `shape` (rows, tokens) random tokens.

    Columns: method, premium (median over repeats of steered over unsteered time, less 1) with low
    and high (95 % bootstrap interval of the median), ms and ms_unsteered (median milliseconds of a
    pass), n_repeats, rows, tokens, n_bootstrap, seed. `response` is the first token that counts as
    response, by default the middle one: half of a text is then prompt. Times depend on the machine.
    """
    if repeats < 2:
        raise ValueError(f"repeats is 2 or more, for an interval; found {repeats}.")
    warn_if_few(repeats, "overhead", "repeat")
    rows = []
    tokens, window = _random(model, shape, response, seed)
    for name, change in named(steering).items():
        if name == UNSTEERED:
            continue
        pairs = _timed(model, change, tokens, window, repeats)
        ratios = pairs[:, 1] / pairs[:, 0] - 1
        drawn = np.median(ratios[resamples(repeats, n_bootstrap, seed)], axis=1)
        low, high = percentile_interval(drawn)
        plain, steered = 1000 * np.median(pairs, axis=0)
        rows.append((name, float(np.median(ratios)), low, high, steered, plain, repeats, *shape))
    columns = ["method", "premium", "low", "high", "ms", "ms_unsteered", "n_repeats"]
    table = pd.DataFrame(rows, columns=[*columns, "rows", "tokens"])
    return table.assign(n_bootstrap=n_bootstrap, seed=seed)


def _random(
    model: HookedModel, shape: tuple[int, int], response: int | None, seed: int
) -> tuple[Tokens, Window]:
    """Random tokens on the model's device, and the window of a pass over them."""
    drawn = np.random.default_rng(seed).integers(0, model.cfg.d_vocab, size=shape).tolist()
    start = shape[1] // 2 if response is None else response
    rows = [Encoded(tuple(ids), question=0, response=start, bos=False) for ids in drawn]
    tokens, window = stack(rows, "right")
    return tokens.to(device_of(model)), window.to(device_of(model))


@torch.no_grad()
def _timed(
    model: HookedModel, change: Change, tokens: Tokens, window: Window, repeats: int
) -> np.ndarray:
    """Seconds of an unsteered and a steered pass, pair by pair; a first pair is not counted."""

    def one_pass(steering: Steering | None) -> None:
        with running(model, steering, Watch()) as run:
            if run is not None:
                run.ready(tokens, window)
            logits(model, tokens, window)

    pairs = []
    for _ in range(repeats + 1):
        plain = _seconds(lambda: one_pass(None))
        with changed(model, change) as hooks:
            steered = _seconds(lambda hooks=hooks: one_pass(hooks))
        pairs.append((plain, steered))
    return np.array(pairs[1:])


def _seconds(call: Callable[[], None]) -> float:
    """How long a call takes, with what it leaves to be done on an accelerator."""
    begun = time.perf_counter()
    call()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - begun
