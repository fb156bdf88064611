"""What a steering towards a topic does to text of that topic, and to any other.

The experiments of Turner et al., "Activation Addition", arXiv 2308.10248, on any model and any
steering, teacher-forced. With the *frequency* of a text = topic words / words of the text:

    ratio  = exp( - mean( log p_steered - log p_unsteered ) )   perplexity ratio, by frequency (E1)
    shift  = mean over a token's instances of log p_steered - log p_unsteered                  (E2)

Below 1 the text became likelier. What is predicted from the first `skip` positions is left out, as
in the paper, where the steering writes over them. `topic_perplexity` counts words without regard to
case and punctuation; the authors split at blanks, and so miss "wedding,".
"""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from statistics import NormalDist

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from steerlens.checks import warn_if_few
from steerlens.prompts import show, tokenizer_of
from steerlens.types import HookedModel

from .changes import UNSTEERED, Changes, named
from .diversity import words_of
from .intervals import interval_of_mean, interval_of_ratio
from .texts import Predicted, TextIs

EDGES = (0.0, 0.0025, 0.005, 0.01, 0.02, 0.04, 1.0)
"""Bins of frequency: none at all, and (from, to] of each pair of these."""


def topic_frequency(text: str, topic_words: Sequence[str]) -> float:
    """The share of a text's words that are topic words; 0 for a text without words."""
    topic = {word.lower() for word in topic_words}
    words = [word for word in words_of(text) if word[0].isalnum()]
    return sum(word in topic for word in words) / len(words) if words else 0.0


def topic_perplexity(
    model: HookedModel,
    steering: Changes,
    texts: Sequence[str] | Mapping[str, Sequence[str]],
    topic_words: Sequence[str],
    *,
    bins: Sequence[float] = EDGES,
    text_is: TextIs = "response",
    max_tokens: int | None = None,
    skip: int = 0,
) -> pd.DataFrame:
    """One row per method and text, "unsteered" left out; raw texts, or several kinds by name.

    Columns: method, source (the kind, "" for a list), text, frequency (of topic words among the
    words that are predicted), bin (its text), gain (log p_steered - log p_unsteered, summed over
    tokens; nats), n_tokens, ratio (perplexity over the unsteered one). `bins` are edges; a text
    without a topic word is in the bin "0".
    """
    _require_edges(bins)
    listed = _by_source(texts)
    given = [text for _, text in listed]
    rows = Predicted.of(model, given, text_is=text_is, max_tokens=max_tokens, skip=skip)
    read = [tokenizer_of(model).decode(list(rows.targets(i))) for i in range(len(rows))]
    frequencies = np.array([topic_frequency(text, topic_words) for text in read])
    sums = {
        name: np.array([float(log_p.sum()) for log_p in rows.log_p(model, change)])
        for name, change in named(steering).items()
    }
    n = rows.lengths.numpy()
    about = pd.DataFrame(
        {
            "source": [source for source, _ in listed],
            "text": np.arange(len(listed)),
            "frequency": frequencies,
            "bin": _binned(frequencies, bins),
            "n_tokens": n,
        }
    )
    tables = [
        about.assign(method=name, gain=own - sums[UNSTEERED]).assign(
            ratio=np.exp(-(own - sums[UNSTEERED]) / n)
        )
        for name, own in sums.items()
        if name != UNSTEERED
    ]
    columns = ["method", "source", "text", "frequency", "bin", "gain", "n_tokens", "ratio"]
    return pd.concat(tables, ignore_index=True)[columns]


def topic_summary(
    table: pd.DataFrame,
    *,
    by: Sequence[str] = ("method", "source", "bin"),
    n_bootstrap: int = 1000,
    seed: int = 0,
) -> pd.DataFrame:
    """Of a `topic_perplexity`, one row per method, source and bin.

    Columns: those of `by`, frequency (mean), ratio (over all tokens: the authors' code) with
    ratio_low and _high, ratio_of_texts (exp of the mean over texts of their mean loss: the paper's
    formula) with ratio_of_texts_low and _high, n_texts, n_tokens, n_bootstrap, seed. 95 % bootstrap
    intervals over texts.
    """
    warn_if_few(table["text"].nunique(), "topic_summary", "text")
    # Methods and sources in the order of the table, bins from the lowest up.
    seen = {c: pd.Categorical(table[c], table[c].unique(), ordered=True) for c in by if c != "bin"}
    rows = []
    for key, group in table.assign(**seen).groupby(list(by), sort=True, observed=True):
        loss, n = -group["gain"].to_numpy(), group["n_tokens"].to_numpy(dtype=float)
        tokens = interval_of_ratio(loss, n, n_bootstrap, seed)
        each = interval_of_mean(loss / n, n_bootstrap, seed)
        rows.append(
            {
                **dict(zip(by, key, strict=True)),
                "frequency": group["frequency"].mean(),
                "ratio": float(np.exp(loss.sum() / n.sum())),
                "ratio_low": float(np.exp(tokens[0])),
                "ratio_high": float(np.exp(tokens[1])),
                "ratio_of_texts": float(np.exp((loss / n).mean())),
                "ratio_of_texts_low": float(np.exp(each[0])),
                "ratio_of_texts_high": float(np.exp(each[1])),
                "n_texts": len(group),
                "n_tokens": int(n.sum()),
            }
        )
    return pd.DataFrame(rows).assign(n_bootstrap=n_bootstrap, seed=seed)


