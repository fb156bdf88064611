"""Labels at points: each where it lies over nothing, and left out where there is no such place."""

import pandas as pd
import plotly.graph_objects as go
import pytest
from figure_cases import tradeoff

from analysis.figures import effect_against_faithfulness, tradeoff_curve
from analysis.figures.declutter import declutter
from analysis.figures.looks import NOTEBOOK

WIDTH, HEIGHT = 400.0, 300.0


def drawn(*traces):
    """Traces on a panel whose data are pixels, with their labels put in place."""
    figure = go.Figure([go.Scatter(**trace) for trace in traces])
    figure.update_xaxes(range=[0, WIDTH])
    figure.update_yaxes(range=[0, HEIGHT])
    declutter(figure, WIDTH, HEIGHT, NOTEBOOK)
    return figure.data


def labelled(x, y, text, mode="markers+text", **more):
    return {"x": x, "y": y, "text": text, "mode": mode, "marker": {"size": 8}, **more}


def marks(x, y):
    return {"x": x, "y": y, "mode": "markers", "marker": {"size": 8}}


@pytest.mark.parametrize(
    ("others", "side"),
    [
        ([], "top center"),
        ([(200, 162)], "bottom center"),
        ([(200, 162), (200, 138)], "middle right"),
        ([(200, 162), (200, 138), (212, 150)], "middle left"),
        ([(200, 165), (200, 135), (212, 150), (188, 150)], "top right"),
    ],
)
def test_a_label_makes_way_for_a_marker_whichever_was_drawn_first(others, side):
    point = labelled([200], [150], ["1"])
    crowd = marks(*zip(*others, strict=True)) if others else None
    for traces in ([point, crowd], [crowd, point]) if crowd else ([point],):
        (found,) = (trace for trace in drawn(*traces) if trace.text)
        assert found.textposition == (side,)


def test_a_label_without_a_place_is_left_out_and_kept_in_the_trace():
    around = [(200 + a, 150 + b) for a in (-16, -8, 0, 8, 16) for b in (-16, -8, 8, 16)]
    around += [(200 + a, 150) for a in (-16, -8, 8, 16)]
    point = labelled([200, 320], [150, 150], ["0.25", "1"], customdata=["0.25", "1"])
    found, _ = drawn(point, marks(*zip(*around, strict=True)))
    assert found.text == ("", "1")
    assert list(found.meta) == list(found.customdata) == ["0.25", "1"]


def test_a_label_stands_off_the_lines_where_it_can():
    (upright,) = drawn(labelled([200, 200], [20, 280], ["a", "b"], "lines+markers+text"))
    assert upright.textposition == ("bottom center", "top center")
    (level,) = drawn(labelled([20, 380], [150, 150], ["a", "b"], "lines+markers+text"))
    assert level.textposition == ("top center", "top center")
    bars = {"array": [90], "arrayminus": [90], "type": "data"}
    (crossed,) = drawn(labelled([200], [150], ["1"], error_x=bars, error_y=bars))
    assert crossed.textposition == ("top right",)


def test_a_label_stays_in_its_panel_and_away_from_points_without_a_place():
    (found,) = drawn(labelled([398, 200, None], [296, 2, 40], ["1", "2", "3"]))
    assert found.textposition[:2] == ("bottom left", "top center")
    assert found.text == ("1", "2", "")


def test_a_second_layout_begins_with_all_labels():
    traces = labelled([200, 203], [150, 150], ["0.25", "0.5"])
    figure = go.Figure(go.Scatter(**traces))
    figure.update_xaxes(range=[0, WIDTH])
    figure.update_yaxes(range=[0, HEIGHT])
    for width, shown in ((20.0, ("", "")), (WIDTH, ("0.25", "0.5"))):
        declutter(figure, width, HEIGHT, NOTEBOOK)
        assert figure.data[0].text == shown


def test_panels_do_not_take_one_anothers_places():
    table = tradeoff(3, n_strengths=4)
    same = table.loc[table["method"] == table["method"].iloc[-1]]
    twins = pd.concat([same.assign(method=name) for name in ("A", "B")])
    figure = tradeoff_curve(pd.concat([table[:2], twins]), apart=True)
    one, other = (trace for trace in figure.data if trace.name in "AB")
    assert one.text == other.text == ("1", "2", "3")
    assert one.textposition == other.textposition


def test_strengths_of_methods_that_lie_close_are_all_shown():
    """As in unit 5 of the course, where one method's labels lay over another's points."""
    points = {
        "DiM": [(0.81, 0.27), (0.72, 0.42), (0.98, 0.30)],
        "PSR": [(0.83, 0.39), (0.75, 0.59), (1.05, 0.03)],
        "ActAdd": [(0.99, 0.02), (1.10, -0.15), (2.15, -3.35)],
    }
    rows = [
        {"method": name, "strength": f"times {s:g}", "strength_value": s,
         "relative_rmse": x, "recovered": y}
        for name, each in points.items()
        for s, (x, y) in zip((0.5, 1.0, 2.0), each, strict=True)
    ]  # fmt: skip
    figure = effect_against_faithfulness(pd.DataFrame(rows))
    assert [trace.text for trace in figure.data if trace.text] == [("0.5", "1", "2")] * 3
