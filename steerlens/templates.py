"""Chat templates: the one that a model has, and what a template does by itself.

A template belongs to the model: `steerlens.load(..., template=...)` or `use_template(model, ...)`.
What a template does with the text of a turn is not read off its text but tried out, with numbers in
place of words: where they come out again, and what stands around them.
"""

import re
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Literal, TypeAlias, get_args

from steerlens.borders import common_head, common_tail, continued, ids_of
from steerlens.bounded import TooLong, bounded, require_small
from steerlens.checks import require_choice
from steerlens.kinds import require_fields, require_kinds
from steerlens.types import HookedModel

PLAIN = (
    "{{ bos_token }}{% for message in messages %}{{ message['content'] }}"
    "{{ '\\n\\n' if message['role'] == 'system' else '\\n' }}{% endfor %}"
)
"""A chat template for models that have none: system, a blank line, user, a line break."""

BETWEEN = "\n\n"
"""What stands between an instruction and the user's words where both are in the user turn."""

Message: TypeAlias = Mapping[str, Any]
Place = Literal["system", "user"]


class Own(Enum):
    """What a template does by itself."""

    DEFAULT = "the template's own"


@dataclass(frozen=True)
class Template:
    """How a model's conversations are written down.

    `text` is Jinja, or None for the tokenizer's own template. `system` is what a conversation
    without a system turn gets: by default what the template puts there by itself; None for no
    system turn; or a text ("" is an empty turn). `instruction="user"` puts every system text in
    front of the first user turn, a blank line between, for templates that have no system role.
    `arguments` are handed to the template: `{"enable_thinking": False}`.
    """

    text: str | None = None
    system: str | Own | None = Own.DEFAULT
    instruction: Place = "system"
    arguments: Mapping[str, Any] = field(default_factory=dict[str, Any], hash=False)

    def __post_init__(self) -> None:
        require_fields(self)
        require_choice("instruction", self.instruction, get_args(Place))
        if self.text is not None and not self.text.strip():
            raise ValueError("Template(text=''): the template is empty. Leave it out, or give one.")
        ours = sorted(_OURS & set(self.arguments))
        if ours:
            raise ValueError(
                f"Template(arguments=...): {', '.join(ours)} is set by steerlens itself. Give only "
                "what the template's own text asks for, such as enable_thinking."
            )


_OURS = {
    "add_generation_prompt",
    "chat_template",
    "continue_final_message",
    "conversation",
    "messages",
    "padding",
    "return_dict",
    "return_tensors",
    "tokenize",
    "truncation",
}

_TEMPLATES: "weakref.WeakKeyDictionary[Any, Template]" = weakref.WeakKeyDictionary()


def tokenizer_of(model: HookedModel) -> Any:
    """The model's tokenizer; ValueError if it has none."""
    if model.tokenizer is None:
        raise ValueError(
            "This model has no tokenizer, so text cannot become tokens. Pass (tokens, mask), or "
            "load the model with its tokenizer: steerlens.load(folder)."
        )
    return model.tokenizer


def use_template(model: HookedModel, template: str | Template) -> None:
    """Write the model's conversations by `template` from now on, Jinja text or a `Template`.

    ValueError if the template's text does not ask for one of the arguments that it is to get.
    """
    require_kinds(use_template, locals())
    chosen = Template(template) if isinstance(template, str) else template
    tokenizer = tokenizer_of(model)
    text = chosen.text or tokenizer.chat_template
    unused = [name for name in chosen.arguments if not re.search(rf"\b{name}\b", str(text))]
    if text and unused:
        raise ValueError(
            f"The chat template does not ask for {', '.join(map(repr, unused))}, so it would be "
            "ignored. Look for the name in model.tokenizer.chat_template, or leave it out."
        )
    if chosen.text is not None:
        tokenizer.chat_template = chosen.text
    _TEMPLATES[tokenizer] = chosen


def template_of(tokenizer: Any) -> Template:
    """What was chosen for this tokenizer's conversations."""
    return _TEMPLATES.get(tokenizer, Template())


def rendered(tokenizer: Any, messages: Sequence[Message]) -> str:
    """The messages as the chat template writes them, ready for an answer after a user turn."""
    if not tokenizer.chat_template:
        raise ValueError(
            "This model's tokenizer has no chat template, so a Conversation cannot be rendered. "
            "Pass plain strings, or give it one: steerlens.load(..., template=steerlens.PLAIN) "
            "(system, blank line, user), or model.tokenizer.chat_template = steerlens.PLAIN."
        )
    asks = messages[-1]["role"] == "user"
    arguments = template_of(tokenizer).arguments
    written = str(tokenizer.chat_template)
    shape = tuple(message["role"] for message in messages)
    require_small(written)
    try:
        with bounded(written, shape):
            return tokenizer.apply_chat_template(
                list(messages), tokenize=False, add_generation_prompt=asks, **arguments
            )
    except TooLong as error:
        raise ValueError(
            f"The chat template does not end: {error} for one conversation. Take another: "
            "steerlens.load(..., template=...)."
        ) from error
    except Exception as error:  # jinja2 raises whatever the template's author chose
        raise ValueError(
            f"The chat template refused this conversation ({error}). If it has no system role, "
            "put the instruction into the user turn: steerlens.load(..., "
            "template=steerlens.Template(instruction='user')). Most templates want user and "
            "assistant turns in alternation."
        ) from error


def marks_for(text: str, n: int) -> list[str]:
    """`n` numbers that do not occur in `text`, to stand for words: no template changes a number."""
    marks, number = list[str](), 9041700
    while len(marks) < n:
        if str(number) not in text:
            marks.append(str(number))
        number += 1
    return marks


# -- What a template does by itself ----------------------------------------------------------------


