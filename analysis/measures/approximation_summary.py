"""A `step_approximation` in a few numbers, with intervals over texts."""

import numpy as np
import pandas as pd

from steerlens.checks import warn_if_few

from .intervals import interval_of_mean, interval_of_ratio


def approximation_summary(
    table: pd.DataFrame, *, sinks: bool = False, n_bootstrap: int = 1000, seed: int = 0
) -> pd.DataFrame:
    """One row per method, layer, stream and eta of a `step_approximation`.

    Columns: method, layer, stream, eta, relative_error (the root of the summed squares of the
    errors over those of the exact change), relative_error_low and _high, error_median (over tokens
    of their own relative error), best_scale (what one number to multiply all found changes by makes
    them nearest to the exact ones), error_at_best_scale (the relative error then: 1 is no better
    than no change), cosine (mean over tokens) with _low and _high, norm_ratio (root
    mean square of the found change over the exact one's), kl_step, kl_found, kl_left (means, nats
    a token), recovered (1 - sum kl_left / sum kl_step) with _low and _high, n_texts, n_tokens,
    n_bootstrap, seed. Intervals are 95 % bootstrap intervals over texts. Tokens that are sinks are
    left out unless `sinks`.
    """
    kept = table if sinks else table.loc[~table["sink"]]
    if kept.empty:
        raise ValueError("The table has no token that is no sink: nothing to summarise.")
    warn_if_few(kept["text"].nunique(), "approximation_summary", "text")
    keys = ["method", "layer", "stream", "eta"]
    random = {"n_bootstrap": n_bootstrap, "seed": seed}
    rows = [
        {**dict(zip(keys, key, strict=True)), **_summary(group, **random), **random}
        for key, group in kept.groupby(keys, sort=False)
    ]
    return pd.DataFrame(rows)


def _summary(group: pd.DataFrame, n_bootstrap: int, seed: int) -> dict[str, float]:
    """One row of the summary, but for what names it."""
    exact = group["norm_exact"] ** 2
    sums = pd.DataFrame(
        {
            "text": group["text"],
            "missed": exact * group["relative_error"] ** 2,
            "exact": exact,
            "found": group["norm"] ** 2,
            "along": group["cosine"] * group["norm"] * group["norm_exact"],
            **{name: group[name] for name in ("kl_step", "kl_found", "kl_left")},
        }
    )
    texts = sums.groupby("text").sum()
    missed, whole, left, there = (
        texts[name].to_numpy() for name in ("missed", "exact", "kl_left", "kl_step")
    )
    found, along = texts["found"].sum(), texts["along"].sum()
    error = interval_of_ratio(missed, whole, n_bootstrap, seed)
    share = interval_of_ratio(left, there, n_bootstrap, seed)
    cosines = group.groupby("text")["cosine"].mean().to_numpy()
    low, high = interval_of_mean(cosines, n_bootstrap, seed)
    return {
        "relative_error": float(np.sqrt(missed.sum() / whole.sum())),
        "relative_error_low": float(np.sqrt(error[0])),
        "relative_error_high": float(np.sqrt(error[1])),
        "error_median": float(group["relative_error"].median()),
        "best_scale": float(along / found) if found else float("nan"),
        "error_at_best_scale": _unexplained(along, found, whole.sum()),
        "cosine": float(np.nanmean(cosines)),
        "cosine_low": low,
        "cosine_high": high,
        "norm_ratio": float(np.sqrt(found / whole.sum())),
        **{name: float(group[name].mean()) for name in ("kl_step", "kl_found", "kl_left")},
        "recovered": float(1 - left.sum() / there.sum()),
        "recovered_low": 1 - share[1],
        "recovered_high": 1 - share[0],
        "n_texts": len(texts),
        "n_tokens": len(group),
    }


def _unexplained(along: float, found: float, exact: float) -> float:
    """The relative error at the scale that makes it least, of sums over all tokens."""
    explained = along**2 / (found * exact) if found else 0.0
    return float(np.sqrt(max(0.0, 1 - explained)))
