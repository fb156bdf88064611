"""Training by preference: which of two answers a vector, and the same vector reversed, make likely.

The loss is that of DPO (Rafailov et al., arXiv 2305.18290) for both signs of the vectors, the model
without them being the reference.
"""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from steerlens.identity import device_of, origin_of
from steerlens.precision import wide, wide_dtype
from steerlens.prompts import Encoded, stack
from steerlens.runtime.forward import logits, logits_where
from steerlens.runtime.turns import hooked
from steerlens.scopes import Scope
from steerlens.sites import Site, require_writable, width_of
from steerlens.training.checkpoint import Parameters
from steerlens.training.checks import (
    require_answers,
    require_beta,
    require_some_preference,
    require_steered,
)
from steerlens.training.examples import span_of
from steerlens.training.gates import key_of
from steerlens.types import HookedModel, Residual

BATCH = 16
"""Rows of a pass in which nothing is trained."""
SIGNS = (1.0, -1.0)


class Preferences:
    """The `Task` of a vector at each site that prefers one answer, and reversed the other."""

    def __init__(
        self,
        model: HookedModel,
        positive: Sequence[Encoded],
        negative: Sequence[Encoded],
        sites: Sequence[Site],
        scope: Scope,
        beta: float,
    ) -> None:
        require_beta(beta)
        for site in sites:
            require_writable(model, site)
        require_answers([*positive, *negative])
        require_some_preference(positive, negative)
        require_steered([span_of(row, scope) for row in (*positive, *negative)], scope)
        self.model, self.sites, self.scope, self.beta = model, tuple(sites), scope, beta
        self.sides = list(positive), list(negative)
        with torch.no_grad():
            self.reference = [self._plain(side) for side in self.sides]

    def __repr__(self) -> str:
        about = origin_of(self.model).model.fingerprint, self.sites, str(self.scope), self.beta
        return f"Preferences({about} {[[row.ids for row in side] for side in self.sides]})"

    @property
    def size(self) -> int:
        """How many pairs there are."""
        return len(self.sides[0])

    def start(self, generator: torch.Generator) -> Parameters:
        """Vectors of zero."""
        dtype = wide_dtype(self.model)
        return {
            key_of(site, "v"): torch.zeros(width_of(self.model, site), dtype=dtype)
            for site in self.sites
        }

    def loss(self, parameters: Parameters, examples: Sequence[int]) -> Float[Tensor, ""]:
        """The mean over these pairs and both signs; log 2 where the vectors do nothing."""
        rows = [side[i] for side in self.sides for i in examples]
        plain = torch.cat([side[list(examples)] for side in self.reference])
        n, losses = len(examples), list[Tensor]()
        for d in SIGNS:
            gained = self._log_likelihoods(rows, parameters, d) - plain.to(device_of(self.model))
            margin = gained[:n] - gained[n:]
            losses.append(-torch.nn.functional.logsigmoid(d * self.beta * margin))
        return torch.stack(losses).mean()

    def _plain(self, rows: Sequence[Encoded]) -> Float[Tensor, " row"]:
        parts = [rows[start : start + BATCH] for start in range(0, len(rows), BATCH)]
        return torch.cat([self._log_likelihoods(part, None, 0.0) for part in parts]).cpu()

    def _log_likelihoods(
        self, rows: Sequence[Encoded], parameters: Parameters | None, d: float
    ) -> Float[Tensor, " row"]:
        """The log-likelihood of each row's response, with the vectors at the sign d."""
        device = device_of(self.model)
        tokens, window = stack(rows, side="right")
        tokens, window = tokens.to(device), window.to(device)
        inside = self.scope.where(window)[..., None]

        def moved(site: Site) -> Any:
            def hook(h: Residual, hook: Any = None) -> Residual:
                assert parameters is not None
                v = parameters[key_of(site, "v")].to(h.device)
                return (wide(h) + d * v * inside).to(h.dtype)

            return hook

        acting = () if parameters is None else self.sites
        answer = window.mask & (window.positions >= window.response[:, None])
        predicting = torch.nn.functional.pad(answer[:, 1:], (0, 1))
        with hooked(self.model, [site.hook(moved(site)) for site in acting]):
            run = lambda: logits(self.model, tokens, window)  # noqa: E731
            scores = logits_where(self.model, run, predicting)
        surprise = torch.nn.functional.cross_entropy(
            wide(scores), tokens[:, 1:][answer[:, 1:]], reduction="none"
        )
        row = torch.nonzero(answer[:, 1:])[:, 0]
        return -torch.zeros(len(rows), dtype=surprise.dtype, device=device).index_add(
            0, row, surprise
        )