@dataclass(frozen=True)
class Layout:
    """What a template writes around the turns.

    `before` is all that stands before a lone user turn's words. `header` is that part of it which
    opens the user turn; "" where nothing does, or where the system text stands inside the turn, in
    front of the user's words. `default` is the system text that a conversation without a system
    turn gets, and that a system turn replaces; `own_turn` is whether there is a system turn then.
    `earlier` is how often the user's words stand before the system text as well, and `behind`
    whether they never stand after it. `bos` is the BOS that no turn but the first begins with.
    """

    before: str = ""
    header: str = ""
    default: str = ""
    own_turn: bool = False
    earlier: int = 0
    behind: bool = False
    bos: str = ""


_LAYOUTS: "weakref.WeakKeyDictionary[Any, dict[str, Layout]]" = weakref.WeakKeyDictionary()


def layout_of(tokenizer: Any) -> Layout:
    """The layout of the tokenizer's chat template as it is now."""
    known = _LAYOUTS.setdefault(tokenizer, {})
    arguments = sorted(template_of(tokenizer).arguments.items())
    key = repr((tokenizer.chat_template, arguments, tokenizer.bos_token))
    if key not in known:
        known[key] = _layout(tokenizer)
    return known[key]


def default_system(tokenizer: Any) -> str:
    """The system text that the chat template puts where a conversation has none; "" for none."""
    return layout_of(tokenizer).default if tokenizer.chat_template else ""


def plain_system(model: HookedModel) -> str:
    """The system text that a conversation without a system turn has on this model, in words."""
    if model.tokenizer is None or not model.tokenizer.chat_template:
        return "none"
    chosen, default = template_of(model.tokenizer), default_system(model.tokenizer)
    if isinstance(chosen.system, str):
        return f"{chosen.system!r}, as chosen"
    if chosen.system is Own.DEFAULT and default:
        return f"{default!r}, the chat template's own"
    return "none"


def _layout(tokenizer: Any) -> Layout:
    system, user = marks_for(str(tokenizer.chat_template), 2)
    asked = {"role": "user", "content": user}
    told = {"role": "system", "content": system}
    both, bos = _attempt(tokenizer, [told, asked]), _bos(tokenizer, asked)
    earlier = both.rpartition(system)[0].count(user)
    before = before_mark(_attempt(tokenizer, [asked]), user, earlier)
    whole = before_mark(both, user, earlier)
    behind = system in both and system not in whole
    if not whole or behind:
        return Layout(before, before.removeprefix(bos), behind=behind, bos=bos)
    if system not in whole:
        return Layout(before, before.removeprefix(bos), bos=bos)
    opening, _, gap = whole.rpartition(system)
    header = _header(tokenizer, before, gap, told, asked)
    default = _replaced(before, whole)
    own_turn = bool(default) or _frames(before, opening, gap)
    return Layout(before, header.removeprefix(bos), default, own_turn, earlier, bos=bos)


def before_mark(text: str, mark: str, earlier: int) -> str:
    """What stands before a mark that stands `earlier` times before; "" if there is none."""
    parts = text.split(mark)
    return mark.join(parts[: earlier + 1]) if len(parts) > earlier + 1 else ""


def _bos(tokenizer: Any, asked: Message) -> str:
    """The BOS, or "" where it opens every turn, the assistant's too, as in SmolLM2's template.

    Llama-2's template writes one before every user turn, and it is a BOS all the same.
    """
    bos = tokenizer.bos_token or ""
    answer = {"role": "assistant", "content": "-"}
    several = _attempt(tokenizer, [asked, answer, asked])
    return bos if bos and several.count(bos) <= 2 else ""


def _attempt(tokenizer: Any, messages: Sequence[Message]) -> str:
    """The messages as the template writes them, "" where it refuses them."""
    try:
        return rendered(tokenizer, messages)
    except ValueError:
        return ""


def _header(tokenizer: Any, before: str, gap: str, told: Message, asked: Message) -> str:
    """The part of `gap`, between the system and the user's words, that opens the user turn."""
    _, found, closing = _attempt(tokenizer, [told]).rpartition(told["content"])
    if found and gap.startswith(closing):
        header = gap[len(closing) :]
        return header if header.strip() and before.endswith(header) else ""
    # A system turn may not stand alone here. Then a user turn opens as a later one does.
    (answer,) = marks_for(str(tokenizer.chat_template) + told["content"] + asked["content"], 1)
    first, reply = {**asked, "content": "-"}, {"role": "assistant", "content": answer}
    later = _attempt(tokenizer, [first, reply, asked]).partition(asked["content"])[0]
    others = [later.rpartition(answer)[2]] if answer in later else []
    return _common_end(tokenizer, before, [gap, *others])


def _common_end(tokenizer: Any, text: str, others: Sequence[str]) -> str:
    """The longest end that all texts share, in whole tokens; "" if it is blank."""
    size = min(common_tail(text, other) for other in others)
    rows = [ids_of(tokenizer, each) for each in (text, *others)]
    for start in range(len(text) - size, len(text)):
        end = continued(tokenizer, [], text[start:])
        if text[start:].strip() and all(tuple(ids[-len(end) :]) == end for ids in rows):
            return text[start:]
    return ""


def _replaced(before: str, whole: str) -> str:
    """What stands in `before` where `whole` has a system text: what both begin and end with off."""
    start = common_head(before, whole)
    end = common_tail(before[start:], whole[start:])
    return before[start : len(before) - end].strip()


def _frames(before: str, opening: str, gap: str) -> bool:
    """Whether there is a system turn in `before`, which no system text was given for."""
    long_enough = len(before) >= len(opening) + len(gap)
    return long_enough and before.startswith(opening) and before.endswith(gap)
