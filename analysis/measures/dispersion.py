"""Assumption 3.2 of vector steering (arXiv 2605.03907): a prompt pushes all tokens equally hard.

How unequal the strengths of tokens are, of a coefficient table. As the table does not know
questions, intervals come from resampling examples. Sinks, which the table marks, are left out; the
same with them stands beside it.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float

from steerlens.checks import warn_if_few
from steerlens.kinds import require_kinds
from steerlens.parsing import short

from .intervals import UNKNOWN, PerToken, percentile_interval, resamples


def dispersion(
    table: pd.DataFrame,
    measure: str = "norm",
    *,
    n_bootstrap: int = 1000,
    seed: int = 0,
    baseline: str | None = None,
) -> pd.DataFrame:
    """How unequal the strengths of tokens are, per layer, method and strength label.

    `table` is what `coefficients` returned, `measure` one of its columns, of which the size counts.
    Columns: layer, method, strength, measure, gini (0 all alike, 1 all on one token), ratio (95th
    over 5th percentile; 1 all alike), their low and high, gini_with_sinks, ratio_with_sinks,
    n_examples, n_tokens, n_sinks (left out); stream and view if the table has them. What the push
    is measured against is the table's own (`coefficients(..., baseline=)`); a `baseline` given
    here is checked against it.
    """
    require_kinds(dispersion, locals())
    _require_same_baseline(table, baseline)
    if measure not in table.columns or table.empty:
        raise ValueError(
            f"dispersion reads the column {measure!r} of a coefficient table with rows; the table "
            f"has {len(table)} rows and the columns {list(table.columns)}."
        )
    warn_if_few(table["example"].nunique(), "dispersion", "example")
    rows = []
    keys = [key for key in ("layer", "stream", "method", "strength", "view") if key in table]
    for _, part in table.groupby(keys, sort=False):
        sizes = part[measure].abs().to_numpy(dtype=np.float64)
        keep = ~_sinks(part)
        gini_of_all, ratio_of_all = _inequality(np.sort(sizes), np.ones((1, len(sizes))))
        example = part["example"].to_numpy()[keep]
        rows.append(
            {
                **{key: part[key].iloc[0] for key in keys},
                "measure": measure,
                **_unequal(sizes[keep], example, n_bootstrap, seed),
                "gini_with_sinks": float(gini_of_all[0]),
                "ratio_with_sinks": float(ratio_of_all[0]),
                "n_examples": len(np.unique(example)),
                "n_tokens": len(example),
                "n_sinks": int((~keep).sum()),
            }
        )
    made = pd.DataFrame(rows)
    made.attrs.update(table.attrs)
    return made


def _sinks(part: pd.DataFrame) -> Bool[np.ndarray, " token"]:
    """The tokens that the table marks; a table made by hand may mark none."""
    if "sink" in part:
        return part["sink"].to_numpy(dtype=bool)
    return np.zeros(len(part), dtype=bool)


def _require_same_baseline(table: pd.DataFrame, baseline: str | None) -> None:
    """Raise ValueError if the table was measured against another baseline than the one named."""
    measured = table.attrs.get("baseline")
    if baseline is None or baseline == measured:
        return
    raise ValueError(
        f"The table was measured against the baseline {measured!r}, and {short(baseline)} is asked "
        f"for. Measure it so: dispersion(coefficients(..., baseline={short(baseline)}))."
    )


def gini(sizes: PerToken | Sequence[float]) -> float:
    """Half the mean difference of two tokens, over the mean: 0 all alike, near 1 all on one.

    >>> analysis.gini(np.array([1.0, 1.0, 1.0])), round(analysis.gini(np.array([0.0, 0.0, 9.0])), 2)
    (0.0, 0.67)
    """
    require_kinds(gini, locals())
    return float(_inequality(np.sort(np.asarray(sizes)), np.ones((1, len(sizes))))[0][0])


def _unequal(sizes: PerToken, example: np.ndarray, n_bootstrap: int, seed: int) -> dict[str, float]:
    if len(sizes) == 0:  # every token is a sink
        return dict.fromkeys(
            ("gini", "gini_low", "gini_high", "ratio", "ratio_low", "ratio_high"), float("nan")
        )
    order = np.argsort(sizes)
    ordered = sizes[order]
    names, place = np.unique(example, return_inverse=True)
    measured = [float(values[0]) for values in _inequality(ordered, np.ones((1, len(sizes))))]
    intervals = [UNKNOWN, UNKNOWN]
    if len(names) > 1:
        drawn = resamples(len(names), n_bootstrap, seed)
        pieces: list[tuple[np.ndarray, np.ndarray]] = []
        for some in np.array_split(drawn, max(1, len(drawn) // 100)):
            times = np.stack([np.bincount(draw, minlength=len(names)) for draw in some])
            pieces.append(_inequality(ordered, times[:, place[order]].astype(np.float64)))
        intervals = [
            percentile_interval(np.concatenate(part)) for part in zip(*pieces, strict=True)
        ]
    columns: dict[str, float] = {}
    for name, value, (low, high) in zip(("gini", "ratio"), measured, intervals, strict=True):
        columns |= {name: value, f"{name}_low": low, f"{name}_high": high}
    return columns


def _inequality(
    ordered: PerToken, times: Float[np.ndarray, "resample token"]
) -> tuple[np.ndarray, np.ndarray]:
    """Gini, and the 95th over the 5th percentile, of sorted sizes each counted so many times."""
    total = times.cumsum(axis=1)
    n = total[:, -1]
    # Areas under the Lorenz curve, between its sums up to each size and up to the one before.
    sums = (times * ordered).cumsum(axis=1)
    before = np.concatenate([np.zeros((len(times), 1)), sums[:, :-1]], axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        unequal = 1 - (times * (sums + before)).sum(axis=1) / (n * sums[:, -1])
        ends = [ordered[np.argmax(total >= (share * n)[:, None], axis=1)] for share in (0.05, 0.95)]
        return unequal, ends[1] / ends[0]
