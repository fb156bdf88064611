"""Pictures of measured steering: each function takes a tidy table and returns a plotly figure.

A method has the same colour in every figure (`method_colours`), a strength the same dash and
marker. Nothing here runs a model or computes a measure; a bad table is a ValueError.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Sequence
from html import escape

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from analysis.token_view import DIVERGING, visible

METHOD_COLOURS = {
    "prompt": "#0072b2",
    "ActAdd": "#d55e00",
    "CAA": "#009e73",
    "PSR": "#cc79a7",
    "S-Const_DiM": "#44aa99",
    "S-Const_MSE": "#88c057",
    "S-PSR_MSE": "#c51b7d",
    "S-PSR_LL": "#7a3b69",
    "A-Const_MSE": "#c9a227",
    "A-PSR_MSE": "#b2182b",
    "A-PSR_LL": "#8c510a",
    "CLAS": "#e69f00",
    "COLD-FD": "#56b4e9",
    "unsteered": "#595959",
    "equivalent prompts": "#7f7f7f",
    "neutral prompts": "#b5a642",
}
SPARE_COLOURS = ("#332288", "#882255", "#999933", "#117733", "#aa4499", "#661100")
STRENGTH_LINES = {
    "": ("solid", "circle"),
    "as fitted": ("solid", "circle"),
    "least squares": ("dot", "square"),
    "matched": ("dashdot", "diamond"),
}
REFERENCES = ("equivalent prompts", "neutral prompts")
MEASURES = {
    "along": "along the direction (mean prompt push = 1)",
    "off_axis": "off the axis (norm of the change not along the direction)",
    "norm": "norm of the change",
    "relative_norm": "norm of the change / norm of the plain activation",
    "rank1_share": "share of the change along the direction (1 = all)",
}
"""What can be drawn of a coefficient table, with its unit."""

PANELS_ACROSS = 5
_GAP = 84  # pixels between rows of panels
NOT_FINITE = "#a6a6a6"
_CELL = ["example", "token_index", "token", "layer", "method", "strength", "strength_value", "view"]
_FAITHFULNESS = ["method", "strength", "strength_value", "layer", "relative_rmse", "low", "high"]
_FAITHFULNESS += ["token_median", "denominator", "n_examples", "n_tokens", "seed"]
_HOVER_ERROR = ["strength_value", "low", "high", "token_median", "n_examples", "n_tokens", "seed"]
_HOVER_CELL = "<b>“%{hovertext}”</b><br>position %{y:d}, layer %{x}<br>"
_LEGEND = {"orientation": "h", "yref": "container", "y": 0.01, "yanchor": "bottom"}


def method_colours(methods: Iterable[str]) -> dict[str, str]:
    """A colour for each method: fixed for those in `METHOD_COLOURS`, else drawn from its name.

    Two unknown names that draw the same spare colour get different ones while there are some.
    """
    colours: dict[str, str] = {}
    for method in sorted(set(methods)):
        start = zlib.crc32(method.encode("utf-8", "backslashreplace"))
        spare = [SPARE_COLOURS[(start + i) % len(SPARE_COLOURS)] for i in range(len(SPARE_COLOURS))]
        free = [colour for colour in spare if colour not in colours.values()]
        colours[method] = METHOD_COLOURS.get(method) or (free or spare)[0]
    return colours


def coefficient_heatmap(
    table: pd.DataFrame,
    column: str = "along",
    *,
    example: int | None = None,
    methods: Sequence[str] | None = None,
    view: str = "accumulated",
    colour_quantile: float | None = None,
) -> go.Figure:
    """A token x layer map of one measure, a panel per method and strength, on one scale around 0.

    It shows one example: name it if the table has several. Colours end at the largest |value|, or
    at the `colour_quantile` of |value|, as the colour bar then says. What is not finite is grey.
    """
    require_columns(table, [*_CELL, *MEASURES], "coefficient_heatmap")
    if column not in MEASURES:
        raise ValueError(f"there is no measure {column!r} to draw: choose of {list(MEASURES)}.")
    rows = _of_example(_of_methods(_chosen(table, "view", view), methods), example)
    tokens, layers, lines = _tokens(rows), sorted(rows["layer"].unique().tolist()), _lines(rows)
    across = min(len(lines), PANELS_ACROSS)
    down = -(-len(lines) // across)
    height = max(17 * (max(tokens) - min(tokens) + 1), 220)
    figure = make_subplots(
        rows=down,
        cols=across,
        shared_yaxes=True,
        horizontal_spacing=0.012,
        vertical_spacing=_GAP / (down * (height + _GAP) - _GAP),
        subplot_titles=[_name(line, "<br>") for line in lines],
    )
    panels = [_panel(line, column, tokens, layers) for line in lines]
    for i, panel in enumerate(panels):
        for trace in panel:
            figure.add_trace(trace, row=i // across + 1, col=i % across + 1)
    _label_map(figure, tokens)
    figure.update_layout(height=down * (height + _GAP) - _GAP + 180)
    figure.update_layout(coloraxis=_colour_axis(rows[column], column, colour_quantile))
    grey = " Grey cells: × not measured, ∞ infinite." if any(p[1:] for p in panels) else ""
    subtitle = f"Example {rows['example'].iloc[0]}, {view} view, tokens against layers.{grey}"
    return titled(figure, "The push on each token at each layer", subtitle, top=120)


def relative_rmse_curve(table: pd.DataFrame, methods: Sequence[str] | None = None) -> go.Figure:
    """Relative error against layer, a line with its 95 % interval per method and strength.

    Beneath: the size of the prompt's own change, which the errors are relative to. Early layers
    can lie far above 1; `figure.update_yaxes(type="log", row=1)` makes room for them.
    """
    require_columns(table, _FAITHFULNESS, "relative_rmse_curve")
    rows = _of_methods(table, methods)
    colours = method_colours(rows["method"])
    figure = make_subplots(
        rows=2, cols=1, shared_xaxes=True, row_heights=[0.76, 0.24], vertical_spacing=0.06
    )
    for line in _lines(rows):
        for trace in _error_line(line, colours[line["method"].iloc[0]]):
            figure.add_trace(trace, row=1, col=1)
    for trace in _denominators(rows, colours):
        figure.add_trace(trace, row=2, col=1)
    figure.add_trace(_no_steering(rows["layer"].tolist()), row=1, col=1)
    figure.update_yaxes(title="relative RMSE<br>(0 = as the prompt)", rangemode="tozero", row=1)
    figure.update_yaxes(title="RMS norm of<br>prompt's change", rangemode="tozero", nticks=4, row=2)
    figure.update_xaxes(title="layer", row=2)
    figure.update_xaxes(dtick=1 if rows["layer"].nunique() <= 24 else None)
    figure.update_layout(height=580, legend=_LEGEND)
    undrawn = int((~np.isfinite(rows["relative_rmse"])).sum())
    gaps = f" Not drawn because not finite: {undrawn}." if undrawn else ""
    subtitle = f"Bands: 95 % bootstrap interval over questions.{gaps}"
    return titled(figure, "How far each method is from the prompt's effect", subtitle)


def sorted_strengths(
    table: pd.DataFrame,
    layer: int,
    methods: Sequence[str] | None = None,
    view: str = "accumulated",
) -> go.Figure:
    """|along| of all tokens at one layer, sorted and divided by its maximum, a curve per method.

    Flat at 1: every token is pushed alike. Steep: a few tokens carry the push.
    """
    require_columns(table, [*_CELL, "along"], "sorted_strengths")
    rows = _of_methods(_chosen(_chosen(table, "view", view), "layer", layer), methods)
    colours = method_colours(rows["method"])
    lines = [_sorted_line(line, colours[line["method"].iloc[0]]) for line in _lines(rows)]
    figure = go.Figure(lines)
    figure.update_xaxes(title="share of the tokens, strongest first", tickformat=".0%")
    figure.update_yaxes(title="|along| / its largest value", range=[-0.02, 1.05])
    figure.update_layout(height=440, legend=_LEGEND)
    subtitle = f"Layer {layer}, {view} view. Flat at 1: every token is pushed alike."
    return titled(figure, "How unevenly the push is spread over tokens", subtitle)


def require_columns(table: pd.DataFrame, columns: Sequence[str], figure: str) -> None:
    """ValueError unless the table has these columns and a row."""
    missing = [column for column in columns if column not in table.columns]
    if missing:
        raise ValueError(
            f"{figure} needs the columns {missing}, which the table lacks; it has "
            f"{list(table.columns)}. Pass the table as the analysis function returned it."
        )
    if table.empty:
        raise ValueError(f"{figure} got a table without rows: there is nothing to draw.")


def _chosen(table: pd.DataFrame, column: str, value: object) -> pd.DataFrame:
    rows = table.loc[table[column] == value]
    if rows.empty:
        there = ", ".join(repr(v) for v in table[column].drop_duplicates().tolist())
        raise ValueError(f"no row has {column} {value!r}; the table has {there}. Choose of these.")
    return rows


def _of_methods(table: pd.DataFrame, methods: Sequence[str] | None) -> pd.DataFrame:
    """The rows of these methods, in the order asked for."""
    if methods is None:
        return table
    if not methods:
        raise ValueError("methods is empty: name at least one, or leave it out to draw all.")
    return pd.concat([_chosen(table, "method", method) for method in methods])


def _of_example(table: pd.DataFrame, example: int | None) -> pd.DataFrame:
    there = table["example"].drop_duplicates().tolist()
    if example is None and len(there) > 1:
        raise ValueError(
            f"the table holds {len(there)} examples, {there[:10]}, and a map shows one: "
            f"pass example={there[0]}."
        )
    return _chosen(table, "example", there[0] if example is None else example)


def _lines(table: pd.DataFrame) -> list[pd.DataFrame]:
    """The rows of each method at each strength label, in the table's order."""
    return [rows for _, rows in table.groupby(["method", "strength"], sort=False, dropna=False)]


