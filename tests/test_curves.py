"""Pictures of assumptions and trade-offs show the numbers of their tables."""

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import pytest
from test_figures import named

from analysis.figures import assumption_curves, method_colours, tradeoff_curve
from analysis.figures.frame import fitted
from analysis.figures.style import METHOD_COLOURS

LAYERS = (0, 1, 3)
AXES = ("mean push", "best 1", "best 4")


def with_interval(table: pd.DataFrame, name: str, seed: int, prefix: str = "") -> pd.DataFrame:
    """A column of random values, with a lower and an upper end that are unequally far."""
    middle, below, above = np.random.default_rng(seed).uniform(0.2, 0.8, size=(3, len(table)))
    ends = {f"{prefix}low": middle - below, f"{prefix}high": middle + above}
    return table.assign(**{name: middle, **ends})


def share_table(axes=AXES) -> pd.DataFrame:
    rows = [{"layer": layer, "axes": name} for layer in LAYERS for name in axes]
    return with_interval(pd.DataFrame(rows), "share", 1)


def spread_table() -> pd.DataFrame:
    ways = (("prompt", ""), ("CAA", "as fitted"))
    rows = [
        {"layer": layer, "method": method, "strength": strength, "measure": "norm"}
        for layer in LAYERS
        for method, strength in ways
    ]
    table = with_interval(pd.DataFrame(rows), "gini", 2, "gini_")
    return with_interval(table, "ratio", 3, "ratio_")


def readout_table() -> pd.DataFrame:
    rows = [{"layer": layer, "readout": name} for layer in LAYERS for name in ("linear", "relu")]
    return with_interval(pd.DataFrame(rows), "r2", 4).assign(strength="along")


def shuffled(table: pd.DataFrame) -> pd.DataFrame:
    return table.sample(frac=1, random_state=5)


def assert_shows(
    trace: go.Scatter, rows: pd.DataFrame, column: str, low: str, high: str, bar: str = "error_y"
) -> None:
    values = trace.y if bar == "error_y" else trace.x
    assert list(values) == rows[column].tolist()
    assert trace[bar].symmetric is False
    np.testing.assert_allclose(trace[bar].array, rows[high] - rows[column])
    np.testing.assert_allclose(trace[bar].arrayminus, rows[column] - rows[low])


# -- The three assumptions -------------------------------------------------------------------------


def test_each_assumption_has_a_panel_with_the_lines_of_its_table() -> None:
    shares, spread, readouts = share_table(), spread_table(), readout_table()
    figure = assumption_curves(shuffled(shares), shuffled(spread), shuffled(readouts))
    assert len(figure.data) == len(AXES) + 1 + 2
    for axes in AXES:
        line = named(figure, axes)
        assert (line.xaxis, list(line.x)) == ("x", list(LAYERS))
        assert_shows(line, shares[shares["axes"] == axes], "share", "low", "high")
    ratio = named(figure, "95th / 5th percentile")
    assert (ratio.xaxis, list(ratio.x)) == ("x2", list(LAYERS))
    of_prompt = spread[spread["method"] == "prompt"]
    assert_shows(ratio, of_prompt, "ratio", "ratio_low", "ratio_high")
    for readout in ("linear", "relu"):
        line = named(figure, f"{readout} read-out of along")
        assert (line.xaxis, list(line.x)) == ("x3", list(LAYERS))
        assert_shows(line, readouts[readouts["readout"] == readout], "r2", "low", "high")


def test_lines_of_a_panel_differ_in_colour() -> None:
    figure = assumption_curves(share_table(), spread_table(), readout_table())
    for panel in ("x", "x3"):
        colours = [trace.line.color for trace in figure.data if trace.xaxis == panel]
        assert len(colours) == len(set(colours)) > 1


def test_the_spread_of_a_steering_can_be_shown_instead() -> None:
    spread = spread_table()
    figure = assumption_curves(share_table(), spread, readout_table(), method="CAA")
    ratio = named(figure, "95th / 5th percentile, as fitted")
    assert_shows(ratio, spread[spread["method"] == "CAA"], "ratio", "ratio_low", "ratio_high")


