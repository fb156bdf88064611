"""A token view is static HTML in which text, colour, marks and title belong to the same token."""

import colorsys
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest

from analysis.figures.tokens import (
    DIVERGING,
    TokenView,
    colour_of,
    contrast,
    ink_on,
    token_view,
    token_views,
    visible,
)

# A right-to-left word, an emoji of four code points, half a character twice, markup, white space.
TEXT = [
    "The",
    " film",
    " مرحبا",
    " 👩‍💻",
    "\ufffd",
    "\udce2",
    "<b>",
    "&amp;",
    '"',
    "  ",
    ".\n",
    "",
    "The",
]


def table_of(tokens=TEXT, **columns):
    n = len(tokens)
    table = pd.DataFrame({"position": range(40, 40 + n), "value": np.linspace(-1, 2, n)})
    table["token"] = pd.Series(tokens, dtype=object)
    return table.assign(read=False, steered=False).assign(**columns)


class Tokens(HTMLParser):
    """The spans that have a title, in order: their title, style and text; and all tags seen."""

    def __init__(self, html):
        super().__init__(convert_charrefs=True)
        self.found, self.tags, self.attributes, self.open, self.outside = [], [], [], [], ""
        self.feed(html)
        assert not self.open, "every span is closed"

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [name for name, _ in attrs]
        if tag == "span":
            given = dict(attrs)
            self.open.append(given if "title" in given else None)
            if "title" in given:
                style = dict(rule.split(":", 1) for rule in given["style"].split(";"))
                self.found.append({"title": given["title"], "style": style, "text": ""})
        if tag == "br" and self.open[-1]:
            self.found[-1]["text"] += "\n"

    def handle_endtag(self, tag):
        if tag == "span":
            self.open.pop()

    def handle_data(self, data):
        if self.open and self.open[-1]:
            self.found[-1]["text"] += data
        else:
            self.outside += data


def test_text_title_and_colour_belong_to_the_right_token():
    table = table_of()
    shown = Tokens(token_view(table).html).found
    assert [token["text"].replace("⏎\n", "⏎") for token in shown] == [visible(t) for t in TEXT]
    for token, (_, row) in zip(shown, table.iterrows(), strict=True):
        assert token["title"].startswith(
            f"position {row['position']}, token “{visible(row['token'])}”: "
        )
        assert token["title"].endswith(f"value {row['value']:+.3g}")
        assert token["style"]["background"] == colour_of(row["value"], 2.0)


def test_rows_are_shown_by_position_whatever_their_order():
    table = table_of()
    assert token_view(table.iloc[::-1]).html == token_view(table).html


def test_there_is_nothing_but_spans_breaks_styles_and_titles():
    hostile = ['<script>alert("1")</script>', "' onmouseover='x", '" class="y', "</span>", "&lt;"]
    html = token_views(
        {"<i>CAA</i>": table_of(hostile), '"': table_of(hostile)}, "a <b>label</b>"
    ).html
    page = Tokens(html)
    assert set(page.tags) <= {"span", "br", "wbr"}
    assert set(page.attributes) == {"style", "title"}
    assert [token["text"] for token in page.found] == [*map(visible, hostile)] * 2
    assert "a <b>label</b>: -2 " in page.outside
    assert "<i>CAA</i>" in page.outside
    for never in ("<script", "<style", "http", "url(", "@import"):
        assert never not in token_view(table_of()).html


