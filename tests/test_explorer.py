"""`sl.explore` and its states, figures, pages and Python lines; what it refuses, and how."""

import builtins
import json
import re
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import plotly.graph_objects as go
import pytest

import analysis
import steerlens
from analysis.explorer import notebook
from analysis.explorer.explorer import Explorer
from analysis.explorer.methods import Method, Place, as_methods, families
from analysis.explorer.page import (
    BUDGET,
    explorer_assets,
    explorer_page,
    explorer_place,
    write_page,
)
from analysis.explorer.payload import effect_json, key_of, method_json, reading_json
from analysis.explorer.readings import MEASURES, VIEWS, Change, Reading
from analysis.explorer.study import as_strengths
from analysis.explorer.texts import tokens_of
from analysis.figures.tokens import TokenView
from analysis.reports.linked import linked_views
from analysis.reports.measured import Against
from steerlens import CAA, PromptPair, Site, Steering, at
from steerlens.sinks import SINK

PAIRS = [
    PromptPair.with_system(f"What is {thing}?", "You are kind.", f"{thing} is a very good day")
    for thing in ("it", "love", "the sea")
]


def steerings(model: Any) -> dict[str, Any]:
    v = steerlens.capture(model, ["I love it because you are kind"], 1).at(1)[-1]
    return {
        "CAA": at(1, CAA(v)),
        "family": {0: at(0, CAA(v)), -1: at(3, CAA(v))},
        "two": at([1, 2], CAA(0.5 * v)),
    }


@pytest.fixture
def explorer(gpt2: Any) -> Explorer:
    return steerlens.explore(gpt2, steerings=steerings(gpt2), pairs=PAIRS, max_new_tokens=4)


# -- States ----------------------------------------------------------------------------------------


def test_explore_is_a_name_of_steerlens_and_of_analysis() -> None:
    assert steerlens.explore is analysis.explore
    assert "explore" in dir(steerlens)


def test_the_first_state_is_the_first_method_as_fitted(explorer: Explorer) -> None:
    shown = {name: explorer.state[name] for name in ("text", "method", "place", "strength")}
    assert shown == {"text": 0, "method": "CAA", "place": 0, "strength": 1}
    assert explorer.state["question"] == "What is it?"
    assert explorer.state["instruction"] == "You are kind."
    assert "CAA at strength 1" in repr(explorer)


def test_a_state_is_changed_by_name_kept_as_text_and_made_again(explorer: Explorer) -> None:
    other = explorer.set(text=2, method="two", place="layer 2 alone", strength=0.25, layer=3)
    assert (other.state["place"], other.place.layers) == (2, (2,))
    assert other.state["question"] == "What is the sea?"
    assert explorer.state["text"] == 0
    assert explorer.at(json.loads(other.json)).state == other.state
    assert other.set(method="CAA").state["place"] == 0
    assert other.set(method="prompt").state["strength"] == 1
    assert other.set(token=10_000).state["token"] == len(other.study.line(2).response) - 1


def test_a_question_that_is_new_is_answered_by_the_prompted_model(explorer: Explorer) -> None:
    asked = explorer.ask("What is a house?", "Be kind.")
    assert asked.state["text"] == 3
    (pair,) = steerlens.prompted_pairs(
        explorer.study.model, ["What is a house?"], "Be kind.", max_new_tokens=4, temperature=0.8
    )
    assert asked.pair == pair
    assert explorer.at({"question": "What is love?", "instruction": "You are kind."}).state[
        "text"
    ] == 1  # fmt: skip


@pytest.mark.parametrize("place", [{}, {"method": "family", "place": 1}, {"method": "prompt"},
                                   {"method": "two", "place": 1, "strength": 0.5}])  # fmt: skip
