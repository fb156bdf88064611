"""A coefficient table summed up: by place in the response, by kind of token, and over seeds.

Intervals come from resampling examples (for seeds, from the seeds themselves), as tokens of one
text are not independent. Sinks are left out.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd

from steerlens.kinds import require_kinds

from .intervals import interval_of_mean
from .token_kinds import kinds_of

LINE = ["method", "strength"]
FEWEST = 2
"""Of fewer examples there is no interval."""


def by_position(
    table: pd.DataFrame,
    layer: int,
    column: str = "along",
    *,
    view: str = "accumulated",
    n_bootstrap: int = 1000,
    seed: int = 0,
) -> pd.DataFrame:
    """The mean of one measure at each place of the response, over examples that are long enough.

    Columns: method, strength, strength_value, token_index, mean, low, high (95 % interval over
    examples), n_examples, layer, measure, unit.
    """
    require_kinds(by_position, locals())
    rows = _rows_at(table, layer, column, view)
    return _summed(rows, "token_index", column, n_bootstrap, seed)


def by_kind(
    table: pd.DataFrame,
    layer: int,
    column: str = "along",
    *,
    kinds: str | None = None,
    view: str = "accumulated",
    n_bootstrap: int = 1000,
    seed: int = 0,
) -> pd.DataFrame:
    """The mean of one measure over the tokens of each kind, for every method and strength.

    Kinds are those of `token_kinds`, or the values of the column `kinds`, such as word classes of a
    tagger of your own. Columns as in `by_position`, with `kind` in place of token_index and the
    number of tokens, n_tokens.
    """
    require_kinds(by_kind, locals())
    rows = _rows_at(table, layer, column, view)
    if kinds is None:
        rows = rows.assign(kind=kinds_of(rows))
    elif kinds not in rows:
        raise ValueError(f"the table has no column {kinds!r}; it has {list(rows.columns)}.")
    else:
        rows = rows.assign(kind=rows[kinds].astype(str))
    return _summed(rows, "kind", column, n_bootstrap, seed)


def over_seeds(
    tables: Iterable[pd.DataFrame] | pd.DataFrame,
    column: str,
    by: Sequence[str] = ("method", "strength", "layer"),
) -> pd.DataFrame:
    """The mean over runs of one column, with its 95 % interval (Student's t over the runs).

    `tables` are the tables of the runs, or one table with a column `run` or `seed`. Columns: those
    of `by`, mean, low, high, n_seeds, measure.
    """
    require_kinds(over_seeds, locals())
    table = _with_runs(tables)
    missing = [name for name in (*by, column) if name not in table]
    if missing:
        raise ValueError(f"the tables lack the columns {missing}; they have {list(table.columns)}.")
    rows = []
    for key, part in table.groupby(list(by), sort=False, dropna=False):
        values = part.groupby("run")[column].mean().to_numpy(dtype=np.float64)
        half = _half_interval(values)
        keys = dict(zip(by, key if isinstance(key, tuple) else (key,), strict=True))
        mean = float(values.mean())
        rows.append(
            {
                **keys,
                "mean": mean,
                "low": mean - half,
                "high": mean + half,
                "n_seeds": len(values),
                "measure": column,
            }
        )
    return pd.DataFrame(rows)


def _with_runs(tables: Iterable[pd.DataFrame] | pd.DataFrame) -> pd.DataFrame:
    if not isinstance(tables, pd.DataFrame):
        runs = list(tables) if isinstance(tables, Iterable) else [tables]
        if not runs:
            raise ValueError("over_seeds got no table: pass one for each run.")
        wrong = [run for run in runs if not isinstance(run, pd.DataFrame)]
        if wrong:
            raise TypeError(
                "over_seeds takes the tables of the runs, one for each, or one table for tables; "
                f"found a {type(wrong[0]).__name__}."
            )
        return pd.concat([table.assign(run=i) for i, table in enumerate(runs)])
    if "run" in tables:
        return tables
    if "seed" not in tables:
        raise ValueError("one table needs a column `run` or `seed` that tells its runs apart.")
    return tables.assign(run=tables["seed"])


def _half_interval(values: np.ndarray) -> float:
    """Half of the 95 % interval of a mean of so few values; NaN for a single one."""
    from scipy.stats import t  # scikit-learn's own dependency, and slow to load

    n = len(values)
    if n < FEWEST:
        return float("nan")
    return float(t.ppf(0.975, n - 1) * values.std(ddof=1) / np.sqrt(n))


def _rows_at(table: pd.DataFrame, layer: int, column: str, view: str) -> pd.DataFrame:
    """The rows of a layer and view that are no sinks; ValueError where there are none."""
    if column not in table:
        raise ValueError(f"the table has no measure {column!r}; it has {list(table.columns)}.")
    rows = table.loc[(table["layer"] == layer) & (table["view"] == view)]
    if rows.empty:
        raise ValueError(
            f"no row is of layer {layer} in the {view} view; the table has layers "
            f"{sorted(table['layer'].unique().tolist())} and views {sorted(set(table['view']))}."
        )
    if "sink" in rows:
        rows = rows.loc[~rows["sink"].astype(bool)]
    return rows.loc[np.isfinite(rows[column])]


def _summed(rows: pd.DataFrame, by: str, column: str, n_bootstrap: int, seed: int) -> pd.DataFrame:
    made = []
    for (method, strength, value), part in rows.groupby([*LINE, by], sort=False, dropna=False):
        of_example = part.groupby("example")[column].mean().to_numpy(dtype=np.float64)
        low, high = interval_of_mean(of_example, n_bootstrap, seed)
        made.append(
            {
                "method": method,
                "strength": strength,
                "strength_value": part["strength_value"].iloc[0],
                by: value,
                "mean": float(of_example.mean()),
                "low": low,
                "high": high,
                "n_examples": len(of_example),
                "n_tokens": len(part),
                "layer": part["layer"].iloc[0],
                "measure": column,
                **({"unit": part["unit"].iloc[0]} if "unit" in part else {}),
            }
        )
    table = pd.DataFrame(made)
    table.attrs.update(rows.attrs)
    return table
