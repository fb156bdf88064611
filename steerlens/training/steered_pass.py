"""One steered pass of a training: what steers it, and what it leaves behind."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from steerlens.precision import wide
from steerlens.scopes import Window
from steerlens.sites import Site
from steerlens.training.gates import Gated
from steerlens.types import Residual, Tokens, Where


@dataclass(eq=False, repr=False)
class Pass:
    """One steered pass over a batch: what steers it, and what it left behind."""

    tokens: Tokens
    window: Window
    spans: Where
    steers: Mapping[Site, Gated]
    strengths: Mapping[Site, Float[Tensor, "batch pos 1"]]
    residuals: dict[int, Residual] = field(default_factory=dict)
    gates: dict[Site, Float[Tensor, "batch pos rank"]] = field(default_factory=dict)
    scores: Float[Tensor, "predicted d_vocab"] | None = None

    @property
    def responses(self) -> Where:
        """True on response tokens."""
        return self.window.positions >= self.window.response[:, None]

    def steered(self, site: Site, h: Residual) -> Residual:
        """The activation at a site as it goes on, noted on the way."""
        if site in self.steers:
            steer = self.steers[site]
            self.gates[site] = steer.gates(h)
            h = (h + self.strengths[site] * wide(steer(h) - h)).to(h.dtype)
        if site.stream == "resid_post":
            self.residuals[site.layer] = h
        return h

    def hooks(self, sites: Sequence[Site]) -> list[tuple[str, Callable[..., Residual]]]:
        """`steered` at these sites, for TransformerLens."""
        return [site.hook(lambda h, hook=None, site=site: self.steered(site, h)) for site in sites]

    def opened(self) -> dict[Site, Bool[Tensor, "token rank"]]:
        """Which gates are open, on every token of the spans."""
        return {site: (gate.detach() > 0)[self.spans].cpu() for site, gate in self.gates.items()}

    def closed(self) -> Float[Tensor, " batch"]:
        """max(0, 1 - sum of the gates) of each row, summed over sites."""
        sums = [(gate.sum(dim=-1) * self.spans).sum(dim=1) for gate in self.gates.values()]
        return torch.stack([torch.relu(1 - total) for total in sums]).sum(dim=0)

    def surprise(self) -> Float[Tensor, " batch"]:
        """Mean over response tokens of -log p(token), a row."""
        assert self.scores is not None
        predicted = self.responses[:, 1:]
        losses = torch.nn.functional.cross_entropy(
            wide(self.scores), self.tokens[:, 1:][predicted], reduction="none"
        )
        counts = predicted.sum(dim=1)
        row = torch.repeat_interleave(torch.arange(len(counts), device=counts.device), counts)
        return torch.zeros_like(counts, dtype=losses.dtype).index_add(0, row, losses) / counts