@pytest.mark.parametrize(
    ("token", "shown"),
    [
        ("film", "film"),
        (" film", "·film"),
        ("  a b ", "··a b·"),
        ("   ", "···"),
        ("\n", "⏎"),
        ("a\n\n b", "a⏎⏎·b"),
        ("\t", "⇥"),
        ("", "∅"),
        ("\x00", "⟨U+0000⟩"),
        ("\r", "⟨U+000D⟩"),
        ("\u200b", "⟨U+200B⟩"),
        ("a\u202eb", "a⟨U+202E⟩b"),
        ("\u200d", "⟨U+200D⟩"),
        ("👩\u200d💻", "👩\u200d💻"),
        ("\u0301", "◌\u0301"),
        ("e\u0301", "e\u0301"),
        ("\udce2\udc80", "⟨byte E2⟩⟨byte 80⟩"),
        ("\ud83d", "⟨U+D83D⟩"),
        ("\ufffd", "\ufffd"),
        ("日本", "日本"),
    ],
)
def test_the_unseen_is_made_visible(token, shown):
    assert visible(token) == shown
    shown.encode("utf-8")


def test_a_newline_is_shown_and_breaks_the_line():
    html = token_view(table_of(["a\n\nb", "c"])).html
    assert "a⏎<br/>⏎<br/>b</span>" in html
    assert html.count("<br/>") == 2


def test_a_line_may_break_before_a_token_that_begins_with_a_space():
    html = token_view(table_of([" a", "b", " c"])).html
    assert html.count("<wbr/><span") == 2


def test_right_to_left_text_sets_its_own_direction():
    assert "unicode-bidi:plaintext" in token_view(table_of([" مرحبا"])).html


def test_every_token_can_be_read_on_its_colour():
    values = np.linspace(-3, 3, 400)
    table = table_of(["x"] * len(values), value=values)
    for token in Tokens(token_view(table).html).found:
        assert contrast(token["style"]["color"], token["style"]["background"]) >= 4.5


def test_contrast_is_that_of_the_wcag():
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.01)
    assert contrast("#ff0000", "#ffffff") == pytest.approx(4.00, abs=0.01)
    assert contrast("#123456", "#123456") == 1
    for red in range(0, 256, 15):
        for green in range(0, 256, 15):
            grey = f"#{red:02x}{green:02x}80"
            assert contrast(ink_on(grey), grey) >= 4.5


def test_the_scale_is_centred_at_zero_and_clipped_at_its_ends():
    assert colour_of(0.0, 3.0) == DIVERGING[3]
    assert [colour_of(v, 3.0) for v in (-3.0, -2.0, -1.0, 1.0, 2.0, 3.0)] == [
        *DIVERGING[:3],
        *DIVERGING[4:],
    ]
    assert (colour_of(-9.0, 3.0), colour_of(float("inf"), 3.0)) == (DIVERGING[0], DIVERGING[-1])
    assert colour_of(0.5, 3.0) == "#fae9df"  # half way from f7f7f7 to fddbc7
    hue = [colorsys.rgb_to_hsv(*(int(c[i : i + 2], 16) for i in (1, 3, 5)))[0] for c in DIVERGING]
    assert all(0.5 < h < 0.7 for h in hue[:3]), "blue below zero"
    assert all(h < 0.1 or h > 0.9 for h in hue[4:]), "red above"


def test_the_legend_has_the_numbers_at_both_ends():
    assert "along: -2 " in Tokens(token_view(table_of(), "along").html).outside
    assert " +2" in Tokens(token_view(table_of(), "along").html).outside
    assert "≤" not in Tokens(token_view(table_of()).html).outside
    clipped = Tokens(token_view(table_of(), limit=0.5).html)
    assert "value: ≤ -0.5 " in clipped.outside
    assert "≥ +0.5" in clipped.outside
    assert clipped.found[-1]["title"].endswith("+2"), "the title has the value, not the limit"


@pytest.mark.parametrize("mark", ["read", "steered"])
def test_marks_are_on_the_right_tokens_and_in_the_legend(mark):
    marked = [i in (2, 3, 5) for i in range(len(TEXT))]
    page = Tokens(token_view(table_of(**{mark: marked})).html)
    for token, expected in zip(page.found, marked, strict=True):
        border = token["style"]["border-bottom"] == "3px solid currentColor"
        assert border == (expected and mark == "steered")
        assert token["title"].endswith(f", {mark}") == expected
    assert (mark in page.outside) == (mark == "steered")
    assert mark not in Tokens(token_view(table_of()).html).outside