def _require_single(line: pd.DataFrame, keys: list[str]) -> None:
    repeated = line.loc[line.duplicated(keys)]
    if len(repeated):
        where = ", ".join(f"{key} {repeated[key].iloc[0]}" for key in keys)
        raise ValueError(
            f"{_name(line)} has several rows at {where}, where one can be drawn. "
            "Keep one stream, strength value and seed, or aggregate first."
        )


def _tokens(table: pd.DataFrame) -> dict[int, str]:
    pairs = table.drop_duplicates(["token_index", "token"]).sort_values("token_index")
    clash = pairs.loc[pairs["token_index"].duplicated(keep=False)]
    if len(clash):
        raise ValueError(
            f"the methods disagree on the token at position {clash['token_index'].iloc[0]}: "
            f"{clash['token'].tolist()[:4]}. Measure all of them on the same response ids."
        )
    return dict(zip(pairs["token_index"].tolist(), pairs["token"].tolist(), strict=True))


def _plain(text: str) -> str:
    """The text as plotly shows it unchanged: it reads no tag, entity or formula into it."""
    return escape(visible(text), quote=False).replace("$", "&#36;")


def _strength(line: pd.DataFrame) -> str:
    strength = line["strength"].iloc[0]
    return "" if pd.isna(strength) else str(strength)


