"""Tables summed up by place, kind and seed, and the figures and texts that are made of them."""

import numpy as np
import pandas as pd
import pytest
from scipy.stats import t
from test_figures import cell, coefficient_table, faithfulness_table

from analysis import (
    by_kind,
    by_position,
    caption,
    difference_heatmap,
    effect_against_faithfulness,
    effect_and_faithfulness,
    kind_profile,
    latex_table,
    line_panels,
    markdown_table,
    over_seeds,
)
from analysis.measures.token_kinds import KINDS, kinds_of

EXAMPLES = (0, 1, 2)


def several():
    return coefficient_table(examples=EXAMPLES).assign(unit="mean prompt push")


# -- measures --------------------------------------------------------------------------------------


def test_the_mean_at_a_place_is_over_the_examples():
    table = several()
    made = by_position(table, 5)
    rows = table[(table["layer"] == 5) & (table["method"] == "CAA") & (table["token_index"] == 3)]
    found = made[(made["method"] == "CAA") & (made["token_index"] == 3)].iloc[0]
    assert found["mean"] == pytest.approx(rows["along"].mean())
    assert (found["n_examples"], found["n_tokens"], found["unit"]) == (3, 3, "mean prompt push")
    assert found["low"] <= found["mean"] <= found["high"]
    assert len(made) == 3 * 6


def test_sinks_and_what_is_not_finite_are_left_out():
    table = several().assign(sink=lambda t: t["token_index"] == 0)
    table.loc[(table["token_index"] == 1) & (table["example"] == 2), "along"] = np.nan
    made = by_position(table, 5)
    assert sorted(set(made["token_index"])) == [1, 2, 3, 4, 5]
    assert set(made.loc[made["token_index"] == 1, "n_examples"]) == {2}


@pytest.mark.parametrize(
    ("tokens", "kinds"),
    [
        (
            ["It", " was", " great", ",", " un", "usual", " in", " 19", "99", ".", " The", " film"],
            ["first", "function word", "content word", "punctuation", "content word",
             "within a word", "function word", "number", "number", "punctuation",
             "sentence start", "content word"],
        ),
        (["A", "\n", "Good", "!", "\n\n", "Yes"],
         ["first", "punctuation", "sentence start", "punctuation", "punctuation",
          "sentence start"]),
        (["na", "ï⟨1/2⟩", "ï⟨2/2⟩", "ve", " 🙂⟨1/2⟩"],
         ["first", "within a word", "within a word", "within a word", "punctuation"]),
    ],
)  # fmt: skip
def test_kinds_follow_the_rules_that_are_written_down(tokens, kinds):
    table = pd.DataFrame({"example": 0, "token_index": range(len(tokens)), "token": tokens})
    assert kinds_of(table).tolist() == kinds
    shuffled = table.sample(frac=1, random_state=1)
    assert kinds_of(shuffled).sort_index().tolist() == kinds
    assert set(kinds) <= set(KINDS)


def test_kinds_can_be_a_column_of_ones_own():
    table = several().assign(pos=lambda t: np.where(t["token"] == "The", "DET", "X"))
    made = by_kind(table, 1, kinds="pos")
    assert sorted(set(made["kind"])) == ["DET", "X"]
    rows = table[(table["layer"] == 1) & (table["method"] == "CAA") & (table["token"] == "The")]
    mean = rows.groupby("example")["along"].mean().mean()
    assert made[(made["method"] == "CAA") & (made["kind"] == "DET")][
        "mean"
    ].item() == pytest.approx(mean)
    with pytest.raises(ValueError, match="no column 'upos'"):
        by_kind(table, 1, kinds="upos")


def test_a_layer_that_there_is_not_is_an_error():
    for measure in (by_kind, by_position):
        with pytest.raises(ValueError, match=r"no row is of layer 4.*\[0, 1, 5\]"):
            measure(several(), 4)
        with pytest.raises(ValueError, match="no measure 'push'"):
            measure(several(), 5, "push")


