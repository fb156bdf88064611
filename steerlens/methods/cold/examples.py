"""Examples as a loss sees them: the rows of each, and what is wanted of them.

`Examples(positive, negative)` are prompts with a response, those to come nearer to and those to get
away from, in the same order; a pair `(positive, negative)` is the same. For the loss `options` the
prompts have no response, and `probabilities` says for each which token should come next how often:
a token is named by its id or by its text, with the space that belongs to it:
`{" good": 0.7, " bad": 0.3}`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any, TypeAlias

from torch import Tensor

from steerlens.methods.cold.losses import Example, Loss, kind_of, loss_named, name_of
from steerlens.prompts import Encoded, Prompts, encode_all, tokenizer_of
from steerlens.types import HookedModel

Wish: TypeAlias = Mapping[int, float] | Mapping[str, float]
"""How often each option should come next; an option is a token, by its id or its text."""


@dataclass(frozen=True)
class Examples:
    """Prompts to come nearer to and to get away from, or prompts and the options wished for."""

    positive: Prompts = ()
    negative: Prompts = ()
    probabilities: Sequence[Wish] | None = None


Prompted: TypeAlias = tuple[Any, Any]
"""The positive and the negative `Prompts`, () where the loss looks at one side alone."""

_SIDES = {
    "sft": ("positive",),
    "negative_sft": ("negative",),
    "dpo": ("positive", "negative"),
    "options": ("positive",),
}


def examples_of(
    model: HookedModel, loss: str | Loss, examples: Examples | Prompted
) -> list[Example]:
    """One example for each prompt, with the rows that `loss` looks at; a function gets them all."""
    given = _as_examples(examples)
    encoded = {
        name: encode_all(model, side)
        for name, side in (("positive", given.positive), ("negative", given.negative))
        if not (isinstance(side, tuple) and not side)
    }
    kind = kind_of(loss)
    rows = list(zip(*_sides_of(kind, encoded), strict=True))
    wishes = _wishes(model, kind, given.probabilities, len(rows))
    for number, example in enumerate(rows):
        for row in example:
            _require_answer(number, row, given.probabilities is not None)
    if kind == "dpo" and all(positive.ids == negative.ids for positive, negative in rows):
        raise ValueError(
            "The positive and the negative answer of every example are the same, so the gradient "
            "of 'dpo' is zero but for rounding. Give different answers."
        )
    return [Example(row, wish) for row, wish in zip(rows, wishes, strict=True)]


def _as_examples(given: Examples | Prompted) -> Examples:
    if isinstance(given, Examples):
        return given
    if isinstance(given, tuple) and len(given) == 2 and not isinstance(given[0], Tensor):
        return Examples(*given)
    raise TypeError(
        "The examples are a pair (positive prompts, negative prompts), with () for a side that the "
        "loss does not look at, or an Examples(positive, negative, probabilities); found "
        f"{type(given).__name__}. The order is fit(model, examples, sites)."
    )


def _wishes(
    model: HookedModel, kind: str | Loss, probabilities: Sequence[Wish] | None, n: int
) -> list[tuple[tuple[int, float], ...]]:
    """The wished probability of each option of each example; empty but for the loss 'options'."""
    if isinstance(kind, str) and (kind == "options") != (probabilities is not None):
        raise ValueError(
            "The loss 'options' needs the probabilities of the options, and no other looks at "
            f"them; asked for {kind!r} with{'out' if probabilities is None else ''} probabilities."
        )
    if probabilities is None:
        return [()] * n
    if len(probabilities) != n:
        raise ValueError(
            f"{n} prompts and {len(probabilities)} sets of option probabilities were given. Give "
            "one for each prompt."
        )
    return [_options_of(model, number, wish) for number, wish in enumerate(probabilities)]


def _sides_of(loss: str | Loss, given: Mapping[str, list[Encoded]]) -> list[list[Encoded]]:
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


def _options_of(model: HookedModel, number: int, wish: Wish) -> tuple[tuple[int, float], ...]:
    """The options of one example as token ids, with their probabilities."""
    _require_shares(number, wish)
    ids = [name if isinstance(name, int) else _token(model, name, number) for name in wish]
    if len(set(ids)) < len(ids):
        raise ValueError(f"Example {number} names a token twice among its options: {list(wish)}.")
    unknown = [token for token in ids if not 0 <= token < model.cfg.d_vocab]
    if unknown:
        raise ValueError(
            f"Example {number} has options {unknown[:5]}, which are not in this model's "
            f"vocabulary of {model.cfg.d_vocab}."
        )
    return tuple(zip(ids, wish.values(), strict=True))


def _require_shares(number: int, wish: Wish) -> None:
    if not isinstance(wish, Mapping) or not all(type(name) in (int, str) for name in wish):
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
