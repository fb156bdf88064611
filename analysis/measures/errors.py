"""The squared errors of every token, collected from pairs in parts, and the relative RMSE of them.

What is kept is a few numbers of each token at each site; the activations are let go with their
part.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypeVar, runtime_checkable

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from steerlens.prompts import PromptPair
from steerlens.sinks import require_ordinary
from steerlens.sites import Site

from .aligned import Aligned
from .deltas import Deltas
from .entries import Entry
from .intervals import interval_of_ratio

Squares = Float[Tensor, "token"]


def relative_rmse(numerator: Squares, denominator: Squares) -> float:
    """sqrt(sum numerator / sum denominator), of squared norms per token."""
    return float(torch.sqrt(numerator.sum() / denominator.sum()))


@runtime_checkable
class Pushed(Protocol):
    """Some pairs that were run, what the prompt did to their tokens, and which are no sinks."""

    @property
    def aligned(self) -> Aligned: ...
    @property
    def target(self) -> Deltas: ...
    @property
    def kept(self) -> dict[Site, Bool[Tensor, "token"]]: ...


Some = TypeVar("Some", bound=Pushed)


@dataclass(eq=False)
class Errors:
    """Of all pairs, by site: squared push, whether a token is no sink, and the squared errors.

    `questions` numbers the plain prompt of every pair, `question` has that of every token so far.
    """

    questions: Int[Tensor, "pair"]
    question: list[Int[Tensor, "token"]] = field(default_factory=list)
    kept: dict[Site, list[Bool[Tensor, "token"]]] = field(default_factory=dict)
    whole: dict[Site, list[Squares]] = field(default_factory=dict)
    left: dict[str, dict[Site, list[Squares]]] = field(default_factory=dict)
    current: Pushed | None = None
    start: int = 0

    @classmethod
    def of(cls, pairs: Sequence[PromptPair]) -> "Errors":
        """Nothing of these pairs yet."""
        number = {plain: i for i, plain in enumerate(dict.fromkeys(pair.plain for pair in pairs))}
        return cls(torch.tensor([number[pair.plain] for pair in pairs], dtype=torch.long))

    def begin(self, part: Some) -> Some:
        """The next pairs, in order."""
        if self.current is not None:
            self.start += len(self.current.aligned.plain_rows)
        self.current = part
        self.question.append(self.questions[self.start + part.aligned.example])
        for site in part.aligned.sites:
            self.kept.setdefault(site, []).append(part.kept[site])
            self.whole.setdefault(site, []).append(part.target[site].square().sum(dim=-1))
        return part

    def now(self, pairs: Sequence[PromptPair]) -> Sequence[PromptPair]:
        """Those of some pairs that belong to the part that was begun."""
        assert self.current is not None
        return pairs[self.start : self.start + len(self.current.aligned.plain_rows)]

    def missed(self, key: str, reached: Iterable[Deltas]) -> None:
        """What a method does to this part; of several deltas the squared errors are averaged."""
        assert self.current is not None
        target, squares = self.current.target, dict[Site, list[Squares]]()
        for deltas in reached:
            for site in self.current.aligned.sites:
                square = (deltas[site] - target[site]).square().sum(dim=-1)
                squares.setdefault(site, []).append(square)
        for site, several in squares.items():
            mean = torch.stack(several).mean(dim=0)
            self.left.setdefault(key, {}).setdefault(site, []).append(mean)

    def table(self, key: str, entry: Entry, n_bootstrap: int, seed: int) -> pd.DataFrame:
        """The rows of one entry; ValueError where every token at a layer is a sink."""
        return pd.DataFrame(
            [
                {
                    "method": entry.method,
                    "strength": entry.strength,
                    "strength_value": entry.strength_value,
                    "layer": site.layer,
                    **self._at(site, torch.cat(missed), n_bootstrap, seed),
                    "n_examples": len(self.questions),
                    "n_tokens": int(torch.cat(self.kept[site]).sum()),
                    "n_bootstrap": n_bootstrap,
                    "seed": seed,
                }
                for site, missed in self.left[key].items()
            ]
        )

    def _at(self, site: Site, missed: Squares, n_bootstrap: int, seed: int) -> dict[str, float]:
        whole, keep = torch.cat(self.whole[site]), torch.cat(self.kept[site])
        require_ordinary(keep, f"tokens at {site}")
        numerator, denominator = (torch.where(keep, part, 0) for part in (missed, whole))
        sums = self._by_question(numerator), self._by_question(denominator)
        low, high = interval_of_ratio(*sums, n_bootstrap, seed)
        return {
            "relative_rmse": relative_rmse(numerator, denominator),
            "low": low**0.5,
            "high": high**0.5,
            "token_median": float(torch.sqrt(missed / whole)[keep].nanmedian()),
            "denominator": float(whole[keep].mean().sqrt()),
            "relative_rmse_with_sinks": relative_rmse(missed, whole),
            "n_sinks": int((~keep).sum()),
        }

    def _by_question(self, values: Squares) -> Float[np.ndarray, " question"]:
        return torch.bincount(torch.cat(self.question), values).numpy()
