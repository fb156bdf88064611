"""Losses of one example: a number that is low where the model answers as the example wants.

A loss is a function `(logits, batch) -> scalar`, and any such function will do. `batch` holds the
rows of one example, the positive answer first. With l(y) the mean log-probability of the answer
tokens of a row, every row by its own span:

    sft           -l(positive)
    negative_sft  +l(negative)
    dpo           -log sigmoid(beta (l(positive) - l(negative))),  beta = 0.1, no reference model
    options       -sum_k p_k log q_k,  q the softmax over the logits of the option tokens alone
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from steerlens.forward import device_of
from steerlens.models import require_choice
from steerlens.positions import Window
from steerlens.prompts import Encoded, Prompts, encode_all, stack
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
_SIDES = {
    "sft": ("positive",),
    "negative_sft": ("negative",),
    "dpo": ("positive", "negative"),
    "options": ("positive",),
}


def loss_named(loss: str | Loss) -> Loss:
    """The loss of that name; a function is returned as it is."""
    if not isinstance(loss, str):
        return loss
    require_choice("loss", loss, get_args(LossName))
    return _LOSSES[loss]


def name_of(loss: str | Loss) -> str:
    """What a loss is called in files."""
    return loss if isinstance(loss, str) else getattr(loss, "__name__", repr(loss))


def examples_of(
    model: HookedModel,
    loss: str | Loss,
    positive: Prompts = (),
    negative: Prompts = (),
    probabilities: Sequence[Mapping[int, float]] | None = None,
    template: str | None = None,
) -> list[Example]:
    """One example for each prompt, with the rows that `loss` looks at; a function gets them all.

    `positive` and `negative` are prompts with a response, in the same order. For `options` they
    have none, and `probabilities` says for each which token should come next how often.
    """
    given = {
        name: encode_all(model, side, template)
        for name, side in (("positive", positive), ("negative", negative))
        if not (isinstance(side, tuple) and not side)
    }
    columns = _looked_at(loss, given)
    if isinstance(loss, str) and (loss == "options") != (probabilities is not None):
        raise ValueError(
            "The loss 'options' needs the probabilities of the options, and no other looks at "
            f"them; asked for {loss!r} with{'out' if probabilities is None else ''} probabilities."
        )
    rows = list(zip(*columns, strict=True))
    for number, example in enumerate(rows):
        for row in example:
            _require_answer(number, row, probabilities is not None)
    listed = [()] * len(rows) if probabilities is None else _listed(model, probabilities, len(rows))
    return [Example(row, wish) for row, wish in zip(rows, listed, strict=True)]


def _looked_at(loss: str | Loss, given: Mapping[str, list[Encoded]]) -> list[list[Encoded]]:
    """The sides that the loss looks at, the positive one first; each must be as long."""
    loss_named(loss)
    named = "dpo" if isinstance(loss, DPO) else loss
    looked = _SIDES[named] if isinstance(named, str) else tuple(given) or ("positive",)
    absent = [name for name in looked if name not in given]
    if absent:
        raise ValueError(
            f"The loss {name_of(loss)!r} needs the {' and the '.join(absent)} prompts, which were "
            "not given."
        )
    unused = [name for name in given if name not in looked]
    if unused:
        raise ValueError(
            f"The loss {name_of(loss)!r} does not look at the {unused[0]} prompts. Leave them out, "
            "or use 'dpo', which looks at both."
        )
    if len({len(given[name]) for name in looked}) > 1:
        raise ValueError(
            f"{len(given['positive'])} positive and {len(given['negative'])} negative prompts were "
            "given. Give as many of each, in the same order."
        )
    return [given[name] for name in looked]


def _require_answer(number: int, row: Encoded, chosen_among: bool) -> None:
    if (len(row.ids) > row.response) == chosen_among:
        raise ValueError(
            f"Example {number} has {len(row.ids) - row.response} answer tokens. "
            + (
                "With option probabilities, prompts end where the option is due: give no response."
                if chosen_among
                else "Give each a response: Conversation(user, response=...), or Encoded rows."
            )
        )


def _listed(
    model: HookedModel, probabilities: Sequence[Mapping[int, float]], n: int
) -> list[tuple[tuple[int, float], ...]]:
    if len(probabilities) != n:
        raise ValueError(
            f"{n} prompts and {len(probabilities)} sets of option probabilities were given. Give "
            "one for each prompt."
        )
    for number, wish in enumerate(probabilities):
        if not isinstance(wish, Mapping) or not all(type(token) is int for token in wish):
            raise ValueError(
                f"The options of example {number} must be {{token id: probability, ...}}, with "
                f"whole numbers as ids; found {wish!r}."
            )
        total = sum(wish.values())
        if len(wish) < 2 or not min(wish.values()) >= 0 or not abs(total - 1) <= 1e-6:
            raise ValueError(
                f"The options of example {number} must be two or more token ids with probabilities "
                f"that sum to 1; found {len(wish)} that sum to {total:g}."
            )
        unknown = [token for token in wish if not 0 <= token < model.cfg.d_vocab]
        if unknown:
            raise ValueError(
                f"Example {number} has options {unknown[:5]}, which are not in this model's "
                f"vocabulary of {model.cfg.d_vocab}."
            )
    return [tuple(wish.items()) for wish in probabilities]
