"""The explorer in a notebook: a static page that stays, and a live view while there is a kernel.

Two outputs, not one: a saved widget without its kernel shows nothing anywhere, so what lasts must
be an output of its own. The live view hides the page as long as it is there.
"""

import base64
import importlib.util
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import plotly.graph_objects as go

from ..figures.export import png_bytes
from ..figures.tokens import TokenView
from ..measures.progress import watched
from .grid import Grid, payload_of
from .live import Live
from .methods import PROMPT, UNSTEERED
from .page import explorer_fragment, script, style
from .payload import State
from .study import Study

SECONDS = 5.0
"""So long, and until each method was read once, more strengths are read before a view is shown."""
INSTALL = (
    "The live view needs anywidget: pip install anywidget. "
    "explorer.save(path) writes the static page without it."
)
LIVE = "(Beneath the page is a live view while its kernel runs; run the cell anew to have it.)"
_HIDE = """
for (const twin of document.querySelectorAll('[data-steerlens-twin="{id}"]')) {{
  twin.style.display = "none";
}}
"""


def missing_widget() -> str | None:
    """What to do where anywidget is not installed; None where it is."""
    return None if importlib.util.find_spec("anywidget") else INSTALL


@dataclass(frozen=True, eq=False)
class ShownLive:
    """A live view: the widget, and what answers it."""

    view: Any
    live: Live


def read_soon(study: Study, state: State) -> None:
    """Read the present text: every method as it is shown first, then more while time lasts."""
    number, begun = state["text"], time.monotonic()
    prompt = study.methods[0].places[0]
    steps = [
        partial(study.with_text, number, PROMPT, prompt, 1.0),
        partial(study.references, number),
        partial(study.completion, number, UNSTEERED),
    ]
    chosen = sorted(study.strengths, key=lambda s: (abs(s - state["strength"]), s))
    readings = [
        partial(study.reading, number, method.name, method.places[0], strength)
        for strength in chosen
        for method in study.methods[1:]
    ]
    n_methods = len(study.methods) - 1
    for step in watched([*steps, *readings[:n_methods]], "reading the text", "step"):
        step()
    for step in readings[n_methods:]:
        if time.monotonic() - begun > SECONDS:
            return
        step()


def notebook_content(
    study: Study, state: State, title: str, made: Mapping[str, object]
) -> dict[str, Any]:
    """The payload of what stays in the notebook: the present text, as far as it was read soon."""
    read_soon(study, state)
    grid = Grid((state["text"],), study.strengths, anew=False)
    return payload_of(study, grid, state, title, made)


def static_bundle(
    content: Mapping[str, Any], fallback: TokenView, figure: go.Figure, twin: str
) -> dict[str, Any]:
    """What a notebook stores: the page, a picture where one can be made, and a line of text."""
    html = explorer_fragment(content, fallback.html)
    picture = png_of(figure)
    return {
        "text/plain": str(content["title"]),
        "text/html": f'<div data-steerlens-twin="{twin}">{html}</div>',
        **({"image/png": base64.b64encode(picture).decode()} if picture else {}),
    }


def png_of(figure: go.Figure) -> bytes | None:
    """The figure as a picture, for documents that hold no HTML; None without kaleido or Chrome."""
    try:
        return png_bytes(figure)
    except Exception:  # whatever a browser does, the page itself is shown
        return None


def new_twin() -> str:
    """A name that ties a static page to the live view beneath it."""
    return uuid.uuid4().hex[:12]


def shown_live(
    study: Study, state: State, title: str, made: Mapping[str, object], twin: str = ""
) -> ShownLive:
    """The live view of a state; ImportError that says how to get anywidget where it is missing."""
    if (missing := missing_widget()) is not None:
        raise ImportError(missing)
    read_soon(study, state)
    texts, number = tuple(range(len(study.pairs))), state["text"]
    grid = Grid(texts, study.strengths, anew=False, live=True, measured=(number,))
    content = payload_of(study, grid, state, title, made)
    module = script() + (_HIDE.format(id=twin) if twin else "")
    view = _view(content, module)
    live = Live(study, view.send, state, {number})
    view.on_msg(lambda _, message, __: live.receive(message))
    return ShownLive(view, live)


def _view(content: Mapping[str, Any], module: str) -> Any:
    import anywidget
    import traitlets

    class View(anywidget.AnyWidget):
        """The view; its payload is what it starts with, everything else are messages."""

        _esm, _css = module, style()
        payload = traitlets.Dict().tag(sync=True)

        def __repr__(self) -> str:  # what a document shows that cannot show the view
            return LIVE

    return View(payload=content)
