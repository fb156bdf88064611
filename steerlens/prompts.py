"""The one place that turns text and conversations into tokens, with the spans named.

A string is raw text: BOS exactly once where the model's configuration asks for one, no template. A
`Conversation` goes through the tokenizer's chat template and has the BOS the template writes and no
other; `steerlens.load(..., template=PLAIN)` gives the tokenizer another template. Response ids are
appended as they are, so the prompted and the unprompted run of a pair hold the same response
tokens, and this is checked.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias, cast

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from steerlens.identity import context_length, device_of
from steerlens.scopes import Context, Window
from steerlens.types import HookedModel, Tokens

PLAIN = (
    "{{ bos_token }}{% for message in messages %}{{ message['content'] }}"
    "{{ '\\n\\n' if message['role'] == 'system' else '\\n' }}{% endfor %}"
)
"""A chat template for models that have none: system, a blank line, user, a line break."""

Response: TypeAlias = str | tuple[int, ...]


@dataclass(frozen=True)
class Conversation:
    """One user turn, optionally after a system turn, optionally with the start of a response.

    The response is text, or token ids as a model sampled them.
    """

    user: str
    system: str | None = None
    response: Response = ""

    def __post_init__(self) -> None:
        if not self.user.strip():
            raise ValueError("Conversation(user=''): the user turn is empty. Say what is asked.")


Prompt: TypeAlias = "str | Conversation | Encoded"
Prompts: TypeAlias = "Prompt | Sequence[Prompt] | tuple[Tensor, Tensor]"


@dataclass(frozen=True)
class PromptPair:
    """The same response after a plain prompt and after one with an instruction in it."""

    plain: str | Conversation
    prompted: str | Conversation
    response: Response

    def __post_init__(self) -> None:
        if len(self.response) == 0:
            raise ValueError(
                "PromptPair(response=''): prompt steering is measured on the tokens of a response. "
                "Let the model write them: steerlens.prompted_pairs(model, questions, instruction)."
            )

    @classmethod
    def with_system(cls, user: str, system: str, response: Response) -> "PromptPair":
        """The pair whose instruction is the system turn."""
        return cls(Conversation(user), Conversation(user, system), response)


@dataclass(frozen=True)
class Encoded:
    """Token ids of one row with its spans, as absolute positions (0 is the first token).

    `question` is the first token of the user turn, `response` the first response token.
    """

    ids: tuple[int, ...]
    question: int
    response: int
    bos: bool

    @property
    def prompt_ids(self) -> tuple[int, ...]:
        """The tokens before the response."""
        return self.ids[: self.response]


def tokenizer_of(model: HookedModel) -> Any:
    """The model's tokenizer; ValueError if it has none."""
    if model.tokenizer is None:
        raise ValueError(
            "This model has no tokenizer, so text cannot become tokens. Pass (tokens, mask), or "
            "load the model with its tokenizer: steerlens.load(folder)."
        )
    return model.tokenizer


def _text_ids(model: HookedModel, text: str) -> list[int]:
    return tokenizer_of(model)(text, add_special_tokens=False, verbose=False)["input_ids"]


def _encode_text(model: HookedModel, text: str) -> Encoded:
    if not text:
        raise ValueError("The prompt is empty. Give at least one character of text.")
    ids, bos = _text_ids(model, text), tokenizer_of(model).bos_token_id
    wants_bos = bos is not None and getattr(model.cfg, "default_prepend_bos", True)
    if wants_bos and (not ids or ids[0] != bos):
        ids = [bos, *ids]
    if not ids:
        raise ValueError(f"The tokenizer makes no token of the prompt {text!r}. Give it words.")
    has_bos = bos is not None and ids[0] == bos
    return Encoded(tuple(ids), question=int(has_bos), response=len(ids), bos=has_bos)


def _render(model: HookedModel, turns: list[dict[str, str]]) -> str:
    tokenizer = tokenizer_of(model)
    if not tokenizer.chat_template:
        raise ValueError(
            "This model's tokenizer has no chat template, so a Conversation cannot be rendered. "
            "Pass plain strings, or give it one: steerlens.load(..., template=steerlens.PLAIN) "
            "(system, blank line, user), or model.tokenizer.chat_template = steerlens.PLAIN."
        )
    asks = turns[-1]["role"] == "user"
    try:
        return tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=asks)
    except Exception as error:  # jinja2 raises whatever the template's author chose
        raise ValueError(
            f"The chat template refused this conversation ({error}). If it has no system role, "
            "put the instruction into the user turn: PromptPair(plain, prompted, response)."
        ) from error


