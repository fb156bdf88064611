"""Losses of one example: a number that is low where the model answers as the example wants.

A loss is a function `(logits, batch) -> scalar`, and any such function will do. `batch` holds the
rows of one example, the positive answer first. With l(y) the mean log-probability of the answer
tokens of a row, every row by its own span:

    sft           -l(positive)
    negative_sft  +l(negative)
    dpo           -log sigmoid(beta (l(positive) - l(negative))),  beta = 0.1, no reference model
    options       -sum_k p_k log q_k,  q the softmax over the logits of the option tokens alone
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from steerlens.checks import require_choice
from steerlens.identity import device_of
from steerlens.prompts import Encoded, stack
from steerlens.scopes import Window
from steerlens.types import HookedModel, Tokens

LossName = Literal["sft", "negative_sft", "dpo", "options"]
BETA = 0.1


@dataclass(frozen=True, eq=False)
class Rows:
    """The rows of one example as a right-padded batch, the positive answer first."""

    tokens: Tokens
    window: Window
    options: tuple[tuple[int, float], ...] = ()

    @property
    def last(self) -> list[int]:
        """The column of each row whose logits predict the first answer token."""
        return (self.window.response - 1).tolist()


Logits: TypeAlias = Float[Tensor, "row pos d_vocab"]
Loss: TypeAlias = Callable[[Logits, Rows], Float[Tensor, ""]]


@dataclass(frozen=True)
class Example:
    """What one loss is taken of: its rows, and the wished probability of each option, if any."""

    rows: tuple[Encoded, ...]
    options: tuple[tuple[int, float], ...] = ()

    def batch(self, model: HookedModel) -> Rows:
        """The rows on the model's device."""
        tokens, window = stack(self.rows, "right")
        device = device_of(model)
        return Rows(tokens.to(device), window.to(device), self.options)


def log_likelihood(logits: Logits, batch: Rows) -> Float[Tensor, " row"]:
    """The mean log-probability of each row's answer tokens."""
    wide = logits[:, :-1].to(torch.promote_types(logits.dtype, torch.float32))
    targets, window = batch.tokens[:, 1:], batch.window
    spoken = torch.log_softmax(wide, dim=-1).gather(-1, targets[..., None])[..., 0]
    inside = ((window.positions >= window.response[:, None]) & window.mask)[:, 1:]
    return (spoken * inside).sum(dim=1) / inside.sum(dim=1)


def sft(logits: Logits, batch: Rows) -> Float[Tensor, ""]:
    """-l(positive): supervised fine-tuning on the positive answer."""
    return -log_likelihood(logits, batch)[0]


def negative_sft(logits: Logits, batch: Rows) -> Float[Tensor, ""]:
    """+l(negative): away from the negative answer."""
    return log_likelihood(logits, batch)[-1]


@dataclass(frozen=True)
class DPO:
    """-log sigmoid(beta (l(positive) - l(negative))), without a reference model."""

    beta: float = BETA

    def __call__(self, logits: Logits, batch: Rows) -> Float[Tensor, ""]:
        positive, negative = log_likelihood(logits, batch)
        return -torch.nn.functional.logsigmoid(self.beta * (positive - negative))


def options(logits: Logits, batch: Rows) -> Float[Tensor, ""]:
    """-sum_k p_k log q_k after the last prompt token, q normalised over the options alone."""
    ids, probabilities = zip(*batch.options, strict=True)
    after = logits[0, batch.last[0]][list(ids)]
    q = torch.log_softmax(after.to(torch.promote_types(after.dtype, torch.float32)), dim=-1)
    return -(q.new_tensor(probabilities) * q).sum()


_LOSSES: dict[str, Loss] = {
    "sft": sft,
    "negative_sft": negative_sft,
    "dpo": DPO(),
    "options": options,
}


def loss_named(loss: str | Loss) -> Loss:
    """The loss of that name; a function is returned as it is."""
    if not isinstance(loss, str):
        if not callable(loss) or isinstance(loss, type):
            raise TypeError(
                f"loss is one of {', '.join(get_args(LossName))} or a function (logits, batch) -> "
                f"scalar tensor, such as losses.DPO(beta=0.1); found {loss!r}."
            )
        return loss
    require_choice("loss", loss, get_args(LossName))
    return _LOSSES[loss]


def kind_of(loss: str | Loss) -> str | Loss:
    """The name of a loss of this module, given by its name or itself; any other as it is."""
    if isinstance(loss, DPO):
        return "dpo"
    return next((name for name, known in _LOSSES.items() if loss is known), loss)


def name_of(loss: str | Loss) -> str:
    """What a loss is called in files."""
    return loss if isinstance(loss, str) else getattr(loss, "__name__", repr(loss))
