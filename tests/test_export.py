"""`save` writes what its suffix says, whole, at the size asked for, and asks no server."""

import builtins
import re

import plotly.graph_objects as go
import plotly.io as pio
import pytest
from figure_cases import cases, views

from analysis import CannotDraw, caption, save, styled, token_figure
from analysis.figures.frame import fitted

FIGURE = cases(6, 3, 8)["faithfulness"]()


def test_a_folder_that_is_missing_alone_is_made(tmp_path):
    assert save(FIGURE, tmp_path / "out" / "f.html").is_file()


def media_box(path):
    found = re.search(rb"/MediaBox \[0 0 ([\d.]+) ([\d.]+)\]", path.read_bytes())
    return float(found[1]), float(found[2])


@pytest.fixture(scope="module")
def browser():
    """Skip where kaleido finds no browser."""
    pytest.importorskip("kaleido")
    which = pytest.importorskip("choreographer.browsers.chromium").Chromium
    from choreographer.utils import get_browser_path

    if not get_browser_path(which_browser := ("chromium", "chrome", "google-chrome")):
        pytest.skip(f"none of {which_browser} is installed ({which.__name__})")


def test_a_column_of_a_paper_is_three_and_a_quarter_inches(browser, tmp_path):
    path = save(FIGURE, tmp_path / "f.pdf", style="paper")
    assert media_box(path)[0] == pytest.approx(3.25 * 72, abs=0.5)
    wide = save(FIGURE, tmp_path / "g.pdf", width="84mm", style="paper")
    assert media_box(wide)[0] == pytest.approx(84 / 25.4 * 72, abs=0.8)


def test_letters_in_a_pdf_are_letters_of_a_font_and_not_drawn(browser, tmp_path):
    raw = save(FIGURE, tmp_path / "f.pdf", style="paper").read_bytes()
    assert b"/FontFile" in raw or b"/FontDescriptor" in raw


@pytest.mark.parametrize("suffix", [".svg", ".png"])
@pytest.mark.parametrize("what", ["figure", "tokens"])
def test_pictures_are_written_as_what_they_are_called(browser, what, suffix, tmp_path):
    given = FIGURE if what == "figure" else views(12)
    path = save(given, tmp_path / f"f{suffix}", width=400, dpi=96)
    raw = path.read_bytes()
    if suffix == ".png":
        assert raw.startswith(b"\x89PNG")
        assert int.from_bytes(raw[16:20], "big") == 400
        return
    text = raw.decode()
    assert text.startswith("<svg")
    assert 'width="400"' in text
    assert "http://www.w3.org" in text
    assert not re.search(r"(href|src)=[\"']https?://", text)


def test_the_page_that_draws_asks_no_server(browser, tmp_path, monkeypatch):
    import kaleido

    pages = []
    plain = kaleido.PageGenerator.generate_index
    monkeypatch.setattr(
        kaleido.PageGenerator,
        "generate_index",
        lambda self, *a: pages.append(plain(self, *a)) or pages[-1],
    )
    save(FIGURE, tmp_path / "f.svg")
    assert pages
    assert not any("http" in page for page in pages)


@pytest.mark.parametrize("given", [FIGURE, views(12)], ids=["figure", "tokens"])
def test_html_is_one_page_that_needs_no_network(given, tmp_path):
    page = save(given, tmp_path / "f.html").read_text(encoding="utf-8")
    assert not re.search(r"<script[^>]+src=|<link", page)
    assert page.lower().lstrip().startswith(("<!doctype html", "<html"))
    assert "MathJax.js" not in page.partition("plotly.js v")[0]


def test_what_cannot_be_written_is_said_before_the_work(tmp_path, monkeypatch):
    monkeypatch.setattr("analysis.figures.export._drawn", lambda *_: pytest.fail("it has begun"))
    with pytest.raises(ValueError, match=r"'f.tiff'.*\.pdf, \.svg, \.png, \.html"):
        save(FIGURE, tmp_path / "f.tiff")
    with pytest.raises(FileNotFoundError, match=r"no folder .*nowhere"):
        save(FIGURE, tmp_path / "nowhere" / "else" / "f.pdf")
    for width in ("wide", "3 feet", 0, -3, "0.1in"):
        with pytest.raises(ValueError, match=r"width=.*is no length"):
            save(FIGURE, tmp_path / "f.pdf", width=width)
    with pytest.raises(ValueError, match="no style 'poster'"):
        save(FIGURE, tmp_path / "f.html", style="poster")
    with pytest.raises(ValueError, match="dpi=0"):
        save(FIGURE, tmp_path / "f.png", dpi=0)
    with pytest.raises(ValueError, match="as high as its lines"):
        save(views(3), tmp_path / "f.png", height=100)
    assert not list(tmp_path.iterdir())


def test_without_kaleido_there_is_advice_and_html_still_works(tmp_path, monkeypatch):
    real = builtins.__import__

    def without(name, *args, **kwargs):
        if name.partition(".")[0] == "kaleido":
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(CannotDraw, match=r"pip install \"steerlens\[export\]\""):
        save(FIGURE, tmp_path / "f.pdf")
    assert save(FIGURE, tmp_path / "f.html").exists()


