"""The cells of one panel of a map: their colours, and marks on those that say something else."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from jaxtyping import Float

from .recolour import VEIL
from .rows import plain_text, sinks_in
from .tokens import ink_on

SINK_MARK, ABOVE, BELOW = "◇", "▴", "▾"
NOT_FINITE = "#a6a6a6"
GREY, SINK, BEYOND = "not finite", "sink", "beyond the colours"
MOST_MARKS = 600
"""More marked cells than this have no mark each: it would be too small to see, and slow."""

Cells = Float[np.ndarray, "token layer"]


@dataclass(frozen=True)
class Map:
    """The numbers of one panel; `names` has the token of each place from the first to the last."""

    column: str
    names: dict[int, str]
    layers: list[int]
    values: Cells
    off_axis: Cells
    relative: Cells
    sinks: Cells
    limit: float

    @classmethod
    def of(
        cls, line: pd.DataFrame, column: str, names: dict[int, str], layers: list[int], limit: float
    ) -> "Map":
        """The rows of one method; a place that has none is not a number."""
        places = range(min(names), max(names) + 1)
        line = line.assign(sink=sinks_in(line).astype(float))
        cells = line.pivot(index="token_index", columns="layer").reindex(places)
        numbers = (
            cells.reindex(columns=[(name, layer) for layer in layers]).to_numpy(dtype=np.float64)
            for name in (column, "off_axis", "relative_norm", "sink")
        )
        return cls(column, {p: names.get(p, "") for p in places}, layers, *numbers, limit)

    def traces(self, transposed: bool) -> list[go.Heatmap]:
        """The colours and, over them, marks of what is not finite, beyond the scale or a sink."""
        texts = [[plain_text(name)] * len(self.layers) for name in self.names.values()]
        colours = self._map(
            transposed,
            z=np.where(np.isfinite(self.values), self.values, np.nan),
            hovertext=texts,
            customdata=np.dstack([self.off_axis, self.relative]),
            coloraxis="coloraxis",
            hovertemplate=f"{self._hover(transposed)}{self.column} %{{z:.3g}}<br>"
            "off axis %{customdata[0]:.3g}<br>change / activation %{customdata[1]:.3g}"
            "<extra></extra>",
        )
        return [colours, *self._grey(transposed, texts), *self._beyond(transposed), *self._marked(transposed)]

    def _hover(self, transposed: bool) -> str:
        place, layer = ("x", "y") if transposed else ("y", "x")
        return f"<b>“%{{hovertext}}”</b><br>position %{{{place}:d}}, layer %{{{layer}}}<br>"

    def _map(self, transposed: bool, **cells: object) -> go.Heatmap:
        """A heat map of these cells, with tokens down or, transposed, across."""
        places, layers = list(self.names), [str(layer) for layer in self.layers]
        arrays = {
            name: np.swapaxes(np.asarray(cells[name]), 0, 1) if transposed else cells[name]
            for name in ("z", "text", "hovertext", "customdata")
            if name in cells
        }
        x, y = (places, layers) if transposed else (layers, places)
        return go.Heatmap(x=x, y=y, hoverongaps=False, **{**cells, **arrays})

    def _grey(self, transposed: bool, texts: list[list[str]]) -> list[go.Heatmap]:
        odd = ~np.isfinite(self.values)
        if not odd.any():
            return []
        infinite = np.where(self.values > 0, "∞", "−∞")
        marks = np.where(np.isnan(self.values), "×", np.where(odd, infinite, ""))
        return [
            self._map(
                transposed,
                z=np.where(odd, 0.0, np.nan),
                name=GREY,
                text=marks,
                texttemplate="%{text}" if odd.sum() <= MOST_MARKS else "",
                hovertext=texts,
                customdata=np.where(np.isnan(self.values), "not measured", infinite),
                colorscale=[[0, NOT_FINITE], [1, NOT_FINITE]],
                showscale=False,
                hovertemplate=f"{self._hover(transposed)}%{{customdata}}<extra></extra>",
            )
        ]

    def _beyond(self, transposed: bool) -> list[go.Heatmap]:
        """Marks on the cells whose value lies beyond the ends of the colours."""
        beyond = np.isfinite(self.values) & (np.abs(self.values) > self.limit) & (self.sinks != 1)
        if not beyond.any():
            return []
        marks = np.where(beyond, np.where(self.values > 0, ABOVE, BELOW), "")
        return [self._overlay(transposed, BEYOND, beyond, marks, "rgba(0,0,0,0)", ink_on("#b2182b"))]

    def _marked(self, transposed: bool) -> list[go.Heatmap]:
        """A see-through layer with a mark on each sink."""
        sinks = self.sinks == 1
        if not sinks.any():
            return []
        marks = np.where(sinks, SINK_MARK, "")
        return [self._overlay(transposed, SINK, sinks, marks, VEIL, "#000000")]

    def _overlay(
        self, transposed: bool, name: str, where: np.ndarray, marks: np.ndarray, colour: str, ink: str
    ) -> go.Heatmap:
        # Plotly makes a text without a size as large as its cell allows.
        return self._map(
            transposed,
            z=np.where(where, 0.0, np.nan),
            name=name,
            text=marks,
            texttemplate="%{text}" if where.sum() <= MOST_MARKS else "",
            textfont={"color": ink},
            colorscale=[[0, colour], [1, colour]],
            showscale=False,
            hoverinfo="skip",
        )