@pytest.mark.parametrize("asks", [False, True])
def test_the_python_lines_make_the_state_again(
    explorer: Explorer, place: dict[str, Any], asks: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    kept = explorer.ask("What is home?", "Be kind.") if asks else explorer.set(text=1)
    kept = kept.set(**place, layer=2, measure="norm", view="local", minus="CAA")
    model = explorer.study.model
    given = {"model": model, "steerings": steerings(model), "pairs": PAIRS}
    exec(kept.python, given)
    assert given["explorer"].state == kept.state
    reading = kept.study.with_text(
        kept.state["text"], kept.state["method"], kept.place, kept.state["strength"]
    )
    if kept.state["method"] != "prompt":
        assert reading.text is not None
        assert capsys.readouterr().out.strip().endswith(reading.text.strip())


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"method": "CAB"}, "There is no method 'CAB'. There are prompt, CAA, family, two"),
        ({"minus": "CAB"}, "no method 'CAB'"),
        ({"place": 7}, "CAA has no place 7. Its places are 0 to 0: layer 1"),
        ({"place": "layer 9"}, "no place 'layer 9'"),
        ({"layer": 4}, "no layer 4: they are 0 to 3"),
        ({"layer": 1.5}, "no layer 1.5"),
        ({"view": "global"}, "no view 'global': accumulated, local"),
        ({"measure": "length"}, "no measure 'length': along"),
        ({"token": -99}, "no token -99"),
        ({"text": 3}, "no text 3: they are 0 to 2"),
        ({"strength": float("nan")}, "finite number; found nan"),
        ({"colour": 1}, "A state has no 'colour'. It has text,"),
        ({"question": " ", "instruction": "Be kind."}, "Write a question and an instruction"),
    ],
)
def test_a_state_that_cannot_be_is_refused(
    explorer: Explorer, change: dict[str, Any], said: str
) -> None:
    with pytest.raises(ValueError, match=re.escape(said)):
        explorer.at(change)


@pytest.mark.parametrize(
    ("given", "error", "said"),
    [
        ({"steerings": {}}, ValueError, "at least one"),
        ({"steerings": {"prompt": None}}, ValueError, "No method can be called 'prompt'"),
        ({"steerings": {"CAA": 3}}, TypeError, "found int"),
        ({"steerings": {"CAA": {}}}, TypeError, "found dict"),
        ({"pairs": []}, ValueError, "No pairs were given"),
        ({"strengths": ()}, ValueError, "finite numbers"),
        ({"strengths": (float("inf"),)}, ValueError, "finite numbers"),
        ({"baseline": " "}, ValueError, "baseline=' '"),
        ({"sinks": 0.5}, ValueError, "sinks=0.5"),
    ],
)
def test_what_cannot_be_explored_is_refused(
    gpt2: Any, given: dict[str, Any], error: type[Exception], said: str
) -> None:
    usual = {"steerings": steerings(gpt2), "pairs": PAIRS}
    with pytest.raises(error, match=re.escape(said)):
        steerlens.explore(gpt2, **{**usual, **given})


def test_a_fit_in_place_of_its_steering_is_told_what_to_give(gpt2: Any) -> None:
    class Fit:
        steering = 1

    with pytest.raises(TypeError, match=re.escape("Give its steering: CAA.steering")):
        as_methods({"CAA": Fit()}, gpt2)  # pyright: ignore[reportArgumentType]


def test_files_of_one_method_at_several_layers_are_one_family(gpt2: Any) -> None:
    v = steerlens.capture(gpt2, ["I love it"], 1).at(1)[-1]
    low, high, both = at(1, CAA(v)), at(2, CAA(v)), at([1, 2], CAA(v))
    named = {"CAA (joy_1)": low, "CAA (joy_2)": high, "PSR": both, "CAA (fear_2)": high}
    found = families(named)
    assert list(found) == ["CAA (joy)", "PSR", "CAA (fear_2)"]
    assert found["CAA (joy)"] == {low.sites[0]: low, high.sites[0]: high}
    method = as_methods(found, gpt2)[1]
    assert [place.label for place in method.places] == ["layer 1", "layer 2"]
    # Two of the same layer, and one that steers several, are no family.
    assert list(families({"a1": low, "a2": low})) == ["a1", "a2"]
    assert list(families({"a1": low, "a2": both})) == ["a1", "a2"]


# -- Figures ---------------------------------------------------------------------------------------


def test_each_figure_shows_the_present_state(explorer: Explorer) -> None:
    explorer = explorer.set(text=1, method="two", strength=2.0, view="local", measure="norm")
    heatmap = explorer.figure("heatmap")
    assert isinstance(heatmap, go.Figure)
    reading = explorer.study.reading(1, "two", explorer.place, 2.0)
    drawn = [np.array(trace.z, dtype=float).T for trace in heatmap.data if trace.type == "heatmap"]
    assert any(np.allclose(one, reading.cells["local"]["norm"]) for one in drawn)
    tokens = explorer.figure("tokens")
    assert isinstance(tokens, TokenView)
    assert "two" in tokens.html
    assert "layer 2" in tokens.html
    assert "sea" not in tokens.html
    curve = explorer.figure("faithfulness")
    assert isinstance(curve, go.Figure)
    line = next(one for one in curve.data if one.name == "two, chosen (× 2)")
    np.testing.assert_allclose(np.array(line.y, dtype=float), reading.rmse, rtol=1e-4)
    assert isinstance(explorer.set(view="accumulated").figure("strengths"), go.Figure)
    assert isinstance(explorer.set(method="prompt").figure("faithfulness"), go.Figure)
    with pytest.raises(ValueError, match="no figure 'pie' of an explorer: heatmap"):
        explorer.figure("pie")