def test_read_outs_worse_than_the_mean_are_in_sight_down_to_minus_1() -> None:
    readouts = readout_table()
    for low, bottom in ((0.1, -0.02), (-0.4, -0.42), (-7.0, -1.02)):
        figure = assumption_curves(share_table(), spread_table(), readouts.assign(low=low))
        assert list(figure.layout.yaxis3.range) == pytest.approx([bottom, 1.02])


def test_a_layer_of_few_is_marked_and_of_many_not_each() -> None:
    figure = assumption_curves(share_table(), spread_table(), readout_table())
    assert list(figure.layout.xaxis.tickvals) == list(LAYERS)
    many = pd.concat([share_table(("mean push",)).assign(layer=layer) for layer in range(30)])
    shown = assumption_curves(many, spread_table(), readout_table()).layout.xaxis.tickvals
    assert 3 < len(shown) < 30


@pytest.mark.parametrize(
    ("place", "column"), [(0, "axes"), (0, "low"), (1, "ratio_high"), (1, "method"), (2, "readout")]
)
def test_a_table_without_a_column_is_an_error_that_names_it(place: int, column: str) -> None:
    tables = [share_table(), spread_table(), readout_table()]
    tables[place] = tables[place].drop(columns=column)
    with pytest.raises(ValueError, match=rf"assumption_curves needs the columns \['{column}'\]"):
        assumption_curves(*tables)


@pytest.mark.parametrize("place", range(3))
def test_a_table_without_rows_is_an_error(place: int) -> None:
    tables = [share_table(), spread_table(), readout_table()]
    tables[place] = tables[place].iloc[:0]
    with pytest.raises(ValueError, match="without rows"):
        assumption_curves(*tables)


def test_a_method_that_the_spread_does_not_have_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"method='PSR'.* without rows"):
        assumption_curves(share_table(), spread_table(), readout_table(), method="PSR")


def test_every_kind_of_axes_is_drawn_however_many_there_are() -> None:
    axes = ["mean push", *(f"best {rank}" for rank in (1, 2, 4, 8, 16, 32))]
    figure = assumption_curves(share_table(axes), spread_table(), readout_table())
    assert [trace.name for trace in figure.data if trace.xaxis == "x"] == axes


@pytest.mark.parametrize("case", ["two strengths of CAA", "along and norm"])
def test_no_line_has_a_layer_twice(case: str) -> None:
    """Tables of a whole study hold several strengths; each has a line and a dash of its own."""
    spread, readouts = spread_table(), readout_table()
    if case == "along and norm":
        readouts = pd.concat([readouts, readouts.assign(strength="norm")])
    else:
        spread = pd.concat([spread, spread.assign(strength="least squares")])
    figure = assumption_curves(share_table(), spread, readouts, method="CAA")
    names = [trace.name for trace in figure.data]
    assert len(names) == len(set(names)) > len(AXES) + 1 + 2
    for trace in figure.data:
        assert list(trace.x) == list(LAYERS), trace.name
    looks = {(trace.xaxis, trace.line.color, trace.line.dash) for trace in figure.data}
    assert len(looks) == len(names)


# -- Attribute against coherence -------------------------------------------------------------------


def tradeoff_table() -> pd.DataFrame:
    rows = [
        {"method": "unsteered", "strength": np.nan},
        {"method": "prompt", "strength": np.nan},
        *({"method": m, "strength": s} for m in ("CAA", "mine") for s in (0.5, 1.0, 16.0)),
    ]
    table = with_interval(pd.DataFrame(rows), "attribute", 6, "attribute_")
    table = with_interval(table, "coherence", 7, "coherence_")
    return table.assign(n=[90] * 7 + [60], scored=50)


def test_a_method_is_a_line_over_its_strengths() -> None:
    table = tradeoff_table()
    figure = tradeoff_curve(shuffled(table))
    assert {trace.name for trace in figure.data} == {"CAA", "mine", "unsteered", "prompt"}
    for method in ("CAA", "mine"):
        line, rows = named(figure, method), table[table["method"] == method]
        assert line.mode == "lines+markers+text"
        assert list(line.customdata) == ["0.5", "1", "16"]
        assert set(line.text) <= {"0.5", "1", "16", ""}
        assert_shows(line, rows, "attribute", "attribute_low", "attribute_high")
        assert_shows(line, rows, "coherence", "coherence_low", "coherence_high", "error_x")
        assert line.line.color == method_colours(table["method"])[method]
    assert named(figure, "CAA").line.color == METHOD_COLOURS["CAA"]


