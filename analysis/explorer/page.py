"""The explorer in one self-contained file or in a report: no Python, no network, no other file."""

import json
from collections.abc import Mapping
from functools import cache
from html import escape
from pathlib import Path
from typing import Any

FRONT = Path(__file__).parent / "front"
BUDGET = 8_000_000
"""Bytes of a page from which on `save` says that it is large."""
_MOUNT = """
for (const place of document.querySelectorAll("[data-steerlens-explorer]:not([data-mounted])")) {
  place.setAttribute("data-mounted", "");
  const content = place.querySelector("script").textContent;
  place.replaceChildren();
  mount(place, JSON.parse(content), null);
}
"""


@cache
def script() -> str:
    """The text of the front's one module."""
    return (FRONT / "explorer.js").read_text(encoding="utf-8")


@cache
def style() -> str:
    """The text of the front's style sheet."""
    return (FRONT / "explorer.css").read_text(encoding="utf-8")


def explorer_place(payload: Mapping[str, Any], fallback: str = "") -> str:
    """Where an explorer will be, with all that it shows; `explorer_assets` brings it to life.

    `fallback` is HTML for whoever runs no scripts.
    """
    text = json.dumps(payload, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    inside = text.replace("<", "\\u003c")  # so that no text can end the script
    return (
        f'<div class="steerlens-place" data-steerlens-explorer>{fallback}'
        f'<script type="application/json">{_held(inside)}</script></div>'
    )


def explorer_assets() -> str:
    """Style and script, which bring all places before them to life; once is enough for a page."""
    return f'<style>{style()}</style>\n<script type="module">{script()}{_MOUNT}</script>'


def explorer_fragment(payload: Mapping[str, Any], fallback: str = "") -> str:
    """One explorer with its style and script, for where it is the only one."""
    return f"{explorer_place(payload, fallback)}\n{explorer_assets()}"


def explorer_page(payload: Mapping[str, Any]) -> str:
    """A whole page with one explorer."""
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        f"<title>{escape(_held(str(payload['title'])))}</title>\n"
        "<style>:root { color-scheme: light dark; } body { margin: 0; background: #f6f6f4; }\n"
        "@media (prefers-color-scheme: dark) { body { background: #17191c; } }</style>\n"
        "</head>\n<body>\n"
        f"{explorer_fragment(payload)}\n</body>\n</html>\n"
    )


def write_page(path: str | Path, html: str) -> Path:
    """The page as a file, whole or not at all; its folder is made where only that is missing."""
    from steerlens.whole import write_whole  # here alone, so that a page needs no library

    return write_whole(path, html.encode("utf-8"))


def _held(text: str) -> str:
    """The text without half characters, which no file in UTF-8 can hold."""
    return text.encode("utf-8", "replace").decode("utf-8")
