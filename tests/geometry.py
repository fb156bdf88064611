"""What a browser makes of a figure: where its texts are, and which of them overlap or are cut."""

import json
from dataclasses import dataclass
from typing import Any

MEASURE = """
async ([figure, width]) => {
  const box = document.getElementById("figure");
  Plotly.purge(box);
  box.style.width = width + "px";
  document.body.style.width = width + "px";
  await Plotly.newPlot(box, figure.data, figure.layout, {staticPlot: true, responsive: false});
  const page = box.getBoundingClientRect();
  const place = (rect) => [rect.left - page.left, rect.top - page.top,
                           rect.right - page.left, rect.bottom - page.top];
  const texts = [];
  for (const text of box.querySelectorAll("svg text")) {
    if (!text.textContent.trim() || text.closest(".modebar, .hoverlayer")) continue;
    const style = getComputedStyle(text);
    if (style.visibility === "hidden" || style.display === "none") continue;
    const rect = text.getBoundingClientRect();
    if (!rect.width || !rect.height) continue;
    const kind = text.closest(".textpoint, .heatmap-label, .hm") ? "inside"
      : text.closest(".legend") ? "legend" : text.closest(".textpoint") ? "inside" : "outside";
    texts.push([text.textContent, kind, ...place(rect)]);
  }
  const full = box._fullLayout;
  const plots = Object.values(full._plots).map((plot) => [
    plot.xaxis._offset, plot.yaxis._offset,
    plot.xaxis._offset + plot.xaxis._length, plot.yaxis._offset + plot.yaxis._length]);
  const scrolled = [...box.querySelectorAll(".legend .scrollbar")].filter(
    (bar) => bar.getBoundingClientRect().height > 0 && bar.getAttribute("height") > 0);
  return {texts, plots, size: [full.width, full.height], scrolled: scrolled.length};
}
"""


@dataclass(frozen=True)
class Text:
    text: str
    kind: str
    left: float
    top: float
    right: float
    bottom: float


def measured(page: Any, figure: Any, width: float) -> dict[str, Any]:
    """Texts, plot areas and size of a figure that the page draws at this width."""
    return page.evaluate(MEASURE, [json.loads(figure.to_json()), width])


def faults(found: dict[str, Any], slack: float = 1.0) -> list[str]:
    """What is wrong, in words: overlaps, cuts, text over a plot, a legend that scrolls."""
    texts = [Text(*text) for text in found["texts"]]
    wide, high = found["size"]
    said = ["the legend scrolls"] * bool(found["scrolled"])
    for i, one in enumerate(texts):
        if (
            one.left < -slack
            or one.top < -slack
            or one.right > wide + slack
            or one.bottom > high + slack
        ):
            said.append(f"cut: {one}")
        said += [
            f"overlap: {one} and {other}" for other in texts[i + 1 :] if _meet(one, other, slack)
        ]
        if one.kind == "outside" and any(_over(one, plot, slack) for plot in found["plots"]):
            said.append(f"over a plot: {one}")
        if one.kind == "legend" and any(_over(one, plot, slack) for plot in found["plots"]):
            said.append(f"legend over a plot: {one}")
    return said


def _meet(one: Text, other: Text, slack: float) -> bool:
    across = min(one.right, other.right) - max(one.left, other.left)
    down = min(one.bottom, other.bottom) - max(one.top, other.top)
    # The box of a text has room above and below its letters.
    spare = 0.18 * min(one.bottom - one.top, other.bottom - other.top)
    return across > slack and down > slack + spare


def _over(text: Text, plot: list[float], slack: float) -> bool:
    across = min(text.right, plot[2]) - max(text.left, plot[0])
    down = min(text.bottom, plot[3]) - max(text.top, plot[1])
    return across > slack + 2 and down > slack + 2