def _name(line: pd.DataFrame, separator: str = ", ") -> str:
    """Method and strength, with its value where it is one number: `CAA, matched (× 0.4)`."""
    values = line["strength_value"].drop_duplicates()
    times = f" (× {values.iloc[0]:.3g})" if len(values) == 1 and values.notna().all() else ""
    strength = _strength(line)
    return _plain(line["method"].iloc[0]) + bool(strength) * f"{separator}{_plain(strength)}{times}"


def _panel(
    line: pd.DataFrame, column: str, tokens: dict[int, str], layers: list[int]
) -> list[go.Heatmap]:
    """The cells of one panel and, where some are not finite, those again in grey."""
    _require_single(line, ["token_index", "layer"])
    places = range(min(tokens), max(tokens) + 1)
    cells = line.pivot(index="token_index", columns="layer").reindex(places)
    values, off_axis, relative = (
        cells.reindex(columns=[(name, layer) for layer in layers]).to_numpy(dtype=np.float64)
        for name in (column, "off_axis", "relative_norm")
    )
    map_of_cells = go.Heatmap(
        x=[str(layer) for layer in layers],
        y=list(places),
        z=np.where(np.isfinite(values), values, np.nan),
        hovertext=[[_plain(tokens.get(place, ""))] * len(layers) for place in places],
        customdata=np.dstack([off_axis, relative]),
        coloraxis="coloraxis",
        hoverongaps=False,
        hovertemplate=f"{_HOVER_CELL}{column} %{{z:.3g}}<br>off axis %{{customdata[0]:.3g}}<br>"
        "change / activation %{customdata[1]:.3g}<extra></extra>",
    )
    return [map_of_cells, *_grey(map_of_cells, values)]


