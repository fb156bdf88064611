"""A report is one page that needs nothing else, and says everything that was put in."""

import json
import os
import re
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import pytest
from plotly.offline import get_plotlyjs

from analysis.figures.style import METHOD_COLOURS
from analysis.figures.tokens import token_view
from analysis.reports.page import Report
from analysis.reports.script import SCRIPT

EMPTY = Report("A <title> & more", "First.\n\nSecond <b>.", {"seed": 0, "model": "tiny <&>"})
FIGURE = go.Figure(go.Scatter(x=[0, 1], y=[2.0, 3.0], text=["</script>", "<b>"])).update_layout(
    title_text="A line"
)
VOID = {"meta", "br", "wbr", "link", "img"}


class Page(HTMLParser):
    """Every tag with its attributes, the texts in each tag, and whether tags close in order."""

    def __init__(self, html):
        super().__init__(convert_charrefs=True)
        self.tags, self.texts, self.open = [], [], []
        self.feed(html)
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert tag in VOID or self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append((self.open[-1] if self.open else "", data))

    def of(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]

    def text_in(self, tag):
        return [text for name, text in self.texts if name == tag]


def generations(samples=(0, 1)):
    methods = (("CAA", 1.5), ("unsteered", np.nan), ("prompt", 1.0), ("CAA", 3.0))
    return pd.DataFrame(
        [
            {
                "prompt": prompt,
                "method": method,
                "strength_value": value,
                "sample": sample,
                "text": f"{prompt} {method} {value:g} {sample} <i>\nnext",
            }
            for method, value in methods
            for prompt in ("Tell <me>", "Ask")
            for sample in samples
        ]
    )


def whole():
    table = pd.DataFrame({"method": ["CAA"], "error": [0.25]})
    tokens = pd.DataFrame(
        {
            "position": [0, 1],
            "token": ["a", " b"],
            "value": [1.0, -1.0],
            "read": True,
            "steered": False,
        }
    )
    return (
        EMPTY.heading("One")
        .paragraph("Plain.")
        .figure(FIGURE, "It rises.")
        .heading("Part of one", 3)
        .table(table, "Errors.")
        .heading("Two")
        .generations(generations(), "Texts.")
        .tokens(token_view(tokens), "Coloured.")
        .figure(FIGURE, "It rises again.", alt="the line again")
    )


def test_the_page_is_whole_and_in_order():
    html = whole().html
    page = Page(html)
    assert html.startswith("<!DOCTYPE html>")
    assert page.of("html") == [{"lang": "en"}]
    assert page.text_in("title") == page.text_in("h1") == ["A <title> & more"]
    assert {"charset": "utf-8"} in page.of("meta")
    assert any(m.get("name") == "viewport" for m in page.of("meta"))
    assert page.text_in("h2") == ["Contents", "One", "Two", "How this was made"]
    assert page.text_in("h3") == ["Part of one"]
    assert {"First.", "Second <b>.", "Plain."} <= set(page.text_in("p"))
    order = [html.index(f">{text}<") for text in ("One", "Part of one", "Two", "How this was made")]
    assert order == sorted(order)


def test_the_contents_lead_to_every_heading():
    page = Page(whole().html)
    links = [a["href"].removeprefix("#") for a in page.of("a")]
    targets = [t["id"] for name, t in page.tags if name in ("h2", "h3") and "id" in t]
    assert links == targets
    assert len(set(links)) == 3
    assert page.text_in("a") == ["One", "Part of one", "Two"]
    assert "<nav" not in EMPTY.paragraph("No heading.").html


def test_nothing_is_fetched():
    html = whole().html
    page = Page(html)
    assert not page.of("link")
    assert not page.of("img")
    for _, attributes in page.tags:
        assert "src" not in attributes
        assert attributes.get("href", "#").startswith("#")
    (style,) = re.findall("<style>(.*?)</style>", html, re.DOTALL)
    assert "url(" not in style
    assert "@import" not in style
    ours = html.replace(get_plotlyjs(), "")
    assert "http" not in ours
    assert "MathJax.js" not in ours


