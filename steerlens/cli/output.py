"""What a command prints."""

import json
import os
import sys
from typing import Any

from steerlens.parsing import harmless


def told(content: dict[str, Any] | list[Any], as_json: bool, text: str) -> str:
    """The outcome as JSON, or the text that tells it; made before a file is written.

    So what cannot be told is found out while there is no file yet.
    """
    return json.dumps(content, indent=2, default=str, allow_nan=False) if as_json else text


def show(text: str) -> None:
    """Print, and fail at nothing: the work is done, whoever listens.

    What a terminal would obey is shown as text, for names and texts come from files.
    """
    text = harmless(text)
    try:
        print(text, flush=True)
    except UnicodeEncodeError:  # a terminal without these letters
        encoding = sys.stdout.encoding or "ascii"
        print(text.encode(encoding, "backslashreplace").decode(encoding), flush=True)
    except BrokenPipeError:  # `| head` has read enough; Python would flush once more at its end
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def say(content: dict[str, Any] | list[Any], as_json: bool, text: str) -> None:
    """The outcome of a command that writes no file."""
    show(told(content, as_json, text))


def records(table: Any) -> list[dict[str, Any]]:
    """The rows of a pandas table for JSON, which has no NaN."""
    return json.loads(table.to_json(orient="records") or "[]")
