"""The one place that turns text and conversations into tokens, with the spans named.

A string is raw text: BOS exactly once where the model's configuration asks for one, no template. A
`Conversation` goes through the tokenizer's chat template and has the BOS the template writes and no
other; `steerlens.load(..., template=PLAIN)` gives the tokenizer another template. A response of
text has the tokens of the joint text, one of ids is appended as it is. The prompted and the
unprompted run of a pair hold the same response tokens, and this is checked.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeAlias, cast

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from steerlens.borders import common_tail, continued, ids_of, split_at, split_at_word
from steerlens.checks import described
from steerlens.conversations import (
    Conversation,
    Messages,
    Response,
    is_messages,
    written,
)
from steerlens.identity import context_length, device_of
from steerlens.kinds import require_fields, require_kinds
from steerlens.pieces import pieces
from steerlens.runtime.turns import tokenizer_in_turn
from steerlens.scopes import Context, Window
from steerlens.templates import PLAIN, tokenizer_of
from steerlens.types import HookedModel, Tokens

__all__ = [
    "PLAIN",
    "Conversation",
    "Encoded",
    "Messages",
    "Prompt",
    "PromptPair",
    "Prompts",
    "Response",
    "as_question",
    "batch",
    "common_tail",
    "continuation",
    "encode",
    "encode_all",
    "encode_pair",
    "require_aligned",
    "require_context",
    "require_fitting",
    "require_side",
    "show",
    "stack",
    "tokenizer_of",
    "with_response",
]

Prompt: TypeAlias = "str | Conversation | Messages | Encoded"
Prompts: TypeAlias = "Prompt | Sequence[Prompt] | tuple[Tensor, Tensor]"


@dataclass(frozen=True)
class PromptPair:
    """The same response after a plain prompt and after one with an instruction in it.

    A list of messages in place of a prompt becomes the `Conversation` of it.
    """

    plain: str | Conversation | Messages
    prompted: str | Conversation | Messages
    response: Response

    def __post_init__(self) -> None:
        require_fields(self)
        if len(self.response) == 0:
            raise ValueError(
                "PromptPair(response=''): prompt steering is measured on the tokens of a response. "
                "Let the model write them: steerlens.prompted_pairs(model, questions, instruction)."
            )
        for name, side in (("plain", self.plain), ("prompted", self.prompted)):
            if is_messages(side):
                object.__setattr__(self, name, Conversation.of(side))

    @classmethod
    def with_system(
        cls, user: str | Conversation | Messages, system: str, response: Response
    ) -> "PromptPair":
        """The pair whose instruction is the system turn, of a question or a conversation."""
        require_kinds(PromptPair.with_system, locals())
        asked = as_question(user)
        return cls(asked, replace(asked, system=system), response)


def as_question(user: str | Conversation | Messages) -> Conversation:
    """What is asked, as a conversation without a system turn; ValueError if it has one."""
    made = Conversation(user) if isinstance(user, str) else user
    asked = made if isinstance(made, Conversation) else Conversation.of(made)
    if asked.system is not None:
        raise ValueError(
            f"The question has a system turn of its own, {asked.system!r}, and the instruction is "
            "to be the system turn. Leave one of them out: conversation.without_system()."
        )
    return asked


@dataclass(frozen=True)
class Encoded:
    """Token ids of one row with its spans, as absolute positions (0 is the first token).

    `question` is the first token of the user turn, or, where the template puts the system text
    inside that turn, of the user's words; `response` is the first response token. `text` is the
    prompt as text, where it is known, for what is to come after it.
    """

    ids: tuple[int, ...]
    question: int
    response: int
    bos: bool
    text: str | None = field(default=None, compare=False, repr=False)

    @property
    def prompt_ids(self) -> tuple[int, ...]:
        """The tokens before the response."""
        return self.ids[: self.response]


def _prompt_ids(model: HookedModel, text: str) -> tuple[int, ...]:
    """The tokens of raw text, BOS in front where the model's configuration asks for one."""
    ids, tokenizer = tuple(ids_of(tokenizer_of(model), text)), tokenizer_of(model)
    bos = () if tokenizer.bos_token_id is None else (int(tokenizer.bos_token_id),)
    wants_bos = getattr(model.cfg, "default_prepend_bos", True) and ids[:1] != bos
    return (*bos, *ids) if wants_bos else ids