# -- Pages -----------------------------------------------------------------------------------------


def content_of(html: str) -> dict[str, Any]:
    found = re.search(r'<script type="application/json">(.*?)</script>', html, re.DOTALL)
    assert found is not None
    return json.loads(found[1])


def test_the_page_holds_the_whole_grid_and_asks_nobody(explorer: Explorer, tmp_path: Path) -> None:
    path = explorer.save(tmp_path / "x.html", texts=[1], strengths=[0.0, 2.0])
    html = path.read_text(encoding="utf-8")
    assert not re.search(
        r"""(src|href)\s*=\s*["']?(?!#|data:)|@import|url\((?!["']?(#|data:))""", html
    )
    content = content_of(html)
    places = {("CAA", 0), ("family", 0), ("family", 1), ("two", 0)}
    keys = {key_of(0, method, place, s) for method, place in places for s in (0.0, 2.0)}
    assert set(content["readings"]) == {"0|prompt|0|1", *keys}
    assert all(reading["text_state"] == "done" for reading in content["readings"].values())
    assert all("lens" in reading for reading in content["readings"].values())
    assert content["texts"][0]["completions"][0]["text"]
    assert content["texts"][0]["completions"][1]["text"] == PAIRS[1].response
    assert "live" not in content
    assert [one["name"] for one in content["methods"]] == ["prompt", "CAA", "family", "two"]
    assert content["made"]["sampling"] == "seed 0, temperature 0.8, at most 4 tokens"
    quick = explorer.payload([1], [2.0], completions=False, lens=False)
    assert len(quick["readings"]) == 5


def test_no_text_can_leave_its_place_in_the_page() -> None:
    evil = "</script><script>alert(1)</script><!--<script>\udc80"
    html = explorer_page({"title": evil, "format": 1})
    assert html.count("<script") == 2  # the content, and the module
    assert "alert(1)</script" not in html
    place = explorer_place({"title": "<!--", "format": 1}, "<p>without scripts</p>")
    assert content_of(place) == {"title": "<!--", "format": 1}
    assert "<p>without scripts</p>" in place
    html.encode("utf-8")


def test_the_module_is_in_a_page_of_several_once() -> None:
    assert "explorer" not in explorer_place({"title": "", "format": 1}).replace(
        "data-steerlens-explorer", ""
    )
    assert explorer_assets().count("<script") == explorer_assets().count("<style") == 1


def test_a_page_that_cannot_be_written_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(OSError, match="Cannot write"):
        write_page(tmp_path / "folder", "text")
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


