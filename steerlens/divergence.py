"""How far the predictions of one run are from those of another, on the same response tokens.

At every position that predicts a response token, in nats:

    KL(P || Q) = sum over the vocabulary of p (log p - log q)

P is the run that does something (steered or prompted) and Q the one that it is compared with
(unsteered, plain): what language models trained with a penalty are held to.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import pad

from steerlens.identity import device_of
from steerlens.precision import wide
from steerlens.prompts import Encoded, stack
from steerlens.runtime.forward import logits, logits_where
from steerlens.runtime.hooks import Watch, running
from steerlens.runtime.progress import progress_bar
from steerlens.steering import Steering
from steerlens.types import HookedModel

LogProbabilities: TypeAlias = Float[Tensor, "token d_vocab"]
ROWS = 4
"""Rows of a pass. A distribution of each of their tokens is held: 4 rows of 64 tokens and a
vocabulary of 50,000 are 100 MB."""


def chunks(n: int, size: int = ROWS) -> Iterator[range]:
    """The numbers of the rows of each pass."""
    for start in range(0, n, size):
        yield range(start, min(start + size, n))


@torch.no_grad()
def log_probabilities(
    model: HookedModel,
    rows: Sequence[Encoded],
    chosen: Sequence[int],
    steering: Steering | None,
    watch: Watch,
    starts: Sequence[int] | None = None,
) -> LogProbabilities:
    """Of the chosen rows, what is predicted for each token of their responses, row by row.

    One pass, in float64 on the CPU. `watch` learns which steers did something. `starts`, one for
    each of `rows`, is the first token that is predicted, where that is not the response's first.
    """
    return _scores(model, rows, chosen, steering, watch, starts).cpu().double().log_softmax(dim=-1)


@torch.no_grad()
def response_log_p(
    model: HookedModel, rows: Sequence[Encoded], size: int = 2 * ROWS
) -> list[Float[Tensor, " _"]]:
    """Log p of each response token of each row under the unsteered model, in nats.

    In float32, in float64 where the model is.
    """
    order, found = sorted(range(len(rows)), key=lambda i: len(rows[i].ids)), {}
    groups = list(chunks(len(rows), size))
    with progress_bar(len(groups), "read", "batch") as bar:
        for places in groups:
            chosen = [order[place] for place in places]
            answers = [torch.tensor(rows[i].ids[rows[i].response :]) for i in chosen]
            log_p = wide(_scores(model, rows, chosen, None, Watch())).log_softmax(dim=-1)
            ids = torch.cat(answers).to(log_p.device)
            pieces = log_p.gather(1, ids[:, None])[:, 0].cpu().split([len(ids) for ids in answers])
            found |= dict(zip(chosen, pieces, strict=True))
            bar.update()
    return [found[number] for number in range(len(rows))]


def _scores(
    model: HookedModel,
    rows: Sequence[Encoded],
    chosen: Sequence[int],
    steering: Steering | None,
    watch: Watch,
    starts: Sequence[int] | None = None,
) -> Float[Tensor, "token d_vocab"]:
    """The logits at every position that predicts a token of the chosen rows from `starts` on.

    Without `starts`, those of the responses.
    """
    tokens, window = stack([rows[i] for i in chosen], side="right")
    window = replace(window, row=torch.tensor(list(chosen)))
    tokens, window = tokens.to(device_of(model)), window.to(device_of(model))
    first = (
        window.response
        if starts is None
        else window.response.new_tensor([starts[i] for i in chosen])
    )
    answered = window.mask & (window.positions >= first[:, None])
    predicting = pad(answered[:, 1:], (0, 1))
    with running(model, steering, watch) as run:
        if run is not None:
            run.ready(tokens, window)
        return logits_where(model, lambda: logits(model, tokens, window), predicting)


def divergence(moved: LogProbabilities, plain: LogProbabilities) -> Float[Tensor, " token"]:
    """KL(moved || plain) of each token; nats."""
    return (moved.exp() * (moved - plain)).sum(dim=-1)
