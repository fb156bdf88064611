"""How far apart two models are, of which one is, for instance, the other quantised."""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from steerlens.activations import capture
from steerlens.divergence import divergence
from steerlens.identity import context_length, device_of
from steerlens.prompts import tokenizer_of
from steerlens.runtime.forward import logits
from steerlens.scopes import Window
from steerlens.sites import Site
from steerlens.types import HookedModel

TEXT = (
    "The committee met on Tuesday to discuss the new library. Most of the people who came had read "
    "the plan, and several said that the old building should be kept. It was raining when they "
    "left, and the streets were empty but for a dog that followed them home."
)


@dataclass(frozen=True)
class Distance:
    """Two models on the same text: `kl` in nats a token, of next-token distributions.

    `activations` is |difference| / |activation|, the mean over tokens and sites; `n` the tokens.
    """

    kl: float
    activations: float
    n: int

    def __str__(self) -> str:
        return (
            f"on {self.n} tokens of plain text their next-token distributions differ by "
            f"{self.kl:.3g} nats a token, and activations where it steers by "
            f"{self.activations:.2g} of their norm"
        )


@torch.no_grad()
def distance(first: HookedModel, second: HookedModel, sites: Iterable[Site]) -> Distance:
    """How far `second` is from `first`: KL(first || second), and the activations at `sites`."""
    ids = _ids(first, second)
    log_p, log_q = (_log_probabilities(model, ids) for model in (first, second))
    kl = divergence(log_p, log_q).mean()
    places = list(dict.fromkeys(sites))
    rows = (ids[None], torch.ones_like(ids[None], dtype=torch.bool))
    before, after = (capture(model, rows, places) for model in (first, second))
    apart = [
        (after.at(site).cpu().double() - before.at(site).cpu().double()).norm(dim=-1)
        / before.at(site).cpu().double().norm(dim=-1)
        for site in places
    ]
    return Distance(float(kl), float(torch.stack(apart).mean()), len(ids))


def _ids(first: HookedModel, second: HookedModel) -> Int[Tensor, "pos"]:
    """The text's ids; ValueError unless both tokenizers write it the same way."""
    ids, others = (
        tokenizer_of(model)(TEXT, add_special_tokens=False)["input_ids"]
        for model in (first, second)
    )
    if ids != others:
        raise ValueError(
            "The two models write the same text in other tokens, so they are not one model in two "
            "precisions. Fit the steering again on this one."
        )
    longest = [context_length(model) or len(ids) for model in (first, second)]
    return torch.tensor(ids[: min(longest)])


def _log_probabilities(model: HookedModel, ids: Int[Tensor, "pos"]) -> Float[Tensor, "pos d_vocab"]:
    window = Window.of(torch.ones_like(ids[None], dtype=torch.bool)).to(device_of(model))
    scores = logits(model, ids[None].to(device_of(model)), window)[0]
    return scores.cpu().double().log_softmax(dim=-1)