def _encode_text(model: HookedModel, text: str) -> Encoded:
    if not text:
        raise ValueError("The prompt is empty. Give at least one character of text.")
    ids = _prompt_ids(model, text)
    if not ids:
        raise ValueError(f"The tokenizer makes no token of the prompt {text!r}. Give it words.")
    has_bos = ids[0] == tokenizer_of(model).bos_token_id
    return Encoded(ids, question=int(has_bos), response=len(ids), bos=has_bos, text=text)


def _encode_conversation(
    model: HookedModel, conversation: Conversation, bare: bool = False
) -> Encoded:
    tokenizer = tokenizer_of(model)
    asked = written(tokenizer, conversation, bare)
    before, rest = split_at_word(tokenizer, asked.text, asked.question)
    ids = (*before, *rest)
    bos = ids[:1] == (tokenizer.bos_token_id,)
    row = Encoded(ids, len(before), len(ids), bos, asked.text)
    return _joined(model, row, conversation.response)


def with_response(model: HookedModel, row: Encoded, response: Response) -> Encoded:
    """`row` with `response` after its prompt.

    Ids are appended as they are. Text becomes the tokens that it has in the joint text, so that no
    tokenizer adds a space at the border. A token of the joint text that holds characters of both
    counts as the response's first, and the prompt ends before it.
    """
    known = row.text is not None and _text_ids(model, row, row.text) == row.prompt_ids
    if known or not isinstance(response, str):
        return _joined(model, row, response)
    return replace(row, ids=(*row.prompt_ids, *continuation(model, row, response)))


def _joined(model: HookedModel, row: Encoded, response: Response) -> Encoded:
    """The same, where `row.text` is the text of the prompt's tokens."""
    prompt = row.prompt_ids
    if not isinstance(response, str) or not response:
        return replace(row, ids=(*prompt, *map(int, response)))
    assert row.text is not None
    joint = _text_ids(model, row, row.text + response)
    if joint[: len(prompt)] == prompt:
        return replace(row, ids=joint)
    _, rest = split_at(tokenizer_of(model), row.text + response, len(row.text))
    border = len(joint) - len(rest)
    return replace(row, ids=joint, response=border, question=min(row.question, border))


def _text_ids(model: HookedModel, row: Encoded, text: str) -> tuple[int, ...]:
    """The tokens of a text that begins as the prompt of `row` does, with its BOS."""
    ids = tuple(ids_of(tokenizer_of(model), text))
    return (row.ids[0], *ids) if row.bos and ids[:1] != row.ids[:1] else ids


def continuation(model: HookedModel, row: Encoded, text: str) -> tuple[int, ...]:
    """The tokens of `text` after the prompt of `row`, which keeps its own tokens."""
    tokenizer = tokenizer_of(model)
    context = tokenizer.decode(list(row.prompt_ids)) if row.text is None else row.text
    return continued(tokenizer, [context], text)


@tokenizer_in_turn
def encode(model: HookedModel, prompt: Prompt, *, bare: bool = False) -> Encoded:
    """One prompt as token ids with spans.

    `bare` leaves the system turn out that the chat template gives a conversation by itself.

    >>> model = sl.load("demo")
    >>> row = sl.encode(model, sl.Conversation("How was it?", response="Good."))
    >>> model.tokenizer.decode(row.ids)
    '<|bos|><|user|>How was it?<|end|><|assistant|>Good.'
    """
    require_kinds(encode, {"model": model, "bare": bare})
    if isinstance(prompt, Encoded):
        row = prompt
    elif isinstance(prompt, Conversation):
        row = _encode_conversation(model, prompt, bare)
    elif isinstance(prompt, str):
        row = _encode_text(model, prompt)
    elif is_messages(prompt):
        row = _encode_conversation(model, Conversation.of(prompt), bare)
    else:
        raise TypeError(
            "A prompt is a string, a Conversation, a list of messages or an Encoded row; found "
            f"{'one message alone' if isinstance(prompt, Mapping) else type(prompt).__name__}."
        )
    require_fitting(model, row.ids)
    return row