def test_no_tool_bar_covers_a_title_on_a_narrow_screen():
    (style,) = re.findall("<style>(.*?)</style>", whole().html, re.DOTALL)
    assert re.search(r"@media \(max-width: 800px\) {[^}]*\.modebar { display: none", style)


def test_figures_send_nothing_away():
    config = json.loads(re.search(r'\{"responsive".*?\}', whole().html)[0])
    assert config["showSendToCloud"] is False
    assert not config.get("plotlyServerURL")


def test_plotly_is_embedded_once_and_only_where_there_is_a_figure():
    assert whole().html.count(get_plotlyjs()) == 1
    assert get_plotlyjs() not in EMPTY.paragraph("No figure.").html
    assert whole().html.count("Plotly.newPlot") == get_plotlyjs().count("Plotly.newPlot") + 2


def test_a_report_stays_below_eight_megabytes():
    assert len(whole().html.encode()) < 8e6


def test_the_same_report_is_the_same_page():
    assert whole().html == whole().html
    ids = [t["id"] for _, t in Page(whole().html).tags if "id" in t]
    assert len(ids) == len(set(ids))


def test_a_figure_has_a_name_and_a_sentence():
    page = Page(whole().html)
    labels = [t["aria-label"] for t in page.of("div") if t.get("class") == "picture"]
    assert labels == ["A line", "a text with coloured tokens", "the line again"]
    assert page.text_in("figcaption") == [
        "It rises.",
        "Errors.",
        "Texts.",
        "Coloured.",
        "It rises again.",
    ]


def test_a_text_in_a_figure_cannot_end_its_script():
    html = EMPTY.figure(FIGURE, "It rises.").html
    page = Page(html)
    assert len(page.of("script")) == html.count("</script>")
    assert '"</script>"' not in html


def test_token_views_are_embedded_unchanged():
    tokens = {"position": [0], "token": ["<x>"], "value": [1.0], "read": True, "steered": True}
    view = token_view(pd.DataFrame(tokens))
    assert view.html in EMPTY.tokens(view, "Coloured.").html


def test_all_text_is_escaped():
    evil = '<script>alert("x")</script>'
    report = (
        Report(evil, evil, {evil: evil})
        .heading(evil)
        .paragraph(evil)
        .table(pd.DataFrame({evil: [evil]}), evil)
        .generations(generations().assign(prompt=evil, text=evil, sample=range(16)), evil)
        .tokens(
            token_view(
                pd.DataFrame(
                    {
                        "position": [0],
                        "token": [evil],
                        "value": [0.0],
                        "read": False,
                        "steered": False,
                    }
                )
            ),
            evil,
            evil,
        )
    )
    (script,) = Page(report.html).text_in("script")
    assert script == SCRIPT
    assert report.html.count("<script") == 1
    assert evil in Page(report.html).text_in("h1")


def test_a_table_is_headed_aligned_and_rounded():
    table = pd.DataFrame(
        {
            "name": ["a", None],
            "error": [0.123456, np.nan],
            "size": [123456.7, 1e-7],
            "n": [812, 3],
            "kept": [True, False],
        },
        index=[7, 8],
    )
    page = Page(EMPTY.table(table, "Errors.").html)
    assert page.text_in("button") == ["name", "error", "size", "n", "kept"]
    assert page.text_in("td") == [
        "a",
        "0.123",
        "123,457",
        "812",
        "yes",
        "–",
        "–",
        "1e-07",
        "3",
        "no",
    ]
    assert [a.get("class") for a in page.of("td")[:5]] == [None, "number", "number", "number", None]
    assert {a["scope"] for a in page.of("th")} == {"col"}
    assert [a.get("data-value") for a in page.of("td")[:3]] == [None, "0.123456", "123456.7"]


