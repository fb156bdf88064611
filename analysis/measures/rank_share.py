"""Assumption 3.1 of vector steering (arXiv 2605.03907): a prompt pushes along one direction.

Adding alpha z to every token imitates a prompt if (3.1) what the prompt does to the tokens lies
along one direction, and (3.2, `dispersion`) is equally strong at each of them. A gate needs less
than 3.2, namely (3.2a, `decodability`) that the strength can be read off the token's activation.

Measured here is the share of |Delta|^2, the accumulated change on the response tokens, along the
mean push and along the best r axes, fitted on some questions and measured on others; intervals come
from resampling questions.
"""

from collections.abc import Iterable, Sequence
from functools import partial
from typing import TypeAlias

import numpy as np
import pandas as pd
from jaxtyping import Float

from steerlens.kinds import require_kinds
from steerlens.prompts import PromptPair
from steerlens.scopes import Scope, generated
from steerlens.sinks import SINK, require_times
from steerlens.sites import Sites
from steerlens.types import HookedModel

from .deltas import prompt_deltas
from .folds import at_layers, folds_of, kept_at, ratio_of_sums, with_counts, with_interval
from .intervals import PerToken
from .plain_side import BY_TEMPLATE, noted

Rows: TypeAlias = Float[np.ndarray, "token d_model"]
MEAN_PUSH = "mean push"


def rank_share(
    model: HookedModel,
    pairs: Sequence[PromptPair],
    layers: Sites | None = None,
    *,
    ranks: Sequence[int] = (1, 2, 4, 8),
    folds: int = 5,
    span: Scope = generated,
    seed: int = 0,
    baseline: str = BY_TEMPLATE,
    sinks: float = SINK,
) -> pd.DataFrame:
    """The share of the prompt's squared push that lies along few directions of other questions.

    Columns: layer, axes, share, low, high, share_with_sinks, n_sinks, n_examples, n_questions,
    n_tokens. `axes` is "mean push" (the mean Delta, the most that a difference of means can hold)
    or "best r" (the r directions with the largest share on the other questions). 1 is all of it.
    `baseline` is the plain side (`measures.plain_side`). Tokens whose norm is above `sinks` times
    the median in either run are left out; `share_with_sinks` is the share with them. Beyond
    the limit of `parts.holding`, layers are measured in groups, of one at least.
    """
    require_kinds(rank_share, locals())
    require_times(sinks)
    rows: list[dict[str, object]] = []
    aligned = None
    for aligned in at_layers(model, pairs, layers, span, folds, baseline):
        for site in aligned.sites:
            delta, keep = prompt_deltas(model, aligned)[site].numpy(), kept_at(aligned, site, sinks)
            folding = partial(folds_of, aligned, folds, seed)
            held = _held(delta, folding(keep), ranks)
            of_all = held if keep.all() else _held(delta, folding(), ranks)
            whole = np.square(delta).sum(axis=1)
            for name, part in held.items():
                share = ratio_of_sums(part, np.where(keep, whole, 0), aligned, seed)
                with_sinks = float(of_all[name].sum() / whole.sum())
                rows.append(
                    {
                        "layer": site.layer,
                        "axes": name,
                        **with_interval("share", *share),
                        "share_with_sinks": with_sinks,
                        "n_sinks": int((~keep).sum()),
                    }
                )
    assert aligned is not None
    return noted(with_counts(rows, aligned, "rank_share"), model, baseline, sinks)


def _held(
    delta: Rows, splits: Iterable[tuple[np.ndarray, np.ndarray]], ranks: Sequence[int]
) -> dict[str, PerToken]:
    """By name of the axes, the squared push of each token along them; 0 where it is not tested."""
    held: dict[str, np.ndarray] = {}
    for train, test in splits:
        axes = {MEAN_PUSH: _orthonormal(delta[train].mean(axis=0)[None])}
        best = np.linalg.svd(delta[train], full_matrices=False)[2]
        axes |= {f"best {rank}": best[:rank] for rank in ranks}
        for name, basis in axes.items():
            part = held.setdefault(name, np.zeros(len(delta)))
            part[test] = np.square(delta[test] @ basis.T).sum(axis=1)
    return held


def _orthonormal(v: Rows) -> Rows:
    size = np.linalg.norm(v)
    return v / size if size > 0 else v
