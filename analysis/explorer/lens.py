"""The logit lens of a change: which words the change of an activation makes likelier by itself.

The activation with the change and the one without go through the model's own final norm and
unembedding, and the difference of the two is ranked: soft caps and all are the model's.
"""

from collections.abc import Iterator
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from steerlens.identity import device_of
from steerlens.precision import wide
from steerlens.prompts import Encoded, stack
from steerlens.runtime.forward import logits_from
from steerlens.types import HookedModel

from .passes import Outputs
from .readings import SHOWN_BY_LENS, Change


def lens_of(model: HookedModel, plain: Outputs, moved: Outputs) -> Iterator[tuple[Change, ...]]:
    """For each layer, what the change of every token leads to; one layer at a time."""
    for site, after in moved.items():
        before = plain[site]
        if torch.equal(before, after):
            yield tuple(Change([], []) for _ in after)
            continue
        scores = wide(_unembedded(model, torch.stack([before, after])))
        yield tuple(_changes(scores[1] - scores[0]))


@torch.no_grad()
def _unembedded(
    model: HookedModel, residual: Float[Tensor, "run token d_model"]
) -> Float[Tensor, "run token d_vocab"]:
    n = residual.shape[1]
    row = Encoded((0,) * n, question=0, response=n, bos=False)
    tokens, window = stack([row] * len(residual), side="right")
    device = device_of(model)
    tokens, window = tokens.to(device), replace(window, row=torch.arange(2)).to(device)
    top = residual.to(device)
    return logits_from(model, top, model.cfg.n_layers, tokens, window).cpu()


def _changes(scores: Float[Tensor, "token d_vocab"]) -> Iterator[Change]:
    """The words of each token, their scores less the mean, which no softmax sees."""
    scores = scores - scores.mean(dim=-1, keepdim=True)
    up, down = scores.topk(SHOWN_BY_LENS), (-scores).topk(SHOWN_BY_LENS)
    for i in range(len(scores)):
        yield Change(
            list(zip(up.indices[i].tolist(), up.values[i].tolist(), strict=True)),
            list(zip(down.indices[i].tolist(), (-down.values[i]).tolist(), strict=True)),
        )