def test_columns_are_named_in_words():
    table = pd.DataFrame({"mean_kl": [0.5], "my_own": [1], "n_tokens": [3]})
    page = Page(EMPTY.table(table, "Errors.").html)
    assert page.text_in("button") == ["KL from unsteered (nats a token)", "my own", "tokens"]
    assert [a["data-column"] for a in page.of("th")] == list(table.columns)


@pytest.mark.parametrize(("rows", "folded"), [(12, False), (13, True)])
def test_a_long_table_is_folded_and_its_caption_is_not(rows, folded):
    html = EMPTY.table(pd.DataFrame({"n": range(rows)}), "Numbers.").html
    page = Page(html)
    assert bool(page.of("details")) is folded
    assert page.text_in("summary") == ["Table of 13 rows"] * folded
    assert not folded or html.index("</details>") < html.index("Numbers.</figcaption>")


def test_a_cell_that_holds_a_list_shows_it():
    page = Page(EMPTY.table(pd.DataFrame({"layers": [[3, 4], []]}), "Layers.").html)
    assert page.text_in("td") == ["[3, 4]", "[]"]


def test_generations_stand_side_by_side():
    table = generations().sample(frac=1, random_state=2)
    order = list(dict.fromkeys(table["prompt"]))
    page = Page(EMPTY.generations(table, "Texts.").html)
    heads = page.text_in("h5")
    assert page.text_in("h4") == order
    assert heads[:4] == heads[4:], "each prompt has the same cards in the same order"
    assert set(heads[:2]) == {"unsteered", "prompt"}, "those without a strength come first"
    assert set(heads[2:4]) == {"CAA × 1.5", "CAA × 3"}
    written = iter(page.text_in("p")[2:])
    for prompt in order:
        for head in heads[:4]:
            method, _, times = head.partition(" × ")
            value = {"unsteered": "nan", "prompt": "1"}.get(method, times)
            for sample in (0, 1):
                assert next(written) == f"{prompt} {method} {value} {sample} <i>\nnext"
    assert next(written, None) is None
    swatches = [a["style"] for a in page.of("span") if a.get("class") == "swatch"]
    assert [s.removeprefix("background:") for s in swatches[:4]] == [
        METHOD_COLOURS[head.partition(" × ")[0]] for head in heads[:4]
    ]


def test_a_strength_of_one_is_not_named():
    table = (
        generations(samples=(0,)).assign(strength_value=1.0).drop_duplicates(["prompt", "method"])
    )
    assert Page(EMPTY.generations(table, "Texts.").html).text_in("h5")[2] == "CAA"


def test_what_was_found_stands_before_the_contents():
    page = EMPTY.found(["It is 0.5 <b>.", "n = 3."]).heading("One").paragraph("Plain.")
    html = page.html
    assert Page(html).text_in("li")[:2] == ["It is 0.5 <b>.", "n = 3."]
    assert html.index("n = 3.") < html.index("<nav") < html.index("Plain.")


def test_a_token_view_may_be_given_as_a_figure():
    tokens = {"position": [0], "token": ["<x>"], "value": [1.0], "read": True, "steered": True}
    view = token_view(pd.DataFrame(tokens))
    assert EMPTY.figure(view, "Coloured.") == EMPTY.tokens(view, "Coloured.")


@pytest.mark.parametrize(
    ("add", "given", "says"),
    [
        (Report.figure, pd.DataFrame({"n": [1]}), "it takes a plotly figure or a token view"),
        (Report.tokens, FIGURE, r"tokens got Figure.*goes into figure"),
        (Report.explorer, {"n": 1}, r"takes what explorer\.payload\(\) gives"),
    ],
)
def test_what_is_no_picture_is_refused_with_advice(add, given, says):
    unchecked = getattr(add, "__wrapped__", add)  # tests check types at every call, users do not
    with pytest.raises(TypeError, match=says):
        unchecked(EMPTY, given, "It rises.")