def _grey(map_of_cells: go.Heatmap, values: np.ndarray) -> list[go.Heatmap]:
    if np.isfinite(values).all():
        return []
    infinite = np.where(values > 0, "∞", "−∞")
    return [
        go.Heatmap(
            x=map_of_cells.x,
            y=map_of_cells.y,
            z=np.where(np.isfinite(values), np.nan, 0.0),
            text=np.where(np.isnan(values), "×", np.where(np.isinf(values), infinite, "")),
            texttemplate="%{text}",
            textfont={"size": 9},
            hovertext=map_of_cells.hovertext,
            customdata=np.where(np.isnan(values), "not measured", infinite),
            colorscale=[[0, NOT_FINITE], [1, NOT_FINITE]],
            showscale=False,
            hoverongaps=False,
            hovertemplate=f"{_HOVER_CELL}%{{customdata}}<extra></extra>",
        )
    ]


def _colour_axis(values: pd.Series, column: str, quantile: float | None) -> dict[str, object]:
    if quantile is not None and not 0 < quantile <= 1:
        raise ValueError(f"colour_quantile={quantile} is no share: pass one above 0, at most 1.")
    sizes = np.abs(values.to_numpy(dtype=np.float64))
    sizes = sizes[np.isfinite(sizes)]
    limit = float(np.quantile(sizes, quantile or 1.0)) if sizes.size else 0.0
    ends = f"<br>colours end at the {100 * quantile:g} % quantile" if quantile else ""
    return {
        "colorscale": list(DIVERGING),
        "cmin": -(limit or 1.0),
        "cmid": 0,
        "cmax": limit or 1.0,
        "colorbar": {
            "title": {"text": MEASURES[column] + ends, "side": "right", "font": {"size": 13}},
            "thickness": 14,
            "exponentformat": "power",
        },
    }


def _label_map(figure: go.Figure, tokens: dict[int, str]) -> None:
    names = {place: visible(token) for place, token in tokens.items()}
    short = {place: n if len(n) <= 16 else n[:15] + "…" for place, n in names.items()}
    figure.update_yaxes(
        range=[max(tokens) + 0.5, min(tokens) - 0.5],
        tickvals=list(tokens),
        ticktext=[f"{place} {_plain(name)}" for place, name in short.items()],
        tickfont={"size": 11},
        showgrid=False,
        zeroline=False,
    )
    figure.update_xaxes(type="category", showgrid=False, tickangle=0, tickfont={"size": 10})
    figure.update_xaxes(title={"text": "layer", "standoff": 4})
    figure.update_annotations(font={"size": 12})


def _error_line(line: pd.DataFrame, colour: str) -> list[go.Scatter]:
    """The interval as a band, and the line over it."""
    _require_single(line, ["layer"])
    line, name = line.sort_values("layer"), _name(line)
    dash, symbol = STRENGTH_LINES.get(_strength(line), ("longdash", "x"))
    is_reference = line["method"].iloc[0] in REFERENCES
    hover = (
        f"<b>{name}</b>, strength %{{customdata[0]:.3g}}<br>layer %{{x}}: %{{y:.3f}} "
        "[%{customdata[1]:.3f}, %{customdata[2]:.3f}]<br>median of tokens %{customdata[3]:.3f}<br>"
        "n = %{customdata[4]} examples, %{customdata[5]} tokens, seed %{customdata[6]}"
        "<extra></extra>"
    )
    values = line["relative_rmse"].to_numpy(dtype=np.float64)
    return [
        _band(line, colour, name),
        go.Scatter(
            x=line["layer"].tolist(),
            y=np.where(np.isfinite(values), values, np.nan),
            name=name,
            legendgroup=name,
            mode="lines+markers",
            line={"color": colour, "width": 2.5, "dash": "dash" if is_reference else dash},
            marker={"symbol": "circle-open", "size": 5}
            if is_reference
            else {"symbol": symbol, "size": 7},
            customdata=line[_HOVER_ERROR].to_numpy(dtype=object),
            hovertemplate=hover,
        ),
    ]