def test_without_a_browser_there_is_advice(browser, tmp_path, monkeypatch):
    monkeypatch.setenv("BROWSER_PATH", str(tmp_path / "no-browser"))
    with pytest.raises(CannotDraw, match="BROWSER_PATH"):
        save(FIGURE, tmp_path / "f.pdf")
    assert not list(tmp_path.iterdir())


def test_an_earlier_file_stays_where_writing_fails(tmp_path, monkeypatch):
    path = save(FIGURE, tmp_path / "f.html")
    before = path.read_bytes()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", full)
    with pytest.raises(OSError, match=r"Cannot write .*No space left"):
        save(FIGURE, path, style="slides")
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["f.html"]


# -- styles ----------------------------------------------------------------------------------------


def test_a_paper_has_no_title_and_its_caption_is_the_title():
    paper = styled(FIGURE, "paper")
    assert paper.layout.title.text is None
    assert caption(paper).startswith(FIGURE.layout.title.text)
    assert "95 % bootstrap interval" in caption(paper)
    assert styled(paper, "notebook").layout.title.text == FIGURE.layout.title.text
    assert styled(FIGURE, "paper", title=True).layout.title.text


def test_columns_fonts_and_darkness_are_as_asked():
    assert styled(FIGURE, "paper").layout.width == 312
    two = styled(FIGURE, "paper", columns=2, font="serif")
    assert two.layout.width == 648
    assert "Times" in two.layout.template.layout.font.family
    assert "Arial" in styled(FIGURE, "paper").layout.template.layout.font.family
    dark = styled(FIGURE, dark=True)
    assert dark.layout.template.layout.paper_bgcolor == "#1b1e22"
    assert FIGURE.layout.template.layout.paper_bgcolor == "#ffffff", "the given one stays"


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ({"style": "poster"}, "no style 'poster'.*'paper', 'notebook', 'slides'"),
        ({"style": "slides", "columns": 1}, "only 'paper' has columns"),
        ({"style": "paper", "columns": 3}, "columns=3"),
        ({"style": "paper", "font": "comic"}, "neither 'sans' nor 'serif'"),
    ],
)
def test_a_style_that_there_is_not_is_an_error(asked, says):
    with pytest.raises(ValueError, match=says):
        styled(FIGURE, **asked)


def test_dark_and_back_is_as_before():
    back = styled(styled(FIGURE, "slides", dark=True), "notebook")
    for one, other in zip(FIGURE.data, back.data, strict=True):
        assert one.line.color == other.line.color
        assert one.line.width == pytest.approx(other.line.width or 0) or one.line.width is None


@pytest.mark.filterwarnings("ignore:.scattermapbox. is deprecated")  # plotly 6.1, of its own
def test_a_template_of_ones_own_wins(monkeypatch):
    own = go.Figure(FIGURE).update_layout(template="ggplot2")
    assert styled(own, "paper").layout.template.layout.plot_bgcolor == "rgb(237,237,237)"
    assert styled(own, "paper").layout.width == 312
    monkeypatch.setattr(pio.templates, "default", "ggplot2")
    drawn = cases(6, 3, 8)["faithfulness"]()
    assert drawn.layout.template.layout.plot_bgcolor == "rgb(237,237,237)"


def test_a_figure_of_another_package_is_left_alone_but_for_its_template():
    other = go.Figure(go.Scatter(x=[1, 2], y=[2, 3]), layout={"title": {"text": "Mine"}})
    assert styled(other, "paper").layout.width == 312
    assert fitted(other, 500, 300).layout.height == 300
    assert caption(other) == "Mine"


def test_a_height_without_room_is_an_error():
    assert fitted(FIGURE, 700, 500).layout.height == pytest.approx(500)
    with pytest.raises(ValueError, match=r"leaves no room.*or more"):
        fitted(FIGURE, 700, 90)


def test_a_view_without_tables_cannot_be_drawn():
    from analysis import TokenView

    with pytest.raises(ValueError, match="HTML alone"):
        token_figure(TokenView("<b>x</b>"))


def test_a_view_is_drawn_with_all_its_tokens_and_marks():
    figure = token_figure(views(9), "paper")
    texts = list(figure.data[0].text)
    assert texts.count("·film") == 2, "once for each method"
    assert "⋯ 3 template tokens" not in texts, "those have values"
    dashed = [s for s in figure.layout.shapes if s.type == "rect" and s.line.dash == "dash"]
    assert len(dashed) == 3, "a sink each, and one in the legend"
    assert figure.layout.width == 312


def test_a_coloured_text_is_styled_where_it_is_drawn(tmp_path):
    view = views(5)
    for options in ({"style": "slides"}, {"width": 300}, {"height": 300}):
        with pytest.raises(ValueError, match="laid out by its page"):
            save(view, tmp_path / "f.html", **options)
    unchecked = getattr(styled, "__wrapped__", styled)
    with pytest.raises(TypeError, match="found a coloured text"):
        unchecked(view, "paper")