def test_a_text_that_is_missing_is_a_dash():
    table = generations(samples=(0,))
    page = Page(EMPTY.generations(table[1:], "Texts.").html)
    assert page.text_in("p").count("–") == 1


def test_how_this_was_made_is_said():
    page = Page(EMPTY.html)
    assert page.text_in("dt") == ["seed", "model"]
    assert page.text_in("dd") == ["0", "tiny <&>"]


def test_what_no_page_can_hold_is_replaced():
    html = EMPTY.paragraph("a\x00b\udce2c\x1b").html
    assert "a\ufffdb\ufffdc\ufffd" in html
    html.encode("utf-8")


def test_a_report_does_not_change_when_something_is_added():
    before = EMPTY.html
    assert EMPTY.paragraph("More.").html != before
    assert EMPTY.html == before
    assert EMPTY.parts == ()


def test_it_is_written_as_utf_8_and_nothing_else_is_left(tmp_path):
    report = EMPTY.paragraph("مرحبا 👩‍💻")
    path = report.write(tmp_path / "report.html")
    assert path.read_bytes().decode("utf-8") == report.html
    assert os.listdir(tmp_path) == ["report.html"]
    assert report.write(str(path)) == path, "again, over the first"


def test_a_failure_leaves_the_earlier_report_and_no_draft(tmp_path, monkeypatch):
    path = EMPTY.write(tmp_path / "report.html")
    before = path.read_bytes()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match=r"report\.html: No space left"):
        EMPTY.paragraph("New.").write(path)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["report.html"]


def test_it_is_never_half_written(tmp_path, monkeypatch):
    path = EMPTY.write(tmp_path / "report.html")
    seen = []
    replace = os.replace

    def watched(draft, target):
        seen.append((os.path.dirname(draft) == str(tmp_path), path.read_text(encoding="utf-8")))
        replace(draft, target)

    monkeypatch.setattr(os, "replace", watched)
    new = EMPTY.paragraph("New.")
    new.write(path)
    assert seen == [(True, EMPTY.html)]
    assert path.read_text(encoding="utf-8") == new.html


@pytest.mark.parametrize("place", ["missing/too/report.html", "file/report.html", "folder"])
def test_a_place_that_cannot_be_written_is_named(tmp_path, place):
    (tmp_path / "file").write_text("")
    (tmp_path / "folder").mkdir()
    with pytest.raises(OSError, match=f"Cannot write .*{place}.*Choose"):
        EMPTY.write(tmp_path / place)
    assert sorted(os.listdir(tmp_path)) == ["file", "folder"]


def test_a_folder_that_is_missing_alone_is_made(tmp_path):
    assert EMPTY.write(tmp_path / "out" / "report.html").is_file()


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: Report(" ", "intro", {"seed": 0}), "no title"),
        (lambda: Report("title", "intro", {}), "`made` is empty"),
        (lambda: EMPTY.heading("Deep", 3), "'Deep' of level 3"),
        (lambda: EMPTY.heading("One").heading("Deeper", 4), "level 4"),
        (lambda: EMPTY.heading("Top", 1), "level 1"),
        (lambda: EMPTY.figure(FIGURE, " "), "'A line' says nothing"),
        (lambda: EMPTY.figure(go.Figure(), "It rises."), "no title"),
        (lambda: EMPTY.table(pd.DataFrame({"a": []}), "Errors."), "without rows"),
        (lambda: EMPTY.generations(generations()[:0], "Texts."), "without rows"),
        (lambda: EMPTY.generations(generations().drop(columns="text"), "Texts."), r"\['text'\]"),
        (
            lambda: EMPTY.generations(pd.concat([generations(), generations()]), "Texts."),
            "two texts of 'CAA × 1.5' for sample 0 of prompt 'Tell <me>'",
        ),
    ],
)
def test_bad_input_is_an_error_that_says_what_to_do(make, says):
    with pytest.raises(ValueError, match=says):
        make()