def test_seeds_give_a_mean_and_the_interval_of_student():
    runs = [faithfulness_table().assign(relative_rmse=value) for value in (0.5, 0.7, 0.9)]
    made = over_seeds(runs, "relative_rmse")
    half = t.ppf(0.975, 2) * 0.2 / np.sqrt(3)
    np.testing.assert_allclose(made["mean"], 0.7)
    np.testing.assert_allclose(made["high"] - made["mean"], half)
    assert set(made["n_seeds"]) == {3}
    one = pd.concat([run.assign(seed=i) for i, run in enumerate(runs)])
    pd.testing.assert_frame_equal(over_seeds(one, "relative_rmse"), made)
    assert over_seeds(runs[:1], "relative_rmse")["low"].isna().all()
    for others in (dict(enumerate(runs)).values(), iter(runs)):
        pd.testing.assert_frame_equal(over_seeds(others, "relative_rmse"), made)
    with pytest.raises(ValueError, match="column `run` or `seed`"):
        over_seeds(runs[0].drop(columns="seed"), "relative_rmse")
    with pytest.raises(ValueError, match="no table"):
        over_seeds([], "relative_rmse")


def shifts():
    return pd.DataFrame(
        {"method": ["CAA", "CAA", "PSR"], "strength": ["as fitted", "matched", "as fitted"],
         "strength_value": [1.0, 0.5, 1.0], "recovered": [0.2, 0.1, 0.9],
         "mean_kl": [1.0, 0.4, 2.0]}
    )  # fmt: skip


def test_effect_and_faithfulness_are_joined_by_method_and_strength():
    errors = faithfulness_table()
    made = effect_and_faithfulness(shifts(), errors, first_layer=2)
    assert made["method"].tolist() == ["CAA", "CAA"]
    for strength, error in zip(made["strength"], made["relative_rmse"], strict=True):
        rows = errors[(errors["strength"] == strength) & (errors["layer"] >= 2)]
        assert error == pytest.approx(rows["relative_rmse"].mean())
    assert (made["first_layer"].iloc[0], made["last_layer"].iloc[0]) == (2, 3)
    with pytest.raises(ValueError, match="errors end at layer 3"):
        effect_and_faithfulness(shifts(), errors, first_layer=9)
    with pytest.raises(ValueError, match="no method is in both"):
        effect_and_faithfulness(shifts().assign(method="X"), errors)


# -- figures ---------------------------------------------------------------------------------------


def test_every_model_has_a_panel_with_the_lines_of_its_rows():
    table = pd.concat([faithfulness_table().assign(model=name) for name in ("small", "large")])
    table["relative_rmse"] += (table["model"] == "large") * 1.0
    figure = line_panels(table, "relative_rmse", panel="model")
    assert [a.text for a in figure.layout.annotations] == ["small", "large"]
    for number, name in enumerate(("small", "large")):
        axis = "y" if number == 0 else "y2"
        lines = [t for t in figure.data if t.mode == "lines+markers" and t.yaxis == axis]
        assert len(lines) == 3
        rows = table[(table["model"] == name) & (table["strength"] == "matched")]
        (line,) = [line for line in lines if "matched" in line.name]
        assert list(line.y) == rows["relative_rmse"].tolist()
    shown = [t.name for t in figure.data if t.showlegend]
    assert len(shown) == len(set(shown)) == 3
    assert figure.layout.yaxis.range == figure.layout.yaxis2.range
    with pytest.raises(ValueError, match=r"several rows at layer 0.*panel="):
        line_panels(table, "relative_rmse")


def test_a_profile_by_position_says_its_unit_and_over_how_many():
    figure = line_panels(by_position(several(), 5), x="token_index")
    assert figure.layout.yaxis.title.text.replace("<br>", " ") == (
        "along the direction (1 = mean prompt push)"
    )
    assert "over 3 examples" in caption(figure)
    assert "over 3 seeds" in caption(
        line_panels(over_seeds([faithfulness_table()] * 3, "relative_rmse"))
    )


