"""Figures show the numbers of their table: what is read here is the figure's data."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import pytest

from analysis.figures import (
    caption,
    coefficient_heatmap,
    method_colours,
    relative_rmse_curve,
    sorted_strengths,
)
from analysis.figures.cells import BEYOND, GREY, NOT_FINITE
from analysis.figures.heatmaps import MEASURES, PANELS_ACROSS
from analysis.figures.style import (
    METHOD_COLOURS,
    METHODS,
    SPARE_COLOURS,
    line_of,
    marker_of,
    method_looks,
)

TOKENS = ("The", " end", "<b>", "\n", "The", "$x$")
LINES = (("prompt", "", np.nan), ("ActAdd", "as fitted", 4.0), ("CAA", "least squares", 0.42))


def coefficient_table(examples=(0,), tokens=TOKENS, layers=(0, 1, 5), lines=LINES):
    random = np.random.default_rng(sum(map(ord, "coefficients")))
    rows = [
        {
            "example": example,
            "token_index": place,
            "token": token,
            "layer": layer,
            "method": method,
            "strength": strength,
            "strength_value": value,
            "view": "accumulated",
        }
        for example in examples
        for method, strength, value in lines
        for place, token in enumerate(tokens)
        for layer in layers
    ]
    return pd.DataFrame(rows).assign(**{m: random.normal(size=len(rows)) for m in MEASURES})


def faithfulness_table(layers=(0, 1, 2, 3)):
    lines = (
        ("CAA", "as fitted", 1.0),
        ("CAA", "matched", 0.5),
        ("equivalent prompts", "", np.nan),
    )
    random = np.random.default_rng(sum(map(ord, "faithfulness")))
    table = pd.DataFrame(
        [
            {"method": m, "strength": s, "strength_value": v, "layer": layer}
            for m, s, v in lines
            for layer in layers
        ]
    )
    error = random.uniform(0.5, 1.5, size=len(table))
    return table.assign(
        relative_rmse=error,
        low=error - 0.1,
        high=error + 0.2,
        token_median=error / 2,
        denominator=1.0 + table["layer"],
        n_examples=20,
        n_tokens=812,
        seed=7,
        relative_rmse_with_sinks=error / 3,
        n_sinks=3,
    )


def maps_of(figure):
    return [trace for trace in figure.data if trace.type == "heatmap" and trace.coloraxis]


def grey_of(figure):
    return [trace for trace in figure.data if trace.name == GREY and trace.type == "heatmap"]


def marks_of(figure, name):
    return [trace for trace in figure.data if trace.name == name and trace.type == "scatter"]


def named(figure, name):
    (trace,) = [trace for trace in figure.data if trace.name == name]
    return trace


def cell(table, method, place, layer, column):
    rows = table[
        (table["method"] == method) & (table["token_index"] == place) & (table["layer"] == layer)
    ]
    return rows[column].item()


# -- heat maps -------------------------------------------------------------------------------------


@pytest.mark.parametrize("column", MEASURES)
def test_every_cell_of_the_map_is_the_cell_of_the_table(column):
    table = coefficient_table()
    shuffled = table.sample(frac=1, random_state=3)
    for given in (table, shuffled):
        figure = coefficient_heatmap(given, column, methods=["prompt", "ActAdd", "CAA"])
        for method, shown in zip(("prompt", "ActAdd", "CAA"), maps_of(figure), strict=True):
            assert list(shown.x) == ["0", "1", "5"]
            assert list(shown.y) == list(range(6))
            for place in range(6):
                for i, layer in enumerate((0, 1, 5)):
                    assert shown.z[place][i] == cell(table, method, place, layer, column)


def test_hover_shows_token_position_layer_value_off_axis_and_relative_norm():
    table = coefficient_table()
    shown = maps_of(coefficient_heatmap(table))[1]
    assert np.array(shown.customdata).shape == (6, 3, 2)
    assert shown.customdata[4][2][0] == cell(table, "ActAdd", 4, 5, "off_axis")
    assert shown.customdata[4][2][1] == cell(table, "ActAdd", 4, 5, "relative_norm")
    assert [row[0] for row in shown.hovertext] == [
        "The",
        "·end",
        "&lt;b&gt;",
        "⏎",
        "The",
        "&#36;x&#36;",
    ]
    for field in ("%{hovertext}", "%{y:d}", "%{x}", "%{z:", "%{customdata[0]", "%{customdata[1]"):
        assert field in shown.hovertemplate


def test_repeated_tokens_are_kept_apart_by_a_numeric_position_and_nothing_invisible():
    axis = coefficient_heatmap(coefficient_table()).layout.yaxis
    assert list(axis.tickvals) == [0, 1, 2, 3, 4, 5]
    labels = list(axis.ticktext)
    assert labels[0] == "0 The"
    assert labels[4] == "4 The"
    assert all(c.isprintable() for label in labels for c in label)
    assert axis.range[0] > axis.range[1], "the first token is on top"


def test_a_panel_for_each_method_and_strength_in_the_order_asked_for():
    titles = [a.text for a in coefficient_heatmap(coefficient_table()).layout.annotations]
    assert titles == ["prompt", "ActAdd<br>as fitted (× 4)", "CAA<br>least squares (× 0.42)"]
    chosen = coefficient_heatmap(coefficient_table(), methods=["CAA", "prompt"]).layout.annotations
    assert [a.text.split("<br>")[0] for a in chosen] == ["CAA", "prompt"]


def test_panels_share_one_scale_that_is_symmetric_about_zero():
    table = coefficient_table()
    figure = coefficient_heatmap(table)
    assert {trace.coloraxis for trace in maps_of(figure)} == {"coloraxis"}
    axis = figure.layout.coloraxis
    assert (axis.cmin, axis.cmid, axis.cmax) == (-axis.cmax, 0, table["along"].abs().quantile(0.98))


def test_the_largest_value_can_be_the_end_of_the_colours():
    table = coefficient_table()
    figure = coefficient_heatmap(table, colour_quantile=1.0)
    assert figure.layout.coloraxis.cmax == table["along"].abs().max()
    assert "quantile" not in figure.layout.coloraxis.colorbar.title.text
    assert not marks_of(figure, BEYOND)


def test_cells_beyond_the_colours_are_marked_and_the_colour_bar_says_so():
    table = coefficient_table().assign(along=0.5)
    table.loc[[4, 40], "along"] = [-90.0, 70.0]
    figure = coefficient_heatmap(table, colour_quantile=0.9)
    below, above = marks_of(figure, BEYOND)
    for mark, row, symbol in ((below, 4, "triangle-down"), (above, 40, "triangle-up")):
        assert list(mark.x) == [str(table["layer"][row])]
        assert list(mark.y) == [table["token_index"][row]]
        assert list(mark.marker.symbol) == [symbol]
    said = figure.layout.coloraxis.colorbar.title.text
    assert "90 % quantile" in said
    assert "▴ ▾ beyond" in said


@pytest.mark.parametrize("unit", ["mean prompt push", "the given direction"])
def test_the_unit_is_that_of_the_table(unit, tmp_path):
    table = coefficient_table().assign(unit=unit)
    table.to_csv(tmp_path / "t.csv", index=False)
    table.to_parquet(tmp_path / "t.parquet")
    for given in (table, pd.read_csv(tmp_path / "t.csv"), pd.read_parquet(tmp_path / "t.parquet")):
        title = coefficient_heatmap(given).layout.coloraxis.colorbar.title.text
        assert f"(1 = {unit})" in title.replace("<br>", " ")
    both = pd.concat([table, table.assign(method="X", unit="something else")])
    title = coefficient_heatmap(both).layout.coloraxis.colorbar.title.text.replace("<br>", " ")
    assert f"(1 = {unit}, or something else)" in title
    assert "(1 =" not in coefficient_heatmap(table, "norm").layout.coloraxis.colorbar.title.text


def test_a_table_that_does_not_say_its_unit_is_given_none():
    title = coefficient_heatmap(coefficient_table()).layout.coloraxis.colorbar.title.text
    assert "1 = the table's direction" in title.replace("<br>", " ")


def test_a_robust_limit_is_the_quantile_and_the_colour_bar_says_so():
    table = coefficient_table()
    table.loc[3, "along"] = 1000.0
    axis = coefficient_heatmap(table, colour_quantile=0.9).layout.coloraxis
    assert axis.cmax == np.quantile(table["along"].abs(), 0.9)
    assert axis.cmin == -axis.cmax
    assert "90 % quantile" in axis.colorbar.title.text


def test_what_is_not_finite_is_grey_and_leaves_the_scale_alone():
    table = coefficient_table()
    first = table.index[table["method"] == "ActAdd"][0]
    largest = table["along"].abs().drop([first, first + 1, first + 2]).quantile(0.98)
    table.loc[[first, first + 1, first + 2], "along"] = [np.nan, np.inf, -np.inf]
    figure = coefficient_heatmap(table)
    (grey,) = grey_of(figure)
    assert grey.xaxis == maps_of(figure)[1].xaxis
    (marks,) = marks_of(figure, GREY)
    assert list(marks.x) == ["0", "1", "5"]
    assert list(marks.y) == [0, 0, 0]
    assert list(marks.marker.symbol) == ["x-thin", "triangle-up-open", "triangle-down-open"]
    assert np.isfinite(np.array(grey.z, dtype=float)).tolist() == [[True] * 3] + [[False] * 3] * 5
    assert {colour for _, colour in grey.colorscale} == {NOT_FINITE}
    assert list(grey.customdata[0]) == ["not measured", "∞", "−∞"]
    assert np.isnan(np.array(maps_of(figure)[1].z, dtype=float)[0]).all()
    assert figure.layout.coloraxis.cmax == pytest.approx(largest)
    assert "Grey cells" in caption(figure)
    assert "Grey" not in caption(coefficient_heatmap(coefficient_table()))


def test_a_cell_without_a_row_is_grey_too():
    table = coefficient_table()
    there = (table["token_index"] != 2) | (table["method"] != "CAA")
    figure = coefficient_heatmap(table[there])
    (grey,) = grey_of(figure)
    assert np.isfinite(np.array(grey.z, dtype=float)).any(axis=1).tolist() == [
        place == 2 for place in range(6)
    ]
    (marks,) = marks_of(figure, GREY)
    assert list(marks.y) == [2, 2, 2]
    everywhere = grey_of(coefficient_heatmap(table[table["token_index"] != 2]))
    assert len(everywhere) == 3, "a position that no method has is shown, not closed up"


def test_a_table_of_zeros_has_a_scale():
    axis = coefficient_heatmap(coefficient_table().assign(along=0.0)).layout.coloraxis
    assert (axis.cmin, axis.cmax) == (-1, 1)


def test_many_panels_go_below_each_other():
    lines = [(f"method {i}", "as fitted", 1.0) for i in range(PANELS_ACROSS + 2)]
    figure = coefficient_heatmap(coefficient_table(lines=lines))
    tops = {figure.layout[t.yaxis.replace("y", "yaxis")].domain[1] for t in maps_of(figure)}
    assert len(tops) == 2
    assert figure.layout.height > coefficient_heatmap(coefficient_table()).layout.height


def test_a_map_grows_with_its_text():
    few, many = (coefficient_heatmap(coefficient_table(tokens=["a"] * n)) for n in (20, 40))
    assert many.layout.height - few.layout.height == pytest.approx(20 * 1.3 * 13)


def test_a_map_of_many_tokens_is_no_higher_than_a_page_or_two():
    for turned in (False, True):
        figure = coefficient_heatmap(coefficient_table(tokens=["a"] * 400), transposed=turned)
        assert figure.layout.height < 2500
    assert "yaxis" in figure.layout


def test_a_range_of_tokens_is_shown_alone():
    table = coefficient_table(tokens=[f"t{i}" for i in range(30)])
    figure = coefficient_heatmap(table, tokens=(10, 20))
    assert list(maps_of(figure)[0].y) == list(range(10, 20))
    assert list(figure.layout.yaxis.range) == [19.5, 9.5]
    limit = table.loc[table["token_index"].between(10, 19), "along"].abs().quantile(0.98)
    assert figure.layout.coloraxis.cmax == limit


@pytest.mark.parametrize("column", ["along", "norm"])
def test_a_transposed_map_has_the_same_cells_in_strips(column):
    table = coefficient_table(tokens=[f"t{i}" for i in range(11)])
    figure = coefficient_heatmap(table, column, transposed=True, per_strip=5)
    strips = maps_of(figure)
    assert len(strips) == 3 * len(LINES)
    for number, strip in enumerate(strips):
        method = LINES[number % 3][0]
        assert list(strip.y) == ["0", "1", "5"]
        for i, place in enumerate(strip.x):
            for j, layer in enumerate((0, 1, 5)):
                assert strip.z[j][i] == cell(table, method, place, layer, column)
    assert [list(strip.x) for strip in strips[::3]] == [[0, 1, 2, 3, 4], [5, 6, 7, 8, 9], [10]]
    last = figure.layout[f"xaxis{len(strips)}"]
    assert list(last.range) == [9.5, 14.5], "its cells are as wide as the others'"


def test_many_tokens_have_labels_on_both_sides():
    figure = coefficient_heatmap(coefficient_table(tokens=["a"] * 60))
    sides = [
        (figure.layout[f"yaxis{n}"].side, figure.layout[f"yaxis{n}"].showticklabels)
        for n in ("", 2, 3)
    ]
    assert sides == [("left", True), ("left", False), ("right", True)]


# -- faithfulness ----------------------------------------------------------------------------------


def test_a_line_with_its_interval_for_each_method_and_strength():
    table = faithfulness_table()
    figure = relative_rmse_curve(table.sample(frac=1, random_state=5))
    for name, method, strength in (
        ("CAA, as fitted (× 1)", "CAA", "as fitted"),
        ("CAA, matched (× 0.5)", "CAA", "matched"),
        ("equivalent prompts", "equivalent prompts", ""),
    ):
        rows = table[(table["method"] == method) & (table["strength"] == strength)]
        line, band = named(figure, name), named(figure, f"{name}, 95 % interval")
        assert list(line.x) == [0, 1, 2, 3]
        assert list(line.y) == rows["relative_rmse"].tolist()
        assert list(band.x) == [0, 1, 2, 3, 3, 2, 1, 0, None]
        assert list(band.y) == [*rows["low"], *rows["high"][::-1], None]
        assert line.line.color == band.fillcolor == METHOD_COLOURS[method]
        assert band.fill == "toself"
        assert (line.legendgroup, band.showlegend) == (band.legendgroup, False)


def test_strengths_of_one_method_differ_in_width_and_marker():
    figure = relative_rmse_curve(faithfulness_table())
    fitted, matched = named(figure, "CAA, as fitted (× 1)"), named(figure, "CAA, matched (× 0.5)")
    assert fitted.line.width != matched.line.width
    assert fitted.marker.symbol != matched.marker.symbol
    assert fitted.line.dash == matched.line.dash


def test_in_grey_print_no_two_methods_are_one():
    table = faithfulness_table()
    names = [*METHODS, "mine", "yours"]
    table = pd.concat([table[table["strength"] == "as fitted"].assign(method=n) for n in names])
    figure = relative_rmse_curve(table)
    drawn = [t for t in figure.data if t.mode == "lines+markers" and t.showlegend is not False]
    assert len({(line.marker.symbol, line.line.dash) for line in drawn}) == len(names)
    assert len({line.marker.symbol for line in drawn}) == len(names)


def test_references_are_dashed_and_grey():
    figure = relative_rmse_curve(faithfulness_table())
    other, one = named(figure, "equivalent prompts"), named(figure, "1: same error as no steering")
    assert other.line.dash == one.line.dash == "dash"
    assert other.line.color == one.line.color == "#7f7f7f"
    assert list(one.y) == [1, 1]
    assert list(one.x) == [0, 3]
    for strength in ("as fitted (× 1)", "matched (× 0.5)"):
        assert named(figure, f"CAA, {strength}").line.dash != "dash"


def test_hover_says_interval_n_and_seed():
    table = faithfulness_table()
    line = named(relative_rmse_curve(table), "CAA, matched (× 0.5)")
    row = table[(table["strength"] == "matched") & (table["layer"] == 2)].iloc[0]
    assert list(line.customdata[2]) == [
        0.5,
        row["low"],
        row["high"],
        row["token_median"],
        20,
        812,
        7,
        row["relative_rmse_with_sinks"],
        3,
    ]
    assert "with %{customdata[8]} sinks %{customdata[7]:.3f}" in line.hovertemplate
    assert "n = %{customdata[4]} examples, %{customdata[5]} tokens, seed %{customdata[6]}" in (
        line.hovertemplate
    )
    assert "[%{customdata[1]:.3f}, %{customdata[2]:.3f}]" in line.hovertemplate
    assert "median of tokens %{customdata[3]" in line.hovertemplate


def test_the_denominator_is_beneath_and_once_if_it_is_shared():
    figure = relative_rmse_curve(faithfulness_table())
    (below,) = [trace for trace in figure.data if trace.yaxis == "y2"]
    assert (list(below.x), list(below.y)) == ([0, 1, 2, 3], [1, 2, 3, 4])
    assert figure.layout.yaxis2.domain[1] < figure.layout.yaxis.domain[0]
    assert figure.layout.xaxis.matches == "x2"


def test_denominators_that_differ_have_a_line_each():
    table = faithfulness_table()
    table.loc[table["method"] == "CAA", "denominator"] *= 3
    below = [trace for trace in relative_rmse_curve(table).data if trace.yaxis == "y2"]
    assert [list(trace.y) for trace in below] == [[3, 6, 9, 12], [1, 2, 3, 4]]
    assert [t.line.color for t in below] == [
        METHOD_COLOURS["CAA"],
        METHOD_COLOURS["equivalent prompts"],
    ]


def test_a_value_that_is_not_finite_is_a_gap_and_is_counted():
    table = faithfulness_table()
    table.loc[1, ["relative_rmse", "low", "high"]] = np.inf
    figure = relative_rmse_curve(table)
    assert np.isnan(named(figure, "CAA, as fitted (× 1)").y[1])
    band = named(figure, "CAA, as fitted (× 1), 95 % interval")
    assert list(band.x) == [-0.1, 0.1, 0.1, -0.1, None, 2, 3, 3, 2, None]
    assert "not finite: 1" in caption(figure)
    assert "not finite" not in caption(relative_rmse_curve(faithfulness_table()))


# -- sorted strengths ------------------------------------------------------------------------------


def test_strengths_are_sorted_and_relative_to_their_largest():
    table = coefficient_table(examples=(0, 1))
    figure = sorted_strengths(table, 5)
    for (method, _, _), line in zip(LINES, figure.data, strict=True):
        rows = table[(table["method"] == method) & (table["layer"] == 5)]
        expected = sorted(rows["along"].abs() / rows["along"].abs().max(), reverse=True)
        np.testing.assert_allclose(line.y, expected)
        np.testing.assert_allclose(line.x, np.arange(1, 13) / 12)
        assert line.line.color == METHOD_COLOURS[method]
        example, place, along = line.customdata[3]
        assert abs(along) == expected[3] * rows["along"].abs().max()
        found = rows[(rows["example"] == example) & (rows["token_index"] == place)]
        assert found["along"].item() == along
        assert line.text[3] == {0: "The", 1: "·end", 2: "&lt;b&gt;", 3: "⏎", 4: "The"}.get(
            place, "&#36;x&#36;"
        )


def test_a_method_that_does_nothing_is_a_line_at_zero_that_says_so():
    table = coefficient_table()
    table.loc[table["method"] == "CAA", "along"] = 0.0
    line = sorted_strengths(table, 0).data[2]
    assert list(line.y) == [0.0] * 6
    assert "no change at this layer" in line.name


def test_tokens_that_are_not_finite_are_left_out():
    table = coefficient_table()
    table.loc[table["token_index"] == 2, "along"] = np.nan
    table.loc[table["token_index"] == 3, "along"] = np.inf
    assert len(sorted_strengths(table, 1).data[0].y) == 4
    with pytest.raises(ValueError, match="no finite `along`"):
        sorted_strengths(table.assign(along=np.nan), 1)


# -- colours ---------------------------------------------------------------------------------------


def test_a_method_has_one_colour_whatever_else_is_drawn():
    assert method_colours(["CAA"])["CAA"] == method_colours(["prompt", "CAA", "X"])["CAA"]
    assert method_colours(["my method"]) == method_colours(["my method", "my method"])
    assert set(method_colours(["my method"]).values()) <= set(SPARE_COLOURS)


def test_no_two_methods_of_a_figure_share_a_colour():
    methods = [*METHOD_COLOURS, *(f"method {i}" for i in range(len(SPARE_COLOURS)))]
    colours = method_colours(methods)
    assert len(set(colours.values())) == len(methods)
    assert len(method_colours([*methods, "one more"])) == len(methods) + 1


# -- axes ------------------------------------------------------------------------------------------


def test_axes_say_what_they_show_and_in_which_unit():
    error = relative_rmse_curve(faithfulness_table()).layout
    assert error.yaxis.title.text == "relative RMSE (0 = as the prompt)"
    assert error.yaxis2.title.text.replace("<br>", " ") == "RMS norm of prompt’s change"
    assert (error.xaxis.title.text, error.xaxis2.title.text) == (None, "layer")
    assert (error.yaxis.rangemode, error.yaxis2.rangemode) == ("tozero", "tozero")
    spread = sorted_strengths(coefficient_table(), 5).layout
    assert spread.xaxis.title.text == "share of the tokens, strongest first"
    assert spread.yaxis.title.text == "|along| / its largest value"
    assert spread.title.subtitle.text.startswith("Layer 5, accumulated view.")
    shown = coefficient_heatmap(coefficient_table(examples=(3,))).layout
    assert shown.xaxis.title.text == "layer"
    assert shown.xaxis.type == "category", "layers that were not measured take no room"
    assert shown.title.subtitle.text.startswith("Example 3, accumulated view")


def test_legends_are_below_so_that_narrow_pages_keep_the_picture():
    for figure in (
        relative_rmse_curve(faithfulness_table()),
        sorted_strengths(coefficient_table(), 5),
    ):
        assert (figure.layout.legend.orientation, figure.layout.legend.yref) == ("h", "container")


def test_every_layer_has_a_tick_while_there_is_room():
    few = relative_rmse_curve(faithfulness_table()).layout.xaxis2
    assert list(few.ticktext) == ["0", "1", "2", "3"]
    many = relative_rmse_curve(faithfulness_table(range(64))).layout.xaxis2
    steps = {b - a for a, b in zip(many.tickvals, many.tickvals[1:], strict=False)}
    assert len(steps) == 1
    assert steps.pop() > 1


# -- bad input -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("draw", "says"),
    [
        (lambda t: coefficient_heatmap(t.drop(columns="off_axis")), "off_axis"),
        (lambda t: coefficient_heatmap(t[:0]), "without rows"),
        (lambda t: coefficient_heatmap(t, "alnog"), "'alnog'.*'along'"),
        (lambda t: coefficient_heatmap(t, "layer"), "'layer'.*'along'"),
        (lambda t: coefficient_heatmap(t), "2 examples.*example=0"),
        (lambda t: coefficient_heatmap(t, example=9), "example 9.*has 0, 1"),
        (lambda t: coefficient_heatmap(t, example=0, methods=["COLD"]), "'COLD'.*'CAA'"),
        (lambda t: coefficient_heatmap(t, example=0, methods=[]), "methods is empty"),
        (lambda t: coefficient_heatmap(t, example=0, view="local"), "'local'.*'accumulated'"),
        (lambda t: coefficient_heatmap(t, example=0, colour_quantile=0.0), "colour_quantile=0"),
        (lambda t: coefficient_heatmap(t, example=0, colour_quantile=98.0), "colour_quantile=98"),
        (
            lambda t: coefficient_heatmap(pd.concat([t, t]), example=0),
            "prompt has several rows at token_index 0, layer 0",
        ),
        (
            lambda t: coefficient_heatmap(
                t.assign(token=t["token"].where(t["method"] != "CAA", "?")), example=0
            ),
            "disagree on the token at position 0",
        ),
        (lambda t: sorted_strengths(t, 4), "layer 4.*has 0, 1, 5"),
        (lambda t: sorted_strengths(t, 5, methods=["COLD"]), "'COLD'.*'CAA'"),
        (lambda t: sorted_strengths(t, 5, view="local"), "'local'.*'accumulated'"),
        (lambda t: sorted_strengths(t.drop(columns="along"), 5), "along"),
        (lambda t: sorted_strengths(pd.concat([t, t]), 5), "prompt has several rows at example 0"),
        (lambda t: sorted_strengths(t[:0], 5), "without rows"),
    ],
)
def test_a_bad_coefficient_table_is_an_error_that_says_what_to_do(draw, says):
    with pytest.raises(ValueError, match=says):
        draw(coefficient_table(examples=(0, 1)))


@pytest.mark.parametrize(
    ("draw", "says"),
    [
        (lambda t: relative_rmse_curve(t.drop(columns=["low", "high"])), r"\['low', 'high'\]"),
        (lambda t: relative_rmse_curve(t[:0]), "without rows"),
        (lambda t: relative_rmse_curve(t, methods=["PSR"]), "'PSR'.*'CAA'"),
        (
            lambda t: relative_rmse_curve(pd.concat([t, t.assign(seed=8)])),
            "CAA, as fitted.*several rows at layer 0.*seed",
        ),
    ],
)
def test_a_bad_faithfulness_table_is_an_error_that_says_what_to_do(draw, says):
    with pytest.raises(ValueError, match=says):
        draw(faithfulness_table())


def test_the_table_is_left_as_it_was():
    for table, draw in (
        (coefficient_table(), coefficient_heatmap),
        (faithfulness_table(), relative_rmse_curve),
        (coefficient_table(), lambda t: sorted_strengths(t, 5)),
    ):
        before = table.copy(deep=True)
        draw(table)
        pd.testing.assert_frame_equal(table, before)


def test_pictures_load_neither_torch_nor_a_model():
    code = (
        "import sys, analysis.reports.page\n"
        "from analysis import Report, coefficient_heatmap, token_view, tradeoff_curve\n"
        "heavy = {'torch', 'transformer_lens', 'transformers', 'steerlens'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    root = Path(__file__).parent.parent
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=root, capture_output=True, text=True, timeout=240
    )
    assert done.stdout.strip() == "[]", done.stderr


@pytest.mark.parametrize("strength", ["", "as fitted", "least squares", "matched", "chosen"])
@pytest.mark.parametrize("look", [*METHODS.values(), *method_looks(map(str, range(6))).values()])
def test_every_marker_is_one_that_plotly_has(look, strength):
    go.Scatter(marker_symbol=marker_of(look, strength), line=line_of(look, strength))


@pytest.mark.parametrize(("tokens", "said"), [(6, "▴ ▾ beyond"), (2000, "cells lie beyond")])
def test_what_lies_beyond_the_colours_is_said_also_where_it_is_too_much_to_mark(tokens, said):
    table = coefficient_table(tokens=["a"] * tokens)
    figure = coefficient_heatmap(table, colour_quantile=0.1)
    bar = figure.layout.coloraxis.colorbar.title.text
    assert "colours end at the 10 % quantile" in bar
    assert said in bar
    assert bool(marks_of(figure, BEYOND)) == (tokens == 6)


def test_a_unit_is_shown_as_it_is_written():
    table = coefficient_table().assign(unit="<i>mine & $yours$")
    assert "(1 = &lt;i&gt;mine &amp; $yours$)" in (
        coefficient_heatmap(table).layout.coloraxis.colorbar.title.text
    )


def test_a_logarithmic_curve_has_ticks_at_one_two_and_five():
    figure = relative_rmse_curve(faithfulness_table().assign(relative_rmse=7.0), log=True)
    assert figure.layout.yaxis.type == "log"
    assert {0.5, 1.0, 2.0, 5.0, 10.0} - {0.5} <= set(figure.layout.yaxis.tickvals)
    assert figure.layout.xaxis.matches == "x2"
    assert figure.layout.xaxis2.matches is None, "an axis that matches itself is a loop"


def test_sinks_have_no_part_in_the_scale_and_are_not_marked_as_beyond_it():
    table = coefficient_table().assign(along=0.5, sink=False)
    table.loc[[4, 40], "along"] = 90.0
    table.loc[[4, 40], "sink"] = True
    figure = coefficient_heatmap(table, colour_quantile=1.0)
    assert figure.layout.coloraxis.cmax == 0.5
    assert not marks_of(figure, BEYOND)
    assert "quantile" not in figure.layout.coloraxis.colorbar.title.text


def test_a_long_word_in_a_panels_title_is_cut_before_its_neighbour():
    name = "an_unbreakable_name_of_a_method_that_is_longer_than_its_panel"
    lines = [(f"{name}_{n}", "as fitted", 1.0) for n in range(5)]
    figure = coefficient_heatmap(coefficient_table(lines=lines))
    titles = [
        note.text
        for note in figure.layout.annotations
        if "unbreakable" in note.text or "…" in note.text
    ]
    assert len(titles) == 5
    assert all("…" in title for title in titles)


def test_twenty_methods_look_different():
    names = ["a method", *(f"method {number}" for number in range(19))]
    looks = method_looks(names)
    assert len(set(looks.values())) == 20