class TooManyTokens(ValueError):
    """A text that the model's context does not hold; the message says by how much."""


def require_context(model: HookedModel, length: int) -> None:
    """Raise TooManyTokens, a ValueError, if `length` tokens do not fit into the model's context."""
    most = context_length(model)
    if most is not None and length > most:
        raise TooManyTokens(
            f"{length} tokens are asked for, but this model's context holds {most}. "
            "Shorten the prompt, or lower max_new_tokens."
        )


def require_fitting(model: HookedModel, ids: Sequence[int]) -> None:
    """Raise ValueError if `ids` are too many for the model, or some are none of its tokens."""
    require_context(model, len(ids))
    unknown = sorted({token for token in ids if not 0 <= token < model.cfg.d_vocab})
    if unknown:
        raise ValueError(
            f"These token ids are not in this model's vocabulary of {model.cfg.d_vocab}: "
            f"{unknown[:5]}. Were they made with another model's tokenizer?"
        )


@tokenizer_in_turn
def encode_pair(
    model: HookedModel, pair: PromptPair, *, bare: bool = False
) -> tuple[Encoded, Encoded]:
    """The (plain, prompted) rows of a pair, checked to hold the same response tokens.

    `bare` leaves out the system turn that the chat template itself gives the plain side, as
    `Template(system=None)` does for all conversations; ValueError where that cannot be done.
    """
    require_kinds(encode_pair, locals())
    plain = _answered(model, pair.plain, pair.response, bare)
    prompted = _answered(model, pair.prompted, pair.response)
    require_fitting(model, max(plain.ids, prompted.ids, key=len))
    require_aligned(model, plain, prompted)
    same = _question_of(pair.plain) == _question_of(pair.prompted)
    return _same_question(plain, prompted) if same else (plain, prompted)


def _answered(
    model: HookedModel, prompt: Prompt, response: Response, bare: bool = False
) -> Encoded:
    """The prompt with this response, whatever response it began."""
    if not isinstance(prompt, Conversation):
        return _joined(model, encode(model, prompt), response)
    asked = replace(prompt, response="")
    return _joined(model, _encode_conversation(model, asked, bare), response)


def _question_of(prompt: Prompt) -> Prompt:
    """The prompt without its instruction, where that stands apart."""
    return replace(prompt, system=None, response="") if isinstance(prompt, Conversation) else prompt


def _same_question(plain: Encoded, prompted: Encoded) -> tuple[Encoded, Encoded]:
    """Both rows with questions of as many tokens, since they are compared from the right.

    The first word of one may be more tokens than that of the other, if a space before it is joined
    to it in one alone: both questions then begin with the last of those tokens.
    """
    n = min(len(row.ids) - row.question for row in (plain, prompted))
    plain, prompted = (replace(row, question=len(row.ids) - n) for row in (plain, prompted))
    return plain, prompted


def require_aligned(model: HookedModel, plain: Encoded, prompted: Encoded) -> None:
    """Raise ValueError unless both rows hold the same response tokens, compared from the right."""
    n = len(plain.ids) - plain.response
    left, right = plain.ids[plain.response :], prompted.ids[prompted.response :]
    if left == right and n > 0:
        return
    raise ValueError(
        "The prompted and the unprompted run must end in the same response tokens, or their "
        f"activations cannot be compared. Unprompted response: {show(model, left)}; prompted "
        f"response: {show(model, right)}. Give the response as token ids, so that both share them."
    )


