"""Conversations of turns, and how the model's chat template writes them down."""

import warnings
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias, TypeGuard

from steerlens.borders import common_head
from steerlens.kinds import require_fields
from steerlens.parsing import few, short
from steerlens.templates import (
    BETWEEN,
    Message,
    before_mark,
    default_system,
    layout_of,
    marks_for,
    rendered,
    template_of,
)
from steerlens.types import SteeringWarning

Response: TypeAlias = str | tuple[int, ...]
Turn: TypeAlias = tuple[str, str]
"""Who speaks ("user" or "assistant"), and what."""
Messages: TypeAlias = Sequence[Message]
"""Turns as chat interfaces have them: [{"role": "user", "content": "What is it?"}, ...]."""

ROLES = ("system", "user", "assistant")


@dataclass(frozen=True)
class Conversation:
    """A user turn, optionally after a system turn, optionally with the start of a response.

    `history` are the (role, text) turns between the system turn and this user turn, the question.
    The response is text, or token ids as a model sampled them. `Conversation.of` makes one of a
    list of messages.

    >>> sl.Conversation("How was it?", "Be brief.").system
    'Be brief.'
    """

    user: str
    system: str | None = None
    response: Response = ""
    history: tuple[Turn, ...] = ()

    def __post_init__(self) -> None:
        require_fields(self, but=("user", "system"))
        for name, said in (("user", self.user), ("system", self.system or "")):
            if not isinstance(said, str):
                raise TypeError(
                    f"Conversation({name}=...) is text; found {type(said).__name__}. A list of "
                    "messages is Conversation.of(messages)."
                )
        if not self.user.strip():
            raise ValueError("Conversation(user=''): the user turn is empty. Say what is asked.")
        for role, _ in self.history:
            if role not in ("user", "assistant"):
                raise ValueError(
                    f"The history of a Conversation holds user and assistant turns; found {role!r}."
                    " The system turn is Conversation(user, system=...)."
                )

    @classmethod
    def of(cls, messages: Messages) -> "Conversation":
        """The conversation that [{"role": ..., "content": ...}, ...] spells out.

        The last user turn is the question; an assistant turn after it is the start of the response.
        A system turn stands first. ValueError for any other order, role or content.
        """
        turns = [_turn(number, message) for number, message in enumerate(messages)]
        system = turns.pop(0)[1] if turns and turns[0][0] == "system" else None
        response = turns.pop()[1] if turns and turns[-1][0] == "assistant" else ""
        _require_order(turns)
        return cls(turns[-1][1], system, response, tuple(turns[:-1]))

    def without_system(self) -> "Conversation":
        """The same conversation without its system turn."""
        return replace(self, system=None)


def is_messages(value: object) -> TypeGuard[Messages]:
    """Whether `value` is a list of messages, and so one conversation."""
    messages: Any = value if isinstance(value, list | tuple) else ()
    return len(messages) > 0 and all(isinstance(message, Mapping) for message in messages)


def _turn(number: int, message: Any) -> Turn:
    if not isinstance(message, Mapping) or set(message) != {"role", "content"}:
        found = f"the fields {few(message) or 'none'}"
        found = found if isinstance(message, Mapping) else type(message).__name__
        raise ValueError(
            f'Message {number} is not {{"role": ..., "content": ...}}; found {found}. Tools and '
            "names have no place here: write what was said."
        )
    role, content = message["role"], message["content"]
    if role not in ROLES:
        raise ValueError(
            f"Message {number} has the unknown role {short(role)}. The roles are: "
            f"{', '.join(ROLES)}."
        )
    if not isinstance(content, str):
        raise ValueError(
            f"The content of message {number} must be text; found {type(content).__name__}."
        )
    return role, content


def _require_order(turns: Sequence[Turn]) -> None:
    """Raise ValueError unless these turns end with the user's, and no system turn is among them."""
    roles = [role for role, _ in turns]
    if "system" in roles:
        raise ValueError(
            "A conversation has one system turn, and it stands first. Found the order: "
            f"{', '.join(roles)}, after what came first."
        )
    if not roles or roles[-1] != "user":
        raise ValueError(
            "A conversation ends with a user turn, or with one assistant turn after that, the start"
            f" of the response; before it: {', '.join(roles) or 'no turns'}. Say what is asked."
        )


@dataclass(frozen=True)
class Written:
    """A conversation as its template writes it, up to the response.

    `question` is how many characters stand before the user turn: before what opens it, or, where
    the template puts the system text inside the turn, before the user's words (blanks may follow).
    """

    text: str
    question: int


def written(tokenizer: Any, conversation: Conversation, bare: bool = False) -> Written:
    """The conversation by the tokenizer's chat template, checked to hold every turn.

    Without a system turn it gets what the chosen `Template` says; with `bare`, none at all.
    """
    chosen = template_of(tokenizer)
    chosen = replace(chosen, system=None) if bare else chosen
    if conversation.system is None and isinstance(chosen.system, str):
        conversation = replace(conversation, system=chosen.system)
    text = _text_of(tokenizer, conversation)
    _require_history(tokenizer, conversation)
    if conversation.system is not None and conversation.system.strip():
        _require_system(tokenizer, conversation, text)
    whole = Written(text, _question(tokenizer, conversation, text))
    if conversation.system is not None and chosen.instruction == "system":
        return whole
    if chosen.system is None:
        return _without_own_turn(tokenizer, whole)
    if chosen.instruction == "system":
        _warn_of_default(tokenizer)
    return whole


