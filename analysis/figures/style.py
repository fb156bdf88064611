"""What all figures share: the colour, dash and marker of each method, and the mark of a strength.

A method looks the same in every figure, and in grey print its marker and dash tell it apart; of one
method, a strength that is not "as fitted" has an open marker and a thinner line.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Look:
    """How the line of a method is drawn."""

    colour: str
    marker: str
    dash: str = "solid"


METHODS = {
    "prompt": Look("#0072b2", "circle"),
    "ActAdd": Look("#d55e00", "square", "2px,2px"),
    "CAA": Look("#009e73", "triangle-up", "8px,2px"),
    "PSR": Look("#cc79a7", "diamond", "7px,2px,2px,2px"),
    "S-Const_DiM": Look("#44aa99", "triangle-down", "9px,3px"),
    "S-Const_MSE": Look("#88c057", "pentagon", "3px,2px"),
    "S-PSR": Look("#d81b60", "hexagon2", "7px,2px,3px,2px"),
    "A-PSR": Look("#8e2de2", "star-triangle-up", "11px,2px,2px,2px,2px,2px"),
    "COLD-Kernel": Look("#1f7a8c", "triangle-se", "12px,3px,2px,3px"),
    "S-PSR_MSE": Look("#c51b7d", "diamond-wide", "8px,2px,1px,2px"),
    "S-PSR_LL": Look("#7a3b69", "diamond-tall", "10px,2px,3px,2px"),
    "A-Const_MSE": Look("#c9a227", "hexagon", "4px,2px"),
    "A-PSR_MSE": Look("#b2182b", "hexagram", "6px,2px,3px,2px"),
    "A-PSR_LL": Look("#8c510a", "octagon", "9px,2px,2px,2px,2px,2px"),
    "CLAS": Look("#e69f00", "star", "8px,2px,2px,2px,2px,2px"),
    "COLD-FD": Look("#56b4e9", "cross", "5px,3px"),
    "unsteered": Look("#595959", "x", "1px,2px"),
    "equivalent prompts": Look("#7f7f7f", "circle-open", "dash"),
    "neutral prompts": Look("#b5a642", "square-open", "dash"),
    "any instruction": Look("#8a6d3b", "diamond-open", "dash"),
    "Angular": Look("#2e7d32", "triangle-nw", "10px,3px"),
    "instruction vector": Look("#3f51b5", "bowtie", "6px,2px,1px,2px"),
    "LAS grid": Look("#8f8f00", "hourglass", "12px,4px,4px,4px"),
    "LoReFT": Look("#ab47bc", "circle-cross", "2px,3px"),
    "ReFT-r1": Look("#6d2e46", "circle-x", "14px,3px,2px,3px"),
    "LoRA": Look("#bf5b17", "square-cross", "5px,4px"),
    "gradient step": Look("#00695c", "diamond-cross", "9px,2px,3px,2px"),
    "COLD-FD, 4 examples": Look("#2a8fc7", "square-x", "5px,3px,1px,3px"),
    "CAA, 4 examples": Look("#3f9368", "diamond-x", "8px,2px,2px,2px"),
    "A-PSR_MSE + prompt": Look("#e4572e", "star-triangle-down", "6px,2px,2px,2px"),
    "random direction": Look("#9a9a9a", "circle-x-open", "3px,3px"),
    "null: stuffed 10": Look("#a1786a", "hourglass-open", "dash"),
    "null: stuffed 5": Look("#8d5b4c", "bowtie-open", "dash"),
    "null: echoed": Look("#7b6a8a", "diamond-x-open", "dash"),
    "null: looped": Look("#6b8e23", "diamond-cross-open", "dash"),
}
SHORT_NAMES = {"equivalent": "equivalent prompts", "neutral": "neutral prompts"}
"""What the bench calls other instructions; they look the same by either name."""
METHOD_COLOURS = {name: look.colour for name, look in METHODS.items()}
SPARE_COLOURS = ("#332288", "#882255", "#999933", "#117733", "#aa4499", "#661100")
SPARE = (
    ("triangle-left", "10px,2px"),
    ("triangle-right", "6px,2px,1px,2px"),
    ("star-square", "12px,4px,4px,4px"),
    ("triangle-ne", "2px,2px"),
    ("triangle-sw", "14px,3px,2px,3px,2px,3px"),
    ("star-diamond", "5px,5px"),
)
AS_FITTED = ("", "as fitted")
OPEN = {"least squares": "-open", "matched": "-open-dot"}
"""What a strength adds to the marker of its method."""
WITHOUT_DOT = (
    "bowtie",
    "hourglass",
    *(f"{a}-{b}" for a in ("circle", "square", "diamond") for b in ("cross", "x")),
)
"""Markers that plotly has open, but not with a dot in them."""
REFERENCES = ("equivalent prompts", "neutral prompts", "any instruction")


def method_colours(methods: Iterable[str]) -> dict[str, str]:
    """A colour for each method: fixed for those in `METHODS`, else drawn from its name.

    Two unknown names that draw the same spare colour get different ones while there are some, then
    other markers.
    """
    return {method: look.colour for method, look in method_looks(methods).items()}


def method_looks(methods: Iterable[str]) -> dict[str, Look]:
    """Colour, marker and dash of each method, by the rule of `method_colours`."""
    looks: dict[str, Look] = {}
    for method in sorted(set(methods)):
        start = zlib.crc32(method.encode("utf-8", "backslashreplace"))
        n = len(SPARE_COLOURS)
        order = [(start + i) % n for i in range(n)]
        # When all are taken a colour comes again with another marker.
        spare = [Look(SPARE_COLOURS[i], *SPARE[(i + more) % n]) for more in range(n) for i in order]
        free = [look for look in spare if look not in looks.values()]
        looks[method] = METHODS.get(SHORT_NAMES.get(method, method)) or (free or spare)[0]
    return looks


def marker_of(look: Look, strength: str) -> str:
    """The marker of a method at a strength: filled as fitted, else open."""
    if strength in AS_FITTED or look.marker.endswith("-open"):
        return look.marker
    opened = OPEN.get(strength, "-open")
    return look.marker + (opened if look.marker not in WITHOUT_DOT else "-open")


def line_of(look: Look, strength: str) -> dict[str, object]:
    """The line of a method at a strength, as plotly takes it."""
    return {"color": look.colour, "dash": look.dash, "width": 2.4 if strength in AS_FITTED else 1.5}
