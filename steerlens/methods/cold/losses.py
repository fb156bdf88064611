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
from numbers import Real
from typing import Literal, TypeAlias, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from steerlens.checks import require_choice
from steerlens.identity import device_of
from steerlens.prompts import Encoded, Prompts, encode_all, stack, tokenizer_of
from steerlens.scopes import Window
from steerlens.types import HookedModel, Tokens

LossName = Literal["sft", "negative_sft", "dpo", "options"]
Wish: TypeAlias = Mapping[int, float] | Mapping[str, float]
"""How often each option should come next; an option is a token, by its id or its text."""
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


def examples_of(
    model: HookedModel,
    loss: str | Loss,
    positive: Prompts = (),
    negative: Prompts = (),
    probabilities: Sequence[Wish] | None = None,
    template: str | None = None,
) -> list[Example]:
    """One example for each prompt, with the rows that `loss` looks at; a function gets them all.

    `positive` and `negative` are prompts with a response, in the same order. For `options` they
    have none, and `probabilities` says for each which token should come next how often. A token is
    named by its id or by its text, with the space that belongs to it: {" good": 0.7, " bad": 0.3}.
    """
    given = {
        name: encode_all(model, side, template)
        for name, side in (("positive", positive), ("negative", negative))
        if not (isinstance(side, tuple) and not side)
    }
    kind = kind_of(loss)
    columns = _looked_at(kind, given)
    if isinstance(kind, str) and (kind == "options") != (probabilities is not None):
        raise ValueError(
            "The loss 'options' needs the probabilities of the options, and no other looks at "
            f"them; asked for {kind!r} with{'out' if probabilities is None else ''} probabilities."
        )
    rows = list(zip(*columns, strict=True))
    for number, example in enumerate(rows):
        for row in example:
            _require_answer(number, row, probabilities is not None)
    if kind == "dpo" and all(positive.ids == negative.ids for positive, negative in rows):
        raise ValueError(
            "The positive and the negative answer of every example are the same, so the gradient "
            "of 'dpo' is zero but for rounding. Give different answers."
        )
    listed = [()] * len(rows) if probabilities is None else _listed(model, probabilities, len(rows))
    return [Example(row, wish) for row, wish in zip(rows, listed, strict=True)]


def _looked_at(loss: str | Loss, given: Mapping[str, list[Encoded]]) -> list[list[Encoded]]:
    """The sides that the loss looks at, the positive one first; each must be as long."""
    loss_named(loss)
    looked = _SIDES[loss] if isinstance(loss, str) else tuple(given) or ("positive",)
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
    model: HookedModel, probabilities: Sequence[Wish], n: int
) -> list[tuple[tuple[int, float], ...]]:
    if len(probabilities) != n:
        raise ValueError(
            f"{n} prompts and {len(probabilities)} sets of option probabilities were given. Give "
            "one for each prompt."
        )
    return [_options_of(model, number, wish) for number, wish in enumerate(probabilities)]


def _options_of(model: HookedModel, number: int, wish: Wish) -> tuple[tuple[int, float], ...]:
    if not isinstance(wish, Mapping) or not all(type(one) in (int, str) for one in wish):
        raise ValueError(
            f"The options of example {number} must be {{token: probability, ...}}, with tokens "
            f"named by their text or by whole numbers as ids; found {wish!r}."
        )
    if not all(isinstance(share, Real) for share in wish.values()):
        raise ValueError(f"The probabilities of example {number} must be numbers; found {wish!r}.")
    total = sum(wish.values())
    if len(wish) < 2 or not min(wish.values()) >= 0 or not abs(total - 1) <= 1e-6:
        raise ValueError(
            f"The options of example {number} must be two or more tokens with probabilities "
            f"that sum to 1; found {len(wish)} that sum to {total:g}."
        )
    ids = [one if isinstance(one, int) else _token(model, one, number) for one in wish]
    if len(set(ids)) < len(ids):
        raise ValueError(f"Example {number} names a token twice among its options: {list(wish)}.")
    unknown = [one for one in ids if not 0 <= one < model.cfg.d_vocab]
    if unknown:
        raise ValueError(
            f"Example {number} has options {unknown[:5]}, which are not in this model's "
            f"vocabulary of {model.cfg.d_vocab}."
        )
    return tuple(zip(ids, wish.values(), strict=True))


def _token(model: HookedModel, text: str, number: int) -> int:
    """The id of the one token that `text` is."""
    tokenizer, joined = tokenizer_of(model), " " + text.strip()
    ids = tokenizer.encode(text, add_special_tokens=False)
    if len(ids) != 1:
        better = len(tokenizer.encode(joined, add_special_tokens=False)) == 1 and joined != text
        raise ValueError(
            f"An option is one token, and {text!r} of example {number} is {len(ids)} in this "
            f"model's vocabulary. Give {repr(joined) if better else 'a shorter word'} (most "
            "tokenizers join a word to the space before it)."
        )
    return ids[0]