def _turns(user: str, system: str | None) -> list[dict[str, str]]:
    asked = [{"role": "user", "content": user}]
    return asked if system is None else [{"role": "system", "content": system}, *asked]


def _user_turn_length(model: HookedModel, user: str) -> int:
    """How many tokens the user turn and what follows it take, up to the response.

    Counted with a stand-in system turn, where the template allows one: what comes after the
    system turn alone. It is the same with any other system turn, or none.
    """
    bare = _text_ids(model, _render(model, _turns(user, None)))
    try:
        whole = _render(model, _turns(user, "A"))
    except ValueError:
        return len(bare)
    try:
        head = _render(model, _turns(user, "A")[:1])
    except ValueError:
        head = ""
    if head and whole.startswith(head):
        return _tokens_after(model, whole, len(head))
    return common_tail(_text_ids(model, whole), bare)


def _tokens_after(model: HookedModel, text: str, start: int) -> int:
    """How many tokens of `text` reach beyond its first `start` characters."""
    tokenizer = tokenizer_of(model)
    if not tokenizer.is_fast:
        return len(_text_ids(model, text)) - len(_text_ids(model, text[:start]))
    # The start alone may be cut otherwise: GPT-2 has a token for two line breaks at a text's end.
    known = tokenizer(text, add_special_tokens=False, verbose=False, return_offsets_mapping=True)
    return sum(stop > start for _, stop in known["offset_mapping"])


def common_tail(first: Sequence[int], second: Sequence[int]) -> int:
    """How many tokens two rows share, counted from the right."""
    shared = 0
    for left, right in zip(reversed(first), reversed(second), strict=False):
        if left != right:
            break
        shared += 1
    return shared


def _encode_conversation(model: HookedModel, conversation: Conversation) -> Encoded:
    user, system = conversation.user, conversation.system
    text = _render(model, _turns(user, system))
    if system is not None and system.strip() not in text:
        raise ValueError(
            "The chat template left the system turn out: it has no system role. Put the "
            "instruction into the user turn: PromptPair(plain, prompted, response)."
        )
    ids = _text_ids(model, text)
    bos = bool(ids) and ids[0] == tokenizer_of(model).bos_token_id
    question = max(len(ids) - _user_turn_length(model, user), int(bos))
    row = Encoded(tuple(ids), question=question, response=len(ids), bos=bos)
    return with_response(model, row, conversation.response)


def with_response(model: HookedModel, row: Encoded, response: Response) -> Encoded:
    """`row` with the ids of `response` appended to its prompt."""
    ids = _text_ids(model, response) if isinstance(response, str) else response
    return replace(row, ids=(*row.prompt_ids, *ids))


def encode(model: HookedModel, prompt: Prompt) -> Encoded:
    """One prompt as token ids with spans."""
    if isinstance(prompt, Encoded):
        row = prompt
    elif isinstance(prompt, Conversation):
        row = _encode_conversation(model, prompt)
    elif isinstance(prompt, str):
        row = _encode_text(model, prompt)
    else:
        raise TypeError(
            "A prompt is a string, a Conversation or an Encoded row; found "
            f"{type(prompt).__name__}."
        )
    require_fitting(model, row.ids)
    return row


def require_context(model: HookedModel, length: int) -> None:
    """Raise ValueError if `length` tokens do not fit into the model's context."""
    most = context_length(model)
    if most is not None and length > most:
        raise ValueError(
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


def encode_pair(model: HookedModel, pair: PromptPair) -> tuple[Encoded, Encoded]:
    """The (plain, prompted) rows of a pair, checked to hold the same response tokens."""
    plain = encode(model, pair.plain)
    prompted = encode(model, pair.prompted)
    plain = with_response(model, plain, pair.response)
    prompted = with_response(model, prompted, plain.ids[plain.response :])
    require_fitting(model, max(plain.ids, prompted.ids, key=len))
    require_aligned(model, plain, prompted)
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
    """Each token's own text, for messages and tables."""
    return [tokenizer_of(model).decode([token]) for token in ids]


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
    elif isinstance(prompts, str | Conversation | Encoded):
        rows = [encode(model, prompts)]
    else:
        rows = [encode(model, prompt) for prompt in prompts]  # pyright: ignore
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
    tokens, window = stack(encode_all(model, prompts), side)
    tokens = tokens.to(device_of(model))
    return tokens, replace(window.to(device_of(model)), context=Context(model, tokens))
