"""Pairs in JSON Lines files: one object a line, a bad line named by its number.

The path `-` is standard input.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from steerlens.conversations import Conversation
from steerlens.kinds import require_kinds
from steerlens.parsing import (
    STANDARD_INPUT,
    each_once,
    few,
    parse_json,
    require_whole_characters,
    short,
    text_of_input,
)
from steerlens.prompts import PromptPair

Row = TypeVar("Row")


def read_prompt_pairs(
    path: str | Path, *, system_optional: bool = False
) -> list[PromptPair | Conversation]:
    """Prompted/unprompted pairs; a line without a response is a Conversation still to be answered.

    A line is {"user", "system", "response"} or {"plain", "prompted", "response"}, or, for several
    turns, {"messages": [{"role", "content"}, ...], "response"}: its system turn is the instruction,
    and an assistant turn at its end the response. "plain" and "prompted" are text or such lists.
    With `system_optional` the system turn may be absent where the response is there: a pair without
    an instruction, whose two prompts are the same.
    """
    require_kinds(read_prompt_pairs, locals())
    return _read(path, partial(_prompt_pair, system_optional=system_optional))


def line_numbers(path: str | Path) -> list[int]:
    """The number of the line of each object in a file, blank lines counted."""
    return [number for number, _ in _lines(Path(path))]


def read_labelled_pairs(
    path: str | Path,
) -> tuple[list[PromptPair | Conversation], list[float] | None]:
    """Pairs as above, and their labels: how much of the attribute each response has, 0 to 1.

    Every line has a "label", or none has; a line with a label has its response.
    """
    rows = _read(path, labelled_pair)
    labels = [label for _, label in rows if label is not None]
    if labels and len(labels) < len(rows):
        raise ValueError(
            f"{path}: {len(labels)} of {len(rows)} lines have a label. Give every line one, or "
            "none."
        )
    return [pair for pair, _ in rows], labels or None


def read_contrasts(path: str | Path) -> tuple[list[str | Conversation], list[str | Conversation]]:
    """Contrast pairs, {"positive", "negative"}, as two lists of prompts in the same order.

    Each side is a string, {"user", "system", "response"}, the last two optional, or a list of
    messages, [{"role", "content"}, ...].
    """
    require_kinds(read_contrasts, locals())
    rows = _read(path, lambda row: (side_of(row, "positive"), side_of(row, "negative")))
    return [positive for positive, _ in rows], [negative for _, negative in rows]


def read_wishes(path: str | Path) -> tuple[list[str | Conversation], list[dict[str, float]]]:
    """Prompts, and how often each option should come next: {"prompt", "options": {token: share}}.

    A prompt is a string, {"user", "system"} or a list of messages; a token is named by its text, as
    " good".
    """
    require_kinds(read_wishes, locals())
    rows = _read(path, wish_of)
    return [prompt for prompt, _ in rows], [wish for _, wish in rows]


def read_prompts(path: str | Path) -> list[str | Conversation]:
    """Prompts, each with its response where it has one.

    A line is {"user", "system", "response"}, the last two optional, {"messages": [...]}, or
    {"prompt"}: text that no template is put around, or such an object or list.
    """
    require_kinds(read_prompts, locals())
    return _read(path, _one_prompt)


def _read(path: str | Path, parse: Callable[[dict[str, Any]], Row]) -> list[Row]:
    path = Path(path)
    if path != STANDARD_INPUT and (not path.exists() or path.is_dir()):
        raise FileNotFoundError(f"There is no file {path}. It should hold one JSON object a line.")
    name = "standard input" if path == STANDARD_INPUT else path
    rows = []
    for number, line in _lines(path):
        try:
            row = parse_json(line, each_once)
            if not isinstance(row, dict):
                raise ValueError(f"a {type(row).__name__}, not an object")
            require_whole_characters(row, line)
            rows.append(parse(row))
        except (ValueError, TypeError) as error:
            raise ValueError(
                f"{name}, line {number}: {error}. One JSON object a line, please."
            ) from error
    if not rows:
        raise ValueError(f"{name} is empty. It should hold one JSON object a line.")
    return rows


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """Every line that is not blank, with its number."""
    for number, line in enumerate(re.split(r"\r?\n", text_of_input(path)), start=1):
        if line.strip():
            yield number, line


def _field(row: dict[str, Any], name: str) -> Any:
    if name not in row:
        raise ValueError(f"the field {name!r} is missing (found: {few(row) or 'none'})")
    return row[name]


def _text(row: dict[str, Any], name: str) -> str:
    value = _field(row, name)
    if not isinstance(value, str):
        raise ValueError(f"the field {name!r} must be text; found {type(value).__name__}")
    return value


def _require_known(row: dict[str, Any], known: set[str], what: str) -> None:
    unknown = set(row) - known
    if unknown:
        fields = "1 unknown field" if len(unknown) == 1 else f"{len(unknown)} unknown fields"
        raise ValueError(f"{what} has {fields}: {few(unknown)}")


def _prompt_pair(
    row: dict[str, Any], *, system_optional: bool = False
) -> PromptPair | Conversation:
    known = {"plain", "prompted", "user", "system", "messages", "response"}
    _require_known(row, known, "the line")
    if "plain" in row or "prompted" in row:
        _require_known(row, {"plain", "prompted", "response"}, "a line with 'plain' or 'prompted'")
        plain, prompted = (_prompt(row, name) for name in ("plain", "prompted"))
        return PromptPair(plain, prompted, _text(row, "response"))
    asked = _asked(row, system_optional)
    if not asked.response:
        return asked
    response, asked = asked.response, replace(asked, response="")
    if asked.system is None:
        return PromptPair(asked, asked, response)
    return PromptPair.with_system(asked.without_system(), asked.system, response)


def _asked(row: dict[str, Any], system_optional: bool) -> Conversation:
    """The conversation of a line, with its response, if any."""
    asked = _turns(row, system_optional)
    if "response" in row:
        _text(row, "response")  # null is no text, and no sign that the model is to answer
    if row.get("response") and asked.response:
        raise ValueError(
            "the last message is the assistant's, and so the response; there is a 'response' too"
        )
    if row.get("response"):
        asked = replace(asked, response=_text(row, "response"))
    if asked.system is None and not system_optional:
        raise ValueError("the first message is not the system's, which would be the instruction")
    if asked.system is None and not asked.response:
        raise ValueError(
            "neither 'system' nor 'response' is there; give the response, or the instruction "
            "with which the model is to write it"
        )
    return asked


def _turns(row: dict[str, Any], system_optional: bool) -> Conversation:
    if "messages" in row:
        _require_known(row, {"messages", "response"}, "a line with 'messages'")
        return _conversation(row["messages"], "messages")
    absent = system_optional and "system" not in row
    return Conversation(_text(row, "user"), None if absent else _text(row, "system"))


def _conversation(value: Any, name: str) -> Conversation:
    if not isinstance(value, list):
        raise ValueError(f"the field {name!r} must be a list of messages; found {short(value)}")
    return Conversation.of(value)


def _prompt(row: dict[str, Any], name: str) -> str | Conversation:
    """Text, or a list of messages."""
    value = _field(row, name)
    return value if isinstance(value, str) else _conversation(value, name)


def labelled_pair(row: dict[str, Any]) -> tuple[PromptPair | Conversation, float | None]:
    """The pair of a line and its label; ValueError where a field is missing or no such value."""
    label = row.get("label")
    pair = _prompt_pair({name: value for name, value in row.items() if name != "label"})
    if "label" not in row:
        return pair, None
    if isinstance(label, bool) or not isinstance(label, int | float) or not 0 <= label <= 1:
        raise ValueError(f"the field 'label' must be a number from 0 to 1; found {short(label)}")
    if isinstance(pair, Conversation):
        raise ValueError("the field 'label' judges a response, and the line has no 'response'")
    return pair, float(label)


def wish_of(row: dict[str, Any]) -> tuple[str | Conversation, dict[str, float]]:
    """The prompt of a line, and how often each option should come next."""
    _require_known(row, {"prompt", "options"}, "the line")
    wish = _field(row, "options")
    if not isinstance(wish, dict):
        raise ValueError(f"the field 'options' must be {{token: probability}}; found {short(wish)}")
    return side_of(row, "prompt"), wish


def _one_prompt(row: dict[str, Any]) -> str | Conversation:
    for name in ("prompt", "messages"):
        if name in row:
            _require_known(row, {name}, f"a line with {name!r}")
            return side_of(row, "prompt") if name == "prompt" else _conversation(row[name], name)
    return side_of({"prompt": row}, "prompt")


def side_of(row: dict[str, Any], name: str) -> str | Conversation:
    """One side of a contrast: text, a conversation object, or a list of messages."""
    value = _field(row, name)
    if isinstance(value, str):
        return value
    if isinstance(value, list):
        return _conversation(value, name)
    if not isinstance(value, dict):
        raise ValueError(
            f"the field {name!r} must be text, a conversation object or a list of messages"
        )
    _require_known(value, {"user", "system", "response"}, f"the field {name!r}")
    system = _text(value, "system") if "system" in value else None
    response = _text(value, "response") if "response" in value else ""
    return Conversation(_text(value, "user"), system, response)
