"""What a steering does to the probabilities of chosen words, whatever comes to be written.

    shift = log p_steered(word) - log p_unsteered(word)

at the same position of the same text, in nats. A word is known by its first token.
"""

from collections.abc import Sequence
from typing import Literal, cast, get_args

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from steerlens.baselines.weights import Change, changed
from steerlens.borders import ids_of
from steerlens.checks import require_choice, warn_if_few
from steerlens.prompts import Prompts, encode_all, show, tokenizer_of
from steerlens.runtime.hooks import watching
from steerlens.types import HookedModel

from .changes import UNSTEERED, Changes, named
from .intervals import interval_of_mean
from .progress import watched
from .texts import Predicted, TextIs, Texts

Where = Literal["every", "end"]


def word_shifts(
    model: HookedModel,
    steering: Changes,
    texts: Texts,
    words: Sequence[str],
    *,
    where: Where = "every",
    text_is: TextIs = "response",
    max_tokens: int | None = None,
) -> pd.DataFrame:
    """One row per method, text and word, "unsteered" left out.

    A word is its first token, with and without a space before it: log p(word) is that of either.
    `where` is "every" predicted token of a text (the mean over them), or its "end": the token that
    would come next. Columns: method, text, word, tokens (the first tokens, as shown), log_p and
    log_p_unsteered (nats), shift, n_tokens.
    """
    require_choice("where", where, get_args(Where))
    ids = {word: first_tokens(model, word) for word in words}
    if not ids:
        raise ValueError("No words were given. Pass at least one.")
    if where == "end":
        rows = Predicted.after(encode_all(model, cast("Prompts", texts)))
    else:
        rows = Predicted.of(model, texts, text_is=text_is, max_tokens=max_tokens)
    found = {name: _words(model, rows, change, ids) for name, change in named(steering).items()}
    shown = ["/".join(show(model, tokens)) for tokens in ids.values()]
    tables = [
        pd.DataFrame(
            {
                "method": name,
                "text": np.repeat(np.arange(len(rows)), len(ids)),
                "word": list(ids) * len(rows),
                "tokens": shown * len(rows),
                "log_p": log_p.ravel(),
                "log_p_unsteered": found[UNSTEERED].ravel(),
                "shift": (log_p - found[UNSTEERED]).ravel(),
                "n_tokens": np.repeat(rows.lengths.numpy(), len(ids)),
            }
        )
        for name, log_p in found.items()
        if name != UNSTEERED
    ]
    return pd.concat(tables, ignore_index=True)


def word_shift_summary(
    table: pd.DataFrame, *, n_bootstrap: int = 1000, seed: int = 0
) -> pd.DataFrame:
    """Of a `word_shifts`, one row per method and word.

    Columns: method, word, tokens, shift (mean over texts) with low and high (95 % bootstrap
    interval over texts), n_texts, n_bootstrap, seed.
    """
    warn_if_few(table["text"].nunique(), "word_shift_summary", "text")
    rows = []
    for key, group in table.groupby(["method", "word", "tokens"], sort=False):
        shift = group["shift"].to_numpy()
        low, high = interval_of_mean(shift, n_bootstrap, seed)
        named_by = dict(zip(("method", "word", "tokens"), key, strict=True))
        rows.append(
            {
                **named_by,
                "shift": float(shift.mean()),
                "low": low,
                "high": high,
                "n_texts": len(group),
            }
        )
    return pd.DataFrame(rows).assign(n_bootstrap=n_bootstrap, seed=seed)


def first_tokens(model: HookedModel, word: str) -> tuple[int, ...]:
    """The first token of a word, after a space and without one; one id where both are the same.

    A token that is a space alone counts as none. ValueError for a word of no token.
    """
    tokenizer, found = tokenizer_of(model), list[int]()
    for written in (f" {word}", word):
        ids = ids_of(tokenizer, written)
        spoken = [i for i, text in zip(ids, show(model, ids), strict=True) if text.strip(" ▁")]
        if not spoken:
            raise ValueError(f"The word {word!r} has no token of its own in this vocabulary.")
        found.append(spoken[0])
    return tuple(dict.fromkeys(found))


def _words(
    model: HookedModel, rows: Predicted, change: Change, ids: dict[str, tuple[int, ...]]
) -> Float[np.ndarray, "text word"]:
    """The mean over the predicted tokens of each text of log p of each word."""
    means: list[Tensor] = []
    with changed(model, change) as steering, watching() as watch:
        for chosen in watched(list(rows.batches()), "words", "batch"):
            log_p = rows.log_probabilities(model, chosen, steering, watch)
            each = [log_p[:, list(tokens)].logsumexp(dim=1) for tokens in ids.values()]
            lengths = rows.lengths[list(chosen)].tolist()
            means += [part.mean(dim=0) for part in torch.stack(each, dim=1).split(lengths)]
    return torch.stack(means).numpy()
