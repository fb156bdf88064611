"""Examples as a loss sees them: the rows of each, and what is wanted of them.

`Examples(positive, negative)` are prompts with a response, those to come nearer to and those to get
away from, in the same order; a pair `(positive, negative)` is the same. For the loss `options` the
prompts have no response, and `probabilities` says for each which token should come next how often:
a token is named by its id or by its text, with the space that belongs to it:
`{" good": 0.7, " bad": 0.3}`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from steerlens.methods.cold.checks import (
    require_answer,
    require_known_once,
    require_probabilities,
    require_shares,
    require_sides,
    require_some_difference,
    require_two_sides,
)
from steerlens.methods.cold.losses import Example, Loss, kind_of, loss_named, name_of
from steerlens.prompts import Encoded, Prompts, continuation, encode_all
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
    wishes = _wishes(model, kind, given.probabilities, rows)
    for number, example in enumerate(rows):
        for row in example:
            require_answer(number, row, given.probabilities is not None)
    if kind == "dpo":
        require_some_difference(rows)
    return [Example(row, wish) for row, wish in zip(rows, wishes, strict=True)]


def _as_examples(given: Examples | Prompted) -> Examples:
    if isinstance(given, Examples):
        return given
    require_two_sides(given)
    return Examples(*given)


def _wishes(
    model: HookedModel,
    kind: str | Loss,
    probabilities: Sequence[Wish] | None,
    rows: Sequence[tuple[Encoded, ...]],
) -> list[tuple[tuple[int, float], ...]]:
    """The wished probability of each option of each example; empty but for the loss 'options'."""
    require_probabilities(kind, probabilities, len(rows))
    if probabilities is None:
        return [()] * len(rows)
    both = enumerate(zip(probabilities, rows, strict=True))
    return [_options_of(model, number, wish, row[0]) for number, (wish, row) in both]


def _sides_of(loss: str | Loss, given: Mapping[str, list[Encoded]]) -> list[list[Encoded]]:
    """The sides that the loss looks at, the positive one first; each must be as long."""
    loss_named(loss)
    looked = _SIDES[loss] if isinstance(loss, str) else tuple(given) or ("positive",)
    require_sides(name_of(loss), looked, given)
    return [given[name] for name in looked]


def _options_of(
    model: HookedModel, number: int, wish: Wish, row: Encoded
) -> tuple[tuple[int, float], ...]:
    """The options of one example as token ids, with their probabilities."""
    require_shares(number, wish)
    ids = [name if isinstance(name, int) else _token(model, name, number, row) for name in wish]
    require_known_once(number, ids, list(wish), model.cfg.d_vocab)
    return tuple(zip(ids, wish.values(), strict=True))


def _token(model: HookedModel, text: str, number: int, row: Encoded) -> int:
    """The id of the one token that `text` is after the prompt."""
    ids, joined = continuation(model, row, text), " " + text.strip()
    if len(ids) != 1:
        better = len(continuation(model, row, joined)) == 1 and joined != text
        raise ValueError(
            f"An option is one token, and {text!r} of example {number} is {len(ids)} in this "
            f"model's vocabulary. Give {repr(joined) if better else 'a shorter word'} (most "
            "tokenizers join a word to the space before it)."
        )
    return ids[0]
