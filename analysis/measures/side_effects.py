"""What a steering does besides: to the perplexity of unrelated text, and to each prediction.

Everything is teacher-forced: the same texts under the model as it is and under each steering, LoRA
or gradient step, whose names are in the column `method`; "unsteered" is always there. In nats, with
x a text of n predicted tokens:

    nll        = -sum_t log p(x_t)            perplexity = exp(nll / n)
    KL         = KL(p_steered || p_unsteered) of each predicted token, and its sum over a text

Tables have a row per text, so that a text is what intervals resample: its tokens are not
independent. `measures.texts` says what is predicted of a text.
"""

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from steerlens.baselines.weights import Change, changed
from steerlens.checks import warn_if_few
from steerlens.divergence import divergence
from steerlens.prompts import show
from steerlens.runtime.hooks import Watch, watching
from steerlens.types import HookedModel

from .changes import UNSTEERED, Changes, named
from .intervals import interval_of_mean, interval_of_ratio
from .progress import watched
from .texts import Predicted, TextIs, Texts


def perplexity_under(
    model: HookedModel,
    steering: Changes,
    texts: Texts,
    *,
    text_is: TextIs = "response",
    max_tokens: int | None = None,
    skip: int = 0,
) -> pd.DataFrame:
    """One row per method and text.

    Columns: method, text, nll and nll_unsteered (nats, summed over the text), n_tokens, perplexity,
    ratio (perplexity over the unsteered one).
    """
    rows = Predicted.of(model, texts, text_is=text_is, max_tokens=max_tokens, skip=skip)
    sums = {
        name: np.array([-float(log_p.sum()) for log_p in rows.log_p(model, change)])
        for name, change in named(steering).items()
    }
    n, plain = rows.lengths.numpy(), sums[UNSTEERED]
    tables = [
        pd.DataFrame(
            {
                "method": name,
                "text": np.arange(len(rows)),
                "nll": nll,
                "nll_unsteered": plain,
                "n_tokens": n,
                "perplexity": np.exp(nll / n),
                "ratio": np.exp((nll - plain) / n),
            }
        )
        for name, nll in sums.items()
    ]
    return pd.concat(tables, ignore_index=True)


def perplexity_summary(
    table: pd.DataFrame, *, n_bootstrap: int = 1000, seed: int = 0
) -> pd.DataFrame:
    """One row per method of `perplexity_under`, over all tokens of all texts.

    Columns: method, perplexity (exp of the summed nll over the summed tokens) with perplexity_low
    and _high, ratio (the same over the unsteered perplexity) with ratio_low and _high, n_texts,
    n_tokens, n_bootstrap, seed. The intervals are 95 %, by resampling texts; that of the ratio
    takes the texts of both runs together.
    """
    warn_if_few(table["text"].nunique(), "perplexity_summary", "text")
    rows = []
    for method, group in table.groupby("method", sort=False):
        n = group["n_tokens"].to_numpy(dtype=float)
        row: dict[str, object] = {"method": method}
        parts = {"perplexity": group["nll"], "ratio": group["nll"] - group["nll_unsteered"]}
        for name, above in parts.items():
            low, high = interval_of_ratio(above.to_numpy(), n, n_bootstrap, seed)
            row |= {
                name: float(np.exp(above.sum() / n.sum())),
                f"{name}_low": float(np.exp(low)),
                f"{name}_high": float(np.exp(high)),
            }
        rows.append({**row, "n_texts": len(group), "n_tokens": int(n.sum())})
    return pd.DataFrame(rows).assign(n_bootstrap=n_bootstrap, seed=seed)


def token_kl(
    model: HookedModel,
    steering: Changes,
    texts: Texts,
    *,
    text_is: TextIs = "response",
    max_tokens: int | None = None,
    skip: int = 0,
) -> pd.DataFrame:
    """One row per method and predicted token, "unsteered" left out: its KL is 0.

    Columns: method, text, token_index (0 is the first predicted token), token, kl (nats, of the
    steered from the unsteered prediction of that token).
    """
    rows = Predicted.of(model, texts, text_is=text_is, max_tokens=max_tokens, skip=skip)
    places = _places(model, rows)
    changes = named(steering)
    tables = [
        places.assign(method=name, kl=_kl(model, rows, change))
        for name, change in changes.items()
        if name != UNSTEERED
    ]
    columns = ["method", *places.columns, "kl"]
    return pd.concat(tables, ignore_index=True)[columns]


def kl_by_text(table: pd.DataFrame) -> pd.DataFrame:
    """Of a `token_kl`, one row per method and text: kl_sum and kl_mean (nats), n_tokens."""
    grouped = table.groupby(["method", "text"], sort=False)["kl"]
    found = grouped.agg(kl_sum="sum", kl_mean="mean", n_tokens="size")
    return found.reset_index()


def kl_summary(table: pd.DataFrame, *, n_bootstrap: int = 1000, seed: int = 0) -> pd.DataFrame:
    """Of a `token_kl`, one row per method.

    Columns: method, kl_per_token (summed KL over summed tokens) with kl_per_token_low and _high,
    kl_per_text (mean over texts of the summed KL) with kl_per_text_low and _high, n_texts,
    n_tokens, n_bootstrap, seed. 95 % bootstrap intervals over texts.
    """
    texts = kl_by_text(table)
    warn_if_few(texts["text"].nunique(), "kl_summary", "text")
    rows = []
    for method, group in texts.groupby("method", sort=False):
        sums, n = group["kl_sum"].to_numpy(), group["n_tokens"].to_numpy(dtype=float)
        tokens = interval_of_ratio(sums, n, n_bootstrap, seed)
        each = interval_of_mean(sums, n_bootstrap, seed)
        rows.append(
            {
                "method": method,
                "kl_per_token": float(sums.sum() / n.sum()),
                "kl_per_token_low": tokens[0],
                "kl_per_token_high": tokens[1],
                "kl_per_text": float(sums.mean()),
                "kl_per_text_low": each[0],
                "kl_per_text_high": each[1],
                "n_texts": len(group),
                "n_tokens": int(n.sum()),
            }
        )
    return pd.DataFrame(rows).assign(n_bootstrap=n_bootstrap, seed=seed)


def _places(model: HookedModel, rows: Predicted) -> pd.DataFrame:
    """The predicted tokens of all rows."""
    lengths = rows.lengths.numpy()
    return pd.DataFrame(
        {
            "text": np.repeat(np.arange(len(rows)), lengths),
            "token_index": np.concatenate([np.arange(n) for n in lengths]),
            "token": [text for i in range(len(rows)) for text in show(model, rows.targets(i))],
        }
    )


def _kl(model: HookedModel, rows: Predicted, change: Change) -> Float[np.ndarray, " token"]:
    """KL(steered || unsteered) of every predicted token.

    The weights of what changes them are put in once for each batch: a distribution is 400 kB a
    token, and only those of one batch are held.
    """
    parts: list[Tensor] = []
    with watching() as watch:
        for chosen in watched(list(rows.batches()), "predictions", "batch"):
            plain = rows.log_probabilities(model, chosen, None, Watch())
            with changed(model, change) as steering:
                moved = rows.log_probabilities(model, chosen, steering, watch)
            parts.append(divergence(moved, plain))
    return torch.cat(parts).numpy()
