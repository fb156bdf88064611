"""Pages that hold the explorer's own module and style sheet, for tests in a browser."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import analysis

FRONT = Path(analysis.__file__).parent / "explorer" / "front"

# The model of an anywidget, as a notebook's front end has it, with what was sent and how to answer.
_MODEL = """
window.sent = [];
const heard = new Map();
window.model = {
  payload: PAYLOAD,
  get: (name) => (name === "payload" ? window.model.payload : undefined),
  on: (event, callback) => heard.set(event, [...(heard.get(event) || []), callback]),
  off: (event, callback) => heard.set(event, (heard.get(event) || []).filter((c) => c !== callback)),
  send: (message) => window.sent.push(JSON.parse(JSON.stringify(message))),
  save_changes: () => {},
};
window.answer = (...all) => all.forEach((m) => (heard.get("msg:custom") || []).forEach((c) => c(m)));
window.listeners = () => [...heard.values()].reduce((sum, each) => sum + each.length, 0);
window.give = (payload) => { window.model.payload = payload; (heard.get("change:payload") || []).forEach((c) => c()); };
window.end = widget.render({ model: window.model, el: document.getElementById("explorer") });
"""


def static_page(*payloads: dict[str, Any]) -> str:
    """Payloads below each other in one file."""
    holders = "".join(f'<div id="explorer-{i}"></div>' for i in range(len(payloads)))
    calls = "".join(
        f'mount(document.getElementById("explorer-{i}"), {_json(payload)}, null);\n'
        for i, payload in enumerate(payloads)
    )
    return _page(holders, module() + calls)


def live_page(payload: dict[str, Any]) -> str:
    """A payload as a widget, answered by `window.answer(message)`."""
    script = module().replace("export default", "const widget =")
    return _page('<div id="explorer"></div>', script + _MODEL.replace("PAYLOAD", _json(payload)))


def module() -> str:
    return (FRONT / "explorer.js").read_text(encoding="utf-8")


def _json(payload: dict[str, Any]) -> str:
    return json.dumps(payload).replace("</", "<\\/")


def _page(body: str, script: str) -> str:
    style = (FRONT / "explorer.css").read_text(encoding="utf-8")
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>explorer</title>'
        f"<style>body{{margin:0}}{style}</style></head><body>{body}"
        f'<script type="module">{script}</script></body></html>'
    )
