"""How the next token is chosen: `Sampling`, and the choice itself.

The order is that of transformers with one step of the ActAdd authors' (TransformerLens) in it:

1. `repetition_penalty` divides the positive logits of all tokens of prompt and completion, and
   multiplies the negative ones;
2. the logits are divided by `temperature`, and `frequency_penalty` times the count of each token in
   prompt and completion (BOS included) is subtracted;
3. `top_k` keeps the k likeliest tokens, and what is as likely as the last of them;
4. `top_p` keeps the smallest set of these whose probability exceeds it;
5. `min_p` keeps the tokens that are at least `min_p` times as likely as the likeliest.

Then one is drawn. The draw of a step depends on (seed, prompt index, sample index, step) and on
nothing else, so batch size and order do not matter.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from difflib import get_close_matches
from numbers import Real
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from steerlens.checks import require_seed
from steerlens.types import converting, finite, whole_number

COLDEST = 1e-6
"""Below this temperature the logits are lowered before they are divided by it."""


def _counted(value: Any) -> Any:
    """A whole number of NumPy or torch as Python's, anything else as it is."""
    return value if (number := whole_number(value)) is None else number


def _scalar(value: Any) -> Any:
    """A number that NumPy or torch keeps in an array, as Python's; anything else as it is."""
    single = isinstance(value, torch.Tensor | np.ndarray) and value.shape == ()
    return value.item() if single else value


def _several(stop: Any) -> Any:
    """One stop string or several, as a tuple."""
    if stop is None:
        return ()
    return (stop,) if isinstance(stop, str) else tuple(stop) if isinstance(stop, Sequence) else stop


@converting(
    max_new_tokens=_counted,
    temperature=_scalar,
    top_p=_scalar,
    frequency_penalty=_scalar,
    seed=_counted,
    top_k=_counted,
    min_p=_scalar,
    repetition_penalty=_scalar,
    stop=_several,
)
@dataclass(frozen=True)
class Sampling:
    """How completions are sampled; the same value serves `generate` and `stream`.

    `temperature=0` is greedy: of the rest it looks at `repetition_penalty` and `stop` alone.
    `top_k` (None or 0: all tokens), `top_p` (1: all) and `min_p` (0: all) limit what is drawn from;
    `repetition_penalty` (1: none) is transformers', `frequency_penalty` (0: none) OpenAI's. `stop`
    is one string or several that end a completion: its text ends before the first of them, its
    tokens with the one that completed it. A string that is a special token's own text ends it as
    the end token does.

    >>> sl.Sampling(max_new_tokens=20, temperature=0.7, stop="The end").stop
    ('The end',)
    """

    max_new_tokens: int = 64
    temperature: float = 1.0
    top_p: float = 1.0
    frequency_penalty: float = 0.0
    seed: int = 0
    top_k: int | None = None
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    stop: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        _require_count("max_new_tokens", self.max_new_tokens, 1)
        _require_number("temperature", self.temperature, "0 (greedy) or a positive number")
        if not self.temperature >= 0:
            raise ValueError(
                f"temperature must be 0 (greedy) or a positive number; found {self.temperature}."
            )
        _require_number("top_p", self.top_p, "a number above 0 and at most 1")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p must be above 0 and at most 1; found {self.top_p}.")
        _require_number("frequency_penalty", self.frequency_penalty, "finite")
        require_seed(self.seed)
        if self.top_k is not None:
            _require_count("top_k", self.top_k, 0)
        _require_number("min_p", self.min_p, "a number from 0 (off) to 1")
        if not 0 <= self.min_p <= 1:
            raise ValueError(
                f"min_p is a share of the likeliest token's probability, from 0 (off) to 1; found "
                f"{self.min_p}."
            )
        _require_number("repetition_penalty", self.repetition_penalty, "a number above 0")
        if not self.repetition_penalty > 0:
            raise ValueError(
                "repetition_penalty must be above 0 (1 is none, above 1 discourages repetition); "
                f"found {self.repetition_penalty}."
            )
        _require_stops(self.stop)

    @property
    def counts(self) -> bool:
        """Whether it matters how often each token was there before."""
        return self.repetition_penalty != 1 or self.frequency_penalty != 0


def sampled_by(sampling: Sampling | None, options: dict[str, Any]) -> Sampling:
    """The sampling with these options in place of its own; TypeError for one that is none."""
    known = [item.name for item in fields(Sampling)]
    for name in options:
        if name not in known:
            near = get_close_matches(name, known, n=1, cutoff=0.5)
            raise TypeError(
                f"{name!r} is no option of sampling. There are: {', '.join(known)}."
                + (f" Did you mean {near[0]}?" if near else "")
            )
    if sampling is not None and not isinstance(sampling, Sampling):
        raise TypeError(
            f"sampling is a steerlens.Sampling(...); found {type(sampling).__name__}. Its fields "
            "may also be given by themselves: temperature=0.7."
        )
    return replace(sampling or Sampling(), **options)


