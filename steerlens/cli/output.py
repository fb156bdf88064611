"""What a command prints."""

import json
from typing import Any


def say(content: dict[str, Any] | list[Any], as_json: bool, text: str) -> None:
    """The outcome as JSON, or the text that tells it."""
    print(json.dumps(content, indent=2, default=str, allow_nan=False) if as_json else text)


def records(table: Any) -> list[dict[str, Any]]:
    """The rows of a pandas table for JSON, which has no NaN."""
    return json.loads(table.to_json(orient="records") or "[]")
