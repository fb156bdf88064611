"""Pages that hold the explorer's module and style sheet, and how a test handles them."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from analysis.explorer.page import explorer_assets, explorer_place, script, style

# The model of an anywidget, as a notebook's front end has it, with what was sent and how to answer.
_MODEL = """
window.sent = [];
const heard = new Map(), of = (event) => heard.get(event) || [];
window.model = {
  payload: PAYLOAD,
  get: (name) => (name === "payload" ? window.model.payload : undefined),
  on: (event, callback) => heard.set(event, [...of(event), callback]),
  off: (event, callback) => heard.set(event, of(event).filter((c) => c !== callback)),
  send: (message) => window.sent.push(JSON.parse(JSON.stringify(message))),
  save_changes: () => {},
};
const tell = (event, message) => of(event).forEach((callback) => callback(message));
window.answer = (...all) => all.forEach((message) => tell("msg:custom", message));
window.listeners = () => [...heard.values()].reduce((sum, each) => sum + each.length, 0);
window.give = (payload) => { window.model.payload = payload; tell("change:payload"); };
window.end = widget.render({ model: window.model, el: document.getElementById("explorer") });
"""


@dataclass
class Opened:
    """A page, and what it complained of or asked for."""

    page: Any
    errors: list[str] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)

    def numbers(self, scope: str = ".steerlens-explorer") -> dict[str, str]:
        """The full value of every number that is shown, by its name."""
        return self.page.eval_on_selector_all(
            f"{scope} [data-key]",
            "all => Object.fromEntries(all.map(e => [e.dataset.key, e.dataset.value]))",
        )

    def slide(self, label: str, place: float) -> None:
        """Moves a slider as a hand would: every value on the way sends its event."""
        self.page.get_by_label(label, exact=True).evaluate(
            "(e, v) => { e.value = v; e.dispatchEvent(new Event('input', {bubbles: true})); }",
            place,
        )


def static_page(*payloads: dict[str, Any]) -> str:
    """Payloads below each other in one file, as a report holds them."""
    places = [
        f'<div id="explorer-{i}">{explorer_place(payload)}</div>'
        for i, payload in enumerate(payloads)
    ]
    return _page("".join(places) + explorer_assets())


def live_page(payload: dict[str, Any]) -> str:
    """A payload as a widget, answered by `window.answer(message)`."""
    module = script().replace("export default", "const widget =")
    model = _MODEL.replace("PAYLOAD", json.dumps(payload).replace("</", "<\\/"))
    return _page(
        f'<div id="explorer"></div><style>{style()}</style>'
        f'<script type="module">{module}{model}</script>'
    )


def _page(body: str) -> str:
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>explorer</title>'
        f"<style>body{{margin:0}}</style></head><body>{body}</body></html>"
    )
