"""Pairs in JSON Lines files: one object a line, a bad line named by its number."""

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from steerlens.conversations import Conversation
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
    rows = _read(path, _labelled_pair)
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
    rows = _read(path, lambda row: (_side(row, "positive"), _side(row, "negative")))
    return [positive for positive, _ in rows], [negative for _, negative in rows]


def read_wishes(path: str | Path) -> tuple[list[str | Conversation], list[dict[str, float]]]:
    """Prompts, and how often each option should come next: {"prompt", "options": {token: share}}.

    A prompt is a string, {"user", "system"} or a list of messages; a token is named by its text, as
    " good".
    """
    rows = _read(path, _wish)
    return [prompt for prompt, _ in rows], [wish for _, wish in rows]


def _read(path: str | Path, parse: Callable[[dict[str, Any]], Row]) -> list[Row]:
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"There is no file {path}. It should hold one JSON object a line.")
    rows = []
    for number, line in _lines(path):
        try:
            row = json.loads(line, object_pairs_hook=_each_once)
            if not isinstance(row, dict):
                raise ValueError(f"a {type(row).__name__}, not an object")
            rows.append(parse(row))
        except (ValueError, TypeError) as error:
            raise ValueError(
                f"{path}, line {number}: {error}. One JSON object a line, please."
            ) from error
    if not rows:
        raise ValueError(f"{path} is empty. It should hold one JSON object a line.")
    return rows


def _each_once(fields: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(fields)
    if len(found) < len(fields):
        names = [name for name, _ in fields]
        twice = sorted({name for name in names if names.count(name) > 1})
        raise ValueError(f"the field {twice[0]!r} is there twice")
    return found


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """Every line that is not blank, with its number."""
    for number, line in enumerate(path.read_text(encoding="utf-8-sig").split("\n"), start=1):
        if line.strip():
            yield number, line


def _field(row: dict[str, Any], name: str) -> Any:
    if name not in row:
        raise ValueError(f"the field {name!r} is missing (found: {', '.join(row) or 'none'})")
    return row[name]


def _text(row: dict[str, Any], name: str) -> str:
    value = _field(row, name)
    if not isinstance(value, str):
        raise ValueError(f"the field {name!r} must be text; found {type(value).__name__}")
    return value


def _require_known(row: dict[str, Any], known: set[str], what: str) -> None:
    unknown = set(row) - known
    if unknown:
        raise ValueError(f"{what} has unknown fields: {', '.join(sorted(unknown))}")


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
        raise ValueError(f"the field {name!r} must be a list of messages; found {value!r}")
    return Conversation.of(value)


def _prompt(row: dict[str, Any], name: str) -> str | Conversation:
    """Text, or a list of messages."""
    value = _field(row, name)
    return value if isinstance(value, str) else _conversation(value, name)


def _labelled_pair(row: dict[str, Any]) -> tuple[PromptPair | Conversation, float | None]:
    label = row.get("label")
    pair = _prompt_pair({name: value for name, value in row.items() if name != "label"})
    if "label" not in row:
        return pair, None
    if isinstance(label, bool) or not isinstance(label, int | float) or not 0 <= label <= 1:
        raise ValueError(f"the field 'label' must be a number from 0 to 1; found {label!r}")
    if isinstance(pair, Conversation):
        raise ValueError("the field 'label' judges a response, and the line has no 'response'")
    return pair, float(label)


def _wish(row: dict[str, Any]) -> tuple[str | Conversation, dict[str, float]]:
    _require_known(row, {"prompt", "options"}, "the line")
    wish = _field(row, "options")
    if not isinstance(wish, dict):
        raise ValueError(f"the field 'options' must be {{token: probability}}; found {wish!r}")
    return _side(row, "prompt"), wish


def _side(row: dict[str, Any], name: str) -> str | Conversation:
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