def test_nan_has_no_colour_and_is_called_not_measured():
    values = np.linspace(-1, 1, len(TEXT))
    values[4] = np.nan
    page = Tokens(token_view(table_of(value=values)).html)
    plain = ["background" not in t["style"] and "color" not in t["style"] for t in page.found]
    assert plain == [i == 4 for i in range(len(TEXT))]
    assert page.found[4]["title"].endswith(": not measured")
    assert "not measured" in page.outside
    assert "not measured" not in Tokens(token_view(table_of()).html).outside


def test_infinite_values_do_not_stretch_the_scale():
    page = Tokens(token_view(table_of(["a", "b", "c"], value=[1.0, float("inf"), -2.0])).html)
    assert page.found[1]["title"].endswith("+inf")
    assert page.found[2]["style"]["background"] == DIVERGING[0]


def test_values_that_are_all_zero_or_missing_still_make_a_view():
    assert "value: -1 " in Tokens(token_view(table_of(value=0.0)).html).outside
    shown = Tokens(token_view(table_of(value=np.nan)).html).found
    assert {t["title"].rpartition(": ")[2] for t in shown} == {"not measured"}


def test_stacked_rows_share_one_scale():
    small, large = table_of(value=0.5), table_of(value=-2.0)
    page = Tokens(token_views({"prompt": small, "CAA": large}).html)
    assert len(page.found) == 2 * len(TEXT)
    assert page.found[0]["style"]["background"] == colour_of(0.5, 2.0)
    assert page.found[-1]["style"]["background"] == colour_of(-2.0, 2.0)
    assert page.outside.index("prompt") < page.outside.index("CAA") < page.outside.index("value:")


def test_notebooks_show_the_view():
    view = token_view(table_of())
    assert isinstance(view, TokenView)
    assert view._repr_html_() == view.html


def test_the_html_can_be_written_as_utf_8():
    html = token_views({"\udce2": table_of()}, "\udce2").html
    assert html.encode("utf-8").decode("utf-8") == html


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda t: token_view(t.drop(columns="read")), r"lacks the columns \['read'\]"),
        (lambda t: token_views({"CAA": t.drop(columns="value")}), r"'CAA' lacks .*\['value'\]"),
        (lambda t: token_view(t[:0]), "no rows"),
        (lambda t: token_view(pd.concat([t, t])), "several rows at position 40"),
        (lambda t: token_views({}), "no table"),
        (lambda t: token_views({"a": t, "b": t[:-1]}), "'a' and 'b' hold different texts"),
        (lambda t: token_views({"a": t, "b": t.assign(token="x")}), "different texts"),
        (lambda t: token_view(t, limit=0.0), "limit=0.0"),
        (lambda t: token_view(t, limit=float("nan")), "limit=nan"),
    ],
)
def test_bad_input_is_an_error_that_says_what_to_do(make, says):
    with pytest.raises(ValueError, match=says):
        make(table_of())


def test_the_view_survives_nbconvert():
    nbconvert = pytest.importorskip("nbconvert", reason="nbconvert is not installed")
    nbformat = pytest.importorskip("nbformat")
    html = token_views({"prompt": table_of(read=True), "CAA": table_of(steered=True)}).html
    v4 = nbformat.v4
    output = v4.new_output("display_data", data={"text/html": html})
    notebook = v4.new_notebook(cells=[v4.new_code_cell("view", outputs=[output])])
    page, _ = nbconvert.HTMLExporter().from_notebook_node(notebook)
    assert Tokens(page[page.index(html[:200]) :].partition("</div>")[0]).found == Tokens(html).found
    plain = token_view(table_of(["A", " film", ".\n", "مرحبا"], read=True)).html
    output["data"]["text/html"] = plain
    assert plain in nbconvert.HTMLExporter().from_notebook_node(notebook)[0]