def test_each_kind_has_a_mark_of_each_method_at_its_mean():
    table = by_kind(several(), 5)
    figure = kind_profile(table)
    kinds = table["kind"].drop_duplicates().tolist()
    for trace in figure.data:
        method = trace.name.split(",")[0]
        rows = table[table["method"] == method]
        assert list(trace.x) == rows["mean"].tolist()
        assert [round(y) for y in trace.y] == [kinds.index(kind) for kind in rows["kind"]]
        np.testing.assert_allclose(trace.error_x.array, rows["high"] - rows["mean"])
    assert len({y for trace in figure.data for y in trace.y}) == 3 * len(kinds), (
        "none covers another"
    )


def test_effect_is_drawn_against_faithfulness_with_the_prompt_in_its_corner():
    table = effect_and_faithfulness(shifts(), faithfulness_table())
    figure = effect_against_faithfulness(table)
    line = next(trace for trace in figure.data if trace.name == "CAA")
    ordered = table.sort_values("strength_value")
    assert list(line.x) == ordered["relative_rmse"].tolist()
    assert list(line.y) == ordered["recovered"].tolist()
    assert list(line.customdata) == ["0.5", "1"]
    (prompt,) = [trace for trace in figure.data if trace.name == "prompt"]
    assert (list(prompt.x), list(prompt.y)) == ([0.0], [1.0])
    assert "prompt" not in {t.name for t in effect_against_faithfulness(table, "mean_kl").data}


def test_a_difference_is_that_of_the_cells():
    table = coefficient_table()
    figure = difference_heatmap(table, "ActAdd", "prompt")
    (shown,) = [trace for trace in figure.data if trace.type == "heatmap" and trace.coloraxis]
    for place in range(6):
        for i, layer in enumerate((0, 1, 5)):
            expected = cell(table, "ActAdd", place, layer, "along") - cell(
                table, "prompt", place, layer, "along"
            )
            assert shown.z[place][i] == pytest.approx(expected)
    assert "ActAdd minus prompt" in caption(figure)
    two = pd.concat([table, table[table["method"] == "CAA"].assign(strength="matched")])
    with pytest.raises(ValueError, match="CAA is there at"):
        difference_heatmap(two, "CAA", "prompt")
    difference_heatmap(two, "CAA", "prompt", strength="matched")
    with pytest.raises(ValueError, match="'PSR'"):
        difference_heatmap(table, "PSR", "prompt")


# -- tables as text --------------------------------------------------------------------------------


def test_a_latex_table_has_rules_escapes_and_intervals():
    table = pd.DataFrame(
        {"method": ["S-PSR_LL", "50 % & more"], "n": [3, 4], "relative_rmse": [0.41234, np.nan],
         "low": [0.38, np.nan], "high": [0.44, np.nan]}
    )  # fmt: skip
    text = latex_table(table, caption="Error_s", label="tab:e")
    assert r"\begin{tabular}{lrr}" in text
    assert r"S-PSR\_LL & 3 & 0.412 [0.38, 0.44] \\" in text
    assert r"50 \% \& more & 4 & -- \\" in text
    assert r"\caption{Error\_s}" in text
    assert r"\label{tab:e}" in text
    for rule in (r"\toprule", r"\midrule", r"\bottomrule"):
        assert text.count(rule) == 1


def test_a_markdown_table_shows_the_columns_asked_for_under_their_headings():
    table = pd.DataFrame(
        {"method": ["a|b"], "x": [-1.5], "x_low": [-2.0], "x_high": [-1.0], "y": [True]}
    )
    text = markdown_table(table, {"method": "Method", "x": "Change"}, digits=2)
    assert text.splitlines() == [
        "| Method | Change |",
        "| --- | ---: |",
        r"| a\|b | −1.5 [−2, −1] |",
    ]
    assert "x_low" not in markdown_table(table)
    assert "| yes |" in markdown_table(table)
    with pytest.raises(ValueError, match="no column"):
        markdown_table(table, ["z"])


@pytest.mark.parametrize("of", ["ActAdd", "prompt"])
def test_a_sink_of_either_method_is_one_of_their_difference(of):
    table = coefficient_table().assign(sink=False)
    one = (table["method"] == of) & (table["layer"] == table["layer"].max())
    table.loc[table[one].index[0], "sink"] = True
    figure = difference_heatmap(table, "ActAdd", "prompt")
    assert [trace.name for trace in figure.data if trace.type == "scatter"].count("sink") == 1