def show(model: HookedModel, ids: Sequence[int]) -> list[str]:
    """Each token's own text, for messages and tables (`steerlens.pieces`)."""
    return pieces(tokenizer_of(model), ids)


def encode_all(model: HookedModel, prompts: Prompts) -> list[Encoded]:
    """Every prompt as an `Encoded` row; `(tokens, mask)` counts each row as all prompt."""
    if isinstance(prompts, Tensor):
        raise TypeError(
            "Token ids need their mask: pass (tokens, mask), the mask 1 on real tokens and 0 on "
            "padding. Found a bare tensor."
        )
    if isinstance(prompts, tuple) and len(prompts) == 2 and isinstance(prompts[0], Tensor):
        tokens, mask = cast("tuple[Tensor, Tensor]", prompts)
        rows = _encode_tokens(model, tokens, mask)
    elif isinstance(prompts, str | Conversation | Encoded) or is_messages(prompts):
        rows = [encode(model, cast("Prompt", prompts))]
    elif isinstance(prompts, Iterable) and not isinstance(prompts, Mapping | bytes | type):
        rows = [encode(model, prompt) for prompt in prompts]  # pyright: ignore
    else:
        raise TypeError(
            "Prompts are a text, a Conversation, a list of these, or (tokens, mask); found "
            f"{described(prompts)}."
        )
    if not rows:
        raise ValueError("No prompts were given. Pass at least one string or Conversation.")
    return rows


def _encode_tokens(
    model: HookedModel, tokens: Tokens, mask: Bool[Tensor, "..."] | Int[Tensor, "..."]
) -> list[Encoded]:
    if tokens.shape != mask.shape:
        raise ValueError(
            f"tokens have shape {tuple(tokens.shape)} and the mask {tuple(mask.shape)}: the mask "
            "needs one entry a token, 1 on real tokens and 0 on padding."
        )
    bos = getattr(model.tokenizer, "bos_token_id", None)
    rows = []
    for number, (row, real) in enumerate(zip(tokens, mask.bool(), strict=True)):
        ids = tuple(row[real].tolist())
        if not ids:
            raise ValueError(f"Row {number} of the tokens is all padding. Leave it out.")
        require_fitting(model, ids)
        has_bos = ids[0] == bos
        rows.append(Encoded(ids, question=int(has_bos), response=len(ids), bos=has_bos))
    return rows


def require_side(side: str) -> None:
    """Raise ValueError unless `side` is a side."""
    if side not in ("left", "right"):
        raise ValueError(f"The padding side is 'left' or 'right'; found {side!r}.")


def stack(rows: Iterable[Encoded], side: str = "left") -> tuple[Tokens, Window]:
    """Rows padded on one side into a batch, with the window that says what is where."""
    require_side(side)
    rows = list(rows)
    width = max(len(row.ids) for row in rows)
    tokens = torch.zeros((len(rows), width), dtype=torch.long)
    mask = torch.zeros((len(rows), width), dtype=torch.bool)
    for number, row in enumerate(rows):
        filled = slice(width - len(row.ids), None) if side == "left" else slice(len(row.ids))
        tokens[number, filled] = torch.tensor(row.ids)
        mask[number, filled] = True
    window = Window.of(
        mask,
        question=torch.tensor([row.question for row in rows]),
        response=torch.tensor([row.response for row in rows]),
        bos=torch.tensor([row.bos for row in rows]),
    )
    return tokens, window


def batch(model: HookedModel, prompts: Prompts, side: str = "left") -> tuple[Tokens, Window]:
    """Prompts as one padded batch on the model's device, and the window of a pass over it.

    The window knows the model and the tokens, which some steers must see.
    """
    require_kinds(batch, locals())
    tokens, window = stack(encode_all(model, prompts), side)
    tokens = tokens.to(device_of(model))
    return tokens, replace(window.to(device_of(model)), context=Context(model, tokens))