class Unusable(ValueError):
    """Logits of which no token can be chosen."""


def choose(
    scores: Float[Tensor, "batch d_vocab"],
    sampling: Sampling,
    counts: Float[Tensor, "batch d_vocab"] | None,
    uniforms: Float[Tensor, "batch"],
) -> Int[Tensor, "batch"]:
    """The next token of each row: the point of its distribution that `uniforms` falls on.

    `counts` may be None where the sampling does not count (`Sampling.counts`).
    """
    greedy = sampling.temperature == 0 and sampling.repetition_penalty == 1
    likeliest = scores.argmax(dim=1) if greedy else None
    # NaN is larger than any number to torch, so that of the likeliest token tells of all.
    seen = scores if likeliest is None else scores.gather(1, likeliest[:, None])
    if not bool(are_usable(seen).all()):
        raise Unusable(
            "The model returned no finite logit, or a NaN, for a row. Lower the strength if it is "
            "steered; if it is not, load it in float32 or bfloat16 (float16 overflows)."
        )
    if likeliest is not None:
        return likeliest
    if counts is not None and sampling.repetition_penalty != 1:
        scores = _less_repeated(scores, counts > 0, sampling.repetition_penalty)
    if sampling.temperature == 0:
        return scores.argmax(dim=1)
    if sampling.temperature < COLDEST:
        # The quotient may be too large for a float; what counts is the distance to the largest. In
        # single precision the temperature itself may be 0, and 0 over 0 is no number.
        scores = (scores - scores.max(dim=1, keepdim=True).values).double()
    penalised = scores / sampling.temperature
    if counts is not None:
        penalised = penalised - sampling.frequency_penalty * counts
    return _drawn(_kept(torch.softmax(penalised.double(), dim=1), sampling), uniforms)


def are_usable(scores: Float[Tensor, "batch d_vocab"]) -> Bool[Tensor, "batch"]:
    """Which rows have a finite logit, and none that is NaN or +inf."""
    return scores.amax(dim=1).isfinite()  # NaN if one is


def _less_repeated(
    scores: Float[Tensor, "batch d_vocab"], seen: Bool[Tensor, "batch d_vocab"], penalty: float
) -> Float[Tensor, "batch d_vocab"]:
    return torch.where(seen, torch.where(scores < 0, scores * penalty, scores / penalty), scores)


def _kept(
    probability: Float[Tensor, "batch d_vocab"], sampling: Sampling
) -> Float[Tensor, "batch d_vocab"]:
    """The probabilities of the tokens that may be drawn, 0 for the others; unnormalised."""
    if sampling.top_k:
        k = min(sampling.top_k, probability.shape[1])
        lowest = probability.topk(k, dim=1).values[:, -1:]
        probability = torch.where(probability >= lowest, probability, 0)
    if sampling.top_p < 1:
        probability = _nucleus(probability, sampling.top_p)
    if sampling.min_p:
        least = sampling.min_p * probability.max(dim=1, keepdim=True).values
        probability = torch.where(probability >= least, probability, 0)
    return probability


def _nucleus(
    probability: Float[Tensor, "batch d_vocab"], top_p: float
) -> Float[Tensor, "batch d_vocab"]:
    ordered, order = probability.sort(dim=1, descending=True, stable=True)
    before = ordered.cumsum(dim=1) - ordered
    # A share of what is left, where top_k has taken some out.
    kept = torch.where(before <= top_p * ordered.sum(dim=1, keepdim=True), ordered, 0)
    # Drawn in vocabulary order: in order of probability, rounding could swap two equal tokens.
    return torch.zeros_like(kept).scatter(1, order, kept)


def _drawn(
    weights: Float[Tensor, "batch d_vocab"], uniforms: Float[Tensor, "batch"]
) -> Int[Tensor, "batch"]:
    heights = weights.cumsum(dim=1)
    return (heights > uniforms[:, None] * heights[:, -1:]).byte().argmax(dim=1)


def _require_count(name: str, found: object, least: int) -> None:
    number = whole_number(found)
    if number is None or number < least:
        raise ValueError(f"{name} must be at least {least}; found {found!r}.")


def _require_number(name: str, found: object, needed: str) -> None:
    if not isinstance(found, Real) or not finite(found):
        raise ValueError(f"{name} must be {needed}; found {found!r}.")


def _require_stops(stop: object) -> None:
    """Raise an error unless every stop string is a text that has something in it."""
    for text in stop if isinstance(stop, tuple) else (stop,):
        if not isinstance(text, str):
            raise TypeError(
                f"stop is a string or several; found {type(text).__name__}. To end at a token's id "
                "name its text."
            )
        if not text:
            raise ValueError(
                "A stop string is empty, and would end every completion. Leave it out."
            )