def probability_shifts(
    model: HookedModel,
    steering: Changes,
    texts: Sequence[str],
    *,
    at_least: int = 20,
    text_is: TextIs = "response",
    max_tokens: int | None = None,
    skip: int = 0,
) -> pd.DataFrame:
    """One row per method and token of the vocabulary that the texts hold often enough.

    Columns: method, token_id, token, shift (the mean over its instances of log p_steered -
    log p_unsteered; nats), low and high (95 % bootstrap interval over texts), n (instances,
    `at_least` so many), n_texts, z (shift in standard deviations from the mean of all shifts),
    normal (the z that a normal distribution has at this rank: the other axis of a Q-Q plot). The
    largest shift comes first.
    """
    rows = Predicted.of(model, texts, text_is=text_is, max_tokens=max_tokens, skip=skip)
    log_p = {
        name: np.concatenate([part.numpy() for part in rows.log_p(model, change)])
        for name, change in named(steering).items()
    }
    ids = np.array([token for i in range(len(rows)) for token in rows.targets(i)])
    text = np.repeat(np.arange(len(rows)), rows.lengths.numpy())
    tables = []
    for name, own in log_p.items():
        if name != UNSTEERED:
            table = _by_token(model, ids, text, own - log_p[UNSTEERED], at_least)
            tables.append(_quantiles(table).assign(method=name))
    found = pd.concat(tables, ignore_index=True)
    return found[["method", *(column for column in found.columns if column != "method")]]


def _by_token(
    model: HookedModel,
    ids: Int[np.ndarray, " token"],
    text: Int[np.ndarray, " token"],
    shift: Float[np.ndarray, " token"],
    at_least: int,
) -> pd.DataFrame:
    """The mean shift of each token that is there `at_least` so often."""
    found = []
    for token, group in pd.DataFrame({"id": ids, "text": text, "shift": shift}).groupby("id"):
        if len(group) < at_least:
            continue
        texts = group.groupby("text")["shift"].agg(["sum", "size"])
        sums, n = texts["sum"].to_numpy(), texts["size"].to_numpy(dtype=float)
        low, high = interval_of_ratio(sums, n)
        found.append((token, float(group["shift"].mean()), low, high, len(group), len(texts)))
    if len(found) < 2:
        raise ValueError(
            f"{len(found)} tokens are at least {at_least} times in these texts, and a distribution "
            "needs more. Give more texts, or lower at_least."
        )
    columns = ["token_id", "shift", "low", "high", "n", "n_texts"]
    table = pd.DataFrame(found, columns=columns)
    table.insert(1, "token", [show(model, [int(token)])[0] for token in table["token_id"]])
    return table


def _quantiles(table: pd.DataFrame) -> pd.DataFrame:
    """With the axes of a Q-Q plot, the largest shift first."""
    table = table.sort_values("shift", ascending=False, kind="stable").reset_index(drop=True)
    n, shift = len(table), table["shift"]
    ranks = (np.arange(n, 0, -1) - 0.5) / n
    spread = shift.std()
    return table.assign(
        z=(shift - shift.mean()) / spread if spread > 0 else 0.0,
        normal=[NormalDist().inv_cdf(rank) for rank in ranks],
    )


def _by_source(texts: Sequence[str] | Mapping[str, Sequence[str]]) -> list[tuple[str, str]]:
    """(source, text) of every text."""
    if isinstance(texts, Mapping):
        listed = [(source, text) for source, some in texts.items() for text in some]
    else:
        listed = [("", text) for text in texts]
    if not listed or not all(isinstance(text, str) for _, text in listed):
        raise ValueError("Give raw texts, at least one: a list of them, or lists by their source.")
    return listed


def _binned(frequencies: Float[np.ndarray, " text"], bins: Sequence[float]) -> pd.Categorical:
    """The bin of each frequency, by its text; from the lowest up."""
    names = [f"{low:g} to {high:g}" for low, high in pairwise(bins)]
    numbers = np.searchsorted(np.asarray(bins), frequencies, side="left")
    labels = ["0" if number == 0 else names[number - 1] for number in numbers]
    return pd.Categorical(labels, categories=["0", *names], ordered=True)


def _require_edges(bins: Sequence[float]) -> None:
    """Raise ValueError unless the edges rise from 0 to 1."""
    rising = all(low < high for low, high in pairwise(bins))
    if len(bins) < 2 or bins[0] != 0 or bins[-1] < 1 or not rising:
        raise ValueError(
            f"bins are edges of frequencies, rising from 0 to 1: (0, 0.01, 1); found {tuple(bins)}."
        )