def test_the_prompt_is_a_star_and_the_unsteered_model_a_circle() -> None:
    table = tradeoff_table()
    figure = tradeoff_curve(table)
    for name, symbol in (("prompt", "star"), ("unsteered", "circle")):
        point, rows = named(figure, name), table[table["method"] == name]
        assert (point.mode, point.marker.symbol) == ("markers", symbol)
        assert point.marker.color == METHOD_COLOURS[name]
        assert_shows(point, rows, "attribute", "attribute_low", "attribute_high")
        assert_shows(point, rows, "coherence", "coherence_low", "coherence_high", "error_x")
    without = tradeoff_curve(table[table["method"] != "prompt"])
    assert "prompt" not in {trace.name for trace in without.data}


def test_methods_are_chosen_by_name_and_an_unknown_one_is_an_error() -> None:
    figure = tradeoff_curve(tradeoff_table(), methods=["mine"])
    assert [trace.name for trace in figure.data] == ["mine", "unsteered", "prompt"]
    for unknown in ("PSR", "prompt"):
        with pytest.raises(ValueError, match=rf"no row has method {unknown}; .*\['CAA', 'mine'\]"):
            tradeoff_curve(tradeoff_table(), methods=["mine", unknown])


def test_a_bound_is_a_line_at_that_coherence() -> None:
    line = named(tradeoff_curve(tradeoff_table(), bound=0.6), "bound: 0.6")
    assert list(line.x) == [0.6, 0.6]
    assert not any("bound" in trace.name for trace in tradeoff_curve(tradeoff_table()).data)


def test_labels_that_would_overlap_are_left_out_and_come_back_with_room() -> None:
    table = tradeoff_table()
    for name in ("coherence", "coherence_low", "coherence_high"):
        table[name] = [10.0, 10.2, 10.4, 10.6, 10.8, 11.0, 11.2, 90.0]
    table[["attribute", "attribute_low", "attribute_high"]] = 5.0
    figure = tradeoff_curve(table)
    shown = [label for trace in figure.data if trace.text for label in trace.text]
    assert "" in shown
    assert "0.5" in shown
    assert all(list(t.customdata) == ["0.5", "1", "16"] for t in figure.data if t.text)
    wide = fitted(figure, 20_000)
    assert "" not in [label for trace in wide.data if trace.text for label in trace.text]


def test_the_subtitle_tells_the_fewest_completions() -> None:
    assert "60 completions" in tradeoff_curve(tradeoff_table()).layout.title.subtitle.text


@pytest.mark.parametrize("column", ["method", "strength", "attribute_low", "coherence", "n"])
def test_a_trade_off_without_a_column_is_an_error_that_names_it(column: str) -> None:
    with pytest.raises(ValueError, match=rf"tradeoff_curve needs the columns \['{column}'\]"):
        tradeoff_curve(tradeoff_table().drop(columns=column))


def test_a_trade_off_without_rows_is_an_error() -> None:
    with pytest.raises(ValueError, match="without rows"):
        tradeoff_curve(tradeoff_table().iloc[:0])


def test_many_methods_have_a_panel_each_on_one_scale_with_the_ends_in_every_one() -> None:
    table = tradeoff_table()
    own = table[table["method"] == "CAA"]
    many = [own.assign(method=f"m{number}") for number in range(9)]
    table = pd.concat([table.iloc[:2], *many], ignore_index=True)
    figure = tradeoff_curve(table, bound=60.0)
    for number in range(9):
        axis = f"x{number + 1}" if number else "x"
        drawn = [trace.name for trace in figure.data if (trace.xaxis or "x") == axis]
        assert drawn == [f"m{number}", "unsteered", "prompt", "bound: 60"]
    ranges = {tuple(axis.range) for axis in figure.select_yaxes()}
    assert len(ranges) == 1
    assert sum(bool(trace.showlegend) for trace in figure.data) == 3
    together = tradeoff_curve(table, apart=False)
    assert {trace.xaxis or "x" for trace in together.data} == {"x"}
    assert len(list(tradeoff_curve(tradeoff_table(), apart=True).select_xaxes())) == 2
