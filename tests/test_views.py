"""Views of deep models and long texts: which layer is shown, what is folded up, what is said."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import steerlens
from analysis import (
    assumption_curves,
    coefficient_heatmap,
    coefficients,
    dispersion,
    faithfulness_study,
    rank_share,
    sorted_strengths,
    token_view,
)
from analysis.reports.coloured_text import coloured_text
from analysis.reports.comparison import compare
from analysis.reports.measured import halves_said
from analysis.reports.shown_layer import shown_layer
from steerlens import CAA, PromptPair, at

PAIRS = [
    PromptPair.with_system(f"What is {thing}?", "You are kind.", f"{thing} is a very good day")
    for thing in ("it", "love", "the sea", "the dog", "the sun", "the house", "the cat", "home")
]


def readouts(r2: dict[int, float], n_questions: int = 8) -> pd.DataFrame:
    rows = [
        {"layer": layer, "readout": name, "r2": value + 0.1 * (name == "relu")}
        for layer, value in r2.items()
        for name in ("linear", "relu")
    ]
    return pd.DataFrame(rows).assign(n_questions=n_questions)


# -- the layer that is shown -----------------------------------------------------------------------


def test_the_layer_shown_is_where_the_push_is_most_decodable_of_those_that_all_methods_reach():
    table = readouts({0: 0.9, 5: 0.3, 11: 0.6, 23: 0.5})
    assert shown_layer(30, table).layer == 0
    found = shown_layer(30, table, lowest=4)
    assert found.layer == 11
    assert "from layer 4 up" in found.reason
    assert "R² 0.60 over 8 questions" in found.reason


@pytest.mark.parametrize(
    ("table", "says"),
    [
        (None, "begins"),
        (readouts({0: 0.9, 20: 0.3}, n_questions=3), "over 3 questions"),
        (readouts({0: -0.9, 20: -14.0}), "at no layer"),
        (readouts({0: float("nan"), 20: float("nan")}), "at no layer"),
    ],
)
def test_where_that_cannot_be_told_it_is_the_last_third(table: Any, says: str) -> None:
    found = shown_layer(30, table)
    assert found.layer == 20
    assert says in found.reason
    assert shown_layer(30, table, lowest=25).layer == 25


def test_a_comparison_shows_that_layer_and_says_why(gpt2: Any) -> None:
    v = steerlens.capture(gpt2, ["I love it"], 1).at(1)[-1]
    compared = compare(gpt2, PAIRS, {"low": at(0, CAA(v)), "high": at(2, CAA(v))}, n_shown=1)
    assert compared.layer in (2, 3)
    assert f"Layer {compared.layer} " in compared.layer_reason
    assert f"layer {compared.layer}" in compared.token_views[0].html
    assert (compared.n_train, compared.n_test) == (4, 4)
    assert set(compared.faithfulness["n_train"]) == {4}
    assert "The other 4, those of every second question" in halves_said(compared)


# -- token views -----------------------------------------------------------------------------------


def view(**marks: Any) -> str:
    table = pd.DataFrame(
        {
            "position": range(6),
            "token": ["<s>", "[I", "]", "hi", "the", "sea"],
            "value": [np.nan] * 4 + [50.0, 2.0],
            "read": [False] * 4 + [True] * 2,
            "steered": False,
        }
    )
    return token_view(table.assign(**marks), "along").html


def test_tokens_of_the_template_are_folded_up_and_can_still_be_read() -> None:
    html = view(template=[True, True, True, False, False, False])
    assert "⋯ 3 template tokens" in html
    assert "positions 0 to 2, written by the chat template: &lt;s&gt;[I]" in html
    assert "position 1," not in html
    assert "position 3," in html
    steered = view(
        template=[True, True, True, False, False, False],
        steered=[True, False, False, False, False, True],
    )
    assert "1 of them steered" in steered
    # What was measured is never hidden, and one token alone stays as it is.
    assert "template tokens" not in view(template=[True, False, False, False, True, True])


def test_a_sink_is_outlined_and_does_not_stretch_the_colours() -> None:
    html = view(sink=[False] * 4 + [True, False])
    assert "≥ " in html
    assert "+2 " in html or "+2<" in html
    assert "+50, read, a sink" in html
    assert html.count("outline:2px dashed") == 2, "the token and the legend"
    assert "outline" not in view()


def test_the_users_words_stay_and_the_template_around_them_is_folded(gpt2: Any) -> None:
    table = coefficients(gpt2, PAIRS[:2], [1], {})
    html = coloured_text(gpt2, PAIRS[0], 0, table, {}, 1).html
    shown = re.sub(r"<[^>]*>", "", html)
    assert shown.count("template tokens") == 2  # before the user's words, and after them
    assert "is·it?" in shown.replace(" ", "·").replace("··", "·")
    assert "assistant" not in shown
    raw = [PromptPair("It was", "Be kind. It was", "a good day")] * 2
    told = coloured_text(gpt2, raw[0], 0, coefficients(gpt2, raw, [1], {}), {}, 1).html
    assert "template tokens" not in told


# -- heat maps -------------------------------------------------------------------------------------


def long_table(tokens: int, layers: int, methods: int = 3) -> pd.DataFrame:
    index = pd.MultiIndex.from_product(
        [range(tokens), range(layers), [f"m{i}" for i in range(methods)]],
        names=["token_index", "layer", "method"],
    )
    table = index.to_frame(index=False)
    sink = (table["token_index"] == 7) & table["layer"].between(2, 8)
    return table.assign(
        example=0, token=" w", strength="as fitted", strength_value=1.0, view="accumulated",
        along=np.where(sink, 39.0, 1.0), off_axis=1.0, norm=1.0, relative_norm=1.0,
        rank1_share=1.0, sink=sink,
    )  # fmt: skip


def test_one_sink_does_not_blank_a_heat_map_and_is_marked() -> None:
    figure = coefficient_heatmap(long_table(30, 30))
    assert figure.layout.coloraxis.cmax == 1.0
    marks = [t for t in figure.data if t.name == "sink" and t.type == "scatter"]
    assert len(marks) == 3
    assert list(marks[0].marker.symbol) == ["diamond-open"] * 7
    assert "1 sink (layers 2 to 8)" in figure.layout.title.subtitle.text
    plain = coefficient_heatmap(long_table(30, 30).drop(columns="sink"), colour_quantile=1.0)
    assert plain.layout.coloraxis.cmax == 39.0


def test_a_heat_map_of_400_tokens_and_30_layers_has_room_for_its_labels() -> None:
    figure = coefficient_heatmap(long_table(400, 30))
    low, high = figure.layout.yaxis.domain
    inner = figure.layout.height - figure.layout.margin.t - figure.layout.margin.b
    panel = (high - low) * inner
    assert 400 < panel < 1200
    labels = len(figure.layout.yaxis.tickvals)
    assert panel / labels >= 12
    assert 6 <= len(figure.layout.xaxis.tickvals) <= 15
    small = coefficient_heatmap(long_table(20, 6))
    assert len(small.layout.yaxis.tickvals) == 20
    assert len(small.layout.xaxis.tickvals) == 6


def test_sorted_strengths_leave_sinks_out_and_count_them() -> None:
    table = long_table(30, 10)
    figure = sorted_strengths(table, 3)
    assert len(figure.data[0].y) == 29
    assert "Sinks left out: 1" in figure.layout.title.subtitle.text
    assert "Sinks" not in sorted_strengths(table, 0).layout.title.subtitle.text
    with pytest.raises(ValueError, match="every token at layer 3 is a sink"):
        sorted_strengths(table.assign(sink=True), 3)


# -- R^2 of few questions --------------------------------------------------------------------------


def curves(gpt2: Any, **columns: Any) -> Any:
    spread = dispersion(coefficients(gpt2, PAIRS[:4], [1, 2], {}))
    shares = rank_share(gpt2, PAIRS[:4], [1, 2], folds=4)
    table = readouts({1: 0.4, 2: -14.0}).assign(strength="along", low=-20.0, high=0.6, n_sinks=0)
    return assumption_curves(shares, spread, table.assign(**columns))


def test_an_r2_far_below_zero_is_drawn_at_the_edge_with_a_word(gpt2: Any) -> None:
    figure = curves(gpt2)
    lines = [trace for trace in figure.data if "read-out" in (trace.name or "")]
    assert [min(line.y) for line in lines] == [-1.0, -1.0]
    assert lines[0].customdata[1][0] == -14.0, "the hover text has the number itself"
    notes = [note.text for note in figure.layout.annotations]
    notes = [note.replace("<br>", " ") for note in notes]
    assert any("2 of 4 R² lie below -1 (down to -14)" in note for note in notes)
    assert "n = 4 questions" in figure.layout.title.subtitle.text


def test_an_r2_over_too_few_questions_is_left_out_with_a_sentence(gpt2: Any) -> None:
    figure = curves(gpt2, n_questions=2)
    assert not [trace for trace in figure.data if "read-out" in (trace.name or "")]
    notes = [note.text for note in figure.layout.annotations]
    assert any("an R² over 2 questions" in note.replace("<br>", " ") for note in notes)


def test_a_study_says_what_it_kept_for_strengths(gpt2: Any) -> None:
    steering = {"CAA": at(1, CAA(steerlens.capture(gpt2, ["I love it"], 1).at(1)[-1]))}
    studied = faithfulness_study(gpt2, PAIRS, steering)
    assert studied.faithfulness is not None
    assert set(studied.faithfulness["n_train"]) == {4}
    assert "Of 8 pairs 4 are measured" in halves_said(studied)
    few = faithfulness_study(gpt2, PAIRS[:3], steering)
    assert "All 3 pairs are measured. Methods appear as fitted only" in halves_said(few)


# -- refused before the model is loaded ------------------------------------------------------------


@pytest.mark.parametrize(
    ("command", "lines", "options", "says"),
    [
        ("faithfulness", 1, [], "at least two questions"),
        ("compare", 1, [], "at least two pairs"),
        ("faithfulness", 4, ["--baseline", " "], "'template'"),
        ("faithfulness", 4, ["--sinks", "0.5"], "above 1"),
        ("compare", 4, ["--steering", "gone.safetensors"], "no steering file"),
    ],
)
def test_what_cannot_be_measured_is_refused_before_the_model_is_loaded(
    run: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    command: str,
    lines: int,
    options: list[str],
    says: str,
) -> None:
    from steerlens.cli import inputs

    def load(*_: Any) -> None:
        raise AssertionError("the model is loaded")

    monkeypatch.setattr(inputs, "load", load)
    pairs = tmp_path / "pairs.jsonl"
    text = "".join(f'{{"user": "q{i}", "system": "Be kind."}}\n' for i in range(lines))
    pairs.write_text(text)
    (tmp_path / "there.safetensors").write_bytes(b"")
    steering = ["--steering", tmp_path / "there.safetensors"] if command == "compare" else []
    code, _, err = run(command, "--pairs", pairs, *steering, *options, "--out", tmp_path / "x.html")
    assert code == 2
    assert says in err


def test_one_cell_far_off_does_not_leave_a_heat_map_pale() -> None:
    table = long_table(30, 30).drop(columns="sink").assign(along=0.5)
    table.loc[7, "along"] = 40.0
    figure = coefficient_heatmap(table)
    assert figure.layout.coloraxis.cmax == 0.5
    assert "98 % quantile" in figure.layout.coloraxis.colorbar.title.text
    assert coefficient_heatmap(table, colour_quantile=1.0).layout.coloraxis.cmax == 40
