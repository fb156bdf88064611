"""The cells of one panel of a map: their colours, and marks on those that say something else."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from jaxtyping import Bool, Float

from .plan import IN_CELLS
from .recolour import VEIL
from .rows import plain_text, sinks_in

SINK_MARK, ABOVE, BELOW = "◇", "▴", "▾"
UP, DOWN = "triangle-up", "triangle-down"
NOT_FINITE = "#a6a6a6"
GREY, SINK, BEYOND = "not finite", "sink", "beyond the colours"
MOST_MARKS = 3000
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
        values, off_axis, relative, sinks = numbers
        shown = {place: names.get(place, "") for place in places}
        return cls(column, shown, layers, values, off_axis, relative, sinks, limit)

    def traces(self, transposed: bool) -> list[go.Heatmap | go.Scatter]:
        """The colours and, over them, marks of what is not finite, beyond the scale or a sink."""
        texts = [[plain_text(name)] * len(self.layers) for name in self.names.values()]
        colours = self._map(
            transposed,
            {
                "z": np.where(np.isfinite(self.values), self.values, np.nan),
                "hovertext": texts,
                "customdata": np.dstack([self.off_axis, self.relative]),
                "coloraxis": "coloraxis",
                "hovertemplate": f"{self._hover(transposed)}{self.column} %{{z:.3g}}<br>"
                "off axis %{customdata[0]:.3g}<br>change / activation %{customdata[1]:.3g}"
                "<extra></extra>",
            },
        )
        grey, beyond = self._grey(transposed, texts), self._beyond(transposed)
        return [colours, *grey, *beyond, *self._sinks(transposed)]

    def _hover(self, transposed: bool) -> str:
        place, layer = ("x", "y") if transposed else ("y", "x")
        return f"<b>“%{{hovertext}}”</b><br>position %{{{place}:d}}, layer %{{{layer}}}<br>"

    def _map(self, transposed: bool, cells: dict[str, object]) -> go.Heatmap:
        """A heat map of these cells, with tokens down or, transposed, across."""
        places, layers = list(self.names), [str(layer) for layer in self.layers]
        arrays = {
            name: np.swapaxes(np.asarray(cells[name]), 0, 1) if transposed else cells[name]
            for name in ("z", "text", "hovertext", "customdata")
            if name in cells
        }
        x, y = (places, layers) if transposed else (layers, places)
        return go.Heatmap(x=x, y=y, hoverongaps=False, **{**cells, **arrays})

    def _grey(self, transposed: bool, texts: list[list[str]]) -> list[go.Heatmap | go.Scatter]:
        odd = ~np.isfinite(self.values)
        if not odd.any():
            return []
        infinite = np.where(self.values > 0, "∞", "−∞")
        cells = self._map(
            transposed,
            {
                "z": np.where(odd, 0.0, np.nan),
                "name": GREY,
                "hovertext": texts,
                "customdata": np.where(np.isnan(self.values), "not measured", infinite),
                "colorscale": [[0, NOT_FINITE], [1, NOT_FINITE]],
                "showscale": False,
                "hovertemplate": f"{self._hover(transposed)}%{{customdata}}<extra></extra>",
            },
        )
        signs = np.where(self.values > 0, UP + "-open", DOWN + "-open")
        marks = np.where(np.isnan(self.values), "x-thin", signs)
        return [cells, *self._marks(transposed, GREY, odd, marks, "#222222")]

    @property
    def beyond(self) -> Bool[np.ndarray, "token layer"]:
        """The cells whose value lies beyond the ends of the colours."""
        return np.isfinite(self.values) & (np.abs(self.values) > self.limit) & (self.sinks != 1)

    def _beyond(self, transposed: bool) -> list[go.Scatter]:
        marks = np.where(self.values > 0, UP, DOWN)
        return self._marks(transposed, BEYOND, self.beyond, marks, "#ffffff")

    def _sinks(self, transposed: bool) -> list[go.Heatmap | go.Scatter]:
        """A see-through layer over the sinks, with a mark on each."""
        sinks = self.sinks == 1
        if not sinks.any():
            return []
        veil = self._map(
            transposed,
            {
                "z": np.where(sinks, 0.0, np.nan),
                "name": SINK,
                "colorscale": [[0, VEIL], [1, VEIL]],
                "showscale": False,
                "hoverinfo": "skip",
            },
        )
        marks = np.full(sinks.shape, "diamond-open")
        return [veil, *self._marks(transposed, SINK, sinks, marks, "#000000")]

    def _marks(
        self, transposed: bool, name: str, where: np.ndarray, marks: np.ndarray, colour: str
    ) -> list[go.Scatter]:
        """A mark in each of these cells; the layout makes them as large as the cells allow."""
        if not 0 < where.sum() <= MOST_MARKS:
            return []
        rows, columns = np.nonzero(where)
        places = [list(self.names)[row] for row in rows]
        layers = [str(self.layers[column]) for column in columns]
        x, y = (places, layers) if transposed else (layers, places)
        return [
            go.Scatter(
                x=x,
                y=y,
                name=name,
                mode="markers",
                marker={
                    "symbol": marks[rows, columns].tolist(),
                    "color": colour,
                    "line": {"color": colour, "width": 1},
                },
                meta=IN_CELLS,
                hoverinfo="skip",
                showlegend=False,
            )
        ]