def _messages(tokenizer: Any, conversation: Conversation) -> list[dict[str, str]]:
    """The turns as the template gets them, the system text where it is to stand."""
    turns = [*conversation.history, ("user", conversation.user)]
    if conversation.system is not None:
        if template_of(tokenizer).instruction == "system":
            turns.insert(0, ("system", conversation.system))
        else:
            first = next(number for number, (role, _) in enumerate(turns) if role == "user")
            turns[first] = ("user", conversation.system + BETWEEN + turns[first][1])
    return [{"role": role, "content": content} for role, content in turns]


def _marks_for(conversation: Conversation, n: int = 1) -> list[str]:
    said = [conversation.user, conversation.system or ""]
    return marks_for("\n".join([*said, *(text for _, text in conversation.history)]), n)


def _text_of(tokenizer: Any, conversation: Conversation) -> str:
    """The conversation as the template writes it, with no check."""
    return rendered(tokenizer, _messages(tokenizer, conversation))


def _question(tokenizer: Any, conversation: Conversation, text: str) -> int:
    """Where the user turn begins in `text`."""
    (mark,) = _marks_for(conversation)
    marked = _text_of(tokenizer, replace(conversation, user=mark + conversation.user))
    if mark not in marked:
        raise ValueError(
            "The chat template left the user turn out. Does it take texts, or only lists of parts? "
            "Give the model another: steerlens.load(..., template=...)."
        )
    layout = layout_of(tokenizer)
    in_system = template_of(tokenizer).instruction == "system"
    if layout.behind and conversation.system is not None and in_system:
        raise ValueError(
            "The chat template writes the system text after the user's words, so the question "
            "cannot be told from it. Put the instruction in front of them: steerlens.load(..., "
            "template=steerlens.Template(instruction='user'))."
        )
    # All that comes before the mark is the same without it, but for templates that count words.
    earlier = layout.earlier if marked.count(mark) > layout.earlier else 0
    start = common_head(before_mark(marked, mark, earlier).replace(mark, ""), text)
    header = layout.header
    if in_system and header and text[:start].endswith(header):
        return start - len(header)
    return start


def _require_history(tokenizer: Any, conversation: Conversation) -> None:
    """Raise ValueError if the template leaves an earlier turn out."""
    if not conversation.history:
        return
    marks = _marks_for(conversation, len(conversation.history))
    # At the end of each: templates take an assistant's thoughts, which stand first, away.
    both = zip(conversation.history, marks, strict=True)
    history = tuple((role, said + mark) for (role, said), mark in both)
    text = _text_of(tokenizer, replace(conversation, history=history))
    absent = [role for (role, _), mark in zip(history, marks, strict=True) if mark not in text]
    if absent:
        raise ValueError(
            f"The chat template left {len(absent)} of {len(history)} earlier turns out, one of the "
            f"{absent[0]} first. Leave them out of the conversation, or take another template."
        )


def _require_system(tokenizer: Any, conversation: Conversation, text: str) -> None:
    """Raise ValueError unless the system text stands in `text`, whole, at its own place."""
    assert conversation.system is not None
    (mark,) = _marks_for(conversation)
    marked = _text_of(tokenizer, replace(conversation, system=mark + conversation.system))
    start = marked.find(mark)
    # Blanks may be taken away, words not.
    there, wanted = (" ".join(words.split()) for words in (text[start:], conversation.system))
    if start >= 0 and there.startswith(wanted):
        return
    done = "left the system turn out: it has no system role" if start < 0 else "altered the system "
    done += "" if start < 0 else "text, or cut it short"
    raise ValueError(
        f"The chat template {done}. Put the instruction into the user turn: steerlens.load(..., "
        "template=steerlens.Template(instruction='user')), or steerlens.use_template(model, ...)."
    )


# -- The system prompt that a template has of its own ----------------------------------------------


def _without_own_turn(tokenizer: Any, whole: Written) -> Written:
    """The text with the system turn left out that the template wrote by itself."""
    layout = layout_of(tokenizer)
    if not layout.own_turn:
        return whole
    if not layout.header or not whole.text.startswith(layout.before):
        raise ValueError(
            "Template(system=None), or baseline='none': the chat template's own system text stands "
            "in the user turn, or nothing marks where that begins, so it cannot be left out. "
            "Template(system='') puts an empty one there."
        )
    kept = layout.bos if layout.bos and whole.text.startswith(layout.bos) else ""
    cut = len(layout.before) - len(layout.header)
    return Written(kept + whole.text[cut:], whole.question - cut + len(kept))


_WARNED: "weakref.WeakKeyDictionary[Any, set[str]]" = weakref.WeakKeyDictionary()


def _warn_of_default(tokenizer: Any) -> None:
    """Warn, once for each model and text, that the template has a system prompt of its own."""
    default, warned = default_system(tokenizer), _WARNED.setdefault(tokenizer, set())
    if not default or default in warned:
        return
    warned.add(default)
    warnings.warn(
        "The model's chat template puts a system prompt of its own where a conversation has no "
        f"system turn: {default!r}. What is called unprompted then holds that text, and an "
        "instruction takes its place. To choose, steerlens.load(..., "
        "template=steerlens.Template(system=None)) for none, or a text in place of None; on the "
        "command line --default-system none, or a text.",
        SteeringWarning,
        stacklevel=2,
    )