def _band(line: pd.DataFrame, colour: str, name: str) -> go.Scatter:
    """A polygon per run of layers with a finite interval, so that no band bridges a gap."""
    drawn = np.isfinite(line[["low", "high"]]).all(axis=1)
    layers: list[float | None] = []
    values: list[float | None] = []
    for _, run in line[drawn].groupby((~drawn).cumsum()[drawn]):
        if len(run) == 1:  # give the band of a single layer some width
            run = pd.concat([run.assign(layer=run["layer"] + side) for side in (-0.1, 0.1)])
        layers += [*run["layer"], *run["layer"][::-1], None]
        values += [*run["low"], *run["high"][::-1], None]
    return go.Scatter(
        x=layers,
        y=values,
        name=f"{name}, 95 % interval",
        legendgroup=name,
        showlegend=False,
        fill="toself",
        fillcolor=colour,
        opacity=0.16,
        mode="none",
        hoverinfo="skip",
    )


def _no_steering(layers: list[int]) -> go.Scatter:
    """The constant 1; a trace, so that it has a place in the legend."""
    side = 0 if max(layers) > min(layers) else 0.5
    return go.Scatter(
        x=[min(layers) - side, max(layers) + side],
        y=[1, 1],
        name="1: same error as no steering",
        mode="lines",
        line={"color": "#7f7f7f", "dash": "dash", "width": 1.2},
        hoverinfo="skip",
    )


def _denominators(table: pd.DataFrame, colours: dict[str, str]) -> list[go.Scatter]:
    """One line if all methods are measured against the same change, else one per method."""
    first = table.groupby("layer")["denominator"].transform("first").to_numpy(dtype=np.float64)
    own = table["denominator"].to_numpy(dtype=np.float64)
    shared = np.allclose(own, first, rtol=1e-6, atol=0, equal_nan=True)
    parts = {"all methods": table} if shared else dict(list(table.groupby("method", sort=False)))
    return [
        go.Scatter(
            x=part["layer"].tolist(),
            y=part["denominator"].to_numpy(dtype=np.float64),
            name=f"prompt's change, {_plain(str(method))}",
            showlegend=False,
            mode="lines+markers",
            line={"color": "#444444" if shared else colours[str(method)], "width": 1.5},
            marker={"size": 5},
            hovertemplate="layer %{x}: %{y:.3g}",
        )
        for method, rows in parts.items()
        for part in [rows.drop_duplicates("layer").sort_values("layer")]
    ]


def _sorted_line(line: pd.DataFrame, colour: str) -> go.Scatter:
    _require_single(line, ["example", "token_index"])
    line = line.loc[np.isfinite(line["along"])]
    line = line.assign(size=line["along"].abs()).sort_values("size", ascending=False, kind="stable")
    if line.empty:
        raise ValueError("a method has no finite `along` at this layer: leave it out of `methods`.")
    name, largest = _name(line), line["size"].iloc[0]
    dash, _ = STRENGTH_LINES.get(_strength(line), ("longdash", "x"))
    return go.Scatter(
        x=(np.arange(len(line)) + 1) / len(line),
        y=(line["size"] / (largest or 1.0)).to_numpy(),
        name=f"{name}: largest {largest:.3g}" if largest else f"{name}: no change at this layer",
        mode="lines+markers",  # a single token has no line
        line={"color": colour, "width": 2.5, "dash": dash, "shape": "vh"},
        marker={"size": 3},
        text=[_plain(token) for token in line["token"]],
        customdata=line[["example", "token_index", "along"]].to_numpy(dtype=object),
        hovertemplate=f"<b>“%{{text}}”</b>, {name}<br>example %{{customdata[0]}}, "
        "position %{customdata[1]}<br>along %{customdata[2]:.3g}, %{y:.0%} of the largest"
        "<extra></extra>",
    )


def titled(figure: go.Figure, title: str, subtitle: str, top: int = 90) -> go.Figure:
    """The figure with title, subtitle and the look that all have; returned for chaining."""
    figure.update_xaxes(title_font_size=13)
    figure.update_yaxes(title_font_size=13)
    return figure.update_layout(
        template="plotly_white",
        font={"family": "system-ui, 'Segoe UI', Roboto, 'Noto Sans', sans-serif", "size": 13},
        title={"text": title, "subtitle": {"text": subtitle}, "x": 0.01},
        title_y=1,
        title_yanchor="top",
        title_pad={"t": 14},
        hoverlabel={"align": "left"},
        margin={"t": top, "r": 20, "b": 60},
    )