def test_a_large_page_is_warned_of(
    explorer: Explorer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("analysis.explorer.explorer.BUDGET", 1000)
    with pytest.warns(UserWarning, match=r"The page has 0\.\d MB. Fewer texts="):
        explorer.save(tmp_path / "x.html", [0], [1.0], completions=False, lens=False)


@pytest.mark.usefixtures("unchecked")  # a check of each of half a million numbers takes a minute
def test_4_methods_at_5_strengths_and_30_layers_of_60_tokens_are_under_8_mb() -> None:
    rng, n_layers, n_tokens = np.random.default_rng(0), 30, 60

    def change(n: int) -> Change:
        ids = rng.integers(50_000, size=2 * n).tolist()
        values = rng.normal(size=2 * n).tolist()
        return Change(*(list(zip(ids[i::2], values[i::2], strict=True)) for i in (0, 1)))

    def numbers() -> dict[str, np.ndarray]:
        return {name: rng.normal(size=(n_layers, n_tokens)) for name in MEASURES}

    places = [Place(f"layer {layer}", (layer,), None) for layer in (12, 16, 20, 24)]
    readings = {
        key_of(0, f"method {i}", 0, s): Reading(
            place=place,
            strength=s,
            cells={view: numbers() for view in VIEWS},
            sinks=np.zeros((n_layers, n_tokens), dtype=bool),
            steered=tuple(range(30, 90)),
            rmse=rng.normal(size=n_layers),
            kl=0.1234,
            recovered=0.1234,
            kl_by_token=rng.normal(size=n_tokens),
            changes=tuple(change(6) for _ in range(n_tokens)),
            lens=tuple(tuple(change(3) for _ in range(n_tokens)) for _ in range(n_layers)),
            text="a word " * 60,
        )
        for i, place in enumerate(places)
        for s in (0.0, 0.5, 1.0, 2.0, 4.0)
    }
    methods = [Method(f"method {i}", "#009e73", "dash", (p,)) for i, p in enumerate(places)]
    content = {
        "title": "",
        "format": 1,
        "vocabulary": {str(id_): "·vocabulary" for id_ in range(0, 50_000, 3)},
        "methods": [method_json(method, (0.0, 1.0), False) for method in methods],
        "readings": {key: reading_json(reading) for key, reading in readings.items()},
        "effect": {"0": [effect_json("method 0", 0, one) for one in readings.values()]},
    }
    assert 5e6 < len(explorer_page(content).encode()) < BUDGET


# -- Notebooks and reports -------------------------------------------------------------------------


def test_a_notebook_stores_static_html_that_nbconvert_shows(
    explorer: Explorer, monkeypatch: pytest.MonkeyPatch
) -> None:
    import nbformat
    from nbconvert import HTMLExporter

    monkeypatch.setattr(notebook, "png_of", lambda figure: b"PNG")
    shown: list[Any] = []
    monkeypatch.setattr("IPython.display.display", lambda thing, **_: shown.append(thing))
    explorer.set(text=1)._ipython_display_()
    bundle, widget = shown
    assert bundle["image/png"] == "UE5H"
    twin = re.search(r'data-steerlens-twin="(\w+)"', bundle["text/html"])
    assert twin is not None
    assert f'data-steerlens-twin="{twin[1]}"' in widget._esm  # where it lives, it hides its twin
    content = content_of(bundle["text/html"])
    assert content["texts"][0]["question"] == "What is love?"
    assert {"0|prompt|0|1", "0|CAA|0|1", "0|two|0|1"} <= set(content["readings"])
    cell = nbformat.v4.new_code_cell("explorer")
    cell.outputs = [
        nbformat.v4.new_output("display_data", bundle),
        nbformat.v4.new_output(
            "display_data",
            widget._repr_mimebundle_()[0]
            if isinstance(widget._repr_mimebundle_(), tuple)
            else widget._repr_mimebundle_(),
        ),
    ]
    page, _ = HTMLExporter().from_notebook_node(nbformat.v4.new_notebook(cells=[cell]))
    assert content_of(page)["title"] == explorer.title
    assert "What" in re.sub(r"<script.*?</script>", "", page, flags=re.DOTALL)


def test_what_lasts_is_the_bundle_and_needs_no_widget(
    explorer: Explorer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(notebook, "png_of", lambda figure: None)
    monkeypatch.setattr(notebook, "missing_widget", lambda: notebook.INSTALL)
    bundle = explorer._repr_mimebundle_()
    assert set(bundle) == {"text/plain", "text/html"}
    with pytest.raises(ImportError, match="pip install anywidget"):
        _ = explorer.widget


def test_without_anywidget_the_display_is_static_and_says_what_to_install(
    explorer: Explorer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(notebook, "png_of", lambda figure: None)
    monkeypatch.setattr("analysis.explorer.explorer.missing_widget", lambda: notebook.INSTALL)
    shown: list[Any] = []
    monkeypatch.setattr("IPython.display.display", lambda thing, **_: shown.append(thing))
    with pytest.warns(UserWarning, match="pip install anywidget"):
        explorer._ipython_display_()
    assert len(shown) == 1


def test_the_explorer_is_made_without_anywidget(gpt2: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def refuse(name: str, *given: Any, **named: Any) -> Any:
        if name.partition(".")[0] in ("anywidget", "ipywidgets", "kaleido"):
            raise ImportError(name)
        return real(name, *given, **named)

    monkeypatch.setattr(builtins, "__import__", refuse)
    monkeypatch.delitem(sys.modules, "anywidget", raising=False)
    explorer = steerlens.explore(gpt2, steerings=steerings(gpt2), pairs=PAIRS[:2])
    assert explorer.payload([0], [1.0], completions=False, lens=False)["format"] == 1


def test_a_live_view_has_every_text_and_the_numbers_of_the_present_one(explorer: Explorer) -> None:
    widget = explorer.set(text=1, method="two", place=1).widget
    content = widget.payload
    assert [one["question"] for one in content["texts"]] == [
        "What is it?", "What is love?", "What is the sea?",
    ]  # fmt: skip
    assert content["live"] == {"questions": True}
    assert {key.partition("|")[0] for key in content["readings"]} == {"1"}
    assert [place["label"] for place in content["methods"][3]["places"]] == [
        "all its layers", "layer 1 alone", "layer 2 alone",
    ]  # fmt: skip
    assert content["state"]["place"] == 1
    assert "export default" in widget._esm


def test_a_report_has_the_first_pair_and_what_is_written_at_strength_one(gpt2: Any) -> None:
    given = {"CAA": steerings(gpt2)["CAA"]}
    against: Against = {"baseline": "template", "sinks": SINK}
    content = linked_views(gpt2, PAIRS, given, 1, 0, against)
    assert content is not None
    assert len(content["texts"]) == 1
    assert content["state"]["layer"] == 1
    states = {key: reading["text_state"] for key, reading in content["readings"].items()}
    assert states == {
        "0|prompt|0|1": "done",
        "0|CAA|0|0.5": "none",
        "0|CAA|0|1": "done",
        "0|CAA|0|2": "none",
    }
    assert [key for key, reading in content["readings"].items() if "lens" in reading] == [
        "0|prompt|0|1",
        "0|CAA|0|1",
    ]
    assert linked_views(gpt2, PAIRS, {}, 1, 0, against) is None


def test_a_steering_is_given_as_it_is_and_not_changed(explorer: Explorer) -> None:
    for method in explorer.study.methods[1:]:
        assert all(isinstance(place.steering, Steering) for place in method.offered(True))


# -- Found in use ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "javascript"),
    [
        (1.0, "1"),
        (-2.0, "-2"),
        (0.5, "0.5"),
        (2 / 3, "0.6666666666666666"),
        (1e-05, "0.00001"),
        (1.5e-06, "0.0000015"),
        (1e-07, "1e-7"),
        (-2.5e-09, "-2.5e-9"),
        (1e15, "1000000000000000"),
    ],
)
def test_a_strength_in_a_key_is_written_as_javascript_writes_it(
    value: float, javascript: str
) -> None:
    assert key_of(0, "CAA", 1, value) == f"0|CAA|1|{javascript}"


def test_every_strength_of_a_page_has_its_reading(gpt2: Any) -> None:
    strengths = [0.0, 2 / 3, 1e-05, 1.0]
    given = {"CAA": steerings(gpt2)["CAA"]}
    one = steerlens.explore(gpt2, steerings=given, pairs=PAIRS[:2], strengths=strengths)
    content = json.loads(json.dumps(one.payload([0], completions=False, lens=False)))
    offered = content["methods"][1]["strengths"]
    assert sorted(offered) == sorted(strengths)
    for strength in (*offered, *(point["strength"] for point in content["effect"]["0"])):
        assert key_of(0, "CAA", 0, float(strength)) in content["readings"]


def test_a_difference_is_drawn_and_can_be_taken_away(explorer: Explorer) -> None:
    plain = explorer.set(method="two", strength=2.0)
    less = plain.set(minus="CAA")
    assert less.state["minus"] == "CAA"
    assert less.set(layer=1).state["minus"] == "CAA"
    assert less.set(minus=None).state["minus"] is None
    figure = less.figure("heatmap")
    assert isinstance(figure, go.Figure)
    own, other = (
        explorer.study.reading(0, name, place, 2.0).cells["accumulated"]["along"]
        for name, place in (("two", plain.place), ("CAA", explorer.set(method="CAA").place))
    )
    (drawn,) = (np.array(t.z, dtype=float).T for t in figure.data if t.type == "heatmap")
    np.testing.assert_allclose(drawn, own - other, atol=1e-9)


@pytest.mark.parametrize("kind", [np.int64, np.int32])
def test_numbers_of_numpy_make_a_state_that_is_json(explorer: Explorer, kind: Any) -> None:
    set_ = getattr(Explorer.set, "__wrapped__", Explorer.set)  # as users call it, unchecked
    state = set_(explorer, layer=kind(2), token=kind(1), strength=np.float32(0.5)).state
    assert json.loads(json.dumps(state)) == state
    assert (state["layer"], state["token"], state["strength"]) == (2, 1, 0.5)
    assert set_(explorer, layer=-1).state["layer"] == explorer.study.model.cfg.n_layers - 1
    for wrong in ("a", 2.5, None, 99):
        with pytest.raises(ValueError, match="There is no layer"):
            explorer.at({"layer": wrong})
    with pytest.raises(ValueError, match="There is no token 'a'"):
        explorer.at({"token": "a"})


@pytest.mark.parametrize("baseline", ["neutral", "none", "Be a robot."])
def test_the_lines_write_what_the_page_shows_under_any_baseline(gpt2: Any, baseline: str) -> None:
    given = {"CAA": steerings(gpt2)["CAA"]}
    model, pairs, given_steerings = gpt2, PAIRS[:2], given
    one = steerlens.explore(
        model, steerings=given, pairs=pairs, max_new_tokens=4, baseline=baseline
    ).set(strength=2.0)
    shown = one.study.with_text(0, "CAA", one.place, 2.0).text
    names: dict[str, Any] = {"model": model, "steerings": given_steerings, "pairs": pairs}
    printed: list[Any] = []
    exec(one.python, {**names, "print": printed.append})
    assert printed[-1].texts == (shown,)


def test_a_question_without_a_response_is_refused_with_advice(gpt2: Any) -> None:
    from analysis.measures.least_squares import split_by_question
    from analysis.measures.plain_side import require_pairs

    asked: Any = [PAIRS[0], steerlens.Conversation("Who are you?")]
    with pytest.raises(TypeError, match=r"found a Conversation\. .*prompted_pairs"):
        require_pairs(asked)
    split = getattr(split_by_question, "__wrapped__", split_by_question)
    with pytest.raises(TypeError, match=r"as prompted_pairs.*; found a list of .*Conversation"):
        split(asked)


@pytest.mark.parametrize(
    ("token", "text", "raw"),
    [("ï⟨1/2⟩", "ï", "ï"), ("ï⟨2/2⟩", "₂", ""), (" day", "·day", " day"), ("day", "day", None)],
)
def test_a_character_of_several_tokens_is_written_by_the_first(
    explorer: Explorer, token: str, text: str, raw: str | None
) -> None:
    line = replace(explorer.study.line(0), tokens=(token,), template=(False,))
    (entry,) = tokens_of(line)
    assert (entry["text"], entry.get("raw")) == (text, raw)


def test_a_family_member_steers_where_its_key_says(gpt2: Any) -> None:
    one = steerings(gpt2)
    for family in ({2: one["CAA"]}, {1: one["two"]}):
        with pytest.raises(ValueError, match=r"the one under \d steers at layer 1"):
            as_methods({"CAA": family}, gpt2)
    assert as_methods({"CAA": {1: one["CAA"]}}, gpt2)[1].places[0].layers == (1,)
    before = {Site(1, "resid_pre"): at(Site(1, "resid_pre"), one["CAA"].placed[0][1])}
    assert as_methods({"CAA": before}, gpt2)[1].places[0].label == "layer 1 resid_pre"
    bare = {1: before[Site(1, "resid_pre")]}  # ActAdd is fitted by a bare layer and acts before it
    assert as_methods({"ActAdd": bare}, gpt2)[1].places[0].label == "layer 1"


@pytest.mark.parametrize("strengths", ["12", 5, [], ["a"], [float("nan")], [None]])
def test_strengths_that_are_none_are_refused(strengths: Any) -> None:
    check = getattr(as_strengths, "__wrapped__", as_strengths)
    with pytest.raises(ValueError, match="strengths are finite numbers"):
        check(strengths)


def test_a_place_that_cannot_be_written_is_refused_before_the_work(
    explorer: Explorer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Explorer, "payload", lambda *_, **__: pytest.fail("it has begun"))
    for place in (tmp_path / "no" / "such" / "x.html", tmp_path):
        with pytest.raises(OSError, match="Cannot write"):
            explorer.save(place)


def test_the_effect_has_the_mean_error_from_the_place_up(explorer: Explorer) -> None:
    explorer = explorer.set(method="family", place="layer 3", strength=2.0)
    reading = explorer.study.reading(0, "family", explorer.place, 2.0)
    assert reading.rmse_above == pytest.approx(np.mean(reading.rmse[3:]))
    assert reading.rmse_above != pytest.approx(np.mean(reading.rmse))


def test_a_notebook_has_its_picture_where_one_can_be_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(figure: go.Figure) -> bytes:
        raise OSError("the browser went away")

    monkeypatch.setattr(notebook, "png_bytes", lambda figure: b"PNG")
    assert notebook.png_of(go.Figure()) == b"PNG"
    monkeypatch.setattr(notebook, "png_bytes", failing)
    assert notebook.png_of(go.Figure()) is None
